//! A workflow that does not give what it promises.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn shop() -> Result<Workflow<Order, Payment>, InvalidWorkflow> {
    Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        saga.map("stock", field!(order.lines), RESERVE_STOCK, |line| line).compensate(RELEASE_STOCK)
    })
}

fn main() {
    let _ = shop();
}
