//! What workers ask and report: the hot path. Bodies go from bytes to types and back without a detour.

use axum::extract::State;
use axum::http::{StatusCode, header};
use backstitch_saga::protocol::{
    ClaimTasks, ClaimedTasks, CompleteTasks, HeartbeatTasks, TaskAnswer, TaskAnswers,
};

use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, ReportBody, json};
use crate::check::{Check, Findings};
use crate::examples;
use crate::problem::Answer;
use crate::query::{NoQuery, QueryOf};

/// Claim tasks
///
/// Answered as soon as there is a task, or with an empty list after `wait`. Each task is leased to the asking
/// session: report it, or give signs of life within its `heartbeat`.
#[utoipa::path(
    post, path = "/v1/tasks/claim", tag = "tasks", operation_id = "claim_tasks",
    request_body(content = ClaimTasks, example = json!(examples::claim())),
    responses((status = 200, description = "The tasks.", body = ClaimedTasks, example = json!(examples::claimed())))
)]
pub(crate) async fn claim(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    Body(claim): Body<ClaimTasks>,
) -> Answer {
    let _place = app.place()?;
    let claimed = tokio::select! {
        // Tasks that are there are handed over even when the server is closing.
        biased;
        claimed = app.engine.claim(&caller.namespace, claim) => claimed?,
        () = app.closed() => ClaimedTasks::default(),
    };
    json(StatusCode::OK, &claimed)
}

/// Report what became of tasks
///
/// Each report is answered for itself and in order; the status is that of all answers when they agree, else 207. A
/// report by an attempt that does not hold its lease any more is answered 409 and changes nothing. Reporting the same
/// again is answered the same.
#[utoipa::path(
    post, path = "/v1/tasks/complete", tag = "tasks", operation_id = "complete_tasks",
    request_body(content = CompleteTasks, example = json!(examples::complete())),
    responses(
        (status = 200, description = "All counted.", body = TaskAnswers, example = json!(examples::answers())),
        (status = 207, description = "The answers differ.", body = TaskAnswers),
        (status = 404, description = "No report found its run or step.", body = TaskAnswers),
        (status = 409, description = "No report holds its lease.", body = TaskAnswers),
    )
)]
pub(crate) async fn complete(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    ReportBody(ask): ReportBody<CompleteTasks>,
) -> Answer {
    let (good, bad) = sort_out(ask.results);
    let answers = app.engine.complete(&caller.namespace, good).await;
    answer(merge(answers, bad))
}

/// Give signs of life
///
/// Each is answered for itself; a 409 tells the worker to stop, because the attempt was revoked.
#[utoipa::path(
    post, path = "/v1/tasks/heartbeat", tag = "tasks", operation_id = "heartbeat_tasks",
    request_body(content = HeartbeatTasks, example = json!(examples::heartbeat())),
    responses(
        (status = 200, description = "All counted.", body = TaskAnswers, example = json!(examples::answers())),
        (status = 207, description = "The answers differ.", body = TaskAnswers),
        (status = 404, description = "No sign of life found its run or step.", body = TaskAnswers),
        (status = 409, description = "All attempts were revoked.", body = TaskAnswers),
    )
)]
pub(crate) async fn heartbeat(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    ReportBody(ask): ReportBody<HeartbeatTasks>,
) -> Answer {
    let (good, bad) = sort_out(ask.beats);
    let answers = app.engine.heartbeat(&caller.namespace, good).await;
    answer(merge(answers, bad))
}

/// Splits off what cannot be taken, with its place and its answer: one bad report must not hold up the others.
fn sort_out<T: Check>(asked: Vec<T>) -> (Vec<T>, Vec<(usize, TaskAnswer)>) {
    let mut bad = Vec::new();
    let mut good = Vec::with_capacity(asked.len());
    for (index, one) in asked.into_iter().enumerate() {
        let mut findings = Findings::default();
        one.check(&mut findings);
        match findings.first() {
            None => good.push(one),
            Some(violation) => {
                let answer = TaskAnswer {
                    status: 422,
                    code: Some("invalid_request".to_owned()),
                    message: Some(violation.to_string()),
                };
                bad.push((index, answer));
            }
        }
    }
    (good, bad)
}

/// Puts the answers back into the order of the request.
fn merge(mut answers: Vec<TaskAnswer>, bad: Vec<(usize, TaskAnswer)>) -> Vec<TaskAnswer> {
    for (index, answer) in bad {
        answers.insert(index.min(answers.len()), answer);
    }
    answers
}

fn answer(results: Vec<TaskAnswer>) -> Answer {
    let status = common_status(&results);
    let mut response = json(status, &TaskAnswers { results })?;
    if status == StatusCode::SERVICE_UNAVAILABLE {
        let second = header::HeaderValue::from_static("1");
        response.headers_mut().insert(header::RETRY_AFTER, second);
    }
    Ok(response)
}

fn common_status(results: &[TaskAnswer]) -> StatusCode {
    let first = results.first().map_or(200, |answer| answer.status);
    if results.iter().any(|answer| answer.status != first) {
        return StatusCode::MULTI_STATUS;
    }
    StatusCode::from_u16(first).unwrap_or(StatusCode::MULTI_STATUS)
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::TaskReport;

    use super::*;

    fn answer_of(status: u16) -> TaskAnswer {
        TaskAnswer { status, code: None, message: None }
    }

    #[test]
    fn the_status_is_that_of_all_answers_or_207() {
        let of = |statuses: &[u16]| {
            common_status(&statuses.iter().copied().map(answer_of).collect::<Vec<_>>()).as_u16()
        };
        assert_eq!(of(&[200, 200]), 200);
        assert_eq!(of(&[409]), 409);
        assert_eq!(of(&[200, 409]), 207);
        assert_eq!(of(&[503, 503, 503]), 503);
    }

    #[test]
    fn a_bad_report_is_answered_in_its_place_and_the_others_go_on() {
        let report = |attempt: u32, message: &str| -> TaskReport {
            serde_json::from_value(serde_json::json!({
                "run": "0198c0de-0000-7000-8000-000000000000", "step": "a", "action": "forward",
                "attempt": attempt,
                "outcome": { "failed": { "kind": "retryable", "code": "x", "message": message } }
            }))
            .unwrap()
        };
        let asked =
            vec![report(1, "\u{0}"), report(2, "ok"), report(3, "a\nb"), report(4, "\u{7}")];
        let (good, bad) = sort_out(asked);
        assert_eq!(good.iter().map(|r| r.attempt).collect::<Vec<_>>(), [2, 3]);
        let merged = merge(vec![answer_of(200), answer_of(409)], bad);
        assert_eq!(merged.iter().map(|a| a.status).collect::<Vec<_>>(), [422, 200, 409, 422]);
    }
}
