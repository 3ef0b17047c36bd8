//! Tasks over REST, as a worker without the SDK has them.

use backstitch_tests::server::Server;
use serde_json::{Value, json};

/// Returns the next task of one of these handlers.
pub(super) async fn claim(server: &Server, handlers: &[&str]) -> Value {
    let ask = json!({"worker": "w", "session": "0190aaaa-0000-7000-8000-000000000001",
        "queues": {"default": handlers}, "max": 1, "wait": "10s"});
    for _ in 0..6 {
        let mut claimed = server.post("/v1/tasks/claim", &ask).await.json();
        if let Some(task) = claimed["tasks"].as_array_mut().and_then(Vec::pop) {
            return task;
        }
    }
    panic!("no task came for {handlers:?}");
}

/// Returns the report that `task` ended with `outcome`.
pub(super) fn report_of(task: &Value, outcome: &Value) -> Value {
    let mut report = json!({ "outcome": outcome });
    for name in ["run", "step", "action", "attempt", "lease"] {
        report[name] = task[name].clone();
    }
    report
}
