//! Compares what the builder makes of our workflows with texts: a change of a definition is seen in review.
//! `UPDATE_EXPECT=1 cargo test -p backstitch-workflows` writes it anew.

use backstitch_sdk::testkit::{Bounds, rehearse};
use backstitch_workflows::{Order, place_order};

/// Compares `actual` with the file `name` beside this test, or writes it when asked to.
fn expect(name: &str, actual: &str) {
    let path = format!("{}/tests/{name}", env!("CARGO_MANIFEST_DIR"));
    if std::env::var_os("UPDATE_EXPECT").is_some() {
        std::fs::write(&path, actual).expect("the expectation can be written");
        return;
    }
    let expected = std::fs::read_to_string(&path).unwrap_or_default();
    assert!(
        expected == actual,
        "{path} is not what the builder makes now; if that is meant, run with UPDATE_EXPECT=1\n{actual}"
    );
}

#[test]
fn place_order_is_what_it_was() {
    let mut json = place_order().unwrap().json();
    json.push('\n');
    expect("place-order.json", &json);
}

#[test]
fn place_order_closes_whatever_goes_wrong() {
    let found = rehearse(&place_order().unwrap(), Bounds { faults: 2, traces: 5_000 });
    found.assert_closes();
    assert!(found.levels[1].complete, "each failure point was rehearsed: {found}");
    assert!(found.not_reached.is_empty(), "{found}");
}

#[test]
fn an_order_reads_as_the_shop_writes_it() {
    let text = r#"{
        "order_id": "S-1", "ordered_on": "2026-01-02", "required_on": "2026-01-30",
        "customer": {
            "id": "TEA", "company": "Tea & Söhne", "contact": "A. Blatt", "city": "Emden", "country": "Germany",
            "phone": null
        },
        "lines": [
            { "sku": "TEA-1", "name": "Tea", "quantity": 2, "unit_price": "3.50", "discount": "0.00" }
        ],
        "freight": "4.90", "carrier": "Post",
        "ship_to": {
            "name": "Tea & Söhne", "street": "Am Delft 3", "city": "Emden", "region": null, "postal_code": "26721",
            "country": "Germany"
        }
    }"#;
    let order: Order = serde_json::from_str(text).unwrap();
    let again: serde_json::Value = serde_json::to_value(&order).unwrap();
    assert_eq!(again, serde_json::from_str::<serde_json::Value>(text).unwrap());
}
