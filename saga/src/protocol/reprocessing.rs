//! Reprocessing of many documents of sources.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{IntakeVerdict, MappingState};
use crate::{Payload, Timestamp};

/// `POST /v1/reprocessings`: the documents to process again. An omitted member selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewReprocess {
    /// Only those of this source.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
    /// Only those that follow this contract, such as `crm.contact@3`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// Only those with this verdict.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<IntakeVerdict>,
    /// Only those that were mapped, or could not be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mapping: Option<MappingState>,
    /// Only those that were refused with this code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Only those that came at this instant or later.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<Timestamp>,
    /// Only those that came before this instant; without it, those that have come by now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<Timestamp>,
    /// `true` if nothing is written, and the results are only counted.
    #[serde(default)]
    pub dry_run: bool,
    /// The reason; kept with the act.
    pub reason: String,
}

/// State of a reprocessing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ReprocessState {
    /// Documents are being processed.
    Running,
    /// All documents were processed.
    Done,
    /// A person stopped it. Events written before stay.
    Stopped,
}

/// A reprocessing of many documents. Its counts sum up to those that were processed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReprocessView {
    /// Its id.
    pub id: Uuid,
    /// Its state.
    pub state: ReprocessState,
    /// The request.
    #[cfg_attr(feature = "openapi", schema(value_type = NewReprocess))]
    pub asked: Payload,
    /// Documents that became another event, or would.
    pub changed: u64,
    /// Documents that are as they were.
    pub same: u64,
    /// Documents that cannot be mapped.
    pub failed: u64,
    /// Documents that are refused still.
    pub refused: u64,
    /// Documents of whose entity a newer one was mapped since.
    pub overtaken: u64,
    /// The reason for which it does not go on at present.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub waits_for: Option<String>,
    /// The person who requested it.
    pub actor: String,
    /// The time.
    pub created_at: Timestamp,
    /// Time of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

/// Documents that cannot be mapped for one reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MappingProblem {
    /// The contract that the documents follow.
    pub contract: String,
    /// The contract that they are to be mapped to.
    pub to: String,
    /// Code of the first failure of each.
    pub code: String,
    /// JSON Pointer to the value that cannot be mapped.
    pub pointer: String,
    /// Number of documents.
    pub documents: u64,
    /// Time at which the first of them arrived.
    pub first_at: Timestamp,
    /// Time at which the last of them arrived.
    pub last_at: Timestamp,
    /// The last of them.
    pub intake_id: Uuid,
    /// Explanation of the mistake in the last of them, for people.
    pub message: String,
    /// The value of the last of them, shortened when it is long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<Payload>,
}

/// `GET /v1/mapping-problems`: why documents cannot be mapped, the most frequent first.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MappingProblems {
    /// The reasons.
    pub items: Vec<MappingProblem>,
    /// `true` if more documents cannot be mapped than were read.
    pub more: bool,
}
