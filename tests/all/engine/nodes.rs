//! Several nodes: who takes over what from whom.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backstitch_engine::{BackgroundTask, Engine, Options};
use backstitch_saga::protocol::{Outcome, State};
use backstitch_saga::{By, Command, Hold, HoldKind, Span};
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, chain, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};

/// A node that does nothing on its own but hand out and commit.
fn quiet(options: &mut Options) {
    options.tuning.beat_every = Duration::from_secs(3_600);
    options.tuning.wake_every = Duration::from_secs(3_600);
}

async fn outcome(engine: &Engine, run: backstitch_saga::RunId) -> Option<Outcome> {
    engine.wait(NS, run, Duration::from_secs(60)).await.unwrap().outcome
}

#[tokio::test]
async fn a_node_that_dies_is_taken_over() {
    let url = database().await;
    let first = node(&url, |_| {}).await;
    first.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let hand = Hand::new(&first);
    let (task, started) =
        tokio::join!(hand.one(), async { first.start_run(NS, start("two", "1")).await.unwrap() });
    // It dies with a task in a worker's hands, and with its memory.
    drop(hand);
    drop(first);
    let second = node(&url, |options| {
        options.tuning.dead_after = Duration::from_secs(2);
    })
    .await;
    let hand = Hand::new(&second);
    // The lease of the dead node's task is over after a second; what may have happened is tried again.
    let again = hand.one().await;
    assert_eq!((again.run, again.step.clone(), again.attempt), (task.run, task.step.clone(), 2));
    assert_eq!(again.effect_key, task.effect_key);
    assert_eq!(hand.succeed(&[task]).await[0].status, 409);
    hand.succeed(&[again]).await;
    let last = hand.one().await;
    hand.succeed(&[last]).await;
    assert_eq!(outcome(&second, started.id).await, Some(Outcome::Succeeded));
    assert!(metric(&second, "takeovers_total") >= 1.0);
    assert_eq!(second.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn a_node_that_stops_gives_everything_back() {
    let url = database().await;
    let first = node(&url, |_| {}).await;
    first.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let hand = Hand::new(&first);
    let started = first.start_run(NS, start("two", "1")).await.unwrap();
    let task = hand.one().await;
    // The next step is put aside for the worker, who never fetches it.
    assert!(hand.claim(1, Span::ZERO).await.is_empty());
    hand.succeed(&[task]).await;
    first.stop().await;
    assert!(first.start_run(NS, start("two", "1")).await.is_err(), "it takes nothing new");
    let second = node(&url, |_| {}).await;
    let hand = Hand::new(&second);
    let task = hand.one().await;
    assert_eq!((task.step.to_string().as_str(), task.attempt), ("b", 1), "nothing was lost");
    hand.succeed(&[task]).await;
    assert_eq!(outcome(&second, started.id).await, Some(Outcome::Succeeded));
    assert_eq!(
        second.run_once(BackgroundTask::TakeOver).await.unwrap(),
        0,
        "nothing is left behind"
    );
}

#[tokio::test]
async fn a_resume_counts_at_a_node_that_has_not_heard_of_the_pause() {
    let url = database().await;
    let (first, second) = (node(&url, quiet).await, node(&url, quiet).await);
    first.register(NS, &chain("one", &["a"])).await.unwrap();
    // The second has the run in memory as it was before it was paused.
    let run = second.start_run(NS, start("one", "1")).await.unwrap().id;
    let by = || Some(By { actor: "test".into(), reason: "to see".to_owned() });
    let hold = Hold::new(HoldKind::Paused, "audit");
    let pause = Command::Hold { hold, by: by(), message: "an audit".to_owned() };
    first.command(NS, run, pause).await.unwrap();
    second.command(NS, run, Command::Unhold { hold: None, by: by() }).await.unwrap();
    let view = first.run(NS, run, None).await.unwrap();
    assert_ne!(view.state, State::Paused, "what was answered is true: {}", view.summary);
}

#[tokio::test]
async fn a_node_without_workers_leaves_its_tasks_to_others() {
    let url = database().await;
    let (first, second) = (node(&url, |_| {}).await, node(&url, |_| {}).await);
    first.register(NS, &chain("one", &["a"])).await.unwrap();
    let started = first.start_run(NS, start("one", "1")).await.unwrap();
    let hand = Hand::new(&second);
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    assert_eq!(outcome(&first, started.id).await, Some(Outcome::Succeeded));
    assert_eq!(first.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn what_nobody_works_on_is_parked_and_woken() {
    let url = database().await;
    let engine = node(&url, |options| {
        quiet(options);
        options.tuning.park_after = Duration::from_millis(50);
    })
    .await;
    let definition = chain("slow", &["a"]).replace("20ms", "1500ms");
    engine.register(NS, &definition).await.unwrap();
    let hand = Hand::new(&engine);
    let started = engine.start_run(NS, start("slow", "1")).await.unwrap();
    let task = hand.one().await;
    hand.fail(&task, backstitch_saga::protocol::FailureKind::Retryable).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let parked = "select node is null and wake_at is not null from runs";
    while !sqlx::query_scalar::<_, bool>(parked).fetch_one(&mut connection).await.unwrap() {
        tokio::task::yield_now().await;
    }
    // It is counted after the answer of the database.
    while metric(&engine, "runs_parked_total") < 1.0 {
        tokio::task::yield_now().await;
    }
    // Parked means that nothing in memory looks at it: only the chore does, when it is due.
    while engine.run_once(BackgroundTask::Wake).await.unwrap() == 0 {
        tokio::task::yield_now().await;
    }
    let again = hand.one().await;
    assert_eq!(again.attempt, 2);
    hand.succeed(&[again]).await;
    assert_eq!(outcome(&engine, started.id).await, Some(Outcome::Succeeded));
}

#[tokio::test]
async fn a_small_memory_changes_nothing() {
    let engine = node(&database().await, |options| options.tuning.cache_weight = 1_000).await;
    engine.register(NS, &chain("three", &["a", "b", "c"])).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..40 {
        runs.push(engine.start_run(NS, start("three", "1")).await.unwrap().id);
    }
    let hand = Hand::new(&engine);
    let mut done = 0;
    while done < 120 {
        let tasks = hand.claim(20, Span::secs(30)).await;
        assert!(!tasks.is_empty());
        done += tasks.len();
        assert!(hand.succeed(&tasks).await.iter().all(|answer| answer.status == 200));
    }
    for run in runs {
        assert_eq!(outcome(&engine, run).await, Some(Outcome::Succeeded));
    }
    assert!(metric(&engine, "runs_loaded_total") > 10.0, "memory was not small");
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn a_background_task_that_a_defect_stops_is_counted_and_begins_anew() {
    static BROKEN: AtomicBool = AtomicBool::new(false);
    let url = database().await;
    let engine = node(&url, |options| {
        options.tuning.beat_every = Duration::from_millis(50);
        options.tuning.database_clock = Some(|shown| {
            assert!(!BROKEN.load(Ordering::Relaxed), "as told");
            shown
        });
    })
    .await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut seen = async || -> String {
        let text = "select max(seen_at)::text from nodes";
        sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap()
    };
    BROKEN.store(true, Ordering::Relaxed);
    let stopped = async || metric(&engine, "background_panics_total") >= 2.0;
    eventually("the heartbeat is stopped twice", stopped).await;
    let last = seen().await;
    BROKEN.store(false, Ordering::Relaxed);
    let began = Instant::now();
    while seen().await == last {
        assert!(began.elapsed() < Duration::from_secs(60), "the node shows that it lives");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    engine.stop().await;
}
