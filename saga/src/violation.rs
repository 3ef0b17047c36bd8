//! A mistake in a document, and its place.

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
    /// Explanation of the mistake with what to do, for people.
    pub message: String,
}

impl Violation {
    /// Returns a violation of the rule `code` at `pointer`.
    pub fn new(pointer: impl Into<String>, code: &str, message: impl Into<String>) -> Self {
        Violation { pointer: pointer.into(), code: code.to_owned(), message: message.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.pointer.is_empty() {
            write!(f, "{}: ", self.pointer)?;
        }
        write!(f, "{} ({})", self.message, self.code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_of_the_whole_document_names_no_place() {
        let of = |pointer| Violation::new(pointer, "too_large", "make it smaller").to_string();
        assert_eq!(of(""), "make it smaller (too_large)");
        assert_eq!(of("/steps/0"), "/steps/0: make it smaller (too_large)");
    }
}
