//! The web console: pages for people, rendered on the server from the responses of the API.
//!
//! A page calls the routes of the API in this process, in the name of its viewer, and shows their responses; a form
//! acts through them. So the console can do nothing that a client could not: the same checks, rights, limits, reasons
//! and audit apply. It reads no table, decides nothing and stores nothing but the viewers of live pages.
//!
//! - [`ask`](mod@ask): the viewer, and requests to the API in the viewer's name.
//! - `act`: requests of forms.
//! - `live`: changes for open pages, with one poll for all that show the same.
//! - `graph`, `timeline`, `show`: pictures and words of a run.
//! - `table`: parts that lists have in common.
//! - `pages`: one file for each page.

mod act;
mod ask;
mod assets;
mod form;
mod graph;
mod live;
mod page;
mod pages;
mod show;
mod table;
mod timeline;

use std::sync::Arc;

use axum::Router;
use axum::http::{HeaderMap, HeaderName, HeaderValue, header};
use axum::middleware::map_response;
use axum::response::Response;
use axum::routing::{get, post};

pub use ask::{COOKIE, Carry, form_body, form_token, is_of_this_site, session_of};
pub use live::{MOST_TOPICS, MOST_VIEWERS};
pub use pages::login::LoginPage;

/// State that all pages share.
pub(crate) struct Console {
    /// The routes of the API.
    api: Router,
    /// The parts of a page's request that its requests to the API take over.
    carry: Carry,
    /// Replaces the secret of a session in tokens of forms where there is no sign-in.
    open_secret: Option<String>,
    live: live::Hub,
}

/// Returns the pages below `/console`, which call `api`. An open server has no sign-in.
pub fn router(api: Router, carry: Carry, open: bool) -> Router {
    let open_secret = open.then(ask::random);
    let console = Arc::new(Console { api, carry, open_secret, live: live::Hub::default() });
    Router::new()
        .route("/console", get(pages::overview::show))
        .route("/console/runs", get(pages::runs::show))
        .route("/console/runs/{id}", get(pages::run::show))
        .route("/console/runs/{id}/journal", get(pages::journal::show))
        .route("/console/runs/{id}/undo", get(pages::undo::show))
        .route("/console/runs/{id}/steps/{step}", get(pages::step::show))
        .route("/console/incidents", get(pages::incidents::list))
        .route("/console/incidents/{id}", get(pages::incidents::show))
        .route("/console/effects", get(pages::effects::show))
        .route("/console/plans", get(pages::plans::list))
        .route("/console/plans/{id}", get(pages::plans::show))
        .route("/console/decisions", get(pages::decisions::show))
        .route("/console/jobs", get(pages::jobs::list))
        .route("/console/jobs/new", get(pages::jobs::plan))
        .route("/console/jobs/{id}", get(pages::jobs::show))
        .route("/console/workflows", get(pages::workflows::list))
        .route("/console/workflows/{name}/migrations", get(pages::migrations::list))
        .route("/console/workflows/{name}/migrations/{id}", get(pages::migrations::show))
        .route("/console/workflows/{name}/{version}", get(pages::workflows::show))
        .route("/console/workflows/{name}/{version}/compare", get(pages::compare::show))
        .route("/console/workflows/{name}/{version}/rehearsal", get(pages::rehearsal::show))
        .route("/console/schedules", get(pages::schedules::list))
        .route("/console/schedules/{name}", get(pages::schedules::show))
        .route("/console/queues", get(pages::queues::list))
        .route("/console/workers", get(pages::queues::workers))
        .route("/console/events", get(pages::events::list))
        .route("/console/events/{id}", get(pages::events::show))
        .route("/console/sources", get(pages::sources::list))
        .route("/console/intakes/{id}", get(pages::sources::intake))
        .route("/console/contracts", get(pages::shapes::list))
        .route("/console/contracts/{subject}", get(pages::shapes::contract))
        .route("/console/contracts/{subject}/{version}", get(pages::shapes::version))
        .route(
            "/console/transforms/{from}/{from_version}/{to}/{to_version}",
            get(pages::shapes::transform),
        )
        .route("/console/imports", get(pages::imports::list))
        .route("/console/imports/{id}", get(pages::imports::show))
        .route("/console/mapping", get(pages::mapping::list))
        .route("/console/reprocessings/{id}", get(pages::mapping::show))
        .route("/console/links", get(pages::links::show))
        .route("/console/readers", get(pages::readers::show))
        .route("/console/limits", get(pages::limits::show))
        .route("/console/erasures", get(pages::erasures::list))
        .route("/console/erasures/{id}", get(pages::erasures::show))
        .route("/console/credentials", get(pages::credentials::show))
        .route("/console/keys", get(pages::places::show))
        .route("/console/start-requests", get(pages::places::requests))
        .route("/console/audit", get(pages::audit::show))
        .route("/console/act", post(act::act))
        .route("/console/namespace", post(act::choose_namespace))
        .route("/console/live", get(live::stream))
        .route("/console/assets/{name}", get(assets::show))
        .route("/console/{*rest}", get(pages::unknown))
        .layer(map_response(dress))
        .with_state(console)
}

/// Headers of every page for browsers: take scripts and styles from here alone and none from the text of a page, send
/// forms nowhere else, show it in no frame, keep it nowhere.
const GUARDS: [(HeaderName, &str); 6] = [
    (
        header::CONTENT_SECURITY_POLICY,
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    (header::X_FRAME_OPTIONS, "DENY"),
    (header::REFERRER_POLICY, "same-origin"),
    (HeaderName::from_static("cross-origin-opener-policy"), "same-origin"),
    (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
];

/// Tells browsers and caches what to do with a page.
pub fn guard(headers: &mut HeaderMap) {
    for (name, value) in GUARDS {
        headers.insert(name, HeaderValue::from_static(value));
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
}

async fn dress(mut response: Response) -> Response {
    guard(response.headers_mut());
    response
}
