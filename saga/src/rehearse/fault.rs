//! Faults that can strike a step, and their wording in traces.

use serde::Serialize;

use crate::{Body, Class, Node, StepPath};

/// A fault at one moment of a rehearsed run. With the step it strikes it is a failure point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The step fails, and trying again would not help.
    Fails,
    /// One attempt fails, the next does not.
    FailsOnce,
    /// Every attempt fails, though each might have helped.
    KeepsFailing,
    /// All items of a fan-out fail for good.
    EveryItemFails,
    /// No worker claims the task in time.
    NotClaimed,
    /// The attempt takes too long: its effect is made, its report comes when its lease is over.
    TimesOut,
    /// The worker does not know whether its effect was made; it was.
    Unknown,
    /// No attempt ever knows; the effect was made.
    StaysUnknown,
    /// The worker is lost before the effect.
    WorkerLost,
    /// Every worker is lost before the effect.
    WorkersLost,
    /// The effect is made, and the worker lost before it reports.
    CrashAfterEffect,
    /// No signal comes in time.
    NoSignal,
    /// Asking the target whether it happened fails for good.
    VerifyFails,
    /// The worker that asks the target is lost.
    VerifyLost,
    /// Undoing the step fails for good.
    UndoFails,
    /// One attempt to undo it fails, the next does not.
    UndoFailsOnce,
    /// Every attempt to undo it fails.
    UndoKeepsFailing,
    /// The worker is lost before it undid anything.
    UndoLost,
    /// It is undone, and the worker lost before it reports.
    UndoCrash,
    /// The run is cancelled at this moment.
    Cancelled,
    /// The run's deadline passes at this moment.
    Deadline,
}

impl Fault {
    /// Every fault, in the order of the coverage table.
    pub const ALL: [Fault; 21] = [
        Fault::Fails,
        Fault::FailsOnce,
        Fault::KeepsFailing,
        Fault::EveryItemFails,
        Fault::NotClaimed,
        Fault::TimesOut,
        Fault::Unknown,
        Fault::StaysUnknown,
        Fault::WorkerLost,
        Fault::WorkersLost,
        Fault::CrashAfterEffect,
        Fault::NoSignal,
        Fault::VerifyFails,
        Fault::VerifyLost,
        Fault::UndoFails,
        Fault::UndoFailsOnce,
        Fault::UndoKeepsFailing,
        Fault::UndoLost,
        Fault::UndoCrash,
        Fault::Cancelled,
        Fault::Deadline,
    ];

    /// Returns the head of its column in the coverage table, and what happens, as traces say it.
    #[must_use]
    pub fn words(self) -> (&'static str, &'static str) {
        match self {
            Fault::Fails => ("fails", "fails for good"),
            Fault::FailsOnce => ("once", "fails once"),
            Fault::KeepsFailing => ("always", "fails at every attempt"),
            Fault::EveryItemFails => ("all", "every item fails for good"),
            Fault::NotClaimed => ("start", "no worker claims it in time"),
            Fault::TimesOut => {
                ("slow", "takes too long; its effect is made, its report comes late")
            }
            Fault::Unknown => ("unkn", "the worker does not know; the effect is made"),
            Fault::StaysUnknown => ("unkn*", "no attempt knows; the effect is made"),
            Fault::WorkerLost => ("lost", "the worker is lost before the effect"),
            Fault::WorkersLost => ("lost*", "every worker is lost before the effect"),
            Fault::CrashAfterEffect => ("crash", "the worker is lost after the effect"),
            Fault::NoSignal => ("signal", "no signal comes in time"),
            Fault::VerifyFails => ("v-fail", "fails for good"),
            Fault::VerifyLost => ("v-lost", "the worker is lost"),
            Fault::UndoFails => ("u-fail", "fails for good"),
            Fault::UndoFailsOnce => ("u-once", "fails once"),
            Fault::UndoKeepsFailing => ("u-alw", "fails at every attempt"),
            Fault::UndoLost => ("u-lost", "the worker is lost before the effect"),
            Fault::UndoCrash => ("u-crsh", "the worker is lost after the effect"),
            Fault::Cancelled => ("cancel", "the run is cancelled at its turn"),
            Fault::Deadline => ("late", "the run's deadline passes at its turn"),
        }
    }

    /// Returns the word used in JSON.
    #[must_use]
    pub fn as_str(self) -> String {
        let word = serde_json::to_value(self).unwrap_or_default();
        word.as_str().unwrap_or_default().to_owned()
    }

    /// Returns the part of a step that it strikes, as traces name it.
    pub(super) fn of(self) -> &'static str {
        match self {
            Fault::VerifyFails | Fault::VerifyLost => "verify",
            _ if self.is_of_undo() => "undo",
            _ => "",
        }
    }

    /// Returns whether it strikes while a step is undone.
    #[must_use]
    pub fn is_of_undo(self) -> bool {
        matches!(
            self,
            Fault::UndoFails
                | Fault::UndoFailsOnce
                | Fault::UndoKeepsFailing
                | Fault::UndoLost
                | Fault::UndoCrash
        )
    }

    /// Returns whether it can ever strike at `node`.
    pub(super) fn applies(self, node: &Node) -> bool {
        let task = node.task();
        let has_effect = task.class() != Some(Class::ReadOnly);
        let undo = task.compensate.is_some();
        match (self, &node.body) {
            // It is over at its turn.
            (_, Body::Fail(_)) => false,
            (Fault::Cancelled | Fault::Deadline, _) => true,
            (Fault::NoSignal, Body::Wait(wait)) => wait.timeout.is_some(),
            (Fault::Fails | Fault::Unknown | Fault::UndoFails, Body::Child(_)) => true,
            (_, Body::Wait(_) | Body::Sleep(_) | Body::Child(_)) | (Fault::NoSignal, _) => false,
            (Fault::EveryItemFails, Body::Map(_)) => true,
            (Fault::EveryItemFails, Body::Task(_)) => false,
            (Fault::NotClaimed, _) => task.timeouts.to_start.is_some(),
            (Fault::CrashAfterEffect, _) => has_effect,
            (Fault::VerifyFails | Fault::VerifyLost, _) => task.verify.is_some(),
            (fault, _) if fault.is_of_undo() => undo,
            _ => true,
        }
    }
}

/// A move of a trace that a reader should see.
#[derive(Clone, Debug)]
pub(super) enum Move {
    /// The step was done, or came to its time.
    Done(StepPath),
    /// The target was asked, and said whether it happened.
    Verified(StepPath, bool),
    /// The step was undone.
    Undone(StepPath),
    /// Something went wrong.
    Struck(StepPath, Fault),
    /// A person let what was parked or blocked try again.
    Retried,
}

impl Move {
    pub(super) fn words(&self) -> String {
        match self {
            Move::Done(step) => format!("{step}: done"),
            Move::Verified(step, true) => format!("verify {step}: it happened"),
            Move::Verified(step, false) => format!("verify {step}: it did not happen"),
            Move::Undone(step) => format!("undo {step}: done"),
            Move::Retried => "a person lets it try again".to_owned(),
            Move::Struck(step, fault) => {
                format!("{} {step}: {}", fault.of(), fault.words().1).trim_start().to_owned()
            }
        }
    }
}
