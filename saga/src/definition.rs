//! Workflow definitions as people and the SDK write them: plain data, one JSON document each.
//!
//! The types here say what can be written; `validate` says what of it makes sense, and [`crate::Graph`] is the
//! checked and indexed form that the rules run on.

mod emits;
mod undo;
mod waits;

use serde::{Deserialize, Deserializer, Serialize};

pub use emits::{Emit, Milestone, Release, Retraction};
pub use undo::Compensate;
pub use waits::{Child, Fail, OnKill, OnPause, OneSignal, Sleep, Wait};

use crate::protocol::Sequence;
use crate::{Expr, Payload, Span};

/// A workflow definition. Immutable once registered.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Definition {
    /// Name of the workflow: `[a-z][a-z0-9-]*`, at most 100 characters.
    pub name: String,
    /// Version of the workflow, from 1.
    pub version: u32,
    /// One line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// JSON Schema that the input of a run must satisfy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Payload>,
    /// JSON Schema that the output of a run must satisfy; a run whose output does not is undone with `invalid_output`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Payload>,
    /// The steps; their order in the list means nothing, their references do.
    pub steps: Vec<Step>,
    /// Output of a run that succeeded; `null` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output: Option<Expr>,
    /// Longest time that the run may take, forward; compensation is not limited by it.
    #[serde(default = "Definition::default_timeout")]
    pub timeout: Span,
    /// Action on a run that exceeded its timeout.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// Time after its end in which a run may still be compensated by hand.
    #[serde(default = "Definition::default_compensable_for")]
    pub compensable_for: Span,
    /// Time after its beginning by which a run is to be over, its undo included, unless its start says `end_by`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_within: Option<Span>,
    /// Time reserved for undoing a run that is to be over, unless its start says it; as long as it took lately without
    /// it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub undo_budget: Option<Span>,
    /// Order of its runs in relation to other runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<Sequence>,
    /// Changes of its runs that become events of the log.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub milestones: Vec<Milestone>,
}

impl Definition {
    /// Longest JSON text of a definition, in bytes.
    pub const MAX_BYTES: usize = 256 * 1024;

    /// Largest number of steps of a definition.
    pub const MAX_STEPS: usize = 500;

    /// Returns all JSON Schemas of the definition, each with its place.
    #[must_use]
    pub fn schemas(&self) -> Vec<(String, Payload)> {
        let mut found = Vec::new();
        let mut add = |at: String, schema: &Option<Payload>| {
            found.extend(schema.clone().map(|schema| (at, schema)));
        };
        add("/input_schema".to_owned(), &self.input_schema);
        add("/output_schema".to_owned(), &self.output_schema);
        for (index, step) in self.steps.iter().enumerate() {
            let at = format!("/steps/{index}");
            if let Some(task) = &step.task {
                add(format!("{at}/task/input_schema"), &task.input_schema);
                add(format!("{at}/task/output_schema"), &task.output_schema);
            }
            if let Some(map) = &step.map {
                add(format!("{at}/map/task/input_schema"), &map.task.input_schema);
                add(format!("{at}/map/task/output_schema"), &map.task.output_schema);
            }
            if let Some(wait) = &step.wait {
                add(format!("{at}/wait/schema"), &wait.schema);
                for (index, one) in wait.signals.iter().enumerate() {
                    add(format!("{at}/wait/signals/{index}/schema"), &one.schema);
                }
            }
        }
        found
    }

    /// Returns the defaults of waits that are constants, each with its place and the schema of the data that it
    /// replaces.
    pub fn constant_defaults(&self) -> impl Iterator<Item = (String, &Payload, &Payload)> {
        self.steps.iter().enumerate().filter_map(|(index, step)| {
            let wait = step.wait.as_ref().filter(|wait| wait.signals.is_empty())?;
            let Some(Expr::Const(default)) = &wait.default else { return None };
            Some((format!("/steps/{index}/wait/default/const"), wait.schema.as_ref()?, default))
        })
    }

    pub(crate) fn default_timeout() -> Span {
        Span::days(7)
    }

    pub(crate) fn default_compensable_for() -> Span {
        Span::days(30)
    }
}

/// Action on a run that exceeded its timeout.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnTimeout {
    /// Undo what was done; past a pivot, an incident instead.
    #[default]
    Compensate,
    /// Open an incident and go on.
    Incident,
}

/// One step: exactly one of `task`, `map`, `wait`, `sleep`, `child` and `fail` is given.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Step {
    /// Unique within the workflow; `[a-z][a-z0-9_-]*`, at most 60 characters.
    pub id: String,
    /// Steps that must have succeeded first, beside those that the expressions refer to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub after: Vec<String>,
    /// The step is skipped unless this is `true` when it would begin.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<Expr>,
    /// A task offered to workers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub task: Option<Task>,
    /// A fan-out: one task for each item of a list, and one join.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub map: Option<Map>,
    /// Waits for a signal, such as a person's decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// Waits for time to pass.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sleep: Option<Sleep>,
    /// A run of another workflow, undone with this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub child: Option<Child>,
    /// Fails the run on purpose.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub fail: Option<Fail>,
    /// Events of the log that it emits once it has succeeded; a map, each of its items.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub emits: Vec<Emit>,
}

/// Work for a worker: the body of a task step, or of each item of a map.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Task {
    /// The handler's name, as workers register it.
    pub name: String,
    /// The queue it is offered on.
    #[serde(default = "default_queue")]
    pub queue: String,
    /// Input of the handler; inside a map it may refer to `/item` and `/index`.
    pub input: Expr,
    /// A JSON Schema that an input must satisfy which a person gives in its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub input_schema: Option<Payload>,
    /// A JSON Schema that the output must satisfy. One that does not ends the attempt with `invalid_output`: the work
    /// is done, it is not tried again, and it is undone as one that may have happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Payload>,
    /// Its class of undo. Inferred as compensatable when `compensate` is given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub class: Option<Class>,
    /// The handler that undoes the step.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compensate: Option<Compensate>,
    /// The handler that asks the target whether an attempt in doubt happened.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verify: Option<Verify>,
    /// Number and delays of retries.
    #[serde(default)]
    pub retry: Retry,
    /// Time limits of its attempts.
    #[serde(default)]
    pub timeouts: Timeouts,
    /// Meaning of a failure for good.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// Action on an attempt that may have happened.
    #[serde(default)]
    pub on_unknown: OnUnknown,
    /// Number of workers that may be lost during it, without a heartbeat, before it counts as poison and is
    /// parked.
    #[serde(
        default = "Task::default_max_losses",
        skip_serializing_if = "Task::is_default_max_losses"
    )]
    pub max_losses: u32,
    /// Workers may complete it, and undo it, in transactions of their own on the server's database.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub transactional: bool,
}

impl Task {
    pub(crate) fn default_max_losses() -> u32 {
        3
    }

    /// A definition that says nothing of it is written as ever: it is the same definition.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default_max_losses(losses: &u32) -> bool {
        *losses == Task::default_max_losses()
    }
}

fn default_queue() -> String {
    "default".to_owned()
}

/// Meaning of a step for undoing the saga.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Class {
    /// Has a compensation.
    Compensatable,
    /// The point of no return: once it succeeded, nothing is compensated automatically.
    Pivot,
    /// Retried until it succeeds or is parked for a person; never compensated.
    Retriable,
    /// Nothing to undo.
    ReadOnly,
}

/// Verification of an attempt in doubt.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Verify {
    /// The handler's name. It answers `{"happened": OUTPUT}` or `"not_happened"`.
    pub name: String,
    /// The queue; the step's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Its own retries; when they are exhausted the step stays unknown.
    #[serde(default)]
    pub retry: Retry,
}

/// Number and delays of retries. Delays are computed when an attempt failed, and persisted.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Retry {
    /// Largest number of attempts; no limit when `null`.
    #[cfg_attr(feature = "openapi", schema(nullable))]
    pub max_attempts: Option<u32>,
    /// The delay before the second attempt, before jitter.
    pub first_delay: Span,
    /// By what the delay grows each time; at least 1.
    pub multiplier: f64,
    /// The longest delay, before jitter.
    pub max_delay: Span,
    /// Spread of the delay.
    pub jitter: Jitter,
    /// No further attempt is scheduled later than this after the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub total: Option<Span>,
    /// Error codes that are final immediately.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub final_errors: Vec<String>,
}

impl Default for Retry {
    /// Returns ten attempts, from one second doubling to five minutes, with full jitter.
    fn default() -> Self {
        Retry {
            max_attempts: Some(10),
            first_delay: Span::secs(1),
            multiplier: 2.0,
            max_delay: Span::secs(300),
            jitter: Jitter::Full,
            total: None,
            final_errors: Vec::new(),
        }
    }
}

impl Retry {
    /// Returns the default for compensations: never gives up.
    #[must_use]
    pub fn undo() -> Self {
        Retry { max_attempts: None, ..Retry::default() }
    }

    /// Reads a retry policy whose `max_attempts` has no limit unless it is given.
    fn deserialize_undo<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Retry, D::Error> {
        let mut members = serde_json::Map::deserialize(deserializer)?;
        members.entry("max_attempts").or_insert(serde_json::Value::Null);
        Retry::deserialize(serde_json::Value::Object(members)).map_err(serde::de::Error::custom)
    }
}

/// Spread of a retry delay `d` (Brooker, "Exponential Backoff And Jitter", 2015).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Jitter {
    /// Between 0 and `d`.
    #[default]
    Full,
    /// Between `d/2` and `d`.
    Equal,
    /// Between the first delay and three times the previous delay, capped.
    Decorrelated,
    /// Exactly `d`.
    None,
}

/// Time limits of a task.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Timeouts {
    /// From being offered to being claimed; exceeded, the step fails (nothing happened).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub to_start: Option<Span>,
    /// One attempt; exceeded, it may have happened.
    pub attempt: Span,
    /// Longest time between two heartbeats of the worker; beyond it, the attempt may have happened.
    pub heartbeat: Span,
    /// The step with all its attempts, from its first being offered.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub step: Option<Span>,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts { to_start: None, attempt: Span::secs(300), heartbeat: Span::secs(30), step: None }
    }
}

/// Meaning of a step's failure for good for its run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnFailure {
    /// The run fails and what was done is undone.
    #[default]
    Compensate,
    /// The step is parked with an incident; a person decides.
    Incident,
    /// The run goes on without it; steps that need its output are skipped.
    Continue,
}

/// Action on an attempt that may have happened.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum OnUnknown {
    /// Try again with the same effect key.
    #[default]
    Retry,
    /// Ask the target with the `verify` handler.
    Verify,
    /// Give up immediately: the step stays unknown, and `on_failure` applies.
    Compensate,
    /// Park it with an incident.
    Incident,
}

/// A fan-out over a list.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Map {
    /// The list.
    pub items: Expr,
    /// A text by which an item is known: in views, to its worker, and to the target, through its effect key. No two
    /// items may have the same.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub key: Option<Expr>,
    /// The task of each item.
    pub task: Task,
    /// Condition on which the fan-out as a whole succeeds.
    pub join: Join,
    /// Meaning of an empty list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub empty: Option<Empty>,
    /// Largest number of items in flight at the same time.
    #[serde(default = "Map::default_max_concurrency")]
    pub max_concurrency: u32,
    /// Fate of items still in flight when the join fires early with success.
    #[serde(default)]
    pub losers: Losers,
}

impl Map {
    fn default_max_concurrency() -> u32 {
        1_000
    }
}

/// Condition on which a fan-out succeeds. It fires exactly once, as soon as its rule is true or
/// impossible.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Join {
    /// Every item succeeded.
    All,
    /// One item succeeded.
    Any,
    /// This number of items succeeded.
    Quorum(u32),
    /// All items ended, and no more than this failed.
    Tolerate(Tolerance),
    /// All items ended, with or without success.
    BestEffort,
}

/// Tolerated number of failed items of a fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Tolerance {
    /// A number of items.
    Count(u32),
    /// A share of all items, from 0 to 1.
    Ratio(f64),
}

/// Meaning of an empty list for a fan-out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Empty {
    /// The step succeeds with an empty list.
    Succeed,
    /// The step fails.
    Fail,
}

/// Fate of items still in flight when their join has fired with success. Items that were not handed out are
/// cancelled in any case.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Losers {
    /// They may finish, and their effects remain.
    #[default]
    Drain,
    /// Their attempts are revoked and they count as unknown, to be undone only if the saga is.
    Cancel,
    /// Their attempts are revoked and they are undone immediately.
    Compensate,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn attempts(compensate: &str) -> Option<u32> {
        serde_json::from_str::<Compensate>(compensate).unwrap().retry.max_attempts
    }

    #[test]
    fn a_compensation_gives_up_only_when_told() {
        assert_eq!(attempts(r#"{"name":"u"}"#), None);
        assert_eq!(attempts(r#"{"name":"u","retry":{"first_delay":"5s"}}"#), None);
        assert_eq!(attempts(r#"{"name":"u","retry":{"max_attempts":null}}"#), None);
        assert_eq!(attempts(r#"{"name":"u","retry":{"max_attempts":3}}"#), Some(3));
    }

    #[test]
    fn a_step_gives_up_unless_told_otherwise() {
        let attempts = |retry| serde_json::from_str::<Retry>(retry).unwrap().max_attempts;
        assert_eq!(attempts("{}"), Some(10));
        assert_eq!(attempts(r#"{"max_attempts":null}"#), None);
    }
}
