//! Timers of runs. In memory only; one entry per run, corrected when it fires.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;

use backstitch_saga::{RunId, Time};

use crate::maps::FastMap;

/// The timers of the runs that a shard is in charge of.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    heap: BinaryHeap<Reverse<(Time, RunId)>>,
    /// The entry that counts; others in the heap are stale.
    live: FastMap<RunId, Entry>,
}

#[derive(Debug)]
struct Entry {
    due: Time,
    /// The namespace of the run, if it was known.
    namespace: Option<Arc<str>>,
}

impl Timers {
    /// Sets the timer of `run` to `due`, unless it is earlier already.
    pub(crate) fn set(&mut self, run: RunId, due: Time, namespace: Option<&Arc<str>>) {
        let new = || Entry { due: Time(i64::MAX), namespace: namespace.cloned() };
        let entry = self.live.entry(run).or_insert_with(new);
        if due < entry.due {
            entry.due = due;
            self.heap.push(Reverse((due, run)));
        }
    }

    /// Looks at every run at `due`: what the entries say is of another time.
    pub(crate) fn all_at(&mut self, due: Time) {
        self.live.values_mut().for_each(|entry| entry.due = due);
        self.heap = self.live.keys().map(|run| Reverse((due, *run))).collect();
    }

    /// Forgets `run`.
    pub(crate) fn clear(&mut self, run: RunId) {
        self.live.remove(&run);
    }

    /// Takes the next run whose timer is due by `now`, with its namespace if that is known.
    pub(crate) fn pop(&mut self, now: Time) -> Option<(RunId, Option<Arc<str>>)> {
        while let Some(Reverse((due, run))) = self.heap.peek().copied() {
            if self.live.get(&run).is_none_or(|entry| entry.due != due) {
                self.heap.pop();
                continue;
            }
            if due > now {
                return None;
            }
            self.heap.pop();
            return self.live.remove(&run).map(|entry| (run, entry.namespace));
        }
        None
    }

    /// Returns the time at which the next entry is due.
    pub(crate) fn next(&mut self) -> Option<Time> {
        while let Some(Reverse((due, run))) = self.heap.peek() {
            if self.live.get(run).is_some_and(|entry| entry.due == *due) {
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
    fn an_entry_keeps_the_namespace_of_its_run() {
        let mut timers = Timers::default();
        timers.set(run(1), Time(50), Some(&"a".into()));
        timers.set(run(1), Time(40), None);
        assert_eq!(timers.pop(Time(40)), Some((run(1), Some("a".into()))));
    }

    #[test]
    fn the_earliest_entry_counts() {
        let mut timers = Timers::default();
        timers.set(run(1), Time(50), None);
        timers.set(run(1), Time(80), None);
        timers.set(run(2), Time(60), None);
        timers.set(run(2), Time(40), None);
        timers.set(run(3), Time(10), None);
        timers.clear(run(3));
        assert_eq!(timers.next(), Some(Time(40)));
        assert_eq!(timers.pop(Time(45)), Some((run(2), None)));
        assert_eq!(timers.pop(Time(45)), None);
        assert_eq!(timers.pop(Time(90)), Some((run(1), None)));
        assert_eq!(timers.pop(Time(90)), None, "stale entries do not fire");
        assert_eq!((timers.next(), timers.len()), (None, 0));
        timers.set(run(1), Time(500), None);
        timers.set(run(2), Time(5), None);
        timers.all_at(Time(20));
        assert_eq!((timers.next(), timers.len()), (Some(Time(20)), 2));
        let due = [timers.pop(Time(20)), timers.pop(Time(20)), timers.pop(Time(20))];
        assert_eq!(due.iter().flatten().count(), 2, "each once");
    }
}
