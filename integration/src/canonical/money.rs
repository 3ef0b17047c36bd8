//! Money: a decimal text with exactly the digits that its currency has, and the code of ISO 4217.

use iso_currency::Currency;

use super::{Decimal, DecimalRule, Refused, Round, trimmed};
use crate::document::{Object, Value};

/// Spelling of amounts at a source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MoneyRule {
    /// Spelling of decimals.
    pub decimal: DecimalRule,
    /// The amount is a whole number of the smallest units of the currency: 1230 for EUR 12.30.
    pub minor_units: bool,
    /// Rounding of what has too many digits; without it such amounts are refused.
    pub round: Option<Round>,
}

/// Returns the code of a currency in capitals.
///
/// # Errors
/// `currency_not_valid`, or `currency_without_minor_units` for metals, funds and test codes.
pub fn currency(value: &Value) -> Result<String, Refused> {
    let text = trimmed(value, "currency_not_valid", "a currency")?;
    let code = text.to_ascii_uppercase();
    minor_digits(&code)?;
    Ok(code)
}

/// Returns the number of digits behind the point of the currency `code`.
///
/// # Errors
/// As [`currency`].
pub fn minor_digits(code: &str) -> Result<u32, Refused> {
    let Some(currency) = Currency::from_code(code) else {
        let shown: String = code.chars().take(20).collect();
        let message = format!("'{shown}' is not a currency of ISO 4217; send its three letters");
        return Err(Refused::new("currency_not_valid", message));
    };
    currency.exponent().map(u32::from).ok_or_else(|| {
        let message = format!(
            "{code} has no minor units by ISO 4217, so that its amounts have no one spelling"
        );
        Refused::new("currency_without_minor_units", message)
    })
}

/// Returns the canonical form of an amount of a currency: `{"amount": "12.30", "currency": "EUR"}`.
///
/// # Errors
/// `decimal_not_valid`, `decimal_too_long`, `scale_exceeded`, and the codes of [`currency`].
pub fn money(amount: &Value, in_currency: &Value, rule: &MoneyRule) -> Result<Value, Refused> {
    let code = currency(in_currency)?;
    let digits = minor_digits(&code)?;
    let read = Decimal::read(amount, rule.decimal)?;
    let exact = if rule.minor_units {
        let (units, _) = read.with_scale(0, None)?.parts();
        Decimal::of_units(units, digits)?
    } else {
        read.with_scale(digits, rule.round).map_err(|refused| match refused.code {
            "scale_exceeded" => {
                let message = format!("{}; {code} has {digits}", refused.message);
                Refused::new("scale_exceeded", message)
            }
            _ => refused,
        })?
    };
    Ok(Value::Object(Object::from([
        ("amount".to_owned(), Value::from(exact.write())),
        ("currency".to_owned(), Value::from(code)),
    ])))
}
