//! Runs from start to end.

use std::time::Duration;

use backstitch_engine::{Error, Registered, RunFilter};
use backstitch_saga::Span;
use backstitch_saga::protocol::{FailureKind, Outcome, State};
use backstitch_tests::node::{Hand, NS, chain, fan, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};

#[tokio::test]
async fn a_chain_of_steps_runs_to_its_end() {
    let engine = node(&database().await, |_| {}).await;
    let definition = chain("three", &["a", "b", "c"]);
    assert_eq!(engine.register(NS, &definition).await.unwrap(), Registered::Created);
    assert_eq!(engine.register(NS, &definition).await.unwrap(), Registered::Unchanged);
    let hand = Hand::new(&engine);
    let started = engine.start_run(NS, start("three", r#"{"n": 1.0}"#)).await.unwrap();
    assert!(started.created);
    for step in ["a", "b", "c"] {
        let task = hand.one().await;
        assert_eq!((task.step.to_string(), task.input.text()), (step.to_owned(), r#"{"n": 1.0}"#));
        assert_eq!(hand.succeed(&[task]).await[0].status, 200);
    }
    let view = engine.wait(NS, started.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!((view.state, view.outcome), (State::Ended, Some(Outcome::Succeeded)));
    let history = engine.history(NS, started.id, None, 1_000).await.unwrap();
    let seqs: Vec<u64> = history.items.iter().map(|entry| entry.seq).collect();
    assert_eq!((seqs[0], *seqs.last().unwrap()), (1, view.seq));
    assert!(history.items[0].event.text().contains(r#""input":{"n": 1.0}"#));
    let diagnosis = engine.doctor(false).await.unwrap();
    assert_eq!((diagnosis.runs_checked, diagnosis.differences), (1, Vec::new()));
    engine.stop().await;
}

#[tokio::test]
async fn waiting_workers_get_tasks_in_the_record_that_makes_them() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let hand = Hand::new(&engine);
    let (task, started) =
        tokio::join!(hand.one(), async { engine.start_run(NS, start("two", "1")).await.unwrap() });
    assert_eq!(task.run, started.id);
    hand.succeed(&[task]).await;
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    let view = engine.wait(NS, started.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    assert_eq!(metric(&engine, "spilled_total") + metric(&engine, "born_claimed_total"), 2.0);
}

#[tokio::test]
async fn what_was_done_is_undone_in_reverse() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("three", &["a", "b", "c"])).await.unwrap();
    let hand = Hand::new(&engine);
    let started = engine.start_run(NS, start("three", "1")).await.unwrap();
    for _ in 0..2 {
        let task = hand.one().await;
        hand.succeed(&[task]).await;
    }
    let task = hand.one().await;
    hand.fail(&task, FailureKind::Permanent).await;
    for step in ["b", "a"] {
        let task = hand.one().await;
        assert_eq!((task.step.to_string().as_str(), task.name.as_str()), (step, "undo"));
        hand.succeed(&[task]).await;
    }
    let view = engine.wait(NS, started.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Compensated));
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn retries_come_when_they_are_due() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let hand = Hand::new(&engine);
    let started = engine.start_run(NS, start("one", "1")).await.unwrap();
    for attempt in 1..=3 {
        let task = hand.one().await;
        assert_eq!(task.attempt, attempt);
        hand.fail(&task, FailureKind::Retryable).await;
    }
    let view = engine.wait(NS, started.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::FailedClean));
}

#[tokio::test]
async fn a_fan_out_joins_once() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &fan("fan", 10, "\"all\"")).await.unwrap();
    let hand = Hand::new(&engine);
    let items: Vec<String> = (0..100).map(|n| n.to_string()).collect();
    let input = format!("[{}]", items.join(","));
    let started = engine.start_run(NS, start("fan", &input)).await.unwrap();
    let mut done = 0;
    while done < 101 {
        let tasks = hand.claim(7, Span::secs(30)).await;
        assert!(!tasks.is_empty() && tasks.len() <= 7);
        done += tasks.len();
        hand.succeed(&tasks).await;
    }
    let view = engine.wait(NS, started.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    let history = engine.history(NS, started.id, None, 1_000).await.unwrap();
    let joins = history.items.iter().filter(|entry| entry.event.text().starts_with(r#"{"joined""#));
    assert_eq!(joins.count(), 1);
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn a_late_report_changes_nothing() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let hand = Hand::new(&engine);
    let started = engine.start_run(NS, start("one", "1")).await.unwrap();
    let first = hand.one().await;
    // The lease of one second passes without a sign of life.
    let second = hand.one().await;
    assert_eq!((first.attempt, second.attempt), (1, 2));
    let answer = &hand.succeed(&[first]).await[0];
    assert_eq!((answer.status, answer.code.as_deref()), (409, Some("lease_lost")));
    assert_eq!(hand.succeed(&[second]).await[0].status, 200);
    let view = engine.wait(NS, started.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    let history = engine.history(NS, started.id, None, 1_000).await.unwrap();
    assert!(history.items.iter().any(|entry| entry.event.text().starts_with(r#"{"late_result""#)));
    assert!(metric(&engine, "late_results_total") >= 1.0);
}

#[tokio::test]
async fn one_key_is_one_run() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let keyed = |input: &str| {
        let mut start = start("one", input);
        start.key = Some("order 7".to_owned());
        start
    };
    let starts = (0..100).map(|_| {
        let (engine, start) = (engine.clone(), keyed(r#"{"a":1,"b":2}"#));
        tokio::spawn(async move { engine.start_run(NS, start).await.unwrap() })
    });
    let mut runs = Vec::new();
    for start in starts.collect::<Vec<_>>() {
        runs.push(start.await.unwrap());
    }
    assert_eq!(runs.iter().filter(|run| run.created).count(), 1);
    assert!(runs.iter().all(|run| run.id == runs[0].id));
    let same = engine.start_run(NS, keyed(r#"{ "b": 2, "a": 1 }"#)).await.unwrap();
    assert!(!same.created && same.id == runs[0].id);
    let other = engine.start_run(NS, keyed("3")).await.unwrap_err();
    assert!(matches!(other, Error::Conflict { code: "key_conflict", .. }), "{other}");
    let listed = engine
        .runs(NS, RunFilter { key: Some("order 7".to_owned()), limit: 10, ..RunFilter::default() })
        .await
        .unwrap();
    assert_eq!(listed.items.len(), 1);
}

#[tokio::test]
async fn a_registered_definition_that_cannot_be_read_is_told_by_a_code_of_its_own() {
    let url = database().await;
    let first = node(&url, |_| {}).await;
    first.register(NS, &chain("one", &["a"])).await.unwrap();
    first.stop().await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    sqlx::query("update definitions set body = '{zz'").execute(&mut outside).await.unwrap();
    let second = node(&url, |_| {}).await;
    let code = |error: Option<Error>| match error {
        Some(Error::Conflict { code, .. }) => code,
        other => panic!("{other:?}"),
    };
    assert_eq!(code(second.start_run(NS, start("one", "1")).await.err()), "definition_damaged");
    assert_eq!(code(second.workflow(NS, "one", Some(1)).await.err()), "definition_damaged");
    second.stop().await;
}
