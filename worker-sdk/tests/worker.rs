//! The worker against the real rules over the real wire, with a server that has mishaps.

#![expect(clippy::unwrap_used, reason = "a test may panic")]

mod server;

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use backstitch_saga::{By, Command, Graph};
use backstitch_sdk::protocol::Outcome;
use backstitch_sdk::{
    ClientError, CompensationContext, Drained, Empty, Item, Ref, Retry, Span, Task, TaskContext,
    TaskError, Timeouts, Undo, Worker, Workflow,
};
use server::{Mishap, Server};
use tokio::sync::{Barrier, Notify, oneshot};
use tokio::task::JoinHandle;

const DOUBLE: Task<u64, u64> = Task::new("double");
const HALVE: Undo<u64, u64> = Undo::new("halve");
const REFUSE: Task<u64, u64> = Task::new("refuse");

/// Makes a workflow of one step of `DOUBLE`, undone by `HALVE`, tried again soon.
fn one_step() -> Arc<Graph> {
    let workflow = Workflow::<u64, u64>::build("one", 1, |saga, input| {
        saga.step("double", DOUBLE, input)
            .compensate(HALVE)
            .retry(Retry::every(Span::millis(1)).max_attempts(3))
            .timeouts(Timeouts::default().heartbeat(Span::millis(60)))
    });
    Arc::clone(workflow.unwrap().graph())
}

/// Makes a workflow of `DOUBLE` for each element of a list.
fn many_items() -> Arc<Graph> {
    let workflow = Workflow::build("many", 1, |saga, input: Ref<Vec<u64>>| {
        saga.map("items", input, DOUBLE, |item: Item<u64>| item)
            .empty(Empty::Succeed)
            .compensate(HALVE)
    });
    Arc::clone(workflow.map(|workflow: Workflow<Vec<u64>, Vec<u64>>| workflow).unwrap().graph())
}

async fn double(_: TaskContext, number: u64) -> Result<u64, TaskError> {
    Ok(number * 2)
}

async fn halve(_: TaskContext, _: CompensationContext<u64, u64>) -> Result<(), TaskError> {
    Ok(())
}

/// A worker at work, and how to stop it.
struct AtWork {
    stop: oneshot::Sender<()>,
    ending: JoinHandle<Result<Drained, ClientError>>,
}

fn at_work(worker: Worker) -> AtWork {
    let (stop, stopped) = oneshot::channel::<()>();
    let ending = tokio::spawn(worker.run(async {
        let _ = stopped.await;
    }));
    AtWork { stop, ending }
}

impl AtWork {
    async fn stop(self) -> Drained {
        let _ = self.stop.send(());
        in_time(self.ending).await.unwrap().unwrap()
    }
}

async fn in_time<T>(work: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(60), work).await.expect("it is done in time")
}

#[tokio::test]
async fn a_thousand_items_go_through_in_few_requests() {
    let server = Server::start().await;
    let input = serde_json::to_string(&(0..1_000).collect::<Vec<u64>>()).unwrap();
    let run = server.run(&many_items(), &input);
    let worker = at_work(Worker::new(server.client.clone()).task(DOUBLE, double).concurrency(200));
    assert_eq!(in_time(server.ended(run)).await, Outcome::Succeeded);
    let drained = worker.stop().await;
    assert_eq!(drained, Drained { reported: 1_000, late: 0, abandoned: 0 });
    let batches = server.batches();
    assert_eq!(batches.iter().sum::<usize>(), 1_000);
    assert!(batches.len() < 100, "{} requests for a thousand reports", batches.len());
    assert!(server.claims() < 100, "{} claims for a thousand tasks", server.claims());
}

#[tokio::test]
async fn as_many_at_once_as_it_may_and_no_more() {
    let server = Server::start().await;
    let run = server.run(&many_items(), "[1,2,3,4,5,6,7,8,9]");
    let (now, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let (three, seen) = (Arc::new(Barrier::new(3)), Arc::clone(&most));
    let handler = move |_: TaskContext, number: u64| {
        let (now, most, three) = (Arc::clone(&now), Arc::clone(&most), Arc::clone(&three));
        async move {
            most.fetch_max(now.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            three.wait().await;
            now.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, TaskError>(number)
        }
    };
    let worker = at_work(Worker::new(server.client.clone()).task(DOUBLE, handler).concurrency(3));
    assert_eq!(in_time(server.ended(run)).await, Outcome::Succeeded);
    worker.stop().await;
    assert_eq!(seen.load(Ordering::SeqCst), 3);
}

#[tokio::test]
async fn a_server_that_is_busy_or_breaks_off_is_asked_again() {
    let server = Server::start().await;
    for mishap in [Mishap::Refused(503), Mishap::AnswerLost, Mishap::EachRefused(503)] {
        server.mishap("/complete", mishap);
    }
    server.mishap("/claim", Mishap::Refused(503));
    let run = server.run(&one_step(), "21");
    let worker = at_work(Worker::new(server.client.clone()).task(DOUBLE, double));
    let view = server.until(run, |view| view.outcome.is_some()).await;
    assert_eq!(view.output.unwrap().text(), "42");
    let drained = worker.stop().await;
    assert_eq!((drained.reported, drained.abandoned), (1, 0));
}

#[tokio::test]
async fn a_task_whose_claim_was_not_answered_is_got_again_and_what_is_under_way_is_kept() {
    let server = Server::start().await;
    let (first, go) = (server.run(&one_step(), "1"), Arc::new(Notify::new()));
    let wait = Arc::clone(&go);
    let handler = move |_: TaskContext, number: u64| {
        let wait = Arc::clone(&wait);
        async move {
            if number == 1 {
                wait.notified().await;
            }
            Ok::<_, TaskError>(number)
        }
    };
    let worker = at_work(Worker::new(server.client.clone()).task(DOUBLE, handler));
    server.until(first, |view| view.steps[0].worker.is_some()).await;
    server.polls(1).await;
    server.mishap("/claim", Mishap::AnswerLost);
    let second = server.run(&one_step(), "2");
    let view = server.until(second, |view| view.outcome.is_some()).await;
    assert_eq!((view.outcome, view.steps[0].attempts), (Some(Outcome::Succeeded), 1));
    go.notify_one();
    let view = server.until(first, |view| view.outcome.is_some()).await;
    assert_eq!((view.outcome, view.steps[0].deliveries), (Some(Outcome::Succeeded), 1));
    assert_eq!(worker.stop().await, Drained { reported: 2, late: 0, abandoned: 0 });
}

#[tokio::test]
async fn a_revoked_attempt_is_told_and_its_report_is_late() {
    let server = Server::start().await;
    let run = server.run(&one_step(), "1");
    let told = Arc::new(Notify::new());
    let tell = Arc::clone(&told);
    let handler = move |ctx: TaskContext, number: u64| {
        let tell = Arc::clone(&tell);
        async move {
            ctx.cancelled().await;
            tell.notify_one();
            Ok::<_, TaskError>(number)
        }
    };
    let worker =
        at_work(Worker::new(server.client.clone()).task(DOUBLE, handler).undo(HALVE, halve));
    server.until(run, |view| view.steps[0].worker.is_some()).await;
    let by = By { actor: "test".into(), reason: "it is not wanted any more".to_owned() };
    server.command(run, Command::Cancel { by }).unwrap();
    in_time(told.notified()).await;
    assert_eq!(in_time(server.ended(run)).await, Outcome::Compensated);
    assert_eq!(worker.stop().await, Drained { reported: 1, late: 1, abandoned: 0 });
}

#[tokio::test]
async fn signs_of_life_keep_a_lease_and_carry_progress() {
    let server = Server::start().await;
    let run = server.run(&one_step(), "1");
    let (go, gone) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let wait = Arc::clone(&go);
    let (sees, seen) = (Arc::clone(&gone), gone);
    let handler = move |ctx: TaskContext, number: u64| {
        let (wait, sees) = (Arc::clone(&wait), Arc::clone(&sees));
        async move {
            match ctx.progress::<String>() {
                None => {
                    ctx.heartbeat(&"half");
                    wait.notified().await;
                    Err(TaskError::retryable("again", "so that there is a second attempt"))
                }
                Some(progress) => {
                    assert_eq!(progress, "half");
                    sees.notify_one();
                    Ok(number)
                }
            }
        }
    };
    let worker = at_work(Worker::new(server.client.clone()).task(DOUBLE, handler));
    let first = server.until(run, |view| view.steps[0].next_at.is_some()).await.steps[0].next_at;
    server.until(run, |view| view.steps[0].next_at > first).await;
    go.notify_one();
    server.until(run, |view| view.steps[0].state == "backoff").await;
    server.tick(run);
    in_time(seen.notified()).await;
    assert_eq!(in_time(server.ended(run)).await, Outcome::Succeeded);
    worker.stop().await;
}

#[tokio::test]
async fn draining_finishes_what_is_held_and_claims_no_more() {
    let server = Server::start().await;
    let run = server.run(&one_step(), "1");
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, wait) = (Arc::clone(&began), Arc::clone(&go));
    let handler = move |_: TaskContext, number: u64| {
        let (begins, wait) = (Arc::clone(&begins), Arc::clone(&wait));
        async move {
            begins.notify_one();
            wait.notified().await;
            Ok::<_, TaskError>(number)
        }
    };
    let worker = at_work(Worker::new(server.client.clone()).task(DOUBLE, handler));
    in_time(began.notified()).await;
    in_time(server.polls(1)).await;
    worker.stop.send(()).unwrap();
    in_time(server.polls(0)).await;
    let later = server.run(&one_step(), "2");
    go.notify_one();
    let drained = in_time(worker.ending).await.unwrap().unwrap();
    assert_eq!(drained, Drained { reported: 1, late: 0, abandoned: 0 });
    assert_eq!(in_time(server.ended(run)).await, Outcome::Succeeded);
    let view = server.until(later, |_| true).await;
    assert_eq!(view.steps[0].deliveries, 0);
}

#[tokio::test]
async fn draining_ends_although_a_handler_does_not() {
    let server = Server::start().await;
    let run = server.run(&one_step(), "1");
    let stuck = Worker::new(server.client.clone())
        .task(DOUBLE, |_: TaskContext, _| std::future::pending::<Result<u64, TaskError>>())
        .drain_within(Duration::from_millis(1));
    let worker = at_work(stuck);
    server.until(run, |view| view.steps[0].worker.is_some()).await;
    assert_eq!(worker.stop().await, Drained { reported: 0, late: 0, abandoned: 1 });
}

#[tokio::test]
async fn dropping_a_worker_stops_its_handlers() {
    struct Dropped(Option<oneshot::Sender<()>>);
    impl Drop for Dropped {
        fn drop(&mut self) {
            let _ = self.0.take().unwrap().send(());
        }
    }
    let server = Server::start().await;
    let run = server.run(&one_step(), "1");
    let (sender, dropped) = oneshot::channel();
    let guard = Arc::new(std::sync::Mutex::new(Some(Dropped(Some(sender)))));
    let handler = move |_: TaskContext, number: u64| {
        let guard = guard.lock().unwrap().take();
        async move {
            std::future::pending::<()>().await;
            drop(guard);
            Ok::<_, TaskError>(number)
        }
    };
    let worker = at_work(Worker::new(server.client.clone()).task(DOUBLE, handler));
    server.until(run, |view| view.steps[0].worker.is_some()).await;
    worker.ending.abort();
    in_time(dropped).await.unwrap();
}

#[tokio::test]
async fn a_panic_may_have_happened_and_a_wrong_input_did_not() {
    let server = Server::start().await;
    let worker = Worker::new(server.client.clone())
        .task(DOUBLE, |_: TaskContext, number: u64| async move {
            assert!(number != 7, "seven is unlucky");
            Ok::<_, TaskError>(number)
        })
        .undo(HALVE, halve);
    let worker = at_work(worker);
    let panics = server.run(&one_step(), "7");
    let ticking = server.tick_until_ended(panics);
    assert_eq!(in_time(ticking).await.outcome, Some(Outcome::Compensated));
    let error = server.until(panics, |_| true).await.error.unwrap().failure;
    assert_eq!(error.code, "panic");
    assert!(error.message.contains("seven is unlucky"), "{}", error.message);

    let wrong = server.run(&one_step(), r#"{"not":"a number"}"#);
    assert_eq!(in_time(server.ended(wrong)).await, Outcome::FailedClean);
    let error = server.until(wrong, |_| true).await.error.unwrap().failure;
    assert_eq!(error.code, "undecodable_input");
    worker.stop().await;
}

/// Returns how a run of one step went whose first report is refused, how often it was done, and its error.
async fn refused_first(mishaps: &[Mishap]) -> (Option<Outcome>, usize, String) {
    let server = Server::start().await;
    mishaps.iter().for_each(|mishap| server.mishap("/complete", *mishap));
    let done = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&done);
    let handler = move |_: TaskContext, number: u64| {
        counted.fetch_add(1, Ordering::SeqCst);
        async move { Ok::<_, TaskError>(number) }
    };
    let worker = Worker::new(server.client.clone()).task(DOUBLE, handler).undo(HALVE, halve);
    let (worker, run) = (at_work(worker), server.run(&one_step(), "1"));
    let view = in_time(server.tick_until_ended(run)).await;
    worker.stop().await;
    let error = view.error.map(|error| error.failure.code).unwrap_or_default();
    (view.outcome, done.load(Ordering::SeqCst), error)
}

#[tokio::test]
async fn an_output_that_the_server_will_not_take_is_of_work_that_is_done_and_done_once() {
    let older = [Mishap::EachRefused(422); 2];
    for (mishaps, expected) in [
        (&older[..1], (Some(Outcome::Compensated), 1, "output_refused")),
        (&[Mishap::Refused(413)], (Some(Outcome::Compensated), 1, "output_too_large")),
        // An older server hears that it may have happened.
        (&older[..], (Some(Outcome::Succeeded), 2, "")),
    ] {
        let (outcome, done, error) = refused_first(mishaps).await;
        assert_eq!((outcome, done, error.as_str()), expected, "{mishaps:?}");
    }
}

#[tokio::test]
async fn an_output_without_json_is_of_work_that_is_done() {
    struct Odd;
    impl serde::Serialize for Odd {
        fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("odd"))
        }
    }
    const ODD: Task<u64, Odd> = Task::new("odd");
    let server = Server::start().await;
    let workflow = Workflow::<u64, u64>::build("odd", 1, |saga, input| {
        let _ = saga
            .step("odd", ODD, input)
            .read_only()
            .retry(Retry::every(Span::millis(1)).max_attempts(3));
        backstitch_sdk::constant(7_u64)
    });
    let run = server.run(workflow.unwrap().graph(), "1");
    let handler = |_: TaskContext, _: u64| async { Ok::<_, TaskError>(Odd) };
    let worker = at_work(Worker::new(server.client.clone()).task(ODD, handler));
    let view = in_time(server.tick_until_ended(run)).await;
    assert_eq!(view.steps[0].attempts, 1);
    assert_eq!(view.error.unwrap().failure.code, "unencodable_output");
    worker.stop().await;
}

#[tokio::test]
async fn a_batch_that_is_refused_as_a_whole_is_halved() {
    let server = Server::start().await;
    server.mishap("/complete", Mishap::Refused(413));
    server.mishap("/complete", Mishap::Refused(413));
    let run = server.run(&many_items(), "[1,2,3,4,5,6,7,8]");
    let began = Arc::new(Barrier::new(8));
    let handler = move |_: TaskContext, number: u64| {
        let began = Arc::clone(&began);
        async move {
            began.wait().await;
            Ok::<_, TaskError>(number)
        }
    };
    let worker = at_work(Worker::new(server.client.clone()).task(DOUBLE, handler).concurrency(8));
    assert_eq!(in_time(server.ended(run)).await, Outcome::Succeeded);
    assert_eq!(worker.stop().await.reported, 8);
}

#[tokio::test]
async fn what_it_does_not_know_stays_on_offer() {
    let server = Server::start().await;
    let worker = at_work(Worker::new(server.client.clone()).task(REFUSE, double));
    let other = server.run(&one_step(), "1");
    let workflow =
        Workflow::<u64, u64>::build("other", 1, |saga, input| saga.step("a", REFUSE, input));
    let known = server.run(workflow.unwrap().graph(), "1");
    assert_eq!(in_time(server.ended(known)).await, Outcome::Succeeded);
    assert_eq!(server.until(other, |_| true).await.steps[0].deliveries, 0);
    worker.stop().await;
}

#[tokio::test]
async fn a_worker_that_may_not_claim_says_so() {
    let server = Server::start().await;
    server.mishap("/claim", Mishap::Refused(403));
    let worker = Worker::new(server.client.clone()).task(DOUBLE, double);
    let refused = in_time(worker.run(std::future::pending())).await.unwrap_err();
    assert_eq!(refused.status(), Some(403));
    let none = Worker::new(server.client.clone()).run(std::future::pending()).await;
    assert!(matches!(none, Err(ClientError::Setup(_))), "a worker without handlers: {none:?}");
}

#[test]
fn a_handler_that_blocks_its_thread_keeps_its_lease() {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let server_runtime = tokio::runtime::Runtime::new().unwrap();
    let server = server_runtime.block_on(Server::start());
    let run = server.run(&one_step(), "4");
    let client = server.client.clone();
    // Time passes at the server, whose lease of 60 ms would be over long before the handler is done.
    let ticking = server_runtime.spawn(async move {
        let ended = server.until(run, |view| view.outcome.is_some());
        let ticks = async {
            loop {
                server.look(run);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::select! {
            view = ended => view,
            () = ticks => unreachable!(),
        }
    });
    let handler = |_: TaskContext, number: u64| async move {
        std::thread::sleep(Duration::from_millis(700));
        Ok::<_, TaskError>(number)
    };
    let view = runtime.block_on(async {
        let worker = at_work(Worker::new(client).task(DOUBLE, handler));
        let view = in_time(ticking).await.unwrap();
        worker.stop().await;
        view
    });
    assert_eq!((view.outcome, view.steps[0].attempts), (Some(Outcome::Succeeded), 1), "{view:?}");
}

#[tokio::test]
async fn a_worker_that_stops_gives_back_what_it_has_not_begun_and_signs_off() {
    let server = Server::start().await;
    let (began, go) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begins, wait) = (Arc::clone(&began), Arc::clone(&go));
    let handler = move |_: TaskContext, number: u64| {
        let (begins, wait) = (Arc::clone(&begins), Arc::clone(&wait));
        async move {
            begins.notify_one();
            wait.notified().await;
            Ok::<_, TaskError>(number)
        }
    };
    let first = server.run(&one_step(), "1");
    let worker = at_work(Worker::new(server.client.clone()).task(DOUBLE, handler));
    in_time(began.notified()).await;
    in_time(server.polls(1)).await;
    // The claim under way is answered after the worker was told to stop.
    worker.stop.send(()).unwrap();
    let second = server.run(&one_step(), "2");
    let view = server.until(second, |_| server.given_back().0 == 1).await;
    assert_eq!((view.steps[0].state.as_str(), view.steps[0].attempts), ("offered", 0), "{view:?}");
    go.notify_one();
    let drained = in_time(worker.ending).await.unwrap().unwrap();
    assert_eq!(drained, Drained { reported: 1, late: 0, abandoned: 1 });
    assert_eq!(in_time(server.ended(first)).await, Outcome::Succeeded);
    assert_eq!(server.given_back(), (1, 1));
}

#[tokio::test]
async fn handlers_that_take_too_long_are_stopped_and_given_back_or_reported_as_unknown() {
    let server = Server::start().await;
    for safe in [true, false] {
        let began = Arc::new(Notify::new());
        let begins = Arc::clone(&began);
        let handler = move |ctx: TaskContext, number: u64| {
            ctx.safe_to_stop(safe);
            let begins = Arc::clone(&begins);
            async move {
                begins.notify_one();
                std::future::pending::<()>().await;
                Ok::<_, TaskError>(number)
            }
        };
        let run = server.run(&one_step(), "1");
        let worker = Worker::new(server.client.clone()).task(DOUBLE, handler);
        let worker = at_work(worker.drain_within(Duration::ZERO));
        in_time(began.notified()).await;
        let drained = worker.stop().await;
        assert_eq!(drained, Drained { reported: 0, late: 0, abandoned: 1 });
        let view = server.until(run, |_| true).await;
        match safe {
            true => assert_eq!(view.steps[0].state, "offered"),
            false => assert_eq!(view.steps[0].error.as_ref().unwrap().code, "worker_stopped"),
        }
        let by = By { actor: "test".into(), reason: "enough".to_owned() };
        server.command(run, Command::Kill { by }).unwrap();
    }
}
