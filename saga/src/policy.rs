//! Ways to write policies in Rust that read like what they mean. They only fill in the plain data of `definition`.

use std::ops::Range;

use crate::{Jitter, Retry, Span, Timeouts};

impl Retry {
    /// Waits from the first delay to the longest, doubling, with full jitter and ten attempts in
    /// all.
    ///
    /// ```
    /// use backstitch_saga::{Retry, Span};
    /// let retry = Retry::exponential(Span::millis(200)..Span::secs(30)).max_attempts(8);
    /// assert_eq!(retry.max_delay, Span::secs(30));
    /// ```
    #[must_use]
    pub fn exponential(delays: Range<Span>) -> Retry {
        Retry { first_delay: delays.start, max_delay: delays.end, ..Retry::default() }
    }

    /// Waits the same delay each time, without jitter; ten attempts in all.
    #[must_use]
    pub fn every(delay: Span) -> Retry {
        Retry {
            first_delay: delay,
            max_delay: delay,
            multiplier: 1.0,
            jitter: Jitter::None,
            ..Retry::default()
        }
    }

    /// Makes one attempt and no more.
    #[must_use]
    pub fn never() -> Retry {
        Retry { max_attempts: Some(1), ..Retry::default() }
    }

    /// Makes so many attempts in all, the first included.
    #[must_use]
    pub fn max_attempts(self, attempts: u32) -> Retry {
        Retry { max_attempts: Some(attempts), ..self }
    }

    /// Lifts the limit on attempts.
    #[must_use]
    pub fn forever(self) -> Retry {
        Retry { max_attempts: None, ..self }
    }

    /// Sets by what the delay grows each time; at least 1.
    #[must_use]
    pub fn multiplier(self, multiplier: f64) -> Retry {
        Retry { multiplier, ..self }
    }

    /// Sets the spread of the delay.
    #[must_use]
    pub fn jitter(self, jitter: Jitter) -> Retry {
        Retry { jitter, ..self }
    }

    /// Schedules no further attempt later than this after the first.
    #[must_use]
    pub fn total(self, total: Span) -> Retry {
        Retry { total: Some(total), ..self }
    }

    /// Sets the error codes that are final immediately.
    #[must_use]
    pub fn final_errors<S: Into<String>>(self, codes: impl IntoIterator<Item = S>) -> Retry {
        Retry { final_errors: codes.into_iter().map(Into::into).collect(), ..self }
    }
}

impl Timeouts {
    /// Limits the time from being offered to being claimed.
    #[must_use]
    pub fn to_start(self, span: Span) -> Timeouts {
        Timeouts { to_start: Some(span), ..self }
    }

    /// Limits the time of one attempt.
    #[must_use]
    pub fn attempt(self, span: Span) -> Timeouts {
        Timeouts { attempt: span, ..self }
    }

    /// Sets the longest time between two heartbeats of the worker.
    #[must_use]
    pub fn heartbeat(self, span: Span) -> Timeouts {
        Timeouts { heartbeat: span, ..self }
    }

    /// Limits the time of the step with all its attempts.
    #[must_use]
    pub fn step(self, span: Span) -> Timeouts {
        Timeouts { step: Some(span), ..self }
    }
}
