//! The header `Idempotency-Key` on requests that act: a repeated request is not executed again, and gets the same
//! response. It precedes all handlers, which need not know of it; requests without the header pass by.
//!
//! `backstitch_engine::Reservation` describes reservations, and the reason why a repeat after a crash is safe.

use std::convert::Infallible;
use std::sync::Arc;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::{FromRequestParts, Request};
use axum::http::request::Parts;
use axum::http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use backstitch_engine::{IdempotentRequest, KeptAnswer, Reservation, Reserved};
use tracing::Instrument;

use crate::access::{Caller, Right};
use crate::app::App;
use crate::body;
use crate::problem::{Answer, Rejection};

/// The header that carries the caller's key.
pub(crate) const KEY: HeaderName = HeaderName::from_static("idempotency-key");
/// Says that an answer is that of an earlier request.
const REPLAYED: HeaderName = HeaderName::from_static("idempotency-replayed");
/// Adds the time for which responses are kept.
const RETENTION: HeaderName = HeaderName::from_static("idempotency-retention");
/// The longest key.
pub(crate) const LONGEST: usize = 255;
/// The largest body of a response that is kept, in bytes: a thousand starts, or a run with a long view.
pub(crate) const LARGEST: usize = 256 * 1024;

/// Returns whether a route takes a key: all that act do, except the task routes, which have a fence of
/// their own.
pub(crate) fn covers(method: &Method, right: Option<Right>) -> bool {
    // No secret is kept in an answer.
    let apart = [Right::Public, Right::Read, Right::Work, Right::Intake, Right::Admin];
    method == Method::POST && right.is_some_and(|right| !apart.contains(&right))
}

/// The reservation that a request is executed under, if it brought a key.
pub(crate) struct Reserve(pub(crate) Option<Reservation>);

impl<S: Sync> FromRequestParts<S> for Reserve {
    type Rejection = Infallible;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Infallible> {
        Ok(Reserve(parts.extensions.get::<Reservation>().cloned()))
    }
}

/// Marks an answer, whatever its status, that says of some part that it is not known whether it was done. It is not
/// kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsettled;

/// Answers a request that has a key: as before, or by executing it.
pub(crate) async fn pass(app: Arc<App>, request: Request, next: Next) -> Response {
    let retention = HeaderValue::try_from(app.engine.idempotency_retention().to_string());
    let mut response = match execute_once(app, request, next).await {
        Ok(response) => response,
        Err(rejection) => rejection.into_response(),
    };
    if let Ok(retention) = retention {
        response.headers_mut().insert(RETENTION, retention);
    }
    response
}

async fn execute_once(app: Arc<App>, request: Request, next: Next) -> Answer {
    let key = key_of(request.headers())?;
    let (mut parts, body) = request.into_parts();
    let whole = Request::from_parts(parts.clone(), body);
    let bytes = body::read(whole, &app).await?;
    let caller = parts.extensions.get::<Caller>();
    let caller = caller.ok_or_else(|| Rejection::bug("a request that acts has no caller"))?;
    let reserved = app.engine.reserve(IdempotentRequest {
        namespace: &caller.namespace,
        actor: &caller.name,
        method: parts.method.as_str(),
        path: parts.uri.path(),
        key: &key,
        body: &bytes,
    });
    match reserved.await? {
        Reserved::Yours(reservation) => {
            parts.extensions.insert(reservation.clone());
            let request = Request::from_parts(parts, Body::from(bytes));
            // On its own, so that it comes to its end and is remembered also when the caller hangs up.
            let executed = async move {
                let response = next.run(request).await;
                remember(&app, &reservation, response).await
            };
            let executed = tokio::spawn(executed.in_current_span()).await;
            executed.map_err(|error| Rejection::bug(error.to_string()))?
        }
        // To erase a run again changes nothing, and is answered the same.
        Reserved::Answered(answer) if answer.erased && parts.uri.path().ends_with("/erase") => {
            Ok(next.run(Request::from_parts(parts, Body::from(bytes))).await)
        }
        Reserved::Answered(answer) => replay(answer),
        Reserved::InFlight => {
            let detail = "The same request is being worked on. Ask again in a second.";
            let rejection = Rejection::new(StatusCode::CONFLICT, "idempotency_in_flight", detail);
            Err(rejection.with_header(header::RETRY_AFTER, "1"))
        }
        Reserved::OtherBody => {
            let detail = "This Idempotency-Key came with another body before. Use a new key for a new request.";
            let status = StatusCode::UNPROCESSABLE_ENTITY;
            Err(Rejection::new(status, "idempotency_key_reused", detail))
        }
    }
}

/// Returns the key, without the quotes that may be around it.
pub(crate) fn key_of(headers: &HeaderMap) -> Result<String, Rejection> {
    let refuse = || {
        let detail = format!(
            "The header Idempotency-Key must be 1 to {LONGEST} visible ASCII characters, in double quotes or without, \
             and stand there once."
        );
        Rejection::new(StatusCode::BAD_REQUEST, "invalid_idempotency_key", detail)
    };
    let mut values = headers.get_all(KEY).iter();
    let (Some(value), None) = (values.next(), values.next()) else { return Err(refuse()) };
    let text = value.to_str().map_err(|_| refuse())?;
    let key = match text.strip_prefix('"') {
        Some(quoted) => quoted.strip_suffix('"').ok_or_else(refuse)?,
        None => text,
    };
    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'"';
    if key.is_empty() || key.len() > LONGEST || !key.bytes().all(plain) {
        return Err(refuse());
    }
    Ok(key.to_owned())
}

/// Keeps final responses: of what was done, and refusals by the state of things. An invalid request leaves no trace;
/// one with an unknown result may be repeated immediately.
async fn remember(app: &App, reservation: &Reservation, response: Response) -> Answer {
    let status = response.status();
    let (parts, body) = response.into_parts();
    let body =
        to_bytes(body, usize::MAX).await.map_err(|error| Rejection::bug(error.to_string()))?;
    let unsettled = parts.extensions.get::<Unsettled>().is_some();
    let done = if unsettled || status.is_server_error() {
        app.engine.free(reservation).await
    } else if status.is_success() || status == StatusCode::CONFLICT {
        let text = |name: HeaderName| Some(parts.headers.get(name)?.to_str().ok()?.to_owned());
        let answer = KeptAnswer {
            status: status.as_u16(),
            content_type: text(header::CONTENT_TYPE),
            location: text(header::LOCATION),
            body: (body.len() <= LARGEST).then(|| body.to_vec()),
            erased: false,
        };
        app.engine.keep_answer(reservation, &answer).await
    } else {
        app.engine.forget_key(reservation).await
    };
    if let Err(error) = done {
        tracing::warn!(%error, "an answer could not be kept under its key; a repeat executes the request again");
    }
    Ok(Response::from_parts(parts, Body::from(body)))
}

/// Returns the same answer again; of one too large to be kept, that it was given; of one that is erased, that it is.
fn replay(answer: KeptAnswer) -> Answer {
    let KeptAnswer { status, content_type, location, body, erased } = answer;
    if erased {
        let detail = format!(
            "This was done, and answered with status {status}. A run that the answer named was erased, and the answer with it."
        );
        let rejection = Rejection::new(StatusCode::CONFLICT, "run_erased", detail);
        return Err(rejection.with_header(REPLAYED, "true"));
    }
    let mut response = match body {
        Some(body) => {
            let status = StatusCode::from_u16(status).unwrap_or_default();
            let mut response = (status, Bytes::from(body)).into_response();
            response.headers_mut().remove(header::CONTENT_TYPE);
            insert(&mut response, header::CONTENT_TYPE, content_type);
            response
        }
        None => {
            let text =
                "This was done. Its answer was too large to be kept; read what there is now.";
            body::json(StatusCode::OK, &serde_json::json!({ "status": status, "message": text }))?
        }
    };
    insert(&mut response, header::LOCATION, location);
    response.headers_mut().insert(REPLAYED, HeaderValue::from_static("true"));
    Ok(response)
}

fn insert(response: &mut Response, name: HeaderName, value: Option<String>) {
    if let Some(value) = value.and_then(|value| HeaderValue::try_from(value).ok()) {
        response.headers_mut().insert(name, value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[&[u8]]) -> Option<String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(KEY, HeaderValue::from_bytes(value).unwrap());
        }
        match key_of(&headers) {
            Ok(key) => Some(key),
            Err(rejection) => {
                assert_eq!(rejection.parts().1, "invalid_idempotency_key");
                None
            }
        }
    }

    #[test]
    fn a_key_may_stand_in_quotes() {
        assert_eq!(read(&[b"order-7"]).as_deref(), Some("order-7"));
        assert_eq!(read(&[b"\"order-7\""]).as_deref(), Some("order-7"));
        assert_eq!(read(&[&[b'k'; 255]]).map(|key| key.len()), Some(255));
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let bad: [&[&[u8]]; 8] = [
            &[b""],
            &[b"\"\""],
            &[b"\"open"],
            &[b"two words"],
            &[b"\xc3\xa4"],
            &[&[b'k'; 256]],
            &[b"a", b"b"],
            &[b"say\"so\""],
        ];
        for values in bad {
            assert_eq!(read(values), None, "{values:?}");
        }
    }

    #[test]
    fn all_that_acts_takes_a_key() {
        assert!(
            covers(&Method::POST, Some(Right::Start)) && covers(&Method::POST, Some(Right::Act))
        );
        assert!(
            !covers(&Method::POST, Some(Right::Work)) && !covers(&Method::POST, Some(Right::Read))
        );
        assert!(!covers(&Method::PUT, Some(Right::Admin)) && !covers(&Method::POST, None));
    }
}
