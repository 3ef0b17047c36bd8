//! Mistakes in the events that steps emit.

use super::names;
use crate::definition::Emit;
use crate::{Class, Definition, Release, Step, Violation};

/// The longest name of a contract with its version.
const LONGEST_CONTRACT: usize = 256;

/// Checks the events of the step at `at`.
pub(super) fn check(step: &Step, at: &str, found: &mut Vec<Violation>) {
    if step.emits.is_empty() {
        return;
    }
    let mut wrong = |place: &str, code: &str, message: String| {
        found.push(Violation::new(format!("{at}/emits{place}"), code, message));
    };
    if step.fail.is_some() {
        let message = "a step that fails on purpose emits no events; let a step before it do so";
        return wrong("", "emits_misplaced", message.to_owned());
    }
    let count = step.emits.len();
    if count > Emit::MOST_OF_STEP {
        let message = format!("{count} events; a step emits at most {}", Emit::MOST_OF_STEP);
        return wrong("", "too_many_emits", message);
    }
    for (index, emit) in step.emits.iter().enumerate() {
        let place = format!("/{index}");
        if step.emits[..index].iter().any(|other| other.event_type == emit.event_type) {
            let message = format!("the step emits an event '{}' already", emit.event_type);
            wrong(&format!("{place}/type"), "duplicate_emit", message);
        }
        let ops = [emit.op, emit.retract.as_ref().and_then(|retract| retract.op)];
        let about = emit.entity.is_some() || ops.iter().any(Option::is_some);
        if emit.stream.is_none() && about {
            let message = "an entity and an operation are those of a stream; name one".to_owned();
            wrong(&place, "stream_missing", message);
        }
        let contract = emit.contract.as_deref().unwrap_or("x");
        if !(1..=LONGEST_CONTRACT).contains(&contract.len())
            || contract.chars().any(char::is_control)
        {
            let message = format!(
                "a contract has 1 to {LONGEST_CONTRACT} bytes and no control characters, such as `order@2`"
            );
            wrong(&format!("{place}/contract"), "invalid_contract", message);
        }
        if step.map.is_some() && emit.release != Release::AtOnce {
            let message = "nothing is held for each item of a map: release it `at_once`, or let a step after the map emit";
            wrong(&format!("{place}/release"), "emits_misplaced", message.to_owned());
        }
        let subject = contract.split_once('@').map_or(contract, |(subject, _)| subject);
        if subject.contains('.') {
            let message = format!(
                "'{subject}' is the contract of a vendor, as its subject has a dot; a step emits documents of contracts of ours"
            );
            wrong(&format!("{place}/contract"), "vendor_contract", message);
        }
        let can_be_undone = step.class() == Some(Class::Compensatable);
        if emit.release == Release::AtOnce && can_be_undone && emit.retract.is_none() {
            let message = "it is released at once and its step can be undone: say in `retract` which event takes it back, or \
                           release it later";
            wrong(&place, "retract_missing", message.to_owned());
        }
    }
    for (index, emit) in step.emits.iter().enumerate() {
        let place = format!("{at}/emits/{index}");
        names::check(&names::EVENT, &emit.event_type, &format!("{place}/type"), found);
        if let Some(entity) = &emit.entity {
            names::check(&names::ENTITY, entity, &format!("{place}/entity"), found);
        }
        if let Some(retract) = &emit.retract {
            let place = format!("{place}/retract/type");
            names::check(&names::EVENT, &retract.event_type, &place, found);
        }
    }
}

/// Checks that all steps together emit no more than they may, and the milestones.
pub(super) fn check_all(definition: &Definition, found: &mut Vec<Violation>) {
    let count: usize = definition.steps.iter().map(|step| step.emits.len()).sum();
    if count > Emit::MOST {
        let message =
            format!("{count} events; the steps of a workflow emit at most {}", Emit::MOST);
        found.push(Violation::new("/steps", "too_many_emits", message));
    }
    let milestones = &definition.milestones;
    for (index, milestone) in milestones.iter().enumerate() {
        if milestones[..index].contains(milestone) {
            let message = "it is named twice";
            let place = format!("/milestones/{index}");
            found.push(Violation::new(place, "duplicate_milestone", message));
        }
    }
}
