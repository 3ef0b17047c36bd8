//! Validation of a document against a schema, in time proportional to the document.

use backstitch_saga::Violation;

use super::schema::{Kind, ListRule, Node, ObjectRule, Schema};
use crate::document::{Object, Pointer, Value};

/// The most violations that are listed.
pub const MOST_VIOLATIONS: usize = 100;

/// Treatment of members that a schema does not name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum World {
    /// They are refused: for what is written.
    Closed,
    /// They are left alone: for what is read.
    Open,
}

impl Schema {
    /// Returns everything that is wrong with `document`, [`MOST_VIOLATIONS`] at most.
    ///
    /// The codes: `type`, `enum`, `minimum`, `exclusiveMinimum`, `maximum`, `exclusiveMaximum`, `minLength`,
    /// `maxLength`, `pattern`, `format`, `minItems`, `maxItems`, `required`, and `unknown_member` in a closed world.
    #[must_use]
    pub fn violations(&self, document: &Value, world: World) -> Vec<Violation> {
        let mut check = Check { world, path: Pointer::default(), found: Vec::new() };
        check.value(&self.root, document);
        check.found
    }

    /// Returns whether `document` is valid.
    #[must_use]
    pub fn is_valid(&self, document: &Value, world: World) -> bool {
        self.root.first_violation(document, world).is_none()
    }
}

impl Node {
    /// Returns the first thing that is wrong with `value`.
    pub(crate) fn first_violation(&self, value: &Value, world: World) -> Option<Violation> {
        let mut check = Check { world, path: Pointer::default(), found: Vec::new() };
        check.value(self, value);
        check.found.into_iter().next()
    }
}

struct Check {
    world: World,
    path: Pointer,
    found: Vec<Violation>,
}

impl Check {
    fn wrong(&mut self, code: &str, message: String) {
        if self.found.len() < MOST_VIOLATIONS {
            self.found.push(Violation::new(self.path.to_string(), code, message));
        }
    }

    fn within(&mut self, token: &str, node: &Node, value: &Value) {
        self.path.push(token);
        self.value(node, value);
        self.path.pop();
    }

    fn value(&mut self, node: &Node, value: &Value) {
        if node.nullable && value.is_null() {
            return;
        }
        match (&*node.kind, value) {
            (Kind::Any, _) | (Kind::Null, Value::Null) | (Kind::Boolean, Value::Bool(_)) => {}
            (Kind::Choice(choices), value) => {
                if !choices.has(value) {
                    let few: Vec<String> = choices.iter().take(20).map(Value::to_json).collect();
                    self.wrong("enum", format!("the value is none of {}", few.join(", ")));
                }
            }
            (Kind::Number(rule), Value::Number(number)) => match rule.refuses(number) {
                Some("type") => self.wrong("type", "the number is not an integer".to_owned()),
                Some(keyword) => self.wrong(keyword, format!("the number breaks {keyword}")),
                None => {}
            },
            (Kind::Text(rule), Value::String(text)) => {
                if let Some(keyword) = rule.refuses(text) {
                    let rule = match rule {
                        super::TextRule::Pattern(pattern) => {
                            format!("the pattern {}", pattern.text())
                        }
                        super::TextRule::Format(format) => format!("the format {}", format.name()),
                        super::TextRule::Length { .. } => keyword.to_owned(),
                    };
                    self.wrong(keyword, format!("the text breaks {rule}"));
                }
            }
            (Kind::List(rule), Value::Array(elements)) => self.list(rule, elements),
            (Kind::Object(rule), Value::Object(members)) => self.object(rule, members),
            (kind, value) => {
                let null = if node.nullable { " or null" } else { "" };
                self.wrong("type", format!("{} is not {}{null}", value.words(), kind.words()));
            }
        }
    }

    fn list(&mut self, rule: &ListRule, elements: &[Value]) {
        let length = elements.len() as u64;
        if length < rule.min {
            self.wrong(
                "minItems",
                format!("the list has {length} elements, {} at least", rule.min),
            );
        }
        if let Some(max) = rule.max.filter(|max| length > *max) {
            self.wrong("maxItems", format!("the list has {length} elements, {max} at most"));
        }
        if let Some(items) = &rule.items {
            for (index, element) in elements.iter().enumerate() {
                if self.found.len() >= MOST_VIOLATIONS {
                    return;
                }
                self.within(&index.to_string(), items, element);
            }
        }
    }

    fn object(&mut self, rule: &ObjectRule, members: &Object) {
        let Some(known) = &rule.members else { return };
        let before = self.found.len();
        for (name, member) in known {
            match members.get(name) {
                Some(value) => self.within(name, &member.node, value),
                None if member.required => {
                    self.wrong("required", format!("the member '{name}' is missing"));
                }
                None => {}
            }
        }
        if self.world == World::Closed {
            for name in members.keys().filter(|name| !known.contains_key(*name)) {
                let shown: String = name.chars().take(100).collect();
                self.wrong("unknown_member", format!("'{shown}' is not a member of the contract"));
            }
        }
        if let Some(format) = rule.format
            && self.found.len() == before
            && !format.accepts_object(members)
        {
            self.wrong(
                "format",
                format!("the object is not {} in its canonical form", format.name()),
            );
        }
    }
}

impl Kind {
    /// Returns the word for people, with its article.
    pub(crate) fn words(&self) -> &'static str {
        match self {
            Kind::Any => "any value",
            Kind::Null => "null",
            Kind::Choice(_) => "one of the values",
            Kind::Boolean => "a boolean",
            Kind::Number(rule) if rule.integer => "an integer",
            Kind::Number(_) => "a number",
            Kind::Text(_) => "a string",
            Kind::List(_) => "a list",
            Kind::Object(_) => "an object",
        }
    }
}
