//! Compares the heads of logs with the positions that were given, and sets right those that differ.

use sqlx::postgres::PgConnection;

use crate::Error;
use crate::crash::commit;
use crate::node::Node;
use crate::store::log::{self as table, WrongHead};

/// Repairs lost or wrong heads after the namespace `after`. Returns their number, and the namespace after which more
/// may follow.
pub(crate) async fn check_heads(
    node: &Node,
    after: &str,
) -> Result<(usize, Option<String>), Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let found = table::wrong_heads(&mut connection, after).await?;
    let mut mended = 0;
    for head in &found.rows {
        if set_right(node, &mut connection, head).await? {
            mended += 1;
        }
    }
    Ok((mended, found.last))
}

async fn set_right(
    node: &Node,
    connection: &mut PgConnection,
    head: &WrongHead,
) -> Result<bool, Error> {
    let right = table::set_head_right(connection, head);
    if !commit!("log_head_mend", right.await)? {
        return Ok(false);
    }
    let (position, horizon) = head.right;
    tracing::warn!(
        namespace = head.namespace,
        position,
        horizon,
        "the head of a log was lost or wrong; it is set right by the positions that were given"
    );
    node.counters.log_heads_mended.one();
    node.log.wake_readers();
    Ok(true)
}

/// Tells which heads of logs are lost or wrong, and sets them right if asked.
pub(crate) async fn examine_heads(node: &Node, mend: bool) -> Result<Vec<String>, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    let mut told = Vec::new();
    let mut after = Some(String::new());
    while let Some(from) = after {
        let found = table::wrong_heads(&mut connection, &from).await?;
        for head in &found.rows {
            let (position, horizon) = head.right;
            told.push(format!(
                "the head of the log of namespace {}: {}, and the positions end at {position} and begin after {horizon}",
                head.namespace,
                match head.found {
                    Some((position, horizon)) => format!("position {position}, horizon {horizon}"),
                    None => "it has no row".to_owned(),
                }
            ));
            if mend {
                set_right(node, &mut connection, head).await?;
            }
        }
        after = found.last;
    }
    Ok(told)
}
