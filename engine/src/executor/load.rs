//! Folds runs from what is stored of them.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use backstitch_saga::{Run, RunId, Time};
use futures::FutureExt;
use sqlx::postgres::PgConnection;

use super::cache::CachedRun;
use super::collect::Works;
use super::decide::text_of;
use super::loads::{Found, load};
use super::request::{Request, ShardCommand};
use super::{OWN_RETRY_LATER, Shard, index};
use crate::Error;
use crate::cooperation::Pieces;
use crate::damage;
use crate::definitions::Definitions;
use crate::store::codec::{JournalRow, decode};
use crate::store::journal::{self, Stored};
use crate::store::{StoreError, batch::RunState};

/// The reason for which a run could not be loaded.
#[derive(Debug, Default)]
pub(super) struct Failure {
    text: String,
    /// Its journal cannot be read.
    damaged: bool,
}

impl Shard {
    /// Loads the runs of a batch that are not in memory. Returns those that were loaded just now; commands for
    /// runs that could not be loaded are answered and dropped.
    pub(super) async fn load_missing(&mut self, works: &mut Works) -> HashSet<RunId> {
        let missing: Vec<RunId> = works
            .iter()
            .filter(|(run, envelopes)| {
                let begins = envelopes.first().is_some_and(|first| {
                    matches!(first.order, ShardCommand::Start(_)) && first.tries == 0
                });
                // Runs that were not loaded beside the shard were in memory when they were taken.
                let loaded = envelopes.iter().any(|one| one.loaded);
                !begins && loaded && self.cache.get(*run).is_none()
            })
            .map(|(run, _)| *run)
            .collect();
        if missing.is_empty() {
            return HashSet::new();
        }
        let (node, at) = (Arc::clone(&self.node), self.node.clock.now());
        let loaded = match self.connection().await {
            Ok(connection) => load(&node, connection, &missing, at).await,
            Err(trouble) => Err(trouble),
        };
        if loaded.is_err() {
            self.connection = None;
        }
        let (fresh, mut failed) = self.put_loaded(loaded, &missing);
        let (bad, good) = works.drain(..).partition(|(run, _)| failed.contains_key(run));
        *works = good;
        let bad: Works = bad;
        for (run, envelopes) in bad {
            let failure = failed.remove(&run).unwrap_or_default();
            self.not_loaded(run, envelopes, &failure);
        }
        fresh
    }

    /// Puts runs that were loaded into memory. Returns which, and which of those that were asked for could not be
    /// loaded.
    pub(super) fn put_loaded(
        &mut self,
        loaded: Result<Found, StoreError>,
        asked: &[RunId],
    ) -> (HashSet<RunId>, HashMap<RunId, Failure>) {
        let mut fresh = HashSet::new();
        let mut failed: HashMap<RunId, Failure> = HashMap::new();
        match loaded {
            Ok(loaded) => {
                for (run, one) in loaded {
                    match one {
                        Ok(mut cached) => {
                            self.find_held(&mut cached);
                            self.node.dispatcher.loaded(&cached.namespace, &cached.run);
                            self.node.counters.loads.one();
                            fresh.insert(run);
                            self.cache.put(cached);
                        }
                        Err(error) => {
                            tracing::error!(%run, %error, "a run could not be loaded and is left alone");
                            let failure = match error {
                                Error::Damaged(what) => {
                                    damage::found(&self.node, run, &what);
                                    Failure { text: what, damaged: true }
                                }
                                other => Failure { text: other.to_string(), damaged: false },
                            };
                            failed.insert(run, failure);
                        }
                    }
                }
            }
            Err(trouble) => {
                tracing::warn!(error = trouble.message(), "runs could not be loaded");
                self.node.hearing.failed(self.node.clock.now());
                let failure = || Failure { text: trouble.message().to_owned(), damaged: false };
                failed.extend(asked.iter().map(|run| (*run, failure())));
            }
        }
        (fresh, failed)
    }

    /// Answers the commands for a run that could not be loaded.
    pub(super) fn not_loaded(&mut self, run: RunId, envelopes: Vec<Request>, failure: &Failure) {
        let trouble = StoreError::NotCommitted(failure.text.clone());
        for mut envelope in envelopes {
            if failure.damaged {
                envelope.answer(Err(Error::Damaged(failure.text.clone())));
            }
            self.fail(envelope, &trouble);
        }
        // A journal that cannot be read now will hardly be readable in a second.
        self.timers.clear(run);
        self.timers.set(run, self.node.clock.now().after(OWN_RETRY_LATER.into()), None);
    }

    /// Loads runs again that another node may have moved on.
    pub(super) fn look_up(&mut self, runs: Vec<RunId>) {
        for run in runs {
            self.loads.doubt(run);
            if !self.is_under_way(run) {
                drop(self.cache.take(run));
                let tick = ShardCommand::tick();
                self.wait(Request::own(run, tick));
            }
        }
    }

    /// Drops runs from memory whose journals were rewritten.
    pub(super) fn forget(&mut self, runs: &[RunId]) {
        for run in runs {
            self.loads.doubt(*run);
            if !self.is_under_way(*run) {
                drop(self.cache.take(*run));
            }
        }
    }

    /// Determines which of its tasks need permits and are held.
    fn find_held(&self, cached: &mut CachedRun) {
        let Some(governed) = self.node.flow.governed() else { return };
        let leased = cached.run.leased().into_iter();
        let held = leased.filter(|task| governed.of_task(&cached.run, task).is_some());
        cached.held = held.collect();
    }
}

/// Folds a run from what is stored of it.
pub(crate) async fn fold(
    definitions: &Definitions,
    connection: &mut PgConnection,
    id: RunId,
    mut stored: Stored,
    at: Time,
) -> Result<Box<CachedRun>, Error> {
    let mut begun = None;
    let mut documents = 0;
    if let Some(snapshot) = stored.snapshot.take() {
        documents += snapshot.state.len();
        let workflow = definitions.by_hash(connection, &snapshot.definition).await?;
        let graph = workflow.graph.clone();
        let restored = catch_unwind(AssertUnwindSafe(|| Run::restore(id, graph, &snapshot.state)));
        let restored = restored.unwrap_or_else(|panic| Err(text_of(panic.as_ref()).to_owned()));
        match restored {
            Ok(run) => begun = Some(run),
            Err(error) => {
                tracing::warn!(run = %id, error, "a snapshot cannot be read; the journal is read whole");
                stored.rows = journal::load_until(connection, id, i32::MAX).await?;
            }
        }
    }
    let texts = stored.rows.iter().filter_map(|row| row.payloads.as_ref());
    documents += texts.map(String::len).sum::<usize>();
    let snapshot_events = begun.as_ref().map_or(0, Run::events_folded);
    let run = fold_rows(definitions, connection, id, begun, &stored.rows).await?;
    #[cfg(feature = "planted-bugs")]
    let run = crate::planted::loaded(run);
    let state = index::state_of(&run, stored.node);
    let cached = CachedRun {
        namespace: run.namespace().into(),
        indexed: RunState { wake_at: None, ..state },
        open: run.open_effects(),
        spilled: run.offered().into_iter().collect::<BTreeSet<_>>(),
        fenced: run.fenced().into_iter().collect(),
        held: BTreeSet::new(),
        snapshot_events,
        moved_at: at,
        ahead: 0,
        bytes: 0,
        run,
    };
    let mut cached = Box::new(cached.read_from(documents));
    cached.meet(at);
    Ok(cached)
}

/// Folds records onto a run, or onto nothing. A journal that a defect keeps from being folded counts as damaged.
pub(crate) async fn fold_rows(
    definitions: &Definitions,
    connection: &mut PgConnection,
    id: RunId,
    begun: Option<Run>,
    rows: &[JournalRow],
) -> Result<Run, Error> {
    let folded = AssertUnwindSafe(fold_each(definitions, connection, id, begun, rows));
    folded.catch_unwind().await.unwrap_or_else(|panic| {
        let text = text_of(panic.as_ref());
        Err(Error::Damaged(format!("a defect keeps run {id} from being folded: {text}")))
    })
}

async fn fold_each(
    definitions: &Definitions,
    connection: &mut PgConnection,
    id: RunId,
    mut begun: Option<Run>,
    rows: &[JournalRow],
) -> Result<Run, Error> {
    let mut pieces = Pieces::default();
    for row in rows {
        pieces.done(row.bytes()).await;
        let record = decode(id, row).map_err(Error::Damaged)?;
        if begun.is_none() {
            let Some(start) = record.begun() else {
                return Err(Error::Damaged(format!(
                    "the journal of run {id} does not begin with a start"
                )));
            };
            let workflow = definitions.by_hash(connection, &start.definition).await?;
            begun = Some(Run::new(id, workflow.graph.clone()));
        }
        if let Some(run) = &mut begun {
            if i64::from(row.seq) != i64::try_from(run.seq()).unwrap_or(i64::MAX) + 1 {
                return Err(Error::Damaged(format!(
                    "the journal of run {id} has a gap before record {}",
                    row.seq
                )));
            }
            for definition in record.definitions() {
                run.learn(definitions.by_hash(connection, definition).await?.graph.clone());
            }
            run.try_apply(&record).map_err(|error| {
                Error::Damaged(format!("record {} of run {id} cannot be: {error}", row.seq))
            })?;
        }
    }
    begun.ok_or_else(|| Error::unknown_run(id))
}
