//! Reads the bounds of numbers, texts and lists.

use super::super::schema::{Bound, Kind, Node, NumberRule};
use super::{LONGEST_LENGTH, Parser};
use crate::document::{Number, Object, Value};

/// The most characters of a bound: more digits than any amount has, few enough to count with.
const LONGEST_BOUND: usize = 30;

/// The most characters or elements that a schema may ask for.
const LONGEST_LEAST: u64 = 10_000;

/// Formats of integers, as Rust types derive them: each is a range.
const INTEGERS: &[(&str, &str, &str)] = &[
    ("int8", "-128", "127"),
    ("int16", "-32768", "32767"),
    ("int32", "-2147483648", "2147483647"),
    ("int64", "-9223372036854775808", "9223372036854775807"),
    ("uint8", "0", "255"),
    ("uint16", "0", "65535"),
    ("uint32", "0", "4294967295"),
    ("uint64", "0", "18446744073709551615"),
    ("uint", "0", "18446744073709551615"),
];

impl Parser<'_> {
    /// Reads two lengths.
    pub(super) fn lengths(
        &mut self,
        keywords: &Object,
        min: &str,
        max: &str,
    ) -> Option<(u64, Option<u64>)> {
        let mut read = |keyword: &str| match keywords.get(keyword) {
            None => Some(None),
            Some(Value::Number(number)) => {
                let length = number.to_i64().and_then(|length| u64::try_from(length).ok());
                let length = length.filter(|length| *length <= LONGEST_LENGTH);
                if length.is_none() {
                    let message = format!("{keyword} is an integer from 0 to {LONGEST_LENGTH}");
                    self.refuse_at(keyword, "not_a_schema", message);
                }
                length.map(Some)
            }
            Some(_) => {
                self.refuse_at(keyword, "not_a_schema", format!("{keyword} is an integer"));
                None
            }
        };
        let (least, most) = (read(min)?.unwrap_or_default(), read(max)?);
        if least > LONGEST_LEAST {
            self.refuse_at(min, "not_a_schema", format!("{min} is at most {LONGEST_LEAST}"));
            return None;
        }
        if most.is_some_and(|most| most < least) {
            self.refuse_at(max, "never_valid", format!("{max} is less than {min}"));
            return None;
        }
        Some((least, most))
    }

    /// Reads the bounds of a number.
    pub(super) fn number(&mut self, keywords: &Object, integer: bool) -> Option<NumberRule> {
        let (format_low, format_high) = self.number_format(keywords, integer)?;
        let low = self.bound(keywords, "minimum", "exclusiveMinimum")?;
        let high = self.bound(keywords, "maximum", "exclusiveMaximum")?;
        let low = tighter(low, format_low, |one, other| one > other);
        let high = tighter(high, format_high, |one, other| one < other);
        let rule = NumberRule { integer, low, high };
        let node = Node::new(String::new(), false, Kind::Number(rule.clone()));
        if node.example(&mut |_| 0).is_none() {
            self.refuse("never_valid", "no number lies between the bounds");
            return None;
        }
        Some(rule)
    }

    fn bound(
        &mut self,
        keywords: &Object,
        inclusive: &str,
        exclusive: &str,
    ) -> Option<Option<Bound>> {
        if keywords.contains_key(inclusive) && keywords.contains_key(exclusive) {
            let message = format!("{inclusive} and {exclusive} stand apart");
            self.refuse_at(exclusive, "keyword_not_supported", message);
            return None;
        }
        for (keyword, inclusive) in [(inclusive, true), (exclusive, false)] {
            match keywords.get(keyword) {
                None => {}
                Some(Value::Number(number))
                    if number.canonical().len() <= LONGEST_BOUND
                        && !number.canonical().contains('e') =>
                {
                    return Some(Some(Bound { at: number.clone(), inclusive }));
                }
                Some(_) => {
                    let message = format!(
                        "{keyword} is a number of at most {LONGEST_BOUND} characters without exponent"
                    );
                    self.refuse_at(keyword, "not_a_schema", message);
                    return None;
                }
            }
        }
        Some(None)
    }

    /// Reads the format of a number as a range. Floats have none.
    fn number_format(
        &mut self,
        keywords: &Object,
        integer: bool,
    ) -> Option<(Option<Bound>, Option<Bound>)> {
        let Some(format) = keywords.get("format") else { return Some((None, None)) };
        let name = format.as_str().unwrap_or_default();
        if !integer && matches!(name, "float" | "double") {
            return Some((None, None));
        }
        let bound = |text: &str| Number::parse(text).map(|at| Bound { at, inclusive: true });
        let found = INTEGERS.iter().find(|(known, ..)| integer && *known == name);
        if found.is_none() {
            let names: Vec<&str> = INTEGERS.iter().map(|(name, ..)| *name).collect();
            let message = format!(
                "the formats of integers are {}; of numbers float and double",
                names.join(", ")
            );
            self.refuse_at("format", "format_not_supported", message);
        }
        found.map(|(_, low, high)| (bound(low), bound(high)))
    }
}

/// Returns the bound that excludes more.
fn tighter(
    one: Option<Bound>,
    other: Option<Bound>,
    is_tighter: impl Fn(&Number, &Number) -> bool,
) -> Option<Bound> {
    match (one, other) {
        (Some(one), Some(other)) => Some(if is_tighter(&other.at, &one.at) { other } else { one }),
        (one, other) => one.or(other),
    }
}
