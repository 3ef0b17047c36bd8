//! Heartbeats: one request for all tasks that are due, each three times within its interval. A 409 revokes the task.
//!
//! Heartbeats have a thread, a runtime and connections of their own, so that a handler that blocks its thread delays
//! none. Such a handler is named in the log.

use std::collections::HashSet;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backstitch_saga::protocol::Heartbeat;
use tokio::time::Instant;

use super::report::is_about_content;
use super::{Desk, Held};
use crate::client::{Client, ClientError};
use crate::context::InFlight;

/// Largest number of heartbeats in one request.
const BATCH_MAX: usize = 1_000;
/// Shortest interval between heartbeats when the handler has progress to report.
const NEWS_AFTER: Duration = Duration::from_secs(1);
/// Longest wait when no task is held; a new task ends the wait.
const IDLE: Duration = Duration::from_secs(3_600);

/// Time on its thread after which a handler is reported as blocking.
const BLOCKED_AFTER: Duration = Duration::from_secs(1);
/// Interval at which handlers are checked.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Starts the thread that keeps the leases of all tasks on the desk, until the worker ends.
pub(super) fn start(desk: &Arc<Desk>, client: Client) -> Result<(), ClientError> {
    let failed = |error: std::io::Error| {
        ClientError::Setup(format!("the thread for signs of life did not start: {error}"))
    };
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
    let desk = Arc::clone(desk);
    let thread = std::thread::Builder::new().name("backstitch-heart".to_owned());
    thread.spawn(move || runtime.block_on(run(&desk, &client))).map_err(failed)?;
    Ok(())
}

/// Keeps the leases of all tasks on the desk until the worker ends.
async fn run(desk: &Desk, client: &Client) {
    let mut looks = tokio::time::interval(LOOK_EVERY);
    let mut named = HashSet::new();
    while !desk.stopped.load(Ordering::Acquire) {
        tokio::select! {
            () = tokio::time::sleep_until(plan(desk)) => beat(desk, client).await,
            () = desk.heart.notified() => {}
            _ = looks.tick() => name_blocking(desk, &mut named),
        }
    }
}

/// Names the handlers that block their threads, each task once.
fn name_blocking(desk: &Desk, named: &mut HashSet<u64>) {
    let held = desk.held();
    named.retain(|ticket| held.contains_key(ticket));
    for (ticket, one) in held.iter() {
        let Some(blocked) = one.task.blocks_for().filter(|span| *span >= BLOCKED_AFTER) else {
            continue;
        };
        if named.insert(*ticket) {
            let offer = &one.task.offer;
            let (handler, action, attempt) = (&offer.name, offer.action.as_str(), offer.attempt);
            let (run, step, millis) = (offer.run, &offer.step, blocked.as_millis());
            tracing::warn!(
                %handler, %run, %step, action, attempt, millis,
                "the handler blocks its thread: other tasks of this worker wait; do blocking work with spawn_blocking"
            );
        }
    }
}

/// Returns the time of the next heartbeat. It is stored on the desk, so that a new task that is due later
/// wakes nobody: to check all held tasks at each claim would cost more the more there are.
fn plan(desk: &Desk) -> Instant {
    let held = desk.held();
    let next = held.values().map(due).min().unwrap_or_else(|| Instant::now() + IDLE);
    *desk.next_beat() = next;
    next
}

/// Returns the time at which the next heartbeat for a task is due.
pub(super) fn due(held: &Held) -> Instant {
    let third = held.task.offer.heartbeat.duration() / 3;
    let wait = if held.task.has_news() { third.min(NEWS_AFTER) } else { third };
    held.last_beat + wait
}

/// Sends heartbeats for all tasks that are due.
async fn beat(desk: &Desk, client: &Client) {
    let now = Instant::now();
    let mut due_now: Vec<Arc<InFlight>> = Vec::new();
    for held in desk.held().values_mut().filter(|held| due(held) <= now) {
        held.last_beat = now;
        due_now.push(Arc::clone(&held.task));
    }
    for tasks in due_now.chunks(BATCH_MAX) {
        let beats: Vec<Heartbeat> = tasks.iter().map(|task| task.beat()).collect();
        let bare =
            || beats.iter().map(|beat| Heartbeat { details: None, ..beat.clone() }).collect();
        let answers = match client.heartbeat(beats.clone()).await {
            // All of them matter more than what they say.
            Err(error) if is_about_content(&error) => client.heartbeat(bare()).await,
            answers => answers,
        };
        match answers {
            Ok(answers) => {
                for (task, answer) in tasks.iter().zip(answers) {
                    if matches!(answer.status, 403 | 404 | 409) {
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
