//! Makes drafts of documents that sources have sent.

use backstitch_integration::document::Value;
use backstitch_integration::events::{Door, Envelope};
use backstitch_integration::ingress::Accepted;
use backstitch_saga::Violation;

use super::draft::{EventDraft, Named};
use crate::store::intake::NewIntake;

/// What the sources of keys begin with: no sender can name itself so.
const DOOR: char = '\u{1}';

impl EventDraft {
    /// Makes an event of a document that a source sent. Its type is the subject of its contract; that of a CloudEvent is a label.
    /// Only a contract of our own may say which stream it is about.
    ///
    /// # Errors
    /// What is wrong with the attributes of a CloudEvent.
    pub(crate) fn of_accepted(
        accepted: &Accepted,
        source: &str,
        intake: NewIntake,
    ) -> Result<EventDraft, Vec<Violation>> {
        let trust = accepted.trust;
        let door = Door { source: source.to_owned(), ceiling: trust, achieved: trust };
        let mut envelope = match &accepted.event {
            Some(event) => {
                let mut envelope = Envelope::accept(event, &door)?;
                envelope.labels.remove("expectedversion");
                envelope.labels.insert("type".to_owned(), event.event_type.clone());
                envelope
            }
            None => plain(&door),
        };
        envelope.event_type.clone_from(&accepted.contract);
        envelope.contract = Some(format!("{}@{}", accepted.contract, accepted.version));
        if accepted.contract.contains('.') {
            envelope.stream = None;
        }
        if envelope.stream.is_none() {
            envelope.op = None;
        }
        let body = match &accepted.event {
            Some(_) => Value::to_payload(&accepted.value),
            None => accepted.payload.clone(),
        };
        let named = Named {
            claimed_source: accepted.event.as_ref().map(|event| event.source.clone()),
            source_id: accepted.event.as_ref().map(|event| event.id.clone()),
        };
        let mut draft =
            EventDraft::of_envelope(envelope, named, body, None).map_err(|one| vec![one])?;
        // What came in once becomes one event, however often it is processed.
        let id = accepted.dedupe_key.clone().unwrap_or_else(|| intake.id.to_string());
        draft.draft.key = Some((format!("{DOOR}{source}"), id));
        draft.draft.digest = accepted.digest;
        draft.intake = Some(Box::new(intake));
        Ok(draft)
    }

    /// The document that it was.
    pub(crate) fn into_intake(self) -> Option<NewIntake> {
        self.intake.map(|intake| *intake)
    }
}

fn plain(door: &Door) -> Envelope {
    Envelope {
        id: String::new(),
        event_type: String::new(),
        source: door.source.clone(),
        claimed_source: door.source.clone(),
        stream: None,
        contract: None,
        op: None,
        occurred_at: None,
        correlation_id: None,
        causation_id: None,
        hops: 0,
        trust: door.ceiling.min(door.achieved),
        traceparent: None,
        labels: std::collections::BTreeMap::new(),
    }
}
