//! Documents that are encrypted before they leave the process, as `docs/payloads.md` shows it.
//!
//! `BACKSTITCH_URL=http://127.0.0.1:7420 cargo run -p backstitch-sdk --example encrypted -- KEYS` against a server that
//! was started with `--encrypted-payloads`; `KEYS` is a file of keys.

use std::error::Error;
use std::time::Duration;

use backstitch_sdk::{
    Client, CompensationContext, Encryption, InvalidWorkflow, Ref, Task, TaskContext, TaskError,
    Undo, Worker, Workflow, field,
};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Order {
    customer: String,
    card: String,
    total: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Letter {
    text: String,
}

const CHARGE: Task<Order, Letter> = Task::new("charge").queue("paid");
const REFUND: Undo<Order, Letter> = Undo::new("refund").queue("paid");
const CHECK: Task<Order, Letter> = Task::new("check").queue("paid");

fn pay() -> Result<Workflow<Order, Letter>, InvalidWorkflow> {
    Workflow::build("pay-in-secret", 1, |saga, order: Ref<Order>| {
        let large = field!(order.total).gt(1_000u64);
        let check = saga.step("check", CHECK, &order).read_only().when(large);
        saga.step("charge", CHARGE, &order).after(&check).compensate(REFUND)
    })
}

async fn charge(_: TaskContext, order: Order) -> Result<Letter, TaskError> {
    Ok(Letter {
        text: format!("Dear {}, we took {} from {}", order.customer, order.total, order.card),
    })
}

async fn refund(_: TaskContext, _: CompensationContext<Order, Letter>) -> Result<(), TaskError> {
    Ok(())
}

async fn check(_: TaskContext, order: Order) -> Result<Letter, TaskError> {
    Ok(Letter { text: format!("{} may spend {}", order.customer, order.total) })
}

fn client(keys: &str) -> Result<Client, Box<dyn Error>> {
    let encryption = Encryption::from_file(keys)?.readable(["total"]);
    Ok(Client::from_env()?.codec(encryption))
}

async fn run(keys: &str) -> Result<(), Box<dyn Error>> {
    let client = client(keys)?;
    client.register(&pay()?).await?;
    let worker =
        Worker::new(client.clone()).task(CHARGE, charge).undo(REFUND, refund).task(CHECK, check);
    tokio::spawn(worker.run(std::future::pending()));
    let order = Order { customer: "Ann".into(), card: "4111".into(), total: 250 };
    let run = client.start(&pay()?, &order).key("order-7").await?;
    println!("{}", run.result(Duration::from_secs(30)).await?.text);
    Ok(())
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let keys = std::env::args().nth(1).ok_or("name the file of the keys")?;
    run(&keys).await
}

#[cfg(test)]
mod tests {
    use backstitch_sdk::protocol::Outcome;
    use backstitch_sdk::testkit::TestKit;
    use backstitch_sdk::{EncryptionKey, StepPath};

    use super::*;

    #[tokio::test]
    async fn the_server_sees_shapes_and_what_is_readable_and_handlers_see_everything() {
        let key = EncryptionKey::new("2026-01", &[7; 32]).unwrap();
        let kit = TestKit::new(&pay().unwrap())
            .task(CHARGE, charge)
            .undo(REFUND, refund)
            .task(CHECK, check)
            .codec(Encryption::new(key).readable(["total"]));
        let order = Order { customer: "Ann".into(), card: "4111".into(), total: 2_500 };
        let run = kit.run(&order).await;
        run.assert_outcome(Outcome::Succeeded);
        assert_eq!(run.output().unwrap().text, "Dear Ann, we took 2500 from 4111");
        assert_eq!(run.count(backstitch_sdk::Action::Forward, "check"), 1);
        let seen = serde_json::to_string(&run.view_of_server()).unwrap();
        assert!(seen.contains("\"total\":2500") && !seen.contains("Ann") && !seen.contains("4111"));
        let journal = format!("{:?}", run.journal());
        assert!(!journal.contains("Ann") && !journal.contains("4111"));
        assert!(run.view().input.to::<Order>().unwrap() == order);
        assert!(run.standing().contains(&StepPath::step("charge")));
    }

    #[tokio::test]
    async fn a_condition_on_what_is_encrypted_is_an_error_and_never_false() {
        let key = EncryptionKey::new("2026-01", &[7; 32]).unwrap();
        let kit = TestKit::new(&pay().unwrap())
            .task(CHARGE, charge)
            .undo(REFUND, refund)
            .task(CHECK, check)
            .codec(Encryption::new(key));
        let order = Order { customer: "Ann".into(), card: "4111".into(), total: 2_500 };
        let run = kit.run(&order).await;
        let seen = serde_json::to_string(&run.view()).unwrap();
        assert!(seen.contains("value_encrypted"), "{seen}");
    }
}
