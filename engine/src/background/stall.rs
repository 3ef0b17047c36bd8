//! Batches that take long to be written: the time, and the session with the lock that they wait
//! for.

use std::time::Duration;

use crate::Error;
use crate::health::TOLD_AFTER;
use crate::node::Node;
use crate::store::blockers;

/// Time for which the cause of a stall is searched.
const LOOK_FOR: Duration = Duration::from_secs(1);

/// Finds the session that holds up a batch that takes long, and reports it once.
pub(super) async fn look(node: &Node) {
    let Some(age) = node.health.write_age().filter(|age| *age > TOLD_AFTER) else {
        node.health.held_up_by(None);
        return;
    };
    if node.health.is_held_up() {
        return;
    }
    let blocker = find(node).await.unwrap_or_else(|error| {
        tracing::debug!(%error, "who holds up a batch could not be found out");
        None
    });
    let what = match blocker {
        Some(blocker) => format!("{blocker} holds a lock that it needs"),
        None => "PostgreSQL does not answer, or is slow".to_owned(),
    };
    tracing::warn!(seconds = age.as_secs(), what, "a batch of this node is held up");
    node.health.held_up_by(Some(what));
}

async fn find(node: &Node) -> Result<Option<String>, Error> {
    let acquired = tokio::time::timeout(LOOK_FOR, node.database.keepers.acquire()).await;
    let Ok(connection) = acquired else { return Ok(None) };
    let mut connection = connection?;
    let found = tokio::time::timeout(LOOK_FOR, blockers::blocker(&mut connection)).await;
    let Ok(blocker) = found else {
        // Its answer is on its way, and must not reach another caller.
        connection.close_on_drop();
        return Ok(None);
    };
    Ok(blocker?)
}
