//! What of a written definition makes sense. Every mistake is found at once, each with its place and a stable code.
//!
//! `shape` finds mistakes of form, `document` and `body` those that one can see within a step, `wiring` those of
//! names and expressions, and `safety` those by which a saga could strand itself. What a JSON Schema says is not
//! looked into here.

mod body;
mod document;
mod names;
mod safety;
mod shape;
mod wiring;

use crate::graph::Links;
use crate::{Definition, Graph, Payload, Violation};

pub(crate) use wiring::expressions;

/// See [`Graph::parse`].
pub(crate) fn parse(text: &str) -> Result<Graph, Vec<Violation>> {
    proper_json(text).map_err(|violation| vec![violation])?;
    match serde_json::from_str::<Definition>(text) {
        Ok(definition) => meaning(definition, &[], Vec::new()),
        Err(error) => {
            let mut found = Vec::new();
            let Some(definition) = shape::repair(text, &error, &mut found) else {
                return Err(found);
            };
            let broken: Vec<bool> =
                (0..definition.steps.len()).map(|at| is_in(&found, at)).collect();
            meaning(definition, &broken, found)
        }
    }
}

/// See [`Graph::check`].
pub(crate) fn check(definition: Definition) -> Result<Graph, Vec<Violation>> {
    let text = serde_json::to_string(&definition).map_err(|error| {
        vec![Violation::new(
            "",
            "invalid_json",
            format!("the definition has no JSON form: {error}"),
        )]
    })?;
    let found = proper_json(&text).err().into_iter().collect();
    meaning(definition, &[], found)
}

/// Whether one of the violations is in the step at `position`.
fn is_in(violations: &[Violation], position: usize) -> bool {
    let step = format!("/steps/{position}");
    violations.iter().any(|violation| {
        violation
            .pointer
            .strip_prefix(&step)
            .is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    })
}

fn proper_json(text: &str) -> Result<(), Violation> {
    match Payload::parse(text, Definition::MAX_BYTES) {
        Ok(_) => Ok(()),
        Err(violation) if violation.code == "payload_too_large" => {
            Err(Violation { code: "definition_too_large".to_owned(), ..violation })
        }
        Err(violation) => Err(violation),
    }
}

/// Checks what a definition means. The form of the steps that are `broken` was wrong and is said in `found`: they
/// lend their names to others, no more.
fn meaning(
    definition: Definition,
    broken: &[bool],
    mut found: Vec<Violation>,
) -> Result<Graph, Vec<Violation>> {
    let is_broken = |at: usize| broken.get(at).copied().unwrap_or(false);
    document::check(&definition, &mut found);
    for (at, step) in definition.steps.iter().enumerate().filter(|(at, _)| !is_broken(*at)) {
        body::check(step, &format!("/steps/{at}"), &mut found);
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
