//! Transforms: mappings of one version of a contract to another.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_engine::Registered;
use backstitch_saga::protocol::{
    ActivateTransform, Page, PutTransform, TestTransform, TransformLine, TransformTest,
    TransformView, TransformWhatIf, WhatIfTransform,
};

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::examples::transforms as examples;
use crate::problem::Answer;
use crate::query::{NoQuery, PathOf, QueryOf};

/// Subject and version of the source, subject and version of the target.
type Ends = (String, u32, String, u32);

/// List transforms by source and target
#[utoipa::path(
    get, path = "/v1/transforms", tag = "contracts", operation_id = "list_transforms",
    params(PageQuery),
    responses((status = 200, description = "A page of transforms.", body = Page<TransformLine>, example = json!(examples::list())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    json(StatusCode::OK, &app.engine.transforms(&caller.namespace, after, query.limit).await?)
}

/// Show a transform with its revisions
#[utoipa::path(
    get, path = "/v1/transforms/{from}/{from_version}/{to}/{to_version}", tag = "contracts", operation_id = "show_transform",
    params(
        ("from" = String, Path, description = "The subject of the source", example = "crm.contact"),
        ("from_version" = u32, Path, description = "Its version", example = 1),
        ("to" = String, Path, description = "The subject of the target", example = "customer"),
        ("to_version" = u32, Path, description = "Its version", example = 1),
    ),
    responses((status = 200, description = "The transform that is used, and all revisions.", body = TransformView, example = json!(examples::view())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf((from, from_version, to, to_version)): PathOf<Ends>,
    _: QueryOf<NoQuery>,
) -> Answer {
    let name = (from.as_str(), from_version, to.as_str(), to_version);
    json(StatusCode::OK, &app.engine.transform(&caller.namespace, name).await?)
}

/// Register a revision of a transform
///
/// It is checked against both contracts first, which must be registered and not retired. The same as the newest revision is that
/// revision. `"activate": false` keeps it beside the one that is used, to be tested.
#[utoipa::path(
    put, path = "/v1/transforms/{from}/{from_version}/{to}/{to_version}", tag = "contracts", operation_id = "put_transform",
    params(
        ("from" = String, Path, description = "The subject of the source", example = "crm.contact"),
        ("from_version" = u32, Path, description = "Its version", example = 1),
        ("to" = String, Path, description = "The subject of the target", example = "customer"),
        ("to_version" = u32, Path, description = "Its version", example = 1),
    ),
    request_body(content = PutTransform, example = json!(examples::put())),
    responses(
        (status = 201, description = "It is a new revision.", body = TransformView, example = json!(examples::view())),
        (status = 200, description = "The same was there.", body = TransformView),
        (status = 409, description = "A contract is retired (`version_retired`), or there are as many as there may be (`transform_full`, `too_many_transforms`)."),
        (status = 422, description = "The transform does not fit its contracts (`invalid_transform`)."),
    )
)]
pub(crate) async fn put(
    State(app): Shared,
    caller: Caller,
    PathOf((from, from_version, to, to_version)): PathOf<Ends>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<PutTransform>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    let name = (from.as_str(), from_version, to.as_str(), to_version);
    let (registered, view) = app.engine.put_transform(&caller.namespace, name, ask, &by).await?;
    let status = match registered {
        Registered::Created => StatusCode::CREATED,
        Registered::Unchanged => StatusCode::OK,
    };
    json(status, &view)
}

/// Activate a revision of a transform
#[utoipa::path(
    post, path = "/v1/transforms/{from}/{from_version}/{to}/{to_version}/activate", tag = "contracts", operation_id = "activate_transform",
    params(
        ("from" = String, Path, description = "The subject of the source", example = "crm.contact"),
        ("from_version" = u32, Path, description = "Its version", example = 1),
        ("to" = String, Path, description = "The subject of the target", example = "customer"),
        ("to_version" = u32, Path, description = "Its version", example = 1),
    ),
    request_body(content = ActivateTransform, example = json!(examples::activate())),
    responses(
        (status = 200, description = "It is used from now on.", body = TransformView, example = json!(examples::view())),
        (status = 404, description = "There is no such transform or revision (`unknown_transform`, `unknown_revision`)."),
    )
)]
pub(crate) async fn activate(
    State(app): Shared,
    caller: Caller,
    PathOf((from, from_version, to, to_version)): PathOf<Ends>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ActivateTransform>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    let name = (from.as_str(), from_version, to.as_str(), to_version);
    let view = app.engine.activate_transform(&caller.namespace, name, &ask, &by).await?;
    json(StatusCode::OK, &view)
}

/// Test a transform on a document; nothing is written
///
/// By the active revision, by another one, or by a transform that is not registered. The answer has what was made or what could not
/// be mapped, and a line for each rule.
#[utoipa::path(
    post, path = "/v1/transforms/{from}/{from_version}/{to}/{to_version}/test", tag = "contracts", operation_id = "test_transform",
    params(
        ("from" = String, Path, description = "The subject of the source", example = "crm.contact"),
        ("from_version" = u32, Path, description = "Its version", example = 1),
        ("to" = String, Path, description = "The subject of the target", example = "customer"),
        ("to_version" = u32, Path, description = "Its version", example = 1),
    ),
    request_body(content = TestTransform, example = json!(examples::test())),
    responses(
        (status = 200, description = "What was made of it.", body = TransformTest, example = json!(examples::tested())),
        (status = 422, description = "The document does not follow the contract of the source (`invalid_document`), or the transform does not fit (`invalid_transform`)."),
    )
)]
pub(crate) async fn test(
    State(app): Shared,
    caller: Caller,
    PathOf((from, from_version, to, to_version)): PathOf<Ends>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<TestTransform>,
) -> Answer {
    let name = (from.as_str(), from_version, to.as_str(), to_version);
    json(StatusCode::OK, &app.engine.test_transform(&caller.namespace, name, ask).await?)
}

/// Compare a transform with the active one on the last documents of sources; nothing is written
///
/// The documents are those that follow the contract of the source, the newest first. The answer counts those of which both make the same, and
/// shows some of the others.
#[utoipa::path(
    post, path = "/v1/transforms/{from}/{from_version}/{to}/{to_version}/what-if", tag = "contracts", operation_id = "what_if_transform",
    params(
        ("from" = String, Path, description = "The subject of the source", example = "crm.contact"),
        ("from_version" = u32, Path, description = "Its version", example = 1),
        ("to" = String, Path, description = "The subject of the target", example = "customer"),
        ("to_version" = u32, Path, description = "Its version", example = 1),
    ),
    request_body(content = WhatIfTransform, example = json!(examples::what_if())),
    responses(
        (status = 200, description = "Where they differ.", body = TransformWhatIf, example = json!(examples::compared())),
        (status = 422, description = "The transform does not fit (`invalid_transform`)."),
    )
)]
pub(crate) async fn what_if(
    State(app): Shared,
    caller: Caller,
    PathOf((from, from_version, to, to_version)): PathOf<Ends>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<WhatIfTransform>,
) -> Answer {
    let name = (from.as_str(), from_version, to.as_str(), to_version);
    json(StatusCode::OK, &app.engine.what_if_transform(&caller.namespace, name, ask).await?)
}
