//! The items of jobs: how they are judged, foreseen and left.

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_tests::node::{Hand, NS, start};
use backstitch_tests::server::Server;
use serde_json::json;
use sqlx::Connection;

use super::incidents::{all, fail};
use super::jobs::{ask, claim, create, stuck, until};

/// A fan-out over the input whose items wait for a person when they fail.
const ITEMS: &str = r#"{"name":"items","version":1,"steps":[{"id":"each","map":{"items":{"path":"/input"},"join":"all",
    "empty":"succeed","task":{"name":"do","input":{"path":"/item"},"on_failure":"incident","class":"read_only"}}}]}"#;

#[tokio::test]
async fn a_canary_on_an_item_is_judged_by_that_item() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, ITEMS).await.unwrap();
    server.engine.start_run(NS, start("items", "[1,2,3]")).await.unwrap();
    let hand = Hand::new(&server.engine);
    for task in claim(&hand, 3).await {
        fail(&hand, &task, "card_declined", "the card has expired").await;
    }
    let id = create(
        &server,
        &json!({"verb": "retry", "incidents": {"workflow": "items"}, "reason": "fixed", "rate": 1000,
            "canary": {"first": 1}}),
    )
    .await;
    until(&server, &id, |job| job["progress"]["done"] == 1).await;
    // The two others of the run wait for a person still, and that says nothing about the first.
    server.engine.run_once(BackgroundTask::WorkJobs).await.unwrap();
    assert_eq!(server.get(&format!("/v1/jobs/{id}")).await.json()["state"], "canary");
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    let job = until(&server, &id, |job| job["state"] == "done").await;
    assert_eq!(job["progress"]["done"], 3);
    server.stopped().await;
}

#[tokio::test]
async fn the_items_of_a_stopped_job_are_left() {
    let (server, _, _) = stuck(3).await;
    let id = create(
        &server,
        &json!({"verb": "retry", "incidents": {"workflow": "order"}, "reason": "fixed", "rate": 0.1}),
    )
    .await;
    until(&server, &id, |job| job["progress"]["done"] == 1).await;
    let items = |state: &str| format!("/v1/jobs/{id}/items?state={state}&");
    assert_eq!(all(&server, &items("left")).await.len(), 0);
    assert_eq!(all(&server, &items("waiting")).await.len(), 2);
    let stopped =
        ask(&server, &format!("/v1/jobs/{id}/stop"), &json!({"reason": "enough"})).await.json();
    assert_eq!(
        stopped["progress"],
        json!({"waiting": 0, "left": 2, "done": 1, "came_back": 0, "refused": 0, "total": 3})
    );
    assert_eq!(all(&server, &items("waiting")).await.len(), 0);
    let left = all(&server, &items("left")).await;
    assert!(left.len() == 2 && left.iter().all(|item| item["state"] == "left"), "{left:?}");
    server.stopped().await;
}

#[tokio::test]
async fn a_dry_run_says_which_would_be_refused_and_why() {
    let (server, hand, _) = stuck(1).await;
    server.engine.start_run(NS, start("order", "1")).await.unwrap();
    let _working = hand.one().await;
    let plan = |verb: &str| json!({"verb": verb, "runs": {"workflow": "order"}, "dry_run": true});
    let planned = ask(&server, "/v1/jobs", &plan("retry")).await.json();
    let first = planned["first"].as_array().unwrap();
    assert_eq!((planned["count"].as_u64(), first.len()), (Some(2), 2));
    assert_eq!((&first[0]["state"], &first[0]["code"]), (&json!("waiting"), &json!(null)));
    assert_eq!(
        (&first[1]["state"], &first[1]["code"]),
        (&json!("refused"), &json!("nothing_to_retry"))
    );
    assert!(first[1]["message"].as_str().unwrap().contains("parked"), "{planned}");
    let run = first[0]["run"].as_str().unwrap();
    let kill = ask(&server, &format!("/v1/runs/{run}/kill"), &json!({"reason": "over"})).await;
    assert_eq!(kill.status, 200);
    let planned = ask(&server, "/v1/jobs", &plan("cancel")).await.json();
    assert_eq!(planned["first"][0]["code"], "run_ended");
    assert_eq!(planned["first"][1]["state"], "waiting");
    // Whatever the verb: it is the answer that the job would get.
    for (verb, more, code) in [
        ("resume", json!({"name": "nobody"}), "unknown_pause"),
        ("rerun", json!({"from": "nowhere"}), "unknown_step"),
        ("rerun", json!({"from": "pay", "items": "failed"}), "nothing_to_retry"),
        ("signal", json!({"signal": "nothing"}), "unknown_signal"),
    ] {
        let mut asked = plan(verb);
        asked.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let planned = ask(&server, "/v1/jobs", &asked).await.json();
        let codes: Vec<&str> = planned["first"]
            .as_array()
            .unwrap()
            .iter()
            .map(|item| item["code"].as_str().unwrap_or("none"))
            .collect();
        asked["reason"] = json!("for real");
        asked.as_object_mut().unwrap().remove("dry_run");
        let id = create(&server, &asked).await;
        until(&server, &id, |job| job["state"] == "done").await;
        let items = all(&server, &format!("/v1/jobs/{id}/items?")).await;
        let done: Vec<&str> =
            items.iter().map(|item| item["code"].as_str().unwrap_or("none")).collect();
        assert_eq!(codes, done, "{verb}");
        assert!(codes.contains(&code), "{verb}: {codes:?}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_job_on_a_workflow_that_is_not_there_is_refused() {
    let (server, _, _) = stuck(1).await;
    for dry_run in [true, false] {
        for filter in ["incidents", "runs"] {
            let mut asked = json!({"verb": "retry", "reason": "fixed", "dry_run": dry_run});
            asked[filter] = json!({"workflow": "typo"});
            assert_eq!(ask(&server, "/v1/jobs", &asked).await.problem(404), "unknown_workflow");
        }
    }
    assert_eq!(server.get("/v1/jobs").await.json()["items"], json!([]));
    server.stopped().await;
}

#[tokio::test]
async fn a_job_that_has_lost_items_does_the_others_and_is_stopped() {
    let (server, _hand, _) = stuck(3).await;
    let id = create(
        &server,
        &json!({"verb": "retry", "incidents": {"workflow": "order"}, "reason": "fixed", "rate": 0.1}),
    )
    .await;
    until(&server, &id, |job| job["progress"]["done"] == 1).await;
    let mut outside = sqlx::PgConnection::connect(server.database()).await.unwrap();
    for lost in [
        "delete from job_items where position = 2",
        "update jobs set next_at = now() - interval '1 minute'",
    ] {
        let lost = sqlx::query(lost).execute(&mut outside).await.unwrap();
        assert_eq!(lost.rows_affected(), 1);
    }
    let job = until(&server, &id, |job| job["state"] == "stopped").await;
    assert_eq!((&job["progress"]["done"], &job["progress"]["left"]), (&json!(2), &json!(1)));
    assert!(job["why"].as_str().unwrap().contains("the rows of 1 of its items are lost"), "{job}");
    server.stopped().await;
}
