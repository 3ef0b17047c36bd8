//! Describes the registration of a workflow, as text. Pure.

use std::fmt::Write as _;

use backstitch_saga::Violation;
use backstitch_saga::protocol::{Warning, WorkflowView};

use crate::print::counted;

/// Says whether the version is new, how far it was rehearsed, and each warning on a line of its own.
pub(super) fn text(status: u16, view: &WorkflowView) -> String {
    let what = match status {
        201 => "registered, new",
        _ => "unchanged, registered before",
    };
    let steps = view.definition.as_ref().map(|definition| definition.steps.len());
    let steps = steps.map_or(String::new(), |count| format!(", {}", counted(count, "step")));
    let mut text = format!("{} version {}: {what}{steps}\n", view.name, view.version);
    if let Some(rehearsed) = &view.rehearsal {
        let all = if rehearsed.complete { "all" } else { "not all" };
        let _ = writeln!(
            text,
            "rehearsed: {}, {all} with up to two faults",
            counted(rehearsed.traces, "trace")
        );
        for Violation { pointer, code, message } in &rehearsed.warnings {
            warning(&mut text, pointer, code, message);
        }
    }
    for Warning { pointer, code, message } in &view.warnings {
        warning(&mut text, pointer, code, message);
    }
    text
}

fn warning(text: &mut String, pointer: &str, code: &str, message: &str) {
    let place = if pointer.is_empty() { "the document" } else { pointer };
    let message: String = message.chars().map(|c| if c.is_control() { ' ' } else { c }).collect();
    let _ = writeln!(text, "warning: {place}: {message} ({code})");
}

#[cfg(test)]
mod tests {
    use super::*;

    const VIEW: &str = r#"{"name":"order","version":3,"hash":"0","registered_at":"2026-03-05T12:30:15.250Z",
        "definition":{"name":"order","version":3,"steps":[{"id":"nap","sleep":{"for":"30d"}}]},
        "rehearsal":{"traces":12,"complete":true,"warnings":[
            {"pointer":"/steps/0","code":"nothing_left_behind","message":"the run was undone"}]},
        "warnings":[{"pointer":"/steps/0/sleep/for","code":"never_reached","message":"too long"}]}"#;

    #[test]
    fn a_registration_says_whether_it_is_new_and_its_warnings_one_a_line() {
        let view: WorkflowView = serde_json::from_str(VIEW).unwrap();
        let expected = [
            "order version 3: registered, new, 1 step",
            "rehearsed: 12 traces, all with up to two faults",
            "warning: /steps/0: the run was undone (nothing_left_behind)",
            "warning: /steps/0/sleep/for: too long (never_reached)",
        ];
        assert_eq!(text(201, &view).lines().collect::<Vec<_>>(), expected);
        let again = WorkflowView { rehearsal: None, ..view };
        assert!(text(200, &again).starts_with("order version 3: unchanged, registered before"));
    }
}
