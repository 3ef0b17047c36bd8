//! Identity hints: kept as they came, normalised beside, flagged when they identify nobody, and bounded.

use backstitch_integration::document::{Value, read};
use backstitch_integration::ingress::{HintRule, Hints, MOST_HINTS};
use proptest::prelude::*;

fn hints(rules: &str, document: &str) -> Hints {
    let rules: Vec<HintRule> = serde_json::from_str(rules).expect("rules");
    Hints::capture(&rules, &read(document.as_bytes(), 1_000_000).expect("JSON").1)
}

#[test]
fn hints_are_kept_as_they_came_and_normalised_beside() {
    let found = hints(
        r#"[{"kind":"email","at":"/contact/emails/*"},{"kind":"phone","at":"/tel","region_from":"/country"},{"kind":"legacy_id:erp","at":"/no"},{"kind":"email","at":"/none/*"}]"#,
        r#"{"contact":{"emails":[" Ann.B@Firm.ORG","nobody",null,7]},"tel":"030-901820","country":"DE","no":"０４２ "}"#,
    );
    let lines: Vec<String> = found
        .captured
        .iter()
        .map(|hint| {
            let (norm, search) = (hint.value_norm.as_deref(), hint.value_search.as_deref());
            let junk = if hint.junk { " junk" } else { "" };
            format!("{} {:?} {norm:?} {search:?}{junk}", hint.at, hint.value_raw)
        })
        .collect();
    assert_eq!(
        lines,
        [
            r#"/contact/emails/0 " Ann.B@Firm.ORG" Some("Ann.B@firm.org") Some("ann.b@firm.org")"#,
            r#"/contact/emails/1 "nobody" None None junk"#,
            r#"/contact/emails/3 "7" None None junk"#,
            r#"/tel "030-901820" Some("+4930901820") Some("+4930901820")"#,
            r#"/no "０４２ " Some("042") Some("042")"#,
        ]
    );
}

#[test]
fn what_identifies_nobody_is_flagged() {
    for (kind, value, junk) in [
        ("email", "test@test.com", true),
        ("email", "noreply@firm.org", true),
        ("email", "a@example.com", true),
        ("email", "ann@firm.org", false),
        ("phone", "0000", true),
        ("phone", "123456789", true),
        ("phone", "+4930901820", false),
        ("phone", "030-901820", false),
        ("id", "null", true),
        ("id", "N/A", true),
        ("id", "0000", true),
        ("id", "0", true),
        ("id", " ", true),
        ("id", "---", true),
        ("id", "7", false),
        ("id", "A-1042", false),
        ("id", "77", false),
    ] {
        let found =
            hints(&format!(r#"[{{"kind":"{kind}","at":"/x"}}]"#), &format!(r#"{{"x":"{value}"}}"#));
        assert_eq!(found.captured[0].junk, junk, "{kind} {value}");
        assert_eq!(found.captured[0].value_raw, value);
    }
}

#[test]
fn no_document_has_more_hints_than_its_bound() {
    let values: Vec<String> = (0..5_000).map(|index| format!(r#""id{index}""#)).collect();
    let long = "x".repeat(1_001);
    let found = hints(
        r#"[{"kind":"id","at":"/long"},{"kind":"id","at":"/ids/*"},{"kind":"id","at":"/ids/*"}]"#,
        &format!(r#"{{"ids":[{}],"long":"{long}"}}"#, values.join(",")),
    );
    assert_eq!(found.captured.len(), MOST_HINTS);
    assert!(found.left_out > 2);
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_value_makes_a_hint_panic(value in any::<String>(), kind in prop::sample::select(vec!["email", "phone", "id"])) {
        let document = Value::Object([("x".to_owned(), Value::from(value.as_str()))].into());
        let rules: Vec<HintRule> = serde_json::from_str(&format!(r#"[{{"kind":"{kind}","at":"/x"}}]"#)).expect("rules");
        let found = Hints::capture(&rules, &document);
        prop_assert!(found.captured.iter().all(|hint| hint.value_raw == value));
    }
}
