//! Sends reports in batches: a few senders share the waiting reports. Reports that arrive while all senders wait for
//! responses go with the next request, so that a busy worker sends few requests and an idle one sends immediately.
//! There is no timer.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use backstitch_saga::protocol::{
    Failure, FailureKind, TaskAnswer, TaskOffer, TaskOutcome, TaskReport,
};
use tokio::sync::Notify;

use super::{Desk, Drained};
use crate::backoff::Backoff;
use crate::client::ClientError;

/// The most reports that one request may carry.
const BATCH_MAX: usize = 1_000;

/// Largest number of concurrent requests. An answer takes a commit; with one request at a time the worker would wait
/// while the server works and the other way round.
pub(super) const SENDERS: usize = 3;

/// Reports that wait to be sent, and how those sent fared.
#[derive(Default)]
pub(super) struct Reports {
    waiting: Mutex<Vec<Pending>>,
    some: Notify,
    reported: AtomicU64,
    late: AtomicU64,
}

/// One report on its way.
struct Pending {
    ticket: u64,
    report: TaskReport,
    /// `true` if it replaces a report that the server did not accept; it is the last.
    replaced: bool,
}

/// Meaning of a response for its report.
enum Verdict {
    /// It counted.
    Counted,
    /// It came too late and changed nothing.
    Late,
    /// Not now.
    Again,
    /// The server cannot accept it.
    Refused,
}

impl Reports {
    pub(super) fn add(&self, ticket: u64, offer: &TaskOffer, outcome: TaskOutcome) {
        let report = TaskReport {
            run: offer.run,
            step: offer.step.clone(),
            action: offer.action,
            attempt: offer.attempt,
            lease: offer.lease.clone(),
            outcome,
        };
        self.put(vec![Pending { ticket, report, replaced: false }]);
    }

    fn put(&self, mut pending: Vec<Pending>) {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner).append(&mut pending);
        self.some.notify_one();
    }

    /// Waits for reports and takes all there are, up to a batch.
    async fn take(&self) -> Vec<Pending> {
        loop {
            // Handlers that are about to finish come first, so that their reports share the request.
            tokio::task::yield_now().await;
            let batch = self.take_waiting();
            if !batch.is_empty() {
                return batch;
            }
            self.some.notified().await;
        }
    }

    fn take_waiting(&self) -> Vec<Pending> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        if waiting.len() <= BATCH_MAX {
            return std::mem::take(&mut *waiting);
        }
        self.some.notify_one();
        waiting.drain(..BATCH_MAX).collect()
    }

    pub(super) fn counted(&self, abandoned: u64) -> Drained {
        Drained {
            reported: self.reported.load(Ordering::Relaxed),
            late: self.late.load(Ordering::Relaxed),
            abandoned,
        }
    }
}

/// Sends reports for ever; one of several that do.
pub(super) async fn run(desk: Arc<Desk>) {
    let mut backoff = Backoff::new();
    loop {
        let batch = desk.reports.take().await;
        if send(&desk, batch, &mut backoff).await {
            backoff = Backoff::new();
        } else {
            backoff.wait(None).await;
        }
    }
}

/// Sends one batch until it is answered; returns `false` if a part has to be sent again. A batch that the server
/// refuses as a whole is halved until the culprit is alone.
async fn send(desk: &Desk, batch: Vec<Pending>, backoff: &mut Backoff) -> bool {
    let mut parts = vec![batch];
    let mut all_taken = true;
    while let Some(part) = parts.pop() {
        let reports: Vec<TaskReport> = part.iter().map(|pending| pending.report.clone()).collect();
        match desk.client.complete(reports).await {
            Ok(answers) => all_taken &= settle(desk, part, answers),
            Err(error) if is_about_content(&error) && part.len() > 1 => {
                let mut first = part;
                let second = first.split_off(first.len() / 2);
                parts.extend([second, first]);
            }
            Err(error) if is_about_content(&error) => {
                let answer = TaskAnswer {
                    status: error.status().unwrap_or(422),
                    code: error.code().map(str::to_owned),
                    message: Some(error.to_string()),
                };
                all_taken &= settle(desk, part, vec![answer]);
            }
            Err(error) => {
                tracing::warn!(%error, reports = part.len(), "reporting failed; trying again");
                backoff.wait(error.retry_after()).await;
                parts.push(part);
            }
        }
    }
    all_taken
}

/// Returns whether the server refused the content of the request, not the request.
pub(super) fn is_about_content(error: &ClientError) -> bool {
    matches!(error.status(), Some(400 | 413 | 422))
}

/// Acts on the answers of a batch; false when something has to be sent again.
fn settle(desk: &Desk, batch: Vec<Pending>, answers: Vec<TaskAnswer>) -> bool {
    let mut done = Vec::with_capacity(batch.len());
    let mut again = Vec::new();
    let mut late = 0;
    let mut counted = 0;
    for (pending, answer) in batch.into_iter().zip(answers) {
        match judge(&answer) {
            Verdict::Counted => {
                counted += 1;
                if let Some(tell) = &desk.on_report {
                    tell(&pending.report);
                }
            }
            Verdict::Late => {
                late += 1;
                let TaskReport { run, step, action, attempt, .. } = &pending.report;
                let (action, code) = (action.as_str(), answer.code.as_deref().unwrap_or(""));
                tracing::warn!(%run, %step, action, attempt, code, "the report came too late");
            }
            Verdict::Again => {
                again.push(pending);
                continue;
            }
            Verdict::Refused => {
                let (run, step) = (pending.report.run, pending.report.step.clone());
                let ticket = pending.ticket;
                match replacement(pending, &answer) {
                    Some(other) => desk.reports.put(vec![other]),
                    None => {
                        tracing::error!(%run, %step, ?answer, "the server will not take the report");
                        done.push(ticket);
                    }
                }
                continue;
            }
        }
        done.push(pending.ticket);
    }
    desk.reports.reported.fetch_add(counted, Ordering::Relaxed);
    desk.reports.late.fetch_add(late, Ordering::Relaxed);
    desk.release(done);
    let all_taken = again.is_empty();
    if !all_taken {
        desk.reports.put(again);
    }
    all_taken
}

fn judge(answer: &TaskAnswer) -> Verdict {
    match answer.status {
        200..=299 => Verdict::Counted,
        403 | 404 | 409 => Verdict::Late,
        429 | 500.. => Verdict::Again,
        _ => Verdict::Refused,
    }
}

/// Returns a report that the server takes: for an output that could not be handed over, that the work was done; where
/// it does not know such a report, or for a failure, one with its code and as much of its words as any server takes.
/// `None` when there is none any more.
fn replacement(pending: Pending, answer: &TaskAnswer) -> Option<Pending> {
    let why = words(answer.message.as_deref().unwrap_or("the server refused it"), WHY_MAX);
    let failed = |kind, code: String, message, retry_after| {
        TaskOutcome::Failed(Failure { kind, code, message, details: None, retry_after })
    };
    let (outcome, replaced) = match pending.report.outcome {
        _ if pending.replaced => return None,
        TaskOutcome::Succeeded { .. } => {
            let too_large = answer.status == 413;
            let code = if too_large { "output_too_large" } else { "output_refused" }.to_owned();
            let message =
                format!("the work was done, but the server does not take its output: {why}");
            (TaskOutcome::DoneWithoutOutput { code, message }, false)
        }
        TaskOutcome::DoneWithoutOutput { code, message } => {
            (failed(FailureKind::Unknown, code, message, None), true)
        }
        TaskOutcome::Failed(failure) => {
            let named = is_code(&failure.code);
            let code = if named { failure.code.clone() } else { "invalid_code".to_owned() };
            let its = if named {
                String::new()
            } else {
                format!(" (its code was '{}')", words(&failure.code, WHY_MAX))
            };
            let message = words(&failure.message, MESSAGE_MAX);
            let message =
                format!("{message}{its} (the server does not take the report as it was: {why})");
            (failed(failure.kind, code, message, failure.retry_after), true)
        }
    };
    let report = TaskReport { outcome, ..pending.report };
    Some(Pending { report, replaced, ..pending })
}

/// Length of a message that any server accepts, in bytes, with room for additions.
const MESSAGE_MAX: usize = 8_000;
/// Length of the part that explains why a report was not accepted.
const WHY_MAX: usize = 500;

fn is_code(code: &str) -> bool {
    code.len() <= 100
        && code.starts_with(|c: char| c.is_ascii_lowercase())
        && code
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Returns a text of at most `limit` bytes without control characters.
fn words(text: &str, limit: usize) -> String {
    let mut kept = String::new();
    for c in text.chars() {
        if kept.len() + c.len_utf8() > limit {
            kept.push('…');
            break;
        }
        kept.push(if c.is_control() && !matches!(c, '\n' | '\t') { '\u{fffd}' } else { c });
    }
    kept
}
