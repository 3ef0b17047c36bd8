//! The envelope of an event: its sender, its stream, its cause, and its trust.

use std::collections::BTreeMap;

use backstitch_saga::Violation;
use serde::{Deserialize, Serialize};

use super::cloudevents::{Attribute, CloudEvent};
use super::operation::Op;

/// The most bytes of a correlation id and of the ids of causes.
pub const LONGEST_ID: usize = 128;
/// The most bytes of the name of a stream.
pub(crate) const LONGEST_STREAM: usize = 256;
/// The most labels of an event.
pub(crate) const MOST_LABELS: usize = 64;

/// Trust in an event, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// Known not to be trusted.
    Untrusted,
    /// The sender was not verified.
    Unverified,
    /// The sender showed a credential.
    Authenticated,
    /// The sender signed what was sent.
    Signed,
    /// The source has the authority over its subject.
    Authoritative,
}

/// Door through which an event comes: what it says is true, whatever the event says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Door {
    /// Name of the source.
    pub source: String,
    /// The most trust that the source may have.
    pub ceiling: Trust,
    /// Trust that the verification of this request achieved.
    pub achieved: Trust,
}

/// Envelope of an event, before it is appended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Envelope {
    /// Id that the sender gave; unique together with `claimed_source`.
    pub id: String,
    /// Type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Name of the source, set by the door.
    pub source: String,
    /// Source that the event names itself. Nothing is decided by it.
    pub claimed_source: String,
    /// Stream, such as `customer:42`.
    pub stream: Option<String>,
    /// Contract that the body claims to follow.
    pub contract: Option<String>,
    /// Operation.
    pub op: Option<Op>,
    /// Time at which it happened, in the canonical spelling of instants.
    pub occurred_at: Option<String>,
    /// Id that is constant along the whole story; the engine gives one where there is none.
    pub correlation_id: Option<String>,
    /// Id of the event that caused this one.
    pub causation_id: Option<String>,
    /// Length of the chain of causes.
    pub hops: u32,
    /// Trust: the least of what the source may have and what verification achieved.
    pub trust: Trust,
    /// Context of a trace, passed on.
    pub traceparent: Option<String>,
    /// Further attributes of the sender, by which subscriptions may filter.
    pub labels: BTreeMap<String, String>,
}

impl Envelope {
    /// Takes an event in through a door.
    ///
    /// # Errors
    /// `attribute_not_valid` for attributes of ours that are not what they should be; all of them are listed.
    pub fn accept(event: &CloudEvent, door: &Door) -> Result<Envelope, Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut refuse = |name: &str, why: &str| {
            wrong.push(Violation::new(
                format!("/{name}"),
                "attribute_not_valid",
                format!("{name} {why}"),
            ));
        };
        let mut labels: BTreeMap<String, String> =
            event.extensions.iter().map(|(name, value)| (name.clone(), value.text())).collect();
        let mut id = |name: &str| {
            let found = labels.remove(name)?;
            let fits = !found.is_empty()
                && found.len() <= LONGEST_ID
                && !found.chars().any(char::is_control);
            if !fits {
                refuse(name, "has 1 to 128 bytes and no control characters");
            }
            fits.then_some(found)
        };
        let (correlation_id, causation_id) = (id("correlationid"), id("causationid"));
        let op = labels.remove("op").and_then(|letter| {
            let op = Op::of(&letter);
            if op.is_none() {
                refuse("op", "is C, U, D or S");
            }
            op
        });
        let hops = match event.extensions.get("hops") {
            None => 0,
            Some(Attribute::Integer(hops)) if *hops >= 0 => hops.unsigned_abs(),
            Some(_) => {
                refuse("hops", "is an integer, not negative");
                0
            }
        };
        labels.remove("hops");
        let traceparent = labels.remove("traceparent").filter(|text| text.len() <= LONGEST_ID);
        if event.subject.as_ref().is_some_and(|subject| subject.len() > LONGEST_STREAM) {
            refuse("subject", "names a stream of at most 256 bytes");
        }
        if labels.len() > MOST_LABELS {
            refuse("", "has more than 64 further attributes");
        }
        if !wrong.is_empty() {
            return Err(wrong);
        }
        Ok(Envelope {
            id: event.id.clone(),
            event_type: event.event_type.clone(),
            source: door.source.clone(),
            claimed_source: event.source.clone(),
            stream: event.subject.clone(),
            contract: event.dataschema.clone(),
            op,
            occurred_at: event.time.clone(),
            correlation_id,
            causation_id,
            hops,
            trust: door.ceiling.min(door.achieved),
            traceparent,
            labels,
        })
    }
}
