//! Mistakes by which a saga could strand itself: fail when something has been done that nothing can undo.
//!
//! The rules, for a step and the pivots of its definition:
//! - after a pivot nothing may fail, and nothing can be undone;
//! - beside a pivot, neither before nor after it, nothing may fail and there must be nothing to undo, because the
//!   pivot may be passed at any moment;
//! - a step whose effect nothing can undo is the last that can fail: each other that can is before it.

use crate::graph::Links;
use crate::{Class, Definition, OnFailure, Step, Task, Violation};

/// Checks each step. When the definition is not `wired`, some edges may be missing: then only those rules are
/// checked that a further edge could not satisfy.
pub(super) fn check(
    definition: &Definition,
    links: &Links,
    wired: bool,
    is_broken: &dyn Fn(usize) -> bool,
    found: &mut Vec<Violation>,
) {
    let steps = &definition.steps;
    let above: Vec<Vec<bool>> = (0..steps.len()).map(|at| links.ancestors(at)).collect();
    let is_pivot = |at: usize| !is_broken(at) && steps[at].class() == Some(Class::Pivot);
    for (at, step) in steps.iter().enumerate() {
        // A step on a cycle is its own ancestor.
        let Some(task) = step.policy().filter(|_| !is_broken(at) && !above[at][at]) else {
            continue;
        };
        let task = task.as_ref();
        let mut wrong = |place: &str, code: &str, message: String| {
            found.push(Violation::new(format!("/steps/{at}{place}"), code, message));
        };
        if let Some(pivot) = (0..steps.len()).find(|other| above[at][*other] && is_pivot(*other)) {
            if let Some((code, message)) = after_pivot(step, task, &steps[pivot].id) {
                wrong("", code, message);
            }
            continue;
        }
        if !wired {
            continue;
        }
        let beside = |other: &usize| is_pivot(*other) && *other != at && !above[*other][at];
        // Of two pivots beside each other, the later in the list is told.
        let told = |other: &usize| *other < at || !is_pivot(at);
        if let Some(pivot) = (0..steps.len()).filter(beside).find(told) {
            if task.can_fail() || has_effect_to_undo(task) {
                wrong("", "beside_pivot", beside_pivot(&steps[pivot].id));
            }
            continue;
        }
        let others = (0..steps.len()).filter(|other| *other != at && !above[at][*other]);
        let failing = others.map(|other| &steps[other]).find(|other| can_fail(other));
        if let Some(message) = stranded(step, task, failing) {
            wrong("", "not_undoable", message);
        }
    }
}

fn can_fail(step: &Step) -> bool {
    step.policy().is_some_and(|task| task.can_fail())
}

/// Whether a failure elsewhere would have to undo this, or could not.
fn has_effect_to_undo(task: &Task) -> bool {
    !matches!(task.class(), Some(Class::Retriable | Class::ReadOnly))
}

/// What is wrong with a task after a pivot.
fn after_pivot(step: &Step, task: &Task, pivot: &str) -> Option<(&'static str, String)> {
    match task.class() {
        // Its own run undoes what it did, or tells of it; the failure stays with the step.
        _ if step.child.is_some() && task.on_failure != OnFailure::Compensate => None,
        _ if step.child.is_some() => Some((
            "can_fail_after_pivot",
            format!(
                "it comes after the pivot '{pivot}', after which the run cannot fail: let `on_failure` of the child be \
                 incident or continue, or move it before the pivot"
            ),
        )),
        Some(Class::Compensatable) => Some((
            "compensatable_after_pivot",
            format!(
                "it comes after the pivot '{pivot}', after which nothing is undone: make it retriable, or move it \
                 before the pivot"
            ),
        )),
        Some(Class::Retriable) => None,
        Some(Class::ReadOnly) if task.on_failure != OnFailure::Compensate => None,
        _ => Some((
            "can_fail_after_pivot",
            format!(
                "it comes after the pivot '{pivot}', after which the run cannot fail: make it retriable, or \
                 read-only with `on_failure` incident or continue, or move it before the pivot"
            ),
        )),
    }
}

fn beside_pivot(pivot: &str) -> String {
    format!(
        "it runs beside the pivot '{pivot}', which may be passed at any moment: put it before the pivot (the pivot \
         waits for it) or after it, or let it be retriable, or read-only with `on_failure` incident or continue"
    )
}

/// What is wrong with a step whose effect nothing can undo while `failing` can still fail.
fn stranded(step: &Step, task: &Task, failing: Option<&Step>) -> Option<String> {
    let fan_out = step.map.is_some() && task.can_fail();
    match (task.class(), failing) {
        (None, Some(failing)) => Some(format!(
            "nothing can undo it, and '{}' can still fail after it was done: give it `compensate`, or the class \
             pivot, retriable or read_only",
            failing.id
        )),
        (None, None) if fan_out => Some(
            "nothing can undo its items, and one can still fail after others were done: give its task \
             `compensate`, or the class retriable or read_only"
                .to_owned(),
        ),
        (Some(Class::Pivot), _) if fan_out => Some(
            "some items of a pivot may have happened when another fails: let `on_failure` be incident or continue, \
             or make it retriable"
                .to_owned(),
        ),
        _ => None,
    }
}
