//! Starts asked for in an application's own transaction: they begin if it commits, once, and never if it does not.

use std::time::Duration;

use backstitch_engine::{BackgroundTask, Engine, Options};
use backstitch_saga::protocol::{Outcome, StartRequestState};
use backstitch_sdk::StartInTransaction;
use backstitch_tests::node::{Hand, NS, ask, chain, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

fn buy(input: u32) -> StartInTransaction {
    StartInTransaction::named("two", &input).unwrap().namespace(NS)
}

/// A node that takes requests only when it is rung for or told to.
fn deaf(options: &mut Options) {
    options.tuning.inbox_every = Duration::from_secs(3_600);
}

async fn count(connection: &mut PgConnection, sql: &'static str) -> i64 {
    sqlx::query_scalar(sql).fetch_one(connection).await.unwrap()
}

const RUNS: &str = "select count(*) from runs";
const WAITING: &str = "select count(*) from start_requests where state = 'waiting'";
const REQUESTS: &str = "select count(*) from start_requests";

/// Takes what waits until nothing does.
async fn take(engine: &Engine, connection: &mut PgConnection) {
    while count(connection, WAITING).await > 0 {
        engine.run_once(BackgroundTask::TakeAsked).await.unwrap();
    }
}

#[tokio::test]
async fn a_run_begins_if_the_transaction_commits_and_not_otherwise() {
    let url = database().await;
    let (first, second) = (node(&url, |_| {}).await, node(&url, |_| {}).await);
    first.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let mut shop = PgConnection::connect(&url).await.unwrap();
    sqlx::query("create table orders (id integer primary key, run uuid)")
        .execute(&mut shop)
        .await
        .unwrap();

    let mut transaction = shop.begin().await.unwrap();
    let never = ask(&mut transaction, &buy(1)).await;
    transaction.rollback().await.unwrap();

    let mut transaction = shop.begin().await.unwrap();
    let run = ask(&mut transaction, &buy(2).label("shop", "north").correlation_id("c-7")).await;
    sqlx::query("insert into orders values (2, $1)")
        .bind(run.0)
        .execute(&mut *transaction)
        .await
        .unwrap();
    for engine in [&first, &second] {
        let early = engine.run_once(BackgroundTask::TakeAsked).await.unwrap();
        assert_eq!(early, 0, "nothing is taken before the commit");
    }
    transaction.commit().await.unwrap();

    let hand = Hand::new(&second);
    for step in ["a", "b"] {
        let task = hand.one().await;
        assert_eq!((task.run, task.step.to_string().as_str(), task.input.text()), (run, step, "2"));
        hand.succeed(&[task]).await;
    }
    let view = first.wait(NS, run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    assert_eq!((view.correlation_id.as_str(), view.labels["shop"].as_str()), ("c-7", "north"));
    assert_eq!(run.0.get_version_num(), 7);
    assert!(first.run(NS, never, None).await.is_err());
    while count(&mut shop, REQUESTS).await > 0 {
        tokio::task::yield_now().await;
    }
    assert_eq!(count(&mut shop, RUNS).await, 1);
    assert_eq!(first.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn what_is_committed_while_no_engine_runs_is_started_later_once() {
    let url = database().await;
    let first = node(&url, deaf).await;
    first.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    first.stop().await;
    let mut shop = PgConnection::connect(&url).await.unwrap();
    let mut runs = Vec::new();
    for number in 0..600 {
        runs.push(ask(&mut shop, &buy(number)).await);
    }
    // The first hundred were begun by a node that died before it could say so, and some are in its hands.
    let dying = node(&url, deaf).await;
    for (number, run) in runs.iter().enumerate().take(100) {
        dying.start_run_as(NS, *run, start("two", &number.to_string())).await.unwrap();
    }
    drop(dying);
    let sql = "update start_requests set reserved_by = -1, reserved_until = now() - interval '1 second' \
        where id in (select id from start_requests order by id limit 150)";
    sqlx::query(sql).execute(&mut shop).await.unwrap();
    let (second, third) = (node(&url, deaf).await, node(&url, deaf).await);
    let mut desk = PgConnection::connect(&url).await.unwrap();
    let mut till = PgConnection::connect(&url).await.unwrap();
    tokio::join!(take(&second, &mut desk), take(&third, &mut till));
    assert_eq!((count(&mut shop, RUNS).await, count(&mut shop, REQUESTS).await), (600, 0));
    assert_eq!(count(&mut shop, "select count(*) from journal where seq = 1").await, 600);
    for run in [runs[0], runs[99], runs[599]] {
        second.run(NS, run, None).await.unwrap();
    }
}

#[tokio::test]
async fn a_reservation_keeps_others_away_until_it_lapses() {
    let url = database().await;
    let engine = node(&url, deaf).await;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let mut shop = PgConnection::connect(&url).await.unwrap();
    let mut transaction = shop.begin().await.unwrap();
    ask(&mut transaction, &buy(1)).await;
    let reserve =
        "update start_requests set reserved_by = -1, reserved_until = now() + interval '1 minute'";
    sqlx::query(reserve).execute(&mut *transaction).await.unwrap();
    transaction.commit().await.unwrap();
    assert_eq!(engine.run_once(BackgroundTask::TakeAsked).await.unwrap(), 0);
    assert_eq!((count(&mut shop, RUNS).await, count(&mut shop, WAITING).await), (0, 1));
    sqlx::query("update start_requests set reserved_until = now()")
        .execute(&mut shop)
        .await
        .unwrap();
    // The bell of the commit may be heard only now: it does not matter which of the two looks takes the request.
    take(&engine, &mut shop).await;
    assert_eq!(count(&mut shop, RUNS).await, 1);
}

#[tokio::test]
async fn one_key_is_one_run_whoever_asks_and_how() {
    let url = database().await;
    let engine = node(&url, deaf).await;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let mut shop = PgConnection::connect(&url).await.unwrap();
    let mut desk = PgConnection::connect(&url).await.unwrap();
    // Twice in one transaction, and by another that has to wait for it.
    let mut transaction = shop.begin().await.unwrap();
    let run = ask(&mut transaction, &buy(1).key("k")).await;
    assert_eq!(ask(&mut transaction, &buy(1).key("k")).await, run);
    let other = tokio::spawn(async move { ask(&mut desk, &buy(1).key("k")).await });
    transaction.commit().await.unwrap();
    assert_eq!(other.await.unwrap(), run);
    take(&engine, &mut shop).await;
    // After the run has begun, in SQL and over the API; white space in the input is no difference.
    assert_eq!(ask(&mut shop, &buy(1).key("k")).await, run);
    let mut asked = start("two", " 1");
    asked.key = Some("k".to_owned());
    let again = engine.start_run(NS, asked).await.unwrap();
    assert_eq!((again.id, again.created), (run, false));
    take(&engine, &mut shop).await;
    assert_eq!((count(&mut shop, RUNS).await, count(&mut shop, REQUESTS).await), (1, 0));

    // Another input is refused and stays.
    assert_eq!(ask(&mut shop, &buy(2).key("k")).await, run);
    take(&engine, &mut shop).await;
    let refused =
        engine.start_requests(NS, Some(StartRequestState::Refused), None, 10).await.unwrap();
    assert_eq!(refused.items[0].refusal.as_ref().unwrap().code, "key_conflict");

    // The API was faster than the engine: the run is there, but under another id, and the caller can know.
    let mut transaction = shop.begin().await.unwrap();
    let promised = ask(&mut transaction, &buy(3).key("race")).await;
    let mut asked = start("two", "3");
    asked.key = Some("race".to_owned());
    let winner = engine.start_run(NS, asked).await.unwrap().id;
    transaction.commit().await.unwrap();
    take(&engine, &mut shop).await;
    let refused =
        engine.start_requests(NS, Some(StartRequestState::Refused), None, 10).await.unwrap();
    let told = refused.items[0].refusal.as_ref().unwrap();
    assert_eq!((told.code.as_str(), refused.items[0].run), ("key_taken", promised));
    assert!(told.message.contains(&winner.to_string()), "{}", told.message);
    assert_eq!(metric(&engine, "starts_refused_total"), 2.0);
}

#[tokio::test]
async fn only_who_was_granted_it_may_ask_and_gets_nothing_else() {
    let url = database().await;
    let engine = node(&url, deaf).await;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let mut admin = PgConnection::connect(&url).await.unwrap();
    let role = format!("shop_{}", Uuid::new_v4().simple());
    let run = |sql: String| sqlx::raw_sql(sqlx::AssertSqlSafe(sql));
    run(format!("create role {role}")).execute(&mut admin).await.unwrap();
    run(format!("grant usage on schema backstitch to {role}")).execute(&mut admin).await.unwrap();
    let mut shop = PgConnection::connect(&url).await.unwrap();
    run(format!("set role {role}")).execute(&mut shop).await.unwrap();
    let refused = |error: sqlx::Error| error.to_string().contains("permission denied");
    let asked = "select backstitch.start_run('two', '1', namespace => 'test')";
    assert!(refused(sqlx::query(asked).execute(&mut shop).await.unwrap_err()));
    run(format!("grant execute on function backstitch.start_run to {role}"))
        .execute(&mut admin)
        .await
        .unwrap();
    // A table of the caller's own with the same name is not written to.
    run("create temporary table start_requests (id uuid)".to_owned())
        .execute(&mut shop)
        .await
        .unwrap();
    sqlx::query(asked).execute(&mut shop).await.unwrap();
    for table in ["start_requests", "run_keys", "journal"] {
        let looked = run(format!("select * from backstitch_data.{table}")).execute(&mut shop).await;
        assert!(refused(looked.unwrap_err()), "{table}");
    }
    take(&engine, &mut admin).await;
    assert_eq!(count(&mut admin, RUNS).await, 1);
    let null = sqlx::query("select backstitch.start_run(null, '1')").execute(&mut shop).await;
    assert!(null.unwrap_err().to_string().contains("needs a workflow"));
    run(format!("drop owned by {role}; drop role {role}")).execute(&mut admin).await.unwrap();
}
