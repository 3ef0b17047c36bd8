//! Answers as tables, whatever their type: a page is a table with a line for each element, anything else a list of its
//! members.

use std::fmt::Write as _;

use serde_json::{Map, Value};

use super::columns::{self, place};
use super::layout;

/// A member that is a document of many lines: it stands below the others as it may be registered.
const DEFINITION: &str = "definition";

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
    let columns = columns_of(kind, items);
    if columns.is_empty() {
        return "There is nothing.\n".to_owned();
    }
    let at = |item: &Value, name: &str| {
        name.split('.').try_fold(item, |value, part| value.get(part)).map(cell).unwrap_or_default()
    };
    let used = |name: &&String| items.iter().any(|item| !at(item, name).is_empty());
    let columns: Vec<&String> = columns.iter().filter(used).collect();
    let head = |name: &&String| name.split('.').next().unwrap_or_default().to_uppercase();
    let heading: Vec<String> = columns.iter().map(head).collect();
    let row = |item: &Value| columns.iter().map(|name| at(item, name)).collect();
    layout::table(&heading, &items.iter().map(row).collect::<Vec<Vec<String>>>(), width)
}

fn columns_of(kind: &str, items: &[Value]) -> Vec<String> {
    if items.is_empty() {
        return Vec::new();
    }
    if let Some(columns) = columns::of(kind) {
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
    names.sort_by_key(|name| place(name));
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
    names.sort_by_key(|name| place(name));
    for name in &names {
        let value = &members[*name];
        if !is_table(value) && *name != DEFINITION {
            let _ = writeln!(text, "{name:names_width$}  {}", cell(value));
        }
    }
    for name in &names {
        if let Some(all) = members[*name].as_array().filter(|_| is_table(&members[*name])) {
            let _ = write!(text, "\n{}\n{}", name.to_uppercase(), list(name, all, width));
        }
    }
    if let Some(definition) = members.get(DEFINITION) {
        let _ = writeln!(text, "\n{}\n{definition:#}", DEFINITION.to_uppercase());
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
            "STEP  WAVE  NAME",
            "a     0     undo",
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
