//! Sources: senders of documents, and their authentication.

use serde::{Deserialize, Serialize};

use super::EventTrust;
use crate::{Span, Timestamp};

/// Method by which a source authenticates its requests.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "scheme", rename_all = "snake_case", deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SourceVerification {
    /// Standard Webhooks: `webhook-id`, `webhook-timestamp`, `webhook-signature`. The secret is `whsec_` and Base64.
    StandardWebhooks {},
    /// GitHub: `X-Hub-Signature-256`.
    Github {},
    /// Stripe: `Stripe-Signature`.
    Stripe {},
    /// Shopify: `X-Shopify-Hmac-SHA256`.
    Shopify {},
    /// Slack: `X-Slack-Signature` and `X-Slack-Request-Timestamp`.
    Slack {},
    /// An HMAC in a header.
    Hmac {
        /// Header of the signature.
        header: String,
        /// Hash; `sha256` without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        algorithm: Option<SourceHash>,
        /// Encoding of the signature; `hex` without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        encoding: Option<SourceEncoding>,
        /// Text before the signature.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        prefix: Option<String>,
        /// Text that is signed, with `{body}` and, if there is a timestamp, `{ts}`; `{body}` without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        signed: Option<String>,
        /// Header of the timestamp, in seconds.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        timestamp_header: Option<String>,
    },
    /// A user and a password (RFC 7617). The secret is the password.
    Basic {
        /// The user.
        user: String,
    },
    /// A token (RFC 6750). The secret is the token.
    Bearer {},
    /// A client certificate that a proxy checked and names in a header. The proxy must remove that header from what
    /// comes from outside.
    MutualTls {
        /// The header.
        header: String,
        /// Its values that are allowed: subjects or fingerprints.
        allowed: Vec<String>,
    },
    /// No verification: anyone who knows the address may send.
    None {},
}

/// Hash of an HMAC.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SourceHash {
    /// SHA-256.
    Sha256,
    /// SHA-512.
    Sha512,
}

/// Encoding of a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SourceEncoding {
    /// Hexadecimal digits.
    Hex,
    /// Base64.
    Base64,
}

/// A header, or a place in the document.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SourcePlace {
    /// Name of a header.
    Header(String),
    /// JSON Pointer.
    Pointer(String),
}

/// Place of the version of the contract.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum SourceVersion {
    /// Name of a header.
    Header(String),
    /// JSON Pointer.
    Pointer(String),
    /// The same version for all.
    Fixed(u32),
}

/// A condition on a header or on a place in the document, exactly one of the two.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceMatch {
    /// Name of the header.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub header: Option<String>,
    /// JSON Pointer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pointer: Option<String>,
    /// The required text.
    pub is: String,
}

/// A contract that a source accepts.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceAccepts {
    /// The documents that follow it; all without it.
    #[serde(default, rename = "match", skip_serializing_if = "Option::is_none")]
    pub when: Option<SourceMatch>,
    /// Subject of the contract.
    pub contract: String,
    /// The contract of our own that its documents are mapped to, such as `customer@1`, by the transform between them
    /// that is active.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub to: Option<String>,
}

/// Identifiers that are captured from documents.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceHint {
    /// `email`, `phone`, or another name, such as `legacy_id:erp`.
    pub kind: String,
    /// Their place: a JSON Pointer in which `*` stands for all elements of a list.
    pub at: String,
    /// JSON Pointer to the country of national phone numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region_from: Option<String>,
}

/// Configuration of a source: its verification, the documents that it may send, and its limits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceSpec {
    /// `true` if requests are accepted.
    #[serde(default = "yes")]
    pub enabled: bool,
    /// Method by which the source authenticates its requests.
    pub verify: SourceVerification,
    /// Seconds that a signed timestamp may differ from now; 300 without it.
    #[serde(default = "tolerance")]
    pub tolerance_s: u32,
    /// The most trust that its events have; `signed` without it.
    #[serde(default = "signed")]
    pub trust_ceiling: EventTrust,
    /// Contracts, tried in their order.
    pub accepts: Vec<SourceAccepts>,
    /// Place in a document of the version of its contract.
    pub version_from: SourceVersion,
    /// Places whose values together identify a document; without them no document is a repeat.
    #[serde(default)]
    pub dedupe: Vec<SourcePlace>,
    /// Identifiers that are captured.
    #[serde(default)]
    pub hints: Vec<SourceHint>,
    /// The most bytes of a document; 262,144 without it, and at most as many as events may have.
    #[serde(default = "max_bytes")]
    pub max_bytes: u32,
    /// The most documents in a second, on each server; without it only the quotas of the namespace bound them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rate: Option<u32>,
}

fn yes() -> bool {
    true
}

fn tolerance() -> u32 {
    300
}

fn signed() -> EventTrust {
    EventTrust::Signed
}

fn max_bytes() -> u32 {
    262_144
}

/// `PUT /v1/sources/{name}`.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PutSource {
    /// Its configuration.
    pub spec: SourceSpec,
    /// The secret that was agreed with the source; needed the first time if its scheme has one. Without it, the present
    /// secret stays; with it, all previous secrets are deleted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub secret: Option<String>,
    /// The reason; kept with the act.
    #[serde(default)]
    pub reason: String,
}

impl std::fmt::Debug for PutSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("PutSource").field("spec", &self.spec).finish_non_exhaustive()
    }
}

/// `POST /v1/sources/{name}/rotate`: another secret.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RotateSource {
    /// The next secret.
    pub secret: String,
    /// Time for which the previous secret is also valid; at most 30 days. `0s` ends it immediately.
    pub overlap: Span,
    /// The reason; kept with the act.
    #[serde(default)]
    pub reason: String,
}

impl std::fmt::Debug for RotateSource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RotateSource").field("overlap", &self.overlap).finish_non_exhaustive()
    }
}

/// A secret of a source, which is never shown.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceSecret {
    /// Time at which it was added.
    pub added_at: Timestamp,
    /// The actor.
    pub added_by: String,
    /// Time until which it is valid; no limit without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub until: Option<Timestamp>,
}

/// A source.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SourceView {
    /// Its name.
    pub name: String,
    /// The path to which it sends documents; batches go to this and `/batch`.
    pub address: String,
    /// Number of the configuration; it grows with each change of `spec`. The audit has all of them.
    pub version: u32,
    /// Its configuration.
    pub spec: SourceSpec,
    /// Its secrets that are good: the one in use, and the one before while it overlaps.
    pub secrets: Vec<SourceSecret>,
    /// Time of its last change.
    pub changed_at: Timestamp,
    /// The actor.
    pub changed_by: String,
}
