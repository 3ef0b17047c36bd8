//! Whatever the JSON of a definition can say, the builder of the SDK can say, and the page about definitions says: each
//! member and each form of the schema of definitions in the OpenAPI document is looked for in workflows that are
//! written with the builder.

mod page;
mod schema;
mod written;

use serde_json::{Value, json};

use schema::Walk;

/// Members and forms that the builder need not write, each with its reason.
const LEFT_OUT: &[(&str, &str)] = &[
    ("OnKill=kill", "what holds when nothing is said, and then nothing is written"),
    ("OnPause=pause", "what holds when nothing is said, and then nothing is written"),
];

fn document() -> Value {
    serde_json::to_value(backstitch_api::document()).unwrap()
}

#[test]
fn the_builder_writes_every_member_and_form_of_a_definition() {
    let document = document();
    let mut walk = Walk::of(&document["components"]["schemas"]);
    let wanted = walk.wanted("Definition");
    assert!(wanted.len() > 100, "the schema of definitions was not found: {wanted:?}");
    for written in written::all() {
        walk.follow("Definition", &written);
    }
    let left_out = |place: &String| LEFT_OUT.iter().any(|(left_out, _)| left_out == place);
    let missing: Vec<String> =
        wanted.into_iter().filter(|place| !walk.is_written(place) && !left_out(place)).collect();
    assert!(
        missing.is_empty(),
        "the JSON of a definition can say this, and no workflow of tests/all/parity/written.rs does, or always says the \
         same: {missing:#?}. Give the builder a method for it and use it there"
    );
    for (place, reason) in LEFT_OUT {
        assert!(!walk.is_written(place), "{place} is written, though it is left out as {reason}");
    }
}

#[test]
fn a_member_or_form_that_the_builder_lacks_is_named() {
    let mut document = document();
    let schemas = &mut document["components"]["schemas"];
    schemas["Task"]["properties"]["colour"] = json!({ "type": "string" });
    schemas["Class"]["enum"].as_array_mut().unwrap().push(json!("hopeless"));
    let half = json!({ "type": "object", "required": ["half"], "properties": { "half": { "type": "integer" } } });
    schemas["Join"]["oneOf"].as_array_mut().unwrap().push(half);
    let mut walk = Walk::of(&document["components"]["schemas"]);
    let wanted = walk.wanted("Definition");
    for written in written::all() {
        walk.follow("Definition", &written);
    }
    let missing: Vec<&str> =
        wanted.iter().map(String::as_str).filter(|place| !walk.is_written(place)).collect();
    assert_eq!(
        missing,
        ["Class=hopeless", "Join.half", "OnKill=kill", "OnPause=pause", "Task.colour"]
    );
}
