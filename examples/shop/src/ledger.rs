//! The ledger of a service: every effect it had, in order, and the rules that make asking twice harmless. Pure: it
//! knows no network and no file, and time comes in as an argument.
//!
//! Each effect has a key, chosen by the caller. The ledger keeps three promises about it:
//!
//! 1. The same key has its effect once; asking again gives the same answer.
//! 2. Undoing a key twice undoes it once.
//! 3. Undoing a key that never arrived *revokes* it: should the forward request arrive later after all, it is refused.
//!
//! The third is what makes it safe to undo an effect of which one only knows that it may have happened.

use std::collections::HashMap;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::effect::Effect;

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Entry {
    /// From 1, without gaps.
    pub seq: u64,
    /// When, in milliseconds since the Unix epoch.
    pub at: u64,
    /// For which order.
    pub order: String,
    /// The key of the effect; for undos the key of what they undo.
    pub key: Uuid,
    /// The recorded fact.
    #[serde(flatten)]
    pub fact: Fact,
}

/// A fact that an entry records.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fact {
    /// The effect happened.
    Done {
        /// The effect.
        effect: Effect,
        /// The service's number of the effect.
        receipt: String,
    },
    /// The effect was undone.
    Undone {
        /// The key of the undo.
        undo_key: Uuid,
    },
    /// The effect had not arrived when it was to be undone, and never will.
    Revoked {
        /// The key of the undo.
        undo_key: Uuid,
    },
}

/// State of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing<'a> {
    /// Never seen.
    New,
    /// The effect stands.
    Done {
        /// The effect.
        effect: &'a Effect,
        /// The service's number of the effect.
        receipt: &'a str,
    },
    /// It was done and undone.
    Undone {
        /// The effect.
        effect: &'a Effect,
    },
    /// It was undone before it arrived.
    Revoked,
}

#[derive(Clone, Copy, Debug)]
enum Mark {
    /// Done by the entry at this index.
    Done(usize),
    /// Done by the entry at this index, and undone since.
    Undone(usize),
    Revoked,
}

/// Every effect of one service, in order.
#[derive(Debug)]
pub struct Ledger {
    receipt_prefix: &'static str,
    entries: Vec<Entry>,
    marks: HashMap<Uuid, Mark>,
}

impl Ledger {
    /// Returns an empty ledger whose receipts begin with `receipt_prefix`.
    #[must_use]
    pub fn new(receipt_prefix: &'static str) -> Ledger {
        Ledger { receipt_prefix, entries: Vec::new(), marks: HashMap::new() }
    }

    /// Returns all entries, in order.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Returns the state of `key`.
    #[must_use]
    pub fn standing(&self, key: Uuid) -> Standing<'_> {
        let done = |index: usize| match self.entries.get(index).map(|entry| &entry.fact) {
            Some(Fact::Done { effect, receipt }) => Some((effect, receipt.as_str())),
            _ => None,
        };
        match self.marks.get(&key) {
            None => Standing::New,
            Some(Mark::Done(index)) => match done(*index) {
                Some((effect, receipt)) => Standing::Done { effect, receipt },
                None => Standing::New,
            },
            Some(Mark::Undone(index)) => match done(*index) {
                Some((effect, _)) => Standing::Undone { effect },
                None => Standing::Revoked,
            },
            Some(Mark::Revoked) => Standing::Revoked,
        }
    }

    /// Records that `effect` happens now under a new `key`, and answers its receipt. A key that is not new is left
    /// as it is: ask [`Ledger::standing`] first.
    pub fn record(&mut self, at: u64, order: &str, key: Uuid, effect: Effect) -> String {
        let receipt = format!("{}-{:06}", self.receipt_prefix, self.entries.len() + 1);
        self.append(at, order, key, Fact::Done { effect, receipt: receipt.clone() });
        receipt
    }

    /// Undoes `key`, or revokes it when it never arrived. Returns the effect that was undone by this very call.
    pub fn undo(&mut self, at: u64, order: &str, key: Uuid, undo_key: Uuid) -> Option<Effect> {
        match self.standing(key) {
            Standing::Done { effect, .. } => {
                let undone = effect.clone();
                self.append(at, order, key, Fact::Undone { undo_key });
                Some(undone)
            }
            Standing::New => {
                self.append(at, order, key, Fact::Revoked { undo_key });
                None
            }
            Standing::Undone { .. } | Standing::Revoked => None,
        }
    }

    /// Takes up an entry that was written before, as when a service starts again.
    ///
    /// # Errors
    /// When the entry does not follow from those before it: a gap, a second effect for one key, an undo of nothing.
    pub fn restore(&mut self, entry: Entry) -> Result<(), String> {
        let expected = self.entries.len() as u64 + 1;
        if entry.seq != expected {
            return Err(format!("entry {} stands where {expected} should", entry.seq));
        }
        let follows = matches!(
            (&entry.fact, self.standing(entry.key)),
            (Fact::Done { .. } | Fact::Revoked { .. }, Standing::New)
                | (Fact::Undone { .. }, Standing::Done { .. })
        );
        if !follows {
            return Err(format!(
                "entry {} does not follow from those before it (key {})",
                entry.seq, entry.key
            ));
        }
        self.push(entry);
        Ok(())
    }

    fn append(&mut self, at: u64, order: &str, key: Uuid, fact: Fact) {
        let seq = self.entries.len() as u64 + 1;
        self.push(Entry { seq, at, order: order.to_owned(), key, fact });
    }

    fn push(&mut self, entry: Entry) {
        let mark = match (&entry.fact, self.marks.get(&entry.key)) {
            (Fact::Done { .. }, _) => Mark::Done(self.entries.len()),
            (Fact::Undone { .. }, Some(Mark::Done(index))) => Mark::Undone(*index),
            (Fact::Undone { .. } | Fact::Revoked { .. }, _) => Mark::Revoked,
        };
        self.marks.insert(entry.key, mark);
        self.entries.push(entry);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::effect::Reserve;

    const KEY: Uuid = Uuid::from_u128(1);
    const UNDO: Uuid = Uuid::from_u128(2);

    fn tea() -> Effect {
        Effect::Reserve(Reserve { sku: "TEA".to_owned(), quantity: 2 })
    }

    #[test]
    fn an_effect_stands_under_its_key() {
        let mut ledger = Ledger::new("R");
        assert_eq!(ledger.standing(KEY), Standing::New);
        let receipt = ledger.record(7, "A-1", KEY, tea());
        assert_eq!(receipt, "R-000001");
        assert_eq!(ledger.standing(KEY), Standing::Done { effect: &tea(), receipt: "R-000001" });
    }

    #[test]
    fn undoing_twice_undoes_once() {
        let mut ledger = Ledger::new("R");
        ledger.record(1, "A-1", KEY, tea());
        assert_eq!(ledger.undo(2, "A-1", KEY, UNDO), Some(tea()));
        assert_eq!(ledger.undo(3, "A-1", KEY, UNDO), None);
        assert_eq!(ledger.entries().len(), 2);
        assert_eq!(ledger.standing(KEY), Standing::Undone { effect: &tea() });
    }

    #[test]
    fn undoing_what_never_arrived_leaves_a_tombstone_once() {
        let mut ledger = Ledger::new("R");
        assert_eq!(ledger.undo(1, "A-1", KEY, UNDO), None);
        assert_eq!(ledger.undo(2, "A-1", KEY, UNDO), None);
        assert_eq!(ledger.standing(KEY), Standing::Revoked);
        assert_eq!(ledger.entries().len(), 1);
    }

    #[test]
    fn a_restored_ledger_stands_as_the_one_that_was_written() {
        let mut ledger = Ledger::new("R");
        let other = Uuid::from_u128(9);
        ledger.record(1, "A-1", KEY, tea());
        ledger.undo(2, "A-1", KEY, UNDO);
        ledger.undo(3, "A-2", other, UNDO);
        let mut restored = Ledger::new("R");
        for entry in ledger.entries() {
            let line = serde_json::to_string(entry).unwrap();
            restored.restore(serde_json::from_str(&line).unwrap()).unwrap();
        }
        assert_eq!(restored.entries(), ledger.entries());
        assert_eq!(restored.standing(KEY), Standing::Undone { effect: &tea() });
        assert_eq!(restored.standing(other), Standing::Revoked);
    }

    #[test]
    fn a_ledger_that_contradicts_itself_is_not_restored() {
        let mut ledger = Ledger::new("R");
        ledger.record(1, "A-1", KEY, tea());
        let first = ledger.entries()[0].clone();
        let again = Entry { seq: 2, ..first.clone() };
        let undo_of_nothing =
            Entry { seq: 1, fact: Fact::Undone { undo_key: UNDO }, ..first.clone() };

        assert!(Ledger::new("R").restore(Entry { seq: 2, ..first.clone() }).is_err(), "a gap");
        assert!(Ledger::new("R").restore(undo_of_nothing).is_err(), "an undo of nothing");
        let mut restored = Ledger::new("R");
        restored.restore(first).unwrap();
        assert!(restored.restore(again).is_err(), "one key, two effects");
    }
}
