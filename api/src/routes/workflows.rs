//! Workflow definitions.

use axum::extract::State;
use axum::http::StatusCode;
use backstitch_engine::Registered;
use backstitch_saga::protocol::{Page, RehearsalView, ValidWorkflow, WorkflowView};
use backstitch_saga::{Definition, Violation};
use serde::Deserialize;

use super::runs::PageQuery;
use crate::access::Caller;
use crate::app::Shared;
use crate::body::{TextBody, json, located};
use crate::examples;
use crate::problem::{Answer, Rejection};
use crate::query::{NoQuery, PathOf, QueryOf};
use crate::scopes;

/// List workflow versions, by name and version
#[utoipa::path(
    get, path = "/v1/workflows", tag = "workflows", operation_id = "list_workflows",
    params(PageQuery),
    responses((status = 200, description = "A page of workflow versions, without their definitions.", body = Page<WorkflowView>, example = json!(examples::workflows())))
)]
pub(crate) async fn list(
    State(app): Shared,
    caller: Caller,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    let page = app.engine.workflows(&caller.namespace, None, after, query.limit).await?;
    json(StatusCode::OK, &page)
}

/// List the versions of a workflow
#[utoipa::path(
    get, path = "/v1/workflows/{name}", tag = "workflows", operation_id = "list_workflow_versions",
    params(("name" = String, Path, description = "The workflow's name", example = "place-order"), PageQuery),
    responses((status = 200, description = "A page of versions, without their definitions.", body = Page<WorkflowView>, example = json!(examples::workflows())))
)]
pub(crate) async fn versions(
    State(app): Shared,
    caller: Caller,
    PathOf(name): PathOf<String>,
    QueryOf(query): QueryOf<PageQuery>,
) -> Answer {
    let after = query.after.as_deref();
    let page = app.engine.workflows(&caller.namespace, Some(&name), after, query.limit).await?;
    if page.items.is_empty() && after.is_none() {
        let detail = "There is no workflow of this name in this namespace.";
        return Err(Rejection::new(StatusCode::NOT_FOUND, "unknown_workflow", detail));
    }
    json(StatusCode::OK, &page)
}

/// Show a workflow version with its definition
#[utoipa::path(
    get, path = "/v1/workflows/{name}/versions/{version}", tag = "workflows", operation_id = "show_workflow",
    params(
        ("name" = String, Path, description = "The workflow's name", example = "place-order"),
        ("version" = u32, Path, description = "Its version", example = 1),
    ),
    responses((status = 200, description = "The version.", body = WorkflowView, example = json!(examples::workflow())))
)]
pub(crate) async fn show(
    State(app): Shared,
    caller: Caller,
    PathOf((name, version)): PathOf<(String, u32)>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.workflow(&caller.namespace, &name, Some(version)).await?)
}

/// Register a workflow version
///
/// Immutable: the same definition again is answered 200, another one under the same version 409. A definition with
/// mistakes is answered 422 with all of them. A new one is rehearsed as well, as far as a bound allows: one that does not
/// close is answered 422, and `rehearsal` says how far that went.
#[utoipa::path(
    put, path = "/v1/workflows/{name}/versions/{version}", tag = "workflows", operation_id = "register_workflow",
    params(
        ("name" = String, Path, description = "The name that the definition carries", example = "place-order"),
        ("version" = u32, Path, description = "The version that the definition carries", example = 1),
    ),
    request_body(content = Definition, example = json!(examples::definition())),
    responses(
        (status = 201, description = "It is registered.", body = WorkflowView, example = json!(examples::registered_workflow())),
        (status = 200, description = "The same was there.", body = WorkflowView),
        (status = 409, description = "Another definition stands under this version (`version_conflict`)."),
    )
)]
pub(crate) async fn register(
    State(app): Shared,
    caller: Caller,
    PathOf((name, version)): PathOf<(String, u32)>,
    _: QueryOf<NoQuery>,
    TextBody(definition): TextBody,
) -> Answer {
    must_match(&definition, &name, version)?;
    if let Some(scope) = &caller.scope {
        scopes::definition(scope, &definition)?;
    }
    let (registered, rehearsal) = {
        let by = caller.by(String::new());
        app.engine.register_told(&caller.namespace, &definition, Some(&by)).await?
    };
    let found = app.engine.workflow(&caller.namespace, &name, Some(version)).await?;
    let warnings = app.engine.warnings_of(&caller.namespace, &name, version).await?;
    let view = WorkflowView { rehearsal, warnings, ..found };
    match registered {
        Registered::Created => {
            let location = format!("/v1/workflows/{name}/versions/{version}");
            located(json(StatusCode::CREATED, &view), &location)
        }
        Registered::Unchanged => json(StatusCode::OK, &view),
    }
}

/// Go through everything that can go wrong with a workflow version
///
/// As far as a registration does: `complete` says whether these are all traces with up to two faults. Nothing is written.
#[utoipa::path(
    get, path = "/v1/workflows/{name}/versions/{version}/rehearsal", tag = "workflows", operation_id = "rehearse_workflow",
    params(
        ("name" = String, Path, description = "The workflow's name", example = "place-order"),
        ("version" = u32, Path, description = "Its version", example = 1),
    ),
    responses((status = 200, description = "What was found.", body = RehearsalView, example = json!(examples::rehearsal())))
)]
pub(crate) async fn rehearsal(
    State(app): Shared,
    caller: Caller,
    PathOf((name, version)): PathOf<(String, u32)>,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.rehearsal(&caller.namespace, &name, version).await?)
}

/// Check a definition; nothing is written
#[utoipa::path(
    post, path = "/v1/workflows/validate", tag = "workflows", operation_id = "validate_workflow",
    request_body(content = Definition, example = json!(examples::definition())),
    responses((status = 200, description = "It may be registered.", body = ValidWorkflow, example = json!(examples::valid_workflow())))
)]
pub(crate) async fn validate(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    TextBody(definition): TextBody,
) -> Answer {
    let (graph, rehearsed) = app.engine.examine(&caller.namespace, &definition).await?;
    let Definition { name, version, .. } = &graph.definition;
    let rehearsal = Some(rehearsed);
    let warnings = app.engine.warnings(&caller.namespace, &graph).await?;
    let (name, version) = (name.clone(), *version);
    json(StatusCode::OK, &ValidWorkflow { name, version, rehearsal, warnings })
}

/// The address and the document must name the same thing. A document without name or version goes on to the check
/// that finds all its mistakes.
fn must_match(definition: &str, name: &str, version: u32) -> Result<(), Rejection> {
    #[derive(Deserialize)]
    struct Named {
        name: String,
        version: u32,
    }
    let Ok(named) = serde_json::from_str::<Named>(definition) else { return Ok(()) };
    let mut errors = Vec::new();
    if named.name != name {
        let message =
            format!("The address names the workflow '{name}', the definition '{}'", named.name);
        errors.push(Violation::new("/name", "address_mismatch", message));
    }
    if named.version != version {
        let message =
            format!("The address names version {version}, the definition {}", named.version);
        errors.push(Violation::new("/version", "address_mismatch", message));
    }
    if errors.is_empty() {
        return Ok(());
    }
    Err(Rejection::invalid(StatusCode::UNPROCESSABLE_ENTITY, "invalid_definition", errors))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_must_name_what_the_definition_names() {
        let text = r#"{"name":"a","version":2,"steps":[]}"#;
        assert!(must_match(text, "a", 2).is_ok());
        let rejection = must_match(text, "b", 3).unwrap_err();
        let (status, _, errors) = rejection.parts();
        let places: Vec<_> = errors.iter().map(|e| e.pointer.as_str()).collect();
        assert_eq!((status, places), (422, vec!["/name", "/version"]));
    }
}
