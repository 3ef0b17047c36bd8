//! Retention of the event log: whole weeks go, what is left is dense, and nobody reads on below the horizon unaware.

use std::time::Duration;

use backstitch_engine::log::EventQuery;
use backstitch_engine::{BackgroundTask, Engine, Error, Options};
use backstitch_saga::protocol::SubscriptionSpec;
use backstitch_saga::protocol::SubscriptionState;
use backstitch_tests::eventually;
use backstitch_tests::node::{NS, by, node};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// A node that keeps ended runs and events for a week and a day.
fn a_week(options: &mut Options) {
    options.retention = Some(Duration::from_secs(8 * 86_400));
    options.tuning.log_every = Duration::from_secs(3_600);
}

/// Appends an event as it was so many days ago.
async fn old(connection: &mut PgConnection, days: i64, key: &str) -> Uuid {
    let text = format!(
        "with b as (select encode(overlay(set_bit(set_bit(overlay(uuid_send(gen_random_uuid()) placing \
           substring(int8send((extract(epoch from now() - interval '{days} days') * 1000)::bigint) from 3) from 1 for 6), \
           52, 1), 53, 1) placing '\\x0000'::bytea from 15 for 2), 'hex')::uuid as batch), \
         e as (insert into event (batch, ord, namespace, type, op_corrected, noop, source, trust, received_at, \
           correlation_id, hops, bytes, leaf) \
           select batch, 0, '{NS}', 't', false, false, 's', 2, now(), 'c', 0, 4, '' from b), \
         o as (insert into event_body (batch, ord, body, salt) select batch, 0, '{{}}', '' from b), \
         k as (insert into event_key select '{NS}', 's', '{key}', batch, 0, '' from b), \
         m as (insert into milestone (batch, namespace, at, n, written_with, told) \
           select overlay(batch::text placing 'f' from 32 for 1)::uuid, '{NS}', now(), 1, batch, '[]' from b), \
         a as (insert into announced (namespace, batch, n, at) select '{NS}', batch, 1, now() from b) \
         select batch from b"
    );
    sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(connection).await.unwrap()
}

async fn positions(engine: &Engine, after: u64) -> Result<Vec<u64>, Error> {
    let after = Some(after.to_string());
    let page = engine.events(NS, EventQuery { after, limit: 100, ..EventQuery::default() }).await?;
    Ok(page.items.iter().map(|event| event.position.unwrap()).collect())
}

async fn count(connection: &mut PgConnection, table: &str) -> i64 {
    let text = format!("select count(*) from {table}");
    sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn weeks_past_retention_go_whole_and_readers_below_the_horizon_are_told() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    for table in ["event", "event_body"] {
        for weeks in 1..5 {
            sqlx::query("select backstitch.make_partition($1, date_trunc('week', now() at time zone 'UTC')::date - 7 * $2)")
                .bind(table)
                .bind(weeks)
                .execute(&mut owner)
                .await
                .unwrap();
        }
    }
    // Before the node begins, which drops weeks that are empty.
    for (at, days) in [28, 21, 28, 0].into_iter().enumerate() {
        old(&mut owner, days, &format!("k{at}")).await;
    }
    let engine = node(&url, |options| {
        a_week(options);
        // Its milestones are not announced; they are to have no positions.
        options.tuning.check_every = std::time::Duration::MAX;
    })
    .await;
    let spec: SubscriptionSpec =
        serde_json::from_str(r#"{"workflow": "none", "filter": {"types": ["none"]}, "from": 0}"#)
            .unwrap();
    engine.put_subscription(NS, "late", spec, &by("a test")).await.unwrap();
    engine.pause_subscription(NS, "late", true, &by("a test")).await.unwrap();
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    assert_eq!(count(&mut owner, "event").await, 4, "what has no position yet is not dropped");
    engine.run_once(BackgroundTask::Number).await.unwrap();
    assert_eq!(positions(&engine, 0).await.unwrap(), [1, 2, 3, 4]);
    let url = &url;
    eventually("weeks that nobody reads go", async || {
        engine.run_once(BackgroundTask::Maintenance).await.unwrap();
        let mut other = PgConnection::connect(url).await.unwrap();
        count(&mut other, "event").await == 1
    })
    .await;
    for table in ["event_body", "position", "event_key", "milestone"] {
        assert_eq!(count(&mut owner, table).await, 1, "{table}");
    }
    for below in 0..3 {
        match positions(&engine, below).await {
            Err(Error::PastRetention { oldest: 4, .. }) => {}
            other => panic!("{below}: {other:?}"),
        }
    }
    assert_eq!(positions(&engine, 3).await.unwrap(), [4]);
    old(&mut owner, 0, "k0").await;
    engine.run_once(BackgroundTask::Number).await.unwrap();
    assert_eq!(positions(&engine, 4).await.unwrap(), [5]);
    engine.pause_subscription(NS, "late", false, &by("a test")).await.unwrap();
    // It may be in the hands of the background task.
    eventually("it stops", async || {
        engine.run_once(BackgroundTask::Dispatch).await.unwrap();
        engine.subscription(NS, "late").await.unwrap().state == SubscriptionState::Stopped
    })
    .await;
    let view = engine.subscription(NS, "late").await.unwrap();
    assert_eq!(view.position, 0);
    let stopped = view.stopped.unwrap();
    assert_eq!((stopped.code.as_str(), stopped.position), ("position_past_retention", 3));
    engine.skip_event(NS, "late", None, &by("a test")).await.unwrap();
    eventually("it goes on", async || {
        engine.run_once(BackgroundTask::Dispatch).await.unwrap();
        engine.subscription(NS, "late").await.unwrap().position == 5
    })
    .await;
}
