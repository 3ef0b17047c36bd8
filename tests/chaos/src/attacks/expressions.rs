//! Attacks by what expressions build, compare and pass on.

use std::sync::Arc;

use serde_json::{Value, json};

use super::arms::Arms;
use super::wire::request;

/// Starts of `workflow` with a text of `bytes` bytes, one after the other over `tasks` connections.
async fn starts(arms: &Arc<Arms>, workflow: &str, bytes: usize, tasks: usize) {
    let input = json!({ "b": "x".repeat(bytes), "list": vec![0; 200] });
    let body = json!({ "workflow": workflow, "input": input }).to_string();
    arms.prepared().await;
    arms.repeat(tasks, request("POST", "/v1/runs", &arms.secrets().starter, &body)).await;
}

fn task(input: &Value) -> Value {
    json!({ "name": "h", "class": "read_only", "input": input })
}

/// A fan-out whose items each get the input eight times.
pub(super) async fn amplified_items(arms: Arc<Arms>) -> anyhow::Result<()> {
    let eight = json!({ "array": vec![json!({ "path": "/input/b" }); 8] });
    let map = json!({ "items": { "path": "/input/list" }, "join": "all", "empty": "succeed", "task": task(&eight) });
    let definition =
        json!({ "name": "amplify", "version": 1, "steps": [{ "id": "m", "map": map }] });
    arms.must_register(&definition).await?;
    starts(&arms, "amplify", 230_000, 4).await;
    Ok(())
}

/// A fan-out whose items each get as much as is just allowed.
pub(super) async fn largest_items(arms: Arc<Arms>) -> anyhow::Result<()> {
    let eight = json!({ "array": vec![json!({ "path": "/input/b" }); 8] });
    let map = json!({ "items": { "path": "/input/list" }, "join": "all", "empty": "succeed", "task": task(&eight) });
    let definition =
        json!({ "name": "largest", "version": 1, "steps": [{ "id": "m", "map": map }] });
    arms.must_register(&definition).await?;
    starts(&arms, "largest", 30_000, 4).await;
    Ok(())
}

/// Conditions that compare large documents, in many steps.
pub(super) async fn comparisons(arms: Arc<Arms>) -> anyhow::Result<()> {
    let side = json!({ "array": vec![json!({ "path": "/input/b" }); 8] });
    let step = |number: usize| {
        json!({
            "id": format!("s{number}"), "when": { "eq": [side, side] }, "task": task(&Value::Null),
        })
    };
    let mut steps: Vec<Value> = (0..100).map(step).collect();
    steps.iter_mut().for_each(|step| step["task"]["input"] = json!({ "const": null }));
    arms.register(&json!({ "name": "compare", "version": 1, "steps": steps })).await?;
    starts(&arms, "compare", 30_000, 4).await;
    Ok(())
}

/// As many steps as there may be, each with the whole input.
pub(super) async fn many_steps(arms: Arc<Arms>) -> anyhow::Result<()> {
    let step = |number: usize| json!({ "id": format!("s{number}"), "task": task(&json!({ "path": "/input" })) });
    let steps: Vec<Value> = (0..500).map(step).collect();
    arms.must_register(&json!({ "name": "wide", "version": 1, "steps": steps })).await?;
    starts(&arms, "wide", 250_000, 2).await;
    Ok(())
}

/// Fan-outs over as many items as an input can list.
pub(super) async fn wide_fan_outs(arms: Arc<Arms>) -> anyhow::Result<()> {
    let map = json!({ "items": { "path": "/input" }, "join": "all", "empty": "succeed", "task": task(&json!({ "const": 0 })) });
    let definition = json!({ "name": "items", "version": 1, "steps": [{ "id": "m", "map": map }] });
    arms.must_register(&definition).await?;
    let body = json!({ "workflow": "items", "input": vec![0; 120_000] }).to_string();
    arms.prepared().await;
    arms.repeat(2, request("POST", "/v1/runs", &arms.secrets().starter, &body)).await;
    Ok(())
}
