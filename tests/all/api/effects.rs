//! Effects that are open, over all runs: what stands in other systems and should not, or may.

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_saga::protocol::{EffectFilter, EffectStatus};
use backstitch_sdk::Client;
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

use super::incidents::all;

const WORKER: &str = "0190aaaa-0000-7000-8000-000000000001";

/// A workflow of steps one after the other; each is undone, and never tried twice, also not the undo.
async fn register(server: &Server, workflow: &str, steps: &[(&str, &str)]) {
    let once = json!({ "max_attempts": 1, "first_delay": "10ms", "jitter": "none" });
    let step = |(place, (id, queue)): (usize, &(&str, &str))| {
        let after: Vec<&str> = steps[..place].iter().map(|(id, _)| *id).collect();
        json!({ "id": id, "after": after, "task": {
            "name": id, "queue": queue, "input": { "path": "/input" }, "retry": once, "on_unknown": "incident",
            "compensate": { "name": format!("undo_{id}"), "retry": once } } })
    };
    let steps: Vec<Value> = steps.iter().enumerate().map(step).collect();
    let definition = json!({ "name": workflow, "version": 1, "steps": steps });
    let put = server.request("PUT", &format!("/v1/workflows/{workflow}/versions/1"));
    assert_eq!(send(with_json(put, definition)).await.status, 201);
}

async fn start(server: &Server, workflow: &str) -> String {
    let started = server.post("/v1/runs", json!({ "workflow": workflow, "input": {} })).await;
    started.json()["id"].as_str().unwrap().to_owned()
}

/// Does the next task of this handler.
async fn work(server: &Server, queue: &str, handler: &str, outcome: Value) {
    let ask = json!({ "worker": "w", "session": WORKER, "queues": { queue: [handler] }, "max": 1, "wait": "10s" });
    let claimed = server.post("/v1/tasks/claim", &ask).await.json();
    let task = &claimed["tasks"][0];
    let mut report = json!({ "outcome": outcome });
    for name in ["run", "step", "action", "attempt", "lease"] {
        report[name] = task[name].clone();
    }
    let answer = server.post("/v1/tasks/complete", json!({ "results": [report] })).await.json();
    assert_eq!(answer["results"][0]["status"], 200, "{answer}");
}

fn done() -> Value {
    json!({ "succeeded": { "output": 1 } })
}

fn failed(kind: &str) -> Value {
    json!({ "failed": { "kind": kind, "code": "no", "message": "no" } })
}

async fn act(server: &Server, path: &str) {
    let answer = server.post(path, json!({ "reason": "so it is" })).await;
    assert!(answer.status < 300, "{answer:?}");
}

/// Step, system, standing and unknown of each line.
async fn open(server: &Server, query: &str) -> Vec<(String, String, u64, u64)> {
    let lines = all(server, &format!("/v1/effects?{query}")).await;
    let text = |line: &Value, name: &str| line[name].as_str().unwrap().to_owned();
    let count = |line: &Value, name: &str| line[name].as_u64().unwrap();
    let line = |line: &Value| {
        (text(line, "step"), text(line, "system"), count(line, "standing"), count(line, "unknown"))
    };
    lines.iter().map(line).collect()
}

fn line(step: &str, system: &str, standing: u64, unknown: u64) -> (String, String, u64, u64) {
    (step.to_owned(), system.to_owned(), standing, unknown)
}

async fn is_well(server: &Server) {
    let diagnosis = server.engine.doctor(false).await.unwrap();
    assert_eq!((diagnosis.runs_wrong, &diagnosis.differences), (0, &Vec::new()));
}

#[tokio::test]
async fn an_effect_is_open_from_what_opened_it_to_what_closed_it() {
    let server = Server::start(Access::Open).await;
    register(&server, "order", &[("pay", "bank"), ("ship", "yard")]).await;
    // One without trouble is never open.
    start(&server, "order").await;
    work(&server, "bank", "pay", done()).await;
    assert_eq!(open(&server, "").await, []);
    work(&server, "yard", "ship", done()).await;
    assert_eq!(open(&server, "").await, []);

    // One that is undone without trouble is on its way; otherwise it is open until somebody undoes it.
    let run = start(&server, "order").await;
    work(&server, "bank", "pay", done()).await;
    work(&server, "yard", "ship", failed("permanent")).await;
    assert_eq!(open(&server, "").await, []);
    work(&server, "bank", "undo_pay", failed("permanent")).await;
    assert_eq!(open(&server, "").await, [line("pay", "bank", 1, 0)], "blocked");
    let view = &all(&server, "/v1/effects?").await[0];
    assert_eq!(
        (&view["run"], &view["state"], &view["workflow"]),
        (&json!(run), &json!("compensation_blocked"), &json!("order"))
    );
    is_well(&server).await;
    act(&server, &format!("/v1/runs/{run}/steps/pay/mark-compensated")).await;
    assert_eq!(open(&server, "").await, []);
    let ended = server.get(&format!("/v1/runs/{run}")).await.json();
    assert_eq!(ended["outcome"], "compensated_with_manual_steps");

    // One in doubt is unknown until somebody knows.
    let run = start(&server, "order").await;
    work(&server, "bank", "pay", failed("unknown")).await;
    assert_eq!(open(&server, "").await, [line("pay", "bank", 0, 1)]);
    is_well(&server).await;
    let resolve = json!({ "output": 1, "reason": "the bank says so" });
    let resolved = server.post(&format!("/v1/runs/{run}/steps/pay/resolve"), resolve).await;
    assert_eq!((resolved.status, open(&server, "").await), (200, vec![]), "{resolved:?}");

    // One that is killed leaves it behind until somebody vouches for it.
    act(&server, &format!("/v1/runs/{run}/kill")).await;
    assert_eq!(open(&server, "").await, [line("pay", "bank", 1, 0)]);
    is_well(&server).await;
    let incident = server.get(&format!("/v1/incidents?state=open&run={run}")).await.json();
    let incident = incident["items"][0]["id"].as_str().unwrap().to_owned();
    act(&server, &format!("/v1/incidents/{incident}/mark-compensated")).await;
    assert_eq!(open(&server, "").await, []);
    is_well(&server).await;
    server.stopped().await;
}

#[tokio::test]
async fn open_effects_are_found_by_system_status_workflow_and_age() {
    let server = Server::start(Access::Open).await;
    register(&server, "order", &[("pay", "bank"), ("ship", "yard"), ("mail", "post")]).await;
    register(&server, "refund", &[("credit", "bank")]).await;
    for _ in 0..2 {
        start(&server, "order").await;
        work(&server, "bank", "pay", done()).await;
        work(&server, "yard", "ship", done()).await;
        work(&server, "post", "mail", failed("permanent")).await;
        work(&server, "yard", "undo_ship", failed("permanent")).await;
    }
    let run = start(&server, "refund").await;
    work(&server, "bank", "credit", failed("unknown")).await;
    let every = open(&server, "").await;
    assert_eq!(every.len(), 5, "{every:?}");
    assert_eq!(every[4], line("credit", "bank", 0, 1), "the longest open first");
    for (query, found) in [
        ("system=bank&", 3),
        ("system=yard&", 2),
        ("system=post&", 0),
        ("status=standing&", 4),
        ("status=unknown&", 1),
        ("workflow=order&system=bank&", 2),
        ("workflow=nothing&", 0),
        ("older_than=0s&", 5),
        ("older_than=1h&", 0),
    ] {
        assert_eq!(open(&server, query).await.len(), found, "{query}");
    }
    for (query, code) in [("status=open", "invalid_query"), ("after=e00", "invalid_cursor")] {
        let refused = server.get(&format!("/v1/effects?{query}")).await;
        assert_eq!(refused.problem(400), code, "{refused:?}");
    }
    let counts = server.get("/v1/effects/counts").await.json();
    let counted = |place: usize| {
        let one = &counts["systems"][place];
        (
            one["system"].clone(),
            one["runs"].clone(),
            one["standing"].clone(),
            one["unknown"].clone(),
        )
    };
    assert_eq!(counted(0), (json!("bank"), json!(3), json!(2), json!(1)), "{counts}");
    assert_eq!(counted(1), (json!("yard"), json!(2), json!(2), json!(0)), "{counts}");
    assert_eq!(counts["more"], false);
    // Other namespaces see nothing of it.
    let elsewhere = server.bare("GET", "/v1/effects").header("backstitch-namespace", "elsewhere");
    assert_eq!(send(elsewhere).await.json()["items"], json!([]));
    let client = Client::new(server.url()).unwrap().namespace(backstitch_tests::node::NS).unwrap();
    let filter = EffectFilter { status: Some(EffectStatus::Unknown), ..EffectFilter::default() };
    let found = client.effects(&filter).next_page().await.unwrap().unwrap();
    assert_eq!((found.len(), found[0].run.to_string(), found[0].unknown), (1, run, 1));
    assert_eq!(client.effect_counts().await.unwrap().systems.len(), 2);
    server.stopped().await;
}

#[tokio::test]
async fn who_only_reads_sees_open_effects() {
    let server = Server::start(Access::Keys).await;
    let ns = backstitch_tests::node::NS;
    let secret = server.engine.create_credential(ns, "eve", Role::Viewer).await.unwrap();
    for path in ["/v1/effects", "/v1/effects/counts"] {
        assert_eq!(send(server.bare("GET", path)).await.status, 401);
        assert_eq!(send(server.bare("GET", path).bearer_auth(&secret)).await.status, 200);
    }
    server.stopped().await;
}

#[tokio::test]
async fn lines_of_open_effects_that_are_wrong_are_told_and_mended() {
    let server = Server::start(Access::Open).await;
    register(&server, "order", &[("pay", "bank"), ("ship", "yard")]).await;
    start(&server, "order").await;
    work(&server, "bank", "pay", done()).await;
    work(&server, "yard", "ship", failed("permanent")).await;
    work(&server, "bank", "undo_pay", failed("permanent")).await;
    let before = all(&server, "/v1/effects?").await;
    let mut sql = PgConnection::connect(server.database()).await.unwrap();
    for damage in [
        "update open_effects set standing = 7, system = 'none'",
        "insert into open_effects select run_id, 'ship', namespace, workflow, system, 1, 0, since from open_effects",
        "delete from open_effects",
    ] {
        sqlx::query(damage).execute(&mut sql).await.unwrap();
        let found = server.engine.doctor(true).await.unwrap();
        assert_eq!((found.runs_wrong, found.mended), (1, 1), "{damage}: {found:?}");
        assert!(found.differences[0].contains("open_effects"), "{found:?}");
        is_well(&server).await;
        let now = all(&server, "/v1/effects?").await;
        assert_eq!((&now[0]["step"], &now[0]["standing"]), (&json!("pay"), &json!(1)));
        let kept = !damage.starts_with("delete");
        assert_eq!(now[0]["since"] == before[0]["since"], kept, "{damage}");
    }
    server.stopped().await;
}
