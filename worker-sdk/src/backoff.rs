//! Waiting longer and longer between tries at the server. The retries of steps are the server's business, not this.

use std::time::Duration;

use rand::RngExt;

/// Doubling delays with full jitter, so that clients do not come back at the same time.
#[derive(Clone, Debug)]
pub(crate) struct Backoff {
    next: Duration,
    longest: Duration,
}

impl Backoff {
    pub(crate) fn new() -> Backoff {
        Backoff { next: Duration::from_millis(100), longest: Duration::from_secs(5) }
    }

    /// Waits; at least as long as the server asked.
    pub(crate) async fn wait(&mut self, asked: Option<Duration>) {
        let jittered = rand::rng().random_range(Duration::ZERO..=self.next);
        self.next = (self.next * 2).min(self.longest);
        tokio::time::sleep(jittered.max(asked.unwrap_or_default().min(self.longest))).await;
    }
}
