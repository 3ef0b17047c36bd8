//! Reasons to hold a run. While a run has a hold, no step of it begins and no task is handed out. Tasks under way may
//! end.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

/// One reason for which a run is held. The same hold twice is one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Hold {
    /// Its kind.
    pub kind: HoldKind,
    /// Its name within the kind: the name that a person gave it, the key, the fact.
    #[cfg_attr(feature = "openapi", schema(value_type = String))]
    pub name: Arc<str>,
}

/// The kind of a reason to hold a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum HoldKind {
    /// A person paused the run.
    Paused,
    /// Its workflow is paused, by a person or because many of its runs failed alike.
    WorkflowPaused,
    /// Another run holds its serial key.
    KeyBlocked,
    /// A fact that it requires has not been established.
    DependencyUnmet,
    /// The run that it is a step of is paused.
    ParentPaused,
    /// It was started for a later instant, which has not come.
    StartDelayed,
}

impl Hold {
    /// Returns a hold.
    pub fn new(kind: HoldKind, name: impl Into<Arc<str>>) -> Hold {
        Hold { kind, name: name.into() }
    }
}

impl HoldKind {
    /// Returns the type of the condition that such a hold is shown as.
    #[must_use]
    pub fn condition(self) -> &'static str {
        match self {
            HoldKind::Paused => "Paused",
            HoldKind::WorkflowPaused => "WorkflowPaused",
            HoldKind::KeyBlocked => "KeyBlocked",
            HoldKind::DependencyUnmet => "DependencyUnmet",
            HoldKind::ParentPaused => "ParentPaused",
            HoldKind::StartDelayed => "StartDelayed",
        }
    }

    /// Returns whether it only prevents a run from beginning: undoing does not wait for it.
    #[must_use]
    pub fn is_forward_only(self) -> bool {
        match self {
            HoldKind::KeyBlocked | HoldKind::DependencyUnmet | HoldKind::StartDelayed => true,
            HoldKind::Paused | HoldKind::WorkflowPaused | HoldKind::ParentPaused => false,
        }
    }
}
