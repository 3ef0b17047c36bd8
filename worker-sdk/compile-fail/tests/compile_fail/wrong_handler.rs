//! A function that does other work than its handle says.

#[path = "types/mod.rs"]
mod types;

use backstitch_sdk::*;
use types::*;

fn main() {
    let _ = Handlers::new()
        .task(RESERVE_STOCK, charge_card)
        .undo(RELEASE_STOCK, refund_card);
}
