//! Orders as a file brings them: one JSON document a line, checked before anything runs.

use std::collections::{BTreeMap, HashMap};

use backstitch_workflows::{Order, ShipTo, place_order};
use serde::de::DeserializeOwned;

use crate::check::Bill;
use crate::service::Shelf;

/// The orders that the shop brings along.
const OWN: &str = include_str!("../orders.ndjson");

/// Returns the orders that the shop brings along.
///
/// # Errors
/// Never as they stand; the tests read them.
pub fn own() -> Result<Vec<Order>, String> {
    read(OWN)
}

/// The stock of the shop.
const SHELVES: &str = include_str!("../stock.ndjson");

/// Returns the stock of the shop: plenty of everything but gilded thimbles.
///
/// # Errors
/// Never as they stand; the tests read them.
pub fn own_shelves() -> Result<Vec<Shelf>, String> {
    read_shelves(SHELVES)
}

/// Reads shelves, one a line; empty lines are passed over.
///
/// # Errors
/// The first line that is no shelf, with its number and what is wrong with it.
pub fn read_shelves(text: &str) -> Result<Vec<Shelf>, String> {
    let lines = text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty());
    lines
        .map(|(index, line)| {
            parse(line).map_err(|problem| format!("line {}: {problem}", index + 1))
        })
        .collect()
}

/// Returns the reservations and the payment of an order.
///
/// # Errors
/// A message that names the mistake in the order.
pub fn bill(order: &Order) -> Result<Bill, String> {
    if order.lines.is_empty() {
        return Err("it has no lines".to_owned());
    }
    let mut goods = BTreeMap::new();
    for line in &order.lines {
        if line.quantity == 0 {
            return Err(format!("the quantity of {} is 0", line.sku));
        }
        if line.unit_price.in_hundredths() < 0 {
            return Err(format!("the price of {} is negative", line.sku));
        }
        if !(0..=100).contains(&line.discount.in_hundredths()) {
            return Err(format!("the discount on {} is not between 0.00 and 1.00", line.sku));
        }
        *goods.entry(line.sku.clone()).or_default() += u64::from(line.quantity);
    }
    if order.freight.in_hundredths() < 0 {
        return Err("the freight is negative".to_owned());
    }
    let total = place_order::total(&order.lines, order.freight)
        .ok_or_else(|| "it costs more than can be counted".to_owned())?;
    Ok(Bill { goods, total })
}

/// Returns an address in one line, as on a parcel.
#[must_use]
pub fn one_line(address: &ShipTo) -> String {
    let city = [address.postal_code.as_deref(), Some(&address.city), address.region.as_deref()];
    let city = city.into_iter().flatten().collect::<Vec<_>>().join(" ");
    format!("{}, {}, {city}, {}", address.name, address.street, address.country)
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
        let order: Order = parse(line).map_err(|problem| format!("line {number}: {problem}"))?;
        bill(&order).map_err(|problem| format!("line {number} ({}): {problem}", order.order_id))?;
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

/// Reads one line; what is wrong with it is placed by its column alone.
fn parse<T: DeserializeOwned>(line: &str) -> Result<T, String> {
    serde_json::from_str(line)
        .map_err(|error| error.to_string().replace("at line 1 column", "at column"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const ORDER: &str = r#"{"order_id": "A-1", "ordered_on": "2026-01-31", "required_on": "2026-02-28", "customer": {"id": "C-1", "company": "Loom & Co.", "contact": "Ada", "city": "Hull", "country": "UK"}, "lines": [{"sku": "TEA", "name": "Tea", "quantity": 2, "unit_price": "4.50", "discount": "0.10"}, {"sku": "JAM", "name": "Jam", "quantity": 1, "unit_price": "3.00", "discount": "0.00"}], "freight": "1.20", "carrier": "Mule", "ship_to": {"name": "Ada", "street": "Loom Lane 1", "city": "Hull", "region": null, "postal_code": "HU1", "country": "UK"}}"#;

    #[test]
    fn a_file_of_orders_is_read_and_billed() {
        let orders = read(&format!("\n{ORDER}\n\n")).unwrap();
        let bill = bill(&orders[0]).unwrap();
        assert_eq!(bill.total.to_string(), "12.30");
        assert_eq!(bill.goods, BTreeMap::from([("TEA".to_owned(), 2), ("JAM".to_owned(), 1)]));
        assert_eq!(one_line(&orders[0].ship_to), "Ada, Loom Lane 1, HU1 Hull, UK");
    }

    #[test]
    fn what_is_wrong_is_said_with_its_line() {
        let renamed = ORDER.replace("A-1", "A-2");
        let second = |what: &str, instead: &str| {
            assert!(renamed.contains(what), "{what}");
            format!("{ORDER}\n{}", renamed.replace(what, instead))
        };
        for (text, says) in [
            (second(&renamed, "{"), "line 2: EOF"),
            (second("\"carrier\"", "\"carier\""), "line 2: missing field `carrier`"),
            (second("4.50", "4,50"), "line 2: '4,50' is not an amount"),
            (second("\"0.10\"", "\"1.10\""), "line 2 (A-2): the discount on TEA is not between"),
            (second("\"4.50\"", "\"-4.50\""), "line 2 (A-2): the price of TEA is negative"),
            (second("\"1.20\"", "\"-1.20\""), "line 2 (A-2): the freight is negative"),
            (
                second("\"quantity\": 1", "\"quantity\": 0"),
                "line 2 (A-2): the quantity of JAM is 0",
            ),
            (second("\"quantity\": 1", "\"quantity\": -1"), "line 2: invalid value"),
            (second("A-2", "A-1"), "line 2: the order A-1 is on line 1 already"),
            (String::new(), "there is no order in it"),
        ] {
            let problem = read(&text).unwrap_err();
            assert!(problem.contains(says), "{says:?} not in {problem:?}");
        }
    }

    #[test]
    fn our_own_orders_and_shelves_can_be_read() {
        assert_eq!(own().unwrap().len(), 40);
        assert_eq!(own_shelves().unwrap().len(), 15);
    }
}
