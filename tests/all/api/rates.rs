//! Rates: how much a namespace, a credential and an address may ask for in a second.

use std::time::{Duration, Instant};

use backstitch_api::{Access, ServerConfig};
use backstitch_engine::Role;
use backstitch_saga::Span;
use backstitch_saga::protocol::Quotas;
use backstitch_tests::node::{Hand, NS, chain, start};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::json;

async fn server(quotas: Quotas, access: Access) -> Server {
    let config = ServerConfig { access, ..ServerConfig::default() };
    let server = Server::with_quotas(config, quotas).await;
    server.engine.register(NS, &chain("two", &["a"])).await.unwrap();
    server
}

/// The answer is 429 with this code, and says when to ask again.
#[track_caller]
fn throttled(answer: &Answer, code: &str) {
    assert_eq!(answer.problem(429), code);
    let wait: u64 = answer.headers["retry-after"].to_str().unwrap().parse().unwrap();
    assert!((1..=60).contains(&wait), "{wait}");
}

#[tokio::test]
async fn a_namespace_that_asks_too_often_is_answered_429_and_others_are_not() {
    let limits = Quotas { requests_per_second: Some(1), ..Quotas::default() };
    let server = server(limits, Access::Open).await;
    let ask = async |namespace: &str, method: &str, path: &str| {
        let request = server.bare(method, path).header("backstitch-namespace", namespace);
        send(with_json(request, "{}")).await
    };
    let mut last = ask("noisy", "GET", "/v1/runs").await;
    for _ in 0..1_000 {
        if last.status != 200 {
            break;
        }
        last = ask("noisy", "GET", "/v1/runs").await;
    }
    throttled(&last, "too_many_requests");
    assert_eq!(ask("quiet", "GET", "/v1/runs").await.status, 200);
    // What stops things and what workers ask do not wait for the others of their namespace.
    let run = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";
    assert_eq!(ask("noisy", "POST", &format!("/v1/runs/{run}/kill")).await.status, 422);
    assert_eq!(ask("noisy", "POST", "/v1/tasks/complete").await.status, 422);
    assert_eq!(ask("noisy", "POST", "/v1/tasks/heartbeat").await.status, 422);
    assert_eq!(ask("noisy", "GET", "/livez").await.status, 200);
    assert!(server.get("/metrics").await.text.contains("backstitch_throttled_total "));
    server.stopped().await;
}

#[tokio::test]
async fn a_worker_whose_heartbeats_are_refused_keeps_its_lease() {
    let limits = Quotas { requests_per_second: Some(1), ..Quotas::default() };
    let server = server(limits, Access::Open).await;
    let run = server.engine.start_run(NS, start("two", "1")).await.unwrap().id;
    let hand = Hand::new(&server.engine);
    let task = hand.claim(1, Span::secs(30)).await;
    let beat = json!({ "beats": [{ "run": run, "step": "a", "action": "forward", "attempt": 1,
        "details": "x" }] });
    let other = json!({ "beats": [{ "run": "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11", "step": "a",
        "action": "forward", "attempt": 1 }] });
    // Others of the namespace use up what it may ask, for three times as long as the lease.
    let until = Instant::now() + Duration::from_secs(3);
    let mut refused = 0;
    let patience = until + Duration::from_secs(60);
    while Instant::now() < until || (refused <= 10 && Instant::now() < patience) {
        for _ in 0..20 {
            server.post("/v1/tasks/heartbeat", &other).await;
        }
        refused += u32::from(server.post("/v1/tasks/heartbeat", &beat).await.status == 429);
    }
    assert!(refused > 10, "{refused}");
    let answers = hand.succeed(&task).await;
    assert_eq!(answers[0].status, 200, "{answers:?}");
    assert!(server.get("/metrics").await.text.contains("backstitch_lease_losses_total 0"));
    server.stopped().await;
}

#[tokio::test]
async fn one_credential_cannot_use_up_what_its_namespace_may_ask() {
    let limits = Quotas { credential_requests_per_second: Some(1), ..Quotas::default() };
    let server = server(limits, Access::Keys).await;
    let noisy = server.engine.create_credential(NS, "noisy", Role::Viewer).await.unwrap();
    let quiet = server.engine.create_credential(NS, "quiet", Role::Viewer).await.unwrap();
    let ask =
        async |secret: &str| send(server.request("GET", "/v1/runs").bearer_auth(secret)).await;
    let mut last = ask(&noisy).await;
    for _ in 0..1_000 {
        if last.status != 200 {
            break;
        }
        last = ask(&noisy).await;
    }
    throttled(&last, "too_many_requests");
    assert_eq!(ask(&quiet).await.status, 200);
    server.stopped().await;
}

#[tokio::test]
async fn a_batch_of_starts_costs_as_many_as_it_holds() {
    let limits = Quotas { starts_per_second: Some(1), ..Quotas::default() };
    let server = server(limits, Access::Open).await;
    let runs: Vec<_> = (0..50).map(|_| json!({ "workflow": "two" })).collect();
    let batch = server.post("/v1/runs/batch", json!({ "runs": runs })).await;
    assert_eq!(batch.status, 201, "one that is larger than the bucket is taken when that is full");
    throttled(&server.post("/v1/runs", r#"{"workflow":"two"}"#).await, "too_many_starts");
    throttled(&server.post("/v1/runs/batch", json!({ "runs": runs })).await, "too_many_starts");
    let keyed = with_json(server.request("POST", "/v1/runs"), r#"{"workflow":"two"}"#);
    throttled(&send(keyed.header("idempotency-key", "k")).await, "too_many_starts");
    assert_eq!(server.get("/v1/runs?limit=1").await.status, 200, "reading goes on");
    server.stopped().await;
}

#[tokio::test]
async fn an_address_that_sends_unknown_credentials_is_bounded_and_known_ones_pass() {
    let server = server(Quotas::default(), Access::Keys).await;
    let secret = server.engine.create_credential(NS, "good", Role::Viewer).await.unwrap();
    let ask =
        async |secret: &str| send(server.request("GET", "/v1/whoami").bearer_auth(secret)).await;
    assert_eq!(ask(&secret).await.status, 200);
    let mut refused = 0;
    let mut last = ask("unknown").await;
    while last.status == 401 && refused < 50_000 {
        assert_eq!(last.problem(401), "credential_unknown");
        refused += 1;
        last = ask("unknown").await;
    }
    throttled(&last, "too_many_failed_logins");
    assert!(refused >= 500, "{refused}");
    assert_eq!(ask(&secret).await.status, 200, "it was good lately");
    assert_eq!(server.get("/v1/whoami").await.problem(401), "credential_missing");
    let numbers = server.get("/metrics").await.text;
    assert!(!numbers.contains("backstitch_logins_failed_total 0\n"), "{numbers}");
    server.stopped().await;
}
