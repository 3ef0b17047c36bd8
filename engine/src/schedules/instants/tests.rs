//! Instants against an enumeration that shares nothing with them but the zones: it walks over UTC minute by minute,
//! looks at the local clock each time, and knows each pattern as a condition written by hand.

use chrono::{Datelike, NaiveDateTime, TimeZone, Timelike};

use super::*;

/// What a clock on the wall shows, to the minute. Sunday is day 0 of the week.
#[derive(Clone, Copy)]
struct Wall {
    minute: u32,
    hour: u32,
    day: u32,
    month: u32,
    weekday: u32,
}

impl Wall {
    fn of(local: NaiveDateTime) -> Wall {
        Wall {
            minute: local.minute(),
            hour: local.hour(),
            day: local.day(),
            month: local.month(),
            weekday: local.weekday().num_days_from_sunday(),
        }
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
];

fn minute_of(year: i32) -> i64 {
    Utc.with_ymd_and_hms(year, 1, 1, 0, 0, 0).unwrap().timestamp() / 60
}

fn wall_at(local: i64) -> Wall {
    Wall::of(Utc.timestamp_opt(local * 60, 0).unwrap().naive_utc())
}

/// Five years of every pattern, and for each the instants at which it should start.
fn walk(zone: Tz) -> Vec<Vec<i64>> {
    let mut found = vec![Vec::new(); PATTERNS.len()];
    // The furthest that the local clock has been, in minutes.
    let mut furthest = i64::MIN;
    for minute in minute_of(2023) - 1..minute_of(2028) {
        let instant = Utc.timestamp_opt(minute * 60, 0).unwrap();
        let local = instant.with_timezone(&zone).naive_local();
        let shown = local.and_utc().timestamp() / 60;
        // What the clock shows for the first time: many minutes when it was set forward, none when it was set back.
        let fresh = if furthest == i64::MIN { shown..shown + 1 } else { furthest + 1..shown + 1 };
        let fresh: Vec<Wall> = fresh.map(wall_at).collect();
        let wall = Wall::of(local);
        for ((_, repeating, condition), found) in PATTERNS.iter().zip(&mut found) {
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
    for ((cron, ..), expected) in PATTERNS.iter().zip(walk(zone)) {
        let calendar = Calendar::parse(cron, zone.name()).unwrap();
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
