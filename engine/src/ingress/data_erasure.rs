//! Erases the data about an entity: documents, the data of events, identifiers, keys of repeats, and runs with the same
//! correlation ids.
//!
//! The erasure is recorded before it begins, so that another node continues it if this one dies. It is done twice, a
//! minute apart, for data that was being written during the first pass. Then the record is emptied, which names the
//! entity.

use std::collections::BTreeSet;
use std::sync::Arc;

use backstitch_integration::ingress::is_junk_value;
use backstitch_saga::protocol::{EraseData, EraseRun, ErasureState, ErasureView, Page};
use backstitch_saga::{By, RunId, Span, Timestamp, Violation};
use sqlx::Connection;
use uuid::Uuid;

use super::data_found::{Fate, Whole};
use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::log::{emitted_key_source, settle_emitted};
use crate::node::Node;
use crate::page::page;
use crate::store::acts::{self, Act, Thing};
use crate::store::data_erasures::{self as table, DataErasure};
use crate::store::listed;
use crate::{Engine, Error};

/// Delay before the second pass, and before a failed pass is repeated.
const AGAIN: Span = Span::secs(60);
/// Number of erasures in one pass.
const AT_ONCE: i64 = 10;
/// The kind of the cursor of the list.
const CURSOR: char = 'b';

fn unknown(id: Uuid) -> Error {
    Error::NotFound {
        code: "unknown_erasure",
        message: format!("there is no erasure {id} in this namespace"),
    }
}

impl Engine {
    /// Erases all of a stream, or all documents that had an identifier: their bytes, the data of their events and of
    /// those that these caused, and the runs with their correlation ids. Positions stay.
    ///
    /// # Errors
    /// [`Error::Invalid`] when it is not exactly one of both, or an identifier of nobody; [`Error::Refused`] without a
    /// reason.
    pub async fn erase_data(
        &self,
        namespace: &str,
        ask: &EraseData,
        by: &By,
    ) -> Result<ErasureView, Error> {
        must_have_reason(by)?;
        let wrong = match (&ask.stream, &ask.hint) {
            (Some(_), None) => None,
            (None, Some(hint))
                if is_junk_value(&hint.kind, &hint.value, hint.region.as_deref()) =>
            {
                Some((
                    "/hint/value",
                    "hint_is_junk",
                    "it identifies nobody, and may be in the documents of many",
                ))
            }
            (None, Some(_)) => None,
            _ => Some(("", "contradiction", "name either a stream or a hint")),
        };
        if let Some((place, code, message)) = wrong {
            return Err(Error::invalid("invalid_request", Violation::new(place, code, message)));
        }
        let node = self.node();
        let now = node.clock.now();
        let asked = EraseData { reason: String::new(), ..ask.clone() };
        let asked = serde_json::to_string(&asked).map_err(|error| Error::Bug(error.to_string()))?;
        let row = DataErasure {
            id: node.clock.new_run().0,
            namespace: namespace.to_owned(),
            asked: Some(asked),
            documents: 0,
            events: 0,
            runs: 0,
            runs_left: 0,
            passes: 0,
            waits_for: None,
            actor: by.actor.to_string(),
            reason: by.reason.clone(),
            created_at: now,
            ended_at: None,
        };
        let name = row.id.to_string();
        let (thing, verb) = (Thing::Job, "erase");
        let act = Act { namespace, thing, name: &name, at: now, verb, by, detail: None };
        let mut connection = node.database.actor(namespace).await?;
        let mut transaction = connection.begin().await?;
        table::create(&mut transaction, &row, now.after(AGAIN)).await?;
        acts::add(&mut transaction, &act).await?;
        commit!("data_erasure_create", transaction.commit().await)?;
        drop(connection);
        if let Err(error) = self.pass_data(&row).await {
            tracing::warn!(erasure = %row.id, error = error.for_log(), "data is erased later");
        }
        self.data_erasure(namespace, row.id).await
    }

    /// Shows an erasure.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn data_erasure(&self, namespace: &str, id: Uuid) -> Result<ErasureView, Error> {
        let mut connection = self.node().database.actor(namespace).await?;
        let found = table::find(&mut connection, namespace, id).await?;
        found.map(view).ok_or_else(|| unknown(id))
    }

    /// Lists erasures, the newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn data_erasures(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<ErasureView>, Error> {
        let place = |text: &str| text.parse::<Uuid>().ok();
        let before = after.map(|text| Cursor::place(CURSOR, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut connection = self.node().database.lister(namespace).await?;
        let found = table::list(&mut connection, namespace, before, beyond).await;
        let views = listed(found)?.into_iter().map(view).collect();
        Ok(page(views, limit, |last: &ErasureView| Cursor::of(CURSOR, &last.id.to_string())))
    }

    /// Erases what there is. The second pass is the last.
    async fn pass_data(&self, row: &DataErasure) -> Result<(), Error> {
        let node = self.node();
        let asked = row.asked.as_deref().unwrap_or_default();
        let ask: EraseData = serde_json::from_str(asked)
            .map_err(|error| Error::Bug(format!("erasure {}: {error}", row.id)))?;
        let mut left = BTreeSet::new();
        loop {
            self.await_emitted(row).await?;
            let mut whole = self.begin_whole(&row.namespace, &ask).await?;
            if whole.is_empty() {
                break;
            }
            let known = left.len();
            // Runs first: they are found by the correlation ids of existing events.
            self.erase_runs(row, &ask, &mut whole, &mut left).await?;
            let more = i64::try_from(left.len() - known).unwrap_or(i64::MAX);
            let (documents, events) = whole.into_lists();
            let mut connection = node.database.keepers.acquire().await?;
            let emitted = (&*emitted_key_source(), more);
            let erased = table::erase(&mut connection, row, (&documents, &events), emitted).await;
            commit!("data_erasure_erase", erased)?;
        }
        let mut connection = node.database.keepers.acquire().await?;
        if let Some(stream) = &ask.stream {
            let erased = table::erase_links(&mut connection, &row.namespace, stream).await;
            commit!("data_erasure_erase", erased)?;
        }
        let now = node.clock.now();
        let times = (row.passes > 0, now, now.after(AGAIN));
        Ok(commit!("data_erasure_pass", table::passed(&mut connection, row.id, times).await)?)
    }

    /// Waits until all that runs have emitted is in the log, where it is found.
    async fn await_emitted(&self, row: &DataErasure) -> Result<(), Error> {
        let settled = settle_emitted(self.node(), &row.namespace.as_str().into()).await;
        if matches!(settled, Ok(true)) {
            return Ok(());
        }
        self.note(row, (0, Some("what runs have emitted is on its way to the log"))).await?;
        settled.and(Err(Error::Busy))
    }

    /// Erases the runs from which documents and events came, and those that came from them, with their emitted events.
    async fn erase_runs(
        &self,
        row: &DataErasure,
        ask: &EraseData,
        whole: &mut Whole,
        left: &mut BTreeSet<Uuid>,
    ) -> Result<(), Error> {
        loop {
            let size = whole.size();
            for story in whole.stories() {
                let found = self.runs_of_story(&row.namespace, &story, whole).await;
                if let Err(error) = &found {
                    self.note(row, (0, Some(&error.to_string()))).await?;
                }
                for (run, fate) in found? {
                    match fate {
                        Fate::Goes => self.erase_run(row, ask, run).await?,
                        Fate::Stays => drop(left.insert(run.0)),
                    }
                }
            }
            self.await_emitted(row).await?;
            self.complete_whole(&row.namespace, whole).await?;
            if whole.size() == size {
                return Ok(());
            }
        }
    }

    /// Erases a run. One that has not ended is waited for, unless it may be killed.
    async fn erase_run(&self, row: &DataErasure, ask: &EraseData, run: RunId) -> Result<(), Error> {
        let by = By { actor: row.actor.as_str().into(), reason: row.reason.clone() };
        let erase = EraseRun { kill: ask.kill, reason: row.reason.clone() };
        match self.erase(&row.namespace, run, &erase, &by).await {
            Ok(_) => self.note(row, (1, None)).await,
            // It is erased with the run that it is a step of, or does not exist any more.
            Err(Error::Conflict { code: "not_the_root", .. } | Error::NotFound { .. }) => Ok(()),
            Err(error) => {
                self.note(row, (0, Some(&error.to_string()))).await?;
                Err(error)
            }
        }
    }

    /// Counts runs that were erased, or says for what it waits.
    async fn note(&self, row: &DataErasure, what: (i64, Option<&str>)) -> Result<(), Error> {
        let mut connection = self.node().database.keepers.acquire().await?;
        let noted = table::ran(&mut connection, row.id, what).await;
        Ok(commit!("data_erasure_erase", noted)?)
    }
}

/// Continues erasures. Returns the number of passes.
pub(crate) async fn erase_data(node: &Arc<Node>) -> Result<usize, Error> {
    let engine = Engine::for_background(node);
    let now = node.clock.now();
    let mut connection = node.database.keepers.acquire().await?;
    let due = table::due(&mut connection, (now, now.after(AGAIN)), AT_ONCE).await;
    let due = commit!("data_erasure_take", due)?;
    drop(connection);
    let mut passes = 0;
    for row in due {
        match engine.pass_data(&row).await {
            Ok(()) => passes += 1,
            Err(error) => {
                tracing::warn!(erasure = %row.id, error = error.for_log(), "data is erased later");
            }
        }
    }
    Ok(passes)
}

fn view(row: DataErasure) -> ErasureView {
    ErasureView {
        id: row.id,
        state: if row.ended_at.is_some() { ErasureState::Done } else { ErasureState::Running },
        documents: row.documents.unsigned_abs(),
        events: row.events.unsigned_abs(),
        runs: row.runs.unsigned_abs(),
        runs_left: row.runs_left.unsigned_abs(),
        waits_for: row.waits_for,
        actor: row.actor,
        reason: row.reason,
        created_at: Timestamp(row.created_at),
        ended_at: row.ended_at.map(Timestamp),
    }
}
