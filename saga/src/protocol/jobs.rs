//! Requests and responses about jobs: one verb on many incidents or runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{
    FactDependent, IncidentFilter, IncidentId, Labels, Outcome, RerunItems, State, each_key_once,
};
use crate::{Payload, RunId, Span, Timestamp};

/// Filter of runs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunsFilter {
    /// Only this workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Only in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<State>,
    /// Only with this outcome.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Only with this key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Only with this correlation id.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// Only with all of these labels.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "each_key_once")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// Only where this condition holds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub condition: Option<String>,
    /// Only those with an open incident (`true`), or without (`false`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub incident: Option<bool>,
    /// Only those with a step that may have happened in this system: the queue on which the step's tasks are offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub unknown_in: Option<String>,
    /// Only those that ask this person for a signal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    /// Only those started at this instant or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_from: Option<Timestamp>,
    /// Only those started before this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_to: Option<Timestamp>,
    /// Only those ended at this instant or later.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_from: Option<Timestamp>,
    /// Only those ended before this instant.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ended_to: Option<Timestamp>,
}

/// `POST /v1/jobs`: do one thing to many. Exactly one of `incidents` and `runs` is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewJob {
    /// The action on each. `skip` and `mark-compensated` need incidents.
    pub verb: JobVerb,
    /// The incidents to act on; of these the open ones.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incidents: Option<IncidentFilter>,
    /// The runs to act on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<RunsFilter>,
    /// For `rerun`: the step from which; needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<String>,
    /// For `rerun`: the new input of that step.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Payload::present"
    )]
    pub input: Option<Payload>,
    /// For `rerun` from a fan-out: the items to repeat.
    #[serde(default, skip_serializing_if = "RerunItems::is_all")]
    pub items: RerunItems,
    /// For `rerun`: even if something that nothing undoes is done twice.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// For `pause` and `resume`: the name of the pause. Without it a pause has the name of the job's actor, and all
    /// pauses are taken away.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For `signal`: its name; needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signal: Option<String>,
    /// For `signal`: its data; null without it.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Payload::present"
    )]
    pub data: Option<Payload>,
    /// For `label`: the labels to set.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_key_once"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub set: Labels,
    /// For `label`: the names of the labels to remove.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// The reason; kept in the history of each run. May be left out of a dry run.
    #[serde(default)]
    pub reason: String,
    /// Largest number acted on in any second, spread evenly, over all nodes: 0.1 to 1,000; 10 without it.
    #[serde(default = "ten")]
    pub rate: f64,
    /// The first of the job, which are acted on before the others: each of them must prove itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub canary: Option<Canary>,
    /// Condition on which the job stops itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stop_when: Option<StopWhen>,
    /// Return only the number of items and the first of them.
    #[serde(default)]
    pub dry_run: bool,
}

impl NewJob {
    /// Returns a job that does `verb` at the usual rate. Say to what, and why.
    #[must_use]
    pub fn new(verb: JobVerb) -> NewJob {
        NewJob {
            verb,
            incidents: None,
            runs: None,
            from: None,
            input: None,
            items: RerunItems::All,
            force: false,
            name: None,
            signal: None,
            data: None,
            set: Labels::new(),
            remove: Vec::new(),
            reason: String::new(),
            rate: ten(),
            canary: None,
            stop_when: None,
            dry_run: false,
        }
    }
}

/// Action of a job on each of its items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum JobVerb {
    /// Retry, with fresh attempts.
    Retry,
    /// Go on without the step.
    Skip,
    /// Always refused: each step has its own output.
    Resolve,
    /// Vouch that a compensation is done or not needed.
    MarkCompensated,
    /// Undo the run.
    Compensate,
    /// Stop the run and undo what was done.
    Cancel,
    /// The same as `kill`.
    Abandon,
    /// End the run without undoing anything.
    Kill,
    /// Go back to a step and forward again from there.
    Rerun,
    /// Hand out no task of the run until it is resumed.
    Pause,
    /// Let a paused run go on.
    Resume,
    /// Send the run a signal.
    Signal,
    /// Set and remove labels of the run.
    Label,
}

impl JobVerb {
    /// Returns whether it is for runs that have not ended.
    #[must_use]
    pub fn is_for_moving_runs(self) -> bool {
        matches!(
            self,
            JobVerb::Cancel
                | JobVerb::Abandon
                | JobVerb::Kill
                | JobVerb::Pause
                | JobVerb::Resume
                | JobVerb::Signal
        )
    }

    /// Returns whether it ends a run without undoing it: effects that are left are then expected, and do not count
    /// as an incident that came back.
    #[must_use]
    pub fn leaves_effects(self) -> bool {
        matches!(self, JobVerb::Abandon | JobVerb::Kill)
    }
}

fn ten() -> f64 {
    10.0
}

/// The first of a job, on which it is tried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Canary {
    /// Number of items in the canary: 1 to 100.
    pub first: u32,
    /// Time that they have to prove themselves; the job stops if they have not by then.
    #[serde(default = "five_minutes")]
    pub wait: Span,
}

fn five_minutes() -> Span {
    Span::secs(300)
}

/// Condition on which a job stops itself. One comes back when its step or item opens an incident with the same
/// fingerprint after the act (for a job on runs: its run, any incident).
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StopWhen {
    /// Stops when so many have come back, 1 or more.
    Count(u32),
    /// Stops when this part of those done has come back, above 0 and at most 1; judged from ten on.
    Ratio(f64),
}

/// The answer to a dry run of [`NewJob`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobPlan {
    /// Number of items it would have.
    pub count: u64,
    /// The number of these that have ended, so that the verb is refused for them (`run_ended`); none if the verb is
    /// also for ended runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended: Option<u64>,
    /// The first items, at most 20. For verbs whose result can be predicted, `retry` among them: as `refused` with code
    /// and message, if the verb would be refused in the present state of the run.
    pub first: Vec<JobItem>,
    /// For `compensate` and `rerun`: runs under way that require a fact which one of these first established and which
    /// is withdrawn with it. At most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependents: Vec<FactDependent>,
}

/// State of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum JobState {
    /// The canary is being acted on, or must prove itself.
    Canary,
    /// It works through the rest.
    Running,
    /// A person paused it.
    Paused,
    /// It was stopped, by a person or by itself; the rest was not done.
    Stopped,
    /// All items were acted on.
    Done,
}

impl JobState {
    /// Returns the word used in JSON and in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            JobState::Canary => "canary",
            JobState::Running => "running",
            JobState::Paused => "paused",
            JobState::Stopped => "stopped",
            JobState::Done => "done",
        }
    }
}

/// `GET /v1/jobs/{job}`, and one line of `GET /v1/jobs`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobView {
    /// The job's id.
    pub id: Uuid,
    /// Its state.
    pub state: JobState,
    /// The reason for this state, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub why: Option<String>,
    /// The request.
    pub asked: NewJob,
    /// The actor.
    pub actor: String,
    /// The time.
    pub created_at: Timestamp,
    /// Time at which it was stopped or done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// Its progress.
    pub progress: JobProgress,
    /// The reason for which its row cannot be read: `asked` is then empty, and the job can only be
    /// stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(count: &u64) -> bool {
    *count == 0
}

/// Progress of a job; all others sum to the total.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobProgress {
    /// Not acted on yet.
    pub waiting: u64,
    /// Not acted on, as the job was stopped.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub left: u64,
    /// Acted on.
    pub done: u64,
    /// Acted on, and the same trouble came back while the job went on.
    pub came_back: u64,
    /// Refused by the rules; each item says why.
    pub refused: u64,
    /// All of them.
    pub total: u64,
}

/// Result for an item of a job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ItemState {
    /// It was not acted on yet.
    Waiting,
    /// The job was stopped before it was acted on.
    Left,
    /// It was acted on.
    Done,
    /// It was acted on, and an incident with the same fingerprint opened again.
    CameBack,
    /// The rules refused it.
    Refused,
}

impl ItemState {
    /// Returns the word used in JSON and in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ItemState::Waiting => "waiting",
            ItemState::Left => "left",
            ItemState::Done => "done",
            ItemState::CameBack => "came_back",
            ItemState::Refused => "refused",
        }
    }
}

/// One line of `GET /v1/jobs/{job}/items`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct JobItem {
    /// Its place in the job, from 1; they are acted on in this order, oldest first.
    pub position: u32,
    /// The run.
    pub run: RunId,
    /// The incident, for a job on incidents.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// Its result.
    pub state: ItemState,
    /// Stable code of the refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Explanation, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Time of the act.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub acted_at: Option<Timestamp>,
}
