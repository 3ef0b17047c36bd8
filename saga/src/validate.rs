//! Checks a definition. All mistakes are reported together, each with its place and a stable code.
//!
//! `shape` finds mistakes of form, `document` and `body` those within a step, `wiring` those of names and expressions,
//! and `safety` those by which a saga could get stuck. The content of JSON Schemas is not checked here.

mod body;
mod document;
mod emits;
mod names;
mod safety;
mod shape;
mod wiring;

use crate::graph::Links;
use crate::{Definition, Graph, Payload, Violation};

pub(crate) use body::MAX_SIGNALS as SIGNALS;
pub use names::check_fact;
pub(crate) use wiring::{
    MAX_DEPTH as EXPRESSION_DEPTH, MAX_NODES as EXPRESSION_NODES, expressions,
};

/// See [`Graph::parse`].
pub(crate) fn parse(text: &str) -> Result<Graph, Vec<Violation>> {
    let mut found = improper_json(text)?;
    match shape::read_definition(text, &mut found) {
        Some(definition) => meaning(definition, found),
        None => Err(found),
    }
}

/// See [`Graph::check`].
pub(crate) fn check(definition: Definition) -> Result<Graph, Vec<Violation>> {
    let text = serde_json::to_string(&definition).map_err(|error| {
        let message = format!("the definition has no JSON form: {error}");
        vec![Violation::new("", "invalid_json", message)]
    })?;
    meaning(definition, improper_json(&text)?)
}

/// Returns whether one of the violations is in the step at `position`.
fn is_in(violations: &[Violation], position: usize) -> bool {
    let step = format!("/steps/{position}");
    violations.iter().any(|violation| {
        violation
            .pointer
            .strip_prefix(&step)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

/// Returns the violation that makes a definition no proper document, at most one; an error if nothing
/// more can be checked.
fn improper_json(text: &str) -> Result<Vec<Violation>, Vec<Violation>> {
    let Err(mut violation) = Payload::parse(text, Definition::MAX_BYTES) else {
        return Ok(Vec::new());
    };
    match violation.code.as_str() {
        "payload_too_large" => {
            violation.code = "definition_too_large".to_owned();
            Err(vec![violation])
        }
        "invalid_json" | "nesting_too_deep" => Err(vec![violation]),
        _ => Ok(vec![violation]),
    }
}

/// Checks what a definition means. Steps in which something was `found` before are broken: they lend their names to
/// others, no more.
fn meaning(definition: Definition, mut found: Vec<Violation>) -> Result<Graph, Vec<Violation>> {
    let broken: Vec<bool> = (0..definition.steps.len()).map(|at| is_in(&found, at)).collect();
    let is_broken = |at: usize| broken.get(at).copied().unwrap_or(false);
    document::check(&definition, &mut found);
    emits::check_all(&definition, &mut found);
    for (at, step) in definition.steps.iter().enumerate().filter(|(at, _)| !is_broken(*at)) {
        body::check(step, &format!("/steps/{at}"), &mut found);
        emits::check(step, &format!("/steps/{at}"), &mut found);
    }
    let before = found.len();
    wiring::check(&definition, &is_broken, &mut found);
    let wired = before == found.len() && !broken.contains(&true);
    if definition.steps.len() > Definition::MAX_STEPS {
        return Err(found);
    }
    let links = Links::of(&definition);
    let order = links.order();
    if let Err(cycles) = &order {
        wiring::report_cycles(&definition, cycles, &mut found);
    }
    safety::check(&definition, &links, wired && order.is_ok(), &is_broken, &mut found);
    match order {
        Ok(order) if found.is_empty() => Ok(Graph::assemble(definition, links, order)),
        _ => Err(found),
    }
}
