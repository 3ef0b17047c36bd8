//! What people and other systems ask of runs that are under way, beside undoing them.

use serde::{Deserialize, Serialize};

use super::Plan;
use crate::{Payload, RunId, Timestamp};

/// The body of acts that need nothing but a reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Reason {
    /// Why; kept with the act, and in the history of what it is done to.
    pub reason: String,
}

/// `POST /v1/runs/{id}/pause` and `/resume`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PauseRun {
    /// Why; kept in the history.
    pub reason: String,
    /// Which of several pauses. A run goes on when all are gone. Without it, `/pause` makes one of the caller's name,
    /// and `/resume` takes away all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// Why a queue or a schedule is paused.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Paused {
    /// Since when.
    pub since: Timestamp,
    /// By whom.
    pub actor: String,
    /// Why.
    pub reason: String,
}

/// `POST /v1/runs/{id}/steps/{step}/retry`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetryStep {
    /// Why; kept in the history.
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
    /// Why; kept in the history.
    pub reason: String,
    /// What stands in its place; without it, what needs the step's output is skipped too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
}

/// `POST /v1/runs/{id}/steps/{step}/resolve`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResolveStep {
    /// How it is known; kept in the history.
    pub reason: String,
    /// The step's output.
    pub output: Payload,
    /// What the target calls it.
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
    /// Why; kept in the history. May be left out of a dry run.
    #[serde(default)]
    pub reason: String,
    /// A new input for that step, a task or a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input: Option<Payload>,
    /// Which items, when the step is a fan-out.
    #[serde(default, skip_serializing_if = "RerunItems::is_all")]
    pub items: RerunItems,
    /// Even if something that nothing undoes is done twice.
    #[serde(default)]
    pub force: bool,
    /// Only say what would be undone and done again.
    #[serde(default)]
    pub dry_run: bool,
}

/// The items of a fan-out that a rerun does anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum RerunItems {
    /// All, over the list as it is then: what the items did before is undone first.
    #[default]
    All,
    /// Those that failed, are in doubt or were never begun. What the others did stands, and the join is decided anew.
    Failed,
}

impl RerunItems {
    /// Whether all items are done anew.
    #[must_use]
    pub fn is_all(&self) -> bool {
        *self == RerunItems::All
    }
}

/// What a rerun would do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RerunPlan {
    /// What is undone first.
    pub undo: Plan,
    /// The steps that are done again.
    pub again: Vec<String>,
    /// How many items of the fan-out are executed again, when that is asked for the failed ones alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub items: Option<u32>,
}

/// `POST /v1/runs/{id}/signals/{signal}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SendSignal {
    /// What it says: the output of the step that waits for it.
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
    /// What it says.
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
