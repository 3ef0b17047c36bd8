//! Things that a run remembers beside its steps.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::event::{By, Descent, EndBy, RequiredFact};
use crate::protocol::{Labels, Scope};
use crate::{Cause, IncidentKind, Parent, Payload, StepPath, Time};

/// Origin of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Origin {
    pub(super) namespace: Arc<str>,
    pub(super) workflow: Arc<str>,
    pub(super) version: u32,
    pub(super) definition: Arc<str>,
    pub(super) key: Option<Arc<str>>,
    pub(super) correlation_id: Option<Arc<str>>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) causation_id: Option<Arc<str>>,
    pub(super) labels: Labels,
    pub(super) input: Payload,
    pub(super) at: Time,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) parent: Option<Parent>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) descent: Option<Descent>,
    /// Nothing of it begins before, and its time is counted from then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) start_at: Option<Time>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(super) requires: Vec<RequiredFact>,
    /// Deadline of the run, its undo included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) end_by: Option<Box<EndBy>>,
}

/// An output that is yet to be held to its JSON Schema.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Unchecked {
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Payload::present"
    )]
    pub(super) output: Option<Payload>,
    /// The time of the next request.
    pub(super) again: Time,
}

/// A signal that came.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Signal {
    pub(super) data: Payload,
    pub(super) by: By,
    /// Its place among those that came.
    #[serde(default)]
    pub(super) number: u32,
}

/// A signal that was accepted and could not be taken.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct RefusedSignal {
    pub(super) signal: Arc<str>,
    pub(super) by: By,
    pub(super) message: String,
    pub(super) at: Time,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Compensation {
    pub(super) cause: Cause,
    pub(super) by: Option<By>,
    pub(super) scope: Option<Scope>,
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Incident {
    pub(super) number: u32,
    pub(super) kind: IncidentKind,
    pub(super) step: Option<StepPath>,
    pub(super) message: String,
    pub(super) since: Time,
}
