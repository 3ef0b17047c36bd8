//! The event log: events are appended in batches, numbered after their commit, and read by position.
//!
//! `executor` appends as shards decide about runs: it loads what a batch of requests needs, decides by the rules of
//! `backstitch-integration`, writes everything in one statement, and decides again when a key or a stream was not as it was.
//! `numbering` gives batches that have become visible their positions. `append` takes requests, `emitted` what runs emit,
//! `reads` answers questions.

mod accepted;
mod append;
mod cursors;
mod draft;
mod emitted;
mod executor;
mod heads;
mod numbering;
mod reads;
mod rows;

use std::sync::Arc;
use std::sync::atomic::AtomicUsize;

use tokio::sync::{Notify, mpsc, watch};

use crate::admission::Admission;

pub(crate) use accepted::MappedEvent;
pub use append::MOST_EVENTS;
pub use cursors::MOST_CURSORS;
pub use draft::{EventDraft, read_cloud_event, read_cloud_events};
pub(crate) use emitted::{serve as serve_emitted, take as take_emitted};
pub(crate) use executor::Executor;
pub(crate) use heads::serve as serve_heads;
pub(crate) use numbering::{number, serve};
pub use reads::EventQuery;
pub(crate) use reads::{reached, view};
pub(crate) use rows::{trust_number, trust_of};

/// Sessions of the executors.
pub(crate) const SESSIONS: usize = 2;
/// How much of requests may wait, in units of [`UNIT`] bytes.
const WAITING: usize = 4_096;
/// A request counts as one unit for each so many bytes that it has begun.
const UNIT: usize = 16 * 1024;
/// The most bytes of requests that wait.
pub(crate) const WAITING_BYTES: usize = WAITING * UNIT;

/// What the parts of a node share about the log.
pub(crate) struct Log {
    requests: mpsc::UnboundedSender<executor::Message>,
    depth: Arc<AtomicUsize>,
    admission: Admission,
    /// Rings when something was appended that has no position yet.
    appended: Notify,
    /// Rings when runs have emitted something.
    emitted: Notify,
    /// Changes when positions were given.
    numbered: watch::Sender<u64>,
    /// What readers that wait here wait for.
    heads: heads::Heads,
}

impl Log {
    /// The door to the log, and the end at which its executor takes requests.
    pub(crate) fn new() -> (Log, mpsc::UnboundedReceiver<executor::Message>) {
        let (requests, outlet) = mpsc::unbounded_channel();
        let log = Log {
            requests,
            depth: Arc::default(),
            admission: Admission::new(WAITING),
            appended: Notify::new(),
            emitted: Notify::new(),
            numbered: watch::Sender::new(0),
            heads: heads::Heads::default(),
        };
        (log, outlet)
    }

    /// Waits until everything that was asked for before is done.
    pub(crate) async fn drain(&self) {
        let (done, drained) = tokio::sync::oneshot::channel();
        // An executor that is gone has nothing left to do.
        let _ = self.requests.send(executor::Message::Drain(done));
        let _ = drained.await;
    }

    /// What changes when positions are given.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.numbered.subscribe()
    }

    /// Has those look again who wait for positions to be given.
    pub(crate) fn wake_readers(&self) {
        self.numbered.send_modify(|rounds| *rounds += 1);
    }

    /// Says that runs have emitted something.
    pub(crate) fn ring_emitted(&self) {
        self.emitted.notify_one();
    }

    /// Says that batches wait for their positions.
    pub(crate) fn ring(&self) {
        self.appended.notify_one();
    }
}
