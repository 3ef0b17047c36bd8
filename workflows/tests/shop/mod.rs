//! A shop in memory where everything works, and an order for it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use backstitch_sdk::testkit::TestKit;
use backstitch_sdk::{CompensationContext, Forward, Handlers, TaskContext, TaskError, Verdict};
use backstitch_workflows::place_order::{
    Account, Basket, CHARGE_CARD, Charge, ENSURE_CUSTOMER, FIND_CHARGE, FIND_SHIPMENT, Mail,
    PRICE_ORDER, Payment, Price, RECALL_SHIPMENT, REFUND_CARD, RELEASE_STOCK, RESERVE_STOCK,
    Receipt, Reservation, Reserve, SEND_RECEIPT, SHIP_ORDER, Sent, Ship, Shipment, total,
};
use backstitch_workflows::{Customer, Line, Order, ShipTo, place_order};
use uuid::Uuid;

pub(crate) fn kit() -> TestKit<Order, Receipt> {
    TestKit::new(&place_order().unwrap()).handlers(handlers())
}

fn handlers() -> Handlers {
    let charges: Arc<Mutex<HashMap<Uuid, Payment>>> = Arc::default();
    let (charge, refund, find) = (Arc::clone(&charges), Arc::clone(&charges), charges);
    let shipments: Arc<Mutex<HashMap<Uuid, Shipment>>> = Arc::default();
    let (ship, recall, track) = (Arc::clone(&shipments), Arc::clone(&shipments), shipments);
    Handlers::new()
        .task(ENSURE_CUSTOMER, ensure_customer)
        .task(PRICE_ORDER, price_order)
        .task(RESERVE_STOCK, reserve_stock)
        .undo(RELEASE_STOCK, release_stock)
        .task(CHARGE_CARD, move |ctx, order: Charge| {
            let charged = Payment { payment: order.order_id, charged: order.amount };
            charge.lock().unwrap().insert(ctx.effect_key(), charged.clone());
            async { Ok::<_, TaskError>(charged) }
        })
        .undo(REFUND_CARD, move |_, undoing| {
            refund.lock().unwrap().remove(&undoing.forward_key);
            async { Ok::<_, TaskError>(()) }
        })
        .probe(FIND_CHARGE, move |ctx, _| {
            let found = find.lock().unwrap().get(&ctx.forward_key()).cloned();
            async { Ok::<_, TaskError>(found.map_or(Verdict::NotHappened, Verdict::Happened)) }
        })
        .task(SHIP_ORDER, move |ctx, order: Ship| {
            let tracking = format!("{} {}", order.carrier, order.reservations.len());
            let shipment = Shipment { tracking };
            ship.lock().unwrap().insert(ctx.effect_key(), shipment.clone());
            async { Ok::<_, TaskError>(shipment) }
        })
        .undo(RECALL_SHIPMENT, move |_, undoing| {
            recall.lock().unwrap().remove(&undoing.forward_key);
            async { Ok::<_, TaskError>(()) }
        })
        .probe(FIND_SHIPMENT, move |ctx, _| {
            let found = track.lock().unwrap().get(&ctx.forward_key()).cloned();
            async { Ok::<_, TaskError>(found.map_or(Verdict::NotHappened, Verdict::Happened)) }
        })
        .task(SEND_RECEIPT, send_receipt)
}

async fn ensure_customer(_: TaskContext, customer: Customer) -> Result<Account, TaskError> {
    Ok(Account { account: format!("account of {}", customer.id) })
}

async fn price_order(_: TaskContext, basket: Basket) -> Result<Price, TaskError> {
    let total = total(&basket.lines, basket.freight)
        .ok_or_else(|| TaskError::permanent("too_much", "more than can be counted"))?;
    Ok(Price { total })
}

async fn reserve_stock(_: TaskContext, reserve: Reserve) -> Result<Reservation, TaskError> {
    Ok(Reservation { reservation: format!("{} of {}", reserve.quantity, reserve.sku) })
}

async fn release_stock(
    _: TaskContext,
    undoing: CompensationContext<Reserve, Reservation>,
) -> Result<(), TaskError> {
    match undoing.forward {
        Forward::Succeeded(done) if !done.reservation.ends_with(&undoing.input.sku) => {
            Err(TaskError::permanent("other_reservation", done.reservation))
        }
        Forward::Succeeded(_) | Forward::Unknown => Ok(()),
    }
}

async fn send_receipt(_: TaskContext, mail: Mail) -> Result<Sent, TaskError> {
    Ok(Sent { message: format!("{}: {} paid {}", mail.contact, mail.order_id, mail.charged) })
}

pub(crate) fn order() -> Order {
    let line = |sku: &str, quantity, price: &str| Line {
        sku: sku.to_owned(),
        name: sku.to_lowercase(),
        quantity,
        unit_price: price.parse().unwrap(),
        discount: "0.10".parse().unwrap(),
    };
    Order {
        order_id: "S-1".to_owned(),
        ordered_on: "2026-01-02".to_owned(),
        required_on: "2026-01-30".to_owned(),
        customer: Customer {
            id: "TEA".to_owned(),
            company: "Tea & Söhne".to_owned(),
            contact: "A. Blatt".to_owned(),
            city: "Emden".to_owned(),
            country: "Germany".to_owned(),
            phone: None,
        },
        lines: vec![line("TEA-1", 2, "3.50"), line("POT-1", 1, "20.00")],
        freight: "4.90".parse().unwrap(),
        carrier: "Post".to_owned(),
        ship_to: ShipTo {
            name: "Tea & Söhne".to_owned(),
            street: "Am Delft 3".to_owned(),
            city: "Emden".to_owned(),
            region: None,
            postal_code: Some("26721".to_owned()),
            country: "Germany".to_owned(),
        },
    }
}
