//! Which other nodes are gone. A node counts as gone when its sign of life has not changed for long enough by this node's own
//! clock: the database's may jump. Only a node that is seen for the first time is judged by the database's clock.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::store::nodes::Peer;

/// The last sign of life of each node, and since when it has been the last.
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
    /// It was gone already when it was seen for the first time.
    gone: bool,
}

impl Peers {
    /// The nodes that are gone, of all that there are now. `every`: how often this node looks. `doubt`: the database's clock
    /// tells nothing at the moment.
    pub(crate) fn gone(
        &self,
        seen: &[Peer],
        every: Duration,
        dead_after: Duration,
        doubt: bool,
    ) -> Vec<i32> {
        let now = Instant::now();
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

    const EVERY: Duration = Duration::from_millis(5);
    const LONG: Duration = Duration::from_millis(60);

    fn peer(id: i32, seen_at: i64) -> Peer {
        Peer { id, seen_at, stopped: false, silent: false }
    }

    fn sleep(part: u32) {
        std::thread::sleep(LONG / part);
    }

    #[test]
    fn a_node_is_gone_when_its_sign_of_life_does_not_change() {
        let peers = Peers::default();
        for round in 0..6 {
            let gone = peers.gone(&[peer(1, 0), peer(2, round)], EVERY, LONG, false);
            assert!(!gone.contains(&2), "{round}");
            assert!(round < 5 || gone == [1], "{round} {gone:?}");
            sleep(4);
        }
    }

    #[test]
    fn a_clock_of_the_database_that_jumps_makes_no_known_node_gone() {
        let peers = Peers::default();
        assert!(peers.gone(&[peer(1, 5)], EVERY, LONG, false).is_empty());
        let silent = Peer { silent: true, ..peer(1, 5) };
        assert!(peers.gone(&[silent], EVERY, LONG, false).is_empty());
        assert!(peers.gone(&[Peer { silent: true, ..peer(2, 5) }], EVERY, LONG, true).is_empty());
    }

    #[test]
    fn a_node_that_stopped_or_was_silent_when_first_seen_is_gone_at_once() {
        let peers = Peers::default();
        let stopped = Peer { stopped: true, ..peer(1, 5) };
        let silent = Peer { silent: true, ..peer(2, 5) };
        assert_eq!(peers.gone(&[stopped, silent], EVERY, LONG, false), [1, 2]);
        assert_eq!(peers.gone(&[stopped, silent], EVERY, LONG, false), [1, 2]);
        assert!(peers.gone(&[peer(2, 6)], EVERY, LONG, false).is_empty(), "it is back");
    }

    #[test]
    fn time_in_which_this_node_could_not_look_does_not_count() {
        let peers = Peers::default();
        peers.gone(&[peer(1, 5)], EVERY, LONG, false);
        sleep(1);
        assert!(peers.gone(&[peer(1, 5)], EVERY, LONG, false).is_empty());
    }
}
