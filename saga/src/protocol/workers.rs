//! Views of workers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::Timestamp;

/// One line of `GET /v1/workers`: one life of a worker, at one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct WorkerView {
    /// Its name, as it says.
    pub worker: String,
    /// This life of it.
    pub session: Uuid,
    /// The node that it asks.
    pub node: String,
    /// Its handlers by queue.
    pub queues: BTreeMap<String, Vec<String>>,
    /// Time since when it requests tasks there.
    pub since: Timestamp,
    /// Time at which it signed off or was lost; none while it is connected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gone_at: Option<Timestamp>,
}

/// `POST /v1/workers/sign-off`: a worker ends a session. It is handed nothing any more and is no longer listed as
/// there. Tasks that it still holds stay its own until they are reported, released or their leases end.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignOff {
    /// The session.
    pub session: Uuid,
}

/// The answer to [`SignOff`].
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct SignedOff {
    /// Tasks that were ready for the session, and are on offer again.
    pub released: u32,
}
