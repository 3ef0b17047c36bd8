//! Mistakes by which a saga could strand itself: fail when something has been done that nothing can undo.
//!
//! The rules, for a step and the pivots of its definition:
//! - after a pivot nothing may fail, and nothing can be undone;
//! - beside a pivot, neither before nor after it, nothing may fail and there must be nothing to undo, because the
//!   pivot may be passed at any moment;
//! - a step whose effect nothing can undo is the last that can fail: each other that can is before it.

use crate::graph::Links;
use crate::protocol::Warning;
use crate::{Class, Definition, Graph, OnFailure, Step, Task, Violation};

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
        // Of two adjacent pivots, the later in the list is reported.
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

impl Graph {
    /// That a step which is a run of `child` strands this workflow as that is now: the child does what nothing undoes,
    /// and another step can still fail after it.
    #[must_use]
    pub fn warning_of_lasting_child(&self, step: usize, child: &Definition) -> Option<Warning> {
        let steps = &self.definition.steps;
        // Such a step with another class was held to the rules of that.
        if steps[step].class() != Some(Class::Compensatable) {
            return None;
        }
        let above = Links::of(&self.definition).ancestors(step);
        let others = (0..steps.len()).filter(|other| *other != step && !above[*other]);
        let failing = others.map(|other| &steps[other]).find(|other| can_fail(other))?;
        let lasts = |one: &&Step| {
            let task = one.policy();
            task.is_some_and(|task| matches!(task.class(), None | Some(Class::Pivot)))
        };
        let lasting = child.steps.iter().find(lasts)?;
        Some(Warning {
            pointer: format!("/steps/{step}/child"),
            code: "not_undoable".to_owned(),
            message: format!(
                "nothing can undo '{}' of '{}', and '{}' can still fail after it was done: then this run waits for a person",
                lasting.id, child.name, failing.id
            ),
        })
    }
}

fn can_fail(step: &Step) -> bool {
    step.policy().is_some_and(|task| task.can_fail())
}

/// Returns whether a failure elsewhere would have to undo it, possible or not.
fn has_effect_to_undo(task: &Task) -> bool {
    !matches!(task.class(), Some(Class::Retriable | Class::ReadOnly))
}

/// Returns the mistake in a task after a pivot.
fn after_pivot(step: &Step, task: &Task, pivot: &str) -> Option<(&'static str, String)> {
    match task.class() {
        // Its own run undoes its effects or reports them; the failure stays with the step.
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

/// Returns the mistake in a step whose effect nothing can undo while `failing` can still fail.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_that_cannot_be_undone_before_what_can_fail_is_warned_of() {
        let child = |task: &str| {
            let task =
                format!(r#"{{"id":"ship","task":{{"name":"ship","input":{{"const":1}},{task}}}}}"#);
            let text = format!(r#"{{"name":"parcel","version":1,"steps":[{task}]}}"#);
            Graph::parse(&text).unwrap().definition
        };
        let parent = |before: &str, after: &str| {
            let fails =
                r#""task":{"name":"pay","input":{"const":1},"compensate":{"name":"refund"}}"#;
            let text = format!(
                r#"{{"name":"order","version":1,"steps":[{{"id":"parcel"{before},"child":{{"workflow":"parcel","input":{{"const":1}}}}}},
                    {{"id":"pay"{after},{fails}}}]}}"#
            );
            Graph::parse(&text).unwrap()
        };
        let pivot = child(r#""class":"pivot""#);
        let first = parent("", r#","after":["parcel"]"#);
        let warned = first.warning_of_lasting_child(0, &pivot).unwrap();
        assert_eq!(
            (warned.pointer.as_str(), warned.code.as_str()),
            ("/steps/0/child", "not_undoable")
        );
        assert!(warned.message.contains("'ship' of 'parcel'") && warned.message.contains("'pay'"));
        assert!(parent("", "").warning_of_lasting_child(0, &pivot).is_some(), "beside it");
        let last = parent(r#","after":["pay"]"#, "");
        assert_eq!(last.warning_of_lasting_child(0, &pivot), None);
        let undone = child(r#""compensate":{"name":"return"}"#);
        assert_eq!(first.warning_of_lasting_child(0, &undone), None);
        assert_eq!(first.warning_of_lasting_child(0, &child(r#""class":"read_only""#)), None);
    }
}
