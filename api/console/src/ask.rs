//! The viewer of a page, and requests to the API in the viewer's name.

use std::convert::Infallible;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Body, Bytes, to_bytes};
use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{Extensions, HeaderMap, HeaderValue, Method, Request, StatusCode, header};
use backstitch_saga::protocol::{Role, WhoAmI};
use serde::Deserialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use tower::ServiceExt;
use uuid::Uuid;

use crate::{Console, live};

/// The cookie with the secret of a session. The API never sees it: its path is that of the console.
pub const COOKIE: &str = "backstitch_console";
/// The cookie with the viewed namespace of an open server.
pub(crate) const NAMESPACE: &str = "backstitch_namespace";
/// The largest answer of the API that a page is made of.
const LARGEST: usize = 32 * 1024 * 1024;

/// The largest form.
const LARGEST_FORM: usize = 1024 * 1024;
/// Time that a form may take to arrive.
const FORM_TIMEOUT: Duration = Duration::from_secs(30);

/// Copies what requests to the API take over from the one for a page, such as the address of the peer.
pub type Carry = fn(&Extensions, &mut Extensions);

/// Returns a text that cannot be guessed.
pub(crate) fn random() -> String {
    format!("{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// A request for a page.
pub(crate) struct Ask {
    pub(crate) console: Arc<Console>,
    /// The secret of the session.
    secret: Option<String>,
    host: Option<HeaderValue>,
    namespace: Option<String>,
    carried: Extensions,
    headers: HeaderMap,
    /// The path with the query, as it was asked for.
    pub(crate) place: String,
    /// The query, in order.
    pub(crate) query: Vec<(String, String)>,
}

impl FromRequestParts<Arc<Console>> for Ask {
    type Rejection = Infallible;

    async fn from_request_parts(
        parts: &mut Parts,
        console: &Arc<Console>,
    ) -> Result<Ask, Infallible> {
        let mut carried = Extensions::new();
        (console.carry)(&parts.extensions, &mut carried);
        let query = parts.uri.query().unwrap_or_default().as_bytes();
        let query = form_urlencoded::parse(query).into_owned().collect();
        Ok(Ask {
            console: Arc::clone(console),
            secret: session_of(&parts.headers),
            host: parts.headers.get(header::HOST).cloned(),
            namespace: cookie(&parts.headers, NAMESPACE),
            carried,
            headers: parts.headers.clone(),
            place: parts.uri.path_and_query().map_or("/console", |it| it.as_str()).to_owned(),
            query,
        })
    }
}

/// Returns the secret of the session that a request belongs to.
#[must_use]
pub fn session_of(headers: &HeaderMap) -> Option<String> {
    cookie(headers, COOKIE).filter(|secret| !secret.is_empty())
}

/// Returns the token that the forms of a session carry: who knows it has seen a page of that session.
#[must_use]
pub fn form_token(secret: &str) -> String {
    let digest = Sha256::digest(format!("backstitch form {secret}"));
    digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect()
}

/// Returns the body of a form, unless it is too large or too slow.
pub async fn form_body(body: Body) -> Option<Bytes> {
    let read = to_bytes(body, LARGEST_FORM);
    tokio::time::timeout(FORM_TIMEOUT, read).await.ok()?.ok()
}

/// Returns the value of a cookie.
fn cookie(headers: &HeaderMap, name: &str) -> Option<String> {
    let all = headers.get_all(header::COOKIE).iter().filter_map(|value| value.to_str().ok());
    let mut pairs = all.flat_map(|value| value.split(';')).filter_map(|pair| pair.split_once('='));
    pairs.find(|(known, _)| known.trim() == name).map(|(_, value)| value.trim().to_owned())
}

/// Returns whether a request that acts was sent by a page of this server. Browsers send the origin of a form; a client
/// that sends none is no browser.
#[must_use]
pub fn is_of_this_site(headers: &HeaderMap) -> bool {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if text("sec-fetch-site").is_some_and(|site| site != "same-origin") {
        return false;
    }
    let Some(origin) = text("origin") else { return true };
    let named = origin.split_once("://").map(|(_, host)| host);
    named.is_some() && named == text("host")
}

/// The viewer of a page.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) name: String,
    pub(crate) namespace: String,
    pub(crate) role: Role,
    /// There is no sign-in.
    pub(crate) open: bool,
}

impl Who {
    pub(crate) fn role_word(&self) -> &'static str {
        match self.role {
            Role::Admin => "admin",
            Role::Operator => "operator",
            Role::Starter => "starter",
            Role::Worker => "worker",
            Role::Viewer => "viewer",
        }
    }

    /// Returns whether the caller may compensate, cancel, retry and the like.
    pub(crate) fn may_act(&self) -> bool {
        matches!(self.role, Role::Admin | Role::Operator)
    }

    /// Returns whether the caller rules the namespace.
    pub(crate) fn is_admin(&self) -> bool {
        matches!(self.role, Role::Admin)
    }

    /// Returns whether the caller may start runs and send signals.
    pub(crate) fn may_start(&self) -> bool {
        matches!(self.role, Role::Admin | Role::Operator | Role::Starter)
    }
}

/// The reason for which the API did not return the data of a page.
#[derive(Clone, Debug, Deserialize)]
#[serde(default)]
pub(crate) struct Problem {
    pub(crate) status: u16,
    pub(crate) code: String,
    pub(crate) title: String,
    pub(crate) detail: String,
    pub(crate) errors: Vec<Wrong>,
    /// The oldest event that can be read, if that is the problem.
    pub(crate) oldest_position: Option<u64>,
}

impl Default for Problem {
    fn default() -> Self {
        Problem::new(500, "bug", "The server made a mistake", "The answer could not be read.")
    }
}

/// One thing that is wrong with what was sent.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub(crate) struct Wrong {
    pub(crate) pointer: String,
    pub(crate) code: String,
    pub(crate) message: String,
}

impl Problem {
    pub(crate) fn new(status: u16, code: &str, title: &str, detail: &str) -> Problem {
        Problem {
            status,
            code: code.to_owned(),
            title: title.to_owned(),
            detail: detail.to_owned(),
            errors: Vec::new(),
            oldest_position: None,
        }
    }

    fn read(status: StatusCode, body: &[u8]) -> Problem {
        serde_json::from_slice(body).unwrap_or_else(|_| {
            let title = status.canonical_reason().unwrap_or("It did not work");
            Problem::new(status.as_u16(), "unknown", title, "The server gave no reason.")
        })
    }
}

/// An answer of the API.
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

impl Answer {
    /// Returns the body as JSON of a known shape; the problem if it was none of success.
    pub(crate) fn read<T: DeserializeOwned>(&self) -> Result<T, Problem> {
        if !self.status.is_success() {
            return Err(Problem::read(self.status, &self.body));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            let detail = format!("An answer of the API cannot be read: {error}.");
            Problem { detail, ..Problem::default() }
        })
    }
}

impl Ask {
    /// Returns one value of the query; nothing when it is empty.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        let found = self.query.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_str()).filter(|value| !value.is_empty())
    }

    /// Returns the token that forms of this session carry.
    pub(crate) fn form_token(&self) -> String {
        let secret = self.secret.as_deref().or(self.console.open_secret.as_deref());
        form_token(secret.unwrap_or_default())
    }

    /// Returns whether a form with this token was made for this session, and sent by a page of the
    /// console.
    pub(crate) fn is_ours(&self, token: &str) -> bool {
        let signed_in = self.secret.is_some() || self.console.open_secret.is_some();
        let wanted = self.form_token();
        let same = wanted.len() == token.len()
            && wanted.bytes().zip(token.bytes()).fold(0, |diff, (a, b)| diff | (a ^ b)) == 0;
        signed_in && same && is_of_this_site(&self.headers)
    }

    /// Returns whether a script of a page asks, which shows the answer in its place.
    pub(crate) fn is_script(&self) -> bool {
        self.headers.contains_key("hx-request")
    }

    /// Returns whether the request came by a link of another site and so without a cookie that may
    /// exist.
    pub(crate) fn comes_from_elsewhere(&self) -> bool {
        let site = self.headers.get("sec-fetch-site").and_then(|site| site.to_str().ok());
        self.secret.is_none() && site == Some("cross-site")
    }

    /// Asks the API.
    pub(crate) async fn call(
        &self,
        method: Method,
        path: &str,
        body: Option<String>,
        key: Option<&str>,
    ) -> Answer {
        let mut request = Request::builder().method(method).uri(path);
        if body.is_some() {
            request = request.header(header::CONTENT_TYPE, "application/json");
        }
        if let Some(host) = &self.host {
            request = request.header(header::HOST, host);
        }
        if let Some(key) = key {
            request = request.header("idempotency-key", key);
        }
        match (&self.secret, &self.console.open_secret, &self.namespace) {
            (_, Some(_), namespace) => {
                request = request.header("backstitch-actor", "console");
                if let Some(namespace) = namespace {
                    request = request.header("backstitch-namespace", namespace);
                }
            }
            (Some(secret), None, _) => {
                request = request.header(header::AUTHORIZATION, format!("Bearer {secret}"));
            }
            (None, None, _) => {}
        }
        let body = body.map_or_else(Body::empty, Body::from);
        let Ok(mut request) = request.body(body) else {
            // A path that is none: what was asked for cannot be there.
            return Answer { status: StatusCode::NOT_FOUND, body: Bytes::new() };
        };
        *request.extensions_mut() = self.carried.clone();
        let Ok(response) = self.console.api.clone().oneshot(request).await;
        let status = response.status();
        match to_bytes(response.into_body(), LARGEST).await {
            Ok(body) => Answer { status, body },
            Err(_) => Answer { status: StatusCode::INTERNAL_SERVER_ERROR, body: Bytes::new() },
        }
    }

    /// Reads something of the API.
    pub(crate) async fn get<T: DeserializeOwned>(&self, path: &str) -> Result<T, Problem> {
        self.call(Method::GET, path, None, None).await.read()
    }

    /// Reads data that a page shows live, with the mark by which changes are noticed.
    pub(crate) async fn get_live<T: DeserializeOwned>(
        &self,
        path: &str,
    ) -> Result<(T, u64), Problem> {
        let answer = self.call(Method::GET, path, None, None).await;
        Ok((answer.read()?, live::mark(&answer.body)))
    }

    /// Asks something of the API that is asked with a document, such as a dry run.
    pub(crate) async fn post<T: DeserializeOwned>(
        &self,
        path: &str,
        body: String,
    ) -> Result<T, Problem> {
        self.call(Method::POST, path, Some(body), None).await.read()
    }

    /// Returns the viewer of the page.
    pub(crate) async fn who(&self) -> Result<Who, Problem> {
        let WhoAmI { name, namespace, role, open, .. } = self.get("/v1/whoami").await?;
        Ok(Who { name, namespace, role, open })
    }
}

/// Returns a text as a part of a path or query.
pub(crate) fn encoded(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&'static str, &'static str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            headers.append(*name, HeaderValue::from_static(value));
        }
        headers
    }

    #[test]
    fn a_cookie_is_found_among_others() {
        let found = headers(&[("cookie", "a=1; backstitch_console=bss_1"), ("cookie", "b=2")]);
        assert_eq!(cookie(&found, COOKIE).as_deref(), Some("bss_1"));
        assert_eq!(cookie(&found, "b").as_deref(), Some("2"));
        assert_eq!(cookie(&found, "console"), None);
    }

    #[test]
    fn a_form_of_another_site_is_not_ours() {
        let host = ("host", "ops.example:7420");
        for (given, ours) in [
            (vec![host], true),
            (vec![host, ("origin", "https://ops.example:7420")], true),
            (vec![host, ("origin", "https://evil.example")], false),
            (vec![host, ("origin", "null")], false),
            (vec![host, ("sec-fetch-site", "cross-site")], false),
            (vec![host, ("sec-fetch-site", "same-site")], false),
            (vec![host, ("sec-fetch-site", "same-origin")], true),
        ] {
            assert_eq!(is_of_this_site(&headers(&given)), ours, "{given:?}");
        }
    }

    #[test]
    fn what_has_a_meaning_in_an_address_is_encoded() {
        assert_eq!(encoded("stock/3"), "stock%2F3");
        assert_eq!(encoded("a b&c=ü"), "a%20b%26c%3D%C3%BC");
    }
}
