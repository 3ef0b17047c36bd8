//! Attacks by JSON Schemas: patterns that are dear to compile or to match, references that multiply, errors without
//! end.

use std::sync::Arc;

use serde_json::{Value, json};

use super::arms::Arms;
use super::wire::request;

/// Returns a workflow of one task with this schema of its input.
fn workflow(name: &str, version: usize, schema: &Value) -> Value {
    let task = json!({ "name": "h", "class": "read_only", "input": { "path": "/input" } });
    json!({ "name": name, "version": version, "input_schema": schema, "steps": [{ "id": "a", "task": task }] })
}

fn patterns(count: usize, repeated: usize) -> Value {
    let one = |number: usize| json!({ "pattern": format!("(?i)\\p{{L}}{{{repeated}}}{number}") });
    json!({ "allOf": (0..count).map(one).collect::<Vec<_>>() })
}

/// Returns each definition `levels` deep, twice as many places at each level.
fn multiplied(word: &str, levels: usize) -> Value {
    let mut defs = serde_json::Map::new();
    for level in 0..levels {
        let next = json!({ "$ref": format!("#/$defs/a{}", level + 1) });
        defs.insert(format!("a{level}"), json!({ word: [next, next] }));
    }
    defs.insert(format!("a{levels}"), json!({ "type": "string" }));
    json!({ "$defs": defs, "$ref": "#/$defs/a0" })
}

/// A definition with dear patterns is validated over and over.
pub(super) async fn validate_patterns(arms: Arc<Arms>) -> anyhow::Result<()> {
    let body = workflow("re", 1, &patterns(60, 200)).to_string();
    arms.prepared().await;
    let ask = |secret: &str| request("POST", "/v1/workflows/validate", secret, &body);
    let (viewer, worker) = (ask(&arms.secrets().viewer), ask(&arms.secrets().worker));
    tokio::join!(arms.repeat(2, viewer), arms.repeat(2, worker));
    Ok(())
}

/// The dearest definition that is within the bounds is validated over and over, each time another one.
pub(super) async fn validate_allowed(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.prepared().await;
    let secret = arms.secrets().worker.clone();
    let make = move |task: usize, number: usize| {
        let one =
            |at: usize| json!({ "pattern": format!("^[a-z]{{{},900}}{task}x{at}$", number % 100) });
        let schema = json!({ "allOf": (0..60).map(one).collect::<Vec<_>>() });
        let body = workflow("re", 1, &schema).to_string();
        request("POST", "/v1/workflows/validate", &secret, &body).into()
    };
    arms.hammer(4, make).await;
    Ok(())
}

/// Definitions that compile into much memory are registered by the hundred.
pub(super) async fn register_patterns(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.prepared().await;
    let secret = arms.secrets().worker.clone();
    let make = move |task: usize, number: usize| {
        let schema = match number % 2 {
            0 => patterns(40, 60),
            _ => patterns(3, 60),
        };
        let (name, version) = (format!("kept-{task}"), number + 1);
        let path = format!("/v1/workflows/{name}/versions/{version}");
        request("PUT", &path, &secret, &workflow(&name, version, &schema).to_string()).into()
    };
    arms.hammer(4, make).await;
    Ok(())
}

/// References that multiply, in `allOf` for time and in `anyOf` for memory, registered and started.
pub(super) async fn references(arms: Arc<Arms>) -> anyhow::Result<()> {
    arms.prepared().await;
    for (name, word, levels) in [
        ("all-28", "allOf", 28),
        ("all-40", "allOf", 40),
        ("any-20", "anyOf", 20),
        ("any-12", "anyOf", 12),
    ] {
        arms.register(&workflow(name, 1, &multiplied(word, levels))).await?;
    }
    let start = |name: &str| {
        let body = json!({ "workflow": name, "input": {} }).to_string();
        request("POST", "/v1/runs", &arms.secrets().starter, &body)
    };
    let all = ["all-28", "all-40", "any-20", "any-12"].map(start);
    let all: Vec<Arc<[u8]>> = all.into_iter().map(Into::into).collect();
    arms.hammer(4, move |task, number| Arc::clone(&all[(task + number) % all.len()])).await;
    Ok(())
}

/// Texts that a pattern with look-around goes back over, many in one input.
pub(super) async fn backtracking(arms: Arc<Arms>) -> anyhow::Result<()> {
    let schema = json!({ "contains": { "pattern": "^(a|a)*(?!x)b$" } });
    arms.register(&workflow("back", 1, &schema)).await?;
    let text = "a".repeat(42);
    let start = |count: usize| -> Arc<[u8]> {
        let body = json!({ "workflow": "back", "input": vec![text.as_str(); count] }).to_string();
        request("POST", "/v1/runs", &arms.secrets().starter, &body).into()
    };
    let all = [start(10), start(300), start(5_000)];
    arms.prepared().await;
    arms.hammer(4, move |task, number| Arc::clone(&all[(task + number) % all.len()])).await;
    Ok(())
}

/// Documents that take as much evaluating as is just allowed.
pub(super) async fn evaluation(arms: Arc<Arms>) -> anyhow::Result<()> {
    let kinds: Vec<Value> = (0..60).map(|number| json!({ "const": number })).collect();
    let schema = json!({ "items": { "anyOf": kinds } });
    arms.must_register(&workflow("dear", 1, &schema)).await?;
    let start = |count: usize| -> Arc<[u8]> {
        let body = json!({ "workflow": "dear", "input": vec!["x"; count] }).to_string();
        request("POST", "/v1/runs", &arms.secrets().starter, &body).into()
    };
    let all = [start(200), start(3_000), start(15_000)];
    arms.prepared().await;
    arms.hammer(8, move |task, number| Arc::clone(&all[(task + number) % all.len()])).await;
    Ok(())
}

/// Signals whose data is held to a schema with many patterns.
pub(super) async fn signals(arms: Arc<Arms>) -> anyhow::Result<()> {
    let wait = |schema: &Value| json!({ "id": "w", "wait": { "signal": "go", "schema": schema } });
    let workflow =
        |name: &str, schema: &Value| json!({ "name": name, "version": 1, "steps": [wait(schema)] });
    arms.register(&workflow("dear-signal", &patterns(20, 200))).await?;
    arms.must_register(&workflow("signal", &patterns(3, 50))).await?;
    let run = arms.start("signal", &Value::Null).await?;
    let body = json!({ "data": "L".repeat(10_000) }).to_string();
    let path = format!("/v1/runs/{run}/signals/go");
    arms.prepared().await;
    arms.repeat(4, request("POST", &path, &arms.secrets().starter, &body)).await;
    Ok(())
}

/// Outputs of tasks that are held to a dear schema, reported by a worker.
pub(super) async fn outputs(arms: Arc<Arms>) -> anyhow::Result<()> {
    let kinds: Vec<Value> = (0..60).map(|number| json!({ "const": number })).collect();
    let schema = json!({ "items": { "anyOf": kinds } });
    let task = json!({
        "name": "h", "class": "retriable", "input": { "path": "/input" }, "output_schema": schema,
        "retry": { "first_delay": "10ms", "max_delay": "10ms" },
    });
    let definition =
        json!({ "name": "dear-output", "version": 1, "steps": [{ "id": "a", "task": task }] });
    arms.must_register(&definition).await?;
    let starts: Vec<Value> = vec![json!({ "workflow": "dear-output" }); 200];
    let starter = &arms.secrets().starter;
    arms.ask(starter, "POST", "/v1/runs/batch", &json!({ "runs": starts })).await?;
    arms.prepared().await;
    let output = Arc::new(json!(vec!["x"; 10_000]));
    let work = |number: u32| {
        let (arms, output) = (Arc::clone(&arms), Arc::clone(&output));
        async move {
            while arms.goes_on() {
                // An answer that is not there is counted where it is asked for.
                let _ = super::work::claim_and_report(&arms, number, &output).await;
            }
        }
    };
    tokio::join!(work(0), work(1), work(2), work(3));
    Ok(())
}
