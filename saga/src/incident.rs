//! Kinds of incidents.

use serde::{Deserialize, Serialize};

/// The kind of an incident, which needs a person.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum IncidentKind {
    /// A step's retries are exhausted.
    TaskExhausted,
    /// A step may have happened, and nothing can determine it.
    TaskUnknown,
    /// A step, or its verification, is put off repeatedly by failures that do not count as attempts; it goes
    /// on.
    TaskSlow,
    /// Undoing takes longer than it should; it goes on.
    CompensationSlow,
    /// Undoing failed for good.
    CompensationBlocked,
    /// The run took longer than allowed.
    DeadlineMissed,
    /// One worker after the other was lost over a task.
    Poison,
    /// A fact that the run requires was not established in time.
    DependencyUnmet,
    /// A fact upon which the run began was withdrawn.
    DependencyWithdrawn,
    /// Nothing would ever move the run.
    RunStuck,
    /// A run has ended, and an effect of it remains, or may remain.
    EffectsLeft,
    /// The journal of the run cannot be read. Only the index has this incident, no journal does.
    JournalDamaged,
}

impl IncidentKind {
    /// The words of all kinds, as in JSON and in the index.
    pub const WORDS: &'static [&'static str] = &[
        IncidentKind::TaskExhausted.as_str(),
        IncidentKind::TaskUnknown.as_str(),
        IncidentKind::TaskSlow.as_str(),
        IncidentKind::CompensationSlow.as_str(),
        IncidentKind::CompensationBlocked.as_str(),
        IncidentKind::DeadlineMissed.as_str(),
        IncidentKind::Poison.as_str(),
        IncidentKind::DependencyUnmet.as_str(),
        IncidentKind::DependencyWithdrawn.as_str(),
        IncidentKind::RunStuck.as_str(),
        IncidentKind::EffectsLeft.as_str(),
        IncidentKind::JournalDamaged.as_str(),
    ];

    /// Returns the word used in JSON and in the index.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            IncidentKind::TaskExhausted => "task_exhausted",
            IncidentKind::TaskUnknown => "task_unknown",
            IncidentKind::TaskSlow => "task_slow",
            IncidentKind::CompensationSlow => "compensation_slow",
            IncidentKind::CompensationBlocked => "compensation_blocked",
            IncidentKind::DeadlineMissed => "deadline_missed",
            IncidentKind::Poison => "poison",
            IncidentKind::DependencyUnmet => "dependency_unmet",
            IncidentKind::DependencyWithdrawn => "dependency_withdrawn",
            IncidentKind::RunStuck => "run_stuck",
            IncidentKind::EffectsLeft => "effects_left",
            IncidentKind::JournalDamaged => "journal_damaged",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_has_its_word_and_no_word_is_left() {
        let read = |word: &&str| serde_json::from_str::<IncidentKind>(&format!("{word:?}"));
        let kinds: Result<Vec<IncidentKind>, _> = IncidentKind::WORDS.iter().map(read).collect();
        let mut kinds = kinds.unwrap();
        kinds.sort_unstable();
        kinds.dedup();
        assert_eq!(kinds.len(), IncidentKind::WORDS.len());
        // The last of the enumeration: a kind that is added after it needs its word.
        assert_eq!(kinds.len(), IncidentKind::JournalDamaged as usize + 1);
    }
}
