//! Starts that the engine refused after the application's commit: listed, tried again, or laid aside, by a person.

use backstitch_api::Access;
use backstitch_saga::RunId;
use backstitch_sdk::StartInTransaction;
use backstitch_tests::node::{NS, ask, chain};
use backstitch_tests::server::{Answer, Server};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use uuid::Uuid;

/// Returns the list, once it has so many lines.
async fn listed(server: &Server, state: &str, count: usize) -> Vec<Value> {
    loop {
        let page = server.get(&format!("/v1/start-requests?state={state}&limit=100")).await;
        assert_eq!(page.status, 200, "{page:?}");
        let items = page.json()["items"].as_array().unwrap().clone();
        if items.len() == count {
            return items;
        }
    }
}

#[tokio::test]
async fn what_is_refused_is_not_lost_and_a_person_decides() {
    let server = Server::start(Access::Open).await;
    let mut shop = PgConnection::connect(server.database()).await.unwrap();
    let start = |workflow: &str| {
        StartInTransaction::named(workflow, &json!({"order": 7})).unwrap().namespace(NS)
    };
    let RunId(early) = ask(&mut shop, &start("two").key("order-7")).await;
    let RunId(nonsense) = ask(&mut shop, &start("two").label("a:b", "north")).await;
    ask(&mut shop, &start("two").namespace("elsewhere")).await;
    let refused = listed(&server, "refused", 2).await;
    // Newest first.
    assert_eq!((&refused[0]["id"], &refused[1]["id"]), (&json!(nonsense), &json!(early)));
    assert_eq!(refused[0]["refusal"]["errors"][0]["pointer"], "/labels/a:b");
    assert_eq!(refused[1]["refusal"]["code"], "unknown_workflow");
    assert!(refused[0]["input"].is_null());
    let page = server.get("/v1/start-requests?limit=1").await.json();
    let next = page["next"].as_str().unwrap();
    let page = server.get(&format!("/v1/start-requests?limit=1&after={next}")).await.json();
    assert_eq!((&page["items"][0]["id"], &page["next"]), (&json!(early), &Value::Null));
    let shown = server.get(&format!("/v1/start-requests/{early}")).await.json();
    assert_eq!((&shown["input"], &shown["run"]), (&json!({"order": 7}), &json!(early)));

    // Too early: once the workflow is there it may be tried again, under the id that was promised.
    server.engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let act = async |id: Uuid, verb: &str, reason: &str| -> Answer {
        let body = json!({ "reason": reason });
        server.post(&format!("/v1/start-requests/{id}/{verb}"), &body).await
    };
    assert_eq!(act(early, "retry", " ").await.problem(422), "reason_missing");
    let again = act(early, "retry", "registered now").await;
    assert_eq!((again.status, &again.json()["state"]), (200, &json!("waiting")));
    loop {
        let run = server.get(&format!("/v1/runs/{early}")).await;
        if run.status == 200 {
            assert_eq!(run.json()["key"], "order-7");
            break;
        }
    }

    for _ in 0..2 {
        let dismissed = act(nonsense, "dismiss", "asked for again with a key").await;
        assert_eq!((dismissed.status, &dismissed.json()["state"]), (200, &json!("dismissed")));
        let decision = &dismissed.json()["decision"];
        assert_eq!(decision["reason"], "asked for again with a key");
        assert_eq!(decision["by"], "anonymous");
    }
    listed(&server, "refused", 0).await;
    assert_eq!(listed(&server, "dismissed", 1).await[0]["id"], json!(nonsense));
    let nobody = act(Uuid::new_v4(), "retry", "why").await;
    assert_eq!(nobody.problem(404), "unknown_start_request");
    server.stopped().await;
}
