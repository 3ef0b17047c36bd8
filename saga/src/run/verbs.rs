//! Which verbs apply to an incident now. It says what `decide` would accept; it decides nothing.

use super::state::{Stage, Undo};
use super::{Mode, Run};
use crate::protocol::Verb;

impl Run {
    /// The verbs that apply to the incident `number` now; none when it is not open.
    #[must_use]
    pub fn verbs(&self, number: u32) -> Vec<Verb> {
        let Some(incident) = self.facts.incidents.iter().find(|open| open.number == number) else {
            return Vec::new();
        };
        let mut verbs = Vec::new();
        let place = incident.step.as_ref().and_then(|step| self.place(step));
        if let Some(work) = place.and_then(|place| self.work(place)) {
            if work.stage == Stage::Parked || work.undo == Undo::Blocked {
                verbs.push(Verb::Retry);
            }
            if work.undo.is_open() {
                verbs.push(Verb::MarkCompensated);
            }
        }
        match self.facts.mode {
            Mode::Forward if self.past_pivot() => verbs.extend([Verb::Compensate, Verb::Abandon]),
            Mode::Forward => verbs.extend([Verb::Compensate, Verb::Cancel, Verb::Abandon]),
            Mode::Backward => verbs.push(Verb::Abandon),
            Mode::Ended => {}
        }
        verbs
    }
}
