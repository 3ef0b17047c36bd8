//! Documents that the SDK encrypts, on a server that has no key.

use std::time::Duration;

use backstitch_api::Access;
use backstitch_saga::protocol::{Outcome, State};
use backstitch_sdk::{
    Client, CompensationContext, Encryption, EncryptionKey, InvalidWorkflow, Ref, Retry, Signal,
    Span, Task, TaskContext, TaskError, Undo, Worker, Workflow, field, wire,
};
use backstitch_tests::node::node;
use backstitch_tests::postgres::database;
use backstitch_tests::server::Server;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const LONG: Duration = Duration::from_secs(60);
/// A text that must be nowhere in the database.
const SECRET: &str = "Ann-Marker-4711";

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Order {
    customer: String,
    total: u64,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Done {
    text: String,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
struct Receipt {
    charge: Done,
    by: String,
}

const CHARGE: Task<Order, Done> = Task::new("charge");
const REFUND: Undo<Order, Done> = Undo::new("refund");

fn pay() -> Result<Workflow<Order, Receipt>, InvalidWorkflow> {
    Workflow::build("pay", 1, |saga, order: Ref<Order>| {
        let charge = saga
            .step("charge", CHARGE, &order)
            .compensate(REFUND)
            .retry(Retry::exponential(Span::millis(10)..Span::millis(10)).max_attempts(1));
        let approval = saga.wait("approval", Signal::<Done>::new("approval")).after(&charge);
        wire!(Receipt { charge: &charge, by: field!(approval.text) })
    })
}

async fn charge(context: TaskContext, order: Order) -> Result<Done, TaskError> {
    context.heartbeat(&order.customer);
    Ok(Done { text: format!("{} paid {}", order.customer, order.total) })
}

async fn refund(_: TaskContext, _: CompensationContext<Order, Done>) -> Result<(), TaskError> {
    Ok(())
}

fn key(id: &str, byte: u8) -> EncryptionKey {
    EncryptionKey::new(id, &[byte; 32]).unwrap()
}

fn client(server: &Server, encryption: Encryption) -> Client {
    Client::new(server.url()).unwrap().codec(encryption.readable(["total"]))
}

fn worker(client: &Client) -> tokio::task::JoinHandle<()> {
    let worker = Worker::new(client.clone()).task(CHARGE, charge).undo(REFUND, refund);
    tokio::spawn(async move { drop(worker.run(std::future::pending()).await) })
}

fn order() -> Order {
    Order { customer: SECRET.to_owned(), total: 250 }
}

/// Everything in tables that holds the secret.
async fn leaks(database: &str) -> Vec<String> {
    let mut owner = PgConnection::connect(database).await.unwrap();
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    let mut found = Vec::new();
    for table in tables {
        let text = format!("select t::text from {table} t where t::text like '%{SECRET}%'");
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(text)).fetch_all(&mut owner).await.unwrap();
        found.extend(rows.into_iter().map(|row| format!("{table} {row}")));
    }
    found
}

#[tokio::test]
async fn a_run_of_encrypted_documents_succeeds_and_nothing_of_them_stands_in_the_database() {
    let server = Server::start_encrypted(Access::Open).await;
    let client = client(&server, Encryption::new(key("2026-01", 1)));
    client.register(&pay().unwrap()).await.unwrap();
    let worker = worker(&client);
    let run = client.start(&pay().unwrap(), &order()).key("order-7").await.unwrap();
    let id = run.id();
    client.signal(id, "approval", &Done { text: SECRET.to_owned() }).await.unwrap();
    let receipt = run.result(LONG).await.unwrap();
    assert_eq!(receipt.charge.text, format!("{SECRET} paid 250"));
    assert_eq!(receipt.by, SECRET);
    assert_eq!(leaks(server.database()).await, Vec::<String>::new());
    // Who has the key sees it, and who has not sees its shape.
    let view = client.run(id).await.unwrap();
    assert_eq!(view.input.to::<Order>().unwrap(), order());
    let without = Client::new(server.url()).unwrap().run(id).await.unwrap();
    let text = without.input.text();
    assert!(text.contains("\"total\":250") && text.contains("\"$enc\""), "{text}");
    // The same start is the same run, also after the key was changed.
    let again = client.start(&pay().unwrap(), &order()).key("order-7").await.unwrap();
    assert_eq!(again.id(), id);
    let rotated = Encryption::new(key("2026-07", 2)).and(key("2026-01", 1));
    let rotated = self::client(&server, rotated);
    let again = rotated.start(&pay().unwrap(), &order()).key("order-7").await.unwrap();
    assert_eq!(again.id(), id);
    let other = Order { total: 251, ..order() };
    let refused = rotated.start(&pay().unwrap(), &other).key("order-7").await.unwrap_err();
    assert_eq!(refused.code(), Some("key_conflict"));
    worker.abort();
    server.stopped().await;
}

#[tokio::test]
async fn a_worker_without_the_key_fails_the_attempt_with_a_code_and_one_with_it_does_the_work() {
    let server = Server::start_encrypted(Access::Open).await;
    let writes = client(&server, Encryption::new(key("new", 2)).and(key("old", 1)));
    let lacks = client(&server, Encryption::new(key("old", 1)));
    writes.register(&pay().unwrap()).await.unwrap();
    let worker = worker(&lacks);
    let run = writes.start(&pay().unwrap(), &order()).await.unwrap();
    let view = run.ended(LONG).await.unwrap();
    assert_eq!((view.state, view.outcome), (State::Ended, Some(Outcome::FailedClean)));
    let told = serde_json::to_string(&view).unwrap();
    assert!(told.contains("payload_key_unknown") && told.contains("'new'"), "{told}");
    worker.abort();
    server.stopped().await;
}

#[tokio::test]
async fn envelopes_are_held_to_schemas_unless_the_server_is_told_of_them() {
    let url = database().await;
    let server = Server::start(Access::Open).await;
    let client = client(&server, Encryption::new(key("k", 1)));
    client.register(&pay().unwrap()).await.unwrap();
    let refused = client.start(&pay().unwrap(), &order()).await.unwrap_err();
    assert_eq!(refused.code(), Some("invalid_input"));
    assert!(refused.to_string().contains("--encrypted-payloads"), "{refused}");
    server.stopped().await;
    // One that is told of them still holds what stands beside them to its schema.
    let engine = node(&url, |options| options.encrypted_payloads = true).await;
    let text = serde_json::to_string(pay().unwrap().definition()).unwrap();
    engine.register("test", &text).await.unwrap();
    let enc = r#"{"$enc":{"v":1,"alg":"A256GCM","key":"k","data":"x"}}"#;
    let fine = format!(r#"{{"customer":{enc},"total":5}}"#);
    let wrong = format!(r#"{{"customer":{enc},"total":"5"}}"#);
    assert!(engine.start_run("test", backstitch_tests::node::start("pay", &fine)).await.is_ok());
    let refused = engine.start_run("test", backstitch_tests::node::start("pay", &wrong)).await;
    assert!(refused.unwrap_err().to_string().contains("total"));
}
