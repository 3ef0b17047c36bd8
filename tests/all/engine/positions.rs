//! Rows of `position` and `announced` are lost: events are not lost to their readers for that.

use std::sync::Arc;
use std::time::Duration;

use backstitch_engine::log::{EventDraft, EventQuery};
use backstitch_engine::{BackgroundTask, Engine};
use backstitch_tests::eventually;
use backstitch_tests::node::{NS, metric, node};
use backstitch_tests::postgres::database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// An engine that checks all the time, or only when it is asked.
async fn engine(url: &str, every: Duration) -> Engine {
    node(url, |options| options.tuning.check_every = every).await
}

async fn execute(connection: &mut PgConnection, text: &str) -> u64 {
    let text = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
    text.execute(connection).await.unwrap().rows_affected()
}

/// Appends a batch of so many events, which say their number.
async fn append(engine: &Engine, numbers: std::ops::Range<usize>) {
    let events = numbers.map(|number| serde_json::json!({"type": "t", "data": number}));
    let events = serde_json::from_value(events.collect()).unwrap();
    let drafts = EventDraft::of_request(events, "ann", engine.event_limit()).unwrap();
    engine.append_events(&Arc::from(NS), drafts).await.unwrap();
}

/// The data of all events that a reader finds, with the positions.
async fn read(engine: &Engine) -> Vec<(u64, String)> {
    let query = EventQuery { after: Some("0".to_owned()), limit: 1_000, ..EventQuery::default() };
    let Ok(page) = engine.events(NS, query).await else { return Vec::new() };
    let data = |data| serde_json::to_string(&data).unwrap();
    page.items.into_iter().map(|one| (one.position.unwrap_or_default(), data(one.data))).collect()
}

/// Waits until a reader finds the events `0..count` in their order.
async fn reads(engine: &Engine, what: &str, count: usize) {
    let wanted: Vec<(u64, String)> =
        (0..count).map(|number| (number as u64 + 1, number.to_string())).collect();
    eventually(what, async || {
        engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        read(engine).await == wanted
    })
    .await;
}

async fn told(engine: &Engine) -> Option<String> {
    let conditions = engine.status(NS).await.conditions;
    conditions.into_iter().find(|one| one.kind == "EventsUnnumbered").map(|one| one.message)
}

#[tokio::test]
async fn an_event_that_has_lost_its_position_gets_it_back() {
    let url = database().await;
    let engine = engine(&url, Duration::ZERO).await;
    for numbers in [0..2, 2..3, 3..6, 6..8] {
        append(&engine, numbers.clone()).await;
        reads(&engine, "it has a position", numbers.end).await;
    }
    let mut outside = PgConnection::connect(&url).await.unwrap();
    for (lost, rows) in [
        ("delete from position where upto = 3", 1),
        ("delete from position where upto = 2", 1),
        ("delete from position where upto = 8", 1),
        ("delete from position where upto in (3, 6)", 2),
        ("delete from position", 4),
    ] {
        assert_eq!(execute(&mut outside, lost).await, rows, "{lost}");
        reads(&engine, lost, 8).await;
    }
    assert_eq!(metric(&engine, "log_batches_restored_total"), 9.0);
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn an_event_that_is_announced_no_more_is_announced_again() {
    let url = database().await;
    let engine = engine(&url, Duration::ZERO).await;
    append(&engine, 0..2).await;
    reads(&engine, "they have positions", 2).await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    // Whoever holds the head keeps the next ones from being numbered.
    let mut holding = outside.begin().await.unwrap();
    execute(&mut holding, "select 1 from log_head for update").await;
    append(&engine, 2..5).await;
    assert_eq!(execute(&mut holding, "delete from announced").await, 1);
    holding.commit().await.unwrap();
    reads(&engine, "it has a position", 5).await;
    assert_eq!(metric(&engine, "log_batches_restored_total"), 1.0);
}

#[tokio::test]
async fn events_that_fit_no_missing_position_are_told_and_doctor_mends_what_fits() {
    let url = database().await;
    let engine = engine(&url, Duration::MAX).await;
    for numbers in [0..2, 2..3, 3..6] {
        append(&engine, numbers.clone()).await;
        eventually("it has a position", async || read(&engine).await.len() == numbers.end).await;
    }
    let mut outside = PgConnection::connect(&url).await.unwrap();
    execute(&mut outside, "delete from position where upto = 3").await;
    let found = engine.doctor(true).await.unwrap().differences;
    assert!(found.iter().any(|line| line.contains("have no position")), "{found:?}");
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    reads(&engine, "doctor mended it", 6).await;
    // Two events less than there are positions for.
    execute(&mut outside, "delete from position where upto = 6; delete from event where batch not in (select batch from position) and ord > 0").await;
    let checking = self::engine(&url, Duration::ZERO).await;
    eventually("it is told", async || {
        checking.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        told(&checking).await.is_some_and(|message| message.contains("1 batches"))
    })
    .await;
    assert_eq!(read(&checking).await.len(), 3);
    // Somebody says where it belongs.
    let put = "insert into position select namespace, 6, batch, 3 from event where batch not in (select batch from position)";
    assert_eq!(execute(&mut outside, put).await, 1);
    eventually("it is told no more", async || {
        checking.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        told(&checking).await.is_none()
    })
    .await;
}
