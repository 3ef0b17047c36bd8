//! The effects of a rehearsed run as the world has them. It knows nothing of the run but which step asked.

use std::collections::BTreeMap;

use crate::StepPath;

/// Effects that were made and undone. A target deduplicates on the effect key, so an effect exists or it
/// does not.
#[derive(Clone, Debug, Default)]
pub(super) struct Ledger {
    effects: BTreeMap<StepPath, bool>,
}

impl Ledger {
    /// Notes the effect of a step.
    pub(super) fn made(&mut self, step: &StepPath) {
        self.effects.insert(step.clone(), true);
    }

    /// Notes that it is undone, or was never there.
    pub(super) fn undone(&mut self, step: &StepPath) {
        self.effects.insert(step.clone(), false);
    }

    pub(super) fn stands(&self, step: &StepPath) -> bool {
        self.effects.get(step).copied().unwrap_or_default()
    }

    /// Returns all places with an existing effect.
    pub(super) fn standing(&self) -> impl Iterator<Item = &StepPath> {
        self.effects.iter().filter(|(_, stands)| **stands).map(|(step, _)| step)
    }
}
