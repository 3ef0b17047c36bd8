//! The effects of each kind of event.

use std::collections::BTreeMap;

use super::*;
use crate::{Graph, RunId};

/// Effects of each kind of event, of a run without a parent.
const EFFECTS: &str = "
    cancel_requested:
    child_asked: AskChild
    child_heard:
    child_told: NotifyChild
    compensation_started: OffersWithdrawn CompensationStarted
    deferred:
    emitted: EventEmitted
    ended: OffersWithdrawn Ended
    erased:
    fact_restored:
    fact_withdrawn:
    failed: AttemptEnded
    gave_up: LeasesRevoked WorkSettled
    happened: AttemptEnded
    held: OffersWithdrawn
    incident_opened: IncidentOpened
    incident_resolved: IncidentResolved
    input_edited:
    joined: WorkSettled
    killed: LeasesRevoked OffersWithdrawn
    labelled: LabelsChanged
    late_result: LateResult
    leased: TaskLeased
    lost: LeasesRevoked AttemptEnded
    migrated: OffersWithdrawn VersionChanged
    not_happened: AttemptEnded
    offered: TaskOffered
    opened: FanOutStarted
    output_unchecked: CheckOutput
    parent_heard:
    parked: WorkSettled
    released: TaskReleased
    rerun_requested:
    resolved_by_hand: LeasesRevoked
    resumed:
    retry_requested:
    retry_scheduled: RetryScheduled
    run_failed:
    signal_awaited:
    signal_refused:
    signalled:
    skipped: WorkSettled
    skipped_by_hand: LeasesRevoked WorkSettled
    sleep_began:
    started: Started
    succeeded: AttemptEnded
    timed_out:
    undo_blocked: WorkSettled
    undo_marked: LeasesRevoked WorkSettled
    undo_requested:
    undone: AttemptEnded
    unheld: HoldEnded
    went_forward: RerunStarted
    beat:
";

fn effects(line: &str) -> Vec<Effect> {
    let text = r#"{"name":"one","version":1,"steps":[{"id":"a","sleep":{"for":"1s"}}]}"#;
    let run = Run::new(RunId(uuid::Uuid::nil()), Arc::new(Graph::parse(text).unwrap()));
    let mut effects = Vec::new();
    serde_json::from_str::<Event>(line).unwrap().effects(&run, &mut effects);
    effects
}

fn names(effects: &[Effect]) -> String {
    let name = |effect: &Effect| {
        let text = format!("{effect:?}");
        text.split(|one: char| !one.is_alphanumeric()).next().unwrap().to_owned()
    };
    effects.iter().map(name).collect::<Vec<_>>().join(" ")
}

#[test]
fn each_kind_of_event_has_its_effects() {
    let expected = EFFECTS.lines().filter_map(|line| line.trim().split_once(':'));
    let expected: BTreeMap<String, String> =
        expected.map(|(kind, names)| (kind.to_owned(), names.trim().to_owned())).collect();
    let mut found = BTreeMap::new();
    for line in include_str!("../../tests/golden/events-1.ndjson").lines() {
        let kind = line.trim_start_matches(['{', '"']).split('"').next().unwrap();
        let names = names(&effects(line));
        let before = found.insert(kind.to_owned(), names.clone());
        assert!(before.is_none_or(|before| before == names), "{line}");
    }
    assert_eq!(found, expected);
}

#[test]
fn what_no_worker_did_ends_no_attempt() {
    let succeeded = r#"{"succeeded":{"step":"a","attempt":0,"output":0}}"#;
    let undone = r#"{"undone":{"step":"a","attempt":0}}"#;
    for line in [succeeded, undone] {
        assert_eq!(effects(line), [Effect::WorkSettled(StepPath::step("a"))]);
    }
}

#[test]
fn an_effect_is_small() {
    assert_eq!(size_of::<Effect>(), 40);
}
