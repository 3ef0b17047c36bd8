//! The work that evaluating a schema on a document takes at most, in visits: of one subschema to one part of the
//! document, or what takes as long. Counted by walking as an evaluation would that decides nothing early; the walk ends
//! when it has counted more than is allowed.

use serde_json::Value;

use super::pattern::Pattern;
use super::plan::{Plan, count};

/// Number of times that an evaluation may revisit a place, for `unevaluatedProperties` and the like.
const LOOKS_AGAIN: u64 = 8;
/// With so many other elements a list compares each, when it asks whether they differ.
const COMPARED: u64 = 16;

/// The evaluation would take more than is allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TooCostly;

/// Counts the visits of an evaluation of `plan` on `document`. Refuses more than `visits` of them, and a path of more
/// than `depth` subschemas.
pub(super) fn measure(
    plan: &Plan,
    document: &Value,
    visits: u64,
    depth: usize,
) -> Result<u64, TooCostly> {
    let mut meter = Meter { plan, left: visits, depth };
    meter.visit(0, document)?;
    Ok(visits - meter.left)
}

struct Meter<'a> {
    plan: &'a Plan,
    left: u64,
    depth: usize,
}

impl Meter<'_> {
    fn spend(&mut self, visits: u64) -> Result<(), TooCostly> {
        self.left = self.left.checked_sub(visits).ok_or(TooCostly)?;
        Ok(())
    }

    fn visit(&mut self, at: usize, value: &Value) -> Result<(), TooCostly> {
        let subschema = &self.plan.subschemas[at];
        self.spend(1 + subschema.own)?;
        self.depth = self.depth.checked_sub(1).ok_or(TooCostly)?;
        let members = match value {
            Value::String(text) => {
                self.text(&subschema.patterns, text)?;
                0
            }
            Value::Array(elements) => {
                if subschema.unique {
                    self.spend(count(value).saturating_mul(COMPARED))?;
                }
                for (index, element) in elements.iter().enumerate() {
                    let first = subschema.first.get(index);
                    for &to in first.into_iter().chain(&subschema.elements) {
                        self.visit(to, element)?;
                    }
                }
                elements.len()
            }
            Value::Object(members) => {
                for (name, member) in members {
                    self.member(at, name, member)?;
                }
                members.len()
            }
            _ => 0,
        };
        let before = self.left;
        for &to in &subschema.in_place {
            self.visit(to, value)?;
        }
        if subschema.unevaluated {
            let again = LOOKS_AGAIN.saturating_add(members as u64);
            self.spend((before - self.left).saturating_mul(again))?;
        }
        self.depth += 1;
        Ok(())
    }

    fn member(&mut self, at: usize, name: &str, value: &Value) -> Result<(), TooCostly> {
        let subschema = &self.plan.subschemas[at];
        if let Some(&to) = subschema.properties.get(name) {
            self.visit(to, value)?;
        }
        for (pattern, to) in &subschema.pattern_properties {
            self.spend(pattern.cost(name.len()))?;
            self.visit(*to, value)?;
        }
        for &to in &subschema.members {
            self.visit(to, value)?;
        }
        if !subschema.names.is_empty() {
            let name = Value::String(name.to_owned());
            for &to in &subschema.names {
                self.visit(to, &name)?;
            }
        }
        Ok(())
    }

    fn text(&mut self, patterns: &[Pattern], text: &str) -> Result<(), TooCostly> {
        self.spend(text.len() as u64 / 64)?;
        patterns.iter().try_for_each(|pattern| self.spend(pattern.cost(text.len())))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::super::limits::VISITS;
    use super::*;

    fn visits(schema: &Value, document: &Value) -> Result<u64, TooCostly> {
        measure(&Plan::read(schema).unwrap(), document, VISITS, 10_000)
    }

    fn nested(levels: usize) -> Value {
        (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }))
    }

    #[test]
    fn alternatives_that_recurse_are_refused_when_the_document_is_deep() {
        let branch = json!({ "type": "object", "required": ["a"], "properties": { "a": { "$ref": "#/$defs/n" } } });
        let schema = json!({ "$defs": { "n": { "oneOf": [branch, branch, { "type": "integer" }] } }, "$ref": "#/$defs/n" });
        assert!(visits(&schema, &nested(8)).unwrap() < 20_000);
        assert_eq!(visits(&schema, &nested(22)), Err(TooCostly));
    }

    #[test]
    fn texts_matched_by_going_back_are_bounded_in_number() {
        let schema = json!({ "contains": { "pattern": "^(a|a)*(?!x)b$" } });
        let texts = |n| Value::Array(vec![Value::String("a".repeat(42)); n]);
        assert!(visits(&schema, &texts(10)).is_ok());
        assert_eq!(visits(&schema, &texts(200)), Err(TooCostly));
    }

    #[test]
    fn a_large_document_of_an_ordinary_schema_is_within_bounds() {
        let schema = json!({ "type": "array", "items": { "type": "object", "required": ["id", "total"],
            "additionalProperties": false, "properties": {
                "id": { "type": "string", "format": "uuid" }, "total": { "type": "number", "minimum": 0 },
                "currency": { "enum": ["EUR", "USD"] }, "at": { "type": "string", "format": "date-time" } } } });
        let line = json!({ "id": "0198c0de-0000-7000-8000-000000000000", "total": 12.5, "currency": "EUR",
            "at": "2026-01-01T00:00:00Z" });
        let lines = 256 * 1024 / line.to_string().len();
        assert!(visits(&schema, &Value::Array(vec![line; lines])).unwrap() < VISITS / 4);
    }

    #[test]
    fn unevaluated_members_count_for_looking_again() {
        let inner =
            json!({ "anyOf": [{ "properties": { "a": {} } }, { "properties": { "b": {} } }] });
        let schema = |keyword: &str| json!({ "allOf": [inner], keyword: false });
        let document = json!({ "a": 1, "b": 2 });
        let plain = visits(&schema("additionalProperties"), &document).unwrap();
        let again = visits(&schema("unevaluatedProperties"), &document).unwrap();
        assert!(again > plain * 5, "{plain} {again}");
    }

    #[test]
    fn lists_that_must_differ_and_wide_objects_count() {
        let unique = json!({ "uniqueItems": true });
        let list = Value::Array((0..100_000).map(Value::from).collect());
        assert_eq!(visits(&unique, &list), Err(TooCostly));
        let wide: serde_json::Map<_, _> =
            (0..1_000).map(|i| (format!("p{i}"), json!({}))).collect();
        let schema = json!({ "items": { "properties": wide } });
        assert_eq!(visits(&schema, &Value::Array(vec![json!({}); 50_000])), Err(TooCostly));
    }
}
