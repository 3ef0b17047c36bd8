//! Queries on a journal that do not concern the present state of its run: its start, acts of people, attempts and
//! incidents. For readers, cross-checks and repairs.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::act::Act;
use crate::effect::OpenedIncident;
use crate::event::{Begun, Event, Record};
use crate::protocol::AttemptView;
use crate::{Action, Hold, HoldKind, StepPath, Time, Timestamp};

/// An incident of a run, as its journal has it.
#[derive(Clone, Debug, PartialEq)]
pub struct Incident {
    /// The content of the incident.
    pub opened: OpenedIncident,
    /// The time at which it opened.
    pub opened_at: Time,
    /// The time at which it was over, if it is.
    pub resolved_at: Option<Time>,
}

impl Record {
    /// Returns what the run began with, if this is the first record of its journal.
    #[must_use]
    pub fn begun(&self) -> Option<&Begun> {
        match self.events.first() {
            Some(Event::Started(begun)) => Some(begun),
            _ => None,
        }
    }

    /// Returns the hashes of the definitions that the run goes over to with this record.
    pub fn definitions(&self) -> impl Iterator<Item = &str> {
        self.events.iter().filter_map(|event| match event {
            Event::Migrated { definition, .. } => Some(&**definition),
            _ => None,
        })
    }

    /// Returns the acts of people in this record, each with the position of its event.
    pub fn acts(&self) -> impl Iterator<Item = (usize, Act<'_>)> {
        let numbered = self.events.iter().enumerate();
        numbered.filter_map(|(position, event)| Some((position, event.act()?)))
    }

    /// Returns whether the record changes more than the labels and the documents of its run.
    #[must_use]
    pub fn moves(&self) -> bool {
        let marks = |event: &Event| matches!(event, Event::Labelled { .. } | Event::Erased(_));
        !self.events.iter().all(marks)
    }
}

/// Returns the incidents of a journal, in the order in which they opened.
#[must_use]
pub fn incidents(journal: &[Record]) -> Vec<Incident> {
    let mut incidents: Vec<Incident> = Vec::new();
    let mut positions = BTreeMap::new();
    for record in journal {
        for event in &record.events {
            match event {
                Event::IncidentOpened { incident, kind, step, code, message } => {
                    positions.insert(*incident, incidents.len());
                    let opened = OpenedIncident {
                        incident: *incident,
                        kind: *kind,
                        step: step.clone(),
                        code: code.clone(),
                        message: message.clone(),
                    };
                    incidents.push(Incident { opened, opened_at: record.at, resolved_at: None });
                }
                Event::IncidentResolved { incident } => {
                    if let Some(position) = positions.get(incident) {
                        incidents[*position].resolved_at = Some(record.at);
                    }
                }
                _ => {}
            }
        }
    }
    incidents
}

/// Returns whether the run of a journal has ever ended, or was killed.
#[must_use]
pub fn was_over(journal: &[Record]) -> bool {
    let is_end = |event: &Event| matches!(event, Event::Ended { .. } | Event::Killed { .. });
    journal.iter().flat_map(|record| &record.events).any(is_end)
}

/// Returns the serial key for which the run of a journal waited, if it did.
#[must_use]
pub fn serial_key(journal: &[Record]) -> Option<&Arc<str>> {
    journal.iter().flat_map(|record| &record.events).find_map(|event| match event {
        Event::Held { hold, .. } if hold.kind == HoldKind::KeyBlocked => Some(&hold.name),
        _ => None,
    })
}

/// Returns whether a run knows that the fact which it awaits in `hold` was withdrawn. Where a person had it go on
/// without the fact, it needs not be notified again.
#[must_use]
pub fn knows_withdrawn(hold: &Hold, journal: &[Record]) -> bool {
    let mut knows = false;
    for event in journal.iter().flat_map(|record| &record.events) {
        match event {
            Event::FactWithdrawn { fact, .. } if *fact == hold.name => knows = true,
            Event::FactRestored { fact, by: None } if *fact == hold.name => knows = false,
            Event::Held { hold: one, .. } if one == hold => knows = true,
            Event::Unheld { hold: one, by: None } if one == hold => knows = false,
            _ => {}
        }
    }
    knows
}

/// Returns the attempts at `step`, newest first, as far as `records` have them. These are newest first, too.
#[must_use]
pub fn attempts(step: &StepPath, records: &[Record]) -> Vec<AttemptView> {
    let mut told: Vec<AttemptView> = Vec::new();
    let in_order = records
        .iter()
        .rev()
        .flat_map(|record| record.events.iter().map(|event| (Timestamp(record.at), event)));
    for (at, event) in in_order {
        let Some((about, action, attempt)) = attempt_of(event) else { continue };
        if about != step {
            continue;
        }
        if let Event::Leased { worker, .. } = event {
            told.retain(|one| (one.action, one.attempt) != (action, attempt));
            told.push(AttemptView {
                action,
                attempt,
                worker: worker.to_string(),
                began_at: at,
                ended_at: None,
                error: None,
                verdict: None,
            });
            continue;
        }
        let same = |one: &&mut AttemptView| (one.action, one.attempt) == (action, attempt);
        let Some(one) = told.iter_mut().find(same) else { continue };
        one.ended_at = Some(at);
        match event {
            Event::Failed { error, .. } | Event::Lost { error, .. } => {
                one.error = Some(error.clone());
            }
            Event::Happened { .. } => one.verdict = Some("happened".to_owned()),
            Event::NotHappened { .. } => one.verdict = Some("not_happened".to_owned()),
            _ => {}
        }
    }
    told.reverse();
    told
}

/// Returns the attempt that an event begins or ends.
fn attempt_of(event: &Event) -> Option<(&StepPath, Action, u32)> {
    match event {
        Event::Leased { step, action, attempt, .. }
        | Event::Failed { step, action, attempt, .. }
        | Event::Lost { step, action, attempt, .. } => Some((step, *action, *attempt)),
        Event::Succeeded { step, attempt, .. } => Some((step, Action::Forward, *attempt)),
        Event::Undone { step, attempt, .. } => Some((step, Action::Compensate, *attempt)),
        Event::Happened { step, attempt } | Event::NotHappened { step, attempt } => {
            Some((step, Action::Verify, *attempt))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::{Failure, FailureKind};

    #[test]
    fn attempts_are_told_newest_first_with_who_and_how() {
        let step = StepPath::step("pay");
        let leased = |step: &StepPath, attempt, worker: &str| Event::Leased {
            step: step.clone(),
            action: Action::Forward,
            attempt,
            worker: worker.into(),
            until: Time(0),
        };
        let error = Failure {
            kind: FailureKind::Retryable,
            code: "busy".to_owned(),
            message: "no".to_owned(),
            details: None,
            retry_after: None,
        };
        let failed = Event::Failed {
            step: step.clone(),
            action: Action::Forward,
            attempt: 1,
            error,
            done: false,
        };
        let record = |at, events| Record { at: Time(at), events, payloads: Vec::new() };
        let records = [
            record(4, vec![leased(&step, 2, "w2"), leased(&StepPath::step("other"), 9, "w3")]),
            record(3, vec![failed]),
            record(1, vec![leased(&step, 1, "w0"), leased(&step, 1, "w1")]),
        ];
        let told = attempts(&step, &records);
        let lines: Vec<_> = told
            .iter()
            .map(|one| (one.attempt, one.worker.as_str(), one.ended_at, one.error.is_some()))
            .collect();
        assert_eq!(lines, [(2, "w2", None, false), (1, "w1", Some(Timestamp(Time(3))), true)]);
    }

    #[test]
    fn attempts_to_verify_are_told_with_what_they_found() {
        let step = StepPath::step("pay");
        let leased = |attempt| Event::Leased {
            step: step.clone(),
            action: Action::Verify,
            attempt,
            worker: "w".into(),
            until: Time(0),
        };
        let record = |at, events| Record { at: Time(at), events, payloads: Vec::new() };
        let found = Event::NotHappened { step: step.clone(), attempt: 1 };
        let records =
            [record(3, vec![leased(2)]), record(2, vec![found]), record(1, vec![leased(1)])];
        let told = attempts(&step, &records);
        let lines: Vec<_> = told
            .iter()
            .map(|one| (one.action, one.attempt, one.ended_at, one.verdict.as_deref()))
            .collect();
        let ended = Some(Timestamp(Time(2)));
        assert_eq!(
            lines,
            [(Action::Verify, 2, None, None), (Action::Verify, 1, ended, Some("not_happened"))]
        );
    }
}
