//! Subscriptions: events of the log that start runs.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use super::{EventOp, EventTrust, IncidentId, Labels, Warning, each_key_once};
use crate::{RunId, Timestamp};

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

/// Action when the run of an event fails or needs a person, or its start is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnEventFailure {
    /// The events of its key wait, others go on.
    #[default]
    BlockKey,
    /// The event is passed over, which is counted and listed.
    Skip,
    /// All events of the subscription wait.
    StopAll,
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
    /// Events of one key start their runs one after the other, in the order of the log: `stream`, or a JSON Pointer into the data.
    /// Without it, and for events that have no value there, runs go side by side.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// Action when a run fails or needs a person; `block_key` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_failure: Option<OnEventFailure>,
    /// Largest number of its runs in flight, 1 to 10,000; 1,000 without it. Those that block a key do not count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_in_flight: Option<u32>,
    /// Largest number of events that are taken up and not finished, 1 to 100,000; 10,000 without it. The others stay in the log.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_backlog: Option<u32>,
    /// The position after which a new subscription begins; the head of the log without it. An existing subscription
    /// keeps its position.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub from: Option<u64>,
}

impl SubscriptionSpec {
    /// Returns whether its events wait for their turn: it has an order or a limit.
    #[must_use]
    pub fn has_turns(&self) -> bool {
        self.key.is_some()
            || self.on_failure.is_some()
            || self.max_in_flight.is_some()
            || self.max_backlog.is_some()
    }
}

/// `POST /v1/subscriptions/{name}/skip`: pass over an event.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SkipEvent {
    /// The position of an event that blocks its key; without it, the event at which the subscription stands.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub position: Option<u64>,
    /// Why; kept with the act.
    pub reason: String,
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
    /// The start for an event is refused, or the run of an event stops all. It is retried; a person may skip the event.
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

/// Numbers of events that a subscription has taken up and not finished.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PendingEvents {
    /// They wait for their turn.
    pub waiting: u64,
    /// Their runs are under way.
    pub in_flight: u64,
    /// They block their keys.
    pub blocked: u64,
}

/// State of the first pending event of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum KeyState {
    /// Its run begins as soon as there is room.
    Ready,
    /// Its run is under way.
    InFlight,
    /// Its run failed or needs a person, or its start is refused.
    Blocked,
}

/// A key of a subscription with pending events: `GET /v1/subscriptions/{name}/keys`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SubscriptionKey {
    /// The key; an event without one stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// State of its first event.
    pub state: KeyState,
    /// Position of that event.
    pub position: u64,
    /// Generation in which it was taken up.
    pub generation: u32,
    /// Begin of that state.
    pub since: Timestamp,
    /// Its run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// The incident that waits for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub incident: Option<IncidentId>,
    /// Reason why it blocks the key: `run_failed`, `run_parked`, or the code of the refusal of its start.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Events behind it.
    pub waiting: u64,
}

/// An event that a subscription passed over: `GET /v1/subscriptions/{name}/skips`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SkippedEvent {
    /// Position of the event.
    pub position: u64,
    /// Generation in which it was passed over.
    pub generation: u32,
    /// Reason: `trust_below_minimum`, `by_hand`, `start_refused`, `run_failed`, `run_parked`, `run_cancelled`.
    pub reason: String,
    /// Its key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<String>,
    /// The run that it started.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub run: Option<RunId>,
    /// Code of what stood in the way.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// The same for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// Time at which it was passed over.
    pub at: Timestamp,
    /// Person who passed it over.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub actor: Option<String>,
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
    /// Events that were wanted and passed over.
    pub skipped: u64,
    /// Their number by reason: `trust_below_minimum`, `by_hand`, `start_refused`, `run_failed`, `run_parked`, `run_cancelled`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub skipped_by_reason: BTreeMap<String, u64>,
    /// Age in seconds of the oldest event that has started no run. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub behind_seconds: Option<u64>,
    /// Numbers of events that are taken up and not finished; only with an order or a limit. Not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pending: Option<PendingEvents>,
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
