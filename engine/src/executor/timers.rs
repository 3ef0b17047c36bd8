//! When which run is to be looked at again. In memory only; one entry per run, corrected when it fires.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use backstitch_saga::{RunId, Time};

use crate::maps::FastMap;

/// The timers of the runs that a shard is in charge of.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, RunId)>>,
    /// The entry that counts; others in the heap are stale.
    live: FastMap<RunId, Time>,
}

impl Timers {
    /// Looks at `run` at `due`, or earlier if it was to be looked at earlier anyway.
    pub(crate) fn set(&mut self, run: RunId, due: Time) {
        let entry = self.live.entry(run).or_insert(Time(i64::MAX));
        if due < *entry {
            *entry = due;
            self.heap.push(Reverse((due, run)));
        }
    }

    /// Looks at every run at `due`: what the entries say is of another time.
    pub(crate) fn all_at(&mut self, due: Time) {
        self.live.values_mut().for_each(|entry| *entry = due);
        self.heap = self.live.keys().map(|run| Reverse((due, *run))).collect();
    }

    /// Forgets `run`.
    pub(crate) fn clear(&mut self, run: RunId) {
        self.live.remove(&run);
    }

    /// The next run that is to be looked at by `now`; its entry is gone then.
    pub(crate) fn pop(&mut self, now: Time) -> Option<RunId> {
        while let Some(Reverse((due, run))) = self.heap.peek().copied() {
            if self.live.get(&run) != Some(&due) {
                self.heap.pop();
                continue;
            }
            if due > now {
                return None;
            }
            self.heap.pop();
            self.live.remove(&run);
            return Some(run);
        }
        None
    }

    /// When the next entry is due.
    pub(crate) fn next(&mut self) -> Option<Time> {
        while let Some(Reverse((due, run))) = self.heap.peek() {
            if self.live.get(run) == Some(due) {
                return Some(*due);
            }
            self.heap.pop();
        }
        None
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(n: u128) -> RunId {
        RunId(uuid::Uuid::from_u128(n))
    }

    #[test]
    fn the_earliest_entry_counts() {
        let mut timers = Timers::default();
        timers.set(run(1), Time(50));
        timers.set(run(1), Time(80));
        timers.set(run(2), Time(60));
        timers.set(run(2), Time(40));
        timers.set(run(3), Time(10));
        timers.clear(run(3));
        assert_eq!(timers.next(), Some(Time(40)));
        assert_eq!(timers.pop(Time(45)), Some(run(2)));
        assert_eq!(timers.pop(Time(45)), None);
        assert_eq!(timers.pop(Time(90)), Some(run(1)));
        assert_eq!(timers.pop(Time(90)), None, "stale entries do not fire");
        assert_eq!((timers.next(), timers.len()), (None, 0));
        timers.set(run(1), Time(500));
        timers.set(run(2), Time(5));
        timers.all_at(Time(20));
        assert_eq!((timers.next(), timers.len()), (Some(Time(20)), 2));
        let due = [timers.pop(Time(20)), timers.pop(Time(20)), timers.pop(Time(20))];
        assert_eq!(due.iter().flatten().count(), 2, "each once");
    }
}
