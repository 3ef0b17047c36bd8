//! The laws of the store, over random histories: what is written is what is read (2), one winner (3), batching is
//! invisible (4), twice is once (5), every run ends (6). Law 1 is the rules' own, and is tested there.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use backstitch_engine::{Engine, Options};
use backstitch_saga::protocol::{
    FailureKind, Labels, RunView, State, TaskAnswer, TaskOffer, TaskOutcome, TaskReport,
};
use backstitch_saga::{By, Command, RunId, Span};
use backstitch_tests::chance::Chance;
use backstitch_tests::node::{Hand, NS, chain, fan, metric, node, report, start};
use backstitch_tests::postgres::database;
use tokio::task::JoinSet;

/// Workers that now and then fail, fall silent, or say everything twice, until told to stop.
struct Crew {
    stop: Arc<AtomicBool>,
    work: JoinSet<()>,
}

/// Rates of misbehaviour of a worker, in percent.
#[derive(Clone, Copy)]
struct Manners {
    fails: u64,
    silent: u64,
    twice: u64,
}

impl Crew {
    /// One worker for each of `nodes`, in turn. A worker claims at one node and reports at any.
    fn hire(nodes: &[Engine], count: usize, manners: Manners, chance: &mut Chance) -> Crew {
        let stop = Arc::new(AtomicBool::new(false));
        let mut work = JoinSet::new();
        for number in 0..count {
            let hand = Hand::new(&nodes[number % nodes.len()]);
            let (nodes, stop, chance) = (nodes.to_vec(), Arc::clone(&stop), chance.fork());
            work.spawn(labour(hand, nodes, manners, stop, chance));
        }
        Crew { stop, work }
    }

    async fn dismiss(mut self) {
        self.stop.store(true, Ordering::Relaxed);
        while let Some(done) = self.work.join_next().await {
            done.unwrap();
        }
    }
}

async fn labour(
    hand: Hand,
    nodes: Vec<Engine>,
    manners: Manners,
    stop: Arc<AtomicBool>,
    mut chance: Chance,
) {
    while !stop.load(Ordering::Relaxed) {
        let most = u32::try_from(chance.below(20)).unwrap() + 1;
        let tasks = hand.claim(most, Span::millis(100)).await;
        let mut reports: Vec<TaskReport> = Vec::new();
        for task in &tasks {
            if !chance.percent(manners.silent) {
                reports.push(report(task, outcome(task, manners, &mut chance)));
            }
        }
        if reports.is_empty() {
            continue;
        }
        let anywhere = &nodes[chance.below(nodes.len() as u64) as usize];
        let answers = anywhere.complete(NS, reports.clone()).await;
        if chance.percent(manners.twice) {
            let again = &nodes[chance.below(nodes.len() as u64) as usize];
            let second = again.complete(NS, reports).await;
            // Twice is once: what counted counts still, and what did not does not.
            let statuses = |answers: &[TaskAnswer]| -> Vec<u16> {
                answers.iter().map(|answer| answer.status).collect()
            };
            assert_eq!(statuses(&answers), statuses(&second));
        }
    }
}

fn outcome(task: &TaskOffer, manners: Manners, chance: &mut Chance) -> TaskOutcome {
    if !chance.percent(manners.fails) {
        return TaskOutcome::Succeeded { output: task.input.clone(), external_id: None };
    }
    let kind = match chance.below(3) {
        // An undo that failed for good would wait for a person.
        _ if task.name == "undo" => FailureKind::Retryable,
        0 => FailureKind::Retryable,
        1 => FailureKind::Permanent,
        _ => FailureKind::Unknown,
    };
    let TaskOutcome::Failed(mut failure) = failed() else { unreachable!("a failure is a failure") };
    failure.kind = kind;
    TaskOutcome::Failed(failure)
}

fn failed() -> TaskOutcome {
    TaskOutcome::Failed(backstitch_saga::protocol::Failure {
        kind: FailureKind::Retryable,
        code: "chance".to_owned(),
        message: "as it happens".to_owned(),
        details: None,
        retry_after: None,
    })
}

async fn register(engine: &Engine) {
    for definition in [
        chain("one", &["a"]),
        chain("five", &["a", "b", "c", "d", "e"]),
        fan("all", 4, "\"all\""),
        fan("best", 50, "\"best_effort\""),
        fan("some", 8, r#"{"tolerate":{"count":3}}"#),
    ] {
        engine.register(NS, &definition).await.unwrap();
    }
}

async fn start_some(nodes: &[Engine], count: usize, chance: &mut Chance) -> Vec<RunId> {
    let mut starting = JoinSet::new();
    for _ in 0..count {
        let engine = nodes[chance.below(nodes.len() as u64) as usize].clone();
        let workflow = ["one", "five", "all", "best", "some"][chance.below(5) as usize];
        let items = chance.below(30);
        starting.spawn(async move {
            let list: Vec<String> = (0..items).map(|item| item.to_string()).collect();
            engine
                .start_run(NS, start(workflow, &format!("[{}]", list.join(","))))
                .await
                .unwrap()
                .id
        });
    }
    starting.join_all().await
}

/// Waits for the end of all runs. One that needs a person has an open incident, and gets one.
async fn ends(engine: &Engine, runs: &[RunId]) -> HashMap<RunId, RunView> {
    let mut views = HashMap::new();
    let until = Instant::now() + Duration::from_secs(90);
    for run in runs {
        loop {
            let view = engine.wait(NS, *run, Duration::from_secs(1)).await.unwrap();
            if view.state == State::Ended {
                views.insert(*run, view);
                break;
            }
            assert!(Instant::now() < until, "run {run} did not end: {}", view.summary);
            if view.conditions.iter().any(|condition| condition.kind == "IncidentOpen") {
                let by = By { actor: "test".into(), reason: format!("as of {}", view.seq) };
                // Refused when it has gone on meanwhile.
                let _ =
                    engine.command(NS, *run, Command::Retry { step: None, input: None, by }).await;
            }
        }
    }
    views
}

/// Laws 2 and 6: the indexes are what the journals say, and no journal has a gap.
async fn sound(engine: &Engine, runs: usize) {
    let diagnosis = engine.doctor(false).await.unwrap();
    assert_eq!(diagnosis.differences, Vec::<String>::new());
    assert_eq!(diagnosis.runs_checked, runs as u64);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn indexes_follow_random_histories() {
    let mut chance = Chance::seeded();
    let engine = node(&database().await, |_| {}).await;
    register(&engine).await;
    let manners = Manners { fails: 15, silent: 2, twice: 20 };
    let crew = Crew::hire(std::slice::from_ref(&engine), 4, manners, &mut chance);
    let runs = start_some(std::slice::from_ref(&engine), 60, &mut chance).await;
    // In the middle of it, and at the end.
    sound(&engine, runs.len()).await;
    ends(&engine, &runs).await;
    crew.dismiss().await;
    sound(&engine, runs.len()).await;
    assert!(metric(&engine, "late_results_total") + metric(&engine, "lease_losses_total") > 0.0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn many_nodes_leave_one_journal() {
    let mut chance = Chance::seeded();
    let url = database().await;
    let mut nodes = Vec::new();
    for _ in 0..3 {
        nodes.push(node(&url, |_| {}).await);
    }
    register(&nodes[0]).await;
    let manners = Manners { fails: 10, silent: 1, twice: 30 };
    let crew = Crew::hire(&nodes, 6, manners, &mut chance);
    let runs = start_some(&nodes, 60, &mut chance).await;
    let cancelled = runs.iter().take(6).map(|run| {
        let (engine, run) = (nodes[1].clone(), *run);
        tokio::spawn(async move {
            let by = By { actor: "test".into(), reason: "on a whim".to_owned() };
            // Refused when the run is past it: either is right.
            let _ = engine.command(NS, run, Command::Cancel { by }).await;
        })
    });
    for cancel in cancelled.collect::<Vec<_>>() {
        cancel.await.unwrap();
    }
    let views = ends(&nodes[2], &runs).await;
    crew.dismiss().await;
    sound(&nodes[0], runs.len()).await;
    for run in &runs {
        // Any node tells the same, and memory tells the same as the journal.
        for node in &nodes {
            let view = node.run(NS, *run, None).await.unwrap();
            assert_eq!((view.seq, view.outcome), (views[run].seq, views[run].outcome));
            let folded = node.run(NS, *run, Some(view.seq)).await.unwrap();
            assert_eq!(folded.outcome, view.outcome);
        }
    }
    // Two nodes that decide by turns meet: each remembers the run as it was before the other.
    let met = nodes[0].start_run(NS, start("one", "1")).await.unwrap().id;
    for (turn, node) in [&nodes[0], &nodes[1], &nodes[0], &nodes[1]].into_iter().enumerate() {
        let set = Labels::from([("turn".to_owned(), turn.to_string())]);
        let by = By { actor: "test".into(), reason: "by turns".to_owned() };
        node.command(NS, met, Command::Label { set, remove: Vec::new(), by }).await.unwrap();
    }
    let conflicts: f64 = nodes.iter().map(|node| metric(node, "conflicts_total")).sum();
    assert!(conflicts > 0.0, "nobody met anybody");
}

/// Describes the result of everything, except ids and times.
fn told(view: &RunView) -> String {
    let steps: Vec<String> = view
        .steps
        .iter()
        .map(|step| {
            format!("{} {} {:?} {}", step.step, step.state, step.compensation, step.attempts)
        })
        .collect();
    format!("{:?} {:?} {}", view.outcome, view.progress.effects, steps.join(", "))
}

/// Runs one script at a node with batches of at most `commands`, and tells everything that was answered.
async fn script(commands: usize, together: bool) -> (Vec<u16>, Vec<String>) {
    let small = |options: &mut Options| {
        options.tuning.shards = 1;
        options.tuning.batch_commands = commands;
    };
    let engine = node(&database().await, small).await;
    register(&engine).await;
    let hand = Hand::new(&engine);
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(engine.start_run(NS, start("best", "[1,2,3,4,5,6,7,8]")).await.unwrap().id);
    }
    let mut answers = Vec::new();
    for round in 0..2 {
        let mut tasks: Vec<TaskOffer> = Vec::new();
        while tasks.len() < if round == 0 { 32 } else { 4 } {
            tasks.extend(hand.claim(100, Span::secs(30)).await);
        }
        tasks.sort_by_key(|task| (runs.iter().position(|run| *run == task.run), task.step.clone()));
        let reports: Vec<TaskReport> = tasks
            .iter()
            .enumerate()
            // Two of each run's items fail, and the first report of all is said twice.
            .flat_map(|(place, task)| {
                let mut outcome =
                    TaskOutcome::Succeeded { output: task.input.clone(), external_id: None };
                if place % 4 == 1 && round == 0 {
                    let TaskOutcome::Failed(mut failure) = failed() else {
                        unreachable!("it is one")
                    };
                    failure.kind = FailureKind::Permanent;
                    outcome = TaskOutcome::Failed(failure);
                }
                vec![report(task, outcome); if place == 0 { 2 } else { 1 }]
            })
            .collect();
        if together {
            answers.extend(engine.complete(NS, reports).await.iter().map(|answer| answer.status));
        } else {
            for one in reports {
                answers.push(engine.complete(NS, vec![one]).await[0].status);
            }
        }
    }
    let views = ends(&engine, &runs).await;
    (answers, runs.iter().map(|run| told(&views[run])).collect())
}

#[tokio::test]
async fn batching_is_invisible() {
    let alone = script(1_024, false).await;
    assert_eq!(script(1_024, true).await, alone);
    assert_eq!(script(1, true).await, alone);
    assert_eq!(script(7, true).await, alone);
}
