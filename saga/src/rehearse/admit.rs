//! The check that a definition must pass to be registered, beside that of its form: a rehearsal, as far as it goes in
//! the time that a registration may take. Definitions that were registered before this check existed are not checked.

use std::sync::Arc;

use super::finding::{self, Severity};
use super::{Bounds, Finding, Rehearsal, rehearse_in};
use crate::protocol::Rehearsed;
use crate::{Graph, Violation};

/// Largest number of traces.
const TRACES: u64 = 250;
/// Largest amount of work of all traces. That of a trace grows with the square of the number of
/// steps.
const WORK: u64 = 200_000;
/// Number of steps that a fan-out counts for: that of its items.
const ITEMS: u64 = 4;
/// Largest number of faults in one trace.
const FAULTS: u32 = 2;

/// Result of admission: a definition may be registered, or not.
#[derive(Debug)]
pub struct Admission {
    /// The reasons of the refusal; empty if it may be registered.
    pub refused: Vec<Violation>,
    /// Extent of its rehearsal, with findings for the person who registers it.
    pub rehearsed: Rehearsed,
}

/// Rehearses a definition as far as a registration may, and returns whether it may be registered. Findings and their
/// severity are those of [`rehearse`](super::rehearse).
#[must_use]
pub fn admit(graph: &Arc<Graph>) -> Admission {
    let mut rehearsed = Rehearsed { traces: 0, complete: false, warnings: Vec::new() };
    let findings = match rehearse_within(graph) {
        None => finding::all(graph, &[]),
        Some(found) => {
            rehearsed.traces = found.traces();
            rehearsed.complete = found.is_complete();
            found.findings
        }
    };
    let mut refused = Vec::new();
    // Findings of the graph alone are in `warnings` of the response itself.
    for Finding { severity, violation, .. } in
        findings.into_iter().filter(|finding| !finding.is_of_graph)
    {
        match severity {
            Severity::Error => refused.push(violation),
            Severity::Warning => rehearsed.warnings.push(violation),
        }
    }
    Admission { refused, rehearsed }
}

/// Rehearses a definition as far as a registration may; `None` when it is so large that no trace may be run.
#[must_use]
pub fn rehearse_within(graph: &Arc<Graph>) -> Option<Rehearsal> {
    let size: u64 =
        graph.nodes.iter().map(|node| if node.map().is_some() { ITEMS } else { 1 }).sum();
    let traces = (WORK / size.saturating_mul(size).max(1)).min(TRACES);
    let scenes = usize::try_from(traces).unwrap_or(usize::MAX);
    (traces > 0).then(|| rehearse_in(graph, Bounds { faults: FAULTS, traces }, scenes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearse::rehearse;
    use serde_json::{Value, json};

    fn admitted(steps: &Value) -> Admission {
        let text = json!({"name": "w", "version": 1, "steps": steps}).to_string();
        admit(&Arc::new(Graph::parse(&text).unwrap()))
    }

    fn codes(found: &[Violation]) -> Vec<(&str, &str)> {
        found.iter().map(|found| (found.pointer.as_str(), found.code.as_str())).collect()
    }

    #[test]
    fn giving_up_in_doubt_without_an_undo_is_refused() {
        let task = json!({"name": "pay", "input": {"path": "/input"}, "on_unknown": "compensate"});
        let found = admitted(&json!([{"id": "pay", "task": task}]));
        assert_eq!(codes(&found.refused), [("/steps/0/task/on_unknown", "compensate_missing")]);
        let with = |member: &str, value: Value| {
            let mut task = task.clone();
            task[member] = value;
            admitted(&json!([{"id": "pay", "task": task}])).refused
        };
        assert_eq!(with("compensate", json!({"name": "refund"})), []);
        assert_eq!(with("class", json!("read_only")), []);
    }

    #[test]
    fn a_child_after_a_pivot_closes_when_its_failure_stays_with_it() {
        let undone = json!({"name": "s", "input": {"path": "/input"}, "compensate": {"name": "u"}});
        let pivot = json!({"name": "p", "input": {"path": "/input"}, "class": "pivot"});
        let steps = |on_failure: &str| {
            let child = json!({"workflow": "papers", "input": {"path": "/input"}, "on_failure": on_failure});
            json!([{"id": "a", "task": undone}, {"id": "p", "after": ["a"], "task": pivot},
                {"id": "c", "after": ["p"], "child": child}])
        };
        for on_failure in ["incident", "continue"] {
            let found = admitted(&steps(on_failure));
            assert_eq!((found.refused, found.rehearsed.warnings), (vec![], vec![]), "{on_failure}");
        }
        let text = json!({"name": "w", "version": 1, "steps": steps("compensate")}).to_string();
        assert_eq!(
            codes(&Graph::parse(&text).unwrap_err()),
            [("/steps/2", "can_fail_after_pivot")]
        );
    }

    #[test]
    fn a_join_that_a_constant_list_never_meets_is_refused() {
        let map = |items: Value, join: Value, empty: &str| {
            let task =
                json!({"name": "i", "input": {"path": "/item"}, "compensate": {"name": "u"}});
            let map = json!({"items": items, "join": join, "empty": empty, "task": task});
            admitted(&json!([{"id": "m", "map": map}]))
        };
        let three = || json!({"const": [1, 2, 3]});
        let refused = [("/steps/0/map/join", "join_impossible")];
        assert_eq!(codes(&map(three(), json!({"quorum": 4}), "fail").refused), refused);
        assert_eq!(codes(&map(json!({"const": []}), json!("any"), "fail").refused), refused);
        let drawn = json!({"array": [{"path": "/input/a"}, {"path": "/input/b"}]});
        assert_eq!(codes(&map(drawn, json!({"quorum": 3}), "fail").refused), refused);
        for (items, join, empty) in [
            (three(), json!({"quorum": 3}), "fail"),
            (json!({"const": []}), json!({"quorum": 3}), "succeed"),
            (json!({"path": "/input"}), json!({"quorum": 1000}), "fail"),
        ] {
            assert_eq!(map(items, join, empty).refused, []);
        }
    }

    #[test]
    fn waits_for_one_signal_whose_schemas_exclude_each_other_are_refused() {
        let kind = |kind: &str| json!({"type": "object", "required": ["kind"], "properties": {"kind": {"const": kind}}});
        let wait = |id: &str, wait: Value| json!({"id": id, "wait": wait});
        let one = || json!({"signal": "go", "timeout": "1d", "schema": kind("a")});
        let other = |schema: Value| json!({"signal": "go", "timeout": "1d", "schema": schema});
        let refused = [("/steps/1/wait", "signal_never_fits")];
        let at_once = json!([wait("a", one()), wait("b", other(kind("b")))]);
        assert_eq!(codes(&admitted(&at_once).refused), refused);
        let mut one_after_the_other = at_once;
        one_after_the_other[1]["after"] = json!(["a"]);
        assert_eq!(codes(&admitted(&one_after_the_other).refused), refused);
        let several =
            json!({"signals": [{"signal": "go", "schema": kind("b")}, "no"], "timeout": "1d"});
        let found = admitted(&json!([wait("a", one()), wait("b", several)])).refused;
        assert_eq!(codes(&found), refused);
        assert!(found[0].message.contains("of this step and of 'a': at '/kind'"), "{found:?}");
        for fits in [kind("a"), json!({"type": "object", "required": ["by"]}), json!({})] {
            let steps = json!([wait("a", one()), wait("b", other(fits))]);
            assert_eq!(admitted(&steps).refused, []);
        }
        let mut another = other(kind("b"));
        another["signal"] = json!("stop");
        assert_eq!(admitted(&json!([wait("a", one()), wait("b", another)])).refused, []);
    }

    #[test]
    fn a_last_step_that_nothing_undoes_is_registered_with_a_warning() {
        let found = admitted(&json!([
            {"id": "stock", "task": {"name": "s", "input": {"path": "/input"}, "compensate": {"name": "u"}}},
            {"id": "mail", "after": ["stock"], "task": {"name": "m", "input": {"path": "/input"}}}]));
        assert_eq!(found.refused, []);
        assert_eq!(codes(&found.rehearsed.warnings), [("/steps/1", "nothing_left_behind")]);
    }

    #[test]
    fn an_undo_that_tells_nobody_in_time_is_told_at_registration() {
        let undo = json!({"name": "u", "alert_after": 1_000_000, "slow_after": "366d"});
        let task =
            |undo: Value| json!({"name": "s", "input": {"path": "/input"}, "compensate": undo});
        let steps = |undo: Value| {
            json!([{"id": "a", "task": task(undo)},
                {"id": "b", "after": ["a"], "task": task(json!({"name": "u"}))}])
        };
        assert_eq!(codes(&admitted(&steps(undo)).rehearsed.warnings), [("", "ends_or_asks")]);
        assert_eq!(admitted(&steps(json!({"name": "u", "alert_after": 1_000_000}))).refused, []);
    }

    #[test]
    fn what_the_bound_cuts_off_is_said_and_a_large_definition_is_quick() {
        let steps = |count: usize| {
            let task =
                json!({"name": "s", "input": {"path": "/input"}, "compensate": {"name": "u"}});
            let step = |at: usize| match at {
                0 => json!({"id": "s0", "task": task}),
                _ => {
                    json!({"id": format!("s{at}"), "after": [format!("s{}", at - 1)], "task": task})
                }
            };
            Value::Array((0..count).map(step).collect())
        };
        let one = admitted(&steps(1)).rehearsed;
        assert!(one.complete && one.traces > 10, "{one:?}");
        let many = admitted(&steps(60)).rehearsed;
        assert!(!many.complete && (1..=60).contains(&many.traces), "{many:?}");
        let most = admitted(&steps(500)).rehearsed;
        assert_eq!((most.complete, most.traces), (false, 0));
    }

    /// Returns severity, code and place of all findings, of a registration and of a rehearsal.
    fn told(graph: &Arc<Graph>) -> [Vec<(Severity, String, String)>; 2] {
        let Admission { refused, rehearsed } = admit(graph);
        let own = graph.warnings().into_iter();
        let own = own.map(|own| (Severity::Warning, own.code, own.pointer));
        let one =
            |severity: Severity| move |found: Violation| (severity, found.code, found.pointer);
        let registered = refused.into_iter().map(one(Severity::Error));
        let registered =
            registered.chain(rehearsed.warnings.into_iter().map(one(Severity::Warning)));
        let mut registered: Vec<_> = registered.chain(own).collect();
        let found = rehearse(graph, Bounds { faults: FAULTS, traces: 2_000 }).findings.into_iter();
        let mut found: Vec<_> = found
            .map(|found| (found.severity, found.violation.code, found.violation.pointer))
            .collect();
        registered.sort();
        found.sort();
        [registered, found]
    }

    #[test]
    fn registration_and_rehearsal_find_the_same() {
        let task = |more: Value| {
            let mut task = json!({"name": "t", "input": {"path": "/input"}});
            task.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
            task
        };
        let undone = || task(json!({"compensate": {"name": "u"}}));
        for (steps, errors, warnings) in [
            (json!([{"id": "a", "task": undone()}]), 0, 0),
            (json!([{"id": "a", "task": task(json!({"on_unknown": "compensate"}))}]), 1, 1),
            (
                json!([{"id": "a", "task": undone()}, {"id": "b", "after": ["a"], "task": task(json!({}))}]),
                0,
                1,
            ),
            (json!([{"id": "a", "sleep": {"for": "30d"}}]), 0, 2),
            (json!([{"id": "a", "fail": {"code": "no", "message": "no"}}]), 0, 1),
            (json!([{"id": "a", "child": {"workflow": "w", "input": {"const": 1}}}]), 0, 1),
        ] {
            let text = json!({"name": "w", "version": 1, "steps": steps}).to_string();
            let [registered, rehearsed] = told(&Arc::new(Graph::parse(&text).unwrap()));
            assert_eq!(registered, rehearsed, "{text}");
            let severe = rehearsed.iter().filter(|found| found.0 == Severity::Error).count();
            assert_eq!((severe, rehearsed.len() - severe), (errors, warnings), "{rehearsed:?}");
        }
    }
}
