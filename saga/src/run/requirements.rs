//! Facts upon which a run began and that were withdrawn since. A run that has not begun waits for them again.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::decide::{TransitionBuilder, need_reason};
use super::{Mode, Run};
use crate::event::{By, Event, IncidentKind, RequiredFact};
use crate::protocol::OnWithdrawn;
use crate::{Hold, Refusal, Time};

/// The actor that cancels a run whose requirement was withdrawn.
const ENGINE: &str = "backstitch";

/// A fact that was withdrawn.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Withdrawn {
    pub(super) fact: Arc<str>,
    pub(super) message: String,
    pub(super) since: Time,
    /// `true` if a person was informed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) incident: bool,
}

impl Run {
    /// Returns the facts that it requires, established ones included, each with its policy for a withdrawal.
    #[must_use]
    pub fn requires(&self) -> &[RequiredFact] {
        self.header.origin.as_ref().map_or(&[], |origin| &origin.requires)
    }

    /// Returns whether a fact upon which it began is withdrawn.
    #[must_use]
    pub fn has_withdrawn(&self) -> bool {
        !self.header.withdrawn.is_empty()
    }

    /// Applies an event about its requirements.
    pub(super) fn requirement_changed(&mut self, event: &Event, at: Time) {
        let withdrawn = &mut self.header.withdrawn;
        match event {
            Event::FactWithdrawn { fact, message, incident } => {
                let (fact, message) = (fact.clone(), message.clone());
                withdrawn.push(Withdrawn { fact, message, since: at, incident: *incident });
            }
            Event::FactRestored { fact, .. } => withdrawn.retain(|known| known.fact != *fact),
            _ => {}
        }
    }
}

impl TransitionBuilder<'_> {
    /// Notes that a fact that the run requires was withdrawn, and does what `policy` says.
    pub(super) fn fact_withdrawn(&mut self, hold: Hold, policy: OnWithdrawn, message: String) {
        let known = self.run.header.withdrawn.iter().any(|known| known.fact == hold.name);
        if known || self.run.header.mode == Mode::Ended {
            return;
        }
        if self.run.awaits_turn() {
            if !self.run.holds().any(|other| *other == hold) {
                self.emit(Event::Held { hold, by: None, message });
            }
            return;
        }
        let cancel = policy == OnWithdrawn::Cancel && self.run.may_cancel();
        let forward = self.run.header.mode == Mode::Forward || self.run.header.rerun.is_some();
        let incident = forward && !cancel && policy != OnWithdrawn::Ignore;
        self.emit(Event::FactWithdrawn { fact: hold.name, message: message.clone(), incident });
        if incident {
            self.open_incident(IncidentKind::DependencyWithdrawn, None, message);
        } else if cancel {
            let by = By { actor: ENGINE.into(), reason: message };
            // It may be cancelled, and the reason is given: nothing refuses it.
            let _ = self.cancel(by);
        }
    }

    /// Notes that a fact is established again, or that a person has the run go on without it.
    pub(super) fn fact_restored(&mut self, fact: &Arc<str>, by: Option<&By>) {
        if !self.run.header.withdrawn.iter().any(|known| known.fact == *fact) {
            return;
        }
        self.emit(Event::FactRestored { fact: fact.clone(), by: by.cloned() });
        if self.run.header.withdrawn.iter().any(|known| known.incident) {
            return;
        }
        let open = self.run.header.incidents.iter();
        let open = open.filter(|open| open.kind == IncidentKind::DependencyWithdrawn);
        for incident in open.map(|open| open.number).collect::<Vec<_>>() {
            self.emit(Event::IncidentResolved { incident });
        }
    }

    /// Lets the run go on, as a person wants, without the facts that were withdrawn.
    pub(super) fn go_on_without(&mut self, by: &By) -> Result<(), Refusal> {
        if self.run.header.mode == Mode::Ended || !self.run.has_withdrawn() {
            return Ok(());
        }
        need_reason(by)?;
        let facts: Vec<Arc<str>> =
            self.run.header.withdrawn.iter().map(|known| known.fact.clone()).collect();
        for fact in facts {
            self.fact_restored(&fact, Some(by));
        }
        Ok(())
    }
}
