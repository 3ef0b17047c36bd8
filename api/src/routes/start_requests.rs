//! Starts that applications asked for in their own transactions and that have not become runs.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{Page, Reason, StartRequestState, StartRequestView};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::examples;
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};

/// Query parameters of the list.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct StartRequestsQuery {
    /// Only in this state.
    state: Option<StartRequestState>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for StartRequestsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        StartRequestsQuery {
            state: pairs.word("state"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// List starts that have not become runs, newest first
///
/// They were asked for in SQL, with `backstitch.start_run`. One that is accepted is gone from here at once: it is a run.
#[utoipa::path(
    get, path = "/v1/start-requests", tag = "runs", operation_id = "list_start_requests",
    params(StartRequestsQuery),
    responses((status = 200, description = "A page of start requests, without their inputs.", body = Page<StartRequestView>,
        example = json!(examples::start_requests())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<StartRequestsQuery>,
) -> Answer {
    let StartRequestsQuery { state, after, limit } = query;
    let page = app.engine.start_requests(&caller.namespace, state, after.as_deref(), limit);
    json(StatusCode::OK, &page.await?)
}

/// Show a start that has not become a run
#[utoipa::path(
    get, path = "/v1/start-requests/{id}", tag = "runs", operation_id = "show_start_request",
    params(("id" = Uuid, Path, description = "The request's id; without a key it is the run's id, too")),
    responses(
        (status = 200, description = "The request with its input.", body = StartRequestView, example = json!(examples::start_request())),
        (status = 404, description = "There is no such request (`unknown_start_request`), or it is a run by now."),
    )
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.start_request(&caller.namespace, id).await?)
}

/// Retry a refused start
///
/// After what was wrong has been put right, such as a workflow that was not registered.
#[utoipa::path(
    post, path = "/v1/start-requests/{id}/retry", tag = "runs", operation_id = "retry_start_request",
    params(("id" = Uuid, Path, description = "The request's id")),
    request_body(content = Reason, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The request, which waits again.", body = StartRequestView),
        (status = 404, description = "There is no such request (`unknown_start_request`), or it is a run by now."),
    )
)]
pub(crate) async fn retry(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    decide(&app, &caller, id, StartRequestState::Waiting, ask).await
}

/// Dismiss a refused start
///
/// It stays listed as dismissed, with who and why, for as long as answers under an `Idempotency-Key` are kept.
#[utoipa::path(
    post, path = "/v1/start-requests/{id}/dismiss", tag = "runs", operation_id = "dismiss_start_request",
    params(("id" = Uuid, Path, description = "The request's id")),
    request_body(content = Reason, example = json!(examples::reason())),
    responses(
        (status = 200, description = "The request. One that waits is left alone: it is about to start.", body = StartRequestView),
        (status = 404, description = "There is no such request (`unknown_start_request`), or it is a run by now."),
    )
)]
pub(crate) async fn dismiss(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    decide(&app, &caller, id, StartRequestState::Dismissed, ask).await
}

async fn decide(
    app: &crate::app::App,
    caller: &Caller,
    id: Uuid,
    state: StartRequestState,
    ask: Reason,
) -> Answer {
    let by = caller.by(ask.reason);
    let view = app.engine.decide_start_request(&caller.namespace, id, state, by).await?;
    json(StatusCode::OK, &view)
}
