//! Requests of people about reprocessing many documents, with views of it and of documents that cannot be mapped.

use backstitch_saga::protocol::{
    MappingProblem, MappingProblems, NewReprocess, Page, ReprocessState, ReprocessView,
};
use backstitch_saga::{By, Payload, Time, Timestamp};
use serde::Deserialize;
use sqlx::Connection;
use uuid::Uuid;

use super::doors::REMEMBER;
use crate::acts::must_have_reason;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::page::page;
use crate::store::acts::{self, Act, Thing};
use crate::store::listed;
use crate::store::partitions::first_id;
use crate::store::reprocesses::{self as table, Counts, ProblemRow, ReprocessRow};
use crate::{Engine, Error};

/// Those of a namespace that are at work.
pub const MOST_REPROCESSES: i64 = 10;
/// Number of unmapped documents whose reasons are read, and largest number of reasons.
const PROBLEMS: (i64, i64) = (10_000, 100);
/// The kind of the cursor of the list.
const CURSOR: char = 'd';

fn unknown(id: Uuid) -> Error {
    Error::NotFound {
        code: "unknown_reprocess",
        message: format!("there is no reprocess {id} in this namespace"),
    }
}

impl Engine {
    /// Begins to process documents again.
    ///
    /// # Errors
    /// [`Error::Refused`] without a reason; [`Error::Quota`] when too many of the namespace are at work.
    pub async fn create_reprocess(
        &self,
        namespace: &str,
        ask: &NewReprocess,
        by: &By,
    ) -> Result<ReprocessView, Error> {
        must_have_reason(by)?;
        let node = self.node();
        let now = node.clock.now();
        let asked = serde_json::to_string(ask).map_err(|error| Error::Bug(error.to_string()))?;
        let from = first_id(ask.from.map_or(Time(0), |Timestamp(at)| at)).as_u128();
        let row = ReprocessRow {
            id: node.clock.new_run().0,
            namespace: namespace.to_owned(),
            asked: asked.clone(),
            state: "running".to_owned(),
            after: Uuid::from_u128(from.saturating_sub(1)),
            until: first_id(ask.to.map_or(Time(now.0 + 1), |Timestamp(at)| at)),
            counts: Counts::default(),
            waits_for: None,
            actor: by.actor.to_string(),
            created_at: now,
            ended_at: None,
        };
        let name = row.id.to_string();
        let act = Act {
            namespace,
            thing: Thing::Job,
            name: &name,
            at: now,
            verb: "reprocess",
            by,
            detail: Some(asked),
        };
        // A correction of a moment ago counts, also one at another node.
        let due_at = now.after(REMEMBER.into());
        let mut connection = node.database.actor(namespace).await?;
        let mut transaction = connection.begin().await?;
        if !table::create(&mut transaction, &row, due_at, MOST_REPROCESSES).await? {
            let message = format!("a namespace has at most {MOST_REPROCESSES} at work");
            let retry_after = Some(std::time::Duration::from_secs(10));
            return Err(Error::Quota { code: "too_many_reprocesses", message, retry_after });
        }
        acts::add(&mut transaction, &act).await?;
        commit!("reprocess_create", transaction.commit().await)?;
        Ok(view(row))
    }

    /// Shows a reprocessing.
    ///
    /// # Errors
    /// [`Error::NotFound`].
    pub async fn reprocess(&self, namespace: &str, id: Uuid) -> Result<ReprocessView, Error> {
        let mut connection = self.node().database.reader(namespace).await?;
        let found = table::find(&mut connection, namespace, id).await?;
        found.map(view).ok_or_else(|| unknown(id))
    }

    /// Lists reprocessings, the newest first.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn reprocesses(
        &self,
        namespace: &str,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<ReprocessView>, Error> {
        let place = |text: &str| text.parse::<Uuid>().ok();
        let before = after.map(|text| Cursor::place(CURSOR, text, place)).transpose()?;
        let limit = limit.clamp(1, 1_000) as usize;
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let mut connection = self.node().database.lister(namespace).await?;
        let found = table::list(&mut connection, namespace, before, beyond).await;
        let views = listed(found)?.into_iter().map(view).collect();
        Ok(page(views, limit, |last: &ReprocessView| Cursor::of(CURSOR, &last.id.to_string())))
    }

    /// Stops a reprocessing. Written events stay.
    ///
    /// # Errors
    /// [`Error::NotFound`]; [`Error::Refused`] without a reason; [`Error::Conflict`] `reprocess_ended`.
    pub async fn stop_reprocess(
        &self,
        namespace: &str,
        id: Uuid,
        by: &By,
    ) -> Result<ReprocessView, Error> {
        must_have_reason(by)?;
        self.reprocess(namespace, id).await?;
        let at = self.node().clock.now();
        let mut connection = self.node().database.actor(namespace).await?;
        let mut transaction = connection.begin().await?;
        if !table::stop(&mut transaction, (namespace, id), at).await? {
            let message = format!("the reprocess {id} has ended");
            return Err(Error::Conflict { code: "reprocess_ended", message });
        }
        let name = id.to_string();
        let (thing, verb) = (Thing::Job, "stop");
        let act = Act { namespace, thing, name: &name, at, verb, by, detail: None };
        acts::add(&mut transaction, &act).await?;
        commit!("reprocess_create", transaction.commit().await)?;
        drop(connection);
        self.reprocess(namespace, id).await
    }

    /// Lists the reasons for which documents cannot be mapped, the most frequent first. Corrected reasons are left
    /// out.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn mapping_problems(
        &self,
        namespace: &str,
        source: Option<&str>,
    ) -> Result<MappingProblems, Error> {
        let _turn = self.node().database.page_turn(namespace).await?;
        let mut connection = self.node().database.lister(namespace).await?;
        let rows = listed(table::problems(&mut connection, namespace, source, PROBLEMS).await)?;
        let looked = rows.first().map_or(0, |row| row.looked);
        let told: i64 = rows.iter().map(|row| row.documents).sum();
        let items = rows.into_iter().map(problem).collect();
        Ok(MappingProblems { items, more: looked >= PROBLEMS.0 || told < looked })
    }
}

/// A failure as it is stored with its document.
#[derive(Debug, Default, Deserialize)]
struct Kept {
    #[serde(default)]
    message: String,
    #[serde(default)]
    value: Option<Payload>,
}

fn problem(row: ProblemRow) -> MappingProblem {
    let failures: Vec<Kept> = serde_json::from_str(&row.failures).unwrap_or_default();
    let Kept { message, value } = failures.into_iter().next().unwrap_or_default();
    MappingProblem {
        contract: row.contract,
        to: row.to,
        code: row.code,
        pointer: row.pointer,
        documents: row.documents.unsigned_abs(),
        first_at: Timestamp(row.first_at),
        last_at: Timestamp(row.last_at),
        intake_id: row.intake,
        message,
        value,
    }
}

fn view(row: ReprocessRow) -> ReprocessView {
    let Counts { changed, same, failed, refused, overtaken } = row.counts;
    ReprocessView {
        id: row.id,
        state: match row.state.as_str() {
            "running" => ReprocessState::Running,
            "done" => ReprocessState::Done,
            _ => ReprocessState::Stopped,
        },
        asked: Payload::trusted(row.asked).unwrap_or_else(|_| Payload::null()),
        changed: changed.unsigned_abs(),
        same: same.unsigned_abs(),
        failed: failed.unsigned_abs(),
        refused: refused.unsigned_abs(),
        overtaken: overtaken.unsigned_abs(),
        waits_for: row.waits_for,
        actor: row.actor,
        created_at: Timestamp(row.created_at),
        ended_at: row.ended_at.map(Timestamp),
    }
}
