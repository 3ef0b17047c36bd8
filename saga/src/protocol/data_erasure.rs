//! Erasure of the data about an entity.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

/// An identifier that documents had.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EraseHint {
    /// Its kind: `email`, `phone`, or another name.
    pub kind: String,
    /// The value, in whatever spelling.
    pub value: String,
    /// The country of a national phone number, such as `DE`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
}

/// `POST /v1/erasures`: what is erased, exactly one of `stream` and `hint`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EraseData {
    /// All of this stream, such as `customer:42`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// All documents that had this identifier.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hint: Option<EraseHint>,
    /// `true` if runs that have not ended are killed. Otherwise the erasure waits for their end.
    #[serde(default)]
    pub kill: bool,
    /// The reason; kept for ever. It should not name the person.
    pub reason: String,
}

/// State of an erasure.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ErasureState {
    /// It is in progress, or is repeated for documents that were written during it.
    Running,
    /// Everything was erased.
    Done,
}

/// An erasure of documents, events and runs.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ErasureView {
    /// Its id.
    pub id: Uuid,
    /// Its state.
    pub state: ErasureState,
    /// Documents of sources whose bytes were deleted.
    pub documents: u64,
    /// Events whose data was deleted. They keep their positions.
    pub events: u64,
    /// Runs that were erased.
    pub runs: u64,
    /// Runs that stay: they have the correlation id of an event that was erased, but that is also one of others, and
    /// nothing says that they came of it.
    #[serde(default)]
    pub runs_left: u64,
    /// The condition that it waits for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The person who requested it.
    pub actor: String,
    /// The reason.
    pub reason: String,
    /// Time of the request.
    pub created_at: Timestamp,
    /// Time of its completion.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}
