//! What is wrong with a document, and where.

use std::fmt;

use serde::{Deserialize, Serialize};

/// One mistake in a document from outside.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
pub struct Violation {
    /// JSON Pointer to the place.
    pub pointer: String,
    /// Stable code of the rule that was broken.
    pub code: String,
    /// What is wrong and what to do, for people.
    pub message: String,
}

impl Violation {
    /// A violation of the rule `code` at `pointer`.
    pub fn new(pointer: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Violation { pointer: pointer.into(), code: code.to_owned(), message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.pointer, self.message, self.code)
    }
}
