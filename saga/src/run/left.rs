//! Effects that remain, or may remain, when a run has ended, and that nothing will undo. A person is informed of
//! them, and vouches for each when it has been put right.

use super::decide::{TransitionBuilder, need_reason};
use super::dropped::Dropped;
use super::state::{Activity, WorkIndex};
use super::{Mode, Run};
use crate::event::{By, Event, IncidentKind};
use crate::protocol::Outcome;
use crate::{Refusal, RefusalCode, StepPath};

/// Largest number of steps that one sentence names.
const NAMED: usize = 5;

/// Effects of one step that remain or may remain.
struct Left {
    step: usize,
    /// Number of its items, or 1.
    count: usize,
    /// `true` if they are known to have been done.
    certain: bool,
}

impl Run {
    /// Returns the steps with effects that remain or may remain; only those in doubt unless `all`.
    fn left(&self, all: bool) -> impl Iterator<Item = Left> + '_ {
        (0..self.steps.len()).filter_map(move |step| {
            let works = || self.left_of(step, all).filter_map(|place| self.work(place));
            let count = works().count();
            let certain = works().all(|work| !work.is_doubtful());
            (count > 0).then_some(Left { step, count, certain })
        })
    }

    /// Returns the numbers of effects of one step that remain and that may remain; only those in
    /// doubt unless `all`.
    pub(super) fn count_left(&self, step: usize, all: bool) -> (u32, u32) {
        self.left_of(step, all).filter_map(|place| self.work(place)).fold(
            (0, 0),
            |(standing, unknown), work| match work.is_doubtful() {
                true => (standing, unknown + 1),
                false => (standing + 1, unknown),
            },
        )
    }

    /// Returns the places of one step with effects that remain or may remain; only those in doubt
    /// unless `all`.
    fn left_of(&self, step: usize, all: bool) -> impl Iterator<Item = WorkIndex> + '_ {
        let has_effect = self.has_effects(step);
        let left = move |work: &Activity| work.may_stand() && (all || work.is_doubtful());
        let places = self.places_of(step);
        places.filter(move |place| has_effect && self.work(*place).is_some_and(left))
    }

    /// Returns whether all remaining effects are reported at such an end, not only those in doubt: after a failure, and
    /// if the run lacks the output that it should have.
    pub(super) fn leaves_all(&self, outcome: Outcome, has_output: bool) -> bool {
        let failed = self.header.error.is_some() && self.graph.definition.output.is_some();
        let lacks_output = failed && !has_output;
        outcome == Outcome::FailedDirty || (outcome == Outcome::PartiallyCompleted && lacks_output)
    }

    /// Returns one thing that is left, in words.
    fn left_words(&self, left: &Left) -> String {
        let Left { step, count, certain } = *left;
        let id = &self.graph.nodes[step].id;
        let one = count == 1;
        let what = match (self.graph.nodes[step].map(), one) {
            (None, _) => format!("'{id}'"),
            (Some(_), true) => format!("1 item of '{id}'"),
            (Some(_), false) => format!("{count} items of '{id}'"),
        };
        let done = match (certain, one) {
            (true, true) => "was done",
            (true, false) => "were done",
            (false, _) => "may have happened",
        };
        let undone = match (self.spec(step).compensate.is_some(), one) {
            (true, true) => "was not undone",
            (true, false) => "were not undone",
            (false, _) => "nothing undoes it: the step has no `compensate`",
        };
        format!("{what} {done}, and {undone}")
    }

    /// Describes the effects of a run that remain or may remain, with the reason; `None` if there are none.
    /// Only those in doubt unless `all`.
    fn words_of_left(&self, all: bool) -> Option<String> {
        let dropped = self.dropped_left(all).map(|dropped| dropped.words(all));
        let mut left = self.left(all).map(|left| self.left_words(&left)).chain(dropped);
        let mut words: Vec<String> = left.by_ref().take(NAMED).collect();
        if words.is_empty() {
            return None;
        }
        match left.count() {
            0 => {}
            1 => words.push("and 1 more step".to_owned()),
            more => words.push(format!("and {more} more steps")),
        }
        if let Some(by) = &self.header.killed_by {
            words.push(format!("{} killed it ({})", by.actor, by.reason));
        }
        Some(words.join("; "))
    }

    /// Describes the effects of an ended run that remain or may remain, with the reason; `None` if
    /// there are none.
    pub(super) fn why_it_stands(&self) -> Option<String> {
        self.words_of_left(true)
    }
}

impl TransitionBuilder<'_> {
    /// Opens an incident for the effects that a run with this `outcome` leaves: after a failure all that remain, and
    /// otherwise those in doubt.
    pub(super) fn tell_what_is_left(&mut self, outcome: Outcome, has_output: bool) {
        let all = self.run.leaves_all(outcome, has_output);
        if !all && self.run.tally.doubtful == 0 && self.run.header.dropped.is_empty() {
            return;
        }
        let Some(words) = self.run.words_of_left(all) else { return };
        let steps: Vec<usize> = self.run.left(all).take(2).map(|left| left.step).collect();
        let only_steps = !self.run.has_dropped(all);
        let step = match steps.as_slice() {
            [step] if only_steps => Some(StepPath::step(self.run.graph.nodes[*step].id.clone())),
            _ => None,
        };
        let without =
            if all && outcome != Outcome::FailedDirty { " without its output" } else { "" };
        let message = format!("the run ends {}{without}: {words}", outcome.as_str());
        self.open_incident(IncidentKind::EffectsLeft, step, message);
    }

    /// Notes that a person vouches that what an ended run left of `step`, or of all steps, is put right, or needs not
    /// be. `None` when the run has not ended or left nothing there.
    pub(super) fn mark_left(
        &mut self,
        step: Option<&StepPath>,
        by: &By,
    ) -> Option<Result<(), Refusal>> {
        let position = step.and_then(|step| self.run.step_now(&step.step));
        if step.is_some_and(|step| position.is_none() && !self.run.was_dropped(step)) {
            return None;
        }
        let wanted = |place: &WorkIndex| {
            step.is_none_or(|step| {
                position == Some(place.step) && (step.item.is_none() || place.item == step.item)
            })
        };
        let is_dropped = |path: &StepPath| step.is_none_or(|step| step == path);
        let outcome = self.run.header.outcome.filter(|_| self.run.header.mode == Mode::Ended)?;
        let all = self.run.leaves_all(outcome, self.run.header.output.is_some());
        let steps = self.run.all_steps().into_iter();
        let left: Vec<WorkIndex> =
            steps.flat_map(|step| self.run.left_of(step, all)).filter(wanted).collect();
        let dropped = self.run.dropped_left(all).map(Dropped::path);
        let dropped: Vec<StepPath> = dropped.filter(is_dropped).collect();
        if left.is_empty() && dropped.is_empty() {
            let vouched = |place: WorkIndex| {
                let aside = self.work(place).and_then(|work| work.aside.as_ref());
                aside.is_some_and(|aside| aside.vouched.as_ref() == Some(by))
            };
            let dropped = self.run.header.dropped.iter();
            let mut dropped = dropped.filter(|dropped| is_dropped(&dropped.path()));
            let said = self.run.places().filter(wanted).any(vouched)
                || dropped.any(|dropped| dropped.is_vouched_by(by));
            return said.then_some(Ok(()));
        }
        if let Err(refusal) = need_reason(by) {
            return Some(Err(refusal));
        }
        let left = left.into_iter().map(|place| self.run.path(place));
        let left: Vec<StepPath> = left.chain(dropped).collect();
        for step in left {
            self.emit(Event::UndoMarked { step, by: by.clone() });
        }
        self.less_is_left();
        Some(Ok(()))
    }

    /// Updates an ended run after fewer effects remain: the incident about them is over when none does, and the outcome
    /// follows.
    pub(super) fn less_is_left(&mut self) {
        let ended = self.run.header.outcome.filter(|_| self.run.header.mode == Mode::Ended);
        let Some(outcome) = ended else { return };
        let all = self.run.leaves_all(outcome, self.run.header.output.is_some());
        if self.run.left(all).next().is_none() && !self.run.has_dropped(all) {
            self.resolve_kind(IncidentKind::EffectsLeft);
        }
        if outcome == Outcome::FailedDirty && !self.run.something_stands() {
            let killed = self.run.header.killed_by.is_some();
            let outcome = match self.run.outcome_of_undo() {
                // As it would have ended when it was killed, had this been known.
                Outcome::Compensated if killed => Outcome::Cancelled,
                outcome => outcome,
            };
            self.emit(Event::Ended { outcome, output: None });
        }
    }

    /// Notes that a person vouches for all that an ended run left behind.
    pub(super) fn mark_all_left(&mut self, by: &By) -> Result<(), Refusal> {
        self.mark_left(None, by).unwrap_or_else(|| {
            let message = "the run left nothing behind, so there is nothing to vouch for";
            Err(Refusal::new(RefusalCode::NothingToCompensate, message))
        })
    }
}
