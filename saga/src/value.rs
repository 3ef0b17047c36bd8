//! Compares JSON values by what they mean, on their text.

use std::borrow::Cow;
use std::cmp::Ordering;
use std::ops::Range;

use crate::json::{Kind, elements, members, skip_space, string_end, unescape, value_end};

/// Values nested deeper than this are compared, and printed, as they are spelt. Documents from outside are not.
const MAX_DEPTH: usize = 128;

/// The members of an object by key.
pub(crate) fn sorted(object: &str) -> Vec<(Cow<'_, str>, &str)> {
    let mut sorted: Vec<_> = members(object).map(|(key, value)| (unescape(key), value)).collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    sorted
}

/// Whether two values are the same: numbers by value, strings by their characters, objects whatever their order.
pub(crate) fn equal(a: &str, b: &str) -> bool {
    equal_within(a, b, MAX_DEPTH)
}

fn equal_within(a: &str, b: &str, depth: usize) -> bool {
    if a == b {
        return true;
    }
    match (Kind::of(a), Kind::of(b)) {
        (Kind::Number, Kind::Number) => order_numbers(a, b) == Some(Ordering::Equal),
        (Kind::String, Kind::String) => unescape(a) == unescape(b),
        (Kind::Array, Kind::Array) if depth > 0 => {
            elements(a).count() == elements(b).count()
                && elements(a).zip(elements(b)).all(|(a, b)| equal_within(a, b, depth - 1))
        }
        (Kind::Object, Kind::Object) if depth > 0 => {
            let (a, b) = (sorted(a), sorted(b));
            a.len() == b.len()
                && a.iter().zip(&b).all(|(a, b)| a.0 == b.0 && equal_within(a.1, b.1, depth - 1))
        }
        _ => false,
    }
}

/// The order of two numbers, or of two strings by their code points; `None` for anything else.
pub(crate) fn order(a: &str, b: &str) -> Option<Ordering> {
    match (Kind::of(a), Kind::of(b)) {
        (Kind::Number, Kind::Number) => order_numbers(a, b),
        (Kind::String, Kind::String) => Some(unescape(a).cmp(&unescape(b))),
        _ => None,
    }
}

/// Integers exactly, as far as 128 bits go; all else as double-precision floats.
fn order_numbers(a: &str, b: &str) -> Option<Ordering> {
    if let (Ok(a), Ok(b)) = (a.parse::<i128>(), b.parse::<i128>()) {
        return Some(a.cmp(&b));
    }
    a.parse::<f64>().ok()?.partial_cmp(&b.parse::<f64>().ok()?)
}

/// The number of elements of a list, members of an object or characters of a string; `None` for anything else.
pub(crate) fn length(value: &str) -> Option<usize> {
    match Kind::of(value) {
        Kind::Array => Some(elements(value).count()),
        Kind::Object => Some(members(value).count()),
        Kind::String => Some(unescape(value).chars().count()),
        _ => None,
    }
}

/// The text without white space, the keys of objects sorted and spelt in one way.
pub(crate) fn canonical(value: &str) -> String {
    let mut out = String::with_capacity(value.len());
    write_canonical(value, 0, MAX_DEPTH, &mut out);
    out
}

/// Appends the canonical form of the value that begins at `at`, and answers where it ends.
fn write_canonical(text: &str, at: usize, depth: usize, out: &mut String) -> usize {
    let bytes = text.as_bytes();
    match bytes.get(at) {
        Some(b'[') if depth > 0 => write_list(text, at, depth, out),
        Some(b'{') if depth > 0 => write_object(text, at, depth, out),
        _ => {
            let end = value_end(bytes, at);
            out.push_str(text.get(at..end).unwrap_or_default());
            end
        }
    }
}

fn write_list(text: &str, at: usize, depth: usize, out: &mut String) -> usize {
    let bytes = text.as_bytes();
    out.push('[');
    let mut at = skip_space(bytes, at + 1);
    while !matches!(bytes.get(at), Some(b']') | None) {
        at = skip_space(bytes, write_canonical(text, at, depth - 1, out));
        if bytes.get(at) != Some(&b',') {
            break;
        }
        out.push(',');
        at = skip_space(bytes, at + 1);
    }
    out.push(']');
    at + 1
}

fn write_object(text: &str, at: usize, depth: usize, out: &mut String) -> usize {
    let bytes = text.as_bytes();
    out.push('{');
    let start = out.len();
    // Each member's key, and where its canonical form stands in `out`.
    let mut members: Vec<(Cow<'_, str>, Range<usize>)> = Vec::new();
    let mut at = skip_space(bytes, at + 1);
    while bytes.get(at) == Some(&b'"') {
        let key_end = string_end(bytes, at);
        let key = unescape(text.get(at..key_end).unwrap_or_default());
        let from = out.len();
        push_string(out, &key);
        out.push(':');
        let value = skip_space(bytes, skip_space(bytes, key_end) + 1);
        at = skip_space(bytes, write_canonical(text, value, depth - 1, out));
        members.push((key, from..out.len()));
        if bytes.get(at) != Some(&b',') {
            break;
        }
        out.push(',');
        at = skip_space(bytes, at + 1);
    }
    if !members.is_sorted_by(|a, b| a.0 <= b.0) {
        members.sort_by(|a, b| a.0.cmp(&b.0));
        let parts: Vec<&str> =
            members.iter().filter_map(|(_, range)| out.get(range.clone())).collect();
        let sorted = parts.join(",");
        out.truncate(start);
        out.push_str(&sorted);
    }
    out.push('}');
    at + 1
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut String, text: &str) {
    if text.bytes().any(|byte| matches!(byte, b'"' | b'\\' | ..=0x1f)) {
        out.push_str(&serde_json::Value::from(text).to_string());
    } else {
        out.push('"');
        out.push_str(text);
        out.push('"');
    }
}
