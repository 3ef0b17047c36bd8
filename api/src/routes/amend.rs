//! Reports and heartbeats whose words are not of the form they should have. What happened counts whatever stands beside
//! it, so what cannot be read is left out or taken as text, and the answer says so. Only one that does not clearly name its
//! attempt, or of which nothing is said, cannot be amended.

use std::collections::BTreeMap;

use backstitch_saga::protocol::{FailureKind, Heartbeat, TaskOutcome, TaskReport};
use backstitch_saga::{Action, Payload, Span, WrittenMembers};
use serde_json::json;
use serde_json::value::{RawValue, to_raw_value};

/// The members of a report or a heartbeat that name its attempt.
const NAMING: [&str; 5] = ["run", "step", "action", "attempt", "lease"];
/// The reason for which a document is left out that held a number that is none.
pub(super) const NO_NUMBER: &str = "NaN and infinities are no JSON";
/// Number of characters that are quoted of an invalid outcome.
const QUOTED: usize = 200;

/// The members of a JSON object with their text.
#[derive(Default)]
struct Members {
    all: BTreeMap<String, Box<RawValue>>,
    /// Those that stand twice with different values. The last one is kept.
    twice: Vec<String>,
}

/// Reads a report that says that its attempt has ended, and says what of it was amended. One that does not say how counts
/// as a failure of the kind `unknown`.
pub(super) fn report(text: &str) -> Option<(TaskReport, Vec<String>)> {
    let mut notes = Vec::new();
    let mut members = naming(text)?;
    let outcome = members.all.remove("outcome")?;
    // Nobody reads the output of an undo, so none is no flaw.
    let undo = members.all.get("action").is_some_and(|action| action.get() == "\"compensate\"");
    let clear = (!members.is_twice("outcome"))
        .then(|| self::outcome(outcome.get(), undo, &mut notes))
        .flatten();
    let outcome = match clear {
        Some(outcome) => outcome,
        None => unclear(outcome.get(), &mut notes)?,
    };
    let mut amended = keep(members, "", &NAMING, &mut notes);
    amended.insert("outcome".to_owned(), outcome);
    let report = serde_json::from_str(raw(&amended)?.get()).ok()?;
    Some((report, notes))
}

/// Reads a heartbeat that names its attempt, and says what of it was amended.
pub(super) fn heartbeat(text: &str) -> Option<(Heartbeat, Vec<String>)> {
    let mut notes = Vec::new();
    let mut members = naming(text)?;
    if members.is_twice("details") {
        members.all.remove("details");
        notes.push("its details are left out: they stand there twice".to_owned());
    }
    let known = [NAMING.as_slice(), &["details"]].concat();
    let amended = keep(members, "", &known, &mut notes);
    let beat = serde_json::from_str(raw(&amended)?.get()).ok()?;
    Some((beat, notes))
}

/// A report without its documents, in which numbers were none.
pub(super) fn without_documents(report: TaskReport, notes: &mut Vec<String>) -> TaskReport {
    let outcome = match report.outcome {
        TaskOutcome::Succeeded { external_id, .. } if report.action == Action::Compensate => {
            notes.push(format!("its output is left out: {NO_NUMBER}"));
            TaskOutcome::Succeeded { output: Payload::null(), external_id }
        }
        TaskOutcome::Succeeded { .. } => {
            let message = format!("the work was done, but its output cannot be kept: {NO_NUMBER}");
            notes.push(message.clone());
            TaskOutcome::DoneWithoutOutput { code: INVALID_OUTPUT.to_owned(), message }
        }
        TaskOutcome::Failed(mut failure) => {
            failure.details = None;
            notes.push(format!("its details are left out: {NO_NUMBER}"));
            TaskOutcome::Failed(failure)
        }
        outcome @ TaskOutcome::DoneWithoutOutput { .. } => outcome,
    };
    TaskReport { outcome, ..report }
}

const INVALID_OUTPUT: &str = "invalid_output";

/// The members of a report or heartbeat; `None` when nobody can tell which attempt it is of.
fn naming(text: &str) -> Option<Members> {
    let WrittenMembers::<Box<RawValue>>(written) = serde_json::from_str(text).ok()?;
    let count = |name: &str| written.iter().filter(|(one, _)| one.as_str() == name).count();
    if NAMING.iter().any(|name| count(name) > 1) {
        return None;
    }
    members(text)
}

fn outcome(text: &str, undo: bool, notes: &mut Vec<String>) -> Option<Box<RawValue>> {
    let known = ["succeeded", "failed", "done_without_output"];
    let members = members(text)?;
    if known.iter().any(|name| members.is_twice(name)) {
        return None;
    }
    let outcome = keep(members, "outcome/", &known, notes);
    if outcome.len() != 1 {
        return None;
    }
    let (name, said) = outcome.into_iter().next()?;
    let (name, said) = match name.as_str() {
        "succeeded" => succeeded(said.get(), undo, notes)?,
        "failed" => ("failed", failed(said.get(), notes)?),
        _ => ("done_without_output", done(said.get(), notes)?),
    };
    raw(&BTreeMap::from([(name, said)]))
}

/// The outcome of a report that names none, or several.
fn unclear(text: &str, notes: &mut Vec<String>) -> Option<Box<RawValue>> {
    notes.push(
        "its outcome is not one of succeeded, failed and done_without_output, so that it counts as failed of the kind unknown"
            .to_owned(),
    );
    let message = format!("the report does not say what happened: {}", short(text, QUOTED));
    raw(&json!({ "failed": { "kind": "unknown", "code": "invalid_report", "message": message } }))
}

fn succeeded(
    text: &str,
    undo: bool,
    notes: &mut Vec<String>,
) -> Option<(&'static str, Box<RawValue>)> {
    let read = match text {
        "null" => Some(Members::default()),
        text => members(text),
    };
    let said = match read {
        Some(said) if undo || !said.is_twice("output") => said,
        None if undo => Members::default(),
        _ => {
            let message = "the work was done, but nobody can tell which output it gave";
            notes.push(message.to_owned());
            let done = raw(&json!({ "code": INVALID_OUTPUT, "message": message }))?;
            return Some(("done_without_output", done));
        }
    };
    said.tell_twice("external_id", notes);
    let mut said = keep(said, "outcome/succeeded/", &["output", "external_id"], notes);
    if !said.contains_key("output") {
        if !undo {
            notes.push("it has no output, so it is null".to_owned());
        }
        said.insert("output".to_owned(), raw(&())?);
    }
    as_text(&mut said, "external_id", notes)?;
    Some(("succeeded", raw(&said)?))
}

fn failed(text: &str, notes: &mut Vec<String>) -> Option<Box<RawValue>> {
    let known = ["kind", "code", "message", "details", "retry_after"];
    let said = members(text).unwrap_or_else(|| {
        notes.push("it is taken as the message".to_owned());
        let message = raw(text.trim_matches('"')).map(|text| ("message".to_owned(), text));
        Members { all: message.into_iter().collect(), twice: Vec::new() }
    });
    // Nobody can tell from another kind what happened.
    let kind = said.all.get("kind").filter(|_| !said.is_twice("kind"));
    let clear = kind.is_some_and(|kind| serde_json::from_str::<FailureKind>(kind.get()).is_ok());
    for name in known {
        said.tell_twice(name, notes);
    }
    let mut said = keep(said, "outcome/failed/", &known, notes);
    if !clear {
        let kind = said.insert("kind".to_owned(), raw(&FailureKind::Unknown)?);
        let kind = kind.map_or_else(|| "missing".to_owned(), |kind| short(kind.get(), QUOTED));
        notes.push(format!("its kind is none ({kind}), so that it counts as unknown"));
    }
    code_and_message(&mut said, notes)?;
    let wait = said.get("retry_after");
    if wait.is_some_and(|wait| serde_json::from_str::<Option<Span>>(wait.get()).is_err()) {
        said.remove("retry_after");
        notes.push("its retry_after is left out: it must be a duration such as \"30s\"".to_owned());
    }
    raw(&said)
}

fn done(text: &str, notes: &mut Vec<String>) -> Option<Box<RawValue>> {
    let said = members(text).unwrap_or_default();
    let mut said = keep(said, "outcome/done_without_output/", &["code", "message"], notes);
    code_and_message(&mut said, notes)?;
    raw(&said)
}

fn code_and_message(
    said: &mut BTreeMap<String, Box<RawValue>>,
    notes: &mut Vec<String>,
) -> Option<()> {
    for name in ["code", "message"] {
        if !as_text(said, name, notes)? {
            // Of a code the engine says that there is none.
            if name == "message" {
                notes.push("it has no message".to_owned());
            }
            said.insert(name.to_owned(), raw(&"")?);
        }
    }
    Some(())
}

/// The members of an object.
fn members(text: &str) -> Option<Members> {
    let WrittenMembers::<Box<RawValue>>(written) = serde_json::from_str(text).ok()?;
    let mut members = Members::default();
    for (name, value) in written {
        let text = value.get().to_owned();
        let before = members.all.insert(name.clone(), value);
        if before.is_some_and(|before| before.get() != text) {
            members.twice.push(name);
        }
    }
    Some(members)
}

impl Members {
    fn is_twice(&self, name: &str) -> bool {
        self.twice.iter().any(|twice| twice == name)
    }

    fn tell_twice(&self, name: &str, notes: &mut Vec<String>) {
        if self.is_twice(name) {
            notes.push(format!("its {name} stands there twice, and the last one counts"));
        }
    }
}

/// Leaves out the members that are not `known`.
fn keep(
    members: Members,
    at: &str,
    known: &[&str],
    notes: &mut Vec<String>,
) -> BTreeMap<String, Box<RawValue>> {
    let (kept, others): (BTreeMap<_, _>, BTreeMap<_, _>) =
        members.all.into_iter().partition(|(name, _)| known.contains(&name.as_str()));
    notes.extend(unknown(others.len(), at, others.keys().next().map(String::as_str)));
    kept
}

/// Returns the note about unknown members, if there are any.
pub(super) fn unknown(count: usize, at: &str, first: Option<&str>) -> Option<String> {
    let name = short(first?, 40);
    Some(format!("{count} unknown members are left out, such as {at}{name}"))
}

/// Turns a member that is no text into one; answers whether it is there. A member that is null is not.
fn as_text(
    members: &mut BTreeMap<String, Box<RawValue>>,
    name: &str,
    notes: &mut Vec<String>,
) -> Option<bool> {
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

fn short(text: &str, most: usize) -> String {
    text.chars().take(most).collect()
}

#[cfg(test)]
mod tests {
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
    fn a_failure_whose_kind_is_none_is_of_the_kind_unknown_with_its_code() {
        for members in [
            r#""kind":"Permanent","code":"c","message":"m""#,
            r#""kind":"timeout","code":"c","message":"m""#,
            r#""kind":["permanent"],"code":"c","message":"m""#,
            r#""kind":null,"code":"c","message":"m""#,
            r#""code":"c","message":"m""#,
            r#""kind":"permanent","kind":"retryable","code":"c","message":"m""#,
        ] {
            let (failure, notes) = failed(members);
            assert_eq!(
                (failure.kind, failure.code.as_str(), failure.message.as_str()),
                (FailureKind::Unknown, "c", "m"),
                "{members}"
            );
            assert!(notes.iter().any(|note| note.contains("kind")), "{notes:?}");
        }
    }

    #[test]
    fn a_word_that_stands_twice_counts_as_the_last_one() {
        let (failure, notes) =
            failed(r#""kind":"permanent","code":"c","code":"d","message":"m","kind":"permanent""#);
        assert_eq!((failure.kind, failure.code.as_str()), (FailureKind::Permanent, "d"));
        assert!(notes[0].contains("code"), "{notes:?}");
    }

    #[test]
    fn a_report_without_one_clear_outcome_is_a_failure_of_the_kind_unknown() {
        for outcome in [
            "{}",
            "null",
            r#"{"done":{}}"#,
            r#"{"succeeded":{"output":1},"failed":{"kind":"unknown"}}"#,
            r#"{"succeeded":{"output":1},"succeeded":{"output":2}}"#,
        ] {
            let Some((TaskOutcome::Failed(failure), notes)) = of(outcome) else {
                panic!("{outcome}")
            };
            assert_eq!(
                (failure.kind, failure.code.as_str()),
                (FailureKind::Unknown, "invalid_report")
            );
            assert!(!notes.is_empty());
        }
        for (outcome, code, message) in
            [(r#"{"failed":{}}"#, "", ""), (r#"{"failed":"permanent"}"#, "", "permanent")]
        {
            let Some((TaskOutcome::Failed(failure), _)) = of(outcome) else { panic!("{outcome}") };
            assert_eq!(
                (failure.kind, failure.code.as_str(), failure.message.as_str()),
                (FailureKind::Unknown, code, message)
            );
        }
    }

    #[test]
    fn a_success_whose_output_is_not_clear_is_done_without_one() {
        for outcome in [r#"{"succeeded":{"output":1,"output":2}}"#, r#"{"succeeded":5}"#] {
            let Some((TaskOutcome::DoneWithoutOutput { code, .. }, notes)) = of(outcome) else {
                panic!("{outcome}")
            };
            assert_eq!((code.as_str(), notes.len()), (INVALID_OUTPUT, 1));
        }
        let Some((TaskOutcome::DoneWithoutOutput { code, message }, _)) =
            of(r#"{"done_without_output":{"code":"output_too_large","message":5,"size":1}}"#)
        else {
            panic!()
        };
        assert_eq!((code.as_str(), message.as_str()), ("output_too_large", "5"));
    }

    #[test]
    fn a_report_that_does_not_name_its_attempt_or_says_nothing_is_not_amended() {
        let named = r#""run":"0198c0de-0000-7000-8000-000000000000","step":"a","action":"forward","attempt":1"#;
        for text in [
            r#"{"outcome":{"succeeded":{}}}"#.to_owned(),
            format!("{{{named}}}"),
            format!(r#"{{{named},"attempt":2,"outcome":{{"succeeded":{{"output":1}}}}}}"#),
            "[]".to_owned(),
        ] {
            assert!(report(&text).is_none(), "{text}");
        }
    }

    #[test]
    fn a_heartbeat_counts_whatever_stands_beside_its_attempt() {
        let named = r#""run":"0198c0de-0000-7000-8000-000000000000","step":"a","action":"forward","attempt":1"#;
        let beat = |more: &str| heartbeat(&format!("{{{named}{more}}}"));
        for (more, details) in
            [(r#","progress":1,"details":[1]"#, Some("[1]")), (r#","details":1,"details":2"#, None)]
        {
            let (beat, notes) = beat(more).unwrap();
            assert_eq!(beat.details.as_ref().map(Payload::text), details);
            assert_eq!(notes.len(), 1, "{notes:?}");
        }
        assert!(beat(r#","attempt":2"#).is_none());
    }
}
