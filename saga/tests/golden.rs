//! Every form in which an event was ever written stays readable, and is written so still. A file per record format;
//! a line that fails here means that journals out there can no longer be read: add a form, never change one.

use std::collections::BTreeSet;

use backstitch_saga::Event;

#[test]
fn events_are_read_and_written_as_ever() {
    let mut kinds = BTreeSet::new();
    for line in include_str!("golden/events-1.ndjson").lines() {
        let event: Event =
            serde_json::from_str(line).unwrap_or_else(|error| panic!("{line}: {error}"));
        assert_eq!(serde_json::to_string(&event).unwrap(), line);
        kinds.insert(line.trim_start_matches(['{', '"']).split('"').next().unwrap().to_owned());
    }
    assert_eq!(kinds.len(), VARIANTS, "an event without a golden form; there are: {kinds:?}");
}

/// Number of kinds of events; the match below does not compile when one is added, so that it is counted.
const VARIANTS: usize = 54;

#[expect(dead_code, reason = "only its exhaustiveness counts")]
fn counted(event: &Event) {
    use Event as E;
    match event {
        E::Started { .. }
        | E::Skipped { .. }
        | E::Opened { .. }
        | E::Deferred { .. }
        | E::Offered { .. }
        | E::Leased { .. } => {}
        E::Released { .. }
        | E::Beat { .. }
        | E::Succeeded { .. }
        | E::Failed { .. }
        | E::Lost { .. } => {}
        E::RetryScheduled { .. }
        | E::NotHappened { .. }
        | E::Happened { .. }
        | E::GaveUp { .. } => {}
        E::Parked { .. } | E::RetryRequested { .. } | E::Resumed { .. } | E::Joined { .. } => {}
        E::RunFailed { .. }
        | E::CompensationStarted { .. }
        | E::UndoRequested { .. }
        | E::Undone { .. } => {}
        E::UndoBlocked { .. }
        | E::UndoMarked { .. }
        | E::CancelRequested { .. }
        | E::Killed { .. } => {}
        E::TimedOut
        | E::IncidentOpened { .. }
        | E::IncidentResolved { .. }
        | E::LateResult { .. } => {}
        E::InputEdited { .. }
        | E::SkippedByHand { .. }
        | E::ResolvedByHand { .. }
        | E::SignalAwaited { .. }
        | E::Signalled { .. }
        | E::SignalRefused { .. }
        | E::SleepBegan { .. }
        | E::ChildAsked { .. }
        | E::FactWithdrawn { .. }
        | E::FactRestored { .. }
        | E::ChildTold { .. }
        | E::ChildHeard { .. }
        | E::ParentHeard { .. }
        | E::RerunRequested { .. }
        | E::WentForward { .. } => {}
        E::Held { .. } | E::Unheld { .. } | E::Migrated { .. } | E::Ended { .. } => {}
        E::Labelled { .. } | E::Erased(_) | E::Emitted(_) => {}
        E::OutputUnchecked { .. } => {}
    }
}
