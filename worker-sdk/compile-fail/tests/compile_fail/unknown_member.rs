//! A member that the struct has not.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        let charge = wire!(Charge { order: field!(order.id), cents: 5, currency: "EUR" });
        saga.step("payment", CHARGE_CARD, charge)
    });
}
