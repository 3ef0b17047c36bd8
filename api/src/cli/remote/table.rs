//! Answers as tables, whatever their type: a page is a table with a line for each element, anything else a list of its
//! members.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::layout;

/// The columns of types whose members would not all fit on a line.
const COLUMNS: &[(&str, &[&str])] = &[
    (
        "RunLine",
        &[
            "id",
            "workflow",
            "key",
            "state",
            "outcome",
            "conditions",
            "version",
            "started_at",
            "ended_at",
        ],
    ),
    ("WorkflowView", &["name", "version", "hash", "registered_at"]),
    (
        "StepView",
        &[
            "step",
            "state",
            "compensation",
            "attempts",
            "deliveries",
            "worker",
            "next_at",
            "external_id",
            "error",
        ],
    ),
    ("waits_for", &["kind", "step", "count", "since", "until", "message", "verbs"]),
    ("WorkerView", &["worker", "node", "queues", "since", "gone_at", "session"]),
    ("HistoryEntry", &["seq", "at", "event"]),
];
/// Members that come first where nothing else is said.
const FIRST: &[&str] = &["id", "number", "name", "step", "kind", "state", "status"];

/// The text of an answer of type `kind`; `width` is that of the terminal, if there is one to keep to.
pub(crate) fn answer(kind: &str, text: &str, width: Option<usize>) -> String {
    let Ok(value) = serde_json::from_str::<Value>(text) else { return format!("{text}\n") };
    let Some(members) = value.as_object() else { return format!("{}\n", cell(&value)) };
    match members.get("items").and_then(Value::as_array) {
        Some(items) if members.keys().all(|name| name == "items" || name == "next") => {
            list(kind.strip_prefix("Page_").unwrap_or(kind), items, width)
        }
        _ => object(members, width),
    }
}

/// A table of objects.
fn list(kind: &str, items: &[Value], width: Option<usize>) -> String {
    let columns = columns(kind, items);
    if columns.is_empty() {
        return "There is nothing.\n".to_owned();
    }
    let used = |name: &&String| items.iter().any(|item| !cell(&item[name.as_str()]).is_empty());
    let columns: Vec<&String> = columns.iter().filter(used).collect();
    let heading: Vec<String> = columns.iter().map(|name| name.to_uppercase()).collect();
    let row = |item: &Value| columns.iter().map(|name| cell(&item[name.as_str()])).collect();
    layout::table(&heading, &items.iter().map(row).collect::<Vec<Vec<String>>>(), width)
}

fn columns(kind: &str, items: &[Value]) -> Vec<String> {
    if items.is_empty() {
        return Vec::new();
    }
    if let Some((_, columns)) = COLUMNS.iter().find(|(known, _)| *known == kind) {
        return columns.iter().map(|name| (*name).to_owned()).collect();
    }
    let mut names: Vec<String> = Vec::new();
    for item in items {
        for name in item.as_object().into_iter().flat_map(Map::keys) {
            if !names.contains(name) {
                names.push(name.clone());
            }
        }
    }
    names.sort_by_key(|name| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    names
}

/// The members of an object, a line each; lists of objects as tables below.
fn object(members: &Map<String, Value>, width: Option<usize>) -> String {
    let names_width = members.keys().map(String::len).max().unwrap_or(0);
    let mut text = String::new();
    let is_table = |value: &Value| {
        value.as_array().is_some_and(|all| all.first().is_some_and(Value::is_object))
    };
    let mut names: Vec<&String> = members.keys().collect();
    names.sort_by_key(|name| FIRST.iter().position(|first| first == name).unwrap_or(FIRST.len()));
    for name in &names {
        let value = &members[*name];
        if !is_table(value) {
            let _ = writeln!(text, "{name:names_width$}  {}", cell(value));
        }
    }
    for name in &names {
        if let Some(all) = members[*name].as_array().filter(|_| is_table(&members[*name])) {
            let _ = write!(text, "\n{}\n{}", name.to_uppercase(), list(name, all, width));
        }
    }
    text
}

/// A value on one line.
fn cell(value: &Value) -> String {
    let text = words(value);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn words(value: &Value) -> String {
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(all) => all.iter().map(words).collect::<Vec<_>>().join(","),
        Value::Object(members) => {
            let member = |(name, value): (&String, &Value)| match value {
                Value::Object(inner) if members.len() == 1 => {
                    format!("{name} {}", words(&Value::Object(inner.clone())))
                }
                Value::Object(_) => format!("{name}={value}"),
                _ => format!("{name}={}", words(value)),
            };
            members.iter().map(member).collect::<Vec<_>>().join(" ").trim().to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_a_table_without_empty_columns() {
        let page = r#"{"items":[
            {"id":"r-1","workflow":"order","version":1,"state":"ended","outcome":"succeeded","conditions":[]},
            {"id":"r-2","workflow":"order","version":2,"state":"waiting","outcome":null,"conditions":["A","B"]}]}"#;
        let expected = [
            "ID   WORKFLOW  STATE    OUTCOME    CONDITIONS  VERSION",
            "r-1  order     ended    succeeded              1",
            "r-2  order     waiting             A,B         2",
        ];
        assert_eq!(answer("Page_RunLine", page, None).lines().collect::<Vec<_>>(), expected);
        assert_eq!(answer("Page_RunLine", r#"{"items":[]}"#, None), "There is nothing.\n");
    }

    #[test]
    fn other_answers_are_told_member_by_member() {
        let plan = r#"{"past_pivot":false,"irreversible":["mail"],"steps":[{"step":"a","wave":0,"name":"undo"}]}"#;
        let expected = [
            "irreversible  mail",
            "past_pivot    false",
            "",
            "STEPS",
            "NAME  STEP  WAVE",
            "undo  a     0",
        ];
        assert_eq!(answer("Plan", plan, None).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_event_stands_on_one_line() {
        let event =
            serde_json::json!({"offered": {"step": "a", "attempt": 1, "input": {"n": "x\ny"}}});
        assert_eq!(cell(&event), r#"offered attempt=1 input={"n":"x\ny"} step=a"#);
    }
}
