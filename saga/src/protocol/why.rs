//! Reasons why a run does not go on: all that it waits for, and what people can do about it.

use serde::{Deserialize, Serialize};

use super::State;
use crate::{RunId, StepPath, Timestamp};

/// `GET /v1/runs/{id}/why`: what would have to happen for a run to go on.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Why {
    /// The run.
    pub run: RunId,
    /// Its state.
    pub state: State,
    /// One sentence for people.
    pub summary: String,
    /// Everything that it waits for; first the holds of the run as a whole. Empty once it ended.
    pub waits_for: Vec<WaitsFor>,
}

impl Why {
    /// Rewrites the sentence from what the run waits for.
    pub fn summarize(&mut self) {
        self.summary = match &self.waits_for[..] {
            [] if self.state == State::Ended => "it has ended and waits for nothing".to_owned(),
            [] => "it waits for nothing".to_owned(),
            [one] => one.message.clone(),
            [first, rest @ ..] => format!("{}; and {} more", first.message, rest.len()),
        };
    }
}

/// One thing that a run waits for. Steps or items that wait for the same are combined.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaitsFor {
    /// Its kind.
    pub kind: WaitKind,
    /// The step or item; of several the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepPath>,
    /// Number of steps or items that wait for it.
    pub count: u32,
    /// Time since when.
    pub since: Timestamp,
    /// Latest end of the wait; no limit without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// For people: what it is and what to do.
    pub message: String,
    /// The queue of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// The handler of the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub handler: Option<String>,
    /// The worker that holds the task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// The serial key, the fact and its subject as `customer.created on customer:42`, the pause, the one signal, or the
    /// workflow of the child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub named: Option<String>,
    /// The run that it waits for: the one that holds the key, or that is the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub other: Option<RunId>,
    /// The incident of this run that needs a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<u32>,
    /// Actions that people can take: the last words of the routes below the run, such as `retry`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<String>,
}

/// Reasons for which a run can wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum WaitKind {
    /// A person paused the run.
    Paused,
    /// Its workflow is paused.
    WorkflowPaused,
    /// Another run holds its serial key.
    KeyBlocked,
    /// A fact that it requires has not been established.
    DependencyUnmet,
    /// It does not wait: a fact on which it began was withdrawn, and it goes on.
    DependencyWithdrawn,
    /// It was started for a later instant.
    StartDelayed,
    /// Undoing a step failed for good: a person must decide.
    CompensationBlocked,
    /// A step going forward waits for a person.
    Parked,
    /// Nothing is under way that would ever move it.
    Stuck,
    /// No worker has a handler for the task.
    NoWorker,
    /// A task is offered, and all workers with a handler for it are busy.
    OnOffer,
    /// A task is offered in a queue that a person paused.
    QueuePaused,
    /// A task is offered in a queue whose breaker is open.
    DestinationUnavailable,
    /// A retry is offered in a queue whose retry budget is spent.
    RetryBudgetExhausted,
    /// A task is offered in a queue with a limit of concurrency or rate.
    QueueLimited,
    /// A worker holds a task.
    WithWorker,
    /// The next attempt comes at an instant.
    Retry,
    /// A signal: from a person, or from another system.
    Signal,
    /// A step sleeps until an instant.
    Timer,
    /// A step is a run of its own, which has not ended.
    Child,
    /// Items of a fan-out wait until others leave them a place.
    Place,
}
