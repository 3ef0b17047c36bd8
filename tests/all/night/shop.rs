//! The shop of the bad night: its saga, and two releases of its worker.

use std::collections::HashSet;
use std::sync::{Arc, LazyLock, Mutex};

use backstitch_sdk::http::expect_success;
use backstitch_sdk::{
    Client, CompensationContext, OnFailure, Probe, Ref, Retry, Span, Task, TaskContext, TaskError,
    Timeouts, Undo, Verdict, Worker, Workflow, field, wire,
};
use reqwest::StatusCode;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use uuid::Uuid;

pub(super) const WORKFLOW: &str = "night-order";

const RESERVE: Task<Goods, Receipt> = Task::new("reserve").queue("stock");
const RELEASE: Undo<Goods, Receipt> = Undo::new("release").queue("stock");
const CHARGE: Task<Charge, Receipt> = Task::new("charge").queue("bank");
const REFUND: Undo<Charge, Receipt> = Undo::new("refund").queue("bank");
const FIND_CHARGE: Probe<Charge, Receipt> = Probe::new("find_charge").queue("bank");
const SHIP: Task<Parcel, Receipt> = Task::new("ship").queue("carrier");
const RECALL: Undo<Parcel, Receipt> = Undo::new("recall").queue("carrier");

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Order {
    pub(super) id: String,
    account: String,
    amount: String,
    by_sea: bool,
    postcode: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Goods {
    order: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Charge {
    order: String,
    account: String,
    amount: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Parcel {
    order: String,
    by_sea: bool,
    postcode: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
pub(super) struct Receipt {
    receipt: String,
}

/// Returns the id of an order.
pub(super) fn number(number: usize) -> String {
    format!("N-{number:03}")
}

/// Returns the order of this number: the first `by_sea` go by sea, of the `nowhere` after them nobody knows where they
/// go.
pub(super) fn order(count: usize, by_sea: usize, nowhere: usize) -> Order {
    let postcode = if count > by_sea && count <= by_sea + nowhere { "" } else { "20095" };
    Order {
        id: number(count),
        account: format!("c-{count}"),
        amount: "9.50".to_owned(),
        by_sea: count <= by_sea,
        postcode: postcode.to_owned(),
    }
}

/// Set goods aside, charge the card, hand the parcel over; a parcel that cannot go waits for a person.
pub(super) fn night_order() -> Workflow<Order, Receipt> {
    Workflow::build(WORKFLOW, 1, |saga, order: Ref<Order>| {
        let soon = || Retry::exponential(Span::millis(50)..Span::secs(1));
        let quick = || Timeouts::default().attempt(Span::secs(20)).heartbeat(Span::secs(10));
        let goods = wire!(Goods { order: field!(order.id) });
        let reserve = saga.step("reserve", RESERVE, goods).compensate(RELEASE);
        let reserve = reserve.retry(soon()).timeouts(quick());
        let charge = wire!(Charge {
            order: field!(order.id),
            account: field!(order.account),
            amount: field!(order.amount),
        });
        let charge = saga
            .step("charge", CHARGE, charge)
            .after(&reserve)
            .compensate(REFUND)
            .undo_retry(soon().max_attempts(2))
            .verify(FIND_CHARGE)
            .retry(soon().max_attempts(3))
            .timeouts(quick());
        let parcel = wire!(Parcel {
            order: field!(order.id),
            by_sea: field!(order.by_sea),
            postcode: field!(order.postcode),
        });
        let ship = saga
            .step("ship", SHIP, parcel)
            .after(&charge)
            .compensate(RECALL)
            .on_failure(OnFailure::Incident)
            .checked()
            .timeouts(quick());
        wire!(Receipt { receipt: field!(ship.receipt) })
    })
    .unwrap()
}

/// Addresses of the services.
#[derive(Clone)]
pub(super) struct Urls {
    pub(super) stock: String,
    pub(super) bank: String,
    pub(super) carrier: String,
}

/// Version of the deployed handlers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Release {
    /// It has no label for the sea.
    First,
    Second,
}

/// Orders of which the new address is known by now.
static MOVED: LazyLock<Mutex<HashSet<String>>> = LazyLock::new(Mutex::default);

/// The master data learn where the customer of an order is.
pub(super) fn moved(order: &str) {
    MOVED.lock().unwrap().insert(order.to_owned());
}

/// A worker at work.
pub(super) struct Working {
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

impl Working {
    pub(super) async fn stop(self) {
        let _ = self.stop.send(());
        self.done.await.unwrap();
    }
}

struct Shop {
    http: reqwest::Client,
    urls: Urls,
    release: Release,
}

impl Shop {
    async fn act(&self, ctx: &TaskContext, url: String, body: Value) -> Result<Receipt, TaskError> {
        let key = ctx.effect_key().to_string();
        let request = self.http.post(url).header("idempotency-key", key).json(&body);
        let receipt: Receipt = expect_success(request.send().await?).await?.json().await?;
        ctx.external_id(&receipt.receipt);
        Ok(receipt)
    }

    async fn undo(
        &self,
        ctx: &TaskContext,
        url: String,
        body: (&str, Uuid, Option<&str>),
    ) -> Result<(), TaskError> {
        let (order, key, sku) = body;
        let body = json!({ "order": order, "key": key, "sku": sku });
        let key = ctx.effect_key().to_string();
        let request = self.http.post(url).header("idempotency-key", key).json(&body);
        expect_success(request.send().await?).await.map(drop)
    }

    async fn ship(&self, ctx: &TaskContext, parcel: Parcel) -> Result<Receipt, TaskError> {
        if parcel.by_sea && self.release == Release::First {
            let message = format!("no label for the sea, parcel of {}", parcel.order);
            return Err(TaskError::permanent("no_label", message));
        }
        let known = MOVED.lock().unwrap().contains(&parcel.order);
        if parcel.postcode.is_empty() && !known {
            let message = format!("{} has no postcode", parcel.order);
            return Err(TaskError::permanent("no_postcode", message));
        }
        let body = json!({"order": parcel.order, "carrier": "post", "to": parcel.postcode});
        self.act(ctx, format!("{}/shipments", self.urls.carrier), body).await
    }

    async fn find(
        &self,
        ctx: &TaskContext,
        charge: &Charge,
    ) -> Result<Verdict<Receipt>, TaskError> {
        let url = format!("{}/charges/{}", self.urls.bank, ctx.forward_key());
        let response = self.http.get(url).query(&[("order", &charge.order)]).send().await?;
        if response.status() == StatusCode::NOT_FOUND {
            return Ok(Verdict::NotHappened);
        }
        Ok(Verdict::Happened(expect_success(response).await?.json().await?))
    }
}

/// Puts a worker of this release to work.
pub(super) fn work(client: &Client, release: Release, urls: &Urls) -> Working {
    let shop = Arc::new(Shop { http: reqwest::Client::new(), urls: urls.clone(), release });
    let with = || Arc::clone(&shop);
    let (reserve, release, charge, refund, find, ship, recall) =
        (with(), with(), with(), with(), with(), with(), with());
    let worker =
        Worker::new(client.clone())
            .task(RESERVE, move |ctx, goods: Goods| {
                let shop = Arc::clone(&reserve);
                async move {
                    let body = json!({"order": goods.order, "sku": "TEA", "quantity": 1});
                    shop.act(&ctx, format!("{}/reservations", shop.urls.stock), body).await
                }
            })
            .undo(RELEASE, move |ctx, undoing: CompensationContext<Goods, Receipt>| {
                let shop = Arc::clone(&release);
                async move {
                    let body = (undoing.input.order.as_str(), undoing.forward_key, Some("TEA"));
                    shop.undo(&ctx, format!("{}/releases", shop.urls.stock), body).await
                }
            })
            .task(CHARGE, move |ctx, charged: Charge| {
                let shop = Arc::clone(&charge);
                async move {
                    shop.act(&ctx, format!("{}/charges", shop.urls.bank), json!(charged)).await
                }
            })
            .undo(REFUND, move |ctx, undoing: CompensationContext<Charge, Receipt>| {
                let shop = Arc::clone(&refund);
                async move {
                    let body = (undoing.input.order.as_str(), undoing.forward_key, None);
                    shop.undo(&ctx, format!("{}/refunds", shop.urls.bank), body).await
                }
            })
            .probe(FIND_CHARGE, move |ctx, charged: Charge| {
                let shop = Arc::clone(&find);
                async move { shop.find(&ctx, &charged).await }
            })
            .task(SHIP, move |ctx, parcel: Parcel| {
                let shop = Arc::clone(&ship);
                async move { shop.ship(&ctx, parcel).await }
            })
            .undo(RECALL, move |ctx, undoing: CompensationContext<Parcel, Receipt>| {
                let shop = Arc::clone(&recall);
                async move {
                    let body = (undoing.input.order.as_str(), undoing.forward_key, None);
                    shop.undo(&ctx, format!("{}/recalls", shop.urls.carrier), body).await
                }
            });
    let (stop, stopped) = oneshot::channel();
    let done = tokio::spawn(async move {
        let stopped = async {
            let _ = stopped.await;
        };
        worker.name("night").run(stopped).await.unwrap();
    });
    Working { stop, done }
}
