//! Turns in which work begins: a bounded amount with each lap of the runtime, in turn for each holder, such as a
//! namespace or a peer.
//!
//! The runtime runs ready tasks in the order in which they became ready. If one caller makes thousands of requests
//! ready together, the requests of others that are in progress would wait behind them at each step. Here new requests
//! are held back until tasks that were ready before have run, and a holder with few requests overtakes one with many.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use crate::rates::Lane;

/// Total cost of the requests that begin with a lap; a request costs one, and one more for each `PIECE` of its
/// body.
pub(crate) const REQUESTS: TurnBounds = TurnBounds { lap: 16, lasts: LAP, waiting: 1_000 };
/// The bytes of a body that cost as much as a request.
pub(crate) const PIECE: usize = 8 * 1024;
/// Number of new connections that are served with a lap. How many wait is bounded by how many a peer may
/// have.
pub(crate) const CONNECTIONS: TurnBounds = TurnBounds { lap: 4, lasts: LAP, waiting: usize::MAX };
/// Length of a lap while nothing waits: a few concurrent callers begin immediately.
const LAP: Duration = Duration::from_millis(1);

/// A line in which requests wait for their turn.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Line {
    /// The line of a namespace, one for each kind of request.
    Namespace(Arc<str>, Lane),
    /// The line of an address, for requests without a credential.
    Peer(IpAddr),
}

/// Returns the cost of a request with a body of the announced size. Without that it counts as large.
pub(crate) fn cost_of(announced: Option<usize>) -> u32 {
    let pieces = announced.map_or(usize::MAX, |bytes| bytes / PIECE);
    u32::try_from(pieces).unwrap_or(u32::MAX).saturating_add(1)
}

/// Turns of holders `K`.
#[derive(Debug)]
pub(crate) struct Turns<K> {
    bounds: TurnBounds,
    state: Mutex<State<K>>,
}

/// Amount that begins with a lap, and number of waiting requests of a holder.
#[derive(Clone, Copy, Debug)]
pub(crate) struct TurnBounds {
    /// The cost of what begins with a lap.
    pub(crate) lap: u32,
    /// Time after which a lap is over while nothing waits.
    pub(crate) lasts: Duration,
    /// The most of a holder that wait.
    pub(crate) waiting: usize,
}

#[derive(Debug)]
struct State<K> {
    /// Amount that may still begin with this lap.
    left: u32,
    /// Time at which this lap began.
    since: Instant,
    /// `true` if a task runs laps.
    laps: bool,
    /// The holders of whom something waits, in turn.
    order: VecDeque<K>,
    lines: HashMap<K, VecDeque<Waiter>>,
}

/// Something that waits, with its cost.
type Waiter = (u32, oneshot::Sender<()>);

/// Too much of the holder waits already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct LineFull;

impl<K: Clone + Eq + Hash> State<K> {
    /// Takes what has waited longest of the holder whose turn it is.
    fn next(&mut self) -> Option<Waiter> {
        let holder = self.order.pop_front()?;
        let line = self.lines.get_mut(&holder)?;
        let waiter = line.pop_front();
        if line.is_empty() {
            self.lines.remove(&holder);
        } else {
            self.order.push_back(holder);
        }
        waiter
    }
}

impl<K: Clone + Eq + Hash + Send + 'static> Turns<K> {
    pub(crate) fn new(bounds: TurnBounds) -> Arc<Turns<K>> {
        let state = State {
            left: bounds.lap,
            since: Instant::now(),
            laps: false,
            order: VecDeque::new(),
            lines: HashMap::new(),
        };
        Arc::new(Turns { bounds, state: Mutex::new(state) })
    }

    /// Waits until something of `holder` may begin: not at all while little does. A cost beyond that of a whole lap
    /// counts as one.
    ///
    /// # Errors
    /// When too much of the holder waits.
    pub(crate) async fn turn(self: &Arc<Self>, holder: &K, cost: u32) -> Result<(), LineFull> {
        let cost = cost.clamp(1, self.bounds.lap);
        let begun = {
            let mut state = self.lock();
            if state.order.is_empty() {
                let now = Instant::now();
                if now.duration_since(state.since) >= self.bounds.lasts {
                    (state.left, state.since) = (self.bounds.lap, now);
                }
                if state.left > 0 {
                    state.left = state.left.saturating_sub(cost);
                    return Ok(());
                }
            }
            let (send, begun) = oneshot::channel();
            match state.lines.get_mut(holder) {
                Some(line) => {
                    if line.len() >= self.bounds.waiting {
                        line.retain(|(_, waiter)| !waiter.is_closed());
                    }
                    if line.len() >= self.bounds.waiting {
                        return Err(LineFull);
                    }
                    line.push_back((cost, send));
                }
                None => {
                    state.order.push_back(holder.clone());
                    state.lines.insert(holder.clone(), VecDeque::from([(cost, send)]));
                }
            }
            if !state.laps {
                state.laps = true;
                tokio::spawn(Arc::clone(self).go_round());
            }
            begun
        };
        // No lap comes once the runtime ends, and then nothing has to wait.
        let _ = begun.await;
        Ok(())
    }

    /// Begins one lap after the other while something waits. A lap is over when the runtime has taken up what was
    /// ready.
    async fn go_round(self: Arc<Self>) {
        loop {
            tokio::task::yield_now().await;
            if !self.begin_lap() {
                return;
            }
        }
    }

    /// Lets begin what the next lap has room for. Returns whether more waits.
    fn begin_lap(&self) -> bool {
        let mut state = self.lock();
        (state.left, state.since) = (self.bounds.lap, Instant::now());
        while state.left > 0 {
            let Some((cost, waiter)) = state.next() else { break };
            // A caller that has given up takes nothing.
            if waiter.send(()).is_ok() {
                state.left = state.left.saturating_sub(cost);
            }
        }
        state.laps = !state.order.is_empty();
        state.laps
    }

    fn lock(&self) -> MutexGuard<'_, State<K>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[test]
    fn a_body_costs_by_its_size_and_one_of_unknown_size_as_much_as_any() {
        let costs = [Some(0), Some(PIECE - 1), Some(PIECE), Some(45_000), None].map(cost_of);
        assert_eq!(costs, [1, 1, 2, 6, u32::MAX]);
    }

    fn turns(lap: u32, waiting: usize) -> Arc<Turns<&'static str>> {
        Turns::new(TurnBounds { lap, lasts: Duration::MAX, waiting })
    }

    #[tokio::test]
    async fn while_little_begins_nothing_waits() {
        let turns = turns(3, 10);
        for cost in [0, 1, 100] {
            assert_eq!(turns.turn(&"a", cost).now_or_never(), Some(Ok(())));
        }
        let mut fourth = Box::pin(turns.turn(&"a", 1));
        assert_eq!((&mut fourth).now_or_never(), None);
        fourth.await.unwrap();
        assert!(!turns.lock().laps, "nobody goes round for nothing");
    }

    #[tokio::test]
    async fn a_lap_is_over_after_its_time_while_nothing_waits() {
        let turns = Turns::new(TurnBounds { lap: 1, lasts: Duration::ZERO, waiting: 10 });
        for _ in 0..10 {
            assert_eq!(turns.turn(&"a", 1).now_or_never(), Some(Ok(())));
        }
        assert!(!turns.lock().laps);
    }

    #[tokio::test]
    async fn whoever_asks_little_waits_for_one_lap_however_much_waits_of_another() {
        let turns = turns(2, 1_000);
        turns.turn(&"flood", 2).await.unwrap();
        let mut flood: Vec<_> = (0..500).map(|_| Box::pin(turns.turn(&"flood", 1))).collect();
        flood.iter_mut().for_each(|one| assert_eq!(one.now_or_never(), None));
        let mut calm = Box::pin(turns.turn(&"calm", 1));
        assert_eq!((&mut calm).now_or_never(), None);
        assert!(turns.begin_lap());
        assert_eq!((&mut calm).now_or_never(), Some(Ok(())));
        let begun = flood.iter_mut().filter_map(|one| one.now_or_never()).count();
        assert_eq!(begun, 1, "the lap holds two");
    }

    #[tokio::test]
    async fn what_costs_a_lap_begins_alone() {
        let turns = turns(8, 10);
        turns.turn(&"a", 8).await.unwrap();
        let mut all: Vec<_> = (0..3).map(|_| Box::pin(turns.turn(&"a", u32::MAX))).collect();
        all.iter_mut().for_each(|one| assert_eq!(one.now_or_never(), None));
        for left in [true, true, false] {
            assert_eq!(turns.begin_lap(), left);
            let begun: Vec<bool> = all.iter_mut().map(|one| one.now_or_never().is_some()).collect();
            assert_eq!(begun.iter().filter(|begun| **begun).count(), 1);
            drop(all.remove(begun.iter().position(|begun| *begun).unwrap()));
        }
    }

    #[tokio::test]
    async fn who_gives_up_takes_no_turn_and_too_many_of_one_are_turned_away() {
        let turns = turns(1, 2);
        turns.turn(&"a", 1).await.unwrap();
        let mut gone = Box::pin(turns.turn(&"a", 1));
        let mut waits = Box::pin(turns.turn(&"a", 1));
        assert_eq!(((&mut gone).now_or_never(), (&mut waits).now_or_never()), (None, None));
        assert_eq!(turns.turn(&"a", 1).now_or_never(), Some(Err(LineFull)));
        let mut other = Box::pin(turns.turn(&"b", 1));
        assert_eq!((&mut other).now_or_never(), None, "a line of its own");
        drop(gone);
        let mut last = Box::pin(turns.turn(&"a", 1));
        assert_eq!((&mut last).now_or_never(), None, "there is a place in line again");
        for one in [waits, other, last] {
            one.await.unwrap();
        }
        let state = turns.lock();
        assert_eq!((state.order.len(), state.lines.len(), state.laps), (0, 0, false));
    }
}
