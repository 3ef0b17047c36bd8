//! Computes the instants of a cron pattern in a time zone, through every change of its clocks. Pure: no clock,
//! no database.
//!
//! `pattern` reads the fields, and the crate `cron` finds the next *local* time that matches; it is asked as if local
//! time were UTC, since its own way through a time zone starts a fixed time twice in autumn and not at all in spring.
//! Which instant a local time is, is decided here, by one of two rules:
//!
//! - A *repeating* pattern (its second, minute or hour begins with `*`) starts at every instant whose local time matches.
//! - A *fixed* one starts once for each local time that matches: when the local clock first reaches or passes it.

use backstitch_saga::protocol::{Interval, ScheduleSpec};
use backstitch_saga::{Time, Timestamp, Violation};
use chrono::{DateTime, LocalResult, NaiveDate, Offset, SecondsFormat, TimeZone, Utc};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::days::Every;
use super::pattern::{self, Pattern, Times};

const DAY: i64 = 86_400;
/// Patterns know the years 1970 to 2100, wherever it is these: nothing is due outside.
const BEGIN: i64 = -2 * DAY;
const END: i64 = 4_133_980_800 + 2 * DAY;
/// Local time is never further than this from UTC.
const FARTHEST: i64 = 26 * 3_600;
/// The most patterns beside the first.
pub(crate) const ALSO_LIMIT: usize = 20;

/// The part of a schedule that says when it is due.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct When {
    pub(crate) cron: String,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub(crate) also: Vec<String>,
    pub(crate) time_zone: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) interval: Option<Interval>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) begin: Option<Timestamp>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) end: Option<Timestamp>,
}

impl From<&ScheduleSpec> for When {
    fn from(spec: &ScheduleSpec) -> When {
        When {
            cron: spec.cron.clone(),
            also: spec.also.clone(),
            time_zone: spec.time_zone.clone(),
            interval: spec.interval.clone(),
            begin: spec.begin,
            end: spec.end,
        }
    }
}

/// Cron patterns in a time zone, and the bounds of what they make due.
#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    /// An instant that several match is one.
    patterns: Vec<Pattern>,
    zone: Tz,
    every: Option<Every>,
    /// No instant is earlier.
    begin: Time,
    /// No instant is later.
    end: Time,
}

impl Calendar {
    /// Reads a pattern of five fields (minute, hour, day of month, month, day of week), of six (a second before them)
    /// or a word like `@daily`, and the name of a time zone.
    #[cfg(any(test, feature = "fuzz"))]
    pub(crate) fn parse(cron: &str, zone: &str) -> Result<Calendar, Vec<Violation>> {
        Calendar::read(&When {
            cron: cron.to_owned(),
            time_zone: zone.to_owned(),
            ..When::default()
        })
    }

    /// Reads when a schedule is due.
    ///
    /// # Errors
    /// Everything that is wrong with it, with pointers into the schedule.
    pub(crate) fn read(when: &When) -> Result<Calendar, Vec<Violation>> {
        let mut wrong = Vec::new();
        let mut patterns = Vec::new();
        let also = when.also.iter().enumerate();
        let also = also.map(|(place, text)| (format!("/also/{place}"), text));
        for (pointer, text) in std::iter::once(("/cron".to_owned(), &when.cron)).chain(also) {
            match pattern::read(text) {
                Err(message) => wrong.push(Violation::new(pointer, "invalid_cron", message)),
                // A pattern like 30 February has no local time to begin with.
                Ok(pattern) if first_match(&pattern, None, 0).is_none() => {
                    let message = "no date matches this pattern";
                    wrong.push(Violation::new(pointer, "never_due", message));
                }
                Ok(pattern) => patterns.push(pattern),
            }
        }
        if when.also.len() > ALSO_LIMIT {
            let message = format!("at most {ALSO_LIMIT} more patterns, not {}", when.also.len());
            wrong.push(Violation::new("/also", "too_many", message));
        }
        let zone = when.time_zone.parse::<Tz>();
        if zone.is_err() {
            let message = format!("'{}' is no time zone like Europe/Berlin or UTC", when.time_zone);
            wrong.push(Violation::new("/time_zone", "unknown_time_zone", message));
        }
        let every = when.interval.as_ref().map(Every::read).transpose();
        if let Err((pointer, message)) = &every {
            let pointer = format!("/interval{pointer}");
            wrong.push(Violation::new(pointer, "out_of_range", message.clone()));
        }
        let (begin, end) = (when.begin.map(|at| at.0), when.end.map(|at| at.0));
        let (begin, end) = (begin.unwrap_or(Time(i64::MIN)), end.unwrap_or(Time(i64::MAX)));
        match (zone, every) {
            (Ok(zone), Ok(every)) if wrong.is_empty() => {
                let calendar = Calendar { patterns, zone, every, begin, end };
                if calendar.next(Time(i64::MIN)).is_some() {
                    return Ok(calendar);
                }
                let (pointer, message) = calendar.why_never();
                Err(vec![Violation::new(pointer, "never_due", message)])
            }
            _ => Err(wrong),
        }
    }

    /// Returns which of the bounds leaves no instant.
    fn why_never(&self) -> (&'static str, &'static str) {
        let unbounded = Calendar { begin: Time(i64::MIN), end: Time(i64::MAX), ..self.clone() };
        if unbounded.next(Time(i64::MIN)).is_none() {
            return ("/interval", "no date of the interval matches a pattern");
        }
        ("/end", "no instant lies between begin and end")
    }

    /// Returns the first instant later than `after`; `None` when there is none, or none before the year 2101.
    pub(crate) fn next(&self, after: Time) -> Option<Time> {
        let after = after.max(Time(self.begin.0.saturating_sub(1)));
        let after = after.0.div_euclid(1_000).max(BEGIN);
        if after > END {
            return None;
        }
        let next = |pattern| self.next_of(pattern, after);
        let next = self.patterns.iter().filter_map(next).min()?;
        Some(Time(next * 1_000)).filter(|next| *next <= self.end)
    }

    fn next_of(&self, pattern: &Pattern, after: i64) -> Option<i64> {
        if pattern.repeating { self.matching(pattern, after) } else { self.reached(pattern, after) }
    }

    /// Returns the instants later than `after`, in order.
    pub(crate) fn instants(&self, after: Time) -> impl Iterator<Item = Time> {
        std::iter::successors(self.next(after), |last| self.next(*last))
    }

    /// Returns the instant in local time with its offset, as RFC 3339 has it: `2026-03-29T03:00:00+02:00`.
    pub(crate) fn local(&self, at: Time) -> String {
        let local = utc(at.0.div_euclid(1_000)).with_timezone(&self.zone);
        local.to_rfc3339_opts(SecondsFormat::Secs, false)
    }

    /// Returns, for repeating patterns, the first second after `after` whose local time matches. Between two changes of
    /// the clocks local time is UTC with a fixed offset, so the search goes from change to change.
    fn matching(&self, pattern: &Pattern, after: i64) -> Option<i64> {
        let mut from = after + 1;
        loop {
            let offset = self.offset(from);
            let found = first_match(pattern, self.every.as_ref(), from + offset - 1)? - offset;
            let tomorrow = from + DAY;
            let end = found.min(tomorrow);
            if self.offset(end) != offset {
                from = boundary(from, end, |at| self.offset(at) != offset);
            } else if end == found {
                return Some(found);
            } else {
                // Nothing matches up to `found`, whatever the clocks do on the way, but they may change close before
                // it.
                from = tomorrow.max(found - 2 * DAY);
            }
        }
    }

    /// Returns, for fixed patterns, the first second after `after` at which the local clock first reaches or passes a
    /// local time that matches.
    fn reached(&self, pattern: &Pattern, after: i64) -> Option<i64> {
        let mut local = after + self.offset(after);
        loop {
            local = first_match(pattern, self.every.as_ref(), local)?;
            let at = self.first_at(local);
            // Not later: the clock was set back, and shows for the second time what was done the first time.
            if at > after {
                return Some(at);
            }
        }
    }

    /// Returns the instant at which the local clock first reaches or passes `local`.
    fn first_at(&self, local: i64) -> i64 {
        match self.zone.from_local_datetime(&utc(local).naive_utc()) {
            LocalResult::Single(at) => at.timestamp(),
            LocalResult::Ambiguous(one, other) => one.timestamp().min(other.timestamp()),
            LocalResult::None => {
                boundary(local - FARTHEST, local + FARTHEST, |at| at + self.offset(at) >= local)
            }
        }
    }

    /// Returns the offset of local time from UTC at `at`, in seconds.
    fn offset(&self, at: i64) -> i64 {
        let offset = self.zone.offset_from_utc_datetime(&utc(at).naive_utc());
        i64::from(offset.fix().local_minus_utc())
    }
}

/// Returns the first local time after `local` that matches. Both are seconds since 1970 on the local clock.
fn first_match(pattern: &Pattern, every: Option<&Every>, local: i64) -> Option<i64> {
    let next = |times: &Times| first_of(times, every, local);
    pattern.alternatives.iter().filter_map(next).min()
}

fn first_of(times: &Times, every: Option<&Every>, mut local: i64) -> Option<i64> {
    loop {
        let found = times.fields.after(&utc(local)).next()?;
        let date = found.date_naive();
        let admitted = every.map_or(Some(date), |every| every.first_from(date))?;
        if admitted == date && times.admits(date) {
            return Some(found.timestamp());
        }
        // Nothing of this date is due, nor of those that the interval leaves out.
        let next = if admitted == date { date.succ_opt()? } else { admitted };
        local = midnight(next) - 1;
    }
}

fn midnight(date: NaiveDate) -> i64 {
    date.and_time(chrono::NaiveTime::MIN).and_utc().timestamp()
}

fn utc(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// Returns the first second in `(no, yes]` at which `holds` begins to hold, which it does at `yes` and not at `no`.
fn boundary(mut no: i64, mut yes: i64, holds: impl Fn(i64) -> bool) -> i64 {
    while yes - no > 1 {
        let middle = no + (yes - no) / 2;
        if holds(middle) { yes = middle } else { no = middle }
    }
    yes
}

#[cfg(test)]
mod tests;
