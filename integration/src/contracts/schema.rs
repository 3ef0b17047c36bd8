//! Model of a schema: what was checked by `parse`, so that every node has a document, and none is recursive.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::format::Format;
use super::pattern::Pattern;
use crate::document::{Number, Value};

/// A schema of the checkable subset.
#[derive(Clone, Debug)]
pub struct Schema {
    pub(super) root: Arc<Node>,
    /// The schema in the form that all its spellings share.
    pub(super) canonical: String,
}

impl Schema {
    /// Returns the text that all spellings of this schema share. The same text is the same version.
    #[must_use]
    pub fn canonical(&self) -> &str {
        &self.canonical
    }

    /// Returns the root.
    pub(crate) fn root(&self) -> &Node {
        &self.root
    }
}

/// One subschema. References share it.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// JSON Pointer to the subschema in its schema.
    pub(crate) place: String,
    /// `null` is allowed beside what `kind` allows.
    pub(crate) nullable: bool,
    /// Values that are allowed. References share them.
    pub(crate) kind: Arc<Kind>,
    /// Levels of subschemas from here on, references followed.
    pub(super) depth: usize,
    /// Values in the smallest document.
    pub(super) least: u64,
}

/// Values that a node allows.
#[derive(Clone, Debug)]
pub(crate) enum Kind {
    /// Every value.
    Any,
    /// `null` alone.
    Null,
    /// One of these values, all different, at least one.
    Choice(Choices),
    /// `true` and `false`.
    Boolean,
    /// Numbers.
    Number(NumberRule),
    /// Strings.
    Text(TextRule),
    /// Lists.
    List(ListRule),
    /// Objects.
    Object(ObjectRule),
}

/// Scalars of an enum, with an index, so that a long list costs no more than a short one.
#[derive(Clone, Debug)]
pub(crate) struct Choices {
    values: Vec<Value>,
    keys: BTreeSet<String>,
}

impl Choices {
    pub(super) fn new(values: Vec<Value>) -> Choices {
        let keys = values.iter().filter_map(Choices::key).collect();
        Choices { values, keys }
    }

    /// Returns the text that all spellings of a scalar share.
    fn key(value: &Value) -> Option<String> {
        match value {
            Value::String(text) => Some(format!("\"{text}")),
            Value::Number(number) => Some(number.canonical()),
            Value::Bool(_) | Value::Null => Some(value.to_json()),
            Value::Array(_) | Value::Object(_) => None,
        }
    }

    /// Returns whether `value` is one of them.
    pub(crate) fn has(&self, value: &Value) -> bool {
        Choices::key(value).is_some_and(|key| self.keys.contains(&key))
    }
}

impl std::ops::Deref for Choices {
    type Target = [Value];

    fn deref(&self) -> &[Value] {
        &self.values
    }
}

/// Numbers between bounds; at least one is.
#[derive(Clone, Debug, Default)]
pub(crate) struct NumberRule {
    pub(crate) integer: bool,
    pub(crate) low: Option<Bound>,
    pub(crate) high: Option<Bound>,
}

/// End of a range of numbers.
#[derive(Clone, Debug)]
pub(crate) struct Bound {
    pub(crate) at: Number,
    /// The end itself belongs to the range.
    pub(crate) inclusive: bool,
}

/// Strings by exactly one of three rules.
#[derive(Clone, Debug)]
pub(crate) enum TextRule {
    /// By their number of characters.
    Length { min: u64, max: Option<u64> },
    /// By a regular expression.
    Pattern(Pattern),
    /// By a format.
    Format(Format),
}

/// Lists by their length and their elements.
#[derive(Clone, Debug)]
pub(crate) struct ListRule {
    /// `None` for any elements.
    pub(crate) items: Option<Arc<Node>>,
    pub(crate) min: u64,
    pub(crate) max: Option<u64>,
}

/// Objects.
#[derive(Clone, Debug)]
pub(crate) struct ObjectRule {
    /// `None` for any members.
    pub(crate) members: Option<BTreeMap<String, Member>>,
    /// The object is a scalar as a whole: money or a quantity.
    pub(crate) format: Option<Format>,
}

/// A member that a schema names.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) node: Arc<Node>,
    pub(crate) required: bool,
}

impl Node {
    /// Creates a node and measures it.
    pub(super) fn new(place: String, nullable: bool, kind: Kind) -> Node {
        let (depth, least) = match &kind {
            Kind::List(ListRule { items: Some(items), min, .. }) => {
                (items.depth + 1, items.least.saturating_mul(*min).saturating_add(1))
            }
            Kind::List(ListRule { min, .. }) => (2, min.saturating_add(1)),
            Kind::Object(ObjectRule { members: Some(members), .. }) => {
                let depth = members.values().map(|member| member.node.depth).max();
                let required = members.values().filter(|member| member.required);
                let least =
                    required.fold(1_u64, |sum, member| sum.saturating_add(member.node.least));
                (depth.unwrap_or_default() + 1, least)
            }
            _ => (1, 1),
        };
        Node {
            place,
            nullable,
            kind: Arc::new(kind),
            depth,
            least: if nullable { 1 } else { least },
        }
    }

    /// Returns a node that allows every value, at `place`.
    pub(crate) fn any(place: String) -> Node {
        Node::new(place, false, Kind::Any)
    }

    /// Returns whether `null` is allowed.
    pub(crate) fn allows_null(&self) -> bool {
        self.nullable
            || match &*self.kind {
                Kind::Any | Kind::Null => true,
                Kind::Choice(values) => values.has(&Value::Null),
                _ => false,
            }
    }
}

impl NumberRule {
    /// Returns the keyword that refuses `number`, if one does.
    pub(crate) fn refuses(&self, number: &Number) -> Option<&'static str> {
        if self.integer && !number.is_integer() {
            return Some("type");
        }
        let below = |bound: &Bound| number < &bound.at || (!bound.inclusive && number == &bound.at);
        let above = |bound: &Bound| number > &bound.at || (!bound.inclusive && number == &bound.at);
        match (&self.low, &self.high) {
            (Some(low), _) if below(low) => {
                Some(if low.inclusive { "minimum" } else { "exclusiveMinimum" })
            }
            (_, Some(high)) if above(high) => {
                Some(if high.inclusive { "maximum" } else { "exclusiveMaximum" })
            }
            _ => None,
        }
    }
}

impl TextRule {
    /// Returns the keyword that refuses `text`, if one does.
    pub(crate) fn refuses(&self, text: &str) -> Option<&'static str> {
        match self {
            TextRule::Length { min: 0, max: None } => None,
            TextRule::Length { min, max } => {
                let length = text.chars().count() as u64;
                match max {
                    _ if length < *min => Some("minLength"),
                    Some(max) if length > *max => Some("maxLength"),
                    _ => None,
                }
            }
            TextRule::Pattern(pattern) => (!pattern.matches(text)).then_some("pattern"),
            TextRule::Format(format) => (!format.accepts_text(text)).then_some("format"),
        }
    }
}
