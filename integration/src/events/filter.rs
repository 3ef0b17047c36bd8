//! Filters of subscriptions: pure questions about the envelope of an event.

use std::collections::BTreeMap;

use backstitch_saga::Violation;
use serde::{Deserialize, Serialize};

use super::envelope::Trust;
use super::operation::Op;
use crate::document::Pointer;

/// The most entries of one member of a filter.
pub(crate) const MOST_ENTRIES: usize = 100;
/// The most bytes of an entry.
pub(crate) const LONGEST: usize = 256;

/// A filter as it is written. An empty member selects all.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FilterDocument {
    /// Types: a name, a name with `.*` at its end for all that begin so, or `*`.
    pub types: Vec<String>,
    /// Operations.
    pub ops: Vec<Op>,
    /// Places, of which one must have changed, be within a changed place, or contain one.
    pub changed_any: Vec<Pointer>,
    /// Labels that the event has with these values.
    pub labels: BTreeMap<String, String>,
    /// Accepted sources.
    pub sources: Vec<String>,
    /// Excluded sources.
    pub source_not: Vec<String>,
    /// The least trust.
    pub min_trust: Option<Trust>,
}

/// Facts of an event by which it is filtered.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Type.
    pub event_type: &'a str,
    /// Operation.
    pub op: Option<Op>,
    /// Places that changed.
    pub changed: &'a [Pointer],
    /// Labels.
    pub labels: &'a BTreeMap<String, String>,
    /// Source.
    pub source: &'a str,
    /// Trust.
    pub trust: Trust,
}

/// Answer of a filter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// The event is wanted.
    Match,
    /// The event is not wanted.
    NoMatch,
    /// The event would be wanted, and its trust is below the minimum: it is counted as skipped, never silently dropped.
    TrustBelowMinimum,
}

/// Pattern of a type.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TypePattern {
    Any,
    Exact(String),
    /// Everything that begins with this, which ends with a dot.
    Prefix(String),
}

impl TypePattern {
    fn matches(&self, event_type: &str) -> bool {
        match self {
            TypePattern::Any => true,
            TypePattern::Exact(name) => name == event_type,
            TypePattern::Prefix(prefix) => event_type.starts_with(prefix.as_str()),
        }
    }
}

/// A filter that was checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Filter {
    pub(super) types: Vec<TypePattern>,
    pub(super) document: FilterDocument,
}

impl Filter {
    /// Checks a filter.
    ///
    /// # Errors
    /// `filter_not_valid` for each member that is not what it should be, `filter_never_matches` for a source that is
    /// both wanted and not.
    pub fn new(document: FilterDocument) -> Result<Filter, Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut refuse = |place: &str, code: &str, message: String| {
            wrong.push(Violation::new(format!("/{place}"), code, message));
        };
        for (place, count) in [
            ("types", document.types.len()),
            ("ops", document.ops.len()),
            ("changed_any", document.changed_any.len()),
            ("labels", document.labels.len()),
            ("sources", document.sources.len()),
            ("source_not", document.source_not.len()),
        ] {
            if count > MOST_ENTRIES {
                refuse(
                    place,
                    "filter_not_valid",
                    format!("{place} has at most {MOST_ENTRIES} entries"),
                );
            }
        }
        let fits = |text: &String| {
            !text.is_empty() && text.len() <= LONGEST && !text.chars().any(char::is_control)
        };
        for (place, texts) in [
            ("types", &document.types),
            ("sources", &document.sources),
            ("source_not", &document.source_not),
        ] {
            if !texts.iter().all(fits) {
                refuse(
                    place,
                    "filter_not_valid",
                    format!("{place} has texts of 1 to {LONGEST} bytes"),
                );
            }
        }
        if !document.labels.iter().all(|(name, value)| fits(name) && value.len() <= 1_024) {
            refuse(
                "labels",
                "filter_not_valid",
                "labels have names of 1 to 256 bytes and values of at most 1,024".to_owned(),
            );
        }
        let types: Vec<Option<TypePattern>> =
            document.types.iter().map(|text| pattern(text)).collect();
        if types.contains(&None) {
            let message = "a type is a name, a name and '.*', or '*'; '*' stands nowhere else";
            refuse("types", "filter_not_valid", message.to_owned());
        }
        let all_excluded = !document.sources.is_empty()
            && document.sources.iter().all(|source| document.source_not.contains(source));
        if all_excluded {
            let message = "every source that is wanted is excluded by source_not";
            refuse("source_not", "filter_never_matches", message.to_owned());
        }
        if wrong.is_empty() {
            Ok(Filter { types: types.into_iter().flatten().collect(), document })
        } else {
            Err(wrong)
        }
    }

    /// Returns whether the event is wanted.
    #[must_use]
    pub fn matches(&self, facts: &Facts<'_>) -> Verdict {
        let filter = &self.document;
        let wanted = (self.types.is_empty()
            || self.types.iter().any(|one| one.matches(facts.event_type)))
            && (filter.ops.is_empty() || facts.op.is_some_and(|op| filter.ops.contains(&op)))
            && (filter.sources.is_empty() || filter.sources.iter().any(|one| one == facts.source))
            && !filter.source_not.iter().any(|one| one == facts.source)
            && filter.labels.iter().all(|(name, value)| facts.labels.get(name) == Some(value))
            && (filter.changed_any.is_empty()
                || filter.changed_any.iter().any(|place| touches(place, facts.changed)));
        match (wanted, filter.min_trust) {
            (false, _) => Verdict::NoMatch,
            (true, Some(least)) if facts.trust < least => Verdict::TrustBelowMinimum,
            (true, _) => Verdict::Match,
        }
    }
}

fn pattern(text: &str) -> Option<TypePattern> {
    if text == "*" {
        return Some(TypePattern::Any);
    }
    let (name, is_prefix) = match text.strip_suffix(".*") {
        Some(name) => (name, true),
        None => (text, false),
    };
    if name.is_empty() || name.contains('*') {
        return None;
    }
    Some(if is_prefix {
        TypePattern::Prefix(format!("{name}."))
    } else {
        TypePattern::Exact(name.to_owned())
    })
}

/// Returns whether one of the places that changed contains `place` or lies within it.
fn touches(place: &Pointer, changed: &[Pointer]) -> bool {
    changed.iter().any(|one| one.contains(place) || place.contains(one))
}
