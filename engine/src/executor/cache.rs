//! The runs that a shard has in memory. Never wrong for long: stale means refused by the journal's key.

use std::collections::BTreeSet;
use std::sync::Arc;

use backstitch_saga::{Effect, OpenEffects, Run, RunId, TaskKey, Time, Transition};

use super::request::StartOrder;
use crate::maps::FastMap;
use crate::store::batch::RunState;

/// Number of bytes of documents that weigh as much as an event.
pub(crate) const BYTES_PER_UNIT: u64 = 128;
/// Number of bytes of documents that an item of a fan-out weighs as much as, beside its own.
const ITEM: u64 = 256;

/// A run in memory, with what is known of its index rows.
#[cfg_attr(feature = "planted-bugs", derive(Clone))]
pub(crate) struct CachedRun {
    pub(crate) run: Run,
    pub(crate) namespace: Arc<str>,
    /// Its line in `runs`.
    pub(crate) indexed: RunState,
    /// Its lines in `open_effects`.
    pub(crate) open: Vec<OpenEffects>,
    /// Its lines in `ready`.
    pub(crate) spilled: BTreeSet<TaskKey>,
    /// Its leased tasks that may be completed in transactions.
    pub(crate) fenced: BTreeSet<TaskKey>,
    /// Its tasks of governed queues that workers hold.
    pub(crate) held: BTreeSet<TaskKey>,
    /// Number of events that had been folded at the last snapshot.
    pub(crate) snapshot_events: u64,
    /// Time of its last change or load.
    pub(crate) moved_at: Time,
    /// Milliseconds by which its time is ahead of the clock: its journal was written while the clock was
    /// ahead.
    pub(crate) ahead: i64,
    /// Approximate size of its documents and the items of its fan-outs, in bytes.
    pub(crate) bytes: u64,
}

impl CachedRun {
    /// Returns a run that is about to begin.
    pub(crate) fn new(run: RunId, order: &StartOrder, at: Time) -> Box<CachedRun> {
        let run = Run::new(run, order.workflow.graph.clone());
        Box::new(CachedRun {
            indexed: super::index::state_of(&run, None),
            run,
            namespace: order.start.namespace.clone(),
            open: Vec::new(),
            spilled: BTreeSet::new(),
            fenced: BTreeSet::new(),
            held: BTreeSet::new(),
            snapshot_events: 0,
            moved_at: at,
            ahead: 0,
            bytes: 0,
        })
    }

    fn weight(&self) -> u64 {
        64 + self.run.events_folded() + self.bytes / BYTES_PER_UNIT
    }

    /// Counts what a transition adds to it.
    pub(crate) fn grow_by(&mut self, transition: &Transition) {
        let documents =
            transition.record.payloads.iter().map(|payload| payload.text().len() as u64);
        let items = transition.effects.iter().map(|effect| match effect {
            Effect::FanOutStarted(total) => ITEM * u64::from(*total),
            _ => 0,
        });
        self.bytes += documents.sum::<u64>() + items.sum::<u64>();
    }

    /// Counts what it is made of that was read: so many bytes of documents.
    pub(crate) fn read_from(mut self, documents: usize) -> CachedRun {
        self.bytes = documents as u64 + ITEM * self.run.item_count();
        self
    }

    /// Sets the present time. The time of a run goes on from its last record, which may be ahead of that.
    pub(crate) fn meet(&mut self, now: Time) {
        self.ahead = self.run.moved_at().0.saturating_sub(now.0).max(0);
        self.moved_at = self.moved_at.min(now);
    }

    /// Returns the time at which something of it is due, by the clock.
    pub(crate) fn next_due(&self) -> Option<Time> {
        self.run.next_due().map(|due| Time(due.0.saturating_sub(self.ahead)))
    }

    /// Returns whether `node` is in charge of it, according to its row in `runs`.
    pub(crate) fn charge_of(&self, node: i32) -> bool {
        self.indexed.node == Some(node)
    }
}

/// Two generations of runs: what was used since the last turn is young, what was not is old and goes at the next.
#[derive(Default)]
pub(crate) struct Cache {
    young: FastMap<RunId, Box<CachedRun>>,
    old: FastMap<RunId, Box<CachedRun>>,
    young_weight: u64,
    limit: u64,
}

impl Cache {
    /// Returns a cache for runs that weigh `limit` together, about.
    pub(crate) fn new(limit: u64) -> Cache {
        Cache { limit, ..Cache::default() }
    }

    /// Returns the approximate limit of the total weight of the runs.
    pub(crate) fn limit(&self) -> u64 {
        self.limit
    }

    /// Takes a run out, to be put back by who does not break it.
    pub(crate) fn take(&mut self, run: RunId) -> Option<Box<CachedRun>> {
        if let Some(found) = self.young.remove(&run) {
            self.young_weight = self.young_weight.saturating_sub(found.weight());
            return Some(found);
        }
        self.old.remove(&run)
    }

    pub(crate) fn put(&mut self, run: Box<CachedRun>) {
        self.young_weight += run.weight();
        self.young.insert(run.run.id(), run);
    }

    pub(crate) fn get(&self, run: RunId) -> Option<&CachedRun> {
        self.young.get(&run).or_else(|| self.old.get(&run)).map(|found| &**found)
    }

    pub(crate) fn get_mut(&mut self, run: RunId) -> Option<&mut CachedRun> {
        let found = match self.young.get_mut(&run) {
            Some(found) => Some(found),
            None => self.old.get_mut(&run),
        };
        found.map(|found| &mut **found)
    }

    /// Lets the old go if the young are too many. Returns those that went.
    pub(crate) fn turn(&mut self) -> FastMap<RunId, Box<CachedRun>> {
        if self.young_weight <= self.limit / 2 {
            return FastMap::default();
        }
        self.young_weight = 0;
        std::mem::replace(&mut self.old, std::mem::take(&mut self.young))
    }

    /// Changes every run.
    pub(crate) fn for_each(&mut self, mut change: impl FnMut(&mut CachedRun)) {
        self.young.values_mut().chain(self.old.values_mut()).for_each(|run| change(run));
    }

    pub(crate) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use backstitch_saga::{Graph, Payload, Record};

    use super::*;

    fn cached(id: u128) -> Box<CachedRun> {
        let text = r#"{"name":"one","version":1,"steps":[{"id":"a","sleep":{"for":"1s"}}]}"#;
        let graph = Arc::new(Graph::parse(text).unwrap());
        let run = Run::new(RunId(uuid::Uuid::from_u128(id)), graph);
        Box::new(CachedRun {
            indexed: super::super::index::state_of(&run, None),
            run,
            namespace: "ns".into(),
            open: Vec::new(),
            spilled: BTreeSet::new(),
            fenced: BTreeSet::new(),
            held: BTreeSet::new(),
            snapshot_events: 0,
            moved_at: Time(0),
            ahead: 0,
            bytes: 0,
        })
    }

    #[test]
    fn a_run_weighs_its_documents_and_the_items_of_its_fan_outs() {
        let mut one = cached(1);
        assert_eq!(one.weight(), 64);
        let document = Payload::trusted(format!("\"{}\"", "x".repeat(12_798))).unwrap();
        let record = Record { payloads: vec![document], ..Record::default() };
        one.grow_by(&Transition { record, effects: vec![Effect::FanOutStarted(100)] });
        assert_eq!(one.weight(), 64 + 100 + 200);
    }

    #[test]
    fn runs_with_large_documents_leave_memory_when_they_weigh_too_much() {
        let mut cache = Cache::new(10_000);
        for id in 0..10 {
            let mut one = cached(id);
            one.bytes = 1_000 * BYTES_PER_UNIT;
            cache.put(one);
            drop(cache.turn());
        }
        assert!((5..=9).contains(&cache.len()), "{} runs are kept", cache.len());
    }
}
