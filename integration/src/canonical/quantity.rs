//! Quantities: a decimal text and a unit of the table, converted exactly or not at all.

use super::decimal::{half_even, power, too_long};
use super::{Decimal, DecimalRule, Refused, Round, Unit, trimmed, unit, units};
use crate::document::{Object, Value};

/// Spelling of quantities at a source, and the unit that is wanted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct QuantityRule {
    /// Spelling of decimals.
    pub decimal: DecimalRule,
    /// Unit to convert to; `None` to keep the unit that came.
    pub target: Option<Unit>,
    /// Digits behind the point, and rounding to them; without it a conversion that is not exact is refused.
    pub round: Option<(u32, Round)>,
}

/// Returns the canonical form of a quantity: `{"unit": "kg", "value": "1.5"}`.
///
/// # Errors
/// `decimal_not_valid`, `decimal_too_long`, `unit_not_valid`, `units_not_convertible`, `conversion_not_exact`.
pub fn quantity(value: &Value, of_unit: &Value, rule: &QuantityRule) -> Result<Value, Refused> {
    let code = trimmed(of_unit, "unit_not_valid", "a unit")?;
    let Some(from) = unit(code) else {
        let shown: String = code.chars().take(20).collect();
        let known: Vec<&str> = units::codes().collect();
        let message = format!("'{shown}' is not one of the units {}; map it", known.join(", "));
        return Err(Refused::new("unit_not_valid", message));
    };
    let read = Decimal::read(value, rule.decimal)?.trimmed();
    let (to, exact) = match rule.target {
        Some(to) if to != from => (to, convert(read, from, to, rule.round)?),
        _ => (from, read),
    };
    let exact = match rule.round {
        Some((scale, round)) if exact.parts().1 > scale => exact.with_scale(scale, Some(round))?,
        _ => exact,
    };
    Ok(Value::Object(Object::from([
        ("unit".to_owned(), Value::from(to.code)),
        ("value".to_owned(), Value::from(exact.trimmed().write())),
    ])))
}

fn convert(
    value: Decimal,
    from: Unit,
    to: Unit,
    round: Option<(u32, Round)>,
) -> Result<Decimal, Refused> {
    let Some((numerator, denominator)) = from.factor_to(to) else {
        let message = format!("{} cannot be converted to {}", from.code, to.code);
        return Err(Refused::new("units_not_convertible", message));
    };
    let (coefficient, scale) = value.parts();
    let product = coefficient.checked_mul(numerator).ok_or_else(too_long)?;
    if let Some((digits, Round::HalfEven)) = round {
        // product / (denominator * 10^scale) in units of 10^-digits.
        let raised =
            power(digits).and_then(|factor| product.checked_mul(factor)).ok_or_else(too_long)?;
        let divisor =
            power(scale).and_then(|factor| denominator.checked_mul(factor)).ok_or_else(too_long)?;
        return Decimal::of_units(half_even(raised, divisor), digits);
    }
    // Exact only if the denominator has no prime but 2 and 5 left.
    let mut more = 0;
    let mut raised = product;
    while raised % denominator != 0 {
        let next = raised.checked_mul(10).filter(|_| more < MOST_DIGITS_OF_A_CONVERSION);
        let Some(next) = next else {
            let message = format!(
                "{} {} has no exact value in {}; say how many digits, and round: half_even",
                value.write(),
                from.code,
                to.code
            );
            return Err(Refused::new("conversion_not_exact", message));
        };
        raised = next;
        more += 1;
    }
    Decimal::of_units(raised / denominator, scale + more)
}

/// Digits that an exact conversion may add to a value.
const MOST_DIGITS_OF_A_CONVERSION: u32 = 20;
