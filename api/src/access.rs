//! Who may do what: one table of routes and rights, one of roles and rights. A route that stands in neither is
//! refused, and a test walks the OpenAPI document to find it before that.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::FromRequestParts;
use axum::http::request::Parts;
use axum::http::{HeaderMap, StatusCode, header};
use backstitch_engine::Role;
use backstitch_saga::protocol::CredentialScope;
use backstitch_saga::{By, Time};

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

/// What a route needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Right {
    /// Nothing: it is for everybody.
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
    /// Make, rotate, revoke and list credentials; make and change sources; grant the namespace to roles of the database; erase runs, and say how long
    /// those of a workflow are kept.
    Admin,
}

impl Right {
    /// The word by which people are told of it.
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

/// Every route with the right it needs.
pub(crate) const RULES: &[(&str, &str, Right)] = &[
    ("GET", "/", Right::Public),
    ("GET", "/livez", Right::Public),
    ("GET", "/readyz", Right::Public),
    ("GET", "/metrics", Right::Public),
    ("GET", "/openapi.json", Right::Public),
    ("GET", "/v1/whoami", Right::Read),
    ("GET", "/v1/status", Right::Read),
    ("GET", "/v1/workers", Right::Read),
    ("GET", "/v1/workflows", Right::Read),
    ("GET", "/v1/workflows/{name}", Right::Read),
    ("GET", "/v1/workflows/{name}/versions/{version}", Right::Read),
    ("PUT", "/v1/workflows/{name}/versions/{version}", Right::Register),
    ("POST", "/v1/workflows/validate", Right::Read),
    ("GET", "/v1/keys/{key}", Right::Read),
    ("GET", "/v1/facts/{subject}", Right::Read),
    ("POST", "/v1/facts/{subject}/{fact}/establish", Right::Start),
    ("POST", "/v1/facts/{subject}/{fact}/withdraw", Right::Act),
    ("POST", "/v1/runs/{id}/skip-requirements", Right::Act),
    ("GET", "/v1/workflows/{name}/drain", Right::Read),
    ("GET", "/v1/workflows/{name}/migrations", Right::Read),
    ("POST", "/v1/workflows/{name}/migrations", Right::Act),
    ("GET", "/v1/workflows/{name}/migrations/{id}", Right::Read),
    ("GET", "/v1/workflows/{name}/migrations/{id}/runs", Right::Read),
    ("POST", "/v1/workflows/{name}/migrations/{id}/stop", Right::Act),
    ("GET", "/v1/runs", Right::Read),
    ("POST", "/v1/runs", Right::Start),
    ("POST", "/v1/runs/batch", Right::Start),
    ("GET", "/v1/runs/{id}", Right::Read),
    ("GET", "/v1/runs/{id}/history", Right::Read),
    ("GET", "/v1/runs/{id}/tree", Right::Read),
    ("GET", "/v1/runs/{id}/why", Right::Read),
    ("GET", "/v1/runs/{id}/steps/{step}", Right::Read),
    ("GET", "/v1/runs/{id}/steps/{step}/items", Right::Read),
    ("POST", "/v1/runs/{id}/steps/{step}/mark-compensated", Right::Act),
    ("POST", "/v1/runs/{id}/compensate", Right::Act),
    ("POST", "/v1/runs/{id}/plans", Right::Act),
    ("GET", "/v1/plans", Right::Read),
    ("GET", "/v1/plans/{plan}", Right::Read),
    ("PUT", "/v1/plans/{plan}", Right::Act),
    ("POST", "/v1/plans/{plan}/approve", Right::Act),
    ("POST", "/v1/plans/{plan}/apply", Right::Act),
    ("POST", "/v1/plans/{plan}/withdraw", Right::Act),
    ("GET", "/v1/workflows/{name}/undo-approval", Right::Read),
    ("PUT", "/v1/workflows/{name}/undo-approval", Right::Admin),
    ("POST", "/v1/runs/{id}/cancel", Right::Act),
    ("POST", "/v1/runs/{id}/kill", Right::Act),
    ("POST", "/v1/runs/{id}/erase", Right::Admin),
    ("POST", "/v1/runs/{id}/retry", Right::Act),
    ("POST", "/v1/runs/{id}/pause", Right::Act),
    ("PATCH", "/v1/runs/{id}/labels", Right::Act),
    ("POST", "/v1/runs/{id}/resume", Right::Act),
    ("POST", "/v1/runs/{id}/rerun", Right::Act),
    ("POST", "/v1/runs/{id}/steps/{step}/retry", Right::Act),
    ("POST", "/v1/runs/{id}/steps/{step}/skip", Right::Act),
    ("POST", "/v1/runs/{id}/steps/{step}/resolve", Right::Act),
    ("POST", "/v1/runs/{id}/signals/{signal}", Right::Start),
    ("POST", "/v1/signals", Right::Start),
    ("GET", "/v1/incidents", Right::Read),
    ("GET", "/v1/incidents/groups", Right::Read),
    ("GET", "/v1/incidents/counts", Right::Read),
    ("GET", "/v1/incidents/{incident}", Right::Read),
    ("POST", "/v1/incidents/{incident}/retry", Right::Act),
    ("POST", "/v1/incidents/{incident}/skip", Right::Act),
    ("POST", "/v1/incidents/{incident}/resolve", Right::Act),
    ("POST", "/v1/incidents/{incident}/mark-compensated", Right::Act),
    ("POST", "/v1/incidents/{incident}/compensate", Right::Act),
    ("POST", "/v1/incidents/{incident}/cancel", Right::Act),
    ("POST", "/v1/incidents/{incident}/abandon", Right::Act),
    ("POST", "/v1/incidents/{incident}/assign", Right::Act),
    ("POST", "/v1/incidents/{incident}/note", Right::Act),
    ("GET", "/v1/effects", Right::Read),
    ("GET", "/v1/effects/counts", Right::Read),
    ("GET", "/v1/pauses", Right::Read),
    ("POST", "/v1/workflows/{name}/pause", Right::Act),
    ("GET", "/v1/workflows/{name}/retention", Right::Read),
    ("PUT", "/v1/workflows/{name}/retention", Right::Admin),
    ("POST", "/v1/workflows/{name}/resume", Right::Act),
    ("GET", "/v1/jobs", Right::Read),
    ("POST", "/v1/jobs", Right::Act),
    ("GET", "/v1/jobs/{job}", Right::Read),
    ("GET", "/v1/jobs/{job}/items", Right::Read),
    ("POST", "/v1/jobs/{job}/pause", Right::Act),
    ("POST", "/v1/jobs/{job}/resume", Right::Act),
    ("POST", "/v1/jobs/{job}/stop", Right::Act),
    ("GET", "/v1/acts", Right::Read),
    ("GET", "/v1/start-requests", Right::Read),
    ("GET", "/v1/start-requests/{id}", Right::Read),
    ("POST", "/v1/start-requests/{id}/retry", Right::Act),
    ("POST", "/v1/start-requests/{id}/dismiss", Right::Act),
    ("GET", "/v1/schedules", Right::Read),
    ("GET", "/v1/schedules/{name}", Right::Read),
    ("PUT", "/v1/schedules/{name}", Right::Act),
    ("DELETE", "/v1/schedules/{name}", Right::Act),
    ("POST", "/v1/schedules/{name}/pause", Right::Act),
    ("POST", "/v1/schedules/{name}/resume", Right::Act),
    ("POST", "/v1/schedules/{name}/trigger", Right::Act),
    ("POST", "/v1/schedules/{name}/backfill", Right::Act),
    ("GET", "/v1/schedules/{name}/next", Right::Read),
    ("GET", "/v1/schedules/{name}/starts", Right::Read),
    ("POST", "/v1/tasks/claim", Right::Work),
    ("POST", "/v1/tasks/complete", Right::Work),
    ("POST", "/v1/tasks/heartbeat", Right::Work),
    ("POST", "/v1/tasks/release", Right::Work),
    ("POST", "/v1/workers/sign-off", Right::Work),
    ("GET", "/v1/queues", Right::Read),
    ("GET", "/v1/queues/{name}", Right::Read),
    ("PUT", "/v1/queues/{name}", Right::Act),
    ("DELETE", "/v1/queues/{name}", Right::Act),
    ("POST", "/v1/queues/{name}/pause", Right::Act),
    ("POST", "/v1/queues/{name}/resume", Right::Act),
    ("POST", "/v1/queues/{name}/open", Right::Act),
    ("POST", "/v1/queues/{name}/close", Right::Act),
    ("GET", "/v1/quotas", Right::Read),
    ("PUT", "/v1/quotas", Right::Admin),
    ("DELETE", "/v1/quotas", Right::Admin),
    ("GET", "/v1/contracts", Right::Read),
    ("GET", "/v1/contracts/{subject}", Right::Read),
    ("PUT", "/v1/contracts/{subject}", Right::Act),
    ("POST", "/v1/contracts/{subject}/check", Right::Read),
    ("POST", "/v1/contracts/{subject}/versions", Right::Act),
    ("GET", "/v1/contracts/{subject}/versions/{version}", Right::Read),
    ("PUT", "/v1/contracts/{subject}/versions/{version}/state", Right::Act),
    ("PUT", "/v1/contracts/{subject}/readers/{name}", Right::Act),
    ("DELETE", "/v1/contracts/{subject}/readers/{name}", Right::Act),
    ("GET", "/v1/transforms", Right::Read),
    ("GET", "/v1/transforms/{from}/{from_version}/{to}/{to_version}", Right::Read),
    ("PUT", "/v1/transforms/{from}/{from_version}/{to}/{to_version}", Right::Act),
    ("POST", "/v1/transforms/{from}/{from_version}/{to}/{to_version}/activate", Right::Act),
    ("POST", "/v1/transforms/{from}/{from_version}/{to}/{to_version}/test", Right::Read),
    ("POST", "/v1/transforms/{from}/{from_version}/{to}/{to_version}/what-if", Right::Read),
    ("GET", "/v1/sources", Right::Read),
    ("GET", "/v1/sources/{name}", Right::Read),
    ("PUT", "/v1/sources/{name}", Right::Admin),
    ("DELETE", "/v1/sources/{name}", Right::Admin),
    ("POST", "/v1/sources/{name}/rotate", Right::Admin),
    ("POST", "/v1/in/{namespace}/{source}", Right::Intake),
    ("POST", "/v1/in/{namespace}/{source}/batch", Right::Intake),
    ("POST", "/v1/in/{namespace}/{source}/files", Right::Intake),
    ("GET", "/v1/imports", Right::Read),
    ("GET", "/v1/imports/{id}", Right::Read),
    ("GET", "/v1/imports/{id}/refused", Right::Read),
    ("POST", "/v1/imports/{id}/cancel", Right::Act),
    ("GET", "/v1/hints", Right::Read),
    ("GET", "/v1/reprocesses", Right::Read),
    ("POST", "/v1/reprocesses", Right::Act),
    ("GET", "/v1/reprocesses/{id}", Right::Read),
    ("POST", "/v1/reprocesses/{id}/stop", Right::Act),
    ("GET", "/v1/mapping-problems", Right::Read),
    ("GET", "/v1/links", Right::Read),
    ("GET", "/v1/links/{system}/{external_id}", Right::Read),
    ("PUT", "/v1/links/{system}/{external_id}", Right::Start),
    ("DELETE", "/v1/links/{system}/{external_id}", Right::Act),
    ("GET", "/v1/link-conflicts", Right::Read),
    ("POST", "/v1/link-conflicts/{id}/resolve", Right::Act),
    ("GET", "/v1/intakes", Right::Read),
    ("GET", "/v1/intakes/{id}", Right::Read),
    ("GET", "/v1/intakes/{id}/raw", Right::Read),
    ("POST", "/v1/intakes/{id}/reprocess", Right::Act),
    ("GET", "/v1/events", Right::Read),
    ("POST", "/v1/events", Right::Start),
    ("GET", "/v1/events/{id}", Right::Read),
    ("GET", "/v1/events/{id}/lineage", Right::Read),
    ("GET", "/v1/cursors", Right::Read),
    ("GET", "/v1/cursors/{name}", Right::Read),
    ("PUT", "/v1/cursors/{name}", Right::Start),
    ("DELETE", "/v1/cursors/{name}", Right::Act),
    ("GET", "/v1/subscriptions", Right::Read),
    ("GET", "/v1/subscriptions/{name}", Right::Read),
    ("PUT", "/v1/subscriptions/{name}", Right::Act),
    ("DELETE", "/v1/subscriptions/{name}", Right::Act),
    ("POST", "/v1/subscriptions/{name}/pause", Right::Act),
    ("POST", "/v1/subscriptions/{name}/resume", Right::Act),
    ("POST", "/v1/subscriptions/{name}/reset", Right::Act),
    ("POST", "/v1/subscriptions/{name}/skip", Right::Act),
    ("GET", "/v1/credentials", Right::Admin),
    ("PUT", "/v1/credentials/{name}", Right::Admin),
    ("POST", "/v1/credentials/{name}/rotate", Right::Admin),
    ("DELETE", "/v1/credentials/{name}", Right::Admin),
    ("GET", "/v1/database-roles", Right::Admin),
    ("PUT", "/v1/database-roles/{role}", Right::Admin),
    ("DELETE", "/v1/database-roles/{role}", Right::Admin),
];

/// Whether `role` carries `right`.
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

/// Who asks, and where.
#[derive(Clone, Debug)]
pub(crate) struct Caller {
    /// The name for histories.
    pub(crate) name: Arc<str>,
    /// The namespace that the request sees and changes.
    pub(crate) namespace: Arc<str>,
    /// What the caller may do.
    pub(crate) role: Role,
    /// By what its credential is found again; nobody has one on an open server.
    pub(crate) digest: Option<[u8; 32]>,
    /// What it may touch; everything without it.
    pub(crate) scope: Option<Arc<CredentialScope>>,
    /// When its secret is refused from.
    pub(crate) until: Option<Time>,
}

impl Caller {
    /// Who does something, with the reason given.
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

/// Finds out who asks and whether they may.
///
/// # Errors
/// 401 without a known credential, 403 when its role does not reach, 421 for a foreign name of an open server, 429 when the
/// peer has sent too many unknown credentials.
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

/// On an open server everybody is an admin of the namespace they name.
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

/// The answer to a secret that is not, or no longer, that of a credential.
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

/// The value of a header. Two values are refused: it would not be clear which of them others saw.
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

/// A page of the internet can make its own name point to this machine (DNS rebinding); its requests then name that.
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
