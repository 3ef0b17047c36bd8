//! Since when this node can hear workers: no lease ends over a sign of life that could not arrive.
//!
//! A sign of life counts once it is written. A node hears nothing before it starts, while it is stopped, while the
//! database is away and while it refuses what it cannot take. The rules for a lease are in `saga`.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use backstitch_saga::{Span, Time};

/// So many times the span between two writes may pass before the node counts as deaf.
const MISSED: u32 = 2;

/// Since when a node can hear workers.
#[derive(Debug)]
pub(crate) struct Hearing {
    since: AtomicI64,
    /// When it last wrote to the database.
    wrote: AtomicI64,
    limit: Span,
}

impl Hearing {
    /// A node that does not hear yet, and shows every `beat_every` that it lives.
    pub(crate) fn new(beat_every: Duration) -> Hearing {
        let limit = Span::from(beat_every.saturating_mul(MISSED));
        Hearing { since: AtomicI64::new(0), wrote: AtomicI64::new(i64::MIN), limit }
    }

    /// Notes that the node wrote to the database. After a time in which it did not it hears again from now on.
    pub(crate) fn wrote(&self, now: Time) {
        let last = self.wrote.swap(now.0, Ordering::Relaxed);
        if self.is_late(last, now) {
            self.failed(now);
        }
    }

    /// Notes that signs of life may have been lost until now.
    pub(crate) fn failed(&self, now: Time) {
        self.since.fetch_max(now.0, Ordering::Relaxed);
    }

    /// Since when it hears; `now` when it may be deaf at this moment.
    pub(crate) fn since(&self, now: Time) -> Time {
        match self.is_late(self.wrote.load(Ordering::Relaxed), now) {
            true => now,
            false => Time(self.since.load(Ordering::Relaxed)),
        }
    }

    fn is_late(&self, last: i64, now: Time) -> bool {
        now > Time(last).after(self.limit)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_node_hears_since_it_last_began_to_write_without_a_gap() {
        let hearing = Hearing::new(Duration::from_secs(1));
        assert_eq!(hearing.since(Time(500)), Time(500), "it never wrote");
        hearing.wrote(Time(1_000));
        assert_eq!(hearing.since(Time(1_500)), Time(1_000));
        hearing.wrote(Time(2_900));
        assert_eq!(hearing.since(Time(4_900)), Time(1_000), "a beat may be late");
        assert_eq!(hearing.since(Time(4_901)), Time(4_901), "deaf at this moment");
        hearing.wrote(Time(5_500));
        assert_eq!(hearing.since(Time(6_000)), Time(5_500));
        hearing.failed(Time(6_100));
        hearing.failed(Time(5_900));
        assert_eq!(hearing.since(Time(6_200)), Time(6_100));
    }
}
