//! The executor: takes all waiting commands, decides them, commits the records in one statement,
//! and answers.
//!
//! A shard owns the runs whose ids hash to it, with their timers. Commands that arrive while one batch is being written
//! form the next, which is sent concurrently once it is large; there is no flush timer. The executor knows no rules: it
//! only knows that a command causes a record.

mod backlog;
pub(crate) mod cache;
mod collect;
mod commit;
pub(crate) mod decide;
pub(crate) mod digest;
pub(crate) mod fence;
mod in_flight;
pub(crate) mod index;
mod lanes;
pub(crate) mod load;
pub(crate) mod loads;
pub(crate) mod outgoing;
pub(crate) mod outputs;
pub(crate) mod poison;
mod portions;
pub(crate) mod request;
mod settle;
mod timers;
mod writer;

use std::collections::{HashMap, HashSet};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use backstitch_saga::{Effect, Refusal, RunId, Time};
use futures::FutureExt;
use sqlx::postgres::PgConnection;
use tokio::sync::{mpsc, oneshot};
use tokio::task::{JoinError, JoinSet};
use uuid::Uuid;

use crate::dispatch::{Grant, Move, PutAside, ReservedTask};
use crate::health::OldestWrite;
use crate::node::{Message, Node};
use crate::store::StoreError;
use crate::store::session::Kept;
use crate::{Error, store};
use backlog::Backlog;
use cache::{Cache, CachedRun};
use collect::{Works, group};
use commit::{BatchResult, InFlightBatch};
use decide::{Decided, DecisionContext};
use fence::Fences;
use in_flight::InFlight;
use loads::Loads;
use poison::Poison;
use portions::Portions;
use request::{Request, ShardCommand};
use timers::Timers;
use writer::Writer;

/// Number of times that a command is decided before its caller is asked to retry later.
const TRIES: u16 = 100;
/// Number of batches of a namespace that may be in flight, and of batches that namespaces share: one waits for the disk
/// while the other is executed.
const FLIGHTS: usize = 2;
/// Returns the largest number of sessions of so many shards and the log: each shard has one to load runs, and one for
/// each batch in flight.
pub(crate) fn sessions_of(shards: usize) -> u32 {
    let of_shards = shards.saturating_mul(1 + in_flight::MOST);
    u32::try_from(of_shards.saturating_add(crate::log::SESSIONS)).unwrap_or(u32::MAX)
}

/// Delay before a command of the node itself is retried.
const OWN_RETRY: Duration = Duration::from_secs(1);
/// Delay of that retry after a defect, or a record that this node cannot read.
const OWN_RETRY_LATER: Duration = Duration::from_secs(60);

/// One committer with the runs it owns.
pub(crate) struct Shard {
    node: Arc<Node>,
    inbox: mpsc::UnboundedReceiver<Message>,
    backlog: Backlog,
    cache: Cache,
    timers: Timers,
    /// The connection for everything but batches.
    connection: Option<Kept>,
    /// Idle writers.
    writers: Vec<Writer>,
    /// Batches in flight, by their id. A run is in one of them at most, and commands for it wait there.
    flights: HashMap<Uuid, InFlightBatch>,
    in_flight: InFlight,
    /// The time since when the oldest of them is being written, and its gauge.
    oldest: (Option<Instant>, OldestWrite),
    /// Runs that are being loaded.
    loads: Loads,
    writing: JoinSet<BatchResult>,
    /// Runs with nothing in flight that are to be parked, with the time of their next timer.
    parking: Vec<(RunId, Option<Time>)>,
    poison: Poison,
    drains: Vec<oneshot::Sender<()>>,
    /// Of the present batch: tasks for sessions, and tasks without a session.
    offers: Vec<(Grant, PutAside)>,
    hints: Vec<ReservedTask>,
    /// Tasks that workers began or ceased to hold.
    moves: Vec<Move>,
    /// Empty lists for the effects of decisions, and the number of effects that fit into them.
    spare: Vec<Vec<Effect>>,
    spare_room: usize,
    fences: Fences,
}

impl Shard {
    pub(crate) fn new(node: Arc<Node>, inbox: mpsc::UnboundedReceiver<Message>) -> Shard {
        let share = node.options.tuning.cache_weight / node.shards.len().max(1) as u64;
        let oldest = (None, node.health.shard());
        Shard {
            node,
            inbox,
            backlog: Backlog::default(),
            cache: Cache::new(share),
            timers: Timers::default(),
            connection: None,
            writers: Vec::new(),
            flights: HashMap::new(),
            in_flight: InFlight::default(),
            oldest,
            loads: Loads::default(),
            writing: JoinSet::new(),
            parking: Vec::new(),
            poison: Poison::default(),
            drains: Vec::new(),
            offers: Vec::new(),
            hints: Vec::new(),
            moves: Vec::new(),
            spare: Vec::new(),
            spare_room: 0,
            fences: Fences::default(),
        }
    }

    /// Works until the node ends. After a defect outside of the rules the shard loses its memory and goes
    /// on.
    pub(crate) async fn run(mut self) {
        while let Err(panic) = AssertUnwindSafe(self.work()).catch_unwind().await {
            tracing::error!(
                panic = decide::text_of(panic.as_ref()),
                "a defect stopped a shard; it begins anew"
            );
            self.node.counters.bugs.one();
            self.connection = None;
            self.writing = JoinSet::new();
            // Commands that wait behind a batch were not decided, and are still counted as waiting.
            let waiting = self.flights.drain().flat_map(|(_, flight)| flight.waiting);
            self.backlog.extend(waiting);
            let cold = self.loads.give_up();
            self.backlog.extend(cold);
            self.in_flight = InFlight::default();
            self.note_oldest();
            self.writers.clear();
            self.timers = Timers::default();
            self.cache = Cache::new(self.cache.limit());
            self.parking.clear();
            self.offers.clear();
            self.hints.clear();
            self.moves.clear();
            self.fences = Fences::default();
            self.node.forgot.store(true, Ordering::Relaxed);
        }
        self.close().await;
    }

    async fn work(&mut self) {
        let mut open = true;
        loop {
            if self.backlog.is_empty() && self.flights.is_empty() && self.loads.is_empty() {
                self.drains.drain(..).for_each(|drained| {
                    // The caller may have given up.
                    let _ = drained.send(());
                });
                if !open {
                    return;
                }
            }
            if !self.may_decide().any() {
                let due = self.timers.next().map(|at| self.node.clock.instant(at));
                let due = due.unwrap_or_else(|| Instant::now() + Duration::from_secs(3_600));
                let due = self.held_up_at().map_or(due, |at| due.min(at));
                tokio::select! {
                    Some(landed) = self.writing.join_next() => self.landed(landed).await,
                    Some(loaded) = self.loads.next() => self.loaded(loaded),
                    message = self.inbox.recv(), if open => match message {
                        Some(message) => self.receive(message),
                        None => open = false,
                    },
                    () = tokio::time::sleep_until(due.into()) => {}
                }
            }
            // Requests that have already arrived are read first, so that they share this commit. It waits for no
            // others.
            tokio::task::yield_now().await;
            while let Ok(message) = self.inbox.try_recv() {
                self.receive(message);
            }
            while let Some(landed) = self.writing.try_join_next() {
                self.landed(landed).await;
            }
            while let Some(loaded) = self.loads.try_next() {
                self.loaded(loaded);
            }
            self.collect_due();
            let may = self.may_decide();
            if may.any() {
                let batch = self.take(may);
                if !batch.is_empty() {
                    self.round(batch).await;
                }
            }
            self.evict_idle().await;
        }
    }

    async fn landed(&mut self, landed: Result<BatchResult, JoinError>) {
        match landed {
            Ok(landed) => self.complete(landed).await,
            Err(defect) => resume_unwind(defect.into_panic()),
        }
    }

    fn receive(&mut self, message: Message) {
        match message {
            Message::Work(envelopes) => envelopes.into_iter().for_each(|one| self.wait(one)),
            Message::Read { run, seq, read } => {
                let cached = self.cache.get(run).filter(|cached| cached.run.seq() >= seq);
                read(cached.map(|cached| &cached.run));
            }
            Message::LookUp(runs) => self.look_up(runs),
            Message::Forget(runs) => self.forget(&runs),
            Message::PutAside(runs) => self.put_aside(&runs),
            Message::Disown => {
                self.loads.doubt_all();
                self.cache.for_each(|cached| cached.indexed.node = None);
                self.flights.values_mut().for_each(InFlightBatch::disown);
            }
            Message::SteppedBack => {
                let now = self.node.clock.now();
                self.loads.doubt_all();
                self.cache.for_each(|cached| cached.meet(now));
                self.timers.all_at(now);
            }
            Message::Drain(done) => self.drains.push(done),
        }
    }

    /// Processes one batch, from load to answer.
    async fn round(&mut self, batch: Vec<Request>) {
        let (mut works, followers) = group(batch);
        let fresh = self.load_missing(&mut works).await;
        let (batch, quiet) = self.decide_works(works);
        let batch = self.own_fences(batch).await;
        self.submit_parts(batch, followers).await;
        self.answer_quiet(quiet, &fresh).await;
        self.node.counters.cached.set(self.cache.len());
    }

    /// Decides the commands of a batch. Returns the records to write, and the decisions without
    /// events.
    fn decide_works(&mut self, works: Works) -> (Vec<Decided>, Vec<Decided>) {
        let node = Arc::clone(&self.node);
        let desk = DecisionContext::of(&node);
        let (mut batch, mut quiet, mut bytes) = (Vec::with_capacity(works.len()), Vec::new(), 0);
        let (mut portions, mut later) = (Portions::default(), Vec::new());
        let mut works = works.into_iter();
        let mut then = Instant::now();
        while bytes < node.options.tuning.batch_bytes
            && let Some((run, mut envelopes)) = works.next()
        {
            if !portions.is_empty()
                && let Some(namespace) = self.namespace_of(run, &envelopes)
                && portions.is_used_up(namespace)
            {
                later.push((run, envelopes));
                continue;
            }
            let Some(cached) = self.run_of(run, &mut envelopes, desk.at) else { continue };
            let brought = envelopes.iter().map(Request::bytes).sum::<usize>();
            let effects = self.list_of_effects();
            match desk.decide(cached, envelopes, effects) {
                Ok(decided) => {
                    self.poison.worked(run);
                    let written = decided.bytes();
                    let (whose, built) =
                        (&decided.cached.namespace, written.saturating_sub(brought));
                    let now = Instant::now();
                    if portions.count(whose, built, now - then) {
                        self.backlog.charge(whose, built);
                    }
                    then = now;
                    bytes += written;
                    match decided.transition.record.events.is_empty() {
                        true => quiet.push(decided),
                        false => batch.push(decided),
                    }
                }
                Err(broken) => {
                    self.broken(run, desk.at, broken.due);
                    self.backlog.extend(broken.again);
                }
            }
        }
        // Commands that would make the batch, or the portion of a namespace, too large are decided with
        // the next one.
        later.extend(works);
        for (_, envelopes) in later.into_iter().rev() {
            envelopes.into_iter().rev().for_each(|envelope| self.backlog.push_front(envelope));
        }
        (batch, quiet)
    }

    /// Takes the run of commands out of memory, or makes the one that they begin. Returns commands for a run that does
    /// not exist.
    fn run_of(
        &mut self,
        run: RunId,
        envelopes: &mut Vec<Request>,
        at: Time,
    ) -> Option<Box<CachedRun>> {
        if let Some(cached) = self.take_run(run) {
            return Some(cached);
        }
        let start = |one: &Request| matches!(one.order, ShardCommand::Start(_));
        let begins = envelopes.iter().position(start).unwrap_or(envelopes.len());
        // Commands before a run's start find no run.
        self.unknown(envelopes.drain(..begins));
        match envelopes.first().map(|envelope| &envelope.order) {
            Some(ShardCommand::Start(order)) => Some(CachedRun::new(run, order, at)),
            _ => None,
        }
    }

    /// Returns the namespace of a run that is in memory, or about to begin.
    fn namespace_of<'a>(&'a self, run: RunId, envelopes: &'a [Request]) -> Option<&'a Arc<str>> {
        let cached = self.cache.get(run).map(|cached| &cached.namespace);
        cached.or_else(|| envelopes.iter().find_map(Request::payer))
    }

    /// Takes a run out of memory.
    fn take_run(&mut self, run: RunId) -> Option<Box<CachedRun>> {
        #[cfg(feature = "planted-bugs")]
        if backstitch_saga::planted!("two-records") {
            return self.cache.get(run).map(|cached| Box::new(cached.clone()));
        }
        self.cache.take(run)
    }

    /// Answers commands for runs that do not exist.
    fn unknown(&self, envelopes: impl Iterator<Item = Request>) {
        for mut envelope in envelopes {
            envelope.answer(Err(Error::unknown_run(envelope.run)));
            if let ShardCommand::HandOut { grant, .. } = &envelope.order {
                self.node.dispatcher.give_back(grant);
            }
        }
    }

    /// Answers the commands that caused no events. The run in memory may be out of date, so the answer counts only if
    /// the journal has not gone on.
    async fn answer_quiet(&mut self, quiet: Vec<Decided>, fresh: &HashSet<RunId>) {
        let mut doubtful = Vec::new();
        for decided in quiet {
            let Decided { cached, commands, .. } = decided;
            let run = cached.run.id();
            if cached.run.seq() == 0 {
                // It never began: a start was refused, and nothing is to be remembered.
                commands.into_iter().for_each(|(envelope, result)| self.conclude(envelope, result));
                continue;
            }
            // Nor is a run in memory trusted that was taken over: the dead node may have written more of
            // its journal.
            let doubt = commands.iter().any(|(envelope, result)| {
                let told = envelope.ticket.is_some() || result.is_err();
                told || matches!(envelope.order, ShardCommand::Tick { adopted: true, .. })
            });
            if doubt && !fresh.contains(&run) {
                doubtful.push((cached, commands));
                continue;
            }
            commands.into_iter().for_each(|(envelope, result)| self.conclude(envelope, result));
            self.keep(cached);
        }
        if doubtful.is_empty() {
            return;
        }
        let runs: Vec<_> = doubtful.iter().map(|(cached, _)| cached.run.id().0).collect();
        let last = match self.connection().await {
            Ok(connection) => {
                store::journal::last_seqs(connection, &runs).await.map_err(StoreError::from)
            }
            Err(trouble) => Err(trouble),
        };
        for (cached, commands) in doubtful {
            let run = cached.run.id();
            match &last {
                Ok(last) if last.get(&run).is_some_and(|seq| *seq as u64 == cached.run.seq()) => {
                    commands
                        .into_iter()
                        .for_each(|(envelope, result)| self.conclude(envelope, result));
                    self.keep(cached);
                }
                Ok(_) => commands.into_iter().for_each(|(envelope, _)| self.again(envelope)),
                Err(trouble) => {
                    commands.into_iter().for_each(|(envelope, _)| self.fail(envelope, trouble));
                }
            }
        }
        if last.is_err() {
            self.connection = None;
        }
    }

    /// Gives the final answer to a command.
    fn conclude(&self, mut envelope: Request, result: Result<backstitch_saga::Reply, Refusal>) {
        if let request::Output::ToBeHeld { .. } = envelope.output {
            return outputs::hold(&self.node, envelope);
        }
        match result {
            Ok(reply) => {
                let answer = match &envelope.order {
                    ShardCommand::Start(_) => request::Answered::Started(crate::StartedRun {
                        id: envelope.run,
                        created: true,
                    }),
                    _ => request::Answered::Reply(reply),
                };
                envelope.answer(Ok(answer));
            }
            Err(refusal) => {
                self.node.counters.refused.one();
                if let ShardCommand::HandOut { grant, .. } = &envelope.order {
                    self.node.dispatcher.give_back(grant);
                }
                envelope.answer(Err(Error::Refused(refusal)));
            }
        }
    }

    /// Puts a run back into memory, and sets its timer.
    fn keep(&mut self, cached: Box<CachedRun>) {
        let run = cached.run.id();
        if cached.charge_of(self.node.id) {
            let park_after = self.node.options.tuning.park_after;
            if let Some(at) = index::look_at(&cached, park_after) {
                self.timers.set(run, at, Some(&cached.namespace));
            }
        }
        self.cache.put(cached);
    }

    /// Decides a command again in the next round.
    fn again(&mut self, mut envelope: Request) {
        envelope.tries += 1;
        if envelope.tries > TRIES {
            let trouble =
                StoreError::Retryable("too many nodes work on this run at once".to_owned());
            return self.fail(envelope, &trouble);
        }
        self.enqueue(envelope);
    }

    /// Handles a failure of the database during a command.
    fn fail(&mut self, mut envelope: Request, trouble: &StoreError) {
        match &envelope.order {
            ShardCommand::HandOut { grant, .. } => self.node.dispatcher.give_back(grant),
            ShardCommand::Tick { .. } => {
                let later = self.node.clock.now().after(OWN_RETRY.into());
                self.timers.set(envelope.run, later, envelope.payer());
            }
            ShardCommand::Start(_) | ShardCommand::Command(_) => {}
        }
        envelope.answer(Err(Error::Store(trouble.message().to_owned())));
    }

    async fn connection(&mut self) -> Result<&mut PgConnection, StoreError> {
        self.node.database.kept(&mut self.connection).await
    }
}
