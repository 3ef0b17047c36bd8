//! Verbs that apply to an incident now. It reports what `decide` would accept; it decides nothing.

use super::state::{Activity, Stage, TaskState, Undo};
use super::{Mode, Run, decide};
use crate::protocol::{Scope, Verb};
use crate::{Command, IncidentKind, Refusal, StepPath, Time, Transition};

/// Result of an act of a person on a run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It has: the step went on, or the run has ended.
    Proven,
    /// Nothing has come of it yet.
    Open,
    /// The run needs a person again.
    Failed,
}

impl Run {
    /// Refuses a command as it would be refused at `at`. Nothing happens: the rules decide it on a copy of the run.
    ///
    /// # Errors
    /// The [`Refusal`].
    pub fn check_command(&self, command: Command, at: Time) -> Result<(), Refusal> {
        let (mut copy, mut transition) = (self.clone(), Transition::default());
        decide(&mut copy, command, at, &mut transition).map(drop)
    }

    /// Returns the verbs that apply to the incident `number` now; none when it is not open.
    #[must_use]
    pub fn verbs(&self, number: u32) -> Vec<Verb> {
        let Some(incident) = self.header.incidents.iter().find(|open| open.number == number) else {
            return Vec::new();
        };
        let mut verbs = Vec::new();
        let place = incident.step.as_ref().and_then(|step| self.place(step));
        if let Some(work) = place.and_then(|place| self.work(place)) {
            let backoff = matches!(work.current(), Some((_, TaskState::Backoff { .. })));
            if work.stage == Stage::Parked || work.undo == Undo::Blocked || backoff {
                verbs.push(Verb::Retry);
            }
            if work.stage == Stage::Parked && !work.undo.is_open() {
                verbs.extend([Verb::Skip, Verb::Resolve]);
            }
            if work.undo.is_open() {
                verbs.push(Verb::MarkCompensated);
            }
        }
        if incident.kind == IncidentKind::DependencyWithdrawn {
            verbs.push(Verb::Skip);
        }
        if incident.kind == IncidentKind::EffectsLeft && self.header.mode == Mode::Ended {
            verbs.push(Verb::MarkCompensated);
            if self.places().any(|place| self.to_undo(place)) {
                verbs.push(Verb::Compensate);
            }
        }
        if incident.kind == IncidentKind::DependencyUnmet {
            verbs.extend([Verb::Retry, Verb::Skip]);
        }
        match self.header.mode {
            Mode::Forward if self.may_cancel() => {
                verbs.extend([Verb::Compensate, Verb::Cancel, Verb::Abandon]);
            }
            Mode::Forward => verbs.extend([Verb::Compensate, Verb::Abandon]),
            Mode::Backward if self.may_cancel() => verbs.extend([Verb::Cancel, Verb::Abandon]),
            Mode::Backward => verbs.push(Verb::Abandon),
            Mode::Ended => {}
        }
        verbs
    }

    /// Returns whether the run can be cancelled: it goes forward, or will, or only a part of it is being undone, and
    /// nothing past the point of no return may have happened.
    pub(super) fn may_cancel(&self) -> bool {
        (self.header.mode == Mode::Forward || self.is_undone_in_part()) && !self.past_pivot()
    }

    /// Returns whether a part of the run is being undone; afterwards the run ends with the rest as it stands, or goes
    /// forward again.
    pub(super) fn is_undone_in_part(&self) -> bool {
        let compensation = self.header.compensation.as_ref();
        let whole = compensation
            .is_none_or(|begun| begun.scope.as_ref().is_none_or(|scope| *scope == Scope::All));
        self.header.mode == Mode::Backward && (!whole || self.header.rerun.is_some())
    }

    /// Returns what can be done about the run as a whole, whatever it waits for, as the words of routes.
    pub(super) fn verbs_always(&self) -> &'static [&'static str] {
        match self.header.mode {
            Mode::Forward if self.may_cancel() => &["cancel", "kill"],
            Mode::Forward => &["compensate", "kill"],
            Mode::Backward if self.may_cancel() => &["cancel", "kill"],
            Mode::Backward => &["kill"],
            Mode::Ended => &[],
        }
    }

    /// Returns whether an act at `acted_at` has helped: on the incident of that number at `step`, or on the run as
    /// a whole.
    #[must_use]
    pub fn proof(&self, incident: Option<u32>, step: Option<&StepPath>, acted_at: Time) -> Proof {
        // That a run was killed is what was wanted, whatever it leaves behind.
        let killed = self.header.killed_by.is_some() && self.header.mode == Mode::Ended;
        let troubles = self.header.incidents.iter();
        let mut troubles =
            troubles.filter(|open| !(killed && open.kind == IncidentKind::EffectsLeft));
        let again = troubles.any(|open| match incident {
            Some(number) => open.number > number && concerns(open.step.as_ref(), step),
            None => open.since >= acted_at,
        });
        let work = step.and_then(|step| self.work(self.place(step)?));
        let over = work.is_some_and(|work| work.is_settled() && !work.undo.is_open());
        match (again, self.header.mode) {
            (true, _) => Proof::Failed,
            (false, Mode::Ended) => Proof::Proven,
            (false, _) if over => Proof::Proven,
            (false, _) => Proof::Open,
        }
    }
}

/// Returns whether an incident at `at` concerns an act at `step`: the same place, the fan-out that it is an item of, or
/// the run as a whole. Other items are other work.
fn concerns(at: Option<&StepPath>, step: Option<&StepPath>) -> bool {
    let (Some(at), Some(step)) = (at, step) else { return true };
    at == step || (at.item.is_none() && at.step == step.step)
}

impl Activity {
    /// Returns what can be done about it where it waits for a person, as the words of routes.
    pub(super) fn verbs_for_person(&self) -> &'static [&'static str] {
        match (&self.stage, &self.undo) {
            (_, Undo::Blocked) => &["retry", "mark-compensated"],
            (Stage::Parked, undo) if !undo.is_open() => &["retry", "skip", "resolve"],
            (Stage::Parked, _) => &["retry"],
            _ => &[],
        }
    }
}
