//! Errors of handlers.

use std::fmt;

use backstitch_saga::protocol::{Failure, FailureKind};
use backstitch_saga::{Payload, Span};
use serde::Serialize;

/// The failure of a task, with its consequence.
///
/// The kind is a promise about the world, and the saga relies on it: *retryable* and *permanent* say that nothing
/// happened (as *unavailable* and *rate limited* do), *unknown* says that it may have, so that it is verified or
/// undone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TaskError(Failure);

impl TaskError {
    /// Returns an error: it did not happen, and a retry may succeed.
    #[must_use]
    pub fn retryable(code: &str, message: impl fmt::Display) -> TaskError {
        TaskError::new(FailureKind::Retryable, code, message)
    }

    /// Returns an error: it did not happen, and a retry will not succeed.
    #[must_use]
    pub fn permanent(code: &str, message: impl fmt::Display) -> TaskError {
        TaskError::new(FailureKind::Permanent, code, message)
    }

    /// Returns an error: the target requests this wait. It does not count as an attempt.
    #[must_use]
    pub fn rate_limited(delay: Span) -> TaskError {
        TaskError::new(FailureKind::RateLimited, "rate_limited", format!("asked to wait {delay}"))
            .retry_after(delay)
    }

    /// Returns an error: the target does not respond and nothing was attempted there. It does not
    /// count as an attempt.
    #[must_use]
    pub fn unavailable(code: &str, message: impl fmt::Display) -> TaskError {
        TaskError::new(FailureKind::Unavailable, code, message)
    }

    /// Returns an error: it may have happened.
    #[must_use]
    pub fn unknown(code: &str, message: impl fmt::Display) -> TaskError {
        TaskError::new(FailureKind::Unknown, code, message)
    }

    fn new(kind: FailureKind, code: &str, message: impl fmt::Display) -> TaskError {
        let message = message.to_string();
        TaskError(Failure { kind, code: stable(code), message, details: None, retry_after: None })
    }

    /// Adds details, for machines and for diagnosis. A value that cannot be written as JSON is left
    /// out.
    #[must_use]
    pub fn details(mut self, details: &impl Serialize) -> TaskError {
        self.0.details = Payload::of(details).ok();
        self
    }

    /// Sets the shortest delay before the next attempt.
    #[must_use]
    pub fn retry_after(mut self, delay: Span) -> TaskError {
        self.0.retry_after = Some(delay);
        self
    }

    /// Returns the consequence of the failure.
    #[must_use]
    pub fn kind(&self) -> FailureKind {
        self.0.kind
    }

    /// Returns the stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        &self.0.code
    }

    /// Returns the message for people.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Returns the failure in the form of a report.
    #[must_use]
    pub fn into_failure(self) -> Failure {
        self.0
    }
}

/// Brings a code into the form `[a-z][a-z0-9_]*` that the server asks for.
pub(crate) fn stable(code: &str) -> String {
    let mut stable: String = code
        .chars()
        .map(|c| c.to_ascii_lowercase())
        .map(|c| if c.is_ascii_lowercase() || c.is_ascii_digit() { c } else { '_' })
        .collect();
    if !stable.starts_with(|c: char| c.is_ascii_lowercase()) {
        stable.insert_str(0, "error_");
    }
    stable
}

impl fmt::Display for TaskError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.0.message, self.0.code)
    }
}

impl std::error::Error for TaskError {}

impl From<Failure> for TaskError {
    fn from(failure: Failure) -> Self {
        TaskError(failure)
    }
}

/// For handlers that cannot fail.
impl From<std::convert::Infallible> for TaskError {
    fn from(never: std::convert::Infallible) -> Self {
        match never {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_brought_into_form() {
        for (given, stable) in [
            ("card_declined", "card_declined"),
            ("Card Declined", "card_declined"),
            ("404", "error_404"),
        ] {
            assert_eq!(TaskError::permanent(given, "").code(), stable);
        }
    }
}
