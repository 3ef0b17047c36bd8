//! Named cursors: where readers of the log have come to.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_saga::protocol::{CursorView, MoveCursor, Page};

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json, located};
use crate::check::is_slug;
use crate::examples::events as examples;
use crate::problem::{Answer, Rejection};
use crate::query::{NoQuery, PathOf, QueryOf};

/// List cursors by name
#[utoipa::path(
    get, path = "/v1/cursors", tag = "events", operation_id = "list_cursors",
    params(PageQuery),
    responses((status = 200, description = "A page of cursors.", body = Page<CursorView>, example = json!(examples::cursors())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.cursors(&caller.namespace, after, query.limit).await?)
}

/// Move a cursor that is where it is thought to be
///
/// Without `expected` it is created. A cursor that is at the position already stays there, so that a request whose answer was lost is
/// sent again.
#[utoipa::path(
    put, path = "/v1/cursors/{name}", tag = "events", operation_id = "move_cursor",
    params(("name" = String, Path, description = "Its name", example = "search")),
    request_body(content = MoveCursor, example = json!(examples::move_cursor())),
    responses(
        (status = 201, description = "It is created.", body = CursorView, example = json!(examples::cursor())),
        (status = 200, description = "It is moved, or was there.", body = CursorView),
        (status = 409, description = "It is elsewhere (`cursor_conflict`), or there are as many as there may be (`too_many_cursors`)."),
    )
)]
pub(crate) async fn put(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<MoveCursor>,
) -> Answer {
    if !is_slug(&name) {
        let detail = "A cursor's name is [a-z0-9][a-z0-9._-]*, at most 100 characters.";
        return Err(Rejection::new(StatusCode::BAD_REQUEST, "invalid_path", detail));
    }
    let namespace = &caller.namespace;
    let (view, created) = app.engine.move_cursor(namespace, &name, &ask, &caller.name).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    located(json(status, &view), &format!("/v1/cursors/{name}"))
}

/// Show a cursor
#[utoipa::path(
    get, path = "/v1/cursors/{name}", tag = "events", operation_id = "show_cursor",
    params(("name" = String, Path, description = "Its name", example = "search")),
    responses((status = 200, description = "The cursor.", body = CursorView, example = json!(examples::cursor())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.cursor(&caller.namespace, &name).await?)
}

/// Delete a cursor
#[utoipa::path(
    delete, path = "/v1/cursors/{name}", tag = "events", operation_id = "delete_cursor",
    params(("name" = String, Path, description = "Its name", example = "search")),
    responses((status = 204, description = "It is deleted."))
)]
pub(crate) async fn delete(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    app.engine.delete_cursor(&caller.namespace, &name).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}
