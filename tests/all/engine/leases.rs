//! A report is bound to the lease of its task: by a token that only its worker knows.

use backstitch_engine::Worker;
use backstitch_saga::Span;
use backstitch_saga::protocol::{
    ClaimTasks, Heartbeat, HeldTask, TaskAnswer, TaskOffer, TaskOutcome,
};
use backstitch_tests::node::{Hand, NS, chain, node, report, start};
use backstitch_tests::postgres::database;
use uuid::Uuid;

/// A worker that must show the tokens of its leases.
const STRICT: Worker<'static> = Worker { namespace: NS, credential: Some("w"), must_prove: true };

fn said(answers: &[TaskAnswer]) -> (u16, &str) {
    (answers[0].status, answers[0].code.as_deref().unwrap_or_default())
}

fn with_lease(offer: &TaskOffer, lease: Option<String>) -> TaskOffer {
    TaskOffer { lease, ..offer.clone() }
}

fn done(offer: &TaskOffer) -> TaskOutcome {
    TaskOutcome::Succeeded { output: offer.input.clone(), external_id: None }
}

fn beat(offer: &TaskOffer) -> Heartbeat {
    let TaskOffer { run, step, action, attempt, lease, .. } = offer.clone();
    Heartbeat { run, step, action, attempt, lease, details: None }
}

fn held(offer: &TaskOffer) -> HeldTask {
    let TaskOffer { run, step, action, attempt, lease, .. } = offer.clone();
    HeldTask { run, step, action, attempt, lease }
}

fn asking(session: Uuid) -> ClaimTasks {
    let queues = [("default".to_owned(), vec!["do".to_owned(), "undo".to_owned()])];
    ClaimTasks {
        worker: "w".to_owned(),
        session,
        queues: queues.into(),
        max: 1,
        wait: Span::secs(10),
        holding: None,
    }
}

#[tokio::test]
async fn nothing_that_is_said_of_a_task_counts_without_the_token_of_its_lease() {
    let url = database().await;
    let (first, second) = (node(&url, |_| {}).await, node(&url, |_| {}).await);
    first.register(NS, &chain("one", &["a"])).await.unwrap();
    let run = first.start_run(NS, start("one", "1")).await.unwrap().id;
    first.start_run(NS, start("one", "2")).await.unwrap();
    let session = Uuid::new_v4();
    let mut tasks = Vec::new();
    while tasks.len() < 2 {
        tasks.extend(first.claim(STRICT, asking(session)).await.unwrap().tasks);
    }
    tasks.sort_by_key(|task| task.run != run);
    let task = &tasks[0];
    let lenient = Worker { must_prove: false, ..STRICT };
    for engine in [&first, &second] {
        for (lease, code) in [
            (None, "lease_token_missing"),
            (tasks[1].lease.clone(), "lease_token_wrong"),
            (Some("f".repeat(64)), "lease_token_wrong"),
            (Some("short".to_owned()), "lease_token_wrong"),
        ] {
            let forged = with_lease(task, lease.clone());
            let answers = engine.complete(STRICT, vec![report(&forged, done(task))]).await;
            assert_eq!(said(&answers), (403, code));
            assert_eq!(said(&engine.heartbeat(STRICT, vec![beat(&forged)]).await), (403, code));
            let released = engine.release(STRICT, session, vec![held(&forged)]).await;
            assert_eq!(said(&released), (403, code));
            if lease.is_some() {
                let answers = engine.complete(lenient, vec![report(&forged, done(task))]).await;
                assert_eq!(said(&answers), (403, code), "a wrong token never counts");
            }
        }
        let stolen = engine.release(STRICT, Uuid::new_v4(), vec![held(task)]).await;
        assert_eq!(said(&stolen), (403, "lease_token_wrong"));
        assert_eq!(said(&engine.heartbeat(STRICT, vec![beat(task)]).await), (200, ""));
    }
    let mixed = vec![report(&with_lease(task, None), done(task)), report(task, done(task))];
    let answers = second.complete(STRICT, mixed).await;
    assert_eq!((answers[0].status, answers[1].status), (403, 200), "each is answered for itself");
    assert_eq!(said(&first.complete(STRICT, vec![report(task, done(task))]).await), (200, ""));
}

#[tokio::test]
async fn a_worker_that_gave_a_task_back_says_nothing_more_of_it() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    engine.start_run(NS, start("one", "1")).await.unwrap();
    let (one, other) = (Uuid::new_v4(), Uuid::new_v4());
    let first = engine.claim(STRICT, asking(one)).await.unwrap().tasks.remove(0);
    assert_eq!(said(&engine.release(STRICT, one, vec![held(&first)]).await), (200, ""));
    let second = engine.claim(STRICT, asking(other)).await.unwrap().tasks.remove(0);
    assert_eq!(first.attempt, second.attempt, "it is the same attempt");
    assert_ne!(first.lease, second.lease);
    let answers = engine.complete(STRICT, vec![report(&first, done(&first))]).await;
    assert_eq!(said(&answers), (409, "lease_lost"));
    assert_eq!(said(&engine.heartbeat(STRICT, vec![beat(&first)]).await), (409, "lease_lost"));
    let answers = engine.complete(STRICT, vec![report(&second, done(&second))]).await;
    assert_eq!(said(&answers), (200, ""));
}

#[tokio::test]
async fn a_session_belongs_to_the_credential_that_claimed_with_it_first() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    let session = Uuid::new_v4();
    let ask = ClaimTasks { wait: Span::ZERO, ..asking(session) };
    engine.claim(STRICT, ask.clone()).await.unwrap();
    let thief = Worker { credential: Some("thief"), ..STRICT };
    assert!(engine.claim(thief, ask.clone()).await.is_err());
    assert!(engine.claim(NS, ask.clone()).await.is_err());
    assert!(engine.sign_off(thief, session).await.is_err());
    engine.claim(STRICT, ask).await.unwrap();
    engine.sign_off(STRICT, session).await.unwrap();
}

#[tokio::test]
async fn tokens_outlive_the_node_that_gave_them() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    engine.start_run(NS, start("one", "1")).await.unwrap();
    let task = Hand::new(&engine).one().await;
    engine.stop().await;
    let next = node(&url, |_| {}).await;
    let answers = next.complete(STRICT, vec![report(&task, done(&task))]).await;
    assert_eq!(said(&answers), (200, ""));
}
