//! Notices when the runtime that serves requests does not move. The runtime counts beats; a thread of its own looks
//! whether they go on.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// Interval at which the runtime counts.
const BEAT_EVERY: Duration = Duration::from_millis(100);
/// Interval at which the thread checks the count.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// A runtime that has not moved for so long has stalled: it is logged and counted.
const STALL: Duration = Duration::from_secs(1);

/// Beats of the runtime that serves requests, and the duration of its stall.
#[derive(Debug, Default)]
pub(crate) struct Pulse {
    beats: AtomicU64,
    still_ms: AtomicU64,
    stalls: AtomicU64,
    stalled: AtomicBool,
}

impl Pulse {
    /// Beats for ever, on the runtime that this runs on.
    pub(crate) async fn beat(self: Arc<Pulse>) {
        loop {
            self.beats.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(BEAT_EVERY).await;
        }
    }

    /// Returns the duration of the present stall of the runtime; zero without one.
    pub(crate) fn still_for(&self) -> Duration {
        Duration::from_millis(self.still_ms.load(Ordering::Relaxed))
    }

    /// Returns the number of stalls of the runtime.
    pub(crate) fn stalls(&self) -> u64 {
        self.stalls.load(Ordering::Relaxed)
    }

    /// Notes the duration of a stall of the runtime; logs its beginning and its end.
    fn note(&self, still: Duration) {
        let before = self.still_for();
        let millis = u64::try_from(still.as_millis()).unwrap_or(u64::MAX);
        self.still_ms.store(millis, Ordering::Relaxed);
        if still >= STALL && !self.stalled.swap(true, Ordering::Relaxed) {
            self.stalls.fetch_add(1, Ordering::Relaxed);
            tracing::warn!("the runtime that serves requests does not move");
        }
        if still < STALL && self.stalled.swap(false, Ordering::Relaxed) {
            tracing::warn!(still_for = ?before, "the runtime that serves requests moves again");
        }
    }
}

/// The view of the thread that looks.
#[derive(Debug)]
pub(crate) struct Watch {
    pulse: Arc<Pulse>,
    seen: u64,
    looked_at: Instant,
    still: Duration,
}

impl Watch {
    pub(crate) fn new(pulse: Arc<Pulse>) -> Watch {
        Watch { pulse, seen: 0, looked_at: Instant::now(), still: Duration::ZERO }
    }

    /// Looks whether the runtime has moved since the last look.
    pub(crate) fn look(&mut self) {
        self.look_at(Instant::now());
    }

    /// Counts a look. One that comes late says that the whole process, or the machine, stood still: no more than the
    /// time of two looks counts against the runtime.
    fn look_at(&mut self, now: Instant) {
        let beats = self.pulse.beats.load(Ordering::Relaxed);
        let passed = now.duration_since(self.looked_at).min(LOOK_EVERY * 2);
        self.still = if beats == self.seen { self.still + passed } else { Duration::ZERO };
        (self.seen, self.looked_at) = (beats, now);
        self.pulse.note(self.still);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_runtime_is_still_from_the_first_look_that_finds_no_beat() {
        let pulse = Arc::new(Pulse::default());
        let mut watch = Watch::new(Arc::clone(&pulse));
        let began = watch.looked_at;
        let mut look = |beat: bool, looks: u32| {
            if beat {
                pulse.beats.fetch_add(1, Ordering::Relaxed);
            }
            watch.look_at(began + LOOK_EVERY * looks);
            (pulse.still_for(), pulse.stalls())
        };
        assert_eq!(look(true, 1), (Duration::ZERO, 0));
        assert_eq!(look(false, 2), (LOOK_EVERY, 0));
        assert_eq!(look(false, 3), (LOOK_EVERY * 2, 0));
        assert_eq!(look(false, 5), (LOOK_EVERY * 4, 1));
        assert_eq!(look(false, 6), (LOOK_EVERY * 5, 1), "one stall is counted once");
        assert_eq!(look(true, 7), (Duration::ZERO, 1));
    }

    #[test]
    fn time_in_which_the_whole_process_stood_still_does_not_count() {
        let pulse = Arc::new(Pulse::default());
        let mut watch = Watch::new(Arc::clone(&pulse));
        watch.look_at(watch.looked_at + Duration::from_secs(3_600));
        assert_eq!(pulse.still_for(), LOOK_EVERY * 2);
    }
}
