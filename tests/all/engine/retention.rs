//! Ended runs that are past retention while another run keeps their week.

use std::time::{Duration, Instant};

use backstitch_engine::{BackgroundTask, Engine, Error};
use backstitch_saga::protocol::Labels;
use backstitch_saga::{Command, Payload, RunId, Time};
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, by, chain, metric, node, start};
use backstitch_tests::postgres::{as_server, database};
use sqlx::{AssertSqlSafe, Connection, PgConnection};
use uuid::Uuid;

/// Time that anything here may take.
const LONG: Duration = Duration::from_secs(60);
const DAY: Duration = Duration::from_secs(86_400);
const WAITS: &str = r#"{"name":"waits","version":1,"timeout":"300d","steps":[{"id":"w","wait":{"signal":"go","timeout":"300d"}}]}"#;
const MUM: &str = r#"{"name":"mum","version":1,"steps":[{"id":"c","child":{"workflow":"one","input":{"const":1}}}]}"#;
const WAITING_MUM: &str = r#"{"name":"waiting-mum","version":1,"timeout":"300d","steps":[
    {"id":"c","child":{"workflow":"one","input":{"const":1}}},
    {"id":"w","after":["c"],"wait":{"signal":"go","timeout":"300d"}}]}"#;
/// Tables with a column `run_id` in which nothing may be left of a run that is gone.
const TABLES: [&str; 11] = [
    "journal",
    "snapshots",
    "incidents",
    "run_keys",
    "erased_keys",
    "fences",
    "ready",
    "acts",
    "acts_replaced",
    "incident_notes",
    "incident_assignees",
];

/// Returns the clock of the node with which the runs begin and end.
fn long_ago(at: Time) -> Time {
    Time(at.0 - 20 * 86_400_000)
}

async fn then(url: &str) -> Engine {
    let engine = node(url, |options| options.tuning.database_clock = Some(long_ago)).await;
    for workflow in [&chain("one", &["a"]), WAITS, MUM, WAITING_MUM] {
        engine.register(NS, workflow).await.unwrap();
    }
    engine
}

/// Returns a node of today whose retention is a week.
async fn keeps_a_week(url: &str) -> Engine {
    node(url, |options| options.retention = Some(7 * DAY)).await
}

async fn execute(connection: &mut PgConnection, text: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(text.into())).execute(connection).await.unwrap();
}

async fn count(connection: &mut PgConnection, what: &str) -> i64 {
    let text = format!("select count(*) from {what}");
    sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection).await.unwrap()
}

async fn runs(connection: &mut PgConnection) -> Vec<Uuid> {
    let text = "select id from runs order by id";
    sqlx::query_scalar(text).fetch_all(connection).await.unwrap()
}

/// Has a run of `one` end.
async fn done(engine: &Engine, key: &str) -> RunId {
    let mut request = start("one", "1");
    request.key = Some(key.to_owned());
    let run = engine.start_run(NS, request).await.unwrap().id;
    succeed(engine).await;
    run
}

async fn succeed(engine: &Engine) {
    let hand = Hand::new(engine);
    let task = hand.one().await;
    assert_eq!(hand.succeed(&[task]).await[0].status, 200);
}

async fn begin(engine: &Engine, workflow: &str) -> RunId {
    engine.start_run(NS, start(workflow, "1")).await.unwrap().id
}

fn label() -> Command {
    let set = Labels::from([("a".to_owned(), "b".to_owned())]);
    Command::Label { set, remove: Vec::new(), by: by("a test") }
}

fn go() -> Command {
    Command::Signal {
        name: "go".into(),
        data: Payload::trusted("1".to_owned()).unwrap(),
        by: by("a test"),
        checked: None,
    }
}

#[tokio::test]
async fn a_waiting_run_keeps_its_week_but_not_the_ended_runs_of_it() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = then(&url).await;
    let mut old = Vec::new();
    for number in 0..5 {
        old.push(done(&engine, &format!("k{number}")).await);
    }
    let waiting = begin(&engine, "waits").await;
    engine.stop().await;
    let note = "incident_notes (run_id, incident, namespace, at, actor, note)";
    let values = format!("'{}', 1, '{NS}', now(), 'ann', 'n'", old[0]);
    execute(&mut owner, format!("insert into {note} values ({values})")).await;
    let engine = keeps_a_week(&url).await;
    let fresh = done(&engine, "fresh").await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    assert_eq!(metric(&engine, "runs_deleted_total"), 5.0);
    assert_eq!(runs(&mut owner).await, [waiting.0, fresh.0]);
    for table in TABLES {
        let lost = format!("{table} t where not exists (select from runs r where r.id = t.run_id)");
        assert_eq!(count(&mut owner, &lost).await, 0, "{table}");
    }
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    // Who keeps the week is told, in the namespace of the run alone.
    let held = engine.status(NS).await.held_weeks;
    assert_eq!(held.len(), 1, "{held:?}");
    assert_eq!((held[0].runs, held[0].oldest_run), (1, waiting));
    assert!(held[0].week.0 <= held[0].oldest_started_at.0);
    assert!(engine.status("elsewhere").await.held_weeks.is_empty());
    // A key may begin another run, and the run that waited goes on.
    let mut again = start("one", "1");
    again.key = Some("k1".to_owned());
    assert!(engine.start_run(NS, again).await.unwrap().created);
    let view = engine.run(NS, waiting, None).await.unwrap();
    assert!(view.outcome.is_none(), "{view:?}");
    engine.command(NS, waiting, go()).await.unwrap();
    assert!(engine.wait(NS, waiting, LONG).await.unwrap().outcome.is_some());
    // It takes its week along once it is past retention.
    let ended = "update runs set ended_at = now() - interval '8 days' where id = ";
    execute(&mut owner, format!("{ended} '{waiting}'")).await;
    // A week that is read at that moment is dropped with the next look.
    eventually("the week is dropped", async || {
        engine.run_once(BackgroundTask::Maintenance).await.unwrap();
        engine.run(NS, waiting, None).await.is_err()
    })
    .await;
    assert_eq!(metric(&engine, "runs_deleted_total"), 5.0, "it went with its week");
    let fresh = node(&url, |options| options.retention = Some(7 * DAY)).await;
    fresh.run_once(BackgroundTask::Maintenance).await.unwrap();
    assert!(fresh.status(NS).await.held_weeks.is_empty());
}

#[tokio::test]
async fn a_week_that_is_read_is_dropped_once_nobody_reads_and_no_reader_is_ended_for_it() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = then(&url).await;
    done(&engine, "old").await;
    engine.stop().await;
    let engine = keeps_a_week(&url).await;
    // One has read a table, and reads another afterwards, as lists and joins do.
    let mut reader = PgConnection::connect(&url).await.unwrap();
    let mut reading = reader.begin().await.unwrap();
    let read = async |connection: &mut PgConnection, table: &str| count(connection, table).await;
    assert!(read(&mut reading, "journal").await > 0);
    let began = Instant::now();
    let (dropped, ()) = tokio::join!(engine.run_once(BackgroundTask::Maintenance), async {
        while metric(&engine, "partition_drops_put_off_total") == 0.0 {
            for table in ["runs", "incidents", "snapshots", "journal"] {
                read(&mut reading, table).await;
            }
        }
    });
    dropped.unwrap();
    assert!(began.elapsed() < LONG);
    assert_eq!(count(&mut owner, "runs").await, 1, "nothing is deleted one by one meanwhile");
    assert_eq!(metric(&engine, "partitions_dropped_total"), 0.0);
    reading.commit().await.unwrap();
    engine.run_once(BackgroundTask::DeleteRuns).await.unwrap();
    assert!(metric(&engine, "partitions_dropped_total") >= 1.0);
    assert_eq!(metric(&engine, "runs_deleted_total"), 0.0, "it went as a whole");
    assert_eq!(count(&mut owner, "runs").await, 0);
    for table in TABLES {
        assert_eq!(count(&mut owner, table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn two_nodes_that_delete_at_once_delete_each_run_once() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = then(&url).await;
    for number in 0..5 {
        done(&engine, &format!("k{number}")).await;
    }
    let waiting = begin(&engine, "waits").await;
    engine.stop().await;
    let (one, other) = (keeps_a_week(&url).await, keeps_a_week(&url).await);
    // PostgreSQL may end one of them to let the other go on; it comes again, as the task in the background does.
    let run_maintenance = async |node: &Engine| {
        for _ in 0..10 {
            match node.run_once(BackgroundTask::Maintenance).await {
                Err(error) if error.to_string().contains("40P01") => {}
                done => return done.unwrap(),
            }
        }
        panic!("one of them never goes on");
    };
    tokio::join!(run_maintenance(&one), run_maintenance(&other));
    let deleted = metric(&one, "runs_deleted_total") + metric(&other, "runs_deleted_total");
    assert_eq!(deleted, 5.0);
    assert_eq!(runs(&mut owner).await, [waiting.0]);
}

#[tokio::test]
async fn a_run_is_deleted_after_the_run_whose_step_it_is() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = then(&url).await;
    let over = begin(&engine, "mum").await;
    succeed(&engine).await;
    assert!(engine.wait(NS, over, LONG).await.unwrap().outcome.is_some());
    let waiting = begin(&engine, "waiting-mum").await;
    succeed(&engine).await;
    let child = engine.run(NS, waiting, None).await.unwrap().steps[0].child.unwrap();
    engine.stop().await;
    let engine = keeps_a_week(&url).await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    assert_eq!(metric(&engine, "runs_deleted_total"), 2.0);
    let mut expected = [waiting.0, child.0];
    expected.sort();
    assert_eq!(runs(&mut owner).await, expected, "the run that waits may undo its child");
}

#[tokio::test]
async fn a_node_that_remembers_a_deleted_run_appends_nothing_to_it() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = then(&url).await;
    let (run, waiting) = (begin(&engine, "waits").await, begin(&engine, "waits").await);
    engine.stop().await;
    // This node has it in memory as it waits; another ends it, and a third deletes it.
    let remembers = node(&url, |_| {}).await;
    remembers.command(NS, run, label()).await.unwrap();
    let other = node(&url, |_| {}).await;
    other.command(NS, run, go()).await.unwrap();
    assert!(other.wait(NS, run, LONG).await.unwrap().outcome.is_some());
    let ended = "update runs set ended_at = now() - interval '8 days' where id = ";
    execute(&mut owner, format!("{ended} '{run}'")).await;
    let third = keeps_a_week(&url).await;
    third.run_once(BackgroundTask::Maintenance).await.unwrap();
    assert_eq!(runs(&mut owner).await, [waiting.0]);
    let answer = remembers.command(NS, run, go()).await;
    assert!(matches!(answer, Err(Error::NotFound { code: "unknown_run", .. })), "{answer:?}");
    for table in TABLES {
        let left = format!("{table} where run_id = '{run}'");
        assert_eq!(count(&mut owner, &left).await, 0, "{table}");
    }
}

#[tokio::test]
async fn an_old_run_whose_row_is_lost_goes_on() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = then(&url).await;
    let run = begin(&engine, "waits").await;
    engine.stop().await;
    execute(&mut owner, "delete from runs").await;
    let engine = node(&url, |_| {}).await;
    engine.command(NS, run, label()).await.unwrap();
    assert_eq!(count(&mut owner, &format!("journal where run_id = '{run}'")).await, 2);
}

#[tokio::test]
async fn a_servers_role_deletes_no_run_that_goes_on_or_is_kept_or_is_of_this_week() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = then(&url).await;
    let (old, waiting) = (done(&engine, "old").await, begin(&engine, "waits").await);
    engine.stop().await;
    let engine = node(&url, |_| {}).await;
    let fresh = done(&engine, "fresh").await;
    execute(
        &mut owner,
        format!("update runs set ended_at = now() - interval '3 hours' where id = '{fresh}'"),
    )
    .await;
    let mut server = PgConnection::connect(&as_server(&url)).await.unwrap();
    let text = "select deleted, last from backstitch.delete_runs($1, now(), 1)";
    let delete = async |server: &mut PgConnection, runs: &[RunId]| -> Result<i32, sqlx::Error> {
        let ids: Vec<Uuid> = runs.iter().map(|run| run.0).collect();
        let row: (i32, Option<Uuid>) = sqlx::query_as(text).bind(ids).fetch_one(server).await?;
        Ok(row.0)
    };
    assert_eq!(delete(&mut server, &[waiting, fresh]).await.unwrap(), 0);
    execute(&mut owner, "update upkeep set keep_at_least = '90 days'").await;
    assert_eq!(delete(&mut server, &[old]).await.unwrap(), 0, "the owner keeps 90 days");
    execute(&mut owner, "update upkeep set keep_at_least = '1 hour'").await;
    assert!(delete(&mut server, &[old; 1001]).await.is_err());
    assert_eq!(delete(&mut server, &[old, waiting]).await.unwrap(), 1);
    let mut expected = [waiting.0, fresh.0];
    expected.sort();
    assert_eq!(runs(&mut owner).await, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn two_nodes_that_delete_many_rows_at_once_do_not_meet_in_a_deadlock() {
    let url = database().await;
    let (one, other) = (keeps_a_week(&url).await, keeps_a_week(&url).await);
    let mut owner = PgConnection::connect(&url).await.unwrap();
    for round in 0..3 {
        execute(
            &mut owner,
            format!(
                "insert into schedule_starts (namespace, schedule, at, start) \
                 select 'a', 's', now() - interval '30 days' - random() * interval '1 day', '{{}}' from generate_series(1, 12000); \
                 insert into jobs (id, namespace, asked, state, actor, created_at, ended_at, next_at) \
                 select gen_random_uuid(), 'a', '{{}}', 'done', 'ann', t, t, t from (select now() - interval '30 days' \
                   - random() * interval '1 day' as t from generate_series(1, 6000)) t; \
                 insert into early_signals (namespace, workflow, key, signal, data, actor, at) \
                 select 'a', 'w{round}', gen_random_uuid()::text, 's', 'null', 'ann', now() - interval '40 days' \
                 from generate_series(1, 6000)"
            ),
        )
        .await;
        let (first, second) = tokio::join!(
            one.run_once(BackgroundTask::Maintenance),
            other.run_once(BackgroundTask::Maintenance)
        );
        first.unwrap();
        second.unwrap();
    }
    for table in ["schedule_starts", "jobs", "early_signals"] {
        assert_eq!(count(&mut owner, table).await, 0, "{table}");
    }
    one.stop().await;
    other.stop().await;
}
