//! A retry budget: a bucket that fills steadily, at a speed that follows from the first attempts of the last minute.
//! Pure: time is an argument.

use backstitch_saga::protocol::{BudgetView, RetryBudget};
use backstitch_saga::{Span, Time};
use serde::{Deserialize, Serialize};

use super::bucket::{Bucket, Refill};
use super::window::Window;

/// The time over which first attempts count: each earns its share of retries, spread evenly over it.
const EARNED_OVER: Span = Span::secs(60);
/// Time of inflow that is saved and may be spent together after a quiet time. At least one retry is.
const SAVED: Span = Span::secs(1);

/// State of a queue's retries.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Retries {
    #[serde(skip_serializing_if = "Option::is_none")]
    saved: Option<Bucket>,
}

impl Retries {
    /// Returns the number of retries that may go now, and the time at which one more may go. `tries`: first
    /// attempts and retries that went.
    pub(crate) fn room(
        &mut self,
        budget: &RetryBudget,
        tries: &Window,
        now: Time,
    ) -> (u32, Option<Time>) {
        let refill = refill(budget, tries, now);
        let saved = self.saved.unwrap_or_else(|| Bucket::full(refill, now)).refilled(refill, now);
        self.saved = Some(saved);
        let next = saved.when(refill, saved.whole().saturating_add(1));
        (saved.whole(), (refill.per_milli > 0.0 && saved.whole() == 0).then_some(next))
    }

    /// Notes that retries went.
    pub(crate) fn went(&mut self, count: u32) {
        if let Some(saved) = &mut self.saved {
            saved.take(count);
        }
    }

    /// Returns the state at `now`, settled under a budget that changes now.
    pub(crate) fn settled(mut self, old: Option<&RetryBudget>, tries: &Window, now: Time) -> Self {
        match old {
            Some(old) => drop(self.room(old, tries, now)),
            None => self.saved = None,
        }
        self
    }

    /// Returns the view of the budget.
    pub(crate) fn view(&self, budget: &RetryBudget, tries: &Window, now: Time) -> BudgetView {
        let (left, _) = self.clone().room(budget, tries, now);
        let (first_attempts, retries) = tries.sums(now, EARNED_OVER);
        BudgetView { first_attempts, retries, left }
    }
}

/// Counts first attempts and retries that go.
pub(crate) fn count(tries: &mut Window, now: Time, first: u32, retries: u32) {
    tries.add(now, EARNED_OVER, first, retries);
}

fn refill(budget: &RetryBudget, tries: &Window, now: Time) -> Refill {
    let (first, _) = tries.sums(now, EARNED_OVER);
    let earned = budget.ratio * f64::from(first) / EARNED_OVER.0 as f64;
    let per_milli = earned.max(budget.min_per_s / 1_000.0).max(0.0);
    let least = if per_milli > 0.0 { 1.0 } else { 0.0 };
    Refill { per_milli, most: (per_milli * SAVED.0 as f64).max(least) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the instants of retries that always wait, checked every `step` milliseconds until `end`.
    fn going(budget: &RetryBudget, tries: &mut Window, step: usize, end: i64) -> Vec<i64> {
        let (mut retries, mut gone) = (Retries::default(), Vec::new());
        for now in (0..end).step_by(step) {
            let (left, _) = retries.room(budget, tries, Time(now));
            retries.went(left);
            count(tries, Time(now), 0, left);
            gone.extend(std::iter::repeat_n(now, left as usize));
        }
        gone
    }

    #[test]
    fn in_any_window_no_more_retries_go_than_were_saved_and_came_in() {
        for (min_per_s, step) in [(0.5, 100), (0.05, 250), (3.0, 20), (40.0, 250), (0.9, 2_700)] {
            let budget = RetryBudget { ratio: 0.0, min_per_s };
            let gone = going(&budget, &mut Window::default(), step, 200_000);
            let saved = min_per_s.max(1.0);
            for (at, from) in gone.iter().enumerate() {
                for (more, until) in gone[at..].iter().enumerate() {
                    let allowed = saved + (until - from) as f64 * min_per_s / 1_000.0;
                    assert!((more + 1) as f64 <= allowed + 1e-6, "{min_per_s}: {from} to {until}");
                }
            }
            let least = 200.0 * min_per_s * 0.9 - 1.0;
            assert!(gone.len() as f64 >= least || step > 2_000, "{min_per_s}: {}", gone.len());
        }
    }

    #[test]
    fn half_a_retry_a_second_is_one_every_two_seconds_without_a_heap_or_a_gap() {
        let budget = RetryBudget { ratio: 0.0, min_per_s: 0.5 };
        let gone = going(&budget, &mut Window::default(), 100, 180_000);
        let expected: Vec<i64> = (0..90).map(|number| number * 2_000).collect();
        assert_eq!(gone, expected);
    }

    #[test]
    fn first_attempts_earn_retries_over_a_minute() {
        let budget = RetryBudget { ratio: 0.2, min_per_s: 0.0 };
        let mut tries = Window::default();
        count(&mut tries, Time(0), 600, 0);
        let gone = going(&budget, &mut tries, 100, 120_000);
        assert!((112..=122).contains(&gone.len()), "a fifth of 600: {}", gone.len());
        let second =
            |from: i64| gone.iter().filter(|at| (from..from + 1_000).contains(*at)).count();
        assert!((1..50).all(|from| second(from * 1_000) <= 3), "spread evenly: {gone:?}");
        assert_eq!(gone.iter().filter(|at| **at > 62_000).count(), 0, "and then no more");
    }

    #[test]
    fn a_budget_of_nothing_lets_no_retry_go() {
        let budget = RetryBudget { ratio: 0.0, min_per_s: 0.0 };
        assert!(going(&budget, &mut Window::default(), 1_000, 3_600_000).is_empty());
        assert_eq!(Retries::default().room(&budget, &Window::default(), Time(0)), (0, None));
    }

    #[test]
    fn another_budget_counts_from_when_it_is_set() {
        let (old, new) = (
            RetryBudget { ratio: 0.0, min_per_s: 0.1 },
            RetryBudget { ratio: 0.0, min_per_s: 100.0 },
        );
        let tries = Window::default();
        let mut retries = Retries::default();
        assert_eq!(retries.room(&old, &tries, Time(0)), (1, None));
        retries.went(1);
        assert_eq!(retries.room(&old, &tries, Time(2_500)).1, Some(Time(10_000)));
        let mut changed = retries.settled(Some(&old), &tries, Time(5_000));
        assert_eq!(changed.room(&new, &tries, Time(5_000)).0, 0, "half of one was saved");
        assert_eq!(changed.room(&new, &tries, Time(5_100)).0, 10);
        assert_eq!(changed.room(&new, &tries, Time(9_000)).0, 100, "no more than a second's worth");
    }
}
