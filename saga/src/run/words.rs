//! The words by which a view tells how steps, compensations and effects stand.

use std::collections::BTreeMap;

use super::may_have_happened;
use super::state::{Hand, Stage, Undo, Work};
use super::tally::{FORWARD_WORDS, Tally, UNDO_WORDS};
use crate::Action;

/// Non-zero counts by word.
pub(super) fn words(tally: &Tally, over: bool) -> BTreeMap<String, u32> {
    let mut words = BTreeMap::new();
    for (position, &count) in tally.forward.iter().enumerate().filter(|(_, count)| **count > 0) {
        let word = if position == 0 && over { "cancelled" } else { FORWARD_WORDS[position] };
        *words.entry(word.to_owned()).or_default() += count;
    }
    words
}

pub(super) fn compensation_word(undo: &Undo) -> Option<String> {
    let word = match undo {
        Undo::None => return None,
        Undo::Waiting | Undo::Active(_) => "compensating",
        Undo::Blocked => "compensation_blocked",
        Undo::Done => UNDO_WORDS[6],
        Undo::Marked => UNDO_WORDS[7],
    };
    Some(word.to_owned())
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
