//! The workflows that Backstitch ships, written with the SDK like anybody's.
//!
//! They define what should happen and with which types; the handlers that do it stand elsewhere (for `place-order` in
//! the shop example).

mod money;
mod order;
pub mod place_order;

pub use money::Money;
pub use order::{Customer, Line, Order, ShipTo};
pub use place_order::place_order;
