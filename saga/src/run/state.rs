//! State of each step and item of a run. Only [`super::apply`] changes it.

use std::collections::VecDeque;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::gathered::Outputs;
use super::inputs::Shared;
use super::said::Said;
use super::tally::Tally;
pub(crate) use super::tries::AttemptCounters;
use crate::event::{By, ParentWord};
use crate::protocol::{Failure, FailureKind};
use crate::{Action, Payload, RunId, Time};

/// Position of a unit of work in its run: the position of its step, and the index of the item for a
/// map.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct WorkIndex {
    pub(crate) step: usize,
    pub(crate) item: Option<u32>,
}

impl WorkIndex {
    pub(crate) fn step(step: usize) -> WorkIndex {
        WorkIndex { step, item: None }
    }

    pub(crate) fn item(step: usize, item: u32) -> WorkIndex {
        WorkIndex { step, item: Some(item) }
    }
}

/// One step of a run.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct StepState {
    /// Number of its needs that are not settled.
    pub(crate) missing: usize,
    pub(crate) body: BodyState,
    /// The id under which it began, if it was called otherwise in an earlier version of the workflow.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) formerly: Option<Arc<str>>,
    /// It had begun with an effect when a move made it one that only reads.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) effectful: bool,
    /// While the run is undone: number of the steps that it feeds that are not settled, backward.
    pub(crate) undo_missing: usize,
    /// While the run is undone: `true` if it, and all that depends on it, is undone as far as it is to
    /// be.
    pub(crate) undo_settled: bool,
}

impl StepState {
    /// Returns whether its guard skipped it.
    pub(crate) fn is_skipped(&self) -> bool {
        match &self.body {
            BodyState::Task(work) => work.stage == Stage::Skipped,
            BodyState::Map(items) => items.stage == MapStage::Skipped,
        }
    }
}

#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum BodyState {
    Task(Box<Activity>),
    Map(Box<Items>),
}

/// The items of a map step.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Items {
    pub(crate) stage: MapStage,
    /// The elements of the list.
    pub(crate) list: Vec<Payload>,
    /// The keys of the elements, where the definition gives them some.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) keys: Vec<Arc<str>>,
    pub(crate) works: Vec<Activity>,
    /// The first item that was never offered.
    pub(crate) next: u32,
    /// No item before this one waits to be undone: where to look for the next. Found again after a restore.
    #[serde(skip)]
    pub(crate) undo_next: u32,
    /// Its items as an earlier round left them, until it opens again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) before: Vec<Activity>,
    /// No attempt of an item is counted from below this: the list of an earlier round was longer.
    #[serde(default)]
    pub(crate) floor: u32,
    /// Number of times that the fan-out was repeated.
    #[serde(default)]
    pub(crate) round: u32,
    /// Reason for which the map failed as a whole.
    pub(crate) error: Option<Failure>,
    #[serde(skip)]
    pub(crate) tally: Tally,
    #[serde(skip)]
    pub(crate) outputs: Outputs,
    /// Items whose retry is due but for which no place was free. Found again by a tick after a restore.
    #[serde(skip)]
    pub(crate) due_without_place: VecDeque<u32>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum MapStage {
    Waiting,
    Open,
    Succeeded,
    Failed,
    Skipped,
    Cancelled,
}

/// A step's task, or one item of a map: what is attempted, retried and undone as one.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Activity {
    pub(crate) stage: Stage,
    #[serde(default, skip_serializing_if = "Undo::is_none")]
    pub(crate) undo: Undo,
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Payload::present"
    )]
    pub(crate) input: Option<Payload>,
    /// Its input, when that is a document of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) shared: Option<Shared>,
    pub(crate) tries: AttemptCounters,
    /// State that few works have.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) aside: Option<Box<ColdDetails>>,
    /// Succeeded after its map had joined: done, but not part of the map's output.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) late: bool,
    /// A person said that it was done.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) by_hand: bool,
    /// Number of times that it was repeated.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub(crate) round: u32,
    /// Its entry in the run's timers.
    #[serde(skip)]
    pub(crate) due: Option<Time>,
}

/// Forward state of a work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Stage {
    /// It has not begun.
    #[default]
    Waiting,
    /// It is being attempted (forward) or verified (verify).
    Active(Action, TaskState),
    /// A person must decide.
    Parked,
    Succeeded(Payload),
    /// It did not happen.
    Failed,
    /// It may have happened.
    Unknown,
    Skipped,
    /// A person said to go on without it, perhaps with an output in its place.
    SkippedByHand {
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            deserialize_with = "Payload::present"
        )]
        output: Option<Payload>,
    },
    Cancelled,
}

/// Backward state of a work.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Undo {
    /// Nothing is to be undone.
    #[default]
    None,
    /// Its undo has not begun.
    Waiting,
    Active(TaskState),
    /// A person must decide.
    Blocked,
    Done,
    /// A person vouches for it.
    Marked,
}

impl Undo {
    fn is_none(&self) -> bool {
        *self == Undo::None
    }

    /// Returns whether something is still to be done.
    pub(crate) fn is_open(&self) -> bool {
        matches!(self, Undo::Waiting | Undo::Active(_) | Undo::Blocked)
    }

    /// Returns whether the effect no longer remains.
    pub(crate) fn is_over(&self) -> bool {
        matches!(self, Undo::Done | Undo::Marked)
    }
}

/// State of the current task of a work.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum TaskState {
    /// None: an attempt has just ended, and the same record decides what follows.
    Nobody,
    /// It could begin, but the run is held.
    Held,
    /// On offer.
    Offered { since: Time },
    /// A worker's.
    Leased { worker: Arc<str>, since: Time, until: Time },
    /// On offer again at `until`.
    Backoff { until: Time },
    /// A signal's.
    Signal { until: Option<Time>, assignee: Option<String> },
    /// It waits until `until`.
    Timer { until: Time },
    /// Another run's, which is asked again at `again`.
    Child { run: RunId, again: Time },
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct ColdDetails {
    pub(crate) verify: AttemptCounters,
    pub(crate) undo: AttemptCounters,
    /// An attempt was lost or reported as unknown, and nothing has cleared it up.
    pub(crate) doubt: bool,
    /// A worker said that it was done, and gave no output that can be kept.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) done: bool,
    pub(crate) error: Option<Failure>,
    /// Content of the last heartbeat.
    #[serde(
        default,
        skip_serializing_if = "Option::is_none",
        deserialize_with = "Payload::present"
    )]
    pub(crate) details: Option<Payload>,
    pub(crate) external_id: Option<String>,
    /// The person who last vouched for its undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) vouched: Option<By>,
    /// Workers that were lost during it since a person last intervened.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gone: Vec<Arc<str>>,
    /// The last notification to the child that does it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) told: Option<Told>,
    /// The attempts with which they were lost, in the same order; without those that older snapshots do not
    /// record.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) gone_with: Vec<(Action, u32)>,
    /// Attempts whose report is refused: lost or revoked. Flagged once their late result was recorded.
    pub(crate) lost: Vec<(Action, u32, bool)>,
    /// The last reports by which attempts ended; of those that succeeded forward, the output says it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) said: Vec<Said>,
    /// An attempt to undo it was lost or reported as unknown.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) undo_doubt: bool,
    /// `true` if a person was informed that undoing it takes long.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(crate) slow: bool,
    /// The types of the events that it emitted and did not take back.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) emitted: Vec<Arc<str>>,
}

/// A word for a child.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Told {
    pub(crate) run: RunId,
    pub(crate) word: ParentWord,
    pub(crate) order: u32,
    /// Time of the first notification.
    pub(crate) since: Time,
    /// Time of the next notification; `None` once the child has acknowledged.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) again: Option<Time>,
}

impl ColdDetails {
    /// Notes the worker that was lost with an attempt.
    pub(super) fn blame(&mut self, worker: Arc<str>, action: Action, attempt: u32) {
        self.gone.push(worker);
        self.gone_with.push((action, attempt));
    }

    /// Removes the loss of a worker that was heard again: it counts no longer against the task.
    pub(super) fn acquit(&mut self, action: Action, attempt: u32) {
        let found = self.gone_with.iter().position(|lost| *lost == (action, attempt));
        let Some(from_end) = found.map(|at| self.gone_with.len() - at) else { return };
        self.gone_with.remove(self.gone_with.len() - from_end);
        // Losses of older snapshots come before all others.
        if let Some(at) = self.gone.len().checked_sub(from_end) {
            self.gone.remove(at);
        }
    }

    /// Resets what counts against it, after a person intervened.
    pub(super) fn absolve(&mut self) {
        self.gone.clear();
        self.gone_with.clear();
    }
}

impl Activity {
    pub(crate) fn tries(&self, action: Action) -> AttemptCounters {
        match action {
            Action::Forward => self.tries,
            Action::Verify => {
                self.aside.as_ref().map_or_else(AttemptCounters::default, |aside| aside.verify)
            }
            Action::Compensate => {
                self.aside.as_ref().map_or_else(AttemptCounters::default, |aside| aside.undo)
            }
        }
    }

    pub(crate) fn tries_mut(&mut self, action: Action) -> &mut AttemptCounters {
        match action {
            Action::Forward => &mut self.tries,
            Action::Verify => &mut self.aside_mut().verify,
            Action::Compensate => &mut self.aside_mut().undo,
        }
    }

    pub(crate) fn aside_mut(&mut self) -> &mut ColdDetails {
        self.aside.get_or_insert_default()
    }

    /// Returns whether it may have happened although no success was reported.
    pub(crate) fn in_doubt(&self) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.doubt)
    }

    /// Returns whether a worker reported it done, without an output that can be kept.
    pub(crate) fn was_done(&self) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.done)
    }

    /// Returns whether a worker was lost with attempt `attempt` of `action`, and that counts against
    /// the task.
    pub(crate) fn is_blamed(&self, action: Action, attempt: u32) -> bool {
        self.aside.as_ref().is_some_and(|aside| aside.gone_with.contains(&(action, attempt)))
    }

    /// Returns whether a worker was lost during it since a person last intervened.
    pub(crate) fn is_suspect(&self) -> bool {
        self.aside.as_ref().is_some_and(|aside| !aside.gone.is_empty())
    }

    pub(crate) fn error(&self) -> Option<&Failure> {
        self.aside.as_ref()?.error.as_ref()
    }

    /// Returns the task that is on offer, leased or waiting for its retry.
    pub(crate) fn current(&self) -> Option<(Action, &TaskState)> {
        match (&self.undo, &self.stage) {
            (Undo::Active(hand), _) => Some((Action::Compensate, hand)),
            (_, Stage::Active(action, hand)) => Some((*action, hand)),
            _ => None,
        }
    }

    pub(crate) fn hand_mut(&mut self) -> Option<&mut TaskState> {
        match (&mut self.undo, &mut self.stage) {
            (Undo::Active(hand), _) | (_, Stage::Active(_, hand)) => Some(hand),
            _ => None,
        }
    }

    /// Returns whether a worker holds attempt `attempt` of `action`.
    pub(crate) fn is_leased(&self, action: Action, attempt: u32) -> bool {
        matches!(self.current(), Some((current, TaskState::Leased { .. })) if current == action)
            && self.tries(action).attempt == attempt
    }

    /// Begins an action: its time is counted from its first attempt.
    pub(crate) fn begun(&mut self, action: Action, at: Time) {
        let tries = self.tries_mut(action);
        if tries.attempt == 0 || tries.anew {
            (tries.since, tries.anew) = (at, false);
        }
    }

    /// Revokes the attempt under way, if there is one: its report will be refused.
    pub(crate) fn revoke(&mut self) {
        if let Some((
            action,
            TaskState::Held | TaskState::Offered { .. } | TaskState::Leased { .. },
        )) = self.current()
        {
            let attempt = self.tries(action).attempt;
            self.aside_mut().lost.push((action, attempt, false));
        }
    }

    /// Revokes an attempt that no worker has.
    pub(crate) fn revoke_unclaimed(&mut self) {
        if matches!(self.current(), Some((_, TaskState::Held | TaskState::Offered { .. }))) {
            self.revoke();
        }
    }

    /// Revokes the compensation under way, if there is one: its report will be refused.
    pub(crate) fn revoke_undo(&mut self) {
        if let Some((
            Action::Compensate,
            TaskState::Held | TaskState::Offered { .. } | TaskState::Leased { .. },
        )) = self.current()
        {
            let attempt = self.tries(Action::Compensate).attempt;
            self.aside_mut().lost.push((Action::Compensate, attempt, false));
        }
    }

    /// Returns the action that a person has tried again.
    pub(crate) fn resumes(&self) -> Action {
        if self.undo == Undo::Blocked { Action::Compensate } else { Action::Forward }
    }

    /// Returns whether no attempt of the action that waits for a person can have had an effect.
    pub(crate) fn has_not_happened(&self) -> bool {
        // Every kind but one says that it did not happen.
        let refused = self.error().is_some_and(|error| error.kind != FailureKind::Unknown);
        let undo_in_doubt = self.aside.as_ref().is_some_and(|aside| aside.undo_doubt);
        let in_doubt = match self.resumes() {
            // Older journals did not distinguish losses from other doubt: they are doubt.
            Action::Compensate => undo_in_doubt || self.tries(Action::Compensate).losses > 0,
            _ => self.in_doubt(),
        };
        let stuck = self.stage == Stage::Parked || self.undo == Undo::Blocked;
        stuck && refused && !in_doubt
    }

    /// Returns whether it is over, forward.
    pub(crate) fn is_settled(&self) -> bool {
        use Stage::{Cancelled, Failed, Skipped, SkippedByHand, Succeeded, Unknown};
        let stage = &self.stage;
        matches!(
            stage,
            Succeeded(_) | Failed | Unknown | Skipped | SkippedByHand { .. } | Cancelled
        )
    }

    /// Returns whether a compensation would have something to undo.
    pub(crate) fn may_stand(&self) -> bool {
        let may = match &self.stage {
            Stage::Succeeded(_) | Stage::Unknown => true,
            Stage::SkippedByHand { .. } => self.in_doubt(),
            _ => false,
        };
        may && !self.undo.is_over()
    }

    /// Returns its output, or what a person put in its place.
    pub(crate) fn output(&self) -> Option<&Payload> {
        match &self.stage {
            Stage::Succeeded(output) => Some(output),
            Stage::SkippedByHand { output } => output.as_ref(),
            _ => None,
        }
    }
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
pub(super) fn is_zero(count: &u32) -> bool {
    *count == 0
}
