//! Contracts: the shapes that documents follow, by subject and version.

use serde::{Deserialize, Serialize};

use crate::{Payload, Timestamp};

/// Compatibility that the versions of a contract keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ContractMode {
    /// Nothing is checked.
    None,
    /// A new version reads documents of the last one.
    Backward,
    /// The last version reads documents of a new one.
    Forward,
    /// Both: the new version and the last one read documents of each other.
    Full,
    /// A new version reads documents of all versions.
    BackwardTransitive,
    /// All versions read documents of a new one.
    ForwardTransitive,
    /// Both: a new version and all versions read documents of each other.
    FullTransitive,
}

impl ContractMode {
    /// All modes.
    pub const ALL: [ContractMode; 7] = [
        ContractMode::None,
        ContractMode::Backward,
        ContractMode::Forward,
        ContractMode::Full,
        ContractMode::BackwardTransitive,
        ContractMode::ForwardTransitive,
        ContractMode::FullTransitive,
    ];

    /// Returns the word for the mode.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ContractMode::None => "none",
            ContractMode::Backward => "backward",
            ContractMode::Forward => "forward",
            ContractMode::Full => "full",
            ContractMode::BackwardTransitive => "backward_transitive",
            ContractMode::ForwardTransitive => "forward_transitive",
            ContractMode::FullTransitive => "full_transitive",
        }
    }
}

/// Owner of the shape of a subject.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ContractKind {
    /// A vendor: the subject has a dot, as in `crm.contact`.
    Vendor,
    /// The namespace itself: the subject has no dot, as in `customer`.
    Canonical,
}

/// Use that may be made of a version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ContractState {
    /// Documents and readers are accepted.
    Active,
    /// Documents and readers are accepted, with a warning.
    Deprecated,
    /// Neither documents nor readers are accepted.
    Retired,
}

impl ContractState {
    /// Returns the word for the state.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            ContractState::Active => "active",
            ContractState::Deprecated => "deprecated",
            ContractState::Retired => "retired",
        }
    }
}

/// `POST /v1/contracts/{subject}/versions` and `POST /v1/contracts/{subject}/check`: a new version of a contract.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct RegisterContract {
    /// JSON Schema in the checkable subset, at most 65,536 bytes.
    pub schema: Payload,
    /// Compatibility of the subject, for its first version only; without it `full_transitive` for canonical subjects
    /// and `none` for vendor subjects.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mode: Option<ContractMode>,
    /// Transform from the last version to this one, for a version that breaks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Payload>,
    /// Transform from this version to the last one, for a version that breaks while earlier versions have readers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Payload>,
    /// The reason; kept with the act.
    #[serde(default)]
    pub reason: String,
}

/// One way in which a version of a contract is not compatible with another.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContractBreak {
    /// The keyword of JSON Schema that refuses the document.
    pub rule: String,
    /// `backward` when the new version refuses a document of the older one, `forward` the other way round.
    pub direction: String,
    /// The older version.
    pub version: u32,
    /// JSON Pointer to the place in the new schema.
    pub pointer: String,
    /// JSON Pointer to the place in the document; `*` stands for an element of a list.
    pub at: String,
    /// Explanation of the mistake with what to do, for people.
    pub message: String,
    /// A document that one version allows and the other refuses; left out where a pattern is involved.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub document: Option<Payload>,
}

/// `POST /v1/contracts/{subject}/check`: the verdict on a schema that was not registered.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContractCheck {
    /// `true` if it may be registered as it is, with the transforms that were sent with it.
    pub accepted: bool,
    /// The version that has this schema already, however it is spelt.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub same_as: Option<u32>,
    /// The number that it would get.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version: Option<u32>,
    /// The code with which it would be refused.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub code: Option<String>,
    /// Explanation of the problem with what to do, for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
    /// The ways in which it breaks.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<ContractBreak>,
}

/// A version of a contract.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContractVersionView {
    /// The subject.
    pub subject: String,
    /// The version.
    pub version: u32,
    /// Use that may be made of it.
    pub state: ContractState,
    /// SHA-256 of the canonical form of the schema, in hexadecimal digits.
    pub digest: String,
    /// Time of the registration.
    pub registered_at: Timestamp,
    /// The actor.
    pub registered_by: String,
    /// The schema, as it was sent; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schema: Option<Payload>,
    /// The ways in which it breaks, which its transforms bridge; not in lists.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breaks: Vec<ContractBreak>,
    /// Transform from the version before; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub up: Option<Payload>,
    /// Transform to the version before; not in lists.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub down: Option<Payload>,
}

/// A reader that is pinned to a version of a contract.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContractReaderView {
    /// Its name.
    pub name: String,
    /// The version that it reads.
    pub version: u32,
    /// Time of the pinning.
    pub pinned_at: Timestamp,
    /// The actor.
    pub pinned_by: String,
}

/// One line of `GET /v1/contracts`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContractLine {
    /// The subject.
    pub subject: String,
    /// Owner of its shape.
    pub kind: ContractKind,
    /// Compatibility that its versions keep.
    pub mode: ContractMode,
    /// The newest version.
    pub newest: u32,
    /// Time of its last change.
    pub changed_at: Timestamp,
    /// The actor.
    pub changed_by: String,
}

/// `GET /v1/contracts/{subject}`: a subject with its versions and readers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ContractView {
    /// The subject.
    pub subject: String,
    /// Owner of its shape.
    pub kind: ContractKind,
    /// Compatibility that its versions keep.
    pub mode: ContractMode,
    /// Its versions, without their schemas.
    pub versions: Vec<ContractVersionView>,
    /// The readers that are pinned to one of them.
    pub readers: Vec<ContractReaderView>,
    /// Time of its last change.
    pub changed_at: Timestamp,
    /// The actor.
    pub changed_by: String,
}

/// `PUT /v1/contracts/{subject}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetContractMode {
    /// Compatibility that new versions keep.
    pub mode: ContractMode,
    /// The reason; kept with the act.
    pub reason: String,
}

/// `PUT /v1/contracts/{subject}/versions/{version}/state`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SetContractState {
    /// Use that may be made of it from now on.
    pub state: ContractState,
    /// The reason; kept with the act.
    pub reason: String,
}

/// `PUT /v1/contracts/{subject}/readers/{name}`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PinReader {
    /// The version that it reads.
    pub version: u32,
    /// The reason; kept with the act.
    #[serde(default)]
    pub reason: String,
}
