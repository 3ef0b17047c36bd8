//! Keeps workers free for tasks over which a worker was lost, together with all other nodes. Who needs whom is known to
//! the hand-over (`dispatch/alone.rs`); here it is written down and read.

use std::sync::Arc;

use crate::Error;
use crate::background::millis;
use crate::crash::commit;
use crate::node::Node;
use crate::store::alone as table;

/// Multiple of `dead_after` for which a node may be dead before its kept workers are forgotten.
const FORGET_FACTOR: u32 = 3;

/// Keeps workers free, and hands out tasks that need one. Returns the number of tasks handed out.
pub(crate) async fn keep(node: &Arc<Node>) -> Result<usize, Error> {
    let keep = node.dispatcher.keep_free();
    let dead_after = node.options.tuning.dead_after;
    let mut connection = node.database.keepers.acquire().await?;
    if !keep.over.is_empty() {
        commit!("alone_give_up", table::give_up(&mut connection, node.id, &keep.over).await)?;
    }
    if !keep.ask.is_empty() {
        commit!("alone_ask", table::ask(&mut connection, node.id, &keep.ask).await)?;
    }
    let rows = table::all(&mut connection, node.id, millis(dead_after)).await?;
    if rows.iter().any(|row| row.node != node.id) {
        let gone_for = millis(dead_after.saturating_mul(FORGET_FACTOR));
        commit!("alone_forget", table::forget(&mut connection, gone_for).await)?;
    }
    let governed = |namespace: &str, queue: &str| node.flow.is_governed(namespace, queue);
    let next = node.dispatcher.kept_free(node.id, &rows, governed);
    if !next.agree.is_empty() {
        commit!("alone_agree", table::agree(&mut connection, node.id, &next.agree).await)?;
    }
    drop(connection);
    if next.permit {
        node.flow.ring();
    }
    node.look_up(next.look_up);
    let count = next.matches.len();
    node.hand_out(next.matches);
    Ok(count)
}
