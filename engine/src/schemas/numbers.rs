//! Numbers that a double cannot hold. Schemas are evaluated on doubles, so that `1000000000000000.00` would be no more
//! than `999999999999999.99`. A number of a document that is not what its double is goes to the next double on its
//! side, which compares with the constants of the schema as the number itself does.

use std::cmp::Ordering;
use std::collections::HashMap;

use backstitch_saga::{Violation, order_numbers};
use serde_json::{Number, Value};

/// Number of characters up to which a number without an exponent is exact in a double or an integer.
const PLAIN: usize = 15;
/// From here on a double has no place for a fraction.
const WHOLE: f64 = 9_007_199_254_740_992.0;
/// From here on there are no integers but doubles.
const FARTHEST: f64 = 18_446_744_073_709_551_616.0;
/// Number of characters of a number that are shown.
const SHOWN: usize = 40;
/// Constants of a schema are apart by at least so many doubles, if one of them is none.
const APART: u64 = 4;
/// Words of schemas that look at numbers.
const WORDS: [&str; 5] = ["nimum", "ximum", "multipleOf", "const", "enum"];

/// Properties of numbers that a schema examines.
#[derive(Debug, Default)]
pub(super) struct Numbers {
    /// `true` if it examines any.
    looks: bool,
    /// Its constants that a double cannot represent, by the bits of the double in their place.
    constants: HashMap<u64, Box<str>>,
}

impl Numbers {
    /// Reads the numbers of a schema from its text.
    pub(super) fn of(schema: &str) -> Numbers {
        let looks = ["uniqueItems", "\"integer\""].iter().chain(&WORDS);
        let looks = looks.into_iter().any(|word| schema.contains(word));
        let constants = tokens(schema).filter(|(_, token)| !is_plain(token) && !is_integer(token));
        let constants = constants.filter_map(|(_, token)| {
            let double = double(token);
            (order_numbers(token, &decimal(double)) != Ordering::Equal)
                .then(|| (double.to_bits(), token.into()))
        });
        Numbers { looks, constants: constants.collect() }
    }

    /// Finds constants of a schema that cannot be distinguished from their neighbours.
    pub(super) fn check(schema: &str) -> Option<Violation> {
        let constants = Numbers::of(schema).constants;
        if constants.is_empty() {
            return None;
        }
        let wrong = |message| Some(Violation::new("", "number_too_precise", message));
        let far = constants.iter().find(|(bits, _)| is_far(f64::from_bits(**bits)));
        if let Some((_, text)) = far {
            return wrong(format!(
                "{text} has a fraction, so far from zero that it cannot be compared"
            ));
        }
        let mut all: Vec<&str> = tokens(schema).map(|(_, token)| token).collect();
        all.sort_by(|one, other| order_numbers(one, other));
        all.dedup_by(|one, other| order_numbers(one, other).is_eq());
        let close = all
            .windows(2)
            .find(|two| place(double(two[1])).saturating_sub(place(double(two[0]))) < APART)?;
        wrong(format!("{} and {} are closer together than can be told apart", close[0], close[1]))
    }

    /// Returns the text of a schema as it is compiled: each number as the nearest double.
    pub(super) fn read_schema(text: &str) -> Result<Value, serde_json::Error> {
        let is_kept = |token: &str| is_plain(token) || is_integer(token);
        if tokens(text).all(|(_, token)| is_kept(token)) {
            return serde_json::from_str(text);
        }
        let nearest = |token: &str| match is_kept(token) {
            true => Ok(None),
            false => Ok(Number::from_f64(double(token))),
        };
        rewritten(text, nearest).or_else(|_| serde_json::from_str(text))
    }

    /// Reads a document to be held to the schema, and whether a number of it is not the one that is written.
    ///
    /// # Errors
    /// An error of the reader, or a number that cannot be compared.
    pub(super) fn read(&self, text: &str) -> Result<(Value, bool), Unread> {
        let plain = || tokens(text).all(|(_, token)| is_plain(token));
        if !self.looks || (self.constants.is_empty() && plain()) {
            return Ok((serde_json::from_str(text).map_err(Unread::Json)?, false));
        }
        let mut moved = false;
        let value = rewritten(text, |token| self.stands_for(token, &mut moved))?;
        Ok((value, moved))
    }

    /// Returns the number in place of one of a document, noting whether it is another; `None` for one that is taken as
    /// it is.
    fn stands_for(&self, token: &str, moved: &mut bool) -> Result<Option<Number>, Unread> {
        let double = double(token);
        let constant = self.constants.get(&double.to_bits());
        if constant.is_none() && (is_plain(token) || is_integer(token)) {
            return Ok(None);
        }
        let stands = constant.map_or_else(|| decimal(double), |text| text.clone().into_string());
        let order = order_numbers(token, &stands);
        if order.is_ne() && is_far(double) {
            // The constants around it are integers.
            let whole =
                whole(token).ok_or_else(|| Unread::TooPrecise(token.chars().take(SHOWN).collect()));
            return whole.map(Some);
        }
        let other = match order {
            Ordering::Equal => double,
            Ordering::Greater => double.next_up(),
            Ordering::Less => double.next_down(),
        };
        *moved |= order.is_ne();
        Ok(Number::from_f64(other.clamp(f64::MIN, f64::MAX)))
    }
}

/// Reads a JSON text with other numbers in place of those for which there are some.
fn rewritten(
    text: &str,
    mut other: impl FnMut(&str) -> Result<Option<Number>, Unread>,
) -> Result<Value, Unread> {
    let mut numbers: Vec<Number> = Vec::new();
    let mut written = String::with_capacity(text.len() + 16);
    let mut rest = 0;
    for (at, token) in tokens(text) {
        let Some(number) = other(token)? else { continue };
        written.push_str(text.get(rest..at).unwrap_or_default());
        // No document has this character in a text.
        written.push_str("\"\\u0000");
        written.push_str(&numbers.len().to_string());
        written.push('"');
        rest = at + token.len();
        numbers.push(number);
    }
    written.push_str(text.get(rest..).unwrap_or_default());
    let mut value = serde_json::from_str(&written).map_err(Unread::Json)?;
    put_back(&mut value, &numbers);
    Ok(value)
}

/// The reason for which a document was not read.
pub(super) enum Unread {
    /// It is no JSON.
    Json(serde_json::Error),
    /// This number of it cannot be compared exactly: a fraction so far from zero that a double has no place for it.
    TooPrecise(String),
}

/// Puts numbers into their places.
fn put_back(value: &mut Value, numbers: &[Number]) {
    match value {
        Value::String(text) => {
            let index = text.strip_prefix('\0').and_then(|index| index.parse::<usize>().ok());
            if let Some(number) = index.and_then(|index| numbers.get(index)) {
                *value = Value::Number(number.clone());
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|one| put_back(one, numbers)),
        Value::Object(members) => members.values_mut().for_each(|one| put_back(one, numbers)),
        _ => {}
    }
}

/// Returns the numbers of a JSON text, each with where it begins.
fn tokens(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let bytes = text.as_bytes();
    let mut at = 0;
    std::iter::from_fn(move || {
        while let Some(&byte) = bytes.get(at) {
            match byte {
                b'"' => {
                    at += 1;
                    while let Some(&inner) = bytes.get(at) {
                        match inner {
                            b'"' => break,
                            b'\\' => at += 2,
                            _ => at += 1,
                        }
                    }
                    at += 1;
                }
                b'-' | b'0'..=b'9' => {
                    let from = at;
                    let is_part =
                        |byte: &u8| matches!(byte, b'0'..=b'9' | b'+' | b'-' | b'.' | b'e' | b'E');
                    while bytes.get(at).is_some_and(is_part) {
                        at += 1;
                    }
                    return Some((from, text.get(from..at).unwrap_or_default()));
                }
                _ => at += 1,
            }
        }
        None
    })
}

/// Returns whether every reader holds a number as it is written.
fn is_plain(token: &str) -> bool {
    token.len() <= PLAIN && !token.contains(['e', 'E'])
}

/// Returns whether a number is held as an integer.
fn is_integer(token: &str) -> bool {
    token.parse::<i64>().is_ok() || token.parse::<u64>().is_ok()
}

/// Returns an integer that is written with a fraction of zeros.
fn whole(token: &str) -> Option<Number> {
    let (whole, fraction) = token.split_once('.')?;
    if !fraction.bytes().all(|digit| digit == b'0') {
        return None;
    }
    whole.parse::<u64>().map(Number::from).or_else(|_| whole.parse::<i64>().map(Number::from)).ok()
}

/// Returns whether integers are exact there and doubles cannot represent all of them.
fn is_far(double: f64) -> bool {
    (WHOLE..FARTHEST).contains(&double.abs())
}

/// Returns the double that is nearest to a number.
fn double(token: &str) -> f64 {
    token.parse::<f64>().map_or(0.0, |double| double.clamp(f64::MIN, f64::MAX))
}

/// Returns the number of a double: if it has room for a fraction, the shortest that it is nearest to.
fn decimal(double: f64) -> String {
    if double.abs() >= WHOLE { format!("{double:.0}") } else { format!("{double:e}") }
}

/// Returns the place of a double among all, in order.
fn place(double: f64) -> u64 {
    let bits = double.to_bits();
    if double.is_sign_negative() { !bits } else { bits | 1 << 63 }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// Returns whether `keyword` with this constant accepts the number, each as it is written.
    fn takes(keyword: &str, constant: &str, number: &str) -> bool {
        let schema = format!(r#"{{"{keyword}":{constant}}}"#);
        assert!(Numbers::check(&schema).is_none(), "{schema}");
        let validator = jsonschema::validator_for(&Numbers::read_schema(&schema).unwrap()).unwrap();
        let Ok((value, _)) = Numbers::of(&schema).read(number) else { panic!("{number}") };
        validator.is_valid(&value)
    }

    #[test]
    fn numbers_are_held_to_schemas_as_they_are_written() {
        for (constant, less, greater) in [
            ("999999999999999.99", "999999999999999.98", "1000000000000000.00"),
            ("999999999999999.99", "999999999999999.9899999", "1000000000000000"),
            ("1234567890123456.78", "1234567890123456.77", "1234567890123456.79"),
            ("1000000000000000", "999999999999999.9999", "1000000000000000.01"),
            ("0", "-1e-400", "1e-400"),
            ("0.1", "0.0999999999999999999999", "0.10000000000000000000001"),
            ("-0.1", "-0.10000000000000000000001", "-0.0999999999999999999999"),
            ("9223372036854775807", "9223372036854775806", "9223372036854775808"),
            ("9007199254740993", "9007199254740992.0", "9007199254740994"),
            ("1e300", "9.999999999999999999e299", "1.0000000000000000001e300"),
            ("18446744073709551615", "18446744073709551614", "18446744073709551617"),
        ] {
            for number in [less, constant, greater] {
                let (less, greater) = (number == less, number == greater);
                let told = format!("{number} beside {constant}");
                assert_eq!(takes("minimum", constant, number), !less, "minimum: {told}");
                assert_eq!(takes("maximum", constant, number), !greater, "maximum: {told}");
                assert_eq!(takes("exclusiveMinimum", constant, number), greater, "above: {told}");
                assert_eq!(takes("exclusiveMaximum", constant, number), less, "below: {told}");
                assert_eq!(takes("const", constant, number), !less && !greater, "const: {told}");
            }
        }
        for (keyword, constant, number, taken) in [
            ("type", "\"integer\"", "1.00000000000000000000000001", false),
            ("type", "\"integer\"", "100000000000000000000.0", true),
            ("type", "\"integer\"", "1e20", true),
            ("multipleOf", "0.01", "19.99", true),
            ("multipleOf", "0.01", "19.990000000000000000001", false),
            ("uniqueItems", "true", "[0.1, 0.1000000000000000000001]", true),
            ("uniqueItems", "true", "[1e300, 10e299]", false),
            ("enum", "[0.30000000000000000001]", "0.3", false),
        ] {
            assert_eq!(takes(keyword, constant, number), taken, "{keyword} {constant}: {number}");
        }
    }

    #[test]
    fn what_cannot_be_told_apart_is_refused() {
        for schema in [
            r#"{"minimum":0.30000000000000000001,"maximum":0.3}"#,
            r#"{"enum":[1234567890123456.78,1234567890123456.79]}"#,
            r#"{"maximum":9007199254740993.5}"#,
        ] {
            let found = Numbers::check(schema).map(|one| one.code);
            assert_eq!(found.as_deref(), Some("number_too_precise"), "{schema}");
        }
        let read = Numbers::of(r#"{"maximum":9007199254740993}"#).read("[9007199254740993.5]");
        assert!(matches!(read, Err(Unread::TooPrecise(number)) if number == "9007199254740993.5"));
    }

    #[test]
    fn texts_and_numbers_that_fit_stay_as_they_are() {
        let text = r#"{"a\"1e400":["1e400","\\",-1.5,12345678901234567,true],"b":"0.1"}"#;
        let (value, moved) = Numbers::of(r#"{"enum":[]}"#).read(text).ok().unwrap();
        assert_eq!(value, serde_json::from_str::<Value>(text).unwrap());
        assert_eq!((&value["b"], moved), (&json!("0.1"), false));
    }
}
