//! Rules that every trace must satisfy, each a function of the journal and the ledger. None of them uses the rules
//! that wrote the journal.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::ledger::Ledger;
use crate::protocol::Outcome;
use crate::{Action, Class, Event, Fate, Graph, IncidentKind, Record, StepPath};

/// The results of a trace.
pub(super) struct History<'a> {
    pub(super) graph: &'a Graph,
    pub(super) journal: &'a [Arc<Record>],
    pub(super) ledger: &'a Ledger,
}

/// A broken rule, with an explanation.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Broken {
    pub(super) rule: &'static str,
    pub(super) how: String,
}

fn broken(rule: &'static str, how: impl Into<String>) -> Result<(), Broken> {
    Err(Broken { rule, how: how.into() })
}

/// One rule.
pub(super) type Rule = fn(&History<'_>) -> Result<(), Broken>;

/// All rules, the most telling first.
pub(super) const RULES: [Rule; 7] = [
    one_ending,
    nothing_left_behind,
    undo_in_order,
    undo_complete,
    nothing_forward_after_undo,
    effects_as_told,
    joins_once,
];

impl History<'_> {
    fn events(&self) -> impl Iterator<Item = &Event> {
        self.journal.iter().flat_map(|record| &record.events)
    }

    fn outcome(&self) -> Option<Outcome> {
        self.events().find_map(|event| match event {
            Event::Ended { outcome, .. } => Some(*outcome),
            _ => None,
        })
    }

    /// Returns whether the run as a whole was turned to compensation.
    fn was_turned(&self) -> bool {
        self.events().any(|event| matches!(event, Event::CompensationStarted { .. }))
    }

    fn has_effect(&self, step: &str) -> bool {
        let node = self.graph.position(step).map(|at| &self.graph.nodes[at]);
        node.is_some_and(|node| node.task().class() != Some(Class::ReadOnly))
    }

    fn is_undoable(&self, step: &str) -> bool {
        let node = self.graph.position(step).map(|at| &self.graph.nodes[at]);
        node.is_some_and(|node| node.task().compensate.is_some())
    }
}

/// The effect of one step or item according to the journal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Effect {
    Applied,
    Unknown,
    NotApplied,
    Undone,
}

/// Updates the effects by `event`.
fn follow(effects: &mut BTreeMap<StepPath, Effect>, event: &Event) {
    let (step, effect) = match event {
        Event::Succeeded { step, .. } => (step, Effect::Applied),
        Event::GaveUp { step, fate: Fate::Unknown, .. } => (step, Effect::Unknown),
        Event::GaveUp { step, .. } => (step, Effect::NotApplied),
        Event::Undone { step, .. } | Event::UndoMarked { step, .. } => (step, Effect::Undone),
        _ => return,
    };
    effects.insert(step.clone(), effect);
}

/// Checks that a run ends once, or waits for a person who was informed.
pub(super) fn one_ending(history: &History<'_>) -> Result<(), Broken> {
    let mut ended = false;
    let mut incidents = BTreeSet::new();
    for event in history.events() {
        match event {
            Event::LateResult { .. } => {}
            _ if ended => return broken("ends_once", "something happened after the end"),
            Event::Ended { .. } => ended = true,
            Event::IncidentOpened { kind: IncidentKind::RunStuck, .. } => {
                return broken("ends_or_asks", "nothing would ever move the run");
            }
            Event::IncidentOpened { incident, .. } => drop(incidents.insert(incident)),
            Event::IncidentResolved { incident } => drop(incidents.remove(incident)),
            _ => {}
        }
    }
    if !ended && incidents.is_empty() {
        return broken("ends_or_asks", "the run goes on without end, and no person hears of it");
    }
    Ok(())
}

/// Checks that all effects that were to be undone are undone: none remains for which there is no
/// undo left.
pub(super) fn nothing_left_behind(history: &History<'_>) -> Result<(), Broken> {
    let dirty = match history.outcome() {
        Some(Outcome::FailedDirty) => true,
        Some(Outcome::PartiallyCompleted) => history.was_turned(),
        _ => false,
    };
    if !dirty {
        return Ok(());
    }
    let mut effects = BTreeMap::new();
    history.events().for_each(|event| follow(&mut effects, event));
    let mut steps: Vec<&str> = effects
        .iter()
        .filter(|(_, effect)| matches!(effect, Effect::Applied | Effect::Unknown))
        .map(|(step, _)| &*step.step)
        .filter(|step| history.has_effect(step))
        .collect();
    steps.dedup();
    broken(
        "nothing_left_behind",
        format!(
            "the run was undone, and what '{}' did or may have done stands",
            steps.join("', '")
        ),
    )
}

/// Checks that a step is undone only if it happened or may have, and after all that depends on it. Nothing depends on
/// items that a fan-out undid before the run was turned to compensation.
pub(super) fn undo_in_order(history: &History<'_>) -> Result<(), Broken> {
    let graph = history.graph;
    let mut effects = BTreeMap::new();
    let (mut turned, mut before) = (false, BTreeSet::new());
    for event in history.events() {
        follow(&mut effects, event);
        turned |= matches!(event, Event::CompensationStarted { .. });
        let step = match event {
            Event::Offered { step, action: Action::Compensate, .. }
            | Event::ChildAsked { step, action: Action::Compensate, .. } => step,
            _ => continue,
        };
        if !matches!(effects.get(step), Some(Effect::Applied | Effect::Unknown)) {
            return broken(
                "undo_of_what_happened",
                format!("'{step}' is undone, and it never happened"),
            );
        }
        if !turned {
            before.insert(step);
        }
        if before.contains(step) {
            continue;
        }
        let Some(position) = graph.position(&step.step) else { continue };
        let later = later_than(graph, position);
        let standing = effects.iter().find(|(other, effect)| {
            graph.position(&other.step).is_some_and(|other| later.contains(&other))
                && matches!(effect, Effect::Applied | Effect::Unknown)
                && history.is_undoable(&other.step)
        });
        if let Some((other, _)) = standing {
            return broken(
                "undo_in_reverse",
                format!("'{step}' is undone before '{other}', which depends on it"),
            );
        }
    }
    Ok(())
}

/// Returns every step that needs `of`, directly or not.
fn later_than(graph: &Graph, of: usize) -> BTreeSet<usize> {
    let (mut found, mut open) = (BTreeSet::new(), vec![of]);
    while let Some(step) = open.pop() {
        open.extend(graph.nodes[step].feeds.iter().filter(|&&fed| found.insert(fed)));
    }
    found
}

/// Checks that when a run that was turned to compensation ends, everything that can be undone is
/// undone.
pub(super) fn undo_complete(history: &History<'_>) -> Result<(), Broken> {
    if history.outcome().is_none() || !history.was_turned() {
        return Ok(());
    }
    let mut effects = BTreeMap::new();
    history.events().for_each(|event| follow(&mut effects, event));
    let left = effects.iter().find(|(step, effect)| {
        matches!(effect, Effect::Applied | Effect::Unknown) && history.is_undoable(&step.step)
    });
    match left {
        Some((step, _)) => broken("undo_complete", format!("'{step}' was never undone")),
        None => Ok(()),
    }
}

/// Checks that once a run undoes, nothing of it goes forward.
pub(super) fn nothing_forward_after_undo(history: &History<'_>) -> Result<(), Broken> {
    let mut turned = false;
    for event in history.events() {
        let step = match event {
            Event::CompensationStarted { .. } => {
                turned = true;
                continue;
            }
            Event::WentForward { .. } => {
                turned = false;
                continue;
            }
            Event::Offered { step, action: Action::Forward | Action::Verify, .. }
            | Event::Leased { step, action: Action::Forward | Action::Verify, .. }
            | Event::ChildAsked { step, action: Action::Forward, .. }
            | Event::SignalAwaited { step, .. }
            | Event::SleepBegan { step, .. }
            | Event::Succeeded { step, .. } => step,
            _ => continue,
        };
        if turned {
            return broken(
                "undo_only",
                format!("'{step}' goes forward after the run was turned round"),
            );
        }
    }
    Ok(())
}

/// Returns the steps whose undo may have happened unreported: a worker holds it, or was lost during
/// it.
fn undone_perhaps<'a>(history: &'a History<'_>) -> BTreeSet<&'a StepPath> {
    let (mut held, mut lost) = (BTreeSet::new(), BTreeSet::new());
    for event in history.events() {
        match event {
            Event::Leased { step, action: Action::Compensate, .. } => drop(held.insert(step)),
            Event::Released { step, action: Action::Compensate, .. }
            | Event::Failed { step, action: Action::Compensate, .. } => drop(held.remove(step)),
            Event::Lost { step, action: Action::Compensate, .. } => drop(lost.insert(step)),
            _ => {}
        }
    }
    held.union(&lost).copied().collect()
}

/// Checks that the effects in the journal equal those in the ledger.
pub(super) fn effects_as_told(history: &History<'_>) -> Result<(), Broken> {
    let mut effects = BTreeMap::new();
    history.events().for_each(|event| follow(&mut effects, event));
    let perhaps = undone_perhaps(history);
    for (step, effect) in effects.iter().filter(|(step, _)| history.has_effect(&step.step)) {
        let is_fan_out = history
            .graph
            .position(&step.step)
            .is_some_and(|at| history.graph.nodes[at].map().is_some() && step.item.is_none());
        let stands = history.ledger.stands(step);
        match effect {
            _ if is_fan_out => {}
            Effect::Applied if !stands && !perhaps.contains(step) => {
                return broken("effects_as_told", format!("'{step}' succeeded without an effect"));
            }
            Effect::NotApplied | Effect::Undone if stands => {
                let word = if *effect == Effect::Undone { "undone" } else { "not done" };
                return broken(
                    "effects_as_told",
                    format!("'{step}' counts as {word}, and its effect stands"),
                );
            }
            _ => {}
        }
    }
    let clean = history.outcome().is_some_and(Outcome::is_clean);
    match history.ledger.standing().next() {
        Some(step) if clean => {
            broken("net_zero", format!("the run left nothing behind, but what '{step}' did stands"))
        }
        _ => Ok(()),
    }
}

/// Checks that a fan-out joins once.
pub(super) fn joins_once(history: &History<'_>) -> Result<(), Broken> {
    let mut joined = BTreeSet::new();
    for event in history.events() {
        match event {
            Event::Opened { step, .. } => drop(joined.remove(step)),
            Event::Joined { step, .. } if !joined.insert(step) => {
                return broken("joins_once", format!("'{step}' joined twice"));
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
