//! Identity hints: raw identifiers that documents had.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::IntakeVerdict;
use crate::Timestamp;

/// An identifier that a document of a source had, as it came. Nothing is merged by it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HintView {
    /// Its kind: `email`, `phone`, or another name.
    pub kind: String,
    /// The value as it came.
    pub value_raw: String,
    /// The value in its one spelling; none for a value that has no such form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value_norm: Option<String>,
    /// `true` if the value identifies nobody, such as `unknown` or `0000`.
    pub junk: bool,
    /// JSON Pointer to its place in the document.
    pub at: String,
    /// The document.
    pub intake_id: Uuid,
    /// The source that sent it.
    pub source: String,
    /// Result for the document.
    pub verdict: IntakeVerdict,
    /// Time of its arrival.
    pub received_at: Timestamp,
    /// The event that the document became.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub event_id: Option<Uuid>,
    /// The event that the document was mapped to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapped_event_id: Option<Uuid>,
    /// The stream of these events, which is the entity that they are about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
}
