//! A token bucket: the number of tasks that a rate allows. Pure: time is an argument.

use backstitch_saga::protocol::Rate;
use backstitch_saga::{Span, Time};
use serde::{Deserialize, Serialize};

use crate::clock::AHEAD;

/// Below this a missing part of a token is an error of rounding.
const CLOSE: f64 = 1e-9;

/// Tokens at an instant; they grow with time, up to the burst.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct Bucket {
    pub(crate) tokens: f64,
    pub(crate) at: Time,
}

/// Rate at which a bucket fills.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Refill {
    /// Tokens in a millisecond.
    pub(crate) per_milli: f64,
    /// The most tokens that it holds.
    pub(crate) most: f64,
}

impl From<&Rate> for Refill {
    fn from(rate: &Rate) -> Refill {
        let per_milli = f64::from(rate.limit.max(1)) / rate.per.0.max(1) as f64;
        Refill { per_milli, most: f64::from(rate.most()) }
    }
}

impl Bucket {
    /// Returns a full bucket.
    pub(crate) fn full(refill: impl Into<Refill>, now: Time) -> Bucket {
        Bucket { tokens: refill.into().most, at: now }
    }

    /// Returns the bucket at `now`. A clock that goes backwards adds nothing and takes nothing. A clock that was far
    /// ahead and was corrected does not prevent the bucket from filling.
    pub(crate) fn refilled(self, refill: impl Into<Refill>, now: Time) -> Bucket {
        let Refill { per_milli, most } = refill.into();
        let grown = now.since(self.at).0 as f64 * per_milli;
        let at = if self.at > now.after(AHEAD) { now } else { self.at.max(now) };
        Bucket { tokens: (self.tokens + grown).min(most), at }
    }

    /// Returns the bucket without tokens from before `since`: those grew under another rule.
    pub(crate) fn known_since(self, since: Time) -> Bucket {
        Bucket { at: self.at.max(since), ..self }
    }

    /// Returns the number of whole tokens.
    pub(crate) fn whole(self) -> u32 {
        // A float cast saturates; a debt is no token.
        (self.tokens + CLOSE) as u32
    }

    /// Takes `count` of the tokens.
    pub(crate) fn take(&mut self, count: u32) {
        self.tokens -= f64::from(count);
    }

    /// Returns the time at which there are `count` tokens.
    pub(crate) fn when(self, refill: impl Into<Refill>, count: u32) -> Time {
        let missing = (f64::from(count) - self.tokens).max(0.0);
        // A float cast saturates, also that of what never grows.
        self.at.after(Span(((missing - CLOSE) / refill.into().per_milli).ceil() as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RATE: Rate = Rate { limit: 10, per: Span::secs(1), burst: Some(3) };

    #[test]
    fn tokens_grow_up_to_the_burst_and_no_clock_takes_them_back() {
        let mut bucket = Bucket::full(&RATE, Time(0));
        assert_eq!(bucket.whole(), 3);
        bucket.take(3);
        assert_eq!((bucket.whole(), bucket.when(&RATE, 1)), (0, Time(100)));
        let later = bucket.refilled(&RATE, Time(199));
        assert_eq!((later.whole(), later.when(&RATE, 2)), (1, Time(200)));
        assert_eq!(bucket.refilled(&RATE, Time(9_000)).whole(), 3);
        assert_eq!(later.refilled(&RATE, Time(50)), later);
    }

    #[test]
    fn a_clock_that_was_ahead_and_is_corrected_lets_tokens_grow_from_now_on() {
        let mut bucket = Bucket::full(&RATE, Time(3_600_000));
        bucket.take(3);
        let back = bucket.refilled(&RATE, Time(0));
        assert_eq!((back.whole(), back.refilled(&RATE, Time(100)).whole()), (0, 1));
    }

    #[test]
    fn no_window_sees_more_than_the_burst_and_what_grew_in_it() {
        let mut bucket = Bucket::full(&RATE, Time(0));
        let mut taken = Vec::new();
        for now in (0..5_000).step_by(7) {
            bucket = bucket.refilled(&RATE, Time(now));
            let count = bucket.whole();
            bucket.take(count);
            taken.extend(std::iter::repeat_n(now, count as usize));
        }
        for (first, from) in taken.iter().enumerate() {
            for (more, until) in taken[first..].iter().enumerate() {
                let allowed = 3.0 + (until - from) as f64 / 100.0;
                assert!((more + 1) as f64 <= allowed + CLOSE, "{from} to {until}: {}", more + 1);
            }
        }
        assert!(taken.len() >= 50, "and not much less: {}", taken.len());
    }
}
