//! Who may ask.

use serde::{Deserialize, Serialize};

/// What a credential may do.
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

/// `PUT /v1/credentials/{name}`: make a credential in the caller's namespace.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct NewCredential {
    /// What it may do.
    pub role: Role,
}

/// The answer to [`NewCredential`]: the only time that the secret is shown.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct CredentialSecret {
    /// Its name, as it will stand in histories.
    pub name: String,
    /// Where it is good for.
    pub namespace: String,
    /// What it may do.
    pub role: Role,
    /// To be sent as `Authorization: Bearer SECRET`. Not stored and never shown again.
    pub secret: String,
}

/// `GET /v1/whoami`: whom the server takes the caller for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WhoAmI {
    /// The name that will stand in histories.
    pub name: String,
    /// The namespace that all requests see and change.
    pub namespace: String,
    /// What the caller may do.
    pub role: Role,
    /// Whether the server is open: it asks nobody for a credential.
    pub open: bool,
}
