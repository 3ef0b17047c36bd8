//! Recent times of undoing the steps of a workflow, for runs with a deadline. It is read from the journals of the last
//! runs that were undone, when such a run is started, and kept for some minutes.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::Span;
use backstitch_saga::UndoTimes as Times;

use crate::Error;
use crate::node::Node;
use crate::store::codec::decode;
use crate::store::{journal, undo_times as table};

/// Number of runs that are read.
pub(crate) const RUNS: i64 = 20;
/// Among so many that were undone last in the namespace.
const LATELY: i64 = 1_000;
/// Number of records of each that are read, and their size in bytes.
const RECORDS: usize = 1_000;
const BYTES: usize = 256 * 1024;
/// Time for which an estimate is valid.
const FRESH: Duration = Duration::from_secs(300);
/// Number of workflows that are remembered.
pub(crate) const MOST: usize = 1_000;

/// Times by step.
type Estimate = Arc<BTreeMap<Arc<str>, Span>>;

/// Undo times that a node has read, with the time of reading, by namespace and workflow.
#[derive(Debug, Default)]
pub(crate) struct UndoTimes {
    kept: Mutex<HashMap<(String, String), (Instant, Estimate)>>,
}

impl UndoTimes {
    fn kept(&self, namespace: &str, workflow: &str) -> Option<(Instant, Estimate)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.get(&(namespace.to_owned(), workflow.to_owned())).cloned()
    }

    fn keep(&self, namespace: &str, workflow: &str, estimate: Estimate) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() >= MOST {
            kept.retain(|_, (read, _)| read.elapsed() < FRESH);
        }
        if kept.len() < MOST {
            kept.insert((namespace.to_owned(), workflow.to_owned()), (Instant::now(), estimate));
        }
    }
}

/// Returns the recent time of undoing each step of a workflow. A step without a recent undo is missing.
pub(crate) async fn of(node: &Node, namespace: &str, workflow: &str) -> Result<Estimate, Error> {
    let kept = node.undo_times.kept(namespace, workflow);
    match kept {
        Some((read, estimate)) if read.elapsed() < FRESH => Ok(estimate),
        kept => match read(node, namespace, workflow).await {
            Ok(estimate) => {
                node.undo_times.keep(namespace, workflow, Arc::clone(&estimate));
                Ok(estimate)
            }
            // An estimate of some minutes ago is better than none.
            Err(error) => kept.map(|(_, estimate)| estimate).ok_or(error),
        },
    }
}

async fn read(node: &Node, namespace: &str, workflow: &str) -> Result<Estimate, Error> {
    let mut connection = node.database.reader(namespace).await?;
    let mut times = Times::default();
    for run in table::undone(&mut connection, namespace, workflow, (LATELY, RUNS)).await? {
        let rows = journal::page(&mut connection, run, 1, RECORDS, BYTES).await?;
        let records: Result<Vec<_>, String> = rows.iter().map(|row| decode(run, row)).collect();
        // A damaged journal is reported elsewhere.
        if let Ok(records) = records {
            times.add(&records);
        }
    }
    Ok(Arc::new(times.estimate()))
}
