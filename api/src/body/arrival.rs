//! Bodies as they arrive: whole, in time, within a limit, and not compressed.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::Request;
use axum::http::{HeaderMap, StatusCode, header};
use http_body_util::BodyExt;

use super::SMALL;
use crate::app::App;
use crate::problem::Rejection;

/// Number of bytes of a body in memory after which other tasks may run.
const SLICE: usize = 64 * 1024;

/// Returns the whole body of a request to a door of `namespace`, up to `limit` bytes. Those who send to doors have room
/// of their own.
///
/// # Errors
/// As [`read`], whatever it says that it is.
pub(crate) async fn read_at_door(
    request: Request,
    app: &App,
    namespace: &str,
    limit: usize,
) -> Result<Bytes, Rejection> {
    must_not_be_encoded(request.headers())?;
    let announced = announced(request.headers());
    let doors: Arc<str> = format!("in/{namespace}").into();
    let _room = match announced.is_none_or(|size| size > SMALL) {
        true => Some(app.room(&doors, announced.unwrap_or(limit).min(limit))?),
        false => None,
    };
    in_time(app, collect(request, announced, (limit, "payload_too_large"))).await
}

/// Waits for a body for as long as it may take.
pub(super) async fn in_time<T>(
    app: &App,
    body: impl Future<Output = Result<T, Rejection>>,
) -> Result<T, Rejection> {
    match tokio::time::timeout(app.limits.body_timeout, body).await {
        Ok(bytes) => bytes,
        Err(_) => {
            let detail = format!(
                "The body must arrive within {} s; the connection is closed.",
                app.limits.body_timeout.as_secs()
            );
            Err(Rejection::new(StatusCode::REQUEST_TIMEOUT, "body_too_slow", detail)
                .with_header(header::CONNECTION, "close"))
        }
    }
}

/// Returns the size of the body in bytes as the client announces it.
pub(super) fn announced(headers: &HeaderMap) -> Option<usize> {
    headers.get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}

/// Refuses compressed bodies: they are taken as they are.
pub(crate) fn must_not_be_encoded(headers: &HeaderMap) -> Result<(), Rejection> {
    let mut encodings = headers.get_all(header::CONTENT_ENCODING).iter();
    if let Some(encoding) =
        encodings.find(|value| !value.as_bytes().eq_ignore_ascii_case(b"identity"))
    {
        let detail = format!(
            "The body is encoded as {}; send it without a Content-Encoding.",
            encoding.to_str().unwrap_or("something unreadable")
        );
        let status = StatusCode::UNSUPPORTED_MEDIA_TYPE;
        return Err(Rejection::new(status, "unsupported_encoding", detail)
            .with_header(header::ACCEPT_ENCODING, "identity"));
    }
    Ok(())
}

/// Returns the next bytes of a body, `None` at its end.
///
/// # Errors
/// 400 when it breaks off, 408 when nothing comes for as long as a whole body may take.
pub(crate) async fn next(
    app: &App,
    body: &mut axum::body::Body,
) -> Result<Option<Bytes>, Rejection> {
    let next = async {
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| {
                let detail = format!("The body did not arrive whole: {error}");
                Rejection::new(StatusCode::BAD_REQUEST, "body_incomplete", detail)
            })?;
            if let Ok(data) = frame.into_data() {
                return Ok(Some(data));
            }
        }
        Ok(None)
    };
    in_time(app, next).await
}

/// Returns the whole body. One that came in one piece is not copied.
pub(super) async fn collect(
    request: Request,
    announced: Option<usize>,
    (limit, code): (usize, &'static str),
) -> Result<Bytes, Rejection> {
    let too_large = || {
        let detail = format!("The body may have {limit} bytes.");
        Rejection::new(StatusCode::PAYLOAD_TOO_LARGE, code, detail)
    };
    if announced.is_some_and(|length| length > limit) {
        return Err(too_large());
    }
    let mut body = request.into_body();
    let mut first = Bytes::new();
    let (mut all, mut slice) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|error| {
            let detail = format!("The body did not arrive whole: {error}");
            Rejection::new(StatusCode::BAD_REQUEST, "body_incomplete", detail)
        })?;
        let Ok(data) = frame.into_data() else { continue };
        if first.len() + all.len() + data.len() > limit {
            return Err(too_large());
        }
        slice += data.len();
        if slice >= SLICE {
            slice = 0;
            tokio::task::yield_now().await;
        }
        if first.is_empty() && all.is_empty() {
            first = data;
            continue;
        }
        if all.is_empty() {
            all.reserve(announced.unwrap_or(0).max(first.len() + data.len()));
            all.extend_from_slice(&std::mem::take(&mut first));
        }
        all.extend_from_slice(&data);
    }
    Ok(if all.is_empty() { first } else { all.into() })
}
