//! Subscriptions: events of the log that start runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EventOp, EventTrust, Labels, Warning, each_key_once};
use crate::Timestamp;

/// Filter of the events of a subscription. An empty member selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct EventFilter {
    /// Types: a name, a name with `.*` at its end for all that begin so, or `*`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub types: Vec<String>,
    /// Operations.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub ops: Vec<EventOp>,
    /// JSON Pointers to places. One of them must have changed, be within a changed place, or contain
    /// one.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub changed_any: Vec<String>,
    /// Labels that the event has with these values.
    #[serde(skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "each_key_once")]
    #[cfg_attr(feature = "openapi", schema(value_type = BTreeMap<String, String>))]
    pub labels: Labels,
    /// Accepted sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Excluded sources.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub source_not: Vec<String>,
    /// The least trust. Matching events with less trust are counted as skipped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub min_trust: Option<EventTrust>,
}

/// Input of the runs of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SubscriptionInput {
    /// The event, with its data as a member.
    #[default]
    Event,
    /// The data of the event.
    Data,
}

/// Kind of a subscription.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SubscriptionKind {
    /// It processes events. It names no contract of a vendor, and never matches events of one.
    #[default]
    Consumer,
    /// It maps events of vendors to canonical contracts.
    Mapper,
}

impl SubscriptionKind {
    fn is_consumer(&self) -> bool {
        *self == SubscriptionKind::Consumer
    }
}

/// Configuration of a subscription: `PUT /v1/subscriptions/{name}`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubscriptionSpec {
    /// Its kind; `consumer` without it.
    #[serde(default, skip_serializing_if = "SubscriptionKind::is_consumer")]
    pub kind: SubscriptionKind,
    /// Filter of its events; all without it. Events that changed nothing are never wanted, nor, unless it is a mapper,
    /// those that follow the contract of a vendor.
    #[serde(default)]
    pub filter: EventFilter,
    /// The workflow that each of them starts.
    pub workflow: String,
    /// Its version; the newest at the time without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// Input of its runs.
    #[serde(default)]
    pub input: SubscriptionInput,
    /// The position after which a new subscription begins; the head of the log without it. An existing subscription
    /// keeps its position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

/// `POST /v1/subscriptions/{name}/reset`: begin again after a position, with runs of their own.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResetSubscription {
    /// The position after which it goes on.
    pub position: u64,
    /// The reason; kept with the act.
    pub reason: String,
}

/// State of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SubscriptionState {
    /// Events start runs.
    Active,
    /// The start for an event is refused. It is retried; a person may skip the event.
    Stopped,
    /// A person paused it.
    Paused,
}

/// The event at which a subscription stopped.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubscriptionStop {
    /// Position of the event.
    pub position: u64,
    /// Code of the refusal.
    pub code: String,
    /// Explanation of the problem, for people.
    pub message: String,
    /// Time since when.
    pub since: Timestamp,
}

/// A subscription.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubscriptionView {
    /// Its name.
    pub name: String,
    /// Its state.
    pub state: SubscriptionState,
    /// Its configuration.
    pub spec: SubscriptionSpec,
    /// Grows each time that it begins again. The runs have the keys `name/generation/position`.
    pub generation: u32,
    /// The last event that was dealt with.
    pub position: u64,
    /// Events between there and the head of the log.
    pub behind: u64,
    /// Events that started a run.
    pub started: u64,
    /// Events that were wanted and not trusted enough.
    pub skipped: u64,
    /// The event at which it stopped.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub stopped: Option<SubscriptionStop>,
    /// Time of its last change by a person.
    pub changed_at: Timestamp,
    /// The person who changed it.
    pub changed_by: String,
    /// Present obstacles to starting runs (`unknown_workflow`). Not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub warnings: Vec<Warning>,
}
