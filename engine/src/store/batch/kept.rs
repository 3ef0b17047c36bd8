//! The condition of a batch on runs that began in earlier weeks: their records are written only while retention has not
//! deleted them.

use backstitch_saga::RunId;
use uuid::Uuid;

use super::Batch;

part!(
    /// Runs that began in earlier weeks.
    Kept { run_id: Uuid }
);

impl Batch {
    /// Writes the record of a run only if the run is still there.
    pub(crate) fn only_if_kept(&mut self, run: RunId) {
        self.kept.add((run.0,));
    }
}
