//! Workers, as known to all nodes: each node records the sessions that come and go.

use std::collections::HashMap;

use backstitch_saga::protocol::{Page, WorkerView};
use tokio::sync::Mutex;
use uuid::Uuid;

use crate::background::millis;
use crate::crash::commit;
use crate::cursor::Cursor;
use crate::node::Node;
use crate::store::listed;
use crate::store::workers::{self, Present};
use crate::{Engine, Error};

/// Sessions that this node has recorded.
#[derive(Debug, Default)]
pub(crate) struct Roster(Mutex<HashMap<Uuid, Present>>);

/// Records the sessions that came, changed or left since the last time. Returns their number.
pub(crate) async fn write_down(node: &Node) -> Result<usize, Error> {
    let mut written = node.roster.0.lock().await;
    let present: HashMap<Uuid, Present> =
        node.dispatcher.present().into_iter().map(|one| (one.session, one)).collect();
    let differs = |one: &&Present| written.get(&one.session) != Some(one);
    let come: Vec<Present> = present.values().filter(differs).cloned().collect();
    let gone: Vec<Uuid> =
        written.keys().filter(|session| !present.contains_key(session)).copied().collect();
    if come.is_empty() && gone.is_empty() {
        return Ok(0);
    }
    // A failed record is retried by the next round, since only recorded sessions are remembered.
    let mut connection = node.database.keepers.acquire().await?;
    if !come.is_empty() {
        commit!("workers_come", workers::come(&mut connection, node.id, &come).await)?;
    }
    if !gone.is_empty() {
        commit!("workers_go", workers::go(&mut connection, node.id, &gone).await)?;
    }
    let changed = come.len() + gone.len();
    *written = present;
    Ok(changed)
}

/// Writes down that a session has ended, at whatever node it asked.
pub(crate) async fn sign_off(node: &Node, namespace: &str, session: Uuid) -> Result<(), Error> {
    let mut written = node.roster.0.lock().await;
    let mut connection = node.database.keepers.acquire().await?;
    commit!("workers_sign_off", workers::sign_off(&mut connection, namespace, session).await)?;
    // Should it ask again after all, it is written down again.
    written.remove(&session);
    Ok(())
}

impl Engine {
    /// Lists the workers of a namespace by name; with `gone`, also those that left within the last
    /// hour.
    ///
    /// # Errors
    /// [`Error::Invalid`] when the cursor is not one of ours.
    pub async fn workers(
        &self,
        namespace: &str,
        gone: bool,
        after: Option<&str>,
        limit: u32,
    ) -> Result<Page<WorkerView>, Error> {
        let node = self.node();
        let after = after.map(Cursor::worker).transpose()?.unwrap_or_default();
        let limit = limit.clamp(1, 1_000) as usize;
        let mut connection = node.database.lister(namespace).await?;
        let dead_after = millis(node.options.tuning.dead_after);
        let beyond = i64::try_from(limit + 1).unwrap_or(i64::MAX);
        let found =
            workers::list(&mut connection, namespace, dead_after, &after, gone, beyond).await;
        let mut found = listed(found)?;
        let more = found.len() > limit;
        found.truncate(limit);
        let next = found
            .last()
            .filter(|_| more)
            .map(|(view, node)| Cursor::of_worker(&view.worker, view.session, *node));
        Ok(Page { items: found.into_iter().map(|(view, _)| view).collect(), next })
    }
}
