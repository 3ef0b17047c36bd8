//! Open effects: effects in other systems that remain although they should not, or that may remain.

use serde::{Deserialize, Serialize};

use super::{Outcome, State};
use crate::{RunId, Span, Timestamp};

/// State of an open effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum EffectStatus {
    /// It remains, and is to be undone or was left by a run that failed.
    Standing,
    /// It may have happened, and is not undone.
    Unknown,
}

impl EffectStatus {
    /// Returns the word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            EffectStatus::Standing => "standing",
            EffectStatus::Unknown => "unknown",
        }
    }
}

/// Filter of open effects.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EffectFilter {
    /// Only in this system: the queue on which the tasks of the step are offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub system: Option<String>,
    /// Only those that are open so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub status: Option<EffectStatus>,
    /// Only of runs of this workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Only those that are open for longer than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<Span>,
}

/// One line of `GET /v1/effects`: the open effects of one step of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EffectLine {
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: String,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The step; of a fan-out all items together.
    pub step: String,
    /// The system: the queue on which the tasks of the step are offered.
    pub system: String,
    /// Number of effects that remain and are to be undone by a run with an open incident, or were left by a run that
    /// failed.
    pub standing: u32,
    /// Number of effects that may have happened and are not undone.
    pub unknown: u32,
    /// Time since when effects of the step are open.
    pub since: Timestamp,
    /// State of the run.
    pub state: State,
    /// Outcome of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}

/// `GET /v1/effects/counts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EffectCounts {
    /// The systems with open effects, the longest open first.
    pub systems: Vec<SystemCount>,
    /// `true` if there are more than were counted: the oldest 10,000 steps are counted.
    pub more: bool,
}

/// The open effects in one system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SystemCount {
    /// The system: the queue on which the tasks of the steps are offered.
    pub system: String,
    /// Number of runs.
    pub runs: u64,
    /// Number of effects that remain and are to be undone, or were left behind.
    pub standing: u64,
    /// Number of effects that may have happened and are not undone.
    pub unknown: u64,
    /// Time since when the oldest of them is open.
    pub oldest: Timestamp,
}
