//! The scenes of a rehearsal: as few as it takes to see every branch taken that can be, and every order that differs.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::domain::{Choice, SIZES, Spot, domains, usual};
use super::scene::{Order, Scene, told};
use super::world::World;
use crate::{Body, Event, Graph};

/// Largest number of combinations of choices that are tried to reach what was not reached.
pub(super) const TRIES: usize = 2_000;
/// Largest number of choices that differ from the usual in one combination.
const AWAY: usize = 3;

/// Something that a scene should reach.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Goal {
    /// The guard of a step lets it through, or does not.
    Guard(usize, bool),
    /// A fan-out opens with so many items.
    Items(usize, usize),
    /// A step without a guard begins.
    Begun(usize),
}

/// All scenes, and what they were to reach.
pub(super) struct Stage {
    pub(super) scenes: Vec<Scene>,
    pub(super) goals: BTreeSet<Goal>,
}

/// Finds the scenes for a definition.
pub(super) fn set(graph: &Arc<Graph>, tries: usize) -> Stage {
    let domains: Vec<(Spot, Vec<Choice>)> = domains(graph)
        .into_iter()
        .map(|(spot, choices)| (spot, if choices.is_empty() { vec![usual()] } else { choices }))
        .collect();
    let goals = goals(graph);
    let (mut scenes, mut met) = (Vec::new(), BTreeSet::new());
    for picked in combinations(&domains, tries) {
        let chosen: BTreeMap<&Spot, &Choice> = domains
            .iter()
            .enumerate()
            .map(|(at, (spot, choices))| (spot, &choices[picked.get(&at).copied().unwrap_or(0)]))
            .collect();
        let mut scene = Scene::of(graph, &chosen);
        let away = domains.iter().enumerate().filter_map(|(at, (spot, choices))| {
            picked.get(&at).map(|choice| told(graph, spot, &choices[*choice]))
        });
        scene.given = away.collect();
        let mut world = World::begin(&scene);
        world.finish();
        let mut seen = BTreeSet::new();
        reached(&world, &mut seen);
        let new = seen.intersection(&goals).any(|goal| !met.contains(goal));
        if new || scenes.is_empty() {
            let together = most_at_once(&world) > 1;
            met.append(&mut seen);
            let orders = [Order::LastFirst, Order::OneByOne];
            let others = orders.map(|order| scene.in_order(order));
            scenes.push(scene);
            scenes.extend(others.into_iter().filter(|_| together));
        }
        if goals.is_subset(&met) {
            break;
        }
    }
    Stage { scenes, goals }
}

/// Returns combinations of the choices that differ from the usual, by the position of their place: none, then
/// one, then several.
fn combinations(domains: &[(Spot, Vec<Choice>)], tries: usize) -> Vec<BTreeMap<usize, usize>> {
    let mut all = vec![BTreeMap::new()];
    let mut from = 0;
    for _ in 0..AWAY {
        let until = all.len();
        for base in from..until {
            let next = all[base].keys().next_back().map_or(0, |last| last + 1);
            for (at, (_, choices)) in domains.iter().enumerate().skip(next) {
                for choice in 1..choices.len() {
                    if all.len() >= tries {
                        return all;
                    }
                    let mut picked = all[base].clone();
                    picked.insert(at, choice);
                    all.push(picked);
                }
            }
        }
        from = until;
    }
    all
}

fn goals(graph: &Graph) -> BTreeSet<Goal> {
    let mut goals = BTreeSet::new();
    for (step, node) in graph.nodes.iter().enumerate() {
        match node.when {
            Some(_) => goals.extend([Goal::Guard(step, true), Goal::Guard(step, false)]),
            None => drop(goals.insert(Goal::Begun(step))),
        }
        if node.map().is_some() {
            goals.extend(SIZES.map(|size| Goal::Items(step, size)));
        }
    }
    goals
}

/// Adds the goals that a trace has reached.
pub(super) fn reached(world: &World<'_>, goals: &mut BTreeSet<Goal>) {
    let graph = &world.scene.graph;
    let mut begun = |step: &str| {
        let Some(at) = graph.position(step) else { return };
        goals.insert(match graph.nodes[at].when {
            Some(_) => Goal::Guard(at, true),
            None => Goal::Begun(at),
        });
    };
    for event in world.journal.iter().flat_map(|record| &record.events) {
        match event {
            Event::Offered { step, .. }
            | Event::SignalAwaited { step, .. }
            | Event::SleepBegan { step, .. }
            | Event::ChildAsked { step, .. }
            | Event::Succeeded { step, .. } => begun(&step.step),
            Event::Opened { step, .. } => begun(step),
            // It begins and ends by failing.
            Event::GaveUp { step, .. } if is_fail(graph, &step.step) => begun(&step.step),
            _ => {}
        }
    }
    for event in world.journal.iter().flat_map(|record| &record.events) {
        match event {
            Event::Opened { step, total, .. } => {
                if let (Some(at), Ok(total)) = (graph.position(step), usize::try_from(*total)) {
                    goals.insert(Goal::Items(at, total));
                }
            }
            Event::Skipped { step, missing: None } => {
                goals.extend(graph.position(step).map(|at| Goal::Guard(at, false)));
            }
            _ => {}
        }
    }
}

fn is_fail(graph: &Graph, step: &str) -> bool {
    graph.position(step).is_some_and(|at| matches!(graph.nodes[at].body, Body::Fail(_)))
}

/// Returns the largest number of tasks that were claimed and not over at the same time.
fn most_at_once(world: &World<'_>) -> usize {
    let (mut now, mut most) = (0_usize, 0);
    for event in world.journal.iter().flat_map(|record| &record.events) {
        match event {
            Event::Leased { .. } => now += 1,
            Event::Succeeded { attempt, .. } if *attempt > 0 => now = now.saturating_sub(1),
            _ => {}
        }
        most = most.max(now);
    }
    most
}

impl Goal {
    pub(super) fn words(&self, graph: &Graph) -> String {
        let id = |step: &usize| &graph.nodes[*step].id;
        match self {
            Goal::Guard(step, true) => format!("the guard of '{}' never lets it through", id(step)),
            Goal::Guard(step, false) => format!("the guard of '{}' never holds it back", id(step)),
            Goal::Items(step, 1) => format!("'{}' never has 1 item", id(step)),
            Goal::Items(step, size) => format!("'{}' never has {size} items", id(step)),
            Goal::Begun(step) => format!("'{}' never begins", id(step)),
        }
    }
}
