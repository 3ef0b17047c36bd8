//! The start of a run, as its journal holds it.

use std::collections::BTreeMap;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Parent, Slot};
use crate::family::Descent;
use crate::protocol::{Labels, OnWithdrawn, Requirement};
use crate::{Span, Time};

/// The start of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Begun {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The workflow.
    pub workflow: Arc<str>,
    /// Its version.
    pub version: u32,
    /// The hash of its definition.
    pub definition: Arc<str>,
    /// The caller's key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Arc<str>>,
    /// The correlation id, constant along a chain of causes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub correlation_id: Option<Arc<str>>,
    /// The event of the log that caused it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub causation_id: Option<Arc<str>>,
    /// Marks to search by.
    #[serde(default, skip_serializing_if = "Labels::is_empty")]
    pub labels: Labels,
    /// The input.
    pub input: Slot,
    /// The step of another run that it is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// Its depth and the number of runs that may descend from it, if it is or may have a child.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub descent: Option<Descent>,
    /// Nothing of it begins before this instant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_at: Option<Time>,
    /// The facts that it requires, established ones included.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub requires: Vec<RequiredFact>,
    /// The instant by which it is to be over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_by: Option<Box<EndBy>>,
}

/// The instant by which a run is to be over, its undo included.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndBy {
    /// The instant.
    pub at: Time,
    /// The time reserved for undoing it, whatever was begun; without it, what `undo` says of the steps that were.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<Span>,
    /// Recent time of undoing a step or one of its items.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub undo: BTreeMap<Arc<str>, Span>,
}

/// A fact that a run requires.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RequiredFact {
    /// The fact and what it is about.
    pub one: Requirement,
    /// Policy for the run when the fact is withdrawn.
    pub on_withdrawn: OnWithdrawn,
}
