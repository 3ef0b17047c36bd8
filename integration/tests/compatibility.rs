//! The matrix of changes and modes. Every verdict is checked with documents made from the schemas, and validation with
//! another implementation.

use backstitch_integration::contracts::{Direction, Mode, Schema, Version, World, check};
use backstitch_integration::document::{Value, read};
use proptest::prelude::*;

const MATRIX: &str = include_str!("compatibility.txt");

/// Writes out `T(name! type, …)`.
fn written_out(text: &str) -> String {
    let Some(inner) = text.strip_prefix("T(").and_then(|text| text.strip_suffix(')')) else {
        return text.to_owned();
    };
    let (mut properties, mut required) = (Vec::new(), Vec::new());
    // Schemas in braces contain commas; members are separated by those outside.
    let mut depth = 0;
    let mut parts = vec![String::new()];
    for character in inner.chars() {
        match character {
            '{' | '[' => depth += 1,
            '}' | ']' => depth -= 1,
            _ => {}
        }
        if character == ',' && depth == 0 {
            parts.push(String::new());
        } else {
            parts.last_mut().expect("there is one").push(character);
        }
    }
    for part in &parts {
        let (name, schema) = part.trim().split_once(' ').expect("a name and a type");
        let plain = name.trim_end_matches('!');
        if plain != name {
            required.push(format!("\"{plain}\""));
        }
        let schema = if schema.starts_with('{') {
            schema.to_owned()
        } else {
            format!(r#"{{"type":"{schema}"}}"#)
        };
        properties.push(format!(r#""{plain}":{schema}"#));
    }
    format!(
        r#"{{"type":"object","properties":{{{}}},"required":[{}]}}"#,
        properties.join(","),
        required.join(",")
    )
}

fn value(text: &str) -> Value {
    read(text.as_bytes(), 100_000).unwrap_or_else(|wrong| panic!("{text}: {wrong}")).1
}

fn schema(text: &str) -> Schema {
    Schema::parse(&value(text)).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
}

/// Returns documents that `schema` allows, scattered by a seed.
fn documents(schema: &Schema, count: u64) -> Vec<Value> {
    let made = (0..count).map(|seed| {
        let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        schema.example(&mut |n| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            if seed == 0 { 0 } else { usize::try_from(state >> 33).unwrap_or_default() % n.max(1) }
        })
    });
    made.collect()
}

/// Holds the verdict for one direction to documents that are made from the writer's schema.
fn cross_check(line: &str, writer: &Schema, reader: &Schema, compatible: bool) {
    let mut refused = 0;
    for document in documents(writer, 200) {
        assert!(writer.is_valid(&document, World::Closed), "{line}: {}", document.to_json());
        refused += usize::from(!reader.is_valid(&document, World::Open));
    }
    assert!(
        !compatible || refused == 0,
        "{line}: said to be compatible, and {refused} documents are refused"
    );
}

#[test]
fn every_change_has_its_verdict_in_every_mode_and_a_document_that_shows_it() {
    let mut lines = 0;
    for line in MATRIX.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let parts: Vec<&str> = line.split(';').map(str::trim).collect();
        let [_, first, second, new, expected @ ..] = &parts[..] else { panic!("{line}") };
        let first = schema(&written_out(first));
        let second = if *second == "=" { first.clone() } else { schema(&written_out(second)) };
        let new = schema(&written_out(new));
        let versions =
            [Version { number: 1, schema: &first }, Version { number: 2, schema: &second }];
        for mode in Mode::ALL {
            let found = check(&new, &versions, mode);
            let of = |direction| {
                let mut rules: Vec<&str> = found
                    .iter()
                    .filter(|one| one.direction == direction)
                    .map(|one| one.rule)
                    .collect();
                rules.sort_unstable();
                rules.dedup();
                if rules.is_empty() { "ok".to_owned() } else { rules.join(" ") }
            };
            let column = |is_asked: bool, plain: usize| {
                let index = plain + if mode.is_transitive() { 2 } else { 0 };
                if is_asked { expected[index] } else { "ok" }
            };
            // A range of integers that is narrowed on both sides is shown at one of them.
            let holds = |found: String, expected: &str| {
                found == expected || (found != "ok" && expected.split(' ').any(|one| one == found))
            };
            assert!(
                holds(of(Direction::Backward), column(mode.is_backward(), 0)),
                "{line} {mode:?}: {found:#?}"
            );
            assert!(
                holds(of(Direction::Forward), column(mode.is_forward(), 1)),
                "{line} {mode:?}: {found:#?}"
            );
            for one in &found {
                // Two patterns are compared by their text: the wider one accepts every text of the narrower.
                let Some(shown) = &one.document else {
                    assert_eq!(one.rule, "pattern", "{line} {mode:?}: {one:#?}");
                    continue;
                };
                let old = versions[one.version as usize - 1].schema;
                let (writer, reader) = match one.direction {
                    Direction::Backward => (old, &new),
                    Direction::Forward => (&new, old),
                };
                assert!(writer.is_valid(shown, World::Closed), "{line} {mode:?}: {one:#?}");
                assert!(!reader.is_valid(shown, World::Open), "{line} {mode:?}: {one:#?}");
            }
        }
        cross_check(line, &second, &new, expected[0] == "ok");
        cross_check(line, &new, &second, expected[1] == "ok");
        lines += 1;
    }
    assert!(lines >= 30, "{lines} lines");
}

#[test]
fn validation_agrees_with_another_implementation() {
    let schemas: Vec<String> = MATRIX
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .flat_map(|line| line.split(';').map(str::trim).skip(1).take(3).filter(|text| *text != "="))
        .map(written_out)
        // Formats are ours, and numbers of the other one are floats.
        .filter(|text| !text.contains("format") && !text.contains("9007199254740993"))
        .collect();
    let (mut valid, mut refused) = (0, 0);
    for text in &schemas {
        let ours = schema(text);
        let theirs: serde_json::Value = serde_json::from_str(text).expect("JSON");
        let theirs = jsonschema::options().build(&theirs).expect("a schema");
        for other in &schemas {
            for document in documents(&schema(other), 12) {
                let read: serde_json::Value =
                    serde_json::from_str(&document.to_json()).expect("JSON");
                let expected = theirs.is_valid(&read);
                assert_eq!(
                    ours.is_valid(&document, World::Open),
                    expected,
                    "{text}: {}",
                    document.to_json()
                );
                if expected { valid += 1 } else { refused += 1 }
            }
        }
    }
    assert!(valid > 1_000 && refused > 1_000, "{valid} valid, {refused} refused");
}

/// Generates small schemas of every kind.
fn schemas() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        Just(r#"{}"#.to_owned()),
        Just(r#"{"type":"boolean"}"#.to_owned()),
        Just(r#"{"type":["integer","null"]}"#.to_owned()),
        Just(r#"{"type":"null"}"#.to_owned()),
        (0..4_i64, 0..4_i64).prop_map(|(low, more)| format!(
            r#"{{"type":"integer","minimum":{low},"maximum":{}}}"#,
            low + more
        )),
        (0..4_i64).prop_map(|low| format!(r#"{{"type":"number","exclusiveMinimum":{low}.5}}"#)),
        (0..3_u8).prop_map(|high| format!(r#"{{"type":"number","maximum":{high}}}"#)),
        (0..3_u8, 0..3_u8).prop_map(|(min, more)| format!(
            r#"{{"type":"string","minLength":{min},"maxLength":{}}}"#,
            min + more
        )),
        prop::sample::select(vec!["date", "instant", "date-time", "country", "decimal", "uuid"])
            .prop_map(|format| format!(r#"{{"type":"string","format":"{format}"}}"#)),
        prop::sample::subsequence(
            vec![r#""a""#, "1", "true", "null", r#""""#, "2", "false", "1.5", "\"2025-03-30\""],
            1..6
        )
        .prop_map(|values| format!(r#"{{"enum":[{}]}}"#, values.join(","))),
        prop::sample::select(vec!["money", "quantity"])
            .prop_map(|format| format!(r#"{{"type":"object","format":"{format}"}}"#)),
    ];
    leaf.prop_recursive(3, 24, 4, |inner| {
        let member = (inner.clone(), any::<bool>());
        prop_oneof![
            (inner.clone(), 0..3_u8, prop::option::of(0..3_u8)).prop_map(|(items, min, more)| {
                let max =
                    more.map_or(String::new(), |more| format!(r#","maxItems":{}"#, min + more));
                format!(r#"{{"type":"array","items":{items},"minItems":{min}{max}}}"#)
            }),
            proptest::collection::btree_map("[abc]", member, 0..4).prop_map(|members| {
                let required: Vec<String> = members
                    .iter()
                    .filter(|(_, (_, required))| *required)
                    .map(|(name, _)| format!("\"{name}\""))
                    .collect();
                let properties: Vec<String> = members
                    .iter()
                    .map(|(name, (schema, _))| format!("\"{name}\":{schema}"))
                    .collect();
                format!(
                    r#"{{"type":"object","properties":{{{}}},"required":[{}]}}"#,
                    properties.join(","),
                    required.join(",")
                )
            }),
            inner.prop_map(|schema| format!(r#"{{"anyOf":[{schema},{{"type":"null"}}]}}"#)),
            Just(r#"{"type":"object"}"#.to_owned()),
        ]
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn a_verdict_on_two_schemas_is_true_of_the_documents_of_the_writer(one in schemas(), other in schemas()) {
        let (writer, reader) = (schema(&one), schema(&other));
        let found = check(&reader, &[Version { number: 1, schema: &writer }], Mode::Backward);
        let refused = documents(&writer, 60).into_iter().find(|document| {
            assert!(writer.is_valid(document, World::Closed), "{one}: {}", document.to_json());
            !reader.is_valid(document, World::Open)
        });
        if found.is_empty() {
            prop_assert!(refused.is_none(), "{} {}: {:?}", one, other, refused);
        }
        // The first of the breaks at least is shown.
        let shown = found.iter().any(|one| one.document.is_some());
        prop_assert!(found.is_empty() || shown, "{} {}: {:#?}", one, other, found);
    }

    #[test]
    fn a_schema_is_compatible_with_itself(text in schemas()) {
        let one = schema(&text);
        // Spelt otherwise, so that the two are compared.
        let other = schema(&format!(r#"{{"title":"x",{}"#, &text[1..].replacen('}', if text == "{}" { r#""description":""}"# } else { "}" }, 1)));
        for mode in Mode::ALL {
            prop_assert_eq!(check(&other, &[Version { number: 1, schema: &one }], mode), vec![]);
        }
    }
}

#[test]
fn what_is_beyond_the_subset_is_refused_with_its_place() {
    for (text, pointer, code) in [
        (
            r#"{"type":"object","additionalProperties":false}"#,
            "/additionalProperties",
            "keyword_not_supported",
        ),
        (r#"{"allOf":[]}"#, "/allOf", "keyword_not_supported"),
        (
            r#"{"properties":{"a":{"not":{}}},"type":"object"}"#,
            "/properties/a/not",
            "keyword_not_supported",
        ),
        (r#"{"properties":{}}"#, "/properties", "keyword_not_supported"),
        (r#"{"$ref":"https://example.com/schema"}"#, "/$ref", "reference_not_supported"),
        (r##"{"$ref":"#"}"##, "/$ref", "reference_not_supported"),
        (r##"{"$ref":"#/$defs/b"}"##, "/$ref", "reference_not_supported"),
        (
            r##"{"$defs":{"a":{"type":"array","items":{"$ref":"#/$defs/a"}}},"$ref":"#/$defs/a"}"##,
            "/$defs/a/items/$ref",
            "reference_cycle",
        ),
        (r#"{"type":"string","format":"ipv4"}"#, "/format", "format_not_supported"),
        (r#"{"type":"string","pattern":"(?=a)"}"#, "/pattern", "pattern_not_supported"),
        (r#"{"type":"string","pattern":"a","maxLength":3}"#, "/maxLength", "keyword_not_supported"),
        (r#"{"type":"integer","minimum":3,"maximum":2}"#, "", "never_valid"),
        (r#"{"type":"integer","exclusiveMinimum":1,"exclusiveMaximum":2}"#, "", "never_valid"),
        (r#"{"type":"string","enum":["a",1]}"#, "/enum", "never_valid"),
        (r#"{"enum":[]}"#, "/enum", "not_a_schema"),
        (r#"{"enum":[{}]}"#, "/enum", "keyword_not_supported"),
        (r#"{"enum":[1,1.0]}"#, "/enum", "not_a_schema"),
        (r#"{"type":["string","integer"]}"#, "/type", "keyword_not_supported"),
        (r#"{"type":"object","properties":{"a":{}},"required":["b"]}"#, "/required", "never_valid"),
        (r#"{"type":"string","minLength":5,"maxLength":4}"#, "/maxLength", "never_valid"),
        (r#"{"type":"string","minLength":-1}"#, "/minLength", "not_a_schema"),
        (r#"{"type":"array","items":[{}]}"#, "/items", "not_a_schema"),
        ("false", "", "not_a_schema"),
        ("[]", "", "not_a_schema"),
    ] {
        let wrong = Schema::parse(&value(text)).expect_err(text);
        assert!(
            wrong.iter().any(|one| one.pointer == pointer && one.code == code),
            "{text}: {wrong:?}"
        );
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1_500, ..ProptestConfig::default() })]

    #[test]
    fn a_verdict_on_a_schema_and_a_change_of_it_is_true(text in schemas(), at in any::<usize>(), other in any::<u8>()) {
        // One digit, name or flag of the schema is changed, so that the two are alike.
        let swaps = [("0", "1"), ("1", "2"), ("2", "3"), ("\"a\"", "\"b\""), ("true", "false"), ("instant", "date-time"),
            ("exclusiveMinimum", "minimum"), ("integer", "number"), ("\"required\":[\"a\"", "\"required\":[\"c\""), ("null", "true")];
        let (from, to) = swaps[usize::from(other) % swaps.len()];
        let places: Vec<usize> = text.match_indices(from).map(|(at, _)| at).collect();
        if places.is_empty() {
            return Ok(());
        }
        let place = places[at % places.len()];
        let changed = format!("{}{to}{}", &text[..place], &text[place + from.len()..]);
        let Ok((_, document)) = read(changed.as_bytes(), 100_000) else { return Ok(()) };
        let Ok(two) = Schema::parse(&document) else { return Ok(()) };
        let one = schema(&text);
        for (writer, reader) in [(&one, &two), (&two, &one)] {
            let found = check(reader, &[Version { number: 1, schema: writer }], Mode::Backward);
            let refused = documents(writer, 80).into_iter().find(|document| !reader.is_valid(document, World::Open));
            prop_assert!(refused.is_none() || !found.is_empty(), "{} {}: {:?}", text, changed, refused);
            prop_assert!(found.is_empty() || found.iter().any(|one| one.document.is_some()), "{} {}: {:#?}", text, changed, found);
        }
    }

    #[test]
    fn no_document_makes_the_reader_of_schemas_panic(
        pieces in proptest::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"type\"", "\"object\"", "\"string\"", "\"enum\"", "\"$ref\"", "\"#/$defs/a\"", "\"$defs\"", "\"a\"",
            "\"properties\"", "\"items\"", "\"anyOf\"", "\"minimum\"", "\"pattern\"", "\"maxItems\"", "1e30", "-1", "null", "\"format\"", "\"money\"",
        ]), 0..40),
        pattern in "[a-c\\[\\](){}|*+?^$.\\\\dwpu0-9,-]{0,20}",
    ) {
        if let Ok((_, document)) = read(pieces.concat().as_bytes(), 10_000) {
            let _ = Schema::parse(&document);
        }
        let document = Value::Object([("type".to_owned(), Value::from("string")), ("pattern".to_owned(), Value::from(pattern))].into());
        if let Ok(schema) = Schema::parse(&document) {
            for document in documents(&schema, 5) {
                prop_assert!(schema.is_valid(&document, World::Closed));
            }
        }
    }
}

#[test]
fn a_schema_that_unfolds_without_end_costs_little() {
    // Each definition has two members of the next: 2^40 values when they are required.
    let unfolds = |required: bool| {
        let definitions: Vec<String> = (0..40)
            .map(|level| {
                let next = format!(r##"{{"$ref":"#/$defs/d{}"}}"##, level + 1);
                let required = if required { r#","required":["a","b"]"# } else { "" };
                format!(r#""d{level}":{{"type":"object","properties":{{"a":{next},"b":{next}}}{required}}}"#)
            })
            .collect();
        format!(
            r##"{{"$defs":{{{},"d40":{{"type":"integer"}}}},"$ref":"#/$defs/d0"}}"##,
            definitions.join(",")
        )
    };
    let wrong =
        Schema::parse(&value(&unfolds(true))).expect_err("the smallest document is too large");
    assert!(wrong.iter().any(|one| one.code == "schema_too_large"), "{wrong:?}");
    let one = schema(&unfolds(false));
    let other = schema(&unfolds(false).replace("integer", "string"));
    assert_eq!(check(&other, &[Version { number: 1, schema: &one }], Mode::Full).len(), 100);
    assert!(one.example(&mut |n| n - 1).size() < 2_000_000);
}
