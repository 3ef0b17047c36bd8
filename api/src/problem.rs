//! How a request is refused: one type for all errors, printed as `application/problem+json` (RFC 9457).
//!
//! The codes are stable. What a database or a defect said goes to the log, not to the caller.

use std::any::Any;
use std::borrow::Cow;
use std::time::Duration;

use axum::http::{HeaderValue, Method, StatusCode, Uri, header};
use axum::response::{IntoResponse, Response};
use backstitch_engine::Error;
use backstitch_saga::Violation;
use backstitch_saga::protocol::{ContractBreak, Problem};

/// What a handler answers.
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
    header: Option<(header::HeaderName, HeaderValue)>,
    log: Option<String>,
}

/// What to write to the log about a response; put there by [`Rejection`], taken by `front`.
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
            header: None,
            log: None,
        }))
    }

    /// Everything that is wrong with a request.
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

    /// Too much is under way; nothing was done.
    pub(crate) fn busy() -> Rejection {
        let detail = "The server is busy. Nothing was done; try again in a second.";
        Rejection::new(StatusCode::SERVICE_UNAVAILABLE, "busy", detail)
            .with_header(header::RETRY_AFTER, "1")
    }

    /// A defect of ours.
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

    /// More was asked for than may be asked in a second; nothing was done.
    pub(crate) fn too_many(code: &'static str, detail: impl Into<String>, wait: Duration) -> Self {
        Rejection::new(StatusCode::TOO_MANY_REQUESTS, code, detail).after(wait)
    }

    pub(crate) fn with_log(mut self, log: impl Into<String>) -> Self {
        self.0.log = Some(log.into());
        self
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
        match error {
            Error::Refused(refusal) => {
                let status = StatusCode::from_u16(refusal.code.status());
                let status = status.unwrap_or(StatusCode::CONFLICT);
                Rejection::new(status, refusal.code.as_str(), refusal.message)
            }
            Error::Invalid { code, violations } => {
                let status = match code {
                    "malformed_json" | "invalid_cursor" => StatusCode::BAD_REQUEST,
                    _ => StatusCode::UNPROCESSABLE_ENTITY,
                };
                Rejection::invalid(status, code, violations)
            }
            Error::NotFound { code, message } => {
                Rejection::new(StatusCode::NOT_FOUND, code, message)
            }
            Error::Conflict { code, message } => {
                Rejection::new(StatusCode::CONFLICT, code, message)
            }
            Error::Incompatible { message, breaks } => {
                let status = StatusCode::CONFLICT;
                let mut rejection = Rejection::new(status, "incompatible_schema", message);
                rejection.0.breaks = breaks;
                rejection
            }
            Error::StreamVersion { message, actual } => {
                let status = StatusCode::CONFLICT;
                let mut rejection = Rejection::new(status, "stream_version_conflict", message);
                rejection.0.actual_version = Some(actual);
                rejection
            }
            Error::PastRetention { message, oldest } => {
                let status = StatusCode::GONE;
                let mut rejection = Rejection::new(status, "position_past_retention", message);
                rejection.0.oldest_position = Some(oldest);
                rejection
            }
            Error::Quota { code, message, retry_after: Some(wait) } => {
                Rejection::too_many(code, message, wait)
            }
            Error::Quota { code, message, retry_after: None } => {
                Rejection::new(StatusCode::CONFLICT, code, message)
            }
            Error::Busy => Rejection::busy(),
            Error::Store(what) => Rejection::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "store_failed",
                "The database failed. Whether it was done is not known, but asking again is safe.",
            )
            .with_header(header::RETRY_AFTER, "1")
            .with_log(what),
            Error::Damaged(what) => Rejection::new(
                StatusCode::CONFLICT,
                "journal_damaged",
                "The journal of the run cannot be read, so nothing can be told or done about it. Its incident with the \
                 number 0 says more; once the journal is repaired, the run goes on by itself.",
            )
            .with_log(what),
            Error::Bug(what) => Rejection::bug(what),
        }
    }
}

/// What a panic in a handler is answered with.
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

/// The routes that are not ours.
pub(crate) async fn unknown_route(uri: Uri) -> Rejection {
    let detail = format!("There is nothing at {}. GET /openapi.json lists all routes.", uri.path());
    Rejection::new(StatusCode::NOT_FOUND, "unknown_route", detail)
}

/// The methods that a route does not have.
pub(crate) async fn method_not_allowed(method: Method) -> Rejection {
    let detail = format!("This route does not take {method}; the Allow header says what it takes.");
    Rejection::new(StatusCode::METHOD_NOT_ALLOWED, "method_not_allowed", detail)
}

/// What a code means. A code that is not listed here is titled by its status.
pub(crate) fn title(code: &str, status: StatusCode) -> &'static str {
    TITLES
        .iter()
        .find(|(known, _)| *known == code)
        .map_or_else(|| status.canonical_reason().unwrap_or("Refused"), |(_, title)| title)
}

/// The codes of this crate and of the rules, with their meaning.
const TITLES: &[(&str, &str)] = &[
    ("already_compensating", "The run is being undone already"),
    ("already_reported", "The attempt was reported before, and otherwise"),
    ("already_started", "The run exists already"),
    ("body_incomplete", "The body did not arrive whole"),
    ("body_too_large", "The body is too large"),
    ("body_too_slow", "The body took too long to arrive"),
    ("bug", "A defect of Backstitch"),
    ("busy", "The server is busy"),
    ("cannot_migrate", "The run cannot move to that version as it stands"),
    ("compensation_window_closed", "The run ended too long ago to be undone"),
    ("contract_damaged", "A registered contract cannot be read"),
    ("contract_full", "The contract has as much as it may have"),
    ("contract_has_readers", "The version has readers"),
    ("credential_conflict", "The credential's name is taken"),
    ("credential_missing", "A credential is needed"),
    ("credential_unknown", "The credential is not known"),
    ("cursor_conflict", "The cursor is elsewhere"),
    ("definition_damaged", "A registered definition cannot be read"),
    ("duplicate_key", "A key stands twice in one object"),
    ("event_id_reused", "The id was used for another event"),
    ("forbidden", "The credential's role does not allow this"),
    ("host_not_loopback", "An open server answers on loopback names only"),
    ("idempotency_in_flight", "The same request is being worked on"),
    ("idempotency_key_reused", "The idempotency key came with another body before"),
    ("incident_resolved", "The incident is resolved"),
    ("incompatible_schema", "The schema breaks what the contract promises"),
    ("invalid_cursor", "The cursor is not one of this server's"),
    ("invalid_definition", "The definition is not valid"),
    ("invalid_document", "The document does not follow its contract"),
    ("invalid_event", "An event is not valid"),
    ("invalid_idempotency_key", "The idempotency key is not one"),
    ("invalid_input", "The input does not fit the workflow"),
    ("invalid_name", "The name is not one"),
    ("invalid_output", "The output has not the form it must have"),
    ("invalid_path", "The path does not make sense"),
    ("invalid_query", "The query does not make sense"),
    ("invalid_request", "The request does not make sense"),
    ("invalid_schedule", "The schedule is not valid"),
    ("invalid_schema", "The schema is not valid"),
    ("invalid_subscription", "The subscription is not valid"),
    ("invalid_transform", "The transform is not valid"),
    ("job_not_moving", "The job has ended"),
    ("journal_damaged", "The journal of the run cannot be read"),
    ("key_conflict", "The key belongs to a run with another input"),
    ("key_held", "Another run holds the serial key"),
    ("lease_lost", "The attempt does not hold its lease any more"),
    ("list_too_slow", "The list took too long"),
    ("malformed_json", "The body is not JSON"),
    ("method_not_allowed", "The route does not take this method"),
    ("migration_over", "The migration is over"),
    ("migration_under_way", "A migration of the workflow is under way"),
    ("mode_conflict", "The contract has another mode"),
    ("no_breaker", "The queue has no breaker"),
    ("no_step", "The incident is about no step"),
    ("not_offered", "The task is not on offer"),
    ("not_ready", "The server cannot take work now"),
    ("not_started", "The run has not begun"),
    ("nothing_required", "The run waits for no fact"),
    ("nothing_to_compensate", "There is nothing to undo"),
    ("nothing_to_retry", "Nothing is parked or blocked"),
    ("past_pivot", "The point of no return has been passed"),
    ("position_past_retention", "The position is past retention"),
    ("propagation_loop", "The chain of causes is too long"),
    ("quota_definitions", "The namespace has as many versions of workflows as it may"),
    ("quota_early_signals", "The namespace has as many signals kept as it may"),
    ("quota_kept_answers", "The namespace has as many answers kept as it may"),
    ("quota_runs", "The namespace has as many runs under way as it may"),
    ("quota_schedules", "The namespace has as many schedules as it may"),
    ("quota_waiting", "As many requests of the namespace wait as may"),
    ("reason_missing", "A reason is needed"),
    ("run_ended", "The run has ended"),
    ("run_erased", "The run was erased"),
    ("schedule_damaged", "The schedule cannot be read"),
    ("stalled", "The server does not move"),
    ("store_failed", "The database failed"),
    ("stream_version_conflict", "The stream is at another version"),
    ("subscription_not_stopped", "No start of an event is refused"),
    ("too_many", "A job cannot be of so many"),
    ("too_many_backfills", "Too many backfills are under way"),
    ("too_many_contracts", "The namespace has as many contracts as it may"),
    ("too_many_cursors", "The namespace has as many cursors as it may"),
    ("too_many_failed_logins", "Too many unknown credentials came from this address"),
    ("too_many_names", "The workers of the namespace name too many queues and handlers"),
    ("too_many_requests", "More requests came than may come in a second"),
    ("too_many_starts", "More starts came than may come in a second"),
    ("too_many_subscriptions", "The namespace has as many subscriptions as it may"),
    ("too_many_transforms", "The namespace has as many transforms as it may"),
    ("transform_full", "The transform has as many revisions as it may"),
    ("transform_required", "The version breaks and needs a transform"),
    ("unknown_contract", "There is no such contract"),
    ("unknown_contract_version", "The contract has no such version"),
    ("unknown_credential", "There is no such credential"),
    ("unknown_cursor", "There is no such cursor"),
    ("unknown_event", "There is no such event"),
    ("unknown_fact", "The fact is not established"),
    ("unknown_field", "A field is not known"),
    ("unknown_incident", "There is no such incident"),
    ("unknown_job", "There is no such job"),
    ("unknown_migration", "There is no such migration"),
    ("unknown_pause", "The run has no such pause"),
    ("unknown_queue", "No policy was set for this queue"),
    ("unknown_reader", "The contract has no such reader"),
    ("unknown_record", "The run has no such record"),
    ("unknown_revision", "The transform has no such revision"),
    ("unknown_route", "There is no such route"),
    ("unknown_run", "There is no such run"),
    ("unknown_schedule", "There is no such schedule"),
    ("unknown_start_request", "There is no such start request"),
    ("unknown_step", "There is no such step"),
    ("unknown_subscription", "There is no such subscription"),
    ("unknown_transform", "There is no such transform"),
    ("unknown_workflow", "There is no such workflow"),
    ("unsupported_encoding", "The body must not be compressed"),
    ("unsupported_media_type", "The body must be JSON"),
    ("version_conflict", "Another definition stands under this version"),
    ("version_retired", "The version is retired"),
    ("wrong_version", "The run is on another version"),
];

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

    #[test]
    fn titles_are_sorted_and_stand_once() {
        assert!(TITLES.is_sorted_by(|a, b| a.0 < b.0));
    }
}
