//! Turns in which children are started: a few concurrently, in turn for each namespace and for each tree of runs in it,
//! so that a flood of one delays no other and never fills the queue of a shard.

use std::collections::{HashMap, VecDeque};
use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

/// Number of children that a node starts concurrently.
const ABREAST: usize = 32;
/// Number of children that may wait on a node. The parent's timer requests the others again.
pub(crate) const MOST_WAITING: usize = 10_000;

/// Those who wait, in turn by what they belong to.
struct Rota<K, T> {
    turns: VecDeque<K>,
    waiting: HashMap<K, T>,
}

impl<K, T> Default for Rota<K, T> {
    fn default() -> Rota<K, T> {
        Rota { turns: VecDeque::new(), waiting: HashMap::new() }
    }
}

impl<K: Clone + Eq + Hash, T: Default> Rota<K, T> {
    /// Returns what waits for `key`; it has a turn from now on.
    fn of(&mut self, key: K) -> &mut T {
        if !self.waiting.contains_key(&key) {
            self.turns.push_back(key.clone());
        }
        self.waiting.entry(key).or_default()
    }

    /// Takes one of what waits for the next in turn. `take` answers it, and whether more is left there.
    fn next<R>(&mut self, mut take: impl FnMut(&mut T) -> (Option<R>, bool)) -> Option<R> {
        while let Some(key) = self.turns.pop_front() {
            let Some(waiting) = self.waiting.get_mut(&key) else { continue };
            let (taken, more) = take(waiting);
            if more {
                self.turns.push_back(key);
            } else {
                self.waiting.remove(&key);
            }
            if taken.is_some() {
                return taken;
            }
        }
        None
    }
}

type Waiter = oneshot::Sender<Pass>;
/// Those of one namespace, by their tree.
type Trees = Rota<Arc<str>, VecDeque<Waiter>>;

#[derive(Default)]
struct State {
    under_way: usize,
    namespaces: Rota<Arc<str>, Trees>,
}

/// Children that may start now, and those that wait for it.
#[derive(Default)]
pub(crate) struct Turns {
    state: Mutex<State>,
    waiting: AtomicUsize,
}

/// The right to start a child; the next in turn gets it when it is dropped.
pub(crate) struct Pass(Option<Arc<Turns>>);

/// A place among those that wait.
pub(crate) struct Seat(Arc<Turns>);

impl Turns {
    /// Returns a place to wait at; `None` when too many wait.
    pub(crate) fn seat(self: &Arc<Turns>) -> Option<Seat> {
        let before = self.waiting.fetch_add(1, Ordering::Relaxed);
        let seat = Seat(Arc::clone(self));
        (before < MOST_WAITING).then_some(seat)
    }

    /// Returns the number of children that wait, or have their turn.
    pub(crate) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Waits for a turn of the tree of runs `tree` in `namespace`.
    pub(crate) async fn turn(self: &Arc<Turns>, namespace: &Arc<str>, tree: &Arc<str>) -> Pass {
        let waits = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            if state.under_way < ABREAST {
                state.under_way += 1;
                return Pass(Some(Arc::clone(self)));
            }
            let (send, waits) = oneshot::channel();
            state.namespaces.of(Arc::clone(namespace)).of(Arc::clone(tree)).push_back(send);
            waits
        };
        // A waiter is never dropped without a pass.
        waits.await.unwrap_or(Pass(None))
    }

    /// Takes the next in turn; without one there is room for who comes.
    fn next(&self) -> Option<Waiter> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = state.namespaces.next(|trees| {
            let taken = trees.next(|line| {
                let taken = line.pop_front();
                (taken, !line.is_empty())
            });
            (taken, !trees.turns.is_empty())
        });
        if next.is_none() {
            state.under_way -= 1;
        }
        next
    }
}

impl Drop for Pass {
    fn drop(&mut self) {
        let Some(turns) = self.0.take() else { return };
        while let Some(waiter) = turns.next() {
            match waiter.send(Pass(Some(Arc::clone(&turns)))) {
                Ok(()) => return,
                // The waiting caller has given up: the pass goes on to the next here, not by its
                // drop.
                Err(mut pass) => pass.0 = None,
            }
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    fn text(text: &str) -> Arc<str> {
        text.into()
    }

    #[tokio::test]
    async fn turns_go_round_by_namespace_and_by_tree() {
        let turns = Arc::new(Turns::default());
        let mut passes = Vec::new();
        for _ in 0..ABREAST {
            passes.push(turns.turn(&text("a"), &text("x")).await);
        }
        let ask = [("a", "x", 1), ("a", "x", 2), ("a", "x", 3), ("a", "y", 4), ("b", "z", 5)];
        let asked: Vec<(Arc<str>, Arc<str>, u32)> =
            ask.into_iter().map(|(space, tree, name)| (text(space), text(tree), name)).collect();
        let mut waiting: Vec<_> = asked
            .iter()
            .map(|(namespace, tree, name)| (*name, Box::pin(turns.turn(namespace, tree))))
            .collect();
        for (_, waiter) in &mut waiting {
            assert!(waiter.now_or_never().is_none());
        }
        let mut order = Vec::new();
        passes.truncate(1);
        // All that were dropped went to those who wait; each of these is found with its turn.
        for (name, waiter) in &mut waiting {
            order.extend(waiter.now_or_never().map(|pass| (*name, pass)));
        }
        assert_eq!(order.len(), 5);
    }

    #[tokio::test]
    async fn a_flood_of_one_tree_keeps_another_waiting_for_one_turn_only() {
        let turns = Arc::new(Turns::default());
        let mut passes = Vec::new();
        for _ in 0..ABREAST {
            passes.push(turns.turn(&text("a"), &text("bomb")).await);
        }
        let (space, bomb, other, calm) = (text("a"), text("bomb"), text("b"), text("calm"));
        let mut flood: Vec<_> = (0..50).map(|_| Box::pin(turns.turn(&space, &bomb))).collect();
        for waiter in &mut flood {
            assert!(waiter.now_or_never().is_none());
        }
        let mut neighbour = Box::pin(turns.turn(&space, &calm));
        let mut stranger = Box::pin(turns.turn(&other, &calm));
        assert!((&mut neighbour).now_or_never().is_none());
        assert!((&mut stranger).now_or_never().is_none());
        // The first goes to the flood, the next to the other namespace, the next to the other tree of this one.
        passes.truncate(ABREAST - 3);
        let theirs = (stranger.now_or_never(), neighbour.now_or_never());
        assert!(theirs.0.is_some() && theirs.1.is_some());
        // A pass that is dropped goes to the next: they are kept.
        let served: Vec<Pass> =
            flood.iter_mut().filter_map(|waiter| waiter.now_or_never()).collect();
        assert!(served.len() <= 3, "{}", served.len());
    }

    #[tokio::test]
    async fn who_gives_up_passes_its_turn_on() {
        let turns = Arc::new(Turns::default());
        let (space, tree) = (text("a"), text("x"));
        let mut passes = Vec::new();
        for _ in 0..ABREAST {
            passes.push(turns.turn(&space, &tree).await);
        }
        let mut first = Box::pin(turns.turn(&space, &tree));
        assert!((&mut first).now_or_never().is_none());
        let mut second = Box::pin(turns.turn(&space, &tree));
        assert!((&mut second).now_or_never().is_none());
        drop(first);
        passes.pop();
        let pass = second.now_or_never().expect("the turn was passed on");
        drop((pass, passes));
        let state = turns.state.lock().unwrap();
        assert_eq!((state.under_way, state.namespaces.turns.len()), (0, 0));
    }

    #[test]
    fn not_more_wait_than_there_are_seats() {
        let turns = Arc::new(Turns::default());
        let seats: Vec<Seat> = (0..MOST_WAITING).filter_map(|_| turns.seat()).collect();
        assert_eq!(seats.len(), MOST_WAITING);
        assert!(turns.seat().is_none());
        drop(seats);
        assert!(turns.waiting() == 0 && turns.seat().is_some());
    }
}
