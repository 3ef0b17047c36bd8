//! Background tasks of a server.

use serde::{Deserialize, Serialize};

use crate::{Span, Timestamp};

/// `GET /v1/background-tasks`: what the server that answers does without being asked, and how that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackgroundTasks {
    /// Name of the server.
    pub node: String,
    /// Its tasks.
    pub tasks: Vec<BackgroundTaskView>,
}

/// One background task of a server, since the server began.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct BackgroundTaskView {
    /// Its name, also in metrics.
    pub task: String,
    /// Period of the task; absent if it runs as soon as there is something to do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub every: Option<Span>,
    /// Times it was done, or failed.
    pub runs: u64,
    /// Times it failed; it is tried again.
    pub failures: u64,
    /// Time of the last success; absent if there was none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub succeeded_at: Option<Timestamp>,
    /// It failed when it was last done. The log says why.
    pub is_failing: bool,
}
