//! Selects the events that are acts of people: the entries of the audit.

use crate::event::{By, Erasure, Event};
use crate::{HoldKind, StepPath};

/// An act of a person on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Act<'a> {
    /// The word of the verb, as at the end of its route: `retry`, `mark-compensated`, …
    pub verb: &'static str,
    /// The step or item that it is about; the run as a whole without it.
    pub step: Option<&'a StepPath>,
    /// Actor and reason.
    pub by: &'a By,
}

impl Event {
    /// Returns the act that this event records, if a person caused it.
    #[must_use]
    pub fn act(&self) -> Option<Act<'_>> {
        let (verb, step, by) = match self {
            Event::RetryRequested { by } => ("retry", None, by),
            Event::CompensationStarted { by: Some(by), .. } => ("compensate", None, by),
            Event::UndoMarked { step, by } => ("mark-compensated", Some(step), by),
            Event::Held { by: Some(by), .. } => ("pause", None, by),
            Event::Unheld { by: Some(by), hold } => match hold.kind {
                HoldKind::DependencyUnmet => ("skip-requirements", None, by),
                _ => ("resume", None, by),
            },
            Event::FactRestored { by: Some(by), .. } => ("skip-requirements", None, by),
            Event::SkippedByHand { step, by, .. } => ("skip", Some(step), by),
            Event::ResolvedByHand { step, by } => ("resolve", Some(step), by),
            Event::RerunRequested { by, .. } => ("rerun", None, by),
            Event::Signalled { by, .. } | Event::SignalRefused { by, .. } => ("signal", None, by),
            Event::Migrated { by, .. } => ("migrate", None, by),
            Event::Labelled { by, .. } => ("label", None, by),
            Event::CancelRequested { by } => ("cancel", None, by),
            Event::Killed { by } => ("kill", None, by),
            Event::Erased(Erasure { by }) => ("erase", None, by),
            _ => return None,
        };
        Some(Act { verb, step, by })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::ActFilter;

    /// A new event with a `by` fails here until the audit lists it.
    #[test]
    fn every_event_that_names_somebody_is_an_act() {
        let mut acts = 0;
        for line in include_str!("../tests/golden/events-1.ndjson").lines() {
            let event: Event = serde_json::from_str(line).unwrap();
            let act = event.act();
            assert_eq!(act.is_some(), line.contains(r#""by":{"#), "{line}");
            assert!(act.is_none_or(|act| ActFilter::VERBS.contains(&act.verb)), "{line}");
            acts += usize::from(act.is_some());
        }
        assert!(acts >= 5, "{acts}");
    }
}
