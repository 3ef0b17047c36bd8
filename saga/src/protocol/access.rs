//! Credentials and roles.

use serde::{Deserialize, Serialize};

use crate::{Span, Timestamp};

/// Rights of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum Role {
    /// Everything, including credentials.
    Admin,
    /// Starts runs and acts on them, and reads.
    Operator,
    /// Starts runs and reads.
    Starter,
    /// Claims and completes tasks, registers workflows, and reads.
    Worker,
    /// Reads.
    Viewer,
}

/// Resources that a credential may use, by patterns in which `*` stands for any text. A kind that is not named
/// is not bounded.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CredentialScope {
    /// The queues: it claims from these alone, and acts on these alone. All without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    /// The workflows: it starts, registers and acts on these and their runs alone. All without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflows: Option<Vec<String>>,
}

impl CredentialScope {
    /// Returns whether it bounds anything.
    #[must_use]
    pub fn is_bounded(&self) -> bool {
        self.queues.is_some() || self.workflows.is_some()
    }

    /// Returns whether it includes the queue.
    #[must_use]
    pub fn has_queue(&self, queue: &str) -> bool {
        self.queues.as_ref().is_none_or(|all| all.iter().any(|pattern| fits(pattern, queue)))
    }

    /// Returns whether it includes the workflow.
    #[must_use]
    pub fn has_workflow(&self, workflow: &str) -> bool {
        self.workflows.as_ref().is_none_or(|all| all.iter().any(|pattern| fits(pattern, workflow)))
    }
}

/// Returns whether `text` matches a pattern in which `*` stands for any text. Takes a time of both lengths
/// multiplied at most.
fn fits(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.as_bytes(), text.as_bytes());
    let (mut at, mut seen) = (0, 0);
    // The last star, and up to where it stands for the text.
    let mut star: Option<(usize, usize)> = None;
    while seen < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, seen));
                at += 1;
            }
            Some(byte) if *byte == text[seen] => {
                at += 1;
                seen += 1;
            }
            _ => {
                let Some((place, upto)) = star else { return false };
                star = Some((place, upto + 1));
                (at, seen) = (place + 1, upto + 1);
            }
        }
    }
    pattern[at..].iter().all(|byte| *byte == b'*')
}

/// `PUT /v1/credentials/{name}`: make a credential in the caller's namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewCredential {
    /// Its role.
    pub role: Role,
    /// Time for which it is valid; no limit without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<Span>,
    /// Patterns of the queues that it may touch; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    /// Patterns of the workflows that it may touch; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflows: Option<Vec<String>>,
}

/// `POST /v1/credentials/{name}/rotate`: give a credential another secret.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotateCredential {
    /// Time for which the previous secret is also valid; at most 30 days. `0s` ends it immediately.
    pub overlap: Span,
    /// Time for which the credential is valid from now on; unchanged without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_in: Option<Span>,
}

/// The answer to [`NewCredential`] and [`RotateCredential`]: the only time that the secret is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CredentialSecret {
    /// Its name, which histories record.
    pub name: String,
    /// Its namespace.
    pub namespace: String,
    /// Its role.
    pub role: Role,
    /// To be sent as `Authorization: Bearer SECRET`. Not stored and never shown again.
    pub secret: String,
    /// Time from which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Time until which the previous secret is also valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
    /// Patterns of the queues that it may touch; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    /// Patterns of the workflows that it may touch; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflows: Option<Vec<String>>,
}

/// Validity of a credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum CredentialState {
    /// It is valid.
    Active,
    /// It has expired.
    Expired,
    /// It was revoked.
    Revoked,
}

/// A credential without its secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CredentialView {
    /// Its name, which histories record. It is never given to another.
    pub name: String,
    /// Its role.
    pub role: Role,
    /// Its validity.
    pub state: CredentialState,
    /// Time of its creation.
    pub created_at: Timestamp,
    /// Its creator.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// Time from which it is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Time at which it got its present secret, if it had another before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rotated_at: Option<Timestamp>,
    /// Time until which the previous secret is also valid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub previous_until: Option<Timestamp>,
    /// Time of its last use, to about a minute.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub used_at: Option<Timestamp>,
    /// Time of its revocation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_at: Option<Timestamp>,
    /// The person who revoked it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revoked_by: Option<String>,
    /// Patterns of the queues that it may touch; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    /// Patterns of the workflows that it may touch; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflows: Option<Vec<String>>,
}

/// A role of the database that may start runs and complete tasks of the namespace in SQL.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct DatabaseRoleView {
    /// Its name in PostgreSQL.
    pub role: String,
    /// Time of the grant.
    pub granted_at: Timestamp,
    /// The person who granted it.
    pub granted_by: String,
}

/// `GET /v1/whoami`: whom the server takes the caller for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// The name that histories record.
    pub name: String,
    /// The namespace that all requests see and change.
    pub namespace: String,
    /// The caller's role.
    pub role: Role,
    /// `true` if the server is open: it requires no credentials.
    pub open: bool,
    /// Time from which the caller's secret is refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub expires_at: Option<Timestamp>,
    /// Patterns of the queues that the caller may touch; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queues: Option<Vec<String>>,
    /// Patterns of the workflows that the caller may touch; all without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub workflows: Option<Vec<String>>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_in_a_pattern_stands_for_any_text() {
        for (pattern, text) in [
            ("billing-*", "billing-"),
            ("billing-*", "billing-cards"),
            ("*", ""),
            ("*", "anything"),
            ("a*c", "abcabc"),
            ("*b*b*", "abba"),
            ("plain", "plain"),
            ("ä*", "äß"),
        ] {
            assert!(fits(pattern, text), "{pattern} {text}");
        }
        for (pattern, text) in [
            ("billing-*", "billing"),
            ("billing-*", "my-billing-cards"),
            ("", "x"),
            ("a*c", "ab"),
            ("a*a", "a"),
            ("plain", "plains"),
            ("Plain", "plain"),
            ("a?c", "abc"),
        ] {
            assert!(!fits(pattern, text), "{pattern} {text}");
        }
        let (pattern, text) = ("a*".repeat(100) + "b", "a".repeat(200));
        assert!(!fits(&pattern, &text), "it ends");
    }

    #[test]
    fn a_scope_bounds_what_it_names_alone() {
        let all = CredentialScope::default();
        assert!(!all.is_bounded() && all.has_queue("q") && all.has_workflow("w"));
        let none = CredentialScope { queues: Some(Vec::new()), workflows: None };
        assert!(none.is_bounded() && !none.has_queue("q") && none.has_workflow("w"));
    }
}
