//! The time since when this node receives heartbeats: no lease ends for want of a heartbeat that
//! could not arrive.
//!
//! A heartbeat counts once it is written. A node receives none before it starts, while it is stopped, while the
//! database is unavailable and while it refuses requests. The rules for a lease are in `saga`.

use std::collections::HashMap;
use std::sync::atomic::{AtomicI64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstitch_saga::{Span, Time};

use crate::Engine;

/// So many times the span between two writes may pass before the node counts as deaf.
const MISSED: u32 = 2;
/// Number of namespaces for which a node remembers when it refused their heartbeats.
const MOST: usize = 1_000;

/// The time since when a node receives heartbeats.
#[derive(Debug)]
pub(crate) struct Hearing {
    since: AtomicI64,
    /// Time of its last write to the database.
    wrote: AtomicI64,
    limit: Span,
    /// Time at which heartbeats of a namespace were last refused.
    refused: Mutex<HashMap<Arc<str>, Time>>,
}

impl Hearing {
    /// Returns a node that does not hear yet, and shows every `beat_every` that it lives.
    pub(crate) fn new(beat_every: Duration) -> Hearing {
        let limit = Span::from(beat_every.saturating_mul(MISSED));
        Hearing {
            since: AtomicI64::new(0),
            wrote: AtomicI64::new(i64::MIN),
            limit,
            refused: Mutex::default(),
        }
    }

    /// Notes that the node wrote to the database. After a time in which it did not it hears again from now on.
    pub(crate) fn wrote(&self, now: Time) {
        let last = self.wrote.swap(now.0, Ordering::Relaxed);
        if self.is_late(last, now) {
            self.failed(now);
        }
    }

    /// Notes that heartbeats may have been lost until now.
    pub(crate) fn failed(&self, now: Time) {
        self.since.fetch_max(now.0, Ordering::Relaxed);
    }

    /// Returns the time since when it receives heartbeats; `now` if it may not at this moment.
    pub(crate) fn since(&self, now: Time) -> Time {
        match self.is_late(self.wrote.load(Ordering::Relaxed), now) {
            true => now,
            false => Time(self.since.load(Ordering::Relaxed)),
        }
    }

    /// Notes that heartbeats of a namespace were refused, for example by its rate. Those of others are
    /// received.
    pub(crate) fn refused(&self, namespace: &Arc<str>, now: Time) {
        let mut refused = self.refused.lock().unwrap_or_else(PoisonError::into_inner);
        if refused.len() >= MOST && !refused.contains_key(namespace) {
            // The time for all covers these, too.
            refused.clear();
            self.failed(now);
        }
        refused.insert(namespace.clone(), now);
    }

    /// Returns the time at which heartbeats of a namespace were last refused.
    pub(crate) fn refused_last(&self, namespace: &str) -> Option<Time> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).get(namespace).copied()
    }

    fn is_late(&self, last: i64, now: Time) -> bool {
        now > Time(last).after(self.limit)
    }
}

impl Engine {
    /// Notes that heartbeats from a namespace were refused here, so that no lease ends for want of them.
    pub fn heartbeats_refused(&self, namespace: &Arc<str>) {
        let node = self.node();
        node.hearing.refused(namespace, node.clock.now());
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

    #[test]
    fn refused_signs_of_life_are_known_by_namespace_or_for_all() {
        let hearing = Hearing::new(Duration::from_secs(1));
        hearing.wrote(Time(1_000));
        for number in 0..MOST {
            hearing.refused(&format!("n{number}").into(), Time(2_000));
        }
        assert_eq!(hearing.refused_last("n7"), Some(Time(2_000)));
        assert_eq!(
            (hearing.refused_last("quiet"), hearing.since(Time(2_100))),
            (None, Time(1_000))
        );
        hearing.refused(&"n7".into(), Time(2_500));
        assert_eq!(hearing.refused_last("n8"), Some(Time(2_000)));
        hearing.refused(&"more".into(), Time(2_600));
        assert_eq!((hearing.refused_last("n8"), hearing.since(Time(2_700))), (None, Time(2_600)));
        assert_eq!(hearing.refused_last("more"), Some(Time(2_600)));
    }
}
