//! Runs that belong together: words that are lost with their node, depth and number, floods and what stops them.

use std::time::{Duration, Instant};

use backstitch_engine::{Engine, Error, RunFilter};
use backstitch_saga::protocol::{Outcome, RunView, State};
use backstitch_saga::{Command, Hold, HoldKind, RunId, Span};
use backstitch_tests::node::{Hand, NS, by, chain, node, start};
use backstitch_tests::postgres::database;

/// Time that anything here may take.
const LONG: Duration = Duration::from_secs(60);

/// Returns a workflow whose only steps are runs of `workflow`.
fn parent(name: &str, workflow: &str, children: usize) -> String {
    let child = |number: usize| {
        format!(
            r#"{{"id":"c{number}","child":{{"workflow":"{workflow}","input":{{"path":"/input"}}}}}}"#
        )
    };
    let steps: Vec<String> = (0..children).map(child).collect();
    format!(r#"{{"name":"{name}","version":1,"steps":[{}]}}"#, steps.join(","))
}

/// Starts a run of a workflow `name` whose only steps are runs of `workflow`.
async fn begin(engine: &Engine, name: &str, workflow: &str, children: usize) -> RunId {
    engine.register(NS, &parent(name, workflow, children)).await.unwrap();
    engine.start_run(NS, start(name, "1")).await.unwrap().id
}

/// Looks at a run until `wanted` is true of it.
async fn until(engine: &Engine, run: RunId, wanted: impl Fn(&RunView) -> bool) -> RunView {
    let began = Instant::now();
    loop {
        match engine.run(NS, run, None).await {
            Ok(view) if wanted(&view) => return view,
            Ok(_) | Err(Error::NotFound { .. }) => {}
            Err(error) => panic!("{run}: {error}"),
        }
        assert!(began.elapsed() < LONG, "{:?}", engine.run(NS, run, None).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn child_of(engine: &Engine, run: RunId) -> RunId {
    let asked = |view: &RunView| view.steps.iter().any(|step| step.child.is_some());
    let view = until(engine, run, asked).await;
    let child = view.steps.iter().find_map(|step| step.child).unwrap();
    until(engine, child, |_| true).await;
    child
}

/// Returns all runs of a workflow: how many there are, and how many have not ended.
async fn count(engine: &Engine, workflow: &str) -> (usize, usize) {
    let (mut all, mut open, mut after) = (0, 0, None);
    loop {
        let filter = RunFilter {
            workflow: Some(workflow.to_owned()),
            after: after.take(),
            limit: 1_000,
            ..RunFilter::default()
        };
        let page = engine.runs(NS, filter).await.unwrap();
        all += page.items.len();
        open += page.items.iter().filter(|run| run.state != State::Ended).count();
        match page.next {
            Some(next) => after = Some(next),
            None => return (all, open),
        }
    }
}

async fn all_ended(engine: &Engine, workflow: &str) -> usize {
    let began = Instant::now();
    loop {
        let (all, open) = count(engine, workflow).await;
        if open == 0 {
            return all;
        }
        assert!(began.elapsed() < LONG, "{open} of {all} have not ended");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn a_child_whose_parent_was_killed_by_a_node_that_died_is_killed_by_another() {
    // This node dies, as it were, before it can tell a child anything.
    fn sabotage(command: &Command) {
        assert!(!matches!(command, Command::FromParent { .. }), "a defect");
    }
    let url = database().await;
    let first = node(&url, |options| options.tuning.before_decide = Some(sabotage)).await;
    first.register(NS, &chain("kid", &["pay"])).await.unwrap();
    first.register(NS, &parent("mum", "kid", 1)).await.unwrap();
    let gran = begin(&first, "gran", "mum", 1).await;
    let mum = child_of(&first, gran).await;
    let kid = child_of(&first, mum).await;
    first.command(NS, gran, Command::Kill { by: by("it hangs") }).await.unwrap();
    assert_eq!(first.run(NS, gran, None).await.unwrap().state, State::Ended);
    first.stop().await;
    let second = node(&url, |_| {}).await;
    let hand = Hand::new(&second);
    let view = until(&second, kid, |view| view.state == State::Ended).await;
    assert_eq!(view.outcome, Some(Outcome::Cancelled));
    // That nothing was done is told from one to the next.
    for run in [mum, gran] {
        until(&second, run, |view| view.outcome == Some(Outcome::Cancelled)).await;
    }
    assert!(hand.claim(1, Span::millis(200)).await.is_empty(), "it is not worked on");
    let told = |view: &RunView| view.next_at.is_none();
    until(&second, gran, told).await;
    until(&second, mum, told).await;
    assert_eq!(second.doctor(false).await.unwrap().differences, Vec::<String>::new());
    second.stop().await;
}

#[tokio::test]
async fn a_child_that_has_not_begun_when_its_parent_is_killed_or_paused_is_not_worked_on() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("kid", &["pay"])).await.unwrap();
    engine.register(NS, &parent("mum", "kid", 3)).await.unwrap();
    let pause = || Command::Hold {
        hold: Hold::new(HoldKind::Paused, "audit"),
        by: Some(by("an audit")),
        message: "paused by a person".to_owned(),
    };
    let mut paused = Vec::new();
    for round in 0..10 {
        let run = engine.start_run(NS, start("mum", "1")).await.unwrap().id;
        // Its children are being started now.
        if round % 2 == 0 {
            engine.command(NS, run, Command::Kill { by: by("at once") }).await.unwrap();
        } else {
            engine.command(NS, run, pause()).await.unwrap();
            paused.push(run);
        }
        until(&engine, run, |view| {
            let next = view.next_at.map(|at| at.0.since(view.started_at.0) > Span::secs(3_000));
            view.state == State::Ended && next.is_none() || view.state == State::Paused
        })
        .await;
        let view = engine.run(NS, run, None).await.unwrap();
        for step in view.steps {
            let wanted = if round % 2 == 0 { State::Ended } else { State::Paused };
            until(&engine, step.child.unwrap(), |child| child.state == wanted).await;
        }
        if round % 2 == 0 {
            let clean = |view: &RunView| view.outcome == Some(Outcome::Cancelled);
            let view = until(&engine, run, clean).await;
            assert!(view.conditions.is_empty(), "{:?}", view.conditions);
        }
    }
    let hand = Hand::new(&engine);
    assert!(hand.claim(1, Span::millis(200)).await.is_empty());
    for run in &paused {
        let resume = Command::Unhold { hold: None, by: Some(by("it is over")) };
        engine.command(NS, *run, resume).await.unwrap();
    }
    for _ in 0..paused.len() * 3 {
        hand.succeed(&[hand.one().await]).await;
    }
    for run in paused {
        let view = until(&engine, run, |view| view.state == State::Ended).await;
        assert_eq!(view.outcome, Some(Outcome::Succeeded));
    }
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    engine.stop().await;
}

#[tokio::test]
async fn a_workflow_that_starts_itself_ends_at_the_deepest_level() {
    let engine = node(&database().await, |_| {}).await;
    let root = begin(&engine, "again", "again", 1).await;
    let view = until(&engine, root, |view| view.state == State::Ended).await;
    assert_eq!(view.outcome, Some(Outcome::FailedClean), "{}", view.summary);
    let mut runs = engine.tree(NS, root).await.unwrap().runs;
    assert_eq!(runs.len(), 33);
    let deepest = engine.run(NS, runs.pop().unwrap().run, None).await.unwrap();
    assert_eq!(deepest.error.unwrap().failure.code, "child_too_deep");
    assert_eq!(count(&engine, "again").await, (33, 0));
    engine.stop().await;
}

#[tokio::test]
async fn runs_that_multiply_end_at_the_limit_of_descendants() {
    let engine = node(&database().await, |options| options.descendant_limit = 300).await;
    let root = begin(&engine, "bomb", "bomb", 3).await;
    until(&engine, root, |view| view.state == State::Ended).await;
    let all = all_ended(&engine, "bomb").await;
    assert!((100..=301).contains(&all), "{all} runs");
    let mut refused = 0;
    for run in engine.tree(NS, root).await.unwrap().runs {
        let view = engine.run(NS, run.run, None).await.unwrap();
        let code = view.error.map(|error| error.failure.code);
        refused += usize::from(code.as_deref() == Some("too_many_descendants"));
    }
    assert!(refused > 0);
    engine.stop().await;
}

#[tokio::test]
async fn one_kill_ends_runs_that_multiply_and_others_start_meanwhile() {
    // So short a queue is full at once if anything can fill it.
    let engine = node(&database().await, |options| options.queue_limit = 100).await;
    engine.register("other", &chain("calm", &["a"])).await.unwrap();
    let root = begin(&engine, "bomb", "bomb", 3).await;
    let began = Instant::now();
    while count(&engine, "bomb").await.0 < 200 {
        assert!(began.elapsed() < LONG);
        engine.start_run("other", start("calm", "1")).await.expect("others start meanwhile");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let kill = Command::Kill { by: by("it multiplies") };
    engine.command(NS, root, kill).await.expect("a kill is never turned away");
    let all = all_ended(&engine, "bomb").await;
    assert!(all < 5_000, "{all} runs");
    let began = Instant::now();
    // What the runs that were killed still tell each other may fill the queue for a moment.
    while engine.start_run("other", start("calm", "1")).await.is_err() {
        assert!(began.elapsed() < LONG, "others cannot start");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    engine.stop().await;
}

#[tokio::test]
async fn a_paused_workflow_starts_no_more_children() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("kid", &["pay"])).await.unwrap();
    engine.pause_workflow(NS, "kid", &by("a bad deploy")).await.unwrap();
    let mum = begin(&engine, "mum", "kid", 1).await;
    let view = until(&engine, mum, |view| view.steps[0].child.is_some()).await;
    let kid = view.steps[0].child.unwrap();
    let why = engine.why(NS, mum).await.unwrap();
    assert_eq!(
        why.waits_for[0].message,
        "c0: its child, which starts when the workflow 'kid' goes on: it is paused"
    );
    assert_eq!(why.waits_for[0].other, None, "there is no such run");
    assert_eq!(count(&engine, "kid").await, (0, 0));
    engine.resume_workflow(NS, "kid", &by("mended")).await.unwrap();
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    assert_eq!(task.run, kid);
    hand.succeed(&[task]).await;
    let view = until(&engine, mum, |view| view.state == State::Ended).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    engine.stop().await;
}

#[tokio::test]
async fn nothing_is_left_of_a_killed_run_whose_child_had_not_begun() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("kid", &["pay"])).await.unwrap();
    engine.pause_workflow(NS, "kid", &by("a bad deploy")).await.unwrap();
    let mum = begin(&engine, "mum", "kid", 1).await;
    let view = until(&engine, mum, |view| view.steps[0].child.is_some()).await;
    engine.command(NS, mum, Command::Kill { by: by("enough") }).await.unwrap();
    let clean = |view: &RunView| view.outcome == Some(Outcome::Cancelled);
    let killed = until(&engine, mum, clean).await;
    assert_eq!(killed.summary, "killed before it had an effect");
    assert_eq!(killed.conditions, [], "no incident is open");
    let kid = until(&engine, view.steps[0].child.unwrap(), clean).await;
    assert_eq!(kid.summary, "killed before it had an effect");
    engine.stop().await;
}

#[tokio::test]
async fn runs_that_multiply_stop_when_their_workflow_is_paused() {
    let engine = node(&database().await, |_| {}).await;
    begin(&engine, "bomb", "bomb", 3).await;
    let began = Instant::now();
    while count(&engine, "bomb").await.0 < 200 {
        assert!(began.elapsed() < LONG);
    }
    engine.pause_workflow(NS, "bomb", &by("it multiplies")).await.unwrap();
    let paused = count(&engine, "bomb").await.0;
    tokio::time::sleep(Duration::from_millis(500)).await;
    let later = count(&engine, "bomb").await.0;
    assert!(later <= paused + 64, "{paused}, then {later}");
    engine.stop().await;
}
