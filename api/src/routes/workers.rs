//! Reasons why a run does not go on, and views of workers.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::RunId;
use backstitch_saga::protocol::{Page, SignOff, SignedOff, Why, WorkerView};
use utoipa::IntoParams;

use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::examples;
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};

/// Show what a run waits for, and what can be done
///
/// Everything that it waits for: a worker, a report, the next attempt, a person, another run. Each with since when, until
/// when, and what people can do about it.
#[utoipa::path(
    get, path = "/v1/runs/{id}/why", tag = "runs", operation_id = "why_run",
    params(("id" = RunId, Path, description = "The run's id")),
    responses((status = 200, description = "What it waits for.", body = Why, example = json!(examples::why())))
)]
pub(crate) async fn why(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<RunId>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.why(&caller.namespace, id).await?)
}

/// Query parameters of a list of workers.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct WorkersQuery {
    /// Also those that went within the last hour.
    gone: Option<bool>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for WorkersQuery {
    fn read(pairs: &mut Pairs) -> Self {
        WorkersQuery {
            gone: pairs.parsed("gone"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// List workers, by name
///
/// Who asks for tasks at any node, and what they do. A worker that is killed is missed after half a minute at most.
#[utoipa::path(
    get, path = "/v1/workers", tag = "tasks", operation_id = "list_workers",
    params(WorkersQuery),
    responses((status = 200, description = "A page of workers.", body = Page<WorkerView>, example = json!(examples::workers())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<WorkersQuery>,
) -> Answer {
    let (gone, after) = (query.gone.unwrap_or(false), query.after.as_deref());
    json(StatusCode::OK, &app.engine.workers(&caller.namespace, gone, after, query.limit).await?)
}

/// Sign off a worker
///
/// Ends a session: nothing is handed to it any more, and it is no longer listed as there. A worker that stops releases
/// what it has not begun, reports the rest, and signs off.
#[utoipa::path(
    post, path = "/v1/workers/sign-off", tag = "tasks", operation_id = "sign_off_worker",
    request_body(content = SignOff, example = json!(examples::sign_off())),
    responses((status = 200, description = "The session has ended.", body = SignedOff, example = json!(examples::signed_off())))
)]
pub(crate) async fn sign_off(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    Body(ask): Body<SignOff>,
) -> Answer {
    let released = app.engine.sign_off(app.worker(&caller), ask.session).await?;
    json(StatusCode::OK, &SignedOff { released })
}
