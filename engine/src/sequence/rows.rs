//! The rows that a run must have among others while it has not ended, as its journal says: its place in the line of a
//! serial key, the facts that it waits for, and those that it promises.

use backstitch_saga::protocol::Requirement;
use backstitch_saga::{Hold, HoldKind, Record, RequiredFact, Run, history};

use super::wanted::{WITHIN, produced, required};
use super::{required_by, unmet_hold};
use crate::store::rows::SequenceRows;

/// Returns the rows that a run must have. A run that had ended once has given its place back, and one that was started
/// for a later instant takes it when that has come.
pub(crate) fn expected(run: &Run, records: &[Record]) -> SequenceRows {
    let required = required(run);
    if (!run.is_sequenced() && required.is_empty())
        || history::was_over(records)
        || run.start_at().is_some()
    {
        return SequenceRows::default();
    }
    let key = history::serial_key(records).map(ToString::to_string);
    let waits = |hold: &Hold| hold.kind == HoldKind::KeyBlocked;
    let sequence = run.graph().definition.sequence.as_ref();
    let awaited = sorted(run.holds().filter_map(required_by).collect());
    let promised = sorted(produced(run));
    let known = |one: &RequiredFact| {
        (one.clone(), history::knows_withdrawn(&unmet_hold(&one.one), records))
    };
    let required: Vec<(RequiredFact, bool)> = required.iter().map(known).collect();
    let noted = [awaited.is_empty(), promised.is_empty(), required.is_empty()].contains(&false);
    SequenceRows {
        noted: key.is_some() || noted,
        key,
        has_key: !run.holds().any(waits),
        is_holder: !run.holds().any(waits),
        awaited,
        promised,
        required,
        within: sequence.and_then(|sequence| sequence.requires_within).unwrap_or(WITHIN),
    }
}

fn sorted(mut all: Vec<Requirement>) -> Vec<Requirement> {
    all.sort();
    all.dedup();
    all
}

/// Says which rows are missing, in words.
pub(crate) fn missing(expected: &SequenceRows, there: &SequenceRows) -> Vec<String> {
    let mut told = Vec::new();
    if expected.noted && !there.noted {
        told.push("sequenced has no line for it".to_owned());
    }
    if let Some(key) = &expected.key
        && there.key.as_ref() != Some(key)
    {
        told.push(format!("serial_keys has no place for it in the line of '{key}'"));
    } else if expected.has_key && expected.key.is_some() && !there.has_key {
        told.push("serial_keys says that it waits, and it moves".to_owned());
    } else if expected.is_holder && expected.key.is_some() && !there.is_holder {
        told.push("serial_key_holders has no line for it, and it holds its key".to_owned());
    }
    for one in expected.awaited.iter().filter(|one| !there.awaited.contains(one)) {
        told.push(format!("awaited has no line for {} on '{}'", one.fact, one.on));
    }
    for one in expected.promised.iter().filter(|one| !there.promised.contains(one)) {
        told.push(format!("promised has no line for {} on '{}'", one.fact, one.on));
    }
    for (one, _) in &expected.required {
        if !there.required.iter().any(|(other, _)| other == one) {
            let Requirement { fact, on } = &one.one;
            told.push(format!("required has no such line for {fact} on '{on}'"));
        }
    }
    told
}
