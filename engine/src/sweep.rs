//! Looks for runs without a node in charge that nothing will wake. There should be none. A found run is loaded, and the
//! rules decide if it is stuck. A run that waits for its turn among others is not stuck, but it must have its place.

use std::sync::{Arc, Mutex, PoisonError};

use uuid::Uuid;

use crate::Error;
use crate::charge::take_adrift;
use crate::node::Node;
use crate::sequence;
use crate::store::sweep;

/// Number of runs that one round checks.
const RUNS: i64 = 50_000;

/// The end of the last round.
#[derive(Debug, Default)]
pub(crate) struct Place(Mutex<Uuid>);

/// Runs one round. Returns the number of runs found.
pub(crate) async fn sweep(node: &Arc<Node>) -> Result<usize, Error> {
    let after = *node.swept.0.lock().unwrap_or_else(PoisonError::into_inner);
    let mut connection = node.database.keepers.acquire().await?;
    let found = sweep::adrift(&mut connection, after, RUNS).await?;
    drop(connection);
    // At the end it begins again.
    let full = i64::try_from(found.len()) == Ok(RUNS);
    let last = found.last().map(|(run, _)| run.0).filter(|_| full);
    let count = take_adrift(node, found).await?;
    *node.swept.0.lock().unwrap_or_else(PoisonError::into_inner) = last.unwrap_or_default();
    Ok(count + sequence::sweep_unplaced(node).await?)
}
