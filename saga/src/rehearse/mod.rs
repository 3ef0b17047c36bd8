//! Rehearsal: simulates every failure of a definition.
//!
//! Each step meets each [`Fault`] that fits at each possible moment, and each pair of them, up to a bound. Every trace
//! runs on the rules of the server, beside an independent ledger of effects, and is checked by the rules of `check`.
//! Documents are drawn from the values that the expressions compare with, so that every branch is taken. The result is
//! always the same: there is no clock and no chance.
//!
//! A rehearsal does not call handlers (the SDK's test kit does), does not run child workflows (each is rehearsed
//! separately), and does not try documents that the expressions cannot distinguish.

mod admit;
mod check;
mod domain;
mod exclude;
mod fault;
mod finding;
mod ledger;
mod report;
mod scene;
mod stage;
mod world;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

pub use admit::{Admission, admit, rehearse_within};
use check::{Broken, History, RULES};
pub use fault::Fault;
pub use finding::{Finding, Severity};
pub use report::{Cell, Defect, Level, Rehearsal, StepCoverage};
use stage::Goal;
use world::World;

use crate::protocol::{Outcome, RunError};
use crate::{Event, Graph};

/// Bounds of a rehearsal.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Largest number of faults in one trace.
    pub faults: u32,
    /// Largest number of traces. Those with fewer faults go first, and moments share what is left evenly.
    pub traces: u64,
}

impl Default for Bounds {
    /// Returns every fault and every pair of them, in at most 100,000 traces.
    fn default() -> Self {
        Bounds { faults: 2, traces: 100_000 }
    }
}

/// Rehearses a workflow definition.
#[must_use]
pub fn rehearse(graph: &Arc<Graph>, bounds: Bounds) -> Rehearsal {
    rehearse_in(graph, bounds, stage::TRIES)
}

/// Returns the same, with so many kinds of runs tried at most in search of those that differ.
fn rehearse_in(graph: &Arc<Graph>, bounds: Bounds, tries: usize) -> Rehearsal {
    let stage = stage::set(graph, tries);
    let mut found = Found::new(graph);
    let mut left = bounds.traces;
    for faults in 0..=bounds.faults {
        let before = found.traces;
        let mut complete = true;
        for (at, scene) in stage.scenes.iter().enumerate() {
            let share = left.div_ceil(u64::try_from(stage.scenes.len() - at).unwrap_or(1));
            let used = level(World::begin(scene), faults, share, &mut found, &mut complete);
            left = left.saturating_sub(used);
        }
        found.levels.push(Level { faults, traces: found.traces - before, complete });
    }
    found.report(graph, &stage)
}

/// Runs all traces from `world` on in which exactly so many more faults strike, at most `share` of them. Returns
/// their number.
fn level(
    mut world: World<'_>,
    faults: u32,
    share: u64,
    found: &mut Found,
    complete: &mut bool,
) -> u64 {
    if share == 0 {
        *complete = false;
        return 0;
    }
    if faults == 0 {
        world.finish();
        found.judge(world);
        return 1;
    }
    let enough = count(world.clone(), faults, share) <= share;
    let mut moments = if enough { 1 } else { count(world.clone(), 1, u64::MAX) };
    let mut used = 0;
    while let Some(turn) = world.turn() {
        for fault in world.faults(&turn) {
            let own = if enough { share } else { (share - used).div_ceil(moments.max(1)) };
            moments = moments.saturating_sub(1);
            if let Some(fork) = struck(&world, fault) {
                used += level(fork, faults - 1, own, found, complete);
            }
        }
        world.go(turn, None);
    }
    used
}

/// Counts the traces from `world` on with exactly so many more faults; it may stop at `limit`.
fn count(mut world: World<'_>, faults: u32, limit: u64) -> u64 {
    let mut traces = 0;
    while let Some(turn) = world.turn() {
        for fault in world.faults(&turn) {
            traces += match faults {
                0 | 1 => 1,
                _ => struck(&world, fault).map_or(0, |fork| count(fork, faults - 1, limit)),
            };
            if traces > limit {
                return traces;
            }
        }
        world.go(turn, None);
    }
    traces
}

/// Returns the world in which `fault` strikes now; `None` when it could not.
fn struck<'s>(world: &World<'s>, fault: Fault) -> Option<World<'s>> {
    let mut fork = world.clone();
    let turn = fork.turn()?;
    fork.go(turn, Some(fault)).then_some(fork)
}

/// The results so far.
struct Found {
    traces: u64,
    levels: Vec<Level>,
    closed: u64,
    parked: u64,
    open: u64,
    outcomes: BTreeMap<&'static str, u64>,
    cells: BTreeMap<(usize, Fault), Cell>,
    reached: BTreeSet<Goal>,
    succeeded: bool,
    defects: BTreeMap<Broken, Shortest>,
    /// The first trace without a fault.
    plain: Option<Vec<String>>,
}

/// The shortest trace that breaks a rule in one way.
struct Shortest {
    traces: u64,
    faults: usize,
    moves: usize,
    trace: Vec<String>,
}

impl Found {
    fn new(graph: &Graph) -> Found {
        let cells = graph.nodes.iter().enumerate().flat_map(|(step, node)| {
            let apply = Fault::ALL.into_iter().filter(|fault| fault.applies(node));
            apply.map(move |fault| ((step, fault), Cell::default()))
        });
        Found {
            traces: 0,
            levels: Vec::new(),
            closed: 0,
            parked: 0,
            open: 0,
            outcomes: BTreeMap::new(),
            cells: cells.collect(),
            reached: BTreeSet::new(),
            succeeded: false,
            defects: BTreeMap::new(),
            plain: None,
        }
    }

    /// Holds a trace that has come to rest to the rules.
    fn judge(&mut self, mut world: World<'_>) {
        self.traces += 1;
        stage::reached(&world, &mut self.reached);
        let outcome = world.run.outcome();
        self.succeeded |= outcome == Some(Outcome::Succeeded);
        if world.struck.is_empty() && self.plain.is_none() {
            self.plain = Some(told(&world));
        }
        let mut wrong = broken(&world);
        let parked = wrong.is_none() && outcome.is_none();
        if let Some(outcome) = outcome {
            *self.outcomes.entry(outcome.as_str()).or_default() += 1;
        } else if parked && world.is_parked() && world.retry() {
            // The continuation after a person's retry must close as well.
            wrong = broken(&world);
        }
        let struck: BTreeSet<_> = world.struck.iter().copied().collect();
        for point in struck {
            let cell = self.cells.entry(point).or_default();
            cell.traces += 1;
            cell.parked += u64::from(parked && wrong.is_none());
            cell.open += u64::from(wrong.is_some());
        }
        let Some(wrong) = wrong else {
            self.parked += u64::from(parked);
            self.closed += u64::from(!parked);
            return;
        };
        self.open += 1;
        let (faults, moves) = (world.struck.len(), world.moves.len());
        let known = self.defects.entry(wrong).or_insert_with(|| Shortest {
            traces: 0,
            faults: usize::MAX,
            moves: 0,
            trace: Vec::new(),
        });
        known.traces += 1;
        if (faults, moves) < (known.faults, known.moves) {
            let trace = told(&world);
            *known = Shortest { traces: known.traces, faults, moves, trace };
        }
    }

    fn report(mut self, graph: &Graph, stage: &stage::Stage) -> Rehearsal {
        if !self.succeeded && self.traces > 0 {
            let rule = "can_succeed";
            let how = "no run succeeds although nothing goes wrong".to_owned();
            let (faults, trace) = (0, self.plain.take().unwrap_or_default());
            let shortest = Shortest { traces: 1, faults, moves: trace.len(), trace };
            self.defects.insert(Broken { rule, how }, shortest);
        }
        let mut defects: Vec<(Broken, Shortest)> = self.defects.into_iter().collect();
        defects.sort_by_key(|(_, shortest)| (shortest.faults, shortest.moves));
        let defects = defects.into_iter().map(|(broken, shortest)| Defect {
            rule: broken.rule,
            message: broken.how,
            traces: shortest.traces,
            trace: shortest.trace,
        });
        let coverage = graph.nodes.iter().enumerate().map(|(step, node)| StepCoverage {
            step: node.id.to_string(),
            faults: self
                .cells
                .range((step, Fault::Fails)..=(step, Fault::Deadline))
                .map(|((_, fault), cell)| (*fault, *cell))
                .collect(),
        });
        let missed = stage.goals.difference(&self.reached);
        let defects: Vec<Defect> = defects.collect();
        Rehearsal {
            workflow: graph.definition.name.clone(),
            version: graph.definition.version,
            scenes: stage.scenes.len(),
            levels: self.levels,
            closed: self.closed,
            parked: self.parked,
            open: self.open,
            outcomes: self.outcomes,
            coverage: coverage.collect(),
            not_reached: missed.map(|goal| goal.words(graph)).collect(),
            findings: finding::all(graph, &defects),
            defects,
        }
    }
}

/// Returns the first rule that a trace breaks.
fn broken(world: &World<'_>) -> Option<Broken> {
    let rule = |rule: &'static str, how: String| Some(Broken { rule, how });
    if let Some(task) = world.accepted_late.first() {
        return rule("late_counts_not", format!("'{task}' counted after its lease was over"));
    }
    if world.run.snapshot() != world.folded.snapshot() {
        return rule("folds", "folding the journal gives another run".to_owned());
    }
    RULES.iter().find_map(|check| check(&history(world)).err())
}

fn history<'a>(world: &'a World<'_>) -> History<'a> {
    History { graph: &world.scene.graph, journal: &world.journal, ledger: &world.ledger }
}

/// Returns a trace, a line for each thing that happened.
fn told(world: &World<'_>) -> Vec<String> {
    let given = world.scene.given.iter().map(|given| format!("given that {given}"));
    let moves = world.moves.iter().map(fault::Move::words);
    let end =
        world.journal.iter().flat_map(|record| &record.events).rev().find_map(
            |event| match event {
                Event::Ended { outcome, .. } => Some(format!("the run ends {}", outcome.as_str())),
                _ => None,
            },
        );
    let end = end.unwrap_or_else(|| format!("the run is left {}", world.run.state().as_str()));
    let why = world.run.view(world.now).error.map(|RunError { step, failure }| {
        let whose = step.map_or_else(|| "the run".to_owned(), |step| format!("'{step}'"));
        match failure.code.as_str() {
            world::REHEARSED => format!(", as {whose} failed"),
            code => format!(", as {whose} failed: {} ({code})", failure.message),
        }
    });
    let end = format!("{end}{}", why.unwrap_or_default());
    given.chain(moves).chain([end]).collect()
}
