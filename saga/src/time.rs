//! Instants and spans as the rules see them. Neither reads a clock: time is always an argument.

use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use chrono::{DateTime, SecondsFormat, Utc};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An instant: milliseconds since the Unix epoch, by the database's clock.
///
/// Journal records carry the number; people and the REST API see RFC 3339 (see [`Timestamp`]).
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Time(pub i64);

impl Time {
    /// Returns the instant `span` after this one; the end of time instead of an overflow.
    #[must_use]
    pub fn after(self, span: Span) -> Time {
        Time(self.0.saturating_add(i64::try_from(span.0).unwrap_or(i64::MAX)))
    }

    /// Returns the time from `earlier` to this instant; zero if it is not later.
    #[must_use]
    pub fn since(self, earlier: Time) -> Span {
        Span(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

impl Time {
    fn text(self) -> String {
        // An instant that RFC 3339 cannot write is written as the nearest one that it can.
        let instant = self.0.clamp(FIRST.0, LAST.0);
        let instant = DateTime::<Utc>::from_timestamp_millis(instant).unwrap_or_default();
        instant.to_rfc3339_opts(SecondsFormat::Millis, true)
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text())
    }
}

/// An instant as the REST API spells it: RFC 3339 in UTC with milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, format = DateTime, example = "2026-01-31T10:02:11.250Z"))]
pub struct Timestamp(pub Time);

/// 0000-01-01T00:00:00Z and the last millisecond of 9999, in UTC: what RFC 3339 can write.
const FIRST: Time = Time(-62_167_219_200_000);
const LAST: Time = Time(253_402_300_799_999);

impl From<Time> for Timestamp {
    fn from(time: Time) -> Self {
        Timestamp(time)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0.text())
    }
}

impl FromStr for Timestamp {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong =
            |error: &dyn fmt::Display| format!("'{text}' is not an RFC 3339 instant: {error}");
        let instant = DateTime::parse_from_rfc3339(text).map_err(|error| wrong(&error))?;
        let instant = Time(instant.timestamp_millis());
        // An offset may lead out of the years that RFC 3339 can write.
        if (FIRST..=LAST).contains(&instant) {
            Ok(Timestamp(instant))
        } else {
            Err(wrong(&"in UTC its year is not one of 0000 to 9999"))
        }
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

/// A length of time in whole milliseconds. In JSON a string for people: `"250ms"`, `"30s"`, `"1h 30m"`, `"7d"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[cfg_attr(feature = "openapi", derive(utoipa::ToSchema))]
#[cfg_attr(feature = "openapi", schema(value_type = String, example = "30s"))]
pub struct Span(pub u64);

impl Span {
    /// No time at all.
    pub const ZERO: Span = Span(0);

    /// Returns a span of so many milliseconds.
    #[must_use]
    pub const fn millis(count: u64) -> Span {
        Span(count)
    }

    /// Returns a span of so many seconds.
    #[must_use]
    pub const fn secs(count: u64) -> Span {
        Span(count.saturating_mul(1_000))
    }

    /// Returns a span of so many minutes.
    #[must_use]
    pub const fn minutes(count: u64) -> Span {
        Span::secs(count.saturating_mul(60))
    }

    /// Returns a span of so many hours.
    #[must_use]
    pub const fn hours(count: u64) -> Span {
        Span::secs(count.saturating_mul(3_600))
    }

    /// Returns a span of so many days of 24 hours.
    #[must_use]
    pub const fn days(count: u64) -> Span {
        Span::secs(count.saturating_mul(86_400))
    }

    /// Returns the same span for the standard library's timers.
    #[must_use]
    pub const fn duration(self) -> Duration {
        Duration::from_millis(self.0)
    }
}

impl From<Duration> for Span {
    fn from(duration: Duration) -> Self {
        Span(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
    }
}

/// The units in which spans are written, in milliseconds. Months and years have no fixed length.
const UNITS: [(u64, &str); 5] =
    [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s"), (1, "ms")];

impl fmt::Display for Span {
    /// Writes a span as people do: `90d`, `1h 30m`, `250ms`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0 == 0 {
            return f.write_str("0s");
        }
        let (mut left, mut gap) = (self.0, "");
        for (millis, unit) in UNITS {
            let count = left / millis;
            left %= millis;
            if count > 0 {
                write!(f, "{gap}{count}{unit}")?;
                gap = " ";
            }
        }
        Ok(())
    }
}

impl FromStr for Span {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        // A month, which is never intended in a duration with one letter.
        let in_months = text.split(|letter: char| !letter.is_alphabetic()).any(|unit| unit == "M");
        let read = humantime::parse_duration(text).ok().filter(|_| !in_months);
        read.map(Span::from).ok_or_else(|| {
            format!("'{text}' is not a duration like \"30s\" or \"1h 30m\"; the units are ms, s, m, h and d")
        })
    }
}

impl Serialize for Span {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Span {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_span_is_written_as_people_write_it_and_read_again() {
        for (span, written) in [
            (Span::ZERO, "0s"),
            (Span::days(90), "90d"),
            (Span::days(400), "400d"),
            (Span::minutes(90), "1h 30m"),
            (Span::millis(2_500), "2s 500ms"),
            (Span::millis(1), "1ms"),
        ] {
            assert_eq!(span.to_string(), written);
            assert_eq!(written.parse(), Ok(span));
        }
        assert_eq!(Span(u64::MAX).to_string().parse(), Ok(Span(u64::MAX)));
        assert!("2months 29days".parse::<Span>().is_ok(), "as it was written before");
        for text in ["5M", "1h 5M", "1", "h", "-1s", "1 parsec", ""] {
            let message = text.parse::<Span>().unwrap_err();
            assert!(message.ends_with("the units are ms, s, m, h and d"), "{message}");
        }
    }

    #[test]
    fn every_instant_is_printed_as_rfc_3339() {
        for (time, printed) in [
            (Time(i64::MAX), "9999-12-31T23:59:59.999Z"),
            (Time(9_469_075_970_025_605), "9999-12-31T23:59:59.999Z"),
            (Time(253_402_300_800_000), "9999-12-31T23:59:59.999Z"),
            (Time(0), "1970-01-01T00:00:00.000Z"),
            (Time(i64::MIN), "0000-01-01T00:00:00.000Z"),
        ] {
            assert_eq!(time.to_string(), printed);
            assert!(printed.parse::<Timestamp>().is_ok());
        }
    }

    #[test]
    fn an_instant_that_its_offset_leads_out_of_the_years_is_refused() {
        for (text, read) in [
            ("0000-01-01T00:00:00Z", true),
            ("0000-01-01T00:00:00+00:01", false),
            ("9999-12-31T23:59:59.999Z", true),
            ("9999-12-31T23:59:59-00:01", false),
        ] {
            let instant = text.parse::<Timestamp>();
            assert_eq!(instant.is_ok(), read, "{text}");
            if let Ok(Timestamp(time)) = instant {
                assert_eq!(time.to_string().parse(), instant, "it is printed as it is read");
            }
        }
    }
}
