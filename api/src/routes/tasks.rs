//! Claims and reports of workers: the hot path. Bodies go from bytes to types and back without
//! intermediate forms.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{
    ClaimTasks, ClaimedTasks, CompleteTasks, HeartbeatTasks, ReleaseTasks, TaskAnswers,
};

use super::each::{EachBody, answer, common_status, merge_said};

use crate::access::{Caller, unknown_credential};
use crate::app::{Shared, WaitFor};
use crate::body::{Body, json_of};
use crate::examples;
use crate::problem::Answer;
use crate::query::{NoQuery, QueryOf};
use crate::scopes;

/// About the bytes of a task in the answer to a claim, beside its input.
const TASK: usize = 768;

/// Claim tasks
///
/// Answered as soon as there is a task, or with an empty list after `wait`. Each task is leased to the asking
/// session: report it, or give signs of life within its `heartbeat`. Each has a token, `lease`, which comes back with
/// everything that is said about it. A session belongs to the credential that claimed with it first.
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
    if let Some(scope) = &caller.scope {
        claim.queues.keys().try_for_each(|queue| scopes::queue(scope, queue))?;
    }
    let _place = app.place(&caller, WaitFor::Tasks)?;
    let claimed = tokio::select! {
        // Tasks that are there are handed over even when the server is closing.
        biased;
        claimed = app.engine.claim(app.worker(&caller), claim) => claimed?,
        () = app.withdrawn(&caller) => return Err(unknown_credential()),
        () = app.closed() => ClaimedTasks::default(),
    };
    let size = claimed.tasks.iter().map(|task| TASK + task.input.text().len()).sum();
    json_of(StatusCode::OK, &claimed, size)
}

/// Complete or fail tasks
///
/// Each report is answered for itself and in order; the status is that of all answers when they agree, else 207. A
/// report by an attempt that does not hold its lease any more is answered 409 and changes nothing. Reporting the same
/// again is answered the same. No report is refused for its words: what cannot be kept is cut, replaced or left out, and
/// the answer has the code `amended`. An output that cannot be kept, or is not what the step's `output_schema` says, ends
/// the attempt with `output_too_large` or `invalid_output`: the work counts as done, and is not tried again. A failure whose
/// kind is none counts as `unknown`. Work whose output cannot be sent is reported as `done_without_output`.
#[utoipa::path(
    post, path = "/v1/tasks/complete", tag = "tasks", operation_id = "complete_tasks",
    request_body(content = CompleteTasks, example = json!(examples::complete())),
    responses(
        (status = 200, description = "All counted.", body = TaskAnswers, example = json!(examples::answers())),
        (status = 207, description = "The answers differ.", body = TaskAnswers),
        (status = 403, description = "No report came with the token of its lease.", body = TaskAnswers),
        (status = 404, description = "No report found its run or step.", body = TaskAnswers),
        (status = 409, description = "No report holds its lease.", body = TaskAnswers),
    )
)]
pub(crate) async fn complete(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    EachBody(good, said): EachBody<CompleteTasks>,
) -> Answer {
    let results = merge_said(app.engine.complete(app.worker(&caller), good).await, said);
    answer(common_status(results.iter().map(|one| one.status)), &TaskAnswers { results })
}

/// Send heartbeats for tasks
///
/// Each is answered for itself; a 409 tells the worker to stop, because the attempt was revoked.
#[utoipa::path(
    post, path = "/v1/tasks/heartbeat", tag = "tasks", operation_id = "heartbeat_tasks",
    request_body(content = HeartbeatTasks, example = json!(examples::heartbeat())),
    responses(
        (status = 200, description = "All counted.", body = TaskAnswers, example = json!(examples::answers())),
        (status = 207, description = "The answers differ.", body = TaskAnswers),
        (status = 403, description = "None came with the token of its lease.", body = TaskAnswers),
        (status = 404, description = "No sign of life found its run or step.", body = TaskAnswers),
        (status = 409, description = "All attempts were revoked.", body = TaskAnswers),
    )
)]
pub(crate) async fn heartbeat(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    EachBody(good, said): EachBody<HeartbeatTasks>,
) -> Answer {
    let results = merge_said(app.engine.heartbeat(app.worker(&caller), good).await, said);
    answer(common_status(results.iter().map(|one| one.status)), &TaskAnswers { results })
}

/// Release tasks
///
/// Gives back tasks that the session has not begun, as a worker does that stops. Each is on offer again at once, as the
/// same attempt: no attempt is spent, and nothing counts against the task. Each is answered for itself; 409 when the
/// session does not hold the task. Releasing the same again is answered the same until another worker has it.
#[utoipa::path(
    post, path = "/v1/tasks/release", tag = "tasks", operation_id = "release_tasks",
    request_body(content = ReleaseTasks, example = json!(examples::release())),
    responses(
        (status = 200, description = "All are on offer again.", body = TaskAnswers, example = json!(examples::answers())),
        (status = 207, description = "The answers differ.", body = TaskAnswers),
        (status = 403, description = "None came with the token of its lease.", body = TaskAnswers),
        (status = 404, description = "No task found its run or step.", body = TaskAnswers),
        (status = 409, description = "The session holds none of them.", body = TaskAnswers),
    )
)]
pub(crate) async fn release(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ReleaseTasks>,
) -> Answer {
    let results = app.engine.release(app.worker(&caller), ask.session, ask.tasks).await;
    answer(common_status(results.iter().map(|one| one.status)), &TaskAnswers { results })
}
