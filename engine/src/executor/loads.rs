//! Runs that are not in memory: they are loaded concurrently, while the shard goes on with the others. Namespaces take
//! turns at a few connections, so that one that needs ever other runs delays only itself.
//!
//! Commands for a run that is being loaded wait, in order, and are queued again afterwards. If the run has left the
//! memory by then, the batch that decides about it loads it, see [`Shard::load_missing`].

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, resume_unwind};
use std::sync::Arc;

use backstitch_saga::{RunId, Time};
use futures::FutureExt;
use sqlx::postgres::PgConnection;
use tokio::task::{JoinError, JoinSet};

use super::Shard;
use super::cache::CachedRun;
use super::decide::text_of;
use super::load::fold;
use super::request::{Request, ShardCommand};
use crate::Error;
use crate::maps::{FastMap, FastSet};
use crate::node::Node;
use crate::store::{StoreError, journal};

/// Largest number of runs of a namespace that one query loads, and number of the first query.
const AT_ONCE: usize = 256;
const FIRST: usize = 16;
/// After a question whose runs had more bytes of documents than this, the next one is for fewer runs.
const BYTES: u64 = 4 * 1024 * 1024;
/// The most bytes that one question reads, unless one run alone has more.
pub(crate) const QUESTION: usize = 8 * 1024 * 1024;

/// Runs as they were found, or why they were not.
pub(super) type Found = Vec<(RunId, Result<Box<CachedRun>, Error>)>;

/// The runs that are being loaded, and those that are to be.
#[derive(Default)]
pub(super) struct Loads {
    runs: FastMap<RunId, Cold>,
    /// Runs to load, by the namespace in whose turn their commands are decided.
    lines: HashMap<Option<Arc<str>>, Line>,
    questions: JoinSet<Loaded>,
}

/// A run that is not in memory.
#[derive(Default)]
struct Cold {
    /// The commands for it, in order.
    waiting: Vec<Request>,
    /// Number of them that came before the query.
    before: usize,
    /// `true` if the result of the present query may be out of date.
    stale: bool,
}

/// The runs of a namespace that are to be loaded next.
struct Line {
    runs: VecDeque<RunId>,
    /// Number of runs in the next query.
    most: usize,
}

/// Result of a query for runs.
pub(super) struct Loaded {
    namespace: Option<Arc<str>>,
    runs: Vec<RunId>,
    /// The loaded part, and its number of runs: the rest did not fit in.
    found: Result<(usize, Found), Error>,
}

impl Loads {
    pub(super) fn is_empty(&self) -> bool {
        self.runs.is_empty()
    }

    /// Returns whether a run is being loaded, or is to be.
    pub(super) fn has(&self, run: RunId) -> bool {
        !self.runs.is_empty() && self.runs.contains_key(&run)
    }

    /// Marks the present read of a run as possibly out of date.
    pub(super) fn doubt(&mut self, run: RunId) {
        if let Some(cold) = self.runs.get_mut(&run) {
            cold.stale = true;
        }
    }

    /// Does the same for all runs.
    pub(super) fn doubt_all(&mut self) {
        self.runs.values_mut().for_each(|cold| cold.stale = true);
    }

    /// Takes the next question that has an answer.
    pub(super) async fn next(&mut self) -> Option<Result<Loaded, JoinError>> {
        self.questions.join_next().await
    }

    /// Returns the same without waiting.
    pub(super) fn try_next(&mut self) -> Option<Result<Loaded, JoinError>> {
        self.questions.try_join_next()
    }

    /// Loads nothing any more; returns the commands that wait.
    pub(super) fn give_up(&mut self) -> Vec<Request> {
        self.lines.clear();
        self.questions = JoinSet::new();
        self.runs.drain().flat_map(|(_, cold)| cold.waiting).collect()
    }
}

impl Shard {
    /// Returns whether the run of a command has to be loaded first, unless it `begins` in this
    /// batch.
    pub(super) fn is_cold(&self, envelope: &Request, begins: &FastSet<RunId>) -> bool {
        let starts = matches!(envelope.order, ShardCommand::Start(_)) && envelope.tries == 0;
        !envelope.loaded
            && !starts
            && !begins.contains(&envelope.run)
            && self.cache.get(envelope.run).is_none()
    }

    /// Loads the run of a command, which waits with it.
    pub(super) fn load_beside(&mut self, mut envelope: Request) {
        envelope.loaded = true;
        let (run, urgent) = (envelope.run, envelope.urgent);
        let namespace = envelope.payer().cloned();
        let known = self.loads.has(run);
        self.loads.runs.entry(run).or_default().waiting.push(envelope);
        if known {
            return;
        }
        match self.loads.lines.get_mut(&namespace) {
            // Commands that stop something do not wait for a flood.
            Some(line) if urgent => line.runs.push_front(run),
            Some(line) => line.runs.push_back(run),
            None => {
                let line = Line { runs: VecDeque::from([run]), most: FIRST };
                self.loads.lines.insert(namespace.clone(), line);
                self.ask_for_runs(namespace);
            }
        }
    }

    /// Asks for the next runs of a namespace.
    fn ask_for_runs(&mut self, namespace: Option<Arc<str>>) {
        let Some(line) = self.loads.lines.get_mut(&namespace) else { return };
        let runs: Vec<RunId> = line.runs.drain(..line.runs.len().min(line.most)).collect();
        if runs.is_empty() {
            self.loads.lines.remove(&namespace);
            return;
        }
        for run in &runs {
            if let Some(cold) = self.loads.runs.get_mut(run) {
                (cold.before, cold.stale) = (cold.waiting.len(), false);
            }
        }
        let node = Arc::clone(&self.node);
        self.loads.questions.spawn(async move {
            let found = read(&node, namespace.as_deref().unwrap_or_default(), &runs).await;
            Loaded { namespace, runs, found }
        });
    }

    /// Takes runs that were loaded, or not: their commands take their turn.
    pub(super) fn loaded(&mut self, loaded: Result<Loaded, JoinError>) {
        let Loaded { namespace, mut runs, found } = match loaded {
            Ok(loaded) => loaded,
            Err(defect) => resume_unwind(defect.into_panic()),
        };
        if let (Some(line), Ok((read, found))) = (self.loads.lines.get_mut(&namespace), &found) {
            let bytes = found.iter().filter_map(|(_, one)| one.as_ref().ok()).map(|one| one.bytes);
            line.most = match bytes.sum::<u64>() {
                ..=BYTES if *read == runs.len() => (line.most * 2).min(AT_ONCE),
                ..=BYTES => line.most,
                _ => (line.most / 2).max(1),
            };
            for run in runs.drain(*read..).rev() {
                line.runs.push_front(run);
            }
        }
        let found = found.map(|(_, found)| found);
        let cold = runs.iter().filter_map(|run| Some((*run, self.loads.runs.remove(run)?)));
        let cold: Vec<(RunId, Cold)> = cold.collect();
        match found {
            Err(Error::Busy) => self.too_much_to_load(cold),
            found => {
                let found = found.map_err(|error| StoreError::NotCommitted(error.to_string()));
                self.found(cold, found);
            }
        }
        self.ask_for_runs(namespace);
    }

    fn found(&mut self, cold: Vec<(RunId, Cold)>, found: Result<Found, StoreError>) {
        let answered = found.is_ok();
        let stale: FastSet<RunId> =
            cold.iter().filter(|(_, cold)| cold.stale).map(|(run, _)| *run).collect();
        let found = found.map(|mut found| {
            found.retain(|(run, _)| {
                !stale.contains(run) && self.cache.get(*run).is_none() && !self.is_under_way(*run)
            });
            found
        });
        let asked: Vec<RunId> = cold.iter().map(|(run, _)| *run).collect();
        let (fresh, mut failed) = self.put_loaded(found, &asked);
        for (run, Cold { waiting, before, stale }) in cold {
            if let Some(failure) = failed.remove(&run) {
                self.not_loaded(run, waiting, &failure);
                continue;
            }
            let starts = |one: &Request| matches!(one.order, ShardCommand::Start(_));
            let unknown = answered && !stale && !fresh.contains(&run);
            let unknown = unknown && self.cache.get(run).is_none() && !waiting.iter().any(starts);
            let mut waiting = waiting.into_iter();
            if unknown {
                self.unknown(waiting.by_ref().take(before));
            }
            waiting.for_each(|envelope| self.enqueue(envelope));
        }
    }

    /// Handles a namespace with too much to load. Commands that stop something are still decided.
    fn too_much_to_load(&mut self, cold: Vec<(RunId, Cold)>) {
        let busy =
            StoreError::Retryable("too many runs of the namespace are to be loaded".to_owned());
        for mut envelope in cold.into_iter().flat_map(|(_, cold)| cold.waiting) {
            if envelope.urgent {
                self.enqueue(envelope);
            } else {
                envelope.answer(Err(Error::Busy));
                self.fail(envelope, &busy);
            }
        }
    }
}

/// Reads as many of `runs` as may be read together, and returns their number.
async fn read(node: &Node, namespace: &str, runs: &[RunId]) -> Result<(usize, Found), Error> {
    let mut connection = node.database.loader(namespace).await?;
    let read = journal::fitting(&mut connection, runs, QUESTION).await?;
    let found = load(node, &mut connection, &runs[..read], node.clock.now()).await?;
    Ok((read, found))
}

/// Reads runs and folds them. A defect in one costs that one.
pub(super) async fn load(
    node: &Node,
    connection: &mut PgConnection,
    runs: &[RunId],
    at: Time,
) -> Result<Found, StoreError> {
    let mut loaded = Vec::with_capacity(runs.len());
    for (run, stored) in journal::load(connection, runs).await? {
        let folded = AssertUnwindSafe(fold(&node.definitions, connection, run, stored, at));
        let folded = match folded.catch_unwind().await {
            Ok(folded) => folded,
            Err(panic) => {
                node.counters.bugs.one();
                Err(Error::Bug(text_of(panic.as_ref()).to_owned()))
            }
        };
        loaded.push((run, folded));
    }
    Ok(loaded)
}
