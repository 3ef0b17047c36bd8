//! The JSON that servers, workers and clients exchange: one home, used by `api/` and `worker-sdk/` alike.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;

use serde::de::{Error, MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};
use uuid::Uuid;

use crate::{Action, Definition, Payload, RunId, Span, StepPath, Timestamp, Violation};

/// Free-form marks on a run, to search by.
pub type Labels = BTreeMap<String, String>;

/// `POST /v1/runs`: start a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartRun {
    /// The workflow's name.
    pub workflow: String,
    /// Its version; the newest without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The caller's own key: one run per workflow and key, however often it is asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The input.
    #[serde(default = "Payload::null")]
    pub input: Payload,
    /// Constant along the whole causal story; the run's own id without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Marks to search by.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_key_once"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
}

/// The answer to [`StartRun`] when it was not asked to wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunStarted {
    /// The run.
    pub id: RunId,
    /// Whether this request made it; otherwise its key had.
    pub created: bool,
}

/// `POST /v1/tasks/claim`: a worker asks for tasks. It is answered as soon as there is one, or after `wait`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimTasks {
    /// Who asks: a name for people (host, process).
    pub worker: String,
    /// One life of the worker; a new one at each start.
    pub session: Uuid,
    /// What it can do: queue to handler names. A task whose handler is not named is left for others.
    #[serde(deserialize_with = "each_key_once")]
    pub queues: BTreeMap<String, Vec<String>>,
    /// How many tasks it can take now, 1 to 1,000.
    pub max: u32,
    /// How long to wait for the first, at most 30 s.
    #[serde(default)]
    pub wait: Span,
}

/// The answer to [`ClaimTasks`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ClaimedTasks {
    /// The tasks, each leased to the asking session.
    pub tasks: Vec<TaskOffer>,
}

/// One task handed to a worker.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskOffer {
    /// The run.
    pub run: RunId,
    /// The step or item.
    pub step: StepPath,
    /// What is asked.
    pub action: Action,
    /// Which attempt of that action; to be named in heartbeats and in the report.
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
    /// The key of this effect, for the target to deduplicate on: the same over all attempts.
    pub effect_key: Uuid,
    /// For `verify` and `compensate`: the effect key of the forward attempts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub forward_key: Option<Uuid>,
    /// How often a sign of life is due; the lease ends when this long passes without one.
    pub heartbeat: Span,
    /// When the attempt is given up whatever the heartbeats say.
    pub deadline: Timestamp,
    /// The run's correlation id.
    pub correlation_id: String,
    /// What the last heartbeat of an earlier attempt said.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Payload>,
}

/// What is known of the forward attempt that a compensation undoes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Forward {
    /// It succeeded with this output.
    Succeeded(Payload),
    /// It may or may not have happened, and may even still arrive.
    Unknown,
}

/// What a verify handler found out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Verdict {
    /// It happened; this is the output that the step would have reported.
    Happened(Payload),
    /// It did not happen and will not.
    NotHappened,
}

/// `POST /v1/tasks/complete`: reports, each answered for itself.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompleteTasks {
    /// The reports, 1 to 1,000.
    pub results: Vec<TaskReport>,
}

/// What became of one task.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskReport {
    /// The run.
    pub run: RunId,
    /// The step or item.
    pub step: StepPath,
    /// What was asked.
    pub action: Action,
    /// The attempt as it was handed out.
    pub attempt: u32,
    /// What happened.
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
        /// What the target calls the thing that was made.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
    },
    /// It was not done, or may have been.
    Failed(Failure),
}

/// Why an attempt failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Failure {
    /// What may be done about it.
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

/// What may be done about a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum FailureKind {
    /// It did not happen; trying again may help.
    Retryable,
    /// It did not happen; trying again will not help.
    Permanent,
    /// The target asks to wait; this does not count as an attempt.
    RateLimited,
    /// It may have happened.
    Unknown,
}

/// The answer to [`CompleteTasks`] and [`HeartbeatTasks`], in the order of the request. The HTTP status is that of
/// the answers when they all agree, else 207.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskAnswers {
    /// One answer for each report or sign of life.
    pub results: Vec<TaskAnswer>,
}

/// The answer to one report or sign of life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TaskAnswer {
    /// 200 when it counted, 404, 409, 422 or 503 when not.
    pub status: u16,
    /// Stable code of the refusal: `lease_lost`, `unknown_run`, `busy`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// What it means, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

/// `POST /v1/tasks/heartbeat`: signs of life. A 409 tells the worker to stop: the attempt was revoked.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeartbeatTasks {
    /// One for each task still worked on.
    pub beats: Vec<Heartbeat>,
}

/// One sign of life.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Heartbeat {
    /// The run.
    pub run: RunId,
    /// The step or item.
    pub step: StepPath,
    /// What was asked.
    pub action: Action,
    /// The attempt as it was handed out.
    pub attempt: u32,
    /// How far it got; handed to the next attempt if this one is lost.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub details: Option<Payload>,
}

/// What to undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Scope {
    /// Everything.
    All,
    /// This step and everything that depends on it.
    BackTo(String),
    /// These steps and nothing else.
    Steps(Vec<String>),
}

/// `POST /v1/runs/{id}/compensate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompensateRun {
    /// What to undo.
    pub scope: Scope,
    /// Why; kept in the history. May be left out of a dry run.
    #[serde(default)]
    pub reason: String,
    /// Only say what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Undo even past a pivot.
    #[serde(default)]
    pub force: bool,
}

/// `POST /v1/runs/{id}/cancel`, `/kill`, `/retry` and `/steps/{step}/mark-compensated`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActOnRun {
    /// Why; kept in the history.
    pub reason: String,
}

/// What a compensation would do, or does.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// The steps in the order in which they are undone; those of the same `wave` may run side by side.
    pub steps: Vec<PlannedUndo>,
    /// Steps with effects that stand because nothing undoes them.
    pub irreversible: Vec<String>,
    /// Whether the point of no return has been passed, so that `force` is needed.
    pub past_pivot: bool,
}

/// One undo of a [`Plan`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlannedUndo {
    /// The step or item.
    pub step: StepPath,
    /// The handler that undoes it.
    pub name: String,
    /// From 0; a wave begins when the one before it is done.
    pub wave: u32,
    /// The input of the forward attempt.
    pub input: Payload,
    /// What is known of the forward attempt.
    pub forward: Forward,
}

/// `GET /v1/runs/{id}`: everything there is to know about a run, from one snapshot.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunView {
    /// The run's id.
    pub id: RunId,
    /// Where it belongs.
    pub namespace: String,
    /// The workflow.
    pub workflow: String,
    /// Its version.
    pub version: u32,
    /// The caller's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Constant along the whole causal story.
    pub correlation_id: String,
    /// Marks to search by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// Is it moving?
    pub state: State,
    /// What is true in the world? Null until it ended.
    pub outcome: Option<Outcome>,
    /// One sentence for people.
    pub summary: String,
    /// Why it is as it is.
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
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// When the forward part must be done.
    pub deadline: Timestamp,
    /// When something happens next without anybody's doing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// How many records its journal has: a version, for `as_of` and for waiting.
    pub seq: u64,
}

/// Is the run moving?
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum State {
    /// Nothing has been handed out yet.
    Queued,
    /// Nothing is on offer or in flight; a timer or a person moves it on.
    Waiting,
    /// Tasks are on offer or in flight.
    Running,
    /// It is being undone.
    Compensating,
    /// Undoing needs a person.
    CompensationBlocked,
    /// It is over.
    Ended,
}

impl State {
    /// The word used in JSON and in the index.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            State::Queued => "queued",
            State::Waiting => "waiting",
            State::Running => "running",
            State::Compensating => "compensating",
            State::CompensationBlocked => "compensation_blocked",
            State::Ended => "ended",
        }
    }
}

/// What is true in the world once a run ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Outcome {
    /// Everything was done.
    Succeeded,
    /// Something was done and something was not, as the definition or a person allowed.
    PartiallyCompleted,
    /// It failed and left nothing behind.
    FailedClean,
    /// It failed and something stands, or may stand.
    FailedDirty,
    /// Everything that was done, or may have been, was undone.
    Compensated,
    /// The same, but a person vouched for some of it.
    CompensatedWithManualSteps,
    /// It was cancelled before it had an effect.
    Cancelled,
}

impl Outcome {
    /// The word used in JSON and in the index.
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
}

/// One reason why a run is as it is. Only those that hold are listed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Condition {
    /// `RetryScheduled`, `IncidentOpen`, `LateResult`, `NoWorker`, `DeadlineNear`, `StepUnknown`, …
    #[serde(rename = "type")]
    pub kind: String,
    /// Which step it is about.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepPath>,
    /// For people.
    pub message: String,
    /// Since when.
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
    /// `task` or `map`.
    pub kind: String,
    /// `waiting offered leased backoff verifying parked succeeded failed unknown skipped cancelled`, a map also `open`.
    pub state: String,
    /// `compensating compensated compensation_blocked compensated_by_hand …` once it is being undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensation: Option<String>,
    /// Attempts reported as failed or succeeded.
    pub attempts: u32,
    /// Times it was handed to a worker.
    pub deliveries: u32,
    /// Attempts allowed; null without a limit.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_attempts: Option<u32>,
    /// Who works on it now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub worker: Option<String>,
    /// When it is tried again or its lease ends.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_at: Option<Timestamp>,
    /// The output, once it succeeded.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Payload>,
    /// What the target calls it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub external_id: Option<String>,
    /// The last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// The key its target deduplicates on.
    pub effect_key: Uuid,
    /// Items by state, for a map.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub items: BTreeMap<String, u32>,
}

/// The error that made a run fail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunError {
    /// Where.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepPath>,
    /// What.
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
    /// Constant along the whole causal story.
    pub correlation_id: String,
    /// Marks to search by.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// Is it moving?
    pub state: State,
    /// What is true in the world?
    pub outcome: Option<Outcome>,
    /// The types of the conditions that hold.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// When it was started.
    pub started_at: Timestamp,
    /// When it ended.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
}

/// A page of a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Page<T> {
    /// The elements.
    pub items: Vec<T>,
    /// Pass it as `after` for the next page; none when this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// One entry of `GET /v1/runs/{id}/history`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HistoryEntry {
    /// The journal record it stands in, from 1 without gaps.
    pub seq: u64,
    /// When it was decided.
    pub at: Timestamp,
    /// What happened: an object with one member, the event's name. Payloads stand where the event has them.
    pub event: Payload,
}

/// A registered workflow version.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkflowView {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// SHA-256 of its canonical text; runs pin this.
    pub hash: String,
    /// When it was registered.
    pub registered_at: Timestamp,
    /// The definition; left out of lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub definition: Option<Definition>,
}

/// The answer to `POST /v1/workflows/validate`: the definition may be registered as it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ValidWorkflow {
    /// The name it carries.
    pub name: String,
    /// The version it carries.
    pub version: u32,
}

/// What a credential may do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Everything, including credentials.
    Admin,
    /// Starts runs and acts on them, and reads.
    Operator,
    /// Starts runs and reads.
    Starter,
    /// Claims and completes tasks, registers workflows, and reads.
    Worker,
    /// Reads.
    Viewer,
}

/// `PUT /v1/credentials/{name}`: make a credential in the caller's namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewCredential {
    /// What it may do.
    pub role: Role,
}

/// The answer to [`NewCredential`]: the only time that the secret is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CredentialSecret {
    /// Its name, as it will stand in histories.
    pub name: String,
    /// Where it is good for.
    pub namespace: String,
    /// What it may do.
    pub role: Role,
    /// To be sent as `Authorization: Bearer SECRET`. Not stored and never shown again.
    pub secret: String,
}

/// `GET /v1/whoami`: whom the server takes the caller for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// The name that will stand in histories.
    pub name: String,
    /// The namespace that all requests see and change.
    pub namespace: String,
    /// What the caller may do.
    pub role: Role,
    /// Whether the server is open: it asks nobody for a credential.
    pub open: bool,
}

/// An error, as `application/problem+json` (RFC 9457).
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Problem {
    /// A URI for the kind of problem.
    #[serde(rename = "type")]
    pub kind: String,
    /// The HTTP status.
    pub status: u16,
    /// Stable code.
    pub code: String,
    /// What the code means.
    pub title: String,
    /// What happened here and what to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub detail: Option<String>,
    /// All violations, where there are any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub errors: Vec<Violation>,
}

/// Reads a map and refuses a key that stands there twice.
fn each_key_once<'de, D, V>(deserializer: D) -> Result<BTreeMap<String, V>, D::Error>
where
    D: Deserializer<'de>,
    V: Deserialize<'de>,
{
    struct EachOnce<V>(PhantomData<V>);

    impl<'de, V: Deserialize<'de>> Visitor<'de> for EachOnce<V> {
        type Value = BTreeMap<String, V>;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("an object")
        }

        fn visit_map<A: MapAccess<'de>>(self, mut members: A) -> Result<Self::Value, A::Error> {
            let mut map = BTreeMap::new();
            while let Some(key) = members.next_key::<String>()? {
                if map.contains_key(&key) {
                    return Err(A::Error::custom(format_args!("duplicate key `{key}`")));
                }
                map.insert(key, members.next_value()?);
            }
            Ok(map)
        }
    }

    deserializer.deserialize_map(EachOnce(PhantomData))
}
