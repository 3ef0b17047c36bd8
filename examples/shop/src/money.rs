//! Amounts of money: whole cents inside, decimal strings outside, no floating point anywhere.

use std::fmt;
use std::iter::Sum;
use std::ops::{Add, Sub};
use std::str::FromStr;

/// An amount in cents.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Money(pub i64);

impl Money {
    /// The price of `quantity` pieces with `discount` off, rounded half up to a cent. `None` when it is more than
    /// fits.
    #[must_use]
    pub fn times(self, quantity: u32, discount: Discount) -> Option<Money> {
        let full = self.0.checked_mul(i64::from(quantity))?;
        let parts = full.checked_mul(10_000 - i64::from(discount.0))?;
        Some(Money(parts.checked_add(5_000)?.div_euclid(10_000)))
    }

    /// The sum, unless it is more than fits.
    #[must_use]
    pub fn plus(self, other: Money) -> Option<Money> {
        self.0.checked_add(other.0).map(Money)
    }
}

impl Add for Money {
    type Output = Money;

    fn add(self, other: Money) -> Money {
        Money(self.0 + other.0)
    }
}

impl Sub for Money {
    type Output = Money;

    fn sub(self, other: Money) -> Money {
        Money(self.0 - other.0)
    }
}

impl Sum for Money {
    fn sum<I: Iterator<Item = Money>>(amounts: I) -> Money {
        amounts.fold(Money(0), Add::add)
    }
}

impl fmt::Display for Money {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let cents = self.0.unsigned_abs();
        let amount = format!("{sign}{}.{:02}", cents / 100, cents % 100);
        f.pad(&amount)
    }
}

impl FromStr for Money {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decimal(text, 2)
            .map(Money)
            .ok_or_else(|| format!("'{text}' is not an amount like \"14.00\""))
    }
}

/// A discount in parts of ten thousand, from none to all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Discount(u32);

impl FromStr for Discount {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        decimal(text, 4)
            .filter(|parts| *parts <= 10_000)
            .and_then(|parts| u32::try_from(parts).ok())
            .map(Discount)
            .ok_or_else(|| format!("'{text}' is not a discount between \"0.00\" and \"1.00\""))
    }
}

/// A decimal without sign as a whole number of its last of `places`; `None` when it has more places or no digits.
fn decimal(text: &str, places: usize) -> Option<i64> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let digits = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.is_empty() || fraction.len() > places || !digits(whole) || !digits(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<places$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn money(text: &str) -> Money {
        text.parse().unwrap()
    }

    #[test]
    fn amounts_are_read_and_printed_to_the_cent() {
        for (text, printed) in
            [("14.00", "14.00"), ("0.5", "0.50"), ("7", "7.00"), ("0.03", "0.03")]
        {
            assert_eq!(money(text).to_string(), printed);
        }
        assert_eq!((money("1.00") - money("3.05")).to_string(), "-2.05");
    }

    #[test]
    fn what_is_no_amount_is_refused() {
        for text in ["", ".", ".5", "1.005", "-1.00", "1,00", "1e3", "99999999999999999999"] {
            assert!(text.parse::<Money>().is_err(), "{text:?} was read as an amount");
        }
        for text in ["1.01", "2", "-0.1", "15 %"] {
            assert!(text.parse::<Discount>().is_err(), "{text:?} was read as a discount");
        }
    }

    #[test]
    fn discounts_round_half_up() {
        let off = |text: &str| text.parse::<Discount>().unwrap();
        assert_eq!(money("42.40").times(35, off("0.15")), Some(money("1261.40")));
        assert_eq!(money("0.10").times(1, off("0.05")), Some(money("0.10")));
        assert_eq!(money("0.10").times(1, off("0.06")), Some(money("0.09")));
        assert_eq!(money("5.00").times(3, off("1.00")), Some(money("0.00")));
        assert_eq!(Money(i64::MAX).times(2, off("0")), None);
    }
}
