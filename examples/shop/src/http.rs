//! A service over HTTP: its routes, and the answers that never come. What is answered is decided in
//! [`crate::service`].

use std::future::pending;
use std::time::Duration;

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

use crate::desk::{Desk, LedgerView};
use crate::effect::{Effect, Kind, Op};
use crate::faults::Faults;
use crate::service::{Answer, Request, Shelf};

/// The header that carries the key of an effect, or of an undo.
pub const KEY_HEADER: &str = "idempotency-key";

/// The header that says that an answer was given before.
pub const REPLAYED_HEADER: &str = "idempotency-replayed";

/// A request about an order: who it is for, and what.
#[derive(Debug, Serialize, Deserialize)]
pub struct ForOrder<T> {
    /// The order.
    pub order: String,
    /// The operation.
    #[serde(flatten)]
    pub what: T,
}

/// The undo: `POST /releases`, `/refunds`, `/recalls`.
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
    /// The service's number of the effect.
    pub receipt: String,
}

/// The answer to an undo.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub struct UndoReceipt {
    /// `true` if the effect ever existed; if not, it never will.
    pub was_done: bool,
}

/// Time that a caller waits in a timeout fault before its connection is closed.
const IN_VAIN: Duration = Duration::from_secs(120);

impl Desk {
    /// Serves on `listener` until `stop` is ready. Requests under way are then cut off: some of them wait in vain on
    /// purpose, and a caller must bear it anyway.
    ///
    /// # Errors
    /// When the listener fails.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let kind = self.kind();
        tokio::select! {
            served = axum::serve(listener, router(kind, self)).into_future() => {
                served.with_context(|| format!("the {} service stopped", kind.as_str()))
            }
            () = stop => Ok(()),
        }
    }

    /// Carries out a request and answers in due time, or never.
    async fn answer(&self, request: Request) -> Response {
        let response = self.receive(request);
        let Some(answer) = response.answer else {
            let _ = tokio::time::timeout(IN_VAIN, pending::<()>()).await;
            return problem(504, "no_answer", "this request was made to wait in vain", None);
        };
        tokio::time::sleep(response.delay).await;
        answer.into_response()
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
            .route("/shipments/{key}", get(find))
            .route("/recalls", post(recall))
            .route("/receipts", post(mail)),
    };
    own.route("/ledger", get(ledger))
        .route("/faults", get(faults).put(set_faults))
        .route("/livez", get(|| async { "ok" }))
        .with_state(desk)
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
    Json(desk.ledger())
}

async fn faults(State(desk): State<Desk>) -> Json<Faults> {
    Json(desk.faults())
}

async fn set_faults(
    State(desk): State<Desk>,
    body: Result<Json<Faults>, JsonRejection>,
) -> Response {
    match body {
        Ok(Json(faults)) => {
            desk.misbehave(faults);
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
            desk.fill(&shelves);
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
            Answer::NotFound => problem(404, "not_found", "there is no such effect", None),
            Answer::Refused { status, code, message, retry_after } => {
                problem(status, code, &message, retry_after)
            }
        }
    }
}

/// Returns an error as `application/problem+json`.
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
