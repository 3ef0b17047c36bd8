//! Rows beside the journals that cannot be read: what they stop, what they do not, and who is told.

use std::sync::Arc;
use std::time::Duration;

use backstitch_engine::log::EventDraft;
use backstitch_engine::{BackgroundTask, Engine, Error, QueueAct};
use backstitch_saga::protocol::{JobState, QueuePolicy, RunView, State};
use backstitch_saga::{RunId, Span};
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, by, chain, node, start};
use backstitch_tests::postgres::database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const QUEUE: &str = "default";

async fn execute(url: &str, text: impl Into<String>) {
    let mut outside = PgConnection::connect(url).await.unwrap();
    let done = sqlx::query(AssertSqlSafe(text.into())).execute(&mut outside).await.unwrap();
    assert!(done.rows_affected() > 0);
}

async fn begin(engine: &Engine) -> RunId {
    engine.start_run(NS, start("one", "1")).await.unwrap().id
}

fn is_queue_damaged<T: std::fmt::Debug>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Conflict { code: "queue_damaged", .. }))
}

#[tokio::test]
async fn a_queue_that_cannot_be_read_hands_nothing_out_and_holds_up_no_other() {
    for damage in ["limiter = 'x'", "policy = '{'"] {
        let url = database().await;
        let engine = node(&url, |_| {}).await;
        engine.register(NS, &chain("one", &["a"])).await.unwrap();
        let policy = QueuePolicy { concurrency: Some(1), ..QueuePolicy::default() };
        for queue in [QUEUE, "other"] {
            engine.set_queue(NS, queue, &policy, &by("set")).await.unwrap();
        }
        engine.run_once(BackgroundTask::KeepQueues).await.unwrap();
        engine.act_on_queue(NS, QUEUE, QueueAct::Pause, &by("maintenance")).await.unwrap();
        let run = begin(&engine).await;
        execute(&url, format!("update queues set {damage} where queue = '{QUEUE}'")).await;
        engine.run_once(BackgroundTask::KeepQueues).await.unwrap();
        let hand = Hand::new(&engine);
        assert!(hand.claim(1, Span::secs(2)).await.is_empty(), "{damage}");
        let view = engine.run(NS, run, None).await.unwrap();
        assert_eq!(view.conditions[0].kind, "QueueDamaged", "{view:?}");
        assert!(view.summary.contains("cannot be read"), "{}", view.summary);
        let listed = engine.queues(NS, None, 10).await.unwrap().items;
        let listed: Vec<(&str, bool)> =
            listed.iter().map(|one| (one.queue.as_str(), one.damaged.is_some())).collect();
        assert_eq!(listed, [(QUEUE, true), ("other", false)]);
        assert!(is_queue_damaged(&engine.queue(NS, QUEUE).await));
        let resumed = engine.act_on_queue(NS, QUEUE, QueueAct::Resume, &by("it is back")).await;
        assert!(is_queue_damaged(&resumed));
        let conditions = async || engine.status(NS).await.conditions;
        eventually("the status tells", async || {
            conditions().await.iter().any(|one| one.kind == "QueuesDamaged")
        })
        .await;
        let told = engine.doctor(false).await.unwrap().differences;
        assert!(told.iter().any(|one| one.contains(&format!("{NS}/{QUEUE}"))), "{told:?}");
        // Set anew it is as it was: paused, until it is resumed.
        engine.set_queue(NS, QUEUE, &policy, &by("set anew")).await.unwrap();
        assert!(hand.claim(1, Span::millis(500)).await.is_empty(), "{damage}");
        engine.act_on_queue(NS, QUEUE, QueueAct::Resume, &by("it is back")).await.unwrap();
        hand.succeed(&[hand.one().await]).await;
        eventually("the status is well", async || conditions().await.is_empty()).await;
        engine.stop().await;
    }
}

#[tokio::test]
async fn a_task_is_offered_only_under_the_namespace_of_its_run() {
    let url = database().await;
    let engine = node(&url, |options| options.tuning.check_every = Duration::MAX).await;
    engine.register("other", &chain("one", &["a"])).await.unwrap();
    engine.start_run("other", start("one", "1")).await.unwrap();
    execute(&url, format!("update ready set namespace = '{NS}'")).await;
    let hand = Hand::new(&engine);
    assert!(hand.claim(1, Span::secs(2)).await.is_empty());
    let told = engine.doctor(true).await.unwrap().differences;
    assert!(told.iter().any(|one| one.contains("of namespace 'other'")), "{told:?}");
    assert!(engine.doctor(false).await.unwrap().differences.is_empty());
    assert!(hand.claim(1, Span::millis(500)).await.is_empty());
}

#[tokio::test]
async fn a_task_whose_rank_is_none_is_ranked_again() {
    let url = database().await;
    for damage in ["priority = null", "priority = 50", "retry = null", "retry = true"] {
        let engine = node(&url, |_| {}).await;
        engine.register(NS, &chain("one", &["a"])).await.unwrap();
        let policy = QueuePolicy { concurrency: Some(1), ..QueuePolicy::default() };
        engine.set_queue(NS, QUEUE, &policy, &by("set")).await.unwrap();
        engine.run_once(BackgroundTask::KeepQueues).await.unwrap();
        begin(&engine).await;
        execute(&url, format!("update ready set {damage}")).await;
        let hand = Hand::new(&engine);
        hand.succeed(&[hand.one().await]).await;
        engine.stop().await;
    }
}

#[tokio::test]
async fn a_permit_of_a_task_that_there_is_not_is_taken_back() {
    for leased in ["true", "false"] {
        let url = database().await;
        let engine = node(&url, |_| {}).await;
        engine.register(NS, &chain("one", &["a"])).await.unwrap();
        let policy = QueuePolicy { concurrency: Some(1), ..QueuePolicy::default() };
        engine.set_queue(NS, QUEUE, &policy, &by("set")).await.unwrap();
        execute(
            &url,
            format!(
                "insert into permits (run_id, step, action, attempt, id, namespace, queue, fair_key, node, given_at, \
                 leased, look_at) select gen_random_uuid(), 'a', 'forward', 1, gen_random_uuid(), '{NS}', '{QUEUE}', '-', \
                 max(id), now(), {leased}, now() + interval '9 years' from nodes"
            ),
        )
        .await;
        begin(&engine).await;
        let hand = Hand::new(&engine);
        hand.succeed(&[hand.one().await]).await;
        engine.stop().await;
    }
}

#[tokio::test]
async fn a_run_that_waits_for_its_queue_says_so_in_its_summary() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    engine.act_on_queue(NS, QUEUE, QueueAct::Pause, &by("maintenance")).await.unwrap();
    let run = begin(&engine).await;
    let summary = async || engine.run(NS, run, None).await.unwrap().summary;
    assert!(summary().await.contains("was paused by ann: maintenance"), "{}", summary().await);
    let policy = QueuePolicy { concurrency: Some(1), ..QueuePolicy::default() };
    engine.set_queue(NS, QUEUE, &policy, &by("set")).await.unwrap();
    engine.act_on_queue(NS, QUEUE, QueueAct::Resume, &by("it is back")).await.unwrap();
    assert!(summary().await.contains("has a limited concurrency"), "{}", summary().await);
}

#[tokio::test]
async fn a_job_that_cannot_be_read_is_listed_and_can_be_stopped() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    begin(&engine).await;
    let asked = r#"{"verb":"pause","runs":{"workflow":"one"},"reason":"a test","rate":1}"#;
    let mut made = Vec::new();
    for _ in 0..2 {
        let asked = serde_json::from_str(asked).unwrap();
        made.push(engine.create_job(NS, "ann", asked, None).await.unwrap().id);
    }
    let broken = made[0];
    execute(&url, format!("update jobs set asked = '{{', state = 'paused' where id = '{broken}'"))
        .await;
    let listed = engine.jobs(NS, None, None, 10).await.unwrap().items;
    let listed: Vec<_> = listed.iter().map(|job| (job.id, job.damaged.is_some())).collect();
    assert_eq!(listed, [(made[1], false), (broken, true)]);
    let shown = engine.job(NS, broken).await.unwrap().damaged.unwrap();
    assert!(shown.contains("column asked"), "{shown}");
    let resumed = engine.resume_job(NS, broken, &by("go on")).await;
    assert!(matches!(resumed, Err(Error::Conflict { code: "job_damaged", .. })), "{resumed:?}");
    let stopped = engine.stop_job(NS, broken, &by("it is damaged")).await.unwrap();
    assert_eq!((stopped.state, stopped.damaged.is_some()), (JobState::Stopped, true));
}

#[tokio::test]
async fn a_migration_that_cannot_be_read_is_listed_and_stops() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let second = chain("one", &["a"]).replace(r#""version":1"#, r#""version":2"#);
    engine.register(NS, &second).await.unwrap();
    let new = serde_json::from_str(r#"{"from":1,"to":2,"reason":"a test"}"#).unwrap();
    let made = engine.start_migration(NS, "one", &new, &by("a test")).await.unwrap().id;
    execute(&url, "update migrations set mapping = '{'").await;
    let listed = engine.migrations(NS, "one", None, 10).await.unwrap().items;
    assert_eq!((listed[0].id, listed[0].damaged.is_some()), (made, true));
    assert!(engine.migration(NS, "one", made).await.unwrap().damaged.is_some());
}

#[tokio::test]
async fn runs_that_a_pause_holds_which_is_gone_are_let_go() {
    for by_hand in [true, false] {
        let url = database().await;
        let change = |options: &mut backstitch_engine::Options| {
            options.tuning.check_every = if by_hand { Duration::MAX } else { Duration::ZERO };
        };
        let engine = node(&url, change).await;
        engine.register(NS, &chain("one", &["a"])).await.unwrap();
        engine.pause_workflow(NS, "one", &by("a test")).await.unwrap();
        let run = begin(&engine).await;
        let state = async || engine.run(NS, run, None).await.unwrap().state;
        assert_eq!(state().await, State::Paused);
        execute(&url, "delete from workflow_pauses").await;
        if by_hand {
            engine.resume_workflow(NS, "one", &by("go on")).await.unwrap();
        } else {
            engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        }
        eventually("it goes on", async || state().await == State::Queued).await;
        engine.stop().await;
    }
}

#[tokio::test]
async fn the_tree_of_a_run_with_a_damaged_child_shows_it_as_damaged() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let child = r#"{"id":"kid","child":{"workflow":"one","input":{"path":"/input"}}}"#;
    let parent = format!(r#"{{"name":"parent","version":1,"steps":[{child}]}}"#);
    engine.register(NS, &parent).await.unwrap();
    let root = engine.start_run(NS, start("parent", "1")).await.unwrap().id;
    let view = async || engine.run(NS, root, None).await.unwrap();
    let of = |view: RunView| view.steps[0].child;
    eventually("it has a child", async || match of(view().await) {
        Some(child) => engine.run(NS, child, None).await.is_ok(),
        None => false,
    })
    .await;
    let child = of(view().await).unwrap();
    engine.stop().await;
    execute(&url, format!("update journal set payloads = 'garbage' where run_id = '{child}'"))
        .await;
    let engine = node(&url, |_| {}).await;
    let runs = engine.tree(NS, root).await.unwrap().runs;
    assert_eq!(runs.len(), 2);
    let (parent, step) = (runs[1].parent, runs[1].step.as_ref().map(ToString::to_string));
    assert_eq!((runs[1].run, parent, step.as_deref()), (child, Some(root), Some("kid")));
    assert!(runs[1].conditions.iter().any(|one| one == "JournalDamaged"), "{runs:?}");
    assert!(matches!(engine.tree(NS, child).await, Err(Error::Damaged(_))));
}

#[tokio::test]
async fn a_document_with_numbers_beyond_numeric_is_no_damage() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    for input in [r#"{"a":1e-20000}"#, r#"{"a":1}"#] {
        engine.start_run(NS, start("one", input)).await.unwrap();
    }
    let mut outside = PgConnection::connect(&url).await.unwrap();
    let damaged: i64 = sqlx::query_scalar("select count(*) from backstitch.damaged_record")
        .fetch_one(&mut outside)
        .await
        .unwrap();
    assert_eq!(damaged, 0);
    let shown: Vec<String> =
        sqlx::query_scalar("select document::text from backstitch.document order by 1")
            .fetch_all(&mut outside)
            .await
            .unwrap();
    assert!(shown.contains(&r#"{"a": 1}"#.to_owned()), "{shown:?}");
    assert!(shown.contains(&r#""{\"a\":1e-20000}""#.to_owned()), "{shown:?}");
}

#[tokio::test]
async fn a_subscription_that_cannot_be_read_stands_and_holds_up_no_other() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    let spec = || serde_json::from_str(r#"{"workflow":"one"}"#).unwrap();
    for (namespace, name) in [("other", "good"), (NS, "bad"), (NS, "good")] {
        engine.register(namespace, &chain("one", &["a"])).await.unwrap();
        engine.put_subscription(namespace, name, spec(), &by("set")).await.unwrap();
    }
    execute(&url, "update subscription set spec = '{' where name = 'bad'").await;
    for namespace in [NS, "other"] {
        let events = serde_json::from_str(r#"[{"type":"t","stream":"s:1"}]"#).unwrap();
        let drafts = EventDraft::of_request(events, "ann", engine.event_limit()).unwrap();
        engine.append_events(&Arc::from(namespace), drafts).await.unwrap();
    }
    let started =
        async |namespace, name| engine.subscription(namespace, name).await.unwrap().started;
    eventually("the others start runs", async || {
        started("other", "good").await == 1 && started(NS, "good").await == 1
    })
    .await;
    let listed = engine.subscriptions(NS, None, 10).await.unwrap().items;
    let code = |name: &str| {
        let one = listed.iter().find(|one| one.name == name).unwrap();
        one.stopped.as_ref().map(|stopped| stopped.code.clone())
    };
    assert_eq!((code("bad").as_deref(), code("good")), (Some("subscription_damaged"), None));
    let paused = engine.pause_subscription(NS, "bad", true, &by("a test")).await;
    let is_told = matches!(paused, Err(Error::Conflict { code: "subscription_damaged", .. }));
    assert!(is_told, "{paused:?}");
    engine.put_subscription(NS, "bad", spec(), &by("set anew")).await.unwrap();
    eventually("it goes on where it stood", async || started(NS, "bad").await == 1).await;
}

#[tokio::test]
async fn an_early_signal_that_cannot_be_read_is_refused_and_told() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    let waits = r#"{"name":"waits","version":1,"steps":[{"id":"w","wait":{"signal":"go"}}]}"#;
    engine.register(NS, waits).await.unwrap();
    execute(
        &url,
        format!(
            "insert into early_signals (namespace, workflow, key, signal, data, actor) \
             values ('{NS}', 'waits', 'k', 'go', '{{', 'ann')"
        ),
    )
    .await;
    let mut keyed = start("waits", "1");
    keyed.key = Some("k".to_owned());
    let run = engine.start_run(NS, keyed).await.unwrap().id;
    eventually("the run tells of it", async || {
        let conditions = engine.run(NS, run, None).await.unwrap().conditions;
        conditions.iter().any(|one| one.kind == "SignalRefused")
    })
    .await;
}
