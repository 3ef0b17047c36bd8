//! The database's clock goes wrong: for a moment, or for good.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, Instant};

use backstitch_engine::{Engine, Error, Options};
use backstitch_saga::protocol::{Outcome, StartOutcome};
use backstitch_saga::{RunId, Time};
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, by, chain, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const HOUR: i64 = 3_600_000;
/// A workflow that sleeps twice, so that a timer begins in each record.
const NAPS: &str = r#"{"name":"naps","version":1,"steps":[
    {"id":"one","sleep":{"for":"1s"}},{"id":"two","after":["one"],"sleep":{"for":"1s"}}]}"#;

fn quick(options: &mut Options, clock: fn(Time) -> Time) {
    options.tuning.beat_every = Duration::from_millis(50);
    options.tuning.park_after = Duration::from_millis(200);
    options.tuning.database_clock = Some(clock);
}

/// Waits for the end of a run that naps; answers how long that took.
async fn naps(engine: &Engine, run: RunId) -> Duration {
    let began = Instant::now();
    let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded), "after {:?}", began.elapsed());
    began.elapsed()
}

/// The instants of a run's records never go back.
async fn is_monotone(engine: &Engine, run: RunId) {
    let history = engine.history(NS, run, None, 1_000).await.unwrap().items;
    assert!(history.is_sorted_by_key(|entry| entry.at), "{history:?}");
}

async fn started_at(engine: &Engine, run: RunId) -> i64 {
    engine.run(NS, run, None).await.unwrap().started_at.0.0
}

#[tokio::test]
async fn a_clock_that_jumps_for_a_moment_stops_nothing_and_ends_no_lease() {
    static JUMP: AtomicI64 = AtomicI64::new(0);
    let engine = node(&database().await, |options| {
        quick(options, |shown| Time(shown.0 + JUMP.load(Ordering::Relaxed)));
    })
    .await;
    engine.register(NS, NAPS).await.unwrap();
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let hand = Hand::new(&engine);
    for (round, jump) in [(1.0, HOUR), (2.0, -HOUR)] {
        let held = engine.start_run(NS, start("one", "1")).await.unwrap().id;
        let before = started_at(&engine, held).await;
        let task = hand.one().await;
        let first = engine.start_run(NS, start("naps", "1")).await.unwrap().id;
        JUMP.store(jump, Ordering::Relaxed);
        eventually("the jump is noticed", async || metric(&engine, "clock_doubts_total") == round)
            .await;
        let conditions = async || engine.status(NS).await.conditions;
        eventually("the jump is told", async || {
            conditions().await.iter().any(|one| one.kind == "ClockInDoubt")
        })
        .await;
        let within = engine.start_run(NS, start("naps", "2")).await.unwrap().id;
        assert!((0..HOUR / 2).contains(&(started_at(&engine, within).await - before)));
        naps(&engine, first).await;
        JUMP.store(0, Ordering::Relaxed);
        eventually("all is well", async || conditions().await.is_empty()).await;
        naps(&engine, within).await;
        let after = engine.start_run(NS, start("naps", "3")).await.unwrap().id;
        assert!((0..HOUR / 2).contains(&(started_at(&engine, after).await - before)));
        naps(&engine, after).await;
        let answer = hand.succeed(&[task]).await;
        assert_eq!(answer[0].status, 409, "its lease has ended meanwhile, as time has passed");
        is_monotone(&engine, within).await;
    }
    assert_eq!(metric(&engine, "clock_steps_total"), 0.0);
    assert!(engine.doctor(false).await.unwrap().differences.is_empty());
}

#[tokio::test]
async fn a_node_that_starts_in_a_jump_makes_nothing_early() {
    static JUMP: AtomicI64 = AtomicI64::new(0);
    let database = database().await;
    let begin = async || {
        let options = |options: &mut Options| {
            quick(options, |shown| Time(shown.0 + JUMP.load(Ordering::Relaxed)));
        };
        node(&database, options).await
    };
    let first = begin().await;
    first.register(NS, NAPS).await.unwrap();
    let before = first.start_run(NS, start("naps", "1")).await.unwrap().id;
    let before = started_at(&first, before).await;
    JUMP.store(HOUR, Ordering::Relaxed);
    eventually("the jump is noticed", async || metric(&first, "clock_doubts_total") == 1.0).await;
    let in_doubt = async |engine: &Engine| {
        engine.status(NS).await.conditions.iter().any(|one| one.kind == "ClockInDoubt")
    };
    // Beside the first, and when none is there any more.
    let second = begin().await;
    assert!(in_doubt(&second).await);
    first.stop().await;
    second.stop().await;
    let third = begin().await;
    assert!(in_doubt(&third).await);
    let within = third.start_run(NS, start("naps", "2")).await.unwrap().id;
    assert!((0..HOUR / 2).contains(&(started_at(&third, within).await - before)));
    JUMP.store(0, Ordering::Relaxed);
    eventually("all is well", async || !in_doubt(&third).await).await;
    naps(&third, within).await;
    assert_eq!(metric(&third, "clock_steps_total"), 0.0);
}

#[tokio::test]
async fn a_lease_outlives_the_time_that_a_clock_leaves_out() {
    static JUMP: AtomicI64 = AtomicI64::new(0);
    let engine = node(&database().await, |options| {
        quick(options, |shown| Time(shown.0 + JUMP.load(Ordering::Relaxed)));
        options.tuning.clock_doubt = Duration::from_millis(200);
    })
    .await;
    let long = chain("one", &["a"]).replace(r#""heartbeat":"1s""#, r#""heartbeat":"1m""#);
    engine.register(NS, &long.replace(r#""attempt":"10s""#, r#""attempt":"10h""#)).await.unwrap();
    let hand = Hand::new(&engine);
    let mut tasks = Vec::new();
    for input in 0..5 {
        engine.start_run(NS, start("one", &input.to_string())).await.unwrap();
        tasks.push(hand.one().await);
    }
    JUMP.store(HOUR, Ordering::Relaxed);
    eventually("the jump is followed", async || metric(&engine, "clock_steps_total") == 1.0).await;
    // Long enough for a timer to fire, short enough for a lease to last.
    tokio::time::sleep(Duration::from_secs(1)).await;
    assert_eq!(metric(&engine, "lease_losses_total"), 0.0);
    for answer in hand.succeed(&tasks).await {
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    assert!(engine.doctor(false).await.unwrap().differences.is_empty());
}

#[tokio::test]
async fn what_was_written_while_the_clock_was_ahead_goes_on_when_it_is_set_right() {
    static JUMP: AtomicI64 = AtomicI64::new(HOUR);
    let engine = node(&database().await, |options| {
        quick(options, |shown| Time(shown.0 + JUMP.load(Ordering::Relaxed)));
        options.tuning.clock_doubt = Duration::from_millis(200);
    })
    .await;
    engine.register(NS, NAPS).await.unwrap();
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let mut runs = Vec::new();
    for input in 0..3 {
        runs.push(engine.start_run(NS, start("naps", &input.to_string())).await.unwrap().id);
    }
    let waiting = engine.start_run(NS, start("one", "1")).await.unwrap().id;
    let ahead = started_at(&engine, runs[0]).await;
    JUMP.store(0, Ordering::Relaxed);
    eventually("the clock is set right", async || metric(&engine, "clock_steps_total") == 1.0)
        .await;
    // They were parked until instants of an hour later.
    for run in &runs {
        naps(&engine, *run).await;
        is_monotone(&engine, *run).await;
    }
    let after = engine.start_run(NS, start("naps", "9")).await.unwrap().id;
    assert!(started_at(&engine, after).await < ahead - HOUR / 2);
    naps(&engine, after).await;
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    assert_eq!(task.run, waiting);
    hand.succeed(&[task]).await;
    naps(&engine, waiting).await;
}

#[tokio::test]
async fn what_was_held_by_a_clock_that_was_ahead_is_free_when_it_is_set_right() {
    static JUMP: AtomicI64 = AtomicI64::new(HOUR);
    let url = database().await;
    let engine = node(&url, |options| {
        quick(options, |shown| Time(shown.0 + JUMP.load(Ordering::Relaxed)));
        options.tuning.clock_doubt = Duration::from_millis(200);
        options.tuning.check_every = Duration::from_millis(100);
    })
    .await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let run = engine.start_run(NS, start("one", "1")).await.unwrap().id;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    // As a node leaves it that dies while the clock is ahead, or somebody's SQL.
    for text in [
        "update ready set reserved_by = 0, reserved_until = clock_timestamp() + interval '1 hour'",
        "insert into nodes (name, seen_at) values ('dead', clock_timestamp() + interval '1 hour')",
    ] {
        sqlx::query(AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    }
    JUMP.store(0, Ordering::Relaxed);
    eventually("the clock is set right", async || metric(&engine, "clock_steps_total") == 1.0)
        .await;
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    assert_eq!(task.run, run);
    hand.succeed(&[task]).await;
    let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    let ahead =
        "select count(*) from nodes where seen_at > clock_timestamp() + interval '2 minutes'";
    eventually("no node was seen in the future", async || {
        let mut connection = PgConnection::connect(&url).await.unwrap();
        sqlx::query_scalar::<_, i64>(ahead).fetch_one(&mut connection).await.unwrap() == 0
    })
    .await;
}

#[tokio::test]
async fn a_schedule_taken_up_by_a_clock_that_was_ahead_goes_on_when_it_is_set_right() {
    static JUMP: AtomicI64 = AtomicI64::new(0);
    let engine = node(&database().await, |options| {
        quick(options, |shown| Time(shown.0 + JUMP.load(Ordering::Relaxed)));
        options.tuning.clock_doubt = Duration::from_millis(200);
        options.tuning.schedules_every = Duration::from_millis(100);
        options.tuning.check_every = Duration::from_millis(100);
        options.retention = Some(Duration::from_secs(86_400));
    })
    .await;
    engine.register(NS, NAPS).await.unwrap();
    let spec = r#"{"cron":"* * * * * *","workflow":"naps","overlap":"allow","catch_up":"10s"}"#;
    engine
        .put_schedule(NS, "tick", serde_json::from_str(spec).unwrap(), &by("a test"))
        .await
        .unwrap();
    let started = async || {
        let lines = engine.schedule_starts(NS, "tick", None, 1_000).await.unwrap().items;
        let started = lines.into_iter().filter(|line| line.outcome == StartOutcome::Started);
        started.map(|line| line.scheduled_for.0.0).collect::<Vec<_>>()
    };
    let newest = async || started().await.into_iter().max().unwrap_or_default();
    let oldest_of_ahead = |all: &[i64], right: i64| all.iter().any(|at| *at > right + HOUR);
    eventually("it starts runs", async || newest().await > 0).await;
    let right = newest().await;
    JUMP.store(2 * HOUR, Ordering::Relaxed);
    eventually("it starts runs two hours ahead", async || oldest_of_ahead(&started().await, right))
        .await;
    JUMP.store(0, Ordering::Relaxed);
    eventually("the clock is set right", async || metric(&engine, "clock_steps_total") == 2.0)
        .await;
    let before = started().await.into_iter().filter(|at| *at < right + HOUR).max().unwrap();
    eventually("it starts runs of now", async || {
        let now = started().await.into_iter().filter(|at| *at < right + HOUR).max();
        now > Some(before + 1_000)
    })
    .await;
    let mut all = started().await;
    let count = all.len();
    all.sort_unstable();
    all.dedup();
    assert_eq!(all.len(), count, "no instant is started twice");
    let view = engine.schedule(NS, "tick").await.unwrap();
    assert!(view.warnings.iter().any(|one| one.code == "clock_corrected"), "{:?}", view.warnings);
    let told = engine.status(NS).await.conditions;
    assert!(told.iter().any(|one| one.kind == "ClockStepped"), "{told:?}");
    assert!(metric(&engine, "schedules_mended_total") >= 1.0);
}

#[tokio::test]
async fn a_schedule_whose_row_says_that_nothing_is_due_is_found() {
    let url = database().await;
    let engine = node(&url, |options| {
        options.tuning.schedules_every = Duration::from_millis(100);
        options.tuning.check_every = Duration::from_millis(100);
    })
    .await;
    engine.register(NS, NAPS).await.unwrap();
    let spec = r#"{"cron":"* * * * * *","workflow":"naps","overlap":"allow"}"#;
    engine
        .put_schedule(NS, "tick", serde_json::from_str(spec).unwrap(), &by("a test"))
        .await
        .unwrap();
    let count = async || engine.schedule(NS, "tick").await.unwrap().counts.started;
    eventually("it starts runs", async || count().await > 0).await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    for lost in ["null", "clock_timestamp() + interval '1 year'"] {
        let text = format!(
            "update schedules set due_at = {lost}, revision = nextval('schedule_revisions')"
        );
        sqlx::raw_sql(AssertSqlSafe(text)).execute(&mut outside).await.unwrap();
        let before = count().await;
        eventually("it starts runs again", async || count().await > before + 1).await;
    }
    assert!(metric(&engine, "schedules_mended_total") >= 1.0);
}

#[tokio::test]
async fn a_schedule_that_cannot_be_read_is_told_and_holds_up_no_other() {
    let url = database().await;
    let engine = node(&url, |options| {
        options.tuning.schedules_every = Duration::from_millis(100);
        options.tuning.check_every = Duration::from_millis(100);
    })
    .await;
    engine.register(NS, NAPS).await.unwrap();
    let spec = r#"{"cron":"* * * * * *","workflow":"naps","overlap":"allow"}"#;
    for name in ["broken", "odd", "tick"] {
        let spec = serde_json::from_str(spec).unwrap();
        engine.put_schedule(NS, name, spec, &by("a test")).await.unwrap();
    }
    let mut outside = PgConnection::connect(&url).await.unwrap();
    let damage = "update schedules set state = '{', revision = nextval('schedule_revisions') where name = 'broken';
        update schedules set spec = replace(spec, '* * * * * *', 'nonsense'),
            revision = nextval('schedule_revisions') where name = 'odd';
        update schedules set due_at = null, revision = nextval('schedule_revisions') where name = 'tick'";
    sqlx::raw_sql(damage).execute(&mut outside).await.unwrap();
    let mended = async || metric(&engine, "schedules_mended_total") >= 1.0;
    eventually("the schedule behind them is set right", mended).await;
    let lines = engine.schedules(NS, None, 100).await.unwrap().items;
    let damaged: Vec<(&str, bool)> =
        lines.iter().map(|line| (line.name.as_str(), line.damaged.is_some())).collect();
    assert_eq!(damaged, [("broken", true), ("odd", true), ("tick", false)]);
    let told = async || {
        let conditions = engine.status(NS).await.conditions;
        conditions.iter().any(|one| one.kind == "SchedulesDamaged" && one.message.contains("2 "))
    };
    eventually("the status tells", told).await;
    let found = engine.doctor(false).await.unwrap().differences;
    assert_eq!(
        found.iter().filter(|one| one.contains("/broken") || one.contains("/odd")).count(),
        2
    );
    for name in ["broken", "odd"] {
        let refused = engine.schedule(NS, name).await.unwrap_err();
        let is_told = matches!(refused, Error::Conflict { code: "schedule_damaged", .. });
        assert!(is_told, "{refused:?}");
        engine.delete_schedule(NS, name, &by("it is damaged")).await.unwrap();
    }
    let well = async || engine.status(NS).await.conditions.is_empty();
    eventually("the status says no more", well).await;
}
