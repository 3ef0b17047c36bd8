//! Attacks by runs that start runs.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::arms::Arms;

/// Returns a workflow each run of which starts `count` more.
fn bomb(name: &str, count: usize) -> Value {
    let child = |number: usize| {
        json!({
            "id": format!("c{number}"), "child": { "workflow": name, "input": { "path": "/input" } },
        })
    };
    json!({ "name": name, "version": 1, "steps": (0..count).map(child).collect::<Vec<_>>() })
}

/// Starts roots of `workflow` all the time.
async fn roots(arms: &Arc<Arms>, workflow: &str, every: Duration) -> anyhow::Result<()> {
    arms.prepared().await;
    let body = json!({ "workflow": workflow, "input": null });
    while arms.goes_on() {
        arms.ask(&arms.secrets().starter, "POST", "/v1/runs", &body).await?;
        arms.until_over(tokio::time::sleep(every)).await;
    }
    Ok(())
}

/// Three children each: a fork bomb.
pub(super) async fn forks(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.register(&bomb("bomb", 3)).await?;
    roots(&arms, "bomb", Duration::from_secs(1)).await
}

/// As many children as a definition has steps.
pub(super) async fn wide_forks(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.register(&bomb("wide-bomb", 400)).await?;
    roots(&arms, "wide-bomb", Duration::from_millis(200)).await
}

/// Chains of children, many at once.
pub(super) async fn chains(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.register(&bomb("chain", 1)).await?;
    roots(&arms, "chain", Duration::from_millis(20)).await
}

/// A fork bomb that its owner tries to stop; it must be possible at once.
pub(super) async fn stopped_forks(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.register(&bomb("stopped", 3)).await?;
    arms.prepared().await;
    let run = arms.start("stopped", &Value::Null).await?;
    arms.until_over(tokio::time::sleep(Duration::from_secs(1))).await;
    let operator = &arms.secrets().operator;
    let reason = json!({ "reason": "enough" });
    let (status, said) = arms.ask(operator, "POST", "/v1/workflows/stopped/pause", &reason).await?;
    if status >= 300 {
        arms.note(format!("500 the workflow cannot be paused: {status} {said}"));
    }
    let (status, said) =
        arms.ask(operator, "POST", &format!("/v1/runs/{run}/kill"), &reason).await?;
    if status >= 300 && status != 409 {
        arms.note(format!("500 the root cannot be killed: {status} {said}"));
    }
    arms.until_over(std::future::pending()).await;
    Ok(())
}
