//! Commands of a run, and their refusals.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::event::{By, Descent, EndBy, Parent, ParentWord, RequiredFact};
use crate::protocol::{Labels, Mapping, OnWithdrawn, Scope, TaskOutcome};
use crate::run::ChildEnd;
use crate::{Action, ErrorKind, Graph, Hold, Payload, RunId, StepPath, TaskKey, Time};

/// A request to change a run.
#[derive(Clone, Debug)]
pub enum Command {
    /// Begins the run. Always its first command.
    Start(Start),
    /// Hands an offered task to a worker.
    HandOut {
        /// The task.
        task: TaskKey,
        /// The worker that gets it.
        worker: Arc<str>,
    },
    /// A worker reports the result of a task.
    Report {
        /// The task.
        task: TaskKey,
        /// The result.
        outcome: TaskOutcome,
    },
    /// The output of a run whose steps are done was checked against its JSON Schema. Does nothing unless an
    /// output awaits its check.
    OutputChecked {
        /// The reason why it does not satisfy the schema; `None` if it does.
        violation: Option<String>,
    },
    /// A worker reports that it still works on a task.
    Beat {
        /// The task.
        task: TaskKey,
        /// The progress so far.
        details: Option<Payload>,
    },
    /// Gives back a task that was not begun, or never left the server. It is offered again as the same attempt, as if
    /// it had not been handed out.
    GiveBack {
        /// The task.
        task: TaskKey,
        /// The session that must hold it.
        session: Arc<str>,
        /// The beginning of the lease that is given back; `None` for any lease.
        since: Option<Time>,
    },
    /// Servers can receive heartbeats again: no lease ends before its worker had time to send one.
    Listen {
        /// The instant since when; a future one is taken as now.
        since: Time,
    },
    /// Does all that is due by now.
    Tick,
    /// Undoes the run.
    Compensate {
        /// The part to undo.
        scope: Scope,
        /// `true` to undo even past a pivot.
        force: bool,
        /// Actor and reason.
        by: By,
    },
    /// Undoes the run by a plan, if the plan would still do the same.
    CompensateAsPlanned {
        /// The part to undo.
        scope: Scope,
        /// `true` to undo even past a pivot.
        force: bool,
        /// Value of [`Run::plan_mark`](crate::Run::plan_mark) when it was planned.
        mark: Uuid,
        /// Actor and reason.
        by: By,
    },
    /// Undoes everything, because the parent run is being undone. Neither the window for compensating by hand nor a
    /// pivot prevents it; what is already being undone, or cannot be undone, is left as it is.
    UndoForParent {
        /// The parent, and why.
        by: By,
    },
    /// Stops the run and undoes its steps.
    Cancel {
        /// Actor and reason.
        by: By,
    },
    /// Ends the run without undoing anything.
    Kill {
        /// Actor and reason.
        by: By,
    },
    /// Retries what is parked or blocked, with fresh attempts; if nothing is, what waits for its next attempt.
    Retry {
        /// Only this step or item; `None` for all.
        step: Option<StepPath>,
        /// Its new input.
        input: Option<Payload>,
        /// Actor and reason.
        by: By,
    },
    /// Goes on without a step or item that no worker holds.
    Skip {
        /// The step or item.
        step: StepPath,
        /// The output that replaces its own.
        output: Option<Payload>,
        /// Actor and reason.
        by: By,
    },
    /// A person states that a step or item that no worker holds was done.
    Resolve {
        /// The step or item.
        step: StepPath,
        /// Its output.
        output: Payload,
        /// The name of the effect in the target system.
        external_id: Option<String>,
        /// Actor and reason.
        by: By,
    },
    /// Undoes a step and all that followed it, and goes forward again from there.
    Rerun {
        /// The step to go back to.
        from: Arc<str>,
        /// Its new input.
        input: Option<Payload>,
        /// Only the items of the step, a fan-out, that failed, are in doubt or were never begun; the others keep
        /// their results.
        only_failed: bool,
        /// `true` to go on even if an effect that nothing undoes is repeated.
        force: bool,
        /// Actor and reason.
        by: By,
    },
    /// Sends a signal to the run.
    Signal {
        /// Its name.
        name: Arc<str>,
        /// Its data.
        data: Payload,
        /// The sender and the reason.
        by: By,
        /// The version whose schemas it was checked against; `None` if it was not checked.
        checked: Option<u32>,
    },
    /// Refuses a signal that was accepted before the run existed and that the run cannot take. Does nothing if
    /// that was recorded before.
    RefuseSignal {
        /// Its name.
        name: Arc<str>,
        /// The sender and the reason.
        by: By,
        /// The reason of the refusal, without the signal's data.
        message: String,
    },
    /// A child run has ended.
    ChildEnded {
        /// The step.
        step: StepPath,
        /// The run.
        child: RunId,
        /// Action that this report answers; `None` if unsolicited.
        answers: Option<Action>,
        /// The end of the child.
        end: ChildEnd,
    },
    /// A child run has acknowledged a notification.
    ChildHeard {
        /// The step.
        step: StepPath,
        /// The run.
        child: RunId,
        /// The number of the acknowledged notification.
        order: u32,
    },
    /// The parent run notifies this run of its state.
    FromParent {
        /// The part to undo.
        word: ParentWord,
        /// Number of the notification. It grows, so that an earlier one that arrives late changes
        /// nothing.
        order: u32,
        /// Actor and reason.
        by: By,
    },
    /// Hands out no task until this hold, and every other, has ended.
    Hold {
        /// The hold.
        hold: Hold,
        /// Actor and reason, if a person does it.
        by: Option<By>,
        /// The condition that it waits for, for people.
        message: String,
    },
    /// Ends a hold of the run.
    Unhold {
        /// The hold; `None` for all holds that people gave.
        hold: Option<Hold>,
        /// Actor and reason, if a person does it.
        by: Option<By>,
    },
    /// Begins the run although required facts are not established. Does nothing if it waits for none.
    SkipRequirements {
        /// Actor and reason.
        by: By,
    },
    /// A required fact was withdrawn. A run that has not begun waits for it again.
    FactWithdrawn {
        /// The hold of runs that wait for it.
        hold: Hold,
        /// The policy for a run that has begun.
        policy: OnWithdrawn,
        /// Origin of the withdrawal, for people.
        message: String,
    },
    /// A fact that was withdrawn is established again.
    FactRestored {
        /// The hold of runs that wait for it.
        hold: Hold,
    },
    /// The run has waited too long for a fact, or nothing will establish it: a person is informed. Does nothing if the
    /// hold has ended.
    Overdue {
        /// The hold.
        hold: Hold,
        /// The condition that it waits for, for people.
        message: String,
    },
    /// A person vouches that a blocked undo is done or not needed.
    MarkUndone {
        /// The step or item.
        step: StepPath,
        /// Actor and reason.
        by: By,
    },
    /// A person vouches that all effects left by an ended run are undone or need no undo.
    MarkLeft {
        /// Actor and reason.
        by: By,
    },
    /// Sets and removes labels of the run, also after its end.
    Label {
        /// The labels to add or to change.
        set: Labels,
        /// The names of the labels to remove.
        remove: Vec<Arc<str>>,
        /// Actor and reason.
        by: By,
    },
    /// Marks an ended run as erased: from then on it refuses all commands.
    Erase {
        /// Actor and reason.
        by: By,
    },
    /// Moves the run to another version of its workflow.
    Migrate(Migration),
}

/// A move of a run to another version of its workflow.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The present version.
    pub from: u32,
    /// The new version.
    pub graph: Arc<Graph>,
    /// The hash of that definition.
    pub definition: Arc<str>,
    /// The mapping of its steps to those of the new version.
    pub mapping: Mapping,
    /// Actor and reason.
    pub by: By,
    /// The signals that were checked against the schemas of the new version.
    pub checked: Vec<CheckedSignal>,
}

/// A signal that was checked against the schemas of another version.
#[derive(Clone, Debug)]
pub struct CheckedSignal {
    /// Its name.
    pub name: Arc<str>,
    /// Its data.
    pub data: Payload,
    /// The reason why it does not satisfy the schemas of that version, if so.
    pub wrong: Option<String>,
}

/// The start of a run.
#[derive(Clone, Debug)]
pub struct Start {
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The hash of the definition that it pins.
    pub definition: Arc<str>,
    /// The caller's key.
    pub key: Option<Arc<str>>,
    /// A correlation id, constant along a chain of causes.
    pub correlation_id: Option<Arc<str>>,
    /// The event of the log that caused it.
    pub causation_id: Option<Arc<str>>,
    /// Marks to search by.
    pub labels: Labels,
    /// The input.
    pub input: Payload,
    /// The holds that it begins with, each with a message for people.
    pub holds: Vec<(Hold, String)>,
    /// The step of the parent run that it carries out.
    pub parent: Option<Parent>,
    /// Its place in the tree of runs, if it is or may have a child.
    pub descent: Option<Descent>,
    /// No step begins before this instant, and its timeout counts from then.
    pub start_at: Option<Time>,
    /// The facts that it requires, established ones included.
    pub requires: Vec<RequiredFact>,
    /// The instant by which it is to be over, its undo included.
    pub end_by: Option<Box<EndBy>>,
}

/// The answer to an accepted command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// The command was carried out, now or before.
    Done,
}

/// The refusal of a command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// A stable code.
    pub code: RefusalCode,
    /// An explanation with what to do, for people.
    pub message: String,
}

impl Refusal {
    /// Returns a refusal.
    pub fn new(code: RefusalCode, message: impl Into<String>) -> Refusal {
        Refusal { code, message: message.into() }
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.message, self.code.as_str())
    }
}

impl std::error::Error for Refusal {}

/// The reason for which a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// The attempt is not the current one, or its lease is over.
    LeaseLost,
    /// The attempt was reported before with another result: the first report counts.
    AlreadyReported,
    /// The task is not offered, or no longer.
    NotOffered,
    /// No such step or item in this run.
    UnknownStep,
    /// The output or verdict does not have the required form.
    InvalidOutput,
    /// The run has ended.
    RunEnded,
    /// The run is being undone already.
    AlreadyCompensating,
    /// The run has changed since the undo was planned.
    PlanExpired,
    /// The point of no return has been passed; `force` and a reason are needed.
    PastPivot,
    /// There is nothing to undo.
    NothingToCompensate,
    /// The run ended too long ago.
    CompensationWindowClosed,
    /// Nothing is parked or blocked.
    NothingToRetry,
    /// The step is over or has not begun: it cannot be resolved.
    NothingToResolve,
    /// A worker holds the task.
    TaskInFlight,
    /// No step of the workflow waits for such a signal.
    UnknownSignal,
    /// A signal of this name came before; the first counts.
    AlreadySignalled,
    /// Nothing waits for the signal any more.
    NotAwaited,
    /// The signal was checked against the schemas of another version, or came while the run was being moved: it is
    /// checked again.
    SignalUnchecked,
    /// The run has no pause of that name.
    UnknownPause,
    /// A reason is needed.
    ReasonMissing,
    /// The run exists already.
    AlreadyStarted,
    /// The run has not begun.
    NotStarted,
    /// The run is on another version, or of another workflow.
    WrongVersion,
    /// The run cannot be moved to another version in its present state.
    CannotMigrate,
    /// The run would have more labels than a run may have.
    TooManyLabels,
    /// The run has not ended; only ended runs can be erased.
    RunGoesOn,
    /// The run was erased.
    RunErased,
}

impl RefusalCode {
    /// Returns the code as it is sent.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            RefusalCode::LeaseLost => "lease_lost",
            RefusalCode::AlreadyReported => "already_reported",
            RefusalCode::NotOffered => "not_offered",
            RefusalCode::UnknownStep => "unknown_step",
            RefusalCode::InvalidOutput => "invalid_output",
            RefusalCode::RunEnded => "run_ended",
            RefusalCode::AlreadyCompensating => "already_compensating",
            RefusalCode::PlanExpired => "plan_expired",
            RefusalCode::PastPivot => "past_pivot",
            RefusalCode::NothingToCompensate => "nothing_to_compensate",
            RefusalCode::CompensationWindowClosed => "compensation_window_closed",
            RefusalCode::NothingToRetry => "nothing_to_retry",
            RefusalCode::NothingToResolve => "nothing_to_resolve",
            RefusalCode::TaskInFlight => "task_in_flight",
            RefusalCode::UnknownSignal => "unknown_signal",
            RefusalCode::AlreadySignalled => "already_signalled",
            RefusalCode::NotAwaited => "not_awaited",
            RefusalCode::SignalUnchecked => "signal_unchecked",
            RefusalCode::UnknownPause => "unknown_pause",
            RefusalCode::ReasonMissing => "reason_missing",
            RefusalCode::AlreadyStarted => "already_started",
            RefusalCode::NotStarted => "not_started",
            RefusalCode::WrongVersion => "wrong_version",
            RefusalCode::CannotMigrate => "cannot_migrate",
            RefusalCode::TooManyLabels => "too_many_labels",
            RefusalCode::RunGoesOn => "run_goes_on",
            RefusalCode::RunErased => "run_erased",
        }
    }

    /// Returns the kind of error of this code.
    #[must_use]
    pub fn kind(self) -> ErrorKind {
        match self {
            RefusalCode::UnknownStep | RefusalCode::UnknownSignal | RefusalCode::UnknownPause => {
                ErrorKind::Unknown
            }
            RefusalCode::InvalidOutput
            | RefusalCode::ReasonMissing
            | RefusalCode::TooManyLabels => ErrorKind::Invalid,
            _ => ErrorKind::Conflict,
        }
    }
}
