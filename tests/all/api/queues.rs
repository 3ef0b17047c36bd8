//! Queues as an operator with curl sees them.

use backstitch_api::Access;
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

#[tokio::test]
async fn a_queue_is_governed_paused_opened_and_let_go() {
    let server = Server::start(Access::Open).await;
    let put = async |policy: &serde_json::Value| {
        send(with_json(server.request("PUT", "/v1/queues/erp"), policy)).await
    };
    assert_eq!(server.get("/v1/queues/erp").await.problem(404), "unknown_queue");
    let policy = json!({"concurrency": 5, "rate": {"limit": 10}});
    let made = put(&policy).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(
        made.json()["policy"],
        json!({"concurrency": 5, "rate": {"limit": 10, "per": "1s"}})
    );
    assert_eq!(made.json()["tokens"], 10);
    let reason = json!({"reason": "maintenance"});
    let refused = server.post("/v1/queues/erp/open", &reason).await;
    assert_eq!(refused.problem(409), "no_breaker");
    let replaced = put(&json!({"breaker": {"open_for": "1h"}})).await;
    assert_eq!((replaced.status, &replaced.json()["policy"]["concurrency"]), (200, &json!(null)));
    let opened = server.post("/v1/queues/erp/open", &reason).await.json();
    assert_eq!(opened["breaker"]["state"], "open", "{opened}");
    assert!(opened["breaker"]["retry_at"].is_string());
    let closed = server.post("/v1/queues/erp/close", &reason).await.json();
    assert_eq!(closed["breaker"]["state"], "closed");
    // A queue that nobody has heard of can be paused.
    let paused = server.post("/v1/queues/mail/pause", &reason).await;
    assert_eq!((paused.status, &paused.json()["paused"]["reason"]), (200, &json!("maintenance")));
    let page = server.get("/v1/queues?limit=1").await.json();
    assert_eq!(page["items"][0]["queue"], "erp");
    let next = page["next"].as_str().unwrap();
    let page = server.get(&format!("/v1/queues?limit=1&after={next}")).await.json();
    assert_eq!((&page["items"][0]["queue"], &page["next"]), (&json!("mail"), &json!(null)));
    let resumed = server.post("/v1/queues/mail/resume", &reason).await.json();
    assert!(resumed["paused"].is_null());
    assert_eq!(server.post("/v1/queues/mail/pause", r#"{"reason":" "}"#).await.status, 422);
    for status in [204, 404] {
        assert_eq!(send(server.request("DELETE", "/v1/queues/erp")).await.status, status);
    }
    let acts = super::incidents::all(&server, "/v1/acts?queue=erp&").await;
    let acts: Vec<(&Value, &Value)> =
        acts.iter().map(|act| (&act["verb"], &act["reason"])).collect();
    let (maintenance, none) = (json!("maintenance"), json!(""));
    let verbs = ["delete", "close", "open", "put", "put"].map(|verb| json!(verb));
    let reasons = [&none, &maintenance, &maintenance, &none, &none];
    assert_eq!(acts, verbs.iter().zip(reasons).collect::<Vec<_>>());
    let put = server.get("/v1/acts?queue=erp&verb=put").await.json();
    assert_eq!(put["items"][1]["detail"]["concurrency"], 5, "{put}");
    let both = server.get("/v1/acts?queue=erp&schedule=erp").await.json();
    assert_eq!(both["items"], json!([]), "nothing is both");
    server.stopped().await;
}
