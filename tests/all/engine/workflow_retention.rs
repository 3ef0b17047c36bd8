//! Workflows whose ended runs are kept shorter or longer than the server says.

use std::time::Duration;

use backstitch_engine::{BackgroundTask, Engine, Error};
use backstitch_saga::protocol::{Keep, Labels, SetRetention};
use backstitch_saga::{Command, RunId, Span, Time};
use backstitch_tests::node::{Hand, NS, by, chain, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

const DAY: Duration = Duration::from_secs(86_400);

/// Returns the clock of the node with which the old runs begin and end.
fn long_ago(at: Time) -> Time {
    Time(at.0 - 20 * 86_400_000)
}

/// Returns the clock of the node with which runs of lately begin and end.
fn hours_ago(at: Time) -> Time {
    Time(at.0 - 3 * 3_600_000)
}

async fn lately(url: &str) -> Engine {
    node(url, |options| options.tuning.database_clock = Some(hours_ago)).await
}

async fn execute(connection: &mut PgConnection, text: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(text.into())).execute(connection).await.unwrap();
}

async fn done(engine: &Engine, workflow: &str) -> RunId {
    let run = engine.start_run(NS, start(workflow, "1")).await.unwrap().id;
    let hand = Hand::new(engine);
    let task = hand.one().await;
    assert_eq!(hand.succeed(&[task]).await[0].status, 200);
    run
}

async fn keep(engine: &Engine, workflow: &str, keep: Keep) {
    let ask = SetRetention { keep, reason: "a test".to_owned() };
    engine.set_workflow_retention(NS, workflow, &ask, &by("a test")).await.unwrap();
}

async fn is_there(engine: &Engine, run: RunId) -> bool {
    engine.run(NS, run, None).await.is_ok()
}

#[tokio::test]
async fn a_workflow_is_kept_shorter_or_longer_than_the_server_says() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = node(&url, |options| options.tuning.database_clock = Some(long_ago)).await;
    // The week has partitions before a run begins in it.
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    let mut old = Vec::new();
    for workflow in ["short", "long", "plain"] {
        engine.register(NS, &chain(workflow, &["a"])).await.unwrap();
        old.push(done(&engine, workflow).await);
    }
    engine.stop().await;
    let engine = lately(&url).await;
    let mut recent = Vec::new();
    for workflow in ["short", "long", "plain"] {
        recent.push(done(&engine, workflow).await);
    }
    // Before a node with a retention begins, which deletes at once.
    keep(&engine, "short", Keep::For(Span::ZERO)).await;
    assert_eq!(engine.workflow_retention(NS, "short").await.unwrap().keep, Keep::For(Keep::LEAST));
    keep(&engine, "long", Keep::Forever).await;
    engine.stop().await;
    let engine = node(&url, |options| options.retention = Some(10 * DAY)).await;
    let just_ended = done(&engine, "short").await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    let mut there = Vec::new();
    for (old, recent) in old.iter().zip(&recent) {
        there.push((is_there(&engine, *old).await, is_there(&engine, *recent).await));
    }
    assert_eq!(there, [(false, false), (true, true), (false, true)]);
    assert!(is_there(&engine, just_ended).await, "an hour at least");
    let held = engine.status(NS).await.held_weeks;
    assert_eq!((held.len(), held[0].oldest_run), (1, old[1]), "{held:?}");
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    // It can be changed at any time, and is told where the workflow is shown.
    keep(&engine, "long", Keep::Server).await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    assert!(!is_there(&engine, old[1]).await && is_there(&engine, recent[1]).await);
    let shown = engine.workflow(NS, "long", None).await.unwrap().retention.unwrap();
    assert_eq!((shown.keep, shown.own), (Keep::For((10 * DAY).into()), false));
    let unknown = engine.workflow_retention(NS, "nowhere").await;
    assert!(matches!(unknown, Err(Error::NotFound { .. })));
    let acts: i64 =
        sqlx::query_scalar("select count(*) from acts_beside_runs where verb = 'retention'")
            .fetch_one(&mut owner)
            .await
            .unwrap();
    assert_eq!(acts, 3);
}

#[tokio::test]
async fn a_workflow_has_a_retention_though_the_server_keeps_runs_for_ever() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = lately(&url).await;
    for workflow in ["short", "plain"] {
        engine.register(NS, &chain(workflow, &["a"])).await.unwrap();
    }
    let gone = done(&engine, "short").await;
    let other = done(&engine, "plain").await;
    let waiting = engine.start_run(NS, start("short", "1")).await.unwrap().id;
    engine.stop().await;
    let engine = node(&url, |_| {}).await;
    keep(&engine, "short", Keep::For(Keep::LEAST)).await;
    // What the owner of the schema keeps is not deleted by it.
    execute(&mut owner, "update upkeep set keep_at_least = '90 days'").await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    assert!(is_there(&engine, gone).await);
    execute(&mut owner, "update upkeep set keep_at_least = '1 hour'").await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    let left: Vec<Uuid> =
        sqlx::query_scalar("select id from runs order by id").fetch_all(&mut owner).await.unwrap();
    assert_eq!(left, [other.0, waiting.0]);
    assert_eq!(metric(&engine, "runs_deleted_total"), 1.0);
}

#[tokio::test]
async fn what_is_asked_of_a_run_of_lately_that_another_node_has_deleted_leaves_nothing_behind() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = lately(&url).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let run = done(&engine, "one").await;
    engine.stop().await;
    let label = || {
        let set = Labels::from([("a".to_owned(), "b".to_owned())]);
        Command::Label { set, remove: Vec::new(), by: by("a test") }
    };
    // This node has the run in memory when another deletes it.
    let remembers = node(&url, |_| {}).await;
    remembers.command(NS, run, label()).await.unwrap();
    let other = node(&url, |_| {}).await;
    keep(&other, "one", Keep::For(Keep::LEAST)).await;
    other.run_once(BackgroundTask::Maintenance).await.unwrap();
    let answer = remembers.command(NS, run, label()).await;
    assert!(matches!(answer, Err(Error::NotFound { code: "unknown_run", .. })), "{answer:?}");
    for table in ["runs", "journal", "acts"] {
        let text = format!("select count(*) from {table}");
        let left: i64 =
            sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&mut owner).await.unwrap();
        assert_eq!(left, 0, "{table}");
    }
}

#[tokio::test]
async fn a_child_is_kept_as_long_as_its_parent() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = lately(&url).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let parent = r#"{"name":"parent","version":1,"steps":[
        {"id":"c","child":{"workflow":"one","version":1,"input":{"const":1}}},
        {"id":"w","after":["c"],"wait":{"signal":"go"}}]}"#;
    engine.register(NS, parent).await.unwrap();
    let parent = engine.start_run(NS, start("parent", "1")).await.unwrap().id;
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    let child = task.run;
    assert_eq!(hand.succeed(&[task]).await[0].status, 200);
    engine.stop().await;
    let engine = node(&url, |_| {}).await;
    keep(&engine, "one", Keep::For(Keep::LEAST)).await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    assert!(is_there(&engine, child).await, "its parent may undo it");
    execute(&mut owner, format!("delete from runs where id = '{parent}'")).await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    assert!(!is_there(&engine, child).await);
}
