//! Governed queues: what holds over all nodes, also when one dies, and in which order tasks go.

use std::time::{Duration, Instant};

use backstitch_engine::{BackgroundTask, Engine, QueueAct};
use backstitch_saga::protocol::{
    BreakerPolicy, BreakerState, FailureKind, Outcome, QueuePolicy, Rate, RetryBudget, TaskOffer,
    WaitKind,
};
use backstitch_saga::{RunId, Span};
use backstitch_tests::node::{Hand, NS, by, chain, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};

const QUEUE: &str = "default";

/// Nodes that know that the queue has this policy.
async fn governed(url: &str, nodes: usize, policy: &QueuePolicy) -> Vec<Engine> {
    let mut engines = Vec::new();
    for _ in 0..nodes {
        let change = |options: &mut backstitch_engine::Options| {
            options.tuning.dead_after = Duration::from_secs(2);
        };
        engines.push(node(url, change).await);
    }
    engines[0].register(NS, &chain("one", &["a"])).await.unwrap();
    engines[0].set_queue(NS, QUEUE, policy, &by("set")).await.unwrap();
    for engine in &engines {
        engine.run_once(BackgroundTask::KeepQueues).await.unwrap();
    }
    engines
}

async fn act(engine: &Engine, act: QueueAct) {
    engine.act_on_queue(NS, QUEUE, act, &by("a test")).await.unwrap();
}

async fn starts(engine: &Engine, count: usize) -> Vec<RunId> {
    let mut runs = Vec::new();
    for _ in 0..count {
        runs.push(engine.start_run(NS, start("one", "1")).await.unwrap().id);
    }
    runs
}

async fn conditions(engine: &Engine, run: RunId) -> Vec<String> {
    let view = engine.run(NS, run, None).await.unwrap();
    view.conditions.into_iter().map(|condition| condition.kind).collect()
}

/// Returns the wait of the only step of a run.
async fn why(engine: &Engine, run: RunId) -> (WaitKind, String) {
    engine.run_once(BackgroundTask::Workers).await.unwrap();
    let mut why = engine.why(NS, run).await.unwrap();
    assert_eq!(why.waits_for.len(), 1, "{why:?}");
    let wait = why.waits_for.remove(0);
    (wait.kind, wait.message)
}

#[tokio::test]
async fn a_cap_holds_over_all_nodes_and_when_one_dies() {
    let url = database().await;
    let policy = QueuePolicy { concurrency: Some(3), ..QueuePolicy::default() };
    let mut nodes = governed(&url, 2, &policy).await;
    let mut runs = starts(&nodes[1], 2).await;
    let doomed = Hand::new(&nodes[0]);
    let began = Instant::now();
    let mut taken = 0;
    while taken < 2 {
        taken += doomed.claim(2, Span::secs(30)).await.len();
    }
    let slow = chain("slow", &["a"]).replace(r#""1s","attempt":"10s""#, r#""1m","attempt":"1m""#);
    nodes[1].register(NS, &slow).await.unwrap();
    for _ in 0..10 {
        runs.push(nodes[1].start_run(NS, start("slow", "1")).await.unwrap().id);
    }
    // The node dies with two tasks in a worker's hands: they are held until their leases of a second are over.
    drop(doomed);
    drop(nodes.remove(0));
    let hand = Hand::new(&nodes[0]);
    let mut held = hand.claim(10, Span::secs(30)).await;
    assert_eq!(held.len(), 1, "only one was left");
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let permits = "select count(*) from permits";
    let (mut done, mut most) = (0, 0);
    while done < 12 {
        let given: i64 = sqlx::query_scalar(permits).fetch_one(&mut connection).await.unwrap();
        assert!(given <= 3, "{given} permits");
        let lost = if began.elapsed() < Duration::from_millis(950) { 2 } else { 0 };
        assert!(held.len() + lost <= 3, "{} and {lost} are held", held.len());
        most = most.max(held.len());
        // What is tried again has a short lease, and goes only to a worker that has nothing else; of the others one
        // goes when all that may be held are.
        let last = done + held.len() >= 10 || held.len() == 3;
        let mut ended: Vec<TaskOffer> = held.extract_if(.., |task| task.attempt > 1).collect();
        if ended.is_empty() && last && !held.is_empty() {
            ended.push(held.remove(0));
        }
        done += ended.len();
        let answers = hand.succeed(&ended).await;
        assert!(answers.iter().all(|answer| answer.status == 200), "{answers:?} for {ended:?}");
        held.extend(hand.claim(10, Span::millis(200)).await);
    }
    assert_eq!(most, 3, "and all that is allowed is used");
    for run in runs {
        let view = nodes[0].wait(NS, run, Duration::from_secs(60)).await.unwrap();
        assert_eq!(view.outcome, Some(Outcome::Succeeded));
    }
    let left: i64 = sqlx::query_scalar(permits).fetch_one(&mut connection).await.unwrap();
    assert_eq!(left, 0, "nothing is held any more");
    assert_eq!(nodes[0].doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn no_window_sees_more_than_the_burst_and_the_rate() {
    let url = database().await;
    let rate = Rate { limit: 20, per: Span::secs(1), burst: Some(5) };
    let policy = QueuePolicy { rate: Some(rate), ..QueuePolicy::default() };
    let nodes = governed(&url, 2, &policy).await;
    starts(&nodes[0], 40).await;
    let mut workers = tokio::task::JoinSet::new();
    for engine in nodes.clone() {
        workers.spawn(async move {
            let hand = Hand::new(&engine);
            let mut at = Vec::new();
            loop {
                let tasks = hand.claim(10, Span::secs(1)).await;
                if tasks.is_empty() {
                    return at;
                }
                at.extend(std::iter::repeat_n(Instant::now(), tasks.len()));
                hand.succeed(&tasks).await;
            }
        });
    }
    let mut at: Vec<Instant> = workers.join_all().await.into_iter().flatten().collect();
    at.sort_unstable();
    assert_eq!(at.len(), 40);
    for (first, from) in at.iter().enumerate() {
        for (more, until) in at[first..].iter().enumerate() {
            // A hand-out follows its token within moments.
            let span = until.duration_since(*from).as_secs_f64() + 0.3;
            let allowed = 5.0 + 20.0 * span;
            assert!((more + 1) as f64 <= allowed, "{} in {span} s", more + 1);
        }
    }
    assert!(at[39].duration_since(at[0]) > Duration::from_millis(1_400));
}

#[tokio::test]
async fn workers_that_poll_once_and_go_do_not_keep_a_permit_from_those_that_come() {
    let engine = node(&database().await, |options| {
        options.tuning.credit_grace = Duration::from_millis(400);
    })
    .await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let policy = QueuePolicy { concurrency: Some(1), ..QueuePolicy::default() };
    engine.set_queue(NS, QUEUE, &policy, &by("set")).await.unwrap();
    engine.run_once(BackgroundTask::KeepQueues).await.unwrap();
    // Each is another worker, as when every poll is made by a process of its own.
    let newcomer = async || Hand::new(&engine).claim(1, Span::millis(150)).await;
    for _ in 0..3 {
        assert!(newcomer().await.is_empty());
    }
    starts(&engine, 1).await;
    let mut in_vain = 0;
    while newcomer().await.is_empty() {
        in_vain += 1;
        assert!(in_vain < 4, "the task is put aside for workers that are gone");
    }
}

#[tokio::test]
async fn a_worker_that_polls_without_waiting_gets_what_it_comes_back_for() {
    let policy = QueuePolicy { concurrency: Some(1), ..QueuePolicy::default() };
    let nodes = governed(&database().await, 1, &policy).await;
    starts(&nodes[0], 3).await;
    let hand = Hand::new(&nodes[0]);
    let limit = Instant::now() + Duration::from_secs(60);
    let mut done = 0;
    while done < 3 {
        assert!(Instant::now() < limit, "{done} were done");
        done += hand.succeed(&hand.claim(1, Span::ZERO).await).await.len();
        // The pause between its polls.
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_breaker_opens_without_spending_attempts_and_one_probe_closes_it() {
    let url = database().await;
    let breaker = BreakerPolicy {
        failure_ratio: 0.5,
        min_calls: 4,
        window: Span::secs(30),
        open_for: Span::secs(8),
    };
    let policy = QueuePolicy { breaker: Some(breaker), ..QueuePolicy::default() };
    let nodes = governed(&url, 2, &policy).await;
    let runs = starts(&nodes[0], 10).await;
    let (hand, other) = (Hand::new(&nodes[0]), Hand::new(&nodes[1]));
    let mut failed = Vec::new();
    while failed.len() < 4 {
        failed.extend(hand.claim(4 - u32::try_from(failed.len()).unwrap(), Span::secs(30)).await);
    }
    for task in &failed {
        // Told to the other node, which owes this worker nothing for it.
        other.fail(task, FailureKind::Unavailable).await;
    }
    let breaker = async |engine: &Engine| engine.queue(NS, QUEUE).await.unwrap().breaker.unwrap();
    while breaker(&nodes[1]).await.state == BreakerState::Closed {
        tokio::task::yield_now().await;
    }
    let opened = Instant::now();
    for engine in &nodes {
        engine.run_once(BackgroundTask::KeepQueues).await.unwrap();
    }
    assert!(other.claim(10, Span::millis(200)).await.is_empty(), "no node hands out");
    let waiting = runs.iter().find(|run| failed.iter().all(|task| task.run != **run)).unwrap();
    assert_eq!(conditions(&nodes[1], *waiting).await, ["DestinationUnavailable"]);
    assert!(opened.elapsed() < Duration::from_secs(8), "the test is too slow to tell");
    let probe = other.claim(10, Span::secs(30)).await;
    assert_eq!(probe.len(), 1, "one probe goes out");
    assert!(hand.claim(10, Span::millis(300)).await.is_empty(), "and no other");
    other.succeed(&probe).await;
    let mut done = 1;
    while done < 10 {
        for hand in [&hand, &other] {
            let tasks = hand.claim(10, Span::millis(200)).await;
            assert!(hand.succeed(&tasks).await.iter().all(|answer| answer.status == 200));
            done += tasks.len();
        }
    }
    assert_eq!(breaker(&nodes[0]).await.state, BreakerState::Closed);
    for run in runs {
        let view = nodes[0].wait(NS, run, Duration::from_secs(60)).await.unwrap();
        assert_eq!(view.outcome, Some(Outcome::Succeeded));
        assert_eq!(view.steps[0].attempts, 1, "only the one that succeeded was spent");
    }
    let opened: f64 = nodes.iter().map(|engine| metric(engine, "breakers_opened_total")).sum();
    assert!((opened - 1.0).abs() < 0.1, "it opened {opened} times");
}

/// Returns the order in which the tasks of these runs go, one at a time: `key` and `priority` of each.
async fn order(policy: &QueuePolicy, runs: &[(&str, &str)]) -> Vec<String> {
    let nodes = governed(&database().await, 1, policy).await;
    let engine = &nodes[0];
    act(engine, QueueAct::Pause).await;
    let mut labels = std::collections::HashMap::new();
    for (key, priority) in runs {
        let mut run = start("one", "1");
        for (name, value) in [("customer", key), ("urgency", priority)] {
            if !value.is_empty() {
                run.labels.insert(name.to_owned(), (*value).to_owned());
            }
        }
        let id = engine.start_run(NS, run).await.unwrap().id;
        labels.insert(id, format!("{key}{priority}"));
    }
    let hand = Hand::new(engine);
    assert!(hand.claim(1, Span::millis(300)).await.is_empty(), "it is paused");
    let any = *labels.keys().next().unwrap();
    assert_eq!(conditions(engine, any).await, ["QueuePaused"]);
    let (kind, message) = why(engine, any).await;
    assert_eq!(kind, WaitKind::QueuePaused);
    assert!(message.contains("paused by ann"), "{message}");
    act(engine, QueueAct::Resume).await;
    let mut order = Vec::new();
    for _ in runs {
        let task = hand.one().await;
        order.push(labels[&task.run].clone());
        hand.succeed(&[task]).await;
    }
    order
}

#[tokio::test]
async fn keys_take_turns_and_what_is_urgent_goes_first() {
    let policy = QueuePolicy {
        fair_by: Some("customer".to_owned()),
        priority_by: Some("urgency".to_owned()),
        ..QueuePolicy::default()
    };
    let runs = [
        ("a", ""),
        ("a", ""),
        ("a", ""),
        ("b", ""),
        ("c", "9"),
        ("a", "9"),
        ("", ""),
        ("b", "0"),
        ("b", ""),
    ];
    // What is urgent first; then keys in turn, those without a key as one; the least urgent last.
    let order = order(&policy, &runs).await;
    assert_eq!(order, ["a9", "c9", "", "a", "b", "a", "b", "a", "b0"]);
}

#[tokio::test]
async fn a_key_has_a_cap_and_a_rate_of_its_own() {
    let rate = Rate { limit: 1, per: Span::secs(3_600), burst: Some(3) };
    let policy = QueuePolicy {
        fair_by: Some("customer".to_owned()),
        concurrency_per_key: Some(2),
        rate_per_key: Some(rate),
        ..QueuePolicy::default()
    };
    let nodes = governed(&database().await, 1, &policy).await;
    let mut keys = std::collections::HashMap::new();
    for key in ["a", "a", "a", "a", "a", "b"] {
        let mut run = start("one", "1");
        run.labels.insert("customer".to_owned(), key.to_owned());
        keys.insert(nodes[0].start_run(NS, run).await.unwrap().id, key);
    }
    let hand = Hand::new(&nodes[0]);
    let all = async |count: usize| {
        let mut tasks: Vec<TaskOffer> = Vec::new();
        while tasks.len() < count {
            tasks.extend(hand.claim(10, Span::secs(30)).await);
        }
        let mut names: Vec<&str> = tasks.iter().map(|task| keys[&task.run]).collect();
        names.sort_unstable();
        (tasks, names.concat())
    };
    let (tasks, names) = all(3).await;
    assert_eq!(names, "aab", "two of a at once");
    assert!(hand.claim(10, Span::millis(300)).await.is_empty());
    hand.succeed(&tasks).await;
    let (tasks, names) = all(1).await;
    assert_eq!(names, "a", "three of a in all");
    hand.succeed(&tasks).await;
    assert!(hand.claim(10, Span::millis(300)).await.is_empty());
    let view = nodes[0].queue(NS, QUEUE).await.unwrap();
    assert_eq!((view.waiting, view.held), (2, 0));
    nodes[0].run_once(BackgroundTask::Workers).await.unwrap();
    for run in keys.keys() {
        let told = nodes[0].why(NS, *run).await.unwrap();
        assert!(told.waits_for.iter().all(|wait| wait.kind == WaitKind::QueueLimited), "{told:?}");
    }
}

#[tokio::test]
async fn retries_beyond_the_budget_wait_and_first_attempts_go_on() {
    let budget = RetryBudget { ratio: 0.0, min_per_s: 0.01 };
    let policy = QueuePolicy { retry_budget: Some(budget), ..QueuePolicy::default() };
    let nodes = governed(&database().await, 1, &policy).await;
    let engine = &nodes[0];
    let runs = starts(engine, 5).await;
    let hand = Hand::new(engine);
    for _ in 0..5 {
        let task = hand.one().await;
        hand.fail(&task, FailureKind::Retryable).await;
    }
    let mut retries = Vec::new();
    while retries.is_empty() {
        retries.extend(hand.claim(10, Span::secs(30)).await);
    }
    assert_eq!(retries.iter().map(|task| task.attempt).collect::<Vec<_>>(), [2]);
    assert!(hand.claim(10, Span::millis(300)).await.is_empty(), "the budget is used up");
    engine.run_once(BackgroundTask::KeepQueues).await.unwrap();
    let deferred: Vec<RunId> =
        runs.into_iter().filter(|run| retries.iter().all(|task| task.run != *run)).collect();
    for run in &deferred {
        assert_eq!(conditions(engine, *run).await, ["RetryBudgetExhausted"]);
        assert_eq!(why(engine, *run).await.0, WaitKind::RetryBudgetExhausted);
        let view = engine.run(NS, *run, None).await.unwrap();
        assert_eq!(view.steps[0].attempts, 1, "waiting spends nothing");
    }
    starts(engine, 1).await;
    assert_eq!(hand.one().await.attempt, 1);
}

#[tokio::test]
async fn a_task_whose_permit_is_gone_is_not_leased() {
    let url = database().await;
    let policy = QueuePolicy { concurrency: Some(2), ..QueuePolicy::default() };
    let nodes = governed(&url, 1, &policy).await;
    let mut connection = PgConnection::connect(&url).await.unwrap();
    // Every permit lapses before it can be used.
    for text in [
        "create function lapse() returns trigger language plpgsql as \
         $$ begin delete from permits where id = new.id; return null; end $$",
        "create trigger lapse after insert on permits for each row execute function lapse()",
    ] {
        sqlx::query(text).execute(&mut connection).await.unwrap();
    }
    let runs = starts(&nodes[0], 1).await;
    let hand = Hand::new(&nodes[0]);
    assert!(hand.claim(1, Span::millis(500)).await.is_empty());
    assert!(metric(&nodes[0], "permits_given_total") >= 1.0);
    let history = nodes[0].history(NS, runs[0], None, 100).await.unwrap();
    assert!(history.items.iter().all(|entry| !entry.event.text().contains("leased")));
    sqlx::query("drop trigger lapse on permits").execute(&mut connection).await.unwrap();
    let task = hand.one().await;
    assert_eq!(task.attempt, 1);
    hand.succeed(&[task]).await;
}

#[tokio::test]
async fn a_permit_of_a_node_that_is_gone_keeps_nobody_waiting() {
    let url = database().await;
    let policy = QueuePolicy { concurrency: Some(1), ..QueuePolicy::default() };
    let nodes = governed(&url, 1, &policy).await;
    let run = starts(&nodes[0], 1).await[0];
    let mut connection = PgConnection::connect(&url).await.unwrap();
    // What a node leaves behind that dies between a permit and the lease.
    let given = sqlx::query(
        "with gone as (insert into nodes (name, stopped_at) values ('gone', clock_timestamp()) returning id) \
         insert into permits (run_id, step, action, attempt, id, namespace, queue, fair_key, node, given_at, look_at) \
         select r.run_id, r.step, r.action, r.attempt, gen_random_uuid(), r.namespace, r.queue, '', g.id, \
         clock_timestamp(), clock_timestamp() + interval '10 seconds' from ready r, gone g",
    )
    .execute(&mut connection)
    .await
    .unwrap();
    assert_eq!(given.rows_affected(), 1);
    // Long before the permit lapses.
    nodes[0].run_once(BackgroundTask::KeepQueues).await.unwrap();
    let left = "select count(*) from permits p join nodes n on n.id = p.node where n.name = 'gone'";
    let left: i64 = sqlx::query_scalar(left).fetch_one(&mut connection).await.unwrap();
    assert_eq!(left, 0, "it is taken back at once");
    assert_eq!(Hand::new(&nodes[0]).one().await.run, run);
}

#[tokio::test]
async fn tasks_that_waited_before_the_policy_are_governed_and_after_it_free() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    starts(&engine, 6).await;
    let policy = QueuePolicy { concurrency: Some(2), ..QueuePolicy::default() };
    engine.set_queue(NS, QUEUE, &policy, &by("set")).await.unwrap();
    engine.run_once(BackgroundTask::KeepQueues).await.unwrap();
    let hand = Hand::new(&engine);
    let mut held = Vec::new();
    while held.len() < 2 {
        held.extend(hand.claim(10, Span::secs(30)).await);
    }
    assert!(hand.claim(10, Span::millis(300)).await.is_empty());
    assert_eq!(engine.queue(NS, QUEUE).await.unwrap().held, 2);
    engine.remove_queue(NS, QUEUE, &by("lift")).await.unwrap();
    while held.len() < 6 {
        held.extend(hand.claim(10, Span::secs(30)).await);
    }
    hand.succeed(&held).await;
    assert!(engine.queue(NS, QUEUE).await.is_err());
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
}
