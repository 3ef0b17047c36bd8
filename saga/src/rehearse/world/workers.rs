//! The workers of a rehearsed run, and its children: what they do, what goes wrong with it, and what they report.

use super::{Lasting, STRIKES, World};
use crate::protocol::{Failure, FailureKind, Outcome, TaskOutcome, Verdict};
use crate::rehearse::fault::{Fault, Move};
use crate::{Action, ChildAsk, ChildEnd, Class, Command, Event, Payload, StepPath, TaskKey};

/// The code of failures that a rehearsal makes.
pub(in crate::rehearse) const REHEARSED: &str = "rehearsed";

impl World<'_> {
    pub(super) fn work(&mut self, task: TaskKey, fault: Option<Fault>) {
        self.late.retain(|late| *late != task);
        let fault = fault.or_else(|| {
            let person = self.open_incidents > 0;
            let lasting = self.lasting.iter_mut().find(|lasting| lasting.strikes_at(&task))?;
            lasting.strikes += 1;
            lasting.told |= person;
            Some(lasting.fault)
        });
        if let Some(fault) = fault {
            self.strike(task, fault);
            return;
        }
        let step = task.step.clone();
        let output = match task.action {
            Action::Forward => {
                self.make(&step);
                self.moves.push(Move::Done(step.clone()));
                self.output(&step)
            }
            Action::Verify => {
                let happened = self.ledger.stands(&step);
                self.moves.push(Move::Verified(step.clone(), happened));
                let verdict = match happened {
                    true => Verdict::Happened(self.output(&step)),
                    false => Verdict::NotHappened,
                };
                Payload::of(&verdict).unwrap_or_else(|_| Payload::null())
            }
            Action::Compensate => {
                self.ledger.undone(&step);
                self.moves.push(Move::Undone(step));
                Payload::null()
            }
        };
        self.report(task, TaskOutcome::Succeeded { output, external_id: None });
    }

    fn strike(&mut self, task: TaskKey, fault: Fault) {
        let step = task.step.clone();
        let lasts = matches!(
            fault,
            Fault::KeepsFailing
                | Fault::EveryItemFails
                | Fault::StaysUnknown
                | Fault::WorkersLost
                | Fault::UndoKeepsFailing
        );
        if lasts && !self.lasting.iter().any(|lasting| lasting.strikes_at(&task)) {
            let item = task.step.item.filter(|_| fault != Fault::EveryItemFails);
            let (step, strikes, told) = (step.step.clone(), 1, false);
            self.lasting.push(Lasting { step, item, fault, strikes, told });
        }
        let kind = match fault {
            Fault::Fails | Fault::EveryItemFails | Fault::VerifyFails | Fault::UndoFails => {
                FailureKind::Permanent
            }
            Fault::Unknown | Fault::StaysUnknown => FailureKind::Unknown,
            _ => FailureKind::Retryable,
        };
        if matches!(
            fault,
            Fault::Unknown | Fault::StaysUnknown | Fault::CrashAfterEffect | Fault::TimesOut
        ) {
            self.make(&step);
        }
        match fault {
            Fault::UndoCrash => self.ledger.undone(&step),
            Fault::TimesOut => self.late.push(task.clone()),
            _ => {}
        }
        match fault {
            Fault::TimesOut => {
                let position = self.scene.graph.position(&step.step).unwrap_or_default();
                let limit = self.scene.graph.nodes[position].task().timeouts.attempt;
                self.silent.push((task, self.now.after(limit)));
            }
            Fault::WorkerLost
            | Fault::WorkersLost
            | Fault::CrashAfterEffect
            | Fault::VerifyLost
            | Fault::UndoLost
            | Fault::UndoCrash => self.silent.push((task, self.now)),
            _ => self.report(task, TaskOutcome::Failed(failure(kind))),
        }
    }

    pub(super) fn child_ends(&mut self, ask: ChildAsk, fault: Option<Fault>) {
        let ChildAsk { child, step, action, .. } = ask;
        let outcome = match (action, fault) {
            (Action::Compensate, None) => {
                self.ledger.undone(&step);
                self.moves.push(Move::Undone(step.clone()));
                Outcome::Compensated
            }
            (_, Some(Fault::Fails)) => Outcome::FailedClean,
            (_, Some(_)) => {
                self.make(&step);
                Outcome::FailedDirty
            }
            (_, None) => {
                self.make(&step);
                self.moves.push(Move::Done(step.clone()));
                Outcome::Succeeded
            }
        };
        let (output, stands) = (Some(self.output(&step)), !outcome.is_clean());
        let end = ChildEnd { outcome, output, error: None, stands, began: true };
        let answers = Some(action);
        let _ = self.ask(Command::ChildEnded { step, child, answers, end });
    }

    /// Does `act`. Tasks whose leases it revokes still have their effects, and are reported too late; a child that is
    /// to be undone has had its effect.
    pub(super) fn cut_short(&mut self, act: impl FnOnce(&mut Self) -> bool) -> bool {
        let heard = |task: &TaskKey| self.silent.iter().all(|(silent, _)| silent != task);
        let held: Vec<TaskKey> = self.run.leased().into_iter().filter(heard).collect();
        let children: Vec<ChildAsk> = self.children().collect();
        let done = act(self);
        let leased = self.run.leased();
        for task in held.into_iter().filter(|task| !leased.contains(task)) {
            match task.action {
                Action::Forward => self.make(&task.step),
                Action::Verify => {}
                Action::Compensate => self.ledger.undone(&task.step),
            }
            self.late.push(task);
        }
        for ask in children.iter().filter(|ask| ask.action == Action::Forward) {
            if !self.is_forward() {
                self.make(&ask.step);
            }
        }
        self.report_late();
        done
    }

    /// Delivers late reports as soon as their lease is over.
    pub(super) fn report_late(&mut self) {
        let (leased, offered) = (self.run.leased(), self.run.offered());
        self.silent.retain(|(task, _)| leased.contains(task) || offered.contains(task));
        let late = std::mem::take(&mut self.late);
        let (held, over) = late.into_iter().partition(|task| leased.contains(task));
        self.late = held;
        for task in over {
            let before = self.journal.len();
            let output = self.output(&task.step);
            let outcome = TaskOutcome::Succeeded { output, external_id: None };
            let refused = self.ask(Command::Report { task: task.clone(), outcome }).is_err();
            let mut events = self.journal[before..].iter().flat_map(|record| &record.events);
            if !refused || events.any(counts) {
                self.accepted_late.push(task);
            }
        }
    }

    fn report(&mut self, task: TaskKey, outcome: TaskOutcome) {
        let _ = self.ask(Command::Report { task, outcome });
    }

    fn make(&mut self, step: &StepPath) {
        let position = self.scene.graph.position(&step.step).unwrap_or_default();
        if self.scene.graph.nodes[position].task().class() != Some(Class::ReadOnly) {
            self.ledger.made(step);
        }
    }

    pub(super) fn output(&self, step: &StepPath) -> Payload {
        let position = self.scene.graph.position(&step.step).unwrap_or_default();
        self.scene.outputs[position].clone()
    }
}

impl Lasting {
    pub(super) fn strikes_at(&self, task: &TaskKey) -> bool {
        let same = match self.fault.is_of_undo() {
            true => task.action == Action::Compensate,
            false => task.action == Action::Forward,
        };
        same && self.step == task.step.step
            && (self.fault == Fault::EveryItemFails || self.item == task.step.item)
    }

    /// Returns whether it has struck so often that it is known to go on for ever.
    pub(super) fn is_known(&self) -> bool {
        let (forward, undo) = STRIKES;
        self.strikes > if self.fault.is_of_undo() { undo } else { forward }
    }
}

fn failure(kind: FailureKind) -> Failure {
    Failure {
        kind,
        code: REHEARSED.to_owned(),
        message: "it was rehearsed".to_owned(),
        details: None,
        retry_after: None,
    }
}

/// Returns whether an event shows that a report counted. That its worker lives may make a task go on, which is no
/// such thing.
fn counts(event: &Event) -> bool {
    matches!(
        event,
        Event::Succeeded { .. }
            | Event::Failed { .. }
            | Event::Undone { .. }
            | Event::Happened { .. }
            | Event::NotHappened { .. }
    )
}
