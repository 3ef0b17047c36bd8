//! Modes of compatibility, and the check of a new version of a contract against the existing ones.

use serde::{Deserialize, Serialize};

use super::compare::compare;
use super::schema::Schema;
use crate::document::{Pointer, Value};

/// Compatibility that the versions of a contract keep.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing is checked.
    None,
    /// The new version reads documents of the last one.
    Backward,
    /// The last version reads documents of the new one.
    Forward,
    /// Both.
    Full,
    /// The new version reads documents of all.
    BackwardTransitive,
    /// All versions read documents of the new one.
    ForwardTransitive,
    /// Both.
    FullTransitive,
}

impl Mode {
    /// All modes.
    pub const ALL: [Mode; 7] = [
        Mode::None,
        Mode::Backward,
        Mode::Forward,
        Mode::Full,
        Mode::BackwardTransitive,
        Mode::ForwardTransitive,
        Mode::FullTransitive,
    ];

    /// Returns whether the new version must read documents of those before.
    #[must_use]
    pub fn is_backward(self) -> bool {
        use Mode::{Backward, BackwardTransitive, Full, FullTransitive};
        matches!(self, Backward | Full | BackwardTransitive | FullTransitive)
    }

    /// Returns whether versions before must read documents of the new one.
    #[must_use]
    pub fn is_forward(self) -> bool {
        use Mode::{Forward, ForwardTransitive, Full, FullTransitive};
        matches!(self, Forward | Full | ForwardTransitive | FullTransitive)
    }

    /// Returns whether all versions count and not the last alone.
    #[must_use]
    pub fn is_transitive(self) -> bool {
        use Mode::{BackwardTransitive, ForwardTransitive, FullTransitive};
        matches!(self, BackwardTransitive | ForwardTransitive | FullTransitive)
    }
}

/// Direction in which two versions are incompatible.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// The new version refuses a document of an older one.
    Backward,
    /// An older version refuses a document of the new one.
    Forward,
}

/// One reason why a schema is not compatible.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Incompatible {
    /// The keyword that refuses the document.
    pub rule: &'static str,
    /// Direction of the refusal: which version refuses documents of which.
    pub direction: Direction,
    /// The older version.
    pub version: u32,
    /// Place in the new schema.
    pub pointer: String,
    /// Place in the document; `*` stands for an element of a list.
    pub at: Pointer,
    /// Explanation of the mistake with what to do, for people.
    pub message: String,
    /// A document that is valid for one version and not for the other, checked with both. `None` only where a pattern
    /// is involved, which is compared by its text, or where the document would be too large to show.
    pub document: Option<Value>,
}

/// A version of a contract.
#[derive(Clone, Copy, Debug)]
pub struct Version<'a> {
    /// Its number.
    pub number: u32,
    /// Its schema.
    pub schema: &'a Schema,
}

/// Checks a new schema against the existing versions, in their order. An empty list means that it may be registered.
#[must_use]
pub fn check(new: &Schema, versions: &[Version<'_>], mode: Mode) -> Vec<Incompatible> {
    let count = if mode.is_transitive() { versions.len() } else { 1 };
    let mut found = Vec::new();
    for version in versions.iter().rev().take(count) {
        // The same schema is compatible with itself.
        if version.schema.canonical() == new.canonical() {
            continue;
        }
        if mode.is_backward() {
            found.extend(one_way(version.schema, new, version.number, Direction::Backward));
        }
        if mode.is_forward() {
            found.extend(one_way(new, version.schema, version.number, Direction::Forward));
        }
    }
    found
}

fn one_way(
    writer: &Schema,
    reader: &Schema,
    version: u32,
    direction: Direction,
) -> Vec<Incompatible> {
    let found = compare(writer, reader).into_iter().map(|found| {
        let (who, whose) = match direction {
            Direction::Backward => ("the new version".to_owned(), format!("version {version}")),
            Direction::Forward => (format!("version {version}"), "the new version".to_owned()),
        };
        let at = if found.at.tokens().is_empty() {
            "the document".to_owned()
        } else {
            found.at.to_string()
        };
        let shown = match &found.document {
            Some(_) => "the document shows it",
            None => "patterns are compared by their text, so that no document shows it",
        };
        let message = format!(
            "{who} refuses, by {}, documents that {whose} allows at {at}: {shown}; {}",
            found.rule,
            advice(found.rule, direction)
        );
        let pointer = match direction {
            Direction::Backward => found.reader_place,
            Direction::Forward => found.writer_place,
        };
        Incompatible {
            rule: found.rule,
            direction,
            version,
            pointer,
            at: found.at,
            message,
            document: found.document,
        }
    });
    found.collect()
}

/// Returns what one can do instead.
fn advice(rule: &str, direction: Direction) -> &'static str {
    match (rule, direction) {
        ("required", Direction::Backward) => "let the member be optional",
        ("required", Direction::Forward) => "keep the member required",
        ("enum", Direction::Forward) => {
            "readers of the older version do not know the value; add it with a new major version"
        }
        ("enum", Direction::Backward) => "keep the value",
        (_, Direction::Backward) => "allow what was allowed before",
        (_, Direction::Forward) => "allow no more than before",
    }
}
