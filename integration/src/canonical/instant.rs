//! Instants and dates. An instant is spelt in RFC 3339, in UTC, with `Z` and up to nine digits of a fraction; a date is
//! `2025-03-30`. Local times need a zone; those that a change of clocks skips or repeats need a rule.

use chrono::format::{Parsed, StrftimeItems, parse};
use chrono::{
    DateTime, Datelike, NaiveDate, NaiveDateTime, NaiveTime, Offset, TimeDelta, TimeZone, Timelike,
    Utc,
};
use chrono_tz::Tz;
use serde::{Deserialize, Serialize};

use super::{DateFormat, Decimal, DecimalRule, Refused, trimmed};
use crate::document::Value;

/// Choice between the two instants that a local time can mean when clocks change.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fold {
    /// The earlier instant.
    Earlier,
    /// The later instant.
    Later,
}

/// Spelling of instants at a source.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum InstantRule {
    /// RFC 3339 with any offset.
    #[default]
    Rfc3339,
    /// Seconds since the epoch, as a number or a decimal text.
    UnixSeconds,
    /// Milliseconds since the epoch.
    UnixMillis,
    /// A format. Without an offset in it the zone says where the clock hangs.
    Format {
        /// The format.
        format: DateFormat,
        /// The zone of a format without an offset.
        zone: Option<Tz>,
        /// Choice for local times that are skipped or repeated; without one they are refused.
        fold: Option<Fold>,
    },
}

/// Returns the canonical spelling of an instant.
///
/// # Errors
/// `instant_not_valid`, `fraction_too_long`, `leap_second`, `two_digit_year`, `year_out_of_range`, `zone_missing`,
/// `local_time_ambiguous`, `local_time_nonexistent`.
pub fn instant(value: &Value, rule: &InstantRule) -> Result<String, Refused> {
    let instant = match rule {
        InstantRule::Rfc3339 => rfc3339(trimmed(value, CODE, "an instant")?)?,
        InstantRule::UnixSeconds => unix(value, 9)?,
        InstantRule::UnixMillis => unix(value, 6)?,
        InstantRule::Format { format, zone, fold } => {
            let text = trimmed(value, CODE, "an instant")?;
            let parsed = read(text, format, CODE)?;
            let local = parsed
                .to_naive_datetime_with_offset(0)
                .map_err(|error| wrong(CODE, text, &error.to_string()))?;
            let time = parsed.to_naive_time().unwrap_or_default();
            check(local.date(), time, text)?;
            match (format.has_offset(), zone) {
                (true, _) => {
                    let offset = parsed
                        .to_fixed_offset()
                        .map_err(|error| wrong(CODE, text, &error.to_string()))?;
                    let shift = TimeDelta::seconds(i64::from(offset.local_minus_utc()));
                    local.checked_sub_signed(shift).ok_or_else(out_of_range)?.and_utc()
                }
                (false, Some(zone)) => at(local, *zone, *fold)?,
                (false, None) => {
                    let message = "a local time needs a zone; name it in the rule (for example Europe/Berlin)";
                    return Err(Refused::new("zone_missing", message));
                }
            }
        }
    };
    write(instant)
}

/// Returns the canonical spelling of a date. A time of day in the format must be midnight, or it would be lost.
///
/// # Errors
/// `date_not_valid`, `two_digit_year`, `year_out_of_range`, `time_would_be_lost`.
pub fn date(value: &Value, format: Option<&DateFormat>) -> Result<String, Refused> {
    const CODE: &str = "date_not_valid";
    let text = trimmed(value, CODE, "a date")?;
    let (day, time) = match format {
        None => {
            let bytes = text.as_bytes();
            let shape =
                bytes.len() == 10 && bytes.get(4) == Some(&b'-') && bytes.get(7) == Some(&b'-');
            let day = if shape { NaiveDate::parse_from_str(text, "%Y-%m-%d").ok() } else { None };
            (
                day.ok_or_else(|| {
                    wrong(
                        CODE,
                        text,
                        "a date is spelt 2025-03-30; name the format of another spelling",
                    )
                })?,
                NaiveTime::MIN,
            )
        }
        Some(format) => {
            let parsed = read(text, format, CODE)?;
            let day =
                parsed.to_naive_date().map_err(|error| wrong(CODE, text, &error.to_string()))?;
            let time = if format.has_time() {
                parsed.to_naive_time().map_err(|error| wrong(CODE, text, &error.to_string()))?
            } else {
                NaiveTime::MIN
            };
            (day, time)
        }
    };
    check(day, time, text)?;
    if time != NaiveTime::MIN {
        let message =
            format!("'{text}' has a time of day, which a date would lose; map it to an instant");
        return Err(Refused::new("time_would_be_lost", message));
    }
    Ok(day.format("%Y-%m-%d").to_string())
}

const CODE: &str = "instant_not_valid";

fn wrong(code: &'static str, text: &str, why: &str) -> Refused {
    let text: String = text.chars().take(60).collect();
    Refused::new(code, format!("'{text}' is not understood: {why}"))
}

fn out_of_range() -> Refused {
    Refused::new("year_out_of_range", "a year has four digits, from 1000 to 9999")
}

/// Reads `text` by a format.
fn read(text: &str, format: &DateFormat, code: &'static str) -> Result<Parsed, Refused> {
    check_fraction(text)?;
    let mut parsed = Parsed::new();
    parse(&mut parsed, text, StrftimeItems::new(format.text()))
        .map_err(|error| wrong(code, text, &format!("{error} (format {})", format.text())))?;
    Ok(parsed)
}

/// Refuses a fraction of a second that the clock would cut.
fn check_fraction(text: &str) -> Result<(), Refused> {
    let fraction = text
        .split(['.', ','])
        .skip(1)
        .map(|rest| rest.bytes().take_while(u8::is_ascii_digit).count());
    if fraction.max().unwrap_or_default() > 9 {
        let message = "a fraction of a second has at most 9 digits; nothing is rounded";
        return Err(Refused::new("fraction_too_long", message));
    }
    Ok(())
}

/// Refuses years that were written with two digits, and seconds that UTC repeats.
fn check(day: NaiveDate, time: NaiveTime, text: &str) -> Result<(), Refused> {
    if (0..100).contains(&day.year()) {
        let message = format!("'{text}' has a year of two digits, which is ambiguous; send four");
        return Err(Refused::new("two_digit_year", message));
    }
    if !(1_000..=9_999).contains(&day.year()) {
        return Err(out_of_range());
    }
    if time.nanosecond() >= 1_000_000_000 {
        let message = format!(
            "'{text}' is a leap second, which no later reader could hold; send the second before or after"
        );
        return Err(Refused::new("leap_second", message));
    }
    Ok(())
}

fn rfc3339(text: &str) -> Result<DateTime<Utc>, Refused> {
    check_fraction(text)?;
    // chrono takes some spellings more than the standard has.
    let bytes = text.as_bytes();
    let digits = |range: std::ops::Range<usize>| {
        bytes.get(range).is_some_and(|part| part.iter().all(u8::is_ascii_digit))
    };
    let shape = digits(0..4)
        && bytes.get(4) == Some(&b'-')
        && matches!(bytes.get(10), Some(b'T' | b't' | b' '))
        && bytes.get(13) == Some(&b':')
        && bytes.get(16) == Some(&b':')
        && digits(17..19);
    if !shape {
        let why = "an instant is spelt 2025-03-30T10:00:00Z; name the format and the zone of another spelling";
        return Err(wrong(CODE, text, why));
    }
    let instant = DateTime::parse_from_rfc3339(text)
        .map_err(|error| wrong(CODE, text, &error.to_string()))?;
    check(instant.date_naive(), instant.time(), text)?;
    Ok(instant.with_timezone(&Utc))
}

/// Reads a number of seconds (9 digits behind its point are nanoseconds) or of milliseconds (6 are).
fn unix(value: &Value, digits: u32) -> Result<DateTime<Utc>, Refused> {
    let refused = |_| wrong(CODE, &value.to_json(), "not a number of seconds since 1970");
    let decimal = Decimal::read(value, DecimalRule::default()).map_err(refused)?;
    let (nanos, _) = decimal
        .with_scale(digits, None)
        .map_err(|refused| match refused.code {
            "scale_exceeded" => {
                let message = "an instant has at most 9 digits of a fraction of a second";
                Refused::new("fraction_too_long", message)
            }
            _ => out_of_range(),
        })?
        .parts();
    let seconds = i64::try_from(nanos.div_euclid(1_000_000_000)).map_err(|_| out_of_range())?;
    let rest = u32::try_from(nanos.rem_euclid(1_000_000_000)).map_err(|_| out_of_range())?;
    let instant = DateTime::from_timestamp(seconds, rest).ok_or_else(out_of_range)?;
    if (1_000..=9_999).contains(&instant.year()) { Ok(instant) } else { Err(out_of_range()) }
}

/// Returns the instant at which the clocks of `zone` show `local`.
fn at(local: NaiveDateTime, zone: Tz, fold: Option<Fold>) -> Result<DateTime<Utc>, Refused> {
    use chrono::offset::LocalResult;
    let result = zone.from_local_datetime(&local);
    let (code, what) = match (&result, fold) {
        (LocalResult::Single(instant), _) => return Ok(instant.with_timezone(&Utc)),
        (LocalResult::Ambiguous(..), None) => ("local_time_ambiguous", "happens twice"),
        (LocalResult::None, None) => ("local_time_nonexistent", "does not happen"),
        (LocalResult::Ambiguous(one, other), Some(fold)) => {
            let (one, other) = (one.with_timezone(&Utc), other.with_timezone(&Utc));
            return Ok(choose(one, other, fold));
        }
        (LocalResult::None, Some(fold)) => {
            // The clocks before and after the gap read the time as two instants.
            let read = |span: TimeDelta| {
                let near = local.checked_add_signed(span).ok_or_else(out_of_range)?;
                let offset = zone.offset_from_utc_datetime(&near).fix().local_minus_utc();
                let shift = TimeDelta::seconds(i64::from(offset));
                local.checked_sub_signed(shift).map(|utc| utc.and_utc()).ok_or_else(out_of_range)
            };
            return Ok(choose(read(-AROUND_A_GAP)?, read(AROUND_A_GAP)?, fold));
        }
    };
    let message = format!(
        "{local} {what} in {zone}, where clocks change; send an offset, or say fold: earlier or later"
    );
    Err(Refused::new(code, message))
}

/// Further from a gap than any offset from UTC, and nearer than the next change of clocks.
const AROUND_A_GAP: TimeDelta = TimeDelta::hours(26);

fn choose(one: DateTime<Utc>, other: DateTime<Utc>, fold: Fold) -> DateTime<Utc> {
    match fold {
        Fold::Earlier => one.min(other),
        Fold::Later => one.max(other),
    }
}

fn write(instant: DateTime<Utc>) -> Result<String, Refused> {
    if !(1_000..=9_999).contains(&instant.year()) {
        return Err(out_of_range());
    }
    let fraction = format!("{:09}", instant.nanosecond());
    let fraction = fraction.trim_end_matches('0');
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(format!("{}{point}{fraction}Z", instant.format("%Y-%m-%dT%H:%M:%S")))
}
