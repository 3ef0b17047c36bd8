//! JSON numbers as exact decimals of any size, without expanding them: `1e1000000` is compared as fast as it is read.

use std::cmp::Ordering;
use std::ops::Range;

/// Numbers are printed without an exponent if that takes at most so many zeros more than they have digits.
const ZEROS: i128 = 40;

/// A number taken apart: `0.DIGITS * 10^point`, where the digits neither begin nor end with a zero. Zero has none.
pub(super) struct Decimal<'a> {
    negative: bool,
    /// The digits are these,
    whole: &'a str,
    /// and then these.
    fraction: &'a str,
    /// Exponents of more than 38 digits count as the largest or the smallest there is.
    point: i128,
}

impl<'a> Decimal<'a> {
    /// Takes the text of a JSON number apart.
    pub(super) fn of(text: &'a str) -> Decimal<'a> {
        let (negative, text) =
            text.strip_prefix('-').map_or((false, text), |positive| (true, positive));
        let (mantissa, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
        let exponent = exponent
            .parse::<i128>()
            .unwrap_or_else(|_| if exponent.starts_with('-') { i128::MIN } else { i128::MAX });
        let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
        let (whole, mut fraction) = (whole.trim_start_matches('0'), fraction.trim_end_matches('0'));
        let mut shift = whole.len() as i128;
        if whole.is_empty() {
            let digits = fraction.trim_start_matches('0');
            shift = -((fraction.len() - digits.len()) as i128);
            fraction = digits;
        }
        let whole = if fraction.is_empty() { whole.trim_end_matches('0') } else { whole };
        if whole.is_empty() && fraction.is_empty() {
            return Decimal { negative: false, whole, fraction, point: 0 };
        }
        Decimal { negative, whole, fraction, point: exponent.saturating_add(shift) }
    }

    fn digits(&self) -> impl Iterator<Item = u8> {
        self.whole.bytes().chain(self.fraction.bytes())
    }

    fn is_zero(&self) -> bool {
        self.whole.is_empty() && self.fraction.is_empty()
    }

    fn cmp(&self, other: &Decimal<'_>) -> Ordering {
        let sign = |one: &Decimal<'_>| match (one.is_zero(), one.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        let size = || {
            let size = self.point.cmp(&other.point).then_with(|| self.digits().cmp(other.digits()));
            if self.negative { size.reverse() } else { size }
        };
        match sign(self).cmp(&sign(other)) {
            Ordering::Equal if self.is_zero() => Ordering::Equal,
            Ordering::Equal => size(),
            unequal => unequal,
        }
    }

    /// Appends the number as all its spellings are written: `100`, `0.05`, `1.5e300`.
    pub(super) fn write(&self, out: &mut String) {
        if self.is_zero() {
            return out.push('0');
        }
        if self.negative {
            out.push('-');
        }
        let all = self.whole.len() + self.fraction.len();
        let (count, point) = (all as i128, usize::try_from(self.point).unwrap_or_default());
        let zeros = |count: i128| "0".repeat(usize::try_from(count).unwrap_or_default());
        match self.point {
            shift if shift >= count && shift - count <= ZEROS => {
                self.push(0..all, out);
                out.push_str(&zeros(shift - count));
            }
            shift if shift > 0 && shift < count => {
                self.push(0..point, out);
                out.push('.');
                self.push(point..all, out);
            }
            shift if (-ZEROS..=0).contains(&shift) => {
                out.push_str("0.");
                out.push_str(&zeros(-shift));
                self.push(0..all, out);
            }
            shift => {
                self.push(0..1, out);
                if all > 1 {
                    out.push('.');
                    self.push(1..all, out);
                }
                out.push('e');
                out.push_str(&shift.saturating_sub(1).to_string());
            }
        }
    }

    fn push(&self, range: Range<usize>, out: &mut String) {
        out.extend(self.digits().skip(range.start).take(range.len()).map(char::from));
    }
}

/// Orders two JSON numbers by value, exactly.
pub fn order_numbers(a: &str, b: &str) -> Ordering {
    match (a.parse::<i64>(), b.parse::<i64>()) {
        (Ok(a), Ok(b)) => a.cmp(&b),
        _ => Decimal::of(a).cmp(&Decimal::of(b)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Numbers from the smallest to the largest, each with its canonical form.
    const RISING: &[(&str, &str)] = &[
        ("-1e1000000", "-1e1000000"),
        ("-100000000000000000000000000000000000001", "-100000000000000000000000000000000000001"),
        ("-1.5", "-1.5"),
        ("-15e-2", "-0.15"),
        ("-1e-1000000", "-1e-1000000"),
        ("-0.0", "0"),
        ("1e-99999999999999999999", "1e-99999999999999999999"),
        ("0.000000000000000000000000000000000000000001", "1e-42"),
        ("0.10", "0.1"),
        ("0.11", "0.11"),
        ("999999999999999.99", "999999999999999.99"),
        ("1000000000000000.00", "1000000000000000"),
        ("1234567890123456.78", "1234567890123456.78"),
        ("1234567890123456.79", "1234567890123456.79"),
        ("12345678901234567.88", "12345678901234567.88"),
        ("12345678901234567.89", "12345678901234567.89"),
        ("340282366920938463463374607431768211455.1", "340282366920938463463374607431768211455.1"),
        ("340282366920938463463374607431768211456", "340282366920938463463374607431768211456"),
        ("1.50E+300", "1.5e300"),
        ("15.1e299", "1.51e300"),
        ("1e1000000", "1e1000000"),
        ("10.1e999999", "1.01e1000000"),
    ];

    #[test]
    fn numbers_of_any_size_are_ordered_exactly() {
        for (at, (a, _)) in RISING.iter().enumerate() {
            for (other, (b, _)) in RISING.iter().enumerate() {
                assert_eq!(order_numbers(a, b), at.cmp(&other), "{a} {b}");
            }
        }
    }

    #[test]
    fn all_spellings_of_a_number_are_written_in_one_way() {
        let canonical = |text: &str| {
            let mut out = String::new();
            Decimal::of(text).write(&mut out);
            out
        };
        for (number, expected) in RISING {
            assert_eq!(canonical(number), *expected);
            assert_eq!(canonical(expected), *expected);
            assert!(order_numbers(number, expected).is_eq());
        }
        for spelling in ["100", "1e2", "1E+02", "100.0", "1000e-1", "0.1e3", "10.00e1"] {
            assert_eq!(canonical(spelling), "100");
        }
        for zero in ["0", "-0", "0.000", "0e999999999999999999999999999999999999999999", "-0E-7"] {
            assert_eq!(canonical(zero), "0");
            assert!(order_numbers(zero, "0").is_eq());
        }
    }
}
