//! Retention of the ended runs of workflows, and the erasure of one run.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::RunId;
use backstitch_saga::protocol::{EraseRun, ErasedRun, RetentionView, SetRetention};

use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::examples::acts as examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// Show how long the ended runs of a workflow are kept
#[utoipa::path(
    get, path = "/v1/workflows/{name}/retention", tag = "workflows", operation_id = "show_workflow_retention",
    params(("name" = String, Path, description = "The workflow's name", example = "place-order")),
    responses((status = 200, description = "How long they are kept.", body = RetentionView, example = json!(examples::retention())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.workflow_retention(&caller.namespace, &name).await?)
}

/// Set how long the ended runs of a workflow are kept
///
/// Shorter or longer than the server's `--retention`, an hour at least, for runs of all versions, also those that have ended already:
/// what is past the new retention is deleted within about an hour. `server` has the workflow follow the server again.
#[utoipa::path(
    put, path = "/v1/workflows/{name}/retention", tag = "workflows", operation_id = "set_workflow_retention",
    params(("name" = String, Path, description = "The workflow's name", example = "place-order")),
    request_body(content = SetRetention, example = json!(examples::set_retention())),
    responses((status = 200, description = "How long they are kept now.", body = RetentionView, example = json!(examples::retention())))
)]
pub(crate) async fn set(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<SetRetention>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    let retention = app.engine.set_workflow_retention(&caller.namespace, &name, &ask, &by).await?;
    json(StatusCode::OK, &retention)
}

/// Erase the documents of a run
///
/// Deletes inputs, outputs, signals, details and messages of errors, labels, the key, the correlation id, notes and reasons
/// everywhere, also in kept answers, of the run and of all runs that descend from it. Ids, steps, instants, codes and the outcome
/// stay, and who erased it and why: do not name the person in the reason. The run must have ended, or `kill` says that it is
/// killed first. Erasing it again changes nothing. A second pass a minute later takes what was being written meanwhile.
#[utoipa::path(
    post, path = "/v1/runs/{id}/erase", tag = "runs", operation_id = "erase_run",
    params(("id" = RunId, Path, description = "The run's id")),
    request_body(content = EraseRun, example = json!(examples::erase())),
    responses(
        (status = 200, description = "It is erased.", body = ErasedRun, example = json!(examples::erased())),
        (status = 409, description = "It cannot be erased so: `run_goes_on` (it, or one that descends from it, has not ended; if it was to be killed, ask again), `not_the_root` (it is a step of a run that is there: erase that), `too_many_runs`."),
    )
)]
pub(crate) async fn erase(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<EraseRun>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    json(StatusCode::OK, &app.engine.erase(&caller.namespace, id, &ask, &by).await?)
}
