//! Steps that no worker does: signals, sleep, and runs of other workflows. Commands or time end what they wait for.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::decide::{TransitionBuilder, own_failure};
use super::scope::Use;
use super::state::{Stage, TaskState, WorkIndex};
use super::{ChildEnd, Mode, Run};
use crate::envelope::{self, VALUE_ENCRYPTED};
use crate::event::{By, Descent, Event, IncidentKind, Source};
use crate::graph::NAMED;
use crate::protocol::{Failure, FailureKind, Outcome};
use crate::{
    Action, Body, Child, Payload, Refusal, RefusalCode, RunId, Sleep, Span, StepPath, Time,
    Timestamp, Wait,
};

/// Number of characters that a message shows of a value that is no text.
const FOUND: usize = 200;
/// Delays before a silent child is requested again: the first and the longest.
pub(super) const ASK_AGAIN: (Span, Span) = (Span::secs(5), Span::secs(600));

/// A request to a child.
#[derive(Clone, Debug)]
pub struct ChildAsk {
    /// The child.
    pub child: RunId,
    /// Its workflow.
    pub workflow: String,
    /// Its version; the newest without it.
    pub version: Option<u32>,
    /// Its input.
    pub input: Payload,
    /// The step of the parent.
    pub step: StepPath,
    /// `Forward` to run, `Compensate` to undo what it did.
    pub action: Action,
    /// Its place among those that belong together.
    pub descent: Descent,
    /// Time of the next request.
    pub again: Time,
    /// Number of times that a person had the request repeated, plus one.
    pub attempt: u32,
}

impl Run {
    /// Returns the request to the child at `step`, to be repeated until the child has ended; `None` if there is none.
    #[must_use]
    pub fn child_ask(&self, step: &StepPath) -> Option<ChildAsk> {
        match self.work(self.place(step)?)?.current()? {
            (action, TaskState::Child { run, again }) => self.ask_of(step, action, *run, *again),
            _ => None,
        }
    }

    /// Returns the request to the child `run` at `step`.
    pub(super) fn ask_of(
        &self,
        step: &StepPath,
        action: Action,
        run: RunId,
        again: Time,
    ) -> Option<ChildAsk> {
        let place = self.place(step)?;
        let Body::Child(child) = &self.graph.nodes[place.step].body else { return None };
        Some(ChildAsk {
            child: run,
            workflow: child.workflow.clone(),
            version: child.version,
            input: self.input_at(place).unwrap_or_else(Payload::null),
            step: step.clone(),
            action,
            descent: self.descent_of_children(),
            again,
            attempt: self.work(place)?.tries(action).attempt,
        })
    }

    /// Returns the step that is a child, with its run, if it ever was asked for.
    pub(super) fn child_of(&self, place: WorkIndex) -> Option<RunId> {
        let child = matches!(self.graph.nodes[place.step].body, Body::Child(_));
        let attempt = self.work(place)?.tries(Action::Forward).attempt;
        (child && attempt > 0).then(|| self.id.child(&self.path(place), attempt))
    }

    /// Returns the steps that wait for the signal `name`, have waited for it, or may yet.
    fn awaits(&self, name: &str) -> impl Iterator<Item = (usize, &Wait)> {
        self.graph.nodes.iter().enumerate().filter_map(move |(step, node)| match &node.body {
            Body::Wait(wait) if wait.awaits(name) => Some((step, wait)),
            _ => None,
        })
    }

    /// Returns the JSON Schemas that the data of a signal must satisfy, each with the step that has it.
    ///
    /// # Errors
    /// `unknown_signal` when no step of the workflow waits for it.
    pub fn signal_schemas(&self, name: &str) -> Result<Vec<(&Arc<str>, &Payload)>, Refusal> {
        let mut known = false;
        let schemas = self.awaits(name).filter_map(|(step, wait)| {
            known = true;
            Some((&self.graph.nodes[step].id, wait.schema_of(name)?))
        });
        let schemas = schemas.collect();
        if known {
            return Ok(schemas);
        }
        let waits = self.graph.nodes.iter().filter_map(|node| match &node.body {
            Body::Wait(wait) => Some(wait),
            _ => None,
        });
        let names: BTreeSet<&str> = waits.flat_map(Wait::names).collect();
        let names: Vec<&str> = names.into_iter().take(NAMED).collect();
        let there = match names.as_slice() {
            [] => "no step of it waits for a signal".to_owned(),
            names => format!("there are {}", names.join(", ")),
        };
        Err(Refusal::new(
            RefusalCode::UnknownSignal,
            format!("no step of the workflow waits for a signal '{name}'; {there}"),
        ))
    }

    /// Returns the signals that steps wait for now, of which the first ends the wait, each with its assignee, if the
    /// definition names one.
    #[must_use]
    pub fn signals_awaited(&self) -> Vec<(StepPath, Vec<Arc<str>>, Option<String>)> {
        let waiting = |place: WorkIndex| match self.work(place)?.current()? {
            (_, TaskState::Signal { assignee, .. }) => match &self.graph.nodes[place.step].body {
                Body::Wait(wait) => {
                    let names = wait.names().map(Arc::from).collect();
                    Some((self.path(place), names, assignee.clone()))
                }
                _ => None,
            },
            _ => None,
        };
        self.places().filter_map(waiting).collect()
    }
}

impl Run {
    /// Returns those whom a signal is asked of, sorted, each once.
    #[must_use]
    pub fn assignees(&self) -> Vec<&str> {
        if self.tally.awaiting_signal() == 0 {
            return Vec::new();
        }
        let nodes = self.graph.nodes.iter().enumerate();
        let waits = nodes.filter(|(_, node)| matches!(node.body, Body::Wait(_)));
        let asked =
            waits.filter_map(|(step, _)| match self.work(WorkIndex::step(step))?.current()? {
                (_, TaskState::Signal { assignee, .. }) => assignee.as_deref(),
                _ => None,
            });
        let mut asked: Vec<&str> = asked.collect();
        asked.sort_unstable();
        asked.dedup();
        asked
    }
}

impl TransitionBuilder<'_> {
    /// Begins a step that is not offered to workers.
    pub(super) fn begin_waiting(&mut self, step: usize) -> Result<(), Failure> {
        let graph = self.run.graph.clone();
        match &graph.nodes[step].body {
            Body::Task(_) | Body::Map(_) | Body::Fail(_) => Ok(()),
            Body::Wait(wait) => self.await_signal(step, wait),
            Body::Sleep(sleep) => self.sleep(step, sleep),
            Body::Child(child) => self.ask_for_child(step, child),
        }
    }

    fn await_signal(&mut self, step: usize, wait: &Wait) -> Result<(), Failure> {
        let path = self.run.path(WorkIndex::step(step));
        if let Some(output) = self.run.signal_for(wait) {
            let output = self.slot(output);
            self.emit(Event::Succeeded { step: path, attempt: 0, output, external_id: None });
            return Ok(());
        }
        let assignee = wait.assignee.as_ref().map(|expr| self.text(expr)).transpose()?;
        let until = wait.timeout.map(|span| self.now().after(span));
        let mut names = wait.names().map(Arc::from);
        let signal = names.next().unwrap_or_else(|| Arc::from(""));
        let or = names.collect();
        self.emit(Event::SignalAwaited { step: path, signal, or, until, assignee });
        Ok(())
    }

    fn sleep(&mut self, step: usize, sleep: &Sleep) -> Result<(), Failure> {
        let until = match (&sleep.span, &sleep.until) {
            (Some(span), _) => self.now().after(*span),
            (None, Some(expr)) => {
                let text = self.text(expr)?;
                let wrong = |error| own_failure("invalid_instant", error);
                text.parse::<Timestamp>().map_err(wrong)?.0
            }
            (None, None) => self.now(),
        };
        let place = WorkIndex::step(step);
        self.emit(Event::SleepBegan { step: self.run.path(place), until });
        if until <= self.now() {
            self.slept(place);
        }
        Ok(())
    }

    fn ask_for_child(&mut self, step: usize, child: &Child) -> Result<(), Failure> {
        self.may_have_child(step)?;
        let place = WorkIndex::step(step);
        let known = self.work(place).is_some_and(|work| work.has_input());
        let input =
            if known { None } else { Some(self.input_of(step, &child.input, Use::ChildInput)?) };
        let attempt = self.next_attempt(place, Action::Forward);
        self.child_asked(place, Action::Forward, attempt, input);
        Ok(())
    }

    /// Asks the child at `place`, for the first time or again.
    pub(super) fn child_asked(
        &mut self,
        place: WorkIndex,
        action: Action,
        attempt: u32,
        input: Option<Source>,
    ) {
        let tries = self.work(place).map(|work| work.tries(action)).unwrap_or_default();
        let new = attempt != tries.attempt;
        let passed = if new { Span::ZERO } else { self.now().since(tries.since) };
        let again = self.now().after(passed.clamp(ASK_AGAIN.0, ASK_AGAIN.1));
        let step = self.run.path(place);
        let forward = match action {
            Action::Forward => attempt,
            _ => self.work(place).map_or(0, |work| work.tries(Action::Forward).attempt),
        };
        let run = self.run.id.child(&step, forward);
        self.emit(Event::ChildAsked { step, action, attempt, run, again, input });
    }

    /// Lets a step that is not offered to workers wait once more, or asks its child to undo what it did.
    pub(super) fn wait_again(&mut self, place: WorkIndex, action: Action) {
        let waits = match action {
            Action::Compensate => {
                let attempt = self.next_attempt(place, action);
                self.child_asked(place, action, attempt, None);
                Ok(())
            }
            Action::Forward | Action::Verify => self.begin_waiting(place.step),
        };
        if let Err(error) = waits {
            self.give_up(place, Some(error));
        }
    }

    /// Returns a text that an expression says.
    fn text(&mut self, expr: &crate::Expr) -> Result<String, Failure> {
        let failed = |message: String| own_failure("wiring_failed", message);
        let value = self.value(expr, Use::Value)?;
        if value.is_envelope() {
            return Err(own_failure(VALUE_ENCRYPTED, envelope::refusal("the text")));
        }
        value.to::<String>().map_err(|_| {
            let found: String = value.text().chars().take(FOUND).collect();
            failed(format!("expected a text, found {found}"))
        })
    }

    /// Ends the wait of a step whose time has come.
    pub(super) fn wait_over(&mut self, place: WorkIndex, hand: &TaskState) {
        match hand {
            TaskState::Signal { .. } => self.no_signal(place),
            TaskState::Timer { .. } => self.slept(place),
            TaskState::Child { .. } => {
                let Some((action, _)) = self.work(place).and_then(|work| work.current()) else {
                    return;
                };
                let attempt = self.work(place).map_or(0, |work| work.tries(action).attempt);
                self.child_asked(place, action, attempt, None);
            }
            _ => {}
        }
    }

    fn slept(&mut self, place: WorkIndex) {
        let (step, output) = (self.run.path(place), self.slot(Payload::null()));
        self.emit(Event::Succeeded { step, attempt: 0, output, external_id: None });
    }

    fn no_signal(&mut self, place: WorkIndex) {
        let graph = self.run.graph.clone();
        let Body::Wait(wait) = &graph.nodes[place.step].body else { return };
        let default = wait.default.as_ref().map(|expr| self.value(expr, Use::Value));
        let error = match default {
            Some(Ok(value)) => {
                let (step, output) = (self.run.path(place), self.slot(value));
                self.emit(Event::Succeeded { step, attempt: 0, output, external_id: None });
                return;
            }
            Some(Err(error)) => error,
            None => {
                let limit = wait.timeout.unwrap_or_default();
                let names = wait.names().collect::<Vec<_>>().join("' or '");
                let message = format!("no signal '{names}' came within {limit}");
                own_failure("signal_timeout", message)
            }
        };
        self.give_up(place, Some(error));
    }

    /// Takes a signal: the first of its name counts, for every step that waits for it or comes to.
    pub(super) fn signal(
        &mut self,
        name: &Arc<str>,
        data: &Payload,
        by: By,
        checked: Option<u32>,
    ) -> Result<(), Refusal> {
        self.run.signal_schemas(name)?;
        if let Some(first) = self.run.header.signals.get(name) {
            return if first.data.is_same_as(data) && first.by == by {
                Ok(())
            } else {
                let message = format!("the signal '{name}' came before, from {}", first.by.actor);
                Err(Refusal::new(RefusalCode::AlreadySignalled, message))
            };
        }
        let open = self.run.awaits(name).any(|(step, _)| !self.run.is_settled(step));
        match self.run.header.mode {
            Mode::Ended => return Err(Refusal::new(RefusalCode::RunEnded, "the run has ended")),
            Mode::Forward if open => {}
            Mode::Forward | Mode::Backward => {
                let message = format!("nothing waits for the signal '{name}' any more");
                return Err(Refusal::new(RefusalCode::NotAwaited, message));
            }
        }
        if checked.is_some_and(|version| version != self.run.version()) {
            return Err(super::signals::unchecked(name));
        }
        let waiting: Vec<WorkIndex> = self
            .run
            .awaits(name)
            .map(|(step, _)| WorkIndex::step(step))
            .filter(|&place| {
                // A step whose wait became an incident takes it as well, and the incident is over.
                self.work(place).is_some_and(|work| {
                    work.stage == Stage::Parked
                        || matches!(work.current(), Some((_, TaskState::Signal { .. })))
                })
            })
            .collect();
        let output = self.slot(data.clone());
        self.emit(Event::Signalled { signal: name.clone(), data: output, by });
        let graph = self.run.graph.clone();
        for place in waiting {
            let several =
                matches!(&graph.nodes[place.step].body, Body::Wait(wait) if wait.is_for_several());
            let output =
                if several { self.slot(super::signals::named(name, data)) } else { output };
            let step = self.run.path(place);
            self.resolve_incidents(&step);
            self.emit(Event::Succeeded { step, attempt: 0, output, external_id: None });
        }
        Ok(())
    }

    /// Records the end of a child. A report about an earlier attempt, or a repeated one, changes
    /// nothing.
    pub(super) fn child_ended(
        &mut self,
        step: &StepPath,
        child: RunId,
        answers: Option<Action>,
        end: ChildEnd,
    ) -> Result<(), Refusal> {
        let place = self.place(step)?;
        let Some((action, TaskState::Child { run, .. })) =
            self.work(place).and_then(|work| work.current())
        else {
            self.killed_child_ended(place, child, &end);
            return Ok(());
        };
        if *run != child {
            return Ok(());
        }
        let attempt = self.work(place).map_or(0, |work| work.tries(action).attempt);
        if action == Action::Compensate {
            self.child_undone(place, attempt, &end, answers);
            return Ok(());
        }
        let ChildEnd { outcome, output, error, stands, began } = end;
        let step = step.clone();
        let is_done = matches!(outcome, Outcome::Succeeded | Outcome::PartiallyCompleted);
        if let Some(output) = output.filter(|_| is_done) {
            if let Err(error) = self.may_keep(&output) {
                let error = Failure { kind: FailureKind::Unknown, ..error };
                self.emit(Event::Failed { step, action, attempt, error, done: true });
                self.give_up(place, None);
                return Ok(());
            }
            let output = self.slot(output);
            let external_id = Some(child.to_string());
            self.emit(Event::Succeeded { step, attempt, output, external_id });
            return Ok(());
        }
        let without = if is_done { " without its output" } else { "" };
        let why = error.map_or(String::new(), |error| format!(": {}", error.message));
        let message = match began {
            true => format!("the run {child} ended {}{without}{why}", outcome.as_str()),
            false => format!("the child could not be started{why}"),
        };
        let dirty = outcome == Outcome::FailedDirty || (is_done && stands);
        let error = Failure {
            kind: if dirty { FailureKind::Unknown } else { FailureKind::Permanent },
            ..own_failure("child_failed", message)
        };
        self.emit(Event::Failed { step: step.clone(), action, attempt, error, done: false });
        self.give_up(place, None);
        let failed = self.work(place).is_some_and(|work| work.stage == Stage::Failed);
        if failed && outcome == Outcome::CompensatedWithManualSteps {
            // A person's statement in a child is passed on to all runs that it belongs to.
            self.emit(Event::Undone { step, attempt: 0, by_hand: true });
        }
        Ok(())
    }

    fn child_undone(
        &mut self,
        place: WorkIndex,
        attempt: u32,
        end: &ChildEnd,
        answers: Option<Action>,
    ) {
        let step = self.run.path(place);
        // One that did nothing has nothing to undo, whatever it is called.
        if end.outcome.is_clean() || !end.stands {
            let by_hand = end.outcome == Outcome::CompensatedWithManualSteps;
            self.emit(Event::Undone { step: step.clone(), attempt, by_hand });
            self.resolve_incidents(&step);
        } else if answers == Some(Action::Compensate) {
            let why = end.error.as_ref().map_or(String::new(), |why| format!(": {}", why.message));
            let outcome = end.outcome.as_str();
            let message = format!("the child ended {outcome} and cannot be undone{why}");
            let error = own_failure("child_not_undone", message.clone());
            let action = Action::Compensate;
            self.emit(Event::Failed { step: step.clone(), action, attempt, error, done: false });
            self.emit(Event::UndoBlocked { step: step.clone() });
            self.open_incident(IncidentKind::CompensationBlocked, Some(step), message);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_child_is_asked_for_less_and_less_often_but_for_ever() {
        let clamp = |passed: u64| Span(passed).clamp(ASK_AGAIN.0, ASK_AGAIN.1);
        assert_eq!(clamp(0), Span::secs(5));
        assert_eq!(clamp(60_000), Span::secs(60));
        assert_eq!(clamp(86_400_000), Span::secs(600));
    }
}
