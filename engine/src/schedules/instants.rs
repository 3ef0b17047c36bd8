//! When a cron pattern is due in a time zone, through every change of its clocks. Pure: no clock, no database.
//!
//! The crate `cron` reads the fields and finds the next *local* time that matches; it is asked as if local time were UTC,
//! since its own way through a time zone starts a fixed time twice in autumn and not at all in spring. Which instant a
//! local time is, is decided here, by one of two rules:
//!
//! - A *repeating* pattern (its second, minute or hour begins with `*`) starts at every instant whose local time matches.
//! - A *fixed* one starts once for each local time that matches: when the local clock first reaches or passes it.

use backstitch_saga::{Time, Violation};
use chrono::{DateTime, LocalResult, Offset, SecondsFormat, TimeZone, Utc};
use chrono_tz::Tz;
use cron::Schedule;

const DAY: i64 = 86_400;
/// Patterns know the years 1970 to 2100, wherever it is these: nothing is due outside.
const BEGIN: i64 = -2 * DAY;
const END: i64 = 4_133_980_800 + 2 * DAY;
/// Local time is never further than this from UTC.
const FARTHEST: i64 = 26 * 3_600;

/// A cron pattern in a time zone.
#[derive(Clone, Debug)]
pub(crate) struct Calendar {
    /// A local time matches when it matches one of them.
    patterns: Vec<Schedule>,
    repeating: bool,
    zone: Tz,
}

impl Calendar {
    /// Reads a pattern of five fields (minute, hour, day of month, month, day of week), of six (a second before them) or a
    /// word like `@daily`, and the name of a time zone.
    pub(crate) fn parse(cron: &str, zone: &str) -> Result<Calendar, Vec<Violation>> {
        let zone = zone.parse::<Tz>().map_err(|_| {
            let message = format!("'{zone}' is no time zone like Europe/Berlin or UTC");
            Violation::new("/time_zone", "unknown_time_zone", message)
        });
        let read = patterns(cron)
            .map_err(|message| Violation::new("/cron", "invalid_cron", message))
            .and_then(|(patterns, repeating)| {
                // A pattern like 30 February has no local time to begin with.
                let some = patterns.iter().any(|pattern| pattern.after(&FIRST).next().is_some());
                let message = "no date matches this pattern";
                some.then_some((patterns, repeating))
                    .ok_or_else(|| Violation::new("/cron", "never_due", message))
            });
        match (read, zone) {
            (Ok((patterns, repeating)), Ok(zone)) => Ok(Calendar { patterns, repeating, zone }),
            (read, zone) => Err(read.err().into_iter().chain(zone.err()).collect()),
        }
    }

    /// The first instant later than `after`; `None` when there is none before the year 2101.
    pub(crate) fn next(&self, after: Time) -> Option<Time> {
        let after = after.0.div_euclid(1_000).max(BEGIN);
        if after > END {
            return None;
        }
        let next = if self.repeating { self.matching(after) } else { self.reached(after) };
        next.map(|second| Time(second * 1_000))
    }

    /// The instants later than `after`, in order.
    pub(crate) fn instants(&self, after: Time) -> impl Iterator<Item = Time> {
        std::iter::successors(self.next(after), |last| self.next(*last))
    }

    /// The instant in local time with its offset, as RFC 3339 has it: `2026-03-29T03:00:00+02:00`.
    pub(crate) fn local(&self, at: Time) -> String {
        let local = utc(at.0.div_euclid(1_000)).with_timezone(&self.zone);
        local.to_rfc3339_opts(SecondsFormat::Secs, false)
    }

    /// For repeating patterns: the first second after `after` whose local time matches. Between two changes of the clocks
    /// local time is UTC with a fixed offset, so it is looked for from change to change.
    fn matching(&self, after: i64) -> Option<i64> {
        let mut from = after + 1;
        loop {
            let offset = self.offset(from);
            let found = self.first_match(from + offset - 1)? - offset;
            let tomorrow = from + DAY;
            let end = found.min(tomorrow);
            if self.offset(end) != offset {
                from = boundary(from, end, |at| self.offset(at) != offset);
            } else if end == found {
                return Some(found);
            } else {
                // Nothing matches up to `found`, whatever the clocks do on the way, but they may change close before it.
                from = tomorrow.max(found - 2 * DAY);
            }
        }
    }

    /// For fixed patterns: the first second after `after` at which the local clock first reaches or passes a local time
    /// that matches.
    fn reached(&self, after: i64) -> Option<i64> {
        let mut local = after + self.offset(after);
        loop {
            local = self.first_match(local)?;
            let at = self.first_at(local);
            // Not later: the clock was set back, and shows for the second time what was done the first time.
            if at > after {
                return Some(at);
            }
        }
    }

    /// When the local clock first reaches or passes `local`.
    fn first_at(&self, local: i64) -> i64 {
        match self.zone.from_local_datetime(&utc(local).naive_utc()) {
            LocalResult::Single(at) => at.timestamp(),
            LocalResult::Ambiguous(one, other) => one.timestamp().min(other.timestamp()),
            LocalResult::None => {
                boundary(local - FARTHEST, local + FARTHEST, |at| at + self.offset(at) >= local)
            }
        }
    }

    /// How far local time is ahead of UTC at `at`, in seconds.
    fn offset(&self, at: i64) -> i64 {
        let offset = self.zone.offset_from_utc_datetime(&utc(at).naive_utc());
        i64::from(offset.fix().local_minus_utc())
    }

    /// The first local time after `local` that matches. Both are seconds since 1970 on the local clock.
    fn first_match(&self, local: i64) -> Option<i64> {
        let local = utc(local);
        let next = |pattern: &Schedule| pattern.after(&local).next();
        self.patterns.iter().filter_map(next).min().map(|found| found.timestamp())
    }
}

const FIRST: DateTime<Utc> = DateTime::UNIX_EPOCH;

fn utc(second: i64) -> DateTime<Utc> {
    DateTime::from_timestamp(second, 0).unwrap_or(DateTime::<Utc>::MAX_UTC)
}

/// The first second in `(no, yes]` at which `holds` begins to hold, which it does at `yes` and not at `no`.
fn boundary(mut no: i64, mut yes: i64, holds: impl Fn(i64) -> bool) -> i64 {
    while yes - no > 1 {
        let middle = no + (yes - no) / 2;
        if holds(middle) { yes = middle } else { no = middle }
    }
    yes
}

/// The patterns that together mean `text`, and whether it is a repeating one.
fn patterns(text: &str) -> Result<(Vec<Schedule>, bool), String> {
    if text.len() > 255 {
        return Err(format!("a pattern has at most 255 bytes, not {}", text.len()));
    }
    let fields = match text.trim() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        other => other,
    };
    let mut fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    match fields.len() {
        5 => fields.insert(0, "0"),
        6 => {}
        count => {
            return Err(format!(
                "a pattern has five fields (minute, hour, day of month, month, day of week) or six, \
                 with the second first, or is a word like @daily; this one has {count}"
            ));
        }
    }
    let &[second, minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err("a pattern has six fields".to_owned());
    };
    let names = ["second", "minute", "hour", "day of month", "month", "day of week"];
    if let Some((name, field)) = names.iter().zip(&fields).find(|(_, field)| stands_still(field)) {
        return Err(format!("a step must be at least 1; the {name} is '{field}'"));
    }
    let weekday = weekdays(weekday)?;
    let read = |day: &str, weekday: &str| {
        let text = format!("{second} {minute} {hour} {day} {month} {weekday}");
        text.parse::<Schedule>().map_err(|error| format!("not a cron pattern: {error}"))
    };
    let open = |field: &str| field.starts_with(['*', '?']);
    let patterns = if open(day) || open(&weekday) {
        vec![read(day, &weekday)?]
    } else {
        // As in every crontab: where both are given, either is enough.
        vec![read(day, "*")?, read("*", &weekday)?]
    };
    Ok((patterns, [second, minute, hour].iter().any(|field| field.starts_with('*'))))
}

/// Whether a field has a step of nothing.
fn stands_still(field: &str) -> bool {
    let step =
        |part: &str| part.split_once('/').map(|(_, step)| step.trim_start_matches('0').is_empty());
    field.split(',').any(|part| step(part) == Some(true))
}

/// Days of the week from a crontab's numbers (0 or 7 is Sunday) into those of the crate (1 is Sunday). Names stay.
fn weekdays(field: &str) -> Result<String, String> {
    let mut days: Vec<String> = Vec::new();
    for part in field.split(',') {
        if !part.starts_with(|first: char| first.is_ascii_digit()) {
            days.push(part.to_owned());
            continue;
        }
        let wrong = || format!("a day of the week is 0 to 7 or a name; '{part}' is not");
        let number =
            |text: &str| text.parse::<u32>().ok().filter(|day| *day <= 7).ok_or_else(wrong);
        let (range, step) =
            part.split_once('/').map_or((part, None), |(range, step)| (range, Some(step)));
        let (first, last) = match range.split_once('-') {
            Some((first, last)) => (number(first)?, number(last)?),
            None if step.is_some() => (number(range)?, 6),
            None => (number(range)?, number(range)?),
        };
        let step = step.map_or(Ok(1), |step| step.parse::<usize>().map_err(|_| wrong()))?;
        if first > last || step == 0 {
            return Err(wrong());
        }
        days.extend((first..=last).step_by(step).map(|day| (day % 7 + 1).to_string()));
    }
    Ok(days.join(","))
}

#[cfg(test)]
mod tests;
