//! Rights: one table of routes and rights, one of roles and rights. A route that is in neither is refused; a
//! test walks the OpenAPI document to find it before that.

mod rules;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use backstitch_engine::Role;
use backstitch_saga::protocol::CredentialScope;
use backstitch_saga::{By, Time};

pub(crate) use rules::RULES;

use crate::app::{Access, App};
use crate::check::{MAX_NAME, is_slug};
use crate::logins::Peer;
use crate::problem::Rejection;

/// The namespace of an open server's callers who name none.
pub(crate) const DEFAULT_NAMESPACE: &str = "default";
/// The header that names the namespace.
pub(crate) const NAMESPACE: &str = "backstitch-namespace";
/// The header that names the caller of an open server.
pub(crate) const ACTOR: &str = "backstitch-actor";

/// The right that a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// None: open to everyone.
    Public,
    /// See everything of the namespace.
    Read,
    /// Start runs, append events, and say to which entity an id of another system belongs.
    Start,
    /// Compensate, cancel, kill, retry; make, change and delete schedules.
    Act,
    /// Claim, complete, heartbeat, release, sign off.
    Work,
    /// Register workflows.
    Register,
    /// Send documents through the door of a source, which verifies who sends: no credential is asked for.
    Intake,
    /// Create, rotate, revoke and list credentials; create and change sources; grant the namespace to roles of the
    /// database; erase runs and data, and set the retention of a workflow's runs.
    Admin,
}

impl Right {
    /// Returns its name for people.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Right::Public => "public",
            Right::Read => "read",
            Right::Start => "start",
            Right::Act => "act",
            Right::Work => "work",
            Right::Register => "register",
            Right::Intake => "intake",
            Right::Admin => "admin",
        }
    }
}

/// Returns whether `role` has `right`.
pub(crate) fn allows(role: Role, right: Right) -> bool {
    use Right::{Act, Public, Read, Register, Start, Work};
    match role {
        Role::Admin => true,
        Role::Operator => matches!(right, Public | Read | Start | Act),
        Role::Starter => matches!(right, Public | Read | Start),
        Role::Worker => matches!(right, Public | Read | Work | Register),
        Role::Viewer => matches!(right, Public | Read),
    }
}

/// The caller of a request, and its namespace.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The name for histories.
    pub(crate) name: Arc<str>,
    /// The namespace that the request sees and changes.
    pub(crate) namespace: Arc<str>,
    /// The caller's role.
    pub(crate) role: Role,
    /// The key by which its credential is found again; none on an open server.
    pub(crate) digest: Option<[u8; 32]>,
    /// Resources that the caller may use; all without it.
    pub(crate) scope: Option<Arc<CredentialScope>>,
    /// Time from which its secret is refused.
    pub(crate) until: Option<Time>,
}

impl Caller {
    /// Returns actor and reason of an act.
    pub(crate) fn by(&self, reason: String) -> By {
        By { actor: self.name.clone(), reason }
    }
}

impl<S: Sync> FromRequestParts<S> for Caller {
    type Rejection = Rejection;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, Rejection> {
        let caller = parts.extensions.get::<Caller>().cloned();
        caller.ok_or_else(|| Rejection::bug(format!("{} lets everybody in", parts.uri.path())))
    }
}

/// Determines the caller and checks the right.
///
/// # Errors
/// 401 without a known credential, 403 when its role does not reach, 421 for a foreign name of an open server, 429 when
/// the peer has sent too many unknown credentials.
pub(crate) async fn admit(
    app: &App,
    headers: &HeaderMap,
    right: Right,
    (peer, now): (Option<Peer>, Instant),
) -> Result<Caller, Rejection> {
    if app.access == Access::Open {
        return admit_openly(headers);
    }
    let Some(secret) = header(headers, header::AUTHORIZATION.as_str())?.and_then(bearer) else {
        let detail = "Send the header Authorization: Bearer SECRET. An admin makes secrets with \
            PUT /v1/credentials/{name}, the first one is made by `backstitch key create`.";
        return Err(Rejection::new(StatusCode::UNAUTHORIZED, "credential_missing", detail)
            .with_header(header::WWW_AUTHENTICATE, "Bearer realm=\"backstitch\""));
    };
    if peer.is_some_and(|peer| !app.logins.may_try(peer, secret, now)) {
        let detail = "Too many unknown credentials came from this address; this one was not looked up. \
            Credentials that were good lately are let in.";
        let wait = Duration::from_secs(1);
        return Err(Rejection::too_many("too_many_failed_logins", detail, wait));
    }
    let Some(credential) = app.engine.credential(secret).await? else {
        app.logins.failed(peer, secret, now);
        return Err(unknown_credential());
    };
    app.logins.succeeded(secret, now);
    if !allows(credential.role, right) {
        let detail = format!(
            "The credential '{}' has the role '{}', which does not allow this; it needs the right '{}'.",
            credential.name,
            credential.role.as_str(),
            right.word()
        );
        return Err(Rejection::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    if let Some(wanted) = header(headers, NAMESPACE)?
        && wanted != credential.namespace
    {
        let detail = "The credential belongs to another namespace than the request names.";
        return Err(Rejection::new(StatusCode::FORBIDDEN, "forbidden", detail));
    }
    Ok(Caller {
        name: credential.name.into(),
        namespace: credential.namespace.into(),
        role: credential.role,
        digest: Some(credential.digest),
        scope: credential.scope,
        until: credential.until,
    })
}

/// Admits everyone on an open server as an admin of the namespace that they name.
fn admit_openly(headers: &HeaderMap) -> Result<Caller, Rejection> {
    must_name_loopback(headers)?;
    let namespace = header(headers, NAMESPACE)?.unwrap_or(DEFAULT_NAMESPACE);
    if !is_slug(namespace) {
        return Err(bad_header(NAMESPACE, "[a-z0-9][a-z0-9._-]*, at most 100 characters"));
    }
    let name = header(headers, ACTOR)?.unwrap_or("anonymous");
    if name.is_empty() || name.len() > MAX_NAME {
        return Err(bad_header(ACTOR, "1 to 200 bytes"));
    }
    let (name, namespace) = (name.into(), namespace.into());
    Ok(Caller { name, namespace, role: Role::Admin, digest: None, scope: None, until: None })
}

/// Returns the answer to a secret that is not, or no longer, that of a credential.
pub(crate) fn unknown_credential() -> Rejection {
    let detail = "No credential has this secret, or it was revoked, or its time is over.";
    Rejection::new(StatusCode::UNAUTHORIZED, "credential_unknown", detail).with_header(
        header::WWW_AUTHENTICATE,
        "Bearer realm=\"backstitch\", error=\"invalid_token\"",
    )
}

fn bearer(value: &str) -> Option<&str> {
    let (scheme, secret) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| secret.trim())
}

/// Returns the value of a header. Two values are refused: it would not be clear which of them others saw.
fn header<'a>(headers: &'a HeaderMap, name: &str) -> Result<Option<&'a str>, Rejection> {
    let mut values = headers.get_all(name).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(bad_header(name, "there once"));
    }
    value.to_str().map(Some).map_err(|_| bad_header(name, "visible ASCII characters"))
}

fn bad_header(name: &str, rule: &str) -> Rejection {
    let detail = format!("The header {name} must be {rule}.");
    Rejection::new(StatusCode::BAD_REQUEST, "invalid_request", detail)
}

/// Refuses requests that do not name the loopback interface: a page of the internet can make its own name point to
/// this machine (DNS rebinding), and its requests then name that.
pub(crate) fn must_name_loopback(headers: &HeaderMap) -> Result<(), Rejection> {
    let host = headers.get(header::HOST).and_then(|host| host.to_str().ok()).unwrap_or("localhost");
    if is_loopback_name(host) {
        return Ok(());
    }
    let detail = "The server is open, and so answers only when it is addressed as localhost or by a \
        loopback address. Start it with credentials to use another name.";
    Err(Rejection::new(StatusCode::MISDIRECTED_REQUEST, "host_not_loopback", detail))
}

fn is_loopback_name(host: &str) -> bool {
    let (name, rest) = match host.strip_prefix('[') {
        Some(address) => address.split_once(']').unwrap_or_default(),
        None => host.split_at(host.find(':').unwrap_or(host.len())),
    };
    let port = rest.is_empty()
        || rest
            .strip_prefix(':')
            .is_some_and(|port| port.bytes().all(|byte| byte.is_ascii_digit()));
    port && (name.eq_ignore_ascii_case("localhost")
        || name.parse::<IpAddr>().is_ok_and(|address| address.is_loopback()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_reach_as_far_as_they_should() {
        use Right::{Act, Admin, Public, Read, Register, Start, Work};
        let table = [
            (Role::Admin, vec![Public, Read, Start, Act, Work, Register, Admin]),
            (Role::Operator, vec![Public, Read, Start, Act]),
            (Role::Starter, vec![Public, Read, Start]),
            (Role::Worker, vec![Public, Read, Work, Register]),
            (Role::Viewer, vec![Public, Read]),
        ];
        for (role, rights) in table {
            for right in [Public, Read, Start, Act, Work, Register, Admin] {
                assert_eq!(allows(role, right), rights.contains(&right), "{role:?} {right:?}");
            }
        }
    }

    #[test]
    fn loopback_names() {
        for name in ["localhost", "LOCALHOST:7420", "127.0.0.1:7420", "127.8.8.8", "[::1]:80"] {
            assert!(is_loopback_name(name), "{name}");
        }
        for name in
            ["example.com", "localhost.example.com", "10.0.0.1:80", "[::2]", "", "127.0.0.1.nip.io"]
                .into_iter()
                .chain([
                    "[::1]evil.com",
                    "[::1",
                    "localhost:80@evil.com",
                    "localhost:x",
                    "[localhost",
                ])
        {
            assert!(!is_loopback_name(name), "{name}");
        }
    }

    #[test]
    fn the_bearer_scheme_is_read_in_any_case() {
        assert_eq!(bearer("Bearer bsk_1"), Some("bsk_1"));
        assert_eq!(bearer("bearer  bsk_1"), Some("bsk_1"));
        assert_eq!(bearer("Basic bsk_1"), None);
        assert_eq!(bearer("bsk_1"), None);
    }

    #[test]
    fn a_header_that_says_who_asks_may_stand_there_once() {
        for name in [header::AUTHORIZATION.as_str(), NAMESPACE, ACTOR] {
            let mut headers = HeaderMap::new();
            let name = header::HeaderName::from_static(match name {
                NAMESPACE => NAMESPACE,
                ACTOR => ACTOR,
                _ => "authorization",
            });
            headers.append(name.clone(), header::HeaderValue::from_static("one"));
            assert_eq!(super::header(&headers, name.as_str()).unwrap(), Some("one"));
            headers.append(name.clone(), header::HeaderValue::from_static("two"));
            let refused = super::header(&headers, name.as_str()).unwrap_err();
            assert_eq!(refused.parts().0, 400, "{name}");
        }
    }

    #[test]
    fn an_open_server_takes_names_from_headers() {
        let ask = |pairs: &[(&'static str, &'static str)]| {
            let mut headers = HeaderMap::new();
            for (name, value) in pairs {
                headers.insert(*name, header::HeaderValue::from_static(value));
            }
            admit_openly(&headers).map(|c| (c.namespace.to_string(), c.name.to_string()))
        };
        assert_eq!(ask(&[]).unwrap(), ("default".to_owned(), "anonymous".to_owned()));
        let named = ask(&[(NAMESPACE, "blue"), (ACTOR, "Ann"), ("host", "localhost:1")]).unwrap();
        assert_eq!(named, ("blue".to_owned(), "Ann".to_owned()));
        assert_eq!(ask(&[(NAMESPACE, "Blue!")]).unwrap_err().parts().0, 400);
        assert_eq!(ask(&[(ACTOR, "")]).unwrap_err().parts().0, 400);
        assert_eq!(ask(&[("host", "evil.example")]).unwrap_err().parts().0, 421);
    }
}
