//! Reads events from outside, and makes drafts of them.

use backstitch_integration::canonical::{InstantRule, instant};
use backstitch_integration::document::{Value, value_of};
use backstitch_integration::events::{
    CloudEvent, Data, Door, Draft, Envelope, Op, Trust, parse_batch, parse_structured,
};
use backstitch_saga::protocol::NewEvent;
use backstitch_saga::{Payload, Violation};
use sha2::{Digest, Sha256};

use super::append::MOST_EVENTS;
use crate::Error;
use crate::store::intake::NewIntake;

/// The attribute of a CloudEvent that names the version its stream must have before it.
const EXPECTED_VERSION: &str = "expectedversion";
/// Largest size of an event beside its data, in bytes: its attributes, all of which are bounded.
const ATTRIBUTES: usize = 256 * 1024;

/// An event that was read, and is not appended yet.
#[derive(Clone, Debug)]
pub struct EventDraft {
    pub(super) draft: Draft,
    pub(super) body: Payload,
    /// The name that the sender gave itself, if any.
    pub(super) claimed_source: Option<String>,
    /// The sender's own id, if it gave one.
    pub(super) source_id: Option<String>,
    /// The document of a source that it was, to be written with it.
    pub(super) intake: Option<Box<NewIntake>>,
}

/// Returns the door of those who publish with a credential.
fn door(actor: &str) -> Door {
    Door {
        source: format!("api/{actor}"),
        ceiling: Trust::Authenticated,
        achieved: Trust::Authenticated,
    }
}

fn refused(violations: Vec<Violation>) -> Error {
    Error::Invalid { code: "invalid_event", violations }
}

/// Puts a place in front of those of violations.
fn below(place: &str, violations: Vec<Violation>) -> impl Iterator<Item = Violation> {
    violations
        .into_iter()
        .map(move |wrong| Violation { pointer: format!("{place}{}", wrong.pointer), ..wrong })
}

impl EventDraft {
    /// Reads the events of a request of `actor`, each with data of at most `limit` bytes.
    ///
    /// # Errors
    /// [`Error::Invalid`] with everything that is wrong.
    pub fn of_request(
        events: Vec<NewEvent>,
        actor: &str,
        limit: usize,
    ) -> Result<Vec<EventDraft>, Error> {
        let door = door(actor);
        let mut drafts = Vec::with_capacity(events.len());
        let mut wrong = Vec::new();
        for (at, event) in events.into_iter().enumerate() {
            match EventDraft::of_new(event, &door, limit) {
                Ok(draft) => drafts.push(draft),
                Err(found) => wrong.extend(below(&format!("/events/{at}"), found)),
            }
        }
        if wrong.is_empty() { Ok(drafts) } else { Err(refused(wrong)) }
    }

    fn of_new(event: NewEvent, door: &Door, limit: usize) -> Result<EventDraft, Vec<Violation>> {
        let NewEvent { occurred_at, op, data, .. } = event;
        let mut wrong = Vec::new();
        let occurred_at = occurred_at.and_then(|text| {
            let read = instant(&Value::String(text), &InstantRule::Rfc3339);
            let refuse = |refused: backstitch_integration::canonical::Refused| {
                wrong.push(Violation::new("/occurred_at", refused.code, refused.message));
            };
            read.map_err(refuse).ok()
        });
        if let Err(found) = data.check(limit) {
            wrong.extend(below("/data", vec![found]));
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let envelope = Envelope {
            id: event.id.clone().unwrap_or_default(),
            event_type: event.event_type,
            source: door.source.clone(),
            claimed_source: event.source.clone().unwrap_or_else(|| door.source.clone()),
            stream: event.stream,
            contract: event.contract,
            op: op.and_then(|op| Op::of(op.letter())),
            occurred_at,
            correlation_id: event.correlation_id,
            causation_id: event.causation_id,
            hops: 0,
            trust: door.ceiling.min(door.achieved),
            traceparent: event.traceparent,
            labels: event.labels.into_iter().collect(),
        };
        let named = Named { claimed_source: event.source, source_id: event.id };
        EventDraft::of_envelope(envelope, named, data, event.expected_version)
            .map_err(|found| below("/data", vec![found]).collect())
    }

    /// Makes a draft of an envelope and a body that was checked.
    pub(super) fn of_envelope(
        envelope: Envelope,
        named: Named,
        body: Payload,
        expected_version: Option<u64>,
    ) -> Result<EventDraft, Violation> {
        // An operation is compared with the body before; without a stream there is none.
        let compared = envelope.op.is_some() && envelope.stream.is_some();
        let value = if compared { Some(value_of(&body)?) } else { None };
        let canonical = body.canonical();
        let digest = |text: &str| -> [u8; 32] { Sha256::digest(text).into() };
        let body_digest = compared.then(|| digest(&canonical));
        let Named { claimed_source, source_id } = named;
        let key = source_id.clone().map(|id| (envelope.claimed_source.clone(), id));
        let draft = Draft {
            digest: digest(&sent(&envelope, &canonical)),
            envelope,
            key,
            value,
            body_digest,
            expected_version,
            caused_by: None,
        };
        Ok(EventDraft { draft, body, claimed_source, source_id, intake: None })
    }

    fn of_cloud_event(
        mut event: CloudEvent,
        door: &Door,
        limit: usize,
    ) -> Result<EventDraft, Vec<Violation>> {
        use backstitch_integration::events::Attribute;
        let mut wrong = Vec::new();
        let mut refuse = |name: &str, message: &str| {
            wrong.push(Violation::new(format!("/{name}"), "attribute_not_valid", message));
        };
        let expected_version = match event.extensions.remove(EXPECTED_VERSION) {
            None => None,
            Some(Attribute::Integer(version)) if version >= 0 && event.subject.is_some() => {
                Some(u64::from(version.unsigned_abs()))
            }
            Some(_) => {
                refuse(
                    EXPECTED_VERSION,
                    "expectedversion is an integer, not negative, and the event has a subject",
                );
                None
            }
        };
        for (name, text) in
            [("id", &event.id), ("type", &event.event_type), ("source", &event.source)]
        {
            if text.len() > LONGEST_NAME {
                refuse(name, "it has at most 256 bytes");
            }
        }
        if event.extensions.contains_key("op") && event.subject.is_none() {
            refuse(
                "op",
                "an event with an operation has a subject, whose data before it is compared with",
            );
        }
        let kind = event.datacontenttype.take().filter(|kind| kind != "application/json");
        if let Some(kind) = kind {
            event.extensions.insert("datacontenttype".to_owned(), Attribute::String(kind));
        }
        let body = match event.data.take() {
            None => Payload::null(),
            Some(Data::Json(value)) => value.to_payload(),
            Some(Data::Binary(_)) => {
                refuse("data_base64", "binary data is not taken; send JSON");
                Payload::null()
            }
        };
        if let Err(found) = body.check(limit) {
            wrong.extend(below("/data", vec![found]));
        }
        let envelope = match Envelope::accept(&event, door) {
            Ok(envelope) => envelope,
            Err(found) => {
                wrong.extend(found);
                return Err(wrong);
            }
        };
        if !wrong.is_empty() {
            return Err(wrong);
        }
        let named = Named { claimed_source: Some(event.source), source_id: Some(event.id) };
        EventDraft::of_envelope(envelope, named, body, expected_version)
            .map_err(|found| below("/data", vec![found]).collect())
    }

    /// Returns its approximate size in bytes.
    pub(super) fn bytes(&self) -> usize {
        let raw = self.intake.as_ref().and_then(|intake| intake.raw.as_ref()).map_or(0, Vec::len);
        self.body.text().len() + raw + 512
    }
}

/// The most bytes of the sender's id, source and type.
const LONGEST_NAME: usize = 256;

/// The names that the sender gave.
pub(super) struct Named {
    pub(super) claimed_source: Option<String>,
    pub(super) source_id: Option<String>,
}

/// Returns everything that a repeat has in common with the first, as a text. Who sends it and the version that is
/// expected may differ.
fn sent(envelope: &Envelope, body: &str) -> String {
    let Envelope { event_type, stream, contract, op, occurred_at, labels, .. } = envelope;
    let Envelope { correlation_id, causation_id, .. } = envelope;
    let op = op.map(Op::letter);
    // Texts and maps of texts always have a JSON form.
    let head = serde_json::to_string(&(
        event_type,
        stream,
        contract,
        op,
        occurred_at,
        labels,
        correlation_id,
        causation_id,
    ));
    format!("{}{body}", head.unwrap_or_default())
}

/// Reads one CloudEvent of `actor` in the structured JSON format, with data of at most `limit` bytes.
///
/// # Errors
/// [`Error::Invalid`] with everything that is wrong.
pub fn read_cloud_event(bytes: &[u8], actor: &str, limit: usize) -> Result<Vec<EventDraft>, Error> {
    let event = parse_structured(bytes, limit + ATTRIBUTES).map_err(refused)?;
    let draft = EventDraft::of_cloud_event(event, &door(actor), limit).map_err(refused)?;
    Ok(vec![draft])
}

/// Reads a batch of CloudEvents of `actor`: all of them or none.
///
/// # Errors
/// As [`read_cloud_event`], for all events of the batch.
pub fn read_cloud_events(
    bytes: &[u8],
    actor: &str,
    limit: usize,
) -> Result<Vec<EventDraft>, Error> {
    let events =
        parse_batch(bytes, bytes.len(), MOST_EVENTS).map_err(|found| refused(vec![found]))?;
    if events.is_empty() {
        return Err(refused(vec![Violation::new("", "empty", "a batch has at least one event")]));
    }
    let door = door(actor);
    let (mut drafts, mut wrong) = (Vec::with_capacity(events.len()), Vec::new());
    for (at, event) in events.into_iter().enumerate() {
        match event {
            Ok(event) => match EventDraft::of_cloud_event(event, &door, limit) {
                Ok(draft) => drafts.push(draft),
                Err(found) => wrong.extend(below(&format!("/{at}"), found)),
            },
            Err(found) => wrong.extend(found),
        }
    }
    if wrong.is_empty() { Ok(drafts) } else { Err(refused(wrong)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repeat_has_the_same_digest_however_it_is_spelt() {
        let draft = |text: &str| read_cloud_event(text.as_bytes(), "ann", 1_000).unwrap().remove(0);
        let one = draft(
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"x:1","data":{"a":1,"b":2}}"#,
        );
        let same = draft(
            r#"{"subject":"x:1","specversion":"1.0","id":"1","source":"s","type":"t","data":{"b":2.0,"a":1},"expectedversion":3}"#,
        );
        let other = draft(
            r#"{"specversion":"1.0","id":"1","source":"s","type":"t","subject":"x:2","data":{"a":1,"b":2}}"#,
        );
        assert_eq!(one.draft.digest, same.draft.digest);
        assert_eq!(same.draft.expected_version, Some(3));
        assert_ne!(one.draft.digest, other.draft.digest);
        assert_eq!(one.draft.key, Some(("s".to_owned(), "1".to_owned())));
        assert_eq!(one.draft.envelope.source, "api/ann");
    }

    #[test]
    fn an_attribute_that_is_no_good_is_refused_with_its_place() {
        let wrong = |text: &str| match read_cloud_events(text.as_bytes(), "ann", 1_000) {
            Err(Error::Invalid { violations, .. }) => violations[0].pointer.clone(),
            other => panic!("{other:?}"),
        };
        let event = |more: &str| {
            format!(r#"[{{"specversion":"1.0","id":"1","source":"s","type":"t"{more}}}]"#)
        };
        assert_eq!(wrong(&event(r#","op":"C""#)), "/0/op");
        assert_eq!(wrong(&event(r#","expectedversion":1"#)), "/0/expectedversion");
        assert_eq!(wrong(&event(r#","data_base64":"AA==""#)), "/0/data_base64");
        assert_eq!(wrong(&event(r#","subject":"x","op":"X""#)), "/0/op");
        assert_eq!(wrong("[]"), "");
    }
}
