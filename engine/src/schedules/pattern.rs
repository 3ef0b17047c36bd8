//! Reads cron patterns. Each field is checked here, so that an error names the text and what is allowed in its place;
//! the crate `cron` gets plain lists of numbers and finds the local times that match them. Days that it does not know,
//! like `L`, `15W`, `MON#2` and `5L`, become rules about the date (`days`). Pure.

use std::collections::BTreeSet;

use chrono::NaiveDate;
use cron::Schedule;

use super::days::{DayRule, WeekdayRule};

/// The longest pattern, in bytes.
const LENGTH_LIMIT: usize = 255;

/// One line of a crontab: local times that match any of `alternatives`.
#[derive(Clone, Debug)]
pub(super) struct Pattern {
    pub(super) alternatives: Vec<Times>,
    /// Its second, minute or hour begins with `*`: it follows the clock through every change.
    pub(super) repeating: bool,
}

/// Local times that match all of its fields, on dates that the rules admit.
#[derive(Clone, Debug)]
pub(super) struct Times {
    pub(super) fields: Schedule,
    /// Days of the month that the fields do not say; empty when they say all.
    days: Vec<DayRule>,
    /// Days of the week that the fields do not say; empty when they say all.
    weekdays: Vec<WeekdayRule>,
}

impl Times {
    /// Returns whether the rules about dates admit `date`.
    pub(super) fn admits(&self, date: NaiveDate) -> bool {
        let day = self.days.is_empty() || self.days.iter().any(|rule| rule.admits(date));
        day && (self.weekdays.is_empty() || self.weekdays.iter().any(|rule| rule.admits(date)))
    }
}

/// A field of a pattern: its name, its numbers, and the names of some of them.
struct Field {
    name: &'static str,
    from: u32,
    to: u32,
    /// The names of its numbers, beginning with that of `from`.
    names: &'static [&'static str],
    like: &'static str,
}

const fn numbers(name: &'static str, from: u32, to: u32) -> Field {
    Field { name, from, to, names: &[], like: "" }
}

const SECOND: Field = numbers("second", 0, 59);
const MINUTE: Field = numbers("minute", 0, 59);
const HOUR: Field = numbers("hour", 0, 23);
const DAY: Field =
    Field { like: ", or a day like L, L-2, 15W, LW or L-2W", ..numbers("day of month", 1, 31) };
const MONTH: Field = Field {
    names: &[
        "january",
        "february",
        "march",
        "april",
        "may",
        "june",
        "july",
        "august",
        "september",
        "october",
        "november",
        "december",
    ],
    like: ", or a name like JAN",
    ..numbers("month", 1, 12)
};
const WEEKDAY: Field = Field {
    names: &["sunday", "monday", "tuesday", "wednesday", "thursday", "friday", "saturday"],
    like: " (0 and 7 are Sunday), a name like MON, or a day like MON#2 or FRIL",
    ..numbers("day of week", 0, 7)
};

impl Field {
    /// Returns the number of a text.
    fn number(&self, text: &str) -> Result<u32, String> {
        if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
            let number = text.parse().ok().filter(|number| (self.from..=self.to).contains(number));
            return number.ok_or_else(|| self.wrong(text));
        }
        let lower = text.to_ascii_lowercase();
        let is = |name: &&str| **name == lower || name.get(..3) == Some(lower.as_str());
        let place = self.names.iter().position(is);
        let place = place.and_then(|place| u32::try_from(place).ok());
        place.map(|place| self.from + place).ok_or_else(|| self.wrong(text))
    }

    fn wrong(&self, text: &str) -> String {
        let Field { name, from, to, like, .. } = self;
        format!("{name} {}: it must be {from} to {to}{like}", shown(text))
    }

    /// Returns the numbers of one part of a list: `*`, `5`, `1-5`, each with or without a step.
    fn part(&self, part: &str) -> Result<Vec<u32>, String> {
        let (range, step) = match part.split_once('/') {
            Some((range, step)) => (range, Some(self.step(part, step)?)),
            None => (part, None),
        };
        // An open end of the week is Saturday: Sunday is its beginning.
        let last = if self.to == 7 { 6 } else { self.to };
        let (first, last) = match range.split_once('-') {
            _ if range == "*" || range == "?" => (self.from, last),
            Some((first, last)) => {
                let (first, mut end) = (self.number(first)?, self.number(last)?);
                if self.to == 7 && end == 0 && first > 0 {
                    end = 7;
                }
                (first, end)
            }
            None if step.is_some() => (self.number(range)?, last.max(self.number(range)?)),
            None => (self.number(range)?, self.number(range)?),
        };
        if first > last {
            let name = self.name;
            return Err(format!("{name} {}: a range must not end before it begins", shown(part)));
        }
        Ok((first..=last).step_by(step.unwrap_or(1)).collect())
    }

    fn step(&self, part: &str, step: &str) -> Result<usize, String> {
        let digits = !step.is_empty() && step.bytes().all(|byte| byte.is_ascii_digit());
        // No field has more numbers than a step of this size passes over.
        let number = step.parse::<usize>().ok().filter(|_| digits).filter(|number| *number > 0);
        number.map(|number| number.min(100)).ok_or_else(|| {
            format!("{} {}: a step must be a number, 1 or more", self.name, shown(part))
        })
    }

    /// Returns everything that a field lists: numbers, and what `special` makes of a part that is more than a number.
    fn list<T>(
        &self,
        text: &str,
        special: impl Fn(&str) -> Option<Result<T, String>>,
    ) -> Result<(BTreeSet<u32>, Vec<T>), String> {
        let (mut numbers, mut specials) = (BTreeSet::new(), Vec::new());
        for part in text.split(',') {
            if part.is_empty() {
                let name = self.name;
                return Err(format!("{name} {}: a part of the list is empty", shown(text)));
            }
            match special(part) {
                Some(rule) => specials.push(rule?),
                None => numbers.extend(self.part(part)?),
            }
        }
        Ok((numbers, specials))
    }

    /// Returns a field without special parts as the crate is given it.
    fn plain(&self, text: &str) -> Result<String, String> {
        let (numbers, _) = self.list::<()>(text, |_| None)?;
        Ok(join(&numbers))
    }
}

/// Formats a piece of a pattern: numbers as they are, all else in quotes, and cut if it is long.
fn shown(text: &str) -> String {
    if !text.is_empty() && text.len() <= 20 && text.bytes().all(|byte| byte.is_ascii_digit()) {
        return text.to_owned();
    }
    let cut: String = text.chars().take(40).collect();
    let more = if cut.len() < text.len() { "…" } else { "" };
    format!("'{cut}{more}'")
}

fn join(numbers: &BTreeSet<u32>) -> String {
    numbers.iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

/// Reads a part that names a day of the month by a rule; `None` when it is a plain number or range.
fn day_rule(part: &str) -> Option<Result<DayRule, String>> {
    let upper = part.to_ascii_uppercase();
    let number = |text: &str, from: u32, to: u32, what: &str| {
        let number = text.parse().ok().filter(|number| (from..=to).contains(number));
        number.ok_or_else(|| format!("day of month {}: {what} must be {from} to {to}", shown(part)))
    };
    match upper.as_str() {
        "L" => return Some(Ok(DayRule::FromLast(0))),
        "LW" | "WL" => return Some(Ok(DayRule::LastWorkday)),
        _ => {}
    }
    if let Some(back) = upper.strip_prefix("L-") {
        let rule = match back.strip_suffix('W') {
            Some(back) => {
                number(back, 0, 30, "the days before the last").map(DayRule::NearestFromLast)
            }
            None => number(back, 0, 30, "the days before the last").map(DayRule::FromLast),
        };
        return Some(rule);
    }
    let day = upper.strip_suffix('W')?;
    Some(number(day, 1, 31, "the day before W").map(DayRule::Nearest))
}

/// Reads a part that names a day of the week by its place in the month; `None` when it is a plain number, name or
/// range.
fn weekday_rule(part: &str) -> Option<Result<WeekdayRule, String>> {
    let day = |text: &str| WEEKDAY.number(text).map(|day| day % 7);
    if let Some((text, nth)) = part.split_once('#') {
        let nth: Option<u32> = nth.parse().ok().filter(|nth| (1..=5).contains(nth));
        let Some(nth) = nth else {
            let part = shown(part);
            return Some(Err(format!("day of week {part}: the number after # must be 1 to 5")));
        };
        return Some(day(text).map(|day| WeekdayRule::Nth(day, nth)));
    }
    let text = part.strip_suffix(['L', 'l'])?;
    if text.is_empty() {
        let message = "day of week 'L': say which day, like FRIL or 5L for the last Friday";
        return Some(Err(message.to_owned()));
    }
    Some(day(text).map(WeekdayRule::Last))
}

/// Reads a pattern of five fields, of six with the second first, or a word like `@daily`.
pub(super) fn read(text: &str) -> Result<Pattern, String> {
    if text.len() > LENGTH_LIMIT {
        return Err(format!("a pattern has at most {LENGTH_LIMIT} bytes, not {}", text.len()));
    }
    let fields = match text.trim() {
        "@yearly" | "@annually" => "0 0 1 1 *",
        "@monthly" => "0 0 1 * *",
        "@weekly" => "0 0 * * 0",
        "@daily" | "@midnight" => "0 0 * * *",
        "@hourly" => "0 * * * *",
        word if word.starts_with('@') => {
            let words = "@hourly, @daily, @weekly, @monthly and @yearly";
            return Err(format!("{} is no known word; there are {words}", shown(word)));
        }
        other => other,
    };
    let mut fields: Vec<&str> = fields.split_ascii_whitespace().collect();
    if fields.len() == 5 {
        fields.insert(0, "0");
    }
    let &[second, minute, hour, day, month, weekday] = fields.as_slice() else {
        return Err(format!(
            "a pattern has five fields (minute, hour, day of month, month, day of week) or six, \
             with the second first, or is a word like @daily; this one has {}",
            fields.len()
        ));
    };
    let clock = [SECOND.plain(second)?, MINUTE.plain(minute)?, HOUR.plain(hour)?].join(" ");
    let (numbers, days) = DAY.list(day, day_rule)?;
    let days = Dates { numbers, rules: days, by_number: DayRule::Day };
    let month = MONTH.plain(month)?;
    let (numbers, weekdays) = WEEKDAY.list(weekday, weekday_rule)?;
    let numbers = numbers.into_iter().map(|day| day % 7).collect();
    let weekdays = Dates { numbers, rules: weekdays, by_number: WeekdayRule::Day };
    let times = |days: Option<&Dates<DayRule>>, weekdays: Option<&Dates<WeekdayRule>>| {
        let (day, day_rules) = days.map_or_else(any, Dates::split);
        let (weekday, weekday_rules) = weekdays.map_or_else(any, Dates::split);
        let weekday = weekday.map_or("*".to_owned(), |numbers| {
            // The crate counts from Sunday as 1.
            join(&numbers.iter().map(|day| day + 1).collect())
        });
        let day = day.map_or("*".to_owned(), |numbers| join(&numbers));
        let fields = format!("{clock} {day} {month} {weekday}");
        let fields = fields.parse::<Schedule>();
        let fields = fields.map_err(|error| format!("not a cron pattern: {error}"))?;
        Ok::<_, String>(Times { fields, days: day_rules, weekdays: weekday_rules })
    };
    let open = |field: &str| field.starts_with(['*', '?']);
    let alternatives = if open(day) || open(weekday) {
        vec![times(Some(&days), Some(&weekdays))?]
    } else {
        // As in every crontab: where both are given, either is enough.
        vec![times(Some(&days), None)?, times(None, Some(&weekdays))?]
    };
    let repeating = [second, minute, hour].iter().any(|field| field.starts_with('*'));
    Ok(Pattern { alternatives, repeating })
}

/// The days that a field lists.
struct Dates<R> {
    numbers: BTreeSet<u32>,
    rules: Vec<R>,
    by_number: fn(u32) -> R,
}

impl<R: Copy> Dates<R> {
    /// Returns the numbers for the crate, or, where rules are among them, all of them as rules.
    fn split(&self) -> (Option<BTreeSet<u32>>, Vec<R>) {
        if self.rules.is_empty() {
            return (Some(self.numbers.clone()), Vec::new());
        }
        let numbers = self.numbers.iter().map(|number| (self.by_number)(*number));
        (None, self.rules.iter().copied().chain(numbers).collect())
    }
}

fn any<R>() -> (Option<BTreeSet<u32>>, Vec<R>) {
    (None, Vec::new())
}
