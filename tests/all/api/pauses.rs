//! A workflow is paused by a person or by the guard: starts are accepted, nothing of them is handed out.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_saga::Span;
use backstitch_tests::node::{Hand, NS, start};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

use super::incidents::{all, audit, fail, failing, parking};

async fn turn(server: &Server, workflow: &str, verb: &str, reason: &str) -> Value {
    let request = server.request("POST", &format!("/v1/workflows/{workflow}/{verb}"));
    let body = json!({ "reason": reason });
    let turned = send(with_json(request.header("backstitch-actor", "ann"), body)).await;
    assert_eq!(turned.status, 200, "{turned:?}");
    turned.json()["items"][0].clone()
}

/// Starts a run of `workflow`; answers its id and whether it is held.
async fn started(server: &Server, workflow: &str) -> (String, bool) {
    let run = server.engine.start_run(NS, start(workflow, "1")).await.unwrap().id.to_string();
    let view = server.get(&format!("/v1/runs/{run}")).await.json();
    let kinds = view["conditions"].as_array().unwrap();
    let held = kinds.iter().any(|condition| condition["type"] == "WorkflowPaused");
    (run, held)
}

/// Lets go what is not paused any more, until `count` tasks were claimed.
async fn let_go(server: &Server, hand: &Hand, count: usize) {
    let (mut claimed, began) = (0, Instant::now());
    while claimed < count {
        server.engine.run_once(BackgroundTask::Guard).await.unwrap();
        let tasks = hand.claim(10, Span::millis(50)).await;
        hand.succeed(&tasks).await;
        claimed += tasks.len();
        assert!(began.elapsed() < Duration::from_secs(60), "{claimed} of {count}");
    }
}

#[tokio::test]
async fn runs_of_a_paused_workflow_are_accepted_and_held() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay"])).await.unwrap();
    server.engine.register(NS, &parking("refund", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    let paused = turn(&server, "order", "pause", "the bank is down").await;
    assert_eq!(
        (&paused["workflow"], &paused["reason"]),
        (&json!("order"), &json!("the bank is down"))
    );
    assert_eq!(server.get("/v1/status").await.json()["paused_workflows"], json!(["order"]));
    assert_eq!(turn(&server, "order", "pause", "again").await["reason"], "the bank is down");
    for _ in 0..2 {
        assert!(started(&server, "order").await.1);
    }
    let (held, _) = started(&server, "order").await;
    let why = server.get(&format!("/v1/runs/{held}/why")).await.json();
    assert_eq!(why["waits_for"][0]["kind"], "workflow_paused", "{why}");
    assert!(!started(&server, "refund").await.1);
    let task = hand.one().await;
    assert_eq!(task.workflow, "refund");
    hand.succeed(&[task]).await;
    assert!(hand.claim(1, Span::millis(300)).await.is_empty(), "nothing of what is held");
    let resumed = turn(&server, "order", "resume", "it is back").await;
    assert_eq!(
        (&resumed["resumed_by"], &resumed["resume_reason"]),
        (&json!("ann"), &json!("it is back"))
    );
    assert!(!started(&server, "order").await.1);
    let_go(&server, &hand, 4).await;
    // Three runs and the workflow.
    assert_eq!(audit(&server, "verb=resume&").await, ["resume by ann: it is back"; 4]);
    let acts = server.get("/v1/acts?workflow=order").await.json()["items"].clone();
    let own = acts.as_array().unwrap().iter().filter(|act| act["run"].is_null());
    let own: Vec<&Value> = own.map(|act| &act["verb"]).collect();
    assert_eq!(own, ["resume", "pause"], "asked again it is no act");
    let none = server.post("/v1/workflows/none/pause", r#"{"reason":"?"}"#).await;
    assert_eq!(none.problem(404), "unknown_workflow");
    let blank = server.post("/v1/workflows/order/pause", r#"{"reason":" "}"#).await;
    assert_eq!(blank.problem(422), "reason_missing");
    server.stopped().await;
}

#[tokio::test]
async fn a_bad_deploy_pauses_its_workflow_once() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay"])).await.unwrap();
    server.engine.register(NS, &parking("refund", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    failing(&server, &hand, "refund", 3, "card_declined").await;
    failing(&server, &hand, "order", 19, "null_pointer").await;
    server.engine.run_once(BackgroundTask::Guard).await.unwrap();
    assert_eq!(server.get("/v1/pauses").await.json()["items"], json!([]), "19 are not enough");
    started(&server, "order").await;
    fail(&hand, &hand.one().await, "null_pointer", "card 4799 of 'c-99' has expired").await;
    server.engine.run_once(BackgroundTask::Guard).await.unwrap();
    let pauses = all(&server, "/v1/pauses?").await;
    let groups = all(&server, "/v1/incidents/groups?").await;
    assert_eq!((pauses.len(), &pauses[0]["workflow"]), (1, &json!("order")));
    assert_eq!(
        (&pauses[0]["fingerprint"], &pauses[0]["runs"]),
        (&groups[0]["fingerprint"], &json!(20))
    );
    assert_eq!(pauses[0]["actor"], "backstitch");
    assert!(started(&server, "order").await.1 && !started(&server, "refund").await.1);
    // Whoever lets it go on is not overruled: the cause is known.
    turn(&server, "order", "resume", "rolled back").await;
    server.engine.run_once(BackgroundTask::Guard).await.unwrap();
    assert_eq!(all(&server, "/v1/pauses?").await.len(), 1);
    assert!(!started(&server, "order").await.1);
    let_go(&server, &hand, 3).await;
    server.stopped().await;
}

#[tokio::test]
async fn runs_that_people_kill_are_no_sign_of_a_bad_deploy() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    for _ in 0..25 {
        let (run, _) = started(&server, "order").await;
        hand.one().await;
        let killed = server.post(&format!("/v1/runs/{run}/kill"), r#"{"reason":"wanted"}"#).await;
        assert_eq!(killed.status, 200, "{killed:?}");
    }
    let groups = all(&server, "/v1/incidents/groups?").await;
    assert_eq!((groups.len(), &groups[0]["kind"]), (1, &json!("effects_left")), "{groups:?}");
    server.engine.run_once(BackgroundTask::Guard).await.unwrap();
    assert_eq!(server.get("/v1/pauses").await.json()["items"], json!([]));
    assert!(!started(&server, "order").await.1);
    server.stopped().await;
}
