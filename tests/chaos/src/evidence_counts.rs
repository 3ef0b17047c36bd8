//! Counts of what the evidence shows, so that a run that shows nothing is recognized.

use std::collections::BTreeSet;

use crate::client::{Asked, Saw};
use crate::evidence::Evidence;
use crate::ledger::{Came, Op};
use crate::report::Report;

/// Counters that must not be zero in the end.
pub const MUST: &[&str] = &[
    "stale completion refused",
    "lease lost",
    "journal key lost to another node",
    "batch retried one by one",
    "commit unknown",
    "run of a dead node taken over",
    "join raced",
    "compensation of an unknown step",
    "late result",
    "call without an answer",
    "effect asked for twice",
    "instant of a schedule",
    "document answered",
];

/// Counters of the engines themselves, and the names of their metrics.
pub const BY_ENGINES: &[(&str, &str)] = &[
    ("lease lost", "backstitch_lease_losses_total"),
    ("late result", "backstitch_late_results_total"),
    ("journal key lost to another node", "backstitch_conflicts_total"),
    ("batch retried one by one", "backstitch_retried_one_by_one_total"),
    ("commit unknown", "backstitch_unknown_commits_total"),
    ("run of a dead node taken over", "backstitch_takeovers_total"),
];

/// Counts what the evidence shows.
pub fn count(evidence: &Evidence, report: &mut Report) {
    for call in &evidence.calls {
        match (&call.asked, &call.saw) {
            (Asked::Report { .. }, Saw::Refused { status: 409, .. }) => {
                report.count("stale completion refused", 1.0);
            }
            (_, Saw::Unknown(_)) => report.count("call without an answer", 1.0),
            _ => {}
        }
    }
    for story in &evidence.stories {
        let succeeded: BTreeSet<&str> = story
            .history
            .iter()
            .filter(|entry| entry.name == "succeeded")
            .map(super::evidence::Entry::step)
            .collect();
        for entry in &story.history {
            if entry.name == "undone" && !succeeded.contains(entry.step()) {
                report.count("compensation of an unknown step", 1.0);
            }
        }
        if story.has("compensation_started") {
            report.count("run undone", 1.0);
        }
        for line in &story.ledger {
            match (line.ask.op, line.came) {
                (Op::Apply, Came::Repeat) => report.count("effect asked for twice", 1.0),
                (Op::Apply, Came::Refused) => {
                    report.count("effect that came after its undoing", 1.0);
                }
                _ => {}
            }
        }
        let outcome = if story.state() == "ended" { story.outcome() } else { "open" };
        report.count(&format!("run that ended {outcome}"), 1.0);
    }
}
