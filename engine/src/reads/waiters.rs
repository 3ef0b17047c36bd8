//! Clients that wait at this node for the end of a run.

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstitch_saga::RunId;
use backstitch_saga::protocol::RunView;
use tokio::sync::oneshot;

use crate::Error;
use crate::node::Node;
use crate::store::runs;

/// Interval at which runs with waiting clients are read, in case other nodes ended them.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(250);
/// Number of runs in one read; the others follow in the next.
const LOOKED_UP: usize = 1_000;

/// The end of a run, as it was noticed.
#[derive(Debug)]
pub(crate) enum End {
    /// At this node: the run as it was then.
    Here(Box<RunView>),
    /// In the database, where another node wrote it.
    Elsewhere,
}

type Waiting = BTreeMap<RunId, HashMap<u64, oneshot::Sender<End>>>;

/// Clients that wait at this node for the end of a run.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: Mutex<Waiting>,
    /// The last run that was looked up.
    looked_up: Mutex<Option<RunId>>,
    count: AtomicUsize,
    next: AtomicU64,
}

/// One of those who wait. Forgotten when dropped.
pub(crate) struct Listener<'a> {
    waiters: &'a Waiters,
    run: RunId,
    number: u64,
    end: oneshot::Receiver<End>,
}

impl Waiters {
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Waits for the end of `run` from now on.
    pub(crate) fn listen(&self, run: RunId) -> Listener<'_> {
        let (send, end) = oneshot::channel();
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.lock().entry(run).or_default().insert(number, send);
        self.count.fetch_add(1, Ordering::Relaxed);
        Listener { waiters: self, run, number, end }
    }

    /// Sends `view` to the clients that wait for a run that has ended.
    pub(crate) fn ended(&self, run: RunId, view: impl FnOnce() -> RunView) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(listeners) = self.lock().remove(&run) else { return };
        let view = view();
        for listener in listeners.into_values() {
            // The client may have given up.
            let _ = listener.send(End::Here(Box::new(view.clone())));
        }
    }

    /// Notifies the clients that wait for runs which other nodes have ended.
    fn ended_elsewhere(&self, runs: &[RunId]) {
        let mut waiting = self.lock();
        for listener in runs.iter().filter_map(|run| waiting.remove(run)).flatten() {
            // The client may have given up.
            let _ = listener.1.send(End::Elsewhere);
        }
    }

    /// Returns the next of the runs that are waited for, at most `most`, in turns.
    fn next(&self, most: usize) -> Vec<RunId> {
        if self.count.load(Ordering::Relaxed) == 0 {
            return Vec::new();
        }
        let mut looked_up = self.looked_up.lock().unwrap_or_else(PoisonError::into_inner);
        let after = looked_up.map_or(Bound::Unbounded, Bound::Excluded);
        let waiting = self.lock();
        let mut next: Vec<RunId> =
            waiting.range((after, Bound::Unbounded)).take(most).map(|(run, _)| *run).collect();
        let left = most - next.len();
        if let Bound::Excluded(last) = after {
            next.extend(waiting.range(..=last).take(left).map(|(run, _)| *run));
        }
        *looked_up = next.last().copied();
        next
    }
}

impl Listener<'_> {
    /// Waits until the run is seen to have ended.
    pub(crate) async fn seen(&mut self) -> End {
        match (&mut self.end).await {
            Ok(end) => end,
            Err(_) => std::future::pending().await,
        }
    }
}

/// Checks if other nodes have ended runs that clients wait for here: one query for all. Returns the number of ended
/// runs.
pub(crate) async fn look(node: &Node) -> Result<usize, Error> {
    let runs = node.waiters.next(LOOKED_UP);
    if runs.is_empty() {
        return Ok(0);
    }
    let mut connection = node.database.keepers.acquire().await?;
    let ended = runs::ended_of(&mut connection, &runs).await?;
    drop(connection);
    node.waiters.ended_elsewhere(&ended);
    Ok(ended.len())
}

impl Drop for Listener<'_> {
    fn drop(&mut self) {
        self.waiters.count.fetch_sub(1, Ordering::Relaxed);
        let mut waiting = self.waiters.lock();
        if let Some(listeners) = waiting.get_mut(&self.run) {
            listeners.remove(&self.number);
            if listeners.is_empty() {
                waiting.remove(&self.run);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn run(number: u128) -> RunId {
        RunId(Uuid::from_u128(number))
    }

    #[tokio::test]
    async fn runs_that_are_waited_for_are_looked_up_in_turns_and_once_however_many_wait() {
        let waiters = Waiters::default();
        assert!(waiters.next(2).is_empty());
        let mut first = waiters.listen(run(1));
        let listeners: Vec<_> = [1, 2, 3, 3, 3].map(|number| waiters.listen(run(number))).into();
        assert_eq!(waiters.next(2), [run(1), run(2)]);
        assert_eq!(waiters.next(2), [run(3), run(1)]);
        assert_eq!(waiters.next(5), [run(2), run(3), run(1)]);
        waiters.ended_elsewhere(&[run(1)]);
        assert!(matches!(first.seen().await, End::Elsewhere));
        assert_eq!(waiters.next(5), [run(2), run(3)]);
        drop((first, listeners));
        assert!(waiters.next(5).is_empty() && waiters.lock().is_empty());
    }
}
