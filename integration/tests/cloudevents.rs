//! CloudEvents: parsed, refused with reasons, written and read again; and taken in through a door.

use backstitch_integration::events::{
    Attribute, CloudEvent, Data, Door, Envelope, Op, Trust, parse_batch, parse_structured,
    write_batch,
};
use proptest::prelude::*;

/// The example of the JSON format of CloudEvents.
const EXAMPLE: &str = r#"{
    "specversion" : "1.0",
    "type" : "com.github.pull_request.opened",
    "source" : "https://github.com/cloudevents/spec/pull",
    "subject" : "123",
    "id" : "A234-1234-1234",
    "time" : "2018-04-05T17:31:00Z",
    "comexampleextension1" : "value",
    "comexampleothervalue" : 5,
    "datacontenttype" : "text/xml",
    "data" : "<much wow=\"xml\"/>"
}"#;

fn parsed(text: &str) -> CloudEvent {
    parse_structured(text.as_bytes(), 10_000).unwrap_or_else(|wrong| panic!("{text}: {wrong:?}"))
}

#[test]
fn the_example_of_the_specification_is_read_and_written() {
    let event = parsed(EXAMPLE);
    assert_eq!(
        (event.id.as_str(), event.event_type.as_str()),
        ("A234-1234-1234", "com.github.pull_request.opened")
    );
    assert_eq!(event.extensions["comexampleothervalue"], Attribute::Integer(5));
    assert_eq!(event.data, Some(Data::Json("<much wow=\"xml\"/>".into())));
    assert_eq!(parsed(&event.to_json()), event);
    let [again] = &parse_batch(write_batch(std::slice::from_ref(&event)).as_bytes(), 10_000, 1)
        .expect("a batch")[..]
    else {
        panic!("one event")
    };
    assert_eq!(again.as_ref(), Ok(&event));
}

#[test]
fn attributes_that_are_not_valid_are_all_named() {
    let base = r#""specversion":"1.0","id":"1","source":"/s","type":"t""#;
    for (text, expected) in [
        (
            "{}".to_owned(),
            "/specversion attribute_missing, /id attribute_missing, /source attribute_missing, /type attribute_missing",
        ),
        (
            r#"{"specversion":"0.3","id":"","source":7,"type":"t"}"#.to_owned(),
            "/specversion attribute_not_valid, /id attribute_not_valid, /source attribute_not_valid",
        ),
        (format!(r#"{{{base},"time":"yesterday"}}"#), "/time attribute_not_valid"),
        (
            format!(r#"{{{base},"data":1,"data_base64":"AA=="}}"#),
            "/data_base64 attribute_not_valid",
        ),
        (format!(r#"{{{base},"data_base64":"?"}}"#), "/data_base64 attribute_not_valid"),
        (format!(r#"{{{base},"Label":"x"}}"#), "/Label attribute_not_valid"),
        (format!(r#"{{{base},"a~/b":"x"}}"#), "/a~0~1b attribute_not_valid"),
        (format!(r#"{{{base},"big":2147483648}}"#), "/big attribute_not_valid"),
        (format!(r#"{{{base},"list":[]}}"#), "/list attribute_not_valid"),
        ("[]".to_owned(), " not_a_cloudevent"),
        ("{".to_owned(), " invalid_json"),
    ] {
        let wrong = parse_structured(text.as_bytes(), 10_000).expect_err(&text);
        let found: Vec<String> =
            wrong.iter().map(|one| format!("{} {}", one.pointer, one.code)).collect();
        assert_eq!(found.join(", "), expected, "{text}");
    }
    // What is null is absent, and times have one spelling.
    let event = parsed(&format!(
        r#"{{{base},"subject":null,"label":null,"time":"2025-03-30T12:00:00.50+02:00"}}"#
    ));
    assert_eq!((event.subject, event.extensions.len()), (None, 0));
    assert_eq!(event.time.as_deref(), Some("2025-03-30T10:00:00.5Z"));
}

#[test]
fn each_event_of_a_batch_is_read_for_itself() {
    let good = r#"{"specversion":"1.0","id":"1","source":"/s","type":"t","data":{"n":12345678901234567890.10}}"#;
    let batch = format!(r#"[{good},{{"id":"2"}},7]"#);
    let events = parse_batch(batch.as_bytes(), 10_000, 3).expect("a batch");
    assert!(events[0].is_ok());
    assert_eq!(events[1].as_ref().expect_err("refused")[0].pointer, "/1/specversion");
    assert_eq!(events[2].as_ref().expect_err("refused")[0].code, "not_a_cloudevent");
    let written = events[0].as_ref().expect("read").to_json();
    assert!(written.contains("12345678901234567890.10"), "{written}");
    assert_eq!(
        parse_batch(batch.as_bytes(), 10_000, 2).expect_err("three").code,
        "batch_too_large"
    );
    assert_eq!(parse_batch(good.as_bytes(), 10_000, 2).expect_err("one").code, "not_a_batch");
}

#[test]
fn the_door_says_who_sent_an_event_and_how_far_it_is_trusted() {
    let event = parsed(
        r#"{"specversion":"1.0","id":"1","source":"erp.internal","type":"customer.updated","subject":"customer:42","op":"U",
            "correlationid":"story","causationid":"cause","hops":3,"trust":"authoritative","region":"eu","priority":7}"#,
    );
    let door =
        Door { source: "crm".to_owned(), ceiling: Trust::Signed, achieved: Trust::Authenticated };
    let envelope = Envelope::accept(&event, &door).expect("it is valid");
    assert_eq!(
        (envelope.source.as_str(), envelope.claimed_source.as_str()),
        ("crm", "erp.internal")
    );
    assert_eq!(
        (envelope.trust, envelope.op, envelope.hops),
        (Trust::Authenticated, Some(Op::Updated), 3)
    );
    assert_eq!(envelope.correlation_id.as_deref(), Some("story"));
    assert_eq!(envelope.stream.as_deref(), Some("customer:42"));
    // What the event says of its trust is a label like others.
    let labels: Vec<String> =
        envelope.labels.iter().map(|(name, value)| format!("{name}={value}")).collect();
    assert_eq!(labels, ["priority=7", "region=eu", "trust=authoritative"]);
    let ceiling = Door { ceiling: Trust::Unverified, ..door.clone() };
    assert_eq!(Envelope::accept(&event, &ceiling).expect("it is valid").trust, Trust::Unverified);

    for (name, value) in [("op", "X"), ("correlationid", &"c".repeat(129)), ("hops", "many")] {
        let mut event = event.clone();
        event.extensions.insert(name.to_owned(), Attribute::String(value.to_owned()));
        let wrong = Envelope::accept(&event, &door).expect_err(name);
        assert_eq!(
            (wrong[0].pointer.clone(), wrong[0].code.as_str()),
            (format!("/{name}"), "attribute_not_valid")
        );
    }
}

fn attributes() -> impl Strategy<Value = Attribute> {
    prop_oneof![
        any::<bool>().prop_map(Attribute::Boolean),
        any::<i32>().prop_map(Attribute::Integer),
        "[ -~é]{1,20}".prop_map(Attribute::String),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_written_is_read_again(
        texts in proptest::collection::vec("[ -~é]{1,20}", 3),
        subject in prop::option::of("[ -~]{1,20}"),
        extensions in proptest::collection::btree_map("x[a-z0-9]{0,10}", attributes(), 0..5),
        bytes in prop::option::of(proptest::collection::vec(any::<u8>(), 0..50)),
    ) {
        let event = CloudEvent {
            id: texts[0].clone(),
            source: texts[1].clone(),
            event_type: texts[2].clone(),
            subject,
            time: Some("2025-03-30T10:00:00Z".to_owned()),
            datacontenttype: None,
            dataschema: None,
            extensions,
            data: bytes.map(Data::Binary),
        };
        prop_assert_eq!(parse_structured(event.to_json().as_bytes(), 100_000), Ok(event));
    }

    #[test]
    fn no_text_makes_the_reader_panic(
        pieces in proptest::collection::vec(prop::sample::select(vec![
            "{", "}", "[", "]", ",", ":", "\"specversion\"", "\"1.0\"", "\"id\"", "\"source\"", "\"type\"", "\"time\"", "\"data\"", "\"data_base64\"", "\"op\"", "1", "null",
        ]), 0..40),
    ) {
        let text = pieces.concat();
        let _ = parse_structured(text.as_bytes(), 10_000);
        let _ = parse_batch(text.as_bytes(), 10_000, 5);
    }
}
