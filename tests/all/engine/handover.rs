//! The hand-over of tasks to workers.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use backstitch_engine::{BackgroundTask, Error};
use backstitch_saga::protocol::{ClaimTasks, Outcome};
use backstitch_saga::{Action, Command, Span};
use backstitch_tests::node::{Hand, NS, by, chain, fan, metric, node, start};
use backstitch_tests::postgres::database;
use uuid::Uuid;

#[tokio::test]
async fn a_task_born_between_two_polls_waits_for_its_worker() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let hand = Hand::new(&engine);
    engine.start_run(NS, start("two", "1")).await.unwrap();
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    let before = metric(&engine, "spilled_total");
    // It was put aside at the report, so that this poll need not wait.
    let next = hand.claim(1, Span::ZERO).await;
    assert_eq!(next[0].step.to_string(), "b");
    assert_eq!(metric(&engine, "spilled_total"), before);
}

#[tokio::test]
async fn what_is_never_fetched_is_given_to_another() {
    let engine = node(&database().await, |options| {
        options.tuning.credit_grace = Duration::from_millis(200);
    })
    .await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let lost = Hand::new(&engine);
    assert!(lost.claim(5, Span::ZERO).await.is_empty());
    engine.start_run(NS, start("one", "1")).await.unwrap();
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    assert_eq!(task.attempt, 1, "it never left the server, so it is the same attempt");
    hand.succeed(&[task]).await;
}

#[tokio::test]
async fn what_is_revoked_before_it_is_fetched_does_not_reach_its_worker() {
    let engine = node(&database().await, |options| {
        options.tuning.credit_grace = Duration::from_secs(60);
    })
    .await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let hand = Hand::new(&engine);
    assert!(hand.claim(2, Span::ZERO).await.is_empty());
    let before = metric(&engine, "born_claimed_total");
    let run = engine.start_run(NS, start("one", "1")).await.unwrap().id;
    assert_eq!(metric(&engine, "born_claimed_total"), before + 1.0, "it is put aside");
    engine.command(NS, run, Command::Cancel { by: by("a mistake") }).await.unwrap();
    // It is not told of what it was to do, only of what is to be undone; there is room for both.
    let tasks = hand.claim(2, Span::secs(30)).await;
    assert_eq!(tasks.len(), 1, "{tasks:?}");
    assert_eq!(tasks[0].action, Action::Compensate);
    engine.command(NS, run, Command::Kill { by: by("enough") }).await.unwrap();
    // The room that the dropped task took is there again.
    engine.start_run(NS, start("one", "2")).await.unwrap();
    assert_eq!(metric(&engine, "spilled_total"), 0.0);
    assert_eq!(hand.claim(2, Span::ZERO).await.len(), 1);
}

#[tokio::test]
async fn workers_that_poll_once_and_go_do_not_keep_a_task_from_those_that_come() {
    let engine = node(&database().await, |options| {
        options.tuning.credit_grace = Duration::from_millis(400);
    })
    .await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    // Each is another worker, as when every poll is made by a process of its own.
    let newcomer = async || Hand::new(&engine).claim(1, Span::millis(150)).await;
    for _ in 0..3 {
        assert!(newcomer().await.is_empty());
    }
    engine.start_run(NS, start("one", "1")).await.unwrap();
    let mut in_vain = 0;
    while newcomer().await.is_empty() {
        in_vain += 1;
        assert!(
            in_vain < 20,
            "the task is put aside for workers that are gone, one after the other"
        );
    }
}

#[tokio::test]
async fn a_worker_gets_only_what_it_can_do() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let other = ClaimTasks {
        worker: "other".to_owned(),
        session: Uuid::new_v4(),
        queues: [("default".to_owned(), vec!["something else".to_owned()])].into(),
        max: 10,
        wait: Span::millis(300),
        holding: None,
    };
    let (nothing, started) = tokio::join!(engine.claim(NS, other.clone()), async {
        engine.start_run(NS, start("one", "1")).await.unwrap()
    });
    assert!(nothing.unwrap().tasks.is_empty());
    // The same session in another namespace is somebody else.
    assert!(engine.claim("elsewhere", other).await.is_err());
    let task = Hand::new(&engine).one().await;
    assert_eq!(task.run, started.id);
}

#[tokio::test]
async fn tasks_are_spread_among_those_who_wait() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &fan("fan", 100, "\"all\"")).await.unwrap();
    let hands: Vec<Hand> = (0..4).map(|_| Hand::new(&engine)).collect();
    for hand in &hands {
        assert!(hand.claim(10, Span::ZERO).await.is_empty());
    }
    let items: Vec<String> = (0..40).map(|item| item.to_string()).collect();
    engine.start_run(NS, start("fan", &format!("[{}]", items.join(",")))).await.unwrap();
    for hand in &hands {
        assert_eq!(hand.claim(10, Span::ZERO).await.len(), 10);
    }
}

#[tokio::test]
async fn a_backlog_larger_than_memory_is_worked_off() {
    let engine = node(&database().await, |options| {
        options.tuning.hint_limit = 10;
        options.tuning.cache_weight = 10_000;
    })
    .await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let starts: Vec<_> = (0..600)
        .map(|_| {
            let engine = engine.clone();
            tokio::spawn(async move { engine.start_run(NS, start("one", "1")).await.unwrap() })
        })
        .collect();
    for start in starts {
        start.await.unwrap();
    }
    let hand = Hand::new(&engine);
    let mut done = 0;
    while done < 600 {
        let tasks = hand.claim(50, Span::secs(30)).await;
        assert!(!tasks.is_empty(), "{done} were done");
        done += tasks.len();
        assert!(hand.succeed(&tasks).await.iter().all(|answer| answer.status == 200));
    }
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    assert_eq!(engine.run_once(BackgroundTask::LookForTasks).await.unwrap(), 0);
}

#[tokio::test]
async fn a_long_fan_out_is_snapshot_and_goes_on_elsewhere() {
    let url = database().await;
    let first = node(&url, |_| {}).await;
    first.register(NS, &fan("fan", 200, "\"all\"")).await.unwrap();
    let items: Vec<String> = (0..6_000).map(|item| item.to_string()).collect();
    let started =
        first.start_run(NS, start("fan", &format!("[{}]", items.join(",")))).await.unwrap();
    let mut done = 0;
    let hand = Hand::new(&first);
    while done < 4_500 {
        let tasks = hand.claim(200, Span::secs(30)).await;
        done += tasks.len();
        hand.succeed(&tasks).await;
    }
    assert!(metric(&first, "snapshots_total") >= 1.0);
    first.stop().await;
    let second = node(&url, |_| {}).await;
    let hand = Hand::new(&second);
    while done < 6_001 {
        let tasks = hand.claim(200, Span::secs(30)).await;
        assert!(!tasks.is_empty());
        done += tasks.len();
        hand.succeed(&tasks).await;
    }
    let view = second.wait(NS, started.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    assert_eq!(second.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn what_was_put_aside_for_a_silent_session_goes_to_one_that_waits() {
    let engine = node(&database().await, |options| {
        options.tuning.credit_grace = Duration::from_secs(60);
    })
    .await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let silent = Hand::new(&engine);
    for _ in 0..3 {
        assert!(silent.claim(1, Span::ZERO).await.is_empty(), "it is known to come back");
    }
    engine.start_run(NS, start("one", "1")).await.unwrap();
    let taken_back = async {
        let (mut back, began) = (0, Instant::now());
        while back == 0 {
            assert!(began.elapsed() < Duration::from_secs(60), "it is taken from the silent one");
            tokio::time::sleep(Duration::from_millis(50)).await;
            back = engine.run_once(BackgroundTask::TakeBack).await.unwrap();
        }
    };
    let waiting = ClaimTasks {
        worker: "another".to_owned(),
        session: Uuid::new_v4(),
        queues: BTreeMap::from([("default".to_owned(), vec!["do".to_owned()])]),
        max: 1,
        wait: Span::secs(20),
        holding: None,
    };
    let (claimed, ()) = tokio::join!(engine.claim(NS, waiting), taken_back);
    assert_eq!(claimed.unwrap().tasks.len(), 1);
}

#[tokio::test]
async fn sessions_of_a_namespace_name_so_many_queues_and_handlers_and_no_more() {
    let engine = node(&database().await, |_| {}).await;
    let claim = |session: u128, queues: usize| ClaimTasks {
        worker: "w".to_owned(),
        session: Uuid::from_u128(session),
        queues: (0..queues)
            .map(|queue| (format!("q-{session}-{queue}"), vec!["h".to_owned()]))
            .collect(),
        max: 1,
        wait: Span::ZERO,
        holding: None,
    };
    let refused = engine.claim(NS, claim(1, 1_001)).await.unwrap_err();
    assert!(refused.to_string().contains("at most 1000 queues"), "{refused}");
    // A session, its queues and their handlers: 2,001 each.
    for session in 1..=49 {
        engine.claim(NS, claim(session, 1_000)).await.unwrap();
    }
    let too_many =
        async |session: u128, queues: usize| match engine.claim(NS, claim(session, queues)).await {
            Err(Error::Quota { code: "too_many_names", retry_after: Some(_), .. }) => true,
            Err(other) => panic!("{other}"),
            Ok(_) => false,
        };
    assert!(too_many(50, 1_000).await);
    assert!(!too_many(49, 1_000).await, "a session that asks again names nothing new");
    assert!(!too_many(51, 900).await, "what was refused is not counted");
    engine.claim("other", claim(60, 1_000)).await.unwrap();
    engine.sign_off(NS, Uuid::from_u128(1)).await.unwrap();
    assert!(!too_many(50, 1_000).await, "a session that has ended makes room");
}

#[tokio::test]
async fn a_task_that_nobody_here_waits_for_reaches_a_worker_at_another_node_at_once() {
    let url = database().await;
    let grace = |options: &mut backstitch_engine::Options| {
        options.tuning.credit_grace = Duration::from_millis(200);
        // Whoever else wants it would wait for so long.
        options.tuning.reserve_for = Duration::from_secs(60);
    };
    let (first, second) = (node(&url, grace).await, node(&url, grace).await);
    first.register(NS, &chain("one", &["a"])).await.unwrap();
    let (here, there) = (Hand::new(&first), Hand::new(&second));
    // A worker was here, and is not now.
    assert!(here.claim(1, Span::ZERO).await.is_empty());
    tokio::time::sleep(Duration::from_millis(500)).await;
    let began = Instant::now();
    let (task, _) = tokio::join!(there.one(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        first.start_run(NS, start("one", "1")).await.unwrap()
    });
    assert!(began.elapsed() < Duration::from_secs(30), "after {:?}", began.elapsed());
    there.succeed(&[task]).await;
    // One is here, and gives its task back.
    let (task, _) =
        tokio::join!(here.one(), async { first.start_run(NS, start("one", "2")).await.unwrap() });
    let began = Instant::now();
    let (again, released) = tokio::join!(there.one(), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        here.release(&task).await
    });
    assert_eq!((released.status, again.run, again.attempt), (200, task.run, task.attempt));
    assert!(began.elapsed() < Duration::from_secs(30), "after {:?}", began.elapsed());
    there.succeed(&[again]).await;
}
