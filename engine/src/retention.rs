//! Deletes ended runs past retention: whole weeks are dropped, and if a kept run holds its week, or a workflow has a
//! shorter retention than the server, runs are deleted one by one.
//!
//! A walk over the weeks that cannot be dropped begins every hour and checks a bounded number of runs at a time. It
//! keeps its place in memory: after the death of a node it begins again, and two nodes that delete the same runs do no
//! harm.

pub(crate) mod own;

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstitch_saga::protocol::HeldWeek;
use backstitch_saga::{Span, Time, Timestamp};
use sqlx::Postgres;
use sqlx::pool::PoolConnection;

use crate::Error;
use crate::crash::commit;
use crate::node::Node;
use crate::store::partitions::{self, first_id_of_week};
use crate::store::retention::{self as table, Cutoff, Holding, Range};
use crate::store::{StoreError, erasures};

/// Interval at which an unfinished walk goes on.
pub(crate) const EVERY: Duration = Duration::from_secs(30);
/// Time of each pass.
const BUDGET: Duration = Duration::from_secs(10);
/// Number of runs in one query.
const PAGE: i64 = 500;
/// Records that are deleted in one transaction, unless one run has more.
const RECORDS: i32 = 20_000;
/// Number of tries of a page in a row while others are in the way, and their delay.
const TRIES: u32 = 5;
const PAUSE: Duration = Duration::from_millis(50);
/// Number of failed tries in a row to drop weeks that are being read, before their runs are deleted one by
/// one.
const PATIENCE: u32 = 20;
/// Number of weeks that are listed for a namespace whose runs hold them.
const WEEKS: usize = 60;

/// State of the walk, and of the last check of the weeks.
#[derive(Debug, Default)]
pub(crate) struct Walk {
    progress: Mutex<Progress>,
    /// Held during a pass: one at a time.
    turn: tokio::sync::Mutex<()>,
}

#[derive(Debug, Default)]
struct Progress {
    /// The ranges of the walk.
    all: Vec<Range>,
    /// The rest of them, the next last.
    left: Vec<Range>,
    /// It is walked once more: runs were deleted since it began, and those that are their steps may go now; or what it
    /// is over has changed.
    again: bool,
    held: Vec<(Time, Holding)>,
    /// Number of times in a row that weeks could not be dropped because they were being read.
    put_off: u32,
}

/// Result for one page of runs.
struct Step {
    /// The last run that was checked, if there may be more.
    last: Option<uuid::Uuid>,
    /// `true` if all runs that can be deleted are deleted.
    done: bool,
    deleted: usize,
}

impl Progress {
    /// Goes on after the last run of a page, or with the next range when there was no more.
    fn looked_at(&mut self, last: Option<uuid::Uuid>) {
        match (self.left.last_mut(), last) {
            (Some(range), Some(last)) => range.after = last,
            _ => drop(self.left.pop()),
        }
        if self.left.is_empty() && std::mem::take(&mut self.again) {
            self.left.clone_from(&self.all);
        }
    }
}

impl Walk {
    fn change<T>(&self, change: impl FnOnce(&mut Progress) -> T) -> T {
        change(&mut self.progress.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Returns the weeks that runs of a namespace keep, the oldest first.
    pub(crate) fn held_by(&self, namespace: &str) -> Vec<HeldWeek> {
        let view = |(week, holding): &(Time, Holding)| HeldWeek {
            week: Timestamp(*week),
            runs: u64::try_from(holding.runs).unwrap_or_default(),
            oldest_run: holding.oldest,
            oldest_started_at: Timestamp(holding.started_at),
        };
        self.change(|progress| {
            let ours = progress.held.iter().filter(|(_, holding)| holding.namespace == namespace);
            ours.take(WEEKS).map(view).collect()
        })
    }
}

/// Returns the time before which a run must have ended to be past retention now; `None` when runs are kept for ever, or
/// when the clock was stepped ahead lately and ages are in doubt.
pub(crate) fn before(node: &Node) -> Option<Time> {
    if node.clock.leapt_lately() {
        return None;
    }
    let keep = Span::from(node.options.retention?).0;
    Some(Time(node.clock.now().0.saturating_sub_unsigned(keep)))
}

/// Returns the time such that runs that ended before it are past retention now.
fn cutoff(node: &Node) -> Cutoff {
    Cutoff { now: node.clock.now(), before: before(node) }
}

/// Drops the weeks that can be dropped, finds out what keeps the others, and begins a walk over those and over the
/// workflows that are kept shorter.
pub(crate) async fn begin(
    node: &Node,
    mut connection: PoolConnection<Postgres>,
) -> Result<(), Error> {
    // Ages are in doubt, by whichever retention.
    if node.clock.leapt_lately() {
        return Ok(());
    }
    let cutoff = cutoff(node);
    let mut all = own::shorter(&mut connection, cutoff).await?;
    let (mut held, mut put_off) = (Vec::new(), 0);
    if let Some(before) = cutoff.before {
        let dropped = partitions::drop_ended(&mut connection, before, cutoff).await;
        let dropped = commit!("partitions_drop", dropped)?;
        node.counters.partitions_dropped.add(dropped.weeks);
        let of_events = partitions::drop_events(&mut connection, before).await;
        let of_events = commit!("log_drop", of_events)?;
        node.counters.event_weeks_dropped.add(of_events);
        node.counters.drops_put_off.add(dropped.put_off);
        held = dropped.held;
        if dropped.put_off > 0 {
            put_off = node.retention.change(|progress| progress.put_off) + 1;
        }
        if !is_waited_for(put_off) {
            all.push(Range::from_the_first(None, first_id_of_week(before)));
        }
    }
    drop(connection);
    node.retention.change(|progress| {
        progress.held = held;
        progress.put_off = put_off;
        // One that is under way comes to most of what is new, and to all of it the next time.
        match progress.left.is_empty() {
            true => progress.left.clone_from(&all),
            false => progress.again = true,
        }
        progress.all = all;
    });
    walk(node).await?;
    forget_keys(node).await
}

/// Frees the keys of erased runs of which nothing is left.
async fn forget_keys(node: &Node) -> Result<(), Error> {
    let mut connection = node.database.keepers.acquire().await?;
    commit!("erasures_done", erasures::forget_keys(&mut connection).await)?;
    Ok(())
}

/// Returns whether weeks that could not be dropped so often in a row are retried soon.
fn is_waited_for(put_off: u32) -> bool {
    (1..=PATIENCE).contains(&put_off)
}

/// Continues: drops the weeks that were being read at the last try, or continues the walk.
pub(crate) async fn go_on(node: &Node) -> Result<usize, Error> {
    if node.retention.change(|progress| is_waited_for(progress.put_off)) {
        let connection = node.database.keepers.acquire().await?;
        return begin(node, connection).await.map(|()| 0);
    }
    let deleted = walk(node).await?;
    if deleted > 0 {
        forget_keys(node).await?;
    }
    Ok(deleted)
}

/// Continues the walk. Returns the number of deleted runs.
async fn walk(node: &Node) -> Result<usize, Error> {
    let _turn = node.retention.turn.lock().await;
    let began = Instant::now();
    let (mut deleted, mut tries) = (0, 0);
    while began.elapsed() < BUDGET && tries < TRIES && !node.clock.leapt_lately() {
        let place = node.retention.change(|progress| progress.left.last().cloned());
        let Some(range) = place else { break };
        let step = match step(node, &range).await {
            Ok(step) => step,
            Err(StoreError::Retryable(error)) => {
                tracing::debug!(error, "others are in the way of deleting ended runs");
                Step { last: None, done: false, deleted: 0 }
            }
            Err(trouble) => return Err(trouble.into()),
        };
        deleted += step.deleted;
        node.retention.change(|progress| {
            progress.again |= step.deleted > 0;
            if step.done {
                progress.looked_at(step.last);
            }
        });
        if step.done {
            tries = 0;
        } else {
            tries += 1;
            tokio::time::sleep(PAUSE).await;
        }
    }
    Ok(deleted)
}

/// Deletes those of the next runs that are past retention.
async fn step(node: &Node, range: &Range) -> Result<Step, StoreError> {
    let mut connection = node.database.keepers.acquire().await?;
    let cutoff = cutoff(node);
    let (last, past) = table::page(&mut connection, range, cutoff, PAGE).await?;
    let (mut left, mut deleted) = (past.as_slice(), 0);
    while !left.is_empty() {
        let gone = commit!(
            "retention_delete",
            table::delete(&mut connection, left, cutoff.before, RECORDS).await
        );
        match gone.map_err(StoreError::from) {
            Ok((gone, looked)) => {
                node.counters.runs_deleted.add(gone);
                deleted += gone;
                let place = looked.and_then(|run| left.iter().position(|one| *one == run));
                left = place.map_or(&[], |place| &left[place + 1..]);
            }
            // Deleted runs are counted, and the page is read again.
            Err(StoreError::Retryable(_)) if deleted > 0 => {
                return Ok(Step { last, done: false, deleted });
            }
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(Step { last, done: true, deleted })
}
