//! A field that the input has not.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        let _ = field!(order.custmer.id);
        order
    });
}
