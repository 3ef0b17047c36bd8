//! A fan-out over something that is no list.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        saga.map("stock", field!(order.customer), RESERVE_STOCK, |line| line)
    });
}
