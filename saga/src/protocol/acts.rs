//! Requests of people and other systems to runs that have not ended, beside undoing them.

use serde::{Deserialize, Serialize};

use super::Plan;
use crate::{Payload, RunId, Timestamp};

/// The body of acts that need nothing but a reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// The reason; kept with the act, and in the history of what it is done to.
    pub reason: String,
}

/// `POST /v1/runs/{id}/pause` and `/resume`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PauseRun {
    /// The reason; kept in the history.
    pub reason: String,
    /// Name of the pause. A run goes on when it has no pause. Without a name, `/pause` uses the caller's name, and
    /// `/resume` ends all pauses.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// State of a paused queue or schedule.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Paused {
    /// Time of the pause.
    pub since: Timestamp,
    /// The actor.
    pub actor: String,
    /// The reason.
    pub reason: String,
}

/// `POST /v1/runs/{id}/steps/{step}/retry`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetryStep {
    /// The reason; kept in the history.
    pub reason: String,
    /// A better input; the one before stays in the history.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
}

/// `POST /v1/runs/{id}/steps/{step}/skip`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SkipStep {
    /// The reason; kept in the history.
    pub reason: String,
    /// Output in place of its own; without it, steps that need the step's output are skipped too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
}

/// `POST /v1/runs/{id}/steps/{step}/resolve`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResolveStep {
    /// Evidence that the step was done; kept in the history.
    pub reason: String,
    /// The step's output.
    pub output: Payload,
    /// Name of the effect in the target system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
}

/// `POST /v1/runs/{id}/rerun`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RerunRun {
    /// The step to begin with.
    pub from: String,
    /// The reason; kept in the history. May be left out of a dry run.
    #[serde(default)]
    pub reason: String,
    /// A new input for that step, a task or a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// The items to repeat, if the step is a fan-out.
    #[serde(default, skip_serializing_if = "RerunItems::is_all")]
    pub items: RerunItems,
    /// Even if something that nothing undoes is done twice.
    #[serde(default)]
    pub force: bool,
    /// Only return what would be undone and done again.
    #[serde(default)]
    pub dry_run: bool,
}

/// The items of a fan-out that a rerun repeats.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RerunItems {
    /// All items of the list as it is then. Their earlier effects are undone first.
    #[default]
    All,
    /// Items that failed, are in doubt or were never begun. The others keep their results, and the join is decided
    /// again.
    Failed,
}

impl RerunItems {
    /// Returns whether all items are repeated.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == RerunItems::All
    }
}

/// The effects of a rerun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RerunPlan {
    /// The undo that comes first.
    pub undo: Plan,
    /// The steps that are done again.
    pub again: Vec<String>,
    /// Number of items of the fan-out that are executed again, if only the failed ones are requested.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u32>,
}

/// `POST /v1/runs/{id}/signals/{signal}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SendSignal {
    /// Data of the signal: the output of the step that waits for it.
    pub data: Payload,
}

/// `POST /v1/signals`: a signal for the run that a business key started, or will start.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SendSignalByKey {
    /// The workflow.
    pub workflow: String,
    /// The key of the run.
    pub key: String,
    /// The signal's name.
    pub signal: String,
    /// Data of the signal.
    pub data: Payload,
}

/// The answer to [`SendSignalByKey`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignalSent {
    /// The run that got it; none when it is kept for the run that the key will start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
}
