//! Requests and reports of workers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::each_key_once;
use crate::{Action, Payload, RunId, Span, StepPath, Timestamp};

/// `POST /v1/tasks/claim`: a worker asks for tasks. It is answered as soon as there is one, or after `wait`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimTasks {
    /// Name of the worker, for people (host, process).
    pub worker: String,
    /// One life of the worker; a new one at each start.
    pub session: Uuid,
    /// Tasks that it can do: queue to handler names. A task whose handler is not named is left for
    /// others.
    #[serde(deserialize_with = "each_key_once")]
    pub queues: BTreeMap<String, Vec<String>>,
    /// Number of tasks that it can take now, 1 to 1,000.
    pub max: u32,
    /// Longest wait for the first task, at most 30 s.
    #[serde(default)]
    pub wait: Span,
    /// All tasks that the session holds, at most 10,000; their leases are optional. Other tasks that the server leased
    /// to it were lost, and are offered again as they were. Send it if an earlier claim was not answered, or a
    /// response has `holding_unknown`; not otherwise. Claims of the session that are still waiting get no tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub holding: Option<Vec<HeldTask>>,
}

/// The most tasks that a claim may name as held.
pub const MOST_HELD: usize = 10_000;

/// The answer to [`ClaimTasks`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimedTasks {
    /// The tasks, each leased to the asking session.
    pub tasks: Vec<TaskOffer>,
    /// Tasks were leased to the session by a dead server, and may not have reached it: its next claim must name the
    /// tasks that it holds.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub holding_unknown: bool,
}

/// One task handed to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskOffer {
    /// The run.
    pub run: RunId,
    /// The step or item.
    pub step: StepPath,
    /// The action.
    pub action: Action,
    /// Number of the attempt of that action; sent with heartbeats and with the report.
    pub attempt: u32,
    /// The handler to call.
    pub name: String,
    /// The queue it came from.
    pub queue: String,
    /// The workflow.
    pub workflow: String,
    /// Its version.
    pub version: u32,
    /// The input of the step; for `verify` and `compensate` the input of the forward attempt.
    pub input: Payload,
    /// For `compensate`: what is known of the forward attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward: Option<Forward>,
    /// The key of the item, where its map gives keys.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item_key: Option<String>,
    /// The key of this effect, for the target to deduplicate on: the same over all attempts.
    pub effect_key: Uuid,
    /// For `verify` and `compensate`: the effect key of the forward attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_key: Option<Uuid>,
    /// Interval of heartbeats; the lease ends if this time passes without one.
    pub heartbeat: Span,
    /// Time at which the attempt is given up in spite of heartbeats.
    pub deadline: Timestamp,
    /// The run's correlation id.
    pub correlation_id: String,
    /// A worker was lost over an earlier attempt: do it with nothing else under way, so that it is known what kills.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub alone: bool,
    /// Details of the last heartbeat of an earlier attempt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Payload>,
    /// The token of the lease: to be sent with every message about this task, and kept secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
}

/// State of the forward attempt that a compensation undoes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Forward {
    /// It succeeded with this output.
    Succeeded(Payload),
    /// It may or may not have happened, and may even still arrive.
    Unknown,
}

/// Result of a verify handler.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Verdict {
    /// It happened; this is the output that the step would have reported.
    Happened(Payload),
    /// It did not happen and will not.
    NotHappened,
}

/// `POST /v1/tasks/complete`: reports, each with its own result.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompleteTasks {
    /// The reports, 1 to 1,000.
    pub results: Vec<TaskReport>,
}

/// Result of one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskReport {
    /// The run.
    pub run: RunId,
    /// The step or item.
    pub step: StepPath,
    /// The action.
    pub action: Action,
    /// The attempt as it was handed out.
    pub attempt: u32,
    /// The token of the lease, as it came with the task. Only who claimed the task knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// The result.
    pub outcome: TaskOutcome,
}

/// The outcome of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum TaskOutcome {
    /// It was done.
    Succeeded {
        /// The output; for `verify` a [`Verdict`].
        output: Payload,
        /// Name in the target system of the thing that was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
    },
    /// It was not done, or may have been.
    Failed(Failure),
    /// It was done, and there is no output that the server could keep: it is too large, or has no JSON. The attempt is
    /// not made again.
    DoneWithoutOutput {
        /// Stable code, `[a-z][a-z0-9_]*`, such as `output_too_large`.
        code: String,
        /// For people.
        message: String,
    },
}

/// A failure of an attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failure {
    /// Consequence of the failure.
    pub kind: FailureKind,
    /// Stable code, `[a-z][a-z0-9_]*`.
    pub code: String,
    /// For people.
    pub message: String,
    /// For machines and for people who dig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Payload>,
    /// The next attempt is not made before this long.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_after: Option<Span>,
}

/// Consequence of a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FailureKind {
    /// It did not happen; a retry may succeed.
    Retryable,
    /// It did not happen; a retry will not succeed.
    Permanent,
    /// The target requests a wait; this does not count as an attempt.
    RateLimited,
    /// The target does not respond, and nothing was attempted there; this does not count as an
    /// attempt.
    Unavailable,
    /// It may have happened.
    Unknown,
}

impl FailureKind {
    /// Returns whether such a failure counts against the attempts of a retry policy.
    #[must_use]
    pub fn counts(self) -> bool {
        !matches!(self, FailureKind::RateLimited | FailureKind::Unavailable)
    }
}

/// The answer to [`CompleteTasks`] and [`HeartbeatTasks`], in the order of the request. The HTTP status is that of
/// the answers when they all agree, else 207.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskAnswers {
    /// One result for each report or heartbeat.
    pub results: Vec<TaskAnswer>,
}

/// The result for one report or heartbeat.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskAnswer {
    /// 200 when it counted, 403, 404, 409, 422 or 503 when not.
    pub status: u16,
    /// Stable code of the refusal: `lease_lost`, `unknown_run`, `busy`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Explanation, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `POST /v1/tasks/heartbeat`: heartbeats. A 409 tells the worker to stop: the attempt was revoked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatTasks {
    /// One for each task still worked on.
    pub beats: Vec<Heartbeat>,
}

/// One heartbeat.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// The run.
    pub run: RunId,
    /// The step or item.
    pub step: StepPath,
    /// The action.
    pub action: Action,
    /// The attempt as it was handed out.
    pub attempt: u32,
    /// The token of the lease, as it came with the task. Only who claimed the task knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
    /// Progress; passed to the next attempt if this one is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Payload>,
}

/// `POST /v1/tasks/release`: gives back tasks that were not begun. Each is offered again immediately, as the same
/// attempt and before later tasks, as if it had not been handed out.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ReleaseTasks {
    /// The session that holds them.
    pub session: Uuid,
    /// The tasks, 1 to 1,000.
    pub tasks: Vec<HeldTask>,
}

/// A task that a worker holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldTask {
    /// The run.
    pub run: RunId,
    /// The step or item.
    pub step: StepPath,
    /// The action.
    pub action: Action,
    /// The attempt as it was handed out.
    pub attempt: u32,
    /// The token of the lease, as it came with the task. Only who claimed the task knows it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lease: Option<String>,
}
