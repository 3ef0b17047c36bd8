//! Attempts of a step or item, per action: the counters and times on which retries are decided.

use serde::{Deserialize, Serialize};

use crate::{Span, Time};

/// Attempts of one action.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct AttemptCounters {
    /// The current attempt: the fence. 0 before the first.
    pub(crate) attempt: u32,
    /// Times a worker got it.
    pub(crate) deliveries: u32,
    /// Attempts reported as failed.
    pub(crate) failures: u32,
    /// Attempts that ended without a report.
    pub(crate) losses: u32,
    /// Attempts since then that the target asked to wait or did not answer to: they spend none.
    #[serde(default, skip_serializing_if = "super::state::is_zero")]
    pub(crate) uncounted: u32,
    /// `failures + losses` when a person last gave it fresh attempts.
    pub(crate) forgiven: u32,
    /// Number of repetitions with another effect key, because the effect of the earlier key had not happened.
    #[serde(default, skip_serializing_if = "super::state::is_zero")]
    pub(crate) edition: u32,
    /// Time at which the first attempt was offered, or the first after a retry with fresh attempts.
    pub(crate) since: Time,
    /// `true` if it is to be repeated, and no attempt of that was offered yet.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) anew: bool,
    /// The last delay, for decorrelated jitter.
    pub(crate) delay: Span,
}

impl AttemptCounters {
    /// Returns attempts that count against the retry policy.
    pub(crate) fn spent(&self) -> u32 {
        (self.failures + self.losses).saturating_sub(self.forgiven)
    }

    /// Returns attempts that ended without success, whether they count or not.
    pub(crate) fn all(&self) -> u32 {
        self.spent().saturating_add(self.uncounted)
    }

    /// Gives it fresh attempts.
    pub(crate) fn forgive(&mut self) {
        (self.forgiven, self.uncounted) = (self.failures + self.losses, 0);
    }
}
