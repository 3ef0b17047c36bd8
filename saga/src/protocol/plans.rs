//! Compensation plans: undos that are written down before they are done, and who must approve them.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::{Plan, Scope};
use crate::{RunId, Timestamp};

/// `POST /v1/runs/{id}/plans`: plan an undo of the run in its present state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MakePlan {
    /// The part to undo.
    pub scope: Scope,
    /// The reason; kept in the history of the run when the plan is applied.
    pub reason: String,
    /// Undo even past a pivot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// `PUT /v1/plans/{plan}`: change an open plan, which is rewritten for the present state of the
/// run.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EditPlan {
    /// The revision that is changed.
    pub revision: u32,
    /// The part to undo.
    pub scope: Scope,
    /// The reason; kept in the history of the run when the plan is applied.
    pub reason: String,
    /// Undo even past a pivot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
}

/// The approval of a plan: its revision, and the reason.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApprovePlan {
    /// The revision that is approved.
    pub revision: u32,
    /// The reason.
    pub reason: String,
}

/// `POST /v1/plans/{plan}/apply`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ApplyPlan {
    /// The revision that is applied.
    pub revision: u32,
}

/// State of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum PlanState {
    /// It can be changed, approved and applied.
    Open,
    /// It was applied.
    Applied,
    /// A person withdrew it.
    Withdrawn,
    /// The run had changed before it was applied.
    Expired,
}

impl PlanState {
    /// Returns the word used in JSON and in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            PlanState::Open => "open",
            PlanState::Applied => "applied",
            PlanState::Withdrawn => "withdrawn",
            PlanState::Expired => "expired",
        }
    }
}

/// Filter of plans.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct PlanFilter {
    /// Only in this state.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub state: Option<PlanState>,
    /// Only of this run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Only of runs of this workflow.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub workflow: Option<String>,
}

/// One entry of `GET /v1/plans`: a planned undo.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CompensationPlan {
    /// The plan's id.
    pub id: Uuid,
    /// The run.
    pub run: RunId,
    /// Its workflow.
    pub workflow: String,
    /// The part that is undone.
    pub scope: Scope,
    /// `true` if it is undone even past a pivot.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub force: bool,
    /// The reason.
    pub reason: String,
    /// The person who made it or changed it last.
    pub made_by: String,
    /// Time of that.
    pub made_at: Timestamp,
    /// Number of records that the journal of the run had then.
    pub seq: u64,
    /// Number of its present revision: a change and an approval name the revision that they refer
    /// to.
    pub revision: u32,
    /// Number of steps and items that it undoes.
    pub undos: u64,
    /// `true` if the point of no return is passed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub past_pivot: bool,
    /// Its state.
    pub state: PlanState,
    /// `true` if a person other than its author must approve it before it is applied.
    pub needs_approval: bool,
    /// The person who approved it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_by: Option<String>,
    /// Time of the approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approved_at: Option<Timestamp>,
    /// The reason for the approval.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub approval_reason: Option<String>,
    /// The person who applied or withdrew it, or whose request found it expired.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_by: Option<String>,
    /// Time of that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The reason for which it was withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_reason: Option<String>,
}

/// `GET /v1/plans/{plan}`: a plan, with what it undoes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PlanView {
    /// The plan.
    #[serde(flatten)]
    pub plan: CompensationPlan,
    /// `true` if the run would still be undone as planned. One that has ended does not hold.
    pub holds: bool,
    /// The steps that would be undone, a page at a time, while the plan holds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo: Option<Plan>,
}

/// Condition on which a second person must approve an undo that a person requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Approval {
    /// Never.
    Never,
    /// Whenever something is undone.
    Always,
    /// If more steps and items than this are undone.
    Above(u32),
}

impl Approval {
    /// Returns the most undos that one person may ask for alone; `None` for any number.
    #[must_use]
    pub fn alone(self) -> Option<u32> {
        match self {
            Approval::Never => None,
            Approval::Always => Some(0),
            Approval::Above(most) => Some(most),
        }
    }
}

/// `PUT /v1/workflows/{name}/undo-approval`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetUndoApproval {
    /// Condition on which a second person is needed.
    pub approval: Approval,
    /// The reason; kept with the act.
    pub reason: String,
}

/// `GET /v1/workflows/{name}/undo-approval`: when undos of a workflow's runs need a second person.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct UndoApprovalView {
    /// The workflow.
    pub workflow: String,
    /// Condition on which a second person is needed.
    pub approval: Approval,
    /// Time at which it was set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_at: Option<Timestamp>,
    /// The actor.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub changed_by: Option<String>,
    /// The reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reason: Option<String>,
}
