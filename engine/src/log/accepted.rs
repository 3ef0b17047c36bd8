//! Makes drafts of documents that sources have sent.

use backstitch_integration::document::Value;
use backstitch_integration::events::{Door, Envelope, Op, Trust};
use backstitch_integration::ingress::Accepted;
use backstitch_saga::{Payload, Violation};

use super::draft::{EventDraft, Named};
use crate::store::intake::{Mapping, NewIntake};

/// First character of the sources of keys: no sender can use it in its name.
pub(super) const DOOR: char = '\u{1}';

impl EventDraft {
    /// Makes an event of a document that a source sent. Its type is the subject of its contract; that of a CloudEvent
    /// is a label. Only a contract of our own may say which stream it is about.
    ///
    /// # Errors
    /// The mistakes in the attributes of a CloudEvent.
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
        // A document becomes one event, however often it is processed.
        let id = accepted.dedupe_key.clone().unwrap_or_else(|| intake.id.to_string());
        draft.draft.key = Some((format!("{DOOR}{source}"), id));
        draft.draft.digest = accepted.digest;
        draft.intake = Some(Box::new(intake));
        Ok(draft)
    }

    /// Makes an event of what a document was mapped to. It follows from the event of the document.
    pub(crate) fn of_mapped(
        source: &str,
        made: MappedEvent<'_>,
        key: &str,
    ) -> Result<EventDraft, Vec<Violation>> {
        let door = Door { source: source.to_owned(), ceiling: made.trust, achieved: made.trust };
        let envelope = Envelope {
            event_type: made.contract.0.to_owned(),
            contract: Some(format!("{}@{}", made.contract.0, made.contract.1)),
            stream: made.stream,
            op: made.op,
            occurred_at: made.occurred_at,
            causation_id: made.cause,
            labels: made.supersedes.map(|id| ("supersedes".to_owned(), id)).into_iter().collect(),
            ..plain(&door)
        };
        let named = Named { claimed_source: None, source_id: None };
        let mut draft =
            EventDraft::of_envelope(envelope, named, made.body, None).map_err(|one| vec![one])?;
        draft.draft.key = Some((format!("{DOOR}{source}"), key.to_owned()));
        draft.draft.digest = made.digest;
        Ok(draft)
    }

    /// Says that it follows from another event of its request, by the place of that.
    pub(crate) fn follow(&mut self, place: usize) {
        self.draft.caused_by = Some(place);
    }

    /// Returns the time of the occurrence, as the document gives it.
    pub(crate) fn occurred_at(&self) -> Option<String> {
        self.draft.envelope.occurred_at.clone()
    }

    /// Returns the stream that it is about.
    pub(crate) fn stream(&self) -> Option<&str> {
        self.draft.envelope.stream.as_deref()
    }

    /// Says which version its stream must have before it.
    pub(crate) fn expect(&mut self, version: Option<u64>) {
        self.draft.expected_version = version;
    }

    /// Returns the result of a transform for the document of the event.
    pub(crate) fn mapping(&mut self) -> Option<&mut Mapping> {
        self.intake.as_mut()?.mapped.as_mut()
    }

    /// Gives it the document that it was, to be written with it.
    pub(crate) fn with_intake(mut self, intake: NewIntake) -> EventDraft {
        self.intake = Some(Box::new(intake));
        self
    }

    /// Returns the document that it was.
    pub(crate) fn document(&self) -> Option<NewIntake> {
        self.intake.as_deref().cloned()
    }
}

/// The event that a document was mapped to.
pub(crate) struct MappedEvent<'a> {
    /// Subject and version of its contract.
    pub(crate) contract: (&'a str, u32),
    pub(crate) body: Payload,
    pub(crate) stream: Option<String>,
    pub(crate) op: Option<Op>,
    pub(crate) digest: [u8; 32],
    pub(crate) occurred_at: Option<String>,
    pub(crate) trust: Trust,
    /// The event of the document, if that was appended before.
    pub(crate) cause: Option<String>,
    /// The event that was made of the document before.
    pub(crate) supersedes: Option<String>,
}

/// Returns an envelope of what comes through a door, about which nothing is said yet.
pub(super) fn plain(door: &Door) -> Envelope {
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
