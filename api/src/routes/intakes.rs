//! Intake: what sources have sent, and what became of it.

use axum::extract::State;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::IntoResponse;
use backstitch_engine::ingress::IntakeQuery;
use backstitch_saga::protocol::{IntakeVerdict, IntakeView, MappingState, Page, Reason};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::examples::{self as all, ingress as examples};
use crate::problem::Answer;
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};

/// Query parameters of a list of documents.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct IntakesQuery {
    /// Only those of this source.
    source: Option<String>,
    /// Only those with this verdict.
    verdict: Option<IntakeVerdict>,
    /// Only those that were refused with this code.
    code: Option<String>,
    /// Only those that were mapped, or could not be.
    mapping: Option<MappingState>,
    /// Only those that follow this contract, such as `crm.contact@3`.
    contract: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for IntakesQuery {
    fn read(pairs: &mut Pairs) -> Self {
        IntakesQuery {
            source: pairs.text("source"),
            verdict: pairs.word("verdict"),
            code: pairs.text("code"),
            mapping: pairs.word("mapping"),
            contract: pairs.text("contract"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// List documents of sources, the newest first
///
/// Of a namespace with many sources, those of one source, or those that were refused, are found fastest.
#[utoipa::path(
    get, path = "/v1/intakes", tag = "ingress", operation_id = "list_intakes",
    params(IntakesQuery),
    responses((status = 200, description = "A page of documents.", body = Page<IntakeView>, example = json!(examples::intakes())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<IntakesQuery>,
) -> Answer {
    let IntakesQuery { source, verdict, code, mapping, contract, after, limit } = query;
    let wanted = IntakeQuery { source, verdict, code, mapping, contract };
    let found = app.engine.intakes(&caller.namespace, &wanted, after.as_deref(), limit).await?;
    json(StatusCode::OK, &found)
}

/// Show a document of a source and what became of it
#[utoipa::path(
    get, path = "/v1/intakes/{id}", tag = "ingress", operation_id = "show_intake",
    params(("id" = Uuid, Path, description = "Its id")),
    responses((status = 200, description = "The document, without its bytes.", body = IntakeView, example = json!(examples::intake())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.intake(&caller.namespace, id).await?)
}

/// Read the bytes of a document as they came
#[utoipa::path(
    get, path = "/v1/intakes/{id}/raw", tag = "ingress", operation_id = "read_intake",
    params(("id" = Uuid, Path, description = "Its id")),
    responses((status = 200, description = "The bytes, with the content type that they came with.", content_type = "application/octet-stream", body = Vec<u8>))
)]
pub(crate) async fn raw(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
) -> Answer {
    let (raw, content_type) = app.engine.intake_raw(&caller.namespace, id).await?;
    let kind = HeaderValue::from_str(&content_type)
        .unwrap_or(HeaderValue::from_static("application/octet-stream"));
    let mut response = (StatusCode::OK, raw).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    let apart = HeaderValue::from_static("attachment");
    response.headers_mut().insert(header::CONTENT_DISPOSITION, apart);
    Ok(response)
}

/// Process a document once more
///
/// It is held to its source and its contract as they are now. What it is then stands in `verdict`; it keeps when it was received
/// and how its sender was verified. One that was accepted stays an event, and is mapped again by the transform that is active: another
/// event is appended only if the result differs, with the label `supersedes`.
#[utoipa::path(
    post, path = "/v1/intakes/{id}/reprocess", tag = "ingress", operation_id = "reprocess_intake",
    params(("id" = Uuid, Path, description = "Its id")),
    request_body(content = Reason, example = json!(all::schedules::reason())),
    responses((status = 200, description = "It was processed.", body = IntakeView, example = json!(examples::intake())))
)]
pub(crate) async fn reprocess(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<Reason>,
) -> Answer {
    let by = caller.by(ask.reason);
    json(StatusCode::OK, &app.engine.reprocess_intake(&caller.namespace, id, &by).await?)
}
