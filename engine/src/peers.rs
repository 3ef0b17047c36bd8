//! Detects dead nodes. A node counts as dead when its heartbeat has not changed for long enough by this node's own
//! clock: the database's may jump. Only a node that is seen for the first time is judged by the database's clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::nodes::Peer;

/// The last heartbeat of each node, and the time since when it has been the last.
#[derive(Debug, Default)]
pub(crate) struct Peers(Mutex<Watch>);

#[derive(Debug, Default)]
struct Watch {
    looked_at: Option<Instant>,
    last: HashMap<i32, Last>,
}

#[derive(Clone, Copy, Debug)]
struct Last {
    seen_at: i64,
    since: Instant,
    /// It was dead already when it was seen for the first time.
    gone: bool,
}

impl Peers {
    /// Returns the dead nodes among those that exist. `every` is the interval at which this node looks. `doubt`: the
    /// database's clock is not trusted at the moment.
    pub(crate) fn gone(
        &self,
        seen: &[Peer],
        every: Duration,
        dead_after: Duration,
        doubt: bool,
    ) -> Vec<i32> {
        self.gone_at(Instant::now(), seen, (every, dead_after), doubt)
    }

    fn gone_at(
        &self,
        now: Instant,
        seen: &[Peer],
        (every, dead_after): (Duration, Duration),
        doubt: bool,
    ) -> Vec<i32> {
        let mut watch = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let looked_at = watch.looked_at.replace(now);
        // While this node could not look, it cannot know whether the others were silent.
        let late = (every * 3).max(dead_after / 2);
        let blind = looked_at.is_some_and(|at| now.duration_since(at) > late);
        let mut last = HashMap::with_capacity(seen.len());
        let mut gone = Vec::new();
        for peer in seen {
            let new = Last { seen_at: peer.seen_at, since: now, gone: peer.silent && !doubt };
            let known = match watch.last.get(&peer.id) {
                None => new,
                Some(known) if known.seen_at != peer.seen_at => Last { gone: false, ..new },
                Some(known) if blind && !known.gone => Last { since: now, ..*known },
                Some(known) => *known,
            };
            if peer.stopped || known.gone || now.duration_since(known.since) >= dead_after {
                gone.push(peer.id);
            }
            last.insert(peer.id, known);
        }
        watch.last = last;
        gone
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPANS: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(8));

    fn peer(id: i32, seen_at: i64) -> Peer {
        Peer { id, seen_at, stopped: false, silent: false }
    }

    /// Looks once a second, as often as there are looks.
    fn look(peers: &Peers, began: Instant, second: u64, seen: &[Peer], doubt: bool) -> Vec<i32> {
        peers.gone_at(began + Duration::from_secs(second), seen, SPANS, doubt)
    }

    #[test]
    fn a_node_is_gone_when_its_sign_of_life_does_not_change() {
        let (peers, began) = (Peers::default(), Instant::now());
        for second in 0..20 {
            let beats = i64::try_from(second).unwrap();
            let gone = look(&peers, began, second, &[peer(1, 0), peer(2, beats)], false);
            assert_eq!(gone, if second < 8 { vec![] } else { vec![1] }, "{second}");
        }
    }

    #[test]
    fn a_clock_of_the_database_that_jumps_makes_no_known_node_gone() {
        let (peers, began) = (Peers::default(), Instant::now());
        assert!(look(&peers, began, 0, &[peer(1, 5)], false).is_empty());
        let silent = |id| Peer { silent: true, ..peer(id, 5) };
        assert!(look(&peers, began, 1, &[silent(1)], false).is_empty());
        assert!(look(&peers, began, 2, &[silent(2)], true).is_empty());
    }

    #[test]
    fn a_node_that_stopped_or_was_silent_when_first_seen_is_gone_at_once() {
        let (peers, began) = (Peers::default(), Instant::now());
        let stopped = Peer { stopped: true, ..peer(1, 5) };
        let silent = Peer { silent: true, ..peer(2, 5) };
        for second in 0..3 {
            assert_eq!(look(&peers, began, second, &[stopped, silent], false), [1, 2]);
        }
        assert!(look(&peers, began, 3, &[peer(2, 6)], false).is_empty(), "it is back");
    }

    #[test]
    fn time_in_which_this_node_could_not_look_does_not_count() {
        let (peers, began) = (Peers::default(), Instant::now());
        look(&peers, began, 0, &[peer(1, 5)], false);
        assert!(look(&peers, began, 60, &[peer(1, 5)], false).is_empty());
        assert!(look(&peers, began, 64, &[peer(1, 5)], false).is_empty());
        assert_eq!(look(&peers, began, 68, &[peer(1, 5)], false), [1]);
    }
}
