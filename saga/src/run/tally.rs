//! How works stand, in words and in numbers. It counts; it decides nothing.

use super::state::{Hand, Stage, Undo, Work};
use crate::Action;

/// The words for how a work stands, forward.
pub(crate) const FORWARD_WORDS: [&str; 15] = [
    "waiting",
    "offered",
    "leased",
    "backoff",
    "verifying",
    "parked",
    "succeeded",
    "failed",
    "unknown",
    "skipped",
    "cancelled",
    "held",
    "awaiting_signal",
    "sleeping",
    "child_running",
];
/// The words for how a work stands, backward.
pub(crate) const UNDO_WORDS: [&str; 9] = [
    "none",
    "waiting",
    "offered",
    "leased",
    "backoff",
    "blocked",
    "compensated",
    "compensated_by_hand",
    "held",
];

impl Work {
    /// Position in [`FORWARD_WORDS`].
    pub(crate) fn forward_word(&self) -> usize {
        match &self.stage {
            Stage::Waiting => 0,
            Stage::Active(_, Hand::Held) => 11,
            Stage::Active(_, Hand::Signal { .. }) => 12,
            Stage::Active(_, Hand::Timer { .. }) => 13,
            Stage::Active(_, Hand::Child { .. }) => 14,
            Stage::Active(Action::Verify, _) => 4,
            Stage::Active(_, Hand::Offered { .. }) => 1,
            Stage::Active(_, Hand::Leased { .. }) => 2,
            Stage::Active(_, Hand::Backoff { .. } | Hand::Nobody) => 3,
            Stage::Parked => 5,
            Stage::Succeeded(_) => 6,
            Stage::Failed => 7,
            Stage::Unknown => 8,
            Stage::Skipped | Stage::SkippedByHand { .. } => 9,
            Stage::Cancelled => 10,
        }
    }

    /// Position in [`UNDO_WORDS`].
    pub(crate) fn undo_word(&self) -> usize {
        match &self.undo {
            Undo::None => 0,
            Undo::Waiting => 1,
            Undo::Active(Hand::Held) => 8,
            Undo::Active(Hand::Offered { .. }) => 2,
            Undo::Active(Hand::Leased { .. } | Hand::Child { .. }) => 3,
            Undo::Active(_) => 4,
            Undo::Blocked => 5,
            Undo::Done => 6,
            Undo::Marked => 7,
        }
    }
}

/// How many works stand where. Kept up to date by `Run::change`, so that nothing is ever counted by walking.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) forward: [u32; FORWARD_WORDS.len()],
    pub(crate) undo: [u32; UNDO_WORDS.len()],
    /// On offer, whatever the action.
    pub(crate) offered: u32,
    /// In a worker's hands, whatever the action.
    pub(crate) leased: u32,
    /// Waiting for a retry, whatever the action.
    pub(crate) backoff: u32,
    /// Unknown, and not undone.
    pub(crate) unknown: u32,
    /// The same with those that are still attempted or parked.
    pub(crate) doubtful: u32,
    /// Something was to be counted out that was not in it: what was folded contradicts itself.
    pub(crate) miscounted: bool,
}

impl Tally {
    /// Counts `work` in (`true`) or out.
    pub(crate) fn count(&mut self, work: &Work, in_or_out: bool) {
        let miscounted = &mut self.miscounted;
        let mut add = |slot: &mut u32| {
            let counted = if in_or_out { slot.checked_add(1) } else { slot.checked_sub(1) };
            *miscounted |= counted.is_none();
            *slot = counted.unwrap_or(*slot);
        };
        add(&mut self.forward[work.forward_word()]);
        add(&mut self.undo[work.undo_word()]);
        match work.current() {
            Some((_, Hand::Offered { .. })) => add(&mut self.offered),
            Some((_, Hand::Leased { .. })) => add(&mut self.leased),
            Some((_, Hand::Backoff { .. })) => add(&mut self.backoff),
            _ => {}
        }
        let doubtful = matches!(work.stage, Stage::SkippedByHand { .. }) && work.in_doubt();
        if (work.stage == Stage::Unknown || doubtful) && !work.undo.is_over() {
            add(&mut self.unknown);
        }
        if work.is_doubtful() {
            add(&mut self.doubtful);
        }
    }

    /// Undos that are not over: waiting, under way or blocked.
    pub(crate) fn undo_open(&self) -> u32 {
        self.undo[1..=5].iter().sum::<u32>() + self.undo[8]
    }

    /// Waiting for a signal.
    pub(crate) fn awaiting_signal(&self) -> u32 {
        self.forward[12]
    }

    /// Succeeded, or skipped by a person, which is as good for a join.
    pub(crate) fn done(&self) -> u32 {
        self.forward[6] + self.forward[9]
    }

    pub(crate) fn succeeded(&self) -> u32 {
        self.forward[6]
    }

    /// Failed or unknown.
    pub(crate) fn failed(&self) -> u32 {
        self.forward[7] + self.forward[8]
    }

    pub(crate) fn blocked(&self) -> u32 {
        self.undo[5]
    }

    /// Forward, waiting for a person.
    pub(crate) fn parked(&self) -> u32 {
        self.forward[5]
    }

    /// To be undone when their turn comes.
    pub(crate) fn undo_waiting(&self) -> u32 {
        self.undo[1]
    }

    /// Begun and not over, forward.
    pub(crate) fn active(&self) -> u32 {
        self.forward[1..=5].iter().chain(&self.forward[11..=14]).sum()
    }
}
