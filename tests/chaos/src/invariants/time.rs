//! I10, I13: what waits for time, and what there may be of at once.

use std::collections::{BTreeMap, BTreeSet};

use crate::evidence::{Entry, Evidence, Story, Violation};
use crate::program::Body;

/// I10: a sleep ends once and not before its time, by the engine's clock and by the ledger's.
pub(super) fn timers(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for story in &evidence.stories {
        let mut until: BTreeMap<&str, i64> = BTreeMap::new();
        for entry in &story.history {
            let step = entry.step();
            match entry.name.as_str() {
                "sleep_began" => {
                    if let Some(at) = entry.instant("until") {
                        until.insert(step, at);
                    }
                }
                "retry_scheduled" => {}
                "succeeded" => {
                    if let Some(at) = until.remove(step)
                        && entry.at < at
                    {
                        let what = format!("{step} woke {} ms early", at - entry.at);
                        found.push(Violation::of("I10", story.run, what));
                    }
                }
                _ => {}
            }
        }
        found.extend(by_the_ledger(story));
    }
    found
}

/// Returns the lateness of each sleep that ended by itself, in milliseconds by the engine's clock.
#[must_use]
pub fn lateness(evidence: &Evidence) -> Vec<i64> {
    due(evidence).map(|(at, ended)| ended - at).collect()
}

/// Returns the same of those that were due while no fault was under way, nor had been for two seconds.
#[must_use]
pub fn calm_lateness(evidence: &Evidence) -> Vec<i64> {
    let marks = |end: &'static str| {
        evidence.timeline.iter().filter(move |mark| mark.what.ends_with(end)).map(|mark| mark.at)
    };
    let faults: Vec<(i64, i64)> = marks(" ...").zip(marks(": over")).collect();
    let calm = |at: i64| faults.iter().all(|(begin, end)| at + 1_000 < *begin || at > end + 2_000);
    due(evidence).filter(|(at, _)| calm(*at)).map(|(at, ended)| ended - at).collect()
}

/// Returns the due time of each sleep, and the time of its end.
fn due(evidence: &Evidence) -> impl Iterator<Item = (i64, i64)> {
    evidence.stories.iter().flat_map(|story| {
        story.history.iter().filter(|entry| entry.name == "sleep_began").filter_map(|began| {
            let until = began.instant("until")?;
            let ends = |entry: &&Entry| {
                entry.name == "succeeded" && entry.step() == began.step() && entry.seq > began.seq
            };
            Some((until, story.history.iter().find(ends)?.at))
        })
    })
}

/// Between the effect before a sleep and the one after it lies at least its time, whatever the engine's clock says.
fn by_the_ledger(story: &Story) -> Vec<Violation> {
    let mut found = Vec::new();
    let Some(program) = &story.program else { return found };
    let first = |id: &str| {
        let lines = story.ledger.iter().filter(|line| line.ask.step == id);
        lines.map(|line| line.at).min()
    };
    for (place, sleep) in program.steps.iter().enumerate() {
        let Body::Sleep(ms) = &sleep.body else { continue };
        let before = sleep.needs.iter().filter_map(|&need| first(&program.steps[need].id)).max();
        let after = program.steps.iter().filter(|step| step.needs.contains(&place));
        let after = after.filter_map(|step| first(&step.id)).min();
        let span = i64::try_from(*ms).unwrap_or(i64::MAX);
        if let (Some(before), Some(after)) = (before, after)
            && after - before < span
        {
            let what = format!("{} took {} ms by the ledger, not {span}", sleep.id, after - before);
            found.push(Violation::of("I10", story.run, what));
        }
    }
    found
}

/// I13: no more items of a fan-out are in flight than it allows.
pub(super) fn caps(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for story in &evidence.stories {
        let Some(program) = &story.program else { continue };
        for step in &program.steps {
            let Body::Map { at_once, .. } = &step.body else { continue };
            let (mut open, mut most): (BTreeSet<&str>, usize) = (BTreeSet::new(), 0);
            for entry in &story.history {
                let item = entry.step();
                let ours = item.split_once('/').is_some_and(|(of, _)| of == step.id);
                if !ours || entry.action() != "forward" {
                    continue;
                }
                match entry.name.as_str() {
                    "leased" => {
                        open.insert(item);
                    }
                    "succeeded" | "failed" | "lost" | "gave_up" | "released" => {
                        open.remove(item);
                    }
                    _ => {}
                }
                most = most.max(open.len());
            }
            if most > *at_once {
                let what =
                    format!("{most} items of {} were in flight at once, not {at_once}", step.id);
                found.push(Violation::of("I13", story.run, what));
            }
        }
    }
    found
}
