//! Writes the batches of a shard on a connection of its own, and determines the outcome of a batch whose answer was
//! lost.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_saga::{RunId, planted};
use sqlx::postgres::PgConnection;

use crate::crash::commit;
use crate::node::Node;
use crate::store::batch::Batch;
use crate::store::session::Kept;
use crate::store::{StoreError, blockers, journal};

/// Delay before the outcome of a batch is checked again.
const LOOK_AGAIN: Duration = Duration::from_millis(100);

/// Writes batches, one after the other.
pub(super) struct Writer {
    node: Arc<Node>,
    connection: Option<Kept>,
}

impl Writer {
    pub(super) fn new(node: Arc<Node>) -> Writer {
        Writer { node, connection: None }
    }

    async fn connection(&mut self) -> Result<&mut PgConnection, StoreError> {
        self.node.database.kept(&mut self.connection).await
    }

    /// Writes a batch. Returns the runs whose record is in the journal; `None` means all.
    pub(super) async fn write(
        &mut self,
        batch: &Batch,
    ) -> Result<Option<HashSet<RunId>>, StoreError> {
        let limit = self.node.options.tuning.statement_limit;
        let node = Arc::clone(&self.node);
        let connection = self.connection().await?;
        let written = tokio::time::timeout(limit, batch.write(connection, &node.database.weeks));
        let written = match commit!("batch", written.await) {
            Ok(written) => written,
            Err(_) => {
                Err(StoreError::Indeterminate(format!("no answer within {} s", limit.as_secs())))
            }
        };
        match written {
            Ok(count) if count == batch.records() => Ok(None),
            Ok(_) => {
                #[cfg(feature = "planted-bugs")]
                crate::store::planted::stray_rows(connection, &batch.updates).await;
                self.find(batch).await.map(Some)
            }
            Err(StoreError::Indeterminate(error)) if planted!("unknown-is-failure") => {
                self.connection = None;
                Err(StoreError::Rejected(error))
            }
            Err(StoreError::Indeterminate(error)) => {
                tracing::warn!(error, "the answer to a commit was lost; looking for its records");
                self.node.counters.unknown_commits.one();
                self.connection = None;
                self.find(batch).await.map(Some)
            }
            Err(trouble) => {
                if matches!(trouble, StoreError::NotCommitted(_)) {
                    self.connection = None;
                }
                Err(trouble)
            }
        }
    }

    /// After a batch that waited for a lock in vain, returns the runs whose rows others have locked. `None` after any
    /// other.
    pub(super) async fn locked(
        &mut self,
        batch: &Batch,
        written: &Result<Option<HashSet<RunId>>, StoreError>,
    ) -> Option<HashSet<RunId>> {
        written.as_ref().err().filter(|trouble| trouble.is_lock())?;
        let (runs, _) = batch.places();
        let connection = self.connection().await.ok()?;
        match blockers::locked_runs(connection, runs).await {
            Ok(locked) => Some(locked),
            // The table is locked, or worse.
            Err(error) => {
                tracing::debug!(%error, "which runs are locked could not be found out");
                self.connection = None;
                Some(HashSet::new())
            }
        }
    }

    /// Returns the runs whose record of a batch is in the journal. A record that is inserted later, because its
    /// statement still runs somewhere, conflicts with the next record of its run.
    async fn find(&mut self, batch: &Batch) -> Result<HashSet<RunId>, StoreError> {
        let until = Instant::now() + self.node.options.tuning.resolve_for;
        let (runs, seqs) = batch.places();
        loop {
            let found = match self.connection().await {
                Ok(connection) => journal::written_by(connection, batch.id(), runs, seqs)
                    .await
                    .map_err(StoreError::from),
                Err(trouble) => Err(trouble),
            };
            match found {
                Ok(found) => return Ok(found.into_iter().collect()),
                Err(trouble) if Instant::now() > until => {
                    return Err(StoreError::Indeterminate(format!(
                        "whether a batch was written could not be found out: {}",
                        trouble.message()
                    )));
                }
                Err(_) => {
                    self.connection = None;
                    tokio::time::sleep(LOOK_AGAIN).await;
                }
            }
        }
    }

    /// Closes the connection in order.
    pub(super) async fn close(self) {
        if let Some(connection) = self.connection {
            connection.close().await;
        }
    }
}
