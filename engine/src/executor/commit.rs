//! Makes a batch durable, and determines its outcome if the answer is lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use backstitch_saga::{Refusal, RefusalCode, RunId, planted};

use super::decide::{Decided, DecisionContext};
use super::digest;
use super::index::{self, Changes};
use super::portions::{self, Part};
use super::request::{Answered, Request, ShardCommand};
use super::writer::Writer;
use super::{Shard, request::StartKey};
use crate::crash::{commit, crash_point};
use crate::maps::{FastMap, map_for};
use crate::store::StoreError;
use crate::store::batch::Batch;
use crate::store::keys::{self, Holder};
use crate::{Error, StartedRun};

/// A batch that is being written.
pub(super) struct InFlightBatch {
    decided: Vec<Decided>,
    /// Changes by run.
    changes: FastMap<RunId, Changes>,
    /// Commands for its runs.
    pub(super) waiting: Vec<Request>,
    /// Starts with the same key as another start of this batch.
    followers: Vec<Request>,
    /// The namespaces whose runs it has.
    namespaces: Vec<Arc<str>>,
    /// `true` if no namespace has much in it.
    shared: bool,
    /// Time at which it was sent.
    since: Instant,
}

/// Result of a batch.
pub(super) struct BatchResult {
    writer: Writer,
    batch: Batch,
    /// The runs whose record is in the journal; `None` means all.
    written: Result<Option<HashSet<RunId>>, StoreError>,
    /// The runs whose rows others have locked, if it waited for a lock in vain.
    locked: Option<HashSet<RunId>>,
}

impl InFlightBatch {
    pub(super) fn since(&self) -> Instant {
        self.since
    }

    pub(super) fn has(&self, run: RunId) -> bool {
        self.changes.contains_key(&run)
    }

    /// Gives up charge of all runs, because other nodes have declared this node dead.
    pub(super) fn disown(&mut self) {
        self.decided.iter_mut().for_each(|one| one.cached.indexed.node = None);
        let states = self.changes.values_mut().filter_map(|changes| changes.state.as_mut());
        states.for_each(|state| state.node = None);
    }
}

impl Shard {
    /// Sends the decisions to the database. Namespaces with many get a batch of their own. `followers` are starts with
    /// the same key as another start of this batch.
    pub(super) async fn submit_parts(
        &mut self,
        decided: Vec<Decided>,
        mut followers: Vec<Request>,
    ) {
        let mut parts = portions::part(decided, self.node.options.tuning.batch_beside);
        let last = parts.pop();
        for part in parts {
            let is_theirs = |one: &mut Request| {
                one.payer().is_some_and(|namespace| part.namespaces.contains(namespace))
            };
            let theirs = followers.extract_if(.., is_theirs).collect();
            self.submit(part, theirs).await;
        }
        match last {
            Some(part) => self.submit(part, followers).await,
            None => self.answer_keys(followers).await,
        }
    }

    async fn submit(&mut self, part: Part, followers: Vec<Request>) {
        let Part { mut decided, namespaces, shared } = part;
        // All nodes use one order, so that two batches cannot wait for each other.
        decided.sort_unstable_by_key(|one| one.cached.run.id());
        let (batch, changes) = self.build(&mut decided);
        if decided.is_empty() {
            return self.answer_keys(followers).await;
        }
        #[cfg(feature = "planted-bugs")]
        crate::planted::reply_early(&mut decided);
        let mut writer = self.writers.pop().unwrap_or_else(|| Writer::new(Arc::clone(&self.node)));
        self.in_flight.add(&namespaces, shared);
        let waiting = Vec::new();
        let since = Instant::now();
        let flight =
            InFlightBatch { decided, changes, waiting, followers, namespaces, shared, since };
        self.flights.insert(batch.id(), flight);
        self.note_oldest();
        self.writing.spawn(async move {
            let written = writer.write(&batch).await;
            let locked = writer.locked(&batch, &written).await;
            BatchResult { writer, batch, written, locked }
        });
        // Lets the batch be sent.
        tokio::task::yield_now().await;
    }

    /// Answers the commands of a batch that was written, or not.
    pub(super) async fn complete(&mut self, landed: BatchResult) {
        let BatchResult { writer, batch, written, locked } = landed;
        self.writers.push(writer);
        let Some(flight) = self.flights.remove(&batch.id()) else { return };
        self.note_oldest();
        let InFlightBatch {
            decided, mut changes, waiting, mut followers, namespaces, shared, ..
        } = flight;
        self.in_flight.remove(&namespaces, shared);
        match written {
            Ok(won) => {
                self.node.counters.batches.one();
                if batch.emits() {
                    self.node.log.ring_emitted();
                }
                let told = batch.told(|run| won.as_ref().is_none_or(|won| won.contains(&run)));
                if told > 0 {
                    self.node.counters.events_appended.add(told);
                    self.node.log.ring();
                }
                self.node.health.wrote();
                #[cfg(feature = "planted-bugs")]
                crate::planted::enqueue_later(&self.node, batch);
                let now = self.node.clock.now();
                for one in decided {
                    let changes = changes.remove(&one.cached.run.id());
                    match changes.filter(|_| {
                        planted!("conflict-ignored")
                            || won.as_ref().is_none_or(|won| won.contains(&one.cached.run.id()))
                    }) {
                        Some(changes) => self.settle(one, changes, now),
                        None if planted!("two-records") => {
                            one.commands
                                .into_iter()
                                .for_each(|(e, result)| self.conclude(e, result));
                        }
                        None => followers.extend(self.lost(one)),
                    }
                }
                crash_point!("batch.answered");
                self.write_fences().await;
                crash_point!("batch.fenced");
                self.announce();
            }
            Err(trouble) => match locked {
                Some(locked) => self.locked_out(decided, &locked, &trouble),
                None => self.not_written(decided, &trouble),
            },
        }
        // They go behind the commands that are decided again, and so keep their order.
        self.backlog.extend(waiting);
        self.answer_keys(followers).await;
        self.node.counters.cached.set(self.cache.len());
    }

    fn build(&mut self, decided: &mut Vec<Decided>) -> (Batch, FastMap<RunId, Changes>) {
        let governed = self.node.flow.governed();
        let place = index::Place {
            node: self.node.id,
            dispatcher: &self.node.dispatcher,
            reserve_for: self.node.options.tuning.reserve_for,
            at: self.node.clock.now(),
            governed: governed.as_deref(),
        };
        let starts = decided.iter().filter(|one| one.starts).count();
        let mut batch = Batch::new(decided.len(), starts);
        let mut all = map_for(decided.len());
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
            self.not_written(vec![decided.remove(at)], &StoreError::Rejected(error));
        }
        let mut keyed: Vec<(&StartKey, RunId)> = decided
            .iter()
            .filter_map(|one| Some((one.key.as_ref()?, one.cached.run.id())))
            .collect();
        keyed.sort_unstable_by(|a, b| a.0.key.cmp(&b.0.key));
        for (key, run) in keyed {
            batch.key(&key.key, run, key.input_digest.bytes());
        }
        (batch, all)
    }

    /// Handles a record whose key was taken. Its run is loaded and decided again; starts with a key may have been
    /// refused by that.
    fn lost(&mut self, decided: Decided) -> Vec<Request> {
        self.node.counters.conflicts.one();
        DecisionContext::of(&self.node).give_back(&decided.granted);
        let keyed = decided.key.is_some();
        let mut starts = Vec::new();
        for (mut envelope, _) in decided.commands {
            if keyed && matches!(envelope.order, ShardCommand::Start(_)) {
                envelope.tries += 1;
                starts.push(envelope);
            } else {
                self.again(envelope);
            }
        }
        starts
    }

    /// Handles a batch that waited for a lock in vain. Callers of the runs that others have locked get an error, and
    /// all of them if the lock is on something that they share; the other commands are decided again.
    fn locked_out(&mut self, decided: Vec<Decided>, locked: &HashSet<RunId>, trouble: &StoreError) {
        let is_locked = |one: &Decided| locked.is_empty() || locked.contains(&one.cached.run.id());
        let (theirs, others): (Vec<_>, Vec<_>) = decided.into_iter().partition(is_locked);
        let in_vain = StoreError::NotCommitted(format!(
            "a lock that another session holds was waited for in vain; nothing was written: {}",
            trouble.message()
        ));
        if locked.is_empty() {
            return self.not_written(theirs, &in_vain);
        }
        tracing::warn!(runs = theirs.len(), "rows of runs are locked by another session");
        for one in theirs {
            DecisionContext::of(&self.node).give_back(&one.granted);
            one.commands.into_iter().for_each(|(envelope, _)| self.fail(envelope, &in_vain));
        }
        self.not_written(others, trouble);
    }

    /// Handles a batch that was not written. Its runs are dropped from memory.
    pub(super) fn not_written(&mut self, decided: Vec<Decided>, trouble: &StoreError) {
        let mut commands = Vec::new();
        for one in decided {
            DecisionContext::of(&self.node).give_back(&one.granted);
            commands.extend(one.commands.into_iter().map(|(envelope, _)| envelope));
        }
        let single = commands.len() == 1;
        match trouble {
            StoreError::Rejected(error) if single => {
                tracing::error!(error, "the database refuses what a command would write");
                self.node.counters.bugs.one();
                for mut envelope in commands {
                    let refused = format!("the database refuses what this would write: {error}");
                    envelope.answer(Err(Error::Bug(refused)));
                    self.fail(envelope, trouble);
                }
            }
            // Only the failing command is refused: each is written alone.
            StoreError::Rejected(error) => {
                tracing::warn!(error, commands = commands.len(), "a batch is repeated one by one");
                self.node.counters.retried_one_by_one.add(commands.len());
                for mut envelope in commands.into_iter().rev() {
                    envelope.alone = true;
                    self.backlog.push_front(envelope);
                }
            }
            StoreError::Retryable(error) => {
                tracing::debug!(error, "a batch is repeated");
                commands.into_iter().for_each(|envelope| self.again(envelope));
            }
            StoreError::NotCommitted(error) | StoreError::Indeterminate(error) => {
                tracing::warn!(error, commands = commands.len(), "a batch was not written");
                self.node.hearing.failed(self.node.clock.now());
                self.node.counters.store_failures.one();
                self.node.health.write_failed();
                self.connection = None;
                commands.into_iter().for_each(|envelope| self.fail(envelope, trouble));
            }
        }
    }

    /// Answers starts whose key was taken: with the run that has it, if it asked for the same.
    pub(super) async fn answer_keys(&mut self, starts: Vec<Request>) {
        if starts.is_empty() {
            return;
        }
        let wanted: Vec<keys::RunKey> =
            starts.iter().filter_map(start_key).map(|key| key.key.clone()).collect();
        let found = match self.connection().await {
            Ok(connection) => keys::find(connection, &wanted).await.map_err(StoreError::from),
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
            let Some(Holder { run, input_digest }) = found.get(&key.key) else {
                // The key is free again, or its batch failed.
                self.again(envelope);
                continue;
            };
            let run = *run;
            let Some(kept) = input_digest else {
                envelope.answer(Err(erased(key, run)));
                continue;
            };
            match self.began_alike(&envelope, run, kept).await {
                Ok(true) => {
                    let created = run == envelope.run;
                    envelope.answer(Ok(Answered::Started(StartedRun { id: run, created })));
                }
                Ok(false) => {
                    let message = format!(
                        "the key '{}' started run {run} with another input; use another key, or the same input",
                        key.key.1
                    );
                    envelope.answer(Err(Error::Conflict { code: "key_conflict", message }));
                }
                Err(trouble) => {
                    self.connection = None;
                    self.fail(envelope, &trouble);
                }
            }
        }
    }

    /// Returns whether `run`, with whose key the digest `kept` is stored, began with the input of a start.
    async fn began_alike(
        &mut self,
        start: &Request,
        run: RunId,
        kept: &[u8],
    ) -> Result<bool, StoreError> {
        let ShardCommand::Start(order) = &start.order else { return Ok(false) };
        let Some(key) = &order.key else { return Ok(false) };
        let connection = self.connection().await?;
        let same = digest::began_with(connection, run, kept, &key.input_digest, &order.start.input);
        same.await.map_err(|error| StoreError::NotCommitted(error.to_string()))
    }

    /// Parks runs with nothing in flight, and drops runs from memory that were not used for long.
    pub(super) async fn evict_idle(&mut self) {
        let gone = self.cache.turn();
        if !gone.is_empty() {
            for cached in gone.values() {
                if cached.charge_of(self.node.id) && !cached.run.in_flight() {
                    self.parking.push((cached.run.id(), cached.next_due()));
                }
            }
            // Dropping half a cache frees many small pieces of memory.
            tokio::task::spawn_blocking(move || drop(gone));
        }
        if self.parking.is_empty() {
            return;
        }
        let node = self.node.id;
        let mut parking = std::mem::take(&mut self.parking);
        // A command may have come in between.
        parking.retain_mut(|(run, due)| match self.cache.get(*run) {
            Some(cached) => {
                *due = cached.next_due();
                cached.charge_of(node) && !cached.run.in_flight()
            }
            None => !self.is_under_way(*run) && !self.loads.has(*run),
        });
        if parking.is_empty() {
            return;
        }
        let runs: Vec<_> = parking.iter().map(|(run, _)| run.0).collect();
        let wakes: Vec<_> = parking.iter().map(|(_, due)| *due).collect();
        let parked = match self.connection().await {
            Ok(connection) => commit!(
                "runs_park",
                crate::store::runs::park(connection, node, &runs, &wakes).await
            )
            .map_err(StoreError::from),
            Err(trouble) => Err(trouble),
        };
        let later = self.node.clock.now().after(super::OWN_RETRY.into());
        let locked = match parked {
            Ok(locked) => locked,
            Err(trouble) => {
                tracing::warn!(error = trouble.message(), "runs could not be parked");
                self.connection = None;
                parking.into_iter().for_each(|(run, _)| self.timers.set(run, later, None));
                return;
            }
        };
        if !locked.is_empty() {
            // Other sessions have locked their rows: only these wait for that.
            let (locked, free): (Vec<_>, Vec<_>) =
                parking.into_iter().partition(|(run, _)| locked.contains(run));
            locked.into_iter().for_each(|(run, _)| self.timers.set(run, later, None));
            parking = free;
        }
        self.node.counters.parked.add(parking.len());
        for (run, _) in parking {
            self.timers.clear(run);
            if let Some(cached) = self.cache.get_mut(run) {
                cached.indexed.node = None;
            }
        }
    }

    /// Closes the connections in order.
    pub(super) async fn close(mut self) {
        if let Some(connection) = self.connection.take() {
            connection.close().await;
        }
        for writer in self.writers.drain(..) {
            writer.close().await;
        }
    }
}

/// Returns the answer to a start whose key belongs to an erased run: it is unknown if it asks for the same.
fn erased(key: &StartKey, run: RunId) -> Error {
    let message = format!(
        "the key '{}' started run {run}, which was erased; use another key for another run",
        key.key.1
    );
    Error::Refused(Refusal::new(RefusalCode::RunErased, message))
}

fn start_key(envelope: &Request) -> Option<&StartKey> {
    match &envelope.order {
        ShardCommand::Start(order) => order.key.as_ref(),
        _ => None,
    }
}
