//! Two counts over the last stretch of time, such as calls and failures. Pure.

use std::collections::VecDeque;

use backstitch_saga::{Span, Time};
use serde::{Deserialize, Serialize};

/// Number of slots of a stretch: the oldest slot is dropped as a whole.
const SLOTS: i64 = 10;

/// Two counts over the last stretch of time.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(transparent)]
pub(crate) struct Window {
    /// Slot, and what was counted in it; oldest first.
    slots: VecDeque<(i64, u32, u32)>,
}

impl Window {
    /// Counts, and forgets what is older than `span`.
    pub(crate) fn add(&mut self, now: Time, span: Span, one: u32, other: u32) {
        let slot = slot_of(now, span);
        self.slots.retain(|(at, ..)| is_recent(*at, slot));
        match self.slots.iter_mut().find(|(at, ..)| *at == slot) {
            Some((_, first, second)) => {
                *first = first.saturating_add(one);
                *second = second.saturating_add(other);
            }
            None => self.slots.push_back((slot, one, other)),
        }
    }

    /// Returns the counts of the last `span`.
    pub(crate) fn sums(&self, now: Time, span: Span) -> (u32, u32) {
        let slot = slot_of(now, span);
        let recent = self.slots.iter().filter(|(at, ..)| is_recent(*at, slot));
        recent.fold((0, 0), |(one, other), (_, first, second)| {
            (one.saturating_add(*first), other.saturating_add(*second))
        })
    }
}

/// Returns whether a slot is one of the last, or of a clock that is only a little ahead.
fn is_recent(at: i64, now: i64) -> bool {
    at > now - SLOTS && at < now + SLOTS
}

fn slot_of(now: Time, span: Span) -> i64 {
    let width = i64::try_from(span.0).unwrap_or(i64::MAX) / SLOTS;
    now.0.div_euclid(width.max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_old_is_forgotten_slot_by_slot() {
        let span = Span::secs(10);
        let mut window = Window::default();
        window.add(Time(0), span, 5, 1);
        window.add(Time(999), span, 1, 1);
        window.add(Time(4_000), span, 2, 0);
        assert_eq!(window.sums(Time(4_500), span), (8, 2));
        assert_eq!(window.sums(Time(9_999), span), (8, 2));
        assert_eq!(window.sums(Time(10_000), span), (2, 0));
        assert_eq!(window.sums(Time(14_000), span), (0, 0));
        window.add(Time(30_000), span, 1, 0);
        assert_eq!(window.slots.len(), 1);
        assert_eq!(
            window.sums(Time(3_000), span),
            (0, 0),
            "that was counted by a clock that was ahead"
        );
    }
}
