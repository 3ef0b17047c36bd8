//! Attacks on the evaluation of JSON Schemas, and what ordinary schemas still do.

use std::time::{Duration, Instant};

use serde_json::json;

use super::*;

fn payload(value: &Value) -> Payload {
    Payload::of(value).unwrap()
}

async fn verdict(schema: &Value, document: &Value) -> Verdict {
    let schemas = Arc::new(Schemas::default());
    schemas.judge("alpha", &payload(schema), &payload(document)).await.unwrap()
}

fn code(verdict: &Verdict) -> &'static str {
    match verdict {
        Verdict::Satisfies => "satisfies",
        Verdict::Violates(_) => "violates",
        Verdict::Unknown(code, _) => code,
    }
}

fn registered(schema: &Value) -> Vec<String> {
    let violations = check_all(&[("/input_schema".to_owned(), payload(schema))], |_, _| {});
    violations.into_iter().map(|one| one.code).collect()
}

/// Returns references that double at each of `n` levels.
fn doubling(n: usize, keyword: &str) -> Value {
    let mut defs = serde_json::Map::new();
    for i in 0..n {
        let next = json!({ "$ref": format!("#/$defs/a{}", i + 1) });
        defs.insert(format!("a{i}"), json!({ keyword: [next, next] }));
    }
    defs.insert(format!("a{n}"), json!({ "type": "string" }));
    json!({ "$defs": defs, "$ref": "#/$defs/a0" })
}

#[tokio::test]
async fn known_attacks_are_refused_within_a_second() {
    let branch = json!({ "type": "object", "required": ["a"], "properties": { "a": { "$ref": "#/$defs/n" } } });
    let alternatives = json!({ "$defs": { "n": { "oneOf": [branch, branch, { "type": "integer" }] } }, "$ref": "#/$defs/n" });
    let nested = (0..60).fold(json!(1), |inner, _| json!({ "a": inner }));
    let texts = Value::Array(vec![Value::String("a".repeat(42)); 5_000]);
    let attacks = [
        (alternatives, nested, "schema_too_costly"),
        (doubling(40, "allOf"), json!({}), "invalid_schema"),
        (doubling(24, "anyOf"), json!({}), "invalid_schema"),
        (doubling(11, "anyOf"), json!({}), "violates"),
        (json!({ "contains": { "pattern": "^(a|a)*(?!x)b$" } }), texts, "schema_too_costly"),
        (json!({ "pattern": "^(a|a)*(?!x)b$" }), json!("a".repeat(42)), "schema_too_costly"),
        (
            json!({ "allOf": vec![json!({ "pattern": r"(?i)\p{L}{200}0" }); 60] }),
            json!("a"),
            "invalid_schema",
        ),
        (
            json!({ "pattern": "[ab]*a[ab]{900}x" }),
            json!("ab".repeat(100_000)),
            "schema_too_costly",
        ),
    ];
    for (schema, document, expected) in attacks {
        let began = Instant::now();
        let verdict = verdict(&schema, &document).await;
        let took = began.elapsed();
        println!("{expected}: {took:?}");
        assert_eq!(code(&verdict), expected, "{schema}: {verdict:?}");
        // Generous: other tests share the machine, and this build is not optimized.
        assert!(took < Duration::from_secs(10), "{schema}: {took:?}");
    }
}

#[test]
fn a_schema_beyond_a_bound_is_refused_with_the_code_of_the_bound() {
    assert_eq!(registered(&doubling(40, "allOf")), ["schema_too_complex"]);
    assert_eq!(
        registered(&json!({ "allOf": vec![json!({ "pattern": r"(?i)\p{L}{200}0" }); 60] })),
        ["pattern_too_large"]
    );
    assert_eq!(
        registered(&json!({ "description": "x".repeat(SCHEMA_BYTES) })),
        ["schema_too_large"]
    );
    assert_eq!(registered(&json!({ "$ref": "#" })), ["endless_reference"]);
    assert_eq!(registered(&json!({ "type": "strng" })), ["invalid_schema"]);
    assert_eq!(registered(&json!({ "requird": ["a"] })), ["unknown_keyword"]);
    assert_eq!(registered(&json!({ "pattern": "(" })), ["invalid_schema"]);
    assert_eq!(registered(&json!({ "pattern": r"^\p{L}[\p{L}' -]{0,99}$" })), Vec::<String>::new());
    assert_eq!(
        registered(&json!({ "pattern": r"^[A-Z]{2}[0-9]{2}[A-Z0-9]{11,30}$" })),
        Vec::<String>::new()
    );
}

#[test]
fn the_patterns_of_a_definition_are_bounded_together() {
    let one = |i: usize| {
        (format!("/steps/{i}"), payload(&json!({ "pattern": format!(r"\p{{L}}{{30}}{i}") })))
    };
    let violations = check_all(&(0..40).map(one).collect::<Vec<_>>(), |_, _| {});
    let codes: Vec<_> = violations.iter().map(|one| one.code.as_str()).collect();
    assert_eq!(codes, ["patterns_too_large"], "{violations:?}");
}

#[tokio::test]
async fn formats_are_checked() {
    let cases = [
        ("date-time", "2026-01-01T00:00:00Z", "yesterday"),
        ("date", "2026-02-28", "2026-02-30"),
        ("email", "a@example.org", "a at example"),
        ("uuid", "0198c0de-0000-7000-8000-000000000000", "0198"),
        ("uri", "https://example.org/", "not a uri"),
        ("ipv4", "127.0.0.1", "127.0.0.256"),
    ];
    for (format, good, bad) in cases {
        let schema = json!({ "type": "string", "format": format });
        assert_eq!(verdict(&schema, &json!(good)).await, Verdict::Satisfies, "{format}");
        assert_eq!(code(&verdict(&schema, &json!(bad)).await), "violates", "{format}");
    }
    let width = json!({ "type": "integer", "format": "uint32" });
    assert_eq!(registered(&width), Vec::<String>::new());
    assert_eq!(verdict(&width, &json!(7)).await, Verdict::Satisfies);
}

#[tokio::test]
async fn violations_are_listed_with_their_places_and_bounded() {
    let schema = json!({ "type": "object", "properties": { "card": { "type": "integer" } }, "required": ["id"] });
    let Verdict::Violates(violations) = verdict(&schema, &json!({ "card": "4111" })).await else {
        panic!()
    };
    let places: Vec<_> = violations.iter().map(|one| one.pointer.as_str()).collect();
    assert_eq!(places, ["", "/card"]);
    let list = json!({ "items": { "type": "integer" } });
    let wrong = Value::Array(vec![json!("x"); 5_000]);
    let Verdict::Violates(violations) = verdict(&list, &wrong).await else { panic!() };
    assert_eq!(violations.len(), VIOLATIONS);
    let more = Value::Array(vec![json!("x"); 50_000]);
    let Verdict::Violates(violations) = verdict(&list, &more).await else { panic!() };
    assert_eq!(violations.len(), 1);
}

#[tokio::test]
async fn compiled_schemas_are_kept_by_weight_and_compiled_once() {
    let schemas = Arc::new(Schemas::default());
    let schema = |i: usize| {
        payload(
            &json!({ "allOf": (0..40).map(|j| json!({ "pattern": format!("a{i}b{j}[a-z]*c") })).collect::<Vec<_>>() }),
        )
    };
    for i in 0..40 {
        assert_eq!(
            code(&schemas.judge("alpha", &schema(i), &payload(&json!("x"))).await.unwrap()),
            "violates"
        );
    }
    let kept = schemas.kept();
    assert!(
        kept.weight <= KEPT && kept.by_text.len() < 40,
        "{} {}",
        kept.weight,
        kept.by_text.len()
    );
    assert!(
        kept.by_text.contains_key(schema(39).text())
            && !kept.by_text.contains_key(schema(0).text())
    );
    let weights: u64 = kept.by_text.values().map(|(schema, _)| schema.weight).sum();
    assert_eq!(weights, kept.weight);
    drop(kept);
    let one = schemas.compiled(&schema(39)).unwrap();
    assert!(Arc::ptr_eq(&one, &schemas.compiled(&schema(39)).unwrap()));
}

#[tokio::test]
async fn short_work_is_done_at_once_and_long_work_is_not() {
    let schemas = Arc::new(Schemas::default());
    let schema = payload(&json!({ "items": { "type": "integer" } }));
    assert_eq!(schemas.judge_at_once(&schema, &payload(&json!([1]))), None);
    assert_eq!(
        schemas.judge("alpha", &schema, &payload(&json!([1]))).await.unwrap(),
        Verdict::Satisfies
    );
    assert_eq!(schemas.judge_at_once(&schema, &payload(&json!([1]))), Some(Verdict::Satisfies));
    let long = Value::Array((0..2_000).map(Value::from).collect());
    assert_eq!(schemas.judge_at_once(&schema, &payload(&long)), None);
    assert_eq!(schemas.judge("alpha", &schema, &payload(&long)).await.unwrap(), Verdict::Satisfies);
}
