//! Runs that are steps of runs, as one tree.

use serde::{Deserialize, Serialize};

use super::{Outcome, State};
use crate::{RunId, StepPath};

/// `GET /v1/runs/{id}/tree`: the whole tree of a run, from its root.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RunTree {
    /// The root first, and below each run the runs that are steps of it, in the order of the steps.
    pub runs: Vec<TreeRun>,
    /// `true` if there are more of them.
    pub more: bool,
}

/// A run of a tree.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TreeRun {
    /// Depth in the tree; the root has 0.
    pub depth: u32,
    /// The run.
    pub run: RunId,
    /// The run that it is a step of, and which one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<RunId>,
    /// The step of the parent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<StepPath>,
    /// Its workflow.
    pub workflow: String,
    /// The version of that.
    pub version: u32,
    /// Its state.
    pub state: State,
    /// Reasons for its state, as types of conditions: `ParentPaused`, `Orphaned`, `IncidentOpen`, …
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// Its outcome.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
}
