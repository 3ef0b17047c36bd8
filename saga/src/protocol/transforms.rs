//! Transforms: mappings of one version of a contract to another.

use serde::{Deserialize, Serialize};

use crate::{Payload, Timestamp};

/// `PUT /v1/transforms/{from}/{from_version}/{to}/{to_version}`: a revision of a transform.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PutTransform {
    /// The transform: `rules`, and perhaps `stream` and `op`.
    pub transform: Payload,
    /// `true` if it is used from now on; otherwise it waits to be activated. The first revision is always
    /// used.
    #[serde(default = "yes")]
    pub activate: bool,
    /// The reason; kept with the act.
    #[serde(default)]
    pub reason: String,
}

fn yes() -> bool {
    true
}

/// `POST /v1/transforms/{from}/{from_version}/{to}/{to_version}/activate`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ActivateTransform {
    /// The revision that is used from now on.
    pub revision: u32,
    /// The reason; kept with the act.
    pub reason: String,
}

/// `POST /v1/transforms/{from}/{from_version}/{to}/{to_version}/test`: a document to map, and by what.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TestTransform {
    /// The document.
    pub document: Payload,
    /// A transform that is not registered, to be tried.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Payload>,
    /// A revision; without it and without `transform` the active one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
}

/// The result of a test: what was made or what could not be mapped, and what each rule did.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TransformTest {
    /// `true` if the document was mapped.
    pub mapped: bool,
    /// The body, the stream and the operation that were made, the values that were changed and those that no rule read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<Payload>,
    /// The values that could not be mapped, each with place, rule, code and message.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub failures: Option<Payload>,
    /// A line for each rule: what it read, what it set, and why not.
    pub trace: Payload,
}

/// `POST /v1/transforms/{from}/{from_version}/{to}/{to_version}/what-if`: by what the last documents would be mapped.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhatIfTransform {
    /// A transform that is not registered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub transform: Option<Payload>,
    /// Or a revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub revision: Option<u32>,
    /// Number of the last documents to compare; 1,000 without it, 10,000 at most, and 32 MiB of them.
    #[serde(default = "thousand")]
    pub last: u32,
}

fn thousand() -> u32 {
    1_000
}

/// Results of a transform for documents that sources have sent, compared with the active one. The counts add up to
/// `documents`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TransformWhatIf {
    /// Number of compared documents.
    pub documents: u32,
    /// Both make the same of them.
    pub same: u32,
    /// Both make a document of them, and another one each.
    pub differ: u32,
    /// The active one fails, this one does not.
    pub repaired: u32,
    /// This one fails, the active one does not.
    pub broken: u32,
    /// Both fail.
    pub failing: u32,
    /// Some of those that are not the same, each with the id of its document and what differs.
    pub samples: Payload,
}

/// One line of `GET /v1/transforms`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TransformLine {
    /// Subject of the source.
    pub from: String,
    /// Its version.
    pub from_version: u32,
    /// Subject of the target.
    pub to: String,
    /// Its version.
    pub to_version: u32,
    /// The revision that is used.
    pub active: u32,
    /// The last revision.
    pub newest: u32,
    /// Time of its last change.
    pub changed_at: Timestamp,
    /// The actor.
    pub changed_by: String,
}

/// A revision of a transform.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TransformRevision {
    /// Its number.
    pub revision: u32,
    /// SHA-256 of the canonical form of the transform, in hexadecimal digits.
    pub digest: String,
    /// Time of the registration.
    pub registered_at: Timestamp,
    /// The actor.
    pub registered_by: String,
}

/// `GET /v1/transforms/{from}/{from_version}/{to}/{to_version}`: a transform with its revisions.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct TransformView {
    /// Subject of the source.
    pub from: String,
    /// Its version.
    pub from_version: u32,
    /// Subject of the target.
    pub to: String,
    /// Its version.
    pub to_version: u32,
    /// The revision that is used.
    pub active: u32,
    /// The last revision.
    pub newest: u32,
    /// Time of its last change.
    pub changed_at: Timestamp,
    /// The actor.
    pub changed_by: String,
    /// The revision that is used, as it was sent.
    pub transform: Payload,
    /// All revisions, without their documents.
    pub revisions: Vec<TransformRevision>,
}
