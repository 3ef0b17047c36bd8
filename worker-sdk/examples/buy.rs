//! A whole saga in one file: documents, handles, workflow, handlers, worker, client and test. `docs/sdk.md` walks
//! through it.
//!
//! With a server on this machine (`cargo run --release -- dev`):
//! `BACKSTITCH_URL=http://127.0.0.1:7420 cargo run -p backstitch-sdk --example buy`

use std::time::Duration;

use backstitch_sdk::http::expect_success;
use backstitch_sdk::{
    Client, CompensationContext, Empty, Handlers, InvalidWorkflow, Ref, Retry, Span, Task,
    TaskContext, TaskError, Undo, Worker, Workflow, field, wire,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Order {
    id: String,
    cents: u64,
    lines: Vec<Line>,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Line {
    sku: String,
    quantity: u32,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Reservation {
    number: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Charge {
    order: String,
    cents: u64,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Payment {
    authorization: String,
}

#[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
struct Receipt {
    order: String,
    authorization: String,
    reservations: Vec<Reservation>,
}

const RESERVE_STOCK: Task<Line, Reservation> = Task::new("reserve_stock").queue("shop");
const RELEASE_STOCK: Undo<Line, Reservation> = Undo::new("release_stock").queue("shop");
const CHARGE_CARD: Task<Charge, Payment> = Task::new("charge_card").queue("shop");
const REFUND_CARD: Undo<Charge, Payment> = Undo::new("refund_card").queue("shop");

fn buy() -> Result<Workflow<Order, Receipt>, InvalidWorkflow> {
    Workflow::build("buy", 1, |saga, order: Ref<Order>| {
        let stock = saga
            .map("stock", field!(order.lines), RESERVE_STOCK, |line| line)
            .empty(Empty::Fail)
            .compensate(RELEASE_STOCK);
        let charge = wire!(Charge { order: field!(order.id), cents: field!(order.cents) });
        let payment = saga
            .step("payment", CHARGE_CARD, charge)
            .after(&stock)
            .compensate(REFUND_CARD)
            .retry(Retry::exponential(Span::millis(200)..Span::secs(30)).max_attempts(8));
        wire!(Receipt {
            order: field!(order.id),
            authorization: field!(payment.authorization),
            reservations: &stock,
        })
    })
}

async fn reserve_stock(ctx: TaskContext, line: Line) -> Result<Reservation, TaskError> {
    if line.quantity > 1_000 {
        return Err(TaskError::permanent("out_of_stock", format!("not so many {}", line.sku)));
    }
    Ok(Reservation { number: ctx.effect_key().to_string() })
}

async fn release_stock(
    _: TaskContext,
    _: CompensationContext<Line, Reservation>,
) -> Result<(), TaskError> {
    Ok(())
}

/// Where the payment service is; without one, charges are made up.
fn payments() -> Option<String> {
    std::env::var("PAYMENTS_URL").ok()
}

async fn charge_card(ctx: TaskContext, charge: Charge) -> Result<Payment, TaskError> {
    let Some(url) = payments() else {
        return Ok(Payment { authorization: ctx.effect_key().to_string() });
    };
    let request = reqwest::Client::new()
        .post(format!("{url}/charges"))
        .header("Idempotency-Key", ctx.effect_key().to_string())
        .json(&charge);
    Ok(expect_success(request.send().await?).await?.json().await?)
}

async fn refund_card(
    _: TaskContext,
    undoing: CompensationContext<Charge, Payment>,
) -> Result<(), TaskError> {
    if let Some(url) = payments() {
        let charge = format!("{url}/charges/{}", undoing.forward_key);
        expect_success(reqwest::Client::new().delete(charge).send().await?).await?;
    }
    Ok(())
}

fn handlers() -> Handlers {
    Handlers::new()
        .task(RESERVE_STOCK, reserve_stock)
        .undo(RELEASE_STOCK, release_stock)
        .task(CHARGE_CARD, charge_card)
        .undo(REFUND_CARD, refund_card)
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let client = Client::from_env()?;
    let (stop, stopped) = tokio::sync::oneshot::channel::<()>();
    let worker = tokio::spawn(Worker::new(client.clone()).handlers(handlers()).run(async {
        let _ = stopped.await;
    }));

    let buy = buy()?;
    client.register(&buy).await?;
    let lines = vec![Line { sku: "TEA-1".to_owned(), quantity: 2 }];
    let order = Order { id: "S-1".to_owned(), cents: 1_090, lines };
    let run = client.start(&buy, &order).key("S-1").label("shop", "north").await?;
    let receipt = run.result(Duration::from_secs(30)).await?;
    println!("{receipt:?}");

    let _ = stop.send(());
    println!("{:?}", worker.await??);
    Ok(())
}

#[cfg(test)]
mod tests {
    use backstitch_sdk::protocol::Outcome;
    use backstitch_sdk::testkit::{Bounds, Fault, TestKit, rehearse};

    use super::*;

    #[tokio::test]
    async fn a_charge_in_doubt_is_undone_when_it_cannot_be_repeated() {
        let line = |sku: &str| Line { sku: sku.to_owned(), quantity: 1 };
        let order =
            Order { id: "S-1".to_owned(), cents: 500, lines: vec![line("TEA"), line("POT")] };
        let declined = TaskError::permanent("card_declined", "no");
        let run = TestKit::new(&buy().unwrap())
            .handlers(handlers())
            .fault(Fault::at("payment").in_doubt())
            .fault(Fault::at("payment").fails(declined))
            .run(&order)
            .await;
        run.assert_outcome(Outcome::Compensated);
        run.assert_nothing_stands();
        let undone = ["undo payment", "undo stock/0", "undo stock/1"];
        assert_eq!(run.effects()[3..], undone);
    }
    #[test]
    fn it_closes_whatever_goes_wrong() {
        rehearse(&buy().unwrap(), Bounds { faults: 2, traces: 2_000 }).assert_closes();
    }
}
