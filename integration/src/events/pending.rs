//! Pending events, which a subscription has taken up and not finished: their order per key, and the consequences of the end of a
//! run for the events behind it.

use std::collections::HashSet;

use backstitch_saga::protocol::Outcome;
use sha2::{Digest, Sha256};

use crate::document::{Pointer, Value};

/// The most bytes of a key; of a longer one its digest is the key.
pub const LONGEST_KEY: usize = 200;

/// Origin of the key of an event.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Its stream.
    Stream,
    /// A value of its data.
    Data(Pointer),
}

impl KeySource {
    /// Reads `stream` or a JSON Pointer.
    ///
    /// # Errors
    /// A message for people.
    pub fn parse(text: &str) -> Result<KeySource, String> {
        match text {
            "stream" => Ok(KeySource::Stream),
            "" => Err("a key is 'stream' or a JSON Pointer into the data".to_owned()),
            text => Pointer::parse(text).map(KeySource::Data).map_err(|why| {
                format!("a key is 'stream' or a JSON Pointer into the data; as the latter, {why}")
            }),
        }
    }

    /// Returns the key of an event; `None` if it has no value there, and so no order with others.
    #[must_use]
    pub fn key(&self, stream: Option<&str>, data: Option<&Value>) -> Option<String> {
        let text = match self {
            KeySource::Stream => stream?.to_owned(),
            KeySource::Data(place) => match place.find(data?)? {
                Value::Null => return None,
                Value::String(text) => text.clone(),
                other => other.canonical(),
            },
        };
        let fits = text.len() <= LONGEST_KEY && !text.chars().any(char::is_control);
        Some(if fits {
            text
        } else {
            let digest = Sha256::digest(text.as_bytes());
            let hexadecimal: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
            format!("sha256:{hexadecimal}")
        })
    }
}

/// Action when a run of a subscription fails or needs a person.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// The events of its key wait.
    #[default]
    BlockKey,
    /// The event is passed over.
    Skip,
    /// All events wait.
    StopAll,
}

/// State of a pending event that was started or refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its run has not ended.
    Moves,
    /// Its run has not ended, and an incident is open.
    NeedsPerson,
    /// Its run has ended.
    Ended(Outcome),
    /// Its run is not there any more, or never was one of its own.
    Gone,
    /// Its start is refused.
    Refused,
}

impl Standing {
    /// Returns how a run stands, by its outcome once it has ended.
    #[must_use]
    pub fn of(is_there: bool, outcome: Option<Outcome>, incident: bool) -> Standing {
        match outcome {
            _ if !is_there => Standing::Gone,
            Some(outcome) => Standing::Ended(outcome),
            None if incident => Standing::NeedsPerson,
            None => Standing::Moves,
        }
    }
}

/// Reason why an event was passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum SkipReason {
    /// It is trusted less than the filter asks for.
    TrustBelowMinimum,
    /// A person said so.
    ByHand,
    /// Its start is refused.
    StartRefused,
    /// Its run has failed.
    RunFailed,
    /// Its run waits for a person.
    RunParked,
    /// A person cancelled its run before it had an effect.
    RunCancelled,
}

impl SkipReason {
    /// Its name, as it is kept and shown.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            SkipReason::TrustBelowMinimum => "trust_below_minimum",
            SkipReason::ByHand => "by_hand",
            SkipReason::StartRefused => "start_refused",
            SkipReason::RunFailed => "run_failed",
            SkipReason::RunParked => "run_parked",
            SkipReason::RunCancelled => "run_cancelled",
        }
    }
}

/// Consequence for a pending event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Judgement {
    /// It stays as it is.
    Keep,
    /// It is dealt with: the next of its key has its turn.
    Done,
    /// It is passed over: the next of its key has its turn.
    Skip(SkipReason),
    /// It is in the way of those behind it, for this reason.
    Block(SkipReason),
    /// It is so no longer.
    Unblock,
}

/// Decides the consequence for a pending event.
#[must_use]
pub fn judge(on_failure: OnFailure, blocked: bool, standing: Standing) -> Judgement {
    let failed = |reason| match (on_failure, blocked) {
        (OnFailure::Skip, _) => Judgement::Skip(reason),
        (_, true) => Judgement::Keep,
        (_, false) => Judgement::Block(reason),
    };
    match standing {
        Standing::Moves if blocked => Judgement::Unblock,
        Standing::Moves => Judgement::Keep,
        Standing::NeedsPerson => failed(SkipReason::RunParked),
        Standing::Refused => failed(SkipReason::StartRefused),
        Standing::Ended(Outcome::Succeeded | Outcome::PartiallyCompleted) => Judgement::Done,
        Standing::Ended(Outcome::Cancelled) => Judgement::Skip(SkipReason::RunCancelled),
        Standing::Ended(
            Outcome::FailedClean
            | Outcome::FailedDirty
            | Outcome::Compensated
            | Outcome::CompensatedWithManualSteps,
        ) => failed(SkipReason::RunFailed),
        // What became of a blocked one is not known any more, so it goes on only when a person says so.
        Standing::Gone if blocked => Judgement::Keep,
        Standing::Gone => Judgement::Done,
    }
}

/// Says of each new event, in their order, whether it may start at once: unless an earlier one has its key.
#[must_use]
pub fn place(mut occupied: HashSet<String>, keys: &[Option<String>]) -> Vec<bool> {
    keys.iter().map(|key| key.as_ref().is_none_or(|key| occupied.insert(key.clone()))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::document::read;

    fn key(source: &str, stream: Option<&str>, data: &str) -> Option<String> {
        let data = read(data.as_bytes(), 100_000).unwrap().1;
        KeySource::parse(source).unwrap().key(stream, Some(&data))
    }

    #[test]
    fn a_key_is_the_stream_or_the_canonical_text_of_a_value() {
        assert_eq!(key("stream", Some("customer:1"), "{}").as_deref(), Some("customer:1"));
        assert_eq!(key("stream", None, "{}"), None);
        for (text, expected) in [
            (r#"{"id":"a"}"#, Some("a")),
            (r#"{"id":1.0}"#, Some("1")),
            (r#"{"id":1e0}"#, Some("1")),
            (r#"{"id":null}"#, None),
            ("{}", None),
        ] {
            assert_eq!(key("/id", Some("s"), text).as_deref(), expected, "{text}");
        }
        for text in ["", "id", "Stream"] {
            assert!(KeySource::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_key_that_is_long_or_unprintable_is_its_digest() {
        let of = |text: &str| key("/id", None, &format!(r#"{{"id":"{text}"}}"#)).unwrap();
        assert_eq!(of(&"x".repeat(LONGEST_KEY)).len(), LONGEST_KEY);
        let long = of(&"x".repeat(LONGEST_KEY + 1));
        assert!(long.starts_with("sha256:") && long.len() == 71, "{long}");
        assert_ne!(long, of(&"x".repeat(LONGEST_KEY + 2)));
        assert!(of(r"a\nb").starts_with("sha256:"));
    }

    #[test]
    fn what_became_of_a_run_lets_those_behind_it_go_on_or_not() {
        use Judgement::{Block, Done, Keep, Skip, Unblock};
        use OnFailure::{BlockKey, StopAll};
        use SkipReason::{RunCancelled, RunFailed, RunParked, StartRefused};
        let ended = Standing::Ended;
        for (standing, free, blocked, skipping) in [
            (Standing::Moves, Keep, Unblock, Keep),
            (Standing::NeedsPerson, Block(RunParked), Keep, Skip(RunParked)),
            (Standing::Refused, Block(StartRefused), Keep, Skip(StartRefused)),
            (ended(Outcome::Succeeded), Done, Done, Done),
            (ended(Outcome::PartiallyCompleted), Done, Done, Done),
            (ended(Outcome::Cancelled), Skip(RunCancelled), Skip(RunCancelled), Skip(RunCancelled)),
            (ended(Outcome::FailedClean), Block(RunFailed), Keep, Skip(RunFailed)),
            (ended(Outcome::FailedDirty), Block(RunFailed), Keep, Skip(RunFailed)),
            (ended(Outcome::Compensated), Block(RunFailed), Keep, Skip(RunFailed)),
            (ended(Outcome::CompensatedWithManualSteps), Block(RunFailed), Keep, Skip(RunFailed)),
            (Standing::Gone, Done, Keep, Done),
        ] {
            for policy in [BlockKey, StopAll] {
                assert_eq!(judge(policy, false, standing), free, "{standing:?}");
                assert_eq!(judge(policy, true, standing), blocked, "{standing:?}");
            }
            assert_eq!(judge(OnFailure::Skip, false, standing), skipping, "{standing:?}");
        }
    }

    #[test]
    fn the_first_event_of_each_key_may_start_unless_an_earlier_one_has_it() {
        let occupied = HashSet::from(["a".to_owned()]);
        let keys = ["a", "b", "b", "-", "-", "c", "a"];
        let keys = keys.map(|key| (key != "-").then(|| key.to_owned()));
        assert_eq!(place(occupied, &keys), [false, true, false, true, true, true, false]);
    }
}
