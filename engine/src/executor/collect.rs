//! The commands of the next batch: where each waits, which are taken, and by which run they are grouped.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::{RunId, planted};

use super::commit::InFlightBatch;
use super::in_flight::May;
use super::request::{Request, ShardCommand};
use super::{Shard, index};
use crate::maps::{FastMap, FastSet, map_for};

/// A batch that is written for so long is held up by something, and others need not be large to be written beside it.
const HELD_UP_AFTER: Duration = Duration::from_secs(1);

impl Shard {
    /// Returns whose commands may be decided for a batch now.
    pub(super) fn may_decide(&self) -> May {
        let waits = self.backlog.waits(&self.in_flight);
        let beside = match self.is_held_up() {
            // The session that holds that one up must not hold up others.
            true => 1,
            false => self.node.options.tuning.batch_beside,
        };
        self.in_flight.may(waits, beside)
    }

    /// Returns whether the oldest batch has been written for unusually long.
    fn is_held_up(&self) -> bool {
        self.oldest.0.is_some_and(|since| since.elapsed() >= HELD_UP_AFTER)
    }

    /// Returns when the oldest batch will have been written for unusually long, unless it has been already.
    pub(super) fn held_up_at(&self) -> Option<Instant> {
        let at = self.oldest.0? + HELD_UP_AFTER;
        (!self.backlog.is_empty() && at > Instant::now()).then_some(at)
    }

    /// Notes since when the oldest batch is being written.
    pub(super) fn note_oldest(&mut self) {
        let since = self.flights.values().map(InFlightBatch::since).min();
        self.oldest.0 = since;
        self.oldest.1.show(since);
    }

    /// Returns whether a record of a run is being written.
    pub(super) fn is_under_way(&self, run: RunId) -> bool {
        self.flights.values().any(|flight| flight.has(run))
    }

    /// Puts a command where it waits: behind the batch that has its run, or for the next one.
    pub(super) fn wait(&mut self, envelope: Request) {
        match self.flights.values_mut().find(|flight| flight.has(envelope.run)) {
            Some(flight) => flight.waiting.push(envelope),
            None if self.loads.has(envelope.run) => self.load_beside(envelope),
            None => self.enqueue(envelope),
        }
    }

    /// Puts a command behind those of its namespace that wait for a batch.
    pub(super) fn enqueue(&mut self, envelope: Request) {
        let cached = match envelope.payer() {
            Some(_) => None,
            None => self.cache.get(envelope.run),
        };
        self.backlog.push_back(match cached {
            Some(cached) => envelope.paid_by(&cached.namespace),
            None => envelope,
        });
    }

    /// Looks at the runs whose timers have fired.
    pub(super) fn collect_due(&mut self) {
        let now = self.node.clock.now();
        let park_after = self.node.options.tuning.park_after;
        while let Some((run, namespace)) = self.timers.pop(now) {
            let Some(cached) = self.cache.get(run) else {
                let mut tick = Request::own(run, ShardCommand::tick());
                tick.payer = namespace;
                self.wait(tick);
                continue;
            };
            let due = cached.next_due();
            if due.is_some_and(|due| due <= now) {
                self.wait(Request::own(run, ShardCommand::tick()));
            } else if !cached.run.in_flight() && cached.moved_at.after(park_after.into()) <= now {
                if cached.charge_of(self.node.id) {
                    self.parking.push((run, due));
                }
            } else if let Some(at) = index::look_at(cached, park_after) {
                self.timers.set(run, at, Some(&cached.namespace));
            }
        }
        self.node.counters.timers.set(self.timers.len());
    }

    /// Returns the next batch: everything that waits and may be taken, up to the limits; or one command that must go
    /// alone.
    pub(super) fn take(&mut self, may: May) -> Vec<Request> {
        let node = Arc::clone(&self.node);
        let tuning = &node.options.tuning;
        let room = self.backlog.len().min(tuning.batch_commands);
        let (mut batch, mut runs) = (Vec::with_capacity(room), FastSet::default());
        let (mut bytes, mut cold) = (0, 0);
        let (most_runs, most_commands) = match self.in_flight.is_crowded() {
            true => (tuning.batch_beside.max(1), tuning.batch_beside.max(1)),
            false => (tuning.batch_runs, tuning.batch_commands),
        };
        self.backlog.begin_batch(most_runs, &self.in_flight, may);
        while let Some(next) = self.backlog.front() {
            let full = batch.len() + cold >= most_commands
                || runs.len() >= most_runs
                || bytes >= tuning.batch_bytes;
            if full || (next.alone && !batch.is_empty()) {
                break;
            }
            let Some(mut envelope) = self.backlog.pop_front() else { break };
            if self.is_under_way(envelope.run) {
                self.wait(envelope);
                continue;
            }
            if self.loads.has(envelope.run) || self.is_cold(&envelope, &runs) {
                self.load_beside(envelope);
                cold += 1;
                continue;
            }
            envelope.place = None;
            runs.insert(envelope.run);
            bytes += envelope.bytes();
            let alone = envelope.alone;
            batch.push(envelope);
            if alone {
                break;
            }
        }
        batch
    }
}

pub(super) type Works = Vec<(RunId, Vec<Request>)>;

/// Groups commands by run, in order of arrival. Of several starts with one key only the first is decided; the others
/// follow it.
pub(super) fn group(batch: Vec<Request>) -> (Works, Vec<Request>) {
    let mut works: Works = Vec::with_capacity(batch.len());
    let mut places: FastMap<RunId, usize> = map_for(batch.len());
    let mut keys = HashSet::new();
    let mut followers = Vec::new();
    for envelope in batch {
        if let ShardCommand::Start(order) = &envelope.order
            && let Some(key) = &order.key
            && !keys.insert(key.key.clone())
        {
            followers.push(envelope);
            continue;
        }
        if planted!("two-records") {
            places.clear();
        }
        let place = *places.entry(envelope.run).or_insert_with(|| {
            works.push((envelope.run, Vec::with_capacity(1)));
            works.len() - 1
        });
        works[place].1.push(envelope);
    }
    (works, followers)
}
