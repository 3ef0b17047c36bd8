//! Two vendors with different shapes send the same customers and orders; the canonical bodies are equal byte by byte.
//!
//! The documents are made up, with the mess of real ones: accents, composed and decomposed; phone numbers in national
//! formats, some of a plan that is no longer valid; regions, postal codes and dates that are missing.
//! `BACKSTITCH_VENDOR_DATA` names a folder with further customers and orders of the same form.

use std::collections::BTreeMap;

use backstitch_integration::Payload;
use backstitch_integration::contracts::{Schema, World};
use backstitch_integration::document::{Value, read};
use backstitch_integration::transforms::{Limits, Mapped, Outcome, Transform};
use serde_json::json;
use unicode_normalization::UnicodeNormalization;

const CONTRACTS: &str = include_str!("data/contracts.json");
const TRANSFORMS: &str = include_str!("data/transforms.json");
const CUSTOMERS: &str = include_str!("data/customers.ndjson");
const ORDERS: &str = include_str!("data/orders.ndjson");

fn value(text: &str) -> Value {
    read(text.as_bytes(), 1_000_000).unwrap_or_else(|wrong| panic!("{text}: {wrong}")).1
}

fn schema(subject: &str) -> Schema {
    let contracts = value(CONTRACTS);
    let schema = contracts.member(subject).unwrap_or_else(|| panic!("no contract {subject}"));
    Schema::parse(schema).unwrap_or_else(|wrong| panic!("{subject}: {wrong:#?}"))
}

fn transform(from: &str, to: &str) -> Transform {
    let all: BTreeMap<String, Payload> = serde_json::from_str(TRANSFORMS).expect("transforms");
    let document = &all[&format!("{from} {to}")];
    Transform::register(document, &schema(from), &schema(to))
        .unwrap_or_else(|wrong| panic!("{from} {to}: {wrong:#?}"))
}

fn mapped(transform: &Transform, document: &serde_json::Value) -> Mapped {
    match transform.run(&value(&document.to_string()), &Limits::default()) {
        Outcome::Mapped(mapped) => *mapped,
        Outcome::Failed(failures) => panic!("{document:#}: {failures:#?}"),
    }
}

/// Returns a customer as the first vendor sends it: German names, decomposed characters, an address as
/// a list.
fn contact(customer: &serde_json::Value) -> serde_json::Value {
    let decomposed =
        |name: &str| customer[name].as_str().map(|text| text.nfd().collect::<String>());
    json!({
        "nr": format!(" {}", customer["id"].as_str().expect("an id").to_lowercase()),
        "firma": decomposed("company"),
        "person": {"name": decomposed("contact"), "rolle": customer["title"]},
        "anschrift": [decomposed("address"), customer["postal_code"], decomposed("city")],
        "gebiet": decomposed("region"),
        "land": customer["country"],
        "tel": customer["phone"],
        "fax": customer["fax"],
    })
}

/// Returns the same as the second vendor sends it: three-letter countries, a place in one text, nothing that
/// is null.
fn cust(customer: &serde_json::Value, iso: &BTreeMap<&str, &str>) -> serde_json::Value {
    let text = |name: &str| customer[name].as_str().unwrap_or_default();
    let mut document = json!({
        "verb": "ALL",
        "key": customer["id"],
        "names": {"trade": "", "legal": customer["company"]},
        "people": {"main": {"full": customer["contact"], "function": customer["title"], "desk": 7}},
        "place": format!("{} | {}", text("address"), text("city")),
        "iso": iso[text("country")],
    });
    for (name, member) in [("region", "state"), ("postal_code", "zip")] {
        if !customer[name].is_null() || name == "postal_code" {
            document[member] = customer[name].clone();
        }
    }
    document["voice"] = match customer["phone"].as_str() {
        Some(phone) => json!(phone.replace(['-', '.'], " ")),
        None => json!(null),
    };
    document
}

/// Returns amounts as the first vendor writes them: `1.007,64`.
fn german(amount: &str) -> String {
    let (whole, fraction) = amount.split_once('.').expect("a fraction");
    let mut grouped = String::new();
    for (index, digit) in whole.chars().enumerate() {
        if index > 0 && (whole.len() - index).is_multiple_of(3) {
            grouped.push('.');
        }
        grouped.push(digit);
    }
    format!("{grouped},{fraction}")
}

fn german_date(date: &serde_json::Value) -> serde_json::Value {
    match date.as_str() {
        Some(date) => json!(format!("{}.{}.{}", &date[8..], &date[5..7], &date[..4])),
        None => json!(null),
    }
}

fn auftrag(order: &serde_json::Value) -> serde_json::Value {
    let lines = order["lines"].as_array().expect("lines").iter().map(|line| {
        json!({
            "artikel": line["sku"],
            "text": line["name"].as_str().map(|name| name.nfd().collect::<String>()),
            "menge": line["quantity"],
            "preis": line["unit_price"].as_str().expect("a price").replace('.', ","),
            "rabatt": line["discount"],
        })
    });
    json!({
        "nr": order["order_id"],
        "kunde": order["customer"]["id"],
        "vom": german_date(&order["ordered_on"]),
        "bis": german_date(&order["required_on"]),
        "spedition": order["carrier"],
        "fracht": german(order["freight"].as_str().expect("freight")),
        "positionen": lines.collect::<Vec<_>>(),
        "lieferung": order["ship_to"],
    })
}

fn erp_order(order: &serde_json::Value) -> serde_json::Value {
    let cents = |amount: &serde_json::Value| -> serde_json::Value {
        let digits = amount.as_str().expect("an amount").replace('.', "");
        serde_json::from_str(digits.trim_start_matches('0')).unwrap_or_else(|_| json!(0))
    };
    let items = order["lines"].as_array().expect("lines").iter().map(|line| {
        json!({
            "sku": line["sku"],
            "label": line["name"],
            "count": format!("{}.0", line["quantity"]),
            "cents": cents(&line["unit_price"]),
            "cur": "usd",
            "off": line["discount"],
        })
    });
    json!({
        "head": {
            "no": order["order_id"],
            "key": order["customer"]["id"],
            "placed": format!("{}T00:00:00", order["ordered_on"].as_str().expect("a date")),
            "due": order["required_on"],
            "via": order["carrier"].as_str().map(|carrier| &carrier[..1]),
        },
        "freight": {"cents": cents(&order["freight"]), "cur": "USD"},
        "items": items.collect::<Vec<_>>(),
    })
}

/// Reads customers and orders: those of the repository, and those of a folder that the environment names.
fn documents(own: &str, file: &str) -> Vec<serde_json::Value> {
    let mut text = own.to_owned();
    if let Ok(folder) = std::env::var("BACKSTITCH_VENDOR_DATA") {
        text +=
            &std::fs::read_to_string(format!("{folder}/{file}")).expect("the folder has the file");
    }
    text.lines().map(|line| serde_json::from_str(line).expect("a document a line")).collect()
}

fn three_letters() -> BTreeMap<&'static str, &'static str> {
    BTreeMap::from([
        ("Germany", "DEU"),
        ("Mexico", "MEX"),
        ("UK", "GBR"),
        ("Sweden", "SWE"),
        ("France", "FRA"),
        ("Italy", "ITA"),
        ("Canada", "CAN"),
        ("USA", "USA"),
        ("Austria", "AUT"),
        ("Ireland", "IRL"),
        ("Portugal", "PRT"),
        ("Brazil", "BRA"),
        ("Spain", "ESP"),
        ("Switzerland", "CHE"),
        ("Argentina", "ARG"),
        ("Belgium", "BEL"),
        ("Finland", "FIN"),
        ("Venezuela", "VEN"),
        ("Denmark", "DNK"),
        ("Poland", "POL"),
        ("Norway", "NOR"),
    ])
}

#[test]
fn customers_of_two_vendors_have_bodies_that_are_equal_byte_by_byte() {
    let (first, second) = (transform("crm.contact", "customer"), transform("erp.cust", "customer"));
    let contract = schema("customer");
    let (mut refused_phones, mut phones) = (0, 0);
    for customer in documents(CUSTOMERS, "northwind-customers.ndjson") {
        let one = mapped(&first, &contact(&customer));
        let other = mapped(&second, &cust(&customer, &three_letters()));
        assert_eq!(one.body.canonical(), other.body.canonical());
        assert!(contract.is_valid(&one.body, World::Closed), "{}", one.body.to_json());
        assert_eq!(
            other.stream,
            Some(format!("customer:{}", customer["id"].as_str().expect("an id")))
        );
        // A phone number that was refused is said with its raw value; nothing that came is gone.
        let of_phone = |mapped: &Mapped| {
            let found = mapped.changes.iter().find(|change| change.path.to_string() == "/phone");
            found.map(|change| (change.reason.clone(), change.from.clone()))
        };
        match (one.body.member("phone"), customer["phone"].as_str()) {
            (Some(Value::String(phone)), Some(_)) => {
                assert!(phone.starts_with('+'));
                phones += 1;
            }
            (Some(Value::Null), Some(raw)) => {
                assert_eq!(of_phone(&one), Some(("phone_not_valid".to_owned(), Value::from(raw))));
                refused_phones += 1;
            }
            (found, raw) => assert!(matches!(found, None | Some(Value::Null)) && raw.is_none()),
        }
        assert_eq!(one.unmapped.keys().collect::<Vec<_>>(), ["/fax"]);
        assert_eq!(other.unmapped.keys().filter(|key| key.starts_with("/people")).count(), 1);
    }
    assert!(phones >= 6 && refused_phones >= 2, "{phones} phone numbers, {refused_phones} refused");
}

#[test]
fn orders_of_two_vendors_have_bodies_that_are_equal_byte_by_byte() {
    let (first, second) = (transform("crm.auftrag", "order"), transform("erp.order", "order"));
    let contract = schema("order");
    let mut lines = 0;
    for order in documents(ORDERS, "northwind-orders.ndjson") {
        let one = mapped(&first, &auftrag(&order));
        let other = mapped(&second, &erp_order(&order));
        assert_eq!(one.body.canonical(), other.body.canonical());
        assert!(contract.is_valid(&one.body, World::Closed), "{}", one.body.to_json());
        let freight = one.body.member("freight").and_then(|freight| freight.member("amount"));
        assert_eq!(freight.and_then(Value::as_str), order["freight"].as_str());
        lines += one.body.member("lines").and_then(Value::as_array).expect("lines").len();
        assert!(one.unmapped.keys().all(|key| key == "/lieferung"));
    }
    assert!(lines >= 6, "{lines} lines");
}
