//! A schedule whose instants were processed by a clock that was ahead and has been corrected since. They come again,
//! each at its own time, except those of which a start was made: no instant is started twice.

use backstitch_saga::{Span, Time};
use serde::{Deserialize, Serialize};

use super::{Plan, State, Waiting};
use crate::schedules::instants::Calendar;

/// Clocks of nodes differ by less than this.
const SLACK: Span = Span::secs(10);
/// Time for which an instant that comes again is still started.
pub(super) const AGAIN_WITHIN: Span = Span::secs(60);
/// The most ranges of instants that are remembered.
const MOST_RANGES: usize = 1_000;

/// A correction of the clock by which a schedule was set back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub(crate) struct SetBack {
    /// Time at which it was noticed.
    pub(crate) at: Time,
    /// Up to this instant the schedule had been taken up.
    pub(crate) until: Time,
    /// First and last of the instants in a row whose starts were made too early.
    early: Vec<(Time, Time)>,
    /// First and last of the instants that were recorded as missed.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    missed: Vec<(Time, Time)>,
}

impl SetBack {
    /// Returns the range of starts made too early that an instant is in.
    fn range(&self, instant: Time) -> Option<(Time, Time)> {
        range(&self.early, instant)
    }
}

/// Returns the range that an instant is in, of several in order that do not overlap.
fn range(ranges: &[(Time, Time)], instant: Time) -> Option<(Time, Time)> {
    let after = ranges.partition_point(|(_, last)| *last < instant);
    ranges.get(after).copied().filter(|(first, _)| *first <= instant)
}

/// The known instants that are still to come by the present clock.
#[derive(Clone, Debug, Default)]
pub(crate) struct Known {
    /// Those of which a start was made.
    pub(crate) started: Vec<Time>,
    /// First and last of those that the history records as missed, in any order.
    pub(crate) missed: Vec<(Time, Time)>,
    /// Nothing is known of instants up to this one; they do not come again.
    pub(crate) from: Option<Time>,
}

impl State {
    /// Returns whether instants have been taken up that are yet to come at `now`.
    pub(crate) fn is_ahead(&self, now: Time) -> bool {
        self.considered.since(now) > SLACK
    }

    /// Returns whether `at` may be an instant of the clock that is at `now`.
    pub(super) fn is_past(at: Time, now: Time) -> bool {
        at <= now.after(SLACK)
    }

    /// Goes back to `now`, by a clock that was corrected: what was not started is taken up again at its time.
    pub(crate) fn set_back(&mut self, plan: &Plan<'_>, now: Time, known: Known) {
        let until = self.considered;
        let mut from = now.max(known.from.unwrap_or(now)).min(until);
        let mut started = known.started;
        self.waiting.retain(|one| {
            let to_come = one.is_of_calendar() && one.instant > from;
            if to_come && one.going {
                started.push(one.instant);
            }
            !to_come || one.going
        });
        started.retain(|at| *at > from && *at <= until);
        started.sort_unstable();
        started.dedup();
        let mut early = ranges(plan.calendar, &started);
        if let Some(more) = early.len().checked_sub(MOST_RANGES).filter(|more| *more > 0) {
            from = early.drain(..more).next_back().map_or(from, |(_, last)| last);
        }
        self.considered = from;
        let missed = joined(known.missed);
        self.set_back = Some(SetBack { at: now, until, early, missed });
    }

    /// Returns the correction of the clock by which this schedule was set back, while instants of before it may come
    /// again.
    pub(crate) fn was_set_back(&self) -> Option<&SetBack> {
        self.set_back.as_ref().filter(|back| self.considered < back.until)
    }

    /// Forgets the correction once no instant of before it can come again.
    pub(super) fn forget_set_back(&mut self) {
        if self.was_set_back().is_none() && self.put_off().next().is_none() {
            self.set_back = None;
        }
    }

    /// Returns whether a start for `instant` was made before the clock was corrected.
    pub(super) fn is_started_early(&self, instant: Time) -> bool {
        self.was_set_back().is_some_and(|back| back.range(instant).is_some())
    }

    /// Returns whether the history already records that `instant` was missed, by a clock that was
    /// ahead.
    pub(super) fn is_told_missed(&self, instant: Time) -> bool {
        self.set_back.as_ref().is_some_and(|back| range(&back.missed, instant).is_some())
    }

    /// Returns how late the start for `instant` may be made.
    pub(super) fn catch_up(&self, instant: Time, catch_up: Span) -> Span {
        match self.was_set_back() {
            Some(back) if instant <= back.until => catch_up.min(AGAIN_WITHIN),
            _ => catch_up,
        }
    }

    /// Returns the instants later than `after` that are to be started, in order.
    pub(crate) fn instants(&self, calendar: &Calendar, after: Time) -> impl Iterator<Item = Time> {
        let next = |after| {
            let mut next = calendar.next(after);
            while let Some(at) = next
                && let Some((_, last)) = self.was_set_back().and_then(|back| back.range(at))
            {
                next = calendar.next(last);
            }
            next
        };
        std::iter::successors(next(after), move |last| next(*last))
    }
}

impl Waiting {
    fn is_of_calendar(&self) -> bool {
        self.origin == backstitch_saga::protocol::StartOrigin::Cron
    }
}

/// Returns ranges in order, with overlapping ones joined. If there are too many, the earliest are left out: at worst,
/// an instant is recorded twice.
fn joined(mut ranges: Vec<(Time, Time)>) -> Vec<(Time, Time)> {
    ranges.sort_unstable();
    let mut joined: Vec<(Time, Time)> = Vec::new();
    for (first, last) in ranges {
        match joined.last_mut() {
            Some((_, before)) if first <= *before => *before = last.max(*before),
            _ => joined.push((first, last)),
        }
    }
    joined.drain(..joined.len().saturating_sub(MOST_RANGES));
    joined
}

/// Returns instants in order, as ranges of those that follow each other in the calendar.
fn ranges(calendar: &Calendar, instants: &[Time]) -> Vec<(Time, Time)> {
    let mut ranges: Vec<(Time, Time)> = Vec::new();
    for at in instants.iter().copied() {
        match ranges.last_mut() {
            Some((_, last)) if calendar.next(*last) == Some(at) => *last = at,
            _ => ranges.push((at, at)),
        }
    }
    ranges
}
