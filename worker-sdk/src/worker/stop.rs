//! The end of a worker: tasks that were not begun are given back immediately, handlers that take too long are
//! stopped, and it signs off.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backstitch_saga::protocol::{
    Failure, FailureKind, HeldTask, TaskOffer, TaskOutcome, TaskReport,
};

use super::Desk;
use crate::context::InFlight;

/// The most tasks that one request may carry.
const BATCH_MAX: usize = 1_000;
/// Longest time for all last requests to the server.
const LAST_WORDS: Duration = Duration::from_secs(5);

impl Desk {
    /// Gives back tasks that were claimed and are not on the desk.
    pub(super) async fn give_back(&self, offers: &[TaskOffer]) {
        let held = offers.iter().map(|offer| HeldTask {
            run: offer.run,
            step: offer.step.clone(),
            action: offer.action,
            attempt: offer.attempt,
            lease: offer.lease.clone(),
        });
        self.release_all(held.collect()).await;
    }

    /// Gives back the tasks whose handlers have not been called.
    pub(super) async fn give_back_unbegun(&self) {
        let mut back = Vec::new();
        self.held().retain(|_, held| {
            let unbegun = held.task.take_back();
            if unbegun {
                held.work.abort();
                back.push(held.task.held());
            }
            !unbegun
        });
        self.release_all(back).await;
    }

    /// Stops the handlers that took too long. Tasks that may be stopped are given back; the others are reported as
    /// possibly done.
    pub(super) async fn stop_rest(&self) {
        let rest: Vec<_> = self.held().drain().map(|(_, held)| held).collect();
        let mut stopped: Vec<Arc<InFlight>> = Vec::with_capacity(rest.len());
        for held in rest {
            // Work that is done waits to be reported, and nothing is known to be wrong with it.
            if !held.work.is_finished() {
                held.work.abort();
                stopped.push(held.task);
            }
        }
        let (safe, unsafe_to_stop): (Vec<_>, Vec<_>) =
            stopped.into_iter().partition(|task| task.is_safe_to_stop());
        self.release_all(safe.iter().map(|task| task.held()).collect()).await;
        let reports: Vec<TaskReport> = unsafe_to_stop.iter().map(|task| unknown(task)).collect();
        for batch in reports.chunks(BATCH_MAX) {
            let sent = self.client.complete(batch.to_vec());
            if !matches!(tokio::time::timeout(LAST_WORDS, sent).await, Ok(Ok(_))) {
                tracing::warn!(
                    tasks = batch.len(),
                    "stopped tasks were not reported; their leases end"
                );
            }
        }
    }

    /// Tells the server that this session is over.
    pub(super) async fn sign_off(&self) {
        let signed = tokio::time::timeout(LAST_WORDS, self.client.sign_off(self.session)).await;
        if !matches!(signed, Ok(Ok(_))) {
            tracing::debug!("the worker could not sign off; the server misses it in half a minute");
        }
    }

    async fn release_all(&self, held: Vec<HeldTask>) {
        self.given_back.fetch_add(held.len() as u64, Ordering::Relaxed);
        for batch in held.chunks(BATCH_MAX) {
            let sent = self.client.release(self.session, batch.to_vec());
            match tokio::time::timeout(LAST_WORDS, sent).await {
                Ok(Ok(_)) => tracing::info!(tasks = batch.len(), "gave tasks back"),
                _ => {
                    tracing::warn!(
                        tasks = batch.len(),
                        "tasks were not given back; their leases end"
                    );
                }
            }
        }
    }
}

/// Returns the report of a task whose handler was stopped.
fn unknown(task: &InFlight) -> TaskReport {
    let HeldTask { run, step, action, attempt, lease } = task.held();
    let failure = Failure {
        kind: FailureKind::Unknown,
        code: "worker_stopped".to_owned(),
        message: "the worker was shut down while the handler was at work".to_owned(),
        details: None,
        retry_after: None,
    };
    TaskReport { run, step, action, attempt, lease, outcome: TaskOutcome::Failed(failure) }
}
