//! Workflows whose new runs are held.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{Page, PauseView, Reason};

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// List pauses of workflows, newest first
///
/// Those that people made, and those of the guard: it pauses a workflow when 20 of its runs open incidents of one new
/// cause within five minutes, and names the fingerprint.
#[utoipa::path(
    get, path = "/v1/pauses", tag = "workflows", operation_id = "list_pauses",
    params(PageQuery),
    responses((status = 200, description = "A page of pauses.", body = Page<PauseView>, example = json!(examples::incidents::pauses())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.pauses(&caller.namespace, after, query.limit).await?)
}

/// Pause a workflow: its new runs are held
///
/// Starts are accepted, and nothing of the runs is handed out until the workflow goes on. Runs that have begun go on.
/// Answers the newest pauses of all workflows.
#[utoipa::path(
    post, path = "/v1/workflows/{name}/pause", tag = "workflows", operation_id = "pause_workflow",
    params(("name" = String, Path, description = "The workflow's name")),
    request_body(content = Reason, example = json!(examples::reason())),
    responses((status = 200, description = "It is paused.", body = Page<PauseView>))
)]
pub(crate) async fn pause(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    app.engine.pause_workflow(&caller.namespace, &name, &caller.by(ask.reason)).await?;
    json(StatusCode::OK, &app.engine.pauses(&caller.namespace, None, 100).await?)
}

/// Resume a paused workflow
///
/// New runs begin at once; those that were held are let go, at most a hundred a second. Answers the newest pauses of all
/// workflows.
#[utoipa::path(
    post, path = "/v1/workflows/{name}/resume", tag = "workflows", operation_id = "resume_workflow",
    params(("name" = String, Path, description = "The workflow's name")),
    request_body(content = Reason, example = json!(examples::reason())),
    responses((status = 200, description = "It goes on.", body = Page<PauseView>))
)]
pub(crate) async fn resume(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    app.engine.resume_workflow(&caller.namespace, &name, &caller.by(ask.reason)).await?;
    json(StatusCode::OK, &app.engine.pauses(&caller.namespace, None, 100).await?)
}
