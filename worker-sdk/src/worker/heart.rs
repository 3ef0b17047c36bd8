//! Signs of life: one request for all tasks that are due, each three times within its heartbeat. A 409 tells the task
//! that it was revoked.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;

use super::{Desk, Held};
use crate::context::InFlight;

/// The most signs of life that one request may carry.
const BATCH_MAX: usize = 1_000;
/// How soon after the last one a sign of life goes out because the handler has something to say.
const NEWS_AFTER: Duration = Duration::from_secs(1);
/// How long to wait when nothing is held; a new task ends the wait.
const IDLE: Duration = Duration::from_secs(3_600);

/// Keeps the leases of all tasks on the desk for ever.
pub(super) async fn run(desk: Arc<Desk>) {
    loop {
        tokio::select! {
            () = tokio::time::sleep_until(plan(&desk)) => beat(&desk).await,
            () = desk.heart.notified() => {}
        }
    }
}

/// When the next sign of life is due. It is noted on the desk, so that a new task that is due later wakes nobody: to
/// look through all that is held for each claim would cost more the more is held.
fn plan(desk: &Desk) -> Instant {
    let held = desk.held();
    let next = held.values().map(due).min().unwrap_or_else(|| Instant::now() + IDLE);
    *desk.next_beat() = next;
    next
}

/// When the server should hear of a task again.
pub(super) fn due(held: &Held) -> Instant {
    let third = held.task.offer.heartbeat.duration() / 3;
    let wait = if held.task.has_news() { third.min(NEWS_AFTER) } else { third };
    held.last_beat + wait
}

/// Gives signs of life for all tasks that are due.
async fn beat(desk: &Desk) {
    let now = Instant::now();
    let mut due_now: Vec<Arc<InFlight>> = Vec::new();
    for held in desk.held().values_mut().filter(|held| due(held) <= now) {
        held.last_beat = now;
        due_now.push(Arc::clone(&held.task));
    }
    for tasks in due_now.chunks(BATCH_MAX) {
        let beats = tasks.iter().map(|task| task.beat()).collect();
        match desk.client.heartbeat(beats).await {
            Ok(answers) => {
                for (task, answer) in tasks.iter().zip(answers) {
                    if matches!(answer.status, 404 | 409) {
                        let (run, step) = (task.offer.run, &task.offer.step);
                        tracing::warn!(%run, %step, "the attempt was revoked");
                        task.cancel();
                    }
                }
            }
            Err(error) => {
                tracing::warn!(%error, "signs of life did not arrive; more follow");
                tasks.iter().for_each(|task| task.beat_was_lost());
            }
        }
    }
}
