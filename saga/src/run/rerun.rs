//! Going forward once more from a step: that step and all that followed it is undone first, then repeated. The
//! history is kept.

use serde::{Deserialize, Serialize};

use super::decide::TransitionBuilder;
use super::state::{Activity, AttemptCounters, BodyState, Items, MapStage, Stage, Undo, WorkIndex};
use super::{Mode, PlanPage, Run};
use crate::event::{By, Event};
use crate::protocol::{RerunPlan, Scope};
use crate::{Body, Cause, Payload, Refusal, RefusalCode, Time};

/// The rerun that begins once all that precedes it is undone.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(super) struct Rerun {
    pub(super) from: usize,
    pub(super) by: By,
    /// The new input of the step that it begins with.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Payload::present"
    )]
    pub(super) input: Option<Payload>,
    /// Of a fan-out only the items that did not succeed.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) only_failed: bool,
}

impl Run {
    /// Returns the steps that going forward from `from` repeats: it and all that depends on it, and everything else
    /// that is not done, or was undone, with what depends on that.
    pub(super) fn to_rerun(&self, from: usize) -> Vec<usize> {
        let done = |step: usize| {
            let undone = self
                .places_of(step)
                .any(|place| self.work(place).is_some_and(|work| work.undo != Undo::None));
            !undone
                && match &self.steps[step].body {
                    BodyState::Task(work) => matches!(
                        work.stage,
                        Stage::Succeeded(_) | Stage::Skipped | Stage::SkippedByHand { .. }
                    ),
                    BodyState::Map(items) => {
                        matches!(items.stage, MapStage::Succeeded | MapStage::Skipped)
                    }
                }
        };
        let mut again = vec![false; self.steps.len()];
        for &step in &self.graph.order {
            let follows = self.graph.nodes[step].needs.iter().any(|&need| again[need]);
            again[step] = step == from || follows || !done(step);
        }
        (0..again.len()).filter(|&step| again[step]).collect()
    }

    /// Returns what a rerun from `from` would undo and repeat: everything, or of a fan-out only the items that did not
    /// succeed.
    ///
    /// # Errors
    /// A [`Refusal`] when it could not be done so.
    pub fn rerun_plan(
        &self,
        from: &str,
        only_failed: bool,
        at: Time,
        page: &PlanPage,
    ) -> Result<RerunPlan, Refusal> {
        let step = self.step_named(from)?;
        if only_failed {
            self.check_failed_items(step)?;
        }
        let again: Vec<String> = self
            .to_rerun(step)
            .into_iter()
            .map(|step| self.graph.nodes[step].id.to_string())
            .collect();
        let undone = again.iter().filter(|id| !only_failed || *id != from).cloned().collect();
        let mut undo = self.plan_page(&Scope::Steps(undone), at, page)?;
        undo.past_pivot = self.first_lasting(step, only_failed).is_some();
        Ok(RerunPlan { undo, again, items: only_failed.then(|| self.items_to_retry(step)) })
    }

    /// Returns, of the steps that a rerun from `step` does again, the first that was done, or may have been, and that
    /// nothing undoes: it needs force.
    fn first_lasting(&self, step: usize, only_failed: bool) -> Option<usize> {
        self.to_rerun(step).into_iter().find(|&again| {
            let spec = self.spec(again);
            let stays = only_failed && again == step;
            let happened = |place| self.work(place).is_some_and(super::may_have_happened);
            !stays
                && spec.compensate.is_none()
                && self.has_effects(again)
                && self.places_of(again).any(happened)
        })
    }

    fn step_named(&self, id: &str) -> Result<usize, Refusal> {
        let unknown = || Refusal::new(RefusalCode::UnknownStep, self.graph.no_step(id));
        self.graph.position(id).ok_or_else(unknown)
    }

    /// Makes the steps as if their turn had not come. Their attempts are counted on: the fence only grows.
    pub(super) fn go_forward(&mut self, steps: &[std::sync::Arc<str>], at: Time) {
        let graph = self.graph.clone();
        let rerun = self.header.rerun.take();
        let reopened = rerun.as_ref().filter(|rerun| rerun.only_failed).map(|rerun| rerun.from);
        self.header.given_input =
            rerun.and_then(|rerun| rerun.input.map(|input| (rerun.from, input)));
        for id in steps {
            let Some(step) = graph.position(id) else { continue };
            if let Body::Wait(wait) = &graph.nodes[step].body {
                for name in wait.names() {
                    self.header.signals.remove(name);
                }
            }
            match &self.steps[step].body {
                BodyState::Task(_) => {
                    self.change(WorkIndex::step(step), Activity::begin_anew);
                }
                BodyState::Map(_) if reopened == Some(step) => self.reopen(step, at),
                BodyState::Map(_) => self.forget_items(step),
            }
        }
        let outputs = self.places().filter_map(|place| self.work(place)?.output());
        let outputs = outputs.map(|output| output.text().len() as u64).sum();
        let facts = &mut self.header;
        facts.mode = Mode::Forward;
        (facts.outcome, facts.ended_at, facts.output, facts.error) = (None, None, None, None);
        (facts.compensation, facts.cancelled_by, facts.timed_out) = (None, None, false);
        // Their inputs and outputs are dropped, and so are their counts.
        (facts.built, facts.outputs) = (0, outputs);
        facts.forward_since = Some(at);
        facts.end_over = facts.origin.as_ref().is_some_and(|origin| origin.end_by.is_some());
        let settled: Vec<bool> = (0..self.steps.len()).map(|step| self.is_settled(step)).collect();
        self.unsettled = settled.iter().filter(|settled| !**settled).count();
        for (step, state) in self.steps.iter_mut().enumerate() {
            state.missing = graph.nodes[step].needs.iter().filter(|&&need| !settled[need]).count();
        }
    }

    /// Empties a fan-out, keeping in mind what its items went through.
    fn forget_items(&mut self, step: usize) {
        let BodyState::Map(items) = &mut self.steps[step].body else { return };
        for work in &items.works {
            self.tally.count(work, false);
        }
        self.due.retain(|(_, place)| place.step != step);
        let mut before = std::mem::take(&mut items.works);
        if before.is_empty() {
            before = std::mem::take(&mut items.before);
        } else {
            before.iter_mut().for_each(Activity::begin_anew);
        }
        let (floor, round) = (items.floor, items.round + 1);
        **items = Items { before, floor, round, ..Items::new() };
    }
}

impl Items {
    /// Returns the works of a fan-out that opens over `total` items. Attempts are counted on from an earlier round.
    pub(super) fn begin(&mut self, total: usize) -> Vec<Activity> {
        let mut works = std::mem::take(&mut self.before);
        let highest = |work: &Activity| {
            let undo = work.aside.as_ref().map_or(0, |aside| aside.undo.attempt);
            work.tries.attempt.max(undo)
        };
        let dropped = works.iter().skip(total).map(highest).max().unwrap_or(0);
        self.floor = self.floor.max(dropped);
        works.resize_with(total, Activity::default);
        works
    }
}

impl Activity {
    pub(super) fn begin_anew(&mut self) {
        self.note_success();
        self.stage = Stage::Waiting;
        self.undo = Undo::None;
        (self.input, self.shared) = (None, None);
        (self.late, self.by_hand) = (false, false);
        self.round += 1;
        let forgive = |tries: &mut AttemptCounters| {
            tries.forgive();
            tries.anew = true;
        };
        forgive(&mut self.tries);
        if let Some(aside) = &mut self.aside {
            forgive(&mut aside.verify);
            forgive(&mut aside.undo);
            (aside.error, aside.details, aside.external_id) = (None, None, None);
            (aside.doubt, aside.undo_doubt, aside.slow) = (false, false, false);
            aside.emitted.clear();
            aside.absolve();
        }
    }
}

impl TransitionBuilder<'_> {
    /// Undoes `from` and all that followed it, to repeat them.
    pub(super) fn rerun(
        &mut self,
        from: &str,
        input: Option<Payload>,
        only_failed: bool,
        force: bool,
        by: By,
    ) -> Result<(), Refusal> {
        let step = self.run.step_named(from)?;
        let facts = &self.run.header;
        let ended_since = facts.mode == Mode::Ended && facts.ended_at != facts.forward_since;
        if facts.reran_by.as_ref() == Some(&by) && !ended_since {
            return Ok(());
        }
        if self.run.header.mode == Mode::Backward {
            return Err(Refusal::new(
                RefusalCode::AlreadyCompensating,
                "the run is being undone; when that is done it can go forward again",
            ));
        }
        if self.run.awaits_turn() {
            return Err(Refusal::new(
                RefusalCode::NothingToRetry,
                "the run has not begun, so there is nothing to do anew",
            ));
        }
        super::decide::need_reason(&by)?;
        self.run.compensable_at(self.now())?;
        if only_failed {
            self.run.check_failed_items(step)?;
        }
        if input.is_some()
            && !matches!(self.run.graph.nodes[step].body, Body::Task(_) | Body::Child(_))
        {
            return Err(Refusal::new(
                RefusalCode::UnknownStep,
                format!("'{from}' is no task or child, so it has no input to change"),
            ));
        }
        let lasting = self.run.first_lasting(step, only_failed);
        if let (Some(step), false) = (lasting, force) {
            let id = &self.run.graph.nodes[step].id;
            return Err(Refusal::new(
                RefusalCode::PastPivot,
                format!(
                    "'{id}' was done, or may have been, and nothing undoes it: doing it again needs force"
                ),
            ));
        }
        let input = input.map(|input| self.slot(input));
        self.revoke_all();
        let steps = self.run.to_rerun(step);
        self.emit(Event::RerunRequested { from: from.into(), input, only_failed, by });
        // The act is the rerun, not a compensation.
        self.compensate_steps(Cause::Manual, (None, Some(Scope::BackTo(from.to_owned()))), &steps);
        Ok(())
    }

    /// Goes forward again, as everything in the way of a rerun is undone.
    pub(super) fn went_forward(&mut self, from: usize) {
        let steps = self.run.to_rerun(from);
        let only_failed = self.run.header.rerun.as_ref().is_some_and(|rerun| rerun.only_failed);
        let ids = steps.iter().map(|&step| self.run.graph.nodes[step].id.clone()).collect();
        self.emit(Event::WentForward { steps: ids });
        self.ready = steps.into_iter().filter(|&step| self.run.steps[step].missing == 0).collect();
        if only_failed {
            self.offer_again(from);
        }
    }
}
