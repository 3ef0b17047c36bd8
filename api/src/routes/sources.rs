//! Sources: who sends documents, and how they show it.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_saga::protocol::{Page, PutSource, RotateSource, SourceView};

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json, located};
use crate::check::is_slug;
use crate::examples::ingress as examples;
use crate::problem::{Answer, Rejection};
use crate::query::{NoQuery, PathOf, QueryOf};

/// List sources by name
#[utoipa::path(
    get, path = "/v1/sources", tag = "ingress", operation_id = "list_sources",
    params(PageQuery),
    responses((status = 200, description = "A page of sources.", body = Page<SourceView>, example = json!(examples::sources())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.sources(&caller.namespace, after, query.limit).await?)
}

/// Create or change a source
///
/// Its contracts must be there. Its secret is never shown; changed without one, it keeps that of before. What is changed holds on
/// all servers within a second. Names are `[a-z0-9][a-z0-9._-]*`.
#[utoipa::path(
    put, path = "/v1/sources/{name}", tag = "ingress", operation_id = "put_source",
    params(("name" = String, Path, description = "Its name", example = "crm")),
    request_body(content = PutSource, example = json!(examples::put())),
    responses(
        (status = 201, description = "It is made.", body = SourceView, example = json!(examples::source())),
        (status = 200, description = "It is changed, or was the same.", body = SourceView),
        (status = 409, description = "There are as many as there may be (`too_many_sources`)."),
        (status = 422, description = "Something is wrong with it (`invalid_source`); all of it is told."),
    )
)]
pub(crate) async fn put(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<PutSource>,
) -> Answer {
    if !is_slug(&name) {
        let detail = "A source's name is [a-z0-9][a-z0-9._-]*, at most 100 characters.";
        return Err(Rejection::new(StatusCode::BAD_REQUEST, "invalid_path", detail));
    }
    let by = caller.by(ask.reason.clone());
    let (view, created) = app.engine.put_source(&caller.namespace, &name, &ask, &by).await?;
    let status = if created { StatusCode::CREATED } else { StatusCode::OK };
    located(json(status, &view), &format!("/v1/sources/{name}"))
}

/// Show a source
#[utoipa::path(
    get, path = "/v1/sources/{name}", tag = "ingress", operation_id = "show_source",
    params(("name" = String, Path, description = "Its name", example = "crm")),
    responses((status = 200, description = "The source, without its secrets.", body = SourceView, example = json!(examples::source())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.source(&caller.namespace, &name).await?)
}

/// Delete a source
///
/// What it has sent stays. Its address is unknown from then on.
#[utoipa::path(
    delete, path = "/v1/sources/{name}", tag = "ingress", operation_id = "delete_source",
    params(("name" = String, Path, description = "Its name", example = "crm")),
    responses((status = 204, description = "It is deleted."))
)]
pub(crate) async fn delete(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
) -> Answer {
    let by = caller.by(String::new());
    app.engine.delete_source(&caller.namespace, &name, &by).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Give a source another secret
///
/// The secret of before is good for `overlap` more, so that both are until the sender uses the new one. Sent again with the secret
/// that is in use, nothing is changed. No `Idempotency-Key` is taken: no secret is kept.
#[utoipa::path(
    post, path = "/v1/sources/{name}/rotate", tag = "ingress", operation_id = "rotate_source",
    params(("name" = String, Path, description = "Its name", example = "crm")),
    request_body(content = RotateSource, example = json!(examples::rotate())),
    responses(
        (status = 200, description = "It has another secret.", body = SourceView, example = json!(examples::source())),
        (status = 422, description = "It is no secret for its scheme (`invalid_source`)."),
    )
)]
pub(crate) async fn rotate(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<RotateSource>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    json(StatusCode::OK, &app.engine.rotate_source(&caller.namespace, &name, &ask, &by).await?)
}
