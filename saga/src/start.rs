//! Checks of a start request: one set of rules for starts by REST, by SQL, by schedules and by parents, and for labels
//! that are set later. The input is checked where it enters the journal.

use crate::Violation;
use crate::protocol::{Labels, StartRun};

/// The most bytes of the name of a workflow.
pub(crate) const NAME_LIMIT: usize = 200;
/// The most bytes of a key, a correlation id or the value of a label.
pub(crate) const TEXT_LIMIT: usize = 255;
/// The most bytes of the id of a cause.
const CAUSE_LIMIT: usize = 128;
/// The most bytes of the name of a label.
const LABEL_NAME_LIMIT: usize = 100;
/// The most labels of one run.
pub const LABEL_LIMIT: usize = 32;

/// Returns everything that is wrong with a start request beside its input.
#[must_use]
pub fn check_start(request: &StartRun) -> Vec<Violation> {
    let mut wrong = Vec::new();
    line("/workflow", &request.workflow, NAME_LIMIT, &mut wrong);
    if let Some(key) = &request.key {
        line("/key", key, TEXT_LIMIT, &mut wrong);
    }
    if let Some(id) = &request.correlation_id {
        line("/correlation_id", id, TEXT_LIMIT, &mut wrong);
    }
    if let Some(id) = &request.causation_id {
        line("/causation_id", id, CAUSE_LIMIT, &mut wrong);
    }
    wrong.extend(check_labels("/labels", &request.labels));
    if request.start_at.is_some() && request.delay.is_some() {
        let message = "Say either start_at or delay";
        wrong.push(Violation::new("/delay", "out_of_range", message));
    }
    if request.undo_budget.is_some() && request.end_by.is_none() {
        let message = "Say by when the run is to be over (end_by) to reserve time for its undo";
        wrong.push(Violation::new("/undo_budget", "out_of_range", message));
    }
    wrong
}

/// Returns all mistakes in labels at `pointer`.
#[must_use]
pub fn check_labels(pointer: &str, labels: &Labels) -> Vec<Violation> {
    let mut wrong = Vec::new();
    if labels.len() > LABEL_LIMIT {
        let message = format!("A run may have {LABEL_LIMIT} labels; here are {}", labels.len());
        wrong.push(Violation::new(pointer, "out_of_range", message));
    }
    for (name, value) in labels {
        let pointer = format!("{pointer}/{}", name.replace('~', "~0").replace('/', "~1"));
        check_label_name(&pointer, name, &mut wrong);
        line(&pointer, value, TEXT_LIMIT, &mut wrong);
    }
    wrong
}

/// The labels that schedules give their runs.
pub const SCHEDULE_LABELS: [&str; 2] = ["schedule", "scheduled_for"];

/// Returns what is wrong with labels that a person gives at `pointer`, or takes away, and that only schedules give.
#[must_use]
pub fn check_reserved<'a>(
    pointer: &str,
    names: impl IntoIterator<Item = &'a str>,
) -> Vec<Violation> {
    let reserved = names.into_iter().filter(|name| SCHEDULE_LABELS.contains(name));
    let message = "This label is given to runs by their schedule alone";
    reserved
        .map(|name| Violation::new(format!("{pointer}/{name}"), "reserved_name", message))
        .collect()
}

/// Adds what is wrong with the name of a label. `label=name:value` must say where the name ends.
pub fn check_label_name(pointer: &str, name: &str, wrong: &mut Vec<Violation>) {
    line(pointer, name, LABEL_NAME_LIMIT, wrong);
    if name.contains(':') {
        let message = "A label's name must not contain ':'";
        wrong.push(Violation::new(pointer, "forbidden_character", message));
    }
}

/// Checks for one line of text, `1..=max` bytes, without control characters.
fn line(pointer: &str, text: &str, max: usize, wrong: &mut Vec<Violation>) {
    if text.is_empty() {
        wrong.push(Violation::new(pointer, "empty", "It must not be empty"));
    }
    if text.len() > max {
        let message = format!("It may have {max} bytes; it has {}", text.len());
        wrong.push(Violation::new(pointer, "too_long", message));
    }
    if let Some(found) = text.chars().find(|c| c.is_control()) {
        let message = format!("The character U+{:04X} must not stand here", u32::from(found));
        wrong.push(Violation::new(pointer, "forbidden_character", message));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everything_that_is_wrong_with_a_start_is_told_with_its_place() {
        let start: StartRun = serde_json::from_value(serde_json::json!({
            "workflow": "", "key": "a\u{0}b", "correlation_id": "x".repeat(256),
            "labels": { "a/b": "line\nbreak", "c:d": "e", "f": "", "g".repeat(101): "h" },
            "start_at": "2026-05-01T00:00:00Z", "delay": "1s", "undo_budget": "1m"
        }))
        .unwrap();
        let long = format!("/labels/{}", "g".repeat(101));
        let expected = [
            ("/workflow", "empty"),
            ("/key", "forbidden_character"),
            ("/correlation_id", "too_long"),
            ("/labels/a~1b", "forbidden_character"),
            ("/labels/c:d", "forbidden_character"),
            ("/labels/f", "empty"),
            (long.as_str(), "too_long"),
            ("/delay", "out_of_range"),
            ("/undo_budget", "out_of_range"),
        ];
        let found = check_start(&start);
        let found: Vec<(&str, &str)> =
            found.iter().map(|one| (one.pointer.as_str(), one.code.as_str())).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_run_may_have_thirty_two_labels_and_no_more() {
        let labels = |count: usize| -> Labels {
            (0..count).map(|number| (format!("l{number}"), "v".to_owned())).collect()
        };
        assert!(check_labels("/labels", &labels(LABEL_LIMIT)).is_empty());
        let wrong = check_labels("/set", &labels(LABEL_LIMIT + 1));
        assert_eq!((wrong.len(), wrong[0].pointer.as_str()), (1, "/set"));
    }
}
