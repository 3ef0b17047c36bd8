//! What a journal records: events, not commands, never decided again. Their JSON is read for ever: a change is additive, and
//! `golden` tests hold every form. Payloads stand beside them, by [`Slot`], so that they can be erased or encrypted.

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

/// Something that happened to a run.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Event {
    /// The run began.
    Started(Box<Begun>),
    /// A person gave labels to the run, or took some from it.
    Labelled {
        /// Those that it got.
        set: Labels,
        /// The names of those that it lost.
        removed: Vec<Arc<str>>,
        /// Who and why.
        by: By,
    },
    /// A step will not be done.
    Skipped {
        /// Which.
        step: Arc<str>,
        /// The step whose output is missing; the guard was false without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        missing: Option<Arc<str>>,
    },
    /// A fan-out began.
    Opened {
        /// Which.
        step: Arc<str>,
        /// The list.
        items: Source,
        /// How many there are.
        total: u32,
        /// The keys of the items, where the definition gives them some.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        keys: Option<Slot>,
    },
    /// A step begins, or a fan-out goes on, with the next record: as many bytes of documents stand in this one as may.
    Deferred {
        /// Which.
        step: Arc<str>,
    },
    /// A task is on offer to workers.
    Offered {
        /// The step or item.
        step: StepPath,
        /// What is asked.
        action: Action,
        /// Which attempt.
        attempt: u32,
        /// The input, recorded with the first forward attempt.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Source>,
    },
    /// A task was handed to a worker.
    Leased {
        /// The step or item.
        step: StepPath,
        /// What is asked.
        action: Action,
        /// Which attempt.
        attempt: u32,
        /// To whom.
        worker: Arc<str>,
        /// Until when it is the worker's, without a sign of life.
        until: Time,
    },
    /// A task that was leased never left the server, or its worker gave it back unbegun, and is on offer again.
    Released {
        /// The step or item.
        step: StepPath,
        /// What is asked.
        action: Action,
        /// Which attempt.
        attempt: u32,
    },
    /// The worker gave a sign of life.
    Beat {
        /// The step or item.
        step: StepPath,
        /// What is asked.
        action: Action,
        /// Which attempt.
        attempt: u32,
        /// The lease's new end.
        until: Time,
        /// How far it got.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        details: Option<Slot>,
        /// No sign of life, but time in which no server could have heard one.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        unheard: bool,
    },
    /// A step or item succeeded.
    Succeeded {
        /// Which.
        step: StepPath,
        /// By which attempt; 0 when a person or a verification said so.
        attempt: u32,
        /// The output.
        output: Slot,
        /// What the target calls it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        external_id: Option<String>,
    },
    /// An attempt ended without success, as its worker reported.
    Failed {
        /// The step or item.
        step: StepPath,
        /// What was asked.
        action: Action,
        /// Which attempt.
        attempt: u32,
        /// Why.
        error: Failure,
        /// The work was done all the same, and what it gave cannot be its output.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        done: bool,
    },
    /// An attempt ended without a report and may have happened.
    Lost {
        /// The step or item.
        step: StepPath,
        /// What was asked.
        action: Action,
        /// Which attempt.
        attempt: u32,
        /// Why.
        error: Failure,
    },
    /// The next attempt will be offered at `at`.
    RetryScheduled {
        /// The step or item.
        step: StepPath,
        /// What is asked.
        action: Action,
        /// The attempt to come.
        attempt: u32,
        /// When.
        at: Time,
    },
    /// A verification found that the attempt in doubt did not happen.
    NotHappened {
        /// The step or item.
        step: StepPath,
        /// By which verify attempt.
        attempt: u32,
    },
    /// A verification found that the attempt in doubt happened; `Succeeded` follows, unless the run is past it.
    Happened {
        /// The step or item.
        step: StepPath,
        /// By which verify attempt.
        attempt: u32,
    },
    /// A step or item is over, forward, without success.
    GaveUp {
        /// Which.
        step: StepPath,
        /// How it stands.
        fate: Fate,
        /// Why, when no attempt said so: a timeout, a failed wiring, a revocation.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        error: Option<Failure>,
    },
    /// A step or item waits for a person.
    Parked {
        /// Which.
        step: StepPath,
    },
    /// A person asked that what is parked or blocked try again.
    RetryRequested {
        /// Who and why.
        by: By,
    },
    /// A parked or blocked step or item tries again, with fresh attempts.
    Resumed {
        /// Which.
        step: StepPath,
    },
    /// The input of a step or item was changed by the person who asked for the retry that follows.
    InputEdited {
        /// Which.
        step: StepPath,
        /// The new input.
        input: Slot,
        /// What was tried before did not happen: it gets another effect key.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        new_key: bool,
    },
    /// The run goes on without a step or item, because a person said so.
    SkippedByHand {
        /// Which.
        step: StepPath,
        /// What stands in its place.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Slot>,
        /// Who and why.
        by: By,
    },
    /// A person says that a step or item was done; `Succeeded` follows.
    ResolvedByHand {
        /// Which.
        step: StepPath,
        /// Who and why.
        by: By,
    },
    /// A step waits for a signal.
    SignalAwaited {
        /// Which.
        step: StepPath,
        /// The signal's name.
        signal: Arc<str>,
        /// The names of others; the first that comes ends the wait.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        or: Vec<Arc<str>>,
        /// Until when at most.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        until: Option<Time>,
        /// Who is to send it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        assignee: Option<String>,
    },
    /// A signal came, the first of its name; `Succeeded` follows for each step that waits for it.
    Signalled {
        /// The signal's name.
        signal: Arc<str>,
        /// What it says.
        data: Slot,
        /// Who sent it.
        by: By,
    },
    /// A signal that had been accepted cannot be taken. The next of its name counts.
    SignalRefused {
        /// Its name.
        signal: Arc<str>,
        /// Who sent it.
        by: By,
        /// Why.
        message: String,
        /// The run had it, and has it no more.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        came: bool,
    },
    /// A step waits for time to pass.
    SleepBegan {
        /// Which.
        step: StepPath,
        /// Until when.
        until: Time,
    },
    /// Another run is asked to do a step, or to undo it; again when it was not heard of.
    ChildAsked {
        /// Which.
        step: StepPath,
        /// What is asked.
        action: Action,
        /// Which attempt.
        attempt: u32,
        /// The run.
        run: RunId,
        /// When it is asked again if it has not ended.
        again: Time,
        /// Its input, with the first time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Source>,
    },
    /// A child is told what became of this run; again until it has answered.
    ChildTold {
        /// The step.
        step: StepPath,
        /// The child.
        run: RunId,
        /// What it is told.
        word: ParentWord,
        /// Grows with each word for this step, so that an earlier one that comes late changes nothing.
        order: u32,
        /// When it is told again if it has not answered.
        again: Time,
    },
    /// A child has answered what it was told.
    ChildHeard {
        /// The step.
        step: StepPath,
        /// Which word.
        order: u32,
    },
    /// The run has heard from its parent. What follows from that stands beside it.
    ParentHeard {
        /// What it was told.
        word: ParentWord,
        /// The number of this word.
        order: u32,
        /// Why, for people.
        reason: String,
    },
    /// A fact upon which the run began was withdrawn.
    FactWithdrawn {
        /// The fact and its subject, as in the hold of a run that waits for it.
        fact: Arc<str>,
        /// By whom, for people.
        message: String,
        /// A person hears of it, by the incident that follows.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        incident: bool,
    },
    /// It is established again, or a person has the run go on without it.
    FactRestored {
        /// The fact and its subject.
        fact: Arc<str>,
        /// Who and why, when a person did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<By>,
    },
    /// A person asked that the run go forward again from a step; `CompensationStarted` follows.
    RerunRequested {
        /// From which.
        from: Arc<str>,
        /// The step's new input.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        input: Option<Slot>,
        /// Of a fan-out only the items that did not succeed.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        only_failed: bool,
        /// Who and why.
        by: By,
    },
    /// The run goes forward again: these steps are as if their turn had not come.
    WentForward {
        /// Which.
        steps: Vec<Arc<str>>,
    },
    /// A fan-out's join fired. Items that were not begun are cancelled by this.
    Joined {
        /// Which.
        step: Arc<str>,
        /// Whether its rule was met.
        succeeded: bool,
    },
    /// The run will fail: what it failed of.
    RunFailed {
        /// Where; the run as a whole without it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepPath>,
        /// Why.
        error: Failure,
    },
    /// The run began to be undone. Steps and items not begun are cancelled by this.
    CompensationStarted {
        /// Why.
        cause: Cause,
        /// Who asked and why, when a person did.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<By>,
        /// What they asked for.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        scope: Option<Scope>,
        /// The steps to undo.
        steps: Vec<Arc<str>>,
    },
    /// One item is to be undone although the run goes on.
    UndoRequested {
        /// Which.
        step: StepPath,
    },
    /// A step or item was undone.
    Undone {
        /// Which.
        step: StepPath,
        /// By which compensation attempt.
        attempt: u32,
        /// It is a run in which a person vouched for some of the undoing.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        by_hand: bool,
    },
    /// Undoing a step or item failed for good and waits for a person.
    UndoBlocked {
        /// Which.
        step: StepPath,
    },
    /// A person vouches that a step or item is undone, or needs not be.
    UndoMarked {
        /// Which.
        step: StepPath,
        /// Who and why.
        by: By,
    },
    /// Nothing of the run is handed out any more, for one more reason.
    Held {
        /// The reason.
        hold: Hold,
        /// Who and why, when a person did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<By>,
        /// What it waits for, for people.
        message: String,
    },
    /// One reason to hold the run is gone.
    Unheld {
        /// The reason.
        hold: Hold,
        /// Who and why, when a person did it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        by: Option<By>,
    },
    /// The run goes on on another version of its workflow. What has begun is kept, see [`Mapping`].
    Migrated {
        /// The version.
        version: u32,
        /// The hash of its definition.
        definition: Arc<str>,
        /// How the steps became those of that version.
        #[serde(default)]
        mapping: Mapping,
        /// Steps of that version that this run is past.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        skipped: Vec<Arc<str>>,
        /// Who and why.
        by: By,
    },
    /// A person asked that the run stop.
    CancelRequested {
        /// Who and why.
        by: By,
    },
    /// A person ended the run as it stands, nothing undone.
    Killed {
        /// Who and why.
        by: By,
    },
    /// The run has no more time to go forward.
    TimedOut,
    /// Something needs a person.
    IncidentOpened {
        /// From 1 within the run.
        incident: u32,
        /// Which kind.
        kind: IncidentKind,
        /// About what.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        step: Option<StepPath>,
        /// The code of the error that it opened with, if there was one.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        code: Option<String>,
        /// For people.
        message: String,
    },
    /// It does not any more.
    IncidentResolved {
        /// Which.
        incident: u32,
    },
    /// A report came too late, or contradicted an earlier one; it changed nothing.
    LateResult {
        /// The step or item.
        step: StepPath,
        /// What was asked.
        action: Action,
        /// Which attempt.
        attempt: u32,
        /// Whether it claimed success.
        succeeded: bool,
        /// It had been reported before, and otherwise.
        #[serde(default, skip_serializing_if = "std::ops::Not::not")]
        contradicts: bool,
    },
    /// All steps are done; the run ends when its output was held to its JSON Schema. Again when that was not heard of.
    OutputUnchecked {
        /// The output, the first time.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Slot>,
        /// When it is asked for again.
        again: Time,
    },
    /// A step emitted an event of the log, or took one back.
    Emitted(Box<Emission>),
    /// All documents of the run, which has ended, were erased, and the texts that may have spoken of them.
    Erased(Erasure),
    /// The run is over.
    Ended {
        /// What is true in the world.
        outcome: Outcome,
        /// The output, when it succeeded.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        output: Option<Slot>,
    },
}
