//! Exact decimals of up to 38 digits: read, scaled, rounded on request, and written in one way.

use serde::{Deserialize, Serialize};

use super::Refused;
use crate::document::Value;

/// The most digits of a decimal.
pub(crate) const MOST_DIGITS: usize = 38;

/// An exact decimal: `coefficient / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Decimal {
    coefficient: i128,
    scale: u32,
}

/// Rounding of what has more digits than its type allows. Without a rule nothing is rounded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Round {
    /// To the nearest, and from the middle to the even digit.
    HalfEven,
}

/// Spelling of decimals in the texts of a source.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DecimalRule {
    /// Character before the fraction.
    pub point: char,
    /// Character between groups of three digits; `None` if the source groups nothing.
    pub group: Option<char>,
}

impl Default for DecimalRule {
    fn default() -> Self {
        DecimalRule { point: '.', group: None }
    }
}

impl Decimal {
    /// Reads a JSON number, or a string in the spelling of `rule`.
    ///
    /// # Errors
    /// `decimal_not_valid`, or `decimal_too_long` for more than 38 digits.
    pub fn read(value: &Value, rule: DecimalRule) -> Result<Decimal, Refused> {
        match value {
            Value::Number(number) => Decimal::of_number(&number.canonical()),
            Value::String(text) => Decimal::of_text(text, rule),
            other => {
                let message = format!("{} is not a decimal; send a string", other.words());
                Err(Refused::new("decimal_not_valid", message))
            }
        }
    }

    /// Reads the canonical text of a JSON number.
    fn of_number(text: &str) -> Result<Decimal, Refused> {
        let (mantissa, exponent) = text.split_once('e').unwrap_or((text, "0"));
        let decimal = Decimal::of_text(mantissa, DecimalRule::default())?;
        let exponent: i64 = exponent.parse().map_err(|_| too_long())?;
        if exponent >= 0 {
            let factor = u32::try_from(exponent).ok().and_then(power).ok_or_else(too_long)?;
            let scaled = decimal.coefficient.checked_mul(factor).ok_or_else(too_long)?;
            return Decimal { coefficient: scaled, scale: decimal.scale }.within();
        }
        let scale = u32::try_from(-exponent).ok().and_then(|more| decimal.scale.checked_add(more));
        Decimal { coefficient: decimal.coefficient, scale: scale.ok_or_else(too_long)? }.within()
    }

    /// Reads a text: an optional sign, digits, and a fraction.
    fn of_text(text: &str, rule: DecimalRule) -> Result<Decimal, Refused> {
        let wrong = |why: &str| {
            let message =
                format!("'{}' is not a decimal: {why}", text.chars().take(60).collect::<String>());
            Refused::new("decimal_not_valid", message)
        };
        let unsigned = text.trim();
        let (negative, unsigned) = match unsigned.strip_prefix(['-', '+']) {
            Some(rest) => (unsigned.starts_with('-'), rest),
            None => (false, unsigned),
        };
        let (whole, fraction) = match unsigned.split_once(rule.point) {
            Some((whole, fraction)) => (whole, Some(fraction)),
            None => (unsigned, None),
        };
        let whole = match rule.group {
            Some(group) if whole.contains(group) => {
                let groups: Vec<&str> = whole.split(group).collect();
                let first = groups.first().map_or(0, |first| first.len());
                if !(1..=3).contains(&first) || groups.iter().skip(1).any(|part| part.len() != 3) {
                    return Err(wrong("digits are grouped by three"));
                }
                groups.concat()
            }
            _ => whole.to_owned(),
        };
        let digits =
            |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(&whole) || !fraction.is_none_or(digits) {
            return Err(wrong("digits, a point and digits are"));
        }
        let fraction = fraction.unwrap_or_default();
        let all = format!("{whole}{fraction}");
        let significant = all.trim_start_matches('0');
        if significant.len() > MOST_DIGITS || fraction.len() > MOST_DIGITS {
            return Err(too_long());
        }
        let coefficient: i128 =
            if significant.is_empty() { 0 } else { significant.parse().map_err(|_| too_long())? };
        let coefficient = if negative { -coefficient } else { coefficient };
        Ok(Decimal { coefficient, scale: u32::try_from(fraction.len()).unwrap_or(u32::MAX) })
    }

    /// Creates a decimal from whole units of `10^-scale`.
    ///
    /// # Errors
    /// `decimal_too_long` for more than 38 digits.
    pub fn of_units(coefficient: i128, scale: u32) -> Result<Decimal, Refused> {
        Decimal { coefficient, scale }.within()
    }

    fn within(self) -> Result<Decimal, Refused> {
        let limit = power(u32::try_from(MOST_DIGITS).unwrap_or(u32::MAX)).unwrap_or(i128::MAX);
        if self.coefficient.unsigned_abs() >= limit.unsigned_abs() || self.scale > 38 {
            return Err(too_long());
        }
        Ok(self)
    }

    /// Returns the digits without a point, and the number of those in the fraction.
    #[must_use]
    pub fn parts(self) -> (i128, u32) {
        (self.coefficient, self.scale)
    }

    /// Returns the same value without zeros at the end of its fraction.
    #[must_use]
    pub fn trimmed(self) -> Decimal {
        let Decimal { mut coefficient, mut scale } = self;
        while scale > 0 && coefficient % 10 == 0 {
            coefficient /= 10;
            scale -= 1;
        }
        Decimal { coefficient, scale }
    }

    /// Returns the value with exactly `scale` digits behind the point, rounded only if `round` says so.
    ///
    /// # Errors
    /// `scale_exceeded` when digits would be lost, `decimal_too_long`.
    pub fn with_scale(self, scale: u32, round: Option<Round>) -> Result<Decimal, Refused> {
        let exact = self.trimmed();
        if exact.scale <= scale {
            let factor = power(scale - exact.scale).ok_or_else(too_long)?;
            let coefficient = exact.coefficient.checked_mul(factor).ok_or_else(too_long)?;
            return Decimal { coefficient, scale }.within();
        }
        let Some(Round::HalfEven) = round else {
            let message = format!(
                "'{}' has {} digits behind the point and {scale} are allowed; nothing is rounded unless a rule says so",
                exact.write(),
                exact.scale
            );
            return Err(Refused::new("scale_exceeded", message));
        };
        let divisor = power(exact.scale - scale).ok_or_else(too_long)?;
        Ok(Decimal { coefficient: half_even(exact.coefficient, divisor), scale })
    }

    /// Writes the value with all digits of its fraction: `12.30`.
    #[must_use]
    pub fn write(self) -> String {
        let digits = self.coefficient.unsigned_abs().to_string();
        let sign = if self.coefficient < 0 { "-" } else { "" };
        let scale = self.scale as usize;
        if scale == 0 {
            return format!("{sign}{digits}");
        }
        let padded = format!("{digits:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        format!("{sign}{whole}.{fraction}")
    }
}

/// Divides by a positive number, to the nearest and from the middle to the even one.
pub(super) fn half_even(numerator: i128, divisor: i128) -> i128 {
    let quotient = numerator / divisor;
    let rest = (numerator % divisor).unsigned_abs();
    let middle = divisor.unsigned_abs() - rest;
    let up = rest > middle || (rest == middle && quotient % 2 != 0);
    if up { quotient + numerator.signum() } else { quotient }
}

/// Returns `10^exponent`, if it fits.
pub(super) fn power(exponent: u32) -> Option<i128> {
    10_i128.checked_pow(exponent)
}

pub(super) fn too_long() -> Refused {
    Refused::new("decimal_too_long", format!("a decimal has at most {MOST_DIGITS} digits"))
}
