//! Quotas of the caller's namespace.

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use backstitch_saga::protocol::{Quotas, QuotasView};

use crate::access::Caller;
use crate::app::{App, Shared};
use crate::body::{Body, json};
use crate::examples;
use crate::problem::{Answer, Rejection};
use crate::query::{NoQuery, QueryOf};

/// Show the quotas of the namespace, and what is used of them
///
/// Whoever runs the server sets a ceiling for each (`--quota`), an admin of the namespace may set less. What is used was
/// counted within the last seconds.
#[utoipa::path(
    get, path = "/v1/quotas", tag = "server", operation_id = "show_quotas",
    responses((status = 200, description = "All quotas.", body = QuotasView, example = json!(examples::quotas::view())))
)]
pub(crate) async fn show(State(app): Shared, caller: Caller, _: QueryOf<NoQuery>) -> Answer {
    let view = app.engine.quotas_view(&caller.namespace).await?;
    json(StatusCode::OK, &with_own(&app, &caller, view))
}

/// Set the quotas of the namespace
///
/// Replaces what admins of the namespace set before, whole; the ceilings of the server stay. They hold for new things only:
/// nothing that is there is taken away. All servers know them within two seconds.
#[utoipa::path(
    put, path = "/v1/quotas", tag = "server", operation_id = "set_quotas",
    request_body(content = Quotas, example = json!(examples::quotas::set())),
    responses((status = 200, description = "They are set.", body = QuotasView, example = json!(examples::quotas::view())))
)]
pub(crate) async fn set(
    State(app): Shared,
    caller: Caller,
    _: QueryOf<NoQuery>,
    Body(quotas): Body<Quotas>,
) -> Answer {
    let by = caller.by(String::new());
    let view = app.engine.set_quotas(&caller.namespace, quotas, &by).await?;
    json(StatusCode::OK, &with_own(&app, &caller, view))
}

/// Delete the quotas of the namespace; the ceilings of the server stay
#[utoipa::path(
    delete, path = "/v1/quotas", tag = "server", operation_id = "remove_quotas",
    responses((status = 204, description = "The namespace has none of its own."))
)]
pub(crate) async fn remove(State(app): Shared, caller: Caller, _: QueryOf<NoQuery>) -> Answer {
    let by = caller.by(String::new());
    app.engine.set_quotas(&caller.namespace, Quotas::default(), &by).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// Adds what only this server knows.
fn with_own(app: &App, caller: &Caller, mut view: QuotasView) -> QuotasView {
    let waiting = app.waiting_of(caller);
    for quota in view.quotas.iter_mut().filter(|quota| quota.quota == "waiting") {
        quota.used = Some(u32::try_from(waiting).unwrap_or(u32::MAX));
    }
    view
}

/// The answer to one that waits beside too many others of its namespace.
pub(crate) fn too_many_waiting() -> Rejection {
    let detail =
        "As many requests of the namespace wait as may; ask without `wait`, or again in a second.";
    Rejection::too_many("quota_waiting", detail, std::time::Duration::from_secs(1))
}
