//! I3, I5: what the ledger shows is what the histories say, and nothing is made or lost on the way.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence::{Evidence, Story, Violation};
use crate::ledger::{Came, Line, Op};

/// State of the effect of a step in the ledger.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Standing {
    applied: u32,
    reverted: bool,
}

impl Standing {
    fn stands(self) -> bool {
        self.applied > 0 && !self.reverted
    }
}

fn standings(lines: &[Line]) -> BTreeMap<&str, Standing> {
    let mut all: BTreeMap<&str, Standing> = BTreeMap::new();
    for line in lines {
        let standing = all.entry(line.ask.step.as_str()).or_default();
        match (line.ask.op, line.came) {
            (Op::Apply, Came::Done) => standing.applied += 1,
            (Op::Revert, _) => standing.reverted = true,
            _ => {}
        }
    }
    all
}

/// Returns the steps and items that the history says have succeeded, and those that it says are undone.
fn told(story: &Story) -> (BTreeSet<&str>, BTreeSet<&str>) {
    let of = |name: &str| -> BTreeSet<&str> {
        let named = story.history.iter().filter(|entry| entry.name == name);
        named.map(super::super::evidence::Entry::step).collect()
    };
    (of("succeeded"), of("undone"))
}

/// Returns whether a step has effects at the ledger: its program is known, it was handed to a worker and does not
/// only read.
fn has_effects(story: &Story, step: &str) -> bool {
    let Some(program) = &story.program else { return false };
    let leased = |entry: &crate::evidence::Entry| entry.name == "leased" && entry.step() == step;
    let reads = |step: &crate::program::Step| matches!(&step.body, crate::program::Body::Task(script, _) if script.reads);
    story.history.iter().any(leased) && !program.find(step).is_some_and(reads)
}

/// I3: at most one committed completion per step and item; the ledger shows one effect for what is done, and none for
/// what is undone.
pub(super) fn once(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for story in &evidence.stories {
        let mut ends: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        for entry in &story.history {
            match entry.name.as_str() {
                name @ ("succeeded" | "undone") => {
                    *ends.entry((name, entry.step())).or_default() += 1;
                }
                "went_forward" => ends.clear(),
                _ => {}
            }
        }
        for ((name, step), count) in ends.into_iter().filter(|(_, count)| *count > 1) {
            let what = format!("step {step} has {name} {count} times");
            found.push(Violation::of("I3", story.run, what));
        }
        let standings = standings(&story.ledger);
        for (step, standing) in &standings {
            if standing.applied > 1 {
                let what = format!("the effect of {step} was made {} times", standing.applied);
                found.push(Violation::of("I3", story.run, what));
            }
        }
        // While a run moves, what it does is ahead of what it says.
        if story.state() != "ended" {
            continue;
        }
        let (succeeded, undone) = told(story);
        for step in &succeeded {
            let standing = standings.get(step).copied().unwrap_or_default();
            if !undone.contains(step) && has_effects(story, step) && !standing.stands() {
                let what =
                    format!("step {step} is done, and its effect is not there: {standing:?}");
                found.push(Violation::of("I3", story.run, what));
            }
        }
        let nothing_stands = story.left_nothing();
        for (step, standing) in &standings {
            let should_not = undone.contains(step) || nothing_stands;
            if should_not && standing.stands() {
                let what = format!("step {step} is undone, and its effect stands");
                found.push(Violation::of("I3", story.run, what));
            }
        }
    }
    found
}

/// I5: what runs that have ended moved sums to zero over all accounts, moves of one run that stand are whole, and
/// every run that was started is counted under one state or outcome.
pub(super) fn conservation(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for story in &evidence.stories {
        let class = if story.state() == "ended" { story.outcome() } else { "open" };
        *counts.entry(class).or_default() += 1;
        let mut accounts: BTreeMap<&str, i64> = BTreeMap::new();
        for line in &story.ledger {
            let sign = match (line.ask.op, line.came) {
                (Op::Apply, Came::Done) => 1,
                (Op::Revert, Came::Done) => {
                    let key = line.ask.key;
                    let made = |other: &&Line| {
                        other.ask.op == Op::Apply
                            && other.ask.key == key
                            && other.came == Came::Done
                    };
                    // Undoing what never came moves nothing.
                    -i64::from(story.ledger.iter().any(|other| made(&other)))
                }
                _ => 0,
            };
            for (account, amount) in &line.ask.moves {
                *accounts.entry(account).or_default() += sign * amount;
            }
        }
        let sum: i64 = accounts.values().sum();
        if sum != 0 {
            let what = format!("its moves do not sum to zero: {accounts:?}");
            found.push(Violation::of("I5", story.run, what));
        }
        if story.left_nothing() && accounts.values().any(|amount| *amount != 0) {
            let what = format!("it ended {} and moved {accounts:?}", story.outcome());
            found.push(Violation::of("I5", story.run, what));
        }
    }
    let known = [
        "succeeded",
        "partially_completed",
        "compensated",
        "compensated_with_manual_steps",
        "failed_clean",
        "failed_dirty",
        "cancelled",
        "open",
    ];
    let sum: usize = known.iter().filter_map(|class| counts.get(class)).sum();
    if sum != evidence.stories.len() {
        let what =
            format!("{} runs were started, and counted are {counts:?}", evidence.stories.len());
        found.push(Violation { invariant: "I5", run: None, what });
    }
    found
}
