//! The rules of one run as a stranger with curl sees them: the first report of an attempt counts, undoing that takes
//! long is told, nothing is left behind in silence, and what cannot close is not registered.

use backstitch_api::Access;
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};

use super::tasks::{claim, report_of};

async fn register(server: &Server, name: &str, steps: &Value) -> Answer {
    let definition = json!({"name": name, "version": 1, "steps": steps});
    let put = server.request("PUT", &format!("/v1/workflows/{name}/versions/1"));
    send(with_json(put, definition)).await
}

async fn start(server: &Server, workflow: &str, input: Value) -> String {
    let ask = json!({"workflow": workflow, "input": input});
    let started = server.post("/v1/runs", ask).await;
    assert_eq!(started.status, 201, "{started:?}");
    started.json()["id"].as_str().unwrap().to_owned()
}

async fn complete(server: &Server, reports: &[Value]) -> Vec<(Value, Value)> {
    let answer = server.post("/v1/tasks/complete", json!({"results": reports})).await.json();
    let results = answer["results"].as_array().unwrap().iter();
    results.map(|result| (result["status"].clone(), result["code"].clone())).collect()
}

async fn work(server: &Server, handler: &str, outcome: &Value) -> Value {
    let task = claim(server, &[handler]).await;
    assert_eq!(complete(server, &[report_of(&task, outcome)]).await[0].0, 200);
    task
}

fn done(output: &Value) -> Value {
    json!({"succeeded": {"output": output}})
}

fn failed(kind: &str, code: &str) -> Value {
    json!({"failed": {"kind": kind, "code": code, "message": code}})
}

fn task(name: &str) -> Value {
    json!({"name": name, "input": {"path": "/input"}, "compensate": {"name": format!("undo_{name}")},
        "retry": {"first_delay": "10ms", "jitter": "none"}})
}

#[tokio::test]
async fn a_second_report_that_contradicts_the_first_is_refused_and_told() {
    let server = Server::start(Access::Open).await;
    assert_eq!(
        register(&server, "pay", &json!([{"id": "pay", "task": task("pay")}])).await.status,
        201
    );
    let refused = || (json!(409), json!("already_reported"));
    let same = || (json!(200), Value::Null);
    for (first, others) in [
        (failed("permanent", "no"), [done(&json!(1)), failed("unknown", "no")]),
        (done(&json!(1)), [done(&json!(2)), failed("permanent", "no")]),
    ] {
        let run = start(&server, "pay", json!({})).await;
        let path = format!("/v1/runs/{run}");
        let task = claim(&server, &["pay"]).await;
        let reports: Vec<Value> =
            [&first, &others[0], &first].map(|outcome| report_of(&task, outcome)).into();
        assert_eq!(
            complete(&server, &reports).await,
            [same(), refused(), same()],
            "in one request"
        );
        let before = server.get(&path).await.json();
        for other in &others {
            assert_eq!(complete(&server, &[report_of(&task, other)]).await, [refused()]);
        }
        assert_eq!(complete(&server, &[report_of(&task, &first)]).await, [same()]);
        let view = server.get(&path).await.json();
        assert_eq!((&view["outcome"], &view["steps"]), (&before["outcome"], &before["steps"]));
        let told = view["conditions"].as_array().unwrap();
        assert!(told.iter().any(|condition| condition["type"] == "LateResult"), "{view:#}");
        let history = server.get(&format!("{path}/history?limit=1000")).await.json();
        let entries = history["items"].as_array().unwrap().iter();
        let late = entries.filter(|entry| entry["event"]["late_result"].is_object()).count();
        assert_eq!(late, 1, "it is recorded once: {history:#}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn an_undo_that_is_put_off_for_years_is_told_and_can_be_tried_at_once() {
    let server = Server::start(Access::Open).await;
    let steps = json!([{"id": "pay", "task": task("pay")},
        {"id": "ship", "after": ["pay"], "task": task("ship")}]);
    assert_eq!(register(&server, "order", &steps).await.status, 201);
    let run = start(&server, "order", json!({})).await;
    work(&server, "pay", &done(&json!(1))).await;
    work(&server, "ship", &failed("permanent", "no")).await;
    let mut put_off = failed("rate_limited", "later");
    put_off["failed"]["retry_after"] = json!("300000years");
    work(&server, "undo_pay", &put_off).await;
    let view = server.get(&format!("/v1/runs/{run}")).await.json();
    let next: String = serde_json::from_value(view["next_at"].clone()).unwrap();
    assert!(next.starts_with("20"), "{next}");
    assert_eq!(view["conditions"][0]["type"], "IncidentOpen", "{view:#}");
    assert!(view["conditions"][0]["message"].as_str().unwrap().starts_with("compensation_slow"));
    let why = server.get(&format!("/v1/runs/{run}/why")).await.json();
    assert_eq!(why["waits_for"][0]["verbs"], json!(["retry", "kill"]), "{why:#}");
    let retried = server.post(&format!("/v1/runs/{run}/retry"), r#"{"reason":"it is up"}"#).await;
    assert_eq!(retried.status, 200, "{retried:?}");
    work(&server, "undo_pay", &done(&Value::Null)).await;
    let ended = server.get(&format!("/v1/runs/{run}?wait=10s")).await.json();
    assert_eq!(ended["outcome"], "compensated", "{ended:#}");
    server.stopped().await;
}

#[tokio::test]
async fn what_a_run_leaves_behind_is_an_incident_until_somebody_vouches_for_it() {
    let server = Server::start(Access::Open).await;
    let steps = json!([{"id": "stock", "task": task("stock")}, {"id": "mail", "after": ["stock"],
        "task": {"name": "mail", "input": {"path": "/input"}, "retry": {"max_attempts": 1}}}]);
    let registered = register(&server, "order", &steps).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    let rehearsal = &registered.json()["rehearsal"];
    assert_eq!(rehearsal["warnings"][0]["code"], "nothing_left_behind", "{rehearsal:#}");
    let run = start(&server, "order", json!({})).await;
    work(&server, "stock", &done(&json!(1))).await;
    work(&server, "mail", &failed("unknown", "timeout")).await;
    work(&server, "undo_stock", &done(&Value::Null)).await;
    let path = format!("/v1/runs/{run}");
    let ended = server.get(&format!("{path}?wait=10s")).await.json();
    assert_eq!(ended["outcome"], "failed_dirty", "{ended:#}");
    let open = server.get(&format!("/v1/incidents?state=open&run={run}")).await.json();
    assert_eq!(open["items"].as_array().unwrap().len(), 1, "{open:#}");
    let incident = &open["items"][0];
    assert_eq!((&incident["kind"], &incident["step"]), (&json!("effects_left"), &json!("mail")));
    let at = format!("/v1/incidents/{}", incident["id"].as_str().unwrap());
    assert_eq!(server.get(&at).await.json()["next"], json!(["mark-compensated"]));
    let ask = r#"{"reason":"the mail was never sent"}"#;
    for _ in 0..2 {
        let marked = server.post(&format!("{at}/mark-compensated"), ask).await;
        assert_eq!(marked.status, 200, "{marked:?}");
        assert_eq!(marked.json()["state"], "resolved");
    }
    assert_eq!(server.get(&path).await.json()["outcome"], "compensated_with_manual_steps");
    server.stopped().await;
}

#[tokio::test]
async fn what_a_killed_run_leaves_at_several_steps_is_vouched_for_at_once() {
    let server = Server::start(Access::Open).await;
    let steps =
        json!([{"id": "a", "task": task("a")}, {"id": "b", "after": ["a"], "task": task("b")}]);
    assert_eq!(register(&server, "order", &steps).await.status, 201);
    let run = start(&server, "order", json!({})).await;
    work(&server, "a", &done(&json!(1))).await;
    claim(&server, &["b"]).await;
    let path = format!("/v1/runs/{run}");
    let killed = server.post(&format!("{path}/kill"), r#"{"reason":"enough"}"#).await.json();
    assert_eq!(killed["outcome"], "failed_dirty", "{killed:#}");
    let open = server.get(&format!("/v1/incidents?state=open&run={run}")).await.json();
    let incident = &open["items"][0];
    assert_eq!((&incident["kind"], &incident["step"]), (&json!("effects_left"), &Value::Null));
    let at = format!("/v1/incidents/{}/mark-compensated", incident["id"].as_str().unwrap());
    assert_eq!(server.post(&at, r#"{"reason":"put right by hand"}"#).await.status, 200);
    assert_eq!(server.get(&path).await.json()["outcome"], "compensated_with_manual_steps");
    server.stopped().await;
}

#[tokio::test]
async fn a_definition_that_does_not_close_is_refused_at_registration() {
    let server = Server::start(Access::Open).await;
    let mut in_vain = task("pay");
    in_vain.as_object_mut().unwrap().remove("compensate");
    in_vain["on_unknown"] = json!("compensate");
    let map = json!({"items": {"const": [1, 2, 3]}, "join": {"quorum": 5}, "empty": "fail",
        "task": {"name": "i", "input": {"path": "/item"}, "compensate": {"name": "u"}}});
    for (steps, pointer, code) in [
        (json!([{"id": "pay", "task": in_vain}]), "/steps/0/task/on_unknown", "compensate_missing"),
        (json!([{"id": "m", "map": map}]), "/steps/0/map/join", "join_impossible"),
    ] {
        let definition = json!({"name": "w", "version": 1, "steps": steps});
        let validated = server.post("/v1/workflows/validate", &definition).await;
        for refused in [register(&server, "w", &steps).await, validated] {
            assert_eq!(
                (refused.status, &refused.json()["code"]),
                (422, &json!("invalid_definition"))
            );
            let found = &refused.json()["errors"][0];
            assert_eq!((&found["pointer"], &found["code"]), (&json!(pointer), &json!(code)));
        }
    }
    let steps = json!([{"id": "pay", "task": task("pay")}]);
    let first = register(&server, "w", &steps).await;
    assert_eq!((first.status, &first.json()["rehearsal"]["complete"]), (201, &json!(true)));
    let again = register(&server, "w", &steps).await;
    assert_eq!((again.status, &again.json()["rehearsal"]), (200, &Value::Null), "it is there");
    server.stopped().await;
}

#[tokio::test]
async fn failed_items_alone_are_executed_again_after_the_end() {
    let server = Server::start(Access::Open).await;
    let steps = json!([
        {"id": "m", "map": {"items": {"path": "/input"}, "join": "best_effort", "empty": "fail",
            "task": {"name": "i", "input": {"path": "/item"}, "compensate": {"name": "undo_i"}}}},
        {"id": "n", "after": ["m"], "task": {"name": "n", "input": {"path": "/steps/m"}, "class": "read_only"}}]);
    assert_eq!(register(&server, "w", &steps).await.status, 201);
    for by_job in [false, true] {
        let run = start(&server, "w", json!(["a", "b", "c"])).await;
        for _ in 0..3 {
            let task = claim(&server, &["i"]).await;
            let outcome = match task["input"].as_str() {
                Some("b") => failed("permanent", "sold_out"),
                _ => done(&task["input"]),
            };
            complete(&server, &[report_of(&task, &outcome)]).await;
        }
        work(&server, "n", &done(&Value::Null)).await;
        let path = format!("/v1/runs/{run}");
        let ended = server.get(&format!("{path}?wait=10s")).await.json();
        assert_eq!(ended["outcome"], "partially_completed", "{ended:#}");
        let plan = json!({"from": "m", "items": "failed", "dry_run": true});
        let plan = server.post(&format!("{path}/rerun"), plan).await.json();
        assert_eq!((&plan["items"], &plan["again"]), (&json!(1), &json!(["m", "n"])), "{plan:#}");
        assert_eq!(plan["undo"]["steps"], json!([]));
        let ask = json!({"from": "m", "items": "failed", "reason": "there is more"});
        let begun = match by_job {
            false => server.post(&format!("{path}/rerun"), ask).await,
            true => {
                let mut job = ask;
                job["verb"] = json!("rerun");
                job["runs"] = json!({"workflow": "w", "outcome": "partially_completed"});
                server.post("/v1/jobs", job).await
            }
        };
        assert!((201..=202).contains(&begun.status), "{begun:?}");
        let task = work(&server, "i", &done(&json!("b"))).await;
        assert_eq!((&task["step"], &task["attempt"]), (&json!("m/1"), &json!(2)));
        let task = work(&server, "n", &done(&Value::Null)).await;
        assert_eq!(task["input"], json!(["a", "b", "c"]));
        let ended = server.get(&format!("{path}?wait=10s")).await.json();
        assert_eq!(ended["outcome"], "succeeded", "{ended:#}");
        let ask = json!({"from": "m", "items": "failed", "reason": "and again"});
        let refused = server.post(&format!("{path}/rerun"), ask).await;
        assert_eq!((refused.status, &refused.json()["code"]), (409, &json!("nothing_to_retry")));
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_default_that_its_wait_would_refuse_is_refused_at_registration() {
    let server = Server::start(Access::Open).await;
    let steps = |default: Value| {
        json!([{"id": "ok", "wait": {"signal": "approval", "timeout": "1h", "default": {"const": default},
            "schema": {"type": "object", "required": ["approved"]}}}])
    };
    let refused = register(&server, "w", &steps(json!({"approvd": false}))).await;
    assert_eq!(refused.problem(422), "invalid_definition");
    let error = &refused.json()["errors"][0];
    assert_eq!(error["pointer"], "/steps/0/wait/default/const", "{error}");
    let registered = register(&server, "w", &steps(json!({"approved": false}))).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    server.stopped().await;
}

#[tokio::test]
async fn a_rejected_approval_fails_the_run_without_a_worker() {
    let server = Server::start(Access::Open).await;
    let approved = json!({"path": "/steps/approve/approved"});
    let steps = json!([
        {"id": "stock", "task": task("stock")},
        {"id": "approve", "after": ["stock"], "wait": {"signal": "approval"}},
        {"id": "rejected", "when": {"not": approved}, "fail": {"code": "not_approved",
            "message": "the order was not approved", "details": {"path": "/steps/approve"}}},
        {"id": "pay", "after": ["rejected"], "task": task("pay")}]);
    let registered = register(&server, "order", &steps).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    let run = start(&server, "order", json!({})).await;
    work(&server, "stock", &done(&json!(1))).await;
    let path = format!("/v1/runs/{run}");
    let signal = r#"{"data":{"approved":false}}"#;
    assert_eq!(server.post(&format!("{path}/signals/approval"), signal).await.status, 200);
    work(&server, "undo_stock", &done(&Value::Null)).await;
    let ended = server.get(&format!("{path}?wait=10s")).await.json();
    assert_eq!(ended["outcome"], "compensated", "{ended:#}");
    let failure = &ended["error"]["failure"];
    assert_eq!(failure["code"], "not_approved");
    assert_eq!(failure["details"], json!({"approved": false}));
    assert_eq!(
        (&ended["steps"][2]["kind"], &ended["steps"][2]["state"]),
        (&json!("fail"), &json!("failed"))
    );
    server.stopped().await;
}
