//! Events of the log that runs emit, with their records.

use backstitch_saga::{RunId, Time};
use uuid::Uuid;

use super::{Batch, Moment};

part!(
    /// Events on their way to the log.
    Emitted {
        run_id: Uuid,
        seq: i32,
        place: i32,
        namespace: String,
        at: Moment,
        event: String,
        data: String,
    }
);

impl Batch {
    /// Adds the event of the log that event `place` of record `seq` emits; `event` is a JSON
    /// object.
    pub(crate) fn emit(
        &mut self,
        (run, seq, place): (RunId, i32, usize),
        namespace: &str,
        at: Time,
        (event, data): (String, String),
    ) {
        let place = i32::try_from(place).unwrap_or(i32::MAX);
        self.emitted.add((run.0, seq, place, namespace.to_owned(), Moment(at), event, data));
    }

    /// Returns whether it has events for the log.
    pub(crate) fn emits(&self) -> bool {
        self.emitted.len() > 0
    }
}
