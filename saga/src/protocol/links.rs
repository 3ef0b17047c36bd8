//! Links: under which ids entities are known in other systems.

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

/// `PUT /v1/links/{system}/{external_id}`: says to which entity an id of another system belongs.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct PutLink {
    /// The stream of the entity, such as `customer:42`.
    pub stream: String,
    /// The reason; kept with the act.
    #[serde(default)]
    pub reason: String,
}

/// A link of an entity to another system.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkView {
    /// The system.
    pub system: String,
    /// The id that the entity has there.
    pub external_id: String,
    /// The stream of the entity.
    pub stream: String,
    /// Time of the link.
    pub linked_at: Timestamp,
    /// The actor.
    pub linked_by: String,
}

/// State of a conflict.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum ConflictState {
    /// It waits for a person.
    Open,
    /// A person decided to whom the id belongs.
    Resolved,
}

/// Owner of an id that two entities claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub enum LinkKept {
    /// The entity that had it.
    Holder,
    /// The entity for which it was claimed.
    Claimant,
}

/// `POST /v1/link-conflicts/{id}/resolve`.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct ResolveLinkConflict {
    /// The owner of the id.
    pub keep: LinkKept,
    /// The reason; kept with the act.
    pub reason: String,
}

/// A claim of an id that belongs to another entity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct LinkConflictView {
    /// Its id.
    pub id: Uuid,
    /// Its state.
    pub state: ConflictState,
    /// The system.
    pub system: String,
    /// The id in that system.
    pub external_id: String,
    /// The entity for which it was claimed.
    pub stream: String,
    /// The entity that had it.
    pub holder: String,
    /// Time of the first claim.
    pub claimed_at: Timestamp,
    /// The actor.
    pub claimed_by: String,
    /// The owner of the id, once a person has decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kept: Option<LinkKept>,
    /// Time of the decision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_at: Option<Timestamp>,
    /// The person who decided.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resolved_by: Option<String>,
}
