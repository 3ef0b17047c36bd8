//! Lists of runs.

use std::sync::Arc;

use backstitch_saga::protocol::{Page, RunLine};

use crate::cursor::Cursor;
use crate::node::Node;
use crate::page::page;
use crate::{Error, RunFilter, store};

/// Lists runs, newest first.
pub(crate) async fn runs(
    node: &Arc<Node>,
    namespace: &str,
    filter: &RunFilter,
) -> Result<Page<RunLine>, Error> {
    let before = filter.after.as_deref().map(Cursor::run).transpose()?;
    let limit = filter.limit.clamp(1, 1_000) as usize;
    let texts = [
        &filter.workflow,
        &filter.key,
        &filter.condition,
        &filter.correlation_id,
        &filter.unknown_in,
        &filter.assignee,
    ];
    let labels = filter.labels.iter().flat_map(|(name, value)| [name, value]);
    let nul = texts.into_iter().flatten().chain(labels).any(|text| text.contains('\0'));
    if nul {
        // PostgreSQL has no such text, so nothing can match it.
        return Ok(Page { items: Vec::new(), next: None });
    }
    let mut connection = node.database.lister(namespace).await?;
    let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
    let lead = node.clock.lead();
    let list = store::run_lists::list(&mut connection, namespace, filter, lead, before, beyond);
    let found = list.await;
    let found = store::listed(found)?;
    Ok(page(found, limit, |line| Cursor::of_run(line.id.0)))
}
