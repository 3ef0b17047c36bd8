//! Attacks by connections that are held: idle, in the middle of their headers or bodies, or waiting for an answer.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::arms::Arms;
use super::wire::request;

/// Number of connections that one attack holds; the attacking process and the server have as many file handles.
const MANY: usize = 9_000;

/// Connections on which nothing comes.
pub(super) async fn idle(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.prepared().await;
    arms.hold(MANY, Vec::new(), false).await;
    Ok(())
}

/// Connections whose headers never end.
pub(super) async fn half_headers(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.prepared().await;
    let beginning = b"GET /v1/runs HTTP/1.1\r\nhost: localhost\r\nx-long: ".to_vec();
    arms.hold(MANY / 3, beginning, false).await;
    Ok(())
}

/// A connection for each request, without a pause.
pub(super) async fn reconnects(arms: Arc<Arms>) -> anyhow::Result<()> {
    let get: Arc<[u8]> = request("GET", "/v1/whoami", &arms.secrets().viewer, "").into();
    arms.prepared().await;
    let mut all = JoinSet::new();
    for _ in 0..64 {
        let (arms, get) = (Arc::clone(&arms), Arc::clone(&get));
        all.spawn(async move {
            while arms.goes_on() {
                let mut wire = arms.wire();
                let asked = tokio::time::timeout(arms.left(), wire.ask(&get, false));
                let Ok(answer) = asked.await else { return };
                arms.count(&answer);
            }
        });
    }
    all.join_all().await;
    Ok(())
}

/// Returns a request whose body ends one byte too early.
fn half_body(secret: &str, path: &str, bytes: usize) -> Vec<u8> {
    let mut whole = request("POST", path, secret, &" ".repeat(bytes));
    whole.pop();
    whole
}

/// Bodies of nearly 16 MiB that never end.
pub(super) async fn half_bodies(arms: Arc<Arms>) -> anyhow::Result<()> {
    let body = half_body(&arms.secrets().worker, "/v1/tasks/complete", 16 * 1024 * 1024 - 64);
    arms.prepared().await;
    arms.hold(100, body, false).await;
    Ok(())
}

/// Bodies of nearly 1 MiB that never end, many of them.
pub(super) async fn many_half_bodies(arms: Arc<Arms>) -> anyhow::Result<()> {
    let body = half_body(&arms.secrets().starter, "/v1/runs", 1024 * 1024 - 64);
    arms.prepared().await;
    arms.hold(1_500, body, false).await;
    Ok(())
}

/// Waits for the end of a run.
pub(super) async fn waits_for_runs(arms: Arc<Arms>) -> anyhow::Result<()> {
    let wait = json!({ "id": "w", "wait": { "signal": "never" } });
    arms.must_register(&json!({ "name": "waits", "version": 1, "steps": [wait] })).await?;
    let run = arms.start("waits", &Value::Null).await?;
    let get = request("GET", &format!("/v1/runs/{run}?wait=30s"), &arms.secrets().viewer, "");
    arms.prepared().await;
    arms.hold(4_500, get, false).await;
    Ok(())
}

/// Waits for tasks, each by a session of its own.
pub(super) async fn waits_for_tasks(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.prepared().await;
    let claims: Vec<Vec<u8>> = (0..30).map(|_| claim(&arms, 1)).collect();
    let held = claims.into_iter().map(|claim| arms.hold(150, claim, false));
    futures::future::join_all(held).await;
    Ok(())
}

/// Claims with a thousand queue names each, other ones each time.
pub(super) async fn many_queue_names(arms: Arc<Arms>) -> anyhow::Result<()> {
    let claims: Vec<Vec<u8>> = (0..400).map(|_| claim(&arms, 1_000)).collect();
    arms.prepared().await;
    let held = claims.into_iter().map(|claim| arms.hold(1, claim, false));
    futures::future::join_all(held).await;
    Ok(())
}

/// Returns a claim that waits, for so many queues that nobody else has.
fn claim(arms: &Arms, queues: usize) -> Vec<u8> {
    let session = Uuid::new_v4();
    let name = |number: usize| (format!("q-{}-{number}", session.simple()), json!(["h"]));
    let queues: serde_json::Map<String, Value> = (0..queues).map(name).collect();
    let body = json!({
        "worker": format!("w-{session}"), "session": session, "queues": queues, "max": 1, "wait": "30s",
    });
    request("POST", "/v1/tasks/claim", &arms.secrets().worker, &body.to_string())
}
