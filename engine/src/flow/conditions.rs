//! Reasons for which tasks of a run wait for a permit, in addition to those in its journal.

use backstitch_saga::protocol::{BreakerState, Condition, RunView, State};
use backstitch_saga::{Run, Span, TaskKey, Time, Timestamp};

use super::{Governed, Queue};

/// Number of tasks of a run that are reported.
const MOST: usize = 20;

/// Returns the conditions of a run's tasks on offer in governed queues: `QueueDamaged`, `QueuePaused`,
/// `DestinationUnavailable`, `RetryBudgetExhausted`, `QueueLimited`.
pub(crate) fn conditions(governed: &Governed, run: &Run, now: Time) -> Vec<Condition> {
    let offered = run.offered().into_iter();
    let told = offered.filter_map(|task| {
        let queue = governed.of_task(run, &task)?;
        let (kind, message, since) = why(queue, &task, now)?;
        let since = Timestamp(since.unwrap_or(now));
        Some(Condition { kind: kind.to_owned(), step: Some(task.step), message, since })
    });
    told.take(MOST).collect()
}

/// Adds them to a run in a view. The summary of a run that only waits for a worker has them, too.
pub(crate) fn add_conditions(governed: &Governed, run: &Run, now: Time, view: &mut RunView) {
    let told = conditions(governed, run, now);
    if view.state == State::Queued
        && let Some(first) = told.first()
    {
        view.summary = match first.kind.as_str() {
            "QueueLimited" => format!("{}; {}", view.summary, first.message),
            _ => format!("nothing is handed out: {}", first.message),
        };
    }
    view.conditions.extend(told);
}

fn why(queue: &Queue, task: &TaskKey, now: Time) -> Option<(&'static str, String, Option<Time>)> {
    let name = &queue.name.1;
    if let Some(damaged) = &queue.damaged {
        let message = format!(
            "queue '{name}' cannot be read, so that nothing of it is handed out until its policy is set anew: {}",
            damaged.why
        );
        let since = Time(now.0.saturating_sub_unsigned(Span::from(damaged.since.elapsed()).0));
        return Some(("QueueDamaged", message, Some(since)));
    }
    if let Some((since, by, reason)) = &queue.paused {
        let message = format!("queue '{name}' was paused by {by}: {reason}");
        return Some(("QueuePaused", message, Some(*since)));
    }
    if let Some(breaker) = queue.limiter.breaker_view(&queue.policy, now)
        && breaker.state != BreakerState::Closed
    {
        let next = match breaker.retry_at {
            Some(Timestamp(at)) => format!("the next probe goes out at {at}"),
            None => "a probe finds out whether it answers again".to_owned(),
        };
        let message = format!("the breaker of queue '{name}' is open: {next}");
        return Some(("DestinationUnavailable", message, breaker.since.map(|at| at.0)));
    }
    if task.attempt > 1
        && let Some(budget) = queue.limiter.budget_view(&queue.policy, now)
        && budget.left == 0
    {
        let message = format!(
            "queue '{name}' has had {} retries beside {} first attempts in the last minute; the next goes when its \
             budget has grown by one",
            budget.retries, budget.first_attempts
        );
        return Some(("RetryBudgetExhausted", message, None));
    }
    let policy = &queue.policy;
    let capped = policy.concurrency.is_some() || policy.concurrency_per_key.is_some();
    let limited = match (capped, policy.rate.is_some() || policy.rate_per_key.is_some()) {
        (true, true) => "concurrency and rate",
        (true, false) => "concurrency",
        (false, true) => "rate",
        (false, false) => return None,
    };
    Some(("QueueLimited", format!("queue '{name}' has a limited {limited}"), None))
}
