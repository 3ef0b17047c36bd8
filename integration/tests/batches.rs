//! Batches and CloudEvents at the door of a source: each record is answered for itself.

use backstitch_integration::contracts::{Schema, World};
use backstitch_integration::document::read;
use backstitch_integration::ingress::{
    Accepted, Headers, LARGEST_BATCH, MOST_RECORDS, Rejected, Request, Source, SourceDocument,
    Subject, VersionState,
};
use backstitch_saga::Time;

const SOURCE: &str = r#"{"verify":{"scheme":"none"},"accepts":[{"contract":"crm.contact"}],"version_from":{"fixed":1},
    "dedupe":[{"pointer":"/id"}],"hints":[{"kind":"email","at":"/mail"}],"max_bytes":200}"#;

type Answers = Result<Vec<Result<Accepted, Box<Rejected>>>, Box<Rejected>>;

fn with<T>(
    source: &str,
    ask: impl FnOnce(&Source, &dyn Fn(&str) -> Option<Subject<'static>>) -> T,
) -> T {
    let document: SourceDocument = serde_json::from_str(source).expect("a source");
    let source = Source::new(document, &[]).unwrap_or_else(|wrong| panic!("{wrong:?}"));
    let schema = r#"{"type":"object","required":["id"],"properties":{"id":{"type":"string"},"mail":{"type":"string"}}}"#;
    let schema = Schema::parse(&read(schema.as_bytes(), 1_000).expect("JSON").1).expect("a schema");
    // As long as the program.
    let schema: &'static Schema = Box::leak(Box::new(schema));
    ask(&source, &|_| {
        let versions = [(1, (VersionState::Active, schema))].into();
        Some(Subject { versions, world: World::Open })
    })
}

fn batch_of(source: &str, content_type: &str, body: &[u8]) -> Answers {
    with(source, |source, subject| {
        let headers = [("content-type", content_type.as_bytes()), ("x-id", b"1".as_slice())];
        source
            .check_batch(&Request { headers: Headers::new(&headers), body, now: Time(0) }, subject)
    })
}

fn batch(content_type: &str, body: &str) -> Answers {
    batch_of(SOURCE, content_type, body.as_bytes())
}

/// Returns `ok` or the code, for each record.
fn codes(answers: &Answers) -> Vec<&str> {
    let answers = answers.as_ref().unwrap_or_else(|rejected| panic!("{rejected:?}"));
    answers
        .iter()
        .map(|answer| answer.as_ref().map_or_else(|rejected| rejected.code, |_| "ok"))
        .collect()
}

#[test]
fn each_record_of_a_batch_is_taken_or_refused_for_itself() {
    let records = [
        (r#"{"id":"a", "n":1.50}"#.to_owned(), "ok"),
        (r#"{"id":"b","id":"c"}"#.to_owned(), "duplicate_key"),
        (r#"{"id":7}"#.to_owned(), "schema_violation"),
        (r#"{"id":"\u0000"}"#.to_owned(), "nul_character"),
        (format!("{}{}", "[".repeat(80), "]".repeat(80)), "nesting_too_deep"),
        (format!(r#"{{"id":"{}"}}"#, "x".repeat(200)), "payload_too_large"),
        (r#"{"id":""}"#.to_owned(), "dedupe_key_missing"),
        ("7".to_owned(), "schema_violation"),
        (r#"{"id":"d"}"#.to_owned(), "ok"),
    ];
    let expected: Vec<&str> = records.iter().map(|(_, code)| *code).collect();
    let texts: Vec<&str> = records.iter().map(|(text, _)| text.as_str()).collect();
    let of_list = batch("application/json", &format!(" [ {} ] ", texts.join(" , ")));
    assert_eq!(codes(&of_list), expected);
    let of_lines =
        batch("application/x-ndjson; charset=utf-8", &format!("{}\r\n\n", texts.join("\r\n")));
    assert_eq!(codes(&of_lines), expected);
    for answers in [of_list, of_lines] {
        let answers = answers.expect("a batch");
        let first = answers[0].as_ref().expect("it is right");
        assert_eq!(first.payload.text(), r#"{"id":"a", "n":1.50}"#);
        assert!(
            answers.iter().all(|answer| answer.as_ref().err().is_none_or(|rejected| rejected.kept))
        );
    }
    // A line that is no JSON is refused alone; within a list it spoils the list.
    assert_eq!(codes(&batch("application/x-ndjson", "{\n{\"id\":\"a\"}")), ["invalid_json", "ok"]);
    assert_eq!(codes(&batch("application/json", "[]")), Vec::<&str>::new());
}

#[test]
fn a_batch_that_is_none_is_refused_as_a_whole() {
    let code = |content_type: &str, body: &[u8]| {
        batch_of(SOURCE, content_type, body).expect_err("it is refused").code
    };
    let many = format!("[{}1]", "1,".repeat(MOST_RECORDS));
    let flood = format!("[{}1]", "1,".repeat(2_000_000));
    let lines = "1\n".repeat(MOST_RECORDS + 1);
    let large = vec![b' '; LARGEST_BATCH + 1];
    for (content_type, body, expected) in [
        ("application/json", br#"{"id":"a"}"#.as_slice(), "not_a_batch"),
        ("application/json", b"[1", "invalid_json"),
        ("application/json", b"[1]]", "invalid_json"),
        ("application/json", b"[\xff]", "invalid_json"),
        ("application/json", b"", "not_a_batch"),
        ("application/json", many.as_bytes(), "batch_too_large"),
        ("application/json", flood.as_bytes(), "batch_too_large"),
        ("application/x-ndjson", lines.as_bytes(), "batch_too_large"),
        ("application/json", &large, "payload_too_large"),
        ("application/cloudevents+json", b"[]", "content_type_not_supported"),
        ("text/csv", b"[]", "content_type_not_supported"),
    ] {
        assert_eq!(code(content_type, body), expected, "{content_type}");
    }
}

#[test]
fn a_header_tells_no_record_of_a_batch_from_another() {
    let source = SOURCE.replace(r#"{"pointer":"/id"}"#, r#"{"header":"X-Id"}"#);
    assert_eq!(
        codes(&batch_of(&source, "application/json", br#"[{"id":"a"}]"#)),
        ["dedupe_key_missing"]
    );
}

#[test]
fn the_data_of_a_cloudevent_follows_the_contract() {
    let event = |data: &str| {
        format!(r#"{{"specversion":"1.0","id":"e1","source":"/s","type":"contact",{data}}}"#)
    };
    let check = |body: &str| {
        with(SOURCE, |source, subject| {
            let headers = [("Content-Type", b"application/cloudevents+json".as_slice())];
            source.check(
                &Request { headers: Headers::new(&headers), body: body.as_bytes(), now: Time(0) },
                subject,
            )
        })
    };
    let body = event(r#""data":{"id":"a","mail":"a@firm.org"}"#);
    let accepted = check(&body).expect("it is right");
    assert_eq!(accepted.event.expect("an event").id, "e1");
    assert_eq!(accepted.value.to_json(), r#"{"id":"a","mail":"a@firm.org"}"#);
    assert_eq!((accepted.payload.text(), accepted.hints.captured.len()), (body.as_str(), 1));
    for (body, code) in [
        (event(r#""data":{"mail":"a@firm.org"}"#), "schema_violation"),
        (event(r#""data_base64":"AA==""#), "cloudevent_not_valid"),
        (event(r#""subject":"x""#), "cloudevent_not_valid"),
        (r#"{"id":"a"}"#.to_owned(), "cloudevent_not_valid"),
    ] {
        assert_eq!(check(&body).expect_err("it is refused").code, code, "{body}");
    }
    let both = format!("[{},{{}}]", event(r#""data":{"id":"a"}"#));
    assert_eq!(
        codes(&batch("application/cloudevents-batch+json", &both)),
        ["ok", "cloudevent_not_valid"]
    );
}
