//! Sequence across runs: serial keys and their lines, facts and those who wait for them.

use serde::{Deserialize, Serialize};

use crate::{Expr, RunId, Span, Timestamp};

/// What a start does when its serial key is held by another run, or others wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnConflict {
    /// It waits in line, first come, first served.
    #[default]
    Queue,
    /// It is refused (`key_held`).
    Reject,
    /// All before it are cancelled, and it begins when what they did is undone.
    Replace,
    /// Those that wait are cancelled: it is the only one in line.
    Coalesce,
    /// It is answered with the run that holds the key.
    UseExisting,
}

/// A fact about something, as a definition names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FactOn {
    /// The fact: `customer.created`.
    pub fact: String,
    /// About what, as text: an expression over `/input`.
    pub on: Expr,
    /// What becomes of a run that has begun when the fact is withdrawn; of a fact that is required.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_withdrawn: Option<OnWithdrawn>,
}

/// What becomes of a run that has begun when a fact that it requires is withdrawn. It shows the condition
/// `DependencyWithdrawn` in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnWithdrawn {
    /// It goes on.
    Ignore,
    /// It goes on, and a person hears of it.
    #[default]
    Incident,
    /// It is cancelled, and what it did is undone; past its point of no return a person hears of it instead.
    Cancel,
}

impl OnWithdrawn {
    /// The word used in JSON and in the database.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OnWithdrawn::Ignore => "ignore",
            OnWithdrawn::Incident => "incident",
            OnWithdrawn::Cancel => "cancel",
        }
    }
}

/// A run that began upon a fact and has not ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FactDependent {
    /// Which.
    pub run: RunId,
    /// Upon which fact.
    pub fact: String,
    /// About what.
    pub on: String,
    /// What becomes of it when the fact is withdrawn.
    pub on_withdrawn: OnWithdrawn,
}

/// How the runs of a workflow follow upon others. All expressions are over `/input` alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sequence {
    /// At most one run moves for each of these, across all workflows that name it; a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_key: Option<Expr>,
    /// What a start does when its key is taken.
    pub on_conflict: OnConflict,
    /// Facts that must be established before a run begins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<FactOn>,
    /// For how long a run waits for them before it becomes an incident; 24 hours without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires_within: Option<Span>,
    /// Facts that a run establishes when it has succeeded.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub produces: Vec<FactOn>,
}

/// A fact about something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Requirement {
    /// The fact: `customer.created`.
    pub fact: String,
    /// About what: `customer:42`.
    pub on: String,
}

/// How one run follows upon others, beside what its definition says.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartSequence {
    /// Instead of the definition's key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_key: Option<String>,
    /// Instead of the definition's policy.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<OnConflict>,
    /// Beside the definition's requirements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// What becomes of the run when one of these is withdrawn after it has begun; an incident without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_withdrawn: Option<OnWithdrawn>,
    /// Instead of the definition's limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires_within: Option<Span>,
}

/// One run in the line of a serial key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyPlace {
    /// Which.
    pub run: RunId,
    /// `holding` or `waiting`.
    pub state: String,
    /// Since when it holds the key or waits for it.
    pub since: Timestamp,
    /// A later start replaced it: it is being cancelled.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replaced_by: Option<RunId>,
}

/// A fact that was established.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FactView {
    /// The fact.
    pub fact: String,
    /// About what.
    pub on: String,
    /// When it was established.
    pub at: Timestamp,
    /// Who established it: a caller, or the run that produced it.
    pub by: String,
    /// When it was withdrawn; nobody is released by it since.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn_at: Option<Timestamp>,
    /// Who withdrew it: a caller, or the run that had produced it and was undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn_by: Option<String>,
}

/// A run that waits for a fact.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FactWaiter {
    /// Which.
    pub run: RunId,
    /// For which fact.
    pub fact: String,
    /// Since when.
    pub since: Timestamp,
    /// When it becomes an incident.
    pub until: Timestamp,
}

/// `GET /v1/facts/{subject}`: what is established about something, and who waits for what.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubjectFacts {
    /// Facts about it, at most 1,000.
    pub facts: Vec<FactView>,
    /// The runs that wait for facts about it, the longest first, at most 1,000.
    pub waiting: Vec<FactWaiter>,
    /// The runs under way that require facts about it: whom a withdrawal touches. At most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependents: Vec<FactDependent>,
}

/// `POST /v1/facts/{subject}/{fact}/withdraw`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WithdrawFact {
    /// Why; kept with the act. A dry run needs none.
    #[serde(default)]
    pub reason: Option<String>,
    /// Withdraw nothing: answer whom it would touch, in `dependents`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}
