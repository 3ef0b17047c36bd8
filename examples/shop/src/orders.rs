//! Orders as a file brings them: one JSON document a line, checked before anything runs.

use std::collections::{BTreeMap, HashMap};

use serde::Deserialize;

use crate::check::Bill;
use crate::money::{Discount, Money};

/// An order. Members that are not listed here are left aside.
#[derive(Clone, Debug, Deserialize)]
pub struct Order {
    /// Unique within the file.
    pub order_id: String,
    /// Who orders.
    pub customer: Customer,
    /// What.
    pub lines: Vec<Line>,
    /// What shipping costs, as a decimal string.
    #[serde(default = "no_freight")]
    pub freight: String,
    /// Who shall carry it.
    pub carrier: String,
    /// Where to.
    pub ship_to: Address,
}

/// Who orders.
#[derive(Clone, Debug, Deserialize)]
pub struct Customer {
    /// The customer's number.
    pub id: String,
    /// The name on the receipt.
    pub company: String,
}

/// One line of an order.
#[derive(Clone, Debug, Deserialize)]
pub struct Line {
    /// Which goods.
    pub sku: String,
    /// What they are called.
    #[serde(default)]
    pub name: String,
    /// How many pieces, at least one.
    pub quantity: u32,
    /// The price of a piece, as a decimal string.
    pub unit_price: String,
    /// The discount on the line, from `"0"` to `"1"`.
    #[serde(default = "no_discount")]
    pub discount: String,
}

/// Where an order goes.
#[derive(Clone, Debug, Deserialize)]
pub struct Address {
    /// Whose door.
    pub name: String,
    /// Which.
    pub street: String,
    /// Where.
    pub city: String,
    /// Part of the country, where there are any.
    #[serde(default)]
    pub region: Option<String>,
    /// As the country writes it, where it has any.
    #[serde(default)]
    pub postal_code: Option<String>,
    /// Which country.
    pub country: String,
}

fn no_freight() -> String {
    "0.00".to_owned()
}

fn no_discount() -> String {
    "0.00".to_owned()
}

impl Address {
    /// The address in one line, as on a parcel.
    #[must_use]
    pub fn one_line(&self) -> String {
        let city = [self.postal_code.as_deref(), Some(self.city.as_str()), self.region.as_deref()];
        let city = city.into_iter().flatten().collect::<Vec<_>>().join(" ");
        format!("{}, {}, {city}, {}", self.name, self.street, self.country)
    }
}

impl Order {
    /// What is to be reserved and paid.
    ///
    /// # Errors
    /// When an amount is none, or there is nothing to sell.
    pub fn bill(&self) -> Result<Bill, String> {
        if self.lines.is_empty() {
            return Err("it has no lines".to_owned());
        }
        let too_much = || "it costs more than can be counted".to_owned();
        let mut total: Money = self.freight.parse()?;
        let mut goods = BTreeMap::new();
        for line in &self.lines {
            if line.quantity == 0 {
                return Err(format!("the quantity of {} is 0", line.sku));
            }
            let price: Money = line.unit_price.parse()?;
            let discount: Discount = line.discount.parse()?;
            let cost = price.times(line.quantity, discount).ok_or_else(too_much)?;
            total = total.plus(cost).ok_or_else(too_much)?;
            *goods.entry(line.sku.clone()).or_default() += u64::from(line.quantity);
        }
        Ok(Bill { goods, total })
    }
}

/// Reads orders, one a line; empty lines are passed over.
///
/// # Errors
/// The first line that is no order, with its number and what is wrong with it.
pub fn read(text: &str) -> Result<Vec<Order>, String> {
    let mut orders = Vec::new();
    let mut lines_by_id: HashMap<String, usize> = HashMap::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        let number = index + 1;
        let order: Order =
            serde_json::from_str(line).map_err(|error| format!("line {number}: {error}"))?;
        order.bill().map_err(|problem| format!("line {number} ({}): {problem}", order.order_id))?;
        if let Some(first) = lines_by_id.insert(order.order_id.clone(), number) {
            return Err(format!(
                "line {number}: the order {} is on line {first} already",
                order.order_id
            ));
        }
        orders.push(order);
    }
    if orders.is_empty() {
        return Err("there is no order in it".to_owned());
    }
    Ok(orders)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{"order_id": "A-1", "customer": {"id": "C-1", "company": "Loom & Co."}, "lines": [{"sku": "TEA", "quantity": 2, "unit_price": "4.50", "discount": "0.10"}, {"sku": "JAM", "quantity": 1, "unit_price": "3.00"}], "freight": "1.20", "carrier": "Mule", "ship_to": {"name": "Ada", "street": "Loom Lane 1", "city": "Hull", "region": null, "postal_code": "HU1", "country": "UK"}, "ordered_on": "2026-01-31"}"#;

    fn problem(text: &str) -> String {
        read(text).unwrap_err()
    }

    #[test]
    fn a_file_of_orders_is_read_and_billed() {
        let orders = read(&format!("\n{ORDER}\n\n")).unwrap();
        let bill = orders[0].bill().unwrap();
        assert_eq!(bill.total.to_string(), "12.30");
        assert_eq!(bill.goods, BTreeMap::from([("TEA".to_owned(), 2), ("JAM".to_owned(), 1)]));
        assert_eq!(orders[0].ship_to.one_line(), "Ada, Loom Lane 1, HU1 Hull, UK");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let second = |changed: &str| format!("{ORDER}\n{changed}");
        let renamed = ORDER.replace("A-1", "A-2");
        for (text, says) in [
            (second("{"), "line 2: EOF"),
            (
                second(&renamed.replace("\"carrier\"", "\"carier\"")),
                "line 2: missing field `carrier`",
            ),
            (second(&renamed.replace("4.50", "4,50")), "line 2 (A-2): '4,50' is not an amount"),
            (
                second(&renamed.replace("\"0.10\"", "\"1.10\"")),
                "line 2 (A-2): '1.10' is not a discount",
            ),
            (
                second(&renamed.replace("\"quantity\": 1", "\"quantity\": 0")),
                "the quantity of JAM is 0",
            ),
            (
                second(&renamed.replace("\"quantity\": 1", "\"quantity\": -1")),
                "line 2: invalid value",
            ),
            (second(ORDER), "line 2: the order A-1 is on line 1 already"),
            (String::new(), "there is no order in it"),
        ] {
            let problem = problem(&text);
            assert!(problem.contains(says), "{says:?} not in {problem:?}");
        }
    }
}
