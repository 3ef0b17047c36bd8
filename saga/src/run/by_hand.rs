//! Decisions of a person about a step that cannot go on by itself: retry it, skip it, or state its result.

use super::decide::{TransitionBuilder, need_reason};
use super::rerun::Rerun;
use super::state::{Activity, Stage, TaskState, Undo, WorkIndex};
use super::{Mode, RefusedSignal, Run, Signal};
use crate::event::{By, Event, Slot};
use crate::{Action, IncidentKind, Payload, Refusal, RefusalCode, Span, StepPath, Time};

/// Time in which the same request, word for word, counts as a repeat whose response was lost.
const SAME_REQUEST: Span = Span::secs(10);

/// Number of refused signals that a run remembers.
const REFUSED_SIGNALS: usize = 20;

/// The work that a retry repeats.
struct Again {
    /// Parked or blocked work.
    stuck: Vec<WorkIndex>,
    /// Work that waits for its next attempt.
    waiting: Vec<WorkIndex>,
    /// `true` if facts are waited for once more.
    unmet: bool,
}

/// Returns whether a person may state the result of a forward work: it is open and no worker holds
/// it.
fn is_open_to_people(work: &Activity) -> bool {
    match &work.stage {
        Stage::Parked => true,
        Stage::Active(_, hand) => {
            !matches!(hand, TaskState::Leased { .. } | TaskState::Child { .. })
        }
        _ => false,
    }
}

/// Returns the refusal to resolve a step whose effect is being undone.
fn being_undone(step: &StepPath, what: &str) -> Refusal {
    let message = format!(
        "'{step}' is being undone, so it cannot be {what}; `mark-compensated` says that its effect is undone or may stay, \
         `retry` tries its compensation again"
    );
    Refusal::new(RefusalCode::NothingToResolve, message)
}

/// Returns whether two documents are the same, or both are absent.
fn same(one: Option<&Payload>, other: Option<&Payload>) -> bool {
    match (one, other) {
        (Some(one), Some(other)) => one.is_same_as(other),
        (one, other) => one.is_none() && other.is_none(),
    }
}

impl Run {
    /// Remembers what was asked, and by whom.
    pub(super) fn note_request(&mut self, event: &Event, at: Time, payloads: &[Payload]) {
        let facts = &mut self.header;
        let payload = |slot: &Slot| payloads.get(slot.0 as usize).cloned();
        match event {
            Event::CancelRequested { by } => {
                (facts.cancelled_by, facts.rerun) = (Some(by.clone()), None);
            }
            Event::RetryRequested { by } => {
                (facts.retried_by, facts.retried_at) = (Some(by.clone()), at);
            }
            Event::Signalled { signal, data, by } => {
                let data = payload(data).unwrap_or_else(Payload::null);
                facts.refused_signals.retain(|refused| refused.signal != *signal);
                let number = u32::try_from(facts.signals.len()).unwrap_or(u32::MAX);
                let after = |other: &Signal| other.number.saturating_add(1);
                let number = facts.signals.values().map(after).max().unwrap_or(number);
                facts.signals.insert(signal.clone(), Signal { data, by: by.clone(), number });
            }
            Event::SignalRefused { signal, by, message, came } => {
                if *came {
                    facts.signals.remove(signal);
                }
                let (signal, by, message) = (signal.clone(), by.clone(), message.clone());
                facts.refused_signals.retain(|refused| refused.signal != signal);
                facts.refused_signals.push(RefusedSignal { signal, by, message, at });
                if facts.refused_signals.len() > REFUSED_SIGNALS {
                    facts.refused_signals.remove(0);
                }
            }
            Event::RerunRequested { from, input, only_failed, by } => {
                facts.reran_by = Some(by.clone());
                let input = input.as_ref().and_then(payload);
                if let Some(from) = self.graph.position(from) {
                    let only_failed = *only_failed;
                    facts.rerun = Some(Rerun { from, by: by.clone(), input, only_failed });
                }
            }
            _ => {}
        }
    }

    /// Returns whether the work at `place` waits for a person.
    fn is_stuck(&self, place: WorkIndex) -> bool {
        self.work(place).is_some_and(|work| {
            work.stage == Stage::Parked
                || (work.undo == Undo::Blocked && self.header.mode != Mode::Ended)
        })
    }

    /// Returns whether a fact that it waits for has become an incident.
    fn is_unmet(&self) -> bool {
        self.header.incidents.iter().any(|open| open.kind == IncidentKind::DependencyUnmet)
    }

    /// Refuses what is for runs that have not ended.
    ///
    /// # Errors
    /// A [`Refusal`] with the code `run_ended`.
    pub fn check_moves(&self) -> Result<(), Refusal> {
        match self.header.mode {
            Mode::Ended => Err(Refusal::new(RefusalCode::RunEnded, "the run has ended")),
            Mode::Forward | Mode::Backward => Ok(()),
        }
    }

    /// Refuses a retry as it would be refused now, of the step of an incident or of the run as a whole.
    ///
    /// # Errors
    /// A [`Refusal`], most often with the code `nothing_to_retry`.
    pub fn check_retry(&self, incident: Option<u32>) -> Result<(), Refusal> {
        self.check_not_erased()?;
        let open = self.header.incidents.iter().find(|open| Some(open.number) == incident);
        let step = open.and_then(|open| open.step.as_ref());
        self.to_retry(step.and_then(|step| self.place(step))).map(drop)
    }

    /// Finds what a retry tries again, at one place or anywhere.
    fn to_retry(&self, only: Option<WorkIndex>) -> Result<Again, Refusal> {
        let wanted = |place: &WorkIndex| only.is_none_or(|only| only == *place);
        let of = |found: &dyn Fn(WorkIndex) -> bool| -> Vec<WorkIndex> {
            self.places().filter(|place| wanted(place) && found(*place)).collect()
        };
        let again = Again {
            stuck: of(&|place| self.is_stuck(place)),
            waiting: of(&|place| self.is_in_backoff(place)),
            unmet: only.is_none() && self.is_unmet(),
        };
        if again.stuck.is_empty() && again.waiting.is_empty() && !again.unmet {
            let message = "nothing there is parked, blocked or waiting for a retry";
            return Err(Refusal::new(RefusalCode::NothingToRetry, message));
        }
        Ok(again)
    }

    /// Returns whether the work at `place` waits for its next attempt.
    fn is_in_backoff(&self, place: WorkIndex) -> bool {
        let current = self.work(place).and_then(Activity::current);
        matches!(current, Some((_, TaskState::Backoff { .. })))
    }
}

impl TransitionBuilder<'_> {
    /// Lets what is parked or blocked try again, and waits once more for facts that did not come; when there is nothing
    /// of this, what waits for a retry. With a step, only that, and with a new input if there is one.
    pub(super) fn retry(
        &mut self,
        step: Option<&StepPath>,
        input: Option<Payload>,
        by: By,
    ) -> Result<(), Refusal> {
        let only = step.map(|step| self.place(step)).transpose()?;
        let found = self.run.to_retry(only);
        let again = self.run.header.retried_by.as_ref() == Some(&by)
            && self.now().since(self.run.header.retried_at) < SAME_REQUEST;
        let is_done = match &found {
            Err(_) => true,
            Ok(found) => only.is_none() && found.stuck.is_empty() && !found.unmet,
        };
        if again && is_done && self.has_input(only, input.as_ref()) {
            return Ok(());
        }
        let Again { stuck, waiting, unmet } = found?;
        need_reason(&by)?;
        self.emit(Event::RetryRequested { by });
        if let (Some(input), Some(step)) = (input, step) {
            // The same input again is the same effect, and the target may know its key.
            let has_not_happened = |place| self.work(place).is_some_and(Activity::has_not_happened);
            let new_key = only.is_some_and(has_not_happened) && !self.has_input(only, Some(&input));
            let input = self.slot(input);
            self.emit(Event::InputEdited { step: step.clone(), input, new_key });
        }
        if unmet {
            self.resolve_unmet();
        } else if stuck.is_empty() {
            for place in waiting {
                if let Some((action, _)) = self.work(place).and_then(Activity::current) {
                    self.try_again(place, action, self.now());
                }
            }
            return Ok(());
        }
        for place in stuck {
            let step = self.run.path(place);
            self.emit(Event::Resumed { step: step.clone() });
            self.resolve_incidents(&step);
            if let Some((action, _)) = self.work(place).and_then(Activity::current) {
                self.try_again(place, action, self.now());
            }
        }
        Ok(())
    }

    /// Returns whether the input that a person gives to a work equals its own, or none is given.
    fn has_input(&self, place: Option<WorkIndex>, input: Option<&Payload>) -> bool {
        let Some(input) = input else { return true };
        let has = place.and_then(|place| self.run.input_at(place));
        has.is_some_and(|has| has.is_same_as(input))
    }

    /// Goes on without a step or item, with `output` in its place if there is one. An undo is not skipped: a person
    /// marks it compensated.
    pub(super) fn skip(
        &mut self,
        step: &StepPath,
        output: Option<Payload>,
        by: By,
    ) -> Result<(), Refusal> {
        let place = self.place(step)?;
        let Some(work) = self.work(place) else { return Ok(()) };
        if let Stage::SkippedByHand { output: before } = &work.stage
            && same(before.as_ref(), output.as_ref())
        {
            return Ok(());
        }
        if work.undo.is_open() {
            return Err(being_undone(step, "skipped"));
        }
        self.may_say(place, step)?;
        need_reason(&by)?;
        let output = output.map(|output| self.slot(output));
        self.emit(Event::SkippedByHand { step: step.clone(), output, by });
        self.resolve_incidents(step);
        self.item_settled(place);
        Ok(())
    }

    /// Settles a step or item that a person knows was done, and with what output.
    pub(super) fn resolve(
        &mut self,
        step: &StepPath,
        output: Payload,
        external_id: Option<String>,
        by: By,
    ) -> Result<(), Refusal> {
        let place = self.place(step)?;
        if let Some(Stage::Succeeded(before)) = self.work(place).map(|work| &work.stage)
            && before.is_same_as(&output)
        {
            return Ok(());
        }
        if self.work(place).is_some_and(|work| work.undo.is_open()) {
            return Err(being_undone(step, "resolved"));
        }
        self.may_say(place, step)?;
        need_reason(&by)?;
        let output = self.slot(output);
        self.emit(Event::ResolvedByHand { step: step.clone(), by });
        self.emit(Event::Succeeded { step: step.clone(), attempt: 0, output, external_id });
        self.resolve_incidents(step);
        self.item_settled(place);
        Ok(())
    }

    /// Returns whether a person may state the result of the work at `place`.
    fn may_say(&self, place: WorkIndex, step: &StepPath) -> Result<(), Refusal> {
        let Some(work) = self.work(place) else { return Ok(()) };
        if is_open_to_people(work) {
            return Ok(());
        }
        let (code, why) = match (&work.stage, self.run.header.mode) {
            (_, Mode::Ended) => (RefusalCode::RunEnded, "the run has ended"),
            (Stage::Active(Action::Forward | Action::Verify, _), _) => (
                RefusalCode::TaskInFlight,
                "somebody works on it; wait for the report or for the lease to end",
            ),
            (Stage::Waiting, _) => (RefusalCode::NothingToResolve, "its turn has not come"),
            _ => (RefusalCode::NothingToResolve, "it is over"),
        };
        Err(Refusal::new(code, format!("'{step}': {why}")))
    }
}
