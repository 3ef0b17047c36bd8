//! A guard that is no condition.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        saga.map("stock", field!(order.lines), RESERVE_STOCK, |line| line).when(field!(order.id))
    });
}
