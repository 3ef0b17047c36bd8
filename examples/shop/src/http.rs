//! A service over HTTP: routes, the ledger's file, and the answers that never come. What is answered is decided in
//! [`crate::service`].

use std::future::pending;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use axum::Router;
use axum::extract::rejection::JsonRejection;
use axum::extract::{FromRequestParts, Json, Path, Query, State};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post, put};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::effect::{Effect, Kind, Op};
use crate::faults::Faults;
use crate::ledger::Entry;
use crate::ledger_file::LedgerFile;
use crate::service::{Answer, Request, Service, Shelf};

/// The header that carries the key of an effect, or of an undo.
pub const KEY_HEADER: &str = "idempotency-key";

/// The header that says that an answer was given before.
pub const REPLAYED_HEADER: &str = "idempotency-replayed";

/// How long a caller is left waiting by a timeout fault before the connection is closed on it.
const IN_VAIN: Duration = Duration::from_secs(120);

/// How a service is set up.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// Where its ledger is kept; only in memory without it.
    pub ledger: Option<PathBuf>,
    /// How many pieces of which goods there are; what is not listed never runs out.
    pub shelves: Vec<Shelf>,
}

/// `GET /ledger`: everything the service did.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct LedgerView {
    /// Whose ledger it is.
    pub service: Kind,
    /// How many requests were answered from the ledger without a second effect, since the service started.
    pub repeats: u64,
    /// How many requests were refused because their undo had come before them, since the service started.
    pub came_too_late: u64,
    /// The entries, in order.
    pub entries: Vec<Entry>,
}

/// A request about an order: who it is for, and what.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForOrder<T> {
    /// The order.
    pub order: String,
    /// What is asked for it.
    #[serde(flatten)]
    pub what: T,
}

/// What is to be undone: `POST /releases`, `/refunds`, `/recalls`.
#[derive(Debug, Serialize, Deserialize)]
pub struct UndoOf {
    /// The key of the effect.
    pub key: Uuid,
    /// The goods, if it is about goods.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sku: Option<String>,
}

/// The answer to an effect.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Receipt {
    /// What the service calls the effect.
    pub receipt: String,
}

/// The answer to an undo.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct UndoReceipt {
    /// Whether the effect ever stood; if not, it never will.
    pub was_done: bool,
}

/// Serves one of the services on `listener` until `stop` is ready.
///
/// # Errors
/// When its ledger cannot be read or the listener fails.
pub async fn serve(
    kind: Kind,
    setup: Setup,
    listener: TcpListener,
    stop: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    let desk = Desk::open(kind, &setup)?;
    // Requests under way are cut off: some of them wait in vain on purpose, and a caller must bear it anyway.
    tokio::select! {
        served = axum::serve(listener, router(kind, desk)).into_future() => {
            served.with_context(|| format!("the {} service stopped", kind.as_str()))
        }
        () = stop => Ok(()),
    }
}

fn router(kind: Kind, desk: Desk) -> Router {
    let own = match kind {
        Kind::Stock => Router::new()
            .route("/reservations", post(reserve))
            .route("/releases", post(release))
            .route("/shelves", put(fill_shelves)),
        Kind::Payment => Router::new()
            .route("/accounts/{customer}", put(open_account))
            .route("/charges", post(charge))
            .route("/charges/{key}", get(find))
            .route("/refunds", post(refund)),
        Kind::Shipping => Router::new()
            .route("/shipments", post(ship))
            .route("/recalls", post(recall))
            .route("/receipts", post(mail)),
    };
    own.route("/ledger", get(ledger))
        .route("/faults", get(faults).put(set_faults))
        .route("/livez", get(|| async { "ok" }))
        .with_state(desk)
}

/// Where requests are taken: one service, one at a time.
#[derive(Clone)]
struct Desk(Arc<Mutex<Books>>);

struct Books {
    service: Service,
    file: Option<LedgerFile>,
}

impl Desk {
    fn open(kind: Kind, setup: &Setup) -> anyhow::Result<Desk> {
        let mut service = Service::new(kind);
        let file = match &setup.ledger {
            None => None,
            Some(path) => {
                let (file, entries) = LedgerFile::open(path)?;
                for entry in entries {
                    service.restore(entry).map_err(|problem| {
                        anyhow::anyhow!("the ledger {} is damaged: {problem}", path.display())
                    })?;
                }
                Some(file)
            }
        };
        for shelf in &setup.shelves {
            service.fill(shelf);
        }
        Ok(Desk(Arc::new(Mutex::new(Books { service, file }))))
    }

    fn with<T>(&self, act: impl FnOnce(&mut Books) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Carries out a request, writes down what it changed, and answers in due time, or never.
    async fn answer(&self, request: Request) -> Response {
        let response = self.with(|books| {
            let before = books.service.entries().len();
            let response = books.service.receive(now(), request);
            let new = books.service.entries().get(before..).unwrap_or_default();
            match &mut books.file {
                Some(file) => file.append(new).map(|()| response),
                None => Ok(response),
            }
        });
        let response = match response {
            Ok(response) => response,
            Err(error) => {
                // What is not in the ledger must not count: the next life starts from the file.
                eprintln!("the ledger cannot be written, so this service stops: {error:#}");
                std::process::exit(1);
            }
        };
        let Some(answer) = response.answer else {
            let _ = tokio::time::timeout(IN_VAIN, pending::<()>()).await;
            return problem(504, "no_answer", "this request was made to wait in vain", None);
        };
        tokio::time::sleep(response.delay).await;
        answer.into_response()
    }
}

/// The key of the effect or of the undo that a request is about.
struct Key(Uuid);

impl<S: Sync> FromRequestParts<S> for Key {
    type Rejection = Response;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Self::Rejection> {
        let key = parts.headers.get(KEY_HEADER).and_then(|value| value.to_str().ok());
        match key.map(str::parse) {
            Some(Ok(key)) => Ok(Key(key)),
            _ => Err(problem(400, "key_missing", "Idempotency-Key must be a UUID", None)),
        }
    }
}

type Body<T> = Result<Json<ForOrder<T>>, JsonRejection>;

async fn act<T>(desk: Desk, key: Key, body: Body<T>, effect: fn(T) -> Effect) -> Response {
    match body {
        Ok(Json(body)) => {
            let effect = effect(body.what);
            desk.answer(Request::Do { key: key.0, order: body.order, effect }).await
        }
        Err(rejection) => problem(422, "invalid_body", &rejection.body_text(), None),
    }
}

async fn undo(desk: Desk, key: Key, body: Body<UndoOf>, op: Op) -> Response {
    match body {
        Ok(Json(ForOrder { order, what: UndoOf { key: of, sku } })) => {
            desk.answer(Request::Undo { op, key: of, undo_key: key.0, order, sku }).await
        }
        Err(rejection) => problem(422, "invalid_body", &rejection.body_text(), None),
    }
}

async fn reserve(
    State(desk): State<Desk>,
    key: Key,
    body: Body<crate::effect::Reserve>,
) -> Response {
    act(desk, key, body, Effect::Reserve).await
}

async fn release(State(desk): State<Desk>, key: Key, body: Body<UndoOf>) -> Response {
    undo(desk, key, body, Op::Release).await
}

async fn charge(State(desk): State<Desk>, key: Key, body: Body<crate::effect::Charge>) -> Response {
    act(desk, key, body, Effect::Charge).await
}

async fn refund(State(desk): State<Desk>, key: Key, body: Body<UndoOf>) -> Response {
    undo(desk, key, body, Op::Refund).await
}

async fn ship(State(desk): State<Desk>, key: Key, body: Body<crate::effect::Ship>) -> Response {
    act(desk, key, body, Effect::Ship).await
}

async fn recall(State(desk): State<Desk>, key: Key, body: Body<UndoOf>) -> Response {
    undo(desk, key, body, Op::Recall).await
}

async fn mail(State(desk): State<Desk>, key: Key, body: Body<crate::effect::Mail>) -> Response {
    act(desk, key, body, Effect::Mail).await
}

async fn open_account(State(desk): State<Desk>, Path(customer): Path<String>) -> Response {
    desk.answer(Request::Open { customer }).await
}

#[derive(Deserialize)]
struct FindQuery {
    #[serde(default)]
    order: String,
}

async fn find(
    State(desk): State<Desk>,
    Path(key): Path<Uuid>,
    Query(query): Query<FindQuery>,
) -> Response {
    desk.answer(Request::Find { key, order: query.order }).await
}

async fn ledger(State(desk): State<Desk>) -> Json<LedgerView> {
    Json(desk.with(|books| LedgerView {
        service: books.service.kind(),
        repeats: books.service.repeats(),
        came_too_late: books.service.came_too_late(),
        entries: books.service.entries().to_vec(),
    }))
}

async fn faults(State(desk): State<Desk>) -> Json<Faults> {
    Json(desk.with(|books| books.service.faults().faults().clone()))
}

async fn set_faults(
    State(desk): State<Desk>,
    body: Result<Json<Faults>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(faults)) => {
            desk.with(|books| books.service.faults().set(faults));
            StatusCode::NO_CONTENT.into_response()
        }
        Err(rejection) => problem(422, "invalid_faults", &rejection.body_text(), None),
    }
}

async fn fill_shelves(
    State(desk): State<Desk>,
    body: Result<Json<Vec<Shelf>>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(shelves)) => {
            desk.with(|books| shelves.iter().for_each(|shelf| books.service.fill(shelf)));
            StatusCode::NO_CONTENT.into_response()
        }
        Err(rejection) => problem(422, "invalid_shelves", &rejection.body_text(), None),
    }
}

impl IntoResponse for Answer {
    fn into_response(self) -> Response {
        match self {
            Answer::Done { receipt, replayed } => {
                let mut headers = HeaderMap::new();
                if replayed {
                    headers.insert(REPLAYED_HEADER, HeaderValue::from_static("true"));
                }
                (StatusCode::CREATED, headers, Json(Receipt { receipt })).into_response()
            }
            Answer::Undone { was_done } => Json(UndoReceipt { was_done }).into_response(),
            Answer::NotFound => problem(404, "not_found", "there is no such charge", None),
            Answer::Refused { status, code, message, retry_after } => {
                problem(status, code, &message, retry_after)
            }
        }
    }
}

/// An error as `application/problem+json`.
fn problem(status: u16, code: &str, detail: &str, retry_after: Option<u64>) -> Response {
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut headers = HeaderMap::new();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/problem+json"));
    if let Some(secs) = retry_after {
        headers.insert(header::RETRY_AFTER, HeaderValue::from(secs));
    }
    let body = json!({"status": status.as_u16(), "code": code, "detail": detail});
    (status, headers, body.to_string()).into_response()
}

/// Milliseconds since the Unix epoch.
fn now() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
