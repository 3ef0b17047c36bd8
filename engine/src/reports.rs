//! Reports of workers in the form of the journal. A report counts, whatever its texts are: they are amended if they
//! cannot be stored, and never a reason for a refusal.

use backstitch_saga::protocol::{DONE, Failure, TaskAnswer, TaskOutcome};
use backstitch_saga::{Action, Command, LONGEST_RETRY_AFTER, Payload, TaskKey};

/// The longest message of a failure, in bytes.
pub(crate) const MESSAGE: usize = 16_000;
/// The longest code of a failure, in bytes.
pub(crate) const CODE: usize = 100;
/// The longest external id, in bytes.
pub(crate) const EXTERNAL_ID: usize = 255;
/// Number of characters that a message quotes of an invalid code.
const QUOTED: usize = 200;

/// A report to be decided about, and what of it was amended.
pub(crate) struct Report {
    pub(crate) command: Command,
    amended: Vec<String>,
}

impl Report {
    /// Returns the report that an attempt ended with `outcome`. `limit` is the largest document, in bytes.
    pub(crate) fn of(task: TaskKey, outcome: TaskOutcome, limit: usize) -> Report {
        let mut amended = Vec::new();
        let outcome = match outcome {
            TaskOutcome::Failed(failure) => {
                TaskOutcome::Failed(self::failure(failure, limit, &mut amended))
            }
            TaskOutcome::Succeeded { output, external_id } => {
                let external_id = external_id.and_then(|id| self::external_id(&id, &mut amended));
                succeeded(task.action, output, external_id, limit, &mut amended)
            }
            TaskOutcome::DoneWithoutOutput { code, message } => {
                let (code, message) = words(code, &message, String::new(), &mut amended);
                TaskOutcome::DoneWithoutOutput { code, message }
            }
        };
        Report { command: Command::Report { task, outcome }, amended }
    }

    /// Returns the answer to a report that counted.
    pub(crate) fn answer(amended: &[String]) -> TaskAnswer {
        if amended.is_empty() {
            return TaskAnswer { status: DONE, code: None, message: None };
        }
        let message = format!("it counts, but {}", amended.join("; "));
        TaskAnswer { status: DONE, code: Some("amended".to_owned()), message: Some(message) }
    }

    /// Returns the command, and what was amended.
    pub(crate) fn into_parts(self) -> (Command, Vec<String>) {
        (self.command, self.amended)
    }
}

fn succeeded(
    action: Action,
    output: Payload,
    external_id: Option<String>,
    limit: usize,
    amended: &mut Vec<String>,
) -> TaskOutcome {
    let Err(violation) = output.check(limit) else {
        return TaskOutcome::Succeeded { output, external_id };
    };
    if action == Action::Compensate {
        // The output of an undo is ignored.
        amended.push(format!("its output is left out: {}", violation.message));
        return TaskOutcome::Succeeded { output: Payload::null(), external_id };
    }
    let too_large = violation.code == "payload_too_large";
    let code = if too_large { "output_too_large" } else { "invalid_output" };
    let message = format!("the work was done, but its output cannot be kept: {violation}");
    amended.push(message.clone());
    TaskOutcome::DoneWithoutOutput { code: code.to_owned(), message: text(&message, MESSAGE).0 }
}

/// Returns a failure whose words can be kept.
fn failure(failure: Failure, limit: usize, amended: &mut Vec<String>) -> Failure {
    let Failure { kind, code, message, mut details, mut retry_after } = failure;
    if let Some(wait) = retry_after.as_mut().filter(|wait| **wait > LONGEST_RETRY_AFTER) {
        *wait = LONGEST_RETRY_AFTER;
        amended.push(format!("its retry_after is cut to {LONGEST_RETRY_AFTER}"));
    }
    let mut notes = String::new();
    if let Some(Err(violation)) = details.as_ref().map(|details| details.check(limit)) {
        notes.push_str(&format!(" (its details are left out: {})", violation.code));
        amended.push(format!("its details are left out: {}", violation.message));
        details = None;
    }
    let (code, message) = words(code, &message, notes, amended);
    Failure { kind, code, message, details, retry_after }
}

/// Returns a code and a message that can be kept, with `notes` at the end.
fn words(
    mut code: String,
    message: &str,
    mut notes: String,
    amended: &mut Vec<String>,
) -> (String, String) {
    if code.is_empty() {
        amended.push("it has no code".to_owned());
        "invalid_code".clone_into(&mut code);
    } else if !is_code(&code) {
        notes.push_str(&format!(" (its code was '{}')", text(&code, QUOTED).0));
        amended.push("its code is none: [a-z][a-z0-9_]*, at most 100 characters".to_owned());
        "invalid_code".clone_into(&mut code);
    }
    let room = MESSAGE - notes.len();
    let is_cut = message.len() > room;
    let (mut message, changed) = text(message, room);
    if is_cut {
        amended.push(format!("its message is cut to {MESSAGE} bytes"));
    }
    if changed && message.contains('\u{fffd}') {
        amended.push("characters of its message that cannot be kept are replaced".to_owned());
    }
    message.push_str(&notes);
    (code, message)
}

fn external_id(id: &str, amended: &mut Vec<String>) -> Option<String> {
    if id.is_empty() {
        amended.push("its external id is empty and is left out".to_owned());
        return None;
    }
    let (kept, changed) = replaced(id, EXTERNAL_ID, char::is_control);
    if changed {
        amended.push(format!(
            "its external id is cut to {EXTERNAL_ID} bytes, and control characters are replaced"
        ));
    }
    Some(kept)
}

/// Returns prose of at most `limit` bytes without control characters, and whether it is another text than
/// it was.
fn text(text: &str, limit: usize) -> (String, bool) {
    replaced(text, limit, |c| c.is_control() && !matches!(c, '\n' | '\r' | '\t'))
}

/// Returns a text of at most `limit` bytes with U+FFFD for each character that is `bad`; one that is cut ends in '…'.
fn replaced(text: &str, limit: usize, bad: impl Fn(char) -> bool) -> (String, bool) {
    if text.len() <= limit && !text.chars().any(&bad) {
        return (text.to_owned(), false);
    }
    let mut kept = String::new();
    for c in text.chars().map(|c| if bad(c) { '\u{fffd}' } else { c }) {
        if kept.len() + c.len_utf8() + '…'.len_utf8() > limit {
            kept.push('…');
            break;
        }
        kept.push(c);
    }
    (kept, true)
}

fn is_code(code: &str) -> bool {
    code.len() <= CODE
        && code.starts_with(|c: char| c.is_ascii_lowercase())
        && code
            .bytes()
            .all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
}

/// Returns the details of a heartbeat in a form that can be stored, and the amendments.
pub(crate) fn details(details: Option<Payload>, limit: usize) -> (Option<Payload>, Vec<String>) {
    match details.as_ref().map(|details| details.check(limit)) {
        Some(Err(violation)) => {
            (None, vec![format!("its details are left out: {}", violation.message)])
        }
        _ => (details, Vec::new()),
    }
}

#[cfg(test)]
mod tests {
    use backstitch_saga::StepPath;
    use backstitch_saga::protocol::FailureKind;

    use super::*;

    fn failed(code: &str, message: &str, details: Option<Payload>) -> (Failure, usize) {
        let failure = Failure {
            kind: FailureKind::Permanent,
            code: code.to_owned(),
            message: message.to_owned(),
            details,
            retry_after: None,
        };
        let (command, amended) = report(Action::Forward, TaskOutcome::Failed(failure)).into_parts();
        let Command::Report { outcome: TaskOutcome::Failed(failure), .. } = command else {
            panic!()
        };
        (failure, amended.len())
    }

    fn report(action: Action, outcome: TaskOutcome) -> Report {
        Report::of(TaskKey { step: StepPath::step("a"), action, attempt: 1 }, outcome, 100)
    }

    fn json(text: &str) -> Payload {
        Payload::trusted(text.to_owned()).unwrap()
    }

    #[test]
    fn a_code_that_is_missing_or_none_is_told_once() {
        for (code, message) in [("", "no"), ("Card Declined", "no (its code was 'Card Declined')")]
        {
            let (kept, amended) = failed(code, "no", None);
            assert_eq!((kept.code.as_str(), kept.message.as_str()), ("invalid_code", message));
            assert_eq!(amended, 1, "{code}");
        }
    }

    #[test]
    fn the_words_of_a_failure_are_amended_and_what_happened_is_kept() {
        let (kept, amended) = failed("card_declined", "line\nbreak\tand ä", Some(json("{}")));
        assert_eq!(
            (kept.code.as_str(), kept.message.as_str(), amended),
            ("card_declined", "line\nbreak\tand ä", 0)
        );
        let (kept, _) = failed("refused", "\u{1b}[31mcard\u{0} \u{b}\u{85}\u{1b}[0m", None);
        assert_eq!(
            (kept.code.as_str(), kept.message.as_str()),
            ("refused", "\u{fffd}[31mcard\u{fffd} \u{fffd}\u{fffd}\u{fffd}[0m")
        );
        for code in ["Card-Declined", "", "9x", &"x".repeat(101), "a b", "ä"] {
            let (kept, amended) = failed(code, "no", None);
            assert_eq!(
                (kept.kind, kept.code.as_str(), amended),
                (FailureKind::Permanent, "invalid_code", 1),
                "{code}"
            );
            assert!(
                kept.message.contains(code) && kept.message.starts_with("no"),
                "{}",
                kept.message
            );
        }
        let (kept, _) = failed("refused", &"é".repeat(9_000), None);
        assert!(kept.message.len() <= MESSAGE && kept.message.ends_with('…'));
        let (kept, _) =
            failed("\u{0}", &"x".repeat(20_000), Some(json(&format!("\"{}\"", "x".repeat(200)))));
        assert!(kept.message.len() <= MESSAGE && kept.details.is_none());
        assert!(
            kept.message.contains("payload_too_large") && kept.message.contains("its code was")
        );
    }

    #[test]
    fn an_output_that_cannot_be_kept_ends_the_attempt_as_done_without_one() {
        let done = |action, text: &str, id: Option<&str>| {
            let external_id = id.map(str::to_owned);
            report(action, TaskOutcome::Succeeded { output: json(text), external_id })
                .into_parts()
                .0
        };
        let large = format!("\"{}\"", "x".repeat(200));
        for (action, output, expected) in [
            (Action::Forward, large.as_str(), "output_too_large"),
            (Action::Verify, r#"{"a":1,"a":2}"#, "invalid_output"),
        ] {
            let command = done(action, output, None);
            let Command::Report { outcome: TaskOutcome::DoneWithoutOutput { code, .. }, .. } =
                command
            else {
                panic!("{command:?}")
            };
            assert_eq!(code, expected);
        }
        let Command::Report { outcome, .. } = done(Action::Compensate, &large, None) else {
            panic!()
        };
        assert_eq!(outcome, TaskOutcome::Succeeded { output: Payload::null(), external_id: None });
        let Command::Report { outcome: TaskOutcome::Succeeded { external_id, .. }, .. } =
            done(Action::Forward, "1", Some("a\u{0}b\n"))
        else {
            panic!()
        };
        assert_eq!(external_id.as_deref(), Some("a\u{fffd}b\u{fffd}"));
    }
}
