//! Facts that are withdrawn while runs that require them are under way: what those show, and what they do.

use std::time::{Duration, Instant};

use backstitch_engine::{BackgroundTask, Engine, FactAct};
use backstitch_saga::protocol::{
    FactDependent, JobVerb, NewJob, OnWithdrawn, Outcome, Requirement, RerunItems, RunView,
    RunsFilter, Scope, StartRun, StartSequence, State,
};
use backstitch_saga::{Command, RunId};
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, by, chain, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};

fn one(name: &str, sequence: &str) -> String {
    chain(name, &["only"])
        .replace(r#""version":1,"#, &format!(r#""version":1,"sequence":{sequence},"#))
}

fn fact(name: &str) -> Requirement {
    Requirement { fact: name.to_owned(), on: "c1".to_owned() }
}

fn requires(workflow: &str, facts: &[&str], on_withdrawn: OnWithdrawn) -> StartRun {
    let sequence = StartSequence {
        requires: facts.iter().map(|name| fact(name)).collect(),
        on_withdrawn: Some(on_withdrawn),
        ..StartSequence::default()
    };
    StartRun { sequence: Some(sequence), ..start(workflow, "1") }
}

async fn act(engine: &Engine, name: &str, act: FactAct) {
    engine.act_on_fact(NS, &fact(name), act, &by("to see")).await.unwrap();
}

async fn until(engine: &Engine, run: RunId, wanted: impl Fn(&RunView) -> bool) -> RunView {
    let began = Instant::now();
    loop {
        let view = engine.run(NS, run, None).await.unwrap();
        if wanted(&view) {
            return view;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{view:#?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

fn shows(view: &RunView, kind: &str) -> bool {
    view.conditions.iter().any(|condition| condition.kind == kind)
}

async fn begun(engine: &Engine, request: StartRun) -> RunId {
    engine.start_run(NS, request).await.unwrap().id
}

#[tokio::test]
async fn runs_under_way_do_what_they_declare_when_their_fact_is_withdrawn() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("order", &["only"])).await.unwrap();
    act(&engine, "made", FactAct::Establish).await;
    let ignores = begun(&engine, requires("order", &["made"], OnWithdrawn::Ignore)).await;
    let tells = begun(&engine, requires("order", &["made"], OnWithdrawn::Incident)).await;
    let cancels = begun(&engine, requires("order", &["made"], OnWithdrawn::Cancel)).await;
    let ended = begun(&engine, requires("order", &["made"], OnWithdrawn::Incident)).await;
    engine.command(NS, ended, Command::Kill { by: by("not needed") }).await.unwrap();
    let touched = engine.would_touch(NS, &fact("made")).await.unwrap().dependents;
    let policies: Vec<(RunId, OnWithdrawn)> =
        touched.iter().map(|one: &FactDependent| (one.run, one.on_withdrawn)).collect();
    assert_eq!(
        policies,
        [
            (ignores, OnWithdrawn::Ignore),
            (tells, OnWithdrawn::Incident),
            (cancels, OnWithdrawn::Cancel)
        ]
    );
    act(&engine, "made", FactAct::Withdraw).await;
    let view = until(&engine, ignores, |view| shows(view, "DependencyWithdrawn")).await;
    assert!(!shows(&view, "IncidentOpen"));
    assert_eq!(
        view.conditions[0].message,
        "the fact made on 'c1', which it requires, was withdrawn by ann"
    );
    let view = until(&engine, tells, |view| shows(view, "DependencyWithdrawn")).await;
    assert!(shows(&view, "IncidentOpen"), "{view:#?}");
    let why = engine.why(NS, tells).await.unwrap();
    let wait = why.waits_for.last().unwrap();
    assert_eq!((wait.incident, wait.named.as_deref()), (Some(1), Some("made on c1")));
    let view = until(&engine, cancels, |view| view.state == State::Ended).await;
    assert_eq!(view.outcome, Some(Outcome::Cancelled));
    let view = engine.run(NS, ended, None).await.unwrap();
    assert!(!shows(&view, "DependencyWithdrawn"), "it had ended");
    // It is established again: nobody needs to know any more.
    act(&engine, "made", FactAct::Establish).await;
    until(&engine, tells, |view| view.conditions.is_empty()).await;
    until(&engine, ignores, |view| view.conditions.is_empty()).await;
    act(&engine, "made", FactAct::Withdraw).await;
    until(&engine, tells, |view| shows(view, "IncidentOpen")).await;
    engine.skip_requirements(NS, tells, &by("it was made by hand")).await.unwrap();
    let view = engine.run(NS, tells, None).await.unwrap();
    assert!(view.conditions.is_empty(), "{view:#?}");
    engine.stop().await;
}

#[tokio::test]
async fn undoing_a_run_touches_those_that_began_upon_its_facts_and_names_them_before() {
    let engine = node(&database().await, |_| {}).await;
    let customer = r#"{"produces":[{"fact":"made","on":{"const":"c1"}}]}"#;
    engine.register(NS, &one("customer", customer)).await.unwrap();
    // The order requires two facts of one customer, and another order one of them and the first order's.
    let order = r#"{"requires":[{"fact":"made","on":{"const":"c1"},"on_withdrawn":"cancel"}],
        "produces":[{"fact":"ordered","on":{"const":"c1"}}]}"#;
    engine.register(NS, &one("order", order)).await.unwrap();
    engine.register(NS, &chain("ship", &["only"])).await.unwrap();
    let hand = Hand::new(&engine);
    let customer = begun(&engine, start("customer", "1")).await;
    hand.succeed(&[hand.one().await]).await;
    let first = begun(&engine, start("order", "1")).await;
    hand.succeed(&[hand.one().await]).await;
    until(&engine, first, |view| view.state == State::Ended).await;
    let second = begun(&engine, start("order", "2")).await;
    let ship = requires("ship", &["made", "ordered"], OnWithdrawn::Incident);
    let ship = begun(&engine, ship).await;
    until(&engine, ship, |view| !shows(view, "DependencyUnmet")).await;
    let plan = engine.plan(NS, customer, &Scope::All, None, 100).await.unwrap();
    let named: Vec<(RunId, &str)> =
        plan.dependents.iter().map(|one| (one.run, one.fact.as_str())).collect();
    assert_eq!(named, [(second, "made"), (ship, "made")]);
    let rerun = engine.rerun_plan(NS, customer, "only", RerunItems::All, None, 100).await.unwrap();
    assert_eq!(rerun.undo.dependents, plan.dependents);
    for verb in [JobVerb::Compensate, JobVerb::Rerun, JobVerb::Label] {
        let mut job = NewJob::new(verb);
        job.runs =
            Some(RunsFilter { workflow: Some("customer".to_owned()), ..RunsFilter::default() });
        match verb {
            JobVerb::Rerun => job.from = Some("only".to_owned()),
            JobVerb::Label => job.remove = vec!["team".to_owned()],
            _ => {}
        }
        job.dry_run = true;
        let touched = engine.plan_job(NS, &job).await.unwrap().dependents;
        let expected = if verb == JobVerb::Label { &[][..] } else { &plan.dependents };
        assert_eq!(touched, expected, "{verb:?}");
    }
    let compensate = Command::Compensate { scope: Scope::All, force: false, by: by("a fraud") };
    engine.command(NS, customer, compensate).await.unwrap();
    let mut tasks = Vec::new();
    while tasks.len() < 3 {
        tasks.extend(hand.claim(3, backstitch_saga::Span::secs(5)).await);
    }
    let undo: Vec<_> = tasks.iter().filter(|task| task.run == customer).cloned().collect();
    hand.succeed(&undo).await;
    let view = until(&engine, ship, |view| shows(view, "DependencyWithdrawn")).await;
    let why = format!("was withdrawn by run {customer}");
    assert!(view.conditions.iter().any(|one| one.message.ends_with(&why)), "{view:#?}");
    until(&engine, second, |view| shows(view, "DependencyWithdrawn")).await;
    let view = engine.run(NS, first, None).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded), "what has ended stands");
    engine.stop().await;
}

#[tokio::test]
async fn a_run_that_has_not_begun_waits_again_for_what_is_withdrawn() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("order", &["only"])).await.unwrap();
    act(&engine, "made", FactAct::Establish).await;
    let run = begun(&engine, requires("order", &["made", "paid"], OnWithdrawn::Cancel)).await;
    act(&engine, "made", FactAct::Withdraw).await;
    let unmet =
        |view: &RunView| view.conditions.iter().filter(|one| one.kind == "DependencyUnmet").count();
    until(&engine, run, |view| unmet(view) == 2).await;
    act(&engine, "paid", FactAct::Establish).await;
    until(&engine, run, |view| unmet(view) == 1).await;
    let hand = Hand::new(&engine);
    assert!(hand.claim(1, backstitch_saga::Span::millis(200)).await.is_empty());
    act(&engine, "made", FactAct::Establish).await;
    hand.succeed(&[hand.one().await]).await;
    let view = until(&engine, run, |view| view.state == State::Ended).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    engine.stop().await;
}

#[tokio::test]
async fn a_requirement_whose_row_is_lost_is_told_all_the_same() {
    let url = database().await;
    let engine = node(&url, |options| options.tuning.check_every = Duration::ZERO).await;
    engine.register(NS, &chain("order", &["only"])).await.unwrap();
    act(&engine, "made", FactAct::Establish).await;
    // The fact stands when it begins, and only the start says that it is required.
    let run = begun(&engine, requires("order", &["made"], OnWithdrawn::Incident)).await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    let gone = sqlx::query("delete from required").execute(&mut outside).await.unwrap();
    assert_eq!(gone.rows_affected(), 1);
    eventually("the row is there again", async || {
        engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        engine.would_touch(NS, &fact("made")).await.unwrap().dependents.len() == 1
    })
    .await;
    act(&engine, "made", FactAct::Withdraw).await;
    let view = until(&engine, run, |view| shows(view, "DependencyWithdrawn")).await;
    assert!(shows(&view, "IncidentOpen"), "{view:#?}");
    // A person has it go on without; a row that is lost then does not tell it once more.
    engine.skip_requirements(NS, run, &by("it was made by hand")).await.unwrap();
    sqlx::query("delete from required").execute(&mut outside).await.unwrap();
    eventually("the row is there again", async || {
        engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        let mut outside = PgConnection::connect(&url).await.unwrap();
        let rows = sqlx::query_scalar::<_, i64>("select count(*) from required");
        rows.fetch_one(&mut outside).await.unwrap() == 1
    })
    .await;
    engine.run_once(BackgroundTask::Sequence).await.unwrap();
    let view = engine.run(NS, run, None).await.unwrap();
    assert!(view.conditions.is_empty(), "{view:#?}");
    engine.stop().await;
}

#[tokio::test]
async fn a_run_that_was_started_for_later_is_told_what_is_withdrawn() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("order", &["only"])).await.unwrap();
    act(&engine, "made", FactAct::Establish).await;
    let later = StartRun {
        delay: Some(backstitch_saga::Span::millis(300)),
        ..requires("order", &["made"], OnWithdrawn::Incident)
    };
    let run = begun(&engine, later).await;
    until(&engine, run, |view| !shows(view, "StartDelayed") && !shows(view, "DependencyUnmet"))
        .await;
    act(&engine, "made", FactAct::Withdraw).await;
    let view = until(&engine, run, |view| shows(view, "DependencyWithdrawn")).await;
    assert!(shows(&view, "IncidentOpen"), "{view:#?}");
    engine.stop().await;
}
