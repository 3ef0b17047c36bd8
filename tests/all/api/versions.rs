//! Versions as an operator meets them: who is on which, and moving runs in flight, with a check over all of them first.

use std::time::Duration;

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_saga::protocol::{FailureKind, Outcome, TaskOffer};
use backstitch_saga::{RunId, Span};
use backstitch_tests::node::{Hand, NS, node};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

fn task(name: &str) -> Value {
    json!({"name": name, "input": {"path": "/input"}, "compensate": {"name": "undo"},
        "retry": {"first_delay": "5m", "jitter": "none"}, "timeouts": {"heartbeat": "30s", "attempt": "10m"}})
}

/// Returns a task, a fan-out, a task.
fn order(version: u32) -> Value {
    let mut each = task("do");
    each["input"] = json!({"path": "/item"});
    json!({"name": "order", "version": version, "steps": [
        {"id": "a", "task": task("do")},
        {"id": "each", "after": ["a"], "map": {"items": {"path": "/input"}, "join": "all", "empty": "succeed", "task": each}},
        {"id": "last", "after": ["each"], "task": task("do")},
    ]})
}

async fn register(server: &Server, definition: &Value) {
    let path = format!("/v1/workflows/order/versions/{}", definition["version"]);
    let answer = send(with_json(server.request("PUT", &path), definition)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

async fn start(server: &Server) -> RunId {
    let started = server
        .post("/v1/runs", json!({"workflow": "order", "version": 1, "input": [1, 2, 3]}))
        .await;
    assert_eq!(started.status, 201, "{started:?}");
    started.json()["id"].as_str().unwrap().parse().unwrap()
}

async fn show(server: &Server, run: RunId) -> Value {
    server.get(&format!("/v1/runs/{run}")).await.json()
}

/// Four runs on version 1: one in a retry's backoff, one in the middle of its fan-out with one item in a worker's
/// hands, one that has just begun, and one that is over.
async fn four_runs(server: &Server, hand: &Hand) -> ([RunId; 4], TaskOffer) {
    let backoff = start(server).await;
    hand.fail(&hand.one().await, FailureKind::Retryable).await;
    let over = start(server).await;
    for _ in 0..5 {
        hand.succeed(&[hand.one().await]).await;
    }
    let middle = start(server).await;
    hand.succeed(&[hand.one().await]).await;
    hand.succeed(&[hand.one().await]).await;
    let held = hand.one().await;
    assert_eq!((held.run, held.step.to_string().as_str()), (middle, "each/1"));
    let fresh = start(server).await;
    ([backoff, middle, fresh, over], held)
}

#[tokio::test]
async fn runs_in_flight_move_and_go_on() {
    let server = Server::start(Access::Open).await;
    register(&server, &order(1)).await;
    let mut second = order(2);
    second["steps"][1]["map"]["task"]["queue"] = json!("fast");
    second["steps"][2]["id"] = json!("final");
    second["steps"]
        .as_array_mut()
        .unwrap()
        .push(json!({"id": "extra", "after": ["final"], "task": task("do")}));
    register(&server, &second).await;
    let hand = Hand::new(&server.engine);
    let ([backoff, middle, fresh, over], held) = four_runs(&server, &hand).await;

    let drain = server.get("/v1/workflows/order/drain").await.json();
    assert_eq!(
        (&drain["items"][0]["active"], &drain["items"][1]["drained"]),
        (&json!(3), &json!(true)),
        "{drain:#}"
    );
    assert_eq!(drain["items"][0]["oldest"], json!(backoff));
    let oldest = server.get(&format!("/v1/runs/{backoff}")).await.json();
    assert_eq!(drain["items"][0]["oldest_started_at"], oldest["started_at"]);
    let path = "/v1/workflows/order/migrations";
    let ask = json!({"from": 1, "to": 2, "reason": "the fast queue", "dry_run": true, "limit": 2});
    let check = server.post(path, &ask).await.json();
    let mut next = ask.clone();
    next["after"] = check["next"].clone();
    let rest = server.post(path, &next).await.json();
    assert_eq!(
        (&check["clean"], &rest["clean"], &rest["next"]),
        (&json!(2), &json!(1), &Value::Null)
    );

    let begun = server.post(path, json!({"from": 1, "to": 2, "reason": "the fast queue"})).await;
    assert_eq!((begun.status, &begun.json()["total"]), (201, &json!(3)), "{begun:?}");
    let again = server.post(path, json!({"from": 1, "to": 2, "reason": "again"})).await;
    assert_eq!(again.problem(409), "migration_under_way");
    let address = begun.headers["location"].to_str().unwrap().to_owned();
    server.engine.run_once(BackgroundTask::Migrate).await.unwrap();
    let done = server.get(&address).await.json();
    assert_eq!((&done["state"], &done["runs"]), (&json!("done"), &json!({"moved": 3})), "{done:#}");
    let moved = server.get(&format!("{address}/runs?result=moved&limit=2")).await.json();
    assert_eq!(moved["items"].as_array().unwrap().len(), 2);
    assert_eq!(show(&server, over).await["version"], 1);
    let drain = server.get("/v1/workflows/order/drain").await.json();
    assert_eq!(
        (&drain["items"][0]["drained"], &drain["items"][1]["active"]),
        (&json!(true), &json!(3))
    );

    let view = show(&server, backoff).await;
    assert_eq!(
        (&view["version"], &view["steps"][0]["state"], &view["steps"][0]["attempts"]),
        (&json!(2), &json!("backoff"), &json!(1))
    );
    // The item in a worker's hands is still its own; the others wait on the new queue.
    assert_eq!(hand.succeed(&[held]).await[0].status, 200);
    let view = show(&server, middle).await;
    assert_eq!(view["steps"][1]["items"], json!({"succeeded": 2, "offered": 1}), "{view:#}");
    assert_eq!(server.engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    let task = hand.one().await;
    assert_eq!((task.run, task.version), (fresh, 2));
    assert!(hand.claim(1, Span::millis(50)).await.is_empty(), "the items are on another queue");
    let history = server.get(&format!("/v1/runs/{middle}/history?limit=1000")).await.json();
    let migrated = history["items"]
        .as_array()
        .unwrap()
        .iter()
        .find_map(|entry| entry["event"].get("migrated"));
    assert_eq!(migrated.unwrap()["by"], json!({"actor": "anonymous", "reason": "the fast queue"}));
    server.stopped().await;
}

#[tokio::test]
async fn what_moved_is_read_from_its_journal_by_any_node() {
    let url = backstitch_tests::postgres::database().await;
    let engine = node(&url, |_| {}).await;
    for definition in [order(1), order(2)] {
        engine.register(NS, &definition.to_string()).await.unwrap();
    }
    let mut request = backstitch_tests::node::start("order", "[1, 2]");
    request.version = Some(1);
    let run = engine.start_run(NS, request).await.unwrap().id;
    let hand = Hand::new(&engine);
    hand.succeed(&[hand.one().await]).await;
    let new = serde_json::from_value(json!({"from": 1, "to": 2, "reason": "r"})).unwrap();
    let by = backstitch_saga::By { actor: "ann".into(), reason: "r".to_owned() };
    engine.start_migration(NS, "order", &new, &by).await.unwrap();
    engine.run_once(BackgroundTask::Migrate).await.unwrap();
    engine.stop().await;
    let engine = node(&url, |_| {}).await;
    assert_eq!(engine.run(NS, run, None).await.unwrap().version, 2);
    assert_eq!(engine.run(NS, run, Some(1)).await.unwrap().version, 1);
    let hand = Hand::new(&engine);
    for _ in 0..3 {
        hand.succeed(&[hand.one().await]).await;
    }
    let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
    assert_eq!((view.version, view.outcome), (2, Some(Outcome::Succeeded)));
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    engine.stop().await;
}

#[tokio::test]
async fn none_moves_when_one_would_lose_its_compensation() {
    let server = Server::start(Access::Open).await;
    register(&server, &order(1)).await;
    let mut second = order(2);
    second["steps"][0]["task"].as_object_mut().unwrap().remove("compensate");
    second["steps"][0]["task"]["class"] = json!("read_only");
    register(&server, &second).await;
    let hand = Hand::new(&server.engine);
    let ([backoff, middle, fresh, _], _) = four_runs(&server, &hand).await;
    let path = "/v1/workflows/order/migrations";
    let ask = async |more: Value| {
        let mut body = json!({"from": 1, "to": 2, "reason": "no more undo"});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        server.post(path, body).await
    };
    let check = ask(json!({"dry_run": true})).await.json();
    assert_eq!((&check["checked"], &check["clean"]), (&json!(3), &json!(2)), "{check:#}");
    assert_eq!(check["obstacles"], json!({"compensation_gone": 1}));
    let sample = &check["samples"][0];
    assert_eq!((&sample["run"], &sample["obstacles"][0]["step"]), (&json!(middle), &json!("a")));

    let address = |answer: backstitch_tests::server::Answer| {
        answer.headers["location"].to_str().unwrap().to_owned()
    };
    let begun = address(ask(json!({})).await);
    server.engine.run_once(BackgroundTask::Migrate).await.unwrap();
    let stopped = server.get(&begun).await.json();
    assert_eq!(
        (&stopped["state"], &stopped["runs"]),
        (&json!("stopped"), &json!({"clean": 2, "left": 1}))
    );
    let left = server.get(&format!("{begun}/runs?result=left")).await.json();
    assert!(
        left["items"][0]["message"].as_str().unwrap().starts_with("compensation_gone"),
        "{left:#}"
    );
    for run in [backoff, middle, fresh] {
        assert_eq!(show(&server, run).await["version"], 1);
    }
    let over = server.post(&format!("{begun}/stop"), json!({"reason": "late"})).await;
    assert_eq!(over.problem(409), "migration_over");

    let begun = address(ask(json!({"on_obstacle": "leave"})).await);
    server.engine.run_once(BackgroundTask::Migrate).await.unwrap();
    assert_eq!(server.get(&begun).await.json()["runs"], json!({"left": 1, "moved": 2}));
    let accepted = ask(json!({"mapping": {"without_undo": ["a"]}})).await;
    server.engine.run_once(BackgroundTask::Migrate).await.unwrap();
    assert_eq!(server.get(&address(accepted)).await.json()["runs"], json!({"moved": 1}));
    assert_eq!(show(&server, middle).await["version"], 2);

    let wrong = ask(json!({"mapping": {"steps": {"nobody": "each"}, "skip": ["nothing"]}})).await;
    assert_eq!(wrong.problem(422), "invalid_request");
    assert_eq!(wrong.json()["errors"].as_array().unwrap().len(), 2, "{wrong:?}");
    assert_eq!(ask(json!({"to": 9})).await.problem(404), "unknown_workflow");
    assert_eq!(ask(json!({"reason": " "})).await.problem(422), "reason_missing");
    assert_eq!(server.get("/v1/workflows/nobody/drain").await.problem(404), "unknown_workflow");
    server.stopped().await;
}
