//! The database fails in the middle of things: answers are lost, batches are refused, the server goes away.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backstitch_engine::local_postgres::{LocalPostgres, StartOptions};
use backstitch_engine::{Engine, Error, Options};
use backstitch_saga::protocol::{FailureKind, IncidentFilter, Labels, Outcome, State};
use backstitch_saga::{Command, RunId, Span};
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, by, chain, fan, metric, node, report, start};
use backstitch_tests::postgres::{database, migrate, server};
use backstitch_tests::proxy::{Loss, Proxy};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

async fn sound(engine: &Engine) {
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

async fn outcome(engine: &Engine, run: RunId) -> Option<Outcome> {
    engine.wait(NS, run, Duration::from_secs(60)).await.unwrap().outcome
}

/// Returns a node behind a proxy, on a database of its own.
async fn behind_proxy() -> (Proxy, Engine) {
    let url = database().await;
    let name = url.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
    let proxy = Proxy::start(server().await.dir().to_owned()).await;
    let engine = node(&proxy.url(&name), |options| options.tuning.shards = 1).await;
    (proxy, engine)
}

#[tokio::test]
async fn a_lost_answer_to_a_commit_is_found_in_the_journal() {
    let (proxy, engine) = behind_proxy().await;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let hand = Hand::new(&engine);
    for lost in [Loss::Answer(b"needle".to_vec()), Loss::Statement(b"needle".to_vec())] {
        let before = metric(&engine, "unknown_commits_total");
        proxy.lose(lost);
        let mut keyed = start("two", r#""needle""#);
        keyed.key = Some(format!("key {before}"));
        let started = engine.start_run(NS, keyed).await.unwrap();
        assert!(started.created && !proxy.is_armed());
        assert_eq!(metric(&engine, "unknown_commits_total"), before + 1.0);
        for step in ["a", "b"] {
            let task = hand.one().await;
            assert_eq!((task.run, task.step.to_string().as_str()), (started.id, step));
            proxy.lose(Loss::Answer(b"succeeded".to_vec()));
            assert_eq!(hand.succeed(&[task]).await[0].status, 200);
            assert!(!proxy.is_armed());
        }
        let view = engine.wait(NS, started.id, Duration::from_secs(60)).await.unwrap();
        assert_eq!(view.outcome, Some(Outcome::Succeeded));
        assert!(
            view.steps.iter().all(|step| step.deliveries == 1),
            "a lost answer moved nothing twice"
        );
    }
    sound(&engine).await;
}

#[tokio::test]
async fn what_was_decided_on_a_start_that_was_lost_is_decided_again_after_it() {
    let (proxy, engine) = behind_proxy().await;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    for round in 0..5 {
        let run = RunId(Uuid::now_v7());
        proxy.lose(Loss::Statement(b"needle".to_vec()));
        let starting = engine.start_run_as(NS, run, start("two", r#""needle""#));
        let cancelling = async {
            // The start is on its way, and nobody knows yet that it is lost.
            while proxy.is_armed() {
                tokio::time::sleep(Duration::from_micros(100)).await;
            }
            let by = by("no");
            engine.command(NS, run, Command::Cancel { by }).await
        };
        let (started, cancelled) = tokio::join!(starting, cancelling);
        assert!(started.unwrap().created, "{round}");
        cancelled.unwrap();
        assert_eq!(outcome(&engine, run).await, Some(Outcome::Cancelled), "{round}");
    }
    sound(&engine).await;
}

#[tokio::test]
async fn what_comes_before_a_start_finds_no_run_and_does_not_refuse_it() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    engine.start_run(NS, start("two", "1")).await.unwrap();
    let run = RunId(Uuid::now_v7());
    let by = by("no");
    let (killed, started) = tokio::join!(
        engine.command(NS, run, Command::Kill { by }),
        engine.start_run_as(NS, run, start("two", "2")),
    );
    assert!(matches!(killed, Err(Error::NotFound { .. })), "{killed:?}");
    assert!(started.unwrap().created);
}

#[tokio::test]
async fn only_the_culprit_pays_for_what_the_database_refuses() {
    let url = database().await;
    let engine = node(&url, |options| options.tuning.shards = 1).await;
    engine.register(NS, &fan("fan", 100, "\"best_effort\"")).await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("alter table journal add check (payloads not like '%poison%')")
        .execute(&mut connection)
        .await
        .unwrap();
    let hand = Hand::new(&engine);
    let mut runs = Vec::new();
    for input in ["[1,2,3]", "[4,5,6]"] {
        runs.push(engine.start_run(NS, start("fan", input)).await.unwrap().id);
    }
    let mut tasks = Vec::new();
    while tasks.len() < 6 {
        tasks.extend(hand.claim(10, Span::secs(30)).await);
    }
    let reports: Vec<_> = tasks
        .iter()
        .map(|task| {
            let text = if task.input.text() == "5" { r#""poison""# } else { "0" };
            let output = backstitch_tests::node::json(text);
            report(
                task,
                backstitch_saga::protocol::TaskOutcome::Succeeded { output, external_id: None },
            )
        })
        .collect();
    let answers = engine.complete(NS, reports).await;
    for (task, answer) in tasks.iter().zip(&answers) {
        let status = if task.input.text() == "5" { 500 } else { 200 };
        assert_eq!(answer.status, status, "{}: {answer:?}", task.input.text());
    }
    assert!(metric(&engine, "retried_one_by_one_total") >= 6.0);
    let poisoned = tasks.iter().find(|task| task.input.text() == "5").unwrap();
    hand.succeed(std::slice::from_ref(poisoned)).await;
    for run in runs {
        let task = hand.one().await;
        hand.succeed(&[task]).await;
        let _ = run;
    }
    sound(&engine).await;
}

fn sabotage(command: &Command) {
    if let Command::Cancel { by } = command {
        assert_ne!(by.reason, "defect", "a defect on purpose");
    }
}

#[tokio::test]
async fn a_defect_stops_one_command_and_nothing_else() {
    let engine = node(&database().await, |options: &mut Options| {
        options.tuning.shards = 1;
        options.tuning.before_decide = Some(sabotage);
    })
    .await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let hand = Hand::new(&engine);
    let started = engine.start_run(NS, start("one", "1")).await.unwrap();
    let task = hand.one().await;
    let by = by("defect");
    let (reported, cancelled, other) = tokio::join!(
        hand.succeed(std::slice::from_ref(&task)),
        engine.command(NS, started.id, Command::Cancel { by }),
        engine.start_run(NS, start("one", "2")),
    );
    assert_eq!(reported[0].status, 200);
    assert!(matches!(cancelled, Err(Error::Bug(_))), "{cancelled:?}");
    other.unwrap();
    assert_eq!(outcome(&engine, started.id).await, Some(Outcome::Succeeded));
    assert_eq!(metric(&engine, "bugs_total"), 1.0);
    sound(&engine).await;
}

#[tokio::test]
async fn a_run_whose_timer_a_defect_stops_again_and_again_is_put_aside_until_somebody_acts() {
    static BROKEN: AtomicBool = AtomicBool::new(true);
    let url = database().await;
    let broken = |options: &mut Options| {
        options.tuning.check_every = Duration::from_millis(200);
        options.tuning.before_decide = Some(|command| {
            let stops = matches!(command, Command::Tick) && BROKEN.load(Ordering::Relaxed);
            assert!(!stops, "a defect on purpose");
        });
    };
    let engine = node(&url, broken).await;
    let nap = r#"{"name":"nap","version":1,"steps":[{"id":"a","sleep":{"for":"100ms"}}]}"#;
    engine.register(NS, nap).await.unwrap();
    let run = engine.start_run(NS, start("nap", "1")).await.unwrap().id;
    let incidents = async |engine: &Engine| {
        engine.incidents(NS, &IncidentFilter::default(), None, 10).await.unwrap().items
    };
    eventually("it is put aside", async || !incidents(&engine).await.is_empty()).await;
    let [told] = &incidents(&engine).await[..] else { panic!("one incident") };
    assert_eq!((told.id.run, told.id.number, &*told.kind), (run, 0, "run_stuck"));
    assert!(told.message.contains("a defect on purpose"), "{}", told.message);
    let bugs = metric(&engine, "bugs_total");
    engine.stop().await;
    // A node that starts anew leaves it alone, and does its other work.
    let engine = node(&url, broken).await;
    tokio::time::sleep(Duration::from_secs(3)).await;
    assert_eq!((bugs, metric(&engine, "bugs_total")), (3.0, 0.0));
    BROKEN.store(false, Ordering::Relaxed);
    let set = Labels::from([("looked".to_owned(), "yes".to_owned())]);
    let look = Command::Label { set, remove: Vec::new(), by: by("a look") };
    engine.command(NS, run, look).await.unwrap();
    assert_eq!(outcome(&engine, run).await, Some(Outcome::Succeeded));
    eventually("the incident is gone", async || incidents(&engine).await.is_empty()).await;
    sound(&engine).await;
}

#[tokio::test]
async fn the_tries_of_a_timer_that_a_defect_stops_are_counted_over_restarts() {
    let url = database().await;
    let broken = |options: &mut Options| {
        options.tuning.before_decide = Some(|command| {
            assert!(!matches!(command, Command::Tick), "a defect on purpose");
        });
    };
    let engine = node(&url, broken).await;
    let nap = r#"{"name":"nap","version":1,"steps":[{"id":"a","sleep":{"for":"100ms"}}]}"#;
    engine.register(NS, nap).await.unwrap();
    let run = engine.start_run(NS, start("nap", "1")).await.unwrap().id;
    let tries = async || -> Option<i32> {
        let mut database = PgConnection::connect(&url).await.unwrap();
        let tries = "select tries from timer_tries where run_id = $1";
        sqlx::query_scalar(tries).bind(run.0).fetch_optional(&mut database).await.unwrap()
    };
    eventually("it has failed twice", async || tries().await == Some(2)).await;
    engine.stop().await;
    assert_eq!(metric(&engine, "bugs_total"), 2.0);
    let engine = node(&url, broken).await;
    eventually("it is put aside", async || {
        !engine.incidents(NS, &IncidentFilter::default(), None, 10).await.unwrap().items.is_empty()
    })
    .await;
    // Long enough for it to be tried again, if anybody would.
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert_eq!(metric(&engine, "bugs_total"), 1.0);
    assert_eq!(tries().await, None, "nothing is left of the count");
}

#[tokio::test]
async fn a_full_queue_says_so() {
    let engine = node(&database().await, |options| options.queue_limit = 10).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let starts: Vec<_> = (0..500)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.start_run(NS, start("one", "1")).await })
        })
        .collect();
    let (mut started, mut busy) = (0, 0);
    for start in starts {
        match start.await.unwrap() {
            Ok(_) => started += 1,
            Err(Error::Busy) => busy += 1,
            Err(error) => panic!("{error}"),
        }
    }
    assert!(started >= 10 && busy > 0, "{started} started, {busy} were told to come later");
    assert_eq!(
        engine.doctor(false).await.unwrap().runs_checked,
        started,
        "busy means nothing was done"
    );
}

#[tokio::test]
async fn a_restart_of_the_server_is_survived() {
    let dir = std::env::temp_dir().join(format!("backstitch-test-crash-{}", std::process::id()));
    let options = StartOptions { data_dir: Some(dir.clone()), ..StartOptions::default() };
    let server = LocalPostgres::start(options.clone()).await.unwrap();
    server.create_database("it").await.unwrap();
    let url = server.url("it");
    migrate(&url).await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let hand = Hand::new(&engine);
    let started = engine.start_run(NS, start("two", "1")).await.unwrap();
    let task = hand.one().await;
    server.stop().await;
    let answer = hand.succeed(std::slice::from_ref(&task)).await;
    assert_eq!(answer[0].status, 503, "{answer:?}");
    let server = LocalPostgres::start(options).await.unwrap();
    let mut status = 503;
    while status == 503 {
        status = hand.succeed(std::slice::from_ref(&task)).await[0].status;
    }
    assert!(status == 200 || status == 409, "{status}");
    loop {
        let view = engine.wait(NS, started.id, Duration::from_millis(100)).await;
        if view.is_ok_and(|view| view.state == State::Ended) {
            break;
        }
        let tasks = hand.claim(1, Span::millis(200)).await;
        hand.succeed(&tasks).await;
    }
    assert_eq!(outcome(&engine, started.id).await, Some(Outcome::Succeeded));
    sound(&engine).await;
    engine.stop().await;
    server.stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}

#[tokio::test]
async fn a_record_of_a_newer_version_is_left_alone() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let newer = engine.start_run(NS, start("one", "1")).await.unwrap();
    let plain = engine.start_run(NS, start("one", "2")).await.unwrap();
    drop(engine);
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::query("insert into journal (run_id, seq, at, batch, events) values ($1, 2, now(), $1, '[{\"moved\":{}}]')")
        .bind(newer.id.0)
        .execute(&mut connection)
        .await
        .unwrap();
    let engine = node(&url, |_| {}).await;
    let by = by("no");
    let refused = engine.command(NS, newer.id, Command::Cancel { by }).await.unwrap_err();
    assert!(refused.to_string().contains("left to newer nodes"), "{refused}");
    let hand = Hand::new(&engine);
    loop {
        let tasks = hand.claim(1, Span::secs(1)).await;
        if let Some(task) = tasks.first() {
            assert_eq!(task.run, plain.id);
            hand.fail(task, FailureKind::Permanent).await;
            break;
        }
    }
    assert_eq!(outcome(&engine, plain.id).await, Some(Outcome::FailedClean));
}
