//! Sequence across runs: serial keys and their lines, facts and those who wait for them.

use serde::{Deserialize, Serialize};

use crate::{Expr, RunId, Span, Timestamp};

/// Action of a start if its serial key is held by another run, or others wait for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnConflict {
    /// It waits in line, first come, first served.
    #[default]
    Queue,
    /// It is refused (`key_held`).
    Reject,
    /// All runs before it are cancelled, and it begins when they are undone.
    Replace,
    /// The waiting runs are cancelled: it is the only one in line.
    Coalesce,
    /// The answer is the run that holds the key.
    UseExisting,
}

/// A fact about something, as a definition names it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FactOn {
    /// The fact: `customer.created`.
    pub fact: String,
    /// Its subject, as text: an expression over `/input`.
    pub on: Expr,
    /// Policy for a run that has begun, if the fact that it requires is withdrawn.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_withdrawn: Option<OnWithdrawn>,
}

/// Policy for a run that has begun, if a fact that it requires is withdrawn. It shows the condition
/// `DependencyWithdrawn` in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnWithdrawn {
    /// The run goes on.
    Ignore,
    /// The run goes on, and an incident opens.
    #[default]
    Incident,
    /// The run is cancelled and undone; past its point of no return an incident opens instead.
    Cancel,
}

impl OnWithdrawn {
    /// Returns the word used in JSON and in the database.
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
    /// The run.
    pub run: RunId,
    /// The fact.
    pub fact: String,
    /// Its subject.
    pub on: String,
    /// Policy if the fact is withdrawn.
    pub on_withdrawn: OnWithdrawn,
}

/// Order of the runs of a workflow in relation to other runs. All expressions are over `/input`
/// alone.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Sequence {
    /// At most one run moves for each of these, across all workflows that name it; a text.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_key: Option<Expr>,
    /// Action of a start if its key is taken.
    pub on_conflict: OnConflict,
    /// Facts that must be established before a run begins.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<FactOn>,
    /// Time that a run waits for them before an incident opens; 24 hours without it.
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
    /// Its subject: `customer:42`.
    pub on: String,
}

/// Order of one run in relation to other runs, beside that of its definition.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct StartSequence {
    /// The key, instead of the definition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub serial_key: Option<String>,
    /// The policy, instead of the definition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_conflict: Option<OnConflict>,
    /// Requirements beside the definition's.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<Requirement>,
    /// Policy if one of these is withdrawn after the run has begun; an incident without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub on_withdrawn: Option<OnWithdrawn>,
    /// The time limit, instead of the definition's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub requires_within: Option<Span>,
}

/// One run in the line of a serial key.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct KeyPlace {
    /// The run.
    pub run: RunId,
    /// `holding` or `waiting`.
    pub state: String,
    /// Time since when it holds the key or waits for it.
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
    /// Its subject.
    pub on: String,
    /// Time at which it was established.
    pub at: Timestamp,
    /// Its origin: a caller, or the run that produced it.
    pub by: String,
    /// Time at which it was withdrawn; since then it releases no run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn_at: Option<Timestamp>,
    /// Origin of the withdrawal: a caller, or the run that had produced it and was undone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub withdrawn_by: Option<String>,
}

/// A run that waits for a fact.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct FactWaiter {
    /// The run.
    pub run: RunId,
    /// The fact.
    pub fact: String,
    /// Time since when.
    pub since: Timestamp,
    /// Time at which it becomes an incident.
    pub until: Timestamp,
}

/// `GET /v1/facts/{subject}`: the facts about a subject, and the runs that wait for them.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubjectFacts {
    /// Facts about it, at most 1,000.
    pub facts: Vec<FactView>,
    /// The runs that wait for facts about it, the longest first, at most 1,000.
    pub waiting: Vec<FactWaiter>,
    /// The runs under way that require facts about it, which a withdrawal affects. At most 1,000.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub dependents: Vec<FactDependent>,
}

/// `POST /v1/facts/{subject}/{fact}/withdraw`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WithdrawFact {
    /// The reason; kept with the act. A dry run needs none.
    #[serde(default)]
    pub reason: Option<String>,
    /// Withdraw nothing, and return the runs that it would affect, in `dependents`.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
}
