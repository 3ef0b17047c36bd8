//! States of works, as words and as counts. It counts; it decides nothing.

use super::state::{Activity, Stage, TaskState, Undo};
use crate::Action;

/// Defines an enumeration of states with the words that views show for them.
macro_rules! states {
    ($(#[$doc:meta])* $name:ident { $($state:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub(crate) enum $name {
            $($state,)+
        }

        impl $name {
            /// All of them, in the order of their counts.
            pub(crate) const ALL: [$name; [$($word),+].len()] = [$($name::$state),+];

            /// Returns the word that views show.
            pub(crate) fn as_str(self) -> &'static str {
                match self {
                    $($name::$state => $word,)+
                }
            }
        }
    };
}

states!(
    /// State of the forward part of a work.
    ForwardState {
        Waiting = "waiting",
        Offered = "offered",
        Leased = "leased",
        Backoff = "backoff",
        Verifying = "verifying",
        Parked = "parked",
        Succeeded = "succeeded",
        Failed = "failed",
        Unknown = "unknown",
        Skipped = "skipped",
        Cancelled = "cancelled",
        Held = "held",
        AwaitingSignal = "awaiting_signal",
        Sleeping = "sleeping",
        ChildRunning = "child_running",
    }
);

/// State of the compensation of a work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum UndoState {
    None,
    Waiting,
    Offered,
    Leased,
    Backoff,
    Blocked,
    Compensated,
    CompensatedByHand,
    Held,
}

impl UndoState {
    /// Number of states.
    const COUNT: usize = UndoState::Held as usize + 1;
}

impl Activity {
    /// Returns the state of its forward part.
    pub(crate) fn forward_state(&self) -> ForwardState {
        match &self.stage {
            Stage::Waiting => ForwardState::Waiting,
            Stage::Active(_, TaskState::Held) => ForwardState::Held,
            Stage::Active(_, TaskState::Signal { .. }) => ForwardState::AwaitingSignal,
            Stage::Active(_, TaskState::Timer { .. }) => ForwardState::Sleeping,
            Stage::Active(_, TaskState::Child { .. }) => ForwardState::ChildRunning,
            Stage::Active(Action::Verify, _) => ForwardState::Verifying,
            Stage::Active(_, TaskState::Offered { .. }) => ForwardState::Offered,
            Stage::Active(_, TaskState::Leased { .. }) => ForwardState::Leased,
            Stage::Active(_, TaskState::Backoff { .. } | TaskState::Nobody) => {
                ForwardState::Backoff
            }
            Stage::Parked => ForwardState::Parked,
            Stage::Succeeded(_) => ForwardState::Succeeded,
            Stage::Failed => ForwardState::Failed,
            Stage::Unknown => ForwardState::Unknown,
            Stage::Skipped | Stage::SkippedByHand { .. } => ForwardState::Skipped,
            Stage::Cancelled => ForwardState::Cancelled,
        }
    }

    /// Returns the state of its compensation.
    pub(crate) fn undo_state(&self) -> UndoState {
        match &self.undo {
            Undo::None => UndoState::None,
            Undo::Waiting => UndoState::Waiting,
            Undo::Active(TaskState::Held) => UndoState::Held,
            Undo::Active(TaskState::Offered { .. }) => UndoState::Offered,
            Undo::Active(TaskState::Leased { .. } | TaskState::Child { .. }) => UndoState::Leased,
            Undo::Active(_) => UndoState::Backoff,
            Undo::Blocked => UndoState::Blocked,
            Undo::Done => UndoState::Compensated,
            Undo::Marked => UndoState::CompensatedByHand,
        }
    }
}

/// Counts of works by state. `Run::change` keeps them, so that nothing is ever counted by walking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    forward: [u32; ForwardState::ALL.len()],
    undo: [u32; UndoState::COUNT],
    /// On offer, whatever the action.
    pub(crate) offered: u32,
    /// Leased to workers, for any action.
    pub(crate) leased: u32,
    /// Waiting for a retry, whatever the action.
    pub(crate) backoff: u32,
    /// Unknown, and not undone.
    pub(crate) unknown: u32,
    /// The same with those that are still attempted or parked.
    pub(crate) doubtful: u32,
    /// To be undone, of those that are known to have happened.
    pub(crate) to_undo: u32,
    /// Something was to be counted out that was not in it: what was folded contradicts itself.
    pub(crate) miscounted: bool,
}

impl Tally {
    /// Counts `work` in (`true`) or out.
    pub(crate) fn count(&mut self, work: &Activity, in_or_out: bool) {
        let miscounted = &mut self.miscounted;
        let mut add = |slot: &mut u32| {
            let counted = if in_or_out { slot.checked_add(1) } else { slot.checked_sub(1) };
            *miscounted |= counted.is_none();
            *slot = counted.unwrap_or(*slot);
        };
        add(&mut self.forward[work.forward_state() as usize]);
        add(&mut self.undo[work.undo_state() as usize]);
        match work.current() {
            Some((_, TaskState::Offered { .. })) => add(&mut self.offered),
            Some((_, TaskState::Leased { .. })) => add(&mut self.leased),
            Some((_, TaskState::Backoff { .. })) => add(&mut self.backoff),
            _ => {}
        }
        let doubtful = matches!(work.stage, Stage::SkippedByHand { .. }) && work.in_doubt();
        if (work.stage == Stage::Unknown || doubtful) && !work.undo.is_over() {
            add(&mut self.unknown);
        }
        if work.is_doubtful() {
            add(&mut self.doubtful);
        } else if work.undo.is_open() {
            add(&mut self.to_undo);
        }
    }

    /// Counts `works` in that have not begun.
    pub(crate) fn count_new(&mut self, works: u32) {
        self.forward[ForwardState::Waiting as usize] += works;
        self.undo[UndoState::None as usize] += works;
    }

    /// Works whose forward part is in this state.
    pub(crate) fn forward(&self, state: ForwardState) -> u32 {
        self.forward[state as usize]
    }

    /// Works whose compensation is in this state.
    pub(crate) fn undo(&self, state: UndoState) -> u32 {
        self.undo[state as usize]
    }

    /// Returns compensations that are not over: waiting, under way or blocked.
    pub(crate) fn undo_open(&self) -> u32 {
        let all = self.undo.iter().sum::<u32>();
        all - self.undo(UndoState::None) - self.undone()
    }

    /// Works that were undone, by their handler or by a person.
    pub(crate) fn undone(&self) -> u32 {
        self.undo(UndoState::Compensated) + self.undo(UndoState::CompensatedByHand)
    }

    /// Returns the number of those that wait for a signal.
    pub(crate) fn awaiting_signal(&self) -> u32 {
        self.forward(ForwardState::AwaitingSignal)
    }

    /// Returns the number of those that succeeded, or that a person skipped, which is as good for a
    /// join.
    pub(crate) fn done(&self) -> u32 {
        self.forward(ForwardState::Succeeded) + self.forward(ForwardState::Skipped)
    }

    pub(crate) fn succeeded(&self) -> u32 {
        self.forward(ForwardState::Succeeded)
    }

    /// Returns the number of those that failed or are unknown.
    pub(crate) fn failed(&self) -> u32 {
        self.forward(ForwardState::Failed) + self.forward(ForwardState::Unknown)
    }

    pub(crate) fn blocked(&self) -> u32 {
        self.undo(UndoState::Blocked)
    }

    /// Returns the number of those that wait, forward, for a person.
    pub(crate) fn parked(&self) -> u32 {
        self.forward(ForwardState::Parked)
    }

    /// Returns the number of those that are to be undone, and wait for that.
    pub(crate) fn undo_waiting(&self) -> u32 {
        self.undo(UndoState::Waiting)
    }

    /// Returns the number of those that are offered, leased or held back, forward or backward: a limit
    /// of concurrency counts them.
    pub(crate) fn in_flight(&self, action: Action) -> u32 {
        use ForwardState::{Held, Leased, Offered, Verifying};
        match action {
            Action::Forward | Action::Verify => {
                [Offered, Leased, Verifying, Held].map(|state| self.forward(state)).iter().sum()
            }
            Action::Compensate => {
                let counted = [UndoState::Offered, UndoState::Leased, UndoState::Held];
                counted.map(|state| self.undo(state)).iter().sum()
            }
        }
    }

    /// Returns the number of those that have begun and are not over, forward.
    pub(crate) fn active(&self) -> u32 {
        use ForwardState::{
            AwaitingSignal, Backoff, ChildRunning, Held, Leased, Offered, Parked, Sleeping,
            Verifying,
        };
        let active = [
            Offered,
            Leased,
            Backoff,
            Verifying,
            Parked,
            Held,
            AwaitingSignal,
            Sleeping,
            ChildRunning,
        ];
        active.into_iter().map(|state| self.forward(state)).sum()
    }
}
