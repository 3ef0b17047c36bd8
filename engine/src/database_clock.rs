//! Makes a node's clock follow the database's, from the start of the node.

use std::time::Instant;

use backstitch_saga::Time;
use sqlx::postgres::PgConnection;

use crate::Error;
use crate::background::millis;
use crate::clock::{self, Set};
use crate::node::{Message, Node};
use crate::store::nodes;

async fn shown(node: &Node, connection: &mut PgConnection) -> Result<Time, Error> {
    let shown = nodes::clock(connection).await?;
    Ok(node.options.tuning.database_clock.map_or(shown, |other| other(shown)))
}

/// Sets the clock of a node that starts: by what the other nodes believe, where the database contradicts them.
pub(crate) async fn begin(node: &Node, connection: &mut PgConnection) -> Result<(), Error> {
    let elsewhere = nodes::elsewhere(connection, node.id).await?;
    let (shown, machine) = (shown(node, connection).await?, clock::of_machine());
    let dead_after = millis(node.options.tuning.dead_after);
    if let Some(now) = clock::unlike_shown(shown, machine, &elsewhere, dead_after) {
        node.clock.begin_with(now);
    }
    follow(node, connection).await
}

/// Sets the clock by the database's, and reports if that is not to be trusted.
pub(crate) async fn follow(node: &Node, connection: &mut PgConnection) -> Result<(), Error> {
    let asked = Instant::now();
    let shown = shown(node, connection).await?;
    match node.clock.set(shown, asked) {
        Set::Agreed { doubted: false } | Set::Doubted { first: false, .. } => {}
        Set::Agreed { doubted: true } => {
            tracing::info!("the database's clock agrees with this node's again");
        }
        Set::Doubted { ahead, first: true } => {
            node.counters.clock_doubts.one();
            let doubt_for = node.options.tuning.clock_doubt;
            tracing::warn!(
                ahead_ms = ahead,
                ?doubt_for,
                "the database's clock has jumped; this node keeps its own time until the jump has lasted"
            );
        }
        Set::Stepped { ahead } => {
            node.counters.clock_steps.one();
            tracing::warn!(ahead_ms = ahead, "this node follows the database's clock by a step");
            if ahead < 0 {
                for door in &node.shards {
                    // A shard that has ended has no timers.
                    let _ = door.inbox.send(Message::SteppedBack);
                }
                // Runs that were parked by the previous clock are checked by the present one.
                node.checked.begin_anew();
            }
        }
    }
    Ok(())
}
