//! A member of another type.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        let charge = wire!(Charge { order: field!(order.customer), cents: field!(order.cents) });
        saga.step("payment", CHARGE_CARD, charge)
    });
}
