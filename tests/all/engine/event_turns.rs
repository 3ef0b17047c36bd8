//! Events of many keys while engines and sessions die in the middle of dispatch: each starts one run, and runs of a key are worked on
//! in the order of the log.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backstitch_engine::log::EventDraft;
use backstitch_engine::{BackgroundTask, Engine};
use backstitch_saga::Span;
use backstitch_tests::chance::Chance;
use backstitch_tests::node::{Hand, NS, by, chain, node};
use backstitch_tests::postgres::database;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::JoinHandle;

/// A count from the environment, or the one of every day.
fn count(name: &str, usual: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(usual)
}

async fn append(engine: &Engine, events: Vec<Value>) {
    let events = serde_json::from_value(Value::Array(events)).unwrap();
    let drafts = EventDraft::of_request(events, "ann", engine.event_limit()).unwrap();
    engine.append_events(&Arc::from(NS), drafts).await.unwrap();
}

/// An engine with a worker that tells of each task before it is done.
struct Working {
    engine: Engine,
    over: Arc<AtomicBool>,
    worker: JoinHandle<()>,
}

impl Working {
    async fn begin(url: &str, told: UnboundedSender<(String, u64)>) -> Working {
        let engine = node(url, |options| {
            options.tuning.dead_after = Duration::from_secs(2);
            options.tuning.log_every = Duration::from_millis(100);
        })
        .await;
        let (over, hand) = (Arc::new(AtomicBool::new(false)), Hand::new(&engine));
        let stop = Arc::clone(&over);
        let worker = tokio::spawn(async move {
            while !stop.load(Ordering::Relaxed) {
                let tasks = hand.claim(20, Span::millis(100)).await;
                for task in &tasks {
                    let data: Value = serde_json::from_str(task.input.text()).unwrap();
                    let key = data["key"].as_str().unwrap().to_owned();
                    told.send((key, data["n"].as_u64().unwrap())).unwrap();
                }
                hand.succeed(&tasks).await;
            }
        });
        Working { engine, over, worker }
    }

    /// The engine dies with whatever it is about; its worker has said what it had done.
    async fn die(self) {
        self.over.store(true, Ordering::Relaxed);
        self.worker.await.unwrap();
        drop(self.engine);
    }
}

/// Lets another engine go on at once, whoever has the subscription.
async fn free(url: &str) {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query("update subscription set taken_until = null")
        .execute(&mut connection)
        .await
        .unwrap();
}

/// Ends sessions in the middle of dispatch.
async fn end_session(url: &str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(
        "select count(pg_terminate_backend(pid)) from (select pid from pg_stat_activity \
         where datname = current_database() and usename = 'server_of_tests' \
         and (query like '-- pending_%' or query like '-- subscription_%' or query like '-- log_at%') order by random() limit 1) s",
    )
    .fetch_one(&mut connection)
    .await
    .unwrap()
}

/// Events of keys in an order of chance, those of a key with their numbers in order.
fn drawn(chance: &mut Chance, keys: u64, each: u64) -> Vec<Value> {
    let mut left: Vec<(u64, u64)> = (0..keys).map(|key| (key, 0)).collect();
    let mut events = Vec::new();
    while !left.is_empty() {
        let at = usize::try_from(chance.below(left.len() as u64)).unwrap();
        let (key, number) = left[at];
        events.push(json!({"type": "t", "data": {"key": format!("k{key}"), "n": number}}));
        left[at].1 += 1;
        if left[at].1 == each {
            left.swap_remove(at);
        }
    }
    events
}

/// Waits until the subscription has dealt with all events and nothing is pending.
async fn settled(engine: &Engine, all: u64, within: Duration) {
    let until = Instant::now() + within;
    loop {
        let view = engine.subscription(NS, "handle").await.unwrap();
        let pending = view.pending.unwrap();
        if view.position == all && pending.waiting + pending.in_flight + pending.blocked == 0 {
            assert!(view.started >= 1 && view.skipped == 0, "{view:?}");
            return;
        }
        assert!(Instant::now() < until, "{view:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_starts_one_run_in_the_order_of_its_key_whatever_dies() {
    let keys = count("BACKSTITCH_TURNS_KEYS", 20);
    let each = count("BACKSTITCH_TURNS_EVENTS", 15);
    let kills = count("BACKSTITCH_TURNS_KILLS", 6);
    let mut chance = Chance::seeded();
    let url = database().await;
    let (told, mut heard) = tokio::sync::mpsc::unbounded_channel();
    let mut engines =
        vec![Working::begin(&url, told.clone()).await, Working::begin(&url, told.clone()).await];
    engines[0].engine.register(NS, &chain("handle", &["a"])).await.unwrap();
    let spec = json!({"workflow": "handle", "input": "data", "key": "/key", "from": 0});
    let spec = serde_json::from_value(spec).unwrap();
    engines[0].engine.put_subscription(NS, "handle", spec, &by("a test")).await.unwrap();
    let events = drawn(&mut chance, keys, each);
    let all = events.len();
    let mut pieces: Vec<Vec<Value>> = events
        .chunks(all.div_ceil(usize::try_from(kills).unwrap() + 1))
        .map(<[Value]>::to_vec)
        .collect();
    pieces.reverse();
    let mut ended = 0;
    for _ in 0..kills {
        if let Some(piece) = pieces.pop() {
            append(&engines[0].engine, piece).await;
        }
        let until = Instant::now() + Duration::from_millis(20 + chance.below(150));
        while Instant::now() < until {
            ended += end_session(&url).await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let at = usize::try_from(chance.below(2)).unwrap();
        engines.remove(at).die().await;
        free(&url).await;
        engines.push(Working::begin(&url, told.clone()).await);
    }
    for piece in pieces.into_iter().rev() {
        append(&engines[0].engine, piece).await;
    }
    println!("{ended} sessions were ended");
    settled(&engines[0].engine, all as u64, Duration::from_secs(60 + kills * 2 + all as u64 / 50))
        .await;
    for one in engines {
        one.over.store(true, Ordering::Relaxed);
        one.worker.await.unwrap();
        while one.engine.run_once(BackgroundTask::Dispatch).await.is_err() {}
        assert_eq!(one.engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
        one.engine.stop().await;
    }
    drop(told);
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    while let Some((key, number)) = heard.recv().await {
        let numbers = seen.entry(key).or_default();
        // A task that was tried again is the same event.
        if numbers.last() != Some(&number) {
            numbers.push(number);
        }
    }
    let expected: Vec<u64> = (0..each).collect();
    assert_eq!(seen.len() as u64, keys);
    for (key, numbers) in &seen {
        assert_eq!(numbers, &expected, "{key}");
    }
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let counts: (i64, i64) = sqlx::query_as("select count(*), count(distinct key) from runs")
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(counts, (all as i64, all as i64), "each event has one run");
}
