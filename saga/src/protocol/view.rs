//! Views of runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{CompensationState, Failure, Labels, StepKind, StepState};
use crate::{OneSignal, Parent, Payload, RunId, Span, StepPath, Timestamp};

/// `GET /v1/runs/{id}`: everything there is to know about a run, from one snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunView {
    /// The run's id.
    pub id: RunId,
    /// Its namespace.
    pub namespace: String,
    /// The workflow.
    pub workflow: String,
    /// Its version.
    pub version: u32,
    /// The step of another run that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Runs that are steps of this one and were left at work, as their steps declare: when it was killed, or while it
    /// is paused.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub children_left: Vec<RunId>,
    /// The caller's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The correlation id, constant along a chain of causes.
    pub correlation_id: String,
    /// The event of the log that caused it, if one did.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// Marks to search by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// Its state.
    pub state: State,
    /// Its outcome; null until it ended.
    pub outcome: Option<Outcome>,
    /// One sentence for people.
    pub summary: String,
    /// Reasons for its state.
    pub conditions: Vec<Condition>,
    /// Steps, items and effects, counted.
    pub progress: Progress,
    /// Each step of the definition.
    pub steps: Vec<StepView>,
    /// The input.
    pub input: Payload,
    /// The output, once it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
    /// The error that made it fail; kept beside the outcome of the compensation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<RunError>,
    /// Time at which it was started.
    pub started_at: Timestamp,
    /// The later instant for which it was started; nothing of it begins before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// Time of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Time at which its documents were erased; they are then `null`, and texts are empty.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub erased_at: Option<Timestamp>,
    /// Time by which the forward part must be done.
    pub deadline: Timestamp,
    /// Deadline of the run, its undo included, if its start set one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_by: Option<EndByView>,
    /// Time of the next change without a request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// Number of records of its journal: a version, for `as_of` and for waiting.
    pub seq: u64,
}

/// The instant by which a run is to be over, its undo included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EndByView {
    /// The instant.
    pub at: Timestamp,
    /// The time reserved for undoing what has begun, as long as the run is undone when that is all that is left.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reserved: Option<Span>,
    /// Time at which its undo would begin, as far as the run has come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_at: Option<Timestamp>,
}

/// State of a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum State {
    /// Nothing has been handed out yet.
    Queued,
    /// No task is offered or in flight; a timer or a person moves it on.
    Waiting,
    /// Tasks are offered or in flight.
    Running,
    /// A person or a guard paused it: no task of it is handed out.
    Paused,
    /// It is being undone.
    Compensating,
    /// Undoing needs a person.
    CompensationBlocked,
    /// It is over.
    Ended,
}

impl State {
    /// Returns the word used in JSON and in the index.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Waiting => "waiting",
            State::Running => "running",
            State::Paused => "paused",
            State::Compensating => "compensating",
            State::CompensationBlocked => "compensation_blocked",
            State::Ended => "ended",
        }
    }
}

/// Outcome of an ended run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Outcome {
    /// Everything was done.
    Succeeded,
    /// Some steps were done and some were not, as the definition or a person allowed.
    PartiallyCompleted,
    /// It failed and left no effects.
    FailedClean,
    /// It failed, and effects remain or may remain.
    FailedDirty,
    /// Everything that was done, or may have been, was undone.
    Compensated,
    /// Everything was undone; a person vouched for a part of it.
    CompensatedWithManualSteps,
    /// It was cancelled before it had an effect.
    Cancelled,
}

impl Outcome {
    /// All of them.
    pub const ALL: [Outcome; 7] = [
        Outcome::Succeeded,
        Outcome::PartiallyCompleted,
        Outcome::FailedClean,
        Outcome::FailedDirty,
        Outcome::Compensated,
        Outcome::CompensatedWithManualSteps,
        Outcome::Cancelled,
    ];

    /// Returns the word used in JSON and in the index.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Outcome::Succeeded => "succeeded",
            Outcome::PartiallyCompleted => "partially_completed",
            Outcome::FailedClean => "failed_clean",
            Outcome::FailedDirty => "failed_dirty",
            Outcome::Compensated => "compensated",
            Outcome::CompensatedWithManualSteps => "compensated_with_manual_steps",
            Outcome::Cancelled => "cancelled",
        }
    }

    /// Returns whether a run with this outcome leaves no effects: none remains or may remain.
    #[must_use]
    pub fn is_clean(self) -> bool {
        match self {
            Outcome::FailedClean
            | Outcome::Compensated
            | Outcome::CompensatedWithManualSteps
            | Outcome::Cancelled => true,
            Outcome::Succeeded | Outcome::PartiallyCompleted | Outcome::FailedDirty => false,
        }
    }
}

/// One reason for the state of a run. Only present reasons are listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Condition {
    /// `Paused`, `StartDelayed`, `ParentPaused`, `Orphaned`, `KeyBlocked`, `DependencyUnmet`, `RetryScheduled`,
    /// `IncidentOpen`, `LateResult`, `NoWorker`, `DeadlineNear`, `StepUnknown`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// The step that it concerns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepPath>,
    /// For people.
    pub message: String,
    /// Time since when.
    pub since: Timestamp,
}

/// Counts of a run; the parts always sum to the total.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Progress {
    /// Steps by state.
    pub steps: BTreeMap<String, u32>,
    /// Steps in all.
    pub steps_total: u32,
    /// Items of all maps by state.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub items: BTreeMap<String, u32>,
    /// Items in all.
    #[serde(default)]
    pub items_total: u32,
    /// Effects of steps and items: `applied`, `not_applied`, `unknown`, `reverted`. Read-only steps have none.
    pub effects: BTreeMap<String, u32>,
}

/// One step of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StepView {
    /// The step or item.
    pub step: StepPath,
    /// The key of an item, where its map gives keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_key: Option<String>,
    /// `task`, `map`, `wait`, `sleep`, `child` or `fail`, or `item`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub kind: StepKind,
    /// `waiting held awaiting_signal sleeping child_running offered leased backoff verifying parked succeeded failed
    /// unknown skipped cancelled`, a map also `open`.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub state: StepState,
    /// `compensating compensated compensation_blocked compensated_by_hand …` once it is being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(value_type = Option<String>))]
    pub compensation: Option<CompensationState>,
    /// Attempts reported as failed or succeeded.
    pub attempts: u32,
    /// Times it was handed to a worker.
    pub deliveries: u32,
    /// Attempts allowed; null without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// The worker that holds it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// Time at which it is retried or its lease ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// The output, once it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
    /// Size of the output in bytes, if the view of a run leaves it out because all outputs together would be too large:
    /// `GET /v1/runs/{id}/steps/{step}` returns it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_bytes: Option<u64>,
    /// Name of the effect in the target system.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The key its target deduplicates on.
    pub effect_key: Uuid,
    /// Effects that it has in the world, counted as in `progress`; none for what has no effects.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub effects: BTreeMap<String, u32>,
    /// The decision that a step that waits for a signal requests.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub awaits: Option<Awaits>,
    /// The run that the step is, once it was asked for. While its workflow is paused it has not begun, and is not found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<RunId>,
    /// Items by state, for a map.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub items: BTreeMap<String, u32>,
}

/// The decision that a step that waits for a signal requests.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Awaits {
    /// The signal's name; of several, the first.
    pub signal: String,
    /// All of them, when the first of several ends the wait.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub signals: Vec<OneSignal>,
    /// The decision to make, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub title: Option<String>,
    /// JSON Schema of the signal's data: the form.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Payload>,
    /// The person who is to send it, while the step waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    /// The person who sent it, once it came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sent_by: Option<String>,
}

/// The error that made a run fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunError {
    /// The step or item of it; none for the run as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepPath>,
    /// The error.
    pub failure: Failure,
}

/// One line of `GET /v1/runs`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunLine {
    /// The run's id.
    pub id: RunId,
    /// The workflow.
    pub workflow: String,
    /// Its version.
    pub version: u32,
    /// The caller's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The correlation id, constant along a chain of causes.
    pub correlation_id: String,
    /// Marks to search by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// Its state.
    pub state: State,
    /// Its outcome.
    pub outcome: Option<Outcome>,
    /// The types of the conditions that hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// Time at which it was started.
    pub started_at: Timestamp,
    /// Time of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

/// One entry of `GET /v1/runs/{id}/history`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryEntry {
    /// The journal record that holds it, from 1 without gaps.
    pub seq: u64,
    /// Time of the decision.
    pub at: Timestamp,
    /// The event: an object with one member, its name. Payloads are included.
    pub event: Payload,
}
