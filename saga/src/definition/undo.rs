//! The undo of a step, as plain data that people write.

use serde::{Deserialize, Serialize};

use super::Retry;
use crate::Span;

/// The undo of a step.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Compensate {
    /// The handler's name.
    pub name: String,
    /// The queue; the step's own without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub queue: Option<String>,
    /// Its own retries; without `max_attempts` it never gives up.
    #[serde(default = "Retry::undo", deserialize_with = "Retry::deserialize_undo")]
    pub retry: Retry,
    /// Opens an incident at this failed attempt, and goes on trying. Attempts that do not count against `retry` count
    /// here.
    #[serde(default = "Compensate::default_alert_after")]
    pub alert_after: u32,
    /// Opens that incident also if the undo has taken this time, after any number of attempts.
    #[serde(
        default = "Compensate::default_slow_after",
        skip_serializing_if = "Compensate::is_default_slow_after"
    )]
    pub slow_after: Span,
}

impl Compensate {
    /// Returns the handler `name`, with what is usual for all else.
    #[must_use]
    pub fn by(name: impl Into<String>) -> Compensate {
        Compensate {
            name: name.into(),
            queue: None,
            retry: Retry::undo(),
            alert_after: Compensate::default_alert_after(),
            slow_after: Compensate::default_slow_after(),
        }
    }

    fn default_alert_after() -> u32 {
        3
    }

    pub(crate) fn default_slow_after() -> Span {
        Span::secs(15 * 60)
    }

    /// A definition that says nothing of it is written as ever: it is the same definition.
    #[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
    fn is_default_slow_after(after: &Span) -> bool {
        *after == Compensate::default_slow_after()
    }
}
