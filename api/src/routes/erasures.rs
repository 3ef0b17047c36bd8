//! Erasing what is known of somebody.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{EraseData, ErasureView, Page};
use uuid::Uuid;

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json, located};
use crate::examples::ingress as examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// List erasures of data, the newest first
#[utoipa::path(
    get, path = "/v1/erasures", tag = "ingress", operation_id = "list_erasures",
    params(PageQuery),
    responses((status = 200, description = "A page of erasures.", body = Page<ErasureView>, example = json!(examples::erasures())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.data_erasures(&caller.namespace, after, query.limit).await?)
}

/// Erase all of a stream, or all documents that had an identifier
///
/// The bytes of documents, what is known of them, the data of their events and of those that these caused, identifiers, keys of repeats, links, and the runs of their
/// stories are gone. Positions, envelopes and leaves of events stay: a reader is told `erased`. It is done at once and once more a minute later,
/// for what was being written; what was asked for is forgotten then.
#[utoipa::path(
    post, path = "/v1/erasures", tag = "ingress", operation_id = "create_erasure",
    request_body(content = EraseData, example = json!(examples::erase())),
    responses((status = 201, description = "It is begun.", body = ErasureView, example = json!(examples::erasure())))
)]
pub(crate) async fn create(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    Body(ask): Body<EraseData>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    let view = app.engine.erase_data(&caller.namespace, &ask, &by).await?;
    located(json(StatusCode::CREATED, &view), &format!("/v1/erasures/{}", view.id))
}

/// Show an erasure of data
#[utoipa::path(
    get, path = "/v1/erasures/{id}", tag = "ingress", operation_id = "show_erasure",
    params(("id" = Uuid, Path, description = "Its id")),
    responses((status = 200, description = "The erasure.", body = ErasureView, example = json!(examples::erasure())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.data_erasure(&caller.namespace, id).await?)
}
