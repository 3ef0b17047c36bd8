//! Classifies the results of HTTP calls: did the effect happen, did it not, or may it have?

use std::time::Duration;

use backstitch_saga::Span;
use reqwest::header::RETRY_AFTER;
use reqwest::{Response, StatusCode};
use serde::Deserialize;

use crate::TaskError;
use crate::error::stable;

/// The most of a refusal's body that is kept, in bytes.
const BODY_KEPT: usize = 2_048;

/// A request that failed before there was an answer: no connection is unavailable, anything later may have happened.
impl From<reqwest::Error> for TaskError {
    fn from(error: reqwest::Error) -> Self {
        let message = chain(&error);
        if error.is_builder() {
            TaskError::permanent("bad_request", message)
        } else if error.is_connect() {
            TaskError::unavailable("connect_failed", message)
        } else if error.is_timeout() {
            TaskError::unknown("timeout", message)
        } else if let Some(status) = error.status() {
            for_status(status, None, &format!("http_{}", status.as_u16()), message)
        } else if error.is_decode() || error.is_body() {
            TaskError::unknown("response_unreadable", message)
        } else {
            TaskError::unknown("connection_lost", message)
        }
    }
}

/// Passes a successful response on and makes a [`TaskError`] of any other:
///
/// | status | meaning |
/// | --- | --- |
/// | 429 | rate limited, for as long as `Retry-After` says (one second without it) |
/// | 408, 425, 503 | it did not happen; retryable, not before `Retry-After` |
/// | 500, 502, 504 and other 5xx | it may have happened: unknown |
/// | everything else | it did not happen and will not: permanent |
///
/// Code and message come from the body when it is `application/problem+json` with a `code`; else the code is
/// `http_404` and the like.
///
/// ```no_run
/// # async fn call(url: &str) -> Result<(), backstitch_sdk::TaskError> {
/// let response = backstitch_sdk::http::expect_success(reqwest::get(url).await?).await?;
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// A [`TaskError`] by the table above.
pub async fn expect_success(response: Response) -> Result<Response, TaskError> {
    let status = response.status();
    if status.is_success() {
        return Ok(response);
    }
    let delay = retry_after(&response);
    let url = response.url().clone();
    let mut body = response.text().await.unwrap_or_default();
    let (code, message) = match serde_json::from_str::<Refusal>(&body) {
        Ok(refusal) if refusal.code.is_some() => {
            let code = stable(&refusal.code.unwrap_or_default());
            (code, refusal.detail.or(refusal.title).unwrap_or_else(|| status.to_string()))
        }
        _ => (format!("http_{}", status.as_u16()), format!("{url} answered {status}")),
    };
    let error = for_status(status, delay, &code, message);
    if body.is_empty() {
        return Err(error);
    }
    body.truncate(body.floor_char_boundary(BODY_KEPT));
    Err(error.details(&serde_json::json!({ "status": status.as_u16(), "body": body })))
}

/// Members of a refusal that are read (RFC 9457).
#[derive(Deserialize)]
struct Refusal {
    code: Option<String>,
    title: Option<String>,
    detail: Option<String>,
}

fn for_status(
    status: StatusCode,
    delay: Option<Duration>,
    code: &str,
    message: String,
) -> TaskError {
    let error = match status.as_u16() {
        429 => {
            return TaskError::rate_limited(Span::from(delay.unwrap_or(Duration::from_secs(1))));
        }
        408 | 425 | 503 => TaskError::retryable(code, message),
        500.. => TaskError::unknown(code, message),
        _ => TaskError::permanent(code, message),
    };
    match delay {
        Some(delay) => error.retry_after(Span::from(delay)),
        None => error,
    }
}

/// Reads `Retry-After` in seconds. Its other form, a date, needs a clock that both sides share, and is
/// ignored.
pub(crate) fn retry_after(response: &Response) -> Option<Duration> {
    let seconds = response.headers().get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok()?;
    Some(Duration::from_secs(seconds))
}

/// Returns an error with everything that caused it, in one line.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(": ");
        text.push_str(&error.to_string());
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::FailureKind::{
        Permanent, RateLimited, Retryable, Unavailable, Unknown,
    };

    use super::*;

    #[test]
    fn a_status_says_what_happened() {
        for (status, kind) in [
            (400, Permanent),
            (404, Permanent),
            (408, Retryable),
            (409, Permanent),
            (425, Retryable),
            (429, RateLimited),
            (500, Unknown),
            (502, Unknown),
            (503, Retryable),
            (504, Unknown),
        ] {
            let status = StatusCode::from_u16(status).unwrap();
            let error = for_status(status, Some(Duration::from_secs(7)), "code", String::new());
            assert_eq!(error.kind(), kind, "{status}");
            assert_eq!(error.into_failure().retry_after, Some(Span::secs(7)), "{status}");
        }
    }

    #[tokio::test]
    async fn nothing_happened_where_nobody_listens() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        drop(listener);
        let error = TaskError::from(reqwest::get(url).await.unwrap_err());
        assert_eq!((error.kind(), error.code()), (Unavailable, "connect_failed"));
    }
}
