//! The SDK over the log: typed events, consumers with a cursor, and readers that keep their position beside their data.
//! The code of `docs/events.md` is from here.

use backstitch_api::Access;
use backstitch_sdk::{Client, ClientError, EventType};
use backstitch_tests::node::NS;
use backstitch_tests::server::Server;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use sqlx::{Connection, PgConnection};

type Done<T> = Result<T, Box<dyn std::error::Error>>;

#[derive(Serialize, Deserialize, JsonSchema)]
struct Placed {
    order: String,
    cents: u64,
}

const PLACED: EventType<Placed> = EventType::new("order.placed").contract("order-placed", 1);

async fn publish(client: &Client, orders: &[(&str, u64)]) -> Done<()> {
    PLACED.register(client).await?;
    let mut events = Vec::new();
    for (order, cents) in orders {
        let event = PLACED.event(&Placed { order: (*order).to_owned(), cents: *cents })?;
        let stream = format!("order:{order}");
        events.push(event.id("shop", *order).stream(stream).expected_version(0));
    }
    client.publish(events).await?;
    Ok(())
}

async fn total(client: &Client) -> Done<u64> {
    let consumer = client.consumer("totals").await?;
    let mut consumer = consumer.reads(|log| log.event_type("order.*"));
    let mut total = 0;
    loop {
        let batch = consumer.next().await?;
        for event in &batch.events {
            if let Some(placed) = PLACED.data_of(event) {
                total += placed?.cents;
            }
        }
        consumer.commit(&batch).await?;
        if batch.position == batch.head {
            return Ok(total);
        }
    }
}

async fn sum_up(client: &Client, database: &mut PgConnection) -> Done<()> {
    let read = "select position from totals";
    let position: i64 = sqlx::query_scalar(read).fetch_one(&mut *database).await?;
    let mut log = client.log_after(position.unsigned_abs());
    let batch = log.next().await?;
    let mut transaction = database.begin().await?;
    let mut cents = 0;
    for placed in batch.events.iter().filter_map(|event| PLACED.data_of(event)) {
        cents += placed?.cents;
    }
    // Another program that was faster has moved the position: nothing is counted twice.
    let moved =
        sqlx::query("update totals set cents = cents + $1, position = $2 where position = $3")
            .bind(i64::try_from(cents)?)
            .bind(i64::try_from(batch.position)?)
            .bind(position)
            .execute(&mut *transaction)
            .await?;
    if moved.rows_affected() == 1 {
        transaction.commit().await?;
    }
    Ok(())
}

fn client(server: &Server) -> Client {
    Client::new(server.url()).unwrap().namespace(NS).unwrap()
}

/// Waits until the log has so many events.
async fn head(client: &Client, head: u64) {
    backstitch_tests::eventually("the events have their positions", async || {
        client.log_after(0).limit(1).next().await.unwrap().head == head
    })
    .await;
}

#[tokio::test]
async fn a_consumer_goes_on_from_what_it_committed() {
    let server = Server::start(Access::Open).await;
    let client = client(&server);
    publish(&client, &[("1", 100), ("2", 20)]).await.unwrap();
    let other = backstitch_sdk::protocol::NewEvent::from(
        EventType::new("stock.counted").event(&7).unwrap(),
    );
    client.publish([other]).await.unwrap();
    head(&client, 3).await;
    assert_eq!(total(&client).await.unwrap(), 120);
    publish(&client, &[("3", 3)]).await.unwrap();
    head(&client, 4).await;
    assert_eq!(total(&client).await.unwrap(), 3);
    // What was sent again is there once.
    publish(&client, &[("3", 3)]).await.unwrap();
    let again = EventType::<u32>::new("order.placed").event(&4).unwrap();
    let refused = client.publish([again.stream("order:3").expected_version(0)]).await.unwrap_err();
    assert_eq!(refused.code(), Some("stream_version_conflict"));
    head(&client, 4).await;
    server.stopped().await;
}

#[tokio::test]
async fn what_was_not_committed_comes_again_and_one_of_two_consumers_moves_the_cursor() {
    let server = Server::start(Access::Open).await;
    let client = client(&server);
    publish(&client, &[("1", 1), ("2", 2), ("3", 3)]).await.unwrap();
    head(&client, 3).await;
    let mut one = client.consumer("c").await.unwrap().reads(|log| log.limit(2));
    let mut other = client.consumer("c").await.unwrap();
    let first = one.next().await.unwrap();
    assert_eq!((first.events.len(), first.position, one.committed()), (2, 2, 0));
    drop(one);
    let mut one = client.consumer("c").await.unwrap().reads(|log| log.limit(2));
    let again = one.next().await.unwrap();
    assert_eq!(again.position, 2);
    one.commit(&again).await.unwrap();
    one.commit(&again).await.unwrap();
    let all = other.next().await.unwrap();
    let refused = other.commit(&all).await.unwrap_err();
    assert_eq!(refused.code(), Some("cursor_conflict"));
    other.reload().await.unwrap();
    let rest = other.next().await.unwrap();
    assert_eq!((rest.events.len(), rest.position, other.committed()), (1, 3, 2));
    other.commit(&rest).await.unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn a_position_beside_the_data_counts_each_event_once() {
    let server = Server::start(Access::Open).await;
    let client = client(&server);
    let mut database = PgConnection::connect(server.database()).await.unwrap();
    let table = "create table totals (cents bigint not null, position bigint not null);
        insert into totals values (0, 0)";
    sqlx::raw_sql(table).execute(&mut database).await.unwrap();
    publish(&client, &[("1", 100), ("2", 20)]).await.unwrap();
    head(&client, 2).await;
    let mut second = PgConnection::connect(server.database()).await.unwrap();
    let both = tokio::join!(sum_up(&client, &mut database), sum_up(&client, &mut second));
    both.0.unwrap();
    both.1.unwrap();
    let kept: (i64, i64) = sqlx::query_as("select cents, position from totals")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(kept, (120, 2));
    server.stopped().await;
}

#[tokio::test]
async fn an_event_type_registers_its_contract_and_tells_when_it_names_another_version() {
    let server = Server::start(Access::Open).await;
    let client = client(&server);
    for _ in 0..2 {
        let registered = PLACED.register(&client).await.unwrap();
        assert_eq!((registered.subject.as_str(), registered.version), ("order-placed", 1));
    }
    let other = EventType::<Placed>::new("order.placed").contract("order-placed", 2);
    let wrong = other.register(&client).await.unwrap_err();
    assert!(
        matches!(&wrong, ClientError::Setup(why) if why.contains("its schema is order-placed@1")),
        "{wrong:?}"
    );
    let none = EventType::<Placed>::new("order.placed").register(&client).await.unwrap_err();
    assert!(matches!(none, ClientError::Setup(_)), "{none:?}");
    server.stopped().await;
}

#[test]
fn the_page_about_events_shows_code_from_here() {
    let page = include_str!("../../../docs/events.md");
    let lines = |text: &str| {
        text.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("\n")
    };
    let program = lines(include_str!("consumers.rs"));
    let mut blocks = 0;
    for block in page.split("```rust\n").skip(1) {
        let code = block.split("```").next().unwrap();
        for piece in code.split("\n\n") {
            assert!(program.contains(&lines(piece)), "there are no such lines:\n{piece}");
        }
        blocks += 1;
    }
    assert_eq!(blocks, 2);
}
