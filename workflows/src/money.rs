//! Money as decimal strings in JSON and as whole hundredths in Rust. No floating point anywhere.

use std::fmt;
use std::iter::Sum;
use std::ops::Add;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

/// An amount of money, or a share such as a discount, with two decimal places: `"32.38"`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money {
    hundredths: i64,
}

impl Money {
    /// Makes so many hundredths: cents, or per cent of a share.
    #[must_use]
    pub const fn hundredths(count: i64) -> Money {
        Money { hundredths: count }
    }

    /// Returns how many hundredths it is.
    #[must_use]
    pub const fn in_hundredths(self) -> i64 {
        self.hundredths
    }

    /// Multiplies this by `quantity`, less a share of it (`0.15` for 15 per cent), rounded half up to hundredths.
    /// `None` when that is more than fits.
    #[must_use]
    pub fn times_less(self, quantity: u32, share: Money) -> Option<Money> {
        let kept = 100_i128 - i128::from(share.hundredths);
        let exact = i128::from(self.hundredths) * i128::from(quantity) * kept;
        let rounded = (exact + 50).div_euclid(100);
        i64::try_from(rounded).ok().map(Money::hundredths)
    }

    /// Adds two amounts; `None` when the sum is more than fits.
    #[must_use]
    pub fn checked_add(self, other: Money) -> Option<Money> {
        self.hundredths.checked_add(other.hundredths).map(Money::hundredths)
    }
}

impl Add for Money {
    type Output = Money;

    fn add(self, other: Money) -> Money {
        Money::hundredths(self.hundredths + other.hundredths)
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Money {
        amounts.fold(Money::default(), Add::add)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.hundredths < 0 { "-" } else { "" };
        let (whole, rest) =
            (self.hundredths.unsigned_abs() / 100, self.hundredths.unsigned_abs() % 100);
        write!(f, "{sign}{whole}.{rest:02}")
    }
}

impl FromStr for Money {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = || format!("'{text}' is not an amount like \"32.38\"");
        let (negative, digits) =
            text.strip_prefix('-').map_or((false, text), |digits| (true, digits));
        let (whole, rest) = digits.split_once('.').unwrap_or((digits, "0"));
        let plain = |part: &str| !part.is_empty() && part.bytes().all(|c| c.is_ascii_digit());
        if !plain(whole) || !plain(rest) || rest.len() > 2 {
            return Err(wrong());
        }
        let whole: i64 = whole.parse().map_err(|_| wrong())?;
        let rest: i64 = format!("{rest:0<2}").parse().map_err(|_| wrong())?;
        let sum = whole.checked_mul(100).and_then(|h| h.checked_add(rest)).ok_or_else(wrong)?;
        Ok(Money::hundredths(if negative { -sum } else { sum }))
    }
}

impl Serialize for Money {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Money {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Money {
    fn schema_name() -> std::borrow::Cow<'static, str> {
        "Money".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "description": "A decimal with at most two places",
            "pattern": "^-?[0-9]{1,15}(\\.[0-9]{1,2})?$"
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_read_and_write_as_decimals() {
        for (text, hundredths) in
            [("32.38", 3_238), ("0.00", 0), ("7", 700), ("7.5", 750), ("-0.05", -5)]
        {
            assert_eq!(text.parse(), Ok(Money::hundredths(hundredths)));
        }
        assert_eq!(Money::hundredths(-5).to_string(), "-0.05");
        assert_eq!(Money::hundredths(700).to_string(), "7.00");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", ".", "1.", ".5", "1.234", "1e3", "+1", "--1", " 1", "99999999999999999999"]
        {
            assert!(text.parse::<Money>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn a_discount_is_rounded_half_up_on_the_line() {
        let price: Money = "42.40".parse().unwrap();
        let of = |quantity, share: &str| price.times_less(quantity, share.parse().unwrap());
        assert_eq!(of(40, "0.00"), Some(Money::hundredths(169_600)));
        assert_eq!(of(1, "0.15"), Some(Money::hundredths(3_604)));
        let half: Money = "0.10".parse().unwrap();
        assert_eq!(half.times_less(1, "0.05".parse().unwrap()), Some(Money::hundredths(10)));
        assert_eq!(Money::hundredths(i64::MAX).times_less(2, Money::default()), None);
    }
}
