//! A struct that is not whole.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        saga.step("payment", CHARGE_CARD, wire!(Charge { order: field!(order.id) }))
    });
}
