//! Words of a view for the states of steps. Words of newer servers that this version does not know are kept.

use std::fmt;
use std::ops::Deref;

use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An enumeration of words that stays open: a word that it does not know is kept as it came.
macro_rules! open_words {
    ($(#[$doc:meta])* $name:ident { $($(#[$of:meta])* $variant:ident = $word:literal,)* }) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum $name {
            $($(#[$of])* $variant,)*
            /// A word that this version does not know.
            Other(String),
        }

        impl $name {
            /// All words that this version knows.
            pub const WORDS: &'static [&'static str] = &[$($word,)*];

            /// Returns the word used in JSON.
            #[must_use]
            pub fn as_str(&self) -> &str {
                match self {
                    $($name::$variant => $word,)*
                    $name::Other(word) => word,
                }
            }
        }

        impl From<&str> for $name {
            fn from(word: &str) -> $name {
                match word {
                    $($word => $name::$variant,)*
                    other => $name::Other(other.to_owned()),
                }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(self.as_str())
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                self.as_str()
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, word: &str) -> bool {
                self.as_str() == word
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, word: &&str) -> bool {
                self.as_str() == *word
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(self.as_str())
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let word = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
                Ok($name::from(&*word))
            }
        }
    };
}

open_words! {
    /// State of a step or item, forward.
    StepState {
        /// It has not begun.
        Waiting = "waiting",
        /// It could begin, and the run is held.
        Held = "held",
        /// A task is on offer.
        Offered = "offered",
        /// A worker has it.
        Leased = "leased",
        /// It waits for its next attempt.
        Backoff = "backoff",
        /// An attempt in doubt is being verified.
        Verifying = "verifying",
        /// It waits for a signal.
        AwaitingSignal = "awaiting_signal",
        /// It waits for time to pass.
        Sleeping = "sleeping",
        /// The run that it is has not ended.
        ChildRunning = "child_running",
        /// A map whose items are not all settled.
        Open = "open",
        /// A person must decide.
        Parked = "parked",
        /// It succeeded.
        Succeeded = "succeeded",
        /// It failed, and nothing happened.
        Failed = "failed",
        /// It ended in doubt: it may have happened.
        Unknown = "unknown",
        /// It was not to be done.
        Skipped = "skipped",
        /// It was not begun, and its turn cannot come any more.
        Cancelled = "cancelled",
    }
}

open_words! {
    /// State of the undoing of a step or item.
    CompensationState {
        /// It is to be undone, or is being undone.
        Compensating = "compensating",
        /// Undoing needs a person.
        Blocked = "compensation_blocked",
        /// It is undone.
        Compensated = "compensated",
        /// A person vouched that it is undone.
        CompensatedByHand = "compensated_by_hand",
    }
}

open_words! {
    /// Kind of a step.
    StepKind {
        /// A task that a worker does.
        Task = "task",
        /// A fan-out over a list.
        Map = "map",
        /// An item of a map.
        Item = "item",
        /// A wait for a signal.
        Wait = "wait",
        /// A wait for time to pass.
        Sleep = "sleep",
        /// A run of another workflow.
        Child = "child",
        /// A failure on purpose.
        Fail = "fail",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_known_word_is_a_variant_and_one_that_is_not_known_is_kept() {
        let known: StepState = serde_json::from_str("\"child_running\"").unwrap();
        assert_eq!(known, StepState::ChildRunning);
        assert_eq!(serde_json::to_string(&known).unwrap(), "\"child_running\"");
        let state: StepState = serde_json::from_str("\"dreaming\"").unwrap();
        assert_eq!(state, StepState::Other("dreaming".to_owned()));
        assert_eq!(serde_json::to_string(&state).unwrap(), "\"dreaming\"");
        assert_eq!(CompensationState::from("compensation_blocked"), CompensationState::Blocked);
        assert_eq!(format!("{:>6}|", StepKind::Task), "  task|");
    }
}
