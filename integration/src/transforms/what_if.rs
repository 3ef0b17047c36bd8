//! What-if: a new version of a transform compared with the active one, on stored documents.

use serde::Serialize;

use super::outcome::{Failure, Limits, Outcome};
use super::rule::Transform;
use crate::canonical::shown;
use crate::document::{Pointer, Value};
use crate::events::changed;

/// Counts of a comparison. They add up to `documents`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct WhatIf {
    /// Documents that were mapped by both.
    pub documents: usize,
    /// Both make the same body, stream and operation.
    pub same: usize,
    /// Both make a document, and they differ.
    pub differ: usize,
    /// The active one fails, and the new one does not.
    pub repaired: usize,
    /// The new one fails, and the active one does not.
    pub broken: usize,
    /// Both fail.
    pub failing: usize,
    /// Some of those that are not the same.
    pub samples: Vec<Difference>,
}

/// One document that the two transforms do not map alike.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Difference {
    /// Name of the document.
    pub document: String,
    /// `differ`, `repaired`, `broken` or `failing`.
    pub kind: &'static str,
    /// Places at which the bodies differ.
    pub changed: Vec<Pointer>,
    /// The body of the active one, shortened; null where it fails.
    pub before: Value,
    /// The body of the new one, shortened; null where it fails.
    pub after: Value,
    /// Failures of the new one.
    pub failures: Vec<Failure>,
}

impl WhatIf {
    /// Maps documents, each with a name, by both transforms. Without an active one each document counts as repaired or
    /// failing. `samples` differences are kept, of each kind in the order of the documents.
    #[must_use]
    pub fn compare<'d>(
        active: Option<&Transform>,
        new: &Transform,
        documents: impl IntoIterator<Item = (&'d str, &'d Value)>,
        limits: &Limits,
        samples: usize,
    ) -> WhatIf {
        let mut found = WhatIf::default();
        for (name, document) in documents {
            found.documents += 1;
            let before = active.map(|active| active.run(document, limits));
            let after = new.run(document, limits);
            let kind = match (&before, &after) {
                (Some(Outcome::Mapped(one)), Outcome::Mapped(other)) => {
                    if (&one.body, &one.stream, one.op) == (&other.body, &other.stream, other.op) {
                        found.same += 1;
                        continue;
                    }
                    found.differ += 1;
                    "differ"
                }
                (Some(Outcome::Mapped(_)), Outcome::Failed(_)) => {
                    found.broken += 1;
                    "broken"
                }
                (_, Outcome::Mapped(_)) => {
                    found.repaired += 1;
                    "repaired"
                }
                (_, Outcome::Failed(_)) => {
                    found.failing += 1;
                    "failing"
                }
            };
            if found.samples.iter().filter(|sample| sample.kind == kind).count() < samples {
                found.samples.push(difference(name, kind, before.as_ref(), &after));
            }
        }
        found
    }
}

fn difference(
    name: &str,
    kind: &'static str,
    before: Option<&Outcome>,
    after: &Outcome,
) -> Difference {
    let body = |outcome: Option<&Outcome>| match outcome {
        Some(Outcome::Mapped(mapped)) => mapped.body.clone(),
        _ => Value::Null,
    };
    let (before, after_body) = (body(before), body(Some(after)));
    Difference {
        document: name.to_owned(),
        kind,
        changed: if kind == "differ" { changed(&before, &after_body) } else { Vec::new() },
        before: shown(&before),
        after: shown(&after_body),
        failures: match after {
            Outcome::Failed(failures) => failures.clone(),
            Outcome::Mapped(_) => Vec::new(),
        },
    }
}
