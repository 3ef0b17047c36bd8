//! What people ask of a run. Each act needs a reason and stands in the history with the caller's name.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{ActOnRun, CompensateRun, Plan, RunView};
use backstitch_saga::{Command, RunId, StepPath};

use crate::access::Caller;
use crate::app::{App, Shared};
use crate::body::{Body, json};
use crate::examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// Undo a run, or a part of it
///
/// `scope` is `"all"`, `{"back_to": "payment"}` (the step and all that depends on it) or
/// `{"steps": ["mail"]}`. With `dry_run` the exact plan is answered and nothing is written. Works on runs that move,
/// that failed and that succeeded; past a pivot only with `force`.
#[utoipa::path(
    post, path = "/v1/runs/{id}/compensate", tag = "runs", operation_id = "compensate_run",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = CompensateRun, example = json!(examples::compensate())),
    responses(
        (status = 200, description = "The plan of a dry run.", body = Plan, example = json!(examples::plan())),
        (status = 202, description = "It began: the run as it is now.", body = RunView),
        (status = 409, description = "It cannot be undone so: `already_compensating`, `past_pivot`, `nothing_to_compensate`, `compensation_window_closed`."),
    )
)]
pub(crate) async fn compensate(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<CompensateRun>,
) -> Answer {
    if ask.dry_run {
        let plan = app.engine.plan(&caller.namespace, id, &ask.scope, ask.force).await?;
        return json(StatusCode::OK, &plan);
    }
    let by = caller.by(ask.reason);
    let command = Command::Compensate { scope: ask.scope, force: ask.force, by };
    act(StatusCode::ACCEPTED, &app, &caller, id, command).await
}

/// Stop a run and undo what was done
#[utoipa::path(
    post, path = "/v1/runs/{id}/cancel", tag = "runs", operation_id = "cancel_run",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = ActOnRun, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "It cannot be cancelled: `run_ended`, `already_compensating`, `past_pivot`."),
    )
)]
pub(crate) async fn cancel(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ActOnRun>,
) -> Answer {
    act(StatusCode::OK, &app, &caller, id, Command::Cancel { by: caller.by(ask.reason) }).await
}

/// End a run as it stands; nothing is undone
#[utoipa::path(
    post, path = "/v1/runs/{id}/kill", tag = "runs", operation_id = "kill_run",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = ActOnRun, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "It has ended (`run_ended`)."),
    )
)]
pub(crate) async fn kill(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ActOnRun>,
) -> Answer {
    act(StatusCode::OK, &app, &caller, id, Command::Kill { by: caller.by(ask.reason) }).await
}

/// Let everything that is parked or blocked try again
#[utoipa::path(
    post, path = "/v1/runs/{id}/retry", tag = "runs", operation_id = "retry_run",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = ActOnRun, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "Nothing is parked or blocked (`nothing_to_retry`)."),
    )
)]
pub(crate) async fn retry(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ActOnRun>,
) -> Answer {
    act(StatusCode::OK, &app, &caller, id, Command::Retry { by: caller.by(ask.reason) }).await
}

/// Vouch that a blocked compensation is done, or needs not be
///
/// The run goes on as if the step had been compensated, and says so in its outcome.
#[utoipa::path(
    post, path = "/v1/runs/{id}/steps/{step}/mark-compensated", tag = "runs", operation_id = "mark_compensated",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("step" = String, Path, description = "The step, or an item of a map step with its slash encoded: `stock%2F3`", example = "payment"),
    ),
    request_body(content = ActOnRun, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "The step is not being undone."),
    )
)]
pub(crate) async fn mark_compensated(
    State(app): Shared,
    caller: Caller,
    PathOf((id, step)): PathOf<(RunId, StepPath)>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ActOnRun>,
) -> Answer {
    act(StatusCode::OK, &app, &caller, id, Command::MarkUndone { step, by: caller.by(ask.reason) })
        .await
}

async fn act(done: StatusCode, app: &App, caller: &Caller, id: RunId, command: Command) -> Answer {
    app.engine.command(&caller.namespace, id, command).await?;
    json(done, &app.engine.run(&caller.namespace, id, None).await?)
}
