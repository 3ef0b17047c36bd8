//! Runs whose journals cannot be read, or whose timers a defect stops: each is put aside with an incident of its own,
//! so that nothing waits for it. The check of the indexes reads it again from time to time; once its journal is
//! repaired, its index rows are repaired and it goes on.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::{IncidentKind, RunId, fingerprint};

use crate::Error;
use crate::crash::commit;
use crate::executor::poison::TRIES;
use crate::node::Node;
use crate::store::batch::printable;
use crate::store::damage::{self as table, Damage};
use crate::store::migrations;

/// The condition of a run whose journal cannot be read.
pub(crate) const UNREADABLE: &str = "JournalDamaged";
/// The condition of a run whose timer a defect stops.
pub(crate) const STOPPED: &str = "TimerStopped";
/// Shortest interval at which a run is put aside.
const AGAIN_AFTER: Duration = Duration::from_secs(10);
/// Number of runs that are remembered as put aside.
const MOST: usize = 1_000;

/// Runs that were put aside lately.
#[derive(Debug, Default)]
pub(crate) struct Lately(Mutex<HashMap<RunId, Instant>>);

impl Lately {
    /// Returns whether the run is to be put aside now.
    fn is_new(&self, run: RunId) -> bool {
        let now = Instant::now();
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if known.len() >= MOST {
            known.retain(|_, at| now.duration_since(*at) < AGAIN_AFTER);
        }
        let last = known.insert(run, now);
        last.is_none_or(|at| now.duration_since(at) >= AGAIN_AFTER)
    }
}

/// Puts a run aside soon, without waiting for it.
pub(crate) fn found(node: &Arc<Node>, run: RunId, what: &str) {
    if node.damaged.is_new(run) {
        let (node, what) = (Arc::clone(node), what.to_owned());
        tokio::spawn(async move {
            put_aside_soon(&node, run, &what, IncidentKind::JournalDamaged).await;
        });
    }
}

/// Notes that a defect stopped what was due of a run: `what` is the defect's message. It is counted in the database, so
/// that it counts also after this node has stopped; once it failed often enough, or `enough` says so, the run is put
/// aside.
pub(crate) fn timer_failed(node: &Arc<Node>, run: RunId, what: String, enough: bool) {
    let node = Arc::clone(node);
    tokio::spawn(async move {
        let enough = enough || count(&node, run).await >= i64::from(TRIES);
        if !enough {
            return;
        }
        let what = format!(
            "a defect stopped what was due of the run, {TRIES} times ({what}); it is tried again when somebody acts on the run, or by \
             backstitch doctor --mend"
        );
        if put_aside_soon(&node, run, &what, IncidentKind::RunStuck).await {
            node.timers_over(vec![run]);
        }
    });
}

/// Counts a failure of a timer. Returns the number of failures in a row; zero if it cannot be
/// determined.
async fn count(node: &Node, run: RunId) -> i64 {
    let counted = async {
        let mut connection = node.database.keepers.acquire().await?;
        Ok::<i64, Error>(commit!("timers_failed", table::timer_failed(&mut connection, run).await)?)
    };
    counted.await.unwrap_or_else(|error| {
        tracing::warn!(%run, %error, "a failure of a timer could not be counted");
        0
    })
}

/// Puts a run aside, or says in the log why not. Returns whether it is.
async fn put_aside_soon(node: &Node, run: RunId, what: &str, kind: IncidentKind) -> bool {
    let put = put_aside_as(node, run, what, kind).await;
    if let Err(error) = &put {
        tracing::warn!(%run, %error, "a run could not be put aside; it is tried again");
    }
    put.is_ok()
}

/// Puts a run aside whose journal cannot be read.
pub(crate) async fn put_aside(node: &Node, run: RunId, what: &str) -> Result<(), Error> {
    put_aside_as(node, run, what, IncidentKind::JournalDamaged).await
}

/// Puts a run aside: it gets the condition `JournalDamaged` or `TimerStopped` and an open incident, and its timers are
/// not looked after.
async fn put_aside_as(
    node: &Node,
    run: RunId,
    what: &str,
    kind: IncidentKind,
) -> Result<(), Error> {
    let mut connection = node.database.keepers.acquire().await?;
    if migrations::is_newer(&mut connection).await? {
        tracing::warn!(%run, what, "a run cannot be read by this node and is left to newer ones");
        return Ok(());
    }
    let condition = match kind {
        IncidentKind::JournalDamaged => UNREADABLE,
        _ => STOPPED,
    };
    let message = printable(what);
    let damage = Damage {
        run,
        kind: kind.as_str(),
        condition,
        fingerprint: fingerprint("", None, kind, Some(kind.as_str()), ""),
        message: &message,
        at: node.clock.now(),
    };
    if commit!("runs_put_aside", table::put_aside(&mut connection, &damage).await)? {
        node.counters.damaged.one();
        tracing::error!(%run, what, condition, "a run is put aside");
    }
    Ok(())
}
