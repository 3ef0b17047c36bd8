//! Open effects of a run: those that remain and are to be undone by a run with an open incident, that were left behind,
//! or that may have happened. Read-only.

use super::state::BodyState;
use super::{Mode, Run};

/// Effects of one step that are open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OpenEffects {
    /// The step.
    pub step: String,
    /// The queue on which its tasks are offered, by which the system is known.
    pub system: String,
    /// Number of its effects that remain and are to be undone, or were left by a run that failed.
    pub standing: u32,
    /// Number of its effects that may have happened and are not undone.
    pub unknown: u32,
}

impl Run {
    /// Returns the effects that are open, by step, in the order of the definition. A run that ended with a clean
    /// outcome has none, nor has one that undoes what it did without an incident: that is on its way, and would cost
    /// each undone step a row.
    #[must_use]
    pub fn open_effects(&self) -> Vec<OpenEffects> {
        let ended = self.header.outcome.filter(|_| self.header.mode == Mode::Ended);
        let has_output = self.header.output.is_some();
        let all = ended.is_some_and(|outcome| self.leaves_all(outcome, has_output));
        let (tally, troubled) = (&self.tally, !self.header.incidents.is_empty());
        let is_undoing = ended.is_none() && troubled && tally.to_undo > 0;
        let dropped = self.dropped_effects(all);
        if !all && tally.doubtful == 0 && !is_undoing && self.header.dropped.is_empty() {
            return Vec::new();
        }
        let open = |step: usize| {
            let spec = self.spec(step);
            if !self.has_effects(step) {
                return None;
            }
            let (standing, unknown) = match ended {
                Some(_) => self.count_left(step, all),
                None => self.count_open(step, troubled),
            };
            let (step, system) = (self.graph.nodes[step].id.to_string(), spec.queue.clone());
            (standing + unknown > 0).then_some(OpenEffects { step, system, standing, unknown })
        };
        (0..self.steps.len()).filter_map(open).chain(dropped).collect()
    }

    /// Counts the open effects of a step while the run proceeds.
    fn count_open(&self, step: usize, troubled: bool) -> (u32, u32) {
        let (to_undo, doubtful) = match &self.steps[step].body {
            BodyState::Task(work) if work.is_doubtful() => (0, 1),
            BodyState::Task(work) => (u32::from(work.undo.is_open()), 0),
            BodyState::Map(items) => (items.tally.to_undo, items.tally.doubtful),
        };
        (if troubled { to_undo } else { 0 }, doubtful)
    }
}
