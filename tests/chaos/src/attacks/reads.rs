//! Attacks by reading: long histories, wide trees, lists that filter, answers that are taken slowly or not at all.

use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};

use super::arms::Arms;
use super::wire::request;

/// Returns a run with a long history of large records: signals of nearly the largest size to a run that waits for
/// another.
async fn long_run(arms: &Arc<Arms>, signals: usize) -> anyhow::Result<String> {
    let names: Vec<String> = (0..20).map(|number| format!("n{number}")).collect();
    let step = |number: usize| {
        let name = &names[number % names.len()];
        json!({ "id": format!("w{number}"), "wait": { "signal": format!("{name}-{number}") } })
    };
    let steps: Vec<Value> = (0..signals).map(step).collect();
    arms.must_register(&json!({ "name": "long", "version": 1, "steps": steps })).await?;
    let run = arms.start("long", &Value::Null).await?;
    let data = json!({ "data": "x".repeat(240_000) });
    for number in 0..signals {
        let path = format!("/v1/runs/{run}/signals/n{}-{number}", number % names.len());
        arms.ask(&arms.secrets().starter, "POST", &path, &data).await?;
    }
    Ok(run)
}

/// Pages of a long history, the run and its steps, all of them large.
pub(super) async fn histories(arms: Arc<Arms>) -> anyhow::Result<()> {
    let run = long_run(&arms, 100).await?;
    arms.prepared().await;
    let viewer = arms.secrets().viewer.clone();
    let paths = [
        format!("/v1/runs/{run}/history?limit=1000"),
        format!("/v1/runs/{run}"),
        format!("/v1/runs/{run}/why"),
        format!("/v1/runs/{run}/steps/w1"),
    ];
    let all: Vec<Arc<[u8]>> =
        paths.iter().map(|path| request("GET", path, &viewer, "").into()).collect();
    arms.hammer(6, move |task, _| Arc::clone(&all[task % all.len()])).await;
    Ok(())
}

/// The same histories, asked for by many who then take nothing.
pub(super) async fn slow_readers(arms: Arc<Arms>) -> anyhow::Result<()> {
    let run = long_run(&arms, 100).await?;
    let viewer = &arms.secrets().viewer;
    let history = request("GET", &format!("/v1/runs/{run}/history?limit=1000"), viewer, "");
    arms.prepared().await;
    arms.hold(200, history, true).await;
    Ok(())
}

/// Trees of many runs.
pub(super) async fn trees(arms: Arc<Arms>) -> anyhow::Result<()> {
    let leaf = json!({ "name": "leaf", "version": 1, "steps": [{ "id": "w", "wait": { "signal": "never" } }] });
    arms.must_register(&leaf).await?;
    let child = |number: usize| json!({ "id": format!("c{number}"), "child": { "workflow": "leaf", "input": { "const": null } } });
    let steps: Vec<Value> = (0..400).map(child).collect();
    arms.must_register(&json!({ "name": "root", "version": 1, "steps": steps })).await?;
    let run = arms.start("root", &Value::Null).await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let viewer = &arms.secrets().viewer;
    let tree = request("GET", &format!("/v1/runs/{run}/tree"), viewer, "");
    arms.prepared().await;
    arms.repeat(8, tree).await;
    Ok(())
}

/// Runs of which lists find few or none among many.
async fn many_runs(arms: &Arc<Arms>, batches: usize) -> anyhow::Result<()> {
    let wait = json!({ "id": "w", "wait": { "signal": "never" } });
    arms.must_register(&json!({ "name": "many", "version": 1, "steps": [wait] })).await?;
    let start = |number: usize| {
        json!({
            "workflow": "many", "key": format!("k{number}"),
            "labels": { "shop": "north", "number": number.to_string() },
        })
    };
    for batch in 0..batches {
        let runs: Vec<Value> = (batch * 500..batch * 500 + 500).map(start).collect();
        let body = json!({ "runs": runs });
        arms.ask(&arms.secrets().starter, "POST", "/v1/runs/batch", &body).await?;
    }
    Ok(())
}

/// Lists whose filters leave out nearly all.
pub(super) async fn filters(arms: Arc<Arms>) -> anyhow::Result<()> {
    many_runs(&arms, 20).await?;
    arms.prepared().await;
    let viewer = arms.secrets().viewer.clone();
    let all: Vec<Arc<[u8]>> = [
        "/v1/runs?incident=false&outcome=cancelled",
        "/v1/runs?label=shop:south",
        "/v1/runs?label=shop:north&limit=1000",
        "/v1/runs?correlation_id=none",
        "/v1/incidents/groups",
        "/v1/acts?limit=1000",
        "/v1/status",
        "/v1/queues",
    ]
    .iter()
    .map(|path| request("GET", path, &viewer, "").into())
    .collect();
    arms.hammer(16, move |task, number| Arc::clone(&all[(task + number) % all.len()])).await;
    Ok(())
}

/// Jobs over all runs, and dry runs of them.
pub(super) async fn jobs(arms: Arc<Arms>) -> anyhow::Result<()> {
    many_runs(&arms, 10).await?;
    arms.prepared().await;
    let job = |dry: bool| -> Arc<[u8]> {
        let body = json!({
            "verb": "label", "runs": { "workflow": "many" }, "set": { "moved": "yes" }, "rate": 1000.0,
            "reason": "because", "dry_run": dry,
        });
        request("POST", "/v1/jobs", &arms.secrets().operator, &body.to_string()).into()
    };
    let all = [job(false), job(true)];
    arms.hammer(4, move |task, _| Arc::clone(&all[task % 2])).await;
    Ok(())
}
