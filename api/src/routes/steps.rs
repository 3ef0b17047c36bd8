//! What people decide about one step or item. Each decision needs a reason and stands in the history.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{ResolveStep, RetryStep, RunView, SkipStep};
use backstitch_saga::{Command, RunId, StepPath};

use super::acts::act;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::Body;
use crate::examples::acts as examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// Let one step or item try again, perhaps with a better input
///
/// What is parked or blocked gets fresh attempts; what waits for its next attempt is tried at once. The input before
/// stays in the history, and the effect key stays the same.
#[utoipa::path(
    post, path = "/v1/runs/{id}/steps/{step}/retry", tag = "runs", operation_id = "retry_step",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("step" = String, Path, description = "The step, or an item of a map step with its slash encoded: `stock%2F3`", example = "payment"),
    ),
    request_body(content = RetryStep, example = json!(examples::retry_step())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "Nothing there is parked, blocked or waiting for a retry (`nothing_to_retry`)."),
    )
)]
pub(crate) async fn retry(
    State(app): Shared,
    caller: Caller,
    PathOf((id, step)): PathOf<(RunId, StepPath)>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<RetryStep>,
) -> Answer {
    let by = caller.by(ask.reason);
    let command = Command::Retry { step: Some(step), input: ask.input, by };
    act(StatusCode::OK, &app, &caller, id, command).await
}

/// Go on without a step or item
///
/// It counts as skipped, and the outcome of the run says so. With an `output` what depends on it goes on as if it had
/// been done; without one, what needs its output is skipped too.
#[utoipa::path(
    post, path = "/v1/runs/{id}/steps/{step}/skip", tag = "runs", operation_id = "skip_step",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("step" = String, Path, description = "The step, or an item of a map step with its slash encoded: `stock%2F3`", example = "payment"),
    ),
    request_body(content = SkipStep, example = json!(examples::skip_step())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "A worker has it (`task_in_flight`), or it is over (`nothing_to_resolve`)."),
    )
)]
pub(crate) async fn skip(
    State(app): Shared,
    caller: Caller,
    PathOf((id, step)): PathOf<(RunId, StepPath)>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<SkipStep>,
) -> Answer {
    let by = caller.by(ask.reason);
    let command = Command::Skip { step, output: ask.output, by };
    act(StatusCode::OK, &app, &caller, id, command).await
}

/// Say that a step or item was done, and with what output
///
/// For an attempt in doubt that somebody has looked into, or a step that was done by hand. It counts as done, and is
/// undone if the run is.
#[utoipa::path(
    post, path = "/v1/runs/{id}/steps/{step}/resolve", tag = "runs", operation_id = "resolve_step",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("step" = String, Path, description = "The step, or an item of a map step with its slash encoded: `stock%2F3`", example = "payment"),
    ),
    request_body(content = ResolveStep, example = json!(examples::resolve_step())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "A worker has it (`task_in_flight`), or it is over (`nothing_to_resolve`)."),
    )
)]
pub(crate) async fn resolve(
    State(app): Shared,
    caller: Caller,
    PathOf((id, step)): PathOf<(RunId, StepPath)>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ResolveStep>,
) -> Answer {
    let ResolveStep { reason, output, external_id } = ask;
    let by = caller.by(reason);
    let command = Command::Resolve { step, output, external_id, by };
    act(StatusCode::OK, &app, &caller, id, command).await
}
