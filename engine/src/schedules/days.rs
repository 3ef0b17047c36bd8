//! Rules about dates that a cron pattern's numbers cannot say: the last day of a month, the working day nearest to one,
//! the n-th or last of a weekday, and every n-th day or week from an anchor. Pure.

use backstitch_saga::protocol::{Interval, IntervalUnit};
use chrono::{Datelike, Days, NaiveDate};

/// A day of the month.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum DayRule {
    /// This one.
    Day(u32),
    /// So many days before the last.
    FromLast(u32),
    /// The day from Monday to Friday that is nearest to this one, in the same month.
    Nearest(u32),
    /// The day from Monday to Friday that is nearest to so many days before the last, in the same month.
    NearestFromLast(u32),
    /// The last day from Monday to Friday.
    LastWorkday,
}

/// A day of the week; Sunday is 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WeekdayRule {
    /// Each in the month.
    Day(u32),
    /// The n-th in the month.
    Nth(u32, u32),
    /// The last in the month.
    Last(u32),
}

impl DayRule {
    /// Returns whether `date` is such a day.
    pub(super) fn admits(self, date: NaiveDate) -> bool {
        let last = last_day(date);
        match self {
            DayRule::Day(day) => date.day() == day,
            DayRule::FromLast(back) => date.day() + back == last,
            DayRule::Nearest(day) => workday_near(date, day) == Some(date),
            DayRule::NearestFromLast(back) => {
                last.checked_sub(back).is_some_and(|day| workday_near(date, day) == Some(date))
            }
            DayRule::LastWorkday => workday_near(date, last) == Some(date),
        }
    }
}

impl WeekdayRule {
    /// Returns whether `date` is such a day.
    pub(super) fn admits(self, date: NaiveDate) -> bool {
        let is = |weekday| date.weekday().num_days_from_sunday() == weekday;
        match self {
            WeekdayRule::Day(weekday) => is(weekday),
            WeekdayRule::Nth(weekday, nth) => is(weekday) && (date.day() - 1) / 7 + 1 == nth,
            WeekdayRule::Last(weekday) => is(weekday) && date.day() + 7 > last_day(date),
        }
    }
}

/// Returns the number of days in the month of `date`.
fn last_day(date: NaiveDate) -> u32 {
    u32::from(date.num_days_in_month())
}

/// Returns the day from Monday to Friday nearest to `day` of the month of `date`, without leaving the month; `None`
/// when the month has no such day.
fn workday_near(date: NaiveDate, day: u32) -> Option<NaiveDate> {
    let wanted = date.with_day(day)?;
    let moved = match wanted.weekday().num_days_from_monday() {
        5 if day > 1 => day - 1,
        5 => day + 2,
        6 if day < last_day(date) => day + 1,
        6 => day - 2,
        _ => day,
    };
    date.with_day(moved)
}

/// Every n-th day, or every day of every n-th week, from an anchor on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Every {
    anchor: NaiveDate,
    /// The length of the cycle, in days.
    cycle: u64,
    /// The first so many days of the cycle are admitted.
    open: u64,
    /// The day on which the first cycle begins, before the anchor or at it.
    begin: NaiveDate,
}

/// The longest cycle, in days: ten years.
const LONGEST: u64 = 3_660;

impl Every {
    /// Reads an interval; the error is a pointer below it and a message.
    pub(super) fn read(interval: &Interval) -> Result<Every, (&'static str, String)> {
        let days = match interval.unit {
            IntervalUnit::Days => 1,
            IntervalUnit::Weeks => 7,
        };
        let cycle = u64::from(interval.every) * days;
        if !(days..=LONGEST).contains(&cycle) {
            let most = LONGEST / days;
            return Err(("/every", format!("1 to {most}, not {}", interval.every)));
        }
        let anchor = interval.anchor.parse::<NaiveDate>().ok();
        let anchor = anchor.filter(|date| (1970..=2100).contains(&date.year()));
        let Some(anchor) = anchor else {
            let message = "it must be a date like 2026-01-05, of the years 1970 to 2100";
            return Err(("/anchor", message.to_owned()));
        };
        let back = match interval.unit {
            IntervalUnit::Days => 0,
            IntervalUnit::Weeks => anchor.weekday().num_days_from_monday(),
        };
        let begin = anchor.checked_sub_days(Days::new(back.into())).unwrap_or(anchor);
        Ok(Every { anchor, cycle, open: days, begin })
    }

    /// Returns the first admitted date, `date` or later.
    pub(super) fn first_from(&self, date: NaiveDate) -> Option<NaiveDate> {
        let date = date.max(self.anchor);
        let passed = u64::try_from((date - self.begin).num_days()).ok()?;
        let place = passed % self.cycle;
        if place < self.open {
            return Some(date);
        }
        date.checked_add_days(Days::new(self.cycle - place))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn date(text: &str) -> NaiveDate {
        text.parse().unwrap()
    }

    #[test]
    fn the_nearest_workday_stays_in_its_month() {
        for (asked, day, expected) in [
            ("2026-08-01", 1, "2026-08-03"),  // A Saturday: not back into July.
            ("2026-08-15", 15, "2026-08-14"), // A Saturday.
            ("2026-08-16", 16, "2026-08-17"), // A Sunday.
            ("2026-05-31", 31, "2026-05-29"), // A Sunday: not on into June.
            ("2026-08-12", 12, "2026-08-12"),
        ] {
            let asked = date(asked);
            assert_eq!(workday_near(asked, day), Some(date(expected)), "{asked}");
            assert!(DayRule::Nearest(day).admits(date(expected)), "{asked}");
        }
        assert_eq!(workday_near(date("2026-02-01"), 30), None);
    }

    #[test]
    fn an_interval_begins_at_its_anchor_and_counts_weeks_from_monday() {
        let every = |every, unit, anchor: &str| {
            Every::read(&Interval { every, unit, anchor: anchor.to_owned() })
        };
        // A Wednesday.
        let weeks = every(2, IntervalUnit::Weeks, "2026-01-07").unwrap();
        for (from, expected) in [
            ("2025-12-24", "2026-01-07"),
            ("2026-01-11", "2026-01-11"),
            ("2026-01-12", "2026-01-19"),
            ("2026-01-19", "2026-01-19"),
            ("2026-01-26", "2026-02-02"),
        ] {
            assert_eq!(weeks.first_from(date(from)), Some(date(expected)), "{from}");
        }
        let days = every(3, IntervalUnit::Days, "2026-02-27").unwrap();
        assert_eq!(days.first_from(date("2026-02-28")), Some(date("2026-03-02")));
        for (number, anchor, pointer) in
            [(0, "2026-01-05", "/every"), (523, "2026-01-05", "/every"), (1, "soon", "/anchor")]
        {
            let wrong = every(number, IntervalUnit::Weeks, anchor).unwrap_err();
            assert_eq!(wrong.0, pointer, "{number} {anchor}");
        }
    }
}
