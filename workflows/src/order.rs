//! An order as the shop takes it in.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::Money;

/// An order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Order {
    /// The shop's own number for it.
    pub order_id: String,
    /// The day it was placed, `1996-07-04`.
    pub ordered_on: String,
    /// The day it should arrive.
    pub required_on: String,
    /// Who ordered.
    pub customer: Customer,
    /// What was ordered.
    #[schemars(length(min = 1))]
    pub lines: Vec<Line>,
    /// What carrying it costs.
    pub freight: Money,
    /// Who carries it.
    pub carrier: String,
    /// Where it goes.
    pub ship_to: ShipTo,
}

/// Who ordered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Customer {
    /// The customer's own short name in the shop's books.
    pub id: String,
    /// The company.
    pub company: String,
    /// Whom to ask for.
    pub contact: String,
    /// Where it is.
    pub city: String,
    /// Where that is.
    pub country: String,
    /// As the customer writes it.
    #[serde(default)]
    pub phone: Option<String>,
}

/// One line of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Line {
    /// What is ordered.
    pub sku: String,
    /// What people call it.
    pub name: String,
    /// How many.
    #[schemars(range(min = 1))]
    pub quantity: u32,
    /// What one costs.
    pub unit_price: Money,
    /// The share that is taken off, from `0.00` to `1.00`.
    pub discount: Money,
}

/// Where an order goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct ShipTo {
    /// Who takes it in.
    pub name: String,
    /// Street and number.
    pub street: String,
    /// City.
    pub city: String,
    /// State or region, where there is one.
    #[serde(default)]
    pub region: Option<String>,
    /// Postal code, where there is one.
    #[serde(default)]
    pub postal_code: Option<String>,
    /// Country.
    pub country: String,
}

/// Returns what an order costs: its lines less their discounts, and the freight. `None` when that is more
/// than fits.
#[must_use]
pub fn total(lines: &[Line], freight: Money) -> Option<Money> {
    lines.iter().try_fold(freight, |sum, line| {
        sum.checked_add(line.unit_price.times_less(line.quantity, line.discount)?)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(quantity: u32, unit_price: &str, discount: &str) -> Line {
        Line {
            sku: "TEA-1".to_owned(),
            name: "Tea".to_owned(),
            quantity,
            unit_price: unit_price.parse().unwrap(),
            discount: discount.parse().unwrap(),
        }
    }

    #[test]
    fn the_total_is_lines_less_discounts_and_freight() {
        let lines = [line(12, "14.00", "0.00"), line(40, "42.40", "0.25")];
        assert_eq!(total(&lines, "32.38".parse().unwrap()).unwrap().to_string(), "1472.38");
        assert_eq!(total(&[], Money::default()), Some(Money::default()));
    }
}
