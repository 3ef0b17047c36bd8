//! Walks a schema beside documents, and notes which of its members and forms they have.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

/// The values found at a place; `None` stands for a member that is left out.
type Seen = BTreeSet<Option<String>>;

/// A walk over the named schemas of an OpenAPI document. A member is called `Task.queue`, a word of an enumeration
/// `Class=pivot`.
pub(super) struct Walk<'a> {
    schemas: &'a Value,
    seen: BTreeMap<String, Seen>,
    /// Members that cannot be left out, and words.
    required: BTreeSet<String>,
}

impl<'a> Walk<'a> {
    pub(super) fn of(schemas: &'a Value) -> Walk<'a> {
        Walk { schemas, seen: BTreeMap::new(), required: BTreeSet::new() }
    }

    /// Returns all members and words below the schema `name`, in order.
    pub(super) fn wanted(&self, name: &str) -> Vec<String> {
        let (mut wanted, mut names, mut open) =
            (BTreeSet::new(), BTreeSet::new(), vec![name.to_owned()]);
        while let Some(name) = open.pop() {
            if names.insert(name.clone()) {
                collect(&name, &self.schemas[name.as_str()], &mut wanted, &mut open);
            }
        }
        wanted.into_iter().collect()
    }

    /// Returns whether the word is used, or documents have different values at `place`: what may be left out and is
    /// always written the same may be out of the writer's hands.
    pub(super) fn is_written(&self, place: &str) -> bool {
        let least = if self.required.contains(place) { 1 } else { 2 };
        self.seen.get(place).is_some_and(|seen| seen.len() >= least)
    }

    /// Returns whether a document has a value at `place`.
    pub(super) fn is_said(&self, place: &str) -> bool {
        self.seen.get(place).is_some_and(|seen| seen.iter().any(Option::is_some))
    }

    /// Notes what `value` has of the schema `name`.
    pub(super) fn follow(&mut self, name: &str, value: &Value) {
        let schemas = self.schemas;
        self.within(name, &schemas[name], value);
    }

    fn within(&mut self, name: &str, schema: &'a Value, value: &Value) {
        if let Some(other) = target(schema) {
            return self.follow(&other, value);
        }
        if is_word(schema, value) {
            let place = format!("{name}={}", word(value));
            self.required.insert(place.clone());
            self.note(place, Some(value));
        }
        for form in forms(schema) {
            if fits(form, value) {
                self.within(name, form, value);
            }
        }
        if let (Some(items), Some(elements)) = (schema.get("items"), value.as_array()) {
            elements.iter().for_each(|element| self.within(name, items, element));
        }
        let Some(members) = value.as_object() else { return };
        if let Some(any) = schema.get("additionalProperties").filter(|any| any.is_object()) {
            members.values().for_each(|member| self.within(name, any, member));
        }
        for (member, of_member) in schema["properties"].as_object().into_iter().flatten() {
            let found = members.get(member);
            if schema["required"]
                .as_array()
                .is_some_and(|all| all.contains(&member.as_str().into()))
            {
                self.required.insert(format!("{name}.{member}"));
            }
            self.note(format!("{name}.{member}"), found);
            if let Some(found) = found {
                self.within(name, of_member, found);
            }
        }
    }

    fn note(&mut self, place: String, value: Option<&Value>) {
        self.seen.entry(place).or_default().insert(value.map(ToString::to_string));
    }
}

fn collect(name: &str, schema: &Value, wanted: &mut BTreeSet<String>, open: &mut Vec<String>) {
    if let Some(other) = target(schema) {
        return open.push(other);
    }
    for value in schema["enum"].as_array().into_iter().flatten() {
        wanted.insert(format!("{name}={}", word(value)));
    }
    for form in forms(schema) {
        collect(name, form, wanted, open);
    }
    for inner in [&schema["items"], &schema["additionalProperties"]] {
        if inner.is_object() {
            collect(name, inner, wanted, open);
        }
    }
    for (member, schema) in schema["properties"].as_object().into_iter().flatten() {
        wanted.insert(format!("{name}.{member}"));
        collect(name, schema, wanted, open);
    }
}

/// Returns the name of the schema that a reference leads to.
fn target(schema: &Value) -> Option<String> {
    let to = schema["$ref"].as_str()?;
    Some(to.rsplit('/').next().unwrap_or(to).to_owned())
}

fn forms(schema: &Value) -> impl Iterator<Item = &Value> {
    let lists = ["oneOf", "anyOf", "allOf"].into_iter();
    lists.filter_map(|list| schema[list].as_array()).flatten()
}

fn is_word(schema: &Value, value: &Value) -> bool {
    schema["enum"].as_array().is_some_and(|words| words.contains(value))
}

fn word(value: &Value) -> String {
    value.as_str().map_or_else(|| value.to_string(), str::to_owned)
}

/// Returns whether one of several forms is that of the value: it has the members that the form requires, or is one of
/// its words.
fn fits(form: &Value, value: &Value) -> bool {
    let required = form["required"].as_array().into_iter().flatten().filter_map(Value::as_str);
    let mut required = required.peekable();
    match value {
        Value::Null => form["type"] == "null",
        Value::Object(members) => {
            form.get("enum").is_none()
                && form["type"] != "null"
                && (target(form).is_some() || required.all(|member| members.contains_key(member)))
        }
        _ => form["type"] != "object" && (form.get("enum").is_none() || is_word(form, value)),
    }
}
