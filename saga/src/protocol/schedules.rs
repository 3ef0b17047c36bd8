//! Schedules: starts of runs by the calendar.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{Labels, Paused, Warning, each_key_once};
use crate::{Payload, RunId, Span, Timestamp};

/// `PUT /v1/schedules/{name}`: when to start what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleSpec {
    /// Five fields (minute, hour, day of month, month, day of week), or six with the second first, or a word like
    /// `@daily`. As in a crontab: 0 and 7 are Sunday, and where both days are given, either is enough. A day of the
    /// month may be `L` (the last), `L-2` (two days before it), `15W` (the working day nearest to the 15th) or `LW`; a
    /// day of the week may be `MON#2` (the second Monday of the month) or `FRIL` or `5L` (the last Friday).
    #[cfg_attr(feature = "openapi", schema(example = "30 2 * * *"))]
    pub cron: String,
    /// More patterns, at most 20. An instant that several of them match is one start.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The time zone that the pattern is read in; `UTC` without it.
    #[serde(default = "utc")]
    #[cfg_attr(feature = "openapi", schema(example = "Europe/Berlin"))]
    pub time_zone: String,
    /// Only every n-th day, or the days of every n-th week; every day without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<Interval>,
    /// Earliest possible instant, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub begin: Option<Timestamp>,
    /// Latest possible instant, itself included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end: Option<Timestamp>,
    /// The workflow's name.
    pub workflow: String,
    /// Its version; the newest at each start without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The input of each run.
    #[serde(default = "Payload::null")]
    pub input: Payload,
    /// The member of the input that each run finds its instant in, as RFC 3339. Without it the instant is a label only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "scheduled_for"))]
    pub instant_as: Option<String>,
    /// Marks of each run to search by, beside `schedule` and `scheduled_for`.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_key_once"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// Action if the schedule's last run has not ended yet.
    #[serde(default)]
    pub overlap: Overlap,
    /// Number of starts that may wait under the overlap policy `queue`, 1 to 100.
    #[serde(default = "one")]
    pub queue_limit: u32,
    /// A start that could not be made in time is made up for, if it is not later than this; `10s` to `366d`.
    #[serde(default = "an_hour")]
    pub catch_up: Span,
    /// Longest time by which each start is put off, always by the same for the same instant; at most
    /// `1d`.
    #[serde(default)]
    pub jitter: Span,
    /// The longest time that each run may take from its beginning, its undo included; as the workflow says without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "6h"))]
    pub end_within: Option<Span>,
}

/// Every n-th day or week, counted from a date. On the other days the patterns of the schedule are not due.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Interval {
    /// Number of days or weeks between the beginnings of two periods, 1 or more; together at most ten years.
    #[cfg_attr(feature = "openapi", schema(example = 2))]
    pub every: u32,
    /// Days, or weeks, which begin on Monday.
    pub unit: IntervalUnit,
    /// The date in the schedule's time zone from which it counts; no earlier date is due.
    #[cfg_attr(feature = "openapi", schema(example = "2026-01-05"))]
    pub anchor: String,
}

/// Unit of an interval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum IntervalUnit {
    /// Days.
    Days,
    /// Weeks from Monday to Sunday.
    Weeks,
}

pub(super) fn utc() -> String {
    "UTC".to_owned()
}

pub(super) fn one() -> u32 {
    1
}

pub(super) fn an_hour() -> Span {
    Span::secs(3_600)
}

/// Action if a start is due and the schedule's last run has not ended yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Overlap {
    /// Skip the new start.
    #[default]
    Skip,
    /// Start the new run when the last has ended.
    Queue,
    /// Cancel the last run, which undoes it, and start the new run when that has ended.
    Replace,
    /// Start the new run concurrently.
    Allow,
}

/// A schedule with its state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleView {
    /// Its name.
    pub name: String,
    /// Its starts: when, and of which workflow.
    pub spec: ScheduleSpec,
    /// Set while it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// The next start, before jitter; none while it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextStart>,
    /// The run started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<RunId>,
    /// Starts that wait for the last run to end, or are being made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub waiting: Vec<WaitingStart>,
    /// Backfills that are not done yet.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub backfills: Vec<RunningBackfill>,
    /// Results of all starts so far.
    pub counts: ScheduleCounts,
    /// Time of its creation.
    pub created_at: Timestamp,
    /// Settings that have no effect, or are hardly intended.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}

/// A schedule in a list.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleLine {
    /// Its name.
    pub name: String,
    /// Its pattern.
    pub cron: String,
    /// Its other patterns.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also: Vec<String>,
    /// The time zone of the patterns.
    pub time_zone: String,
    /// The workflow that it starts.
    pub workflow: String,
    /// `true` if it is paused.
    pub paused: bool,
    /// The next start, before jitter; none while it is paused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<NextStart>,
    /// The run started last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last_run: Option<RunId>,
    /// Number of starts that wait for the last run to end.
    pub waiting: u32,
    /// Results of all starts so far.
    pub counts: ScheduleCounts,
    /// The reason for which its row cannot be read: it starts nothing, and the other members are empty. Repair the row,
    /// or delete the schedule and put it again.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// Number of starts by result.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleCounts {
    /// A run was started.
    pub started: u64,
    /// The overlap policy left it out, or the instant had its run already.
    pub skipped: u64,
    /// It was later than the catch-up window.
    pub missed: u64,
    /// The start was refused.
    pub refused: u64,
}

/// A start to come.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NextStart {
    /// The instant, before jitter.
    pub scheduled_for: Timestamp,
    /// The same in the schedule's time zone, with its offset.
    #[cfg_attr(feature = "openapi", schema(example = "2026-03-29T03:00:00+02:00"))]
    pub local: String,
    /// Time at which the run is started, jitter included.
    pub starts_at: Timestamp,
}

/// `GET /v1/schedules/{name}/next`: the starts to come.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NextStarts {
    /// In order. Those of a paused schedule are what it would start.
    pub items: Vec<NextStart>,
    /// `true` if the schedule is paused, so that no start is made until it is resumed.
    pub paused: bool,
}

/// Origin of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StartOrigin {
    /// The calendar.
    Cron,
    /// A person who requested one now.
    Trigger,
    /// A backfill.
    Backfill,
}

/// A start that has not been made yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WaitingStart {
    /// Its origin.
    pub origin: StartOrigin,
    /// Its instant.
    pub scheduled_for: Timestamp,
    /// Its action while the last run has not ended.
    pub overlap: Overlap,
    /// Time since when it waits.
    pub since: Timestamp,
}

/// A backfill that is not done yet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunningBackfill {
    /// Instants up to this one are done.
    pub done_until: Timestamp,
    /// Its last instant is not later than this.
    pub to: Timestamp,
    /// `queue`: one after the other; `allow`: all together.
    pub overlap: Overlap,
}

/// Result of a start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum StartOutcome {
    /// A run was started.
    Started,
    /// The overlap policy skipped it, or the instant already had its run: then `run` names it.
    Skipped,
    /// It was later than the catch-up window.
    Missed,
    /// The start was refused, for the reason in `code` and `message`.
    Refused,
}

impl StartOutcome {
    /// Returns the word used in JSON and in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StartOutcome::Started => "started",
            StartOutcome::Skipped => "skipped",
            StartOutcome::Missed => "missed",
            StartOutcome::Refused => "refused",
        }
    }
}

impl StartOrigin {
    /// Returns the word used in JSON and in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            StartOrigin::Cron => "cron",
            StartOrigin::Trigger => "trigger",
            StartOrigin::Backfill => "backfill",
        }
    }
}

/// One line of a schedule's history: a start, or a row of starts that were missed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ScheduleStart {
    /// Time of the decision.
    pub at: Timestamp,
    /// Origin of the start.
    pub origin: StartOrigin,
    /// Its instant; the first of them where several were missed.
    pub scheduled_for: Timestamp,
    /// Result of the start.
    pub outcome: StartOutcome,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Number of instants that this entry covers.
    pub count: u32,
    /// The last of them, if the entry covers several.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
    /// Stable code of a refusal.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Explanation, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The person who requested it, if any.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
}

/// `POST /v1/schedules/{name}/trigger`: a start now, also of a paused schedule.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TriggerSchedule {
    /// Action if the last run has not ended yet; by default the schedule's own policy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub overlap: Option<Overlap>,
    /// The reason; kept with the schedule.
    pub reason: String,
}

/// The answer to [`TriggerSchedule`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Triggered {
    /// Result of the start; none while it waits for the last run to end.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start: Option<ScheduleStart>,
    /// `true` if it waits for the last run to end.
    pub waiting: bool,
}

/// `POST /v1/schedules/{name}/backfill`: starts for the instants of a range. An instant that was started before is
/// answered with its run and not started again.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackfillSchedule {
    /// Earliest instant, itself included.
    pub from: Timestamp,
    /// Latest instant, itself included; not later than now.
    pub to: Timestamp,
    /// `queue`: one after the other; `allow`: all together.
    #[serde(default = "queue")]
    pub overlap: Overlap,
    /// With more instants than this in the range nothing is done; at most 10,000.
    #[serde(default = "thousand")]
    pub limit: u32,
    /// The reason; kept with the schedule. May be left out of a dry run.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
    /// Only return what would be started.
    #[serde(default)]
    pub dry_run: bool,
}

fn queue() -> Overlap {
    Overlap::Queue
}

fn thousand() -> u32 {
    1_000
}

/// The answer to [`BackfillSchedule`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackfillPlan {
    /// Number of instants in the range.
    pub count: u32,
    /// The first hundred of them.
    pub instants: Vec<Timestamp>,
}
