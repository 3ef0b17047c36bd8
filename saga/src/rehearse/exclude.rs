//! Decides if two JSON Schemas exclude each other, as far as their types, constants, bounds and members show it. Both
//! are assumed to allow the rest, so every finding is true, but not every contradiction is found.

use std::cmp::Ordering;
use std::collections::{BTreeMap, BTreeSet};

use crate::json::{Kind, push_token};
use crate::{Payload, value};

/// Deepest level of members that is examined.
const DEEPEST: usize = 16;
/// Largest number of constants that are compared per schema.
const MOST_VALUES: usize = 100;
/// A schema whose meaning is elsewhere.
const ELSEWHERE: [&str; 3] = ["$ref", "$dynamicRef", "$recursiveRef"];
/// Keywords that bound from below, each with those that bound the same from above, and whether the two may be equal.
const BOUNDS: [(&str, &str, bool, Kind); 7] = [
    ("minimum", "maximum", true, Kind::Number),
    ("exclusiveMinimum", "maximum", false, Kind::Number),
    ("minimum", "exclusiveMaximum", false, Kind::Number),
    ("exclusiveMinimum", "exclusiveMaximum", false, Kind::Number),
    ("minLength", "maxLength", true, Kind::String),
    ("minItems", "maxItems", true, Kind::Array),
    ("minProperties", "maxProperties", true, Kind::Object),
];

/// The members of a schema that is an object.
type Members = BTreeMap<String, Payload>;

/// Says where and why no document satisfies both schemas; `None` when one may.
pub(super) fn excluded(one: &Payload, other: &Payload) -> Option<String> {
    at(one, other, "", DEEPEST)
}

fn at(one: &Payload, other: &Payload, place: &str, deeper: usize) -> Option<String> {
    let tell = |what: &str| match place {
        "" => Some(what.to_owned()),
        place => Some(format!("at '{place}' {what}")),
    };
    if [one, other].iter().any(|schema| schema.text() == "false") {
        return tell("one of them allows nothing");
    }
    let (one, other) = (one.to::<Members>().ok()?, other.to::<Members>().ok()?);
    if deeper == 0 || is_unread(&one) || is_unread(&other) {
        return None;
    }
    let allowed = kinds(&other);
    let kinds: Vec<Kind> = kinds(&one).into_iter().filter(|kind| allowed.contains(kind)).collect();
    if kinds.is_empty() {
        return tell("their types exclude each other");
    }
    let [values, others] = [&one, &other].map(|members| constants(members, &kinds));
    let is_among = |all: &[Payload], one: &Payload| all.iter().any(|other| other.is_same_as(one));
    let none_is_left = match (&values, &others) {
        (Some(values), Some(others)) => !values.iter().any(|value| is_among(others, value)),
        (Some(values), None) | (None, Some(values)) => values.is_empty(),
        (None, None) => false,
    };
    if none_is_left {
        return tell("they allow no value in common");
    }
    let [kind] = kinds[..] else { return None };
    let mut bounds = BOUNDS.iter().filter(|bound| bound.3 == kind);
    if bounds.any(|bound| crosses(&one, &other, bound) || crosses(&other, &one, bound)) {
        return tell("their bounds exclude each other");
    }
    if kind != Kind::Object {
        return None;
    }
    let required: BTreeSet<String> = required(&one).chain(required(&other)).collect();
    required.iter().find_map(|name| {
        let mut place = place.to_owned();
        push_token(&mut place, name);
        let [own, others] = [&one, &other].map(|members| property(members, name));
        at(&own?, &others?, &place, deeper - 1)
    })
}

/// Returns whether a schema refers to another, or is of a draft in which keywords have another
/// meaning.
fn is_unread(schema: &Members) -> bool {
    let draft = schema.get("$schema").map_or("", Payload::text);
    ELSEWHERE.iter().any(|keyword| schema.contains_key(*keyword))
        || ["draft-03", "draft-04"].iter().any(|old| draft.contains(old))
}

/// Returns the kinds of documents that a schema allows.
fn kinds(schema: &Members) -> Vec<Kind> {
    const ALL: [Kind; 6] =
        [Kind::Null, Kind::Bool, Kind::Number, Kind::String, Kind::Array, Kind::Object];
    let Some(types) = schema.get("type") else { return ALL.to_vec() };
    let one = types.to::<String>().map(|one| vec![one]);
    let Ok(types) = one.or_else(|_| types.to::<Vec<String>>()) else { return ALL.to_vec() };
    let named = |kind: &Kind| {
        types.iter().any(|word| match word.as_str() {
            "null" => *kind == Kind::Null,
            "boolean" => *kind == Kind::Bool,
            "number" | "integer" => *kind == Kind::Number,
            "string" => *kind == Kind::String,
            "array" => *kind == Kind::Array,
            "object" => *kind == Kind::Object,
            // Its meaning is unknown.
            _ => true,
        })
    };
    ALL.into_iter().filter(named).collect()
}

/// Returns the values to which a schema limits documents of these kinds; `None` when there is no such limit, or a long
/// one.
fn constants(schema: &Members, kinds: &[Kind]) -> Option<Vec<Payload>> {
    let one = schema.get("const").map(|one| vec![one.clone()]);
    let all = one.or_else(|| schema.get("enum")?.elements())?;
    let allowed = |value: &Payload| kinds.contains(&Kind::of(value.text()));
    (all.len() <= MOST_VALUES).then(|| all.into_iter().filter(allowed).collect())
}

/// Returns whether the lower bound of one schema is above the upper bound of another.
fn crosses(one: &Members, other: &Members, bound: &(&str, &str, bool, Kind)) -> bool {
    let (low, high, may_be_equal, _) = bound;
    let Some((low, high)) = one.get(*low).zip(other.get(*high)) else { return false };
    // A bound of another kind, as older drafts have it, is no bound.
    match value::order(low.text(), high.text()) {
        Some(Ordering::Greater) => true,
        Some(Ordering::Equal) => !may_be_equal,
        _ => false,
    }
}

fn required(schema: &Members) -> impl Iterator<Item = String> {
    let names = schema.get("required").and_then(|names| names.to::<Vec<String>>().ok());
    names.unwrap_or_default().into_iter()
}

/// Returns the schema of the member `name`; `None` when nothing is known of it.
fn property(schema: &Members, name: &str) -> Option<Payload> {
    let of = |keyword: &str| schema.get(keyword);
    let own = of("properties").and_then(|all| all.to::<Members>().ok()?.get(name).cloned());
    let anything = || Payload::trusted("true".to_owned()).ok();
    match (own, of("patternProperties"), of("additionalProperties")) {
        (Some(own), ..) => Some(own),
        (None, None, Some(more)) => Some(more.clone()),
        (None, ..) => anything(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn found(one: &Value, other: &Value) -> Option<String> {
        let [one, other] = [one, other].map(|schema| Payload::of(schema).unwrap());
        let found = excluded(&one, &other);
        assert_eq!(found, excluded(&other, &one), "{one:?} {other:?}");
        found
    }

    #[test]
    fn schemas_that_exclude_each_other_are_found() {
        let object = |kind: Value| json!({"type": "object", "required": ["kind"], "properties": {"kind": kind}});
        for (one, other, wanted) in [
            (json!({"type": "object"}), json!({"type": ["array", "null"]}), "their types"),
            (json!(false), json!({}), "one of them allows nothing"),
            (json!({"const": 1}), json!({"enum": [2, 3]}), "no value in common"),
            (json!({"enum": ["a", "b"]}), json!({"type": "integer"}), "no value in common"),
            (
                object(json!({"const": "a"})),
                object(json!({"const": "b"})),
                "at '/kind' they allow no",
            ),
            (
                json!({"type": "object", "required": ["a/b"]}),
                json!({"properties": {}, "additionalProperties": false}),
                "at '/a~1b' one of them",
            ),
            (
                json!({"type": "integer", "minimum": 5}),
                json!({"type": "number", "exclusiveMaximum": 5}),
                "their bounds",
            ),
            (json!({"type": "string", "minLength": 3}), json!({"maxLength": 2}), "their bounds"),
        ] {
            let found = found(&one, &other);
            let found = found.as_deref().unwrap_or_default();
            assert!(found.contains(wanted), "{one} {other}: {found}");
        }
    }

    #[test]
    fn schemas_that_a_document_may_satisfy_are_not_taken_for_exclusive() {
        for (one, other) in [
            (json!({}), json!(true)),
            (json!({"type": "integer"}), json!({"type": "number"})),
            (json!({"const": 1}), json!({"enum": [1.0]})),
            (
                json!({"type": "object", "required": ["a"]}),
                json!({"type": "object", "required": ["b"]}),
            ),
            // An optional member may be left out, and a value that is no object has no members.
            (
                json!({"type": "object", "properties": {"a": {"const": 1}}}),
                json!({"type": "object", "properties": {"a": {"const": 2}}}),
            ),
            (
                json!({"required": ["a"], "properties": {"a": {"const": 1}}}),
                json!({"required": ["a"], "properties": {"a": {"const": 2}}}),
            ),
            (json!({"$ref": "#/$defs/a", "type": "string"}), json!({"type": "object"})),
            (json!({"type": "number", "minimum": 5}), json!({"type": "number", "maximum": 5})),
            (
                json!({"type": "object", "required": ["x1"]}),
                json!({"type": "object", "patternProperties": {"^x": {}}, "additionalProperties": false}),
            ),
        ] {
            assert_eq!(found(&one, &other), None, "{one} {other}");
        }
    }
}
