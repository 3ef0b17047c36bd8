//! Words of a view for the states of steps, compensations and effects.

use std::collections::BTreeMap;

use super::may_have_happened;
use super::state::{Activity, Stage, TaskState, Undo};
use super::tally::{ForwardState, Tally};
use crate::Action;
use crate::protocol::CompensationState;

/// Returns non-zero counts by word.
pub(super) fn words(tally: &Tally, over: bool) -> BTreeMap<String, u32> {
    let mut words = BTreeMap::new();
    for state in ForwardState::ALL.into_iter().filter(|state| tally.forward(*state) > 0) {
        let shown =
            if state == ForwardState::Waiting && over { ForwardState::Cancelled } else { state };
        *words.entry(shown.as_str().to_owned()).or_default() += tally.forward(state);
    }
    words
}

pub(super) fn compensation_word(undo: &Undo) -> Option<CompensationState> {
    let word = match undo {
        Undo::None => return None,
        Undo::Waiting | Undo::Active(_) => CompensationState::Compensating,
        Undo::Blocked => CompensationState::Blocked,
        Undo::Done => CompensationState::Compensated,
        Undo::Marked => CompensationState::CompensatedByHand,
    };
    Some(word)
}

pub(super) fn effect_word(work: &Activity) -> &'static str {
    match (&work.stage, work.undo.is_over()) {
        (_, true) => "reverted",
        (Stage::Succeeded(_), false) => "applied",
        (
            Stage::Active(Action::Forward, TaskState::Leased { .. } | TaskState::Child { .. }),
            false,
        ) if !work.in_doubt() => "in_flight",
        _ if may_have_happened(work) => "unknown",
        _ => "not_applied",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::protocol::StepState;

    #[test]
    fn every_word_of_a_step_is_a_state_that_clients_know() {
        for word in ForwardState::ALL.map(ForwardState::as_str) {
            assert!(!matches!(StepState::from(word), StepState::Other(_)), "{word}");
        }
    }
}
