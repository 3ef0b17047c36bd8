//! Operations of events on their entity.

use serde::{Deserialize, Serialize};

/// Operation of an event on the entity of its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Op {
    /// The entity came into being.
    #[serde(rename = "C")]
    Created,
    /// The entity changed.
    #[serde(rename = "U")]
    Updated,
    /// The entity is gone.
    #[serde(rename = "D")]
    Deleted,
    /// The entity as it is, whether it changed or not.
    #[serde(rename = "S")]
    Snapshot,
}
