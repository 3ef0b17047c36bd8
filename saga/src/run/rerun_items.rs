//! Executes the failed items of a fan-out once more: items that succeeded keep their results, the others are retried,
//! and the run goes on from the join.

use super::Run;
use super::decide::TransitionBuilder;
use super::state::{Activity, MapStage, Stage, TaskState, Undo, WorkIndex};
use crate::{Action, Refusal, RefusalCode, Time};

impl Activity {
    /// Returns whether an item was begun and has no lasting success: it failed, is in doubt, was given up or
    /// was undone.
    fn has_failed(&self) -> bool {
        let stands = matches!(self.stage, Stage::Succeeded(_) | Stage::SkippedByHand { .. });
        self.has_input() && (!stands || self.undo != Undo::None)
    }

    /// Makes it wait for a next attempt, with its former input. If it may have happened it keeps its effect key, as
    /// with any other attempt; if it did not happen or was undone, it gets another.
    fn retry_anew(&mut self, at: Time) {
        let (input, doubt) = (self.input.take(), self.in_doubt() && !self.undo.is_over());
        let shared = self.shared.take();
        self.begin_anew();
        (self.input, self.shared) = (input, shared);
        self.tries.since = at;
        self.tries.anew = false;
        self.tries.edition += u32::from(!doubt);
        if let Some(aside) = &mut self.aside {
            aside.doubt = doubt;
            aside.undo.edition += 1;
        }
        self.stage = Stage::Active(Action::Forward, TaskState::Backoff { until: at });
    }
}

impl Run {
    /// Returns the number of items of a fan-out that would be executed again: those that failed, and those that
    /// were never begun.
    pub(super) fn items_to_retry(&self, step: usize) -> u32 {
        let Some(items) = self.items_of(step) else { return 0 };
        let failed = items.works.iter().filter(|work| work.has_failed()).count();
        let never = items.works.len().saturating_sub(items.next as usize);
        u32::try_from(failed + never).unwrap_or(u32::MAX)
    }

    /// Checks that the failed items of a fan-out can be executed again by themselves.
    pub(super) fn check_failed_items(&self, step: usize) -> Result<(), Refusal> {
        let id = &self.graph.nodes[step].id;
        let refused = |message: String| Err(Refusal::new(RefusalCode::NothingToRetry, message));
        let Some(items) = self.items_of(step) else {
            return refused(format!(
                "'{id}' is no fan-out, so it has no items; rerun it as a whole"
            ));
        };
        match items.stage {
            MapStage::Waiting | MapStage::Skipped => {
                return refused(format!("'{id}' has not been begun, so none of its items failed"));
            }
            MapStage::Open => {
                return refused(format!(
                    "'{id}' is under way: its failed items can be executed again once it has joined"
                ));
            }
            MapStage::Succeeded | MapStage::Failed | MapStage::Cancelled => {}
        }
        if self.items_to_retry(step) == 0 {
            return refused(format!("all items of '{id}' succeeded"));
        }
        let mut before = vec![false; self.steps.len()];
        let mut open = self.graph.nodes[step].needs.clone();
        while let Some(need) = open.pop() {
            if !std::mem::replace(&mut before[need], true) {
                open.extend(&self.graph.nodes[need].needs);
            }
        }
        match self.to_rerun(step).into_iter().find(|&again| before[again]) {
            Some(first) => refused(format!(
                "'{}', on which '{id}' depends, is to be done again too: rerun from there",
                self.graph.nodes[first].id
            )),
            None => Ok(()),
        }
    }

    /// Returns whether the items of `step` keep their results in the requested rerun.
    pub(super) fn keeps_items_of(&self, step: usize) -> bool {
        self.header.rerun.as_ref().is_some_and(|rerun| rerun.only_failed && rerun.from == step)
    }

    /// Opens a fan-out again over the same items: those that did not succeed wait for their next attempt.
    pub(super) fn reopen(&mut self, step: usize, at: Time) {
        let Some(items) = self.items_mut(step) else { return };
        (items.stage, items.error, items.undo_next) = (MapStage::Open, None, 0);
        items.due_without_place.clear();
        let failed = |place: &WorkIndex| self.work(*place).is_some_and(Activity::has_failed);
        let places: Vec<WorkIndex> = self.places_of(step).filter(failed).collect();
        for place in places {
            self.change(place, |work| work.retry_anew(at));
        }
    }
}

impl TransitionBuilder<'_> {
    /// Puts the items that wait for their next attempt on offer, as far as there are places.
    pub(super) fn offer_again(&mut self, step: usize) {
        let waits = |place: &WorkIndex| {
            let current = self.work(*place).and_then(Activity::current);
            matches!(current, Some((Action::Forward, TaskState::Backoff { .. })))
        };
        let places: Vec<WorkIndex> = self.run.places_of(step).filter(waits).collect();
        for place in places {
            self.due_now(place);
        }
        self.fill(step);
    }
}
