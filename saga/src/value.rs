//! Compares JSON values by what they mean, on their text.

use std::borrow::Cow;
use std::cmp::Ordering;

use crate::json::{Kind, elements, members, unescape};

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
    write_canonical(value, MAX_DEPTH, &mut out);
    out
}

fn write_canonical(value: &str, depth: usize, out: &mut String) {
    match Kind::of(value) {
        Kind::Array if depth > 0 => {
            out.push('[');
            for (index, element) in elements(value).enumerate() {
                if index > 0 {
                    out.push(',');
                }
                write_canonical(element, depth - 1, out);
            }
            out.push(']');
        }
        Kind::Object if depth > 0 => {
            out.push('{');
            for (index, (key, member)) in sorted(value).iter().enumerate() {
                if index > 0 {
                    out.push(',');
                }
                push_string(out, key);
                out.push(':');
                write_canonical(member, depth - 1, out);
            }
            out.push('}');
        }
        _ => out.push_str(value),
    }
}

/// Appends `text` as a JSON string.
pub(crate) fn push_string(out: &mut String, text: &str) {
    out.push_str(&serde_json::Value::from(text).to_string());
}
