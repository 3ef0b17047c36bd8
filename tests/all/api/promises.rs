//! Two promises as a stranger with curl sees them: a late report moves nothing, and every mistake is told at once.

use backstitch_api::Access;
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

/// One step, tried again after 10 ms, with a lease of one second.
fn pay() -> Value {
    json!({"name": "pay", "version": 1, "steps": [{"id": "pay", "task": {
        "name": "charge", "input": {"path": "/input"}, "compensate": {"name": "refund"},
        "retry": {"first_delay": "10ms", "jitter": "none"}, "timeouts": {"heartbeat": "1s", "attempt": "1m"}}}]})
}

/// One task, however long it takes to come.
async fn claim(server: &Server) -> Value {
    let ask = json!({"worker": "w", "session": "0190aaaa-0000-7000-8000-000000000001",
        "queues": {"default": ["charge"]}, "max": 1, "wait": "10s"});
    loop {
        let mut claimed = server.post("/v1/tasks/claim", &ask).await.json();
        if let Some(task) = claimed["tasks"].as_array_mut().and_then(Vec::pop) {
            return task;
        }
    }
}

/// Returns the report that a task succeeded.
fn success(task: &Value, output: &str) -> Value {
    let mut report = json!({});
    for name in ["run", "step", "action", "attempt"] {
        report[name] = task[name].clone();
    }
    report["outcome"] = json!({"succeeded": {"output": output}});
    json!({"results": [report]})
}

#[tokio::test]
async fn a_report_after_the_lease_was_lost_is_refused_told_once_and_moves_nothing() {
    let server = Server::start(Access::Open).await;
    let registered =
        send(with_json(server.request("PUT", "/v1/workflows/pay/versions/1"), pay())).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    let started = server.post("/v1/runs", r#"{"workflow":"pay"}"#).await.json();
    let run = format!("/v1/runs/{}", started["id"].as_str().unwrap());
    let lost = claim(&server).await;
    // It is offered again when the lease of the first attempt is over.
    let next = claim(&server).await;
    assert_eq!((&lost["attempt"], &next["attempt"]), (&json!(1), &json!(2)));
    for _ in 0..2 {
        let late = server.post("/v1/tasks/complete", success(&lost, "late")).await;
        assert_eq!((late.status, &late.json()["results"][0]["code"]), (409, &json!("lease_lost")));
    }
    let history = server.get(&format!("{run}/history?limit=1000")).await.json();
    let entries = history["items"].as_array().unwrap();
    assert_eq!(
        entries.iter().filter(|entry| entry["event"]["late_result"].is_object()).count(),
        1,
        "{history:#}"
    );
    assert_eq!(server.get(&run).await.json()["steps"][0]["state"], "leased");
    assert_eq!(server.post("/v1/tasks/complete", success(&next, "in time")).await.status, 200);
    let ended = server.get(&format!("{run}?wait=10s")).await;
    assert_eq!((ended.status, &ended.json()["steps"][0]["output"]), (200, &json!("in time")));
    server.stopped().await;
}

#[tokio::test]
async fn five_mistakes_are_five_errors() {
    let server = Server::start(Access::Open).await;
    let five = json!({"name": "Bad Name", "version": 1, "steps": [
        {"id": "a", "after": ["nobody"], "task": {"name": "do", "input": {"path": "/input"}, "class": "read_only"}},
        {"id": "a", "task": {"name": "do", "input": {"path": "/elsewhere"}, "class": "read_only"}},
        {"id": "m", "map": {"items": {"path": "/input"}, "join": {"quorum": 0}, "empty": "fail",
            "task": {"name": "do", "input": {"path": "/item"}, "class": "read_only"}}}]});
    let refused = server.post("/v1/workflows/validate", &five).await;
    let told = refused.json();
    let mut pointers: Vec<&str> = told["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|error| error["pointer"].as_str().unwrap())
        .collect();
    pointers.sort_unstable();
    assert_eq!(refused.status, 422);
    assert_eq!(
        pointers,
        [
            "/name",
            "/steps/0/after/0",
            "/steps/1/id",
            "/steps/1/task/input/path",
            "/steps/2/map/join"
        ],
        "{told:#}"
    );
    server.stopped().await;
}
