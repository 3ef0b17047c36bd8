//! Reads a JSON Schema of the checkable subset. Everything that is wrong is listed, with its place.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use backstitch_saga::Violation;

use super::schema::{Choices, Kind, Node, Schema};
use super::validate::{MOST_VIOLATIONS, World};
use crate::document::{Object, Pointer, Value};

mod scalar;
mod structure;

/// The most bytes of a schema.
pub const LARGEST_SCHEMA: usize = 65_536;
/// The most subschemas.
pub const MOST_NODES: usize = 2_000;
/// The most patterns: each may be large when it is compiled.
pub(crate) const MOST_PATTERNS: usize = 50;
/// The most values of an enum.
pub const LONGEST_ENUM: usize = 1_000;
/// The most levels, references followed: fewer than a document may have.
pub(crate) const DEEPEST: usize = 60;
/// The most values in the smallest valid document.
pub(crate) const LARGEST_LEAST: u64 = 10_000;
/// The most characters and elements that a schema may ask for or allow.
pub(crate) const LONGEST_LENGTH: u64 = 1_000_000;

/// Keywords that say nothing about validity.
const ANNOTATIONS: &[&str] = &[
    "title",
    "description",
    "examples",
    "default",
    "$comment",
    "deprecated",
    "readOnly",
    "writeOnly",
];
/// Keywords of the root alone.
const OF_THE_ROOT: &[&str] = &["$schema", "$id", "$defs", "definitions"];
/// Keywords that describe values.
const SUPPORTED: &[&str] = &[
    "$ref",
    "type",
    "enum",
    "const",
    "properties",
    "required",
    "items",
    "format",
    "pattern",
    "minLength",
    "maxLength",
    "minimum",
    "maximum",
    "exclusiveMinimum",
    "exclusiveMaximum",
    "minItems",
    "maxItems",
    "anyOf",
    "oneOf",
];

impl Schema {
    /// Reads a schema.
    ///
    /// # Errors
    /// Everything that is wrong: `schema_too_large`, `schema_too_deep`, `keyword_not_supported`, `not_a_schema`,
    /// `reference_not_supported`, `reference_cycle`, `format_not_supported`, `pattern_not_supported`, `never_valid`.
    pub fn parse(document: &Value) -> Result<Schema, Vec<Violation>> {
        if document.size() > LARGEST_SCHEMA {
            let message = format!("a schema has at most {LARGEST_SCHEMA} bytes");
            return Err(vec![Violation::new("", "schema_too_large", message)]);
        }
        let mut parser = Parser {
            definitions: document,
            known: BTreeMap::new(),
            open: BTreeSet::new(),
            path: Pointer::default(),
            nodes: 0,
            patterns: 0,
            wrong: Vec::new(),
        };
        let root = parser.node(document, true);
        for name in ["$defs", "definitions"] {
            let names = document.member(name).and_then(Value::as_object).into_iter().flatten();
            for (definition, _) in names {
                parser.reference(&format!("#{}", Pointer::default().child(name).child(definition)));
            }
        }
        match root {
            Some(root) if parser.wrong.is_empty() => {
                Ok(Schema { root: Arc::new(root), canonical: document.canonical() })
            }
            _ => {
                parser.wrong.truncate(MOST_VIOLATIONS);
                Err(parser.wrong)
            }
        }
    }
}

struct Parser<'a> {
    definitions: &'a Value,
    /// Definitions that were read, by their reference; `None` for one that is wrong.
    known: BTreeMap<String, Option<Arc<Node>>>,
    /// References that are being followed.
    open: BTreeSet<String>,
    path: Pointer,
    nodes: usize,
    patterns: usize,
    wrong: Vec<Violation>,
}

impl Parser<'_> {
    fn refuse(&mut self, code: &str, message: impl Into<String>) {
        if self.wrong.len() < MOST_VIOLATIONS {
            self.wrong.push(Violation::new(self.path.to_string(), code, message));
        }
    }

    fn refuse_at(&mut self, keyword: &str, code: &str, message: impl Into<String>) {
        self.path.push(keyword);
        self.refuse(code, message);
        self.path.pop();
    }

    /// Reads the subschema at `path`, and checks its measures.
    fn node(&mut self, schema: &Value, is_root: bool) -> Option<Node> {
        self.nodes += 1;
        if self.nodes > MOST_NODES {
            if self.nodes == MOST_NODES + 1 {
                self.refuse(
                    "schema_too_large",
                    format!("a schema has at most {MOST_NODES} subschemas"),
                );
            }
            return None;
        }
        if self.path.tokens().len() > DEEPEST * 2 {
            self.refuse("schema_too_deep", format!("subschemas may be nested {DEEPEST} deep"));
            return None;
        }
        let node = match schema {
            Value::Bool(true) => Node::any(self.path.to_string()),
            Value::Object(keywords) => self.of_keywords(keywords, is_root)?,
            _ => {
                self.refuse("not_a_schema", "a schema is an object, or true");
                return None;
            }
        };
        if node.depth > DEEPEST {
            self.refuse("schema_too_deep", format!("subschemas may be nested {DEEPEST} deep"));
            return None;
        }
        if node.least > LARGEST_LEAST {
            let message =
                format!("the smallest valid document has more than {LARGEST_LEAST} values");
            self.refuse("schema_too_large", message);
            return None;
        }
        Some(node)
    }

    fn of_keywords(&mut self, keywords: &Object, is_root: bool) -> Option<Node> {
        let before = self.wrong.len();
        for keyword in keywords.keys() {
            let known = SUPPORTED.contains(&keyword.as_str())
                || ANNOTATIONS.contains(&keyword.as_str())
                || (is_root && OF_THE_ROOT.contains(&keyword.as_str()));
            if !known {
                let message = match keyword.as_str() {
                    "additionalProperties" | "unevaluatedProperties" => {
                        "members that the contract does not name are refused when written and left alone when read; leave the keyword out".to_owned()
                    }
                    _ => format!("contracts consist of {}", SUPPORTED.join(", ")),
                };
                self.refuse_at(keyword, "keyword_not_supported", message);
            }
        }
        let of_values: Vec<&str> =
            SUPPORTED.iter().copied().filter(|keyword| keywords.contains_key(*keyword)).collect();
        let alone =
            ["$ref", "anyOf", "oneOf"].into_iter().find(|keyword| of_values.contains(keyword));
        if let Some(alone) = alone
            && of_values.len() > 1
        {
            let message = format!("beside {alone} stands no other keyword that describes values");
            self.refuse_at(alone, "keyword_not_supported", message);
        }
        if self.wrong.len() > before {
            return None;
        }
        match alone {
            Some("$ref") => self.of_reference(keywords.get("$ref")?),
            Some(union) => self.of_union(union, keywords.get(union)?),
            None => self.of_values(keywords),
        }
    }

    fn of_reference(&mut self, reference: &Value) -> Option<Node> {
        let Some(reference) = reference.as_str() else {
            self.refuse_at("$ref", "not_a_schema", "a reference is a string");
            return None;
        };
        self.reference(reference).map(|node| Node::clone(&node))
    }

    /// Returns the definition that a reference names, read once.
    fn reference(&mut self, reference: &str) -> Option<Arc<Node>> {
        if let Some(known) = self.known.get(reference) {
            return known.clone();
        }
        let pointer = reference.strip_prefix('#').and_then(|pointer| Pointer::parse(pointer).ok());
        let found = pointer.as_ref().and_then(|pointer| {
            let of_definitions = pointer.tokens().len() == 2
                && matches!(pointer.tokens()[0].as_str(), "$defs" | "definitions");
            if of_definitions { pointer.find(self.definitions) } else { None }
        });
        let (Some(pointer), Some(found)) = (pointer, found) else {
            let shown: String = reference.chars().take(100).collect();
            let message = format!(
                "'{shown}' is no reference to a definition of this schema (#/$defs/NAME); nothing is fetched"
            );
            self.refuse_at("$ref", "reference_not_supported", message);
            return None;
        };
        if !self.open.insert(reference.to_owned()) {
            let message =
                format!("'{reference}' leads back to itself; contracts are not recursive");
            self.refuse_at("$ref", "reference_cycle", message);
            return None;
        }
        let outer = std::mem::replace(&mut self.path, pointer);
        let node = self.node(found, false).map(Arc::new);
        self.path = outer;
        self.open.remove(reference);
        self.known.insert(reference.to_owned(), node.clone());
        node
    }

    /// Reads a union: one schema and `null`, or constants.
    fn of_union(&mut self, keyword: &str, branches: &Value) -> Option<Node> {
        let Some(branches) = branches.as_array().filter(|branches| !branches.is_empty()) else {
            self.refuse_at(keyword, "not_a_schema", "a union is a list of schemas");
            return None;
        };
        let mut nodes = Vec::new();
        self.path.push(keyword);
        for (index, branch) in branches.iter().enumerate() {
            self.path.push(&index.to_string());
            let node = self.node(branch, false);
            self.path.pop();
            nodes.push(node);
        }
        self.path.pop();
        let nodes: Vec<Node> = nodes.into_iter().collect::<Option<_>>()?;
        let (nulls, others): (Vec<Node>, Vec<Node>) =
            nodes.into_iter().partition(|node| matches!(*node.kind, Kind::Null));
        let place = self.path.to_string();
        match &others[..] {
            [] => return Some(Node::new(place, false, Kind::Null)),
            [only] if nulls.len() <= 1 => {
                if keyword == "oneOf" && only.allows_null() && !nulls.is_empty() {
                    self.refuse_at(
                        keyword,
                        "never_valid",
                        "null is valid in two branches, so that it is in none",
                    );
                    return None;
                }
                let nullable = only.nullable || !nulls.is_empty();
                return Some(Node { nullable, ..only.clone() });
            }
            _ => {}
        }
        let mut values = Vec::new();
        for node in others.iter().chain(&nulls) {
            match &*node.kind {
                Kind::Choice(choices) if !node.nullable => values.extend(choices.iter().cloned()),
                Kind::Null => values.push(Value::Null),
                _ => {
                    let message = "a union is one schema and null, or consists of constants";
                    self.refuse_at(keyword, "keyword_not_supported", message);
                    return None;
                }
            }
        }
        self.choice(keyword, &values, keyword == "anyOf")
    }

    /// Creates a node of a set of values.
    fn choice(&mut self, keyword: &str, values: &[Value], may_repeat: bool) -> Option<Node> {
        if values.is_empty() || values.len() > LONGEST_ENUM {
            self.refuse_at(
                keyword,
                "not_a_schema",
                format!("an enum has 1 to {LONGEST_ENUM} values"),
            );
            return None;
        }
        if values.iter().any(|value| matches!(value, Value::Array(_) | Value::Object(_))) {
            let message = "an enum consists of strings, numbers, true, false and null";
            self.refuse_at(keyword, "keyword_not_supported", message);
            return None;
        }
        let mut seen = BTreeSet::new();
        let mut distinct = Vec::with_capacity(values.len());
        for value in values {
            if seen.insert(value.canonical()) {
                distinct.push(value.clone());
            } else if !may_repeat {
                self.refuse_at(
                    keyword,
                    "not_a_schema",
                    format!("{} stands twice", value.canonical()),
                );
                return None;
            }
        }
        Some(Node::new(self.path.to_string(), false, Kind::Choice(Choices::new(distinct))))
    }

    fn of_values(&mut self, keywords: &Object) -> Option<Node> {
        let values = match (keywords.get("enum"), keywords.get("const")) {
            (Some(_), Some(_)) => {
                self.refuse_at("const", "keyword_not_supported", "enum and const stand apart");
                return None;
            }
            (Some(Value::Array(values)), None) => Some(("enum", values.clone())),
            (Some(_), None) => {
                self.refuse_at("enum", "not_a_schema", "an enum is a list");
                return None;
            }
            (None, Some(value)) => Some(("const", vec![value.clone()])),
            (None, None) => None,
        };
        let typed = self.typed(keywords)?;
        let Some((keyword, values)) = values else { return Some(typed) };
        let node = self.choice(keyword, &values, false)?;
        for value in &values {
            if let Some(why) = typed.first_violation(value, World::Closed) {
                let message = format!("{} can never be valid: {}", value.canonical(), why.message);
                self.refuse_at(keyword, "never_valid", message);
                return None;
            }
        }
        Some(node)
    }

    /// Reads the members beside `enum`: a type, perhaps with null, and its keywords.
    fn typed(&mut self, keywords: &Object) -> Option<Node> {
        let (name, nullable) = self.type_name(keywords)?;
        let place = self.path.to_string();
        let belongs = |keyword: &str| -> &[&str] {
            match keyword {
                "properties" | "required" => &["object"],
                "items" | "minItems" | "maxItems" => &["array"],
                "pattern" | "minLength" | "maxLength" => &["string"],
                "minimum" | "maximum" | "exclusiveMinimum" | "exclusiveMaximum" => {
                    &["integer", "number"]
                }
                _ => &["string", "object", "integer", "number"],
            }
        };
        let before = self.wrong.len();
        for keyword in keywords.keys().filter(|keyword| SUPPORTED.contains(&keyword.as_str())) {
            let free = matches!(keyword.as_str(), "type" | "enum" | "const");
            if !free && !name.is_some_and(|name| belongs(keyword).contains(&name)) {
                let message = format!(
                    "{keyword} belongs to the type {}; name it",
                    belongs(keyword).join(" or ")
                );
                self.refuse_at(keyword, "keyword_not_supported", message);
            }
        }
        if self.wrong.len() > before {
            return None;
        }
        let kind = match name {
            None => Kind::Any,
            Some("null") => Kind::Null,
            Some("boolean") => Kind::Boolean,
            Some("string") => Kind::Text(self.text(keywords)?),
            Some("array") => Kind::List(self.list(keywords)?),
            Some("object") => Kind::Object(self.object(keywords)?),
            Some(number) => Kind::Number(self.number(keywords, number == "integer")?),
        };
        Some(Node::new(place, nullable, kind))
    }

    /// Returns the type, and whether null is allowed beside it.
    fn type_name(&mut self, keywords: &Object) -> Option<(Option<&'static str>, bool)> {
        let of = |value: &Value| {
            let names = ["null", "boolean", "integer", "number", "string", "array", "object"];
            names.into_iter().find(|name| value.as_str() == Some(name))
        };
        let found = match keywords.get("type") {
            None => return Some((None, false)),
            Some(Value::Array(names)) => {
                match names.iter().map(of).collect::<Option<Vec<_>>>().as_deref() {
                    Some([name]) => Some((*name, false)),
                    Some([name, "null"] | ["null", name]) if *name != "null" => Some((*name, true)),
                    _ => None,
                }
            }
            Some(name) => of(name).map(|name| (name, false)),
        };
        if found.is_none() {
            let message = "a type is one of null, boolean, integer, number, string, array, object, or a list of one of them and null";
            self.refuse_at("type", "keyword_not_supported", message);
        }
        found.map(|(name, nullable)| (Some(name), nullable))
    }
}
