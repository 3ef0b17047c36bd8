//! The operations of the API as the OpenAPI document tells them: what each takes, and what it is for. Knows nothing of
//! command lines.

use serde_json::Value;

/// One operation of the API.
#[derive(Clone, Debug)]
pub(crate) struct Operation {
    pub(crate) id: String,
    pub(crate) method: String,
    /// With its `{parameters}`.
    pub(crate) path: String,
    pub(crate) summary: String,
    pub(crate) description: String,
    pub(crate) in_path: Vec<Field>,
    pub(crate) in_query: Vec<Field>,
    /// The members of its body; none when it takes none.
    pub(crate) in_body: Vec<Field>,
    /// The type of what it answers when all is well, such as `RunView` or `Page_RunLine`.
    pub(crate) answer: Option<String>,
}

/// Something that an operation takes.
#[derive(Clone, Debug)]
pub(crate) struct Field {
    pub(crate) name: String,
    pub(crate) kind: Kind,
    pub(crate) required: bool,
    pub(crate) help: String,
    pub(crate) example: Option<Value>,
    /// Members of a document that are instants.
    pub(crate) instants: Vec<String>,
}

/// Kinds of values of a field.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Kind {
    Text,
    /// An instant, RFC 3339.
    Instant,
    /// One of these words.
    Word(Vec<String>),
    Flag,
    Number,
    /// Several texts.
    List,
    /// Names with texts.
    Pairs,
    /// One of several forms: a word, or an object with one member.
    Choice {
        words: Vec<String>,
        /// Each with what it holds: a text, a number, a list of texts.
        members: Vec<(String, Kind)>,
    },
    /// Any document.
    Json,
}

/// All operations below `/v1` of this program's own API.
pub(crate) fn all() -> Vec<Operation> {
    let document = serde_json::to_value(crate::document()).unwrap_or_default();
    let mut all = Vec::new();
    for (path, item) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in item.as_object().into_iter().flatten() {
            if path.starts_with("/v1/") {
                all.push(read(&document, method, path, operation));
            }
        }
    }
    all
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn read(document: &Value, method: &str, path: &str, operation: &Value) -> Operation {
    let parameters = |place: &str| {
        let all = operation["parameters"].as_array().into_iter().flatten();
        let here = all.filter(|parameter| parameter["in"] == place);
        here.map(|parameter| Field {
            name: text(&parameter["name"]),
            kind: kind(document, &parameter["schema"]),
            required: parameter["required"] == true,
            help: text(&parameter["description"]),
            example: parameter.get("example").cloned(),
            instants: instants(document, &parameter["schema"]),
        })
        .collect()
    };
    let body = &operation["requestBody"]["content"]["application/json"];
    Operation {
        id: text(&operation["operationId"]),
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: text(&operation["summary"]),
        description: text(&operation["description"]),
        in_path: parameters("path"),
        in_query: parameters("query"),
        in_body: members(document, body),
        answer: answer(operation),
    }
}

fn members(document: &Value, body: &Value) -> Vec<Field> {
    let schema = resolve(document, &body["schema"]);
    let required = schema["required"].as_array();
    let properties = schema["properties"].as_object().into_iter().flatten();
    properties
        .map(|(name, schema)| Field {
            name: name.clone(),
            kind: kind(document, schema),
            required: required.is_some_and(|required| required.contains(&name.as_str().into())),
            help: description(document, schema),
            example: body["example"].get(name).cloned(),
            instants: instants(document, schema),
        })
        .collect()
}

/// Returns the description of a member: its own, or that of the form or type that it refers to.
fn description(document: &Value, schema: &Value) -> String {
    let forms = schema["oneOf"].as_array().into_iter().flatten();
    let own = std::iter::once(schema).chain(forms).find_map(|one| one["description"].as_str());
    let of_type = || resolve(document, schema)["description"].as_str();
    own.or_else(of_type).unwrap_or_default().to_owned()
}

/// The members of an object that are instants.
fn instants(document: &Value, schema: &Value) -> Vec<String> {
    let properties = resolve(document, schema)["properties"].as_object().into_iter().flatten();
    let instants = properties.filter(|(_, schema)| kind(document, schema) == Kind::Instant);
    instants.map(|(name, _)| name.clone()).collect()
}

fn answer(operation: &Value) -> Option<String> {
    let good = ["200", "201", "202"].into_iter();
    let schema = good.map(|status| {
        &operation["responses"][status]["content"]["application/json"]["schema"]["$ref"]
    });
    let name = schema.filter_map(Value::as_str).next()?;
    name.rsplit('/').next().map(str::to_owned)
}

/// The schema itself, where a reference or "this or null" stands.
fn resolve<'a>(document: &'a Value, schema: &'a Value) -> &'a Value {
    if let Some(reference) = schema["$ref"].as_str() {
        let place = document.pointer(reference.trim_start_matches('#'));
        return resolve(document, place.unwrap_or(&Value::Null));
    }
    let mut forms = schema["oneOf"].as_array().into_iter().flatten();
    let (first, second) = (forms.next(), forms.next());
    match (first, second, forms.next()) {
        (Some(one), Some(null), None) if null["type"] == "null" => resolve(document, one),
        (Some(null), Some(one), None) if null["type"] == "null" => resolve(document, one),
        _ => schema,
    }
}

fn kind(document: &Value, schema: &Value) -> Kind {
    let schema = resolve(document, schema);
    if let Some(words) = schema["enum"].as_array() {
        return Kind::Word(words.iter().map(text).collect());
    }
    if let Some(forms) = schema["oneOf"].as_array() {
        return choice(document, forms).unwrap_or(Kind::Json);
    }
    let is = |wanted: &str| match &schema["type"] {
        Value::Array(types) => types.contains(&wanted.into()),
        other => other == wanted,
    };
    if is("string") && schema["format"] == "date-time" {
        Kind::Instant
    } else if is("string") {
        Kind::Text
    } else if is("boolean") {
        Kind::Flag
    } else if is("integer") || is("number") {
        Kind::Number
    } else if is("array") && kind_is_text(document, &schema["items"]) {
        Kind::List
    } else if is("object") && kind_is_text(document, &schema["additionalProperties"]) {
        Kind::Pairs
    } else {
        Kind::Json
    }
}

fn kind_is_text(document: &Value, schema: &Value) -> bool {
    schema.is_object() && matches!(kind(document, schema), Kind::Text | Kind::Word(_))
}

/// Forms that can be told apart on a command line: words, and objects with one member that is a text, a number or a list of
/// texts.
fn choice(document: &Value, forms: &[Value]) -> Option<Kind> {
    let (mut words, mut members) = (Vec::new(), Vec::new());
    for form in forms {
        let form = resolve(document, form);
        if let Some(here) = form["enum"].as_array() {
            words.extend(here.iter().map(text));
            continue;
        }
        let (name, schema) = form["properties"].as_object()?.iter().next()?;
        match kind(document, schema) {
            held @ (Kind::Text | Kind::Instant | Kind::Word(_) | Kind::Number | Kind::List) => {
                members.push((name.clone(), held));
            }
            _ => return None,
        }
    }
    Some(Kind::Choice { words, members })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operations_are_read_with_all_they_take() {
        let all = all();
        let find = |id: &str| all.iter().find(|operation| operation.id == id).unwrap();
        let start = find("start_run");
        let field = |name: &str| start.in_body.iter().find(|field| field.name == name).unwrap();
        assert_eq!((field("workflow").required, &field("workflow").kind), (true, &Kind::Text));
        assert_eq!(field("version").kind, Kind::Number);
        assert_eq!(field("labels").kind, Kind::Pairs);
        assert_eq!(field("input").kind, Kind::Json);
        let list = find("list_runs");
        let kinds: Vec<_> = list.in_query.iter().map(|f| (f.name.as_str(), &f.kind)).collect();
        assert!(kinds.contains(&("label", &Kind::List)));
        assert!(matches!(
            kinds.iter().find(|(name, _)| *name == "state"),
            Some((_, Kind::Word(_)))
        ));
        assert_eq!(list.answer.as_deref(), Some("Page_RunLine"));
        let scope = find("compensate_run").in_body.iter().find(|f| f.name == "scope").unwrap();
        let members = vec![("back_to".to_owned(), Kind::Text), ("steps".to_owned(), Kind::List)];
        assert_eq!(scope.kind, Kind::Choice { words: vec!["all".to_owned()], members });
        let stop = find("create_job").in_body.iter().find(|f| f.name == "stop_when").unwrap();
        let members = vec![("count".to_owned(), Kind::Number), ("ratio".to_owned(), Kind::Number)];
        assert_eq!(stop.kind, Kind::Choice { words: Vec::new(), members });
    }
}
