//! The page of the worker protocol names every member of what workers ask, are offered and say.

use std::collections::BTreeSet;

use serde_json::Value;

use super::blocks::root;

/// The types of the protocol in the OpenAPI document.
const TYPES: [&str; 15] = [
    "ClaimTasks",
    "ClaimedTasks",
    "CompleteTasks",
    "Failure",
    "FailureKind",
    "Forward",
    "Heartbeat",
    "HeartbeatTasks",
    "HeldTask",
    "ReleaseTasks",
    "SignOff",
    "TaskAnswer",
    "TaskAnswers",
    "TaskOutcome",
    "TaskReport",
];

/// The members of a type and the words that it may be, in whatever form it comes.
fn names(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::Object(properties)) = members.get("properties") {
                found.extend(properties.keys().cloned());
            }
            if let Some(Value::Array(words)) = members.get("enum") {
                found.extend(words.iter().filter_map(|word| word.as_str().map(str::to_owned)));
            }
            members.values().for_each(|member| names(member, found));
        }
        Value::Array(elements) => elements.iter().for_each(|element| names(element, found)),
        _ => {}
    }
}

fn members_of(document: &Value, name: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    names(&document["components"]["schemas"][name], &mut found);
    assert!(!found.is_empty(), "the OpenAPI document does not describe {name}");
    found
}

#[test]
fn the_page_of_the_worker_protocol_names_every_member_of_its_types() {
    let page = std::fs::read_to_string(root().join("docs/worker-protocol.md")).unwrap();
    let document = serde_json::to_value(backstitch_api::document()).unwrap();
    let is_named =
        |name: &str| page.contains(&format!("`{name}`")) || page.contains(&format!("\"{name}\""));
    for name in TYPES.iter().copied().chain(["TaskOffer"]) {
        let missing: Vec<String> =
            members_of(&document, name).into_iter().filter(|member| !is_named(member)).collect();
        assert!(missing.is_empty(), "docs/worker-protocol.md does not name {missing:?} of {name}");
    }
    // What the page says of an offer is in one.
    let offered = members_of(&document, "TaskOffer");
    let (_, offer) = page.split_once("is an **offer**").expect("the page describes an offer");
    let (offer, _) = offer.split_once("\n## ").unwrap();
    let rows = offer.lines().filter_map(|line| line.strip_prefix("| `")?.split(" |").next());
    for row in rows {
        for name in row.split("`, `").map(|name| name.trim_end_matches('`')) {
            assert!(offered.contains(name), "an offer has no {name}");
        }
    }
}
