//! Compares instants with an enumeration that shares nothing with them but the zones: it walks over UTC minute by
//! minute, reads the local clock each time, and has each pattern as a condition written by hand.

use chrono::{Datelike, NaiveDateTime, TimeZone, Timelike};

use super::*;

/// The reading of a wall clock, to the minute. Sunday is day 0 of the week.
#[derive(Clone, Copy)]
struct Wall {
    minute: u32,
    hour: u32,
    day: u32,
    month: u32,
    weekday: u32,
    year: i32,
    /// Days since 1970.
    number: i64,
}

impl Wall {
    fn of(local: NaiveDateTime) -> Wall {
        Wall {
            minute: local.minute(),
            hour: local.hour(),
            day: local.day(),
            month: local.month(),
            weekday: local.weekday().num_days_from_sunday(),
            year: local.year(),
            number: local.and_utc().timestamp().div_euclid(DAY),
        }
    }

    /// Returns the number of days of the month.
    fn last(self) -> u32 {
        match self.month {
            2 if self.year % 4 == 0 => 29,
            2 => 28,
            4 | 6 | 9 | 11 => 30,
            _ => 31,
        }
    }

    fn works(self) -> bool {
        (1..=5).contains(&self.weekday)
    }

    fn is(self, hour: u32, minute: u32) -> bool {
        (self.hour, self.minute) == (hour, minute)
    }
}

type Condition = fn(Wall) -> bool;

/// Patterns with what they mean, and whether they are repeating ones.
const PATTERNS: &[(&str, bool, Condition)] = &[
    ("*/15 * * * *", true, |t| t.minute % 15 == 0),
    ("7 * * * *", true, |t| t.minute == 7),
    ("0 */2 * * *", true, |t| t.minute == 0 && t.hour % 2 == 0),
    ("*/20 2 * * *", true, |t| t.minute % 20 == 0 && t.hour == 2),
    ("*/30 1 * 10 *", true, |t| t.minute % 30 == 0 && t.hour == 1 && t.month == 10),
    ("30 2 * * *", false, |t| t.is(2, 30)),
    ("0 2 * * *", false, |t| t.is(2, 0)),
    ("0 3 * * *", false, |t| t.is(3, 0)),
    ("15,45 1,2 * * *", false, |t| t.minute % 30 == 15 && [1, 2].contains(&t.hour)),
    ("0-59 2 * * 0", false, |t| t.hour == 2 && t.weekday == 0),
    ("0 9 * * 1-5", false, |t| t.is(9, 0) && (1..=5).contains(&t.weekday)),
    ("0 0 13 * FRI", false, |t| t.is(0, 0) && (t.day == 13 || t.weekday == 5)),
    ("0 0 31 * *", false, |t| t.is(0, 0) && t.day == 31),
    ("59 23 29 2 *", false, |t| t.is(23, 59) && (t.day, t.month) == (29, 2)),
    ("30 1 1-7 */3 7", false, |t| {
        t.is(1, 30) && t.month % 3 == 1 && (t.day <= 7 || t.weekday == 0)
    }),
    ("0 12 ? JAN-MAR 5-7", false, |t| {
        t.is(12, 0) && t.month <= 3 && [5, 6, 0].contains(&t.weekday)
    }),
    ("@weekly", false, |t| t.is(0, 0) && t.weekday == 0),
    ("0 3 L * *", false, |t| t.is(3, 0) && t.day == t.last()),
    ("*/30 2 L-2 2,3 *", true, |t| {
        t.minute % 30 == 0 && t.hour == 2 && t.day + 2 == t.last() && [2, 3].contains(&t.month)
    }),
    // The last Sundays of March and October are those on which the clocks of Berlin change.
    ("30 2 * * 0L", false, |t| t.is(2, 30) && t.weekday == 0 && t.day + 7 > t.last()),
    ("*/15 2 * * SUNL", true, |t| {
        t.minute % 15 == 0 && t.hour == 2 && t.weekday == 0 && t.day + 7 > t.last()
    }),
    // And the second of March and the first of November those of New York.
    ("30 2,1 * * 7#2,sun#1", false, |t| {
        t.minute == 30 && [1, 2].contains(&t.hour) && t.weekday == 0 && t.day <= 14
    }),
    ("0 6 * * MON#5", false, |t| t.is(6, 0) && t.weekday == 1 && t.day > 28),
    ("0 2 15W * *", false, |t| {
        t.is(2, 0)
            && (t.day == 15 && t.works()
                || (t.day, t.weekday) == (14, 5)
                || (t.day, t.weekday) == (16, 1))
    }),
    ("0 12 1W,LW * *", false, |t| {
        let first = t.day == 1 && t.works() || [2, 3].contains(&t.day) && t.weekday == 1;
        let last = t.day == t.last() && t.works() || t.weekday == 5 && t.day + 2 >= t.last();
        t.is(12, 0) && (first || last)
    }),
    ("0 0 13,L * FRI#1,TUE", false, |t| {
        let friday = t.weekday == 5 && t.day <= 7;
        t.is(0, 0) && (t.day == 13 || t.day == t.last() || friday || t.weekday == 2)
    }),
    ("0 0 */10 * FRIL,MON", false, |t| {
        let weekday = t.weekday == 1 || t.weekday == 5 && t.day + 7 > t.last();
        t.is(0, 0) && t.day % 10 == 1 && weekday
    }),
];

/// More than one pattern, and intervals, with what they mean.
const MORE: &[(&str, bool, Condition)] = &[
    (r#"{"cron":"0 9 * * *","also":["0 9 * * MON","30 2 L * *"]}"#, false, |t| {
        t.is(9, 0) || t.is(2, 30) && t.day == t.last()
    }),
    // 8 January 2024 is a Monday, day 19730, of week 2819 since 1970.
    (
        r#"{"cron":"30 2 * * SUN","also":["0 9 * * 1,3"],
            "interval":{"every":2,"unit":"weeks","anchor":"2024-01-08"}}"#,
        false,
        |t| {
            let week = t.number >= 19_730 && ((t.number + 3) / 7 - 2_819) % 2 == 0;
            week && (t.is(2, 30) && t.weekday == 0 || t.is(9, 0) && [1, 3].contains(&t.weekday))
        },
    ),
    (
        r#"{"cron":"0 */6 * * *","interval":{"every":3,"unit":"days","anchor":"2024-02-27"}}"#,
        true,
        |t| t.minute == 0 && t.hour % 6 == 0 && t.number >= 19_780 && (t.number - 19_780) % 3 == 0,
    ),
];

/// Returns each case as a schedule has it.
fn cases(zone: Tz) -> Vec<(When, bool, Condition)> {
    let plain = PATTERNS.iter().map(|(cron, repeating, condition)| {
        let cron = (*cron).to_owned();
        (When { cron, ..When::default() }, *repeating, *condition)
    });
    let more = MORE.iter().map(|(text, repeating, condition)| {
        let mut when: serde_json::Value = serde_json::from_str(text).unwrap();
        when["time_zone"] = "".into();
        (serde_json::from_value(when).unwrap(), *repeating, *condition)
    });
    let mut cases: Vec<(When, bool, Condition)> = plain.chain(more).collect();
    cases.iter_mut().for_each(|(when, ..)| when.time_zone = zone.name().to_owned());
    cases
}

fn minute_of(year: i32) -> i64 {
    Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap().timestamp() / 60
}

fn wall_at(local: i64) -> Wall {
    Wall::of(Utc.timestamp_opt(local * 60, 0).unwrap().naive_utc())
}

/// Returns five years of every case, and for each the instants at which it should start.
fn walk(zone: Tz, cases: &[(When, bool, Condition)]) -> Vec<Vec<i64>> {
    let mut found = vec![Vec::new(); cases.len()];
    // The furthest that the local clock has been, in minutes.
    let mut furthest = i64::MIN;
    for minute in minute_of(2023) - 1..minute_of(2028) {
        let instant = Utc.timestamp_opt(minute * 60, 0).unwrap();
        let local = instant.with_timezone(&zone).naive_local();
        let shown = local.and_utc().timestamp() / 60;
        // Times that the clock shows for the first time: many minutes when it was set forward, none when it was set
        // back.
        let fresh = if furthest == i64::MIN { shown..shown + 1 } else { furthest + 1..shown + 1 };
        let fresh: Vec<Wall> = fresh.map(wall_at).collect();
        let wall = Wall::of(local);
        for ((_, repeating, condition), found) in cases.iter().zip(&mut found) {
            let due =
                if *repeating { condition(wall) } else { fresh.iter().any(|at| condition(*at)) };
            if due && minute >= minute_of(2023) {
                found.push(minute * 60_000);
            }
        }
        furthest = furthest.max(shown);
    }
    found
}

#[track_caller]
fn agrees_in(zone: Tz) {
    let (from, until) = (minute_of(2023) * 60_000, minute_of(2028) * 60_000);
    let cases = cases(zone);
    for ((when, ..), expected) in cases.iter().zip(walk(zone, &cases)) {
        let calendar = Calendar::read(when).unwrap();
        let cron = when.cron.as_str();
        let instants = calendar.instants(Time(from - 1)).map(|at| at.0);
        let instants: Vec<i64> = instants.take_while(|at| *at < until).collect();
        let first = instants.iter().zip(&expected).find(|(one, other)| one != other);
        assert_eq!(first, None, "{cron} in {zone}");
        assert_eq!(instants.len(), expected.len(), "{cron} in {zone}");
        assert!(!expected.is_empty(), "{cron} in {zone}");
    }
}

#[test]
fn five_years_in_berlin() {
    agrees_in(chrono_tz::Europe::Berlin);
}

#[test]
fn five_years_in_new_york() {
    agrees_in(chrono_tz::America::New_York);
}

/// Its clocks are set by half an hour.
#[test]
fn five_years_on_lord_howe() {
    agrees_in(chrono_tz::Australia::Lord_Howe);
}

#[test]
fn five_years_in_utc() {
    agrees_in(chrono_tz::UTC);
}

/// Wherever one begins, the next instant is the same one.
#[test]
fn the_next_instant_depends_on_nothing_but_where_one_is() {
    for cron in ["*/15 * * * *", "30 2 * * *", "15,45 1,2 * * *", "*/20 * * * * *"] {
        for day in ["2026-03-29T00:00:00Z", "2026-10-25T00:00:00Z"] {
            let calendar = Calendar::parse(cron, "Europe/Berlin").unwrap();
            let begin = day.parse::<backstitch_saga::Timestamp>().unwrap().0;
            let instants: Vec<Time> = calendar.instants(Time(begin.0 - 1)).take(700).collect();
            for second in 0..3 * 3_600 {
                let at = Time(begin.0 + second * 1_000 + 999);
                let expected = instants.iter().find(|instant| **instant > at).copied();
                assert_eq!(calendar.next(at), expected, "{cron} after {at}");
            }
        }
    }
}

#[track_caller]
fn next(cron: &str, zone: &str, after: &str, expected: &[&str]) {
    let calendar = Calendar::parse(cron, zone).unwrap();
    let after = after.parse::<backstitch_saga::Timestamp>().unwrap().0;
    let found: Vec<String> =
        calendar.instants(after).take(expected.len()).map(|at| calendar.local(at)).collect();
    assert_eq!(found, expected, "{cron}");
}

#[test]
fn spring_and_autumn_in_berlin() {
    let (zone, spring, autumn) = ("Europe/Berlin", "2026-03-28T12:00:00Z", "2026-10-24T12:00:00Z");
    let tomorrow = "2026-03-30T02:30:00+02:00";
    next("30 2 * * *", zone, spring, &["2026-03-29T03:00:00+02:00", tomorrow]);
    // Several that the change skips are one start.
    next(
        "10,50 2 * * *",
        zone,
        spring,
        &["2026-03-29T03:00:00+02:00", "2026-03-30T02:10:00+02:00"],
    );
    next("30 */2 * * *", zone, "2026-03-29T00:00:00Z", &["2026-03-29T04:30:00+02:00"]);
    next("30 2 * * *", zone, autumn, &["2026-10-25T02:30:00+02:00", "2026-10-26T02:30:00+01:00"]);
    next(
        "30 */2 * * *",
        zone,
        "2026-10-25T00:00:00Z",
        &["2026-10-25T02:30:00+02:00", "2026-10-25T02:30:00+01:00", "2026-10-25T04:30:00+01:00"],
    );
}

#[test]
fn a_day_that_does_not_exist() {
    // Samoa went over the date line: after the 29th came the 31st.
    next(
        "0 9 * * *",
        "Pacific/Apia",
        "2011-12-29T20:00:00Z",
        &["2011-12-31T00:00:00+14:00", "2011-12-31T09:00:00+14:00"],
    );
}

#[test]
fn six_fields_begin_with_the_second() {
    let at = "2026-05-01T10:00:00.500Z";
    next("*/20 * * * * *", "UTC", at, &["2026-05-01T10:00:20+00:00", "2026-05-01T10:00:40+00:00"]);
    next("5 30 4 * * MON", "UTC", at, &["2026-05-04T04:30:05+00:00", "2026-05-11T04:30:05+00:00"]);
}

#[test]
fn the_far_future_ends() {
    let calendar = Calendar::parse("0 0 29 2 *", "UTC").unwrap();
    assert_eq!(calendar.instants(Time(0)).count(), 32);
}

#[track_caller]
fn refused(cron: &str, zone: &str, expected: &[(&str, &str)]) {
    let violations = Calendar::parse(cron, zone).unwrap_err();
    let found: Vec<(&str, &str)> =
        violations.iter().map(|one| (one.pointer.as_str(), one.code.as_str())).collect();
    assert_eq!(found, expected, "{cron} {zone}");
}

#[test]
fn what_is_no_pattern_is_refused() {
    for cron in [
        "",
        "* * * *",
        "* * * * * * *",
        "60 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * 32 * *",
        "x * * * *",
        "* * * 13 *",
        "* * * * 8",
        "* * * * FUN",
        "*/0 * * * *",
        "0 0 * * 5-2",
        "0 0 * * 1/0",
        "1-2-3 * * * *",
        "* * * * *; drop",
        "1 - 5 * * *",
        "@reboot",
        "99999999999 * * * *",
        "* * * * 1-",
        "5-1 * * * *",
        "é * * * *",
    ] {
        refused(cron, "UTC", &[("/cron", "invalid_cron")]);
    }
    refused("0 0 30 2 *", "UTC", &[("/cron", "never_due")]);
    refused("0 0 31W 2 *", "UTC", &[("/cron", "never_due")]);
    refused("0 0 L-29 2 *", "UTC", &[("/cron", "never_due")]);
    refused("no", "Mars/Base", &[("/cron", "invalid_cron"), ("/time_zone", "unknown_time_zone")]);
}

#[test]
fn a_calendar_asked_beyond_all_years_answers_nothing() {
    let calendar = Calendar::parse("30 2 * * *", "Europe/Berlin").unwrap();
    for after in [Time(i64::MAX), Time(253_402_300_799_000), Time(4_133_980_800_000)] {
        assert_eq!(calendar.next(after), None, "{after}");
    }
    let first = Some(Time(5_400_000));
    assert_eq!(calendar.next(Time(i64::MIN)), calendar.next(Time(-1)));
    assert_eq!(calendar.next(Time(0)), first, "1970-01-01T02:30 in Berlin");
}

#[test]
fn an_error_says_what_was_typed_and_what_is_allowed() {
    for (cron, expected) in [
        ("60 * * * *", "minute 60: it must be 0 to 59"),
        ("0 24 * * *", "hour 24: it must be 0 to 23"),
        ("0 0 0 * *", "day of month 0: it must be 1 to 31, or a day like L, L-2, 15W, LW or L-2W"),
        ("0 0 * 13 *", "month 13: it must be 1 to 12, or a name like JAN"),
        ("0 0 * FOO *", "month 'FOO': it must be 1 to 12, or a name like JAN"),
        (
            "0 0 * * 8",
            "day of week 8: it must be 0 to 7 (0 and 7 are Sunday), a name like MON, or a day like MON#2 or FRIL",
        ),
        ("60 0 0 * * *", "second 60: it must be 0 to 59"),
        ("*/0 * * * *", "minute '*/0': a step must be a number, 1 or more"),
        ("5-1 * * * *", "minute '5-1': a range must not end before it begins"),
        ("1,,2 * * * *", "minute '1,,2': a part of the list is empty"),
        ("0 0 * * MON#6", "day of week 'MON#6': the number after # must be 1 to 5"),
        ("0 0 * * L", "day of week 'L': say which day, like FRIL or 5L for the last Friday"),
        ("0 0 L-31 * *", "day of month 'L-31': the days before the last must be 0 to 30"),
        ("0 0 32W * *", "day of month '32W': the day before W must be 1 to 31"),
        (
            "@reboot",
            "'@reboot' is no known word; there are @hourly, @daily, @weekly, @monthly and @yearly",
        ),
    ] {
        let wrong = Calendar::parse(cron, "UTC").unwrap_err();
        assert_eq!((wrong.len(), wrong[0].message.as_str()), (1, expected), "{cron}");
    }
    let whole = Calendar::parse("* * * *", "UTC").unwrap_err();
    assert!(whole[0].message.ends_with("this one has 4"), "{whole:?}");
}

#[test]
fn nothing_is_due_before_begin_or_after_end() {
    let bounded = |begin: &str, end: &str| {
        let text =
            format!(r#"{{"cron":"0 9 * * *","time_zone":"UTC","begin":"{begin}","end":"{end}"}}"#);
        let when: When = serde_json::from_str(&text).unwrap();
        Calendar::read(&when).map(|calendar| {
            calendar.instants(Time(0)).map(|at| at.to_string()).collect::<Vec<String>>()
        })
    };
    // Both may be instants themselves.
    assert_eq!(
        bounded("2026-05-01T09:00:00Z", "2026-05-03T09:00:00Z").unwrap(),
        ["2026-05-01T09:00:00.000Z", "2026-05-02T09:00:00.000Z", "2026-05-03T09:00:00.000Z"]
    );
    assert_eq!(
        bounded("2026-05-01T09:00:00.001Z", "2026-05-03T08:59:59.999Z").unwrap(),
        ["2026-05-02T09:00:00.000Z"]
    );
    for (begin, end) in [
        ("2026-05-01T10:00:00Z", "2026-05-02T08:00:00Z"),
        ("2026-05-02T00:00:00Z", "2026-05-01T00:00:00Z"),
    ] {
        let wrong = bounded(begin, end).unwrap_err();
        assert_eq!((wrong[0].pointer.as_str(), wrong[0].code.as_str()), ("/end", "never_due"));
    }
}

#[test]
fn what_is_wrong_with_other_patterns_and_intervals_is_told_in_its_place() {
    let read = |text: &str| {
        let wrong = Calendar::read(&serde_json::from_str(text).unwrap()).unwrap_err();
        let one = |one: &Violation| (one.pointer.clone(), one.code.clone());
        wrong.iter().map(one).collect::<Vec<_>>()
    };
    let is = |pointer: &str, code: &str| vec![(pointer.to_owned(), code.to_owned())];
    for (text, pointer, code) in [
        (
            r#"{"cron":"0 9 * * *","time_zone":"UTC","also":["0 9 * * *","61 * * * *"]}"#,
            "/also/1",
            "invalid_cron",
        ),
        (
            r#"{"cron":"0 9 * * TUE","time_zone":"UTC","interval":{"every":7,"unit":"days","anchor":"2026-01-05"}}"#,
            "/interval",
            "never_due",
        ),
        (
            r#"{"cron":"0 9 * * *","time_zone":"UTC","interval":{"every":0,"unit":"days","anchor":"2026-01-05"}}"#,
            "/interval/every",
            "out_of_range",
        ),
    ] {
        assert_eq!(read(text), is(pointer, code), "{text}");
    }
}

#[test]
fn a_working_day_near_to_some_days_before_the_last_is_found_in_each_month() {
    // The 29th of May 2026 is a Friday, the 28th of June a Sunday.
    let days = ["2026-05-29T09:00:00+00:00", "2026-06-29T09:00:00+00:00"];
    next("0 9 L-2W * *", "UTC", "2026-05-01T00:00:00Z", &days);
    refused("0 9 L-31W * *", "UTC", &[("/cron", "invalid_cron")]);
}
