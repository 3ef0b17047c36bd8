//! Spelling of names.

use crate::Violation;

/// A kind of name: what it is called, and what beside `a-z` and `0-9` may follow its first letter.
pub(super) struct Form {
    what: &'static str,
    code: &'static str,
    marks: &'static str,
    longest: usize,
}

/// The name of a workflow.
pub(super) const WORKFLOW: Form =
    Form { what: "the name of a workflow", code: "invalid_name", marks: "-", longest: 100 };
/// The id of a step.
pub(super) const STEP: Form =
    Form { what: "the id of a step", code: "invalid_id", marks: "_-", longest: 60 };
/// The name of a handler.
pub(super) const HANDLER: Form =
    Form { what: "the name of a handler", code: "invalid_handler", marks: "_.-", longest: 100 };
/// The name of a queue.
pub(super) const QUEUE: Form =
    Form { what: "the name of a queue", code: "invalid_queue", marks: "_.-", longest: 100 };
/// The name of a signal.
pub(super) const SIGNAL: Form =
    Form { what: "the name of a signal", code: "invalid_signal", marks: "_.-", longest: 100 };
/// The code of a failure.
pub(super) const FAILURE: Form =
    Form { what: "the code of a failure", code: "invalid_code", marks: "_", longest: 100 };
/// The type of an event.
pub(super) const EVENT: Form =
    Form { what: "the type of an event", code: "invalid_event", marks: "_.-", longest: 100 };
/// The kind of thing that a stream is about.
pub(super) const ENTITY: Form =
    Form { what: "an entity", code: "invalid_entity", marks: "_.-", longest: 100 };
/// The name of a fact.
pub(super) const FACT: Form =
    Form { what: "the name of a fact", code: "invalid_fact", marks: "_.-", longest: 100 };

/// Checks the spelling of `name` at `pointer`.
pub(super) fn check(form: &Form, name: &str, pointer: &str, found: &mut Vec<Violation>) {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase());
    let rest = name
        .chars()
        .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || form.marks.contains(c));
    if first && rest && name.len() <= form.longest {
        return;
    }
    let message = format!(
        "'{}' cannot be {}: that begins with a letter and has lower-case letters, digits and {}, at most {} in all",
        name.chars().take(form.longest).collect::<String>(),
        form.what,
        form.marks.chars().map(|mark| format!("'{mark}'")).collect::<Vec<_>>().join(" "),
        form.longest
    );
    found.push(Violation::new(pointer, form.code, message));
}

/// Checks the name of a fact outside of a definition.
///
/// # Errors
/// The mistakes in it, at `pointer`.
pub fn check_fact(fact: &str, pointer: &str) -> Result<(), Violation> {
    let mut found = Vec::new();
    check(&FACT, fact, pointer, &mut found);
    found.pop().map_or(Ok(()), Err)
}
