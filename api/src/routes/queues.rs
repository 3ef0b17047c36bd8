//! Policies of queues, and acts of people on queues.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_engine::QueueAct;
use backstitch_saga::protocol::{Page, QueuePolicy, QueueView, Reason};

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::{App, Shared};
use crate::body::{Body, json, located};
use crate::check::queues::is_queue;
use crate::examples;
use crate::problem::{Answer, Rejection};
use crate::query::{NoQuery, PathOf, QueryOf};

/// List governed queues, by name
///
/// Queues without a policy are not listed: nothing is known of them and nothing limits them.
#[utoipa::path(
    get, path = "/v1/queues", tag = "queues", operation_id = "list_queues",
    params(PageQuery),
    responses((status = 200, description = "A page of governed queues.", body = Page<QueueView>, example = json!(examples::queues())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.queues(&caller.namespace, after, query.limit).await?)
}

/// Show a governed queue
#[utoipa::path(
    get, path = "/v1/queues/{name}", tag = "queues", operation_id = "show_queue",
    params(("name" = String, Path, description = "Its name", example = "erp")),
    responses(
        (status = 200, description = "Its policy, and how it stands.", body = QueueView, example = json!(examples::queue())),
        (status = 404, description = "It has no policy (`unknown_queue`)."),
        (status = 409, description = "Its row cannot be read (`queue_damaged`)."),
    )
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(queue): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.queue(&caller.namespace, &queue).await?)
}

/// Set the policy of a queue
///
/// Replaces the whole policy; what is left out is not limited. Whether the queue is paused stays as it is. All nodes
/// know of a queue's first policy within a second or two, and of every change at once. A row that cannot be read is
/// replaced.
#[utoipa::path(
    put, path = "/v1/queues/{name}", tag = "queues", operation_id = "set_queue",
    params(("name" = String, Path, description = "Its name", example = "erp")),
    request_body(content = QueuePolicy, example = json!(examples::queue_policy())),
    responses(
        (status = 201, description = "It is governed from now on.", body = QueueView, example = json!(examples::queue())),
        (status = 200, description = "Its policy was replaced.", body = QueueView),
    )
)]
pub(crate) async fn set(
    State(app): Shared,
    caller: Caller,
    PathOf(queue): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(policy): Body<QueuePolicy>,
) -> Answer {
    must_be_queue(&queue)?;
    let new =
        app.engine.set_queue(&caller.namespace, &queue, &policy, &caller.by(String::new())).await?;
    let view = app.engine.queue(&caller.namespace, &queue).await?;
    if new {
        return located(json(StatusCode::CREATED, &view), &format!("/v1/queues/{queue}"));
    }
    json(StatusCode::OK, &view)
}

/// Delete the policy of a queue, which lifts all its limits
///
/// Its policy, its pause and its counts are gone.
#[utoipa::path(
    delete, path = "/v1/queues/{name}", tag = "queues", operation_id = "remove_queue",
    params(("name" = String, Path, description = "Its name", example = "erp")),
    responses(
        (status = 204, description = "It is governed no more."),
        (status = 404, description = "It had no policy (`unknown_queue`)."),
    )
)]
pub(crate) async fn remove(
    State(app): Shared,
    caller: Caller,
    PathOf(queue): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    app.engine.remove_queue(&caller.namespace, &queue, &caller.by(String::new())).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Pause a queue: none of its tasks is handed out
///
/// Tasks that workers hold go on. Works on a queue without a policy, too.
#[utoipa::path(
    post, path = "/v1/queues/{name}/pause", tag = "queues", operation_id = "pause_queue",
    params(("name" = String, Path, description = "Its name", example = "erp")),
    request_body(content = Reason, example = json!(examples::queue_reason())),
    responses(
        (status = 200, description = "The queue as it is now.", body = QueueView),
        (status = 409, description = "Its row cannot be read (`queue_damaged`)."),
    )
)]
pub(crate) async fn pause(
    State(app): Shared,
    caller: Caller,
    PathOf(queue): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    act(&app, &caller, &queue, QueueAct::Pause, ask).await
}

/// Resume a paused queue
#[utoipa::path(
    post, path = "/v1/queues/{name}/resume", tag = "queues", operation_id = "resume_queue",
    params(("name" = String, Path, description = "Its name", example = "erp")),
    request_body(content = Reason, example = json!(examples::queue_reason())),
    responses(
        (status = 200, description = "The queue as it is now.", body = QueueView),
        (status = 409, description = "Its row cannot be read (`queue_damaged`)."),
    )
)]
pub(crate) async fn resume(
    State(app): Shared,
    caller: Caller,
    PathOf(queue): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    act(&app, &caller, &queue, QueueAct::Resume, ask).await
}

/// Open the breaker of a queue
///
/// As if enough calls had failed: nothing is handed out for `open_for`, then probes find out whether the destination
/// answers.
#[utoipa::path(
    post, path = "/v1/queues/{name}/open", tag = "queues", operation_id = "open_queue",
    params(("name" = String, Path, description = "Its name", example = "erp")),
    request_body(content = Reason, example = json!(examples::queue_reason())),
    responses(
        (status = 200, description = "The queue as it is now.", body = QueueView),
        (status = 409, description = "Its policy has no breaker (`no_breaker`), or its row cannot be read (`queue_damaged`)."),
    )
)]
pub(crate) async fn open(
    State(app): Shared,
    caller: Caller,
    PathOf(queue): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    act(&app, &caller, &queue, QueueAct::Open, ask).await
}

/// Close the breaker of a queue and clear its failures
#[utoipa::path(
    post, path = "/v1/queues/{name}/close", tag = "queues", operation_id = "close_queue",
    params(("name" = String, Path, description = "Its name", example = "erp")),
    request_body(content = Reason, example = json!(examples::queue_reason())),
    responses(
        (status = 200, description = "The queue as it is now.", body = QueueView),
        (status = 409, description = "Its policy has no breaker (`no_breaker`), or its row cannot be read (`queue_damaged`)."),
    )
)]
pub(crate) async fn close(
    State(app): Shared,
    caller: Caller,
    PathOf(queue): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    act(&app, &caller, &queue, QueueAct::Close, ask).await
}

async fn act(app: &App, caller: &Caller, queue: &str, act: QueueAct, ask: Reason) -> Answer {
    must_be_queue(queue)?;
    app.engine.act_on_queue(&caller.namespace, queue, act, &caller.by(ask.reason)).await?;
    json(StatusCode::OK, &app.engine.queue(&caller.namespace, queue).await?)
}

fn must_be_queue(queue: &str) -> Result<(), Rejection> {
    if is_queue(queue) {
        return Ok(());
    }
    let detail = "A queue's name has 1 to 200 bytes and no control characters.";
    Err(Rejection::new(StatusCode::BAD_REQUEST, "invalid_path", detail))
}
