//! Versions of a workflow: which runs are on which, and how runs in flight move to another.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use super::each_key_once;
use crate::{RunId, Timestamp};

/// Runs by version: one entry of `GET /v1/workflows/{name}/drain`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct VersionLoad {
    /// The version.
    pub version: u32,
    /// Time of the registration.
    pub registered_at: Timestamp,
    /// `true` if all runs of it have ended.
    pub drained: bool,
    /// Runs that have not ended.
    pub active: u64,
    /// The same by state.
    pub states: BTreeMap<String, u64>,
    /// The oldest of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest: Option<RunId>,
    /// Time at which that was started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub oldest_started_at: Option<Timestamp>,
}

/// Mapping of the steps of one version to those of another. Steps that are not named keep their id.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Mapping {
    /// Steps that are called otherwise in the new version; `null` for those that are dropped.
    #[serde(
        default,
        skip_serializing_if = "BTreeMap::is_empty",
        deserialize_with = "each_key_once"
    )]
    pub steps: BTreeMap<String, Option<String>>,
    /// Steps of the new version that a run does not do any more when it is past them already.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub skip: BTreeSet<String>,
    /// Steps of the old version that are done and that nothing will undo after the move.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub without_undo: BTreeSet<String>,
}

/// Reason for which a run cannot be moved.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ObstacleKind {
    /// It is being undone; it ends on the version on which the undo began.
    BeingUndone,
    /// A step has begun that the new version does not have: map it in `steps`.
    NeedsMapping,
    /// A step has begun that is of another kind in the new version.
    KindChanged,
    /// A step is done, or may be, and the new version has no compensation for it. Name it in `without_undo` to accept
    /// it.
    CompensationGone,
    /// A task is in flight that the new version has no place for: wait for its end, or map it to a
    /// step.
    InFlight,
    /// A step has begun whose id belongs to another step in the new version: their effects would have the same key.
    IdReused,
    /// A step has begun before one that it now needs. Name the latter in `skip` if it need not be done.
    OrderChanged,
}

impl ObstacleKind {
    /// Returns the word used in JSON.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ObstacleKind::BeingUndone => "being_undone",
            ObstacleKind::NeedsMapping => "needs_mapping",
            ObstacleKind::KindChanged => "kind_changed",
            ObstacleKind::CompensationGone => "compensation_gone",
            ObstacleKind::InFlight => "in_flight",
            ObstacleKind::IdReused => "id_reused",
            ObstacleKind::OrderChanged => "order_changed",
        }
    }
}

/// One reason why a run cannot be moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Obstacle {
    /// Its kind.
    pub kind: ObstacleKind,
    /// The step, by its old id if it has one; none when it is about the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub step: Option<String>,
    /// For people.
    pub message: String,
}

/// `POST /v1/workflows/{name}/migrations`: move runs in flight from one version to another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewMigration {
    /// The version that the runs are on.
    pub from: u32,
    /// The version that they move to.
    pub to: u32,
    /// Mapping of the steps to those of the new version.
    #[serde(default)]
    pub mapping: Mapping,
    /// Action if some of the runs cannot be moved.
    #[serde(default)]
    pub on_obstacle: OnObstacle,
    /// The reason; kept in the history of each run. Not needed for a dry run.
    #[serde(default)]
    pub reason: String,
    /// Only check runs, page by page, and write nothing.
    #[serde(default)]
    pub dry_run: bool,
    /// For a dry run: the `next` of the page before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<String>,
    /// For a dry run: number of runs to check, 1 to 1,000.
    #[serde(default = "NewMigration::default_limit")]
    pub limit: u32,
}

impl NewMigration {
    fn default_limit() -> u32 {
        1_000
    }
}

/// Action of a migration if some of its runs cannot be moved.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnObstacle {
    /// It moves none: all runs are checked before the first is moved.
    #[default]
    Stop,
    /// It leaves them where they are and moves the others.
    Leave,
}

impl OnObstacle {
    /// Returns the word used in JSON and in the table.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            OnObstacle::Stop => "stop",
            OnObstacle::Leave => "leave",
        }
    }
}

/// Result of a dry run: one page of the runs on the old version.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrationCheck {
    /// Number of runs checked on this page.
    pub checked: u64,
    /// Those that move cleanly.
    pub clean: u64,
    /// Those that do not, by the kinds of their obstacles; a run counts once for each kind.
    pub obstacles: BTreeMap<String, u64>,
    /// Some of them, at most ten of each kind.
    pub samples: Vec<CheckedRun>,
    /// Pass it as `after` for the next page; none when this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

/// A run that cannot be moved, and why.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CheckedRun {
    /// The run.
    pub run: RunId,
    /// The reason.
    pub obstacles: Vec<Obstacle>,
}

/// A migration of runs in flight.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigrationView {
    /// Its id.
    pub id: Uuid,
    /// The workflow.
    pub workflow: String,
    /// The version that the runs were on.
    pub from: u32,
    /// The version that they move to.
    pub to: u32,
    /// Mapping of the steps to those of the new version.
    pub mapping: Mapping,
    /// Action if some of the runs cannot be moved.
    pub on_obstacle: OnObstacle,
    /// `checking`, `moving`, `done` or `stopped`.
    pub state: String,
    /// The reason for which it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped_because: Option<String>,
    /// Number of runs by result: `waiting clean moved ended left refused`. They sum to `total`.
    pub runs: BTreeMap<String, u64>,
    /// Runs in all: those that had not ended when the migration began.
    pub total: u64,
    /// The person who requested it.
    pub actor: String,
    /// The reason.
    pub reason: String,
    /// The time.
    pub created_at: Timestamp,
    /// Time at which it was done or stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ended_at: Option<Timestamp>,
    /// The reason for which its row cannot be read: `mapping` is then empty, and it moves nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// Result for one run of a migration.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct MigratedRun {
    /// The run.
    pub run: RunId,
    /// One of [`MigratedRun::RESULTS`].
    pub result: String,
    /// The reason for which it was left or refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

impl MigratedRun {
    /// Possible results for a run of a migration.
    pub const RESULTS: &'static [&'static str] =
        &["waiting", "clean", "moved", "ended", "left", "refused"];
}
