//! Facts and keys between runs: what a node that died left undone, what undoing means, who waits for whom.

use std::time::{Duration, Instant};

use backstitch_engine::{BackgroundTask, Engine, FactAct, IncidentAct, Options};
use backstitch_saga::protocol::{
    ActFilter, IncidentFilter, IncidentState, Outcome, Requirement, RunView, Scope, StartRun,
    StartSequence, State, Verb, WaitKind, WaitsFor,
};
use backstitch_saga::{Action, By, Command, RunId, Span};
use backstitch_tests::node::{Hand, NS, chain, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};

/// A node that looks after nothing unless it is told.
fn quiet(options: &mut Options) {
    options.tuning.beat_every = Duration::from_secs(3_600);
    options.tuning.wake_every = Duration::from_secs(3_600);
}

/// Returns a workflow of one step, with `sequence` as JSON.
fn one(name: &str, sequence: &str) -> String {
    chain(name, &["only"])
        .replace(r#""version":1,"#, &format!(r#""version":1,"sequence":{sequence},"#))
}

fn fact(fact: &str, on: &str) -> Requirement {
    Requirement { fact: fact.to_owned(), on: on.to_owned() }
}

fn with(workflow: &str, input: &str, sequence: StartSequence) -> StartRun {
    StartRun { sequence: Some(sequence), ..start(workflow, input) }
}

fn by() -> By {
    By { actor: "ann".into(), reason: "seen".to_owned() }
}

async fn begin(engine: &Engine, request: StartRun) -> RunId {
    engine.start_run(NS, request).await.unwrap().id
}

async fn view(engine: &Engine, run: RunId) -> RunView {
    engine.run(NS, run, None).await.unwrap()
}

async fn end(engine: &Engine, run: RunId) -> Outcome {
    engine.wait(NS, run, Duration::from_secs(60)).await.unwrap().outcome.unwrap()
}

async fn stands(engine: &Engine, fact: &Requirement) -> bool {
    let about = engine.facts_about(NS, &fact.on).await.unwrap();
    about.facts.iter().any(|one| one.fact == fact.fact && one.withdrawn_at.is_none())
}

async fn establish(engine: &Engine, name: &str) {
    engine.act_on_fact(NS, &fact(name, "i1"), FactAct::Establish, &by()).await.unwrap();
}

/// Waits until `what` is so; it must be within twenty seconds.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !so().await {
        assert!(Instant::now() < limit, "not within twenty seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn only_wait(engine: &Engine, run: RunId) -> WaitsFor {
    let mut why = engine.why(NS, run).await.unwrap();
    assert_eq!(why.waits_for.len(), 1, "{why:#?}");
    why.waits_for.remove(0)
}

async fn kinds(engine: &Engine, run: RunId) -> Vec<String> {
    view(engine, run).await.conditions.into_iter().map(|one| one.kind).collect()
}

const CUSTOMER: &str =
    r#"{"serial_key":{"path":"/input"},"produces":[{"fact":"made","on":{"path":"/input"}}]}"#;

#[tokio::test]
async fn what_a_node_that_died_had_not_told_another_does() {
    let url = database().await;
    let first = node(&url, quiet).await;
    first.register(NS, &one("customer", CUSTOMER)).await.unwrap();
    first.register(NS, &chain("order", &["only"])).await.unwrap();
    let made = fact("made", "c1");
    let customer = begin(&first, start("customer", "\"c1\"")).await;
    let next = begin(&first, start("customer", "\"c1\"")).await;
    let requires = StartSequence { requires: vec![made.clone()], ..StartSequence::default() };
    let order = begin(&first, with("order", "1", requires)).await;
    let hand = Hand::new(&first);
    let task = hand.one().await;
    assert_eq!(task.run, customer);
    // The first node ends the run, and dies before it can look at who waits for that.
    let mut blocking = PgConnection::connect(&url).await.unwrap();
    let mut lock = blocking.begin().await.unwrap();
    sqlx::query("lock table sequenced in access exclusive mode").execute(&mut *lock).await.unwrap();
    hand.succeed(&[task]).await;
    assert_eq!(view(&first, customer).await.outcome, Some(Outcome::Succeeded));
    drop(hand);
    drop(first);
    let second = node(&url, quiet).await;
    let hand = Hand::new(&second);
    assert!(!stands(&second, &made).await);
    let line = second.key_line(NS, "c1").await.unwrap();
    assert_eq!(line.iter().map(|place| place.run).collect::<Vec<_>>(), [customer, next]);
    assert!(hand.claim(9, Span::ZERO).await.is_empty());
    lock.rollback().await.unwrap();
    second.run_once(BackgroundTask::Sequence).await.unwrap();
    assert!(stands(&second, &made).await);
    let line = second.key_line(NS, "c1").await.unwrap();
    assert_eq!(line.iter().map(|place| place.run).collect::<Vec<_>>(), [next]);
    let mut tasks = vec![hand.one().await, hand.one().await];
    tasks.sort_by_key(|task| task.run);
    assert_eq!(tasks.iter().map(|task| task.run).collect::<Vec<_>>(), [next, order]);
    assert!(tasks.iter().all(|task| task.attempt == 1), "{tasks:?}");
    hand.succeed(&tasks).await;
    assert_eq!(end(&second, order).await, Outcome::Succeeded);
    assert_eq!(second.doctor(false).await.unwrap().differences, Vec::<String>::new());
    second.stop().await;
}

#[tokio::test]
async fn a_fact_is_withdrawn_when_what_made_it_is_undone() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &one("customer", CUSTOMER)).await.unwrap();
    let made = fact("made", "c1");
    let hand = Hand::new(&engine);
    let run = begin(&engine, start("customer", "\"c1\"")).await;
    hand.succeed(&[hand.one().await]).await;
    until("it stands", async || stands(&engine, &made).await).await;

    let undo = Command::Compensate { scope: Scope::All, force: false, by: by() };
    engine.command(NS, run, undo).await.unwrap();
    assert!(stands(&engine, &made).await, "until it is undone");
    let task = hand.one().await;
    assert_eq!(task.action, Action::Compensate);
    hand.succeed(&[task]).await;
    assert_eq!(end(&engine, run).await, Outcome::Compensated);
    until("it is withdrawn", async || !stands(&engine, &made).await).await;
    let about = engine.facts_about(NS, "c1").await.unwrap();
    assert_eq!(about.facts[0].withdrawn_by, Some(format!("run {run}")));

    // Done anew, it stands again.
    let rerun = Command::Rerun {
        from: "only".into(),
        input: None,
        only_failed: false,
        force: false,
        by: by(),
    };
    engine.command(NS, run, rerun).await.unwrap();
    hand.succeed(&[hand.one().await]).await;
    until("it stands again", async || stands(&engine, &made).await).await;

    // What somebody else has established meanwhile is theirs.
    engine.act_on_fact(NS, &made, FactAct::Withdraw, &by()).await.unwrap();
    engine.act_on_fact(NS, &made, FactAct::Establish, &by()).await.unwrap();
    let undo = Command::Compensate { scope: Scope::All, force: false, by: by() };
    engine.command(NS, run, undo).await.unwrap();
    hand.succeed(&[hand.one().await]).await;
    assert_eq!(end(&engine, run).await, Outcome::Compensated);
    until("its rows are gone", async || {
        engine.run_once(BackgroundTask::Sequence).await.unwrap();
        engine.key_line(NS, "c1").await.unwrap().is_empty()
    })
    .await;
    assert!(stands(&engine, &made).await);
    engine.stop().await;
}

#[tokio::test]
async fn who_waits_for_a_fact_keeps_nobody_from_making_it() {
    let engine = node(&database().await, |_| {}).await;
    let order =
        r#"{"serial_key":{"path":"/input"},"requires":[{"fact":"made","on":{"path":"/input"}}]}"#;
    engine.register(NS, &one("order", order)).await.unwrap();
    engine.register(NS, &one("customer", CUSTOMER)).await.unwrap();
    // The order comes first, and both want the same key.
    let early = begin(&engine, start("order", "\"c1\"")).await;
    let customer = begin(&engine, start("customer", "\"c1\"")).await;
    let third = begin(&engine, start("order", "\"c1\"")).await;
    let hand = Hand::new(&engine);
    for run in [customer, early, third] {
        let task = hand.one().await;
        assert_eq!((task.run, task.attempt), (run, 1));
        assert!(hand.claim(1, Span::millis(50)).await.is_empty(), "two move under one key");
        hand.succeed(&[task]).await;
        assert_eq!(end(&engine, run).await, Outcome::Succeeded);
    }
    engine.stop().await;
}

#[tokio::test]
async fn runs_that_wait_for_each_other_are_an_incident_at_once() {
    let engine = node(&database().await, |_| {}).await;
    let makes = |name: &str, fact: &str| {
        one(name, &format!(r#"{{"produces":[{{"fact":"{fact}","on":{{"const":"x"}}}}]}}"#))
    };
    engine.register(NS, &makes("a", "a.done")).await.unwrap();
    engine.register(NS, &makes("b", "b.done")).await.unwrap();
    let after =
        |name: &str| StartSequence { requires: vec![fact(name, "x")], ..StartSequence::default() };
    let first = begin(&engine, with("a", "1", after("b.done"))).await;
    until("it waits", async || kinds(&engine, first).await == ["DependencyUnmet"]).await;
    let wait = only_wait(&engine, first).await;
    assert!(wait.message.contains("which no run is about to establish"), "{wait:?}");
    let second = begin(&engine, with("b", "2", after("a.done"))).await;
    until("it is an incident", async || {
        kinds(&engine, second).await.contains(&"IncidentOpen".to_owned())
    })
    .await;
    let conditions = view(&engine, second).await.conditions;
    let told = conditions.iter().find(|one| one.kind == "IncidentOpen").unwrap();
    let expected = format!(
        "dependency_unmet: runs wait for each other: run {second} requires a.done on 'x', \
         run {first} requires b.done on 'x'"
    );
    assert_eq!(told.message, expected);
    assert_eq!(only_wait(&engine, first).await.other, Some(second));
    // One of them goes on without, and both end.
    engine.skip_requirements(NS, second, &by()).await.unwrap();
    let hand = Hand::new(&engine);
    for run in [second, first] {
        let task = hand.one().await;
        assert_eq!((task.run, task.attempt), (run, 1));
        hand.succeed(&[task]).await;
        assert_eq!(end(&engine, run).await, Outcome::Succeeded);
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_fact_that_does_not_come_is_waited_for_again_or_skipped_or_given_up() {
    let engine = node(&database().await, quiet).await;
    engine.register(NS, &chain("order", &["only"])).await.unwrap();
    let wanted = StartSequence {
        requires: vec![fact("paid", "i1"), fact("shipped", "i1")],
        requires_within: Some(Span::millis(1)),
        ..StartSequence::default()
    };
    let mut runs = Vec::new();
    for number in ["1", "2", "3"] {
        runs.push(begin(&engine, with("order", number, wanted.clone())).await);
    }
    let overdue = async || {
        engine.run_once(BackgroundTask::Sequence).await.unwrap();
        engine.run_once(BackgroundTask::Sequence).await.unwrap();
    };
    overdue().await;
    let incident = async |run: RunId, number: usize| {
        let filter =
            IncidentFilter { state: Some(IncidentState::Open), ..IncidentFilter::default() };
        let open = engine.incidents(NS, &filter, None, 10).await.unwrap().items;
        assert_eq!(open.len(), number, "{open:#?}");
        open.into_iter().find(|line| line.run == run)
    };
    let line = incident(runs[0], 3).await.unwrap();
    assert_eq!(line.kind, "dependency_unmet");
    assert_eq!(line.message, "paid was not established for 'i1' in time, nor were 1 more");
    let told = engine.incident(NS, line.id).await.unwrap();
    assert_eq!(told.next, [Verb::Retry, Verb::Skip, Verb::Compensate, Verb::Cancel, Verb::Abandon]);
    let wait = engine.why(NS, runs[0]).await.unwrap().waits_for.remove(0);
    assert_eq!((wait.kind, wait.incident), (WaitKind::DependencyUnmet, Some(1)));
    assert_eq!(wait.verbs, ["skip-requirements", "retry", "cancel", "kill"]);
    assert!(wait.message.contains("which did not come until"), "{wait:?}");

    // Once more: it waits as long as at first, and a person hears of it again.
    let retry = IncidentAct::Retry { input: None };
    engine.act_on_incident(NS, line.id, retry, by()).await.unwrap();
    assert_eq!(incident(runs[0], 2).await, None);
    overdue().await;
    let again = incident(runs[0], 3).await.unwrap();
    assert_ne!(again.id, line.id);
    // Without: it begins, with its first attempt.
    engine.act_on_incident(NS, again.id, IncidentAct::Skip { output: None }, by()).await.unwrap();
    assert_eq!(incident(runs[0], 2).await, None);
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    assert_eq!((task.run, task.attempt), (runs[0], 1));
    hand.succeed(&[task]).await;
    // Given up: nothing was done, so nothing is undone.
    let line = incident(runs[1], 2).await.unwrap();
    engine.act_on_incident(NS, line.id, IncidentAct::Cancel, by()).await.unwrap();
    assert_eq!(end(&engine, runs[1]).await, Outcome::Cancelled);
    // It comes late, and the incident is over.
    for name in ["paid", "shipped"] {
        establish(&engine, name).await;
    }
    let task = hand.one().await;
    assert_eq!((task.run, task.attempt), (runs[2], 1));
    assert_eq!(kinds(&engine, runs[2]).await, Vec::<String>::new());
    let all = ActFilter::default();
    let acts = engine.acts(NS, &all, None, 9);
    let mut verbs: Vec<String> =
        acts.await.unwrap().items.into_iter().map(|one| one.verb).collect();
    verbs.sort();
    let facts = ["establish", "establish"];
    let incidents = ["cancel", "retry", "skip-requirements", "skip-requirements"];
    assert_eq!(verbs, [&incidents[..1], &facts, &incidents[1..]].concat());
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    engine.stop().await;
}

#[tokio::test]
async fn a_run_that_waits_for_its_turn_is_not_stuck_but_must_have_its_place() {
    let url = database().await;
    let engine = node(&url, quiet).await;
    engine.register(NS, &chain("order", &["only"])).await.unwrap();
    let serial = StartSequence { serial_key: Some("k".to_owned()), ..StartSequence::default() };
    let wanted = StartSequence { requires: vec![fact("paid", "i1")], ..serial.clone() };
    let first = begin(&engine, with("order", "1", serial.clone())).await;
    let second = begin(&engine, with("order", "2", serial)).await;
    let third = begin(&engine, with("order", "3", wanted)).await;
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    assert_eq!(task.run, first);
    assert_eq!(engine.run_once(BackgroundTask::Sweep).await.unwrap(), 0);
    assert_eq!(view(&engine, second).await.state, State::Waiting);
    // What a start that took too long would leave: runs that are in no line.
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for table in ["sequenced", "serial_keys", "awaited"] {
        let text = format!("delete from {table} where run_id <> $1");
        sqlx::query(sqlx::AssertSqlSafe(text))
            .bind(first.0)
            .execute(&mut connection)
            .await
            .unwrap();
    }
    hand.succeed(&[task]).await;
    until("the key is free", async || engine.key_line(NS, "k").await.unwrap().is_empty()).await;
    assert_eq!(engine.run_once(BackgroundTask::Sweep).await.unwrap(), 2);
    engine.run_once(BackgroundTask::Sequence).await.unwrap();
    let task = hand.one().await;
    assert_eq!((task.run, task.attempt), (second, 1));
    hand.succeed(&[task]).await;
    establish(&engine, "paid").await;
    let task = hand.one().await;
    assert_eq!((task.run, task.attempt), (third, 1));
    hand.succeed(&[task]).await;
    assert_eq!(end(&engine, third).await, Outcome::Succeeded);
    engine.stop().await;
}

#[tokio::test]
async fn a_start_that_never_became_a_run_gives_its_place_back() {
    let url = database().await;
    let engine = node(&url, quiet).await;
    engine.register(NS, &chain("order", &["only"])).await.unwrap();
    // What a node leaves that dies between taking the place and starting the run.
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let lost = RunId(uuid::Uuid::now_v7());
    for text in [
        "insert into sequenced (run_id, namespace, since) values ($1, 'test', now() - interval '59 s')",
        "insert into serial_keys (namespace, key, run_id, state, since) values ('test', 'k', $1, 'holding', now())",
    ] {
        sqlx::query(text).bind(lost.0).execute(&mut connection).await.unwrap();
    }
    let serial = StartSequence { serial_key: Some("k".to_owned()), ..StartSequence::default() };
    let run = begin(&engine, with("order", "1", serial)).await;
    assert_eq!(only_wait(&engine, run).await.other, Some(lost));
    engine.run_once(BackgroundTask::Sequence).await.unwrap();
    assert_eq!(engine.key_line(NS, "k").await.unwrap().len(), 2, "it may yet become a run");
    sqlx::query("update sequenced set since = since - interval '10 s' where run_id = $1")
        .bind(lost.0)
        .execute(&mut connection)
        .await
        .unwrap();
    engine.run_once(BackgroundTask::Sequence).await.unwrap();
    let task = Hand::new(&engine).one().await;
    assert_eq!((task.run, task.attempt), (run, 1));
    engine.stop().await;
}

#[tokio::test]
async fn a_child_goes_on_under_the_key_of_its_parent() {
    let engine = node(&database().await, |_| {}).await;
    let child = one("inner", r#"{"serial_key":{"const":"k"}}"#);
    engine.register(NS, &child).await.unwrap();
    let outer = |name: &str, of: &str, sequence: &str| {
        format!(
            r#"{{"name":"{name}","version":1,{sequence}"steps":[
            {{"id":"call","child":{{"workflow":"{of}","input":{{"const":1}}}}}}]}}"#
        )
    };
    engine.register(NS, &outer("middle", "inner", "")).await.unwrap();
    let key = r#""sequence":{"serial_key":{"const":"k"}},"#;
    engine.register(NS, &outer("outer", "middle", key)).await.unwrap();
    let above = begin(&engine, start("outer", "1")).await;
    let beside = begin(&engine, start("inner", "1")).await;
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    assert_ne!(task.run, beside, "the step of the step of the run that has the key");
    assert!(hand.claim(1, Span::millis(50)).await.is_empty());
    let wait = only_wait(&engine, beside).await;
    assert_eq!((wait.kind, wait.other), (WaitKind::KeyBlocked, Some(above)));
    hand.succeed(&[task]).await;
    assert_eq!(end(&engine, above).await, Outcome::Succeeded);
    let task = hand.one().await;
    assert_eq!(task.run, beside);
    hand.succeed(&[task]).await;
    assert_eq!(end(&engine, beside).await, Outcome::Succeeded);
    engine.stop().await;
}
