//! A field that the output of a step has not.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        let payment = saga.step("payment", CHARGE_CARD, wire!(Charge { order: field!(order.id), cents: 5 }));
        wire!(Payment { authorization: field!(payment.tracking) })
    });
}
