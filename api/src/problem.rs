//! Refusals of requests: one type for all errors, printed as `application/problem+json` (RFC 9457).
//!
//! The codes are stable. What a database or a defect said goes to the log, not to the caller.

use std::any::Any;
use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use backstitch_engine::Error;
use backstitch_saga::Violation;
use backstitch_saga::protocol::{ContractBreak, Problem, status_of};
use uuid::Uuid;

use crate::titles::title;

/// Result of a handler.
pub(crate) type Answer = Result<Response, Rejection>;

/// A request that was refused or failed.
#[derive(Debug)]
pub(crate) struct Rejection(Box<Inner>);

#[derive(Debug)]
struct Inner {
    status: StatusCode,
    code: Cow<'static, str>,
    detail: String,
    errors: Vec<Violation>,
    breaks: Vec<ContractBreak>,
    /// See [`Problem`].
    actual_version: Option<u64>,
    oldest_position: Option<u64>,
    intake_id: Option<Uuid>,
    header: Option<(header::HeaderName, HeaderValue)>,
    log: Option<String>,
}

/// Text for the log about a response; added by [`Rejection`], removed by `front`.
#[derive(Clone, Debug)]
pub(crate) struct LogLine(pub(crate) String);

impl Rejection {
    pub(crate) fn new(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        detail: impl Into<String>,
    ) -> Rejection {
        Rejection(Box::new(Inner {
            status,
            code: code.into(),
            detail: detail.into(),
            errors: Vec::new(),
            breaks: Vec::new(),
            actual_version: None,
            oldest_position: None,
            intake_id: None,
            header: None,
            log: None,
        }))
    }

    /// Returns a rejection for everything that is wrong with a request.
    pub(crate) fn invalid(
        status: StatusCode,
        code: impl Into<Cow<'static, str>>,
        errors: Vec<Violation>,
    ) -> Rejection {
        let mut detail = match errors.first() {
            Some(first) if first.pointer.is_empty() => first.message.clone(),
            Some(first) => format!("{}: {}", first.pointer, first.message),
            None => String::new(),
        };
        if errors.len() > 1 {
            detail = format!("{detail}, and {} more, all of them in `errors`", errors.len() - 1);
        }
        let mut rejection = Rejection::new(status, code, detail);
        rejection.0.errors = errors;
        rejection
    }

    /// Returns a rejection because too much is under way; nothing was done.
    pub(crate) fn busy() -> Rejection {
        let detail = "The server is busy. Nothing was done; try again in a second.";
        Rejection::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
            .with_header(header::RETRY_AFTER, "1")
    }

    /// Returns a defect of ours.
    pub(crate) fn bug(what: impl Into<String>) -> Rejection {
        let detail = "A defect stopped this request. The log tells more under this request's id.";
        Rejection::new(StatusCode::INTERNAL_SERVER_ERROR, "bug", detail).with_log(what)
    }

    pub(crate) fn with_header(mut self, name: header::HeaderName, value: &'static str) -> Self {
        self.0.header = Some((name, HeaderValue::from_static(value)));
        self
    }

    /// Says when to ask again: whole seconds, at least one.
    pub(crate) fn after(mut self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.0.header = Some((header::RETRY_AFTER, HeaderValue::from(seconds.max(1))));
        self
    }

    /// Returns a rejection because more was asked for than may be asked in a second; nothing was
    /// done.
    pub(crate) fn too_many(code: &'static str, detail: impl Into<String>, wait: Duration) -> Self {
        Rejection::new(StatusCode::TOO_MANY_REQUESTS, code, detail).after(wait)
    }

    /// Adds everything that is wrong with a document that a source sent, and the id under which it
    /// is kept.
    pub(crate) fn of_intake(mut self, errors: Vec<Violation>, id: Option<Uuid>) -> Self {
        self.0.errors = errors;
        self.0.intake_id = id;
        self
    }

    /// Returns status, code and message, for one of many results in a response.
    pub(crate) fn told(self) -> (u16, String, Option<String>) {
        let Inner { status, code, detail, log, .. } = *self.0;
        if let Some(error) = log {
            tracing::error!(%status, error, "a part of a request failed");
        }
        (status.as_u16(), code.into_owned(), Some(detail).filter(|detail| !detail.is_empty()))
    }

    pub(crate) fn with_log(mut self, log: impl Into<String>) -> Self {
        self.0.log = Some(log.into());
        self
    }

    /// Returns the status and what is said of it, for a page.
    pub(crate) fn for_page(&self) -> (StatusCode, &str) {
        (self.0.status, &self.0.detail)
    }

    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn parts(&self) -> (u16, &str, &[Violation]) {
        (self.0.status.as_u16(), &self.0.code, &self.0.errors)
    }
}

impl IntoResponse for Rejection {
    fn into_response(self) -> Response {
        let Inner {
            status,
            code,
            detail,
            errors,
            breaks,
            header,
            log,
            actual_version,
            oldest_position,
            intake_id,
        } = *self.0;
        let problem = Problem {
            kind: format!("urn:backstitch:problem:{code}"),
            status: status.as_u16(),
            title: title(&code, status).to_owned(),
            code: code.into_owned(),
            detail: Some(detail).filter(|detail| !detail.is_empty()),
            errors,
            breaks,
            actual_version,
            oldest_position,
            intake_id,
        };
        // A struct of strings and numbers always has a JSON form.
        let body = serde_json::to_vec(&problem).unwrap_or_default();
        let mut response =
            (status, [(header::CONTENT_TYPE, "application/problem+json")], body).into_response();
        if let Some((name, value)) = header {
            response.headers_mut().insert(name, value);
        }
        if let Some(log) = log {
            response.extensions_mut().insert(LogLine(log));
        }
        response
    }
}

impl From<Error> for Rejection {
    fn from(error: Error) -> Self {
        let status = StatusCode::from_u16(status_of(error.kind()));
        let (status, code) = (status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR), error.code());
        match error {
            Error::Refused(refusal) => Rejection::new(status, code, refusal.message),
            Error::Invalid { violations, .. } => Rejection::invalid(status, code, violations),
            Error::NotFound { message, .. } | Error::Conflict { message, .. } => {
                Rejection::new(status, code, message)
            }
            Error::Incompatible { message, breaks } => {
                let mut rejection = Rejection::new(status, code, message);
                rejection.0.breaks = breaks;
                rejection
            }
            Error::StreamVersion { message, actual } => {
                let mut rejection = Rejection::new(status, code, message);
                rejection.0.actual_version = Some(actual);
                rejection
            }
            Error::PastRetention { message, oldest } => {
                let mut rejection = Rejection::new(status, code, message);
                rejection.0.oldest_position = Some(oldest);
                rejection
            }
            Error::Quota { message, retry_after, .. } => {
                let rejection = Rejection::new(status, code, message);
                match retry_after {
                    Some(wait) => rejection.after(wait),
                    None => rejection,
                }
            }
            Error::Busy => Rejection::busy(),
            Error::Store(what) => Rejection::new(
                status,
                code,
                "The database failed. Whether it was done is not known, but asking again is safe.",
            )
            .with_header(header::RETRY_AFTER, "1")
            .with_log(what),
            Error::Damaged(what) => Rejection::new(
                status,
                code,
                "The journal of the run cannot be read, so nothing can be told or done about it. Its incident with the \
                 number 0 says more; once the journal is repaired, the run goes on by itself.",
            )
            .with_log(what),
            Error::Bug(what) => Rejection::bug(what),
        }
    }
}

/// Returns the response to a request whose handler panicked.
pub(crate) fn panicked(panic: Box<dyn Any + Send + 'static>) -> Response {
    let what = match panic.downcast::<String>() {
        Ok(text) => *text,
        Err(panic) => match panic.downcast_ref::<&str>() {
            Some(text) => (*text).to_owned(),
            None => "a panic without a message".to_owned(),
        },
    };
    Rejection::bug(what).into_response()
}

/// Answers of the pages at `/docs`, which know nothing of problems.
pub(crate) async fn dress(uri: Uri, response: Response) -> Response {
    match response.status() {
        StatusCode::NOT_FOUND => unknown_route(uri).await.into_response(),
        _ => response,
    }
}

/// Returns the routes that are not ours.
pub(crate) async fn unknown_route(uri: Uri) -> Rejection {
    let detail = format!("There is nothing at {}. GET /openapi.json lists all routes.", uri.path());
    Rejection::new(StatusCode::NOT_FOUND, "unknown_route", detail)
}

/// Returns the methods that a route does not have.
pub(crate) async fn method_not_allowed(method: Method) -> Rejection {
    let detail = format!("This route does not take {method}; the Allow header says what it takes.");
    Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

#[cfg(test)]
mod tests {
    use axum::body::to_bytes;
    use backstitch_saga::{Refusal, RefusalCode};

    use super::*;

    async fn printed(answer: impl IntoResponse) -> (StatusCode, Option<String>, serde_json::Value) {
        let response = answer.into_response();
        let kind = response.headers()[header::CONTENT_TYPE].to_str().unwrap();
        assert_eq!(kind, "application/problem+json");
        let retry = response.headers().get(header::RETRY_AFTER);
        let retry = retry.map(|value| value.to_str().unwrap().to_owned());
        let status = response.status();
        let body = to_bytes(response.into_body(), 10_000).await.unwrap();
        (status, retry, serde_json::from_slice(&body).unwrap())
    }

    #[tokio::test]
    async fn every_error_of_the_engine_has_its_answer() {
        let invalid = |code| Error::Invalid { code, violations: vec![] };
        let message = String::from("it is so");
        let refused = |code| Error::Refused(Refusal::new(code, "it is so"));
        let table = [
            (refused(RefusalCode::LeaseLost), 409, "lease_lost", None),
            (refused(RefusalCode::UnknownStep), 404, "unknown_step", None),
            (refused(RefusalCode::ReasonMissing), 422, "reason_missing", None),
            (invalid("invalid_definition"), 422, "invalid_definition", None),
            (invalid("malformed_json"), 400, "malformed_json", None),
            (invalid("invalid_cursor"), 400, "invalid_cursor", None),
            (
                Error::NotFound { code: "unknown_run", message: message.clone() },
                404,
                "unknown_run",
                None,
            ),
            (
                Error::Conflict { code: "key_conflict", message: message.clone() },
                409,
                "key_conflict",
                None,
            ),
            (
                Error::Quota {
                    code: "quota_runs",
                    message: message.clone(),
                    retry_after: Some(Duration::from_millis(4_200)),
                },
                429,
                "quota_runs",
                Some("5"),
            ),
            (
                Error::Quota {
                    code: "quota_schedules",
                    message: message.clone(),
                    retry_after: None,
                },
                409,
                "quota_schedules",
                None,
            ),
            (Error::Busy, 503, "busy", Some("1")),
            (Error::Store("secret".to_owned()), 503, "store_failed", Some("1")),
            (Error::Damaged("secret".to_owned()), 409, "journal_damaged", None),
            (Error::Bug("secret".to_owned()), 500, "bug", None),
        ];
        for (error, status, code, retry) in table {
            let (printed_status, printed_retry, body) = printed(Rejection::from(error)).await;
            assert_eq!(
                (printed_status.as_u16(), printed_retry.as_deref()),
                (status, retry),
                "{code}"
            );
            assert_eq!(body["code"], code);
            assert_eq!(body["status"], status);
            assert_eq!(body["type"], format!("urn:backstitch:problem:{code}"));
            assert!(!body.to_string().contains("secret"), "{body}");
        }
    }

    #[tokio::test]
    async fn what_is_wrong_is_listed() {
        let errors = vec![
            Violation::new("/steps/0", "unknown_name", "no such step"),
            Violation::new("", "missing_field", "no name"),
        ];
        let status = StatusCode::UNPROCESSABLE_ENTITY;
        let (_, _, body) = printed(Rejection::invalid(status, "invalid_definition", errors)).await;
        assert_eq!(body["detail"], "/steps/0: no such step, and 1 more, all of them in `errors`");
        assert_eq!(body["errors"][1]["code"], "missing_field");
    }

    #[tokio::test]
    async fn a_panic_is_a_bug_that_is_logged_and_not_told() {
        let response = panicked(Box::new("secret".to_owned()));
        assert_eq!(response.extensions().get::<LogLine>().unwrap().0, "secret");
        let (status, _, body) = printed(response).await;
        assert_eq!((status.as_u16(), &body["code"]), (500, &"bug".into()));
        assert!(!body.to_string().contains("secret"));
    }
}
