//! Links: under which ids entities are known in other systems, and claims that contradict them.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_saga::protocol::{
    ConflictState, LinkConflictView, LinkView, Page, PutLink, ResolveLinkConflict,
};
use utoipa::IntoParams;
use uuid::Uuid;

use crate::access::Caller;
use crate::app::Shared;
use crate::body::{Body, json};
use crate::check::{MAX_KEY, is_slug};
use crate::examples::links as examples;
use crate::problem::{Answer, Rejection};
use crate::query::{FromQuery, NoQuery, Pairs, PathOf, QueryOf};

/// Query parameters of a list of links.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LinksQuery {
    /// Only those of this entity.
    #[param(example = "customer:42")]
    stream: Option<String>,
    /// Only those to this system.
    system: Option<String>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for LinksQuery {
    fn read(pairs: &mut Pairs) -> Self {
        LinksQuery {
            stream: pairs.text("stream"),
            system: pairs.text("system"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// Query parameters of a list of conflicts.
#[derive(IntoParams)]
#[into_params(parameter_in = Query)]
pub(crate) struct LinkConflictsQuery {
    /// Only those that stand so.
    state: Option<ConflictState>,
    /// `next` of the page before.
    after: Option<String>,
    /// 1 to 1,000; 100 without it.
    #[param(value_type = Option<u32>)]
    limit: u32,
}

impl FromQuery for LinkConflictsQuery {
    fn read(pairs: &mut Pairs) -> Self {
        LinkConflictsQuery {
            state: pairs.word("state"),
            after: pairs.text("after"),
            limit: pairs.limit(),
        }
    }
}

/// Refuses names that no link has.
fn check(system: &str, external_id: &str) -> Result<(), Rejection> {
    let is_id =
        (1..=MAX_KEY).contains(&external_id.len()) && !external_id.chars().any(char::is_control);
    if is_slug(system) && is_id {
        return Ok(());
    }
    let detail = "A system's name is [a-z0-9][a-z0-9._-]*, at most 100 characters; an id there has 1 to 255 bytes without control characters.";
    Err(Rejection::new(StatusCode::BAD_REQUEST, "invalid_path", detail))
}

/// List links of entities to other systems
#[utoipa::path(
    get, path = "/v1/links", tag = "ingress", operation_id = "list_links",
    params(LinksQuery),
    responses((status = 200, description = "A page of links.", body = Page<LinkView>, example = json!(examples::links())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<LinksQuery>,
) -> Answer {
    let wanted = (query.stream.as_deref(), query.system.as_deref());
    let after = query.after.as_deref();
    let found = app.engine.links(&caller.namespace, wanted, after, query.limit).await?;
    json(StatusCode::OK, &found)
}

/// Show to which entity an id of another system belongs
#[utoipa::path(
    get, path = "/v1/links/{system}/{external_id}", tag = "ingress", operation_id = "show_link",
    params(
        ("system" = String, Path, description = "The system", example = "erp"),
        ("external_id" = String, Path, description = "The id there", example = "4711"),
    ),
    responses((status = 200, description = "The link.", body = LinkView, example = json!(examples::link())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf((system, external_id)): PathOf<(String, String)>,
    _: QueryOf<NoQuery>,
) -> Answer {
    check(&system, &external_id)?;
    json(StatusCode::OK, &app.engine.link(&caller.namespace, (&system, &external_id)).await?)
}

/// Say to which entity an id of another system belongs
///
/// An id belongs to one entity, and an entity has one id in a system: that of before is free then. An id that belongs to another entity is
/// refused, and the claim waits for a person.
#[utoipa::path(
    put, path = "/v1/links/{system}/{external_id}", tag = "ingress", operation_id = "put_link",
    params(
        ("system" = String, Path, description = "The system", example = "erp"),
        ("external_id" = String, Path, description = "The id there", example = "4711"),
    ),
    request_body(content = PutLink, example = json!(examples::put())),
    responses(
        (status = 201, description = "It is linked.", body = LinkView, example = json!(examples::link())),
        (status = 200, description = "It was linked so.", body = LinkView),
        (status = 409, description = "It belongs to another entity (`link_conflict`)."),
    )
)]
pub(crate) async fn put(
    State(app): Shared,
    caller: Caller,
    PathOf((system, external_id)): PathOf<(String, String)>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<PutLink>,
) -> Answer {
    check(&system, &external_id)?;
    let by = caller.by(ask.reason.clone());
    let key = (system.as_str(), external_id.as_str());
    let (view, created) = app.engine.put_link(&caller.namespace, key, &ask, &by).await?;
    json(if created { StatusCode::CREATED } else { StatusCode::OK }, &view)
}

/// Delete a link of an entity to another system
#[utoipa::path(
    delete, path = "/v1/links/{system}/{external_id}", tag = "ingress", operation_id = "delete_link",
    params(
        ("system" = String, Path, description = "The system", example = "erp"),
        ("external_id" = String, Path, description = "The id there", example = "4711"),
    ),
    responses((status = 204, description = "It is deleted."))
)]
pub(crate) async fn delete(
    State(app): Shared,
    caller: Caller,
    PathOf((system, external_id)): PathOf<(String, String)>,
    _: QueryOf<NoQuery>,
) -> Answer {
    check(&system, &external_id)?;
    let by = caller.by(String::new());
    app.engine.delete_link(&caller.namespace, (&system, &external_id), &by).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// List claims of ids that belong to other entities, the newest first
#[utoipa::path(
    get, path = "/v1/link-conflicts", tag = "ingress", operation_id = "list_link_conflicts",
    params(LinkConflictsQuery),
    responses((status = 200, description = "A page of conflicts.", body = Page<LinkConflictView>, example = json!(examples::conflicts())))
)]
pub(crate) async fn conflicts(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<LinkConflictsQuery>,
) -> Answer {
    let LinkConflictsQuery { state, after, limit } = query;
    let after = after.as_deref();
    let found = app.engine.link_conflicts(&caller.namespace, state, after, limit).await?;
    json(StatusCode::OK, &found)
}

/// Say to whom an id belongs that two entities claim
#[utoipa::path(
    post, path = "/v1/link-conflicts/{id}/resolve", tag = "ingress", operation_id = "resolve_link_conflict",
    params(("id" = Uuid, Path, description = "Id of the conflict")),
    request_body(content = ResolveLinkConflict, example = json!(examples::resolve())),
    responses(
        (status = 200, description = "It is resolved.", body = LinkConflictView, example = json!(examples::conflict())),
        (status = 409, description = "Somebody has said otherwise (`link_conflict_resolved`)."),
    )
)]
pub(crate) async fn resolve(
    State(app): Shared,
    caller: Caller,
    PathOf(id): PathOf<Uuid>,
    _: QueryOf<NoQuery>,
    Body(ask): Body<ResolveLinkConflict>,
) -> Answer {
    let by = caller.by(ask.reason.clone());
    json(StatusCode::OK, &app.engine.resolve_link_conflict(&caller.namespace, id, &ask, &by).await?)
}
