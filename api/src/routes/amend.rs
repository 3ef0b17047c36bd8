//! Reports whose words are not of the form they should have. The outcome counts whatever stands beside it, so what cannot be
//! read is left out or taken as text, and the answer says so. A report without one clear outcome cannot be amended.

use std::collections::BTreeMap;

use backstitch_saga::protocol::{FailureKind, TaskReport};
use backstitch_saga::{Span, WrittenMembers};
use serde_json::value::{RawValue, to_raw_value};

/// The members of a report beside its outcome.
const NAMING: [&str; 5] = ["run", "step", "action", "attempt", "lease"];

/// A JSON object whose members keep their text.
type Members = BTreeMap<String, Box<RawValue>>;

/// Reads a report that has one clear outcome, and says what of it was amended.
pub(super) fn report(text: &str) -> Option<(TaskReport, Vec<String>)> {
    let mut notes = Vec::new();
    let mut members = members(text)?;
    let outcome = members.remove("outcome")?;
    // Nobody reads the output of an undo, so none is no flaw.
    let undo = members.get("action").is_some_and(|action| action.get() == "\"compensate\"");
    let mut amended = keep(members, "", &NAMING, &mut notes);
    amended.insert("outcome".to_owned(), self::outcome(outcome.get(), undo, &mut notes)?);
    let report = serde_json::from_str(raw(&amended)?.get()).ok()?;
    Some((report, notes))
}

fn outcome(text: &str, undo: bool, notes: &mut Vec<String>) -> Option<Box<RawValue>> {
    let outcome = keep(members(text)?, "outcome/", &["succeeded", "failed"], notes);
    if outcome.len() != 1 {
        return None;
    }
    let (name, said) = outcome.into_iter().next()?;
    let said = match name.as_str() {
        "succeeded" => succeeded(said.get(), undo, notes)?,
        _ => failed(said.get(), notes)?,
    };
    raw(&Members::from([(name, said)]))
}

fn succeeded(text: &str, undo: bool, notes: &mut Vec<String>) -> Option<Box<RawValue>> {
    let at = "outcome/succeeded/";
    let said = match text {
        "null" => Members::new(),
        text => members(text)?,
    };
    let mut said = keep(said, at, &["output", "external_id"], notes);
    if !said.contains_key("output") {
        if !undo {
            notes.push("it has no output, so it is null".to_owned());
        }
        said.insert("output".to_owned(), raw(&())?);
    }
    as_text(&mut said, "external_id", notes)?;
    raw(&said)
}

fn failed(text: &str, notes: &mut Vec<String>) -> Option<Box<RawValue>> {
    let at = "outcome/failed/";
    let known = ["kind", "code", "message", "details", "retry_after"];
    let mut said = keep(members(text)?, at, &known, notes);
    // Nobody can tell from another kind what happened.
    serde_json::from_str::<FailureKind>(said.get("kind")?.get()).ok()?;
    for name in ["code", "message"] {
        if !as_text(&mut said, name, notes)? {
            // Of a code the engine says that there is none.
            if name == "message" {
                notes.push("it has no message".to_owned());
            }
            said.insert(name.to_owned(), raw(&"")?);
        }
    }
    let wait = said.get("retry_after");
    if wait.is_some_and(|wait| serde_json::from_str::<Option<Span>>(wait.get()).is_err()) {
        said.remove("retry_after");
        notes.push("its retry_after is left out: it must be a duration such as \"30s\"".to_owned());
    }
    raw(&said)
}

/// The members of an object; `None` when one stands twice, as nobody can tell which of them counts.
fn members(text: &str) -> Option<Members> {
    let WrittenMembers(written) = serde_json::from_str(text).ok()?;
    let count = written.len();
    let members: Members = written.into_iter().collect();
    (members.len() == count).then_some(members)
}

/// Leaves out the members that are not `known`.
fn keep(members: Members, at: &str, known: &[&str], notes: &mut Vec<String>) -> Members {
    let (kept, unknown): (Members, Members) =
        members.into_iter().partition(|(name, _)| known.contains(&name.as_str()));
    if let Some(first) = unknown.keys().next() {
        let (name, count) = (short(first), unknown.len());
        notes.push(format!("{count} unknown members are left out, such as {at}{name}"));
    }
    kept
}

/// Turns a member that is no text into one; answers whether it is there. A member that is null is not.
fn as_text(members: &mut Members, name: &str, notes: &mut Vec<String>) -> Option<bool> {
    let Some(value) = members.get(name) else { return Some(false) };
    if value.get() == "null" {
        members.remove(name);
        return Some(false);
    }
    if !value.get().starts_with('"') {
        let text = raw(&value.get())?;
        notes.push(format!("its {name} is taken as text"));
        members.insert(name.to_owned(), text);
    }
    Some(true)
}

fn raw<T: serde::Serialize + ?Sized>(value: &T) -> Option<Box<RawValue>> {
    to_raw_value(value).ok()
}

fn short(name: &str) -> String {
    name.chars().take(40).collect()
}

#[cfg(test)]
mod tests {
    use backstitch_saga::protocol::TaskOutcome;
    use serde_json::json;

    use super::*;

    fn of(outcome: &str) -> Option<(TaskOutcome, Vec<String>)> {
        let text = format!(
            r#"{{"run":"0198c0de-0000-7000-8000-000000000000","step":"a","action":"forward","attempt":1,"outcome":{outcome}}}"#
        );
        report(&text).map(|(report, notes)| (report.outcome, notes))
    }

    fn failed(members: &str) -> (backstitch_saga::protocol::Failure, Vec<String>) {
        match of(&format!(r#"{{"failed":{{{members}}}}}"#)) {
            Some((TaskOutcome::Failed(failure), notes)) => (failure, notes),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn a_failure_counts_whatever_its_words_are() {
        for (members, code, message) in [
            (r#""kind":"permanent","code":"c","message":"m","retry_after":30"#, "c", "m"),
            (r#""kind":"permanent","code":"c","message":"m","retry_after":"never""#, "c", "m"),
            (r#""kind":"permanent","code":"c","message":"m","retry_after":"-5s""#, "c", "m"),
            (r#""kind":"permanent","code":5,"message":["a"]"#, "5", r#"["a"]"#),
            (r#""kind":"permanent""#, "", ""),
            (r#""kind":"permanent","code":"c","message":"m","more":{}"#, "c", "m"),
        ] {
            let (failure, notes) = failed(members);
            assert_eq!((failure.code.as_str(), failure.message.as_str()), (code, message));
            assert_eq!((failure.kind, failure.retry_after), (FailureKind::Permanent, None));
            assert!(!notes.is_empty(), "{members}");
        }
        let (failure, notes) = failed(r#""kind":"permanent","code":null,"message":"m""#);
        assert_eq!((failure.code.as_str(), notes), ("", Vec::new()), "the engine tells of it");
        let (failure, _) =
            failed(r#""kind":"retryable","code":1,"message":"m","retry_after":"2s""#);
        assert_eq!(failure.retry_after, Some("2s".parse().unwrap()));
    }

    #[test]
    fn a_success_counts_without_its_output_and_keeps_the_text_of_a_number() {
        for (said, output, id) in [
            (r#"{"output":1.10,"external_id":5}"#, "1.10", Some("5")),
            ("{}", "null", None),
            ("null", "null", None),
            (r#"{"output":{"a":1},"external_id":null,"more":1}"#, r#"{"a":1}"#, None),
        ] {
            let (outcome, notes) = of(&format!(r#"{{"succeeded":{said}}}"#)).unwrap();
            let TaskOutcome::Succeeded { output: kept, external_id } = outcome else {
                panic!("{outcome:?}")
            };
            assert_eq!((kept.text(), external_id.as_deref()), (output, id));
            assert!(!notes.is_empty());
        }
    }

    #[test]
    fn an_undo_without_an_output_is_whole() {
        for said in ["{}", "null"] {
            let text = format!(
                r#"{{"run":"0198c0de-0000-7000-8000-000000000000","step":"a","action":"compensate","attempt":1,"outcome":{{"succeeded":{said}}}}}"#
            );
            let (_, notes) = report(&text).unwrap();
            assert_eq!(notes, [""; 0], "{said}");
        }
    }

    #[test]
    fn a_report_without_one_clear_outcome_is_not_amended() {
        for outcome in [
            "{}",
            "null",
            r#"{"done":{}}"#,
            r#"{"succeeded":{"output":1},"failed":{"kind":"unknown"}}"#,
            r#"{"failed":{}}"#,
            r#"{"failed":{"kind":"odd"}}"#,
            r#"{"failed":"permanent"}"#,
            r#"{"failed":{"kind":"permanent","code":"c","code":"d"}}"#,
            r#"{"succeeded":{"output":1,"output":2}}"#,
        ] {
            assert!(of(outcome).is_none(), "{outcome}");
        }
        assert!(report(r#"{"outcome":{"succeeded":{}}}"#).is_none());
        assert!(report(&json!([]).to_string()).is_none());
    }
}
