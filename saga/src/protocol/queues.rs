//! Limits that an operator sets for a queue, and its state.

use serde::{Deserialize, Serialize};

use super::Paused;
use crate::{Span, Timestamp};

/// `PUT /v1/queues/{name}`: limits of a queue. Omitted limits do not apply.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueuePolicy {
    /// Number of its tasks that workers may hold at the same time, over all nodes; 1 to 100,000.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency: Option<u32>,
    /// The same for the tasks of one fair key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub concurrency_per_key: Option<u32>,
    /// Number of its tasks that may be handed out in a period, over all nodes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate: Option<Rate>,
    /// The same for the tasks of one fair key.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_per_key: Option<Rate>,
    /// The label of a run whose value is the fair key of its tasks: keys take turns.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub fair_by: Option<String>,
    /// The label of a run whose value, `0` to `9`, is the priority of its tasks: higher ones go first. 5 without it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_by: Option<String>,
    /// Stops handing out while the destination fails.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerPolicy>,
    /// Number of retries that are allowed beside first attempts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<RetryBudget>,
}

/// A limit on the number of tasks in a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Rate {
    /// Number of tasks; 1 to 1,000,000.
    pub limit: u32,
    /// The period; 10 ms to 1 d.
    #[serde(default = "Rate::second")]
    pub per: Span,
    /// Number of tasks that may be handed out together after a quiet time; `limit` without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub burst: Option<u32>,
}

impl Rate {
    fn second() -> Span {
        Span::secs(1)
    }

    /// Returns the largest number that may be handed out together.
    #[must_use]
    pub fn most(&self) -> u32 {
        self.burst.unwrap_or(self.limit).max(1)
    }
}

/// Conditions on which a breaker opens, and for what time.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerPolicy {
    /// It opens when this share of the calls in the window failed; above 0, at most 1.
    pub failure_ratio: f64,
    /// Number of calls in the window before which it does not open.
    pub min_calls: u32,
    /// Length of the window; 1 s to 1 h.
    pub window: Span,
    /// Time that it stays open before one task is let through as a probe; each failed probe doubles it, up
    /// to sixteenfold. 100 ms to 1 h.
    pub open_for: Span,
}

impl Default for BreakerPolicy {
    fn default() -> Self {
        BreakerPolicy {
            failure_ratio: 0.5,
            min_calls: 20,
            window: Span::secs(30),
            open_for: Span::secs(10),
        }
    }
}

/// Number of retries that are allowed in any minute: the larger of `60 * min_per_s` and `ratio` times the first
/// attempts.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RetryBudget {
    /// Retries for each first attempt, spread evenly over the minute that follows it; 0 to 100.
    pub ratio: f64,
    /// Retries for each second in any case, one after the other; 0 to 100,000.
    pub min_per_s: f64,
}

impl Default for RetryBudget {
    fn default() -> Self {
        RetryBudget { ratio: 0.2, min_per_s: 1.0 }
    }
}

/// One governed queue: its limits, and its state.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct QueueView {
    /// Its name.
    pub queue: String,
    /// Its limits.
    pub policy: QueuePolicy,
    /// Time at which its policy was last set, or it was last paused, resumed, opened or closed.
    pub changed_at: Timestamp,
    /// The actor.
    pub changed_by: String,
    /// `true` if nothing is handed out until a person resumes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub paused: Option<Paused>,
    /// Tasks that workers hold, or are about to get.
    pub held: u32,
    /// Offered tasks that no worker holds; counted up to 1,000.
    pub waiting: u32,
    /// `true` if there are more of them.
    pub waiting_more: bool,
    /// Number of tasks that its rate allows now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tokens: Option<u32>,
    /// State of its breaker.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub breaker: Option<BreakerView>,
    /// State of its retry budget.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_budget: Option<BudgetView>,
    /// The reason for which its row cannot be read: no task of it is handed out, and unreadable members are left out.
    /// Set its policy anew, or delete it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub damaged: Option<String>,
}

/// State of a breaker.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BreakerView {
    /// Its state.
    pub state: BreakerState,
    /// Time since when it is not closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub since: Option<Timestamp>,
    /// Time of the next probe.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_at: Option<Timestamp>,
    /// Calls that ended within the window.
    pub calls: u32,
    /// Those of them that failed.
    pub failures: u32,
}

/// State of a breaker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum BreakerState {
    /// It lets all tasks through.
    Closed,
    /// It lets no task through.
    Open,
    /// It lets one task through at a time, as a probe.
    HalfOpen,
}

/// State of a retry budget, over the last minute.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BudgetView {
    /// First attempts handed out.
    pub first_attempts: u32,
    /// Retries handed out.
    pub retries: u32,
    /// Retries that may be handed out now.
    pub left: u32,
}
