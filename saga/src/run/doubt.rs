//! Finds the effects in doubt of a run. Read-only.

use super::Run;
use super::state::{Activity, BodyState, Stage};

impl Activity {
    /// Returns whether it may have happened, is unverified, and is not undone.
    pub(crate) fn is_doubtful(&self) -> bool {
        let may = match &self.stage {
            Stage::Unknown => true,
            Stage::Active(..) | Stage::Parked | Stage::SkippedByHand { .. } => self.in_doubt(),
            _ => false,
        };
        may && !self.undo.is_over()
    }
}

impl Run {
    /// Returns the systems in which something of this run may have happened and is not undone, sorted. A system is
    /// known by the queue on which the step's tasks are offered.
    #[must_use]
    pub fn unknown_in(&self) -> Vec<&str> {
        if self.tally.doubtful == 0 && self.header.dropped.is_empty() {
            return Vec::new();
        }
        let in_doubt = |step: &usize| {
            let doubtful = match &self.steps[*step].body {
                BodyState::Task(work) => work.is_doubtful(),
                BodyState::Map(items) => items.tally.doubtful > 0,
            };
            doubtful && self.has_effects(*step)
        };
        let steps = (0..self.steps.len()).filter(in_doubt);
        let queues = steps.map(|step| self.spec(step).queue.as_str());
        let mut queues: Vec<&str> = queues.chain(self.dropped_in_doubt()).collect();
        queues.sort_unstable();
        queues.dedup();
        queues
    }
}
