//! The desk of a service: its ledger and its switchboard behind one lock, the ledger's file, and the clock. It decides
//! nothing (that is [`crate::service`]) and knows no HTTP (that is [`crate::http`]).

use std::io::Write as _;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::effect::Kind;
use crate::faults::Faults;
use crate::ledger::Entry;
use crate::ledger_file::LedgerFile;
use crate::service::{Request, Response, Service, Shelf};

/// Configuration of a service.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// File of its ledger; only in memory without it.
    pub ledger: Option<PathBuf>,
    /// Stock of goods; goods that are not listed never run out.
    pub shelves: Vec<Shelf>,
}

/// `GET /ledger`: everything the service did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerView {
    /// The service of the ledger.
    pub service: Kind,
    /// Number of requests that were answered from the ledger without a second effect, since the service
    /// started.
    pub repeats: u64,
    /// Number of requests that were refused because their undo had come before them, since the service
    /// started.
    pub came_too_late: u64,
    /// The entries, in order.
    pub entries: Vec<Entry>,
}

/// Entry for requests: one service, one request at a time. Cheap to clone.
#[derive(Clone)]
pub struct Desk {
    books: Arc<Mutex<Books>>,
    /// Number of entries of the ledger.
    entries: Arc<watch::Sender<usize>>,
}

struct Books {
    service: Service,
    file: Option<LedgerFile>,
}

impl Desk {
    /// Opens a service, with what its ledger file says.
    ///
    /// # Errors
    /// When its ledger cannot be read.
    pub fn open(kind: Kind, setup: &Setup) -> anyhow::Result<Desk> {
        let mut service = Service::new(kind);
        let file = match &setup.ledger {
            None => None,
            Some(path) => {
                let (file, entries) = LedgerFile::open(path)?;
                for entry in entries {
                    service.restore(entry).map_err(|problem| {
                        anyhow::anyhow!("the ledger {} is damaged: {problem}", path.display())
                    })?;
                }
                Some(file)
            }
        };
        for shelf in &setup.shelves {
            service.fill(shelf);
        }
        let entries = Arc::new(watch::Sender::new(service.entries().len()));
        Ok(Desk { books: Arc::new(Mutex::new(Books { service, file })), entries })
    }

    /// Returns everything that the service did.
    #[must_use]
    pub fn ledger(&self) -> LedgerView {
        self.with(|books| LedgerView {
            service: books.service.kind(),
            repeats: books.service.repeats(),
            came_too_late: books.service.came_too_late(),
            entries: books.service.entries().to_vec(),
        })
    }

    /// Sets the switchboard.
    pub fn misbehave(&self, faults: Faults) {
        self.with(|books| books.service.faults().set(faults));
    }

    /// Waits until the ledger has so many entries.
    pub async fn reached(&self, entries: usize) {
        // The sender lives as long as this desk, so waiting cannot fail.
        let _ = self.entries.subscribe().wait_for(|count| *count >= entries).await;
    }

    fn with<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        act(&mut self.books.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Carries out a request and writes down what it changed. What comes back, and when, is the service's word.
    pub(crate) fn receive(&self, request: Request) -> Response {
        self.with(|books| {
            let before = books.service.entries().len();
            let response = books.service.receive(now(), request);
            let entries = books.service.entries();
            if let Some(file) = &mut books.file
                && let Err(error) = file.append(entries.get(before..).unwrap_or_default())
            {
                // An effect that is not in the ledger must not count: the next process starts from the file.
                // It stops all the same when nobody can read why.
                let _ = writeln!(
                    std::io::stderr(),
                    "the ledger cannot be written, so this service stops: {error:#}"
                );
                std::process::exit(1);
            }
            self.entries.send_replace(entries.len());
            response
        })
    }

    /// Returns the kind of the service.
    pub(crate) fn kind(&self) -> Kind {
        self.with(|books| books.service.kind())
    }

    /// Says what is on the shelves.
    pub fn fill(&self, shelves: &[Shelf]) {
        self.with(|books| shelves.iter().for_each(|shelf| books.service.fill(shelf)));
    }

    /// Returns the configured faults.
    pub(crate) fn faults(&self) -> Faults {
        self.with(|books| books.service.faults().faults().clone())
    }
}

/// Returns milliseconds since the Unix epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
