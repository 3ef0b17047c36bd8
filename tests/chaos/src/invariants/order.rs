//! I6, I7: what comes after what, forward and backward.

use std::collections::BTreeSet;

use crate::evidence::{Entry, Evidence, Story, Violation};
use crate::ledger::{Came, Op};
use crate::program::{Body, Program};

/// Returns the step of a step or item.
fn step_of(path: &str) -> &str {
    path.split_once('/').map_or(path, |(step, _)| step)
}

/// Returns the place in the history at which a step began.
fn began(story: &Story, id: &str) -> Option<usize> {
    let begins = ["offered", "opened", "signal_awaited", "sleep_began", "child_asked"];
    story.history.iter().position(|entry| {
        begins.contains(&entry.name.as_str())
            && entry.action() == "forward"
            && step_of(entry.step()) == id
    })
}

/// Returns the place in the history at which a step was over, forward.
fn settled(story: &Story, id: &str) -> Option<usize> {
    let ends = ["succeeded", "joined", "gave_up", "skipped", "skipped_by_hand"];
    story.history.iter().position(|entry| ends.contains(&entry.name.as_str()) && entry.step() == id)
}

/// I6: a join fires once, when as many items have succeeded as it wants, and not before all have ended where it waits
/// for all; and no step begins before those that it needs are over.
pub(super) fn joins(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for story in &evidence.stories {
        let Some(program) = &story.program else { continue };
        for step in &program.steps {
            if let (Some(begin), false) = (began(story, &step.id), story.has("went_forward")) {
                for need in step.needs.iter().map(|&need| program.steps[need].id.as_str()) {
                    if settled(story, need).is_none_or(|end| end > begin) {
                        let what = format!("step {} began before {need} was over", step.id);
                        found.push(Violation::of("I6", story.run, what));
                    }
                }
            }
            if let Body::Map { items, join, .. } = &step.body {
                let joined: Vec<usize> = (0..story.history.len())
                    .filter(|&at| {
                        story.history[at].name == "joined" && story.history[at].step() == step.id
                    })
                    .collect();
                if joined.len() > 1 {
                    let what = format!("the join of {} fired {} times", step.id, joined.len());
                    found.push(Violation::of("I6", story.run, what));
                }
                let Some(&at) = joined.first() else { continue };
                let before = |name: &str| -> BTreeSet<&str> {
                    let ours = |entry: &&Entry| {
                        entry.name == name
                            && entry.step() != step.id
                            && step_of(entry.step()) == step.id
                    };
                    story.history[..at].iter().filter(ours).map(Entry::step).collect()
                };
                let (done, gone) = (before("succeeded").len(), before("gave_up").len());
                let succeeded = story.history[at].body["succeeded"] == true;
                let too_early = succeeded
                    && (done < join.wants(items.len())
                        || (join.waits_for_all() && done + gone < items.len()));
                if too_early {
                    let what = format!(
                        "the join of {} fired when {done} of {} items had succeeded and {gone} had not",
                        step.id,
                        items.len()
                    );
                    found.push(Violation::of("I6", story.run, what));
                }
            }
        }
    }
    found
}

/// Returns the steps that depend on `id`, directly or not.
fn dependents<'a>(program: &'a Program, id: &str) -> BTreeSet<&'a str> {
    let mut all: BTreeSet<&str> = BTreeSet::new();
    for step in &program.steps {
        let needs = step.needs.iter().map(|&need| program.steps[need].id.as_str());
        if needs.into_iter().any(|need| need == id || all.contains(need)) {
            all.insert(&step.id);
        }
    }
    all
}

/// I7: a step is undone after all that depended on it, as the history and the ledger say; nothing is undone that was
/// never handed out; and nothing goes forward once undoing has begun.
pub(super) fn compensation(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for story in &evidence.stories {
        let mut backward = false;
        let mut handed_out: BTreeSet<&str> = BTreeSet::new();
        for entry in &story.history {
            match entry.name.as_str() {
                "compensation_started" => backward = true,
                "went_forward" => backward = false,
                "leased" | "child_asked" if entry.action() != "compensate" => {
                    handed_out.insert(entry.step());
                }
                _ => {}
            }
            let begins = ["offered", "leased", "opened", "signal_awaited", "sleep_began"];
            if backward && begins.contains(&entry.name.as_str()) && entry.action() == "forward" {
                let what =
                    format!("{} of {} came after undoing had begun", entry.name, entry.step());
                found.push(Violation::of("I7", story.run, what));
            }
            let undoes = entry.name == "offered" && entry.action() == "compensate";
            if undoes && !handed_out.contains(entry.step()) {
                let what = format!("{} is undone, and was never handed out", entry.step());
                found.push(Violation::of("I7", story.run, what));
            }
        }
        found.extend(backward_order(story));
    }
    found
}

fn backward_order(story: &Story) -> Vec<Violation> {
    let mut found = Vec::new();
    let Some(program) = &story.program else { return found };
    let is_undo = |entry: &Entry| {
        (entry.name == "offered" || entry.name == "child_asked") && entry.action() == "compensate"
    };
    for step in &program.steps {
        let ours = |path: &str| step_of(path) == step.id;
        let begin = story.history.iter().position(|entry| is_undo(entry) && ours(entry.step()));
        let first_revert =
            story.ledger.iter().position(|line| line.ask.op == Op::Revert && ours(&line.ask.step));
        for later in dependents(program, &step.id) {
            let theirs = |path: &str| step_of(path) == later;
            let undone = story.history.iter().rposition(|entry| {
                ["undone", "undo_marked"].contains(&entry.name.as_str()) && theirs(entry.step())
            });
            let to_undo = story.history.iter().any(|entry| is_undo(entry) && theirs(entry.step()));
            if let Some(begin) = begin
                && to_undo
                && undone.is_none_or(|undone| undone > begin)
            {
                let what = format!("{} began to be undone before {later} was", step.id);
                found.push(Violation::of("I7", story.run, what));
            }
            let last_revert = story.ledger.iter().rposition(|line| {
                line.ask.op == Op::Revert && line.came == Came::Done && theirs(&line.ask.step)
            });
            if let (Some(first), Some(last)) = (first_revert, last_revert)
                && last > first
            {
                let what = format!("the ledger undid {} before {later}", step.id);
                found.push(Violation::of("I7", story.run, what));
            }
        }
    }
    found
}
