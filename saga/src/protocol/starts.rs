//! Starts that applications requested in their own transactions.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::{Payload, RunId, Timestamp, Violation};

/// A start that was asked for with `backstitch.start_run` and has not become a run yet.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartRequestView {
    /// The request.
    pub id: Uuid,
    /// The id that was answered, which the run gets.
    pub run: RunId,
    /// The workflow's name.
    pub workflow: String,
    /// Its version; the newest without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<i32>,
    /// The caller's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The correlation id, constant along a chain of causes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Marks to search by, as they were given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub labels: Option<Payload>,
    /// The input; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// Time of the request.
    pub requested_at: Timestamp,
    /// Its state.
    pub state: StartRequestState,
    /// The engine's last refusal of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub refusal: Option<Refused>,
    /// The decision of a person about it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub decision: Option<Decision>,
}

/// State of a requested start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StartRequestState {
    /// It will be started.
    Waiting,
    /// The engine refused it; it needs a person.
    Refused,
    /// A person decided that it is not to start.
    Dismissed,
}

impl StartRequestState {
    /// Returns the word used in JSON and in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StartRequestState::Waiting => "waiting",
            StartRequestState::Refused => "refused",
            StartRequestState::Dismissed => "dismissed",
        }
    }

    /// Returns the state with this word.
    #[must_use]
    pub fn from_word(word: &str) -> Option<StartRequestState> {
        [StartRequestState::Waiting, StartRequestState::Refused, StartRequestState::Dismissed]
            .into_iter()
            .find(|state| state.as_str() == word)
    }
}

/// The refusal of a start.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Refused {
    /// Stable code: `unknown_workflow`, `invalid_input`, `key_conflict`, `key_taken`, …
    pub code: String,
    /// For people.
    pub message: String,
    /// Mistakes in the request.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
    /// The time.
    pub at: Timestamp,
}

/// The decision of a person.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Decision {
    /// The actor.
    pub by: String,
    /// The reason.
    pub reason: String,
    /// The time.
    pub at: Timestamp,
}
