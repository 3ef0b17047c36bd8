//! Mistakes in names and expressions: references, and whether they can ever have a value.

use std::collections::{HashMap, HashSet};

use crate::expr::{Place, Root, TRUTH};
use crate::json::Kind;
use crate::{Definition, Expr, Step, Violation};

/// Deepest nesting of expressions.
pub(crate) const MAX_DEPTH: usize = 16;
/// Kinds of values that can become a text.
const TEXT: &[Kind] = &[Kind::String];
/// Kinds of values that can become the name of a stream.
const NAME: &[Kind] = &[Kind::String, Kind::Number];
/// Largest number of expressions in one.
pub(crate) const MAX_NODES: usize = 500;

/// An expression of a definition and its place.
pub(crate) struct Wired<'a> {
    pub(crate) pointer: String,
    pub(crate) expr: &'a Expr,
    /// The kinds of values that mean something there; any when empty.
    wanted: &'static [Kind],
    /// `true` if `/item` and `/index` have a meaning there.
    per_item: bool,
    /// `true` if the output of the step itself has a meaning there.
    of_own: bool,
}

/// Returns all expressions of the step at `at`.
pub(crate) fn expressions<'a>(step: &'a Step, at: &str) -> Vec<Wired<'a>> {
    let wired = |place: &str, expr: &'a Expr, wanted, per_item| Wired {
        pointer: format!("{at}/{place}"),
        expr,
        wanted,
        per_item,
        of_own: false,
    };
    let when = step.when.as_ref().map(|expr| wired("when", expr, TRUTH, false));
    let input = step.task.as_ref().map(|task| wired("task/input", &task.input, &[], false));
    let items = step.map.as_ref().map(|map| wired("map/items", &map.items, &[Kind::Array], false));
    let key = step.map.as_ref().and_then(|map| map.key.as_ref());
    let key = key.map(|expr| wired("map/key", expr, TEXT, true));
    let body = step.map.as_ref().map(|map| wired("map/task/input", &map.task.input, &[], true));
    let wait = step.wait.as_ref();
    let default = wait.and_then(|wait| wait.default.as_ref());
    let default = default.map(|expr| wired("wait/default", expr, &[], false));
    let assignee = wait.and_then(|wait| wait.assignee.as_ref());
    let assignee = assignee.map(|expr| wired("wait/assignee", expr, TEXT, false));
    let until = step.sleep.as_ref().and_then(|sleep| sleep.until.as_ref());
    let until = until.map(|expr| wired("sleep/until", expr, TEXT, false));
    let child = step.child.as_ref().map(|child| wired("child/input", &child.input, &[], false));
    let fail = step.fail.as_ref().and_then(|fail| fail.details.as_ref());
    let fail = fail.map(|expr| wired("fail/details", expr, &[], false));
    let all = [when, input, items, key, body, default, assignee, until, child, fail];
    all.into_iter().flatten().chain(of_events(step, at)).collect()
}

/// Returns the expressions of the events that a step emits.
fn of_events<'a>(step: &'a Step, at: &str) -> impl Iterator<Item = Wired<'a>> {
    step.emits.iter().enumerate().flat_map(move |(index, emit)| {
        let wired = |place: &str, expr: &'a Option<Expr>, wanted: &'static [Kind]| {
            let pointer = format!("{at}/emits/{index}/{place}");
            let per_item = step.map.is_some();
            let wired = |expr| Wired { pointer, expr, wanted, per_item, of_own: true };
            expr.as_ref().map(wired)
        };
        let retract = emit.retract.as_ref();
        let retract = retract.and_then(|retract| wired("retract/data", &retract.data, &[]));
        let own = [wired("stream", &emit.stream, NAME), wired("data", &emit.data, &[])];
        own.into_iter().chain([retract]).flatten()
    })
}

/// Checks the names and expressions of all steps that are not broken, and the output.
pub(super) fn check(
    definition: &Definition,
    is_broken: &dyn Fn(usize) -> bool,
    found: &mut Vec<Violation>,
) {
    let known = definition.steps.iter().map(|step| step.id.as_str()).collect();
    let mut check = Check { known, own: None, found };
    let mut first: HashMap<&str, usize> = HashMap::new();
    for (at, step) in definition.steps.iter().enumerate().filter(|(at, _)| !is_broken(*at)) {
        let place = format!("/steps/{at}");
        let first = *first.entry(&step.id).or_insert(at);
        if first != at {
            let message = format!("'{}' is the id of /steps/{first} already", step.id);
            check.wrong(&format!("{place}/id"), "duplicate_id", message);
        }
        check.own = Some(&step.id);
        for (index, id) in step.after.iter().enumerate() {
            check.reference(id, &format!("{place}/after/{index}"));
        }
        for wired in expressions(step, &place) {
            check.expression(&wired);
        }
    }
    check.own = None;
    if let Some(expr) = &definition.output {
        let pointer = "/output".to_owned();
        check.expression(&Wired { pointer, expr, wanted: &[], per_item: false, of_own: false });
    }
    // Before a run begins there is its input and nothing else.
    check.known.clear();
    let Some(sequence) = &definition.sequence else { return };
    let key = sequence.serial_key.iter().map(|expr| ("/sequence/serial_key".to_owned(), expr));
    let facts = [("requires", &sequence.requires), ("produces", &sequence.produces)];
    let facts = facts.into_iter().flat_map(|(place, facts)| {
        let pointer = move |index| format!("/sequence/{place}/{index}/on");
        facts.iter().enumerate().map(move |(index, one)| (pointer(index), &one.on))
    });
    for (pointer, expr) in key.chain(facts) {
        check.expression(&Wired { pointer, expr, wanted: &[], per_item: false, of_own: false });
    }
}

struct Check<'a, 'f> {
    /// The ids of all steps.
    known: HashSet<&'a str>,
    /// The id of the step that is being checked.
    own: Option<&'a str>,
    found: &'f mut Vec<Violation>,
}

impl Check<'_, '_> {
    fn wrong(&mut self, pointer: &str, code: &str, message: String) {
        self.found.push(Violation::new(pointer, code, message));
    }

    /// Checks the mention of a step.
    fn reference(&mut self, id: &str, pointer: &str) {
        if self.own == Some(id) {
            let message = format!("the step '{id}' cannot wait for itself");
            self.wrong(pointer, "self_reference", message);
        } else if !self.known.contains(id) {
            self.wrong(pointer, "unknown_step", format!("there is no step '{id}'"));
        }
    }

    fn expression(&mut self, wired: &Wired<'_>) {
        let (mut nodes, mut deepest) = (0, 0);
        wired.expr.walk(&wired.pointer, wired.wanted, &mut |expr, place| {
            nodes += 1;
            deepest = deepest.max(place.depth + 1);
            self.kind(expr, place);
            if let Some(path) = expr.looks_at() {
                self.path(path, wired, &format!("{}/{}", place.pointer, expr.word()));
            }
        });
        if deepest > MAX_DEPTH {
            let message =
                format!("{deepest} expressions within one another; {MAX_DEPTH} are allowed");
            self.wrong(&wired.pointer, "expression_too_deep", message);
        }
        if nodes > MAX_NODES {
            let message = format!("{nodes} expressions in one; {MAX_NODES} are allowed");
            self.wrong(&wired.pointer, "expression_too_large", message);
        }
    }

    /// Checks that an expression can have a value that is valid at its place.
    fn kind(&mut self, expr: &Expr, place: &Place<'_>) {
        let Some(kind) = expr.kind() else { return };
        if !place.wanted.is_empty() && !place.wanted.contains(&kind) {
            let wanted: Vec<&str> = place.wanted.iter().map(|kind| kind.words()).collect();
            let message = format!("expected {}, found {}", wanted.join(" or "), kind.words());
            self.wrong(place.pointer, "type_mismatch", message);
        }
    }

    fn path(&mut self, path: &str, wired: &Wired<'_>, pointer: &str) {
        match Root::of(path).filter(|root| is_escaped(root.rest())) {
            None => {
                let message = format!(
                    "'{path}' is not a path: it begins with /input, /steps/ID, or inside a map /item or /index, \
                     and has `~` only in `~0` and `~1`"
                );
                self.wrong(pointer, "invalid_path", message);
            }
            Some(Root::Item(_) | Root::Index) if !wired.per_item => {
                let message = format!(
                    "'{path}' means something only in the key, the task and the events of a map"
                );
                self.wrong(pointer, "item_outside_map", message);
            }
            Some(Root::Step(id, _)) if wired.of_own && self.own == Some(id) => {}
            Some(Root::Step(id, _)) => self.reference(id, pointer),
            Some(_) => {}
        }
    }
}

/// Returns whether each `~` of the reference tokens is followed by `0` or `1`.
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
