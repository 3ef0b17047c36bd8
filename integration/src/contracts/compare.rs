//! Compares two schemas: is every document that a writer may write valid for a reader?

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;

use super::example::{LONGEST_TEXT, anything};
use super::schema::{Kind, ListRule, Member, Node, NumberRule, ObjectRule, Schema, TextRule};
use super::validate::World;
use crate::document::{Object, Pointer, Value};

/// The most breaks that are listed for two schemas.
pub(crate) const MOST_BREAKS: usize = 50;
/// The most texts and numbers that are tried against a set of values.
const MOST_TRIES: usize = 2_000;
/// The most bytes of a document that is shown.
const LARGEST_SHOWN: usize = 65_536;

/// One way in which a document of the writer is refused by the reader.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Break {
    /// The reader's keyword that refuses: `required`, `enum`, `type`, `maxLength` and so on.
    pub rule: &'static str,
    /// Place of the subschema in the writer's schema.
    pub writer_place: String,
    /// Place of the subschema in the reader's schema.
    pub reader_place: String,
    /// Place in the document; `*` stands for an element of a list.
    pub at: Pointer,
    /// A document that is valid for the writer and not for the reader, checked with both. `None` only where a pattern
    /// is involved, which is compared by its text, or where the document would be too large to show.
    pub document: Option<Value>,
}

/// Returns all breaks between what `writer` allows in a closed world and what `reader` accepts in an open one.
pub(super) fn compare(writer: &Schema, reader: &Schema) -> Vec<Break> {
    let mut comparison = Comparison { known: HashMap::new() };
    let found = comparison.nodes(&writer.root, &reader.root);
    found
        .iter()
        .map(|found| {
            let shown = found.value.clone().filter(|document| {
                document.size() <= LARGEST_SHOWN
                    && writer.is_valid(document, World::Closed)
                    && !reader.is_valid(document, World::Open)
            });
            Break {
                rule: found.rule,
                writer_place: found.writer_place.clone(),
                reader_place: found.reader_place.clone(),
                at: found.at.clone(),
                document: shown,
            }
        })
        .collect()
}

/// A break below some node, with a value of that node that shows it.
#[derive(Clone)]
struct Found {
    rule: &'static str,
    writer_place: String,
    reader_place: String,
    at: Pointer,
    value: Option<Value>,
}

/// Identity of a pair of nodes: the values that they allow, null included or not.
type Pair = (*const Kind, bool, *const Kind, bool);

struct Comparison {
    /// Pairs that were compared, so that shared definitions cost nothing.
    known: HashMap<Pair, Rc<Vec<Found>>>,
}

impl Comparison {
    fn nodes(&mut self, writer: &Node, reader: &Node) -> Rc<Vec<Found>> {
        let pair = (
            Arc::as_ptr(&writer.kind),
            writer.nullable,
            Arc::as_ptr(&reader.kind),
            reader.nullable,
        );
        if let Some(known) = self.known.get(&pair) {
            return Rc::clone(known);
        }
        let mut found = self.compare(writer, reader);
        found.truncate(MOST_BREAKS);
        let found = Rc::new(found);
        self.known.insert(pair, Rc::clone(&found));
        found
    }

    fn compare(&mut self, writer: &Node, reader: &Node) -> Vec<Found> {
        let here = |rule: &'static str, value: Option<Value>| Found {
            rule,
            writer_place: writer.place.clone(),
            reader_place: reader.place.clone(),
            at: Pointer::default(),
            value,
        };
        let mut found = Vec::new();
        let writes_null = writer.nullable || matches!(&*writer.kind, Kind::Null);
        if writes_null && !reader.allows_null() {
            found.push(here("type", Some(Value::Null)));
        }
        match (&*writer.kind, &*reader.kind) {
            (_, Kind::Any) | (Kind::Null, _) | (Kind::Boolean, Kind::Boolean) => {}
            (Kind::Choice(values), _) => {
                let refused = values.iter().filter_map(|value| {
                    let wrong = reader.first_violation(value, World::Open)?;
                    Some((keyword(&wrong.code), value.clone()))
                });
                // One break for each keyword is enough to mend it; for an enum every value counts.
                found.extend(refused.map(|(rule, value)| here(rule, Some(value))));
            }
            (Kind::Any, _) => {
                let refused = anything()
                    .into_iter()
                    .find(|value| reader.first_violation(value, World::Open).is_some());
                found.push(here("type", refused));
            }
            (_, Kind::Choice(values)) => {
                found.extend(outside(writer, values).map(|value| here("enum", value)));
            }
            (Kind::Number(one), Kind::Number(other)) => {
                let refused = one
                    .near(&[other])
                    .into_iter()
                    .find_map(|number| other.refuses(&number).map(|rule| (rule, number)));
                found.extend(refused.map(|(rule, number)| here(rule, Some(Value::Number(number)))));
            }
            (Kind::Text(one), Kind::Text(other)) => {
                found.extend(
                    texts(one, other).map(|(rule, text)| here(rule, text.map(Value::String))),
                );
            }
            (Kind::List(one), Kind::List(other)) => found.extend(self.lists(one, other, &here)),
            (Kind::Object(one), Kind::Object(other)) => {
                found.extend(self.objects(writer, one, other, &here));
            }
            _ => found.push(here("type", writer.example(&mut first))),
        }
        found
    }

    fn lists(
        &mut self,
        one: &ListRule,
        other: &ListRule,
        here: &dyn Fn(&'static str, Option<Value>) -> Found,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        if one.min < other.min {
            found.push(here("minItems", one.of_length(one.min, &mut first)));
        }
        if let Some(most) = other.max
            && one.max.is_none_or(|max| max > most)
        {
            let length = (most + 1).max(one.min);
            let shown =
                (length <= LONGEST_TEXT).then(|| one.of_length(length, &mut first)).flatten();
            found.push(here("maxItems", shown));
        }
        let Some(reader) = &other.items else { return found };
        if one.max == Some(0) {
            return found;
        }
        let any;
        let writer = match &one.items {
            Some(items) => items,
            None => {
                any = Arc::new(Node::any(String::new()));
                &any
            }
        };
        for below in self.nodes(writer, reader).iter() {
            let value = below.value.clone().and_then(|value| {
                let mut list = one.of_length(one.min.max(1), &mut first)?;
                if let Value::Array(elements) = &mut list {
                    *elements.first_mut()? = value;
                }
                Some(list)
            });
            found.push(Found { at: prefixed("*", &below.at), value, ..below.clone() });
        }
        found
    }

    fn objects(
        &mut self,
        writer: &Node,
        one: &ObjectRule,
        other: &ObjectRule,
        here: &dyn Fn(&'static str, Option<Value>) -> Found,
    ) -> Vec<Found> {
        let mut found = Vec::new();
        let Some(wanted) = &other.members else { return found };
        let free = Arc::new(Node::any(String::new()));
        let smallest = match &one.members {
            Some(_) => writer_smallest(writer),
            None => Some(Object::new()),
        };
        for (name, Member { node: reader, required }) in wanted {
            let written = match &one.members {
                None => Some((&free, false)),
                Some(members) => members.get(name).map(|member| (&member.node, member.required)),
            };
            if *required && !written.is_some_and(|(_, required)| required) {
                let mut without = smallest.clone();
                if let Some(object) = &mut without {
                    object.remove(name);
                }
                let missing = here("required", without.map(Value::Object));
                found.push(Found { at: Pointer::default().child(name), ..missing });
            }
            let Some((node, _)) = written else { continue };
            for below in self.nodes(node, reader).iter() {
                let value = below.value.clone().and_then(|value| {
                    let mut object = smallest.clone()?;
                    object.insert(name.clone(), value);
                    Some(Value::Object(object))
                });
                found.push(Found { at: prefixed(name, &below.at), value, ..below.clone() });
                if found.len() >= MOST_BREAKS {
                    return found;
                }
            }
        }
        if found.is_empty() && other.format.is_some() && one.format != other.format {
            found.push(here("format", unlike_a_scalar(writer, other)));
        }
        found
    }
}

/// Returns the smallest object that a node allows, also where it allows null.
fn writer_smallest(node: &Node) -> Option<Object> {
    match node.example(&mut first) {
        Some(Value::Object(members)) => Some(members),
        _ => None,
    }
}

/// Returns an object of `node` that is not in the format of `other`.
fn unlike_a_scalar(node: &Node, other: &ObjectRule) -> Option<Value> {
    (0..64_usize).find_map(|seed| {
        let mut state = seed;
        let mut choose = |n: usize| {
            let chosen = state % n;
            state = state / n + seed;
            chosen
        };
        let value = node.example(&mut choose)?;
        let members = value.as_object()?;
        (!other.format?.accepts_object(members)).then_some(value)
    })
}

/// Chooses the first of everything.
fn first(_: usize) -> usize {
    0
}

fn prefixed(token: &str, rest: &Pointer) -> Pointer {
    Pointer::default().child(token).join(rest)
}

/// Returns the keyword of a code of a violation.
fn keyword(code: &str) -> &'static str {
    let all = [
        "type",
        "enum",
        "minimum",
        "exclusiveMinimum",
        "maximum",
        "exclusiveMaximum",
        "minLength",
        "maxLength",
        "pattern",
        "format",
        "minItems",
        "maxItems",
        "required",
    ];
    all.into_iter().find(|known| *known == code).unwrap_or("type")
}

/// Returns a value of `node` that is none of `values`: `None` if there is no such value, `Some(None)` if none was
/// found.
fn outside(node: &Node, values: &[Value]) -> Option<Option<Value>> {
    let not_chosen = |value: &Value| !values.contains(value);
    match &*node.kind {
        Kind::Boolean => [false, true].map(Value::Bool).into_iter().find(not_chosen).map(Some),
        Kind::Text(TextRule::Length { max: Some(0), .. }) => {
            Some(Value::from("")).filter(not_chosen).map(Some)
        }
        Kind::Text(TextRule::Length { min, .. }) => {
            let length = usize::try_from(*min).unwrap_or_default().max(1);
            // More texts of one length than there are values.
            let texts = (0..MOST_TRIES)
                .filter_map(|index| char::from_u32(0x61 + u32::try_from(index).ok()?));
            let mut texts = texts.map(|letter| Value::from(letter.to_string().repeat(length)));
            Some(texts.find(not_chosen))
        }
        Kind::Text(rule) => {
            let candidates = rule.candidates(&TextRule::Length { min: 0, max: None });
            Some(candidates.into_iter().map(Value::String).find(not_chosen))
        }
        Kind::Number(rule) => numbers_outside(rule, values),
        Kind::List(rule) if rule.max == Some(0) => {
            Some(Value::Array(Vec::new())).filter(not_chosen).map(Some)
        }
        _ => Some(scattered(node).find(not_chosen)),
    }
}

/// Does the same as [`outside`], for numbers: integers of a short range are all tried.
fn numbers_outside(rule: &NumberRule, values: &[Value]) -> Option<Option<Value>> {
    let not_chosen = |value: &Value| !values.contains(value);
    let near = rule.near(&[]);
    if !rule.integer {
        // The ends and the middles are few; further values lie between each two of them.
        let mut ends = near.clone();
        ends.sort();
        let single = ends.first() == ends.last();
        let between = ends.first().zip(ends.last()).into_iter().flat_map(|(low, high)| {
            let inner = NumberRule {
                integer: false,
                low: Some(super::schema::Bound { at: low.clone(), inclusive: false }),
                high: Some(super::schema::Bound { at: high.clone(), inclusive: false }),
            };
            inner.near(&[rule])
        });
        let found = near.iter().cloned().chain(between).map(Value::Number).find(not_chosen);
        return if single && found.is_none() { None } else { Some(found) };
    }
    let steps = (0..=i64::try_from(MOST_TRIES).unwrap_or(i64::MAX)).flat_map(|step| [step, -step]);
    let around =
        near.iter().filter_map(crate::document::Number::to_i64).take(4).collect::<Vec<_>>();
    let tried =
        around.iter().flat_map(|start| steps.clone().filter_map(|step| start.checked_add(step)));
    let mut possible = tried
        .map(crate::document::Number::from)
        .filter(|number| rule.refuses(number).is_none())
        .map(Value::Number);
    match possible.find(not_chosen) {
        Some(found) => Some(Some(found)),
        // A range that is as short as the set of values holds nothing else.
        None if rule.low.is_some() && rule.high.is_some() => None,
        None => Some(None),
    }
}

/// Returns some values of a node.
fn scattered(node: &Node) -> impl Iterator<Item = Value> + '_ {
    (0..64_usize).filter_map(move |seed| {
        let mut state = seed;
        node.example(&mut |n: usize| {
            let chosen = state % n;
            state /= n;
            chosen
        })
    })
}

/// Returns the rule by which `other` refuses a text of `one`, and such a text where one was found.
fn texts(one: &TextRule, other: &TextRule) -> Option<(&'static str, Option<String>)> {
    let shown =
        || one.candidates(other).into_iter().find_map(|text| Some((other.refuses(&text)?, text)));
    let rule = match (one, other) {
        (_, TextRule::Length { min: 0, max: None }) => return None,
        (TextRule::Length { min, max }, TextRule::Length { min: least, max: most }) => {
            if min < least {
                "minLength"
            } else if most.is_some_and(|most| max.is_none_or(|max| max > most)) {
                "maxLength"
            } else {
                return None;
            }
        }
        (TextRule::Format(format), TextRule::Length { min, max }) => {
            let (least, most) = format.lengths();
            let long = max.is_some_and(|max| most.is_none_or(|most| most > max));
            match (least < *min, long) {
                (false, false) => return None,
                (true, _) => "minLength",
                (false, true) => "maxLength",
            }
        }
        (TextRule::Format(one), TextRule::Format(other)) if one.is_within(*other) => return None,
        (TextRule::Pattern(one), TextRule::Pattern(other)) if one.text() == other.text() => {
            return None;
        }
        (_, TextRule::Format(_)) => "format",
        // A pattern is compared by its text alone.
        _ => "pattern",
    };
    Some(shown().map_or((rule, None), |(rule, text)| (rule, Some(text))))
}
