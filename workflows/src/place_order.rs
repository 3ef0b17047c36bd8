//! `place-order`: take an order from the customer's file to the receipt in the mail, or leave nothing behind.
//!
//! ```text
//! customer ─┬─> stock (one reservation per line) ─┐
//! price ────┴─> payment <────────────────────────┘──> shipment (the point of no return) ──> receipt
//! ```

use backstitch_sdk::{
    Empty, InvalidWorkflow, Jitter, Join, Probe, Ref, Retry, Span, Task, Timeouts, Undo, Workflow,
    field, wire,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::{Customer, Line, Money, Order, ShipTo};

pub use crate::order::total;

/// The queue of all handlers of this workflow.
pub const QUEUE: &str = "shop";

/// Opens the customer's account, or finds it. Nothing to undo: an account without orders does no harm.
pub const ENSURE_CUSTOMER: Task<Customer, Account> = Task::new("ensure_customer").queue(QUEUE);
/// Computes the price of the order; see [`total`].
pub const PRICE_ORDER: Task<Basket, Price> = Task::new("price_order").queue(QUEUE);
/// Reserves the goods of one line.
pub const RESERVE_STOCK: Task<Reserve, Reservation> = Task::new("reserve_stock").queue(QUEUE);
/// Releases the reservation.
pub const RELEASE_STOCK: Undo<Reserve, Reservation> = Undo::new("release_stock").queue(QUEUE);
/// Charges the customer.
pub const CHARGE_CARD: Task<Charge, Payment> = Task::new("charge_card").queue(QUEUE);
/// Refunds the charge.
pub const REFUND_CARD: Undo<Charge, Payment> = Undo::new("refund_card").queue(QUEUE);
/// Finds out if a charge in doubt happened.
pub const FIND_CHARGE: Probe<Charge, Payment> = Probe::new("find_charge").queue(QUEUE);
/// Hands the goods to the carrier.
pub const SHIP_ORDER: Task<Ship, Shipment> = Task::new("ship_order").queue(QUEUE);
/// Calls the carrier back; only ever by hand, with force.
pub const RECALL_SHIPMENT: Undo<Ship, Shipment> = Undo::new("recall_shipment").queue(QUEUE);
/// Finds out if a shipment in doubt happened. Without it a refusal after a doubt would need a person: it would be
/// unknown on which side of the point of no return the order is.
pub const FIND_SHIPMENT: Probe<Ship, Shipment> = Probe::new("find_shipment").queue(QUEUE);
/// Mails the receipt.
pub const SEND_RECEIPT: Task<Mail, Sent> = Task::new("send_receipt").queue(QUEUE);

/// A customer's account.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Account {
    /// Its number; charges go to it.
    pub account: String,
}

/// The goods to pay for.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Basket {
    /// The lines of the order.
    pub lines: Vec<Line>,
    /// Price of the carriage.
    pub freight: Money,
}

/// The price of an order.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Price {
    /// Lines less discounts, and freight.
    pub total: Money,
}

/// Goods of one line to reserve.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reserve {
    /// The order.
    pub order_id: String,
    /// Stock number of the goods.
    pub sku: String,
    /// Number of pieces.
    pub quantity: u32,
}

/// Reserved goods.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Reservation {
    /// Number of the reservation at the stock service.
    pub reservation: String,
}

/// A customer to charge.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Charge {
    /// The order.
    pub order_id: String,
    /// The account.
    pub account: String,
    /// The amount.
    pub amount: Money,
}

/// A charge that went through.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Payment {
    /// Number of the payment at the payment service.
    pub payment: String,
    /// The charged amount.
    pub charged: Money,
}

/// Goods to hand to the carrier.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Ship {
    /// The order.
    pub order_id: String,
    /// The carrier.
    pub carrier: String,
    /// The destination.
    pub ship_to: ShipTo,
    /// The reservations to take from the shelf, one per line.
    pub reservations: Vec<Reservation>,
}

/// Goods on their way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Shipment {
    /// The carrier's number.
    pub tracking: String,
}

/// A receipt to mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Mail {
    /// The recipient.
    pub contact: String,
    /// The order.
    pub order_id: String,
    /// The paid amount.
    pub charged: Money,
    /// The carrier's number.
    pub tracking: String,
}

/// A receipt in the mail.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Sent {
    /// Number of the message at the mail service.
    pub message: String,
}

/// What the run answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub struct Receipt {
    /// The order.
    pub order_id: String,
    /// The carrier's number.
    pub tracking: String,
    /// What was paid.
    pub charged: Money,
}

/// Builds the workflow.
///
/// # Errors
/// Never as it stands; the tests build it.
pub fn place_order() -> Result<Workflow<Order, Receipt>, InvalidWorkflow> {
    Workflow::build("place-order", 1, |saga, order: Ref<Order>| {
        saga.description("Take an order from the customer's file to the receipt in the mail");
        saga.timeout(Span::days(2));

        let customer = saga
            .step("customer", ENSURE_CUSTOMER, field!(order.customer))
            .read_only()
            .retry(patient())
            .timeouts(quick());

        let basket = wire!(Basket { lines: field!(order.lines), freight: field!(order.freight) });
        let price = saga.step("price", PRICE_ORDER, basket).read_only();

        let stock = saga
            .map("stock", field!(order.lines), RESERVE_STOCK, |line| {
                wire!(Reserve {
                    order_id: field!(order.order_id),
                    sku: field!(line.sku),
                    quantity: field!(line.quantity),
                })
            })
            .join(Join::All)
            .empty(Empty::Fail)
            .max_concurrency(20)
            .after(&customer)
            .compensate(RELEASE_STOCK)
            .undo_retry(patient().forever())
            .retry(patient())
            .timeouts(quick());

        let charge = wire!(Charge {
            order_id: field!(order.order_id),
            account: field!(customer.account),
            amount: field!(price.total),
        });
        let payment = saga
            .step("payment", CHARGE_CARD, charge)
            .after(&stock)
            .compensate(REFUND_CARD)
            .undo_retry(patient().forever())
            .verify(FIND_CHARGE)
            .retry(
                Retry::exponential(Span::millis(200)..Span::secs(30))
                    .jitter(Jitter::Full)
                    .max_attempts(8),
            )
            .timeouts(quick());

        let ship = wire!(Ship {
            order_id: field!(order.order_id),
            carrier: field!(order.carrier),
            ship_to: field!(order.ship_to),
            reservations: &stock,
        });
        let shipment = saga
            .step("shipment", SHIP_ORDER, ship)
            .after(&payment)
            .pivot()
            .compensate(RECALL_SHIPMENT)
            .verify(FIND_SHIPMENT)
            .undo_retry(patient().forever())
            .retry(patient())
            .timeouts(quick());

        let mail = wire!(Mail {
            contact: field!(order.customer.contact),
            order_id: field!(order.order_id),
            charged: field!(payment.charged),
            tracking: field!(shipment.tracking),
        });
        let _ = saga
            .step("receipt", SEND_RECEIPT, mail)
            .retriable()
            .retry(patient().forever())
            .timeouts(quick());

        wire!(Receipt {
            order_id: field!(order.order_id),
            tracking: field!(shipment.tracking),
            charged: field!(payment.charged),
        })
    })
}

/// Returns the retries for failures that may pass in a moment.
fn patient() -> Retry {
    Retry::exponential(Span::millis(200)..Span::secs(30))
}

/// Returns the timeouts for the services of the shop, which answer within seconds or not at all.
fn quick() -> Timeouts {
    Timeouts::default().attempt(Span::secs(60)).heartbeat(Span::secs(15))
}
