//! The words by which a view tells how steps, compensations and effects stand.

use std::collections::BTreeMap;

use super::may_have_happened;
use super::state::{Hand, Stage, Undo, Work};
use super::tally::{FORWARD_WORDS, Tally};
use crate::Action;
use crate::protocol::CompensationState;

/// Non-zero counts by word.
pub(super) fn words(tally: &Tally, over: bool) -> BTreeMap<String, u32> {
    let mut words = BTreeMap::new();
    for (position, &count) in tally.forward.iter().enumerate().filter(|(_, count)| **count > 0) {
        let word = if position == 0 && over { "cancelled" } else { FORWARD_WORDS[position] };
        *words.entry(word.to_owned()).or_default() += count;
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

pub(super) fn effect_word(work: &Work) -> &'static str {
    match (&work.stage, work.undo.is_over()) {
        (_, true) => "reverted",
        (Stage::Succeeded(_), false) => "applied",
        (Stage::Active(Action::Forward, Hand::Leased { .. } | Hand::Child { .. }), false)
            if !work.in_doubt() =>
        {
            "in_flight"
        }
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
        for word in FORWARD_WORDS {
            assert!(!matches!(StepState::from(word), StepState::Other(_)), "{word}");
        }
    }
}
