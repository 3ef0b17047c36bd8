//! Holding a run: while it is held, its tasks are not on offer. It decides nothing else.

use serde::{Deserialize, Serialize};

use super::decide::{Decider, need_reason};
use super::state::{Hand, Place};
use super::{Mode, Run};
use crate::event::{By, Event};
use crate::{Hold, HoldKind, Refusal, RefusalCode, Time};

/// A hold in force.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Held {
    pub(super) hold: Hold,
    pub(super) by: Option<By>,
    pub(super) message: String,
    pub(super) since: Time,
}

impl Run {
    /// The holds in force; while there are any, no task of the run is on offer.
    pub fn holds(&self) -> impl Iterator<Item = &Hold> {
        self.facts.holds.iter().map(|held| &held.hold)
    }

    pub(super) fn is_held(&self) -> bool {
        !self.facts.holds.is_empty()
    }

    /// Whether a person or a guard paused it.
    pub(super) fn is_paused(&self) -> bool {
        self.holds().any(|hold| !hold.kind.is_forward_only())
    }

    /// The hand of a task that comes on offer now.
    pub(super) fn offered_hand(&self, at: Time) -> Hand {
        if self.is_held() { Hand::Held } else { Hand::Offered { since: at } }
    }

    pub(super) fn hold(&mut self, held: Held) {
        self.facts.holds.push(held);
        self.turn_hands(|hand| matches!(hand, Hand::Offered { .. }), &Hand::Held);
    }

    /// Drops the holds that `gone` says; when none is left, the tasks are on offer again.
    pub(super) fn drop_holds(&mut self, at: Time, gone: impl Fn(&Hold) -> bool) {
        let before = self.facts.holds.len();
        self.facts.holds.retain(|held| !gone(&held.hold));
        if before > 0 && self.facts.holds.is_empty() {
            self.turn_hands(|hand| *hand == Hand::Held, &Hand::Offered { since: at });
            self.turn_children(at);
        }
    }

    /// Children that were to be asked for while the run was held are asked for now.
    fn turn_children(&mut self, at: Time) {
        for step in 0..self.steps.len() {
            let place = Place::step(step);
            let Some(run) = self.child_of(place) else { continue };
            self.change(place, |work| {
                if let Some(hand @ Hand::Offered { .. }) = work.hand_mut() {
                    *hand = Hand::Child { run, again: at };
                }
            });
        }
    }

    fn turn_hands(&mut self, from: impl Fn(&Hand) -> bool, to: &Hand) {
        let places: Vec<Place> = self
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

impl Decider<'_> {
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
        if self.run.facts.mode == Mode::Ended {
            return Err(Refusal::new(RefusalCode::RunEnded, "the run has ended"));
        }
        if let Some(by) = by.as_ref().filter(|_| hold.kind == HoldKind::Paused) {
            need_reason(by)?;
        }
        self.emit(Event::Held { hold, by, message });
        Ok(())
    }

    /// Takes a hold away, or all that people put on it. What is not there needs not be taken away.
    pub(super) fn unhold(&mut self, hold: Option<&Hold>, by: Option<&By>) -> Result<(), Refusal> {
        let gone: Vec<Hold> = self
            .run
            .holds()
            .filter(|other| hold.map_or(other.kind == HoldKind::Paused, |hold| hold == *other))
            .cloned()
            .collect();
        if let (Some(by), false) = (by, gone.is_empty()) {
            need_reason(by)?;
        }
        for hold in gone {
            self.emit(Event::Unheld { hold, by: by.cloned() });
        }
        Ok(())
    }
}
