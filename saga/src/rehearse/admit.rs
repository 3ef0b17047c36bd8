//! The check that a definition must pass to be registered, beside that of its form: a rehearsal, as far as it goes in
//! the time that a registration may take. What was registered before it was made is not asked again.

use std::sync::Arc;

use super::{Bounds, Defect, rehearse_in};
use crate::protocol::Rehearsed;
use crate::run::impossible;
use crate::{Action, Class, Empty, Expr, Graph, Map, OnUnknown, Task, Violation};

/// How many traces are run at most.
const TRACES: u64 = 250;
/// How much work they may be together. That of a trace grows with the square of the number of steps.
const WORK: u64 = 200_000;
/// How many steps a fan-out counts for: that of its items.
const ITEMS: u64 = 4;
/// How many faults strike in one trace at most.
const FAULTS: u32 = 2;
/// The rule that a run leaves nothing behind.
const NOTHING_LEFT: &str = "nothing_left_behind";
/// The rule that some run succeeds. What is drawn may not be what it takes, so that it is told and no more.
const CAN_SUCCEED: &str = "can_succeed";

/// Whether a definition may be registered.
#[derive(Debug)]
pub struct Admission {
    /// Why not; nothing when it may.
    pub refused: Vec<Violation>,
    /// How far it was rehearsed, and what whoever registers it should know.
    pub rehearsed: Rehearsed,
}

/// Looks whether a definition may be registered.
#[must_use]
pub fn admit(graph: &Arc<Graph>) -> Admission {
    let mut refused = contradictions(graph);
    let size: u64 =
        graph.nodes.iter().map(|node| if node.map().is_some() { ITEMS } else { 1 }).sum();
    let traces = (WORK / size.saturating_mul(size).max(1)).min(TRACES);
    let mut rehearsed = Rehearsed { traces: 0, complete: false, warnings: Vec::new() };
    if traces == 0 || !refused.is_empty() {
        return Admission { refused, rehearsed };
    }
    let scenes = usize::try_from(traces).unwrap_or(usize::MAX);
    let found = rehearse_in(graph, Bounds { faults: FAULTS, traces }, scenes);
    rehearsed.traces = found.traces();
    rehearsed.complete = found.levels.iter().all(|level| level.complete);
    for defect in &found.defects {
        let told = violation(graph, defect);
        if is_told_only(defect) { &mut rehearsed.warnings } else { &mut refused }.push(told);
    }
    Admission { refused, rehearsed }
}

/// Whether a definition with this defect may be registered: it is said in the answer. Validation allows steps that
/// nothing undoes where nothing can fail after them; when one stays in doubt, its run ends with an incident. Attempts
/// without a limit, of which nobody is told for long, are allowed: whoever writes them knows why.
fn is_told_only(defect: &Defect) -> bool {
    [CAN_SUCCEED, NOTHING_LEFT, "ends_or_asks"].contains(&defect.rule)
}

/// The steps that a defect names.
fn steps_of<'a>(graph: &'a Graph, defect: &'a Defect) -> impl Iterator<Item = usize> + 'a {
    let quoted = defect.message.split('\'').skip(1).step_by(2);
    quoted.filter_map(|name| graph.position(name.split('/').next().unwrap_or(name)))
}

fn violation(graph: &Graph, defect: &Defect) -> Violation {
    let pointer = steps_of(graph, defect).next().map_or(String::new(), |at| format!("/steps/{at}"));
    let message = format!("{}; so it comes to that: {}", defect.message, defect.trace.join("; "));
    Violation::new(pointer, defect.rule, message)
}

/// What a definition says that contradicts itself, whatever happens to its runs.
fn contradictions(graph: &Graph) -> Vec<Violation> {
    let mut found = Vec::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        let place = if node.map().is_some() { "map/task" } else { "task" };
        if gives_up_in_vain(node.task()) {
            let message = "giving up when in doubt undoes the step, and nothing undoes this one: give it \
                `compensate`, or let `on_unknown` be retry, verify or incident";
            let pointer = format!("/steps/{at}/{place}/on_unknown");
            found.push(Violation::new(pointer, "compensate_missing", message));
        }
        if let Some(message) = node.map().and_then(never_joins) {
            found.push(Violation::new(format!("/steps/{at}/map/join"), "join_impossible", message));
        }
    }
    found
}

/// Whether a step is to be undone when it is in doubt, and nothing undoes it.
fn gives_up_in_vain(task: &Task) -> bool {
    task.on_unknown == OnUnknown::Compensate
        && task.class() != Some(Class::ReadOnly)
        && task.route(Action::Compensate).is_none()
}

/// Why a fan-out over a list that the definition gives can never join with success.
fn never_joins(map: &Map) -> Option<String> {
    let total = u32::try_from(constant_len(&map.items)?).unwrap_or(u32::MAX);
    match (total, map.empty) {
        (0, Some(Empty::Fail)) => Some("the list is empty, and an empty list fails".to_owned()),
        _ => impossible(map.join, total),
    }
}

/// How many elements the list has that an expression gives, if that is always the same.
fn constant_len(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Const(list) => list.elements().map(|elements| elements.len()),
        Expr::Array(elements) => Some(elements.len()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
    fn a_last_step_that_nothing_undoes_is_registered_with_a_warning() {
        let found = admitted(&json!([
            {"id": "stock", "task": {"name": "s", "input": {"path": "/input"}, "compensate": {"name": "u"}}},
            {"id": "mail", "after": ["stock"], "task": {"name": "m", "input": {"path": "/input"}}}]));
        assert_eq!(found.refused, []);
        assert_eq!(codes(&found.rehearsed.warnings), [("/steps/1", NOTHING_LEFT)]);
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
}
