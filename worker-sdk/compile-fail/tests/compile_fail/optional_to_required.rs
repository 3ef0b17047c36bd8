//! A value that may be missing where one must be.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        let charge = wire!(Charge { order: field!(order.id).maybe(), cents: field!(order.cents) });
        saga.step("payment", CHARGE_CARD, charge)
    });
}
