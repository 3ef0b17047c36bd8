//! Answers as tables, whatever their type: a page is a table with a line for each element, anything else a list of its
//! members.

use std::borrow::Cow;
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
    let items: Vec<Cow<'_, Value>> = items.iter().map(|item| shown(kind, item, width)).collect();
    let (needed, columns) = columns_of(kind, &items);
    if columns.is_empty() {
        return "There is nothing.\n".to_owned();
    }
    let at = |item: &Value, name: &str| {
        let value = name.split('.').try_fold(item, |value, part| value.get(part));
        let text = value.map(cell).unwrap_or_default();
        if width.is_some() { to_the_second(text) } else { text }
    };
    let used = |name: &&String| items.iter().any(|item| !at(item, name).is_empty());
    let needed = columns.iter().take(needed).filter(used).count();
    let columns: Vec<&String> = columns.iter().filter(used).collect();
    let head = |name: &&String| name.split('.').next_back().unwrap_or_default().to_uppercase();
    let heading: Vec<String> = columns.iter().map(head).collect();
    let row = |item: &Cow<'_, Value>| columns.iter().map(|name| at(item, name)).collect();
    layout::table(&heading, needed, &items.iter().map(row).collect::<Vec<Vec<String>>>(), width)
}

/// An element as its columns are read: an event as its name, its step and what else it says; on a terminal, a run that has
/// ended with its outcome as its state.
fn shown<'a>(kind: &str, item: &'a Value, width: Option<usize>) -> Cow<'a, Value> {
    let mut item = Cow::Borrowed(item);
    match kind {
        "HistoryEntry" => {
            let event = item["event"].as_object().and_then(|event| event.iter().next());
            let Some((name, about)) = event.map(|(name, about)| (name.clone(), about.clone()))
            else {
                return item;
            };
            let members = item.to_mut();
            members["event"] = name.into();
            members["about"] = match about {
                Value::Object(mut about) => {
                    let step = about.remove("step").unwrap_or_default();
                    members["step"] = step;
                    if about.is_empty() { Value::Null } else { about.into() }
                }
                about => about,
            };
        }
        "RunLine" if width.is_some() && item["outcome"].is_string() => {
            let members = item.to_mut();
            members["state"] = members["outcome"].take();
        }
        _ => {}
    }
    item
}

/// An instant without the fraction of its second, which nobody reads in a list; another text as it is.
fn to_the_second(text: String) -> String {
    let bytes = text.as_bytes();
    let instant = bytes.len() == 24 && bytes[10] == b'T' && bytes[19] == b'.' && bytes[23] == b'Z';
    match text.get(..19) {
        Some(seconds) if instant => format!("{seconds}Z"),
        _ => text,
    }
}

fn columns_of(kind: &str, items: &[Cow<'_, Value>]) -> (usize, Vec<String>) {
    if items.is_empty() {
        return (0, Vec::new());
    }
    if let Some((needed, columns)) = columns::of(kind) {
        return (needed, columns.iter().map(|name| (*name).to_owned()).collect());
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
    (names.len(), names)
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
            let _ = writeln!(text, "{name:names_width$}  {}", member(value, names_width, width));
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

/// The value of a member: a sentence is wrapped beside its name, anything else stands on one line.
fn member(value: &Value, name: usize, width: Option<usize>) -> String {
    let text = cell(value);
    match width.and_then(|width| width.checked_sub(name + 2)) {
        Some(room) if value.is_string() => {
            let lines = layout::wrapped(&text, room);
            lines
                .iter()
                .map(|line| line.trim_end())
                .collect::<Vec<_>>()
                .join(&format!("\n{:name$}  ", ""))
        }
        _ => text,
    }
}

/// A value on one line.
fn cell(value: &Value) -> String {
    let text = words(value);
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

fn words(value: &Value) -> String {
    let is_plain = |value: &Value| !value.is_object() && !value.is_array();
    match value {
        Value::Null => String::new(),
        Value::String(text) => text.clone(),
        Value::Array(all) if all.iter().all(is_plain) => {
            all.iter().map(words).collect::<Vec<_>>().join(",")
        }
        Value::Object(members) if members.is_empty() => String::new(),
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
    fn an_event_is_its_name_its_step_and_what_else_it_says_on_one_line() {
        let page = r#"{"items":[{"seq":3,"at":"2026-03-05T12:30:15.250Z",
            "event":{"offered":{"attempt":1,"input":{"n":"x\ny"},"step":"a"}}},
            {"seq":4,"at":"2026-03-05T12:30:16.250Z","event":{"held":{"kind":"paused"}}}]}"#;
        let expected = [
            "SEQ  AT                        EVENT    STEP  ABOUT",
            r#"3    2026-03-05T12:30:15.250Z  offered  a     {"attempt":1,"input":{"n":"x\ny"}}"#,
            r#"4    2026-03-05T12:30:16.250Z  held           {"kind":"paused"}"#,
        ];
        assert_eq!(answer("Page_HistoryEntry", page, None).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn what_is_nested_is_compact_json_and_what_is_empty_is_nothing() {
        let value = serde_json::json!({"default": ["a", "b"], "n": {"m": 1}});
        assert_eq!(cell(&value), r#"{"default":["a","b"],"n":{"m":1}}"#);
        assert_eq!(cell(&serde_json::json!(["a", "b"])), "a,b");
        assert_eq!(cell(&serde_json::json!({})), "");
    }

    const RUN: &str = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";

    /// The page of one element at 80 columns; no line is wider.
    fn narrow(kind: &str, element: &str) -> String {
        let element = element.replace("RUN", RUN);
        let text = answer(kind, &format!(r#"{{"items":[{element}]}}"#), Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        text
    }

    #[test]
    fn an_act_tells_its_run_and_its_reason_at_80_columns() {
        let act = r#"{"at":"2026-03-05T12:30:15.250Z","actor":"ann","verb":"retry","run":"RUN","step":"payment",
            "workflow":"place-order","reason":"The bank is back, and said so on the phone this morning","seq":7}"#;
        let expected = [
            "AT                    ACTOR  VERB   RUN                                   SEQ",
            "2026-03-05T12:30:15Z  ann    retry  019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11  7",
            "    step: payment  reason: The bank is back, and said so on the phone this",
            "    morning  workflow: place-order",
        ];
        assert_eq!(narrow("Page_ActLine", act).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_incident_tells_its_key_and_its_step_at_80_columns() {
        let incident = r#"{"id":"RUN-1","kind":"task_exhausted","state":"open","workflow":"place-order","step":"payment",
            "key":"order-10248","code":"refused","message":"the bank said no","opened_at":"2026-03-05T12:30:15.250Z",
            "occurrences":1,"fingerprint":"3f2a"}"#;
        let text = narrow("Page_IncidentLine", incident);
        for told in
            ["task_exhausted", "open", "payment", "key: order-10248", "message: the bank said no"]
        {
            assert!(text.contains(told), "{told}: {text}");
        }
    }

    #[test]
    fn a_run_that_has_ended_tells_its_outcome_and_its_key_at_80_columns() {
        let run = r#"{"id":"RUN","workflow":"place-order","version":1,"state":"ended","outcome":"compensated",
            "key":"order-10248","started_at":"2026-03-05T12:30:15.250Z","conditions":[]}"#;
        let expected = [
            "ID                                    WORKFLOW     STATE        KEY",
            "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11  place-order  compensated  order-10248",
            "(no place for STARTED_AT, VERSION; --wide prints them)",
        ];
        assert_eq!(narrow("Page_RunLine", run).lines().collect::<Vec<_>>(), expected);
    }

    #[test]
    fn an_event_tells_its_step_at_80_columns() {
        let event = r#"{"seq":3,"at":"2026-03-05T12:30:15.250Z","event":{"failed":{"attempt":1,"step":"payment",
            "failure":{"kind":"permanent","code":"refused","message":"the bank said no, and will say so again"}}}}"#;
        let text = narrow("Page_HistoryEntry", event);
        assert!(text.contains("failed  payment\n    about: {"), "{text}");
        assert!(text.contains("will say so"), "{text}");
    }

    #[test]
    fn why_tells_its_messages_whole_at_80_columns() {
        let message = "payment: the next attempt, at 2026-03-05T12:30:15.250Z, after refused: the bank said no again";
        let why = format!(
            r#"{{"summary":"{message}","waits_for":[{{"kind":"retry","step":"payment","message":"{message}","verbs":["retry","cancel"]}}]}}"#
        );
        let text = answer("Why", &why, Some(80));
        assert!(text.lines().all(|line| line.chars().count() <= 80), "{text}");
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(&text).matches(message).count(), 2, "{text}");
    }
}
