//! All findings about a definition, with their severity: contradictions, results of a rehearsal, and time limits that
//! are never reached. Registering and rehearsing report the same list, so that they cannot disagree.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Defect;
use super::exclude::excluded;
use crate::protocol::Warning;
use crate::run::impossible;
use crate::{Action, Body, Class, Empty, Expr, Graph, Map, OnUnknown, Payload, Task, Violation};

/// The rules of a rehearsal that a definition may break and still be registered, with a warning.
///
/// Validation allows steps that nothing undoes if nothing can fail after them; when one stays in doubt, its run ends
/// with an incident. Attempts without a limit, which take long to open an incident, are allowed: their author has a
/// reason. And if no run succeeds, the drawn documents may be the cause.
const WARNED_OF: &[&str] = &["can_succeed", "ends_or_asks", "nothing_left_behind"];

/// Largest number of pairs of schemas that are compared.
const COMPARED: usize = 1_000;

/// Severity of a finding.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Severity {
    /// The definition is refused when it is registered.
    Error,
    /// It may be registered, with a warning.
    Warning,
}

/// Something that is wrong with a definition, or hardly what is meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its severity.
    pub severity: Severity,
    /// The finding, and its place.
    #[serde(flatten)]
    pub violation: Violation,
    /// It follows from the definition alone, and is a warning of its own in the answers of the API.
    #[serde(skip)]
    pub(super) is_of_graph: bool,
}

/// Returns everything that was found: contradictions first, then `defects` in their order, then the warnings about
/// the graph.
pub(super) fn all(graph: &Graph, defects: &[Defect]) -> Vec<Finding> {
    let contradictions = contradictions(graph).into_iter().map(|violation| Finding {
        severity: Severity::Error,
        violation,
        is_of_graph: false,
    });
    let broken = defects.iter().map(|defect| Finding {
        severity: severity(defect.rule),
        violation: violation(graph, defect),
        is_of_graph: false,
    });
    let own = graph.warnings().into_iter().map(|Warning { pointer, code, message }| Finding {
        severity: Severity::Warning,
        violation: Violation { pointer, code, message },
        is_of_graph: true,
    });
    contradictions.chain(broken).chain(own).collect()
}

/// Returns the severity of a broken rule.
fn severity(rule: &str) -> Severity {
    if WARNED_OF.contains(&rule) { Severity::Warning } else { Severity::Error }
}

/// Returns the steps that a defect names.
fn steps_of<'a>(graph: &'a Graph, defect: &'a Defect) -> impl Iterator<Item = usize> + 'a {
    let quoted = defect.message.split('\'').skip(1).step_by(2);
    quoted.filter_map(|name| graph.position(name.split('/').next().unwrap_or(name)))
}

/// Returns a defect with its place in the definition.
fn violation(graph: &Graph, defect: &Defect) -> Violation {
    let pointer = steps_of(graph, defect).next().map_or(String::new(), |at| format!("/steps/{at}"));
    let message = format!("{}; so it comes to that: {}", defect.message, defect.trace.join("; "));
    Violation::new(pointer, defect.rule, message)
}

/// Returns the contradictions within a definition, which hold for all its runs.
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
    found.extend(signals_that_never_fit(graph));
    found
}

/// Finds waits for one signal whose schemas no data can satisfy: the first signal of a name is for all steps that wait
/// for it, so that none would ever be accepted.
fn signals_that_never_fit(graph: &Graph) -> Vec<Violation> {
    let mut before: BTreeMap<&str, Vec<(&str, &Payload)>> = BTreeMap::new();
    let (mut found, mut compared) = (Vec::new(), 0);
    for (at, node) in graph.nodes.iter().enumerate() {
        let Body::Wait(wait) = &node.body else { continue };
        for name in wait.names() {
            let Some(schema) = wait.schema_of(name) else { continue };
            let others = before.entry(name).or_default();
            let mut rest = others.iter().take(COMPARED - compared);
            let wrong = rest.find_map(|(step, other)| {
                compared += 1;
                Some((step, excluded(other, schema)?))
            });
            if let Some((step, why)) = wrong {
                let message = format!(
                    "no data of the signal '{name}' satisfies the schemas of this step and of '{step}': {why}; the first signal \
                     of a name is for all steps that wait for it, so give them one schema, or wait for signals of two names"
                );
                found.push(Violation::new(
                    format!("/steps/{at}/wait"),
                    "signal_never_fits",
                    message,
                ));
            }
            others.push((&*node.id, schema));
        }
    }
    found
}

/// Returns whether a step is to be undone when it is in doubt, and nothing undoes it.
fn gives_up_in_vain(task: &Task) -> bool {
    task.on_unknown == OnUnknown::Compensate
        && task.class() != Some(Class::ReadOnly)
        && task.route(Action::Compensate).is_none()
}

/// Returns the reason why a fan-out over a list that the definition gives can never join with
/// success.
fn never_joins(map: &Map) -> Option<String> {
    let total = u32::try_from(constant_len(&map.items)?).unwrap_or(u32::MAX);
    match (total, map.empty) {
        (0, Some(Empty::Fail)) => Some("the list is empty, and an empty list fails".to_owned()),
        _ => impossible(map.join, total),
    }
}

/// Returns the length of the list that an expression gives, if that is constant.
fn constant_len(expr: &Expr) -> Option<usize> {
    match expr {
        Expr::Const(list) => list.elements().map(|elements| elements.len()),
        Expr::Array(elements) => Some(elements.len()),
        _ => None,
    }
}
