//! Words that events are made of: who, why, whose child, in which state a step is left, where a document is, what a
//! step emits.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::Event;
use crate::protocol::EventOp;
use crate::{Payload, RunId, StepPath, Time};

/// The parent of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Parent {
    /// The run.
    pub run: RunId,
    /// Its step.
    pub step: StepPath,
}

/// State of a step or item that ended without success.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fate {
    /// It did not happen.
    Failed,
    /// It may have happened.
    Unknown,
    /// It was not begun, or nothing of it was handed out.
    Cancelled,
}

/// The cause of undoing a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    /// A step failed.
    Failure,
    /// It took too long.
    Timeout,
    /// A person cancelled it.
    Cancel,
    /// A person asked for it.
    Manual,
}

/// Actor and reason of an action.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct By {
    /// The credential's name, or what the caller said on an open server.
    pub actor: Arc<str>,
    /// The reason given.
    pub reason: String,
}

/// The erasure of a run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Erasure {
    /// Actor and reason.
    pub by: By,
}

/// An event of the log that a step emitted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Emission {
    /// The step.
    pub step: Arc<str>,
    /// The item of it, if it is a map.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<u32>,
    /// The type of the event.
    #[serde(rename = "type")]
    pub event_type: Arc<str>,
    /// The type of the event that this one retracts.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retracts: Option<Arc<str>>,
    /// The stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stream: Option<String>,
    /// The operation on the entity of the stream.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub op: Option<EventOp>,
    /// The contract that the data follows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub contract: Option<Arc<str>>,
    /// The data.
    pub data: Slot,
    /// The reason why stream and data could not be determined, if so; the event is emitted without
    /// them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
}

impl Emission {
    /// Returns the step or item that emitted it.
    #[must_use]
    pub fn path(&self) -> StepPath {
        StepPath { step: Arc::clone(&self.step), item: self.item }
    }
}

/// The place of a payload in its record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct Slot(pub u32);

/// The location of a document.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Source {
    /// In this record.
    Slot(Slot),
    /// The run's input, a step's output or the map's item, as a whole: `/input`, `/steps/a`, `/item`.
    Same(String),
}

/// One record of a run's journal: the events that one batch of commands caused.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Record {
    /// The time of the decision, by the database's clock; never earlier than that of the record
    /// before.
    pub at: Time,
    /// The events, in order.
    pub events: Vec<Event>,
    /// The documents that the events refer to.
    pub payloads: Vec<Payload>,
}
