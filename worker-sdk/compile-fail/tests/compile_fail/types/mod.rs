//! The types of a small shop.

use backstitch_sdk::{Task, TaskContext, TaskError, Undo, CompensationContext};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Order {
    pub id: String,
    pub cents: u64,
    pub customer: Customer,
    pub lines: Vec<Line>,
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Customer {
    pub id: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Line {
    pub sku: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Charge {
    pub order: String,
    pub cents: u64,
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Payment {
    pub authorization: String,
}

#[derive(Serialize, Deserialize, JsonSchema)]
pub struct Reservation {
    pub id: String,
}

pub const CHARGE_CARD: Task<Charge, Payment> = Task::new("charge_card");
pub const REFUND_CARD: Undo<Charge, Payment> = Undo::new("refund_card");
pub const RESERVE_STOCK: Task<Line, Reservation> = Task::new("reserve_stock");
pub const RELEASE_STOCK: Undo<Line, Reservation> = Undo::new("release_stock");

pub async fn charge_card(_: TaskContext, charge: Charge) -> Result<Payment, TaskError> {
    Ok(Payment { authorization: charge.order })
}

pub async fn refund_card(_: TaskContext, _: CompensationContext<Charge, Payment>) -> Result<(), TaskError> {
    Ok(())
}
