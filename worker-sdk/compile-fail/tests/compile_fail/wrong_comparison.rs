//! A number compared with a string.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        let big = field!(order.cents).gt("100");
        saga.map("stock", field!(order.lines), RESERVE_STOCK, |line| line).when(big)
    });
}
