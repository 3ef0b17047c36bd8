//! Requests and responses about incidents, and about acts of people.

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{Failure, Scope, State, StepView};
use crate::{Action, RunId, Span, StepPath, Time, Timestamp};

/// An incident: the run and the incident's number in it. Text form `{run}-{number}`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct IncidentId {
    /// The run.
    pub run: RunId,
    /// From 1 within the run.
    pub number: u32,
}

impl fmt::Display for IncidentId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.run, self.number)
    }
}

impl FromStr for IncidentId {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let id = text.rsplit_once('-').and_then(|(run, number)| {
            Some(IncidentId { run: run.parse().ok()?, number: number.parse().ok()? })
        });
        id.ok_or_else(|| {
            format!("'{text}' is not the id of an incident (a run's id, '-' and a number)")
        })
    }
}

impl Serialize for IncidentId {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for IncidentId {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(feature = "openapi")]
impl utoipa::PartialSchema for IncidentId {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some("An incident: its run's id, `-`, and its number in the run"))
            .examples(["019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11-1"])
            .into()
    }
}

#[cfg(feature = "openapi")]
impl utoipa::ToSchema for IncidentId {}

/// State of an incident: it needs a person, or not any more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IncidentState {
    /// It needs a person.
    Open,
    /// It was resolved.
    Resolved,
}

/// Filter of incidents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentFilter {
    /// Only in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<IncidentState>,
    /// Only of this kind: `task_exhausted`, `task_unknown`, `compensation_blocked`, …
    #[serde(skip_serializing_if = "Option::is_none")]
    pub kind: Option<String>,
    /// Only of runs of this workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
    /// Only about this step; a map step includes all its items.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Only with this fingerprint.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Only of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Only those that this person has.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    /// Only those that opened longer ago than this.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub older_than: Option<Span>,
}

/// One line of `GET /v1/incidents`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentLine {
    /// The incident's id.
    pub id: IncidentId,
    /// Its run.
    pub run: RunId,
    /// The run's workflow.
    pub workflow: String,
    /// The run's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The step or item; none when it is about the run as a whole.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepPath>,
    /// `task_exhausted task_unknown task_slow compensation_slow compensation_blocked deadline_missed run_stuck …`
    pub kind: String,
    /// Its state.
    pub state: IncidentState,
    /// The code of the error that it opened with.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// For people.
    pub message: String,
    /// The same for all incidents of one cause.
    pub fingerprint: String,
    /// Number of incidents with this fingerprint that this step of this run had.
    pub occurrences: u32,
    /// Time at which the first of them opened.
    pub first_seen: Timestamp,
    /// Time at which the last of them opened.
    pub last_seen: Timestamp,
    /// Time at which this one opened.
    pub opened_at: Timestamp,
    /// Time of its resolution.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
    /// The person to whom it is assigned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
}

/// An action on an incident; the word is also the end of its route.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Verb {
    /// Retry, with fresh attempts.
    Retry,
    /// Go on without the step.
    Skip,
    /// State that it was done.
    Resolve,
    /// Vouch that a compensation is done or not needed.
    MarkCompensated,
    /// Undo the run, or a part of it.
    Compensate,
    /// Stop the run and undo what was done.
    Cancel,
    /// End the run without undoing anything.
    Abandon,
}

/// `GET /v1/incidents/{incident}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentView {
    /// Its entry in the list.
    #[serde(flatten)]
    pub line: IncidentLine,
    /// State of its run.
    pub run_state: State,
    /// The present state of the step, with its last error.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<StepView>,
    /// Attempts, newest first: the last 20 of the step.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<AttemptView>,
    /// The verbs that apply now.
    pub next: Vec<Verb>,
    /// Notes of people, oldest first: the last 100.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notes: Vec<IncidentNote>,
}

/// `POST /v1/incidents/{incident}/compensate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompensateIncident {
    /// The reason; kept in the history of the run.
    pub reason: String,
    /// The part to undo; everything without it.
    #[serde(default = "everything")]
    pub scope: Scope,
    /// Undo even past a pivot.
    #[serde(default)]
    pub force: bool,
}

fn everything() -> Scope {
    Scope::All
}

/// `POST /v1/incidents/{incident}/assign`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AssignIncident {
    /// The new assignee; empty for nobody.
    pub assignee: String,
    /// A note about the assignment.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// `POST /v1/incidents/{incident}/note`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NoteIncident {
    /// Text of the note.
    pub note: String,
}

/// One attempt of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct AttemptView {
    /// The action.
    pub action: Action,
    /// Number of the attempt, from 1.
    pub attempt: u32,
    /// The worker that got it last: its name and its session.
    pub worker: String,
    /// The time.
    pub began_at: Timestamp,
    /// Time of its end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
    /// Result of a verification: `happened` or `not_happened`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<String>,
}

/// A note about an incident, or a change of its assignee.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentNote {
    /// The time.
    pub at: Timestamp,
    /// The actor.
    pub actor: String,
    /// The new assignee; empty if it was assigned to nobody.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub assignee: Option<String>,
    /// Text of the note.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub note: Option<String>,
}

/// One line of `GET /v1/incidents/groups`: the open incidents with one fingerprint.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentGroup {
    /// The fingerprint that they share.
    pub fingerprint: String,
    /// Number of open incidents.
    pub count: u64,
    /// Their workflow.
    pub workflow: String,
    /// Their step, without the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// Their kind.
    pub kind: String,
    /// Their error code.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Time at which the oldest of them opened.
    pub first_seen: Timestamp,
    /// Time at which the newest of them opened.
    pub last_seen: Timestamp,
    /// Number of them that opened within the last hour.
    #[serde(default)]
    pub last_hour: u64,
    /// Number of them that opened within the hour before that.
    #[serde(default)]
    pub hour_before: u64,
    /// The newest of them, as an example.
    pub sample: IncidentId,
    /// Message of the incidents.
    pub message: String,
}

/// `GET /v1/incidents/counts`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct IncidentCounts {
    /// Time of the count.
    pub as_of: Timestamp,
    /// Open incidents in all.
    pub open: u64,
    /// The same by kind; kinds without any are left out.
    pub kinds: Vec<KindCount>,
}

/// `GET /v1/status`: the status of the namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StatusView {
    /// Time of the count.
    pub as_of: Timestamp,
    /// `true` if the database just answered; if not, the numbers are those of the last count.
    pub database_reachable: bool,
    /// The open incidents.
    pub incidents: IncidentCounts,
    /// Runs that have not ended, by state; states without any are left out.
    pub runs: BTreeMap<String, u64>,
    /// Runs that were started within the last hour and have ended, by outcome, counted up to 1,000 each; outcomes
    /// without any are left out.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ended: BTreeMap<String, u64>,
    /// Workflows whose new runs are held; see `GET /v1/pauses`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paused_workflows: Vec<String>,
    /// Time since when the oldest offered task waits for a worker; none if no task waits.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_task: Option<Timestamp>,
    /// Weeks past retention that runs of the namespace keep from being dropped as a whole, the oldest first, 60 at
    /// most; as found within the hour.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub held_weeks: Vec<super::HeldWeek>,
    /// Problems of the server that answers: `ClockInDoubt`, `ClockStepped` (within the hour), `WritesFail`,
    /// `SessionsMissing`, `BatchHeldUp`, `LeaseKeyLost`, `IndexCheckSlow`; problems with schedules, queues and runs of
    /// the namespace: `SchedulesDamaged`, `QueuesDamaged`, `KeysTaken`, `CompletionsStuck`; and problems on the way
    /// between sources, runs and the log: `ImportsWait`, `ReprocessingsWait`, `ErasuresWait`, `DocumentsNotMapped`,
    /// `EmittedEventsWait`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<super::Condition>,
}

impl Default for StatusView {
    /// Returns that nothing is known.
    fn default() -> Self {
        let as_of = Timestamp(Time::default());
        let incidents = IncidentCounts { as_of, open: 0, kinds: Vec::new() };
        StatusView {
            as_of,
            database_reachable: false,
            incidents,
            runs: BTreeMap::new(),
            ended: BTreeMap::new(),
            paused_workflows: Vec::new(),
            oldest_task: None,
            held_weeks: Vec::new(),
            conditions: Vec::new(),
        }
    }
}

/// One line of `GET /v1/pauses`: a time in which the new runs of a workflow are held.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PauseView {
    /// The workflow.
    pub workflow: String,
    /// Time since when.
    pub since: Timestamp,
    /// The actor; `backstitch` when the guard did it.
    pub actor: String,
    /// The reason.
    pub reason: String,
    /// The new cause for which the guard did it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fingerprint: Option<String>,
    /// Number of runs that had opened incidents of it by then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub runs: Option<u32>,
    /// Time at which a person resumed it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// The actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_by: Option<String>,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resume_reason: Option<String>,
}

/// Number of open incidents of one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KindCount {
    /// The kind.
    pub kind: String,
    /// Number of open incidents.
    pub open: u64,
    /// Time at which the oldest of them opened.
    pub oldest: Timestamp,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_of_an_incident_is_its_run_and_its_number() {
        let text = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11-12";
        let id: IncidentId = text.parse().unwrap();
        assert_eq!((id.number, id.to_string().as_str()), (12, text));
        for bad in ["", "1", "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11", "x-1", "--1"] {
            assert!(bad.parse::<IncidentId>().is_err(), "{bad}");
        }
    }
}
