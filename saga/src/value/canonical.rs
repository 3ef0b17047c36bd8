//! The canonical form of a document: one text for all spellings of one value.

use std::borrow::Cow;
use std::ops::Range;

use super::decimal::Decimal;
use crate::json::{Kind, skip_space, string_end, unescape, value_end};

/// Values nested deeper than this are printed as they are spelt. Documents from outside are not.
const MAX_DEPTH: usize = 128;

/// The spelling of strings and numbers in a canonical form.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Scalars {
    /// One for each value.
    ByValue,
    /// As they came.
    AsSpelt,
}

/// Returns the text without white space, the members of objects sorted by name, each string and number spelt in one
/// way.
pub(crate) fn canonical(value: &str) -> String {
    form(value, Scalars::ByValue)
}

/// Returns the same, with the strings and numbers spelt as they came.
pub(crate) fn without_layout(value: &str) -> String {
    form(value, Scalars::AsSpelt)
}

fn form(value: &str, scalars: Scalars) -> String {
    let mut form = Form { scalars, out: String::with_capacity(value.len()) };
    form.write(value, skip_space(value.as_bytes(), 0), MAX_DEPTH);
    form.out
}

struct Form {
    scalars: Scalars,
    out: String,
}

impl Form {
    /// Appends the canonical form of the value that begins at `at`, and returns where it ends.
    fn write(&mut self, text: &str, at: usize, depth: usize) -> usize {
        let bytes = text.as_bytes();
        match bytes.get(at) {
            Some(b'[') if depth > 0 => self.write_list(text, at, depth),
            Some(b'{') if depth > 0 => self.write_object(text, at, depth),
            _ => {
                let end = value_end(bytes, at);
                self.write_scalar(text.get(at..end).unwrap_or_default());
                end
            }
        }
    }

    fn write_scalar(&mut self, text: &str) {
        let by_value = self.scalars == Scalars::ByValue;
        match Kind::of(text) {
            Kind::Number if by_value => Decimal::of(text).write(&mut self.out),
            Kind::String if by_value && text.contains('\\') => {
                match serde_json::from_str::<String>(text) {
                    Ok(string) => push_string(&mut self.out, &string),
                    // A lone surrogate has no string; it is refused where documents come in.
                    Err(_) => self.out.push_str(text),
                }
            }
            _ => self.out.push_str(text),
        }
    }

    fn write_list(&mut self, text: &str, at: usize, depth: usize) -> usize {
        let bytes = text.as_bytes();
        self.out.push('[');
        let mut at = skip_space(bytes, at + 1);
        while !matches!(bytes.get(at), Some(b']') | None) {
            at = skip_space(bytes, self.write(text, at, depth - 1));
            if bytes.get(at) != Some(&b',') {
                break;
            }
            self.out.push(',');
            at = skip_space(bytes, at + 1);
        }
        self.out.push(']');
        at + 1
    }

    fn write_object(&mut self, text: &str, at: usize, depth: usize) -> usize {
        let bytes = text.as_bytes();
        self.out.push('{');
        let start = self.out.len();
        // Each member's key, and the range of its canonical form in `out`.
        let mut members: Vec<(Cow<'_, str>, Range<usize>)> = Vec::new();
        let mut at = skip_space(bytes, at + 1);
        while bytes.get(at) == Some(&b'"') {
            let key_end = string_end(bytes, at);
            let key = unescape(text.get(at..key_end).unwrap_or_default());
            let from = self.out.len();
            push_string(&mut self.out, &key);
            self.out.push(':');
            let value = skip_space(bytes, skip_space(bytes, key_end) + 1);
            at = skip_space(bytes, self.write(text, value, depth - 1));
            members.push((key, from..self.out.len()));
            if bytes.get(at) != Some(&b',') {
                break;
            }
            self.out.push(',');
            at = skip_space(bytes, at + 1);
        }
        if !members.is_sorted_by(|a, b| a.0 <= b.0) {
            members.sort_by(|a, b| a.0.cmp(&b.0));
            let parts: Vec<&str> =
                members.iter().filter_map(|(_, range)| self.out.get(range.clone())).collect();
            let sorted = parts.join(",");
            self.out.truncate(start);
            self.out.push_str(&sorted);
        }
        self.out.push('}');
        at + 1
    }
}

/// Appends `text` as a JSON string.
pub fn push_string(out: &mut String, text: &str) {
    if text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | ..=0x1f)) {
        out.push_str(&serde_json::Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}
