//! Steering runs over REST: signals, pauses, decisions about steps, and going forward once more.

use backstitch_api::Access;
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

use super::tasks::{claim, report_of};

/// Registers a workflow of these steps.
async fn register(server: &Server, name: &str, steps: Value) {
    let definition = json!({"name": name, "version": 1, "steps": steps});
    let put = server.request("PUT", &format!("/v1/workflows/{name}/versions/1"));
    let registered = send(with_json(put, definition)).await;
    assert_eq!(registered.status, 201, "{registered:?}");
}

/// Starts a run; its path.
async fn start(server: &Server, body: Value) -> String {
    let started = server.post("/v1/runs", body).await.json();
    format!("/v1/runs/{}", started["id"].as_str().unwrap_or_else(|| panic!("{started:#}")))
}

fn task(name: &str) -> Value {
    json!({"name": name, "input": {"path": "/input"}, "compensate": {"name": format!("undo_{name}")},
        "retry": {"max_attempts": 1}, "on_failure": "incident"})
}

async fn report(server: &Server, task: &Value, outcome: Value) {
    let report = json!({ "results": [report_of(task, &outcome)] });
    let answer = server.post("/v1/tasks/complete", report).await;
    assert_eq!(answer.json()["results"][0]["status"], 200, "{answer:?}");
}

async fn succeed(server: &Server, handlers: &[&str], output: Value) -> Value {
    let task = claim(server, handlers).await;
    report(server, &task, json!({"succeeded": {"output": output}})).await;
    task
}

fn refused() -> Value {
    json!({"failed": {"kind": "permanent", "code": "refused", "message": "no"}})
}

#[tokio::test]
async fn a_decision_is_awaited_checked_and_counts_once() {
    let server = Server::start(Access::Open).await;
    let form = json!({"type": "object", "required": ["approved"], "properties": {"approved": {"type": "boolean"}}});
    let steps = json!([
        {"id": "approve", "wait": {"signal": "approval", "schema": form, "title": "Ship it?",
            "assignee": {"path": "/input/boss"}}},
        {"id": "ship", "task": task("ship"), "when": {"path": "/steps/approve/approved"}}]);
    register(&server, "ask", steps).await;
    let run =
        start(&server, json!({"workflow": "ask", "key": "o-1", "input": {"boss": "ann"}})).await;
    let view = server.get(&run).await.json();
    assert_eq!(
        (&view["state"], &view["steps"][0]["awaits"]["assignee"]),
        (&json!("waiting"), &json!("ann"))
    );
    let found = server.get("/v1/runs?condition=SignalAwaited").await.json();
    assert_eq!(found["items"].as_array().unwrap().len(), 1, "{found:#}");
    let signals = format!("{run}/signals");
    let wrong =
        server.post(&format!("{signals}/approval"), json!({"data": {"approved": "yes"}})).await;
    assert_eq!(wrong.problem(422), "invalid_data");
    let unknown = server.post(&format!("{signals}/other"), json!({"data": 1})).await;
    assert_eq!(unknown.problem(404), "unknown_signal");
    let data = json!({"data": {"approved": true}});
    assert_eq!(server.post(&format!("{signals}/approval"), &data).await.status, 200);
    assert_eq!(server.post(&format!("{signals}/approval"), &data).await.status, 200);
    let other =
        server.post(&format!("{signals}/approval"), json!({"data": {"approved": false}})).await;
    assert_eq!(other.problem(409), "already_signalled");
    succeed(&server, &["ship"], json!(null)).await;
    assert_eq!(server.get(&format!("{run}?wait=10s")).await.json()["outcome"], "succeeded");
    server.stopped().await;
}

#[tokio::test]
async fn a_signal_for_a_business_key_is_kept_until_there_is_a_run() {
    let server = Server::start(Access::Open).await;
    register(&server, "ask", json!([{"id": "paid", "wait": {"signal": "payment"}}])).await;
    let signal = |amount: u32| json!({"workflow": "ask", "key": "o-7", "signal": "payment", "data": {"amount": amount}});
    assert_eq!(server.post("/v1/signals", signal(5)).await.status, 202);
    assert_eq!(server.post("/v1/signals", signal(5)).await.status, 202);
    assert_eq!(server.post("/v1/signals", signal(6)).await.problem(409), "already_signalled");
    let run = start(&server, json!({"workflow": "ask", "key": "o-7"})).await;
    let ended = server.get(&format!("{run}?wait=20s")).await.json();
    assert_eq!(
        (&ended["outcome"], &ended["steps"][0]["output"]["amount"]),
        (&json!("succeeded"), &json!(5))
    );
    let run = start(&server, json!({"workflow": "ask", "key": "o-8"})).await;
    let sent = server
        .post(
            "/v1/signals",
            json!({"workflow": "ask", "key": "o-8", "signal": "payment", "data": null}),
        )
        .await;
    assert_eq!(sent.status, 200);
    assert_eq!(server.get(&format!("{run}?wait=10s")).await.json()["outcome"], "succeeded");
    server.stopped().await;
}

#[tokio::test]
async fn a_paused_run_hands_nothing_out_until_every_pause_is_gone() {
    let server = Server::start(Access::Open).await;
    register(&server, "work", json!([{"id": "a", "task": task("a")}])).await;
    let run = start(&server, json!({"workflow": "work"})).await;
    for name in ["night", "audit"] {
        let paused =
            server.post(&format!("{run}/pause"), json!({"reason": "x", "name": name})).await;
        assert_eq!(paused.json()["state"], "paused");
    }
    let listed = server.get("/v1/runs?state=paused").await.json();
    assert_eq!(listed["items"][0]["state"], "paused", "{listed:#}");
    let ask = json!({"worker": "w", "session": "0190aaaa-0000-7000-8000-000000000001",
        "queues": {"default": ["a"]}, "max": 1, "wait": "300ms"});
    let claimed = server.post("/v1/tasks/claim", &ask).await.json();
    assert_eq!(claimed["tasks"], json!([]), "a paused run's task was handed out");
    let resumed =
        server.post(&format!("{run}/resume"), json!({"reason": "y", "name": "night"})).await;
    assert_eq!(resumed.json()["state"], "paused");
    let resumed = server.post(&format!("{run}/resume"), json!({"reason": "y"})).await;
    assert_ne!(resumed.json()["state"], "paused");
    succeed(&server, &["a"], json!(1)).await;
    assert_eq!(server.get(&format!("{run}?wait=10s")).await.json()["outcome"], "succeeded");
    server.stopped().await;
}

#[tokio::test]
async fn parked_steps_are_edited_skipped_and_resolved() {
    let server = Server::start(Access::Open).await;
    let steps = json!([
        {"id": "a", "task": task("a")},
        {"id": "b", "task": task("b"), "after": ["a"]},
        {"id": "c", "task": task("c"), "after": ["b"]}]);
    register(&server, "work", steps).await;
    let run = start(&server, json!({"workflow": "work", "input": {"amount": -1}})).await;
    report(&server, &claim(&server, &["a"]).await, refused()).await;
    let edited = json!({"reason": "the sign was wrong", "input": {"amount": 1}});
    assert_eq!(server.post(&format!("{run}/steps/a/retry"), edited).await.status, 200);
    let again = succeed(&server, &["a"], json!("done")).await;
    assert_eq!((&again["attempt"], &again["input"]["amount"]), (&json!(2), &json!(1)));
    report(&server, &claim(&server, &["b"]).await, refused()).await;
    let skip = json!({"reason": "not this time", "output": {"by": "hand"}});
    assert_eq!(server.post(&format!("{run}/steps/b/skip"), skip).await.status, 200);
    let held = claim(&server, &["c"]).await;
    let resolve = json!({"reason": "seen", "output": {"id": 7}, "external_id": "x-7"});
    let early = server.post(&format!("{run}/steps/c/resolve"), &resolve).await;
    assert_eq!(early.problem(409), "task_in_flight");
    report(&server, &held, refused()).await;
    assert_eq!(server.post(&format!("{run}/steps/c/resolve"), resolve).await.status, 200);
    let ended = server.get(&format!("{run}?wait=10s")).await.json();
    assert_eq!(
        (&ended["outcome"], &ended["steps"][2]["output"]["id"]),
        (&json!("partially_completed"), &json!(7))
    );
    let history = server.get(&format!("{run}/history?limit=1000")).await.json();
    let edited =
        history["items"].as_array().unwrap().iter().find_map(|e| e["event"].get("input_edited"));
    assert_eq!(edited.unwrap()["input"], json!({"amount": 1}), "{history:#}");
    server.stopped().await;
}

#[tokio::test]
async fn a_run_that_succeeded_goes_back_to_a_step_and_forward_again() {
    let server = Server::start(Access::Open).await;
    let steps = json!([
        {"id": "a", "task": task("a")},
        {"id": "b", "task": task("b"), "after": ["a"]}]);
    register(&server, "work", steps).await;
    let run = start(&server, json!({"workflow": "work", "input": 1})).await;
    succeed(&server, &["a"], json!("a1")).await;
    let first = succeed(&server, &["b"], json!("b1")).await;
    assert_eq!(server.get(&format!("{run}?wait=10s")).await.json()["outcome"], "succeeded");
    let ask = json!({"from": "b", "dry_run": true});
    let plan = server.post(&format!("{run}/rerun"), ask).await.json();
    assert_eq!((&plan["again"], &plan["undo"]["steps"][0]["step"]), (&json!(["b"]), &json!("b")));
    let ask = json!({"from": "b", "reason": "wrong account", "input": 2});
    let begun = server.post(&format!("{run}/rerun"), ask).await;
    assert_eq!((begun.status, &begun.json()["state"]), (202, &json!("compensating")));
    succeed(&server, &["undo_b"], json!(null)).await;
    let second = succeed(&server, &["b"], json!("b2")).await;
    assert_eq!((&second["input"], &second["attempt"]), (&json!(2), &json!(2)));
    assert_ne!(first["effect_key"], second["effect_key"], "a new effect has a new key");
    let ended = server.get(&format!("{run}?wait=10s")).await.json();
    assert_eq!(
        (&ended["outcome"], &ended["steps"][1]["output"]),
        (&json!("succeeded"), &json!("b2"))
    );
    assert_eq!(ended["steps"][0]["output"], "a1");
    server.stopped().await;
}

/// A document that a person gives a step is checked like one of a worker: it must be a document that can be stored.
#[tokio::test]
async fn what_people_give_a_step_is_checked_like_what_workers_report() {
    let server = Server::start(Access::Open).await;
    register(&server, "given", json!([{"id": "pay", "task": task("pay")}])).await;
    let run = start(&server, json!({"workflow": "given"})).await;
    report(&server, &claim(&server, &["pay"]).await, refused()).await;
    let before = server.get(&format!("{run}/history")).await.text;
    let large = format!("\"{}\"", "x".repeat(300 * 1024));
    for (path, member) in [
        ("steps/pay/retry", "input"),
        ("steps/pay/skip", "output"),
        ("steps/pay/resolve", "output"),
        ("rerun", "input"),
    ] {
        for bad in [r#"{"a":1,"a":2}"#, r#"["\u0000"]"#, r#""\ud800""#, "1e999999999999", &large] {
            let body = format!(r#"{{"reason":"r","from":"pay","{member}":{bad}}}"#);
            let body = if path == "rerun" { body } else { body.replace(r#""from":"pay","#, "") };
            let answer = server.post(&format!("{run}/{path}"), &body).await;
            assert_eq!(answer.problem(422), "invalid_payload", "{path} {answer:?}");
            let pointer = answer.json()["errors"][0]["pointer"].as_str().unwrap().to_owned();
            assert!(pointer.starts_with(&format!("/{member}")), "{path} {pointer}");
        }
    }
    assert_eq!(server.get(&format!("{run}/history")).await.text, before, "nothing was done");
    server.stopped().await;
}
