//! Names of fields in JSON. The compiler checks Rust's names and a definition needs those of JSON, which
//! attributes such as `rename_all` change; the JSON Schema that schemars derives knows both.

use schemars::generate::{Contract, SchemaSettings};
use schemars::{JsonSchema, Schema};
use serde_json::Value;

/// A field of a type, as it stands in JSON.
pub(crate) struct Property {
    /// Its name in JSON.
    pub(crate) name: String,
    /// Its value when the document leaves it out; `None` if it is always there.
    pub(crate) fallback: Option<Value>,
}

/// Returns the JSON Schema (draft 2020-12) of `T`, as it is read or as it is written.
pub(crate) fn of<T: JsonSchema>(contract: &Contract) -> Schema {
    SchemaSettings::draft2020_12()
        .with(|settings| settings.contract = contract.clone())
        .into_generator()
        .into_root_schema_for::<T>()
}

/// Finds the JSON properties for a path of Rust field names, from `T` on.
///
/// # Errors
/// The first field that has no JSON property of its own, with what to do about it.
pub(crate) fn properties<T: JsonSchema>(
    contract: &Contract,
    path: &[&str],
) -> Result<Vec<Property>, String> {
    let root = of::<T>(contract).to_value();
    let mut at = &root;
    let mut found = Vec::with_capacity(path.len());
    for field in path {
        let field = field.strip_prefix("r#").unwrap_or(field);
        let Some((object, name)) = spellings(field)
            .find_map(|name| object_with(&root, at, &name, 0).map(|object| (object, name)))
        else {
            return Err(format!(
                "the field `{field}` in `{}` of `{}` has no JSON property of that name; is it renamed, flattened or \
                 skipped by serde? Name its place with `.at(\"/…\")` instead",
                path.join("."),
                std::any::type_name::<T>(),
            ));
        };
        let schema = &object["properties"][&name];
        let required = object["required"]
            .as_array()
            .is_some_and(|all| all.iter().any(|required| required.as_str() == Some(name.as_str())));
        let fallback = (!required).then(|| schema.get("default").cloned().unwrap_or(Value::Null));
        found.push(Property { name, fallback });
        at = schema;
    }
    Ok(found)
}

/// Returns the names that a Rust field may have in JSON: its own, then what serde's `rename_all` makes of it.
fn spellings(field: &str) -> impl Iterator<Item = String> {
    let pascal: String = field
        .split('_')
        .map(|word| {
            let mut letters = word.chars();
            letters.next().map_or_else(String::new, |first| {
                first.to_uppercase().chain(letters).collect::<String>()
            })
        })
        .collect();
    let mut letters = pascal.chars();
    let camel = letters
        .next()
        .map_or_else(String::new, |first| first.to_lowercase().chain(letters).collect());
    [
        field.to_owned(),
        camel,
        pascal,
        field.replace('_', "-"),
        field.to_uppercase(),
        field.to_uppercase().replace('_', "-"),
    ]
    .into_iter()
}

/// Returns the object schema at or behind `schema` that has a property `name`: through `$ref`, `allOf`, `anyOf`,
/// `oneOf`.
fn object_with<'a>(
    root: &'a Value,
    schema: &'a Value,
    name: &str,
    depth: usize,
) -> Option<&'a Value> {
    if depth > 16 {
        return None;
    }
    if schema["properties"].get(name).is_some() {
        return Some(schema);
    }
    let reference = schema["$ref"].as_str().and_then(|to| root.pointer(to.strip_prefix('#')?));
    let branches =
        ["allOf", "anyOf", "oneOf"].into_iter().filter_map(|key| schema[key].as_array()).flatten();
    reference
        .into_iter()
        .chain(branches)
        .find_map(|branch| object_with(root, branch, name, depth + 1))
}

/// Returns whether a JSON Pointer leads to a place that the schema of `T` names. Open schemas (any value) name
/// everything.
pub(crate) fn has_place<T: JsonSchema>(contract: &Contract, pointer: &str) -> bool {
    let root = of::<T>(contract).to_value();
    let mut at = &root;
    for token in pointer.split('/').skip(1) {
        let token = token.replace("~1", "/").replace("~0", "~");
        if let Some(object) = object_with(&root, at, &token, 0) {
            at = &object["properties"][&token];
        } else {
            return is_open(&root, at, 0);
        }
    }
    true
}

/// Returns whether a schema does not restrict members, or allows others (maps, lists, any value).
fn is_open(root: &Value, schema: &Value, depth: usize) -> bool {
    if depth > 16 {
        return false;
    }
    let Some(object) = schema.as_object() else { return schema != &Value::Bool(false) };
    if let Some(to) = object.get("$ref").and_then(Value::as_str) {
        return to
            .strip_prefix('#')
            .and_then(|to| root.pointer(to))
            .is_some_and(|schema| is_open(root, schema, depth + 1));
    }
    for key in ["allOf", "anyOf", "oneOf"] {
        if let Some(branches) = object.get(key).and_then(Value::as_array) {
            return branches.iter().any(|branch| is_open(root, branch, depth + 1));
        }
    }
    let object_open = !object.contains_key("properties")
        || object.get("additionalProperties").is_some_and(|more| more != &Value::Bool(false));
    let open = |kind: &str| kind == "array" || (kind == "object" && object_open);
    match object.get("type") {
        None => true,
        Some(Value::Array(kinds)) => kinds.iter().filter_map(Value::as_str).any(open),
        Some(kind) => kind.as_str().is_some_and(open),
    }
}
