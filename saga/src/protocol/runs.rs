//! Requests of people and programs about runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{FactDependent, Forward, Labels, StartSequence, TaskAnswer, each_key_once};
use crate::{Payload, RunId, Span, StepPath, Timestamp};

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
    /// The correlation id, constant along a chain of causes; the run's own id without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<String>,
    /// The event of the log that caused it; the events that its steps emit are counted on from there.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<String>,
    /// Marks to search by.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_key_once"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// Its order in relation to other runs, beside that of its definition.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<StartSequence>,
    /// The instant at which it begins, at most a year from now; immediately without it, or if it has passed. The run
    /// exists from now on, and waits. Its timeout counts from this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
    /// The same as the time from the request to the beginning. Not together with `start_at`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "15m"))]
    pub delay: Option<Span>,
    /// The instant by which it is to be over, its undo included: it is undone while there is time for that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_by: Option<Timestamp>,
    /// The time reserved for undoing it before `end_by`; without it, as long as undoing the steps that have begun took
    /// lately.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[cfg_attr(feature = "openapi", schema(example = "5m"))]
    pub undo_budget: Option<Span>,
}

/// `PATCH /v1/runs/{id}/labels`: set and remove labels of a run.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LabelRun {
    /// The labels to set.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_key_once"
    )]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub set: Labels,
    /// The names of the labels to remove. Those that it does not have are passed over.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub remove: Vec<String>,
    /// The reason; kept in the history.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// The answer to [`StartRun`] when it was not asked to wait.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunStarted {
    /// The run.
    pub id: RunId,
    /// `true` if this request created it; otherwise its key existed.
    pub created: bool,
    /// The later instant at which it begins. None if it begins immediately, also if the requested instant has passed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Timestamp>,
}

/// `POST /v1/runs/batch`: start many runs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartRuns {
    /// The runs to start, 1 to 1,000.
    pub runs: Vec<StartRun>,
}

/// The answer to [`StartRuns`].
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartAnswers {
    /// One answer for each start, in order.
    pub results: Vec<StartAnswer>,
}

/// Result of one start of many. When a run begins that was started for a later instant, `GET /v1/runs/{id}` says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartAnswer {
    /// 201 when it was started, 200 when its key had started it before; 404, 409, 422 or 503 when not.
    pub status: u16,
    /// The run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub id: Option<RunId>,
    /// Stable code of the refusal: `unknown_workflow`, `key_conflict`, `invalid_input`, …
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Explanation, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl From<TaskAnswer> for StartAnswer {
    /// Makes a refusal of the answer.
    fn from(TaskAnswer { status, code, message }: TaskAnswer) -> StartAnswer {
        StartAnswer { status, id: None, code, message }
    }
}

/// The part to undo.
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
    /// The part to undo.
    pub scope: Scope,
    /// The reason; kept in the history. May be left out of a dry run.
    #[serde(default)]
    pub reason: String,
    /// Only return what would be done.
    #[serde(default)]
    pub dry_run: bool,
    /// Undo even past a pivot.
    #[serde(default)]
    pub force: bool,
}

/// The effects of a compensation, planned or begun.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Plan {
    /// The steps in the order in which they are undone; those of the same `wave` may run side by side.
    /// An answer has a page of them.
    pub steps: Vec<PlannedUndo>,
    /// Number of undos in all.
    #[serde(default)]
    pub total: u64,
    /// The `after` of the next page, if there are more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
    /// Steps with effects that remain because nothing undoes them.
    pub irreversible: Vec<String>,
    /// `true` if the point of no return has been passed, so that `force` is needed.
    pub past_pivot: bool,
    /// Runs under way that require a fact which this run established and which is withdrawn with it. At most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependents: Vec<FactDependent>,
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
    /// State of the forward attempt.
    pub forward: Forward,
}
