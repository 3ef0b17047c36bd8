//! The one door to time and chance: the database's clock as this node knows it, and the ids of new runs.

use std::sync::Mutex;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Instant;

use backstitch_saga::{RunId, Time};
use uuid::{ContextV7, Uuid};

/// By how much the two clocks may go apart between two settings, in milliseconds.
const DRIFT: i64 = 1;

/// The database's clock: a monotonic clock of this process and a measured offset. It never goes backwards.
#[derive(Debug)]
pub(crate) struct Clock {
    origin: Instant,
    /// What the database's clock showed at `origin`, in milliseconds.
    offset: AtomicI64,
    last: AtomicI64,
    /// Counts the runs of one millisecond.
    runs: Mutex<ContextV7>,
}

impl Clock {
    /// A clock that is to be set before it is read.
    pub(crate) fn new() -> Clock {
        Clock {
            origin: Instant::now(),
            offset: AtomicI64::new(0),
            last: AtomicI64::new(0),
            runs: Mutex::new(ContextV7::new()),
        }
    }

    fn elapsed(&self, at: Instant) -> i64 {
        let millis = at.saturating_duration_since(self.origin).as_millis();
        i64::try_from(millis).unwrap_or(i64::MAX)
    }

    /// Sets the clock: the database answered `shown` to a question asked at `asked` and answered just now. Taken as given
    /// just now, the answer makes a clock that is never ahead, but behind by as long as the answer took to come. So the
    /// latest setting stays while it may be true: a clock that is now more behind and now less makes short what lies
    /// between. A slow answer says little and changes nothing once the clock is set.
    pub(crate) fn set(&self, shown: Time, asked: Instant) {
        let now = Instant::now();
        let trip = now.saturating_duration_since(asked);
        let before = self.offset.load(Ordering::Relaxed);
        if before != 0 && trip.as_millis() > 200 {
            return;
        }
        #[cfg(feature = "planted-bugs")]
        let shown = crate::planted::shown(shown);
        let (least, most) = (shown.0 - self.elapsed(now), shown.0 - self.elapsed(asked));
        // The two clocks may go apart by a little between two answers.
        let kept = before - DRIFT;
        let offset = if (least..=most).contains(&kept) { kept } else { least };
        self.offset.store(offset, Ordering::Relaxed);
    }

    /// Now, by the database's clock.
    pub(crate) fn now(&self) -> Time {
        let now = self.elapsed(Instant::now()) + self.offset.load(Ordering::Relaxed);
        Time(self.last.fetch_max(now, Ordering::Relaxed).max(now))
    }

    /// The instant on this process's own clock at which the database's clock shows `at`.
    pub(crate) fn instant(&self, at: Time) -> Instant {
        let millis = at.0 - self.offset.load(Ordering::Relaxed);
        let millis = u64::try_from(millis).unwrap_or_default().min(1_000 * 86_400 * 365);
        self.origin + std::time::Duration::from_millis(millis)
    }

    /// The id of a run that starts now. The ids of one node only rise, also within a millisecond: lists show runs in the
    /// order of their starts, and indexes grow at their ends.
    pub(crate) fn new_run(&self) -> RunId {
        let millis = u64::try_from(self.now().0).unwrap_or_default();
        let nanos = u32::try_from(millis % 1_000).unwrap_or_default() * 1_000_000;
        let at = uuid::Timestamp::from_unix(&self.runs, millis / 1_000, nanos);
        RunId(Uuid::new_v7(at))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn follows_the_database_and_never_goes_back() {
        let clock = Clock::new();
        clock.set(Time(1_000_000), Instant::now());
        let first = clock.now();
        assert!((1_000_000..1_000_500).contains(&first.0), "{first:?}");
        clock.set(Time(900_000), Instant::now());
        assert!(clock.now() >= first);
        clock.set(Time(2_000_000), Instant::now());
        assert!(clock.now().0 >= 2_000_000);
    }

    #[test]
    fn an_answer_that_was_long_on_its_way_does_not_set_the_clock_back() {
        let clock = Clock::new();
        clock.set(Time(1_000_000), Instant::now());
        let (asked, shown) = (Instant::now(), clock.now());
        std::thread::sleep(Duration::from_millis(50));
        clock.set(shown, asked);
        let passed = i64::try_from(asked.elapsed().as_millis()).unwrap();
        assert!(clock.now().0 - shown.0 >= passed - 2, "{:?} after {passed} ms", clock.now());
    }

    #[test]
    fn runs_are_numbered_in_the_order_of_their_starts() {
        let clock = Clock::new();
        clock.set(Time(1_767_700_000_123), Instant::now());
        let runs: Vec<RunId> = (0..10_000).map(|_| clock.new_run()).collect();
        assert!(runs.is_sorted_by(|a, b| a < b));
        assert_eq!(runs[0].0.as_u128() >> 80, 1_767_700_000_123);
    }
}
