//! Reprocessing of many documents of sources, and why documents cannot be mapped.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_saga::protocol::{MappingProblems, NewReprocess, Page, Reason, ReprocessView};
use utoipa::IntoParams;
use uuid::Uuid;

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json, located};
use crate::examples::{self as all, ingress as examples};
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};

/// Query parameters of the reasons why documents cannot be mapped.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct MappingProblemsQuery {
    /// Only those of this source.
    source: Option<String>,
}

impl FromQuery for MappingProblemsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        MappingProblemsQuery { source: pairs.text("source") }
    }
}

/// List why documents cannot be mapped, the most frequent reasons first
///
/// The last 10,000 documents that cannot be mapped are looked at, and up to 100 reasons are told, each once with the last document that has it. What was
/// mended and processed again is not among them any more.
#[utoipa::path(
    get, path = "/v1/mapping-problems", tag = "ingress", operation_id = "list_mapping_problems",
    params(MappingProblemsQuery),
    responses((status = 200, description = "The reasons.", body = MappingProblems, example = json!(examples::problems())))
)]
pub(crate) async fn problems(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<MappingProblemsQuery>,
) -> Answer {
    let source = query.source.as_deref();
    json(StatusCode::OK, &app.engine.mapping_problems(&caller.namespace, source).await?)
}

/// List reprocessings, the newest first
#[utoipa::path(
    get, path = "/v1/reprocessings", tag = "ingress", operation_id = "list_reprocesses",
    params(PageQuery),
    responses((status = 200, description = "A page of reprocessings.", body = Page<ReprocessView>, example = json!(examples::reprocesses())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.reprocesses(&caller.namespace, after, query.limit).await?)
}

/// Process many documents again
///
/// In the order in which they came, by their source, contract and transform as they are then. Only what differs is written: a document that was
/// refused and is not any more becomes an event, one that is mapped otherwise becomes another event, and one that a newer document of its entity has overtaken
/// becomes none. A dry run counts the same and writes nothing.
#[utoipa::path(
    post, path = "/v1/reprocessings", tag = "ingress", operation_id = "create_reprocess",
    request_body(content = NewReprocess, example = json!(examples::new_reprocess())),
    responses(
        (status = 201, description = "It is at work.", body = ReprocessView, example = json!(examples::reprocess())),
        (status = 429, description = "Too many are at work (`too_many_reprocesses`)."),
    )
)]
pub(crate) async fn create(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    Body(ask): Body<NewReprocess>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    let view = app.engine.create_reprocess(&caller.namespace, &ask, &by).await?;
    located(json(StatusCode::CREATED, &view), &format!("/v1/reprocessings/{}", view.id))
}

/// Show a reprocessing and its counts
#[utoipa::path(
    get, path = "/v1/reprocessings/{id}", tag = "ingress", operation_id = "show_reprocess",
    params(("id" = Uuid, Path, description = "Its id")),
    responses((status = 200, description = "The reprocessing.", body = ReprocessView, example = json!(examples::reprocess())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.reprocess(&caller.namespace, id).await?)
}

/// Stop a reprocessing
///
/// What was written stays.
#[utoipa::path(
    post, path = "/v1/reprocessings/{id}/stop", tag = "ingress", operation_id = "stop_reprocess",
    params(("id" = Uuid, Path, description = "Its id")),
    request_body(content = Reason, example = json!(all::schedules::reason())),
    responses(
        (status = 200, description = "It is stopped.", body = ReprocessView, example = json!(examples::reprocess())),
        (status = 409, description = "It had ended (`reprocess_ended`)."),
    )
)]
pub(crate) async fn stop(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    json(StatusCode::OK, &app.engine.stop_reprocess(&caller.namespace, id, &by).await?)
}
