//! Events that steps emit: plain data, as people write it.

use serde::{Deserialize, Serialize};

use crate::Expr;
use crate::protocol::EventOp;

/// An event of the log that a step emits once it has succeeded. It is written with that success.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Emit {
    /// The type, such as `order.placed`; `[a-z][a-z0-9._-]*`, at most 100 characters, another one for each event of the
    /// step.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Kind of the entity of the stream, such as `order`: put before the value of `stream`, with a colon.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entity: Option<String>,
    /// The stream, a text or a whole number.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<Expr>,
    /// Operation on the entity of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<EventOp>,
    /// The contract that the data follows, such as `order@2`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<String>,
    /// The data; the output of the step without it. It may refer to the output of the step itself. In a map, that is
    /// the output of the item, and `/item` and `/index` are the item.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Expr>,
    /// Time of its release to readers; for the items of a map only `at_once`.
    #[serde(default)]
    pub release: Release,
    /// The event that retracts it, written with the undo of the step. An event that is released immediately and whose
    /// step can be undone needs one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retract: Option<Retraction>,
}

impl Emit {
    /// The most events of one step.
    pub const MOST_OF_STEP: usize = 8;

    /// The most events of all steps of a definition.
    pub const MOST: usize = 32;

    /// Returns the event `event_type` with the output of the step, released when the run has succeeded.
    #[must_use]
    pub fn of(event_type: impl Into<String>) -> Emit {
        Emit {
            event_type: event_type.into(),
            entity: None,
            stream: None,
            op: None,
            contract: None,
            data: None,
            release: Release::default(),
            retract: None,
        }
    }
}

/// Time of the release of an event of a step. One whose step is undone before is dropped.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Release {
    /// With the success of the step.
    AtOnce,
    /// At the run's pivot; at its success if it has none.
    AtPivot,
    /// At the run's success, whole or partial.
    #[default]
    AtSuccess,
}

/// The event that takes another one back. It is about the same stream.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retraction {
    /// The type, such as `order.withdrawn`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// Operation on the entity of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<EventOp>,
    /// The data; the output of the step without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub data: Option<Expr>,
}

impl Retraction {
    /// Returns the event `event_type` with the output of the step.
    #[must_use]
    pub fn of(event_type: impl Into<String>) -> Retraction {
        Retraction { event_type: event_type.into(), op: None, data: None }
    }
}

/// A change of a run that becomes an event of the log if its definition asks for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Milestone {
    /// It starts.
    Started,
    /// It begins to be undone.
    CompensationStarted,
    /// It goes forward again from a step.
    WentForward,
    /// It ends.
    Ended,
    /// It needs a person, or does not any more.
    Incidents,
}
