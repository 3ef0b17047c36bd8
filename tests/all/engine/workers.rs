//! Workers and what is in their hands: given back, signed off, kept alone, not heard.

use std::collections::BTreeMap;
use std::time::Duration;

use backstitch_engine::{BackgroundTask, Engine};
use backstitch_saga::protocol::{
    ClaimTasks, ClaimedTasks, HeldTask, Outcome, TaskAnswer, TaskOffer, WaitKind,
};
use backstitch_saga::{RunId, Span};
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, chain, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// Time that a worker may be silent during a task.
const LEASE: Span = Span::secs(5);

/// A worker by name, with one session at one node.
struct Named {
    hand: Hand,
    engine: Engine,
    name: &'static str,
    session: Uuid,
}

impl Named {
    fn new(engine: &Engine, name: &'static str) -> Named {
        Named { hand: Hand::new(engine), engine: engine.clone(), name, session: Uuid::new_v4() }
    }

    async fn claim(&self, max: u32, wait: Span) -> Vec<TaskOffer> {
        self.claim_holding(max, wait, None).await.tasks
    }

    async fn claim_holding(
        &self,
        max: u32,
        wait: Span,
        holding: Option<&[TaskOffer]>,
    ) -> ClaimedTasks {
        let names = vec!["do".to_owned(), "undo".to_owned()];
        let claim = ClaimTasks {
            worker: self.name.to_owned(),
            session: self.session,
            queues: BTreeMap::from([("default".to_owned(), names)]),
            max,
            wait,
            holding: holding.map(held),
        };
        self.engine.claim(NS, claim).await.unwrap()
    }

    async fn some(&self, count: usize) -> Vec<TaskOffer> {
        let mut tasks = Vec::new();
        while tasks.len() < count {
            let most = u32::try_from(count - tasks.len()).unwrap();
            let more = self.claim(most, Span::secs(30)).await;
            assert!(!more.is_empty(), "{count} tasks within ten seconds: {tasks:?}");
            tasks.extend(more);
        }
        tasks
    }

    async fn release(&self, tasks: &[TaskOffer]) -> Vec<TaskAnswer> {
        self.engine.release(NS, self.session, held(tasks)).await
    }
}

fn held(tasks: &[TaskOffer]) -> Vec<HeldTask> {
    let held = tasks.iter().map(|task| HeldTask {
        run: task.run,
        step: task.step.clone(),
        action: task.action,
        attempt: task.attempt,
        lease: task.lease.clone(),
    });
    held.collect()
}

fn statuses(answers: &[TaskAnswer]) -> Vec<u16> {
    answers.iter().map(|answer| answer.status).collect()
}

async fn starts(engine: &Engine, count: usize) -> Vec<RunId> {
    let definition = chain("one", &["a"])
        .replace(r#""1s","attempt":"10s""#, &format!(r#""{LEASE}","attempt":"1m""#));
    engine.register(NS, &definition).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..count {
        runs.push(engine.start_run(NS, start("one", "1")).await.unwrap().id);
    }
    runs
}

async fn waits_for(engine: &Engine, run: RunId) -> WaitKind {
    engine.run_once(BackgroundTask::Workers).await.unwrap();
    engine.why(NS, run).await.unwrap().waits_for[0].kind
}

#[tokio::test]
async fn a_task_goes_to_who_asks_and_not_to_a_session_that_went() {
    // The grace is longer than the test waits.
    let engine = node(&database().await, |options| {
        options.tuning.credit_grace = Duration::from_secs(60);
    })
    .await;
    // It is put aside before another session asks.
    assert!(Named::new(&engine, "fresh").claim(1, Span::ZERO).await.is_empty());
    starts(&engine, 1).await;
    let task = Named::new(&engine, "fresh").some(1).await;
    assert_eq!(task[0].attempt, 1);
    // Another session waits already when the task comes up.
    assert!(Named::new(&engine, "fresh").claim(1, Span::ZERO).await.is_empty());
    let waiting = Named::new(&engine, "fresh");
    let (tasks, _) = tokio::join!(waiting.some(1), starts(&engine, 1));
    assert_eq!(tasks.len(), 1);
    // A session for each task: the report of one brings up the next, which the next session gets.
    engine.register(NS, &chain("three", &["a", "b", "c"])).await.unwrap();
    let run = engine.start_run(NS, start("three", "1")).await.unwrap().id;
    for step in ["a", "b", "c"] {
        let worker = Named::new(&engine, "fresh");
        let tasks = worker.some(1).await;
        assert_eq!((tasks[0].run, tasks[0].step.to_string()), (run, step.to_owned()));
        worker.hand.succeed(&tasks).await;
    }
    assert_eq!(metric(&engine, "lease_losses_total"), 0.0);
}

#[tokio::test]
async fn a_session_that_asks_twice_and_is_silent_is_passed_over_for_its_worker() {
    let engine = node(&database().await, |options| {
        options.tuning.credit_grace = Duration::from_secs(60);
    })
    .await;
    let gone = Named::new(&engine, "fresh");
    for _ in 0..2 {
        assert!(gone.claim(1, Span::millis(10)).await.is_empty());
    }
    starts(&engine, 1).await;
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert_eq!(Named::new(&engine, "fresh").some(1).await.len(), 1);
}

#[tokio::test]
async fn released_tasks_are_on_offer_at_once_as_they_were_and_first() {
    let engine = node(&database().await, |_| {}).await;
    let runs = starts(&engine, 1).await;
    let worker = Named::new(&engine, "stops");
    let first = worker.some(1).await;
    let later = starts(&engine, 3).await;
    // Only the session that holds it may.
    let other = Named::new(&engine, "stops");
    assert_eq!(statuses(&other.release(&first).await), [403]);
    assert_eq!(statuses(&worker.release(&first).await), [200]);
    assert_eq!(statuses(&worker.release(&first).await), [200], "twice is once");
    let again = other.some(1).await;
    assert_eq!((again[0].run, again[0].attempt, again[0].alone), (runs[0], 1, false));
    assert_eq!(again[0].effect_key, first[0].effect_key);
    assert_eq!(statuses(&worker.release(&first).await), [409], "another has it");
    other.hand.succeed(&again).await;
    let view = engine.wait(NS, runs[0], Duration::from_secs(60)).await.unwrap();
    assert_eq!((view.outcome, view.steps[0].attempts), (Some(Outcome::Succeeded), 1));
    let rest = other.some(3).await;
    let rest: Vec<RunId> = rest.iter().map(|task| task.run).collect();
    assert_eq!(rest.len(), later.len());
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
}

#[tokio::test]
async fn a_worker_that_signs_off_is_gone_at_once_with_what_it_did_not_fetch() {
    let engine = node(&database().await, |options| {
        options.tuning.credit_grace = Duration::from_secs(60);
        options.tuning.no_worker_after = Duration::ZERO;
    })
    .await;
    let worker = Named::new(&engine, "stops");
    for _ in 0..2 {
        assert!(worker.claim(1, Span::ZERO).await.is_empty());
    }
    let runs = starts(&engine, 1).await;
    engine.run_once(BackgroundTask::Workers).await.unwrap();
    assert_eq!(engine.workers(NS, false, None, 10).await.unwrap().items.len(), 1);
    assert!(engine.sign_off("elsewhere", worker.session).await.is_err());
    // The run's task was put aside for it.
    assert_eq!(engine.sign_off(NS, worker.session).await.unwrap(), 1);
    assert_eq!(engine.sign_off(NS, worker.session).await.unwrap(), 0, "twice is once");
    assert!(engine.workers(NS, false, None, 10).await.unwrap().items.is_empty());
    assert_eq!(engine.workers(NS, true, None, 10).await.unwrap().items.len(), 1);
    while engine.why(NS, runs[0]).await.unwrap().waits_for[0].kind == WaitKind::WithWorker {
        tokio::task::yield_now().await;
    }
    assert_eq!(waits_for(&engine, runs[0]).await, WaitKind::NoWorker);
    // It may come back.
    assert_eq!(worker.some(1).await[0].attempt, 1);
    engine.run_once(BackgroundTask::Workers).await.unwrap();
    assert_eq!(engine.workers(NS, false, None, 10).await.unwrap().items.len(), 1);
}

/// Starts runs whose tasks lose their first worker.
async fn suspects(engine: &Engine, count: usize) -> Vec<RunId> {
    let runs = starts(engine, count).await;
    let lost = Named::new(engine, "lost");
    assert_eq!(lost.some(count).await.len(), count);
    engine.sign_off(NS, lost.session).await.unwrap();
    while metric(engine, "lease_losses_total") < count as f64 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    runs
}

#[tokio::test]
async fn a_task_over_which_a_worker_was_lost_is_alone_in_its_workers_hands() {
    let url = database().await;
    let (engine, other) = (node(&url, |_| {}).await, node(&url, |_| {}).await);
    suspects(&engine, 3).await;
    let (worker, twin, elsewhere) =
        (Named::new(&engine, "w1"), Named::new(&engine, "w1"), Named::new(&other, "w1"));
    for _ in 0..3 {
        let held = worker.some(1).await;
        assert!(held[0].alone);
        // There is more to do, but not for this worker.
        let more = starts(&engine, 2).await;
        let nothing = Span::millis(400);
        let (a, b, c) = tokio::join!(
            worker.claim(10, nothing),
            twin.claim(10, nothing),
            elsewhere.claim(10, nothing)
        );
        assert_eq!((a.len(), b.len(), c.len()), (0, 0, 0));
        let stranger = Named::new(&other, "w2");
        let taken = stranger.some(more.len()).await;
        assert!(taken.iter().all(|task| !task.alone));
        stranger.hand.succeed(&taken).await;
        other.sign_off(NS, stranger.session).await.unwrap();
        assert_eq!(statuses(&worker.hand.succeed(&held).await), [200]);
    }
    // Then it is a worker like any other.
    starts(&engine, 4).await;
    assert_eq!(worker.some(4).await.len(), 4);
}

#[tokio::test]
async fn a_worker_with_something_in_its_hands_gets_no_suspect_until_it_is_idle() {
    let url = database().await;
    let (engine, other) = (node(&url, |_| {}).await, node(&url, |_| {}).await);
    let long = chain("long", &["a"]).replace(r#""1s","attempt":"10s""#, r#""1m","attempt":"1m""#);
    engine.register(NS, &long).await.unwrap();
    // It has one task of each node, by two sessions.
    let (worker, elsewhere) = (Named::new(&engine, "w1"), Named::new(&other, "w1"));
    let mut busy = Vec::new();
    for session in [&worker, &elsewhere] {
        session.engine.start_run(NS, start("long", "1")).await.unwrap();
        busy.push(session.some(1).await);
    }
    suspects(&engine, 1).await;
    assert!(worker.claim(10, Span::millis(600)).await.is_empty());
    worker.hand.succeed(&busy[0]).await;
    assert!(worker.claim(10, Span::millis(600)).await.is_empty(), "the other node knows of one");
    elsewhere.hand.succeed(&busy[1]).await;
    let held = worker.some(1).await;
    assert!(held[0].alone);
    worker.hand.succeed(&held).await;
}

#[tokio::test]
async fn of_many_suspects_only_the_guilty_is_called_poison() {
    let engine = node(&database().await, |_| {}).await;
    let runs = suspects(&engine, 4).await;
    let guilty = runs[2];
    let mut losses = 4.0;
    while engine.run(NS, guilty, None).await.unwrap().steps[0].state != "parked" {
        // A worker with many slots that dies of one task, and is started again.
        let worker = Named::new(&engine, "w1");
        let tasks = worker.claim(100, Span::secs(30)).await;
        if tasks.iter().any(|task| task.run == guilty) {
            engine.sign_off(NS, worker.session).await.unwrap();
            losses += tasks.len() as f64;
            while metric(&engine, "lease_losses_total") < losses {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        } else {
            worker.hand.succeed(&tasks).await;
        }
    }
    let worker = Named::new(&engine, "w1");
    for run in runs.into_iter().filter(|run| *run != guilty) {
        while engine.run(NS, run, None).await.unwrap().outcome != Some(Outcome::Succeeded) {
            let tasks = worker.claim(100, Span::millis(200)).await;
            worker.hand.succeed(&tasks).await;
        }
    }
    assert_eq!(losses, 6.0, "alone, it takes no other with it");
}

#[tokio::test]
async fn a_worker_that_no_server_could_hear_keeps_its_task() {
    let url = database().await;
    let first = node(&url, |_| {}).await;
    let runs = starts(&first, 1).await;
    let task = Named::new(&first, "patient").some(1).await;
    // The only server is away for longer than the lease.
    drop(first);
    tokio::time::sleep(LEASE.duration() + Duration::from_millis(500)).await;
    let second = node(&url, |options| options.tuning.dead_after = Duration::from_secs(1)).await;
    second.run_once(BackgroundTask::TakeOver).await.unwrap();
    // It has been taken over, and looked at.
    while second.run(NS, runs[0], None).await.unwrap().seq < 3 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let worker = Named::new(&second, "patient");
    assert_eq!(statuses(&worker.hand.succeed(&task).await), [200]);
    assert_eq!(metric(&second, "lease_losses_total"), 0.0);
}

#[tokio::test]
async fn tasks_of_a_dead_server_that_their_worker_never_had_go_back_as_they_were() {
    let url = database().await;
    let first = node(&url, |options| {
        options.tuning.credit_grace = Duration::from_secs(60);
    })
    .await;
    let mut worker = Named::new(&first, "patient");
    let mut runs = starts(&first, 1).await;
    let held = worker.some(1).await;
    // It comes back again and again, so that tasks are put aside for it between two claims.
    assert!(worker.claim(3, Span::ZERO).await.is_empty());
    runs.extend(starts(&first, 3).await);
    for run in &runs {
        let leased = |worker: &Option<String>| worker.is_some();
        while !leased(&first.run(NS, *run, None).await.unwrap().steps[0].worker) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
    drop(first);
    let second = node(&url, |options| options.tuning.dead_after = Duration::from_secs(1)).await;
    worker.engine = second.clone();
    worker.hand = Hand::new(&second);
    // The claim that is open when the runs are taken over is answered at once.
    let (asked, _) = tokio::join!(worker.claim_holding(10, Span::secs(20), None), async {
        tokio::time::sleep(Duration::from_millis(1_500)).await;
        second.run_once(BackgroundTask::TakeOver).await.unwrap();
    });
    assert!(asked.tasks.is_empty() && asked.holding_unknown);
    let mut again = Vec::new();
    while again.len() < 3 {
        let here = [&held[..], &again].concat();
        let claimed = worker.claim_holding(10, Span::secs(5), Some(&here)).await;
        // Asked again when more runs are taken over meanwhile.
        let goes_on = !claimed.tasks.is_empty() || claimed.holding_unknown;
        assert!(goes_on, "only {} of three tasks came again", again.len());
        again.extend(claimed.tasks);
    }
    assert!(again.iter().all(|task| task.attempt == 1 && !task.alone), "{again:?}");
    assert_eq!(statuses(&worker.hand.succeed(&held).await), [200], "it was in its hands");
    assert_eq!(statuses(&worker.hand.succeed(&again).await), [200; 3]);
    for run in runs {
        let view = second.wait(NS, run, Duration::from_secs(60)).await.unwrap();
        assert_eq!((view.outcome, view.steps[0].attempts), (Some(Outcome::Succeeded), 1));
    }
    assert_eq!(metric(&second, "lease_losses_total"), 0.0);
}

#[tokio::test]
async fn a_claim_that_names_what_is_held_gets_back_what_an_answer_lost() {
    let engine = node(&database().await, |_| {}).await;
    let runs = starts(&engine, 2).await;
    let worker = Named::new(&engine, "far");
    let tasks = worker.some(2).await;
    let (held, lost) = tasks.split_at(1);
    // A claim whose asker is gone is still open; it gets nothing any more.
    let (before, now) = tokio::join!(worker.claim_holding(5, Span::secs(20), None), async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        worker.claim_holding(5, Span::secs(10), Some(held)).await
    });
    assert!(before.tasks.is_empty());
    assert_eq!((now.tasks.len(), now.holding_unknown), (1, false));
    assert_eq!((now.tasks[0].run, now.tasks[0].attempt), (lost[0].run, 1));
    assert_eq!(statuses(&worker.hand.succeed(&now.tasks).await), [200]);
    assert_eq!(statuses(&worker.hand.succeed(held).await), [200]);
    // What another session, or another namespace, holds is left alone.
    let others = starts(&engine, 1).await;
    let tasks = worker.some(1).await;
    let stranger = Named::new(&engine, "far");
    assert!(stranger.claim_holding(5, Span::millis(200), Some(&[])).await.tasks.is_empty());
    assert_eq!(statuses(&worker.hand.succeed(&tasks).await), [200]);
    for run in runs.into_iter().chain(others) {
        let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
        assert_eq!((view.outcome, view.steps[0].attempts), (Some(Outcome::Succeeded), 1));
    }
}

#[tokio::test]
async fn a_late_report_takes_a_task_out_of_the_incidents() {
    let engine = node(&database().await, |_| {}).await;
    let definition = chain("one", &["a"]).replace(r#""input""#, r#""max_losses":1,"input""#);
    engine.register(NS, &definition).await.unwrap();
    let run = engine.start_run(NS, start("one", "1")).await.unwrap().id;
    let worker = Named::new(&engine, "slow");
    let task = worker.some(1).await;
    while engine.run(NS, run, None).await.unwrap().steps[0].state != "parked" {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(statuses(&worker.hand.succeed(&task).await), [409]);
    let again = worker.some(1).await;
    assert_eq!((again[0].attempt, again[0].alone), (2, false));
    assert_eq!(statuses(&worker.hand.succeed(&again).await), [200]);
    let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
}

#[tokio::test]
async fn a_worker_that_waits_is_not_told_to_be_busy() {
    let url = database().await;
    let engine = node(&url, |options| options.tuning.check_every = Duration::MAX).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let run = engine.start_run(NS, start("one", "1")).await.unwrap().id;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    sqlx::query("delete from ready").execute(&mut outside).await.unwrap();
    let hand = Hand::new(&engine);
    let waiting = tokio::spawn(async move { hand.claim(1, Span::secs(8)).await });
    eventually("a worker that waits is seen", async || {
        let why = engine.why(NS, run).await.unwrap();
        why.waits_for[0].message.contains("one waits for work")
    })
    .await;
    waiting.abort();
}
