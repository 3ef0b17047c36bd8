//! Attacks by work: more starts, claims, reports, signals, acts and logins than one's share.

use std::sync::Arc;

use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use super::arms::Arms;
use super::victim::done;
use super::wire::request;

/// Returns a workflow of one task.
fn simple(name: &str) -> Value {
    let task = json!({ "name": "h", "class": "read_only", "input": { "path": "/input" } });
    json!({ "name": name, "version": 1, "steps": [{ "id": "a", "task": task }] })
}

/// Batches of a thousand starts, over so many connections.
async fn batches_of(arms: Arc<Arms>, connections: usize) -> anyhow::Result<()> {
    arms.must_register(&simple("batch")).await?;
    let runs = vec![json!({ "workflow": "batch", "input": 1 }); 1_000];
    let body = json!({ "runs": runs }).to_string();
    arms.prepared().await;
    arms.repeat(connections, request("POST", "/v1/runs/batch", &arms.secrets().starter, &body))
        .await;
    Ok(())
}

/// Batches of a thousand starts, four at once.
pub(super) async fn batches(arms: Arc<Arms>) -> anyhow::Result<()> {
    batches_of(arms, 4).await
}

/// Batches of a thousand starts, twenty-four at once.
pub(super) async fn many_batches(arms: Arc<Arms>) -> anyhow::Result<()> {
    batches_of(arms, 24).await
}

/// Single starts without a pause, under each credential.
pub(super) async fn starts(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.must_register(&simple("one")).await?;
    let body = json!({ "workflow": "one", "input": 1 }).to_string();
    let secrets = arms.secrets();
    let [first, second] = [&secrets.starter, &secrets.operator]
        .map(|secret| request("POST", "/v1/runs", secret, &body));
    arms.prepared().await;
    tokio::join!(arms.repeat(16, first), arms.repeat(16, second));
    Ok(())
}

/// Starts with inputs, labels and keys of the largest size, and answers that are kept.
pub(super) async fn large_starts(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.must_register(&simple("large")).await?;
    let labels: serde_json::Map<String, Value> =
        (0..32).map(|number| (format!("label-{number}"), json!("v".repeat(255)))).collect();
    let input = "x".repeat(250_000);
    let secret = arms.secrets().starter.clone();
    let make = move |task: usize, number: usize| {
        let key = format!("{:0>255}", format!("{task}-{number}"));
        let body = json!({ "workflow": "large", "key": key, "labels": labels, "input": input });
        request("POST", "/v1/runs", &secret, &body.to_string()).into()
    };
    arms.prepared().await;
    arms.hammer(4, make).await;
    Ok(())
}

/// Starts that all stand in line for one key.
pub(super) async fn one_line(arms: Arc<Arms>) -> anyhow::Result<()> {
    let wait = json!({ "id": "w", "wait": { "signal": "never" } });
    let definition = json!({
        "name": "line", "version": 1, "steps": [wait], "sequence": { "serial_key": { "const": "one" } },
    });
    arms.must_register(&definition).await?;
    let body = json!({ "workflow": "line" }).to_string();
    arms.prepared().await;
    arms.repeat(8, request("POST", "/v1/runs", &arms.secrets().starter, &body)).await;
    Ok(())
}

/// Claims that find nothing, without a pause.
pub(super) async fn empty_claims(arms: Arc<Arms>) -> anyhow::Result<()> {
    let secret = arms.secrets().worker.clone();
    let make = move |task: usize, _| {
        let body = json!({
            "worker": format!("w{task}"), "session": Uuid::new_v4(), "queues": { "none": ["h"] }, "max": 1,
        });
        request("POST", "/v1/tasks/claim", &secret, &body.to_string()).into()
    };
    arms.prepared().await;
    arms.hammer(16, make).await;
    Ok(())
}

/// Reports of a thousand tasks that nobody has.
pub(super) async fn false_reports(arms: Arc<Arms>) -> anyhow::Result<()> {
    let report = |_| {
        json!({
            "run": Uuid::now_v7(), "step": "a", "action": "forward", "attempt": 1,
            "outcome": { "succeeded": { "output": null } },
        })
    };
    let results: Vec<Value> = (0..1_000).map(report).collect();
    let body = json!({ "results": results }).to_string();
    arms.prepared().await;
    arms.repeat(8, request("POST", "/v1/tasks/complete", &arms.secrets().worker, &body)).await;
    Ok(())
}

/// Signals of the largest size for runs that are not there yet.
pub(super) async fn early_signals(arms: Arc<Arms>) -> anyhow::Result<()> {
    let wait = json!({ "id": "w", "wait": { "signal": "go" } });
    arms.must_register(&json!({ "name": "early", "version": 1, "steps": [wait] })).await?;
    let data = "x".repeat(200_000);
    let secret = arms.secrets().starter.clone();
    let make = move |task: usize, number: usize| {
        let key = format!("{task}-{number}");
        let body = json!({ "workflow": "early", "key": key, "signal": "go", "data": data });
        request("POST", "/v1/signals", &secret, &body.to_string()).into()
    };
    arms.prepared().await;
    arms.hammer(4, make).await;
    Ok(())
}

/// Schedules that are due each second, as many as can be made.
pub(super) async fn schedules(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.must_register(&simple("due")).await?;
    let secret = arms.secrets().operator.clone();
    let make = move |task: usize, number: usize| {
        let body = json!({ "cron": "* * * * * *", "workflow": "due", "overlap": "allow" });
        let path = format!("/v1/schedules/s-{task}-{number}");
        request("PUT", &path, &secret, &body.to_string()).into()
    };
    arms.prepared().await;
    arms.hammer(4, make).await;
    Ok(())
}

/// Definitions by the thousand, as large as they may be.
pub(super) async fn definitions(arms: Arc<Arms>) -> anyhow::Result<()> {
    let secret = arms.secrets().worker.clone();
    let task = json!({ "name": "h", "class": "read_only", "input": { "path": "/input" } });
    let make = move |worker: usize, number: usize| {
        let steps = if number.is_multiple_of(4) { 450 } else { 1 };
        let step = |at: usize| json!({ "id": format!("s{at}"), "task": task });
        let steps: Vec<Value> = (0..steps).map(step).collect();
        let name = format!("d-{worker}-{number}");
        let body = json!({ "name": name, "version": 1, "steps": steps }).to_string();
        request("PUT", &format!("/v1/workflows/{name}/versions/1"), &secret, &body).into()
    };
    arms.prepared().await;
    arms.hammer(4, make).await;
    Ok(())
}

/// A run is paused and resumed without end.
pub(super) async fn acts(arms: Arc<Arms>) -> anyhow::Result<()> {
    let wait = json!({ "id": "w", "wait": { "signal": "never" } });
    arms.must_register(&json!({ "name": "acted", "version": 1, "steps": [wait] })).await?;
    let run = arms.start("acted", &Value::Null).await?;
    let reason = json!({ "reason": "r".repeat(1_900) }).to_string();
    let act = |verb: &str| -> Arc<[u8]> {
        let path = format!("/v1/runs/{run}/{verb}");
        request("POST", &path, &arms.secrets().operator, &reason).into()
    };
    let all = [act("pause"), act("resume")];
    arms.prepared().await;
    arms.hammer(8, move |task, number| Arc::clone(&all[(task + number) % 2])).await;
    Ok(())
}

/// Logins with secrets that nobody has, another one each time.
pub(super) async fn logins(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.prepared().await;
    let make = |task: usize, number: usize| {
        request("GET", "/v1/whoami", &format!("wrong-{task}-{number}"), "").into()
    };
    arms.hammer(8, make).await;
    Ok(())
}

/// Fan-outs whose items all give outputs of nearly the largest size.
pub(super) async fn large_outputs(arms: Arc<Arms>) -> anyhow::Result<()> {
    let task = json!({ "name": "h", "class": "read_only", "input": { "path": "/item" } });
    let map = json!({ "items": { "path": "/input" }, "join": "best_effort", "empty": "succeed", "task": task });
    let definition = json!({ "name": "gives", "version": 1, "steps": [{ "id": "m", "map": map }] });
    arms.must_register(&definition).await?;
    arms.start("gives", &json!((0..5_000).collect::<Vec<u32>>())).await?;
    arms.prepared().await;
    let (output, mut all) = (json!("x".repeat(250_000)), JoinSet::new());
    for worker in 0..4 {
        let (arms, output) = (Arc::clone(&arms), output.clone());
        all.spawn(async move {
            while arms.goes_on() {
                let doing = claim_and_report_some(&arms, worker, &output, 40);
                // What goes wrong was counted.
                arms.until_over(async { drop(doing.await) }).await;
            }
        });
    }
    all.join_all().await;
    Ok(())
}

/// Claims a task of the namespace and reports it with `output`.
///
/// # Errors
/// When an answer is not there.
pub(super) async fn claim_and_report(
    arms: &Arms,
    worker: u32,
    output: &Value,
) -> anyhow::Result<()> {
    claim_and_report_some(arms, worker, output, 1).await
}

/// The same for at most `most` tasks at once.
async fn claim_and_report_some(
    arms: &Arms,
    worker: u32,
    output: &Value,
    most: u32,
) -> anyhow::Result<()> {
    let secret = &arms.secrets().worker;
    let claim = json!({
        "worker": format!("w{worker}"), "session": Uuid::from_u128(u128::from(worker) + 1),
        "queues": { "default": ["h"] }, "max": most, "wait": "1s",
    });
    let (_, claimed) = arms.ask(secret, "POST", "/v1/tasks/claim", &claim).await?;
    let tasks = claimed["tasks"].as_array().into_iter().flatten();
    let results: Vec<Value> = tasks
        .map(|task| {
            let mut result = done(task);
            result["outcome"]["succeeded"]["output"] = output.clone();
            result
        })
        .collect();
    if !results.is_empty() {
        let body = json!({ "results": results });
        arms.ask(secret, "POST", "/v1/tasks/complete", &body).await?;
    }
    Ok(())
}
