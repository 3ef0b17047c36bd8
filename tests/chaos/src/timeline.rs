//! Actions on the system, with their times: reported with every violation.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

/// Returns this machine's clock, milliseconds since 1970. It is PostgreSQL's clock, too.
#[must_use]
pub fn now_ms() -> i64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since.as_millis()).unwrap_or(i64::MAX)
}

/// One thing that happened around the system.
#[derive(Clone, Debug)]
pub struct Mark {
    /// When, milliseconds since 1970.
    pub at: i64,
    /// What, for people.
    pub what: String,
}

/// Everything that happened around the system, in order. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Timeline(Arc<Mutex<Vec<Mark>>>);

impl Timeline {
    /// Notes what happens now.
    pub fn note(&self, what: impl Into<String>) {
        let mark = Mark { at: now_ms(), what: what.into() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(mark);
    }

    /// Returns all of it.
    #[must_use]
    pub fn marks(&self) -> Vec<Mark> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}
