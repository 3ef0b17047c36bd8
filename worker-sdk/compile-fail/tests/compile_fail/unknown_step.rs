//! A step that there is not.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Workflow::build("shop", 1, |saga, order: Ref<Order>| {
        wire!(Payment { authorization: field!(payment.authorization) })
    });
}
