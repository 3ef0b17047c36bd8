//! Effects of handlers, as seen from outside: the engine does not know this ledger.

use std::fmt;

use backstitch_saga::protocol::{TaskOffer, TaskOutcome};
use backstitch_saga::{Action, StepPath};
use uuid::Uuid;

/// One call of a handler.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The step or item.
    pub step: StepPath,
    /// The action.
    pub action: Action,
    /// The attempt number.
    pub attempt: u32,
    /// The key of its effect.
    pub effect_key: Uuid,
    /// Nothing when it went well, else the error's code.
    pub error: Option<String>,
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} #{}", self.short(), self.attempt)?;
        self.error.iter().try_for_each(|code| write!(f, ": {code}"))
    }
}

impl Call {
    /// Returns the task in words: `payment`, `undo payment`, `verify payment`.
    #[must_use]
    pub fn short(&self) -> String {
        match self.action {
            Action::Forward => self.step.to_string(),
            Action::Verify => format!("verify {}", self.step),
            Action::Compensate => format!("undo {}", self.step),
        }
    }
}

/// Calls of handlers, and the remaining effects.
#[derive(Default)]
pub(super) struct World {
    pub(super) calls: Vec<Call>,
    standing: Vec<(Uuid, StepPath)>,
}

impl World {
    /// Notes a call. Targets are taken to deduplicate on the effect key.
    pub(super) fn called(&mut self, offer: &TaskOffer, outcome: &TaskOutcome, has_effect: bool) {
        let error = match outcome {
            TaskOutcome::Succeeded { .. } => None,
            TaskOutcome::Failed(failure) => Some(failure.code.clone()),
            TaskOutcome::DoneWithoutOutput { code, .. } => Some(code.clone()),
        };
        if !matches!(outcome, TaskOutcome::Failed(_)) {
            match offer.action {
                Action::Forward if has_effect => self.stands(offer),
                Action::Compensate => {
                    self.standing.retain(|(key, _)| Some(*key) != offer.forward_key);
                }
                Action::Forward | Action::Verify => {}
            }
        }
        self.calls.push(Call {
            step: offer.step.clone(),
            action: offer.action,
            attempt: offer.attempt,
            effect_key: offer.effect_key,
            error,
        });
    }

    fn stands(&mut self, offer: &TaskOffer) {
        if self.standing.iter().all(|(key, _)| *key != offer.effect_key) {
            self.standing.push((offer.effect_key, offer.step.clone()));
        }
    }

    pub(super) fn standing(&self) -> Vec<StepPath> {
        self.standing.iter().map(|(_, step)| step.clone()).collect()
    }
}
