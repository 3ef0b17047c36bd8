//! Rows beside the journals are lost or damaged, or locked by somebody else: what is healed and what is told.

use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_engine::log::{EventDraft, EventQuery};
use backstitch_engine::{BackgroundTask, Engine, Error, migrate};
use backstitch_tests::eventually;
use backstitch_tests::node::{NS, by, json, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const WAITS: &str = r#"{"name":"waits","version":1,"steps":[{"id":"go","wait":{"signal":"go"}}]}"#;

async fn engine(url: &str) -> Engine {
    node(url, |options| options.tuning.check_every = Duration::ZERO).await
}

async fn execute(connection: &mut PgConnection, text: &str) -> u64 {
    let text = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
    text.execute(connection).await.unwrap().rows_affected()
}

async fn append(engine: &Engine, count: usize) {
    let events = (0..count).map(|number| serde_json::json!({"type": "t", "data": number}));
    let events = serde_json::from_value(events.collect()).unwrap();
    let drafts = EventDraft::of_request(events, "ann", engine.event_limit()).unwrap();
    engine.append_events(&Arc::from(NS), drafts).await.unwrap();
}

/// Returns the head of the log, and how many events there are after a position.
async fn head(engine: &Engine, after: u64) -> Option<(u64, usize)> {
    let after = Some(after.to_string());
    let query = EventQuery { after, limit: 1_000, ..EventQuery::default() };
    let page = engine.events(NS, query).await.ok()?;
    Some((page.head, page.items.len()))
}

/// Returns the message of a condition of the namespace.
async fn told(engine: &Engine, kind: &str) -> Option<String> {
    let conditions = engine.status(NS).await.conditions;
    conditions.into_iter().find(|one| one.kind == kind).map(|one| one.message)
}

#[tokio::test]
async fn a_head_of_a_log_that_is_lost_or_wrong_is_set_right_by_the_positions() {
    let url = database().await;
    let engine = engine(&url).await;
    append(&engine, 3).await;
    eventually("they have positions", async || head(&engine, 0).await == Some((3, 3))).await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    for (wrong, mended) in [
        ("delete from log_head", 1.0),
        ("update log_head set position = 1", 2.0),
        ("update log_head set horizon = 2", 3.0),
    ] {
        assert_eq!(execute(&mut outside, wrong).await, 1, "{wrong}");
        eventually(wrong, async || {
            engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
            let counted = metric(&engine, "log_heads_mended_total");
            head(&engine, 0).await == Some((3, 3)) && counted >= mended
        })
        .await;
    }
    assert_eq!(metric(&engine, "log_heads_mended_total"), 3.0);
    // What is appended before that is seen goes on where the log ends.
    execute(&mut outside, "delete from log_head").await;
    append(&engine, 2).await;
    eventually("they have positions, too", async || head(&engine, 3).await == Some((5, 2))).await;
}

#[tokio::test]
async fn a_head_of_a_log_that_is_wrong_is_told_by_doctor_and_mended_when_asked() {
    let url = database().await;
    let engine = node(&url, |options| options.tuning.check_every = Duration::MAX).await;
    append(&engine, 3).await;
    eventually("they have positions", async || head(&engine, 0).await == Some((3, 3))).await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    execute(&mut outside, "update log_head set position = 2").await;
    for mend in [false, true] {
        let found = engine.doctor(mend).await.unwrap().differences;
        assert!(found.len() == 1 && found[0].contains("the head of the log"), "{found:?}");
    }
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    assert_eq!(head(&engine, 0).await, Some((3, 3)));
}

#[tokio::test]
async fn a_log_of_which_all_events_are_past_retention_does_not_begin_again_at_one() {
    let url = database().await;
    let engine = engine(&url).await;
    append(&engine, 3).await;
    eventually("they have positions", async || head(&engine, 0).await == Some((3, 3))).await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    let cursor = format!(
        "insert into log_cursor values ('{NS}', 'reader', 3, now(), 'ann'); \
         delete from event; delete from position; delete from log_head"
    );
    execute(&mut outside, &cursor).await;
    append(&engine, 1).await;
    eventually("it has a position", async || head(&engine, 3).await == Some((4, 1))).await;
}

#[tokio::test]
async fn a_key_of_leases_that_is_lost_is_told_and_made_anew_by_the_owner() {
    let url = database().await;
    let engine = engine(&url).await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    assert_eq!(execute(&mut outside, "delete from lease_keys").await, 1);
    eventually("it is told", async || {
        engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        let told = told(&engine, "LeaseKeyLost").await;
        told.is_some_and(|message| message.contains("has lost its row"))
    })
    .await;
    let refused = Engine::start(backstitch_engine::Options::new(url.clone())).await.err().unwrap();
    assert!(refused.to_string().contains("the table lease_keys"), "{refused}");
    migrate(&url).await.unwrap();
    eventually("that it is another is told", async || {
        engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        let told = told(&engine, "LeaseKeyLost").await;
        told.is_some_and(|message| message.contains("another key"))
    })
    .await;
    let other = self::engine(&url).await;
    other.run_once(BackgroundTask::CheckIndexes).await.unwrap();
    assert_eq!(told(&other, "LeaseKeyLost").await, None);
}

#[tokio::test]
async fn a_row_that_another_session_has_locked_holds_up_no_other_run_and_is_told() {
    let url = database().await;
    let engine = node(&url, |options| {
        options.tuning.shards = 1;
        options.tuning.park_after = Duration::from_millis(200);
    })
    .await;
    engine.register(NS, WAITS).await.unwrap();
    let run = engine.start_run(NS, start("waits", "1")).await.unwrap().id;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    let pid: i32 =
        sqlx::query_scalar("select pg_backend_pid()").fetch_one(&mut outside).await.unwrap();
    let mut lock = outside.begin().await.unwrap();
    let locked = sqlx::query("select 1 from runs where id = $1 for update").bind(run.0);
    locked.execute(&mut *lock).await.unwrap();
    let signal = tokio::spawn({
        let engine = engine.clone();
        async move { engine.signal(NS, run, "go", json("1"), by("a test")).await }
    });
    let mut is_told = false;
    let until = Instant::now() + Duration::from_secs(60);
    while !is_told && Instant::now() < until {
        // Others go on while it is locked.
        engine.start_run(NS, start("waits", "2")).await.unwrap();
        let message = told(&engine, "BatchHeldUp").await.unwrap_or_default();
        is_told = message.contains(&format!("session {pid} "));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_told, "who holds it up is told");
    assert_eq!(engine.trouble(), None, "the node goes on");
    lock.rollback().await.unwrap();
    // After 15 s it is told that nothing was written.
    let signalled = signal.await.unwrap();
    assert!(matches!(signalled, Ok(_) | Err(Error::Store(_))), "{signalled:?}");
    eventually("it is over", async || told(&engine, "BatchHeldUp").await.is_none()).await;
}

#[tokio::test]
async fn a_table_that_another_session_has_locked_makes_a_node_unready_and_starts_are_answered() {
    let url = database().await;
    let engine = engine(&url).await;
    engine.register(NS, WAITS).await.unwrap();
    let mut outside = PgConnection::connect(&url).await.unwrap();
    let mut lock = outside.begin().await.unwrap();
    execute(&mut lock, "lock table journal in share row exclusive mode").await;
    let starts: Vec<_> = (0..5)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.start_run(NS, start("waits", "1")).await })
        })
        .collect();
    eventually("it is not ready", async || {
        engine.trouble().is_some_and(|trouble| trouble.contains("holds a lock"))
    })
    .await;
    for start in starts {
        let answer = tokio::time::timeout(Duration::from_secs(40), start).await;
        let answer = answer.expect("it is answered").unwrap();
        assert!(matches!(answer, Err(Error::Store(_))), "{answer:?}");
    }
    lock.rollback().await.unwrap();
    engine.start_run(NS, start("waits", "1")).await.unwrap();
}
