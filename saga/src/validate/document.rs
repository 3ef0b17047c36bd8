//! Mistakes in a definition that concern the workflow as a whole.

use super::names;
use crate::json::Kind;
use crate::{Definition, Payload, Span, Violation};

/// The longest time that may be named anywhere.
const LONGEST: Span = Span::days(366);

pub(super) fn check(definition: &Definition, found: &mut Vec<Violation>) {
    names::check(&names::WORKFLOW, &definition.name, "/name", found);
    if definition.version == 0 {
        found.push(Violation::new("/version", "invalid_version", "versions begin with 1"));
    }
    schema(definition.input_schema.as_ref(), "/input_schema", found);
    schema(definition.output_schema.as_ref(), "/output_schema", found);
    match definition.steps.len() {
        // Unless there are some that could not be read.
        0 if !found.iter().any(|found| found.pointer == "/steps" || found.pointer.is_empty()) => {
            let message = "a workflow has at least one step";
            found.push(Violation::new("/steps", "no_steps", message));
        }
        count if count > Definition::MAX_STEPS => {
            let message = format!(
                "{count} steps; {} are allowed: move some into a workflow of their own",
                Definition::MAX_STEPS
            );
            found.push(Violation::new("/steps", "too_many_steps", message));
        }
        _ => {}
    }
    span(definition.timeout, "/timeout", found);
    // No time at all means that a run that ended is never compensated by hand.
    if definition.compensable_for != Span::ZERO {
        span(definition.compensable_for, "/compensable_for", found);
    }
    if let Some(within) = definition.end_within {
        span(within, "/end_within", found);
    }
    if let Some(budget) = definition.undo_budget {
        span(budget, "/undo_budget", found);
        if definition.end_within.is_some_and(|within| budget >= within) {
            let message = "no time is left to go forward: it must be shorter than `end_within`";
            found.push(Violation::new("/undo_budget", "invalid_span", message));
        }
    }
    let Some(sequence) = &definition.sequence else { return };
    if let Some(within) = sequence.requires_within {
        span(within, "/sequence/requires_within", found);
    }
    let facts = [("requires", &sequence.requires), ("produces", &sequence.produces)];
    for (place, facts) in facts {
        for (index, one) in facts.iter().enumerate() {
            let pointer = format!("/sequence/{place}/{index}/fact");
            names::check(&names::FACT, &one.fact, &pointer, found);
            if place == "produces" && one.on_withdrawn.is_some() {
                let pointer = format!("/sequence/{place}/{index}/on_withdrawn");
                let message = "only a fact that is required has it";
                found.push(Violation::new(pointer, "unknown_member", message));
            }
        }
    }
}

pub(super) fn schema(schema: Option<&Payload>, pointer: &str, found: &mut Vec<Violation>) {
    let Some(schema) = schema else { return };
    let kind = Kind::of(schema.text());
    if !matches!(kind, Kind::Object | Kind::Bool) {
        let message = format!("a JSON Schema is an object or a boolean, not {}", kind.words());
        found.push(Violation::new(pointer, "invalid_schema", message));
    }
}

/// Checks a length of time.
pub(super) fn span(span: Span, pointer: &str, found: &mut Vec<Violation>) {
    let message = match span {
        Span::ZERO => "no time at all; the shortest is 1ms",
        span if span > LONGEST => "more than 366 days, which is the longest",
        _ => return,
    };
    found.push(Violation::new(pointer, "invalid_span", message));
}
