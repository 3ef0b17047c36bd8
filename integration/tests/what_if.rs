//! What-if: the counts are those of the documents that a new version of a transform maps otherwise.

use backstitch_integration::Payload;
use backstitch_integration::contracts::Schema;
use backstitch_integration::document::{Value, read};
use backstitch_integration::transforms::{Limits, Transform, WhatIf};

fn value(text: &str) -> Value {
    read(text.as_bytes(), 10_000).unwrap_or_else(|wrong| panic!("{text}: {wrong}")).1
}

fn transform(map: &str) -> Transform {
    let schema = |text: &str| Schema::parse(&value(text)).expect("a schema");
    let document = format!(
        r#"{{"rules":[{{"to":"/id","copy":"/id"}},{{"to":"/status","enum":"/st","map":{map},"else":"incident"}}]}}"#
    );
    let document = Payload::parse(&document, 10_000).expect("JSON");
    let target = r#"{"type":"object","required":["id"],"properties":{"id":{"type":"string"},"status":{"enum":["active","inactive","gone"]}}}"#;
    Transform::register(&document, &schema(r#"{"type":"object"}"#), &schema(target))
        .expect("it is right")
}

#[test]
fn a_bug_in_37_of_ten_thousand_documents_is_counted_before_it_is_mended() {
    let documents: Vec<(String, Value)> = (0..10_000)
        .map(|index| {
            let st = match index % 271 {
                // 37 of 10,000.
                7 => "P",
                other => ["A", "I"][usize::from(other % 2 == 1)],
            };
            (format!("d{index}"), value(&format!(r#"{{"id":"{index}","st":"{st}"}}"#)))
        })
        .collect();
    let wrong = transform(r#"{"A":"active","I":"inactive","P":"active"}"#);
    let mended = transform(r#"{"A":"active","I":"inactive","P":"gone"}"#);
    let all = || documents.iter().map(|(name, document)| (name.as_str(), document));
    let found = WhatIf::compare(Some(&wrong), &mended, all(), &Limits::default(), 3);
    assert_eq!((found.documents, found.same, found.differ), (10_000, 9_963, 37));
    assert_eq!(found.samples.len(), 3);
    let sample = &found.samples[0];
    assert_eq!(
        (sample.document.as_str(), sample.changed[0].to_string().as_str()),
        ("d7", "/status")
    );
    assert_eq!(
        (sample.before.to_json().as_str(), sample.after.to_json().as_str()),
        (r#"{"id":"7","status":"active"}"#, r#"{"id":"7","status":"gone"}"#)
    );
    // Mended, there is nothing left to write.
    let again = WhatIf::compare(Some(&mended), &mended, all(), &Limits::default(), 3);
    assert_eq!((again.same, again.samples.len()), (10_000, 0));
}

#[test]
fn documents_that_are_repaired_and_broken_are_counted_apart() {
    let (one, other) =
        (transform(r#"{"A":"active","B":"active"}"#), transform(r#"{"A":"active","C":"active"}"#));
    let documents = ["A", "B", "C", "D"].map(|st| value(&format!(r#"{{"id":"x","st":"{st}"}}"#)));
    let all = || ["a", "b", "c", "d"].into_iter().zip(&documents);
    let found = WhatIf::compare(Some(&one), &other, all(), &Limits::default(), 1);
    assert_eq!(
        (found.same, found.differ, found.broken, found.repaired, found.failing),
        (1, 0, 1, 1, 1)
    );
    let kinds: Vec<(&str, usize)> =
        found.samples.iter().map(|one| (one.kind, one.failures.len())).collect();
    assert_eq!(kinds, [("broken", 1), ("repaired", 0), ("failing", 1)]);
    let first = WhatIf::compare(None, &other, all(), &Limits::default(), 9);
    assert_eq!((first.repaired, first.failing), (2, 2));
}
