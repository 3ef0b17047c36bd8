//! Reads lists, objects and strings.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::super::format::Format;
use super::super::pattern::Pattern;
use super::super::schema::{Kind, ListRule, Member, Node, ObjectRule, TextRule};
use super::{MOST_PATTERNS, Parser};
use crate::document::{Object, Value};

impl Parser<'_> {
    pub(super) fn list(&mut self, keywords: &Object) -> Option<ListRule> {
        let items = match keywords.get("items") {
            None => None,
            Some(items) => {
                self.path.push("items");
                let node = self.node(items, false);
                self.path.pop();
                Some(Arc::new(node?))
            }
        };
        let (min, max) = self.lengths(keywords, "minItems", "maxItems")?;
        Some(ListRule { items, min, max })
    }

    pub(super) fn object(&mut self, keywords: &Object) -> Option<ObjectRule> {
        if let Some(format) = keywords.get("format") {
            return self.object_format(format, keywords);
        }
        let mut required = BTreeSet::new();
        match keywords.get("required") {
            None => {}
            Some(Value::Array(names)) => {
                for name in names {
                    match name.as_str() {
                        Some(name) => required.extend([name]),
                        None => self.refuse_at("required", "not_a_schema", "required lists names"),
                    }
                }
            }
            Some(_) => self.refuse_at("required", "not_a_schema", "required is a list"),
        }
        let Some(properties) = keywords.get("properties") else {
            if !required.is_empty() {
                let message = "name every required member in properties";
                self.refuse_at("required", "keyword_not_supported", message);
                return None;
            }
            return Some(ObjectRule { members: None, format: None });
        };
        let Some(properties) = properties.as_object() else {
            self.refuse_at("properties", "not_a_schema", "properties is an object of schemas");
            return None;
        };
        for name in required.iter().filter(|name| !properties.contains_key(**name)) {
            let message =
                format!("'{name}' is required and not named in properties; nobody could write it");
            self.refuse_at("required", "never_valid", message);
        }
        let mut members = BTreeMap::new();
        self.path.push("properties");
        for (name, schema) in properties {
            self.path.push(name);
            if let Some(node) = self.node(schema, false) {
                let required = required.contains(name.as_str());
                members.insert(name.clone(), Member { node: Arc::new(node), required });
            }
            self.path.pop();
        }
        self.path.pop();
        (members.len() == properties.len())
            .then_some(ObjectRule { members: Some(members), format: None })
    }

    fn object_format(&mut self, format: &Value, keywords: &Object) -> Option<ObjectRule> {
        let found = format.as_str().and_then(Format::of).filter(|format| format.is_of_objects());
        let Some(format) = found else {
            self.refuse_at(
                "format",
                "format_not_supported",
                "the formats of objects are money and quantity",
            );
            return None;
        };
        if keywords.contains_key("properties") || keywords.contains_key("required") {
            let message = format!("the format {} says which members there are", format.name());
            self.refuse_at("format", "keyword_not_supported", message);
            return None;
        }
        let place = self.path.to_string();
        let members = format.members().into_iter().map(|(name, format)| {
            let rule = match format {
                Some(format) => TextRule::Format(format),
                None => TextRule::Length { min: 1, max: Some(20) },
            };
            let node = Node::new(place.clone(), false, Kind::Text(rule));
            (name.to_owned(), Member { node: Arc::new(node), required: true })
        });
        Some(ObjectRule { members: Some(members.collect()), format: Some(format) })
    }

    pub(super) fn text(&mut self, keywords: &Object) -> Option<TextRule> {
        let named = ["format", "pattern", "minLength", "maxLength"];
        let has_length = keywords.contains_key("minLength") || keywords.contains_key("maxLength");
        let rules = [keywords.contains_key("format"), keywords.contains_key("pattern"), has_length];
        if rules.into_iter().filter(|has| *has).count() > 1 {
            let message =
                "a string has a format, a pattern or a length; say the length in the pattern";
            let second = named.into_iter().rev().find(|name| keywords.contains_key(*name));
            self.refuse_at(second.unwrap_or("type"), "keyword_not_supported", message);
            return None;
        }
        if let Some(format) = keywords.get("format") {
            let found =
                format.as_str().and_then(Format::of).filter(|format| !format.is_of_objects());
            if found.is_none() {
                let message = format!("the formats are {}", Format::names().join(", "));
                self.refuse_at("format", "format_not_supported", message);
            }
            return found.map(TextRule::Format);
        }
        if let Some(pattern) = keywords.get("pattern") {
            self.patterns += 1;
            if self.patterns > MOST_PATTERNS {
                let message = format!("a schema has at most {MOST_PATTERNS} patterns");
                self.refuse_at("pattern", "schema_too_large", message);
                return None;
            }
            let found = pattern.as_str().ok_or_else(|| "a pattern is a string".to_owned());
            return match found.and_then(Pattern::parse) {
                Ok(pattern) => Some(TextRule::Pattern(pattern)),
                Err(why) => {
                    self.refuse_at("pattern", "pattern_not_supported", why);
                    None
                }
            };
        }
        let (min, max) = self.lengths(keywords, "minLength", "maxLength")?;
        Some(TextRule::Length { min, max })
    }
}
