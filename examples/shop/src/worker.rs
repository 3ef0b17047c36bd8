//! The worker of the shop: each task of `place-order` is one call to one service, with the effect key that makes
//! asking twice harmless.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context;
use backstitch_sdk::http::expect_success;
use backstitch_sdk::{CompensationContext, Handlers, TaskContext, TaskError, Verdict};
use backstitch_workflows::Customer;
use backstitch_workflows::place_order::{
    Account, Basket, CHARGE_CARD, Charge, ENSURE_CUSTOMER, FIND_CHARGE, FIND_SHIPMENT, Mail,
    PRICE_ORDER, Payment, Price, RECALL_SHIPMENT, REFUND_CARD, RELEASE_STOCK, RESERVE_STOCK,
    Reservation, Reserve, SEND_RECEIPT, SHIP_ORDER, Sent, Ship, Shipment, total,
};
use reqwest::{Response, StatusCode};
use serde::Serialize;
use serde::de::DeserializeOwned;
use uuid::Uuid;

use crate::effect;
use crate::http::{ForOrder, KEY_HEADER, REPLAYED_HEADER, Receipt, UndoOf, UndoReceipt};
use crate::orders::one_line;

/// Addresses of the services, and the patience of requests to them.
#[derive(Clone, Debug)]
pub struct Services {
    /// URL of the stock service.
    pub stock: String,
    /// URL of the payment service.
    pub payment: String,
    /// URL of the shipping service.
    pub shipping: String,
    /// Time that a response may take; after that the effect may have happened.
    pub timeout: Duration,
    /// A fault of the worker itself: the process dies after so many effects, before it can report the last.
    pub die_after: Option<u64>,
}

/// Returns the handlers of all tasks of `place-order`.
///
/// # Errors
/// When the HTTP client cannot be set up.
pub fn handlers(services: Services) -> anyhow::Result<Handlers> {
    let http = reqwest::Client::builder()
        .timeout(services.timeout)
        .tcp_nodelay(true)
        .build()
        .context("the HTTP client cannot be set up")?;
    let shop = Arc::new(Shop { http, services, effects: AtomicU64::new(0) });
    Ok(Handlers::new()
        .task(ENSURE_CUSTOMER, bind(&shop, ensure_customer))
        .task(PRICE_ORDER, bind(&shop, price_order))
        .task(RESERVE_STOCK, bind(&shop, reserve_stock))
        .undo(RELEASE_STOCK, bind(&shop, release_stock))
        .task(CHARGE_CARD, bind(&shop, charge_card))
        .undo(REFUND_CARD, bind(&shop, refund_card))
        .probe(FIND_CHARGE, bind(&shop, find_charge))
        .task(SHIP_ORDER, bind(&shop, ship_order))
        .undo(RECALL_SHIPMENT, bind(&shop, recall_shipment))
        .probe(FIND_SHIPMENT, bind(&shop, find_shipment))
        .task(SEND_RECEIPT, bind(&shop, send_receipt)))
}

/// State that the handlers share.
struct Shop {
    http: reqwest::Client,
    services: Services,
    effects: AtomicU64,
}

/// Makes a handler with its shop at hand.
fn bind<In, Work>(
    shop: &Arc<Shop>,
    handler: fn(Arc<Shop>, TaskContext, In) -> Work,
) -> impl Fn(TaskContext, In) -> Work + Send + Sync + 'static
where
    In: 'static,
    Work: 'static,
{
    let shop = Arc::clone(shop);
    move |ctx, input| handler(Arc::clone(&shop), ctx, input)
}

async fn ensure_customer(
    shop: Arc<Shop>,
    _: TaskContext,
    customer: Customer,
) -> Result<Account, TaskError> {
    let url = format!("{}/accounts/{}", shop.services.payment, customer.id);
    let response = expect_success(shop.http.put(url).send().await?).await?;
    let Receipt { receipt } = response.json().await?;
    Ok(Account { account: receipt })
}

async fn price_order(_: Arc<Shop>, _: TaskContext, basket: Basket) -> Result<Price, TaskError> {
    let total = total(&basket.lines, basket.freight)
        .ok_or_else(|| TaskError::permanent("too_much", "it costs more than can be counted"))?;
    Ok(Price { total })
}

async fn reserve_stock(
    shop: Arc<Shop>,
    ctx: TaskContext,
    Reserve { order_id, sku, quantity }: Reserve,
) -> Result<Reservation, TaskError> {
    let url = format!("{}/reservations", shop.services.stock);
    let what = effect::Reserve { sku, quantity };
    let reservation = shop.act(&ctx, url, order_id, what).await?;
    Ok(Reservation { reservation })
}

async fn release_stock(
    shop: Arc<Shop>,
    ctx: TaskContext,
    undoing: CompensationContext<Reserve, Reservation>,
) -> Result<(), TaskError> {
    let url = format!("{}/releases", shop.services.stock);
    let Reserve { order_id, sku, .. } = undoing.input;
    shop.undo(&ctx, url, order_id, undoing.forward_key, Some(sku)).await
}

async fn charge_card(
    shop: Arc<Shop>,
    ctx: TaskContext,
    Charge { order_id, account, amount }: Charge,
) -> Result<Payment, TaskError> {
    let url = format!("{}/charges", shop.services.payment);
    let what = effect::Charge { account, amount: amount.to_string() };
    let payment = shop.act(&ctx, url, order_id, what).await?;
    Ok(Payment { payment, charged: amount })
}

async fn refund_card(
    shop: Arc<Shop>,
    ctx: TaskContext,
    undoing: CompensationContext<Charge, Payment>,
) -> Result<(), TaskError> {
    let url = format!("{}/refunds", shop.services.payment);
    shop.undo(&ctx, url, undoing.input.order_id, undoing.forward_key, None).await
}

async fn find_charge(
    shop: Arc<Shop>,
    ctx: TaskContext,
    charge: Charge,
) -> Result<Verdict<Payment>, TaskError> {
    let url = format!("{}/charges/{}", shop.services.payment, ctx.forward_key());
    let charged = charge.amount;
    let found = shop.find(url, &charge.order_id).await?;
    Ok(found
        .map_or(Verdict::NotHappened, |payment| Verdict::Happened(Payment { payment, charged })))
}

async fn ship_order(
    shop: Arc<Shop>,
    ctx: TaskContext,
    Ship { order_id, carrier, ship_to, .. }: Ship,
) -> Result<Shipment, TaskError> {
    let url = format!("{}/shipments", shop.services.shipping);
    let what = effect::Ship { carrier, to: one_line(&ship_to) };
    let tracking = shop.act(&ctx, url, order_id, what).await?;
    Ok(Shipment { tracking })
}

async fn recall_shipment(
    shop: Arc<Shop>,
    ctx: TaskContext,
    undoing: CompensationContext<Ship, Shipment>,
) -> Result<(), TaskError> {
    let url = format!("{}/recalls", shop.services.shipping);
    shop.undo(&ctx, url, undoing.input.order_id, undoing.forward_key, None).await
}

async fn find_shipment(
    shop: Arc<Shop>,
    ctx: TaskContext,
    ship: Ship,
) -> Result<Verdict<Shipment>, TaskError> {
    let url = format!("{}/shipments/{}", shop.services.shipping, ctx.forward_key());
    let found = shop.find(url, &ship.order_id).await?;
    Ok(found.map_or(Verdict::NotHappened, |tracking| Verdict::Happened(Shipment { tracking })))
}

async fn send_receipt(
    shop: Arc<Shop>,
    ctx: TaskContext,
    Mail { contact, order_id, charged, tracking }: Mail,
) -> Result<Sent, TaskError> {
    let url = format!("{}/receipts", shop.services.shipping);
    let text = format!("Order {order_id}: {charged} charged, on its way as {tracking}");
    let message = shop.act(&ctx, url, order_id, effect::Mail { contact, text }).await?;
    Ok(Sent { message })
}

impl Shop {
    /// Asks a service for an effect; its receipt.
    async fn act<T: Serialize>(
        &self,
        ctx: &TaskContext,
        url: String,
        order: String,
        what: T,
    ) -> Result<String, TaskError> {
        let Receipt { receipt } =
            self.post(url, ctx.effect_key(), ForOrder { order, what }).await?;
        ctx.external_id(&receipt);
        Ok(receipt)
    }

    /// Asks a service to undo the effect `key`, or to see to it that it never happens.
    async fn undo(
        &self,
        ctx: &TaskContext,
        url: String,
        order: String,
        key: Uuid,
        sku: Option<String>,
    ) -> Result<(), TaskError> {
        let body = ForOrder { order, what: UndoOf { key, sku } };
        let _: UndoReceipt = self.post(url, ctx.effect_key(), body).await?;
        Ok(())
    }

    /// Asks a service whether an effect happened; its receipt if so.
    async fn find(&self, url: String, order: &str) -> Result<Option<String>, TaskError> {
        let response = self.http.get(url).query(&[("order", order)]).send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(None);
        }
        let Receipt { receipt } = expect_success(response).await?.json().await?;
        Ok(Some(receipt))
    }

    async fn post<T: DeserializeOwned>(
        &self,
        url: String,
        key: Uuid,
        body: impl Serialize,
    ) -> Result<T, TaskError> {
        let request = self.http.post(url).header(KEY_HEADER, key.to_string()).json(&body);
        let response = expect_success(request.send().await?).await?;
        self.die_if_due(&response);
        Ok(response.json().await?)
    }

    /// Ends the worker if its fault is due: between the effect and its report, it is gone.
    fn die_if_due(&self, response: &Response) {
        let Some(limit) = self.services.die_after else { return };
        if response.headers().contains_key(REPLAYED_HEADER) {
            return;
        }
        if self.effects.fetch_add(1, Ordering::Relaxed) + 1 >= limit {
            // It dies all the same when nobody can read why.
            let _ = writeln!(
                std::io::stderr(),
                "the worker dies before it reports its effect, as it was asked to"
            );
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests;
