//! The OpenAPI document: collected from the handlers, then completed with what all routes have in common. The
//! routes are registered from the same handlers, so the two cannot differ.

use axum::http::{Method, StatusCode};
use backstitch_saga::protocol::Problem;
use utoipa::openapi::path::{Operation, ParameterBuilder, ParameterIn, PathItem};
use utoipa::openapi::response::Response;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::{Content, OpenApi, Ref, RefOr, ResponseBuilder, Schema};
use utoipa::{PartialSchema, ToSchema};

use crate::access::{RULES, Right};
use crate::front::RouteTable;
use crate::idempotency;
use crate::routes;
use crate::scopes::{self, Kind};
use crate::titles::title;

/// The name of the security scheme.
const SCHEME: &str = "credential";

/// Returns the OpenAPI document of the API, as served at `/openapi.json`.
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
            let right = rule.map_or(Right::Admin, |rule| rule.2);
            describe_parameters(operation);
            complete(operation, path, right);
            tell_bounds(operation, scopes::kind_of(&method, path, Some(right)));
            if idempotency::covers(&method, Some(right)) {
                take_key(operation);
            }
        }
    }
    document
}

/// Returns the routes of the document, each with its rule.
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

/// Says of each parameter what it is for: where its schema is written by hand, the schema says it.
fn describe_parameters(operation: &mut Operation) {
    for parameter in operation.parameters.iter_mut().flatten() {
        let RefOr::T(parameter) = parameter else { continue };
        if parameter.description.is_none()
            && let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema
        {
            parameter.description = schema.description.take();
        }
    }
}

/// Adds what follows from the route's shape: the credential, and the errors that every such route may answer.
fn complete(operation: &mut Operation, path: &str, right: Right) {
    let mut errors = Vec::new();
    if right == Right::Intake {
        errors.extend([
            (400, "invalid_query", "The path or the query does not make sense."),
            (
                429,
                "too_many_documents",
                "The source sent more than it may. Send again after `Retry-After`.",
            ),
            (
                503,
                "busy",
                "Too much waits already, or the database failed. Send again after `Retry-After`.",
            ),
        ]);
    } else if right != Right::Public {
        operation.security = Some(vec![SecurityRequirement::new(SCHEME, Vec::<String>::new())]);
        let needs = format!("Needs the right *{}*.", right.word());
        let description = operation.description.take().unwrap_or_default();
        operation.description = Some(format!("{description}\n\n{needs}").trim().to_owned());
        errors.extend([
            (400, "invalid_query", "The path, the query or a header does not make sense."),
            (401, "credential_missing", "There is no credential, or it is not known."),
            (403, "forbidden", "The credential's role does not allow this."),
            (429, "too_many_requests", "More was asked for than may be asked for. Ask again after `Retry-After`, where it is given."),
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
    if operation.request_body.is_none() && is_paged(operation) {
        errors.push((
            422,
            "list_too_slow",
            "The list took too long: narrow it by a workflow, a state, a time or a shorter page.",
        ));
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
    each_for_itself(operation);
    for (status, response) in &mut operation.responses.responses {
        if let RefOr::T(response) = response
            && response.content.is_empty()
            && status.starts_with(['4', '5'])
        {
            response.content.insert(PROBLEM_JSON.to_owned(), RefOr::T(problem_content(None)));
        }
    }
}

/// Returns whether an operation returns a page of a list.
fn is_paged(operation: &Operation) -> bool {
    let mut parameters = operation.parameters.iter().flatten();
    parameters.any(|one| matches!(one, RefOr::T(parameter) if parameter.name == "limit"))
}

/// Says what the bounds of a credential mean for an operation.
fn tell_bounds(operation: &mut Operation, kind: Option<Kind>) {
    let bounds = match kind {
        Some(Kind::Queue(_)) => "queues",
        Some(Kind::Workflow(_)) => "workflows",
        Some(Kind::Both) => "queues and workflows",
        Some(Kind::Neither) | None => return,
    };
    let description = operation.description.take().unwrap_or_default();
    operation.description = Some(format!(
        "{description} Bounded by the *{bounds}* of the credential (403 `out_of_scope`)."
    ));
}

/// Adds the header that all routes which act take.
fn take_key(operation: &mut Operation) {
    let description = "Any text of up to 255 visible ASCII characters that you make for this request. Sent again with \
        the same body it is not done again: the answer is that of the first time, with `Idempotency-Replayed: true`. \
        With another body it is refused (422 `idempotency_key_reused`); while the first is being worked on, too (409 \
        `idempotency_in_flight`). Answers are kept for as long as `Idempotency-Retention` says.";
    let parameter = ParameterBuilder::new()
        .name("Idempotency-Key")
        .parameter_in(ParameterIn::Header)
        .description(Some(description))
        .schema(Some(String::schema()))
        .build();
    operation.parameters.get_or_insert_default().push(RefOr::T(parameter));
    let conflict = "The same request is being worked on (`idempotency_in_flight`).";
    let responses = &mut operation.responses.responses;
    match responses.get_mut("409") {
        Some(RefOr::T(said)) => said.description = format!("{} {conflict}", said.description),
        _ => {
            let response = problem(409, "idempotency_in_flight", conflict);
            responses.insert("409".to_owned(), response.into());
        }
    }
}

/// Adds the body of operations with several results to their errors: if all results are errors, the status is theirs.
fn each_for_itself(operation: &mut Operation) {
    let responses = &mut operation.responses.responses;
    let Some(RefOr::T(mixed)) = responses.get("207") else { return };
    let Some(RefOr::T(content)) = mixed.content.get(JSON).cloned() else { return };
    let is_answers = matches!(&content.schema, Some(RefOr::Ref(schema)) if schema.ref_location.ends_with("Answers"));
    for status in ["404", "409", "422", "503"] {
        if let (true, Some(RefOr::T(response))) = (is_answers, responses.get_mut(status)) {
            response.content.entry(JSON.to_owned()).or_insert_with(|| RefOr::T(content.clone()));
        }
    }
}

fn is_general(response: Option<&RefOr<Response>>) -> bool {
    matches!(response, Some(RefOr::T(response)) if response.content.contains_key(PROBLEM_JSON))
}

const JSON: &str = "application/json";
const PROBLEM_JSON: &str = "application/problem+json";

fn problem(status: u16, code: &str, description: &str) -> Response {
    let content = problem_content(Some(serde_json::json!({
        "type": format!("urn:backstitch:problem:{code}"),
        "status": status,
        "code": code,
        "title": title(code, StatusCode::from_u16(status).unwrap_or_default()),
        "detail": description,
    })));
    ResponseBuilder::new().description(description).content(PROBLEM_JSON, content).build()
}

fn problem_content(example: Option<serde_json::Value>) -> Content {
    let mut content = Content::new(Some(RefOr::Ref(Ref::from_schema_name(Problem::name()))));
    content.example = example;
    content
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    #[test]
    fn every_route_has_a_rule_and_every_rule_a_route() {
        let mut document = document();
        let mut routes = BTreeSet::new();
        for (path, item) in &mut document.paths.paths {
            for (method, _) in operations(item) {
                routes.insert((method.to_string(), path.clone()));
            }
        }
        let rules: BTreeSet<_> = RULES
            .iter()
            .map(|(method, path, _)| ((*method).to_owned(), (*path).to_owned()))
            .collect();
        assert_eq!(routes, rules);
        assert_eq!(rules.len(), RULES.len(), "a rule stands twice");
    }

    #[test]
    fn only_the_server_itself_is_public() {
        let public: Vec<_> =
            RULES.iter().filter(|rule| rule.2 == Right::Public).map(|rule| rule.1).collect();
        assert_eq!(public, ["/", "/livez", "/readyz", "/metrics", "/openapi.json"]);
    }

    #[test]
    fn no_reference_leads_nowhere() {
        let document = serde_json::to_value(document()).unwrap();
        let mut left = vec![&document];
        while let Some(value) = left.pop() {
            match value {
                Value::Object(members) => {
                    if let Some(Value::String(reference)) = members.get("$ref") {
                        let place = reference.strip_prefix('#').unwrap_or(reference);
                        assert!(document.pointer(place).is_some(), "{reference}");
                    }
                    left.extend(members.values());
                }
                Value::Array(elements) => left.extend(elements),
                _ => {}
            }
        }
    }

    #[test]
    fn every_route_says_how_it_refuses() {
        let mut document = document();
        for (path, item) in &mut document.paths.paths {
            for (method, operation) in operations(item) {
                let says = |status: &str| operation.responses.responses.contains_key(status);
                assert!(says("500"), "{method} {path}");
                assert!(operation.operation_id.is_some(), "{method} {path}");
                assert!(operation.summary.is_some(), "{method} {path}");
                if path.starts_with("/v1/") {
                    assert!(["400", "401", "403", "503"].into_iter().all(says), "{method} {path}");
                    let is_door = path.starts_with("/v1/in/");
                    assert_eq!(operation.security.is_some(), !is_door, "{method} {path}");
                    assert!(says("404") || !path.contains('{'), "{method} {path}");
                }
                if operation.request_body.is_some() {
                    let body = ["400", "408", "413", "415", "422"];
                    assert!(body.into_iter().all(says), "{method} {path}");
                }
            }
        }
    }

    #[test]
    fn every_list_says_that_it_may_take_too_long() {
        let document = serde_json::to_value(document()).unwrap();
        let mut lists = 0;
        for (path, item) in document["paths"].as_object().unwrap() {
            let parameters = item["get"]["parameters"].as_array();
            if parameters.is_some_and(|all| all.iter().any(|one| one["name"] == "limit")) {
                let refusal = &item["get"]["responses"]["422"]["content"][PROBLEM_JSON]["example"];
                assert_eq!(refusal["code"], "list_too_slow", "{path}");
                lists += 1;
            }
        }
        assert!(lists > 20, "{lists} lists");
    }

    #[test]
    fn every_error_says_what_it_looks_like() {
        let document = serde_json::to_value(document()).unwrap();
        for (path, item) in document["paths"].as_object().unwrap() {
            for (method, operation) in item.as_object().unwrap() {
                for (status, response) in operation["responses"].as_object().unwrap() {
                    if status.starts_with(['4', '5']) {
                        assert!(response["content"].is_object(), "{method} {path} {status}");
                    }
                }
            }
        }
    }
}
