//! Processes many documents again, in the order in which they came, a page at a time and in turn between namespaces.

use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::Span;
use backstitch_saga::protocol::NewReprocess;
use futures::future::join_all;

use super::again::{Again, Mode};
use super::reads::filter_of;
use super::unknown_source;
use crate::background::millis;
use crate::crash::commit;
use crate::node::Node;
use crate::store::intake::IntakeRow;
use crate::store::reprocesses::{self as table, Counts, ReprocessRow};
use crate::{Engine, Error};

/// Number of namespaces whose documents a node processes concurrently.
const AT_ONCE: i64 = 4;
/// The most documents of a page, and bytes beyond which none is added.
const PAGE: (i64, i64) = (100, 4 << 20);
/// Time for which a node has one to itself.
const TAKEN_FOR: Duration = Duration::from_secs(60);
/// Delay before it goes on after too much was waiting, or the database failed.
const AGAIN: Span = Span::secs(1);

/// Processes documents until none is due. Returns their number.
pub(crate) async fn reprocess(node: &Arc<Node>) -> Result<usize, Error> {
    let engine = Engine::for_background(node);
    let mut looked = 0;
    while !node.is_closing() {
        let now = node.clock.now();
        let until = now.after(TAKEN_FOR.into());
        let mut connection = node.database.keepers.acquire().await?;
        let whose = (node.id, millis(node.options.tuning.dead_after));
        let taken = table::take(&mut connection, whose, (now, until), AT_ONCE).await;
        let taken = commit!("reprocess_take", taken)?;
        drop(connection);
        if taken.is_empty() {
            break;
        }
        let works = taken.iter().map(async |row| match engine.next_page(row).await {
            Ok(count) => Ok(count),
            Err(error) => {
                tracing::warn!(reprocess = %row.id, error = error.for_log(), "documents are processed again later");
                let mut connection = node.database.keepers.acquire().await?;
                let (why, due_at) = ("too much waits, or the database failed", node.clock.now().after(AGAIN));
                let put_off = table::put_off(&mut connection, row.id, why, due_at).await;
                commit!("reprocess_count", put_off)?;
                Ok(0)
            }
        });
        for done in join_all(works).await {
            let done: Result<usize, Error> = done;
            looked += done?;
        }
    }
    Ok(looked)
}

impl Engine {
    /// Processes the next documents. Returns their number.
    async fn next_page(&self, row: &ReprocessRow) -> Result<usize, Error> {
        let node = self.node();
        let asked: NewReprocess = serde_json::from_str(&row.asked)
            .map_err(|error| Error::Bug(format!("reprocess {}: {error}", row.id)))?;
        let mode = if asked.dry_run { Mode::DryRun } else { Mode::Many(row.id) };
        let filter = filter_of(&asked);
        let mut connection = node.database.keepers.acquire().await?;
        let page = table::next(&mut connection, row, &filter, PAGE).await?;
        drop(connection);
        let (count, last) = (page.len(), page.last().map(|(intake, _)| intake.id));
        let mut counts = Counts::default();
        for (intake, raw) in page {
            let again = match raw {
                // By a node that died before it counted it.
                _ if intake.reprocess == Some(row.id) => Ok(Again::Changed),
                Some(raw) => self.one_of_many(&row.namespace, &intake, raw, mode).await,
                // It was erased.
                None => Ok(Again::Same),
            };
            let count = match again {
                Ok(Again::Changed) => &mut counts.changed,
                Ok(Again::Same) => &mut counts.same,
                Ok(Again::Refused) => &mut counts.refused,
                Ok(Again::Overtaken) => &mut counts.overtaken,
                Ok(Again::Failed) => &mut counts.failed,
                Err(error @ (Error::Busy | Error::Store(_) | Error::Quota { .. })) => {
                    return Err(error);
                }
                // Its source or its contract does not exist any more, or is damaged.
                Err(error) => {
                    tracing::debug!(intake = %intake.id, error = error.for_log(), "a document cannot be processed again");
                    &mut counts.failed
                }
            };
            *count += 1;
        }
        let mut connection = node.database.keepers.acquire().await?;
        let counted = table::count(&mut connection, row, (last, counts), node.clock.now()).await;
        commit!("reprocess_count", counted)?;
        Ok(count)
    }

    async fn one_of_many(
        &self,
        namespace: &str,
        intake: &IntakeRow,
        raw: Vec<u8>,
        mode: Mode,
    ) -> Result<Again, Error> {
        let found = self.open_source(namespace, &intake.source).await?;
        let open = found.ok_or_else(|| unknown_source(&intake.source))?;
        self.process_again(&open, intake, raw, mode).await
    }
}
