//! Serial keys as callers meet them: ten starts at once under each policy, at two servers, with what each caller was
//! answered and what ran in which order.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_saga::protocol::{ActFilter, Outcome, RunView, State, TaskOffer};
use backstitch_saga::{Action, RunId, Span};
use backstitch_tests::node::{Hand, NS};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

/// Two servers on one database, with a worker at each.
struct Two {
    servers: [Server; 2],
    hands: [Hand; 2],
}

impl Two {
    async fn start() -> Two {
        let here = Server::start(Access::Open).await;
        let there = here.beside().await;
        let task = |id: &str| {
            json!({"id": id, "task": {"name": "do", "input": {"path": "/input"},
                "compensate": {"name": "undo"},
                "timeouts": {"heartbeat": "30s", "attempt": "5m", "step": "10m"}}})
        };
        let mut second = task("second");
        second["after"] = json!(["first"]);
        let both = json!({"name": "both", "version": 1, "steps": [task("first"), second]});
        let one = json!({"name": "one", "version": 1, "steps": [task("first")]});
        for definition in [both, one] {
            let path = format!("/v1/workflows/{}/versions/1", definition["name"].as_str().unwrap());
            assert_eq!(send(with_json(here.request("PUT", &path), definition)).await.status, 201);
        }
        let hands = [Hand::new(&here.engine), Hand::new(&there.engine)];
        Two { servers: [here, there], hands }
    }

    async fn ask(&self, at: usize, workflow: &str, policy: &str, key: Option<&str>) -> Answer {
        let sequence = json!({"serial_key": "k", "on_conflict": policy});
        let mut body = json!({"workflow": workflow, "input": null, "sequence": sequence});
        if let Some(key) = key {
            body["key"] = json!(key);
        }
        self.servers[at % 2].post("/v1/runs", body).await
    }

    /// Ten starts at once, every other at the same server.
    async fn ten(&self, policy: &str, key: Option<&str>) -> Vec<Answer> {
        futures::future::join_all((0..10).map(|at| self.ask(at, "one", policy, key))).await
    }

    /// Returns the line of the key: each run, whether it holds, and by which it was replaced.
    async fn line(&self) -> Vec<(RunId, bool, Option<RunId>)> {
        let line = self.servers[1].get("/v1/keys/k").await.json();
        let place = |one: &Value| {
            let replaced = one["replaced_by"].as_str().map(|run| run.parse().unwrap());
            (one["run"].as_str().unwrap().parse().unwrap(), one["state"] == "holding", replaced)
        };
        line["items"].as_array().unwrap().iter().map(place).collect()
    }

    async fn lines(&self, length: usize) -> Vec<RunId> {
        until("the line has shrunk", async || self.line().await.len() == length).await;
        self.line().await.into_iter().map(|(run, ..)| run).collect()
    }

    /// Returns the next task, from whichever node has it.
    async fn task(&self) -> (&Hand, TaskOffer) {
        let limit = Instant::now() + Duration::from_secs(60);
        loop {
            for hand in &self.hands {
                if let Some(task) = hand.claim(1, Span::millis(20)).await.pop() {
                    return (hand, task);
                }
            }
            assert!(Instant::now() < limit, "no task within twenty seconds");
        }
    }

    /// Does the next task, which must be this one; until it is done nothing else may be on offer.
    async fn does(&self, run: RunId, action: Action) {
        let (hand, task) = self.task().await;
        assert_eq!((task.run, task.action, task.attempt), (run, action, 1));
        self.nothing_on_offer().await;
        hand.succeed(&[task]).await;
    }

    async fn nothing_on_offer(&self) {
        for hand in &self.hands {
            let more = hand.claim(1, Span::millis(20)).await;
            assert!(more.is_empty(), "two move under one key: {more:?}");
        }
    }

    async fn view(&self, run: RunId) -> RunView {
        self.servers[0].engine.run(NS, run, None).await.unwrap()
    }

    /// Returns the acts on a run, with actor and reason.
    async fn acts(&self, run: RunId) -> Vec<String> {
        let filter = ActFilter { run: Some(run), ..ActFilter::default() };
        let acts = self.servers[0].engine.acts(NS, &filter, None, 10).await.unwrap().items;
        acts.iter().map(|act| format!("{} {} {}", act.actor, act.verb, act.reason)).collect()
    }

    /// Returns the outcome of a run, and the number of times that a worker had its first step.
    async fn end(&self, run: RunId) -> (Outcome, u32) {
        let view = self.servers[0].engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
        (view.outcome.unwrap_or_else(|| panic!("{view:#?}")), view.steps[0].deliveries)
    }

    async fn stopped(self) {
        assert_eq!(self.lines(0).await, []);
        let doctor = self.servers[0].engine.doctor(false).await.unwrap();
        assert_eq!(doctor.differences, Vec::<String>::new());
        for server in self.servers {
            server.stopped().await;
        }
    }
}

fn id(answer: &Answer) -> RunId {
    answer.json()["id"].as_str().unwrap().parse().unwrap()
}

/// Returns the runs that were started: every caller was answered 201, with a run of its own.
fn all_created(answers: &[Answer]) -> BTreeSet<RunId> {
    assert!(answers.iter().all(|answer| answer.status == 201), "{answers:?}");
    let runs: BTreeSet<RunId> = answers.iter().map(id).collect();
    assert_eq!(runs.len(), answers.len());
    runs
}

/// Returns the only run that was started, and the answers of the others.
fn one_created(answers: &[Answer]) -> (RunId, Vec<&Answer>) {
    let (created, others): (Vec<&Answer>, Vec<&Answer>) =
        answers.iter().partition(|answer| answer.status == 201);
    assert_eq!(created.len(), 1, "{answers:?}");
    (id(created[0]), others)
}

/// Waits until `what` is so; it must be within twenty seconds.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !so().await {
        assert!(Instant::now() < limit, "not within twenty seconds: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

const DONE: (Outcome, u32) = (Outcome::Succeeded, 1);
const NEVER: (Outcome, u32) = (Outcome::Cancelled, 0);

#[tokio::test]
async fn ten_that_queue_run_one_after_the_other() {
    let two = Two::start().await;
    let runs = all_created(&two.ten("queue", None).await);
    let order = two.lines(10).await;
    assert_eq!(order.iter().copied().collect::<BTreeSet<RunId>>(), runs);
    for run in &order {
        if *run != order[0] {
            let waits = two.view(*run).await;
            let kinds: Vec<&str> = waits.conditions.iter().map(|one| one.kind.as_str()).collect();
            assert_eq!((waits.state, kinds), (State::Waiting, vec!["KeyBlocked"]));
        }
    }
    for run in &order {
        two.does(*run, Action::Forward).await;
    }
    let mut last_end = None;
    for run in order {
        assert_eq!(two.end(run).await, DONE);
        let ended_at = two.view(run).await.ended_at;
        assert!(last_end < ended_at, "they ended in the order of the line");
        last_end = ended_at;
    }
    two.stopped().await;
}

#[tokio::test]
async fn of_ten_that_are_rejected_one_runs() {
    let two = Two::start().await;
    let answers = two.ten("reject", None).await;
    let (run, others) = one_created(&answers);
    for other in others {
        assert_eq!(other.problem(409), "key_held");
        assert!(other.text.contains(&run.to_string()), "it says who has the key: {other:?}");
    }
    assert_eq!(two.lines(1).await, [run]);
    two.does(run, Action::Forward).await;
    assert_eq!(two.end(run).await, DONE);
    two.lines(0).await;
    // The key is free again.
    let (again, _) = one_created(&two.ten("reject", None).await);
    two.does(again, Action::Forward).await;
    assert_eq!(two.end(again).await, DONE);
    two.stopped().await;
}

#[tokio::test]
async fn ten_that_use_what_exists_are_answered_with_one() {
    let two = Two::start().await;
    let answers = two.ten("use_existing", None).await;
    let (run, others) = one_created(&answers);
    for other in others {
        assert_eq!((other.status, id(other)), (200, run));
    }
    assert_eq!(two.lines(1).await, [run]);
    two.does(run, Action::Forward).await;
    two.nothing_on_offer().await;
    assert_eq!(two.end(run).await, DONE);
    two.stopped().await;
}

#[tokio::test]
async fn of_ten_that_coalesce_the_first_and_the_last_run() {
    let two = Two::start().await;
    let runs = all_created(&two.ten("coalesce", None).await);
    let left = two.lines(2).await;
    assert_eq!(two.line().await.iter().map(|place| place.1).collect::<Vec<_>>(), [true, false]);
    for run in &left {
        two.does(*run, Action::Forward).await;
    }
    two.nothing_on_offer().await;
    for run in runs {
        let expected = if left.contains(&run) { DONE } else { NEVER };
        assert_eq!(two.end(run).await, expected);
    }
    two.stopped().await;
}

#[tokio::test]
async fn of_ten_that_replace_the_last_runs_when_the_old_one_is_undone() {
    let two = Two::start().await;
    let old = id(&two.ask(0, "both", "queue", None).await);
    two.does(old, Action::Forward).await;
    let (late, second) = two.task().await;
    assert_eq!((second.run, second.step.to_string().as_str()), (old, "second"));

    let answers = two.ten("replace", None).await;
    let runs = all_created(&answers);
    // Each replaces the one before it; those between end at once, having done nothing.
    let left = two.lines(2).await;
    let newest = left[1];
    assert_eq!(left[0], old);
    for run in runs.iter().filter(|run| **run != newest) {
        assert_eq!(two.end(*run).await, NEVER);
        let acts = two.acts(*run).await;
        assert_eq!(acts.len(), 1, "{acts:?}");
        assert!(acts[0].starts_with("backstitch cancel replaced by run "), "{acts:?}");
    }
    // The old one holds the key until what it did is undone, what may have happened first.
    assert_eq!(two.view(old).await.state, State::Compensating);
    assert_eq!(late.succeed(&[second]).await[0].status, 409, "a late result moves nothing");
    for step in ["second", "first"] {
        let (hand, task) = two.task().await;
        assert_eq!((task.run, task.action), (old, Action::Compensate));
        assert_eq!(task.step.to_string(), step);
        assert_eq!(two.view(newest).await.steps[0].deliveries, 0);
        two.nothing_on_offer().await;
        hand.succeed(&[task]).await;
    }
    assert_eq!(two.end(old).await, (Outcome::Compensated, 1));
    two.does(newest, Action::Forward).await;
    assert_eq!(two.end(newest).await, DONE);
    let (begun, ended) = (two.view(newest).await, two.view(old).await.ended_at.unwrap());
    assert!(begun.ended_at.unwrap() > ended);
    two.stopped().await;
}

#[tokio::test]
async fn of_ten_that_replace_each_other_only_the_last_acts() {
    let two = Two::start().await;
    let runs = all_created(&two.ten("replace", None).await);
    let newest = two.lines(1).await[0];
    two.does(newest, Action::Forward).await;
    two.nothing_on_offer().await;
    for run in runs {
        assert_eq!(two.end(run).await, if run == newest { DONE } else { NEVER });
    }
    two.stopped().await;
}

#[tokio::test]
async fn a_start_that_is_asked_for_ten_times_does_not_meet_itself() {
    for policy in ["queue", "reject", "replace", "coalesce", "use_existing"] {
        let two = Two::start().await;
        let answers = two.ten(policy, Some("order-1")).await;
        let (run, others) = one_created(&answers);
        for other in others {
            assert_eq!((other.status, id(other)), (200, run), "{policy}");
        }
        assert_eq!(two.lines(1).await, [run], "{policy}");
        two.does(run, Action::Forward).await;
        assert_eq!(two.end(run).await, DONE, "{policy}");
        two.lines(0).await;
        // Also after its end it is the same.
        let again = two.ask(1, "one", policy, Some("order-1")).await;
        assert_eq!((again.status, id(&again)), (200, run), "{policy}");
        two.stopped().await;
    }
}

#[tokio::test]
async fn a_start_whose_node_died_before_it_was_a_run_begins_when_it_is_asked_for_again() {
    let two = Two::start().await;
    // What a node leaves behind that dies between letting a start in and its first record.
    let mut sql = PgConnection::connect(two.servers[0].database()).await.unwrap();
    let orphan = RunId(uuid::Uuid::now_v7());
    for text in [
        "insert into sequenced (run_id, namespace, since, workflow, start_key) \
         values ($1, $2, clock_timestamp(), 'one', 'order-1')",
        "insert into serial_keys (namespace, key, run_id, state, since) \
         values ($2, 'k', $1, 'holding', clock_timestamp())",
    ] {
        sqlx::query(text).bind(orphan.0).bind(NS).execute(&mut sql).await.unwrap();
    }
    let began = Instant::now();
    let answers = two.ten("queue", Some("order-1")).await;
    for answer in &answers {
        assert!([200, 201].contains(&answer.status), "{answer:?}");
        assert_eq!(id(answer), orphan, "it has the place that was taken for it");
    }
    two.does(orphan, Action::Forward).await;
    assert_eq!(two.end(orphan).await, DONE);
    two.lines(0).await;
    assert!(began.elapsed() < Duration::from_secs(30), "before its place would be given back");
    two.stopped().await;
}

#[tokio::test]
async fn a_batch_takes_its_places_in_its_order() {
    let two = Two::start().await;
    let runs: Vec<Value> = ["queue", "use_existing", "reject", "queue"]
        .iter()
        .map(|policy| {
            let sequence = json!({"serial_key": "k", "on_conflict": policy});
            json!({"workflow": "one", "input": null, "sequence": sequence})
        })
        .collect();
    let answer = two.servers[0].post("/v1/runs/batch", json!({"runs": runs})).await.json();
    let told: Vec<(u64, Option<&str>)> = answer["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| (one["status"].as_u64().unwrap(), one["id"].as_str()))
        .collect();
    let statuses: Vec<u64> = told.iter().map(|(status, _)| *status).collect();
    assert_eq!(statuses, [201, 200, 409, 201]);
    assert_eq!(told[0].1, told[1].1, "it is answered with the run that was before it in the batch");
    for run in two.lines(2).await {
        two.does(run, Action::Forward).await;
        assert_eq!(two.end(run).await, DONE);
    }
    two.stopped().await;
}
