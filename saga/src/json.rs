//! Walks the text of a JSON document that is known to be well-formed, without building it.
//!
//! Everything here is total: on text that is not well-formed after all it finds something or nothing, and never
//! panics. What is well-formed is decided elsewhere, by `serde_json`, before a text becomes a [`crate::Payload`].

use std::borrow::Cow;

use crate::envelope;

/// The type of a value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Bool,
    Number,
    String,
    Array,
    Object,
}

impl Kind {
    /// Returns the type of the value `text`, by its first byte.
    pub(crate) fn of(text: &str) -> Kind {
        match text.as_bytes().first() {
            Some(b'{') => Kind::Object,
            Some(b'[') => Kind::Array,
            Some(b'"') => Kind::String,
            Some(b't' | b'f') => Kind::Bool,
            Some(b'-' | b'0'..=b'9') => Kind::Number,
            _ => Kind::Null,
        }
    }

    /// Returns the word for people, with its article.
    pub(crate) fn words(self) -> &'static str {
        match self {
            Kind::Null => "null",
            Kind::Bool => "a boolean",
            Kind::Number => "a number",
            Kind::String => "a string",
            Kind::Array => "a list",
            Kind::Object => "an object",
        }
    }
}

/// Returns the position of the first byte from `at` on that is not white space.
pub(crate) fn skip_space(text: &[u8], mut at: usize) -> usize {
    while let Some(b' ' | b'\n' | b'\r' | b'\t') = text.get(at) {
        at += 1;
    }
    at
}

const ONES: u64 = 0x0101_0101_0101_0101;
const HIGHS: u64 = 0x8080_8080_8080_8080;

/// Returns the high bit of each byte of `word` that is zero, reliable up to and including the lowest such byte.
fn zero_bytes(word: u64) -> u64 {
    word.wrapping_sub(ONES) & !word & HIGHS
}

/// Returns the position of the first quote or backslash from `at` on; the end of the text without one. Looks at eight
/// bytes at a time.
pub(crate) fn find_special(text: &[u8], mut at: usize) -> usize {
    while let Some(chunk) = text.get(at..).and_then(|rest| rest.first_chunk::<8>()) {
        let word = u64::from_le_bytes(*chunk);
        let hits = zero_bytes(word ^ (ONES * 0x22)) | zero_bytes(word ^ (ONES * 0x5c));
        if hits != 0 {
            return at + (hits.trailing_zeros() / 8) as usize;
        }
        at += 8;
    }
    while let Some(byte) = text.get(at) {
        if matches!(byte, b'"' | b'\\') {
            return at;
        }
        at += 1;
    }
    text.len()
}

/// Returns the position behind the closing quote of the string whose opening quote is at `at`.
pub(crate) fn string_end(text: &[u8], at: usize) -> usize {
    let mut at = at + 1;
    loop {
        at = find_special(text, at);
        match text.get(at) {
            Some(b'\\') => at += 2,
            Some(_) => return at + 1,
            None => return text.len(),
        }
    }
}

/// Returns the position behind the value that begins at `at`.
pub(crate) fn value_end(text: &[u8], mut at: usize) -> usize {
    let mut depth = 0_usize;
    while let Some(byte) = text.get(at) {
        match byte {
            b'"' => {
                at = string_end(text, at);
                if depth == 0 {
                    return at;
                }
                continue;
            }
            b'{' | b'[' => depth += 1,
            b'}' | b']' if depth <= 1 => return if depth == 1 { at + 1 } else { at },
            b'}' | b']' => depth -= 1,
            b',' | b':' | b' ' | b'\n' | b'\r' | b'\t' if depth == 0 => return at,
            _ => {}
        }
        at += 1;
    }
    text.len()
}

/// Returns the string of the literal `raw`, which includes its quotes.
pub(crate) fn unescape(raw: &str) -> Cow<'_, str> {
    let inner = raw.get(1..raw.len().saturating_sub(1)).unwrap_or_default();
    if !inner.as_bytes().contains(&b'\\') {
        return Cow::Borrowed(inner);
    }
    // Lone surrogates have no string; they are refused where documents come in, and compare as they are spelt.
    serde_json::from_str(raw).map_or(Cow::Borrowed(inner), Cow::Owned)
}

/// Returns the members of an object, in order: the key's literal and the value's text. Nothing for other values.
pub(crate) fn members(object: &str) -> Members<'_> {
    Members { text: object, at: if Kind::of(object) == Kind::Object { 1 } else { object.len() } }
}

/// See [`members`].
pub(crate) struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let key = skip_space(bytes, self.at);
        if bytes.get(key) != Some(&b'"') {
            return None;
        }
        let key_end = string_end(bytes, key);
        let value = skip_space(bytes, skip_space(bytes, key_end) + 1);
        let end = value_end(bytes, value);
        self.at = after_comma(bytes, end);
        Some((self.text.get(key..key_end)?, self.text.get(value..end)?))
    }
}

/// Returns the elements of a list, in order. Nothing for other values.
pub(crate) fn elements(list: &str) -> Elements<'_> {
    Elements { text: list, at: if Kind::of(list) == Kind::Array { 1 } else { list.len() } }
}

/// See [`elements`].
pub(crate) struct Elements<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Elements<'a> {
    type Item = &'a str;

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let value = skip_space(bytes, self.at);
        let end = value_end(bytes, value);
        if value == end {
            return None;
        }
        self.at = after_comma(bytes, end);
        self.text.get(value..end)
    }
}

/// Returns the position behind the comma that follows a value, or of what follows it instead.
fn after_comma(text: &[u8], at: usize) -> usize {
    let at = skip_space(text, at);
    if text.get(at) == Some(&b',') { at + 1 } else { at }
}

/// Returns the value of the member `key` of an object.
pub(crate) fn member<'a>(object: &'a str, key: &str) -> Option<&'a str> {
    members(object).find(|(raw, _)| unescape(raw) == key).map(|(_, value)| value)
}

/// Resolves the reference tokens `rest` of a JSON Pointer: empty, or `/a/0/b` with `~0` and `~1` as in RFC 6901.
pub(crate) fn find<'a>(text: &'a str, rest: &str) -> Option<&'a str> {
    rest.split('/').skip(1).try_fold(text, step)
}

/// Resolves one reference token.
fn step<'a>(value: &'a str, token: &str) -> Option<&'a str> {
    match Kind::of(value) {
        Kind::Object => member(value, &untoken(token)),
        Kind::Array => elements(value).nth(list_index(token)?),
        _ => None,
    }
}

/// Returns whether the reference tokens `rest` would lead on into an envelope.
pub(crate) fn leads_into_envelope(text: &str, rest: &str) -> bool {
    let mut value = text;
    for token in rest.split('/').skip(1) {
        if envelope::is_written(value) {
            return true;
        }
        let Some(next) = step(value, token) else { return false };
        value = next;
    }
    false
}

/// Returns the index that a reference token names: digits without leading zeros.
pub(crate) fn list_index(token: &str) -> Option<usize> {
    let digits = token.bytes().all(|byte| byte.is_ascii_digit());
    let plain = token == "0" || !token.starts_with('0');
    if digits && plain { token.parse().ok() } else { None }
}

/// Returns the key of a reference token of a JSON Pointer.
fn untoken(token: &str) -> Cow<'_, str> {
    if token.contains('~') {
        Cow::Owned(token.replace("~1", "/").replace("~0", "~"))
    } else {
        Cow::Borrowed(token)
    }
}

/// Appends the reference token of `key` to a JSON Pointer.
pub(crate) fn push_token(pointer: &mut String, key: &str) {
    pointer.push('/');
    for character in key.chars() {
        match character {
            '~' => pointer.push_str("~0"),
            '/' => pointer.push_str("~1"),
            other => pointer.push(other),
        }
    }
}

/// Returns the text of `error` without the position, which means nothing to a person who does not
/// see the same text.
pub(crate) fn without_position(error: &serde_json::Error) -> String {
    let message = error.to_string();
    match message.rfind(" at line ") {
        Some(end) => message[..end].to_owned(),
        None => message,
    }
}
