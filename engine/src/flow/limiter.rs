//! State of a governed queue between two hand-outs, and the number of tasks that may go now. Pure: time is an argument.

use std::collections::BTreeMap;

use backstitch_saga::protocol::{BreakerState, BreakerView, BudgetView, QueuePolicy};
use backstitch_saga::{Time, Timestamp};
use serde::{Deserialize, Serialize};

use super::breaker::{Breaker, Ending, Gate};
use super::bucket::Bucket;
use super::budget::{self, Retries};
use super::pick::Candidate;
use super::window::Window;

/// The changing part of a governed queue, kept as JSON in its row.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Limiter {
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<Bucket>,
    pub(crate) breaker: Breaker,
    /// Calls and failures.
    calls: Window,
    /// First attempts and retries.
    tries: Window,
    retries: Retries,
    /// The time since when keys are limited as they are now.
    #[serde(skip_serializing_if = "Option::is_none")]
    keys_since: Option<Time>,
    /// By priority, the key that went last.
    pub(crate) turns: BTreeMap<u8, String>,
}

/// Number of tasks that may go now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Room {
    pub(crate) tasks: u32,
    /// Of these, retries.
    pub(crate) retries: u32,
    /// The time at which more may go, if time alone allows them.
    pub(crate) again_at: Option<Time>,
}

impl Limiter {
    /// Takes note of how tasks ended.
    pub(crate) fn note(&mut self, policy: &QueuePolicy, now: Time, endings: &[Ending]) {
        if let Some(breaker) = &policy.breaker {
            for ending in endings {
                self.breaker.note(&mut self.calls, breaker, now, ending);
            }
        }
    }

    /// Returns the number of tasks that may go now, if `held` are held; `probe_held`: the breaker's
    /// probe is among them.
    pub(crate) fn room(
        &mut self,
        policy: &QueuePolicy,
        now: Time,
        held: u32,
        probe_held: bool,
    ) -> Room {
        let none = |again_at| Room { tasks: 0, retries: 0, again_at };
        let mut tasks = u32::MAX;
        if policy.breaker.is_some() {
            match self.breaker.gate(now, probe_held) {
                Gate::Open => {}
                Gate::Probe => tasks = 1,
                Gate::Shut(until) => return none(Some(until)),
            }
        }
        if let Some(most) = policy.concurrency {
            tasks = tasks.min(most.saturating_sub(held));
        }
        let mut again_at = None;
        if let Some(rate) = &policy.rate {
            let bucket = self.rate.unwrap_or_else(|| Bucket::full(rate, now)).refilled(rate, now);
            self.rate = Some(bucket);
            tasks = tasks.min(bucket.whole());
            again_at = Some(bucket.when(rate, bucket.whole() + 1)).filter(|at| *at > now);
        }
        if tasks == 0 {
            return none(again_at);
        }
        let (retries, retry_at) = match &policy.retry_budget {
            // A probe may be a retry: otherwise a destination with only retries left would never be tried.
            Some(_) if self.breaker != Breaker::Closed => (tasks, None),
            Some(budget) => self.retries.room(budget, &self.tries, now),
            None => (tasks, None),
        };
        let again_at = again_at.into_iter().chain(retry_at).min();
        Room { tasks, retries: retries.min(tasks), again_at }
    }

    /// Counts these tasks, of which `retries` are no first attempts.
    pub(crate) fn went(&mut self, policy: &QueuePolicy, now: Time, gone: &[Candidate]) {
        let count = |retry: bool| {
            let of = gone.iter().filter(|one| one.is_retry() == retry).count();
            u32::try_from(of).unwrap_or(u32::MAX)
        };
        let (first, retries) = (count(false), count(true));
        if let Some(bucket) = &mut self.rate {
            bucket.take(first + retries);
        }
        if policy.retry_budget.is_some() {
            budget::count(&mut self.tries, now, first, retries);
            self.retries.went(retries);
        }
        if let Some(one) = gone.first() {
            self.breaker.send(one.run, one.task.clone());
        }
    }

    /// Returns the state under another policy from `now` on. The counts of the old breaker are dropped; tokens stay
    /// as they grew until now, so that no change of a rate allows a burst.
    pub(crate) fn under(mut self, old: &QueuePolicy, new: &QueuePolicy, now: Time) -> Limiter {
        self.rate = match (self.rate, &old.rate) {
            (Some(bucket), Some(rate)) => Some(bucket.refilled(rate, now)),
            _ => None,
        };
        self.retries = self.retries.settled(old.retry_budget.as_ref(), &self.tries, now);
        if old.rate_per_key != new.rate_per_key {
            self.keys_since = Some(now);
        }
        if old.breaker != new.breaker {
            (self.breaker, self.calls) = (Breaker::Closed, Window::default());
        }
        if old.fair_by != new.fair_by || old.priority_by != new.priority_by {
            self.turns.clear();
        }
        self
    }

    /// Closes the breaker, as a person wants.
    pub(crate) fn close(&mut self) {
        (self.breaker, self.calls) = (Breaker::Closed, Window::default());
    }

    /// Returns the number of tasks that the rate allows.
    pub(crate) fn tokens(&self, policy: &QueuePolicy, now: Time) -> Option<u32> {
        let rate = policy.rate.as_ref()?;
        let bucket = self.rate.unwrap_or_else(|| Bucket::full(rate, now));
        Some(bucket.refilled(rate, now).whole())
    }

    /// Returns the view of the breaker.
    pub(crate) fn breaker_view(&self, policy: &QueuePolicy, now: Time) -> Option<BreakerView> {
        let (calls, failures) = self.calls.sums(now, policy.breaker.as_ref()?.window);
        let (state, since, retry_at) = match &self.breaker {
            Breaker::Closed => (BreakerState::Closed, None, None),
            Breaker::Open { since, until, .. } => (BreakerState::Open, Some(*since), Some(*until)),
            Breaker::HalfOpen { since, .. } => (BreakerState::HalfOpen, Some(*since), None),
        };
        let (since, retry_at) = (since.map(Timestamp), retry_at.map(Timestamp));
        Some(BreakerView { state, since, retry_at, calls, failures })
    }

    /// Returns the view of the retry budget.
    pub(crate) fn budget_view(&self, policy: &QueuePolicy, now: Time) -> Option<BudgetView> {
        let budget = policy.retry_budget.as_ref()?;
        Some(self.retries.view(budget, &self.tries, now))
    }

    /// Returns the bucket of a key, as far as it is known under the present limit.
    pub(crate) fn key(&self, bucket: Bucket) -> Bucket {
        self.keys_since.map_or(bucket, |since| bucket.known_since(since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flow::breaker::Answer;
    use backstitch_saga::protocol::{BreakerPolicy, Rate, RetryBudget};
    use backstitch_saga::{Action, RunId, Span, StepPath, TaskKey};

    fn task(attempt: u32) -> Candidate {
        Candidate {
            run: RunId(uuid::Uuid::nil()),
            task: TaskKey { step: StepPath::step("a"), action: Action::Forward, attempt },
            name: "do".to_owned(),
            key: "-".to_owned(),
            offered_at: Time(0),
        }
    }

    #[test]
    fn what_is_not_limited_is_free() {
        let room = Limiter::default().room(&QueuePolicy::default(), Time(0), 9, false);
        assert_eq!(room, Room { tasks: u32::MAX, retries: u32::MAX, again_at: None });
    }

    #[test]
    fn the_narrowest_limit_counts() {
        let rate = Rate { limit: 10, per: Span::secs(1), burst: Some(4) };
        let policy =
            QueuePolicy { concurrency: Some(5), rate: Some(rate), ..QueuePolicy::default() };
        let mut limiter = Limiter::default();
        assert_eq!(limiter.room(&policy, Time(0), 0, false).tasks, 4);
        assert_eq!(limiter.room(&policy, Time(0), 3, false).tasks, 2);
        assert_eq!(limiter.room(&policy, Time(0), 7, false).tasks, 0, "a cap was lowered");
        limiter.went(&policy, Time(0), &[task(1), task(1), task(1), task(2)]);
        let spent = limiter.room(&policy, Time(50), 0, false);
        assert_eq!((spent.tasks, spent.again_at), (0, Some(Time(100))));
        assert_eq!(limiter.tokens(&policy, Time(250)), Some(2));
    }

    #[test]
    fn retries_have_a_budget_of_their_own() {
        let budget = RetryBudget { ratio: 0.6, min_per_s: 0.05 };
        let policy = QueuePolicy { retry_budget: Some(budget), ..QueuePolicy::default() };
        let mut limiter = Limiter::default();
        assert_eq!(limiter.room(&policy, Time(0), 0, false).retries, 1);
        limiter.went(&policy, Time(0), &[task(2)]);
        let room = limiter.room(&policy, Time(0), 0, false);
        assert_eq!((room.tasks, room.retries), (u32::MAX, 0), "first attempts go on");
        assert_eq!(room.again_at, Some(Time(20_000)));
        limiter.went(&policy, Time(0), &vec![task(1); 10]);
        assert_eq!(limiter.room(&policy, Time(9_999), 0, false).retries, 0);
        assert_eq!(limiter.room(&policy, Time(10_000), 0, false).retries, 1, "six in a minute");
        assert_eq!(limiter.room(&policy, Time(300_000), 0, false).retries, 1, "none are heaped up");
    }

    #[test]
    fn what_an_older_version_kept_is_read() {
        let limiter: Limiter =
            serde_json::from_str(r#"{"breaker":"closed","calls":[],"tries":[[1,5,2]],"turns":{}}"#)
                .unwrap();
        assert_eq!(limiter.retries, Retries::default());
    }

    #[test]
    fn an_open_breaker_lets_nothing_go_and_then_one() {
        let breaker = BreakerPolicy { min_calls: 1, ..BreakerPolicy::default() };
        let policy = QueuePolicy { breaker: Some(breaker), ..QueuePolicy::default() };
        let mut limiter = Limiter::default();
        let one = task(1);
        let ending = Ending { run: one.run, task: one.task.clone(), answer: Answer::Missing };
        limiter.note(&policy, Time(0), &[ending]);
        let shut = limiter.room(&policy, Time(0), 0, false);
        assert_eq!((shut.tasks, shut.again_at), (0, Some(Time(10_000))));
        assert_eq!(limiter.room(&policy, Time(10_000), 0, false).tasks, 1);
        limiter.went(&policy, Time(10_000), &[one]);
        assert_eq!(limiter.room(&policy, Time(10_001), 1, true).tasks, 0);
        let text = serde_json::to_string(&limiter).unwrap();
        assert_eq!(serde_json::from_str::<Limiter>(&text).unwrap(), limiter, "{text}");
    }

    #[test]
    fn another_rate_gives_no_burst() {
        let rate = Rate { limit: 1, per: Span::secs(1), burst: None };
        let old = QueuePolicy { rate: Some(rate), ..QueuePolicy::default() };
        let new = QueuePolicy { rate: Some(Rate { limit: 2, ..rate }), ..QueuePolicy::default() };
        let mut limiter = Limiter::default();
        limiter.room(&old, Time(0), 0, false);
        limiter.went(&old, Time(0), &[task(1)]);
        let mut changed = limiter.clone().under(&old, &new, Time(0));
        assert_eq!(changed.room(&new, Time(0), 0, false).tasks, 0);
        assert_eq!(changed.room(&new, Time(1_000), 0, false).tasks, 2);
        // Nor does what would have grown by it before it was set.
        let faster =
            QueuePolicy { rate: Some(Rate { limit: 100, ..rate }), ..QueuePolicy::default() };
        let mut changed = limiter.under(&old, &faster, Time(900));
        assert_eq!(changed.room(&faster, Time(900), 0, false).tasks, 0);
        assert_eq!(changed.room(&faster, Time(910), 0, false).tasks, 1);
    }

    #[test]
    fn a_key_counts_by_a_new_rate_from_when_it_is_set() {
        let rate = Rate { limit: 1, per: Span::secs(60), burst: None };
        let old = QueuePolicy { rate_per_key: Some(rate), ..QueuePolicy::default() };
        let fast = Rate { limit: 100, per: Span::secs(1), burst: None };
        let new = QueuePolicy { rate_per_key: Some(fast), ..QueuePolicy::default() };
        let spent = Bucket { tokens: 0.0, at: Time(0) };
        let limiter = Limiter::default().under(&old, &new, Time(50_000));
        assert_eq!(limiter.key(spent).refilled(&fast, Time(50_000)).whole(), 0);
        assert_eq!(limiter.key(spent).refilled(&fast, Time(50_100)).whole(), 10);
        let same = Limiter::default().under(&old, &old, Time(50_000));
        assert_eq!(same.key(spent).refilled(&rate, Time(60_000)).whole(), 1);
    }
}
