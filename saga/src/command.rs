//! What can be asked of a run, and how it is refused.

use std::fmt;
use std::sync::Arc;

use uuid::Uuid;

use crate::event::{By, Descent, EndBy, Parent, ParentWord, RequiredFact};
use crate::protocol::{Labels, Mapping, OnWithdrawn, Scope, TaskOutcome};
use crate::run::ChildEnd;
use crate::{Action, ErrorKind, Graph, Hold, Payload, RunId, StepPath, TaskKey, Time};

/// Something asked of a run.
#[derive(Clone, Debug)]
pub enum Command {
    /// Begin. Only ever the first command of a run.
    Start(Start),
    /// Hand a task that is on offer to a worker.
    HandOut {
        /// Which task.
        task: TaskKey,
        /// To whom.
        worker: Arc<str>,
    },
    /// A worker says what became of a task.
    Report {
        /// Which task.
        task: TaskKey,
        /// What became of it.
        outcome: TaskOutcome,
    },
    /// The output of a run whose steps are done was held to its JSON Schema. Nothing when none waits for that.
    OutputChecked {
        /// Why it does not satisfy the schema; `None` when it does.
        violation: Option<String>,
    },
    /// A worker says that it still works on a task.
    Beat {
        /// Which task.
        task: TaskKey,
        /// How far it got.
        details: Option<Payload>,
    },
    /// Give back a task that was not begun, or never left the server: it is on offer again as the same attempt, as if it
    /// had not been handed out.
    GiveBack {
        /// Which task.
        task: TaskKey,
        /// The session that must hold it.
        session: Arc<str>,
        /// When the lease began that is given back; `None` for any.
        since: Option<Time>,
    },
    /// Servers can hear workers again since then: no lease ends before its worker had time to be heard.
    Listen {
        /// The instant; one that is yet to come stands for now.
        since: Time,
    },
    /// Time has passed: do what is due.
    Tick,
    /// Undo.
    Compensate {
        /// What.
        scope: Scope,
        /// Even past a pivot.
        force: bool,
        /// Who and why.
        by: By,
    },
    /// Undo as a plan says, if it would still do the same.
    CompensateAsPlanned {
        /// What.
        scope: Scope,
        /// Even past a pivot.
        force: bool,
        /// What [`Run::plan_mark`](crate::Run::plan_mark) said when it was planned.
        mark: Uuid,
        /// Who and why.
        by: By,
    },
    /// Undo everything, because the run of which this one is a step is undone. Neither the time for compensating by
    /// hand nor a pivot keeps it from that; what is being undone already, or cannot be, is left as it is.
    UndoForParent {
        /// The parent, and why.
        by: By,
    },
    /// Stop, and undo what was done.
    Cancel {
        /// Who and why.
        by: By,
    },
    /// End as it stands; nothing is undone.
    Kill {
        /// Who and why.
        by: By,
    },
    /// Let what is parked or blocked try again, with fresh attempts; when nothing is, what waits for its next attempt.
    Retry {
        /// Only this step or item; everything without it.
        step: Option<StepPath>,
        /// Its new input.
        input: Option<Payload>,
        /// Who and why.
        by: By,
    },
    /// Go on without a step or item that no worker has.
    Skip {
        /// Which.
        step: StepPath,
        /// What stands in its place.
        output: Option<Payload>,
        /// Who and why.
        by: By,
    },
    /// A person knows that a step or item that no worker has was done.
    Resolve {
        /// Which.
        step: StepPath,
        /// Its output.
        output: Payload,
        /// What the target calls it.
        external_id: Option<String>,
        /// Who and why.
        by: By,
    },
    /// Undo what stands of a step and of what followed, and go forward again from there.
    Rerun {
        /// From which step.
        from: Arc<str>,
        /// Its new input.
        input: Option<Payload>,
        /// Only the items of the step, a fan-out, that failed, are in doubt or were never begun; the others stand.
        only_failed: bool,
        /// Even if something that nothing undoes is done twice.
        force: bool,
        /// Who and why.
        by: By,
    },
    /// A signal for the run.
    Signal {
        /// Its name.
        name: Arc<str>,
        /// What it says.
        data: Payload,
        /// Who sends it.
        by: By,
        /// The version whose schemas it was held to; `None` when it was held to none.
        checked: Option<u32>,
    },
    /// A signal that was accepted before there was a run, and that the run cannot take. Nothing when it was told.
    RefuseSignal {
        /// Its name.
        name: Arc<str>,
        /// Who sent it.
        by: By,
        /// Why, without what it says.
        message: String,
    },
    /// A run that is a step of this one has ended.
    ChildEnded {
        /// The step.
        step: StepPath,
        /// The run.
        child: RunId,
        /// What it was asked when it said so; nothing when it speaks by itself.
        answers: Option<Action>,
        /// How it ended.
        end: ChildEnd,
    },
    /// A run that is a step of this one has answered what it was told.
    ChildHeard {
        /// The step.
        step: StepPath,
        /// The run.
        child: RunId,
        /// Which word it has heard.
        order: u32,
    },
    /// The run that this one is a step of says what became of it.
    FromParent {
        /// What.
        word: ParentWord,
        /// Grows with each word, so that an earlier one that comes late changes nothing.
        order: u32,
        /// Who and why.
        by: By,
    },
    /// Hand nothing out until this reason, and every other, is gone.
    Hold {
        /// The reason.
        hold: Hold,
        /// Who and why, when a person does it.
        by: Option<By>,
        /// What it waits for, for people.
        message: String,
    },
    /// A reason to hold the run is gone.
    Unhold {
        /// Which; without it all that people gave.
        hold: Option<Hold>,
        /// Who and why, when a person does it.
        by: Option<By>,
    },
    /// Begin although facts that the run requires are not established. Nothing when it waits for none.
    SkipRequirements {
        /// Who and why.
        by: By,
    },
    /// A fact that the run requires was withdrawn. One that has not begun waits for it again.
    FactWithdrawn {
        /// The hold of a run that waits for it.
        hold: Hold,
        /// What becomes of a run that has begun.
        policy: OnWithdrawn,
        /// By whom, for people.
        message: String,
    },
    /// A fact that was withdrawn is established again.
    FactRestored {
        /// The hold of a run that waits for it.
        hold: Hold,
    },
    /// A fact has been waited for for too long, or nothing will establish it: a person must know. Nothing when the hold
    /// is gone.
    Overdue {
        /// Which.
        hold: Hold,
        /// What it waits for, for people.
        message: String,
    },
    /// A person vouches that a blocked undo is done, or needs not be.
    MarkUndone {
        /// Which step or item.
        step: StepPath,
        /// Who and why.
        by: By,
    },
    /// A person vouches that all that an ended run left behind is put right, or needs not be.
    MarkLeft {
        /// Who and why.
        by: By,
    },
    /// Give labels to the run and take others from it. Also once it has ended.
    Label {
        /// The labels that it gets, or that change their values.
        set: Labels,
        /// The names of the labels that it loses.
        remove: Vec<Arc<str>>,
        /// Who and why.
        by: By,
    },
    /// Mark the run, which has ended, as erased: from then on nothing can be asked of it.
    Erase {
        /// Who and why.
        by: By,
    },
    /// Go on on another version of the workflow.
    Migrate(Migration),
}

/// How a run moves to another version of its workflow.
#[derive(Clone, Debug)]
pub struct Migration {
    /// The version that it is on.
    pub from: u32,
    /// The version that it moves to.
    pub graph: Arc<Graph>,
    /// The hash of that definition.
    pub definition: Arc<str>,
    /// How its steps become those of the new version.
    pub mapping: Mapping,
    /// Who and why.
    pub by: By,
    /// The signals that were held to the schemas of the new version.
    pub checked: Vec<CheckedSignal>,
}

/// A signal that was held to the schemas of another version.
#[derive(Clone, Debug)]
pub struct CheckedSignal {
    /// Its name.
    pub name: Arc<str>,
    /// What it says.
    pub data: Payload,
    /// Why it is not what the steps of that version ask for, if so.
    pub wrong: Option<String>,
}

/// What a run begins with.
#[derive(Clone, Debug)]
pub struct Start {
    /// Where it belongs.
    pub namespace: Arc<str>,
    /// The hash of the definition that it pins.
    pub definition: Arc<str>,
    /// The caller's key.
    pub key: Option<Arc<str>>,
    /// Constant along the causal story.
    pub correlation_id: Option<Arc<str>>,
    /// The event of the log that caused it.
    pub causation_id: Option<Arc<str>>,
    /// Marks to search by.
    pub labels: Labels,
    /// The input.
    pub input: Payload,
    /// What it must wait for before anything of it is handed out, each with a message for people.
    pub holds: Vec<(Hold, String)>,
    /// The step of another run that it is.
    pub parent: Option<Parent>,
    /// Its place among those that belong together; of runs that are, or may have, children.
    pub descent: Option<Descent>,
    /// Nothing of it begins before this instant, and its timeout counts from then.
    pub start_at: Option<Time>,
    /// The facts that it requires, also those that stand.
    pub requires: Vec<RequiredFact>,
    /// The instant by which it is to be over, its undo included.
    pub end_by: Option<Box<EndBy>>,
}

/// How an accepted command is answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It was done, or had been done by the same command before.
    Done,
}

/// How a command is refused. The code is stable.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Stable code.
    pub code: RefusalCode,
    /// What it means here and what to do, for people.
    pub message: String,
}

impl Refusal {
    /// A refusal.
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

/// Why a command is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalCode {
    /// The attempt is not the current one, or its lease is over.
    LeaseLost,
    /// The attempt was reported before, and otherwise: the first report counts.
    AlreadyReported,
    /// The task is not on offer (any more).
    NotOffered,
    /// No such step or item in this run.
    UnknownStep,
    /// The output or verdict has not the form it must have.
    InvalidOutput,
    /// The run has ended.
    RunEnded,
    /// The run is being undone already.
    AlreadyCompensating,
    /// The run has moved since the undo was planned.
    PlanExpired,
    /// The point of no return has been passed; `force` and a reason are needed.
    PastPivot,
    /// There is nothing to undo.
    NothingToCompensate,
    /// The run ended too long ago.
    CompensationWindowClosed,
    /// Nothing is parked or blocked.
    NothingToRetry,
    /// It is over, or its turn has not come: there is nothing to say about how it ends.
    NothingToResolve,
    /// A worker has it.
    TaskInFlight,
    /// No step of the workflow waits for such a signal.
    UnknownSignal,
    /// The signal has come before, and the first counts.
    AlreadySignalled,
    /// Nothing waits for the signal any more.
    NotAwaited,
    /// The signal was held to the schemas of another version, or came while the run was about to be moved: it is checked anew.
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
    /// The run cannot be moved to another version as it stands.
    CannotMigrate,
    /// The run would have more labels than a run may have.
    TooManyLabels,
    /// The run goes on: it can be erased when it has ended.
    RunGoesOn,
    /// The run was erased.
    RunErased,
}

impl RefusalCode {
    /// The code as it is sent.
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

    /// The kind of error that it is.
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
