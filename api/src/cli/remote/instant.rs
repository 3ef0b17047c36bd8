//! Instants as people type them: `2h` for two hours ago, `+2h`, `today`, `2026-03-01`, or RFC 3339. Pure but for [`now`].

use std::time::{SystemTime, UNIX_EPOCH};

use backstitch_saga::{Span, Time, Timestamp};

/// The forms, for `--help`.
pub(super) const FORMS: &str =
    "RFC 3339, a date, or counted from now: 2h (ago), +2h (ahead), today, yesterday (UTC)";

const DAY: i64 = 86_400_000;

/// The instant that it is now.
pub(super) fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
}

/// Reads an instant and writes it as the API takes it. One that is RFC 3339 already stays as it is.
///
/// # Errors
/// A sentence that names the forms.
pub(super) fn read(text: &str, now: Time) -> Result<String, String> {
    let text = text.trim();
    if text.parse::<Timestamp>().is_ok() {
        return Ok(text.to_owned());
    }
    let today = now.0 - now.0.rem_euclid(DAY);
    let at = match text {
        "now" => Some(now.0),
        "today" => Some(today),
        "yesterday" => Some(today - DAY),
        "tomorrow" => Some(today + DAY),
        _ => counted(text, now).or_else(|| dated(text)),
    };
    // What no year of RFC 3339 can hold is written as the instant next to it.
    let held = |at: &i64| Time(*at).to_string().parse() == Ok(Timestamp(Time(*at)));
    at.filter(held).map(|at| Time(at).to_string()).ok_or_else(|| {
        format!(
            "'{text}' is no instant; it is RFC 3339 like 2026-03-01T02:30:00Z, a date like \
             2026-03-01, or counted from now: 2h or -2h (ago), +2h (ahead), now, today, \
             yesterday, tomorrow (UTC)"
        )
    })
}

/// Returns whether an instant that was read is in the past.
pub(super) fn has_passed(read: &str, now: Time) -> bool {
    read.parse::<Timestamp>().is_ok_and(|Timestamp(at)| at.after(Span::secs(1)) < now)
}

/// `2h`, `-2h` and `2h ago` lie in the past, `+2h` and `in 2h` in the future.
fn counted(text: &str, now: Time) -> Option<i64> {
    let ahead = text.strip_prefix('+').or_else(|| text.strip_prefix("in "));
    let ago = text.strip_prefix('-').unwrap_or(text);
    let ago = ago.strip_suffix(" ago").unwrap_or(ago);
    let span: Span = ahead.unwrap_or(ago).trim().parse().ok()?;
    let span = i64::try_from(span.0).ok()?;
    match ahead {
        Some(_) => now.0.checked_add(span),
        None => now.0.checked_sub(span),
    }
}

/// A date, perhaps with a time of day, in UTC.
fn dated(text: &str) -> Option<i64> {
    let text = text.replacen(' ', "T", 1);
    let whole = ["Z", ":00Z", "T00:00:00Z"].map(|rest| format!("{text}{rest}"));
    whole.iter().find_map(|text| text.parse::<Timestamp>().ok()).map(|Timestamp(at)| at.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn instants_are_read_in_every_form() {
        let now: Timestamp = "2026-03-05T12:30:15.250Z".parse().unwrap();
        for (text, at) in [
            ("2026-03-01T02:30:00+01:00", "2026-03-01T02:30:00+01:00"),
            ("now", "2026-03-05T12:30:15.250Z"),
            ("1h", "2026-03-05T11:30:15.250Z"),
            ("-1h", "2026-03-05T11:30:15.250Z"),
            ("1h 30m ago", "2026-03-05T11:00:15.250Z"),
            ("2d", "2026-03-03T12:30:15.250Z"),
            ("+90m", "2026-03-05T14:00:15.250Z"),
            ("in 1d", "2026-03-06T12:30:15.250Z"),
            ("today", "2026-03-05T00:00:00.000Z"),
            ("yesterday", "2026-03-04T00:00:00.000Z"),
            ("tomorrow", "2026-03-06T00:00:00.000Z"),
            ("2026-03-01", "2026-03-01T00:00:00.000Z"),
            ("2026-03-01 14:05", "2026-03-01T14:05:00.000Z"),
            ("2026-03-01T14:05:06", "2026-03-01T14:05:06.000Z"),
        ] {
            assert_eq!(read(text, now.0), Ok(at.to_owned()), "{text}");
        }
    }

    #[test]
    fn what_is_no_instant_is_refused_with_the_forms() {
        for text in ["", "soon", "1", "h", "2026-13-01", "9000000000d", "1769853731000", "--"] {
            let error = read(text, Time(1_769_853_731_000)).unwrap_err();
            assert!(error.contains("+2h"), "{error}");
        }
    }
}
