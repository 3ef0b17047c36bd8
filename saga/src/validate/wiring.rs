//! Mistakes in names and expressions: what refers to what, and whether it can ever be there.

use std::collections::{HashMap, HashSet};

use crate::expr::Root;
use crate::{Definition, Expr, Step, Violation};

/// How many expressions may be within one another.
const MAX_DEPTH: usize = 16;
/// Of how many expressions one may consist.
const MAX_NODES: usize = 500;

/// An expression of a step, where it stands, and whether `/item` and `/index` mean something there.
pub(crate) struct Wired<'a> {
    pub(crate) pointer: String,
    pub(crate) expr: &'a Expr,
    pub(crate) per_item: bool,
}

/// All expressions of the step that stands at `at`.
pub(crate) fn expressions<'a>(step: &'a Step, at: &str) -> Vec<Wired<'a>> {
    let wired = |place: &str, expr: &'a Expr, per_item: bool| Wired {
        pointer: format!("{at}/{place}"),
        expr,
        per_item,
    };
    let when = step.when.as_ref().map(|expr| wired("when", expr, false));
    let input = step.task.as_ref().map(|task| wired("task/input", &task.input, false));
    let items = step.map.as_ref().map(|map| wired("map/items", &map.items, false));
    let body = step.map.as_ref().map(|map| wired("map/task/input", &map.task.input, true));
    [when, input, items, body].into_iter().flatten().collect()
}

/// Checks the names and expressions of all steps that are not broken, and the output.
pub(super) fn check(
    definition: &Definition,
    is_broken: &dyn Fn(usize) -> bool,
    found: &mut Vec<Violation>,
) {
    let known: HashSet<&str> = definition.steps.iter().map(|step| step.id.as_str()).collect();
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (at, step) in definition.steps.iter().enumerate().filter(|(at, _)| !is_broken(*at)) {
        let place = format!("/steps/{at}");
        if let Some(first) = first.get(step.id.as_str()) {
            let message = format!("'{}' is the id of /steps/{first} already", step.id);
            found.push(Violation::new(format!("{place}/id"), "duplicate_id", message));
        } else {
            first.insert(&step.id, at);
        }
        for (index, id) in step.after.iter().enumerate() {
            reference(id, Some(&step.id), &known, &format!("{place}/after/{index}"), found);
        }
        for wired in expressions(step, &place) {
            expression(&wired, Some(&step.id), &known, found);
        }
    }
    if let Some(expr) = &definition.output {
        let wired = Wired { pointer: "/output".to_owned(), expr, per_item: false };
        expression(&wired, None, &known, found);
    }
}

/// Checks a step's name as it is used in the step `own`.
fn reference(
    id: &str,
    own: Option<&str>,
    known: &HashSet<&str>,
    pointer: &str,
    found: &mut Vec<Violation>,
) {
    if own == Some(id) {
        let message = format!("the step '{id}' cannot wait for itself");
        found.push(Violation::new(pointer, "self_reference", message));
    } else if !known.contains(id) {
        let message = format!("there is no step '{id}'");
        found.push(Violation::new(pointer, "unknown_step", message));
    }
}

fn expression(
    wired: &Wired<'_>,
    own: Option<&str>,
    known: &HashSet<&str>,
    found: &mut Vec<Violation>,
) {
    let (mut nodes, mut deepest) = (0, 0);
    wired.expr.walk(&wired.pointer, &mut |expr, place| {
        nodes += 1;
        deepest = deepest.max(place.depth + 1);
        if let Some(path) = expr.looks_at() {
            let pointer = format!("{}/{}", place.pointer, expr.word());
            path_of(path, wired.per_item, own, known, &pointer, found);
        }
    });
    let mut too_much = |code: &str, message: String| {
        found.push(Violation::new(wired.pointer.as_str(), code, message));
    };
    if deepest > MAX_DEPTH {
        let message = format!("{deepest} expressions within one another; {MAX_DEPTH} are allowed");
        too_much("expression_too_deep", message);
    }
    if nodes > MAX_NODES {
        let message = format!("{nodes} expressions in one; {MAX_NODES} are allowed");
        too_much("expression_too_large", message);
    }
}

fn path_of(
    path: &str,
    per_item: bool,
    own: Option<&str>,
    known: &HashSet<&str>,
    pointer: &str,
    found: &mut Vec<Violation>,
) {
    let root = Root::of(path).filter(|root| is_escaped(root.rest()));
    match root {
        None => {
            let message = format!(
                "'{path}' is not a path: it begins with /input, /steps/ID, or inside a map /item or /index, \
                 and has `~` only in `~0` and `~1`"
            );
            found.push(Violation::new(pointer, "invalid_path", message));
        }
        Some(Root::Item(_) | Root::Index) if !per_item => {
            let message = format!("'{path}' means something only in the task of a map");
            found.push(Violation::new(pointer, "item_outside_map", message));
        }
        Some(Root::Step(id, _)) => reference(id, own, known, pointer, found),
        Some(_) => {}
    }
}

/// Whether each `~` of the reference tokens is followed by `0` or `1`.
fn is_escaped(rest: &str) -> bool {
    rest.split('~').skip(1).all(|after| after.starts_with(['0', '1']))
}

/// Reports cycles among the steps.
pub(super) fn report_cycles(
    definition: &Definition,
    cycles: &[Vec<usize>],
    found: &mut Vec<Violation>,
) {
    for cycle in cycles {
        let Some(first) = cycle.first() else { continue };
        let ids = cycle.iter().chain([first]).map(|at| definition.steps[*at].id.as_str());
        let message = format!(
            "these steps wait for each other: {}; remove one of the references",
            ids.collect::<Vec<_>>().join(" -> ")
        );
        found.push(Violation::new(format!("/steps/{first}"), "cycle", message));
    }
}
