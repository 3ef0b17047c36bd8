//! Intake: documents of sources, and their results.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{EventTrust, RunLine};
use crate::{Payload, Timestamp, Violation};

/// The response to an accepted document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntakeReceipt {
    /// The stored document; for a duplicate, the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake_id: Option<Uuid>,
    /// The event that it became; of a duplicate, that of the first.
    pub event_id: Uuid,
    /// `true` if the same document was taken in before.
    pub duplicate: bool,
}

/// The answer for one record of a batch.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntakeAnswer {
    /// The status that it would have had in a request of its own: 202, 200 for a duplicate, or that
    /// of its refusal.
    pub status: u16,
    /// The stored record, accepted or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intake_id: Option<Uuid>,
    /// The event that it became; of a duplicate, that of the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// `true` if the same document was taken in before.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub duplicate: bool,
    /// Code of the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Explanation of the mistake with what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Everything that is wrong with the record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
}

/// The answer to a batch, in the order of its records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntakeAnswers {
    /// Result for each record.
    pub records: Vec<IntakeAnswer>,
}

/// Result for a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IntakeVerdict {
    /// It became an event of the log.
    Accepted,
    /// It was refused, and may be processed again once the cause is corrected.
    Refused,
}

/// State of the mapping of a document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum MappingState {
    /// An event of a canonical contract was made of it.
    Mapped,
    /// No event was made: values could not be mapped, or there is no transform.
    Failed,
    /// No event was made, because a newer document of the entity had been mapped when it was
    /// processed again.
    Overtaken,
}

/// Result of a transform for a document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntakeMapping {
    /// State of the mapping.
    pub state: MappingState,
    /// The contract that it is mapped to.
    pub to: String,
    /// The revision of the transform that did it last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// The last event that was made of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// Number of events made of it: one, and another each time that it was processed again with another result.
    pub events: u32,
    /// Values that a rule changed, with the reason; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changes: Option<Payload>,
    /// Values that no rule read, by their places; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unmapped: Option<Payload>,
    /// Parts that could not be mapped, each with its place and value; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Payload>,
}

/// The door through which a document came.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IntakeDoor {
    /// In a request of its own.
    Request,
    /// As a record of a batch.
    Batch,
    /// As a row of a file. That of a CSV file is kept with the first row of the file.
    File,
}

/// An event of a lineage.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LineageEvent {
    /// Its id.
    pub id: Uuid,
    /// Its position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Its type.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Its stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// Its version in the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u64>,
    /// The contract of its data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// The sender, as the door determined it.
    pub source: String,
    /// Trust in it.
    pub trust: EventTrust,
    /// Time of its arrival.
    pub received_at: Timestamp,
    /// The event that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
}

/// `GET /v1/events/{id}/lineage`: what an event came from, and what came of it.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventLineage {
    /// The event.
    pub event: LineageEvent,
    /// The chain of its causes, the nearest first.
    pub causes: Vec<LineageEvent>,
    /// The documents of sources that these events were, or were made of. Their bytes are at `/v1/intakes/{id}/raw`.
    pub documents: Vec<IntakeView>,
    /// The events that it caused, also by others, by their positions.
    pub effects: Vec<LineageEvent>,
    /// The runs with its correlation id.
    pub runs: Vec<RunLine>,
    /// `true` if there are more events or runs than were read.
    pub more: bool,
}

/// A stored document, accepted or refused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IntakeView {
    /// Its id.
    pub id: Uuid,
    /// The source that sent it.
    pub source: String,
    /// Version of the source's configuration that it was held to last.
    pub source_version: u32,
    /// Its result.
    pub verdict: IntakeVerdict,
    /// Code of the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Explanation of the mistake, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Everything that was wrong with it; not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
    /// Time of its arrival.
    pub received_at: Timestamp,
    /// Time at which it was processed again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub processed_at: Option<Timestamp>,
    /// The door through which it came.
    pub door: IntakeDoor,
    /// Trust: the least of what the source may have and of what its verification achieved.
    pub trust: EventTrust,
    /// The contract that it follows, such as `crm.contact@3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// The event that it became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// SHA-256 of its bytes, in hexadecimal digits.
    pub digest: String,
    /// Its bytes.
    pub bytes: u64,
    /// Its content type.
    pub content_type: String,
    /// The address that it came from; that of the last proxy, if there is one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub peer: Option<String>,
    /// Id of the request, as in the log of the server.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// Result of its transform, if the source names a contract to map to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<IntakeMapping>,
    /// Headers of the request; secrets are left out. Not in lists.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub headers: BTreeMap<String, String>,
}
