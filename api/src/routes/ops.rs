//! The server itself: who asks, is it well, its numbers, its document.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Redirect, Response};
use backstitch_engine::Family;
use backstitch_saga::Timestamp;
use backstitch_saga::protocol::{BackgroundTasks, StatusView, WhoAmI};

use crate::access::Caller;
use crate::app::{Access, App, Shared};
use crate::body::json;
use crate::problem::{Answer, Rejection};
use crate::query::{NoQuery, QueryOf};
use crate::{examples, metrics};

/// Show who the caller is: name, namespace and role
#[utoipa::path(
    get, path = "/v1/whoami", tag = "server", operation_id = "whoami",
    responses((status = 200, description = "The caller.", body = WhoAmI, example = json!(examples::whoami())))
)]
pub(crate) async fn whoami(State(app): Shared, caller: Caller, _: QueryOf<NoQuery>) -> Answer {
    let answer = WhoAmI {
        name: caller.name.to_string(),
        namespace: caller.namespace.to_string(),
        role: caller.role.into(),
        open: app.access == Access::Open,
        expires_at: caller.until.map(Timestamp),
        queues: caller.scope.as_ref().and_then(|scope| scope.queues.clone()),
        workflows: caller.scope.as_ref().and_then(|scope| scope.workflows.clone()),
    };
    json(StatusCode::OK, &answer)
}

/// Show the state of the namespace
///
/// Open incidents by kind with the oldest of each, runs that have not ended by state, and since when the oldest task on
/// offer waits. Made to be polled: it is counted at most once a second however many ask, see `as_of`.
#[utoipa::path(
    get, path = "/v1/status", tag = "server", operation_id = "status",
    responses((status = 200, description = "How it is.", body = StatusView, example = json!(examples::incidents::status())))
)]
pub(crate) async fn status(State(app): Shared, caller: Caller, _: QueryOf<NoQuery>) -> Answer {
    json(StatusCode::OK, &app.engine.status(&caller.namespace).await)
}

/// List the background tasks of the server
///
/// What the server that answers does without being asked: how often, how many times, when it last succeeded, and whether it fails
/// now. Ask each server; `/metrics` has the same numbers for graphs.
#[utoipa::path(
    get, path = "/v1/background-tasks", tag = "server", operation_id = "list_background_tasks",
    responses((status = 200, description = "All background tasks.", body = BackgroundTasks, example = json!(examples::background_tasks())))
)]
pub(crate) async fn background_tasks(
    State(app): Shared,
    _caller: Caller,
    _: QueryOf<NoQuery>,
) -> Answer {
    json(StatusCode::OK, &app.engine.background_tasks())
}

/// Show the addresses of the API, its reference, health and metrics
///
/// Browsers are led to the web console; everybody else gets JSON.
#[utoipa::path(
    get, path = "/", tag = "server", operation_id = "home",
    responses((status = 200, description = "The addresses of the API, its documentation, health and metrics.",
        content_type = "application/json", example = json!(home_links())),
        (status = 303, description = "For browsers: the web console."))
)]
pub(crate) async fn home(headers: HeaderMap) -> Response {
    let accepts = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok());
    if accepts.is_some_and(|accept| accept.contains("text/html")) {
        return Redirect::to("/console").into_response();
    }
    ([(header::CONTENT_TYPE, "application/json")], home_links().to_string()).into_response()
}

fn home_links() -> serde_json::Value {
    serde_json::json!({
        "name": "backstitch",
        "version": env!("CARGO_PKG_VERSION"),
        "api": "/v1",
        "console": "/console",
        "reference": "/docs",
        "openapi": "/openapi.json",
        "live": "/livez",
        "ready": "/readyz",
        "metrics": "/metrics",
    })
}

/// Check that the process is alive
///
/// With `--health-listen` it is answered on a listener of its own, too, by a thread that looks whether the server moves.
#[utoipa::path(
    get, path = "/livez", tag = "server", operation_id = "livez",
    responses(
        (status = 200, description = "It is.", body = String),
        (status = 503, description = "The server has not moved for so long that it should be started anew (`stalled`)."),
    )
)]
pub(crate) async fn livez(State(app): Shared) -> Result<&'static str, Rejection> {
    liveness(&app)
}

/// Checks that the runtime that serves requests moves.
///
/// # Errors
/// 503 when it has not for as long as the limit.
pub(crate) fn liveness(app: &App) -> Result<&'static str, Rejection> {
    let still = app.pulse.still_for();
    if still < app.limits.stall {
        return Ok("ok");
    }
    let detail = format!("The server has not moved for {} s; start it anew.", still.as_secs());
    Err(Rejection::new(StatusCode::SERVICE_UNAVAILABLE, "stalled", detail))
}

/// Check that the server takes work
///
/// It writes to the database to know, at most once a second, and looks whether its registration and its batches succeed.
#[utoipa::path(
    get, path = "/readyz", tag = "server", operation_id = "readyz",
    responses(
        (status = 200, description = "It does.", body = String),
        (status = 503, description = "It is closing, or it cannot write to the database (`not_ready`)."),
    )
)]
pub(crate) async fn readyz(State(app): Shared) -> Result<&'static str, Rejection> {
    readiness(&app).await
}

/// Checks that the server takes work.
///
/// # Errors
/// 503 when it does not.
pub(crate) async fn readiness(app: &App) -> Result<&'static str, Rejection> {
    if app.is_closing() {
        Err(not_ready("The server is closing."))
    } else if app.is_ready().await {
        Ok("ok")
    } else if let Some(trouble) = app.engine.trouble() {
        Err(not_ready(&format!("The server cannot do its work now: {trouble}.")))
    } else {
        Err(not_ready("The server cannot write to the database now; the log tells why."))
    }
}

/// The answer of a server that takes no work.
pub(crate) fn not_ready(detail: &str) -> Rejection {
    Rejection::new(StatusCode::SERVICE_UNAVAILABLE, "not_ready", detail)
        .with_header(header::RETRY_AFTER, "1")
}

/// Show metrics for Prometheus
#[utoipa::path(
    get, path = "/metrics", tag = "server", operation_id = "metrics",
    responses((status = 200, description = "The text format 0.0.4.", body = String))
)]
pub(crate) async fn metrics(State(app): Shared) -> impl IntoResponse {
    metrics_page(print_metrics(&app, &app.engine.numbers().await))
}

/// Prints the numbers of the engine and of this server, and `families`.
pub(crate) fn print_metrics(app: &App, families: &[Family]) -> String {
    metrics::print(&app.engine.metrics(), &app.numbers(), families, &app.routes)
}

/// The page of numbers.
pub(crate) fn metrics_page(text: String) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text)
}

/// Show this OpenAPI document
#[utoipa::path(
    get, path = "/openapi.json", tag = "server", operation_id = "openapi",
    responses((status = 200, description = "The OpenAPI document.", content_type = "application/json"))
)]
pub(crate) async fn openapi(State(app): Shared) -> impl IntoResponse {
    ([(header::CONTENT_TYPE, "application/json")], app.openapi.clone())
}
