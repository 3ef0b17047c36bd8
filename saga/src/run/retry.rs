//! Delays of retries. Jitter is a hash, so that a test can predict it and a replay repeats it.

use super::Run;
use super::state::{TaskState, WorkIndex};
use crate::{Action, Jitter, Retry, RunId, Span, StepPath};

/// The longest wait that a worker can ask for; a longer one is cut to this.
pub const LONGEST_RETRY_AFTER: Span = Span::days(1);

/// Returns the delay after `spent` failed attempts (from 1); `previous` is the delay before.
pub(crate) fn delay(policy: &Retry, spent: u32, previous: Span, chance: u64) -> Span {
    let (first, cap) = (policy.first_delay.0, policy.max_delay.0);
    let exponent = i32::try_from(spent.saturating_sub(1)).unwrap_or(i32::MAX);
    // A float cast saturates: an overflow becomes the largest delay, and the cap makes it the longest allowed.
    let full = ((first as f64 * policy.multiplier.powi(exponent)) as u64).min(cap);
    let spread = match policy.jitter {
        Jitter::None => full,
        Jitter::Full => between(0, full, chance),
        Jitter::Equal => between(full / 2, full, chance),
        // The range ends at the cap: what is drawn beyond it and cut would make many wait equally long.
        Jitter::Decorrelated => {
            between(first, previous.0.max(first).saturating_mul(3).min(cap), chance)
        }
    };
    Span(spread)
}

/// Returns the delay when a worker requested `wait`: up to a tenth more with jitter, so that workers with the same
/// request do not come back at the same time.
pub(crate) fn asked(policy: &Retry, wait: Span, chance: u64) -> Span {
    let wait = wait.min(LONGEST_RETRY_AFTER);
    match policy.jitter {
        Jitter::None => wait,
        _ => Span(between(wait.0, wait.0.saturating_add(wait.0 / 10), chance)),
    }
}

/// Returns a number from `low` to `high`, both included.
fn between(low: u64, high: u64, chance: u64) -> u64 {
    let width = u128::from(high.saturating_sub(low)) + 1;
    low + u64::try_from((u128::from(chance) * width) >> 64).unwrap_or(0)
}

/// Returns the chance of one attempt: a hash of what names it (FNV-1a, finished as in `SplitMix64`).
pub(crate) fn chance(run: RunId, step: &StepPath, action: Action, attempt: u32) -> u64 {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    let mut eat = |bytes: &[u8]| {
        for byte in bytes {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    };
    eat(run.0.as_bytes());
    eat(step.step.as_bytes());
    eat(&step.item.unwrap_or(u32::MAX).to_le_bytes());
    eat(action.as_str().as_bytes());
    eat(&attempt.to_le_bytes());
    hash = (hash ^ (hash >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    hash = (hash ^ (hash >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    hash ^ (hash >> 31)
}

impl Run {
    /// Lets a retry that is due wait in line, without a timer, as its map has no place free.
    pub(super) fn wait_for_place(&mut self, place: WorkIndex) {
        let Some(item) = place.item else { return };
        if let Some(due) = self.work(place).and_then(|work| work.due) {
            self.due.remove(&(due, place));
        }
        let Some(items) = self.items_mut(place.step) else { return };
        items.due_without_place.push_back(item);
        if let Some(work) = items.works.get_mut(item as usize) {
            work.due = None;
        }
    }

    /// Returns the next in that line, of those that go backward or of those that go forward.
    pub(super) fn take_waiting_for_place(
        &mut self,
        step: usize,
        backward: bool,
    ) -> Option<(WorkIndex, Action)> {
        let items = self.items_mut(step)?;
        // A work with a timer again was removed from the line in between, and its next retry is not due yet.
        let waits = |item: &u32| {
            let work = items.works.get(*item as usize).filter(|work| work.due.is_none())?;
            match work.current()? {
                (action, TaskState::Backoff { .. }) => Some(action),
                _ => None,
            }
        };
        let waiting = items.due_without_place.iter().enumerate();
        let (at, item, action) =
            waiting
                .filter_map(|(at, item)| Some((at, *item, waits(item)?)))
                .find(|(_, _, action)| (*action == Action::Compensate) == backward)?;
        items.due_without_place.remove(at);
        Some((WorkIndex::item(step, item), action))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(jitter: Jitter) -> Retry {
        Retry {
            first_delay: Span(100),
            multiplier: 2.0,
            max_delay: Span(1_000),
            jitter,
            ..Retry::default()
        }
    }

    #[test]
    fn without_jitter_the_delay_doubles_up_to_the_cap_for_ever() {
        let delays = [1, 2, 3, 4, 5, 100, u32::MAX]
            .map(|spent| delay(&policy(Jitter::None), spent, Span(0), 7).0);
        assert_eq!(delays, [100, 200, 400, 800, 1_000, 1_000, 1_000]);
    }

    #[test]
    fn jitter_keeps_its_bounds_and_reaches_both_ends() {
        let ends = |jitter, previous| {
            [0, u64::MAX].map(|chance| delay(&policy(jitter), 3, Span(previous), chance).0)
        };
        assert_eq!(ends(Jitter::Full, 0), [0, 400]);
        assert_eq!(ends(Jitter::Equal, 0), [200, 400]);
        assert_eq!(ends(Jitter::Decorrelated, 250), [100, 750]);
        assert_eq!(ends(Jitter::Decorrelated, 900), [100, 1_000]);
    }

    #[test]
    fn what_a_worker_asks_to_wait_is_spread_and_never_shorter() {
        let waits = |jitter, asked| {
            [0, u64::MAX].map(|chance| super::asked(&policy(jitter), asked, chance).0)
        };
        assert_eq!(waits(Jitter::Full, Span::secs(30)), [30_000, 33_000]);
        assert_eq!(waits(Jitter::Decorrelated, Span::millis(5)), [5, 5]);
        assert_eq!(waits(Jitter::None, Span::secs(30)), [30_000, 30_000]);
        assert_eq!(waits(Jitter::None, Span::days(9)), [86_400_000; 2]);
    }

    /// Many steps fail together and their delays are drawn again and again: they must never come to wait equally long.
    #[test]
    fn no_jitter_gathers_delays_at_one_instant() {
        const TASKS: usize = 2_000;
        let policy = |jitter| Retry {
            first_delay: Span(500),
            max_delay: Span(8_000),
            jitter,
            ..Retry::default()
        };
        for jitter in [Jitter::Full, Jitter::Equal, Jitter::Decorrelated] {
            let policy = policy(jitter);
            let mut delays = vec![Span(0); TASKS];
            for spent in 1..=12 {
                for (task, delay) in delays.iter_mut().enumerate() {
                    let run = RunId(uuid::Uuid::from_u128(task as u128));
                    let chance = chance(run, &StepPath::step("pay"), Action::Forward, spent);
                    *delay = super::delay(&policy, spent, *delay, chance);
                    assert!(delay.0 <= 8_000, "{jitter:?} {spent}: {delay}");
                }
                // A tenth of the range at a time. The narrowest range has 250 ms, so that a millisecond has 8 of 2,000.
                let mut counts = std::collections::BTreeMap::new();
                for delay in &delays {
                    *counts.entry(delay.0).or_insert(0_usize) += 1;
                }
                let most = counts.values().max().copied().unwrap_or(0);
                assert!(
                    most < 40,
                    "{jitter:?}, attempt {spent}: {most} of {TASKS} wait equally long"
                );
            }
            let (low, high) = if jitter == Jitter::Equal { (4_000, 8_000) } else { (500, 8_000) };
            let tenth = (high - low) / 10;
            let last = delays.iter().filter(|delay| delay.0 > high - tenth).count();
            assert!(last > 0 && last < TASKS / 5, "{jitter:?}: {last} near the cap");
        }
    }

    #[test]
    fn chance_differs_by_everything_that_names_an_attempt_and_spreads_evenly() {
        let run = RunId(uuid::Uuid::from_u128(1));
        let step = StepPath::step("pay");
        let base = chance(run, &step, Action::Forward, 1);
        assert_eq!(base, chance(run, &step, Action::Forward, 1));
        assert_ne!(base, chance(RunId(uuid::Uuid::from_u128(2)), &step, Action::Forward, 1));
        assert_ne!(base, chance(run, &StepPath::item("pay", 0), Action::Forward, 1));
        assert_ne!(base, chance(run, &step, Action::Compensate, 1));
        let mut quarters = [0_u32; 4];
        for attempt in 1..=4_000 {
            quarters[(chance(run, &step, Action::Forward, attempt) >> 62) as usize] += 1;
        }
        assert!(quarters.iter().all(|count| (850..1_150).contains(count)), "{quarters:?}");
    }
}
