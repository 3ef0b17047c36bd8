//! Going backward: what is undone, in which order, and how it ends.
//!
//! A step is undone when all that depended on it is undone as far as it is to be; a step with nothing to undo counts as
//! undone immediately. So the order is the reverse of the dependencies, and independent branches go side by side.

use uuid::Uuid;

use super::decide::{TransitionBuilder, need_reason};
use super::state::{Activity, BodyState, MapStage, Stage, TaskState, Undo, WorkIndex};
use super::tally::ForwardState;
use super::{Mode, Run};
use crate::event::{By, Event, Fate, IncidentKind};
use crate::protocol::{Failure, Outcome, Scope};
use crate::{Action, Cause, Graph, Join, Refusal, RefusalCode, StepPath};

/// Returns the steps that must be undone before `step` is.
fn undone_before(graph: &Graph, step: usize) -> &[usize] {
    let node = &graph.nodes[step];
    if crate::planted!("forward-order-undo") { &node.needs } else { &node.feeds }
}

/// Returns the steps whose turn may come once `step` is undone.
fn undone_after(graph: &Graph, step: usize) -> &[usize] {
    let node = &graph.nodes[step];
    if crate::planted!("forward-order-undo") { &node.feeds } else { &node.needs }
}

impl Run {
    pub(super) fn all_steps(&self) -> Vec<usize> {
        (0..self.steps.len()).collect()
    }

    /// Returns the steps that `scope` names.
    pub(super) fn steps_in(&self, scope: &Scope) -> Result<Vec<usize>, Refusal> {
        let position = |id: &String| {
            let unknown = || Refusal::new(RefusalCode::UnknownStep, self.graph.no_step(id));
            self.graph.position(id).ok_or_else(unknown)
        };
        match scope {
            Scope::All => Ok(self.all_steps()),
            Scope::Steps(ids) => ids.iter().map(position).collect(),
            Scope::BackTo(id) => {
                let mut found = vec![false; self.steps.len()];
                let mut open = vec![position(id)?];
                while let Some(step) = open.pop() {
                    if !std::mem::replace(&mut found[step], true) {
                        open.extend(&self.graph.nodes[step].feeds);
                    }
                }
                Ok((0..found.len()).filter(|&step| found[step]).collect())
            }
        }
    }

    /// Returns whether anything at `place` is to be undone once its step is.
    pub(super) fn to_undo(&self, place: WorkIndex) -> bool {
        self.spec(place.step).compensate.is_some()
            && !self.keeps_items_of(place.step)
            && self.work(place).is_some_and(|work| {
                work.may_stand() && matches!(work.undo, Undo::None | Undo::Blocked)
            })
    }

    /// Turns the run round: marks what is to be undone of `steps`, and lets all others pass the turn on.
    pub(super) fn turn_backward(&mut self, steps: &[std::sync::Arc<str>]) {
        // Blocked undos already wait for a person.
        let turned = self.header.mode == Mode::Backward;
        self.header.mode = Mode::Backward;
        self.header.outcome = None;
        self.header.ended_at = None;
        for id in steps {
            let Some(step) = self.graph.position(id) else { continue };
            for place in self.places_of(step) {
                let blocked = self.work(place).is_some_and(|work| work.undo == Undo::Blocked);
                if self.to_undo(place) && !(turned && blocked) {
                    self.change(place, |work| work.undo = Undo::Waiting);
                }
            }
        }
        let graph = self.graph.clone();
        for (step, state) in self.steps.iter_mut().enumerate() {
            state.undo_missing = undone_before(&graph, step).len();
            state.undo_settled = false;
        }
        for &step in graph.order.iter().rev() {
            self.settle_undo(step);
        }
    }

    pub(super) fn undo_over(&mut self, path: &StepPath, how: Undo) -> Option<usize> {
        let place = self.place(path)?;
        self.change(place, |work| {
            if how == Undo::Marked {
                work.revoke_undo();
            }
            work.undo = how;
            // The earlier errors of a success are over; a failed forward attempt is not.
            if let (Stage::Succeeded(_), Some(aside)) = (&work.stage, &mut work.aside) {
                aside.error = None;
            }
        });
        if self.header.mode == Mode::Backward {
            self.settle_undo(place.step);
        }
        None
    }

    /// Passes the turn on from `step`, and from all that this frees, if nothing is left to undo there.
    fn settle_undo(&mut self, step: usize) {
        let graph = self.graph.clone();
        let mut open = vec![step];
        while let Some(step) = open.pop() {
            let left = match &self.steps[step].body {
                BodyState::Task(work) => work.undo.is_open(),
                BodyState::Map(items) => items.tally.undo_open() > 0,
            };
            let state = &mut self.steps[step];
            if left || state.undo_missing > 0 || state.undo_settled {
                continue;
            }
            state.undo_settled = true;
            for &need in undone_after(&graph, step) {
                self.steps[need].undo_missing = self.steps[need].undo_missing.saturating_sub(1);
                open.push(need);
            }
        }
    }

    /// Drops open undos after a kill: their effects remain.
    pub(super) fn drop_open_undos(&mut self) {
        let is_open = |work: &super::Activity| work.undo.is_open();
        let open: Vec<WorkIndex> =
            self.places().filter(|&place| self.work(place).is_some_and(is_open)).collect();
        for place in open {
            self.change(place, |work| {
                work.revoke_undo();
                work.undo = Undo::None;
            });
        }
    }

    /// Returns whether an effect remains or may remain.
    pub(super) fn something_stands(&self) -> bool {
        let stands = |place: WorkIndex| {
            self.has_effects(place.step) && self.work(place).is_some_and(|work| work.may_stand())
        };
        self.places().any(stands) || self.has_dropped(true)
    }

    /// Returns the outcome after undoing.
    pub(super) fn outcome_of_undo(&self) -> Outcome {
        let how = |undo: &Undo| {
            self.places().any(|place| self.work(place).is_some_and(|work| work.undo == *undo))
        };
        let cause = self
            .header
            .compensation
            .as_ref()
            .map_or(Cause::Failure, |compensation| compensation.cause);
        let by_hand = matches!(cause, Cause::Cancel | Cause::Manual);
        if self.something_stands() {
            // A person's permission for a partial undo does not cover effects that a kill or a move left.
            let allowed = by_hand && !self.has_dropped(true) && self.header.killed_by.is_none();
            let failed = !allowed || self.header.error.is_some();
            return if failed { Outcome::FailedDirty } else { Outcome::PartiallyCompleted };
        }
        match (how(&Undo::Marked) || self.vouched_for_dropped(), how(&Undo::Done)) {
            (true, _) => Outcome::CompensatedWithManualSteps,
            (false, true) => Outcome::Compensated,
            (false, false) if by_hand => Outcome::Cancelled,
            (false, false) => Outcome::FailedClean,
        }
    }

    /// Returns the outcome after going forward to the end.
    pub(super) fn outcome_forward(&self) -> Outcome {
        let imperfect = self.header.error.is_some()
            || self.tally.unknown > 0
            || self.has_dropped(false)
            || self.steps.iter().enumerate().any(|(step, state)| match &state.body {
                BodyState::Task(work) => matches!(
                    work.stage,
                    Stage::Failed | Stage::Unknown | Stage::SkippedByHand { .. }
                ),
                BodyState::Map(items) => {
                    let rule = self.graph.nodes[step].map().map(|map| map.join);
                    let bears =
                        matches!(rule, Some(Join::Tolerate(_) | Join::BestEffort | Join::All));
                    items.stage == MapStage::Failed
                        || items.tally.forward(ForwardState::Skipped) > 0
                        || (bears && items.tally.failed() > 0)
                }
            });
        let by_hand = |place| {
            matches!(self.work(place).map(|work| &work.stage), Some(Stage::SkippedByHand { .. }))
        };
        let went_on = self.tally.succeeded() + self.tally.unknown > 0 || self.has_dropped(true);
        match (imperfect, went_on || self.places().any(by_hand)) {
            (false, _) => Outcome::Succeeded,
            (true, true) => Outcome::PartiallyCompleted,
            (true, false) => Outcome::FailedClean,
        }
    }

    /// Returns whether a person skipped a step or item and gave no output in its place.
    pub(super) fn goes_on_without_a_step(&self) -> bool {
        let is_without =
            |work: &Activity| matches!(work.stage, Stage::SkippedByHand { output: None });
        self.places().any(|place| self.work(place).is_some_and(is_without))
    }
}

impl TransitionBuilder<'_> {
    /// Begins to undo everything: revokes all that is under way, forward, and turns the run round.
    pub(super) fn compensate(&mut self, cause: Cause) {
        self.compensate_steps(cause, (None, None), &self.run.all_steps());
    }

    pub(super) fn compensate_steps(
        &mut self,
        cause: Cause,
        (by, scope): (Option<By>, Option<Scope>),
        steps: &[usize],
    ) {
        if self.run.header.mode == Mode::Ended {
            // The next end reports the remaining effects again.
            self.resolve_kind(IncidentKind::EffectsLeft);
        }
        self.revoke_all();
        let steps = steps
            .iter()
            .filter(|&&step| self.run.places_of(step).any(|place| self.run.to_undo(place)))
            .map(|&step| self.run.graph.nodes[step].id.clone())
            .collect();
        self.ready.clear();
        self.emit(Event::CompensationStarted { cause, by, scope, steps });
    }

    pub(super) fn compensate_by_hand(
        &mut self,
        scope: &Scope,
        force: bool,
        by: By,
    ) -> Result<(), Refusal> {
        let last = self.run.header.compensation.as_ref();
        let same = last.is_some_and(|last| {
            last.by.as_ref() == Some(&by) && last.scope.as_ref() == Some(scope)
        });
        if self.run.header.mode != Mode::Forward && same {
            return Ok(());
        }
        let whole = *scope == Scope::All && self.run.is_undone_in_part();
        if self.run.header.mode == Mode::Backward && !whole {
            return Err(Refusal::new(
                RefusalCode::AlreadyCompensating,
                "the run is being undone already; what is blocked goes on with a retry, or is marked as compensated",
            ));
        }
        need_reason(&by)?;
        let steps = self.run.steps_in(scope)?;
        self.run.compensable_at(self.now())?;
        if self.run.past_pivot() && !force {
            return Err(Refusal::new(
                RefusalCode::PastPivot,
                "the run has passed, or may have passed, its point of no return; force is needed to undo it",
            ));
        }
        let anything =
            steps.iter().any(|&step| self.run.places_of(step).any(|place| self.run.to_undo(place)));
        if self.run.header.mode == Mode::Ended && !anything {
            return Err(Refusal::new(
                RefusalCode::NothingToCompensate,
                "nothing of that stands and can be undone",
            ));
        }
        self.compensate_steps(Cause::Manual, (Some(by), Some(scope.clone())), &steps);
        Ok(())
    }

    /// Undoes as planned, if that is still the same. Asked again by the same words it is done once.
    pub(super) fn compensate_as_planned(
        &mut self,
        scope: &Scope,
        force: bool,
        mark: Uuid,
        by: By,
    ) -> Result<(), Refusal> {
        let last = self.run.header.compensation.as_ref();
        let same = last.is_some_and(|last| {
            last.by.as_ref() == Some(&by) && last.scope.as_ref() == Some(scope)
        });
        let moves = self.run.header.mode != Mode::Forward;
        if !(moves && same) && self.run.plan_mark(scope, self.now())? != mark {
            let message = "the run has moved since this was planned, and something else would be undone; look at it and plan anew";
            return Err(Refusal::new(RefusalCode::PlanExpired, message));
        }
        self.compensate_by_hand(scope, force, by)
    }

    /// Undoes everything for the parent run. A repeated request is executed once; a later decision of a person, such as
    /// a kill, is not overridden.
    pub(super) fn undo_for_parent(&mut self, by: By) {
        let (run, scope, steps) = (&self.run, Scope::All, self.run.all_steps());
        let last = run.header.compensation.as_ref();
        let same = last.is_some_and(|last| {
            last.by.as_ref() == Some(&by) && last.scope.as_ref() == Some(&scope)
        });
        let wanted = match run.header.mode {
            Mode::Forward => true,
            Mode::Backward => run.is_undone_in_part(),
            Mode::Ended => !same && run.places().any(|place| run.to_undo(place)),
        };
        if wanted {
            self.compensate_steps(Cause::Manual, (Some(by), Some(scope)), &steps);
        }
    }

    /// Ends all forward work. A leased task may still happen, so it becomes unknown.
    pub(super) fn revoke_all(&mut self) {
        for step in self.run.all_steps() {
            for place in self.run.places_of(step) {
                let begun = self
                    .work(place)
                    .is_some_and(|w| matches!(w.stage, Stage::Active(..) | Stage::Parked));
                if begun {
                    self.revoke(place);
                }
            }
            if self.run.items_of(step).is_some_and(|items| items.stage == MapStage::Open) {
                let step = StepPath::step(self.run.graph.nodes[step].id.clone());
                self.emit(Event::GaveUp { step, fate: Fate::Cancelled, error: None });
            }
        }
    }

    /// Ends one forward work in its present state.
    pub(super) fn revoke(&mut self, place: WorkIndex) {
        let Some(work) = self.work(place) else { return };
        let leased = matches!(
            work.current(),
            Some((Action::Forward, TaskState::Leased { .. } | TaskState::Child { .. }))
        );
        let harmless = !self.run.has_effects(place.step);
        let fate = match (work.in_doubt() || leased, work.tries.failures > 0) {
            _ if harmless => Fate::Cancelled,
            (true, _) => Fate::Unknown,
            (false, true) => Fate::Failed,
            (false, false) => Fate::Cancelled,
        };
        let step = self.run.path(place);
        self.resolve_incidents(&step);
        self.emit(Event::GaveUp { step, fate, error: None });
    }

    /// Offers the undos that can begin.
    pub(super) fn advance_undo(&mut self) {
        if self.run.tally.undo_open() == 0 {
            return;
        }
        let backward = self.run.header.mode == Mode::Backward;
        for step in self.run.all_steps() {
            let state = &self.run.steps[step];
            if backward && (state.undo_settled || state.undo_missing > 0) {
                continue;
            }
            match &state.body {
                BodyState::Task(work) if work.undo == Undo::Waiting => {
                    self.offer(WorkIndex::step(step), Action::Compensate);
                }
                BodyState::Task(_) => {}
                BodyState::Map(_) => self.fill_undo(step),
            }
        }
    }

    /// Fills the places of a map with items to undo, as long as there are any.
    fn fill_undo(&mut self, step: usize) {
        while self.has_place(WorkIndex::step(step), Action::Compensate) {
            let waiting = self.run.take_waiting_for_place(step, true).map(|(place, _)| place);
            let Some(place) = waiting.or_else(|| self.next_undo(step)) else { return };
            self.offer(place, Action::Compensate);
        }
    }

    fn next_undo(&mut self, step: usize) -> Option<WorkIndex> {
        let items = self.run.items_mut(step)?;
        if items.tally.undo_waiting() == 0 {
            return None;
        }
        let waiting = |item: &u32| items.works[*item as usize].undo == Undo::Waiting;
        let item = (items.undo_next..items.next).find(waiting)?;
        items.undo_next = item;
        Some(WorkIndex::item(step, item))
    }

    /// Handles a failed or lost undo: it is retried as long as its policy allows, and then waits for a
    /// person.
    pub(super) fn undo_failed(&mut self, place: WorkIndex, error: &Failure) {
        let Some(undo) = self.run.spec(place.step).compensate.clone() else { return };
        let step = self.run.path(place);
        let tries = self.work(place).map(|work| work.tries(Action::Compensate)).unwrap_or_default();
        let why = format!("undoing {step}: {}: {}", error.code, error.message);
        match self.next_retry(place, Action::Compensate, &undo.retry, error) {
            Some(at) => {
                // Attempts that spend none are tries all the same.
                if tries.all() >= undo.alert_after || at > tries.since.after(undo.slow_after) {
                    let kind = IncidentKind::CompensationSlow;
                    self.open_incident_of(kind, step, &error.code, why);
                }
                self.try_again(place, Action::Compensate, at);
            }
            None => {
                self.resolve_incidents(&step);
                self.emit(Event::UndoBlocked { step: step.clone() });
                let kind = IncidentKind::CompensationBlocked;
                self.open_incident_of(kind, step, &error.code, why);
            }
        }
    }

    /// Informs a person of an undo that takes too long, once. Returns whether it did.
    pub(super) fn tell_if_slow(&mut self, place: WorkIndex) -> bool {
        let due = self.work(place).and_then(|work| work.slow_at(self.run.spec(place.step)));
        if due.is_none_or(|due| due > self.now()) {
            return false;
        }
        let (step, error) = (self.run.path(place), self.work(place).and_then(Activity::error));
        let limit = self.run.spec(place.step).compensate.as_ref().map(|undo| undo.slow_after);
        let since = format!("undoing {step} takes longer than {}", limit.unwrap_or_default());
        let kind = IncidentKind::CompensationSlow;
        match error.map(|error| (error.code.clone(), error.message.clone())) {
            Some((code, message)) => {
                self.open_incident_of(kind, step, &code, format!("{since}: {code}: {message}"));
            }
            None => self.open_incident(kind, Some(step), since),
        }
        true
    }

    /// Notes that a person vouches that an undo is done, or needs not be.
    pub(super) fn mark_undone(&mut self, step: &StepPath, by: By) -> Result<(), Refusal> {
        if let Some(marked) = self.mark_left(Some(step), &by) {
            return marked;
        }
        let place = self.place(step)?;
        let work = self.work(place);
        let undo = work.map_or(Undo::None, |work| work.undo.clone());
        let aside = work.and_then(|work| work.aside.as_ref());
        let said = aside.is_some_and(|aside| aside.vouched.as_ref() == Some(&by));
        match undo {
            Undo::Marked => Ok(()),
            Undo::None if said => Ok(()),
            Undo::Waiting | Undo::Active(_) | Undo::Blocked
                if self.run.header.mode != Mode::Ended =>
            {
                need_reason(&by)?;
                self.emit(Event::UndoMarked { step: step.clone(), by });
                self.resolve_incidents(step);
                Ok(())
            }
            _ => Err(Refusal::new(
                RefusalCode::NothingToCompensate,
                format!("'{step}' is not being undone, so there is nothing to vouch for"),
            )),
        }
    }
}
