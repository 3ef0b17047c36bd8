//! What retention cannot drop as a whole.

use serde::{Deserialize, Serialize};

use crate::{RunId, Timestamp};

/// A week that is past retention and cannot be dropped as a whole, since runs that are kept began in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct HeldWeek {
    /// The Monday on which it begins.
    pub week: Timestamp,
    /// How many runs of the namespace keep it: those that have not ended, or not long enough ago. No more than 10,000 runs
    /// of a week are counted.
    pub runs: u64,
    /// The oldest of them.
    pub oldest_run: RunId,
    /// When that began.
    pub oldest_started_at: Timestamp,
}
