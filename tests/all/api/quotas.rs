//! Quotas: what a namespace may have of each thing, who sets that, and who can read what is used.

use std::time::Duration;

use backstitch_api::{Access, ServerConfig};
use backstitch_engine::{IdempotentRequest, Reserved, Role};
use backstitch_saga::protocol::Quotas;
use backstitch_tests::node::{NS, chain, start};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("two", &["a"])).await.unwrap();
    server
}

async fn put(server: &Server, path: &str, body: Value) -> Answer {
    send(with_json(server.request("PUT", path), body)).await
}

async fn set(server: &Server, quotas: Value) {
    let answer = put(server, "/v1/quotas", quotas).await;
    assert_eq!(answer.status, 200, "{answer:?}");
}

/// One quota as everybody reads it.
async fn quota(server: &Server, name: &str) -> Value {
    let view = server.get("/v1/quotas").await.json();
    let quotas = view["quotas"].as_array().unwrap().clone();
    quotas.into_iter().find(|quota| quota["quota"] == name).unwrap()
}

/// Another namespace of the same server has what it had.
async fn elsewhere(server: &Server, method: &str, path: &str, body: Value) -> u16 {
    let request = server.bare(method, path).header("backstitch-namespace", "elsewhere");
    send(with_json(request, body)).await.status
}

#[tokio::test]
async fn definitions_and_schedules_are_refused_beyond_their_quota_and_free_when_one_goes() {
    let server = server().await;
    set(&server, json!({ "definitions": 2, "schedules": 1 })).await;
    let definition = |name: &str| serde_json::from_str::<Value>(&chain(name, &["a"])).unwrap();
    assert_eq!(put(&server, "/v1/workflows/b/versions/1", definition("b")).await.status, 201);
    let refused = put(&server, "/v1/workflows/c/versions/1", definition("c")).await;
    assert_eq!(refused.problem(409), "quota_definitions");
    let same = put(&server, "/v1/workflows/b/versions/1", definition("b")).await;
    assert_eq!(same.status, 200, "what is there is not counted again");
    let definition = definition("c");
    assert_eq!(elsewhere(&server, "PUT", "/v1/workflows/c/versions/1", definition).await, 201);
    let schedule = json!({ "cron": "0 3 * * *", "time_zone": "UTC", "workflow": "two" });
    assert_eq!(put(&server, "/v1/schedules/first", schedule.clone()).await.status, 201);
    let refused = put(&server, "/v1/schedules/second", schedule.clone()).await;
    assert_eq!(refused.problem(409), "quota_schedules");
    assert_eq!(put(&server, "/v1/schedules/first", schedule.clone()).await.status, 200);
    let gone = send(server.request("DELETE", "/v1/schedules/first")).await;
    assert_eq!(gone.status, 204);
    assert_eq!(put(&server, "/v1/schedules/second", schedule).await.status, 201);
    assert_eq!(quota(&server, "definitions").await["used"], 2);
    server.stopped().await;
}

#[tokio::test]
async fn runs_beyond_their_quota_are_answered_429_until_some_end() {
    let server = server().await;
    set(&server, json!({ "runs": 3 })).await;
    let start = || server.post("/v1/runs", r#"{"workflow":"two"}"#);
    let first = start().await;
    assert_eq!(first.status, 201);
    let runs: Vec<_> = (0..3).map(|_| json!({ "workflow": "two" })).collect();
    let batch = server.post("/v1/runs/batch", json!({ "runs": runs })).await;
    assert_eq!(batch.problem(429), "quota_runs", "a batch is taken whole or not at all");
    assert!(batch.headers.contains_key("retry-after"));
    assert_eq!(start().await.status, 201);
    assert_eq!(start().await.status, 201);
    assert_eq!(start().await.problem(429), "quota_runs");
    let run = first.json()["id"].as_str().unwrap().to_owned();
    let kill = server.post(&format!("/v1/runs/{run}/kill"), r#"{"reason":"r"}"#).await;
    assert_eq!(kill.status, 200, "{kill:?}");
    while start().await.status == 429 {
        tokio::task::yield_now().await;
    }
    assert_eq!(elsewhere(&server, "GET", "/v1/runs", json!({})).await, 200);
    server.stopped().await;
}

#[tokio::test]
async fn starts_that_have_begun_a_run_are_answered_with_it_at_a_full_quota() {
    let server = server().await;
    set(&server, json!({ "runs": 2 })).await;
    let keyed = |key: &str, input: u32| json!({ "workflow": "two", "key": key, "input": input });
    let start = async |body: Value| server.post("/v1/runs", body).await;
    let first = start(keyed("a", 1)).await;
    assert_eq!((first.status, start(keyed("b", 1)).await.status), (201, 201));
    let again = start(keyed("a", 1)).await;
    assert_eq!((again.status, &again.json()["id"]), (200, &first.json()["id"]));
    assert_eq!(start(keyed("a", 2)).await.problem(409), "key_conflict");
    assert_eq!(start(keyed("c", 1)).await.problem(429), "quota_runs");
    let batch = async |runs: Value| server.post("/v1/runs/batch", json!({ "runs": runs })).await;
    let again = batch(json!([keyed("a", 1), keyed("b", 1)])).await;
    assert_eq!((again.status, &again.json()["results"][0]["id"]), (200, &first.json()["id"]));
    let more = batch(json!([keyed("a", 1), keyed("c", 1)])).await;
    assert_eq!(more.problem(429), "quota_runs");
    set(&server, json!({ "runs": 3 })).await;
    assert_eq!(batch(json!([keyed("a", 1), keyed("b", 1), keyed("c", 1)])).await.status, 207);
    server.stopped().await;
}

#[tokio::test]
async fn a_request_that_began_its_run_before_its_server_died_is_answered_at_a_full_quota() {
    let server = server().await;
    set(&server, json!({ "runs": 1 })).await;
    let body = r#"{"workflow":"two"}"#;
    assert_eq!(server.post("/v1/runs", body).await.status, 201);
    let request = IdempotentRequest {
        namespace: NS,
        actor: "anonymous",
        method: "POST",
        path: "/v1/runs",
        key: "k",
        body: body.as_bytes(),
    };
    // The run begins; the answer is not kept.
    let Reserved::Yours(reserved) = server.engine.reserve(request).await.unwrap() else {
        panic!("it is new");
    };
    let run = server.engine.start_run_as(NS, reserved.run_id(0), start("two", "null")).await;
    server.engine.free(&reserved).await.unwrap();
    let keyed = with_json(server.request("POST", "/v1/runs"), body);
    let answer = send(keyed.header("idempotency-key", "k")).await;
    assert_eq!(answer.json()["id"], json!(run.unwrap().id), "{answer:?}");
    server.stopped().await;
}

#[tokio::test]
async fn early_signals_and_kept_answers_are_refused_beyond_their_quota() {
    let server = server().await;
    set(&server, json!({ "early_signals": 2, "kept_answers": 1 })).await;
    let definition = json!({ "name": "waits", "version": 1,
        "steps": [{ "id": "w", "wait": { "signal": "paid", "timeout": "1h" } }] });
    assert_eq!(put(&server, "/v1/workflows/waits/versions/1", definition).await.status, 201);
    let signal = async |key: &str| {
        let signal = json!({ "workflow": "waits", "key": key, "signal": "paid", "data": 1 });
        server.post("/v1/signals", signal).await
    };
    for key in ["a", "b"] {
        let kept = signal(key).await;
        assert!(kept.status < 300, "{kept:?}");
    }
    let refused = signal("c").await;
    assert_eq!(refused.problem(429), "quota_early_signals");
    let keyed = async |key: &str| {
        let start = with_json(server.request("POST", "/v1/runs"), r#"{"workflow":"two"}"#);
        send(start.header("idempotency-key", key)).await
    };
    let first = keyed("first").await;
    assert_eq!(first.status, 201);
    assert_eq!(keyed("second").await.problem(429), "quota_kept_answers");
    assert_eq!(keyed("first").await.json()["id"], first.json()["id"], "a repeat is answered");
    server.stopped().await;
}

#[tokio::test]
async fn waiting_requests_and_rates_are_bounded_for_the_namespace_alone() {
    let server = server().await;
    set(&server, json!({ "waiting": 1, "starts_per_second": 1 })).await;
    let run = server.post("/v1/runs", r#"{"workflow":"two"}"#).await.json();
    let path = format!("/v1/runs/{}?wait=20s", run["id"].as_str().unwrap());
    let first = tokio::spawn(send(server.request("GET", &path)));
    while quota(&server, "waiting").await["used"] != 1 {}
    assert_eq!(server.get(&path).await.problem(429), "quota_waiting");
    let kill = path.replace("?wait=20s", "/kill");
    assert_eq!(server.post(&kill, r#"{"reason":"r"}"#).await.status, 200);
    assert_eq!(first.await.unwrap().status, 207);
    let batch: Vec<_> = (0..10).map(|_| json!({ "workflow": "two" })).collect();
    while server.post("/v1/runs/batch", json!({ "runs": batch })).await.status == 429 {}
    let refused = server.post("/v1/runs", r#"{"workflow":"two"}"#).await;
    assert_eq!(refused.problem(429), "too_many_starts");
    server.stopped().await;
}

#[tokio::test]
async fn an_admin_sets_less_than_the_server_allows_and_everybody_of_the_namespace_reads_it() {
    let ceiling = Quotas { runs: Some(100), schedules: Some(9), ..Quotas::default() };
    let config = ServerConfig { access: Access::Keys, ..ServerConfig::default() };
    let server = Server::with_quotas(config, ceiling).await;
    let secret =
        async |name: &str, role| server.engine.create_credential(NS, name, role).await.unwrap();
    let (admin, viewer) =
        (secret("admin", Role::Admin).await, secret("viewer", Role::Viewer).await);
    let ask = async |method: &str, secret: &str, body: Value| {
        send(with_json(server.request(method, "/v1/quotas").bearer_auth(secret), body)).await
    };
    let quotas = json!({ "runs": 1_000, "schedules": 5 });
    assert_eq!(ask("PUT", &viewer, quotas.clone()).await.problem(403), "forbidden");
    assert_eq!(ask("PUT", &admin, quotas).await.status, 200);
    let seen = ask("GET", &viewer, json!({})).await.json();
    let of = |seen: &Value, name: &str| {
        let quotas = seen["quotas"].as_array().unwrap().clone();
        quotas.into_iter().find(|quota| quota["quota"] == name).unwrap()
    };
    let runs = json!({ "quota": "runs", "limit": 100, "set_by": "server", "used": 0 });
    let schedules = json!({ "quota": "schedules", "limit": 5, "set_by": "namespace", "used": 0 });
    assert_eq!((of(&seen, "runs"), of(&seen, "schedules")), (runs, schedules));
    assert_eq!(seen["changed_by"], "admin");
    assert_eq!(ask("PUT", &admin, json!({ "runs": 0 })).await.problem(422), "invalid_request");
    assert_eq!(ask("DELETE", &admin, json!({})).await.status, 204);
    assert_eq!(of(&ask("GET", &viewer, json!({})).await.json(), "schedules")["limit"], 9);
    server.stopped().await;
}

#[tokio::test]
async fn all_servers_know_of_quotas_within_seconds() {
    let server = server().await;
    let other = server.beside().await;
    set(&server, json!({ "definitions": 1 })).await;
    let known = async { while quota(&other, "definitions").await["limit"] != 1 {} };
    tokio::time::timeout(Duration::from_secs(30), known).await.expect("it is known");
    let definition = serde_json::from_str::<Value>(&chain("b", &["a"])).unwrap();
    let refused = put(&other, "/v1/workflows/b/versions/1", definition).await;
    assert_eq!(refused.problem(409), "quota_definitions");
    other.stopped().await;
    server.stopped().await;
}
