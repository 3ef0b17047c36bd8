//! Who waits at this node for the end of a run.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use backstitch_saga::RunId;
use backstitch_saga::protocol::RunView;
use tokio::sync::oneshot;

type Waiting = HashMap<RunId, HashMap<u64, oneshot::Sender<RunView>>>;

/// Who waits at this node for the end of a run.
#[derive(Debug, Default)]
pub(crate) struct Waiters {
    waiting: Mutex<Waiting>,
    count: AtomicUsize,
    next: AtomicU64,
}

/// One of those who wait. Forgotten when dropped.
pub(crate) struct Listener<'a> {
    waiters: &'a Waiters,
    run: RunId,
    number: u64,
    end: oneshot::Receiver<RunView>,
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

    /// The run has ended: whoever waits for it gets `view`.
    pub(crate) fn ended(&self, run: RunId, view: impl FnOnce() -> RunView) {
        if self.count.load(Ordering::Relaxed) == 0 {
            return;
        }
        let Some(listeners) = self.lock().remove(&run) else { return };
        let view = view();
        for listener in listeners.into_values() {
            // Whoever waited may have given up.
            let _ = listener.send(view.clone());
        }
    }
}

impl Listener<'_> {
    /// The run as it was at its end; for ever pending when that is not seen at this node.
    pub(crate) async fn view(&mut self) -> RunView {
        match (&mut self.end).await {
            Ok(view) => view,
            Err(_) => std::future::pending().await,
        }
    }
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
