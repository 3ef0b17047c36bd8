//! A compensation for another task.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        saga.step("stock", RESERVE_STOCK, wire!(Line { sku: field!(order.id) })).compensate(REFUND_CARD)
    });
}
