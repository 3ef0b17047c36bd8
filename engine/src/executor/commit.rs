//! Makes a batch durable, and finds out what became of it when the answer is lost.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use backstitch_saga::{RunId, planted};
use sqlx::Connection;

use super::decide::{Decided, Desk};
use super::envelope::{Answered, Envelope, Order};
use super::index::{self, Changes};
use super::{Shard, envelope::StartKey};
use crate::crash::{commit, crash_point};
use crate::store::batch::Batch;
use crate::store::{Trouble, journal, keys};
use crate::{Error, StartedRun};

impl Shard {
    /// Commits what was decided, and answers. Answers the starts that were refused by their key.
    pub(super) async fn commit(&mut self, mut decided: Vec<Decided>) -> Vec<Envelope> {
        if decided.is_empty() {
            return Vec::new();
        }
        // One order over all nodes, so that two batches cannot wait for each other.
        decided.sort_unstable_by_key(|one| one.cached.run.id());
        let (batch, mut changes) = self.build(&mut decided);
        #[cfg(feature = "planted-bugs")]
        crate::planted::reply_early(&mut decided);
        match self.write(&batch).await {
            Ok(won) => {
                self.node.counters.batches.one();
                #[cfg(feature = "planted-bugs")]
                crate::planted::enqueue_later(&self.node, batch);
                let mut lost_keys = Vec::new();
                for one in decided {
                    let changes = changes.remove(&one.cached.run.id());
                    match changes.filter(|_| {
                        planted!("conflict-ignored")
                            || won.as_ref().is_none_or(|won| won.contains(&one.cached.run.id()))
                    }) {
                        Some(changes) => self.settle(one, changes),
                        None if planted!("two-records") => {
                            one.commands
                                .into_iter()
                                .for_each(|(e, result)| self.conclude(e, result));
                        }
                        None => lost_keys.extend(self.lost(one)),
                    }
                }
                crash_point!("batch.answered");
                self.write_fences().await;
                crash_point!("batch.fenced");
                self.announce();
                lost_keys
            }
            Err(trouble) => {
                self.not_written(decided, &trouble);
                Vec::new()
            }
        }
    }

    fn build(&mut self, decided: &mut Vec<Decided>) -> (Batch, HashMap<RunId, Changes>) {
        let governed = self.node.flow.governed();
        let place = index::Place {
            node: self.node.id,
            handover: &self.node.handover,
            reserve_for: self.node.options.tuning.reserve_for,
            governed: governed.as_deref(),
        };
        let mut batch = Batch::new();
        let mut all = HashMap::with_capacity(decided.len());
        let mut unwritable = Vec::new();
        for (at, one) in decided.iter().enumerate() {
            match index::add(&mut batch, one, &place) {
                Ok(changes) => {
                    all.insert(one.cached.run.id(), changes);
                }
                Err(error) => unwritable.push((at, error)),
            }
        }
        for (at, error) in unwritable.into_iter().rev() {
            self.not_written(vec![decided.remove(at)], &Trouble::Data(error));
        }
        let mut keyed: Vec<(&StartKey, RunId)> = decided
            .iter()
            .filter_map(|one| Some((one.key.as_ref()?, one.cached.run.id())))
            .collect();
        keyed.sort_unstable_by(|a, b| a.0.key.cmp(&b.0.key));
        for (key, run) in keyed {
            batch.key(&key.key, run, &key.input_digest);
        }
        (batch, all)
    }

    /// Writes a batch. Answers the runs whose record stands now; `None` means all.
    async fn write(&mut self, batch: &Batch) -> Result<Option<HashSet<RunId>>, Trouble> {
        let limit = self.node.options.tuning.statement_limit;
        let node = Arc::clone(&self.node);
        let weeks = &node.database.weeks;
        let connection = self.connection().await?;
        // Waiting makes a batch larger; one that is full gains nothing by it.
        let full = batch.records() >= node.options.tuning.batch_runs;
        let turn = if full { None } else { node.turns.acquire().await.ok() };
        let written = tokio::time::timeout(limit, batch.write(connection, weeks));
        let written = match commit!("batch", written.await) {
            Ok(written) => written,
            Err(_) => Err(Trouble::Unknown(format!("no answer within {} s", limit.as_secs()))),
        };
        drop(turn);
        match written {
            Ok(count) if count == batch.records() => Ok(None),
            Ok(_) => {
                #[cfg(feature = "planted-bugs")]
                crate::store::planted::stray_rows(connection, &batch.updates).await;
                self.find_written(batch).await.map(Some)
            }
            Err(Trouble::Unknown(error)) if planted!("unknown-is-failure") => {
                self.connection = None;
                Err(Trouble::Data(error))
            }
            Err(Trouble::Unknown(error)) => {
                tracing::warn!(error, "the answer to a commit was lost; looking for its records");
                self.node.counters.unknown_commits.one();
                self.connection = None;
                self.find_written(batch).await.map(Some)
            }
            Err(trouble) => Err(trouble),
        }
    }

    /// Looks up which records of a batch stand in the journal. One that comes to stand later, because its statement
    /// still runs somewhere, is met by the next record of its run.
    async fn find_written(&mut self, batch: &Batch) -> Result<HashSet<RunId>, Trouble> {
        let until = Instant::now() + self.node.options.tuning.resolve_for;
        let (runs, seqs) = batch.places();
        loop {
            let found = match self.connection().await {
                Ok(connection) => journal::written_by(connection, batch.id(), runs, seqs)
                    .await
                    .map_err(Trouble::from),
                Err(trouble) => Err(trouble),
            };
            match found {
                Ok(found) => return Ok(found.into_iter().collect()),
                Err(trouble) if Instant::now() > until => {
                    return Err(Trouble::Unknown(format!(
                        "whether a batch was written could not be found out: {}",
                        trouble.message()
                    )));
                }
                Err(_) => {
                    self.connection = None;
                    tokio::time::sleep(std::time::Duration::from_millis(100)).await;
                }
            }
        }
    }

    /// A record met one that was there already. Its run is loaded anew and decided again; starts with a key may have
    /// been refused by that.
    fn lost(&mut self, decided: Decided) -> Vec<Envelope> {
        self.node.counters.conflicts.one();
        Desk::of(&self.node).give_back(&decided.granted);
        let keyed = decided.key.is_some();
        let mut starts = Vec::new();
        for (mut envelope, _) in decided.commands {
            if keyed && matches!(envelope.order, Order::Start(_)) {
                envelope.tries += 1;
                starts.push(envelope);
            } else {
                self.again(envelope);
            }
        }
        starts
    }

    /// Nothing of a batch was written. Its runs are gone from memory.
    pub(super) fn not_written(&mut self, decided: Vec<Decided>, trouble: &Trouble) {
        let mut commands = Vec::new();
        for one in decided {
            Desk::of(&self.node).give_back(&one.granted);
            commands.extend(one.commands.into_iter().map(|(envelope, _)| envelope));
        }
        let single = commands.len() == 1;
        match trouble {
            Trouble::Data(error) if single => {
                tracing::error!(error, "the database refuses what a command would write");
                self.node.counters.bugs.one();
                for mut envelope in commands {
                    let refused = format!("the database refuses what this would write: {error}");
                    envelope.answer(Err(Error::Bug(refused)));
                    self.fail(envelope, trouble);
                }
            }
            // Only the culprit is to pay: each command goes alone.
            Trouble::Data(error) => {
                tracing::warn!(error, commands = commands.len(), "a batch is repeated one by one");
                self.node.counters.retried_one_by_one.add(commands.len());
                for mut envelope in commands.into_iter().rev() {
                    envelope.alone = true;
                    self.backlog.push_front(envelope);
                }
            }
            Trouble::Again(error) => {
                tracing::debug!(error, "a batch is repeated");
                commands.into_iter().for_each(|envelope| self.again(envelope));
            }
            Trouble::Failed(error) | Trouble::Unknown(error) => {
                tracing::warn!(error, commands = commands.len(), "a batch was not written");
                self.node.counters.store_failures.one();
                self.connection = None;
                commands.into_iter().for_each(|envelope| self.fail(envelope, trouble));
            }
        }
    }

    /// Answers starts whose key was taken: with the run that has it, if it asked for the same.
    pub(super) async fn answer_keys(&mut self, starts: Vec<Envelope>) {
        if starts.is_empty() {
            return;
        }
        let wanted: Vec<keys::RunKey> =
            starts.iter().filter_map(start_key).map(|key| key.key.clone()).collect();
        let found = match self.connection().await {
            Ok(connection) => keys::find(connection, &wanted).await.map_err(Trouble::from),
            Err(trouble) => Err(trouble),
        };
        let found = match found {
            Ok(found) => found,
            Err(trouble) => {
                self.connection = None;
                starts.into_iter().for_each(|envelope| self.fail(envelope, &trouble));
                return;
            }
        };
        for mut envelope in starts {
            let Some(key) = start_key(&envelope) else { continue };
            let answer = match found.get(&key.key) {
                // The key is free again, or its batch failed.
                None => {
                    self.again(envelope);
                    continue;
                }
                Some((run, digest)) if *digest == key.input_digest => {
                    let created = *run == envelope.run;
                    Ok(Answered::Started(StartedRun { id: *run, created }))
                }
                Some((run, _)) => Err(Error::Conflict {
                    code: "key_conflict",
                    message: format!(
                        "the key '{}' started run {run} with another input; use another key, or the same input",
                        key.key.1
                    ),
                }),
            };
            envelope.answer(answer);
        }
    }

    /// Parks what is in nobody's hands, and lets go of what was not used for long.
    pub(super) async fn let_go(&mut self) {
        let gone = self.cache.turn();
        for cached in gone {
            let run = cached.run.id();
            if cached.charge_of(self.node.id) && !cached.run.in_flight() {
                self.parking.push((run, cached.run.next_due()));
            }
        }
        if self.parking.is_empty() {
            return;
        }
        let node = self.node.id;
        let mut parking = std::mem::take(&mut self.parking);
        // A command may have come in between.
        parking.retain_mut(|(run, due)| match self.cache.get(*run) {
            Some(cached) => {
                *due = cached.run.next_due();
                cached.charge_of(node) && !cached.run.in_flight()
            }
            None => true,
        });
        let runs: Vec<_> = parking.iter().map(|(run, _)| run.0).collect();
        let wakes: Vec<_> = parking.iter().map(|(_, due)| *due).collect();
        let parked = match self.connection().await {
            Ok(connection) => commit!(
                "runs_park",
                crate::store::runs::park(connection, node, &runs, &wakes).await
            )
            .map_err(Trouble::from),
            Err(trouble) => Err(trouble),
        };
        if let Err(trouble) = parked {
            tracing::warn!(error = trouble.message(), "runs could not be parked");
            self.connection = None;
            let later = self.node.clock.now().after(super::OWN_RETRY.into());
            parking.into_iter().for_each(|(run, _)| self.timers.set(run, later));
            return;
        }
        self.node.counters.parked.add(parking.len());
        for (run, _) in parking {
            self.timers.clear(run);
            if let Some(cached) = self.cache.get_mut(run) {
                cached.indexed.node = None;
            }
        }
    }

    /// Closes the connection in order.
    pub(super) async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            // It is of no use any more whatever the answer.
            let _ = connection.close().await;
        }
    }
}

fn start_key(envelope: &Envelope) -> Option<&StartKey> {
    match &envelope.order {
        Order::Start(order) => order.key.as_ref(),
        _ => None,
    }
}
