//! The subschemas of a JSON Schema with what each examines: read before the schema is compiled, to bound the cost of
//! compiling and evaluating it. An upper bound needs no exactness: if drafts differ, all readings count.

use std::collections::HashMap;

use backstitch_saga::Violation;
use serde_json::{Map, Value};

use super::limits::{
    DEPTH, DEPTH_IN_PLACE, PATTERN_BYTES, PATTERN_STATES, PATTERNS, SCHEMA_STATES, SUBSCHEMAS,
};
use super::pattern::Pattern;

/// One subschema.
#[derive(Debug, Default)]
pub(super) struct Subschema {
    /// Visits that its own keywords count for, on any value.
    pub(super) own: u64,
    /// Patterns that it matches texts with.
    pub(super) patterns: Vec<Pattern>,
    /// It asks whether the elements of a list differ.
    pub(super) unique: bool,
    /// Subschemas for the same value.
    pub(super) in_place: Vec<usize>,
    /// `true` if the members that others evaluated are determined by evaluating those once more,
    /// for each member.
    pub(super) unevaluated: bool,
    pub(super) properties: HashMap<String, usize>,
    pub(super) pattern_properties: Vec<(Pattern, usize)>,
    /// Subschemas for all members of an object.
    pub(super) members: Vec<usize>,
    /// Subschemas for the names of members.
    pub(super) names: Vec<usize>,
    /// Subschemas for the first elements of a list.
    pub(super) first: Vec<usize>,
    /// Subschemas for all elements of a list.
    pub(super) elements: Vec<usize>,
}

/// All subschemas that are reached from the schema itself, which is the first.
#[derive(Debug, Default)]
pub(super) struct Plan {
    pub(super) subschemas: Vec<Subschema>,
    /// States of all patterns.
    pub(super) states: u64,
}

/// The reason for which a schema has no plan, and its place.
pub(super) type Fault = Violation;

impl Plan {
    /// Reads `schema`, which is nested at most 64 deep.
    pub(super) fn read(schema: &Value) -> Result<Plan, Fault> {
        let mut reader = Reader {
            root: schema,
            plan: Plan::default(),
            known: HashMap::new(),
            anchors: HashMap::new(),
            patterns: 0,
        };
        reader.no_inner_ids(schema, "", true)?;
        reader.find_anchors(schema);
        let expanded = reader.read(schema, "", 0)?.1;
        if expanded > SUBSCHEMAS {
            let message = format!(
                "more than {SUBSCHEMAS} subschemas when each `$ref` is written out; refer to fewer, or from fewer places"
            );
            return Err(Violation::new("", "schema_too_complex", message));
        }
        reader.plan.check_in_place()?;
        Ok(reader.plan)
    }

    /// Refuses subschemas that refer to themselves without going down into the document, and long ways to go on one
    /// spot.
    fn check_in_place(&self) -> Result<(), Fault> {
        let mut waits_for: Vec<usize> = vec![0; self.subschemas.len()];
        for subschema in &self.subschemas {
            subschema.in_place.iter().for_each(|&to| waits_for[to] += 1);
        }
        let mut depth = vec![1_usize; self.subschemas.len()];
        let mut ready: Vec<usize> = (0..waits_for.len()).filter(|&at| waits_for[at] == 0).collect();
        let mut done = 0;
        while let Some(at) = ready.pop() {
            done += 1;
            for &to in &self.subschemas[at].in_place {
                depth[to] = depth[to].max(depth[at] + 1);
                waits_for[to] -= 1;
                if waits_for[to] == 0 {
                    ready.push(to);
                }
            }
        }
        if done < self.subschemas.len() {
            let message = "a subschema refers to itself without going down into the document, so that it would never end";
            return Err(Violation::new("", "endless_reference", message));
        }
        if depth.iter().any(|&depth| depth > DEPTH_IN_PLACE) {
            let message = format!(
                "more than {DEPTH_IN_PLACE} subschemas, one within the other, for the same value"
            );
            return Err(Violation::new("", "schema_too_deep", message));
        }
        Ok(())
    }
}

struct Reader<'a> {
    root: &'a Value,
    plan: Plan,
    /// By address: the subschema, and its expanded number of subschemas; `None` while it is being read.
    known: HashMap<*const Value, (usize, Option<u64>)>,
    anchors: HashMap<&'a str, Vec<&'a Value>>,
    patterns: usize,
}

impl<'a> Reader<'a> {
    /// Refuses schemas with addresses of their own within the schema: what `#` means must be one thing.
    fn no_inner_ids(&self, value: &'a Value, at: &str, outermost: bool) -> Result<(), Fault> {
        match value {
            Value::Object(members) => {
                let draft_4 =
                    self.root["$schema"].as_str().is_some_and(|uri| uri.contains("draft-04"));
                let has = |name: &str| members.get(name).is_some_and(Value::is_string);
                if !outermost && (has("$id") || (draft_4 && has("id"))) {
                    let message = "a schema within the schema must not have an address of its own; use `$defs` and `$ref` with `#/$defs/…`";
                    return Err(Violation::new(
                        format!("{at}/$id"),
                        "unsupported_reference",
                        message,
                    ));
                }
                members.iter().try_for_each(|(name, member)| {
                    self.no_inner_ids(member, &format!("{at}/{}", token(name)), false)
                })
            }
            Value::Array(elements) => {
                elements.iter().enumerate().try_for_each(|(index, element)| {
                    self.no_inner_ids(element, &format!("{at}/{index}"), false)
                })
            }
            _ => Ok(()),
        }
    }

    fn find_anchors(&mut self, value: &'a Value) {
        match value {
            Value::Object(members) => {
                for name in ["$anchor", "$dynamicAnchor"] {
                    if let Some(Value::String(anchor)) = members.get(name) {
                        self.anchors.entry(anchor).or_default().push(value);
                    }
                }
                members.values().for_each(|member| self.find_anchors(member));
            }
            Value::Array(elements) => {
                elements.iter().for_each(|element| self.find_anchors(element));
            }
            _ => {}
        }
    }

    /// Reads a subschema. Returns its place in the plan and its expanded number of subschemas; one that is being read
    /// counts as one.
    fn read(&mut self, schema: &'a Value, at: &str, depth: usize) -> Result<(usize, u64), Fault> {
        let address: *const Value = schema;
        if let Some((place, expanded)) = self.known.get(&address) {
            return Ok((*place, expanded.unwrap_or(1)));
        }
        if depth > DEPTH {
            let message = format!(
                "a path of more than {DEPTH} subschemas, each within or referred to by the one before"
            );
            return Err(Violation::new(at, "schema_too_deep", message));
        }
        let place = self.plan.subschemas.len();
        self.plan.subschemas.push(Subschema::default());
        self.known.insert(address, (place, None));
        let mut expanded = 1_u64;
        if let Value::Object(members) = schema {
            let mut subschema = Subschema { own: members.len() as u64, ..Subschema::default() };
            for (name, value) in members {
                let at = format!("{at}/{}", token(name));
                let more = self.keyword(&mut subschema, name, value, &at, depth + 1)?;
                expanded = expanded.saturating_add(more);
            }
            self.plan.subschemas[place] = subschema;
        }
        self.known.insert(address, (place, Some(expanded)));
        Ok((place, expanded))
    }

    fn keyword(
        &mut self,
        subschema: &mut Subschema,
        name: &str,
        value: &'a Value,
        at: &str,
        depth: usize,
    ) -> Result<u64, Fault> {
        match (name, value) {
            ("$ref" | "$dynamicRef" | "$recursiveRef", Value::String(reference)) => {
                self.all(&mut subschema.in_place, self.targets(reference, at)?, at, depth)
            }
            ("allOf" | "anyOf" | "oneOf", Value::Array(list)) => {
                self.all(&mut subschema.in_place, list.iter().collect(), at, depth)
            }
            ("not" | "if" | "then" | "else", one) => {
                self.all(&mut subschema.in_place, vec![one], at, depth)
            }
            ("dependentSchemas" | "dependencies", Value::Object(map)) => {
                let schemas = map.values().filter(|value| !value.is_array()).collect();
                self.all(&mut subschema.in_place, schemas, at, depth)
            }
            ("items" | "prefixItems", Value::Array(list)) => {
                self.all(&mut subschema.first, list.iter().collect(), at, depth)
            }
            ("items" | "additionalItems" | "contains" | "unevaluatedItems", one) => {
                subschema.unevaluated |= name == "unevaluatedItems";
                self.all(&mut subschema.elements, vec![one], at, depth)
            }
            ("additionalProperties" | "unevaluatedProperties", one) => {
                subschema.unevaluated |= name == "unevaluatedProperties";
                self.all(&mut subschema.members, vec![one], at, depth)
            }
            ("propertyNames", one) => self.all(&mut subschema.names, vec![one], at, depth),
            ("properties", Value::Object(map)) => self.properties(subschema, map, at, depth),
            ("patternProperties", Value::Object(map)) => {
                let mut expanded = 0_u64;
                for (pattern, schema) in map {
                    let pattern = self.pattern(pattern, at)?;
                    let (place, more) = self.read(schema, at, depth)?;
                    subschema.pattern_properties.push((pattern, place));
                    expanded = expanded.saturating_add(more);
                }
                Ok(expanded)
            }
            ("pattern", Value::String(pattern)) => {
                let pattern = self.pattern(pattern, at)?;
                subschema.patterns.push(pattern);
                Ok(0)
            }
            ("uniqueItems", Value::Bool(true)) => {
                subschema.unique = true;
                Ok(0)
            }
            ("enum" | "const" | "required" | "dependentRequired" | "type", value) => {
                subschema.own = subschema.own.saturating_add(count(value));
                Ok(0)
            }
            ("format" | "contentMediaType" | "contentEncoding", Value::String(_)) => {
                // Each reads the text once, in a few steps for each character.
                subschema.patterns.push(Pattern { states: 0, places: 8, backtracks: false });
                Ok(0)
            }
            _ => Ok(0),
        }
    }

    fn properties(
        &mut self,
        subschema: &mut Subschema,
        map: &'a Map<String, Value>,
        at: &str,
        depth: usize,
    ) -> Result<u64, Fault> {
        subschema.own = subschema.own.saturating_add(map.len() as u64);
        let mut expanded = 0_u64;
        for (name, schema) in map {
            let (place, more) = self.read(schema, &format!("{at}/{}", token(name)), depth)?;
            subschema.properties.insert(name.clone(), place);
            expanded = expanded.saturating_add(more);
        }
        Ok(expanded)
    }

    fn all(
        &mut self,
        places: &mut Vec<usize>,
        schemas: Vec<&'a Value>,
        at: &str,
        depth: usize,
    ) -> Result<u64, Fault> {
        let mut expanded = 0_u64;
        for schema in schemas {
            let (place, more) = self.read(schema, at, depth)?;
            places.push(place);
            expanded = expanded.saturating_add(more);
        }
        Ok(expanded)
    }

    /// Returns the subschemas that a reference may mean.
    fn targets(&self, reference: &str, at: &str) -> Result<Vec<&'a Value>, Fault> {
        let own = self.root["$id"].as_str().or_else(|| self.root["id"].as_str());
        let rest =
            own.map(|own| own.trim_end_matches('#')).and_then(|own| reference.strip_prefix(own));
        let local =
            rest.filter(|rest| rest.is_empty() || rest.starts_with('#')).unwrap_or(reference);
        let Some(fragment) = local.strip_prefix('#').or_else(|| local.is_empty().then_some(""))
        else {
            let message = format!(
                "'{reference}' leads out of the schema; only references that begin with `#` are followed"
            );
            return Err(Violation::new(at, "unsupported_reference", message));
        };
        let nowhere = || {
            let message = format!("there is no subschema '{reference}'");
            Violation::new(at, "unknown_reference", message)
        };
        if fragment.is_empty() {
            return Ok(vec![self.root]);
        }
        let fragment = percent_decoded(fragment).ok_or_else(nowhere)?;
        if fragment.starts_with('/') {
            return self.root.pointer(&fragment).map(|found| vec![found]).ok_or_else(nowhere);
        }
        self.anchors.get(fragment.as_str()).cloned().ok_or_else(nowhere)
    }

    fn pattern(&mut self, text: &str, at: &str) -> Result<Pattern, Fault> {
        self.patterns += 1;
        if self.patterns > PATTERNS {
            let message = format!("a schema may have {PATTERNS} patterns");
            return Err(Violation::new(at, "too_many_patterns", message));
        }
        let pattern = Pattern::read(text);
        if text.len() > PATTERN_BYTES || pattern.states > PATTERN_STATES {
            let message = format!(
                "a pattern may have {PATTERN_BYTES} bytes, and {PATTERN_STATES} states when its repetitions are written out; \
                 this has {} bytes and about {} states",
                text.len(),
                pattern.states
            );
            return Err(Violation::new(at, "pattern_too_large", message));
        }
        self.plan.states = self.plan.states.saturating_add(pattern.states);
        if self.plan.states > SCHEMA_STATES {
            let message = format!(
                "all patterns of a schema may have {SCHEMA_STATES} states when their repetitions are written out"
            );
            return Err(Violation::new(at, "patterns_too_large", message));
        }
        Ok(pattern)
    }
}

/// Returns the number of values in a document, itself included.
pub(super) fn count(value: &Value) -> u64 {
    match value {
        Value::Array(elements) => elements.iter().map(count).fold(1, u64::saturating_add),
        Value::Object(members) => members.values().map(count).fold(1, u64::saturating_add),
        Value::String(text) => 1 + text.len() as u64 / 64,
        _ => 1,
    }
}

/// Returns a name as a reference token of a JSON Pointer.
pub(super) fn token(name: &str) -> String {
    name.replace('~', "~0").replace('/', "~1")
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, more)) = rest.split_first() {
        rest = more;
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn code(schema: &Value) -> String {
        Plan::read(schema).err().map_or_else(|| "fine".to_owned(), |fault| fault.code)
    }

    /// Returns definitions `a0` to `a<n>`, each of which refers twice to the next.
    fn doubling(n: usize, keyword: &str) -> Value {
        let mut defs = Map::new();
        for i in 0..n {
            let next = json!({ "$ref": format!("#/$defs/a{}", i + 1) });
            defs.insert(format!("a{i}"), json!({ keyword: [next, next] }));
        }
        defs.insert(format!("a{n}"), json!({ "type": "string" }));
        json!({ "$defs": defs, "$ref": "#/$defs/a0" })
    }

    #[test]
    fn references_that_double_are_refused_beyond_the_bound() {
        assert_eq!(code(&doubling(8, "allOf")), "fine");
        for keyword in ["allOf", "anyOf", "oneOf"] {
            assert_eq!(code(&doubling(28, keyword)), "schema_too_complex", "{keyword}");
        }
        let mut down = doubling(28, "allOf");
        for i in 0..28 {
            let next = json!({ "$ref": format!("#/$defs/a{}", i + 1) });
            down["$defs"][format!("a{i}")] = json!({ "properties": { "x": next, "y": next } });
        }
        assert_eq!(code(&down), "schema_too_complex");
    }

    #[test]
    fn recursion_is_allowed_where_it_goes_down_into_the_document() {
        let tree = json!({ "type": "object", "properties": { "next": { "$ref": "#" } } });
        assert_eq!(code(&tree), "fine");
        for endless in [
            json!({ "$ref": "#" }),
            json!({ "allOf": [{ "anyOf": [{ "$ref": "#" }] }] }),
            json!({ "$defs": { "a": { "not": { "$ref": "#/$defs/b" } }, "b": { "if": { "$ref": "#/$defs/a" } } },
                "properties": { "x": { "$ref": "#/$defs/b" } } }),
            json!({ "$dynamicAnchor": "n", "$dynamicRef": "#n" }),
        ] {
            assert_eq!(code(&endless), "endless_reference", "{endless}");
        }
    }

    #[test]
    fn references_out_of_the_schema_or_to_nothing_are_refused() {
        assert_eq!(
            code(&json!({ "$ref": "https://json-schema.org/draft/2020-12/schema" })),
            "unsupported_reference"
        );
        assert_eq!(
            code(&json!({ "properties": { "a": { "$id": "http://x/", "type": "string" } } })),
            "unsupported_reference"
        );
        assert_eq!(
            code(
                &json!({ "$id": "http://x/", "properties": { "a": { "$ref": "http://x/#/$defs/b" } }, "$defs": { "b": {} } })
            ),
            "fine"
        );
        assert_eq!(code(&json!({ "$ref": "#/$defs/nothing" })), "unknown_reference");
        assert_eq!(
            code(
                &json!({ "properties": { "a": { "$ref": "#a%20b" } }, "$defs": { "a": { "$anchor": "a b" } } })
            ),
            "fine"
        );
    }

    #[test]
    fn patterns_are_bounded_in_number_and_size() {
        let patterns =
            |n: usize, text: &str| json!({ "allOf": vec![json!({ "pattern": text }); n] });
        assert_eq!(code(&patterns(60, "^[A-Z]{2}[0-9]{2}$")), "fine");
        assert_eq!(code(&patterns(65, "a")), "too_many_patterns");
        assert_eq!(code(&patterns(1, r"(?i)\p{L}{200}0")), "pattern_too_large");
        assert_eq!(code(&patterns(40, r"(?i)\p{L}{60}")), "patterns_too_large");
        assert_eq!(code(&patterns(1, &"a".repeat(1_001))), "pattern_too_large");
    }

    #[test]
    fn long_paths_are_refused() {
        let mut nested = json!({});
        for _ in 0..DEPTH_IN_PLACE {
            nested = json!({ "allOf": [nested] });
        }
        assert_eq!(code(&nested), "schema_too_deep");
        let mut defs = Map::new();
        for i in 0..300 {
            let next = json!({ "$ref": format!("#/$defs/a{}", i + 1) });
            defs.insert(format!("a{i}"), json!({ "properties": { "x": next } }));
        }
        defs.insert("a300".to_owned(), json!({}));
        assert_eq!(code(&json!({ "$defs": defs, "$ref": "#/$defs/a0" })), "schema_too_deep");
    }
}
