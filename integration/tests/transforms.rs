//! Transforms: what is refused when they are registered, what they do with values they cannot map, and their bounds.

use backstitch_integration::Payload;
use backstitch_integration::contracts::Schema;
use backstitch_integration::document::{Value, read};
use backstitch_integration::transforms::{Failure, Limits, Mapped, Outcome, Transform};
use proptest::prelude::*;

const SOURCE: &str = r#"{"type":"object","required":["id"],"properties":{
    "id":{"type":"string"},"st":{"enum":["A","I"]},"bal":{"type":"string"},"cur":{"type":"string"},
    "tel":{"type":["string","null"]},"at":{"type":"string"},"n":{"type":"integer"},"ok":{"type":"boolean"},
    "names":{"type":"array","items":{"type":"string"}},"o":{"type":"object","properties":{"a":{"type":"string"},"b":{"type":"string"}}},
    "items":{"type":"array","items":{"type":"object","properties":{"sku":{"type":"string"},"q":{"type":"integer"}}}}}}"#;

const TARGET: &str = r#"{"type":"object","required":["id"],"properties":{
    "id":{"type":"string"},"status":{"enum":["active","inactive"]},"balance":{"type":"object","format":"money"},
    "phone":{"type":["string","null"],"format":"phone"},"born":{"type":"string","format":"date"},
    "seen":{"type":"string","format":"instant"},"count":{"type":"integer"},"tags":{"type":"array","items":{"type":"string"}},
    "lines":{"type":"array","items":{"type":"object","required":["sku"],"properties":{"sku":{"type":"string"},"count":{"type":"integer"}}}},
    "home":{"type":"object","required":["x"],"properties":{"x":{"type":"string"},"y":{"type":"string"}}}}}"#;

fn value(text: &str) -> Value {
    read(text.as_bytes(), 10_000_000).unwrap_or_else(|wrong| panic!("{text}: {wrong}")).1
}

fn schema(text: &str) -> Schema {
    Schema::parse(&value(text)).unwrap_or_else(|wrong| panic!("{wrong:#?}"))
}

/// Registers rules; those that fill what the target requires are added.
fn register(rules: &str) -> Result<Transform, Vec<(String, String)>> {
    let document = format!(
        r#"{{"rules":[{rules}{}{{"to":"/id","copy":"/id"}}]}}"#,
        if rules.is_empty() { "" } else { "," }
    );
    let payload =
        Payload::parse(&document, 100_000).unwrap_or_else(|wrong| panic!("{document}: {wrong}"));
    Transform::register(&payload, &schema(SOURCE), &schema(TARGET))
        .map_err(|wrong| wrong.into_iter().map(|one| (one.pointer, one.code)).collect())
}

fn run(rules: &str, source: &str) -> Result<Mapped, Vec<Failure>> {
    let transform = register(rules).unwrap_or_else(|wrong| panic!("{rules}: {wrong:#?}"));
    match transform.run(&value(source), &Limits::default()) {
        Outcome::Mapped(mapped) => Ok(*mapped),
        Outcome::Failed(failures) => Err(failures),
    }
}

#[test]
fn a_transform_that_cannot_work_is_refused_at_its_place() {
    for (rules, pointer, code) in [
        (r#"{"to":"/nowhere","copy":"/id"}"#, "/rules/0", "target_path_unknown"),
        (r#"{"to":"/status","copy":"/nowhere"}"#, "/rules/0", "source_path_unknown"),
        (r#"{"to":"/count","copy":"/id"}"#, "/rules/0", "target_type_mismatch"),
        (
            r#"{"to":"/count","copy":"/n"},{"to":"/count","const":1}"#,
            "/rules/1",
            "target_set_twice",
        ),
        (r#"{"to":"/home/y","copy":"/id"}"#, "/rules", "required_target_unfilled"),
        (
            r#"{"to":"/home","rename":"/o","keys":{"a":"y"}}"#,
            "/rules/0",
            "required_target_unfilled",
        ),
        (
            r#"{"to":"/home","rename":"/o","keys":{"a":"x","b":"z"}}"#,
            "/rules/0",
            "target_path_unknown",
        ),
        (
            r#"{"to":"/status","enum":"/st","map":{"A":"active"}}"#,
            "/rules/0/map",
            "enum_value_unmapped",
        ),
        (
            r#"{"to":"/status","enum":"/st","map":{"A":"active","I":"gone"}}"#,
            "/rules/0/map",
            "value_not_in_target",
        ),
        (
            r#"{"to":"/status","enum":"/st","map":{"A":"active","I":"inactive"},"on_error":"null"}"#,
            "/rules/0",
            "null_not_allowed",
        ),
        (r#"{"to":"/status","const":"x"}"#, "/rules/0", "value_not_in_target"),
        (r#"{"to":"/count","copy":"/n","default":"x"}"#, "/rules/0/default", "value_not_in_target"),
        (
            r#"{"to":"/count","copy":"/n","default":1,"required":true}"#,
            "/rules/0",
            "option_not_for_operation",
        ),
        (
            r#"{"to":"/count","copy":"/n","zone":"UTC"}"#,
            "/rules/0/zone",
            "option_not_for_operation",
        ),
        (r#"{"to":"/count","copy":"/n","const":1}"#, "/rules/0", "rule_not_valid"),
        (r#"{"to":"/count"}"#, "/rules/0", "rule_not_valid"),
        (r#"{"copy":"/n"}"#, "/rules/0", "rule_not_valid"),
        (r#"{"to":"/count","cpoy":"/n"}"#, "", "transform_not_valid"),
        (
            r#"{"to":"/seen","date":"/at","as":"instant","format":"%Y-%m-%d %H:%M"}"#,
            "/rules/0",
            "zone_missing",
        ),
        (
            r#"{"to":"/seen","date":"/at","as":"instant","format":"%Y-%m-%d","zone":"UTC"}"#,
            "/rules/0",
            "format_without_time",
        ),
        (
            r#"{"to":"/seen","date":"/at","as":"instant","format":"%Y-%m-%d %H:%M","zone":"Mars/Base"}"#,
            "/rules/0/zone",
            "zone_not_valid",
        ),
        (
            r#"{"to":"/born","date":"/at","as":"date","format":"%d.%m.%y"}"#,
            "/rules/0/format",
            "two_digit_year",
        ),
        (r#"{"to":"/born","date":"/at"}"#, "/rules/0/as", "rule_not_valid"),
        (r#"{"to":"/born","date":"/at","as":"instant"}"#, "/rules/0", "target_type_mismatch"),
        (r#"{"to":"/phone","email":"/tel"}"#, "/rules/0", "target_type_mismatch"),
        (r#"{"to":"/phone","phone":"/ok"}"#, "/rules/0", "source_type_mismatch"),
        (r#"{"to":"/phone","phone":"/tel","region_is":"UK"}"#, "/rules/0", "country_not_valid"),
        (r#"{"to":"/balance","money":{"amount":"/bal"}}"#, "/rules/0/money", "rule_not_valid"),
        (
            r#"{"to":"/balance","money":{"amount":"/bal","in":"EURO"}}"#,
            "/rules/0/money/in",
            "currency_not_valid",
        ),
        (
            r#"{"to":"/balance","unit":{"value":"/bal","in":"kg"}}"#,
            "/rules/0",
            "target_type_mismatch",
        ),
        (
            r#"{"to":"/balance","unit":{"value":"/bal","in":"kg","as":"m"}}"#,
            "/rules/0/unit",
            "units_not_convertible",
        ),
        (r#"{"to":"/tags","split":"/id","on":""}"#, "/rules/0", "rule_not_valid"),
        (r#"{"to":"/tags","split":"/id","on":",","part":0}"#, "/rules/0", "target_type_mismatch"),
        (
            r#"{"to":"/lines","each":"/items","rules":[{"to":"/count","copy":"/q"}]}"#,
            "/rules/0/rules",
            "required_target_unfilled",
        ),
        (
            r#"{"to":"/lines","each":"/items","rules":[{"to":"/sku","copy":"/nope"}]}"#,
            "/rules/0/rules/0",
            "source_path_unknown",
        ),
        (r#"{"to":"/lines","each":"/items","rules":[]}"#, "/rules/0/rules", "rule_not_valid"),
        (r#"{"to":"/lines/0/sku","copy":"/id"}"#, "/rules/0", "target_path_unknown"),
        (r#"{"to":"/tags","coalesce":[]}"#, "/rules/0", "rule_not_valid"),
    ] {
        let wrong = register(rules).expect_err(rules);
        assert!(wrong.contains(&(pointer.to_owned(), code.to_owned())), "{rules}: {wrong:?}");
    }
}

#[test]
fn what_no_rule_fills_is_refused_and_so_is_an_operation_of_the_event_that_is_not_mapped() {
    let refused = |document: &str| {
        let payload = Payload::parse(document, 10_000).expect("JSON");
        let wrong =
            Transform::register(&payload, &schema(SOURCE), &schema(TARGET)).expect_err(document);
        wrong.into_iter().map(|one| (one.pointer, one.code)).collect::<Vec<_>>()
    };
    let has = |found: Vec<(String, String)>, pointer: &str, code: &str| {
        assert!(found.contains(&(pointer.to_owned(), code.to_owned())), "{found:?}");
    };
    has(
        refused(r#"{"rules":[{"to":"/count","copy":"/n"}]}"#),
        "/rules",
        "required_target_unfilled",
    );
    has(
        refused(r#"{"op":{"at":"/st","enum":{"A":"C"}},"rules":[{"to":"/id","copy":"/id"}]}"#),
        "/op/enum",
        "enum_value_unmapped",
    );
    has(
        refused(r#"{"stream":"x","rules":[{"to":"/id","copy":"/id"}]}"#),
        "/stream",
        "template_not_valid",
    );
    has(
        refused(r#"{"stream":"x:{/nope}","rules":[{"to":"/id","copy":"/id"}]}"#),
        "/stream",
        "source_path_unknown",
    );
    has(refused(r#"{"rules":[{"to":"/id","copy":"/id"}],"more":1}"#), "", "transform_not_valid");
}

#[test]
fn a_value_that_cannot_be_mapped_is_answered_as_its_rule_says() {
    let rule = |answer: &str| format!(r#"{{"to":"/phone","phone":"/tel","on_error":"{answer}"}}"#);
    let source = r#"{"id":"a","tel":"030-901820"}"#;
    let null = run(&rule("null"), source).expect("null is allowed");
    assert_eq!(null.body.to_json(), r#"{"id":"a","phone":null}"#);
    let change = &null.changes[0];
    assert_eq!(
        (change.path.to_string().as_str(), change.reason.as_str()),
        ("/phone", "phone_region_missing")
    );
    assert_eq!(change.from, Value::from("030-901820"));

    for (answer, reject) in [("incident", false), ("reject", true)] {
        let failures = run(&rule(answer), source).expect_err("it fails");
        let [failure] = &failures[..] else { panic!("{failures:#?}") };
        assert_eq!(
            (failure.pointer.to_string().as_str(), failure.code.as_str()),
            ("/tel", "phone_region_missing")
        );
        assert_eq!((failure.reject, failure.rule.as_str()), (reject, "/rules/0"));
        assert_eq!(failure.value, Value::from("030-901820"));
    }
    // A raw value that the contract of the target does not allow is no result.
    let failures = run(&rule("keep_raw"), source).expect_err("not in the format");
    assert_eq!(
        (failures[0].code.as_str(), failures[0].pointer.to_string().as_str()),
        ("result_format", "/phone")
    );
}

#[test]
fn all_failures_are_listed_with_their_places() {
    let rules = r#"{"to":"/status","enum":"/st","map":{"A":"active","I":"inactive"}},
        {"to":"/balance","money":{"amount":"/bal","currency":"/cur"}},
        {"to":"/lines","each":"/items","rules":[{"to":"/sku","copy":"/sku","required":true}]}"#;
    let failures = run(rules, r#"{"id":"a","st":"X","bal":"10.5","cur":"JPY","items":[{"sku":"s"},{"q":1},{"sku":null}]}"#).expect_err("it fails");
    let found: Vec<(String, &str)> =
        failures.iter().map(|one| (one.pointer.to_string(), one.code.as_str())).collect();
    let expected = [
        ("/st", "enum_value_unknown"),
        ("/bal", "scale_exceeded"),
        ("/items/1/sku", "value_missing"),
        ("/items/2/sku", "value_missing"),
    ];
    assert_eq!(found, expected.map(|(at, code)| (at.to_owned(), code)));
    let failures = run(rules, r#"{"id":"a","bal":"1","items":7}"#).expect_err("it fails");
    let found: Vec<&str> = failures.iter().map(|one| one.code.as_str()).collect();
    assert_eq!(found, ["currency_missing", "not_a_list"]);
}

#[test]
fn values_that_no_rule_read_are_kept() {
    let rules = r#"{"to":"/home","rename":"/o","keys":{"a":"x"}},
        {"to":"/lines","each":"/items","rules":[{"to":"/sku","copy":"/sku"}]}"#;
    let mapped = run(rules, r#"{"id":"a","o":{"a":"1","c":"2"},"items":[{"sku":"s","q":12.50},{"sku":"t"}],"x":{"y":[]}}"#).expect("it is mapped");
    let unmapped = Value::Object(mapped.unmapped);
    assert_eq!(unmapped.to_json(), r#"{"/items/0/q":12.50,"/o/c":"2","/x":{"y":[]}}"#);
    assert_eq!(
        mapped.body.to_json(),
        r#"{"home":{"x":"1"},"id":"a","lines":[{"sku":"s"},{"sku":"t"}]}"#
    );
}

#[test]
fn a_test_tells_what_each_rule_did() {
    let transform = register(
        r#"{"to":"/count","copy":"/n","default":0},{"to":"/balance","money":{"amount":"/bal","in":"EUR"}},
        {"to":"/phone","phone":"/tel","on_error":"null"},{"to":"/born","date":"/at","as":"date"}"#,
    )
    .expect("it is right");
    let (outcome, trace) =
        transform.test(&value(r#"{"id":"a","bal":"12.3","tel":"x"}"#), &Limits::default());
    assert!(matches!(outcome, Outcome::Mapped(_)));
    let lines: Vec<(&str, &str, &str, Option<&str>)> = trace
        .iter()
        .map(|line| (line.rule.as_str(), line.operation, line.result, line.code.as_deref()))
        .collect();
    assert_eq!(
        lines,
        [
            ("/rules/0", "copy", "default", None),
            ("/rules/1", "money", "set", None),
            ("/rules/2", "phone", "null", Some("phone_extension")),
            ("/rules/3", "date", "absent", None),
            ("/rules/4", "copy", "set", None),
        ]
    );
    assert_eq!(trace[1].value.to_json(), r#"{"amount":"12.30","currency":"EUR"}"#);
}

#[test]
fn an_execution_ends_within_its_bounds() {
    let transform =
        register(r#"{"to":"/lines","each":"/items","rules":[{"to":"/sku","copy":"/sku"}]}"#)
            .expect("it is right");
    let items: Vec<String> = (0..1_000).map(|index| format!(r#"{{"sku":"s{index}"}}"#)).collect();
    let source = value(&format!(r#"{{"id":"a","items":[{}]}}"#, items.join(",")));
    let code = |limits: Limits| match transform.run(&source, &limits) {
        Outcome::Failed(failures) => failures[0].code.clone(),
        Outcome::Mapped(_) => "mapped".to_owned(),
    };
    assert_eq!(code(Limits::default()), "mapped");
    assert_eq!(code(Limits { steps: 500, ..Limits::default() }), "too_many_steps");
    assert_eq!(code(Limits { output_bytes: 5_000, ..Limits::default() }), "output_too_large");
    assert_eq!(code(Limits { depth: 2, ..Limits::default() }), "output_too_deep");
}

#[test]
fn phone_numbers_count_as_the_work_that_they_are() {
    let open = schema(r#"{"type":"object"}"#);
    let document = r#"{"rules":[{"to":"/l","each":"/l","rules":[{"to":"/p","phone":"/p","on_error":"null"}]}]}"#;
    let document = Payload::parse(document, 1_000).expect("JSON");
    let transform = Transform::register(&document, &open, &open).expect("it is right");
    let numbers =
        |count: usize| value(&format!(r#"{{"l":[{}]}}"#, vec![r#"{"p":"x"}"#; count].join(",")));
    assert!(matches!(transform.run(&numbers(400), &Limits::default()), Outcome::Mapped(_)));
    let Outcome::Failed(failures) = transform.run(&numbers(600), &Limits::default()) else {
        panic!("it was mapped")
    };
    assert_eq!(failures[0].code, "too_many_steps");
}

#[test]
fn nested_copies_do_not_multiply_a_document() {
    // Each level copies the whole list for every element of it: the bound ends it.
    let transform = register(
        r#"{"to":"/tags","split":"/id","on":"a"},{"to":"/lines","each":"/items","rules":[{"to":"/sku","copy":"/sku"}]}"#,
    )
    .expect("it is right");
    let source = value(&format!(r#"{{"id":"{}"}}"#, "a".repeat(600_000)));
    let Outcome::Failed(failures) = transform.run(&source, &Limits::default()) else {
        panic!("it was mapped")
    };
    assert_eq!(failures[0].code, "output_too_large");
}

/// Generates rules of every operation, and documents that fit them more or less.
fn rules() -> impl Strategy<Value = String> {
    prop::sample::subsequence(
        vec![
            r#"{"to":"/count","copy":"/n","as":"integer"}"#,
            r#"{"to":"/status","enum":"/st","map":{"A":"active","I":"inactive","true":"active"},"else":{"value":"inactive"}}"#,
            r#"{"to":"/balance","money":{"amount":"/bal","currency":"/cur","round":"half_even"}}"#,
            r#"{"to":"/phone","phone":"/tel","region_is":"DE","on_error":"null"}"#,
            r#"{"to":"/seen","date":"/at","as":"instant","format":"%d.%m.%Y %H:%M","zone":"Europe/Berlin","fold":"later","on_error":"keep_raw"}"#,
            r#"{"to":"/born","date":"/at","as":"date","on_error":"reject"}"#,
            r#"{"to":"/tags","split":"/id","on":"-","clean":["trim"]}"#,
            r#"{"to":"/home","rename":"/o","keys":{"a":"x","b":"y"}}"#,
            r#"{"to":"/lines","each":"/items","rules":[{"to":"/sku","copy":"/sku","required":true},{"to":"/count","copy":"/q","default":1}]}"#,
        ],
        1..9,
    )
    .prop_map(|rules| rules.join(","))
}

fn documents() -> impl Strategy<Value = String> {
    let scalar = prop::sample::select(vec![
        "null",
        "true",
        "0",
        "12.50",
        "1e2",
        r#""A""#,
        r#""X""#,
        r#""12.345""#,
        r#""EUR""#,
        r#""JPY""#,
        r#""a-b- c""#,
        r#""26.10.2025 02:30""#,
        r#""2025-03-30""#,
        r#""030-901820""#,
        "[]",
        "{}",
        r#"[{"sku":"s"},{"q":1},7]"#,
        r#"{"a":"1","c":2}"#,
    ]);
    proptest::collection::btree_map(
        prop::sample::select(vec![
            "id", "st", "bal", "cur", "tel", "at", "n", "items", "o", "other",
        ]),
        scalar,
        0..10,
    )
    .prop_map(|members| {
        let members: Vec<String> =
            members.iter().map(|(name, value)| format!(r#""{name}":{value}"#)).collect();
        format!("{{{}}}", members.join(","))
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_000, ..ProptestConfig::default() })]

    #[test]
    fn what_was_mapped_follows_its_contract_and_a_second_time_gives_the_same(rules in rules(), source in documents()) {
        let transform = register(&rules).unwrap_or_else(|wrong| panic!("{rules}: {wrong:?}"));
        let source = value(&source);
        let once = transform.run(&source, &Limits::default());
        prop_assert_eq!(&transform.run(&source, &Limits::default()), &once);
        match once {
            Outcome::Mapped(mapped) => {
                prop_assert!(schema(TARGET).violations(&mapped.body, backstitch_integration::contracts::World::Closed).is_empty());
            }
            Outcome::Failed(failures) => prop_assert!(!failures.is_empty()),
        }
    }

    #[test]
    fn no_text_makes_the_reader_of_transforms_panic(
        pieces in proptest::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"rules\"", "\"to\"", "\"copy\"", "\"/id\"", "\"each\"", "\"map\"", "\"money\"", "\"stream\"", "\"x:{/id}\"", "null", "1",
        ]), 0..40),
    ) {
        if let Ok(payload) = Payload::parse(&pieces.concat(), 10_000) {
            let _ = Transform::register(&payload, &schema(SOURCE), &schema(TARGET));
        }
    }
}
