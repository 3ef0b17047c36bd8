//! Keywords and formats of JSON Schema, so that a misspelt one is found when a definition is registered.

use backstitch_saga::Violation;
use jsonschema::Draft;
use serde_json::Value;

use super::plan::token;

/// Keywords of drafts 4 to 2020-12, and of OpenAPI, which generators write.
const KEYWORDS: &[&str] = &[
    "$anchor",
    "$comment",
    "$defs",
    "$dynamicAnchor",
    "$dynamicRef",
    "$id",
    "$recursiveAnchor",
    "$recursiveRef",
    "$ref",
    "$schema",
    "$vocabulary",
    "additionalItems",
    "additionalProperties",
    "allOf",
    "anyOf",
    "const",
    "contains",
    "contentEncoding",
    "contentMediaType",
    "contentSchema",
    "default",
    "definitions",
    "dependencies",
    "dependentRequired",
    "dependentSchemas",
    "deprecated",
    "description",
    "discriminator",
    "else",
    "enum",
    "example",
    "examples",
    "exclusiveMaximum",
    "exclusiveMinimum",
    "externalDocs",
    "format",
    "id",
    "if",
    "items",
    "maxContains",
    "maxItems",
    "maxLength",
    "maxProperties",
    "maximum",
    "minContains",
    "minItems",
    "minLength",
    "minProperties",
    "minimum",
    "multipleOf",
    "not",
    "nullable",
    "oneOf",
    "pattern",
    "patternProperties",
    "prefixItems",
    "properties",
    "propertyNames",
    "readOnly",
    "required",
    "then",
    "title",
    "type",
    "unevaluatedItems",
    "unevaluatedProperties",
    "uniqueItems",
    "writeOnly",
    "xml",
];

/// Formats that are not checked: they say how a number or a text is held, as generators write them.
const FORMATS: &[&str] = &[
    "int8",
    "int16",
    "int32",
    "int64",
    "int128",
    "int",
    "uint8",
    "uint16",
    "uint32",
    "uint64",
    "uint128",
    "uint",
    "float",
    "double",
    "decimal",
    "byte",
    "binary",
    "password",
    "ip",
    "partial-date-time",
    "partial-time",
    "char",
    "html",
    "markdown",
    "semver",
    "commonmark",
    "unix-time",
    "media-range",
    "http-date",
    "base64url",
    "bytes",
    "idn-email",
    "idn-hostname",
];

/// Adds every keyword and format of `schema` that is none. Names that begin with `x-` are the author's own.
pub(super) fn check(schema: &Value, at: &str, found: &mut Vec<Violation>) {
    let draft = Draft::default().detect(schema);
    Check { draft, found }.schema(schema, at);
}

struct Check<'a> {
    draft: Draft,
    found: &'a mut Vec<Violation>,
}

impl Check<'_> {
    fn schema(&mut self, schema: &Value, at: &str) {
        let Value::Object(members) = schema else { return };
        for (name, value) in members {
            let at = format!("{at}/{}", token(name));
            self.keyword(name, &at);
            match (name.as_str(), value) {
                ("format", Value::String(format)) => self.format(format, &at),
                (
                    "$defs" | "definitions" | "properties" | "patternProperties"
                    | "dependentSchemas" | "dependencies",
                    Value::Object(map),
                ) => map
                    .iter()
                    .for_each(|(name, inner)| self.schema(inner, &format!("{at}/{}", token(name)))),
                ("allOf" | "anyOf" | "oneOf" | "prefixItems" | "items", Value::Array(list)) => {
                    list.iter()
                        .enumerate()
                        .for_each(|(index, inner)| self.schema(inner, &format!("{at}/{index}")));
                }
                (
                    "not"
                    | "if"
                    | "then"
                    | "else"
                    | "items"
                    | "additionalItems"
                    | "unevaluatedItems"
                    | "contains"
                    | "additionalProperties"
                    | "unevaluatedProperties"
                    | "propertyNames"
                    | "contentSchema",
                    inner,
                ) => self.schema(inner, &at),
                _ => {}
            }
        }
    }

    fn keyword(&mut self, name: &str, at: &str) {
        if KEYWORDS.contains(&name) || name.starts_with("x-") {
            return;
        }
        let meant = nearest(name, KEYWORDS)
            .map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
        let message = format!(
            "JSON Schema has no keyword `{name}`{meant} A name of your own begins with `x-`"
        );
        self.found.push(Violation::new(at, "unknown_keyword", message));
    }

    fn format(&mut self, format: &str, at: &str) {
        let known = jsonschema::options().is_known_format(self.draft, format)
            || jsonschema::options().is_known_format(Draft::Draft202012, format);
        if known || FORMATS.contains(&format) || format.starts_with("x-") {
            return;
        }
        let checked = [
            "date-time",
            "date",
            "time",
            "duration",
            "email",
            "hostname",
            "ipv4",
            "ipv6",
            "uri",
            "uuid",
            "regex",
        ];
        let meant = nearest(format, &checked)
            .map_or(String::new(), |meant| format!("; did you mean `{meant}`?"));
        let message =
            format!("there is no format `{format}`{meant} One of your own begins with `x-`");
        self.found.push(Violation::new(at, "unknown_format", message));
    }
}

/// Returns the name that differs from `name` in at most two characters, if there is one.
fn nearest<'a>(name: &str, names: &[&'a str]) -> Option<&'a str> {
    if name.len() > 40 {
        return None;
    }
    let (distance, nearest) = names
        .iter()
        .map(|other| (distance(name, other), *other))
        .min_by_key(|(distance, _)| *distance)?;
    (distance <= 2).then_some(nearest)
}

/// Returns the number of characters that must be changed, added or removed to turn one text into
/// the other.
fn distance(one: &str, other: &str) -> usize {
    let other: Vec<char> = other.chars().flat_map(char::to_lowercase).collect();
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (i, letter) in one.chars().flat_map(char::to_lowercase).enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, with) in other.iter().enumerate() {
            let changed = diagonal + usize::from(letter != *with);
            diagonal = row[j + 1];
            row[j + 1] = changed.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[other.len()]
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn found(schema: &Value) -> Vec<(String, String)> {
        let mut found = Vec::new();
        check(schema, "/s", &mut found);
        found.into_iter().map(|one| (one.pointer, one.code)).collect()
    }

    #[test]
    fn a_misspelt_keyword_or_format_is_found_wherever_a_schema_stands() {
        let schema = json!({ "typ": "object", "requird": ["a"], "properties": { "a": { "minLenght": 1 } },
            "$defs": { "b": { "items": { "anyOf": [{ "fromat": "date" }, { "format": "datetime" }] } } } });
        let places: Vec<_> = found(&schema);
        let expected = [
            ("/s/$defs/b/items/anyOf/0/fromat", "unknown_keyword"),
            ("/s/$defs/b/items/anyOf/1/format", "unknown_format"),
            ("/s/properties/a/minLenght", "unknown_keyword"),
            ("/s/requird", "unknown_keyword"),
            ("/s/typ", "unknown_keyword"),
        ];
        assert_eq!(places, expected.map(|(at, code)| (at.to_owned(), code.to_owned())));
    }

    #[test]
    fn documents_names_of_members_and_own_words_are_no_keywords() {
        let schema = json!({ "default": { "typ": 1 }, "const": { "requird": 1 }, "examples": [{ "x": 1 }],
            "properties": { "requird": { "type": "integer", "format": "uint32" } }, "x-ui": { "anything": 1 } });
        assert_eq!(found(&schema), []);
    }

    #[test]
    fn the_nearest_keyword_is_proposed() {
        assert_eq!(nearest("requird", KEYWORDS), Some("required"));
        assert_eq!(nearest("Type", KEYWORDS), Some("type"));
        assert_eq!(nearest("maxlenght", KEYWORDS), Some("maxLength"));
        assert_eq!(nearest("nothing-like-it", KEYWORDS), None);
    }
}
