//! The OpenAPI document: collected from the handlers, then completed with what all routes have in common. The
//! routes are registered from the same handlers, so the two cannot differ.

use axum::http::{Method, StatusCode};
use backstitch_saga::protocol::Problem;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder};
use utoipa::{PartialSchema, ToSchema};

use crate::access::{RULES, Right};
use crate::front::RouteTable;
use crate::routes;

/// The name of the security scheme.
const SCHEME: &str = "credential";

/// The OpenAPI document of the API, as served at `/openapi.json`.
#[must_use]
pub fn document() -> OpenApi {
    let mut document = routes::collect().into_openapi();
    let components = document.components.get_or_insert_default();
    components.schemas.insert(Problem::name().into_owned(), Problem::schema());
    let mut more = Vec::new();
    Problem::schemas(&mut more);
    components.schemas.extend(more);
    let scheme = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("A credential's secret, `bsk_…`. An open server asks for none."))
        .build();
    components.add_security_scheme(SCHEME, SecurityScheme::Http(scheme));
    for (path, item) in &mut document.paths.paths {
        for (method, operation) in operations(item) {
            let rule = RULES.iter().find(|rule| (rule.0, rule.1) == (method.as_str(), path));
            complete(operation, path, rule.map_or(Right::Admin, |rule| rule.2));
        }
    }
    document
}

/// The routes of the document, each with its rule.
pub(crate) fn route_table(document: &OpenApi) -> RouteTable {
    let mut document = document.clone();
    RouteTable::new(document.paths.paths.iter_mut().flat_map(|(path, item)| {
        operations(item).into_iter().map(|(method, _)| (method, path.clone())).collect::<Vec<_>>()
    }))
}

fn operations(item: &mut PathItem) -> Vec<(Method, &mut Operation)> {
    [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
        (Method::PATCH, &mut item.patch),
    ]
    .into_iter()
    .filter_map(|(method, operation)| operation.as_mut().map(|operation| (method, operation)))
    .collect()
}

/// Adds what follows from the route's shape: the credential, and the errors that every such route may answer.
fn complete(operation: &mut Operation, path: &str, right: Right) {
    let mut errors = Vec::new();
    if right != Right::Public {
        operation.security = Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())]);
        let needs = format!("Needs the right *{}*.", format!("{right:?}").to_lowercase());
        let description = operation.description.take().unwrap_or_default();
        operation.description = Some(format!("{description}\n\n{needs}").trim().to_owned());
        errors.extend([
            (400, "invalid_query", "The path, the query or a header does not make sense."),
            (401, "credential_missing", "There is no credential, or it is not known."),
            (403, "forbidden", "The credential's role does not allow this."),
            (
                503,
                "busy",
                "Too much waits already, or the database failed. Try again after `Retry-After`.",
            ),
        ]);
    }
    if operation.request_body.is_some() {
        errors.extend([
            (400, "malformed_json", "The body is not JSON, has an unknown field or a key twice; or the path or the query does not make sense."),
            (408, "body_too_slow", "The body took too long to arrive."),
            (413, "body_too_large", "The body is too large."),
            (415, "unsupported_media_type", "The body is not `application/json`."),
            (422, "invalid_request", "The body does not make sense; all that is wrong is listed."),
        ]);
    }
    if path.contains('{') {
        errors.push((404, "unknown_run", "There is no such thing in the caller's namespace."));
    }
    errors.push((500, "bug", "A defect of Backstitch; nothing was changed."));
    for (status, code, description) in errors {
        let said_already = operation.responses.responses.get(&status.to_string());
        // The last of two general descriptions is the wider one; a handler's own stays.
        if said_already.is_none() || is_general(said_already) {
            let response = problem(status, code, description);
            operation.responses.responses.insert(status.to_string(), response.into());
        }
    }
}

fn is_general(response: Option<&RefOr<Response>>) -> bool {
    matches!(response, Some(RefOr::T(response)) if response.content.contains_key(PROBLEM_JSON))
}

const PROBLEM_JSON: &str = "application/problem+json";

fn problem(status: u16, code: &str, description: &str) -> Response {
    let title = StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    let mut content = Content::new(Some(RefOr::Ref(Ref::from_schema_name(Problem::name()))));
    content.example = Some(serde_json::json!({
        "type": format!("urn:backstitch:problem:{code}"),
        "status": status,
        "code": code,
        "title": title,
        "detail": description,
    }));
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build()
}
