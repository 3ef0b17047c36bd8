//! Handles every request before and after its handler: its id, its metrics, its caller, and one log line if it
//! failed. One layer, so that the hot path pays for one.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tracing::Instrument;
use uuid::Uuid;

use crate::access::{self, Caller, RULES, Right};
use crate::app::{Access, App};
use crate::body;
use crate::idempotency;
use crate::logins::Peer;
use crate::metrics::RouteNumbers;
use crate::problem::{LogLine, Rejection};
use crate::rates::Lane;
use crate::scopes::{self, Kind};
use crate::turns::{self, Line};

/// The header that carries the request's id, taken from the caller or made here.
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// The header by which an open server says that it is one.
const MODE: HeaderName = HeaderName::from_static("backstitch-mode");

/// Headers of every response for browsers and caches: keep it nowhere, interpret it as nothing else, show it in
/// no frame, and send no referrer to other sites.
const GUARDS: [(HeaderName, HeaderValue); 4] = [
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (header::CACHE_CONTROL, HeaderValue::from_static("no-store")),
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(
            "default-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; frame-ancestors 'none'",
        ),
    ),
];

/// The routes of the server: what each needs, and what it has done.
#[derive(Debug, Default)]
pub(crate) struct RouteTable {
    by_path: HashMap<String, Vec<RouteEntry>>,
    /// Everything that is no route of ours: wrong paths, wrong methods, the pages at `/docs`.
    other: RouteNumbers,
}

#[derive(Debug)]
struct RouteEntry {
    method: Method,
    /// `None` if no table has it; such a route refuses all callers.
    right: Option<Right>,
    /// Kind of the request for the scopes of credentials.
    kind: Option<Kind>,
    /// It acts, and so takes an `Idempotency-Key`.
    acts: bool,
    lane: Lane,
    numbers: RouteNumbers,
}

impl RouteTable {
    /// Returns the table of these `(method, path)` pairs.
    pub(crate) fn new(routes: impl IntoIterator<Item = (Method, String)>) -> RouteTable {
        let mut table = RouteTable::default();
        for (method, path) in routes {
            let rule = RULES.iter().find(|rule| (rule.0, rule.1) == (method.as_str(), &path));
            let right = rule.map(|rule| rule.2);
            let acts = idempotency::covers(&method, right);
            let lane = Lane::of(&method, &path, right);
            let kind = scopes::kind_of(&method, &path, right);
            let numbers = RouteNumbers::default();
            let entry = RouteEntry { method, right, kind, acts, lane, numbers };
            table.by_path.entry(path).or_default().push(entry);
        }
        table
    }

    /// Returns each route with its numbers, by path and method; the last is for all that is no route of ours.
    pub(crate) fn numbers(&self) -> Vec<(&str, &str, &RouteNumbers)> {
        let mut all: Vec<_> = self
            .by_path
            .iter()
            .flat_map(|(path, entries)| {
                entries.iter().map(|e| (path.as_str(), e.method.as_str(), &e.numbers))
            })
            .collect();
        all.sort_unstable_by_key(|(path, method, _)| (*path, *method));
        all.push(("other", "other", &self.other));
        all
    }

    fn find(&self, path: Option<&MatchedPath>, method: &Method) -> Option<&RouteEntry> {
        let method = if method == Method::HEAD { &Method::GET } else { method };
        self.by_path.get(path?.as_str())?.iter().find(|entry| entry.method == method)
    }
}

/// Returns the layer.
pub(crate) async fn front(
    State(app): State<Arc<App>>,
    mut request: Request,
    next: Next,
) -> Response {
    let started = Instant::now();
    let id = app.request_ids.of(request.headers());
    let entry = app.routes.find(request.extensions().get::<MatchedPath>(), request.method());
    let admitted = match entry {
        Some(entry) => admit(&app, entry, &mut request, started).await,
        None => Ok(()),
    };
    // The result of an act must be returned: only responses to reads may be refused for their size.
    let reads = request.method() == Method::GET;
    let beats = entry.is_some_and(|entry| entry.lane == Lane::Heartbeat);
    let caller = request.extensions().get::<Caller>().filter(|_| reads || beats);
    let namespace = caller.map(|caller| caller.namespace.clone());
    let debug = tracing::enabled!(tracing::Level::DEBUG);
    let what = debug.then(|| (request.method().clone(), request.uri().path().to_owned()));
    let keyed =
        entry.is_some_and(|entry| entry.acts) && request.headers().contains_key(idempotency::KEY);
    let mut response = match (admitted, &what) {
        (Err(rejection), _) => rejection.into_response(),
        (Ok(()), None) if keyed => idempotency::pass(Arc::clone(&app), request, next).await,
        (Ok(()), None) => next.run(request).await,
        (Ok(()), Some((method, path))) => {
            let span = tracing::debug_span!("request", id = ?id, %method, path);
            match keyed {
                true => idempotency::pass(Arc::clone(&app), request, next).instrument(span).await,
                false => next.run(request).instrument(span).await,
            }
        }
    };
    if let Some(namespace) = namespace.as_ref().filter(|_| beats)
        && response.status() == StatusCode::SERVICE_UNAVAILABLE
    {
        app.engine.heartbeats_refused(namespace);
    }
    if let Some(namespace) = namespace.as_ref().filter(|_| reads) {
        let answered = app.with_room(namespace, response);
        response = answered.unwrap_or_else(IntoResponse::into_response);
    }
    let took = started.elapsed();
    entry.map_or(&app.routes.other, |entry| &entry.numbers).count(response.status(), took);
    if let Some(LogLine(error)) = response.extensions_mut().remove() {
        tracing::error!(id = ?id, status = response.status().as_u16(), error, "request failed");
    }
    if let Some((method, path)) = what {
        let status = response.status().as_u16();
        tracing::debug!(id = ?id, %method, path, status, ?took, "answered");
    }
    let headers = response.headers_mut();
    headers.insert(REQUEST_ID, id);
    guard(headers);
    if app.access == Access::Open {
        response.headers_mut().insert(MODE, HeaderValue::from_static("open"));
    }
    response
}

/// Tells browsers and caches what to do with an answer.
pub(crate) fn guard(headers: &mut HeaderMap) {
    for (name, value) in GUARDS {
        headers.insert(name, value);
    }
}

async fn admit(
    app: &App,
    entry: &RouteEntry,
    request: &mut Request,
    now: Instant,
) -> Result<(), Rejection> {
    let peer = request.extensions().get::<Peer>().copied();
    let cost = turns::cost_of(body::size(request.headers()));
    match entry.right {
        // A door verifies its senders itself.
        Some(Right::Public | Right::Intake) => {
            if let Some(peer) = peer.filter(|_| entry.lane != Lane::Health) {
                app.turn(&Line::Peer(peer.counted()), cost).await?;
            }
        }
        Some(right) => {
            let caller = access::admit(app, request.headers(), right, (peer, now)).await?;
            let begins = async {
                app.may_ask(&caller, entry.lane, now)?;
                app.turn(&Line::Namespace(Arc::clone(&caller.namespace), entry.lane), cost).await
            };
            let begins = begins.await;
            if begins.is_err() && entry.lane == Lane::Heartbeat {
                app.engine.heartbeats_refused(&caller.namespace);
            }
            begins?;
            if let Some(scope) = &caller.scope {
                scopes::admit(app, &caller, scope, entry.kind, request).await?;
            }
            request.extensions_mut().insert(caller);
        }
        None => {
            let path = request.uri().path();
            return Err(Rejection::bug(format!("nobody said what {} {path} needs", entry.method)));
        }
    }
    Ok(())
}

/// Makes ids for requests that bring none: unique within the process, and the process by 64 random bits.
#[derive(Debug)]
pub(crate) struct RequestIds {
    process: u64,
    next: AtomicU64,
}

impl RequestIds {
    pub(crate) fn new() -> RequestIds {
        RequestIds { process: Uuid::new_v4().as_u64_pair().0, next: AtomicU64::new(1) }
    }

    /// Returns the caller's own id if it is one for the log, else a new one.
    fn of(&self, headers: &HeaderMap) -> HeaderValue {
        if let Some(id) = headers.get(REQUEST_ID)
            && (1..=128).contains(&id.len())
            && id.as_bytes().iter().all(u8::is_ascii_graphic)
        {
            return id.clone();
        }
        let next = self.next.fetch_add(1, Ordering::Relaxed);
        HeaderValue::try_from(format!("{:016x}-{next}", self.process))
            .unwrap_or(HeaderValue::from_static("none"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_keeps_an_id_that_can_stand_in_a_log() {
        let ids = RequestIds::new();
        let ask = |value: &'static [u8]| {
            let mut headers = HeaderMap::new();
            headers.insert(REQUEST_ID, HeaderValue::from_bytes(value).unwrap());
            ids.of(&headers)
        };
        assert_eq!(ask(b"order-17"), "order-17");
        for bad in [&b""[..], b"two words", b"\xc3\xa4", &[b'x'; 129]] {
            assert_ne!(ask(bad).as_bytes(), bad);
        }
        assert_ne!(ids.of(&HeaderMap::new()), ids.of(&HeaderMap::new()));
    }
}
