//! JSON numbers as texts: compared by value, never converted to floats.

use std::cmp::Ordering;

use backstitch_saga::{Payload, order_numbers};

/// A JSON number, as it was written.
#[derive(Clone, Debug)]
pub struct Number(Box<str>);

impl Number {
    /// Takes the text of a JSON number; `None` if it is not one.
    #[must_use]
    pub fn parse(text: &str) -> Option<Number> {
        is_number(text).then(|| Number(text.into()))
    }

    /// Returns the number as it was written.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.0
    }

    /// Returns the one text that all spellings of this number share: `100` for `1e2` and `100.0`.
    #[must_use]
    pub fn canonical(&self) -> String {
        Payload::trusted(self.0.to_string())
            .map_or_else(|_| self.0.to_string(), |payload| payload.canonical())
    }

    /// Returns whether the number has no fraction: `1.0` and `1e2` are integers, too.
    #[must_use]
    pub fn is_integer(&self) -> bool {
        let plain = self.0.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
        plain || {
            let canonical = self.canonical();
            !canonical.contains("e-")
                && match canonical.split_once('e') {
                    Some((mantissa, exponent)) => {
                        let fraction =
                            mantissa.split_once('.').map_or(0, |(_, digits)| digits.len());
                        exponent.parse::<usize>().map_or(true, |exponent| fraction <= exponent)
                    }
                    None => !canonical.contains('.'),
                }
        }
    }

    /// Returns the number as an `i64`, if it is one.
    #[must_use]
    pub fn to_i64(&self) -> Option<i64> {
        self.0.parse().ok().or_else(|| self.canonical().parse().ok())
    }
}

impl From<i64> for Number {
    fn from(number: i64) -> Self {
        Number(number.to_string().into())
    }
}

impl PartialEq for Number {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other).is_eq()
    }
}

impl Eq for Number {}

impl PartialOrd for Number {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Number {
    fn cmp(&self, other: &Self) -> Ordering {
        order_numbers(&self.0, &other.0)
    }
}

/// Returns whether `text` is a number by the grammar of JSON.
fn is_number(text: &str) -> bool {
    let text = text.strip_prefix('-').unwrap_or(text);
    let (mantissa, exponent) = match text.split_once(['e', 'E']) {
        Some((mantissa, exponent)) => (mantissa, Some(exponent)),
        None => (text, None),
    };
    let (whole, fraction) = match mantissa.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (mantissa, None),
    };
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    digits(whole)
        && (whole == "0" || !whole.starts_with('0'))
        && fraction.is_none_or(digits)
        && exponent.is_none_or(|text| digits(text.strip_prefix(['+', '-']).unwrap_or(text)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_are_recognised_however_they_are_written() {
        for (text, integer) in [
            ("1", true),
            ("-0", true),
            ("1.0", true),
            ("1e2", true),
            ("150e-1", true),
            ("15e-1", false),
            ("1.5e300", true),
            ("1e-300", false),
            ("0.1", false),
            ("123456789012345678901234567890", true),
            ("123456789012345678901234567890.5", false),
        ] {
            assert_eq!(Number::parse(text).unwrap().is_integer(), integer, "{text}");
        }
    }

    #[test]
    fn only_the_grammar_of_json_is_a_number() {
        for text in ["", "-", "01", "+1", ".5", "1.", "1e", "0x1", "1_000", "NaN", "1e+", "١"] {
            assert!(Number::parse(text).is_none(), "{text}");
        }
    }
}
