//! The worker protocol as `docs/worker-protocol.md` tells it, spoken by a program that knows nothing else of
//! Backstitch.

use std::process::{Command, Stdio};
use std::time::Duration;

use backstitch_api::{Access, Limits};
use backstitch_tests::node::NS;
use backstitch_tests::server::{Server, send, with_json};
use serde_json::json;

const PROGRAM: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../examples/python/worker.py");

#[tokio::test]
async fn a_worker_in_python_says_of_an_output_beyond_a_request_that_the_work_is_done() {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no python3 here");
        return;
    }
    let limits = Limits { report_body: 4_096, ..Limits::default() };
    let server = Server::start_within(Access::Open, limits).await;
    let definition = json!({"name": "twice", "version": 1, "steps": [{"id": "a", "task": {"name": "double",
        "queue": "python", "input": {"path": "/input"}, "class": "read_only"}}]});
    let put = with_json(server.request("PUT", "/v1/workflows/twice/versions/1"), &definition);
    assert_eq!(send(put).await.status, 201);
    let mut worker = Command::new("python3")
        .args([PROGRAM, server.url()])
        .env("BACKSTITCH_NAMESPACE", NS)
        .spawn()
        .unwrap();
    let input = "x".repeat(3_000);
    let ended =
        server.post("/v1/runs?wait=30s", json!({"workflow": "twice", "input": input})).await;
    worker.kill().unwrap();
    worker.wait().unwrap();
    let view = ended.json();
    assert_eq!(
        (&view["error"]["failure"]["code"], &view["steps"][0]["attempts"]),
        (&json!("output_too_large"), &json!(1)),
        "{view}"
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_worker_in_python_keeps_a_task_beyond_its_first_lease_and_signs_off() {
    if Command::new("python3").arg("--version").stdout(Stdio::null()).status().is_err() {
        eprintln!("skipped: there is no python3 here");
        return;
    }
    let server = Server::start(Access::Open).await;
    let definition = json!({"name": "twice", "version": 1, "output": {"path": "/steps/a"}, "steps": [{"id": "a",
        "task": {"name": "double", "queue": "python", "input": {"path": "/input"}, "class": "read_only",
            "timeouts": {"heartbeat": "1s"}}}]});
    let put = with_json(server.request("PUT", "/v1/workflows/twice/versions/1"), &definition);
    assert_eq!(send(put).await.status, 201);
    let mut worker = Command::new("python3")
        .args([PROGRAM, server.url()])
        .env("WORK_SECONDS", "2.5")
        .env("BACKSTITCH_NAMESPACE", NS)
        .spawn()
        .unwrap();
    let ended = server.post("/v1/runs?wait=30s", json!({"workflow": "twice", "input": 21})).await;
    let view = ended.json();
    assert_eq!((ended.status, &view["output"]), (200, &json!(42)), "{view}");
    assert_eq!(
        (&view["steps"][0]["attempts"], &view["steps"][0]["deliveries"]),
        (&json!(1), &json!(1))
    );
    let workers =
        async || server.get("/v1/workers").await.json()["items"].as_array().unwrap().len();
    while workers().await != 1 {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let told = Command::new("kill").args(["-TERM", &worker.id().to_string()]).status().unwrap();
    assert!(told.success());
    let status = tokio::task::spawn_blocking(move || worker.wait().unwrap()).await.unwrap();
    assert!(status.success(), "{status}");
    assert_eq!(workers().await, 0, "it signed off");
    server.stopped().await;
}
