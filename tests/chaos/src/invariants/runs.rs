//! I1, I8, I9: how runs end, and that their journals tell it.

use std::collections::BTreeMap;

use serde_json::Value;

use crate::evidence::{Evidence, Story, Violation};
use crate::program::{Expected, Program};

/// I1: between two ends something must have opened the run anew; after the last nothing but late results comes; and
/// what was shown as its end is still its end.
pub(super) fn one_end(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for story in &evidence.stories {
        let mut ended = false;
        for entry in &story.history {
            match entry.name.as_str() {
                "ended" if ended => {
                    let what = format!("it ended a second time, in record {}", entry.seq);
                    found.push(Violation::of("I1", story.run, what));
                }
                "ended" => ended = true,
                "compensation_started" | "rerun_requested" | "undo_marked" => ended = false,
                "late_result" | "incident_resolved" => {}
                other if ended => {
                    let what = format!("after its end, record {} says {other}", entry.seq);
                    found.push(Violation::of("I1", story.run, what));
                }
                _ => {}
            }
        }
        if let Some(before) = &story.ended
            && !story.interfered
            && (before["outcome"] != story.view["outcome"]
                || before["output"] != story.view["output"])
        {
            let what = format!(
                "it was shown as {} with {}, later as {} with {}",
                before["outcome"], before["output"], story.view["outcome"], story.view["output"]
            );
            found.push(Violation::of("I1", story.run, what));
        }
    }
    found
}

/// I8: records are numbered from 1 without a gap; what they tell is what is shown of the run and its steps, and what
/// the list of runs says.
pub(super) fn the_journal_is_the_run(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for story in &evidence.stories {
        let mut last = 0;
        for entry in &story.history {
            if entry.seq != last && entry.seq != last + 1 {
                let what = format!("record {} follows record {last}", entry.seq);
                found.push(Violation::of("I8", story.run, what));
            }
            last = entry.seq;
        }
        if story.view["seq"].as_u64() != Some(last) {
            let what = format!("it shows {} records, its history has {last}", story.view["seq"]);
            found.push(Violation::of("I8", story.run, what));
        }
        for member in ["state", "outcome", "workflow", "ended_at"] {
            if story.listed[member] != story.view[member] {
                let what = format!(
                    "the list says {member} {}, the run {}",
                    story.listed[member], story.view[member]
                );
                found.push(Violation::of("I8", story.run, what));
            }
        }
        found.extend(steps_as_told(story));
    }
    found
}

/// Checks that the steps that the history says have succeeded are those that are shown as such.
fn steps_as_told(story: &Story) -> Vec<Violation> {
    let mut told: BTreeMap<&str, bool> = BTreeMap::new();
    for entry in &story.history {
        match entry.name.as_str() {
            "succeeded" => told.insert(entry.step(), true),
            "joined" => {
                let succeeded = entry.body["succeeded"].as_bool().unwrap_or_default();
                told.insert(entry.step(), succeeded)
            }
            "went_forward" => {
                let steps = entry.body["steps"].as_array().into_iter().flatten();
                steps.filter_map(Value::as_str).for_each(|step| {
                    told.remove(step);
                });
                None
            }
            _ => None,
        };
    }
    let mut found = Vec::new();
    for step in story.view["steps"].as_array().into_iter().flatten() {
        let name = step["step"].as_str().unwrap_or_default();
        let shown = step["state"] == "succeeded";
        let told = told.get(name).copied().unwrap_or_default();
        // A step that was skipped or resolved by hand shows so.
        if shown != told && !story.interfered {
            let what =
                format!("step {name} is shown as {}, its history says otherwise", step["state"]);
            found.push(Violation::of("I8", story.run, what));
        }
    }
    found
}

/// I9: every run has ended, and as its program says, unless it waits for a person.
pub(super) fn every_run_ends(evidence: &Evidence) -> Vec<Violation> {
    let mut found = Vec::new();
    for story in &evidence.stories {
        let needs_a_person = story.view["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|condition| condition["type"] == "IncidentOpen"));
        let expected = story.program.as_ref().map(Program::expected);
        if story.state() != "ended" {
            let poison = matches!(expected, Some(Expected::Poison));
            if !(needs_a_person && (poison || story.interfered)) {
                let what = format!("it has not ended: it is {}", story.state());
                found.push(Violation::of("I9", story.run, what));
            }
            continue;
        }
        let (Some(expected), false) = (expected, story.interfered) else { continue };
        let outcome = story.outcome();
        let right = match &expected {
            Expected::Done(Some(value)) => {
                let in_part = story.program.as_ref().is_some_and(Program::may_leave_items);
                (outcome == "succeeded" || (in_part && outcome == "partially_completed"))
                    && story.view["output"].to_string().contains("\"v\"")
                    && crate::worker::total(&story.view["output"]) == *value
            }
            // A fan-out that was content with some may have seen others fail.
            Expected::Done(None) | Expected::Partly => {
                ["succeeded", "partially_completed"].contains(&outcome)
            }
            Expected::Undone => ["compensated", "failed_clean"].contains(&outcome),
            Expected::Poison => false,
        };
        if !right {
            let output = &story.view["output"];
            let what = format!("it ended {outcome} with {output}, its program says {expected:?}");
            found.push(Violation::of("I9", story.run, what));
        }
    }
    found
}
