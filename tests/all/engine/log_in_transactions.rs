//! Events that applications append in transactions of their own: in the log if the transaction commits, and in nobody's
//! way until then.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_engine::log::{EventDraft, EventQuery};
use backstitch_engine::{Engine, Error, Options};
use backstitch_saga::protocol::{EventReceipt, EventView};
use backstitch_sdk::AppendInTransaction;
use backstitch_tests::node::{NS, node};
use backstitch_tests::postgres::database;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

async fn append(engine: &Engine, events: Value) -> Result<Vec<EventReceipt>, Error> {
    let events = serde_json::from_value(events).unwrap();
    let drafts = EventDraft::of_request(events, "ann", engine.event_limit())?;
    engine.append_events(&Arc::from(NS), drafts).await
}

fn placed(order: u32) -> AppendInTransaction {
    let event = AppendInTransaction::of("order.placed", &json!({"order": order})).unwrap();
    event.namespace(NS).stream("orders").label("shop", "north")
}

async fn ask(
    connection: &mut PgConnection,
    event: &AppendInTransaction,
) -> Result<Uuid, sqlx::Error> {
    let mut query = sqlx::query_scalar(AppendInTransaction::SQL);
    for parameter in event.parameters() {
        query = query.bind(parameter);
    }
    query.fetch_one(connection).await
}

fn code(error: &sqlx::Error) -> String {
    let code = error.as_database_error().and_then(|error| error.code());
    code.unwrap_or_else(|| panic!("{error}")).into_owned()
}

/// Returns all events, once there are so many.
async fn all(engine: &Engine, count: usize) -> Vec<EventView> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let query = EventQuery { limit: 1_000, ..EventQuery::default() };
        let events = engine.events(NS, query).await.unwrap().items;
        if events.len() >= count {
            return events;
        }
        assert!(Instant::now() < until, "{} of {count}", events.len());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// A node that numbers only when it is rung for.
fn deaf(options: &mut Options) {
    options.tuning.log_every = Duration::from_secs(3_600);
}

#[tokio::test]
async fn an_event_is_in_the_log_if_its_transaction_commits_and_not_otherwise() {
    let url = database().await;
    let engine = node(&url, deaf).await;
    let mut shop = PgConnection::connect(&url).await.unwrap();
    let mut transaction = shop.begin().await.unwrap();
    ask(&mut transaction, &placed(1)).await.unwrap();
    transaction.rollback().await.unwrap();
    let mut transaction = shop.begin().await.unwrap();
    let first = ask(&mut transaction, &placed(2).id("shop", "2")).await.unwrap();
    let again = ask(&mut transaction, &placed(2).id("shop", "2")).await.unwrap();
    let caused = placed(3).caused_by(first.to_string());
    let second = ask(&mut transaction, &caused).await.unwrap();
    assert_eq!(first, again);
    transaction.commit().await.unwrap();
    let events = all(&engine, 2).await;
    let found: Vec<_> = events.iter().map(|event| (event.id, event.version, event.hops)).collect();
    assert_eq!(found, [(first, Some(1), 0), (second, Some(2), 1)]);
    assert_eq!(events[1].correlation_id, events[0].correlation_id);
    assert_eq!(events[0].data.text(), r#"{"order": 2}"#);
    assert_eq!(events[0].labels["shop"], "north");
    assert_eq!(events[0].source, "sql/backstitch");
    let next = json!([{"type": "t", "stream": "orders", "expected_version": 2}]);
    assert_eq!(append(&engine, next).await.unwrap()[0].version, Some(3));
    for (event, expected) in [
        (placed(4).id("shop", "2"), "BS007"),
        (placed(4).expected_version(2), "BS008"),
        (placed(4).stream("x".repeat(257)), "BS006"),
        (placed(4).label("a\u{1}", "b"), "BS006"),
    ] {
        let refused = ask(&mut shop, &event).await.unwrap_err();
        assert_eq!(code(&refused), expected, "{refused}");
    }
    assert_eq!(all(&engine, 3).await.len(), 3);
}

#[tokio::test]
async fn a_role_appends_in_the_namespaces_it_has_a_grant_for_and_nowhere_else() {
    let url = database().await;
    let _engine = node(&url, deaf).await;
    let name = format!("shop_{}", Uuid::new_v4().simple());
    let mut shop = PgConnection::connect(&url).await.unwrap();
    let script = format!(
        "create role {name};
        grant usage on schema backstitch to {name};
        grant execute on function backstitch.append_event to {name};
        select backstitch.grant_namespace('{name}', '{NS}');
        set session authorization {name};"
    );
    sqlx::raw_sql(sqlx::AssertSqlSafe(script)).execute(&mut shop).await.unwrap();
    ask(&mut shop, &placed(1)).await.unwrap();
    let refused = ask(&mut shop, &placed(1).namespace("elsewhere")).await.unwrap_err();
    assert_eq!(code(&refused), "BS005");
    sqlx::raw_sql("reset session authorization").execute(&mut shop).await.unwrap();
    let drop = format!("drop owned by {name}; drop role {name}");
    sqlx::raw_sql(sqlx::AssertSqlSafe(drop)).execute(&mut shop).await.unwrap();
}

#[tokio::test]
async fn who_appends_to_a_stream_of_an_open_transaction_waits_and_others_do_not() {
    let url = database().await;
    let engine = node(&url, deaf).await;
    let mut shop = PgConnection::connect(&url).await.unwrap();
    let mut transaction = shop.begin().await.unwrap();
    ask(&mut transaction, &placed(1)).await.unwrap();
    let waiting = append(&engine, json!([{"type": "waits", "stream": "orders"}]));
    let others = async {
        let began = Instant::now();
        for at in 0..5 {
            append(&engine, json!([{"type": "t", "stream": format!("s:{at}")}])).await.unwrap();
        }
        assert!(began.elapsed() < Duration::from_secs(9), "{:?}", began.elapsed());
        assert_eq!(all(&engine, 5).await.len(), 5);
        transaction.commit().await.unwrap();
    };
    let (waited, ()) = tokio::join!(waiting, others);
    assert_eq!(waited.unwrap()[0].version, Some(2));
    let events = all(&engine, 7).await;
    let versions: Vec<_> = events
        .iter()
        .filter(|event| event.stream.as_deref() == Some("orders"))
        .map(|event| event.version)
        .collect();
    assert_eq!(versions, [Some(1), Some(2)]);
}

#[tokio::test]
async fn the_leaf_of_an_event_is_the_same_whoever_appends_it() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    let snapshot = json!({"type": "customer", "id": "1", "source": "crm", "stream": "customer:1", "op": "S",
        "contract": "customer@1", "occurred_at": "2026-01-05T12:00:00.5Z", "correlation_id": "ü", "labels": {"a": "b"},
        "traceparent": "00-1", "data": {"name": "Åsa", "n": 1.50}});
    append(&engine, json!([snapshot, {"type": "plain"}])).await.unwrap();
    let mut owner = PgConnection::connect(&url).await.unwrap();
    ask(&mut owner, &placed(1).id("shop", "1")).await.unwrap();
    let same: Vec<bool> = sqlx::query_scalar(
        "select e.leaf = backstitch.event_leaf(array[e.namespace, \
           overlay(e.batch::text placing lpad(to_hex(e.ord::integer), 4, '0') from 33 for 4), e.type, e.stream, \
           e.stream_version::text, e.contract, e.op, e.op_corrected::integer::text, e.noop::integer::text, e.changed, e.source, \
           e.claimed_source, e.source_id, e.trust::text, e.occurred_at, (extract(epoch from e.received_at) * 1000)::bigint::text, \
           e.correlation_id, e.causation_id, e.hops::text, e.traceparent, e.labels], b.body, b.salt) \
         from event e join event_body b using (batch, ord)",
    )
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert_eq!(same, [true, true, true]);
}
