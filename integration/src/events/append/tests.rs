//! Rules of appending, without a database.

use proptest::prelude::*;

use super::super::envelope::Trust;
use super::*;
use crate::document::read;

fn envelope(stream: Option<&str>, op: Option<Op>) -> Envelope {
    Envelope {
        id: "e".to_owned(),
        event_type: "order.placed".to_owned(),
        source: "api/ann".to_owned(),
        claimed_source: "shop".to_owned(),
        stream: stream.map(str::to_owned),
        contract: None,
        op,
        occurred_at: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
        trust: Trust::Authenticated,
        traceparent: None,
        labels: std::collections::BTreeMap::new(),
    }
}

fn draft(stream: &str, op: Option<Op>, body: &str) -> Draft {
    let value = read(body.as_bytes(), 10_000).unwrap().1;
    let mut body_digest = [0; 32];
    for (at, byte) in value.canonical().bytes().enumerate() {
        body_digest[at % 32] ^= byte;
    }
    Draft {
        caused_by: None,
        envelope: envelope(Some(stream).filter(|name| !name.is_empty()), op),
        key: None,
        digest: body_digest,
        value: op.map(|_| value),
        body_digest: op.map(|_| body_digest),
        expected_version: None,
    }
}

fn keyed(id: &str, draft: Draft) -> Draft {
    Draft { key: Some(("shop".to_owned(), id.to_owned())), ..draft }
}

fn append(known: &mut Known, drafts: &[Draft], first: usize) -> Result<Vec<Outcome>, Refusal> {
    known.append(drafts, |new| format!("e{}", first + new))
}

#[test]
fn versions_of_a_stream_are_dense_and_a_repeat_takes_none() {
    let mut known = Known::default();
    let order = keyed("1", draft("order:1", None, "{}"));
    let requests =
        [order.clone(), order.clone(), draft("order:1", None, "{}"), draft("", None, "1")];
    let told = append(&mut known, &requests, 0).unwrap();
    let told: Vec<(&str, Option<u64>)> =
        told.iter().map(|one| (one.receipt().id.as_str(), one.receipt().version)).collect();
    assert_eq!(told, [("e0", Some(1)), ("e0", Some(1)), ("e1", Some(2)), ("e2", None)]);
    let again = append(&mut known, &[order], 3).unwrap();
    assert!(matches!(&again[0], Outcome::Repeat(receipt) if receipt.id == "e0"));
    assert_eq!(known.streams["order:1"].version, 2);
}

#[test]
fn an_id_that_is_used_again_for_something_else_is_refused_and_so_is_the_whole_request() {
    let mut known = Known::default();
    append(&mut known, &[keyed("1", draft("order:1", None, "1"))], 0).unwrap();
    let before = known.streams.clone();
    let refused = append(
        &mut known,
        &[draft("order:2", None, "1"), keyed("1", draft("order:1", None, "2"))],
        1,
    );
    assert_eq!(refused.unwrap_err(), Refusal::Reused { draft: 1, first: "e0".to_owned() });
    assert_eq!(known.streams, before);
}

#[test]
fn an_expected_version_is_held_to_the_events_before_it_in_the_same_request() {
    let mut known = Known::default();
    let at = |version| Draft { expected_version: Some(version), ..draft("order:1", None, "1") };
    append(&mut known, &[at(0), at(1)], 0).unwrap();
    let refused = append(&mut known, &[at(2), at(2)], 2).unwrap_err();
    let stream = "order:1".to_owned();
    assert_eq!(refused, Refusal::Version { draft: 1, stream, expected: 2, actual: 3 });
    assert_eq!(known.streams["order:1"].version, 2);
}

#[test]
fn a_repeat_is_recognised_before_its_expected_version_is_looked_at() {
    let mut known = Known::default();
    let order = Draft { expected_version: Some(0), ..keyed("1", draft("order:1", None, "1")) };
    append(&mut known, std::slice::from_ref(&order), 0).unwrap();
    assert!(matches!(append(&mut known, &[order], 1).unwrap()[0], Outcome::Repeat(_)));
}

#[test]
fn an_operation_is_derived_from_the_body_before_and_from_its_digest_when_that_is_gone() {
    let mut known = Known::default();
    let snapshot = |body| draft("customer:1", Some(Op::Snapshot), body);
    let told = append(
        &mut known,
        &[snapshot(r#"{"a":1}"#), snapshot(r#"{"a":1.0}"#), snapshot(r#"{"a":2}"#)],
        0,
    )
    .unwrap();
    let told: Vec<(Option<Op>, bool)> =
        told.iter().map(|one| (one.receipt().op, one.receipt().noop)).collect();
    assert_eq!(
        told,
        [(Some(Op::Created), false), (Some(Op::Snapshot), true), (Some(Op::Updated), false)]
    );
    let head = known.streams.get_mut("customer:1").unwrap();
    let Entity::Present { body, .. } = &mut head.entity else { panic!("it stands") };
    *body = None;
    let same = &append(&mut known.clone(), &[snapshot(r#"{"a":2}"#)], 3).unwrap()[0];
    assert_eq!((same.receipt().op, same.receipt().noop), (Some(Op::Snapshot), true));
    let told = append(&mut known, &[snapshot(r#"{"a":3}"#)], 3).unwrap();
    let Outcome::New(other) = &told[0] else { panic!("it is new") };
    assert_eq!((other.receipt.op, other.receipt.noop), (Some(Op::Updated), false));
    assert_eq!(other.changed, Some(vec![Pointer::default()]));
}

#[test]
fn hops_are_counted_from_the_cause_and_a_sender_cannot_begin_anew() {
    let mut known = Known::default();
    let cause = Cause {
        id: "e7".to_owned(),
        correlation_id: "story".to_owned(),
        hops: MAX_HOPS - 1,
        trust: Trust::Unverified,
    };
    known.causes.insert("e7".to_owned(), cause);
    let mut effect = draft("", None, "1");
    effect.envelope.causation_id = Some("e7".to_owned());
    let told = append(&mut known, std::slice::from_ref(&effect), 8).unwrap();
    let Outcome::New(appended) = &told[0] else { panic!("it is new") };
    let causality = appended.causality.as_ref().unwrap();
    assert_eq!((causality.hops, causality.trust), (MAX_HOPS, Trust::Unverified));
    known.causes.get_mut("e7").unwrap().hops = MAX_HOPS;
    let refused = append(&mut known, &[effect], 9).unwrap_err();
    assert!(matches!(refused, Refusal::Loop { draft: 0, .. }));
    let mut claimed = draft("", None, "1");
    claimed.envelope.hops = MAX_HOPS + 1;
    assert!(matches!(append(&mut known, &[claimed], 9), Err(Refusal::Loop { .. })));
}

fn any_draft() -> impl Strategy<Value = Draft> {
    let op =
        prop::sample::select(vec![None, Some(Op::Snapshot), Some(Op::Deleted), Some(Op::Created)]);
    (0..3_u8, op, 0..3_u8, 0..5_u8, prop::option::of(0..4_u64)).prop_map(
        |(stream, op, body, key, expected)| {
            let stream = if stream == 0 { String::new() } else { format!("s:{stream}") };
            let draft =
                draft(&stream, op.filter(|_| !stream.is_empty()), &format!(r#"{{"a":{body}}}"#));
            let expected_version = expected.filter(|_| !stream.is_empty());
            let draft = Draft { expected_version, ..draft };
            if key == 0 { draft } else { keyed(&key.to_string(), draft) }
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn twice_is_once(requests in prop::collection::vec(prop::collection::vec(any_draft(), 1..4), 0..12)) {
        let mut known = Known::default();
        for (at, mut request) in requests.into_iter().enumerate() {
            // Events without a key are never recognized as repeats.
            request.retain(|draft| draft.key.is_some());
            if let Ok(told) = append(&mut known, &request, 10 * at) {
                let before = known.streams.clone();
                let again = append(&mut known, &request, 1_000).unwrap();
                let receipts = |all: &[Outcome]| all.iter().map(|one| one.receipt().clone()).collect::<Vec<_>>();
                prop_assert_eq!(receipts(&told), receipts(&again));
                prop_assert_eq!(&known.streams, &before);
            }
        }
    }
}

#[test]
fn an_event_that_follows_from_another_of_the_request_is_in_its_story_and_comes_once_with_it() {
    let mut known = Known::default();
    let mut first = keyed("1", draft("", None, "1"));
    first.envelope.correlation_id = Some("story".to_owned());
    let second = Draft { caused_by: Some(0), ..draft("customer:1", Some(Op::Snapshot), "2") };
    let told = append(&mut known, &[first.clone(), second.clone()], 0).unwrap();
    let [_, Outcome::New(followed)] = &told[..] else { panic!("{told:?}") };
    let causality = followed.causality.as_ref().unwrap();
    assert_eq!(
        (causality.causation_id.as_str(), causality.correlation_id.as_str(), causality.hops),
        ("e0", "story", 1)
    );
    let again = append(&mut known, &[first, second], 2).unwrap();
    assert!(again.iter().all(|one| matches!(one, Outcome::Repeat(first) if first.id == "e0")));
    assert_eq!(known.streams["customer:1"].version, 1);
}
