//! Makes JSON of text that is not quite JSON, for requests in which one bad character must not lose what others say: bytes
//! that are no UTF-8, control characters and escapes that JSON does not know, halves of surrogate pairs, and numbers that
//! are none.

use std::ops::Range;

/// JSON, and where it was changed.
#[derive(Debug, Default)]
pub(super) struct Repaired {
    pub(super) text: String,
    characters: Vec<usize>,
    numbers: Vec<usize>,
}

impl Repaired {
    /// Returns whether characters in `place` were replaced by U+FFFD.
    pub(super) fn lost_characters(&self, place: &Range<usize>) -> bool {
        any_in(&self.characters, place)
    }

    /// Returns whether `NaN` or an infinity in `place` is `null` now.
    pub(super) fn lost_numbers(&self, place: &Range<usize>) -> bool {
        any_in(&self.numbers, place)
    }

    fn replace(&mut self) {
        self.characters.push(self.text.len());
        self.text.push(char::REPLACEMENT_CHARACTER);
    }
}

/// Returns whether one of `places`, which ascend, is in `place`.
fn any_in(places: &[usize], place: &Range<usize>) -> bool {
    let first = places.partition_point(|at| *at < place.start);
    places.get(first).is_some_and(|at| *at < place.end)
}

/// The text as it came; `None` when it is no text.
pub(super) fn unchanged(bytes: &[u8]) -> Option<Repaired> {
    let text = std::str::from_utf8(bytes).ok()?.to_owned();
    Some(Repaired { text, ..Repaired::default() })
}

/// Replaces what is no JSON in texts by U+FFFD, and numbers that are none by `null`.
pub(super) fn json(bytes: &[u8]) -> Repaired {
    let mut repaired = Repaired { text: String::with_capacity(bytes.len()), ..Repaired::default() };
    let mut quoted = false;
    for chunk in bytes.utf8_chunks() {
        let mut rest = chunk.valid();
        while let Some(next) = rest.chars().next() {
            let taken = match (quoted, next) {
                (true, '\\') => match escape(rest) {
                    Ok(length) => length,
                    Err(length) => {
                        repaired.replace();
                        rest = &rest[length..];
                        continue;
                    }
                },
                (true, '\0'..' ') => {
                    repaired.replace();
                    rest = &rest[1..];
                    continue;
                }
                (_, '"') => {
                    quoted = !quoted;
                    1
                }
                (true, _) => {
                    rest.find(|c| c < ' ' || matches!(c, '\\' | '"')).unwrap_or(rest.len())
                }
                (false, 'N' | 'I' | '-') => match no_number(rest) {
                    Some(length) => {
                        repaired.numbers.push(repaired.text.len());
                        repaired.text.push_str("null");
                        rest = &rest[length..];
                        continue;
                    }
                    None => 1,
                },
                (false, _) => next.len_utf8(),
            };
            repaired.text.push_str(&rest[..taken]);
            rest = &rest[taken..];
        }
        if !chunk.invalid().is_empty() {
            repaired.replace();
        }
    }
    repaired
}

/// The length of the escape at the beginning of `text`; for one that is no character how much of it is to be replaced.
fn escape(text: &str) -> Result<usize, usize> {
    let unit = |at: usize| {
        let digits = text.get(at..at + 6)?.strip_prefix("\\u")?;
        digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then_some(())?;
        u16::from_str_radix(digits, 16).ok()
    };
    match (text.as_bytes().get(1), unit(0)) {
        (_, Some(0xd800..=0xdbff)) if matches!(unit(6), Some(0xdc00..=0xdfff)) => Ok(12),
        (_, Some(0xd800..=0xdfff)) => Err(6),
        (_, Some(_)) => Ok(6),
        (Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't'), _) => Ok(2),
        _ => Err(1),
    }
}

/// The length of what stands for a number at the beginning of `text` and is none in JSON.
fn no_number(text: &str) -> Option<usize> {
    ["NaN", "Infinity", "-Infinity", "-NaN"]
        .iter()
        .find(|name| text.starts_with(**name))
        .map(|n| n.len())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_json_is_replaced_and_all_else_stays_byte_for_byte() {
        for (bytes, text) in [
            (
                &br#"{"a" : [1.0, "\u00e9\n\"NaN\\", -1e400]}"#[..],
                r#"{"a" : [1.0, "\u00e9\n\"NaN\\", -1e400]}"#,
            ),
            (b"[\"a\xffb\xc3\"]", "[\"a\u{fffd}b\u{fffd}\"]"),
            (b"[\"\x1b[31m\ttab\"]", "[\"\u{fffd}[31m\u{fffd}tab\"]"),
            (br#"["\x1b \e \u12"]"#, "[\"\u{fffd}x1b \u{fffd}e \u{fffd}u12\"]"),
            (
                br#"["\ud800 \\ud800 \ud83d\ude00 \udc00"]"#,
                "[\"\u{fffd} \\\\ud800 \\ud83d\\ude00 \u{fffd}\"]",
            ),
            (b"[\"\\\xff\"]", "[\"\u{fffd}\u{fffd}\"]"),
            (br#"[NaN, -Infinity,Infinity, "Infinity"]"#, r#"[null, null,null, "Infinity"]"#),
        ] {
            let repaired = json(bytes);
            assert_eq!(repaired.text, text);
            let changed = repaired.text.as_bytes() != bytes;
            let whole = 0..repaired.text.len();
            assert_eq!(repaired.lost_characters(&whole) || repaired.lost_numbers(&whole), changed);
            serde_json::from_str::<serde_json::Value>(text)
                .map_or_else(|error| assert!(text.contains("1e400"), "{text}: {error}"), |_| ());
        }
    }

    #[test]
    fn the_places_are_those_of_the_repaired_text() {
        let repaired = json(b"[\"\xff\",\"ok\",NaN]");
        let at = |part: &str| {
            let start = repaired.text.find(part).unwrap();
            start..start + part.len()
        };
        assert!(repaired.lost_characters(&at("\"\u{fffd}\"")));
        assert!(!repaired.lost_characters(&at("\"ok\"")) && !repaired.lost_numbers(&at("\"ok\"")));
        assert!(repaired.lost_numbers(&at("null")) && !repaired.lost_characters(&at("null")));
    }
}
