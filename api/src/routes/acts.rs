//! Acts of people on runs. Each act needs a reason, and the history records it with the caller's name.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_engine::Error;
use backstitch_saga::protocol::{
    CompensateRun, PauseRun, Plan, Reason, RerunItems, RerunPlan, RerunRun, RunView,
};
use backstitch_saga::{Command, Hold, HoldKind, RunId, StepPath};
use utoipa::IntoParams;

use super::steps::ItemQuery;
use crate::access::Caller;
use crate::app::{App, Shared};
use crate::body::{Body, json};
use crate::examples;
use crate::problem::{Answer, Rejection};
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};

/// The part of a dry run's plan that is wanted.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct PlanQuery {
    /// With `dry_run`: `next` of the page before.
    after: Option<String>,
    /// With `dry_run`: the most undos of a page. 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for PlanQuery {
    fn read(pairs: &mut Pairs) -> Self {
        PlanQuery { after: pairs.text("after"), limit: pairs.limit() }
    }
}

/// Undo a run, or a part of it
///
/// `scope` is `"all"`, `{"back_to": "payment"}` (the step and all that depends on it) or
/// `{"steps": ["mail"]}`. With `dry_run` the exact plan is answered, a page of its undos at a time, and nothing is
/// written. Works on runs that move, that failed and that succeeded; past a pivot only with `force`.
#[utoipa::path(
    post, path = "/v1/runs/{id}/compensate", tag = "runs", operation_id = "compensate_run",
    params(("id" = RunId, Path, description = "The run's id"), PlanQuery),
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
    QueryOf(query): QueryOf<PlanQuery>,
    Body(ask): Body<CompensateRun>,
) -> Answer {
    if ask.dry_run {
        let PlanQuery { after, limit } = query;
        let plan = app.engine.plan(&caller.namespace, id, &ask.scope, after.as_deref(), limit);
        let plan = plan.await?;
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
    request_body(content = Reason, example = json!(examples::reason())),
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
    Body(ask): Body<Reason>,
) -> Answer {
    act(StatusCode::OK, &app, &caller, id, Command::Cancel { by: caller.by(ask.reason) }).await
}

/// End a run as it stands; nothing is undone
#[utoipa::path(
    post, path = "/v1/runs/{id}/kill", tag = "runs", operation_id = "kill_run",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = Reason, example = json!(examples::reason())),
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
    Body(ask): Body<Reason>,
) -> Answer {
    act(StatusCode::OK, &app, &caller, id, Command::Kill { by: caller.by(ask.reason) }).await
}

/// Retry everything that is parked or blocked
///
/// When nothing is, what waits for its next attempt is tried at once.
#[utoipa::path(
    post, path = "/v1/runs/{id}/retry", tag = "runs", operation_id = "retry_run",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = Reason, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "Nothing is parked, blocked or waiting for a retry (`nothing_to_retry`)."),
    )
)]
pub(crate) async fn retry(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    act(StatusCode::OK, &app, &caller, id, Command::Retry { step: None, input: None, by }).await
}

/// Mark a blocked compensation as done by hand
///
/// The run goes on as if the step had been compensated, and says so in its outcome.
#[utoipa::path(
    post, path = "/v1/runs/{id}/steps/{step}/mark-compensated", tag = "runs", operation_id = "mark_compensated",
    params(
        ("id" = RunId, Path, description = "The run's id"),
        ("step" = String, Path, description = "The step, or an item of a map step such as `stock/3`; a path has its slash encoded, as `stock%2F3`", example = "payment"),
        ItemQuery
    ),
    request_body(content = Reason, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "The step is not being undone."),
    )
)]
pub(crate) async fn mark_compensated(
    State(app): Shared,
    caller: Caller,
    PathOf((id, step)): PathOf<(RunId, StepPath)>,
    QueryOf(query): QueryOf<ItemQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let step = query.of(&app, &caller, id, step).await?;
    act(StatusCode::OK, &app, &caller, id, Command::MarkUndone { step, by: caller.by(ask.reason) })
        .await
}

/// Pause a run: none of its tasks is handed out
///
/// What a worker has may end. A run can be paused for several reasons at once; it goes on when all are gone.
#[utoipa::path(
    post, path = "/v1/runs/{id}/pause", tag = "runs", operation_id = "pause_run",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = PauseRun, example = json!(examples::acts::pause())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 409, description = "It has ended (`run_ended`)."),
    )
)]
pub(crate) async fn pause(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<PauseRun>,
) -> Answer {
    let name = ask.name.map_or_else(|| caller.name.clone(), Into::into);
    let message = format!("paused by {}", caller.name);
    let by = Some(caller.by(ask.reason));
    let command = Command::Hold { hold: Hold { kind: HoldKind::Paused, name }, by, message };
    act(StatusCode::OK, &app, &caller, id, command).await
}

/// Resume a paused run
///
/// Takes away one pause by its name, or all of them. Without a name a run that is not paused is answered the same.
#[utoipa::path(
    post, path = "/v1/runs/{id}/resume", tag = "runs", operation_id = "resume_run",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = PauseRun, example = json!(examples::acts::pause())),
    responses(
        (status = 200, description = "The run as it is now.", body = RunView),
        (status = 404, description = "There is no such run (`unknown_run`), or it has no pause of that name (`unknown_pause`)."),
    )
)]
pub(crate) async fn resume(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<PauseRun>,
) -> Answer {
    let hold = ask.name.map(|name| Hold::new(HoldKind::Paused, name));
    let command = Command::Unhold { hold, by: Some(caller.by(ask.reason)) };
    act(StatusCode::OK, &app, &caller, id, command).await
}

/// Go back to a step and forward again from there
///
/// What stands of the step and of all that followed is undone first, then it is done anew, optionally with a new
/// input. Works on runs that move, that failed and that ended. With `dry_run` what would be undone and done again is
/// answered, and nothing is written. Of a fan-out, `"items": "failed"` executes the items again that did not succeed:
/// what the others did stands, and the run goes on from the join.
#[utoipa::path(
    post, path = "/v1/runs/{id}/rerun", tag = "runs", operation_id = "rerun_run",
    params(("id" = RunId, Path, description = "The run's id"), PlanQuery),
    request_body(content = RerunRun, example = json!(examples::acts::rerun())),
    responses(
        (status = 200, description = "The plan of a dry run.", body = RerunPlan, example = json!(examples::acts::rerun_plan())),
        (status = 202, description = "It began: the run as it is now.", body = RunView),
        (status = 409, description = "It cannot be rerun so: `already_compensating`, `past_pivot`, `compensation_window_closed`, `nothing_to_retry`."),
    )
)]
pub(crate) async fn rerun(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    QueryOf(query): QueryOf<PlanQuery>,
    Body(ask): Body<RerunRun>,
) -> Answer {
    if ask.dry_run {
        let (from, PlanQuery { after, limit }) = (&ask.from, query);
        let after = after.as_deref();
        let plan = app.engine.rerun_plan(&caller.namespace, id, from, ask.items, after, limit);
        let plan = plan.await?;
        return json(StatusCode::OK, &plan);
    }
    let by = caller.by(ask.reason);
    let RerunRun { from, input, items, force, .. } = ask;
    let only_failed = items == RerunItems::Failed;
    let command = Command::Rerun { from: from.into(), input, only_failed, force, by };
    act(StatusCode::ACCEPTED, &app, &caller, id, command).await
}

pub(super) async fn act(
    done: StatusCode,
    app: &App,
    caller: &Caller,
    id: RunId,
    command: Command,
) -> Answer {
    app.engine.command(&caller.namespace, id, command).await?;
    match app.engine.run(&caller.namespace, id, None).await {
        Err(Error::Damaged(what)) => Err(Rejection::new(
            StatusCode::CONFLICT,
            "journal_damaged",
            "What was asked is done, but the run cannot be shown, because its journal cannot be read. Its incident with \
             the number 0 says more.",
        )
        .with_log(what)),
        view => json(done, &view?),
    }
}
