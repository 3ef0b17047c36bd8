//! Gives events their positions: one look at a time over all nodes for each namespace, as fast as batches become
//! visible.

use std::sync::Arc;

use backstitch_saga::Time;
use sqlx::Connection;

use crate::Error;
use crate::background::{BackgroundTask, once};
use crate::crash::commit;
use crate::node::Node;
use crate::store::log as table;
use crate::store::moment::Moment;

/// Numbers batches when something was appended here, and now and then, since others append, too.
pub(crate) async fn serve(node: Arc<Node>) {
    let every = node.options.tuning.log_every;
    loop {
        // Woken or not, it looks for waiting batches.
        let _ = tokio::time::timeout(every, node.log.appended.notified()).await;
        match once(&node, BackgroundTask::Number).await {
            Ok(0) => {}
            // A constant flow of events is numbered together.
            Ok(_) => tokio::time::sleep(super::BREATH).await,
            Err(error) => {
                tracing::warn!(%error, "giving events their positions failed and is tried again");
                tokio::time::sleep(every).await;
            }
        }
    }
}

/// Numbers all announced batches, in turns between namespaces. Returns their number.
pub(crate) async fn number(node: &Arc<Node>) -> Result<usize, Error> {
    let (mut batches, mut before) = (0, 0);
    let mut after = String::new();
    loop {
        let mut connection = node.database.keepers.acquire().await?;
        let found = table::due(&mut connection, &after).await?;
        let mut more = false;
        if !found.rows.is_empty() {
            if batches == 0 && node.log.is_time_to_look_back() {
                look_back(node, &mut connection).await?;
            }
            let mut transaction = connection.begin().await?;
            let numbered = table::number(&mut transaction, &found.rows).await?;
            commit!("log_number", transaction.commit().await)?;
            batches += usize::try_from(numbered.batches).unwrap_or_default();
            node.counters.events_numbered.add(usize::try_from(numbered.events).unwrap_or_default());
            more = numbered.more;
            node.log.wake_readers();
        }
        after = match found.last {
            Some(last) => last,
            // Those with more than their turn have another one.
            None if more && batches > before => {
                before = batches;
                String::new()
            }
            None => break,
        };
    }
    if batches == 0 {
        node.counters.log_backlog.set(0);
        node.counters.log_backlog_age.set(0);
    }
    Ok(batches)
}

/// Records the number of waiting batches, and the age of the oldest.
async fn look_back(
    node: &Node,
    connection: &mut sqlx::postgres::PgConnection,
) -> Result<(), Error> {
    let backlog = table::backlog(connection).await?;
    let now = node.clock.now();
    let oldest = backlog.oldest.map_or(now, |Moment(at): Moment| at);
    let age = Time(now.0.saturating_sub(oldest.0)).0;
    node.counters.log_backlog.set(usize::try_from(backlog.batches).unwrap_or_default());
    node.counters.log_backlog_age.set(usize::try_from(age).unwrap_or_default());
    Ok(())
}
