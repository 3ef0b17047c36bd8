//! Writes of a batch for runs that had ended and proceed again: the facts must be settled again at their next end.

use backstitch_saga::{RunId, Time};
use uuid::Uuid;

use super::{Batch, Moment};

part!(
    /// Runs that had ended and move again.
    Reopened { run_id: Uuid, namespace: String, since: Moment }
);

impl Batch {
    /// Notes that a run that had ended moves again, and may have established facts.
    pub(crate) fn reopened(&mut self, run: RunId, namespace: &str, at: Time) {
        self.reopened.add((run.0, namespace.to_owned(), Moment(at)));
    }
}
