//! The events that a journal records: results of commands, never decided again. Their JSON is read for ever, so changes are
//! additive, and the `golden` tests hold every form. Payloads are stored apart, by [`Slot`], so that they can be erased or encrypted.

pub(crate) use crate::family::{Descent, ParentWord};
pub use crate::incident::IncidentKind;
use crate::protocol::{Failure, Labels, Mapping, Outcome, Scope};
use crate::{Action, Hold, RunId, StepPath, Time};
use serde::{Deserialize, Serialize};
use std::sync::Arc;

mod begun;
mod terms;
pub use begun::{Begun, EndBy, RequiredFact};
pub use terms::{By, Cause, Emission, Erasure, Fate, Parent, Record, Slot, Source};

/// A fact of the history of a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The run began.
    Started(Box<Begun>),
    /// A person set or removed labels of the run.
    Labelled {
        /// The labels that were set.
        set: Labels,
        /// The names of the labels that were removed.
        removed: Vec<Arc<str>>,
        /// Actor and reason.
        by: By,
    },
    /// A step will not be done.
    Skipped {
        /// The step.
        step: Arc<str>,
        /// The step whose output is missing; the guard was false without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missing: Option<Arc<str>>,
    },
    /// A fan-out began.
    Opened {
        /// The step.
        step: Arc<str>,
        /// The list.
        items: Source,
        /// The number of items.
        total: u32,
        /// The keys of the items, where the definition gives them some.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keys: Option<Slot>,
    },
    /// A step begins, or a fan-out goes on, with the next record, because this one is full of documents.
    Deferred {
        /// The step.
        step: Arc<str>,
    },
    /// A task is offered to workers.
    Offered {
        /// The step or item.
        step: StepPath,
        /// The action.
        action: Action,
        /// The attempt number.
        attempt: u32,
        /// The input, recorded with the first forward attempt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Source>,
    },
    /// A task was handed to a worker.
    Leased {
        /// The step or item.
        step: StepPath,
        /// The action.
        action: Action,
        /// The attempt number.
        attempt: u32,
        /// The worker that gets it.
        worker: Arc<str>,
        /// The end of the lease unless a heartbeat prolongs it.
        until: Time,
    },
    /// A leased task never left the server, or its worker gave it back unbegun; it is offered again.
    Released {
        /// The step or item.
        step: StepPath,
        /// The action.
        action: Action,
        /// The attempt number.
        attempt: u32,
    },
    /// The worker sent a heartbeat.
    Beat {
        /// The step or item.
        step: StepPath,
        /// The action.
        action: Action,
        /// The attempt number.
        attempt: u32,
        /// The lease's new end.
        until: Time,
        /// The progress so far.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        details: Option<Slot>,
        /// The lease was prolonged because no server could receive heartbeats.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unheard: bool,
    },
    /// A step or item succeeded.
    Succeeded {
        /// The step or item.
        step: StepPath,
        /// The attempt; 0 if a person or a verification stated it.
        attempt: u32,
        /// The output.
        output: Slot,
        /// The name of the effect in the target system.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
    },
    /// An attempt ended without success, as its worker reported.
    Failed {
        /// The step or item.
        step: StepPath,
        /// The action.
        action: Action,
        /// The attempt number.
        attempt: u32,
        /// The reason.
        error: Failure,
        /// `true` if the work was done, but its result cannot be the output.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        done: bool,
    },
    /// An attempt ended without a report and may have happened.
    Lost {
        /// The step or item.
        step: StepPath,
        /// The action.
        action: Action,
        /// The attempt number.
        attempt: u32,
        /// The reason.
        error: Failure,
    },
    /// The next attempt will be offered at `at`.
    RetryScheduled {
        /// The step or item.
        step: StepPath,
        /// The action.
        action: Action,
        /// The attempt to come.
        attempt: u32,
        /// The instant.
        at: Time,
    },
    /// A verification found that the attempt in doubt did not happen.
    NotHappened {
        /// The step or item.
        step: StepPath,
        /// The verify attempt.
        attempt: u32,
    },
    /// A verification found that the attempt in doubt happened; `Succeeded` follows, unless the run is past it.
    Happened {
        /// The step or item.
        step: StepPath,
        /// The verify attempt.
        attempt: u32,
    },
    /// The forward part of a step or item ended without success.
    GaveUp {
        /// The step or item.
        step: StepPath,
        /// The state in which it ended.
        fate: Fate,
        /// The reason, if no attempt reported it: a timeout, a failed wiring, a revocation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
    },
    /// A step or item waits for a person.
    Parked {
        /// The step or item.
        step: StepPath,
    },
    /// A person requested a retry of what is parked or blocked.
    RetryRequested {
        /// Actor and reason.
        by: By,
    },
    /// A parked or blocked step or item is retried, with fresh attempts.
    Resumed {
        /// The step or item.
        step: StepPath,
    },
    /// The input of a step or item was changed by the person who asked for the retry that follows.
    InputEdited {
        /// The step or item.
        step: StepPath,
        /// The new input.
        input: Slot,
        /// `true` if it gets another effect key, because the earlier attempts did not happen.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        new_key: bool,
    },
    /// A person skipped a step or item; the run goes on without it.
    SkippedByHand {
        /// The step or item.
        step: StepPath,
        /// The output that replaces its own.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Slot>,
        /// Actor and reason.
        by: By,
    },
    /// A person stated that a step or item was done; `Succeeded` follows.
    ResolvedByHand {
        /// The step or item.
        step: StepPath,
        /// Actor and reason.
        by: By,
    },
    /// A step waits for a signal.
    SignalAwaited {
        /// The step or item.
        step: StepPath,
        /// The signal's name.
        signal: Arc<str>,
        /// Alternative names; the first signal that comes ends the wait.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        or: Vec<Arc<str>>,
        /// The end of the wait.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Time>,
        /// The person who is to send it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        assignee: Option<String>,
    },
    /// A signal came, the first of its name; `Succeeded` follows for each step that waits for it.
    Signalled {
        /// The signal's name.
        signal: Arc<str>,
        /// Its data.
        data: Slot,
        /// The sender and the reason.
        by: By,
    },
    /// An accepted signal could not be taken. The next of its name counts.
    SignalRefused {
        /// Its name.
        signal: Arc<str>,
        /// The sender and the reason.
        by: By,
        /// The reason.
        message: String,
        /// `true` if the run had taken it before.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        came: bool,
    },
    /// A step waits for time to pass.
    SleepBegan {
        /// The step or item.
        step: StepPath,
        /// The end of the sleep.
        until: Time,
    },
    /// Another run is requested to do a step or to undo it; repeated until it answers.
    ChildAsked {
        /// The step or item.
        step: StepPath,
        /// The action.
        action: Action,
        /// The attempt number.
        attempt: u32,
        /// The run.
        run: RunId,
        /// The instant of the next request if it has not ended by then.
        again: Time,
        /// The input, with the first request.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Source>,
    },
    /// A child is notified of the state of this run; repeated until it acknowledges.
    ChildTold {
        /// The step.
        step: StepPath,
        /// The child.
        run: RunId,
        /// The notification.
        word: ParentWord,
        /// Number of the notification. It grows, so that a late one changes nothing.
        order: u32,
        /// The instant of the next notification if it has not acknowledged by then.
        again: Time,
    },
    /// A child has acknowledged a notification.
    ChildHeard {
        /// The step.
        step: StepPath,
        /// The number of the notification.
        order: u32,
    },
    /// The run was notified by its parent. The consequences are events of the same record.
    ParentHeard {
        /// The notification.
        word: ParentWord,
        /// The number of the notification.
        order: u32,
        /// The reason, for people.
        reason: String,
    },
    /// A fact on which the run relies was withdrawn.
    FactWithdrawn {
        /// The fact and its subject, written as in a hold.
        fact: Arc<str>,
        /// Origin of the withdrawal, for people.
        message: String,
        /// `true` if an incident follows that informs a person.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        incident: bool,
    },
    /// The fact is established again, or a person let the run go on without it.
    FactRestored {
        /// The fact and its subject.
        fact: Arc<str>,
        /// Actor and reason, if a person did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<By>,
    },
    /// A person requested a rerun from a step; `CompensationStarted` follows.
    RerunRequested {
        /// The step to go back to.
        from: Arc<str>,
        /// The step's new input.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Slot>,
        /// `true` if only the items of a fan-out that did not succeed are repeated.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        only_failed: bool,
        /// Actor and reason.
        by: By,
    },
    /// The run goes forward again: these steps are as if they had not begun.
    WentForward {
        /// The steps.
        steps: Vec<Arc<str>>,
    },
    /// The join of a fan-out fired. This cancels items that were not begun.
    Joined {
        /// The step.
        step: Arc<str>,
        /// `true` if its rule was met.
        succeeded: bool,
    },
    /// The run will fail, for this error.
    RunFailed {
        /// The step or item; `None` for the run as a whole.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepPath>,
        /// The reason.
        error: Failure,
    },
    /// Compensation of the run started. This cancels steps and items that were not begun.
    CompensationStarted {
        /// The reason.
        cause: Cause,
        /// Actor and reason, if a person requested it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<By>,
        /// The requested scope.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<Scope>,
        /// The steps to undo.
        steps: Vec<Arc<str>>,
    },
    /// One item is undone while the run goes on.
    UndoRequested {
        /// The step or item.
        step: StepPath,
    },
    /// A step or item was undone.
    Undone {
        /// The step or item.
        step: StepPath,
        /// The compensation attempt.
        attempt: u32,
        /// `true` if it is a run in which a person vouched for a part of the undo.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_hand: bool,
    },
    /// The undo of a step or item failed for good and waits for a person.
    UndoBlocked {
        /// The step or item.
        step: StepPath,
    },
    /// A person vouched that a step or item is undone or needs no undo.
    UndoMarked {
        /// The step or item.
        step: StepPath,
        /// Actor and reason.
        by: By,
    },
    /// The run got a hold: no task of it is handed out.
    Held {
        /// The hold.
        hold: Hold,
        /// Actor and reason, if a person did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<By>,
        /// The condition that it waits for, for people.
        message: String,
    },
    /// A hold of the run ended.
    Unheld {
        /// The hold.
        hold: Hold,
        /// Actor and reason, if a person did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<By>,
    },
    /// The run moved to another version of its workflow. Begun steps are kept, see [`Mapping`].
    Migrated {
        /// The version.
        version: u32,
        /// The hash of its definition.
        definition: Arc<str>,
        /// The mapping of the steps to those of that version.
        #[serde(default)]
        mapping: Mapping,
        /// Steps of that version that the run has passed.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skipped: Vec<Arc<str>>,
        /// Actor and reason.
        by: By,
    },
    /// A person requested that the run be cancelled.
    CancelRequested {
        /// Actor and reason.
        by: By,
    },
    /// A person ended the run as it stands, nothing undone.
    Killed {
        /// Actor and reason.
        by: By,
    },
    /// The run exceeded its time for going forward.
    TimedOut,
    /// Something needs a person.
    IncidentOpened {
        /// Its number within the run, from 1.
        incident: u32,
        /// Its kind.
        kind: IncidentKind,
        /// The step or item that it concerns.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepPath>,
        /// The code of the error that opened it, if any.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// A message for people.
        message: String,
    },
    /// An incident is over.
    IncidentResolved {
        /// The number of the incident.
        incident: u32,
    },
    /// A report came too late or contradicted an earlier one; it changed nothing.
    LateResult {
        /// The step or item.
        step: StepPath,
        /// The action.
        action: Action,
        /// The attempt number.
        attempt: u32,
        /// `true` if it claimed success.
        succeeded: bool,
        /// `true` if it contradicts an earlier report.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        contradicts: bool,
    },
    /// All steps are done; the run ends once its output was checked against its JSON Schema. Repeated until it is.
    OutputUnchecked {
        /// The output, the first time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Slot>,
        /// The instant of the next request.
        again: Time,
    },
    /// A step emitted or retracted an event of the log.
    Emitted(Box<Emission>),
    /// All documents of the ended run were erased, with the texts that may quote them.
    Erased(Erasure),
    /// The run is over.
    Ended {
        /// The outcome.
        outcome: Outcome,
        /// The output, if it succeeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Slot>,
    },
}
