//! Compares JSON values by what they mean, on their text. The one home of the question whether two documents are the
//! same: two are if their canonical forms are, however they are spelt.

mod canonical;
mod decimal;

use std::cmp::Ordering;

use crate::json::{Kind, elements, members, unescape};

pub use canonical::push_string;
pub(crate) use canonical::{canonical, without_layout};
pub use decimal::order_numbers;

/// Returns whether two values are the same: numbers by value, strings by their characters, objects whatever their
/// order. Takes time in proportion to the two texts, however they are nested.
pub(crate) fn equal(a: &str, b: &str) -> bool {
    if a == b {
        return true;
    }
    match (Kind::of(a), Kind::of(b)) {
        (Kind::Number, Kind::Number) => order_numbers(a, b).is_eq(),
        (Kind::String, Kind::String) => unescape(a) == unescape(b),
        (Kind::Array, Kind::Array) | (Kind::Object, Kind::Object) => canonical(a) == canonical(b),
        _ => false,
    }
}

/// Returns the order of two numbers, or of two strings by their code points; `None` for anything else.
pub(crate) fn order(a: &str, b: &str) -> Option<Ordering> {
    match (Kind::of(a), Kind::of(b)) {
        (Kind::Number, Kind::Number) => Some(order_numbers(a, b)),
        (Kind::String, Kind::String) => Some(unescape(a).cmp(&unescape(b))),
        _ => None,
    }
}

/// Returns the number of elements of a list, members of an object or characters of a string; `None` for anything else.
pub(crate) fn length(value: &str) -> Option<usize> {
    match Kind::of(value) {
        Kind::Array => Some(elements(value).count()),
        Kind::Object => Some(members(value).count()),
        Kind::String => Some(unescape(value).chars().count()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_the_same_by_what_they_mean() {
        for (a, b) in [
            (r#""café""#, r#""caf\u00e9""#),
            (r#""😀""#, r#""\ud83d\uDE00""#),
            (r#""a/b""#, r#""a\/b""#),
            (r#""\n""#, r#""\u000A""#),
            ("100", "1e2"),
            ("100", "100.0"),
            ("-0", "0.00"),
            ("[1,2.50]", "[ 1.0 , 25e-1 ]"),
            (r#"{"a":1,"b":[null]}"#, r#"{"b":[null],"\u0061":1E0}"#),
        ] {
            assert!(equal(a, b), "{a} {b}");
            assert_eq!(canonical(a), canonical(b));
        }
        for (a, b) in [
            ("1", r#""1""#),
            ("0", "false"),
            ("null", "false"),
            ("[1,2]", "[2,1]"),
            (r#"{"a":1}"#, r#"{"a":1,"b":null}"#),
            (r#""a""#, r#""A""#),
            (r#""\\u00e9""#, r#""\u00e9""#),
            ("1234567890123456.78", "1234567890123456.79"),
        ] {
            assert!(!equal(a, b), "{a} {b}");
            assert_ne!(canonical(a), canonical(b));
        }
    }
}
