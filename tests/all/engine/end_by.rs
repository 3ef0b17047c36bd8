//! Runs that are to be over by an instant: time to undo them is reserved, from how long undoing took before.

use std::time::Duration;

use backstitch_engine::Engine;
use backstitch_saga::protocol::{FailureKind, Outcome, RunView, StartRun};
use backstitch_saga::{Action, RunId, Span, Time, Timestamp};
use backstitch_tests::node::{Hand, NS, chain, node, start};
use backstitch_tests::postgres::database;

/// Time of undoing `pay` in the previous run.
const UNDO: Duration = Duration::from_millis(700);

fn now() -> Time {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    Time(i64::try_from(since.as_millis()).unwrap())
}

fn start_by(at: Time) -> StartRun {
    StartRun { end_by: Some(Timestamp(at)), ..start("order", "1") }
}

async fn view(engine: &Engine, run: RunId) -> RunView {
    engine.run(NS, run, None).await.unwrap()
}

/// Does the step `pay` of a run that is then undone, which takes as long as [`UNDO`].
async fn undone_slowly(engine: &Engine, hand: &Hand) {
    let run = engine.start_run(NS, start("order", "1")).await.unwrap().id;
    let pay = hand.one().await;
    hand.succeed(&[pay]).await;
    let ship = hand.one().await;
    hand.fail(&ship, FailureKind::Permanent).await;
    let undo = hand.one().await;
    assert_eq!(undo.action, Action::Compensate);
    tokio::time::sleep(UNDO).await;
    hand.succeed(&[undo]).await;
    assert_eq!(view(engine, run).await.outcome, Some(Outcome::Compensated));
}

#[tokio::test]
async fn a_run_is_undone_while_there_is_time_for_what_undoing_took_before() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("order", &["pay", "ship"])).await.unwrap();
    let hand = Hand::new(&engine);
    undone_slowly(&engine, &hand).await;
    let end = now().after(Span::secs(20));
    let run = engine.start_run(NS, start_by(end)).await.unwrap().id;
    let before = view(&engine, run).await.end_by.unwrap();
    assert_eq!(before.at, Timestamp(end));
    let reserved = before.reserved.unwrap();
    assert!((700..15_000).contains(&reserved.0), "as `pay`, which is on offer, took: {reserved}");
    let pay = hand.one().await;
    hand.succeed(&[pay]).await;
    // `ship` was never undone: a minute would have to be reserved for it, so it does not begin.
    let undo = hand.one().await;
    assert_eq!((undo.run, undo.action, undo.step.step.as_ref()), (run, Action::Compensate, "pay"));
    hand.succeed(&[undo]).await;
    let ended = view(&engine, run).await;
    assert_eq!(ended.outcome, Some(Outcome::Compensated));
    assert!(ended.ended_at.unwrap() < Timestamp(end), "{ended:?}");
    let error = ended.error.unwrap().failure;
    assert_eq!(error.code, "run_timeout");
    assert!(error.message.contains("reserved for undoing it with ship"), "{}", error.message);
    engine.stop().await;
}

#[tokio::test]
async fn time_alone_has_a_run_undone_and_late_undos_are_told() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("order", &["pay", "ship"])).await.unwrap();
    let hand = Hand::new(&engine);
    let end = now().after(Span::secs(9));
    let budget = StartRun { undo_budget: Some(Span::secs(4)), ..start_by(end) };
    let run = engine.start_run(NS, budget).await.unwrap().id;
    let pay = hand.one().await;
    hand.succeed(&[pay]).await;
    let ship = hand.one().await;
    assert_eq!(ship.action, Action::Forward, "it may begin within the seconds that are left");
    let begun = loop {
        let view = view(&engine, run).await;
        if let Some(error) = view.error {
            break error.failure.code;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert_eq!((begun.as_str(), now() < end), ("run_timeout", true), "undoing begins in time");
    let told = loop {
        assert!(now() < end.after(Span::secs(30)), "nobody hears that it is late");
        let view = view(&engine, run).await;
        if let Some(told) =
            view.conditions.iter().find(|one| one.message.contains("deadline_missed"))
        {
            break told.message.clone();
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    assert!(told.contains("was to be over by"), "{told}");
    for step in ["ship", "pay"] {
        let undo = hand.one().await;
        assert_eq!((undo.action, undo.step.step.as_ref()), (Action::Compensate, step));
        hand.succeed(&[undo]).await;
    }
    assert_eq!(view(&engine, run).await.outcome, Some(Outcome::Compensated));
    engine.stop().await;
}

/// Returns the instants around `take`, so long later.
async fn around<T>(
    span: Span,
    take: impl Future<Output = T>,
) -> (std::ops::RangeInclusive<Time>, T) {
    // The engine goes by the clock of the database, which it knows the better the sooner that answers.
    let from = now().after(span).0 - 60_000;
    let taken = take.await;
    (Time(from)..=Time(now().after(span).0 + 60_000), taken)
}

#[tokio::test]
async fn a_run_ends_as_its_workflow_says_unless_its_start_says_by_when() {
    let engine = node(&database().await, |_| {}).await;
    let within = r#"{"end_within":"1h","undo_budget":"5m","name""#;
    let order = chain("order", &["pay"]).replacen(r#"{"name""#, within, 1);
    engine.register(NS, &order).await.unwrap();
    let parent = r#"{"name":"parent","version":1,"steps":[
        {"id":"order","child":{"workflow":"order","input":{"path":"/input"}}}]}"#;
    engine.register(NS, parent).await.unwrap();
    let hour = Span::hours(1);
    let parent = engine.start_run(NS, start("parent", "0")).await.unwrap().id;
    let child = Hand::new(&engine).one().await.run;
    assert_eq!(view(&engine, parent).await.end_by, None);
    assert!(view(&engine, child).await.end_by.is_some(), "however it was started");

    let (wanted, run) = around(hour, engine.start_run(NS, start("order", "1"))).await;
    let end = view(&engine, run.unwrap().id).await.end_by.unwrap();
    assert!(wanted.contains(&end.at.0), "{wanted:?}: {end:?}");
    assert_eq!(end.reserved, Some(Span::secs(300)));

    let later = Timestamp(now().after(Span::hours(5)));
    let request = StartRun { start_at: Some(later), ..start("order", "2") };
    let run = engine.start_run(NS, request).await.unwrap().id;
    let end = view(&engine, run).await.end_by.unwrap();
    assert_eq!(end.at.0, later.0.after(hour), "it counts from when the run begins");

    let own = now().after(Span::hours(9));
    let run = engine.start_run(NS, start_by(own)).await.unwrap().id;
    let end = view(&engine, run).await.end_by.unwrap();
    assert_eq!((end.at, end.reserved), (Timestamp(own), Some(Span::secs(300))));

    engine.stop().await;
}
