//! Order of a source: the versions that it gives its events, events that come too late, and gaps.

use std::collections::BTreeMap;

use backstitch_saga::Time;
use chrono::{DateTime, Utc};
use serde::{Deserialize, Serialize};

use crate::canonical::{InstantRule, Refused, instant};
use crate::document::Value;

/// The most events of one stream that are held behind a gap.
pub const MOST_HELD: usize = 1_000;

/// Version that a source gives an event: a number or an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SourceVersion {
    /// A number, not negative.
    Number(u64),
    /// An instant.
    Instant(DateTime<Utc>),
}

impl SourceVersion {
    /// Reads a version: an integer, its decimal text, or an instant in RFC 3339.
    ///
    /// # Errors
    /// `source_version_not_valid`.
    pub fn read(value: &Value) -> Result<SourceVersion, Refused> {
        let wrong = || {
            let message = "a version of a source is an integer that is not negative, or an instant in RFC 3339";
            Refused::new("source_version_not_valid", message)
        };
        let number = match value {
            Value::Number(number) => Some(number.canonical()),
            Value::String(text) if text.bytes().all(|byte| byte.is_ascii_digit()) => {
                Some(text.clone())
            }
            _ => None,
        };
        if let Some(number) = number {
            // As large as the database counts.
            let number = number.parse::<i64>().ok().and_then(|number| u64::try_from(number).ok());
            return number.map(SourceVersion::Number).ok_or_else(wrong);
        }
        let written = instant(value, &InstantRule::Rfc3339).map_err(|_| wrong())?;
        DateTime::parse_from_rfc3339(&written)
            .map(|instant| SourceVersion::Instant(instant.with_timezone(&Utc)))
            .map_err(|_| wrong())
    }
}

/// Verdict on an event of a source in the mode `latest`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Latest {
    /// Newer than the head.
    Newer,
    /// The version of the head again. The body says whether anything changed.
    Same,
    /// Older than the head: stored, flagged, and not propagated.
    Stale,
}

/// Compares the version of an event with that of the head of its stream.
///
/// # Errors
/// `source_version_kind` when one is a number and the other an instant.
pub fn latest(head: Option<SourceVersion>, incoming: SourceVersion) -> Result<Latest, Refused> {
    use SourceVersion::{Instant, Number};
    let order = match (head, incoming) {
        (None, _) => return Ok(Latest::Newer),
        (Some(Number(head)), Number(incoming)) => incoming.cmp(&head),
        (Some(Instant(head)), Instant(incoming)) => incoming.cmp(&head),
        (Some(_), _) => {
            let message =
                "the stream has versions of the other kind (numbers or instants); send those";
            return Err(Refused::new("source_version_kind", message));
        }
    };
    Ok(match order {
        std::cmp::Ordering::Greater => Latest::Newer,
        std::cmp::Ordering::Equal => Latest::Same,
        std::cmp::Ordering::Less => Latest::Stale,
    })
}

/// Policy for a gap that does not close in time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OnGap {
    /// The events behind the gap are released; what comes later for the gap is late.
    Continue,
    /// Nothing is released until a person says so.
    Stop,
}

/// Events of a stream whose source numbers them one by one: the next number, and those that are held behind a gap.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sequence {
    /// The number that comes next; `None` before the first event, which may have any number.
    pub next: Option<u64>,
    /// Numbers that are held, each with the time since when.
    #[serde(default)]
    pub held: BTreeMap<u64, Time>,
}

/// Verdict on an event of a source in the mode `contiguous`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Arrival {
    /// The event is in order, and so are the numbers that it releases, itself first.
    Released(Vec<u64>),
    /// The event is held until the numbers from the first to the last of these have come.
    Held {
        /// First number that is missing.
        first_missing: u64,
        /// Last number that is missing before the first event that is held.
        last_missing: u64,
    },
    /// The number was there before: a repeat, or an event that comes after its gap was given up.
    Late,
    /// The number is held already: a repeat.
    Repeated,
    /// As many events as may be are held; the source must send what is missing first.
    Full,
}

impl Sequence {
    /// Begins a sequence at a number.
    #[must_use]
    pub fn from(first: u64) -> Sequence {
        Sequence { next: Some(first), held: BTreeMap::new() }
    }

    /// Takes the event `number` in, which came at `now`.
    pub fn arrive(&mut self, number: u64, now: Time) -> Arrival {
        let next = *self.next.get_or_insert(number);
        if number < next {
            return Arrival::Late;
        }
        if number > next {
            if self.held.contains_key(&number) {
                return Arrival::Repeated;
            }
            if self.held.len() >= MOST_HELD {
                return Arrival::Full;
            }
            self.held.insert(number, now);
            let (first_missing, last_missing) = (next, self.first_held().saturating_sub(1));
            return Arrival::Held { first_missing, last_missing };
        }
        let mut released = vec![number];
        self.next = Some(number.saturating_add(1));
        released.extend(self.release());
        Arrival::Released(released)
    }

    fn first_held(&self) -> u64 {
        self.held.keys().next().copied().unwrap_or_default()
    }

    /// Releases the held numbers that follow each other from the next one on.
    fn release(&mut self) -> Vec<u64> {
        let mut released = Vec::new();
        while let Some(next) = self.next
            && self.held.remove(&next).is_some()
        {
            released.push(next);
            self.next = Some(next.saturating_add(1));
        }
        released
    }

    /// Returns the gap that is open, as its first and last missing number, and since when something waits behind it.
    #[must_use]
    pub fn gap(&self) -> Option<(u64, u64, Time)> {
        let next = self.next?;
        let (first_held, _) = self.held.first_key_value()?;
        let since = self.held.values().min().copied()?;
        Some((next, first_held.saturating_sub(1), since))
    }

    /// Gives a gap up that has been open for `max_hold` milliseconds, and returns its numbers and what is released.
    ///
    /// With [`OnGap::Stop`] nothing is released, and the gap stays; [`Sequence::give_up`] is for a person.
    pub fn expire(
        &mut self,
        now: Time,
        max_hold: i64,
        on_gap: OnGap,
    ) -> Option<(u64, u64, Vec<u64>)> {
        let (first, last, since) = self.gap()?;
        if now.0.saturating_sub(since.0) < max_hold {
            return None;
        }
        match on_gap {
            OnGap::Continue => Some((first, last, self.give_up())),
            OnGap::Stop => Some((first, last, Vec::new())),
        }
    }

    /// Gives the open gap up, and returns the numbers that are released.
    pub fn give_up(&mut self) -> Vec<u64> {
        if self.held.is_empty() {
            return Vec::new();
        }
        self.next = Some(self.first_held());
        self.release()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn events_behind_a_gap_are_held_until_it_closes() {
        let mut sequence = Sequence::from(1);
        assert_eq!(sequence.arrive(1, Time(0)), Arrival::Released(vec![1]));
        assert_eq!(
            sequence.arrive(4, Time(5)),
            Arrival::Held { first_missing: 2, last_missing: 3 }
        );
        assert_eq!(
            sequence.arrive(5, Time(6)),
            Arrival::Held { first_missing: 2, last_missing: 3 }
        );
        assert_eq!(sequence.arrive(4, Time(7)), Arrival::Repeated);
        assert_eq!(sequence.gap(), Some((2, 3, Time(5))));
        assert_eq!(
            sequence.arrive(3, Time(8)),
            Arrival::Held { first_missing: 2, last_missing: 2 }
        );
        assert_eq!(sequence.arrive(2, Time(9)), Arrival::Released(vec![2, 3, 4, 5]));
        assert_eq!(sequence.arrive(5, Time(9)), Arrival::Late);
        assert_eq!(sequence.gap(), None);
    }

    #[test]
    fn a_gap_that_does_not_close_is_given_up_as_the_policy_says() {
        let mut stops = Sequence::from(1);
        for number in [3, 5] {
            stops.arrive(number, Time(100));
        }
        let mut goes_on = stops.clone();
        assert_eq!(goes_on.expire(Time(1_099), 1_000, OnGap::Continue), None);
        assert_eq!(goes_on.expire(Time(1_100), 1_000, OnGap::Continue), Some((1, 2, vec![3])));
        assert_eq!(goes_on.arrive(1, Time(1_101)), Arrival::Late);
        assert_eq!(goes_on.expire(Time(1_101), 1_000, OnGap::Continue), Some((4, 4, vec![5])));
        assert_eq!(stops.expire(Time(1_100), 1_000, OnGap::Stop), Some((1, 2, vec![])));
        assert_eq!(stops.give_up(), [3]);
    }

    #[test]
    fn no_stream_holds_more_than_its_bound() {
        let mut sequence = Sequence::from(0);
        for number in 1..=MOST_HELD as u64 {
            assert!(matches!(sequence.arrive(number, Time(0)), Arrival::Held { .. }));
        }
        assert_eq!(sequence.arrive(5_000, Time(0)), Arrival::Full);
        let Arrival::Released(released) = sequence.arrive(0, Time(0)) else { panic!("it is next") };
        assert_eq!(released.len(), MOST_HELD + 1);
        // Without a first number, the first that comes is it.
        assert_eq!(Sequence::default().arrive(7, Time(0)), Arrival::Released(vec![7]));
    }

    #[test]
    fn versions_are_numbers_or_instants_and_are_not_mixed() {
        let read = |value: Value| SourceVersion::read(&value);
        let number = read(Value::from(7)).unwrap();
        assert_eq!(read(Value::from("7")).unwrap(), number);
        let early = read(Value::from("2025-03-30T10:00:00Z")).unwrap();
        let late = read(Value::from("2025-03-30T12:00:00.5+02:00")).unwrap();
        assert_eq!(latest(Some(early), late), Ok(Latest::Newer));
        assert_eq!(latest(Some(late), early), Ok(Latest::Stale));
        assert_eq!(latest(Some(number), number), Ok(Latest::Same));
        assert_eq!(latest(None, number), Ok(Latest::Newer));
        assert_eq!(latest(Some(number), late).unwrap_err().code, "source_version_kind");
        for wrong in [
            Value::from(-1),
            Value::Null,
            Value::from("soon"),
            Value::from(""),
            Value::from("99999999999999999999"),
        ] {
            assert_eq!(read(wrong).unwrap_err().code, "source_version_not_valid");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn every_number_is_released_once_and_in_order(numbers in proptest::collection::vec(0..40_u64, 0..120)) {
            let mut sequence = Sequence::from(0);
            let mut released = Vec::new();
            for number in &numbers {
                if let Arrival::Released(more) = sequence.arrive(*number, Time(0)) {
                    released.extend(more);
                }
            }
            let expected: Vec<u64> = (0..40).take_while(|number| numbers.contains(number)).collect();
            prop_assert_eq!(released, expected);
        }
    }
}
