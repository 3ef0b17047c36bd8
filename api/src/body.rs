//! Reads a request's body: from bytes straight into its type, with payloads left as they are.
//!
//! What is wrong is said with a JSON Pointer. It is found by reading a second time, so that a good request pays
//! nothing for it.

mod arrival;
mod mistakes;

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{FromRequest, MatchedPath, Request};
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use backstitch_saga::Violation;
use backstitch_saga::misread::{self, Rule};
use serde::Serialize;
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::error::Category;
use serde_path_to_error::Segment;

use arrival::{announced, collect, in_time};

pub(crate) use arrival::{must_not_be_encoded, next, read_at_door};

use crate::access::Caller;
use crate::app::{App, Limits};
use crate::check::{Check, Findings};
use crate::problem::{Answer, Rejection};

/// Bodies up to this size are not counted among those on their way: connections bound their number.
const SMALL: usize = 16 * 1024;

/// Bodies of more bytes take so long to read that others would wait.
const LONG: usize = 64 * 1024;

/// Routes whose bodies are lists, such as reports and starts, and may be larger than others.
const LARGE: [&str; 4] = ["/v1/runs/batch", "/v1/tasks/complete", "/v1/tasks/heartbeat", EVENTS];

/// The route that takes CloudEvents, too, and their types: one event, and a list of them.
const EVENTS: &str = "/v1/events";
pub(crate) const CLOUD_EVENT: &str = "application/cloudevents+json";
pub(crate) const CLOUD_EVENTS: &str = "application/cloudevents-batch+json";

/// A request's JSON body, read and checked.
pub(crate) struct Body<T>(pub(crate) T);

/// A request's JSON body as its text: syntax is checked, sense is not.
pub(crate) struct TextBody(pub(crate) String);

impl<T: DeserializeOwned + Check + Send + 'static> FromRequest<Arc<App>> for Body<T> {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Rejection> {
        let caller = request.extensions().get::<Caller>().cloned();
        let bytes = read(request, app).await?;
        in_turn(app, caller.as_ref(), bytes, |bytes| parse(bytes)).await.map(Body)
    }
}

impl FromRequest<Arc<App>> for TextBody {
    type Rejection = Rejection;

    async fn from_request(request: Request, app: &Arc<App>) -> Result<Self, Rejection> {
        let bytes = read(request, app).await?;
        let raw: Box<serde_json::value::RawValue> =
            serde_json::from_slice(&bytes).map_err(|error| malformed(&error))?;
        Ok(TextBody(String::from(Box::<str>::from(raw))))
    }
}

/// Reads a body: a large one on a thread apart from those that serve requests, one of a namespace at a time.
///
/// # Errors
/// Those of `read`; 503 when too much is being read, or for too long.
pub(crate) async fn in_turn<T: Send + 'static>(
    app: &App,
    caller: Option<&Caller>,
    bytes: Bytes,
    read: impl FnOnce(&[u8]) -> Result<T, Rejection> + Send + 'static,
) -> Result<T, Rejection> {
    match caller {
        Some(caller) if bytes.len() > LONG => {
            app.engine.apart(&caller.namespace, move || read(&bytes)).await?
        }
        _ => read(&bytes),
    }
}

/// Returns the answer `value`, printed straight to bytes.
///
/// # Errors
/// When the value has no JSON form, which is a defect.
pub(crate) fn json<T: Serialize>(status: StatusCode, value: &T) -> Answer {
    json_of(status, value, 256)
}

/// Returns the same for a value whose text has about `size` bytes: room for them is reserved in advance.
pub(crate) fn json_of<T: Serialize>(status: StatusCode, value: &T, size: usize) -> Answer {
    let mut body = Vec::with_capacity(size);
    serde_json::to_writer(&mut body, value).map_err(|error| Rejection::bug(error.to_string()))?;
    let kind = header::HeaderValue::from_static("application/json");
    let mut response = (status, Bytes::from(body)).into_response();
    response.headers_mut().insert(header::CONTENT_TYPE, kind);
    Ok(response)
}

/// Returns the same, with the address of what was made.
pub(crate) fn located(answer: Answer, location: &str) -> Result<Response, Rejection> {
    let mut response = answer?;
    let location = header::HeaderValue::from_str(location)
        .map_err(|error| Rejection::bug(error.to_string()))?;
    response.headers_mut().insert(header::LOCATION, location);
    Ok(response)
}

/// Returns the largest body that the route of a request takes, in bytes.
fn limit_of(request: &Request, limits: &Limits) -> usize {
    let path = request.extensions().get::<MatchedPath>();
    match path {
        Some(path) if LARGE.contains(&path.as_str()) => limits.report_body,
        _ => limits.body,
    }
}

/// Returns the whole body of a request that says that it is JSON, up to the limit of its route.
///
/// # Errors
/// 415 when it does not say so, 408 when it comes too slowly, 413 when it is too large, 503 when too many large ones
/// are on their way.
pub(crate) async fn read(request: Request, app: &App) -> Result<Bytes, Rejection> {
    let path = request.extensions().get::<MatchedPath>().map(MatchedPath::as_str);
    must_be_json(request.headers(), path == Some(EVENTS))?;
    let (announced, limit) = (announced(request.headers()), limit_of(&request, &app.limits));
    let _room = match request.extensions().get::<Caller>() {
        Some(caller) if announced.is_none_or(|size| size > SMALL) => {
            Some(app.room(&caller.namespace, announced.unwrap_or(limit).min(limit))?)
        }
        _ => None,
    };
    in_time(app, collect(request, announced, (limit, "body_too_large"))).await
}

/// Returns the size of a body in bytes, if it is known before the body arrives.
pub(crate) fn size(headers: &HeaderMap) -> Option<usize> {
    match headers.contains_key(header::TRANSFER_ENCODING) {
        true => None,
        false => Some(announced(headers).unwrap_or(0)),
    }
}

/// Checks that a request with JSON says that it is JSON. This also keeps web pages of other origins out of an open
/// server: a browser does not send this type to another origin without asking first.
fn must_be_json(headers: &HeaderMap, or_cloud_events: bool) -> Result<(), Rejection> {
    must_not_be_encoded(headers)?;
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let is = |known: &str| essence(headers).eq_ignore_ascii_case(known);
    if is("application/json") || (or_cloud_events && (is(CLOUD_EVENT) || is(CLOUD_EVENTS))) {
        return Ok(());
    }
    let detail = match kind {
        Some(kind) => format!("Send the header Content-Type: application/json instead of {kind}."),
        None => "Send the header Content-Type: application/json.".to_owned(),
    };
    Err(Rejection::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, "unsupported_media_type", detail))
}

/// Returns the content type without its parameters.
pub(crate) fn essence(headers: &HeaderMap) -> &str {
    let kind = headers.get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    kind.unwrap_or_default().split(';').next().unwrap_or_default().trim()
}

/// Reads and checks a `T`.
///
/// # Errors
/// 400 or 422 with everything that is wrong.
pub(crate) fn parse<T: DeserializeOwned + Check>(bytes: &[u8]) -> Result<T, Rejection> {
    must_be_object(bytes)?;
    // Checked as a whole, so that the reader need not check each string.
    let read = match std::str::from_utf8(bytes) {
        Ok(text) => serde_json::from_str::<T>(text),
        Err(_) => serde_json::from_slice::<T>(bytes),
    };
    let value = read.map_err(|error| explain::<T>(bytes, &error))?;
    let mut findings = Findings::default();
    value.check(&mut findings);
    findings.into_result()?;
    Ok(value)
}

/// Refuses a list where an object is asked for: Serde would read one as an object without names; we
/// do not.
fn must_be_object(bytes: &[u8]) -> Result<(), Rejection> {
    let first = bytes.iter().find(|byte| !b" \t\r\n".contains(byte));
    if first == Some(&b'{') {
        return Ok(());
    }
    serde_json::from_slice::<IgnoredAny>(bytes).map_err(|error| malformed(&error))?;
    let violation = Violation::new("", "wrong_type", "The body must be an object");
    let status = StatusCode::UNPROCESSABLE_ENTITY;
    Err(Rejection::invalid(status, "invalid_request", vec![violation]))
}

fn malformed(error: &serde_json::Error) -> Rejection {
    let (_, message) = misread::explain(error);
    let message = format!(
        "The body is not JSON: {message} (line {}, column {})",
        error.line(),
        error.column()
    );
    let violation = Violation::new("", "malformed_json", message);
    Rejection::invalid(StatusCode::BAD_REQUEST, "malformed_json", vec![violation])
}

fn explain<T: DeserializeOwned>(bytes: &[u8], error: &serde_json::Error) -> Rejection {
    // Serde takes it for a mistake of syntax when one of several forms has a second member.
    let text = match std::str::from_utf8(bytes) {
        Ok(text) if error.classify() == Category::Data => text,
        Ok(text) => match serde_json::from_str::<IgnoredAny>(text) {
            Ok(_) => text,
            Err(error) => return malformed(&error),
        },
        Err(_) => return malformed(error),
    };
    let first = misread::<T>(text, error);
    let (status, code, _) = answer_to(first.rule);
    let others = mistakes::others::<T>(text, &first);
    let told = std::iter::once(first).chain(others);
    let violations = told.map(|Misread { pointer, rule, message }| {
        let (_, _, rule) = answer_to(rule);
        Violation::new(pointer, rule, message)
    });
    Rejection::invalid(status, code, violations.collect())
}

/// Returns the status and the code of an answer, and that of the mistake itself.
fn answer_to(rule: Rule) -> (StatusCode, &'static str, &'static str) {
    match rule {
        Rule::Unknown => (StatusCode::BAD_REQUEST, "unknown_field", "unknown_field"),
        Rule::Twice => (StatusCode::BAD_REQUEST, "duplicate_key", "duplicate_key"),
        Rule::Missing => (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", "missing_field"),
        Rule::Form | Rule::Syntax => {
            (StatusCode::UNPROCESSABLE_ENTITY, "invalid_request", "wrong_type")
        }
    }
}

/// The reason for which well-formed JSON is not of its type.
pub(crate) struct Misread {
    /// JSON Pointer to the place.
    pub(crate) pointer: String,
    pub(crate) rule: Rule,
    pub(crate) message: String,
}

/// Says why the JSON `text` is no `T`, as `error` was met when it was read.
pub(crate) fn misread<T: DeserializeOwned>(text: &str, error: &serde_json::Error) -> Misread {
    let (rule, message) = misread::explain(error);
    let message = match rule {
        // An object that says in which of several forms something comes has another number of members than one.
        Rule::Syntax => "Exactly one member is expected here, or one word".to_owned(),
        _ => message,
    };
    Misread { pointer: place::<T>(text.as_bytes()), rule, message }
}

/// Returns the place where `bytes` are no `T`.
fn place<T: DeserializeOwned>(bytes: &[u8]) -> String {
    let mut reader = serde_json::Deserializer::from_slice(bytes);
    match serde_path_to_error::deserialize::<_, T>(&mut reader) {
        Err(error) => pointer(error.path().iter()),
        Ok(_) => String::new(),
    }
}

/// Returns the path as a JSON Pointer (RFC 6901).
fn pointer<'a>(path: impl Iterator<Item = &'a Segment>) -> String {
    let mut pointer = String::new();
    for segment in path {
        let name = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { variant } => variant.replace('~', "~0").replace('/', "~1"),
            Segment::Unknown => continue,
        };
        pointer.push('/');
        pointer.push_str(&name);
    }
    pointer
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::{CompleteTasks, NewJob, StartRun};

    use super::*;

    fn refused<T: DeserializeOwned + Check>(text: &str) -> (u16, String, Vec<(String, String)>) {
        let Err(rejection) = parse::<T>(text.as_bytes()) else { panic!("accepted: {text}") };
        let (status, code, errors) = rejection.parts();
        let errors = errors.iter().map(|e| (e.pointer.clone(), e.code.clone())).collect();
        (status, code.to_owned(), errors)
    }

    #[track_caller]
    fn check<T: DeserializeOwned + Check>(
        text: &str,
        status: u16,
        code: &str,
        at: &str,
        rule: &str,
    ) {
        let expected = (status, code.to_owned(), vec![(at.to_owned(), rule.to_owned())]);
        assert_eq!(refused::<T>(text), expected, "{text}");
    }

    #[test]
    fn a_body_that_is_not_json_is_malformed() {
        for text in ["", "{", "{\"workflow\": \"a\"} x", "{\"workflow\": \"\u{1}\"}", "nul"] {
            check::<StartRun>(text, 400, "malformed_json", "", "malformed_json");
        }
        let Err(rejection) = parse::<StartRun>(b"{\"workflow\": \"\xff\"}") else { panic!() };
        assert_eq!(rejection.parts().1, "malformed_json");
    }

    #[test]
    fn mistakes_are_named_with_their_place() {
        check::<StartRun>(
            r#"{"workflow":"a","inptu":1}"#,
            400,
            "unknown_field",
            "/inptu",
            "unknown_field",
        );
        check::<StartRun>(
            r#"{"workflow":"a","workflow":"b"}"#,
            400,
            "duplicate_key",
            "",
            "duplicate_key",
        );
        check::<StartRun>(
            r#"{"workflow":"a","labels":{"k":"1","k":"2"}}"#,
            400,
            "duplicate_key",
            "/labels",
            "duplicate_key",
        );
        check::<NewJob>(
            r#"{"verb":"retry","reason":"r","stop_when":{"count":3,"share":0.5}}"#,
            422,
            "invalid_request",
            "/stop_when",
            "wrong_type",
        );
        check::<StartRun>("{}", 422, "invalid_request", "", "missing_field");
        check::<StartRun>("[]", 422, "invalid_request", "", "wrong_type");
        check::<StartRun>(r#"{"workflow":1}"#, 422, "invalid_request", "/workflow", "wrong_type");
        let report = r#"{"run":"0198c0de-0000-7000-8000-000000000000","step":"a","action":"forward","attempt":1,"outcome":"#;
        check::<CompleteTasks>(
            &format!(
                r#"{{"results":[{report}{{"failed":{{"kind":"odd","code":"x","message":""}}}}}}]}}"#
            ),
            422,
            "invalid_request",
            "/results/0/outcome/failed/kind",
            "wrong_type",
        );
        check::<CompleteTasks>(
            &format!(r#"{{"results":[{report}{{"succeeded":{{"output":1,"extra":2}}}}}}]}}"#),
            400,
            "unknown_field",
            "/results/0/outcome/succeeded/extra",
            "unknown_field",
        );
    }

    #[test]
    fn one_mistake_of_form_hides_no_other() {
        let text = r#"{"workflow":"a","inptu":1,"labels":[],"sequence":{"serial_key":7,"on_conflict":"wait"},
            "version":"two"}"#;
        let (status, code, mut errors) = refused::<StartRun>(text);
        assert_eq!((status, code.as_str()), (400, "unknown_field"));
        errors.sort();
        let expected = [
            ("/inptu", "unknown_field"),
            ("/labels", "wrong_type"),
            ("/sequence/on_conflict", "wrong_type"),
            ("/sequence/serial_key", "wrong_type"),
            ("/version", "wrong_type"),
        ];
        let expected = expected.map(|(at, rule)| (at.to_owned(), rule.to_owned()));
        assert_eq!(errors, expected);
        // Members that are missing in what was left out are not reported, nor anything behind them.
        check::<StartRun>(r#"{"workflow":1}"#, 422, "invalid_request", "/workflow", "wrong_type");
    }

    fn request(kind: Option<&str>, body: axum::body::Body) -> Request {
        let mut request = Request::new(body);
        if let Some(kind) = kind {
            request.headers_mut().insert(header::CONTENT_TYPE, kind.parse().unwrap());
        }
        request
    }

    #[test]
    fn json_must_say_that_it_is_json() {
        let ask = |kind| must_be_json(request(kind, axum::body::Body::empty()).headers(), false);
        assert!(ask(Some("application/json")).is_ok());
        assert!(ask(Some("Application/JSON; charset=utf-8")).is_ok());
        for kind in [None, Some("text/plain"), Some("application/jsonx"), Some("")] {
            assert_eq!(ask(kind).unwrap_err().parts().0, 415, "{kind:?}");
        }
    }

    #[test]
    fn a_body_that_is_compressed_is_refused_as_such() {
        let ask = |encoding: &'static str| {
            let mut request = request(Some("application/json"), axum::body::Body::empty());
            request.headers_mut().insert(header::CONTENT_ENCODING, encoding.parse().unwrap());
            must_be_json(request.headers(), false)
        };
        assert!(ask("identity").is_ok() && ask("Identity").is_ok());
        for encoding in ["gzip", "br", "zstd", "gzip, identity", ""] {
            let refused = ask(encoding).unwrap_err();
            let (status, code, _) = refused.parts();
            assert_eq!((status, code), (415, "unsupported_encoding"), "{encoding}");
        }
    }

    #[tokio::test]
    async fn a_body_in_pieces_is_put_together_up_to_the_limit() {
        // A body of unknown length that comes byte by byte.
        struct Pieces(&'static [u8]);

        impl axum::body::HttpBody for Pieces {
            type Data = Bytes;
            type Error = std::convert::Infallible;

            fn poll_frame(
                mut self: std::pin::Pin<&mut Self>,
                _: &mut std::task::Context<'_>,
            ) -> std::task::Poll<Option<Result<hyper::body::Frame<Bytes>, Self::Error>>>
            {
                let frame = self.0.split_off_first().map(|byte| Bytes::copy_from_slice(&[*byte]));
                std::task::Poll::Ready(frame.map(|data| Ok(hyper::body::Frame::data(data))))
            }
        }

        let whole = |limit| {
            let body = axum::body::Body::new(Pieces(b"abcde"));
            collect(request(None, body), None, (limit, "body_too_large"))
        };
        assert_eq!(whole(5).await.unwrap(), "abcde");
        assert_eq!(whole(4).await.unwrap_err().parts().0, 413);
    }

    #[test]
    fn payloads_pass_byte_for_byte() {
        let start: StartRun =
            parse(br#"{"workflow":"a","input": {"b" : 1.0, "a":  1e400} }"#).unwrap();
        assert_eq!(start.input.text(), r#"{"b" : 1.0, "a":  1e400}"#);
    }
}
