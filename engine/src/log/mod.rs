//! The event log: events are appended in batches, numbered after their commit, and read by position.
//!
//! `executor` appends as shards decide about runs: it loads what a batch of requests needs, decides by the rules of
//! `backstitch-integration`, writes everything in one statement, and decides again when a key or a stream was not as it
//! was. `numbering` gives batches that have become visible their positions. `append` takes requests, `emitted` what
//! runs emit, `reads` answers questions.

mod accepted;
mod append;
mod cursors;
mod draft;
mod emitted;
mod executor;
mod heads;
mod mend;
mod numbering;
mod reads;
mod rows;

use std::sync::atomic::AtomicUsize;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, mpsc, watch};

use crate::Error;
use crate::admission::Admission;

pub(crate) use accepted::MappedEvent;
pub use append::MOST_EVENTS;
pub use cursors::MOST_CURSORS;
pub use draft::{EventDraft, read_cloud_event, read_cloud_events};
pub(crate) use emitted::{
    key_source as emitted_key_source, serve as serve_emitted, settle as settle_emitted,
    take as take_emitted,
};
pub(crate) use executor::Executor;
pub(crate) use heads::serve as serve_heads;
pub(crate) use mend::{check_heads, check_positions, examine_heads, restore_positions};
pub(crate) use numbering::{number, serve};
pub use reads::EventQuery;
pub(crate) use reads::{reached, view};
pub(crate) use rows::{trust_number, trust_of};

/// Sessions of the executors.
pub(crate) const SESSIONS: usize = 2;
/// Size of the requests that may wait, in units of [`UNIT`] bytes.
const WAITING: usize = 4_096;
/// A request counts as one unit for each so many bytes that it has begun.
const UNIT: usize = 16 * 1024;
/// The most bytes of requests that wait.
pub(crate) const WAITING_BYTES: usize = WAITING * UNIT;

/// Time for which events may collect before the next look, while there are always some.
const BREATH: Duration = Duration::from_millis(10);
/// Shortest interval of log messages about an event that cannot be read.
const TELL_EVERY: Duration = Duration::from_secs(60);
/// Shortest interval of counts of the events that wait for positions.
const LOOK_BACK_EVERY: Duration = Duration::from_millis(500);

/// State of the log that the parts of a node share.
pub(crate) struct Log {
    requests: mpsc::UnboundedSender<executor::Message>,
    depth: Arc<AtomicUsize>,
    admission: Admission,
    /// Rings when something was appended that has no position yet.
    appended: Notify,
    /// Time of the last log message about an emitted event that cannot be read.
    damage_told: Mutex<Option<Instant>>,
    /// Time of the last count of waiting events.
    looked_back: Mutex<Option<Instant>>,
    /// Rings when runs have emitted something.
    emitted: Notify,
    /// Batches without a position that the check of indexes has found.
    unnumbered: mend::Found,
    /// Changes when positions were given.
    numbered: watch::Sender<u64>,
    /// Heads that readers at this node wait for.
    heads: heads::Heads,
}

impl Log {
    /// Returns the door to the log, and the end at which its executor takes requests.
    pub(crate) fn new() -> (Log, mpsc::UnboundedReceiver<executor::Message>) {
        let (requests, outlet) = mpsc::unbounded_channel();
        let log = Log {
            requests,
            depth: Arc::default(),
            admission: Admission::new(WAITING),
            appended: Notify::new(),
            damage_told: Mutex::new(None),
            looked_back: Mutex::new(None),
            emitted: Notify::new(),
            unnumbered: mend::Found::default(),
            numbered: watch::Sender::new(0),
            heads: heads::Heads::default(),
        };
        (log, outlet)
    }

    /// Waits until everything that was asked for before is done.
    pub(crate) async fn drain(&self) {
        let (done, drained) = tokio::sync::oneshot::channel();
        // An executor that has ended has nothing left to do.
        let _ = self.requests.send(executor::Message::Drain(done));
        let _ = drained.await;
    }

    /// Returns a counter that changes when positions are given.
    pub(crate) fn subscribe(&self) -> watch::Receiver<u64> {
        self.numbered.subscribe()
    }

    /// Wakes those that wait for positions to be given.
    pub(crate) fn wake_readers(&self) {
        self.numbered.send_modify(|rounds| *rounds += 1);
    }

    /// Says that runs have emitted something.
    pub(crate) fn ring_emitted(&self) {
        self.emitted.notify_one();
    }

    /// Returns whether what waits is to be counted, and notes that it is.
    fn is_time_to_look_back(&self) -> bool {
        is_time(&self.looked_back, LOOK_BACK_EVERY)
    }

    /// Says in the log of the server that an event that a run emitted cannot be read, once a minute at most.
    fn tell_of_damage(&self, row: i64, error: &Error) {
        if is_time(&self.damage_told, TELL_EVERY) {
            tracing::error!(row, %error, "an event that a run emitted stays out of the log");
        }
    }

    /// Says that batches wait for their positions.
    pub(crate) fn ring(&self) {
        self.appended.notify_one();
    }
}

/// Returns whether so much time is over since something was done last, and notes that it is done.
fn is_time(last: &Mutex<Option<Instant>>, every: Duration) -> bool {
    let mut last = last.lock().unwrap_or_else(PoisonError::into_inner);
    let is_time = last.is_none_or(|last| last.elapsed() >= every);
    if is_time {
        *last = Some(Instant::now());
    }
    is_time
}
