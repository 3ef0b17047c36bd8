//! Holding a run: while it is held, its tasks are not on offer. It decides nothing else.

use serde::{Deserialize, Serialize};

use super::decide::{TransitionBuilder, need_reason};
use super::state::{TaskState, WorkIndex};
use super::{Mode, Run};
use crate::event::{By, Event};
use crate::{Hold, HoldKind, IncidentKind, Refusal, RefusalCode, Time};

/// Returns the hold of a run that begins at `at`.
pub(super) fn delay_hold(at: Time) -> Hold {
    Hold::new(HoldKind::StartDelayed, at.to_string())
}

/// A hold in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) hold: Hold,
    pub(super) by: Option<By>,
    pub(super) message: String,
    pub(super) since: Time,
}

impl Held {
    /// Returns the reason of the hold, for people. A pause is taken away by its name.
    pub(super) fn words(&self) -> String {
        match self.hold.kind {
            HoldKind::Paused => format!("{} as '{}'", self.message, self.hold.name),
            _ => self.message.clone(),
        }
    }
}

impl Run {
    /// Returns the holds in force; while there are any, no task of the run is on offer.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.header.holds.iter().map(|held| &held.hold)
    }

    /// Returns whether it must or had to wait for its turn among other runs, or may establish facts
    /// for which they wait.
    #[must_use]
    pub fn is_sequenced(&self) -> bool {
        self.header.sequenced || self.may_establish()
    }

    /// Returns whether its definition declares that it establishes facts.
    #[must_use]
    pub fn may_establish(&self) -> bool {
        let sequence = self.graph.definition.sequence.as_ref();
        sequence.is_some_and(|sequence| !sequence.produces.is_empty())
    }

    /// Returns the instant for which it was started, while that has not come.
    pub(super) fn delayed_until(&self) -> Option<Time> {
        let delayed = self.holds().any(|hold| hold.kind == HoldKind::StartDelayed);
        self.header.origin.as_ref()?.start_at.filter(|_| delayed)
    }

    pub(super) fn is_held(&self) -> bool {
        !self.header.holds.is_empty()
    }

    /// Returns whether its turn among other runs has not come.
    pub(super) fn awaits_turn(&self) -> bool {
        self.holds().any(|hold| hold.kind.is_forward_only())
    }

    /// Returns whether a person or a guard paused it.
    pub(super) fn is_paused(&self) -> bool {
        self.holds().any(|hold| !hold.kind.is_forward_only())
    }

    /// Returns the hand of a task that comes on offer now.
    pub(super) fn offered_hand(&self, at: Time) -> TaskState {
        if self.is_held() { TaskState::Held } else { TaskState::Offered { since: at } }
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.header.sequenced |= held.hold.kind.is_forward_only();
        self.header.holds.push(held);
        self.turn_hands(|hand| matches!(hand, TaskState::Offered { .. }), &TaskState::Held);
    }

    /// Drops the holds for which `gone` is true; when none is left, the tasks are offered again.
    pub(super) fn drop_holds(&mut self, at: Time, gone: impl Fn(&Hold) -> bool) {
        let before = self.header.holds.len();
        self.header.holds.retain(|held| !gone(&held.hold));
        if before > 0 && self.header.holds.is_empty() {
            self.turn_hands(|hand| *hand == TaskState::Held, &TaskState::Offered { since: at });
            self.turn_children(at);
        }
    }

    /// Asks now for children that were to be asked for while the run was held.
    fn turn_children(&mut self, at: Time) {
        for step in 0..self.steps.len() {
            let place = WorkIndex::step(step);
            let Some(run) = self.child_of(place) else { continue };
            self.change(place, |work| {
                if let Some(hand @ TaskState::Offered { .. }) = work.hand_mut() {
                    *hand = TaskState::Child { run, again: at };
                }
            });
        }
    }

    fn turn_hands(&mut self, from: impl Fn(&TaskState) -> bool, to: &TaskState) {
        let places: Vec<WorkIndex> = self
            .places()
            .filter(|&place| {
                let current = self.work(place).and_then(|work| work.current());
                current.is_some_and(|(_, hand)| from(hand))
            })
            .collect();
        for place in places {
            self.change(place, |work| {
                if let Some(hand) = work.hand_mut() {
                    hand.clone_from(to);
                }
            });
        }
    }
}

impl TransitionBuilder<'_> {
    /// Holds the run for one more reason.
    pub(super) fn hold(
        &mut self,
        hold: Hold,
        by: Option<By>,
        message: String,
    ) -> Result<(), Refusal> {
        if self.run.holds().any(|other| *other == hold) {
            return Ok(());
        }
        if self.run.header.mode == Mode::Ended {
            return Err(Refusal::new(RefusalCode::RunEnded, "the run has ended"));
        }
        if let Some(by) = by.as_ref().filter(|_| hold.kind == HoldKind::Paused) {
            need_reason(by)?;
        }
        let before = self.run.is_paused();
        self.emit(Event::Held { hold, by, message });
        if !before && self.run.is_paused() {
            self.tell_paused();
        }
        Ok(())
    }

    /// Ends a hold, or all that people set. A missing hold is no error, except for a pause that a person names.
    pub(super) fn unhold(&mut self, hold: Option<&Hold>, by: Option<&By>) -> Result<(), Refusal> {
        let gone: Vec<Hold> = self
            .run
            .holds()
            .filter(|other| hold.map_or(other.kind == HoldKind::Paused, |hold| hold == *other))
            .cloned()
            .collect();
        match (by, hold) {
            (Some(by), _) if !gone.is_empty() => need_reason(by)?,
            (Some(by), Some(hold)) if hold.kind == HoldKind::Paused => {
                self.must_have_resumed(hold, by)?;
            }
            (Some(_), None) if self.run.holds().any(|hold| hold.kind == HoldKind::ParentPaused) => {
                let message = "the run has no pause of its own: it is held as its parent is paused; resume the parent";
                return Err(Refusal::new(RefusalCode::UnknownPause, message));
            }
            _ => {}
        }
        let paused = self.run.is_paused();
        for hold in gone {
            self.emit(Event::Unheld { hold, by: by.cloned() });
        }
        if !self.requires_something() {
            self.resolve_unmet();
        }
        if paused && !self.run.is_paused() {
            self.tell_resumed();
        }
        self.begin_in_turn();
        Ok(())
    }

    /// Refuses to end a missing pause, unless the same person ended it just now.
    fn must_have_resumed(&self, hold: &Hold, by: &By) -> Result<(), Refusal> {
        let last = self.run.header.resumed_by.as_ref();
        if last.is_some_and(|(name, last)| *name == hold.name && last == by) {
            return Ok(());
        }
        let paused = self.run.holds().filter(|other| other.kind == HoldKind::Paused);
        let names: Vec<String> = paused.map(|other| format!("'{}'", other.name)).collect();
        let there = match &names[..] {
            [] => "it is not paused".to_owned(),
            names => format!("it is paused as {}", names.join(", ")),
        };
        let message = format!("the run has no pause '{}': {there}", hold.name);
        Err(Refusal::new(RefusalCode::UnknownPause, message))
    }

    /// Lets the run begin, as a person wants, although facts that it requires are not established.
    pub(super) fn skip_requirements(&mut self, by: &By) -> Result<(), Refusal> {
        let unmet = self.run.holds().filter(|hold| hold.kind == HoldKind::DependencyUnmet);
        for hold in unmet.cloned().collect::<Vec<_>>() {
            self.unhold(Some(&hold), Some(by))?;
        }
        self.go_on_without(by)
    }

    /// Opens an incident, as a fact has been waited for for too long, or nothing will establish it.
    pub(super) fn overdue(&mut self, hold: &Hold, message: String) {
        if self.run.holds().any(|other| other == hold) {
            self.open_incident(IncidentKind::DependencyUnmet, None, message);
        }
    }

    /// Ends the delay of the start, as its instant has come.
    pub(super) fn end_delay(&mut self) {
        let delays = self.run.holds().filter(|hold| hold.kind == HoldKind::StartDelayed);
        for hold in delays.cloned().collect::<Vec<_>>() {
            self.emit(Event::Unheld { hold, by: None });
        }
        self.begin_in_turn();
    }

    fn requires_something(&self) -> bool {
        self.run.holds().any(|hold| hold.kind == HoldKind::DependencyUnmet)
    }

    /// Ends the incident about facts that the run waits for, as they are established, or are waited for once
    /// more.
    pub(super) fn resolve_unmet(&mut self) {
        let open = self.run.header.incidents.iter();
        let unmet = open.filter(|open| open.kind == IncidentKind::DependencyUnmet);
        for incident in unmet.map(|open| open.number).collect::<Vec<_>>() {
            self.emit(Event::IncidentResolved { incident });
        }
    }

    /// Begins the steps that nothing precedes any more, unless the run is held.
    pub(super) fn begin_in_turn(&mut self) {
        if self.run.is_held() {
            return;
        }
        let steps = &self.run.steps;
        self.ready = (0..steps.len()).filter(|&step| steps[step].missing == 0).collect();
    }
}
