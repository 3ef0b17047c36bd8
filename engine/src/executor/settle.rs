//! Carries out the effects of a committed record: answers, dispatch, timers, snapshots.

use backstitch_saga::protocol::State;
use backstitch_saga::{AttemptEnd, Effect, Run, RunId, TaskKey, Time, Transition};

use super::Shard;
use super::cache::CachedRun;
use super::decide::{Decided, Granted};
use super::index::Changes;
use crate::crash::commit;
use crate::dispatch::{Move, PutAside, ReservedTask};
use crate::flow::PermitChanges;
use crate::store::batch::ReadyRow;
use crate::store::journal::{self, Snapshot};

/// Growth factor from one snapshot to the next.
const SNAPSHOT_GROWTH: u64 = 4;

/// Number of effects for which a shard keeps room in unused lists.
const SPARE: usize = 64 * 1_024;

impl Shard {
    /// Carries out the effects of a record, once it is in the journal.
    pub(super) fn settle(&mut self, decided: Decided, changes: Changes, now: Time) {
        let Decided { mut cached, transition, commands, granted, .. } = decided;
        let Transition { record, effects } = transition;
        let run = cached.run.id();
        cached.run.mark_appended();
        cached.moved_at = record.at;
        cached.meet(now);
        self.count(&cached.run, record.events.len(), &effects);
        crate::children::after(&self.node, &cached.run, &effects);
        self.node.sequence.after(&cached.run, &effects);
        crate::subscriptions::after(&self.node.heard, &cached.run, &effects);
        self.permits(&mut cached, &effects, &changes);
        if let Some(state) = changes.state {
            cached.indexed = state;
        }
        if let Some(open) = changes.open {
            cached.open = open;
        }
        for task in &changes.removed {
            cached.spilled.remove(task);
        }
        self.spill(&mut cached, changes.added, &effects);
        let moves = |effect| Move::of(&cached.namespace, &cached.run, effect);
        self.moves.extend(effects.iter().filter_map(moves));
        if effects.contains(&Effect::LeasesRevoked) {
            let held = |task: &TaskKey, worker: &str| {
                cached.run.holder(task).is_some_and(|holder| **holder == *worker)
            };
            self.node.dispatcher.revoke(run, held);
        }
        self.note_fences(&mut cached, (record.at, &effects), &granted);
        self.reuse(effects);
        for Granted { task, grant, born } in granted {
            if let Some(times) = born {
                self.node.counters.born_claimed.one();
                times.started_after(0);
            }
            match cached.run.offer(&task) {
                Some(offer) => self.offers.push((grant, PutAside { offer, since: record.at })),
                // A later command of the same batch revoked it.
                None => self.node.dispatcher.give_back(&grant),
            }
        }
        for (envelope, result) in commands {
            self.conclude(envelope, result);
        }
        if cached.run.state() == State::Ended {
            self.node.waiters.ended(run, || cached.run.view(record.at));
            // A killed run stays in memory until its children have acknowledged.
            if cached.run.next_due().is_none() {
                self.timers.clear(run);
                return;
            }
        }
        self.snapshot(&mut cached);
        self.keep(cached);
    }

    /// Remembers tasks that entered the table `ready`, and reserves those that are for a session of this node.
    fn spill(&mut self, cached: &mut CachedRun, added: Vec<ReadyRow>, effects: &[Effect]) {
        let run = cached.run.id();
        let first = effects.iter().any(|effect| matches!(effect, Effect::TaskReleased(_)));
        for row in added {
            self.node.counters.spilled.one();
            cached.spilled.insert(row.task.clone());
            let alone = cached.run.is_suspect(&row.task);
            if let (Some(_), true) = (row.reserved, alone) {
                let kind = (&row.namespace, row.queue.as_str(), row.name.as_str());
                self.node.dispatcher.suspect(run, row.task, kind);
            } else if let Some((_, until)) = row.reserved {
                self.hints.push(ReservedTask {
                    run,
                    task: row.task,
                    namespace: row.namespace,
                    queue: row.queue,
                    name: row.name,
                    until: self.node.clock.instant(until),
                    first,
                });
            }
        }
    }

    /// Updates the permits of governed queues by the record.
    fn permits(&self, cached: &mut CachedRun, effects: &[Effect], changes: &Changes) {
        let Some(governed) = self.node.flow.governed() else { return };
        let PermitChanges { taken, over } = &changes.permits;
        for task in over {
            cached.held.remove(task);
        }
        cached.held.extend(taken.iter().cloned());
        self.node.flow.note(&governed, &cached.run, effects);
        if !over.is_empty() || changes.added.iter().any(|row| row.rank.is_some()) {
            self.node.flow.ring();
        }
    }

    /// Keeps a list of effects for another decision, unless there is room for enough already.
    fn reuse(&mut self, mut effects: Vec<Effect>) {
        if self.spare_room + effects.capacity() <= SPARE {
            effects.clear();
            self.spare_room += effects.capacity();
            self.spare.push(effects);
        }
    }

    /// Returns an empty list for the effects of a decision.
    pub(super) fn list_of_effects(&mut self) -> Vec<Effect> {
        let effects = self.spare.pop().unwrap_or_default();
        self.spare_room -= effects.capacity();
        effects
    }

    fn count(&self, run: &Run, events: usize, effects: &[Effect]) {
        let counters = &self.node.counters;
        let workflow = || run.graph().definition.name.as_str();
        counters.records.one();
        counters.events.add(events);
        for effect in effects {
            match effect {
                Effect::LateResult => counters.late_results.one(),
                Effect::AttemptEnded(_, AttemptEnd::Lost) => counters.lease_losses.one(),
                Effect::TaskReleased(_) => counters.released.one(),
                Effect::RetryScheduled => counters.retries.one(),
                Effect::IncidentOpened(_) => counters.incidents_opened.one(),
                Effect::IncidentResolved(_) => counters.incidents_resolved.one(),
                Effect::Started => self.node.ends.started(workflow()),
                Effect::Ended(outcome) => self.node.ends.ended(workflow(), *outcome),
                _ => {}
            }
        }
    }

    /// Wakes the workers, and finds sessions for newly offered tasks without one.
    pub(super) fn announce(&mut self) {
        let back = self.node.dispatcher.deliver(self.moves.drain(..), self.offers.drain(..));
        self.node.take_back(back);
        if !self.hints.is_empty() {
            let matches = self.node.dispatcher.remember(self.hints.drain(..));
            self.node.hand_out(matches);
        }
    }

    /// Keeps a snapshot when the journal has grown so much that folding it would take long. The sizes grow by a
    /// factor, so that the cost per event stays the same.
    fn snapshot(&self, cached: &mut super::CachedRun) {
        // The documents of an erased run are being deleted.
        if cached.run.erased_at().is_some() {
            return;
        }
        let events = cached.run.events_folded();
        if events
            < self.node.options.tuning.first_snapshot.max(cached.snapshot_events * SNAPSHOT_GROWTH)
        {
            return;
        }
        cached.snapshot_events = events;
        let run: RunId = cached.run.id();
        let Ok(seq) = i32::try_from(cached.run.seq()) else { return };
        let snapshot = Snapshot {
            seq,
            definition: cached.run.definition().to_owned(),
            state: cached.run.snapshot(),
        };
        let node = self.node.clone();
        self.node.counters.snapshots.one();
        tokio::spawn(async move {
            let kept = match node.database.keepers.acquire().await {
                Ok(mut connection) => commit!(
                    "snapshots_keep",
                    journal::keep_snapshot(&mut connection, run, &snapshot).await
                ),
                Err(error) => Err(error),
            };
            if let Err(error) = kept {
                tracing::warn!(%run, %error, "a snapshot was not written; loading the run takes longer");
            }
        });
    }
}
