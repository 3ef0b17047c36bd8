//! The parsers of this crate, for fuzzing: each a function of bytes that panics when a law is broken. Only with the
//! feature `fuzz`; see the crate `backstitch-fuzz`.

use backstitch_saga::{Payload, Time};

use crate::cursor;
use crate::schedules::instants::Calendar;

/// Returns a cursor to `place` in a list of the kind `kind`, as a caller could forge it.
#[must_use]
pub fn forged_cursor(kind: char, place: &str) -> String {
    cursor::seal(kind, place)
}

/// Reads a cursor: one that is read is exactly one that was made.
///
/// # Panics
/// When a law is broken.
pub fn cursor(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let kind = text.chars().next().unwrap_or('r');
    if let Some(place) = cursor::open(kind, text) {
        assert_eq!(cursor::seal(kind, &place), text, "there is one text for a place");
    }
    cursor::Cursor::read_as_any(text);
    // The same as a place, with a valid digest.
    let place = text.get(kind.len_utf8()..).unwrap_or_default();
    let sealed = cursor::seal(kind, place);
    let read = (!place.contains('\0')).then_some(place);
    assert_eq!(cursor::open(kind, &sealed).as_deref(), read, "a cursor is read again");
    cursor::Cursor::read_as_any(&sealed);
}

/// Reads a cron pattern and, behind a line break, a time zone: what is accepted is due at ever later
/// instants.
///
/// # Panics
/// When a law is broken.
pub fn cron(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (pattern, zone) = text.split_once('\n').unwrap_or((text, "Europe/Berlin"));
    let Ok(calendar) = Calendar::parse(pattern, zone) else { return };
    for after in
        [Time(0), Time(1_774_742_400_000), Time(4_000_000_000_000), Time(i64::MAX), Time(i64::MIN)]
    {
        let mut last = after;
        for instant in calendar.instants(after).take(3) {
            assert!(instant > last, "{instant} comes after {last}");
            let _ = calendar.local(instant);
            last = instant;
        }
    }
}

/// Reads a JSON Schema and, on the next line, a document: what is within the bounds is evaluated within a budget of
/// time.
///
/// # Panics
/// When a law is broken.
pub fn schema(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (schema, document) = text.split_once('\n').unwrap_or((text, text));
    let read = |text: &str| Payload::parse(text, text.len()).ok();
    if let Some((schema, document)) = read(schema).zip(read(document)) {
        crate::schemas::hold_to_budget(schema, document);
    }
}

/// Reads the member `sequence` of a definition, on the next line an input, and on a third what the caller of a start
/// adds: what the start wants is such as can be kept.
///
/// # Panics
/// When a law is broken.
pub fn sequence(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut lines = text.splitn(3, '\n');
    let mut next = || lines.next().unwrap_or_default();
    let (sequence, input, asked) = (next(), next(), next());
    let definition = format!(
        r#"{{"name":"one","version":1,"sequence":{sequence},"steps":[{{"id":"a","task":{{"name":"do",
        "input":{{"const":null}},"class":"retriable","timeouts":{{"heartbeat":"1s","attempt":"10s"}}}}}}]}}"#
    );
    crate::sequence::read_as_start(&definition, input, asked);
}
