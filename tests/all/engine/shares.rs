//! Fair shares of a node's work: a flood of one namespace keeps another waiting for a turn, and never stops what stops
//! things.

use std::sync::{Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};

use backstitch_engine::{Engine, Error, RunFilter};
use backstitch_saga::protocol::{Approval, Labels, SetUndoApproval, StartRun, State};
use backstitch_saga::{Command, RunId};
use backstitch_tests::node::{NS, by, chain, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// Time that anything here may take.
const LONG: Duration = Duration::from_secs(60);
/// Number of commands of a flood that may be decided before another's.
const A_TURN: usize = 64;

/// The decisions of a node, in order; it stops at a start of the workflow `gate` until it is released.
struct Decisions {
    order: Mutex<Vec<String>>,
    shut: Mutex<bool>,
    opened: Condvar,
}

impl Decisions {
    const fn new() -> Decisions {
        Decisions { order: Mutex::new(Vec::new()), shut: Mutex::new(true), opened: Condvar::new() }
    }

    fn note(&self, command: &Command) {
        let word = match command {
            Command::Start(start) => start.namespace.to_string(),
            Command::Kill { .. } => "kill".to_owned(),
            Command::Hold { .. } => "hold".to_owned(),
            _ => return,
        };
        self.order.lock().unwrap_or_else(PoisonError::into_inner).push(word.clone());
        if word == "gate" {
            let shut = self.shut.lock().unwrap_or_else(PoisonError::into_inner);
            drop(self.opened.wait_timeout_while(shut, LONG, |shut| *shut));
        }
    }

    /// Waits until the shard is at the gate.
    async fn at_gate(&self) {
        let began = Instant::now();
        let at_gate = || {
            let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
            order.iter().any(|one| one == "gate")
        };
        while !at_gate() {
            assert!(began.elapsed() < LONG, "the shard does not come to the gate");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    fn open(&self) {
        *self.shut.lock().unwrap_or_else(PoisonError::into_inner) = false;
        self.opened.notify_all();
    }

    /// After how many starts of the flood the first decision `word` came.
    fn before(&self, word: &str) -> usize {
        let order = self.order.lock().unwrap_or_else(PoisonError::into_inner);
        let place = order.iter().position(|one| one == word).expect("it was decided");
        order[..place].iter().filter(|one| *one == "flood").count()
    }
}

/// Waits until as many commands wait.
async fn queued(engine: &Engine, count: f64) {
    let began = Instant::now();
    while metric(engine, "queue_depth") < count {
        assert!(began.elapsed() < LONG, "{}", metric(engine, "queue_depth"));
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Starts a run of the workflow `calm` in a namespace, beside what else goes on.
fn begin(
    engine: &Engine,
    namespace: &'static str,
) -> tokio::task::JoinHandle<Result<RunId, Error>> {
    let engine = engine.clone();
    tokio::spawn(async move {
        engine.start_run(namespace, start("calm", "1")).await.map(|started| started.id)
    })
}

/// Returns a node with one shard that has come to the gate, and 24 batches of 50 starts of the namespace `flood` behind
/// it. The queue has room for 20 of them.
async fn flooded(
    seen: &Decisions,
    before_decide: fn(&Command),
) -> (Engine, RunId, Vec<tokio::task::JoinHandle<usize>>) {
    let engine = node(&database().await, |options| {
        options.tuning.shards = 1;
        options.queue_limit = 1_000;
        options.tuning.before_decide = Some(before_decide);
    })
    .await;
    for namespace in [NS, "flood", "gate", "calm"] {
        engine.register(namespace, &chain("calm", &["a"])).await.unwrap();
    }
    let victim = begin(&engine, NS).await.unwrap().unwrap();
    let gate = begin(&engine, "gate");
    seen.at_gate().await;
    let flood = (0..24).map(|_| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let starts: Vec<StartRun> = (0..50).map(|_| start("calm", "1")).collect();
            let answers = engine.start_runs("flood", starts).await;
            answers.iter().filter(|answer| answer.status == 503).count()
        })
    });
    let mut flood: Vec<_> = flood.collect();
    queued(&engine, 1_000.0).await;
    flood.push(tokio::spawn(async move {
        gate.await.unwrap().unwrap();
        0
    }));
    (engine, victim, flood)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_start_waits_for_one_turn_of_another_namespaces_flood_and_is_never_turned_away() {
    static SEEN: Decisions = Decisions::new();
    let (engine, _, flood) = flooded(&SEEN, |command| SEEN.note(command)).await;
    let calm = begin(&engine, "calm");
    queued(&engine, 1_001.0).await;
    SEEN.open();
    calm.await.unwrap().expect("it has a share of the queue");
    assert!(SEEN.before("calm") <= A_TURN, "{} of the flood came before", SEEN.before("calm"));
    let mut busy = 0;
    for batch in flood {
        busy += batch.await.unwrap();
    }
    assert!(busy >= 50, "the flood fills its own share only: {busy} were turned away");
    assert!(metric(&engine, "commands_turned_away_total") >= 1.0);
    assert_eq!(metric(&engine, "queue_depth"), 0.0);
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn what_stops_a_run_is_taken_whatever_waits_and_goes_first() {
    static SEEN: Decisions = Decisions::new();
    let (engine, victim, flood) = flooded(&SEEN, |command| SEEN.note(command)).await;
    let kill = tokio::spawn({
        let engine = engine.clone();
        async move { engine.command(NS, victim, Command::Kill { by: by("a flood") }).await }
    });
    queued(&engine, 1_001.0).await;
    SEEN.open();
    kill.await.unwrap().expect("a kill is never turned away");
    assert_eq!(SEEN.before("kill"), 0, "it goes before all that waits");
    let view = engine.run(NS, victim, None).await.unwrap();
    assert_eq!(view.state, State::Ended);
    for batch in flood {
        batch.await.unwrap();
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_batch_of_one_namespace_that_is_not_written_keeps_no_other_waiting() {
    let url = database().await;
    let engine = node(&url, |options| options.tuning.shards = 1).await;
    for namespace in ["flood", "calm"] {
        engine.register(namespace, &chain("calm", &["a"])).await.unwrap();
    }
    // Whoever writes this key waits until the transaction is over.
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut locked = connection.begin().await.unwrap();
    let key = "insert into run_keys (namespace, key, workflow, run_id, input_digest) \
               values ('flood', 'k', 'calm', gen_random_uuid(), '')";
    sqlx::query(key).execute(&mut *locked).await.unwrap();
    let flood = |keyed: bool| {
        let engine = engine.clone();
        tokio::spawn(async move {
            let mut starts: Vec<StartRun> = (0..256).map(|_| start("calm", "1")).collect();
            starts[0].key = keyed.then(|| "k".to_owned());
            let answers = engine.start_runs("flood", starts).await;
            answers.iter().filter(|answer| answer.status == 201).count()
        })
    };
    let batches = [flood(true), flood(false), flood(true), flood(false), flood(true)];
    let mut other = PgConnection::connect(&url).await.unwrap();
    let began = Instant::now();
    while waiting_for_a_lock(&mut other, "-- batch%").await < 2 {
        assert!(began.elapsed() < LONG, "two batches of the flood wait for the key");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for _ in 0..3 {
        begin(&engine, "calm").await.unwrap().expect("it has a batch of its own");
    }
    assert!(batches.iter().any(|batch| !batch.is_finished()), "the flood still waits");
    locked.rollback().await.unwrap();
    let mut started = 0;
    for batch in batches {
        started += batch.await.unwrap();
    }
    assert_eq!(started, 5 * 256 - 2, "of the starts with one key, one began a run");
    engine.stop().await;
}

/// Returns the number of lists of runs that wait for a lock in the database.
async fn waiting_lists(connection: &mut PgConnection) -> i64 {
    waiting_for_a_lock(connection, "-- runs_list%").await
}

/// Returns the number of statements with a text like `text` that wait for a lock in the database.
async fn waiting_for_a_lock(connection: &mut PgConnection, text: &str) -> i64 {
    sqlx::query_scalar(
        "select count(*) from pg_stat_activity where datname = current_database() \
         and wait_event_type = 'Lock' and query like $1",
    )
    .bind(text)
    .fetch_one(connection)
    .await
    .unwrap()
}

#[tokio::test]
async fn slow_lists_of_one_namespace_keep_no_other_waiting_and_are_refused_in_the_end() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register("calm", &chain("calm", &["a"])).await.unwrap();
    // Nobody can read runs from now on.
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut locked = connection.begin().await.unwrap();
    sqlx::query("lock table runs in access exclusive mode").execute(&mut *locked).await.unwrap();
    let flood: Vec<_> = (0..20)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.runs("flood", RunFilter::default()).await.map(drop) })
        })
        .collect();
    let mut other = PgConnection::connect(&url).await.unwrap();
    let began = Instant::now();
    while waiting_lists(&mut other).await < 2 {
        assert!(began.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let calm = engine.workflows("calm", None, None, 10).await.unwrap();
    assert_eq!(calm.items.len(), 1);
    assert_eq!(waiting_lists(&mut other).await, 2, "a namespace has two of the connections");
    assert!(flood.iter().all(|list| !list.is_finished()), "the lists of the flood still wait");
    let mut refused = (0, 0);
    for list in flood {
        match list.await.unwrap() {
            Err(Error::Invalid { code: "list_too_slow", .. }) => refused.0 += 1,
            Err(Error::Busy) => refused.1 += 1,
            other => panic!("{other:?}"),
        }
    }
    assert!(refused.0 >= 2 && refused.1 > 0, "{refused:?}");
    locked.rollback().await.unwrap();
    engine.runs("flood", RunFilter::default()).await.unwrap();
    engine.stop().await;
}

#[tokio::test]
async fn large_runs_that_are_asked_for_at_once_are_read_a_few_at_a_time_and_all_found() {
    const RUNS: usize = 50;
    let url = database().await;
    let waits = r#"{"name":"waits","version":1,"steps":[{"id":"w","wait":{"signal":"go"}}]}"#;
    let elsewhere = node(&url, |_| {}).await;
    elsewhere.register("cold", waits).await.unwrap();
    let input = serde_json::json!("x".repeat(250_000)).to_string();
    let mut runs = Vec::new();
    for _ in 0..RUNS {
        runs.push(elsewhere.start_run("cold", start("waits", &input)).await.unwrap().id);
    }
    let engine = node(&url, |options| options.tuning.shards = 1).await;
    let unknown = RunId(Uuid::now_v7());
    let asked = runs.iter().chain([&unknown]).map(|run| {
        let set = Labels::from([("asked".to_owned(), "yes".to_owned())]);
        let label = Command::Label { set, remove: Vec::new(), by: by("a test") };
        engine.command("cold", *run, label)
    });
    let answers = futures::future::join_all(asked).await;
    let found = answers.iter().filter(|answer| answer.is_ok()).count();
    assert_eq!((found, answers[RUNS].is_err()), (RUNS, true));
    assert_eq!(metric(&engine, "runs_loaded_total"), 50.0, "each once");
    elsewhere.stop().await;
    engine.stop().await;
}

#[tokio::test]
async fn runs_that_are_loaded_for_one_namespace_keep_no_other_waiting() {
    let url = database().await;
    let waits = r#"{"name":"waits","version":1,"steps":[{"id":"w","wait":{"signal":"go"}}]}"#;
    let elsewhere = node(&url, |_| {}).await;
    for namespace in ["cold", "warm"] {
        elsewhere.register(namespace, waits).await.unwrap();
    }
    let cold = elsewhere.start_run("cold", start("waits", "1")).await.unwrap().id;
    // It is in the memory of the other node alone.
    let engine = node(&url, |options| options.tuning.shards = 1).await;
    let warm = engine.start_run("warm", start("waits", "1")).await.unwrap().id;
    let label = |value: usize| {
        let set = Labels::from([("label".to_owned(), value.to_string())]);
        Command::Label { set, remove: Vec::new(), by: by("a test") }
    };
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut locked = connection.begin().await.unwrap();
    let lock = "lock table snapshots in access exclusive mode";
    sqlx::query(lock).execute(&mut *locked).await.unwrap();
    let asked: Vec<_> = (0..3)
        .map(|number| {
            let (engine, label) = (engine.clone(), label(number));
            tokio::spawn(async move { engine.command("cold", cold, label).await })
        })
        .collect();
    let mut other = PgConnection::connect(&url).await.unwrap();
    let began = Instant::now();
    while waiting_for_a_lock(&mut other, "-- snapshots_load%").await == 0 {
        assert!(began.elapsed() < LONG);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    for number in 0..10 {
        engine.command("warm", warm, label(number)).await.unwrap();
        engine.start_run("warm", start("waits", "2")).await.unwrap();
    }
    assert!(asked.iter().all(|one| !one.is_finished()), "they wait for their run");
    locked.rollback().await.unwrap();
    for one in asked {
        one.await.unwrap().unwrap();
    }
    assert_eq!(metric(&engine, "runs_loaded_total"), 1.0, "once for all that waited");
    let nobody = engine.command("cold", RunId(Uuid::now_v7()), label(0)).await;
    assert!(matches!(nobody, Err(Error::NotFound { code: "unknown_run", .. })), "{nobody:?}");
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    elsewhere.stop().await;
    engine.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cancel_is_taken_while_questions_hold_all_connections_of_its_namespace() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    for name in ["calm", "guarded"] {
        engine.register(NS, &chain(name, &["a"])).await.unwrap();
    }
    let policy = SetUndoApproval { approval: Approval::Always, reason: "refunds".to_owned() };
    engine.set_undo_approval(NS, "guarded", &policy, &by("refunds")).await.unwrap();
    let run = engine.start_run(NS, start("calm", "1")).await.unwrap().id;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let mut locked = connection.begin().await.unwrap();
    let lock = "lock table compensation_plans in access exclusive mode";
    sqlx::query(lock).execute(&mut *locked).await.unwrap();
    let questions: Vec<_> = (0..200)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move {
                engine.compensation_plan(NS, Uuid::now_v7(), None, 10).await.map(drop)
            })
        })
        .collect();
    let began = Instant::now();
    while tokio::time::timeout(Duration::from_millis(200), engine.run(NS, run, None)).await.is_ok()
    {
        assert!(began.elapsed() < LONG, "there is always a connection left for a question");
    }
    let cancel = engine.command(NS, run, Command::Cancel { by: by("a flood") });
    let taken = tokio::time::timeout(Duration::from_secs(20), cancel).await;
    taken.expect("it waits for no question").expect("a cancel is never turned away");
    locked.rollback().await.unwrap();
    for question in questions {
        question.await.unwrap().unwrap_err();
    }
    assert_eq!(engine.run(NS, run, None).await.unwrap().state, State::Ended);
    engine.stop().await;
}
