//! The effects of events outside their run. Only the rules and the journal know events; the engine knows effects alone,
//! so that a new event touches no file of it.

use std::sync::Arc;

use crate::definition::Milestone;
use crate::event::{Emission, Event, IncidentKind, Record};
use crate::protocol::{FailureKind, Outcome};
use crate::{Action, HoldKind, Run, StepPath, TaskKey};

/// A decision: the record to append to the journal, and its effects outside the run.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Transition {
    /// The record, without events if nothing happened.
    pub record: Record,
    /// The effects of its events, in their order.
    pub effects: Vec<Effect>,
}

/// An action outside the run after one of its events is in the journal: on the index tables, workers, other runs, the
/// log of events, the metrics.
///
/// An effect names what may have changed. The state of a task, a hold or a child after the whole record is read from
/// the run.
#[derive(Clone, Debug, PartialEq)]
pub enum Effect {
    /// The run began. [`Record::begun`] has its start.
    Started,
    /// A task was offered.
    TaskOffered(TaskKey),
    /// A task that a worker held is offered again, with the same attempt and in its former position.
    TaskReleased(TaskKey),
    /// A worker got a task.
    TaskLeased(TaskKey),
    /// An attempt that a worker held is over.
    AttemptEnded(TaskKey, AttemptEnd),
    /// Nothing of an item, or of a step and all its items, needs to be offered any more.
    WorkSettled(StepPath),
    /// Nothing of the run needs to be offered any more.
    OffersWithdrawn,
    /// Workers may hold tasks of the run that were revoked.
    LeasesRevoked,
    /// A hold of the run ended: tasks that were held back are offered again.
    HoldEnded(HoldKind),
    /// An attempt will be repeated later.
    RetryScheduled,
    /// A report changed nothing, as it came too late or contradicted an earlier one.
    LateResult,
    /// A fan-out with this number of items began.
    FanOutStarted(u32),
    /// The labels of the run changed.
    LabelsChanged,
    /// The run moved to another version of its workflow.
    VersionChanged,
    /// The run began to be undone.
    CompensationStarted,
    /// The run goes forward again.
    RerunStarted,
    /// The run needs a person.
    IncidentOpened(Box<OpenedIncident>),
    /// The incident of this number is over.
    IncidentResolved(u32),
    /// The child of a step is to be started or undone.
    AskChild(StepPath),
    /// The child of a step is to be notified of the state of the run.
    NotifyChild(StepPath),
    /// The parent of the run is to be notified of its end.
    NotifyParent,
    /// The output of the run is to be checked against its JSON Schema.
    CheckOutput,
    /// A step emitted or retracted an event of the log.
    EventEmitted(Box<Emission>),
    /// The run is over.
    Ended(Outcome),
}

/// End of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttemptEnd {
    /// The work was done.
    Succeeded,
    /// A verification has a result.
    Verified,
    /// The worker reported a failure.
    Failed {
        /// Its kind.
        kind: FailureKind,
        /// `true` if the work was done all the same.
        done: bool,
    },
    /// The worker did not report.
    Lost,
}

/// An incident that opened.
#[derive(Clone, Debug, PartialEq)]
pub struct OpenedIncident {
    /// Its number within the run, from 1.
    pub incident: u32,
    /// Its kind.
    pub kind: IncidentKind,
    /// The step or item that it concerns.
    pub step: Option<StepPath>,
    /// The code of the error that it opened with.
    pub code: Option<String>,
    /// The message, for people.
    pub message: String,
}

impl AttemptEnd {
    /// Returns whether the work of the attempt was done.
    #[must_use]
    pub fn is_done(self) -> bool {
        matches!(self, AttemptEnd::Succeeded | AttemptEnd::Failed { done: true, .. })
    }
}

impl Effect {
    /// Returns the milestone that this effect is, with the type of its event.
    #[must_use]
    pub fn milestone(&self) -> Option<(Milestone, &'static str)> {
        Some(match self {
            Effect::Started => (Milestone::Started, "run.started"),
            Effect::CompensationStarted => {
                (Milestone::CompensationStarted, "run.compensation_started")
            }
            Effect::RerunStarted => (Milestone::WentForward, "run.went_forward"),
            Effect::Ended(outcome) => (Milestone::Ended, ended(*outcome)),
            Effect::IncidentOpened(_) => (Milestone::Incidents, "incident.opened"),
            Effect::IncidentResolved(_) => (Milestone::Incidents, "incident.resolved"),
            Effect::TaskOffered(_)
            | Effect::TaskReleased(_)
            | Effect::TaskLeased(_)
            | Effect::AttemptEnded(..)
            | Effect::WorkSettled(_)
            | Effect::OffersWithdrawn
            | Effect::LeasesRevoked
            | Effect::HoldEnded(_)
            | Effect::RetryScheduled
            | Effect::LateResult
            | Effect::FanOutStarted(_)
            | Effect::LabelsChanged
            | Effect::VersionChanged
            | Effect::AskChild(_)
            | Effect::NotifyChild(_)
            | Effect::NotifyParent
            | Effect::CheckOutput
            | Effect::EventEmitted(_) => return None,
        })
    }
}

fn ended(outcome: Outcome) -> &'static str {
    match outcome {
        Outcome::Succeeded => "run.succeeded",
        Outcome::PartiallyCompleted => "run.partially_completed",
        Outcome::FailedClean => "run.failed_clean",
        Outcome::FailedDirty => "run.failed_dirty",
        Outcome::Compensated => "run.compensated",
        Outcome::CompensatedWithManualSteps => "run.compensated_with_manual_steps",
        Outcome::Cancelled => "run.cancelled",
    }
}

impl Event {
    /// Adds the effects of this event to `effects`. `run` is the run after it.
    ///
    /// The match has no `_`: a new event does not compile before it says its effects.
    pub(crate) fn effects(&self, run: &Run, effects: &mut Vec<Effect>) {
        let whole = |step: &Arc<str>| Effect::WorkSettled(StepPath::step(step.clone()));
        let effect = match self {
            Event::Started(_) => Effect::Started,
            Event::Offered { step, action, attempt, .. } => {
                Effect::TaskOffered(task(step, *action, *attempt))
            }
            Event::Released { step, action, attempt } => {
                Effect::TaskReleased(task(step, *action, *attempt))
            }
            Event::Leased { step, action, attempt, .. } => {
                Effect::TaskLeased(task(step, *action, *attempt))
            }
            // A person or a verification stated it, not a worker.
            Event::Succeeded { step, attempt: 0, .. } | Event::Undone { step, attempt: 0, .. } => {
                Effect::WorkSettled(step.clone())
            }
            Event::Succeeded { step, attempt, .. } => {
                Effect::AttemptEnded(task(step, Action::Forward, *attempt), AttemptEnd::Succeeded)
            }
            Event::Undone { step, attempt, .. } => Effect::AttemptEnded(
                task(step, Action::Compensate, *attempt),
                AttemptEnd::Succeeded,
            ),
            Event::Happened { step, attempt } | Event::NotHappened { step, attempt } => {
                Effect::AttemptEnded(task(step, Action::Verify, *attempt), AttemptEnd::Verified)
            }
            Event::Failed { step, action, attempt, error, done } => Effect::AttemptEnded(
                task(step, *action, *attempt),
                AttemptEnd::Failed { kind: error.kind, done: *done },
            ),
            Event::Lost { step, action, attempt, .. } => {
                effects.push(Effect::LeasesRevoked);
                Effect::AttemptEnded(task(step, *action, *attempt), AttemptEnd::Lost)
            }
            Event::GaveUp { step, .. }
            | Event::SkippedByHand { step, .. }
            | Event::UndoMarked { step, .. } => {
                effects.push(Effect::LeasesRevoked);
                Effect::WorkSettled(step.clone())
            }
            Event::ResolvedByHand { .. } => Effect::LeasesRevoked,
            Event::Parked { step } | Event::UndoBlocked { step } => {
                Effect::WorkSettled(step.clone())
            }
            Event::Joined { step, .. } | Event::Skipped { step, .. } => whole(step),
            Event::Killed { .. } => {
                effects.push(Effect::LeasesRevoked);
                Effect::OffersWithdrawn
            }
            Event::CompensationStarted { .. } => {
                effects.push(Effect::OffersWithdrawn);
                Effect::CompensationStarted
            }
            Event::Migrated { .. } => {
                effects.push(Effect::OffersWithdrawn);
                Effect::VersionChanged
            }
            Event::Held { .. } => Effect::OffersWithdrawn,
            Event::Unheld { hold, .. } => Effect::HoldEnded(hold.kind),
            Event::Ended { outcome, .. } => {
                effects.push(Effect::OffersWithdrawn);
                if run.parent().is_some() {
                    effects.push(Effect::NotifyParent);
                }
                Effect::Ended(*outcome)
            }
            Event::RetryScheduled { .. } => Effect::RetryScheduled,
            Event::LateResult { .. } => Effect::LateResult,
            Event::Opened { total, .. } => Effect::FanOutStarted(*total),
            Event::Labelled { .. } => Effect::LabelsChanged,
            Event::WentForward { .. } => Effect::RerunStarted,
            Event::IncidentOpened { incident, kind, step, code, message } => {
                Effect::IncidentOpened(Box::new(OpenedIncident {
                    incident: *incident,
                    kind: *kind,
                    step: step.clone(),
                    code: code.clone(),
                    message: message.clone(),
                }))
            }
            Event::IncidentResolved { incident } => Effect::IncidentResolved(*incident),
            Event::ChildAsked { step, .. } => Effect::AskChild(step.clone()),
            Event::ChildTold { step, .. } => Effect::NotifyChild(step.clone()),
            Event::OutputUnchecked { .. } => Effect::CheckOutput,
            Event::Emitted(emission) => Effect::EventEmitted(emission.clone()),
            // These concern only the run itself.
            Event::Deferred { .. }
            | Event::Beat { .. }
            | Event::RetryRequested { .. }
            | Event::Resumed { .. }
            | Event::InputEdited { .. }
            | Event::SignalAwaited { .. }
            | Event::Signalled { .. }
            | Event::SignalRefused { .. }
            | Event::SleepBegan { .. }
            | Event::ChildHeard { .. }
            | Event::ParentHeard { .. }
            | Event::FactWithdrawn { .. }
            | Event::FactRestored { .. }
            | Event::RerunRequested { .. }
            | Event::RunFailed { .. }
            | Event::UndoRequested { .. }
            | Event::CancelRequested { .. }
            | Event::TimedOut
            | Event::Erased(_) => return,
        };
        effects.push(effect);
    }
}

fn task(step: &StepPath, action: Action, attempt: u32) -> TaskKey {
    TaskKey { step: step.clone(), action, attempt }
}

#[cfg(test)]
mod tests;
