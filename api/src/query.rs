//! Reads query parameters and path parameters of a request's address. Unknown ones are refused.

use std::fmt::Display;
use std::str::FromStr;

use axum::extract::FromRequestParts;
use axum::extract::path::ErrorKind;
use axum::extract::rejection::PathRejection;
use axum::http::StatusCode;
use axum::http::request::Parts;
use backstitch_saga::{Span, Violation, misread};
use serde::de::{DeserializeOwned, IntoDeserializer};
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::check::{MAX_LIST, MAX_WAIT};
use crate::problem::Rejection;

/// The query parameters of a request, read as a `T`.
pub(crate) struct QueryOf<T>(pub(crate) T);

/// The path parameters of a request, read as a `T`.
pub(crate) struct PathOf<T>(pub(crate) T);

/// A set of query parameters.
pub(crate) trait FromQuery: Sized {
    /// Takes what it knows from `pairs`; what is left is refused.
    fn read(pairs: &mut Pairs) -> Self;
}

/// Query parameters not yet read, and what was wrong with those that were.
#[derive(Debug, Default)]
pub(crate) struct Pairs {
    left: Vec<(String, String)>,
    violations: Vec<Violation>,
}

impl<S: Sync, T: FromQuery> FromRequestParts<S> for QueryOf<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        parse(parts.uri.query().unwrap_or_default()).map(QueryOf)
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for PathOf<T> {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, Rejection> {
        if has_control_character(parts.uri.path()) {
            let detail = "The path must not have control characters.";
            return Err(Rejection::new(StatusCode::BAD_REQUEST, "invalid_path", detail));
        }
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(path) => Ok(PathOf(path.0)),
            Err(error) => {
                let detail = unread(&error);
                Err(Rejection::new(StatusCode::BAD_REQUEST, "invalid_path", detail))
            }
        }
    }
}

/// Says which part of a path could not be read.
fn unread(error: &PathRejection) -> String {
    let kind = match error {
        PathRejection::FailedToDeserializePathParams(error) => Some(error.kind()),
        _ => None,
    };
    match kind {
        Some(ErrorKind::DeserializeError { key, value, message }) => {
            let value: String = value.chars().take(100).collect();
            match message.contains("UUID") {
                true => {
                    format!("'{value}' is no `{key}` as this server gives them, which is a UUID.")
                }
                false => format!("'{value}' is no `{key}`: {message}"),
            }
        }
        _ => error.body_text(),
    }
}

/// Returns whether a path has an ASCII control character; it would be percent-encoded.
pub(crate) fn has_control_character(path: &str) -> bool {
    path.as_bytes().windows(3).any(|three| match three {
        [b'%', b'0' | b'1', _] => true,
        [b'%', b'7', last] => last.eq_ignore_ascii_case(&b'f'),
        _ => false,
    })
}

pub(crate) fn parse<T: FromQuery>(query: &str) -> Result<T, Rejection> {
    let mut pairs = Pairs::default();
    for (name, value) in form_urlencoded::parse(query.as_bytes()) {
        if name.chars().chain(value.chars()).any(char::is_control) {
            pairs.refuse(&name.escape_debug().to_string(), "It must not have control characters");
        } else {
            pairs.left.push((name.into_owned(), value.into_owned()));
        }
    }
    let value = T::read(&mut pairs);
    let unknown: Vec<_> = pairs.left.drain(..).map(|(name, _)| name).collect();
    for name in unknown {
        pairs.refuse(&name, "There is no such query parameter here");
    }
    if pairs.violations.is_empty() {
        return Ok(value);
    }
    Err(Rejection::invalid(StatusCode::BAD_REQUEST, "invalid_query", pairs.violations))
}

impl Pairs {
    /// Says that the parameter `name` is wrong. Its pointer is its name with a question mark.
    pub(crate) fn refuse(&mut self, name: &str, message: impl Into<String>) {
        self.violations.push(Violation::new(format!("?{name}"), "invalid_query", message));
    }

    /// Returns all values of the parameter `name`.
    pub(crate) fn all(&mut self, name: &str) -> Vec<String> {
        let (taken, left) =
            std::mem::take(&mut self.left).into_iter().partition(|(n, _)| n == name);
        self.left = left;
        let taken: Vec<(String, String)> = taken;
        taken.into_iter().map(|(_, value)| value).collect()
    }

    /// Returns the parameter `name` as it is written.
    pub(crate) fn text(&mut self, name: &str) -> Option<String> {
        if self.left.is_empty() {
            return None;
        }
        let mut values = self.all(name);
        if values.len() > 1 {
            self.refuse(name, "It must stand here once");
        }
        values.pop()
    }

    /// Returns the parameter `name` by its text form.
    pub(crate) fn parsed<T: FromStr<Err: Display>>(&mut self, name: &str) -> Option<T> {
        match self.text(name)?.parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(name, misread::parsed(&error.to_string()));
                None
            }
        }
    }

    /// Returns the parameter `name` as one of the words of `T`.
    pub(crate) fn word<T: DeserializeOwned>(&mut self, name: &str) -> Option<T> {
        let text = self.text(name)?;
        let word: serde::de::value::StrDeserializer<'_, serde::de::value::Error> =
            text.as_str().into_deserializer();
        match T::deserialize(word) {
            Ok(value) => Some(value),
            Err(error) => {
                self.refuse(name, misread::sentence(&error.to_string()).1);
                None
            }
        }
    }

    /// Returns the parameter `name`, which must be one of `words`.
    pub(crate) fn one_of(&mut self, name: &str, words: &[&str]) -> Option<String> {
        let text = self.text(name)?;
        if words.contains(&text.as_str()) {
            return Some(text);
        }
        self.refuse(name, format!("there is no '{text}'; it must be one of {}", words.join(", ")));
        None
    }

    /// Reads `limit`: 1 to 1,000, 100 without it.
    pub(crate) fn limit(&mut self) -> u32 {
        let limit = self.parsed("limit").unwrap_or(100_u32);
        if !(1..=MAX_LIST).contains(&(limit as usize)) {
            self.refuse("limit", format!("It must be 1 to {MAX_LIST}"));
        }
        limit
    }

    /// Reads `wait`: at most 30 s.
    pub(crate) fn wait(&mut self) -> Option<Span> {
        let wait = self.parsed::<Span>("wait")?;
        if wait > MAX_WAIT {
            self.refuse("wait", format!("It must be at most {MAX_WAIT}"));
        }
        Some(wait)
    }
}

/// Returns the schema of a parameter that must be one of `words`, and says `what` is asked for.
pub(crate) fn words(what: &str, words: &'static [&'static str]) -> Object {
    let object = ObjectBuilder::new().schema_type(Type::String).description(Some(what));
    object.enum_values(Some(words.iter().copied())).build()
}

/// No query parameters at all.
pub(crate) struct NoQuery;

impl FromQuery for NoQuery {
    fn read(_: &mut Pairs) -> Self {
        NoQuery
    }
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::State;

    use super::*;

    struct Sample {
        state: Option<State>,
        wait: Option<Span>,
        limit: u32,
        label: Vec<String>,
    }

    impl FromQuery for Sample {
        fn read(pairs: &mut Pairs) -> Self {
            Sample {
                state: pairs.word("state"),
                wait: pairs.wait(),
                limit: pairs.limit(),
                label: pairs.all("label"),
            }
        }
    }

    #[test]
    fn parameters_are_read() {
        let sample: Sample = parse("state=compensation_blocked").unwrap();
        assert_eq!(sample.state, Some(State::CompensationBlocked));
        let sample: Sample = parse("label=a%3Ab&wait=2s+500ms&label=c:d&limit=1000").unwrap();
        assert_eq!(sample.wait, Some(Span::millis(2_500)));
        assert_eq!((sample.limit, sample.label), (1_000, vec!["a:b".to_owned(), "c:d".to_owned()]));
        let sample: Sample = parse("").unwrap();
        assert_eq!((sample.state, sample.wait, sample.limit), (None, None, 100));
    }

    #[test]
    fn all_that_is_wrong_is_said() {
        let Err(rejection) =
            parse::<Sample>("state=odd&wait=31s&limit=0&limti=1&wait=1s&label=%00&limit=7")
        else {
            panic!("accepted")
        };
        let (status, code, errors) = rejection.parts();
        let mut places: Vec<_> = errors.iter().map(|e| e.pointer.as_str()).collect();
        places.sort_unstable();
        assert_eq!((status, code), (400, "invalid_query"));
        assert_eq!(places, ["?label", "?limit", "?limti", "?state", "?wait"]);
    }

    #[tokio::test]
    async fn paths_are_read_and_an_item_has_its_slash_encoded() {
        use axum::body::{Body, to_bytes};
        use backstitch_saga::{RunId, StepPath};
        use tower::ServiceExt;

        let handler = |PathOf((id, step)): PathOf<(RunId, StepPath)>| async move {
            format!("{id} {} {:?}", step.step, step.item)
        };
        let router = axum::Router::new().route("/{id}/steps/{step}", axum::routing::get(handler));
        let ask = async |id: &str, step: &str| {
            let request = axum::http::Request::get(format!("/{id}/steps/{step}"));
            let response = router.clone().oneshot(request.body(Body::empty()).unwrap()).await;
            let response = response.unwrap();
            let status = response.status().as_u16();
            let body = to_bytes(response.into_body(), 10_000).await.unwrap();
            (status, String::from_utf8(body.to_vec()).unwrap())
        };
        let id = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";
        assert_eq!(ask(id, "payment").await, (200, format!("{id} payment None")));
        assert_eq!(ask(id, "stock%2F3").await, (200, format!("{id} stock Some(3)")));
        for (id, step) in [("17", "payment"), (id, "stock%2Fx"), (id, "a%00"), (id, "%ff")] {
            let (status, body) = ask(id, step).await;
            assert_eq!(status, 400, "{id} {step}");
            assert!(body.contains("\"code\":\"invalid_path\""), "{body}");
        }
    }

    #[test]
    fn control_characters_in_paths_are_found() {
        for path in ["/v1/workflows/a%00", "/v1/%1f", "/%7F"] {
            assert!(has_control_character(path), "{path}");
        }
        for path in ["/v1/runs", "/stock%2F3", "/a%20b%C3%A4", "/%7e", "/%"] {
            assert!(!has_control_character(path), "{path}");
        }
    }
}
