//! Long work on one request lets others go on in between, as they share the threads of the runtime, or is done on
//! threads of its own.

use crate::{Engine, Error};

/// Number of bytes of documents after which other tasks may run.
const BYTES: usize = 64 * 1024;
/// The work on something small, in bytes of documents.
const LEAST: usize = 512;

/// The work on a request, in pieces between which others may go on.
#[derive(Debug, Default)]
pub(crate) struct Pieces {
    done: usize,
}

impl Pieces {
    /// Counts work on `bytes` of documents, and lets others go on once it was enough.
    pub(crate) async fn done(&mut self, bytes: usize) {
        self.done += bytes.max(LEAST);
        if self.done >= BYTES {
            self.done = 0;
            tokio::task::yield_now().await;
        }
    }
}

impl Engine {
    /// Does work on a large document of a namespace on a thread apart from those that serve requests. A namespace has
    /// one such work done at a time.
    ///
    /// # Errors
    /// [`Error::Busy`] when too much waits, or for too long; [`Error::Bug`] when the work panicked.
    pub async fn apart<T: Send + 'static>(
        &self,
        namespace: &str,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, Error> {
        let done = self.node().schemas.apart(namespace, work).await?;
        done.ok_or_else(|| Error::Bug("work on a large document panicked".to_owned()))
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;

    #[tokio::test]
    async fn others_go_on_after_each_piece_of_work() {
        let mut pieces = Pieces::default();
        for _ in 1..BYTES / LEAST {
            assert!(pieces.done(1).now_or_never().is_some());
        }
        assert!(pieces.done(1).now_or_never().is_none());
        assert!(pieces.done(BYTES - 1).now_or_never().is_some());
        assert!(pieces.done(1).now_or_never().is_none());
    }
}
