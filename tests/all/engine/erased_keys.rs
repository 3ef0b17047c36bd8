//! Keys of runs that were erased: they stay used for as long as what is left of the run is kept.

use std::time::Duration;

use backstitch_engine::{BackgroundTask, Engine, Error};
use backstitch_saga::protocol::{
    BackfillSchedule, EraseRun, Keep, Overlap, SendSignalByKey, SetRetention, StartOutcome,
    StartRequestState, StartRun,
};
use backstitch_saga::{Refusal, RunId, Time};
use backstitch_sdk::StartInTransaction;
use backstitch_tests::node::{Hand, NS, ask, by, chain, json, node, start};
use backstitch_tests::postgres::database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

use super::schedules::{NAME, Stage};

const KEY: &str = "order-7";

fn keyed(key: &str) -> StartRun {
    StartRun { key: Some(key.to_owned()), ..start("one", "1") }
}

async fn erase(engine: &Engine, run: RunId) {
    let ask = EraseRun { reason: "a test".to_owned(), kill: false };
    engine.erase(NS, run, &ask, &by("a test")).await.unwrap();
}

/// Returns a run with a key that has ended.
async fn ended(engine: &Engine, key: &str) -> RunId {
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let run = engine.start_run(NS, keyed(key)).await.unwrap().id;
    let hand = Hand::new(engine);
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    run
}

fn refusal(error: &Error) -> (&str, &str) {
    let Error::Refused(Refusal { code, message }) = error else { panic!("{error:?}") };
    (code.as_str(), message)
}

async fn count(connection: &mut PgConnection, what: &str) -> i64 {
    let text = format!("select count(*) from {what}");
    sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection).await.unwrap()
}

#[tokio::test]
async fn a_key_stays_used_when_its_run_is_erased() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = node(&url, |_| {}).await;
    let run = ended(&engine, KEY).await;
    erase(&engine, run).await;
    for _ in 0..2 {
        let refused = engine.start_run(NS, keyed(KEY)).await.unwrap_err();
        let (code, message) = refusal(&refused);
        assert_eq!(code, "run_erased");
        assert!(message.contains(&run.to_string()), "{message}");
    }
    // Those that are asked for beside it begin, whichever are written together.
    let ids: Vec<RunId> = (0..4).map(|_| RunId(uuid::Uuid::now_v7())).collect();
    let starts = ids.iter().zip(["order-6", KEY, "order-8", KEY]);
    let starts = starts.map(|(id, key)| (*id, keyed(key))).collect();
    let answers = engine.start_runs_as(NS, starts).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [201, 409, 201, 409]);
    assert_eq!(answers[1].code.as_deref(), Some("run_erased"));
    // The key of another workflow is another key.
    engine.register(NS, &chain("two", &["a"])).await.unwrap();
    let other = StartRun { workflow: "two".to_owned(), ..keyed(KEY) };
    assert!(engine.start_run(NS, other).await.unwrap().created);
    // So it is with the id of the run, and with a signal for the key.
    let refused = engine.start_run_as(NS, run, start("one", "null")).await.unwrap_err();
    assert_eq!(refusal(&refused).0, "run_erased");
    let signal = SendSignalByKey {
        workflow: "one".to_owned(),
        key: KEY.to_owned(),
        signal: "go".to_owned(),
        data: json("1"),
    };
    let refused = engine.signal_key(NS, signal, by("a test")).await.unwrap_err();
    assert_eq!(refusal(&refused).0, "run_erased");
    // A start of a transaction is kept for a person.
    let asked = StartInTransaction::named("one", &1).unwrap().namespace(NS).key(KEY);
    ask(&mut owner, &asked).await;
    engine.run_once(BackgroundTask::TakeAsked).await.unwrap();
    let state = Some(StartRequestState::Refused);
    let requests = engine.start_requests(NS, state, None, 10).await.unwrap().items;
    let codes: Vec<&str> =
        requests.iter().filter_map(|one| one.refusal.as_ref()).map(|one| &*one.code).collect();
    assert_eq!(codes, ["run_erased"]);
    assert_eq!(
        count(&mut owner, &format!("runs where key = '{KEY}' and workflow = 'one'")).await,
        0
    );
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn a_start_that_waited_for_an_erasure_is_refused() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let mut eraser = PgConnection::connect(&url).await.unwrap();
    let engine = node(&url, |_| {}).await;
    // Alone, and in a batch in which another key is taken: both forms of the statement.
    for (key, beside) in [("a", None), ("z", Some("k"))] {
        let run = ended(&engine, key).await;
        if let Some(beside) = beside {
            ended(&engine, beside).await;
        }
        let mut transaction = eraser.begin().await.unwrap();
        let text = format!(
            "delete from run_keys where run_id = '{run}';
             insert into erased_keys values ('{NS}', backstitch.key_digest('{NS}', 'one', '{key}'), '{run}')"
        );
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut *transaction).await.unwrap();
        let starting = tokio::spawn({
            let engine = engine.clone();
            let keys: Vec<&str> = beside.into_iter().chain([key]).collect();
            let starts = keys.into_iter().map(|key| (RunId(uuid::Uuid::now_v7()), keyed(key)));
            let starts = starts.collect();
            async move { engine.start_runs_as(NS, starts).await }
        });
        let waits =
            "pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
        while count(&mut owner, waits).await == 0 {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        transaction.commit().await.unwrap();
        let answers = starting.await.unwrap();
        let last = answers.last().unwrap();
        assert_eq!((last.status, last.code.as_deref()), (409, Some("run_erased")), "{answers:?}");
        assert!(answers[..answers.len() - 1].iter().all(|one| one.status == 200), "{answers:?}");
        assert_eq!(count(&mut owner, &format!("run_keys where key = '{key}'")).await, 0);
    }
}

#[tokio::test]
async fn a_backfill_starts_no_instant_whose_run_was_erased() {
    let stage = Stage::new(|_| {}).await;
    assert_eq!(stage.comes(1).await, 1);
    let run = stage.runs().await[0].id;
    let hand = Hand::new(&stage.engine);
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    stage.ended(run).await;
    erase(&stage.engine, run).await;
    let at = stage.starts().await[0].scheduled_for;
    let ask = BackfillSchedule {
        from: at,
        to: at,
        overlap: Overlap::Allow,
        limit: 10,
        reason: String::new(),
        dry_run: false,
    };
    stage.engine.backfill_schedule(NS, NAME, &ask, &by("a test")).await.unwrap();
    assert_eq!(stage.looks_again().await, 0);
    let starts = stage.starts().await;
    let last = starts.last().unwrap();
    assert_eq!(
        (last.outcome, last.code.as_deref()),
        (StartOutcome::Refused, Some("run_erased")),
        "{starts:?}"
    );
    let mut owner = PgConnection::connect(&stage.url).await.unwrap();
    assert_eq!(count(&mut owner, "runs").await, 1);
}

/// Returns the clock of the node with which runs begin and end that are past a retention of an hour.
fn hours_ago(at: Time) -> Time {
    Time(at.0 - 3 * 3_600_000)
}

/// Returns the clock of the node with which runs begin and end whose week is past a retention of a week.
fn long_ago(at: Time) -> Time {
    Time(at.0 - 20 * 86_400_000)
}

#[tokio::test]
async fn a_key_is_free_again_when_what_is_left_of_its_run_is_deleted() {
    for (clock, week) in [(hours_ago as fn(Time) -> Time, false), (long_ago, true)] {
        let url = database().await;
        let mut owner = PgConnection::connect(&url).await.unwrap();
        let engine = node(&url, |options| options.tuning.database_clock = Some(clock)).await;
        engine.run_once(BackgroundTask::Maintenance).await.unwrap();
        let run = ended(&engine, KEY).await;
        erase(&engine, run).await;
        engine.stop().await;
        assert_eq!(count(&mut owner, "erased_keys").await, 1);
        let long = Duration::from_secs(7 * 86_400);
        let engine = node(&url, |options| options.retention = week.then_some(long)).await;
        if !week {
            let ask = SetRetention { keep: Keep::For(Keep::LEAST), reason: "a test".to_owned() };
            engine.set_workflow_retention(NS, "one", &ask, &by("a test")).await.unwrap();
        }
        engine.run_once(BackgroundTask::Maintenance).await.unwrap();
        assert!(engine.run(NS, run, None).await.is_err(), "it is deleted");
        assert_eq!(count(&mut owner, "erased_keys").await, 0);
        assert!(engine.start_run(NS, keyed(KEY)).await.unwrap().created);
    }
}
