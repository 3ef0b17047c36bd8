//! Events of the log: how they are published and read.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Labels, each_key_once};
use crate::{Payload, Timestamp};

/// `POST /v1/events`: events to append, all of them or none.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PublishEvents {
    /// The events, in order.
    pub events: Vec<NewEvent>,
}

/// An event to append.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewEvent {
    /// The type, such as `order.placed`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// The sender's own id: the same event with the same id is appended once.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    /// The sender, as it names itself; ids are unique together with it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// The stream, such as `customer:42`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The version that the stream must have before this event; 0 for one without events.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected_version: Option<u64>,
    /// The contract that the data follows, such as `customer@2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// Operation on the entity of the stream. The changes are derived from the data before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<EventOp>,
    /// Time of the occurrence, in RFC 3339; kept with the given precision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "2026-01-05T12:00:00Z"))]
    pub occurred_at: Option<String>,
    /// The correlation id, constant along a chain of causes; that of the cause or the event's own id without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The event that caused this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// Context of a trace, passed on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Marks to filter by.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_key_once"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// The data.
    #[serde(default = "Payload::null")]
    pub data: Payload,
}

/// Operation of an event on the entity of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EventOp {
    /// The entity was created.
    C,
    /// The entity changed.
    U,
    /// The entity was deleted.
    D,
    /// The present state of the entity, changed or not.
    S,
}

impl EventOp {
    /// Returns the letter.
    #[must_use]
    pub fn letter(self) -> &'static str {
        match self {
            EventOp::C => "C",
            EventOp::U => "U",
            EventOp::D => "D",
            EventOp::S => "S",
        }
    }

    /// Returns the operation of a letter.
    #[must_use]
    pub fn of(letter: &str) -> Option<EventOp> {
        [EventOp::C, EventOp::U, EventOp::D, EventOp::S]
            .into_iter()
            .find(|op| op.letter() == letter)
    }
}

/// Trust in an event, from the least to the most.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EventTrust {
    /// Known to be untrustworthy.
    Untrusted,
    /// The sender was not verified.
    Unverified,
    /// The sender authenticated with a credential.
    Authenticated,
    /// The sender signed the document.
    Signed,
    /// The source has the authority over its subject.
    Authoritative,
}

/// The answer for one event.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventReceipt {
    /// Id of the event in the log.
    pub id: Uuid,
    /// Its stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Version of the stream with this event.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The operation that is stored.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<EventOp>,
    /// `true` if the operation contradicted the stream and was corrected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub op_corrected: bool,
    /// `true` if nothing changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub noop: bool,
    /// `true` if it had been appended before; this is the result of the first time.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub repeated: bool,
}

/// The answer to [`PublishEvents`], in the order of the events.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventsPublished {
    /// Result for each event.
    pub events: Vec<EventReceipt>,
}

/// An event of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventView {
    /// Its position in the log of the namespace; missing for the moment until it is numbered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Its id.
    pub id: Uuid,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Its version in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The contract that the data claims to follow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// Operation on the entity of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<EventOp>,
    /// `true` if the operation contradicted the stream and was corrected.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub op_corrected: bool,
    /// `true` if nothing changed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub noop: bool,
    /// Places that differ from the data before, as JSON Pointers; of events with an operation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed: Option<Vec<String>>,
    /// The sender, as the door determined it.
    pub source: String,
    /// The sender, as it names itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub claimed_source: Option<String>,
    /// The sender's own id.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source_id: Option<String>,
    /// Certainty about the sender.
    pub trust: EventTrust,
    /// Time of the occurrence.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub occurred_at: Option<String>,
    /// Time at which it was appended.
    pub received_at: Timestamp,
    /// The correlation id, constant along a chain of causes.
    pub correlation_id: String,
    /// The event that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// Length of the chain of causes.
    pub hops: u32,
    /// Context of a trace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Marks of the sender.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// The data; `null` when it was erased.
    pub data: Payload,
    /// `true` if the data was erased.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub erased: bool,
}

/// A page of the log.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventPage {
    /// The events, in the order of their positions.
    pub items: Vec<EventView>,
    /// The position up to which the log was searched: pass it as `after`.
    pub next: u64,
    /// The last position of the log.
    pub head: u64,
}

/// `PUT /v1/cursors/{name}`: move a cursor, if it is where it is thought to be.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MoveCursor {
    /// The last event that was dealt with.
    pub position: u64,
    /// The position that the cursor must have; without it there must be none of this name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expected: Option<u64>,
}

/// A named cursor of a reader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CursorView {
    /// Its name.
    pub name: String,
    /// The last event that was dealt with.
    pub position: u64,
    /// Events between there and the head of the log.
    pub behind: u64,
    /// Time of the last move.
    pub changed_at: Timestamp,
    /// The actor.
    pub changed_by: String,
}
