//! Imports: files that sources have sent, and what became of their rows.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{ImportState, ImportView, Page, Reason, RefusedRow};
use utoipa::IntoParams;
use uuid::Uuid;

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::examples::{self as all, ingress as examples};
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};

/// Query parameters of a list of imports.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct ImportsQuery {
    /// Only those of this source.
    source: Option<String>,
    /// Only those that stand so.
    state: Option<ImportState>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for ImportsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        ImportsQuery {
            source: pairs.text("source"),
            state: pairs.word("state"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// List imports of files, the newest first
#[utoipa::path(
    get, path = "/v1/imports", tag = "ingress", operation_id = "list_imports",
    params(ImportsQuery),
    responses((status = 200, description = "A page of imports.", body = Page<ImportView>, example = json!(examples::imports())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<ImportsQuery>,
) -> Answer {
    let wanted = (query.source.as_deref(), query.state);
    let after = query.after.as_deref();
    let found = app.engine.imports(&caller.namespace, wanted, after, query.limit).await?;
    json(StatusCode::OK, &found)
}

/// Show an import and how far it is
#[utoipa::path(
    get, path = "/v1/imports/{id}", tag = "ingress", operation_id = "show_import",
    params(("id" = Uuid, Path, description = "Its id")),
    responses((status = 200, description = "The import.", body = ImportView, example = json!(examples::import())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.import(&caller.namespace, id).await?)
}

/// List rows of an import that were refused
///
/// By their numbers, each with the document that is kept of it: `GET /v1/intakes/{id}` tells everything that is wrong.
#[utoipa::path(
    get, path = "/v1/imports/{id}/refused", tag = "ingress", operation_id = "list_refused_rows",
    params(("id" = Uuid, Path, description = "Id of the import"), PageQuery),
    responses((status = 200, description = "A page of rows.", body = Page<RefusedRow>, example = json!(examples::refused_rows())))
)]
pub(crate) async fn refused(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    let found = app.engine.refused_rows(&caller.namespace, id, after, query.limit).await?;
    json(StatusCode::OK, &found)
}

/// End an import
///
/// Rows that were taken in stay; the others are forgotten.
#[utoipa::path(
    post, path = "/v1/imports/{id}/cancel", tag = "ingress", operation_id = "cancel_import",
    params(("id" = Uuid, Path, description = "Its id")),
    request_body(content = Reason, example = json!(all::schedules::reason())),
    responses(
        (status = 200, description = "It has ended.", body = ImportView, example = json!(examples::import())),
        (status = 409, description = "It had ended before (`import_ended`)."),
    )
)]
pub(crate) async fn cancel(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    json(StatusCode::OK, &app.engine.cancel_import(&caller.namespace, id, &by).await?)
}
