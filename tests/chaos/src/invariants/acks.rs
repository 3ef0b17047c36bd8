//! I2, I4: what was answered is true, and what came too late moved nothing.

use std::collections::HashMap;

use crate::client::{Asked, Saw};
use crate::evidence::{Entry, Evidence, Story, Violation};

/// Returns the end of an attempt in a run's history, if it was taken.
fn taken<'a>(story: &'a Story, step: &str, action: &str, attempt: u32) -> Option<&'a Entry> {
    let ends = |entry: &&Entry| match entry.name.as_str() {
        "failed" => entry.action() == action,
        "succeeded" => action == "forward",
        "undone" => action == "compensate",
        "happened" | "not_happened" => action == "verify",
        _ => false,
    };
    story
        .history
        .iter()
        .filter(ends)
        .find(|entry| entry.step() == step && entry.attempt() == attempt)
}

/// I2: a run whose start was answered is there, under its key; a start that was refused made none; one that was not
/// answered made one or none; and every report, signal and act that was answered stands in the history.
pub(super) fn nothing_acknowledged_is_lost(evidence: &Evidence) -> Vec<Violation> {
    let stories: HashMap<_, _> = evidence.stories.iter().map(|story| (story.run, story)).collect();
    let mut found = Vec::new();
    for call in &evidence.calls {
        match (&call.asked, &call.saw) {
            (Asked::Start { workflow, key }, Saw::Ok(answer)) => {
                let run = crate::client::id_of(answer).unwrap_or_default();
                let resolved = evidence.keys.get(key).copied().flatten();
                if !stories.contains_key(&run) {
                    let what =
                        format!("the run of {workflow} that was started as {key} is not there");
                    found.push(Violation::of("I2", run, what));
                } else if evidence.keys.contains_key(key) && resolved != Some(run) {
                    let what = format!("the key {key} started it, and now names {resolved:?}");
                    found.push(Violation::of("I2", run, what));
                }
            }
            (Asked::Start { workflow, key }, Saw::Refused { status, code }) => {
                if let Some(Some(run)) = evidence.keys.get(key) {
                    let what = format!(
                        "the start of {workflow} as {key} was answered {status} {code}, and yet the run is there"
                    );
                    found.push(Violation::of("I2", *run, what));
                }
            }
            (Asked::Report { run, step, action, attempt }, Saw::Ok(_)) => {
                let told = stories.get(run).and_then(|story| taken(story, step, action, *attempt));
                if told.is_none() {
                    let what = format!(
                        "the report of {action} {step} #{attempt} was taken and is not there"
                    );
                    found.push(Violation::of("I2", *run, what));
                }
            }
            (Asked::Report { run, step, action, attempt }, Saw::Refused { status, code })
                if *status != 409 && stories.contains_key(run) =>
            {
                let what = format!(
                    "the report of {action} {step} #{attempt} was answered {status} {code}"
                );
                found.push(Violation::of("I2", *run, what));
            }
            (Asked::Signal { run, signal }, Saw::Ok(_)) => {
                let is_it = |entry: &Entry| {
                    entry.name == "signalled" && entry.body["signal"] == signal.as_str()
                };
                if !stories.get(run).is_some_and(|story| story.history.iter().any(is_it)) {
                    let what = format!("the signal {signal} was taken and is not there");
                    found.push(Violation::of("I2", *run, what));
                }
            }
            (Asked::Act { run, verb }, Saw::Ok(_)) => {
                let name = match verb.as_str() {
                    "cancel" => "cancel_requested",
                    "pause" => "held",
                    // A run that was not held is resumed by doing nothing.
                    "compensate" => "compensation_started",
                    _ => continue,
                };
                if !stories.get(run).is_some_and(|story| story.has(name)) {
                    let what = format!("the act {verb} was done and is not there");
                    found.push(Violation::of("I2", *run, what));
                }
            }
            _ => {}
        }
    }
    found
}

/// I4: attempts of a step only grow; a report that was refused as late did not become the end of its attempt; and no
/// attempt that was lost ended the step.
pub(super) fn stale_attempts_move_nothing(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for story in &evidence.stories {
        let mut current: HashMap<(&str, &str), u32> = HashMap::new();
        let mut released: HashMap<(&str, &str), u32> = HashMap::new();
        for entry in &story.history {
            let (step, action, attempt) = (entry.step(), entry.action(), entry.attempt());
            match entry.name.as_str() {
                "offered" => {
                    let before = current.insert((step, action), attempt).unwrap_or(0);
                    if attempt <= before {
                        let what =
                            format!("attempt #{attempt} of {action} {step} follows #{before}");
                        found.push(Violation::of("I4", story.run, what));
                    }
                }
                "lost" => {
                    released.insert((step, action), attempt);
                }
                "succeeded" | "undone" if attempt > 0 => {
                    let action = if entry.name == "undone" { "compensate" } else { "forward" };
                    let stale = released.get(&(step, action)).is_some_and(|lost| attempt <= *lost);
                    let behind = current.get(&(step, action)).is_some_and(|now| attempt < *now);
                    if stale || behind {
                        let what =
                            format!("{action} {step} was ended by the stale attempt #{attempt}");
                        found.push(Violation::of("I4", story.run, what));
                    }
                }
                _ => {}
            }
        }
    }
    for call in &evidence.calls {
        let (Asked::Report { run, step, action, attempt }, Saw::Refused { status: 409, code }) =
            (&call.asked, &call.saw)
        else {
            continue;
        };
        let Some(story) = evidence.story(*run) else { continue };
        let earlier = evidence
            .calls
            .iter()
            .any(|other| other.asked == call.asked && !matches!(other.saw, Saw::Refused { .. }));
        // One that was forged before its attempt was handed out says nothing of that attempt.
        let held = story.history.iter().any(|entry| {
            let same = (entry.step(), entry.action(), entry.attempt());
            entry.name == "leased" && same == (step, action, *attempt) && entry.at <= call.at
        });
        let counted = taken(story, step, action, *attempt).is_some();
        if code == "lease_lost" && held && !earlier && counted {
            let what = format!(
                "the report of {action} {step} #{attempt} was refused as late, and counted"
            );
            found.push(Violation::of("I4", *run, what));
        }
    }
    found
}
