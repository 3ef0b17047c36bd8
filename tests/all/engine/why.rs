//! Reasons why a run does not go on: every condition, each produced for real.

use backstitch_engine::{BackgroundTask, Engine, QueueAct};
use backstitch_saga::protocol::{
    FailureKind, Requirement, StartRun, StartSequence, WaitKind, WaitsFor, Why,
};
use backstitch_saga::{By, Command, Hold, HoldKind, RunId, Span};
use backstitch_tests::node::{Hand, NS, chain, fan, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};

async fn begin(engine: &Engine, definition: &str, input: &str) -> RunId {
    engine.register(NS, definition).await.unwrap();
    let name = definition.split('"').nth(3).unwrap();
    engine.start_run(NS, start(name, input)).await.unwrap().id
}

async fn why(engine: &Engine, id: RunId) -> Why {
    engine.why(NS, id).await.unwrap()
}

/// Returns the only thing that the run waits for.
async fn only(engine: &Engine, id: RunId) -> WaitsFor {
    let mut why = why(engine, id).await;
    assert_eq!(why.waits_for.len(), 1, "{why:#?}");
    assert_eq!(why.summary, why.waits_for[0].message);
    why.waits_for.remove(0)
}

fn verbs(wait: &WaitsFor) -> Vec<&str> {
    wait.verbs.iter().map(String::as_str).collect()
}

fn by() -> By {
    By { actor: "ann".into(), reason: "to see".to_owned() }
}

#[tokio::test]
async fn nobody_does_it_or_all_are_busy_or_one_has_it() {
    let engine = node(&database().await, |_| {}).await;
    let first = begin(&engine, &chain("one", &["only"]), "1").await;
    let wait = only(&engine, first).await;
    assert_eq!(wait.kind, WaitKind::NoWorker);
    assert_eq!(wait.message, "only: no worker does 'do' on queue 'default'; start one");
    assert_eq!((wait.queue.as_deref(), wait.handler.as_deref()), (Some("default"), Some("do")));
    assert_eq!(verbs(&wait), ["cancel", "kill"]);

    let hand = Hand::new(&engine);
    let offer = hand.one().await;
    engine.run_once(BackgroundTask::Workers).await.unwrap();
    let wait = only(&engine, first).await;
    assert_eq!(wait.kind, WaitKind::WithWorker);
    assert!(wait.message.starts_with("only: worker 'hand' does 'do'; it must report"), "{wait:?}");
    assert!(wait.worker.as_deref().unwrap().starts_with("hand/"), "{wait:?}");
    assert_eq!(wait.until.unwrap().0.since(wait.since.0), Span::secs(1), "the heartbeat");

    let second = engine.start_run(NS, start("one", "2")).await.unwrap().id;
    let wait = only(&engine, second).await;
    assert_eq!(wait.kind, WaitKind::OnOffer);
    assert!(wait.message.contains("one of the 1 workers that do 'do'"), "{wait:?}");

    hand.succeed(&[offer]).await;
    let ended = why(&engine, first).await;
    assert_eq!((ended.waits_for.len(), &*ended.summary), (0, "it has ended and waits for nothing"));
    engine.stop().await;
}

#[tokio::test]
async fn a_worker_at_another_node_is_known_until_its_node_is_gone() {
    let url = database().await;
    let (here, there) = (node(&url, |_| {}).await, node(&url, |_| {}).await);
    let hand = Hand::new(&there);
    assert!(hand.claim(1, Span::millis(1)).await.is_empty());
    there.run_once(BackgroundTask::Workers).await.unwrap();
    assert_eq!(there.run_once(BackgroundTask::Workers).await.unwrap(), 0, "written once");
    let names = async |gone| {
        let page = here.workers(NS, gone, None, 10).await.unwrap();
        page.items.into_iter().map(|one| (one.worker, one.gone_at.is_some())).collect::<Vec<_>>()
    };
    assert_eq!(names(false).await, [("hand".to_owned(), false)]);
    assert!(here.workers("other", true, None, 10).await.unwrap().items.is_empty());
    there.stop().await;
    assert_eq!(names(false).await, []);
    assert_eq!(names(true).await, [("hand".to_owned(), true)]);
    let id = begin(&here, &chain("one", &["only"]), "1").await;
    let wait = only(&here, id).await;
    assert_eq!(wait.kind, WaitKind::NoWorker);
    assert!(wait.message.contains("the last one went at "), "{wait:?}");
    here.stop().await;
}

#[tokio::test]
async fn a_run_that_nobody_works_for_says_so() {
    let url = database().await;
    let engine =
        node(&url, |options| options.tuning.no_worker_after = std::time::Duration::ZERO).await;
    let id = begin(&engine, &chain("one", &["only"]), "1").await;
    let conditions = async || engine.run(NS, id, None).await.unwrap().conditions;
    let found = conditions().await;
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(found[0].kind, "NoWorker");
    assert_eq!(found[0].step.as_ref().unwrap().to_string(), "only");
    let offer = Hand::new(&engine).one().await;
    assert_eq!(offer.run, id);
    assert_eq!(conditions().await, [], "it is in a worker's hands");
    engine.stop().await;
}

#[tokio::test]
async fn a_paused_queue_is_told_of_also_when_nobody_works_on_it() {
    let engine = node(&database().await, |_| {}).await;
    let id = begin(&engine, &chain("one", &["only"]), "1").await;
    engine.act_on_queue(NS, "default", QueueAct::Pause, &by()).await.unwrap();
    engine.run_once(BackgroundTask::KeepQueues).await.unwrap();
    let wait = only(&engine, id).await;
    assert_eq!(wait.kind, WaitKind::NoWorker);
    let told = "start one; and queue 'default' was paused by ann: to see";
    assert!(wait.message.ends_with(told), "{wait:?}");
    engine.stop().await;
}

#[tokio::test]
async fn the_next_attempt_is_waited_for() {
    let engine = node(&database().await, |_| {}).await;
    let slow = chain("one", &["only"]).replace("\"20ms\"", "\"5m\"");
    let id = begin(&engine, &slow, "1").await;
    let hand = Hand::new(&engine);
    let offer = hand.one().await;
    hand.fail(&offer, FailureKind::Retryable).await;
    let wait = only(&engine, id).await;
    assert_eq!(wait.kind, WaitKind::Retry);
    assert_eq!(wait.until.unwrap().0.since(wait.since.0), Span::secs(300));
    assert!(wait.message.starts_with("only: forward attempt 2 of 3 at "), "{wait:?}");
    assert!(wait.message.ends_with("after refused: as told"), "{wait:?}");
    engine.stop().await;
}

#[tokio::test]
async fn people_are_waited_for() {
    let engine = node(&database().await, |_| {}).await;
    let hand = Hand::new(&engine);
    let parks = chain("parks", &["only"]).replace(
        "\"retry\":{\"first_delay\":\"20ms\"",
        "\"on_failure\":\"incident\",\"retry\":{\"first_delay\":\"20ms\"",
    );
    let parked = begin(&engine, &parks, "1").await;
    hand.fail(&hand.one().await, FailureKind::Permanent).await;
    let wait = only(&engine, parked).await;
    assert_eq!((wait.kind, wait.incident), (WaitKind::Parked, Some(1)));
    assert_eq!(wait.message, "only is parked: refused: as told");
    assert_eq!(verbs(&wait)[0], "retry");

    let blocked = begin(&engine, &chain("blocks", &["first", "second"]), "1").await;
    hand.succeed(&[hand.one().await]).await;
    hand.fail(&hand.one().await, FailureKind::Permanent).await;
    hand.fail(&hand.one().await, FailureKind::Permanent).await;
    let wait = only(&engine, blocked).await;
    assert_eq!((wait.kind, wait.incident), (WaitKind::CompensationBlocked, Some(1)));
    assert!(wait.message.starts_with("undoing first is blocked: "), "{wait:?}");
    assert_eq!(verbs(&wait), ["retry", "mark-compensated", "kill"], "it can not be cancelled");

    let held = begin(&engine, &chain("held", &["only"]), "1").await;
    let hold = Hold::new(HoldKind::Paused, "audit");
    let message = "paused by a person".to_owned();
    let pause = Command::Hold { hold, by: Some(by()), message };
    engine.command(NS, held, pause).await.unwrap();
    // The hand may have got its task before that; what holds the run as a whole is told first.
    let wait = why(&engine, held).await.waits_for.remove(0);
    assert_eq!((wait.kind, verbs(&wait)[0]), (WaitKind::Paused, "resume"));
    assert_eq!(wait.message, "paused by a person as 'audit' (ann: to see)");
    engine.stop().await;
}

#[tokio::test]
async fn a_run_that_nothing_would_move_is_found_and_becomes_an_incident() {
    let url = database().await;
    let before = node(&url, |_| {}).await;
    let id = begin(&before, &chain("one", &["only"]), "1").await;
    before.stop().await;
    // What no rule would do: the run began an hour ago, its task was never offered, and its index has forgotten it.
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for text in [
        "update journal set events = json_build_array(events::json -> 0)::text, at = now() - interval '1 hour' where run_id = $1",
        "delete from ready where run_id = $1",
        "update runs set state = 'waiting', node = null, wake_at = null, \
         started_at = (select at from journal where run_id = id) where id = $1",
    ] {
        let done = sqlx::query(text).bind(id.0).execute(&mut connection).await.unwrap();
        assert_eq!(done.rows_affected(), 1, "{text}");
    }
    let engine = node(&url, |_| {}).await;
    assert_eq!(only(&engine, id).await.kind, WaitKind::Stuck);
    engine.run_once(BackgroundTask::Sweep).await.unwrap();
    // The sweep gives it to its shard, which decides on its own.
    let mut view = engine.run(NS, id, None).await.unwrap();
    while view.conditions.is_empty() {
        tokio::task::yield_now().await;
        view = engine.run(NS, id, None).await.unwrap();
    }
    assert!(view.conditions[0].message.starts_with("run_stuck: nothing would ever"), "{view:?}");
    let wait = only(&engine, id).await;
    assert_eq!((wait.kind, wait.incident), (WaitKind::Stuck, Some(1)));
    engine.command(NS, id, Command::Kill { by: by() }).await.unwrap();
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    engine.stop().await;
}

#[tokio::test]
async fn signals_time_and_other_runs_are_waited_for() {
    let engine = node(&database().await, |_| {}).await;
    let asks = r#"{"name":"asks","version":1,"steps":[
        {"id":"ok","wait":{"signal":"approved","timeout":"1h","assignee":{"const":"bob"}}}]}"#;
    let signal = begin(&engine, asks, "1").await;
    let wait = only(&engine, signal).await;
    assert_eq!((wait.kind, verbs(&wait)[0]), (WaitKind::Signal, "signals"));
    assert_eq!(wait.message, "ok: the signal 'approved' from bob");
    assert_eq!(wait.until.unwrap().0.since(wait.since.0), Span::secs(3_600));

    let sleeps = r#"{"name":"sleeps","version":1,"steps":[{"id":"nap","sleep":{"for":"1h"}}]}"#;
    let asleep = begin(&engine, sleeps, "1").await;
    let wait = only(&engine, asleep).await;
    assert_eq!(wait.kind, WaitKind::Timer);
    assert_eq!(wait.until.unwrap().0.since(wait.since.0), Span::secs(3_600));

    let calls = r#"{"name":"calls","version":1,"steps":[
        {"id":"call","child":{"workflow":"sleeps","input":{"const":1}}}]}"#;
    let parent = begin(&engine, calls, "1").await;
    let wait = only(&engine, parent).await;
    assert_eq!(wait.kind, WaitKind::Child);
    assert!(wait.message.starts_with("call: the end of run "), "{wait:?}");
    engine.stop().await;
}

#[tokio::test]
async fn items_that_wait_for_the_same_are_told_together() {
    let engine = node(&database().await, |_| {}).await;
    let id = begin(&engine, &fan("each", 2, "\"all\""), "[1,2,3,4,5]").await;
    let told = why(&engine, id).await;
    let kinds: Vec<_> = told.waits_for.iter().map(|wait| (wait.kind, wait.count)).collect();
    assert_eq!(kinds, [(WaitKind::NoWorker, 2), (WaitKind::Place, 3)]);
    assert_eq!(told.waits_for[0].step.as_ref().unwrap().to_string(), "each/0");
    assert_eq!(told.waits_for[1].step.as_ref().unwrap().to_string(), "each/2");
    assert!(told.summary.ends_with("; and 1 more"), "{told:?}");
    engine.stop().await;
}

#[tokio::test]
async fn the_turn_among_other_runs_is_waited_for() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("one", &["only"])).await.unwrap();
    let made = r#"{"produces":[{"fact":"made","on":{"path":"/input"}}]}"#;
    let makes = chain("makes", &["only"])
        .replace(r#""version":1,"#, &format!(r#""version":1,"sequence":{made},"#));
    engine.register(NS, &makes).await.unwrap();
    let begin = async |input: &str, sequence: StartSequence| {
        let request = StartRun { sequence: Some(sequence), ..start("one", input) };
        engine.start_run(NS, request).await.unwrap().id
    };
    let key = || StartSequence { serial_key: Some("k".to_owned()), ..Default::default() };
    let holder = begin("1", key()).await;
    let (second, third) = (begin("2", key()).await, begin("3", key()).await);
    let wait = only(&engine, second).await;
    assert_eq!((wait.kind, wait.other), (WaitKind::KeyBlocked, Some(holder)));
    assert_eq!(wait.message, format!("the serial key 'k', which run {holder} holds"));
    let wait = only(&engine, third).await;
    assert_eq!((wait.named.as_deref(), wait.other), (Some("k"), Some(holder)));
    let line = "one run is before it in line";
    assert_eq!(wait.message, format!("the serial key 'k', which run {holder} holds; {line}"));
    assert_eq!(verbs(&wait), ["cancel", "kill"]);

    let fact = Requirement { fact: "made".to_owned(), on: "c1".to_owned() };
    let within = |within| StartSequence {
        requires: vec![fact.clone()],
        requires_within: Some(within),
        ..Default::default()
    };
    let order = begin("4", within(Span::secs(3_600))).await;
    let wait = only(&engine, order).await;
    assert_eq!((wait.kind, wait.named.as_deref()), (WaitKind::DependencyUnmet, Some("made on c1")));
    assert_eq!(wait.until.unwrap().0.since(wait.since.0).0.div_ceil(60_000), 60);
    assert!(wait.message.starts_with("the fact made on 'c1', which no run is about"), "{wait:?}");
    assert_eq!(verbs(&wait), ["skip-requirements", "cancel", "kill"]);
    let maker = engine.start_run(NS, start("makes", "\"c1\"")).await.unwrap().id;
    let wait = only(&engine, order).await;
    assert_eq!(wait.other, Some(maker));
    assert!(wait.message.contains(&format!("which run {maker} establishes when")), "{wait:?}");

    let late = begin("5", within(Span::millis(1))).await;
    let mut wait = only(&engine, late).await;
    while wait.incident.is_none() {
        engine.run_once(BackgroundTask::Sequence).await.unwrap();
        wait = only(&engine, late).await;
    }
    assert_eq!((wait.kind, wait.incident), (WaitKind::DependencyUnmet, Some(1)));
    assert!(
        wait.message.starts_with("the fact made on 'c1', which did not come until "),
        "{wait:?}"
    );
    assert_eq!(verbs(&wait)[..2], ["skip-requirements", "retry"]);
    engine.stop().await;
}
