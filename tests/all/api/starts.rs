//! Many starts with one request: each is answered for itself, and is as good as one alone.

use backstitch_api::Access;
use backstitch_saga::Definition;
use backstitch_sdk::{Client, RunQuery};
use backstitch_tests::node::fan;
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

const REGISTER: &str = "/v1/workflows/fan/versions/1";

#[tokio::test]
async fn each_start_of_many_is_answered_for_itself_and_in_order() {
    let server = Server::start(Access::Open).await;
    let definition = fan("fan", 10, r#""all""#);
    let registered = send(with_json(server.request("PUT", REGISTER), definition)).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    let alone = json!({"workflow": "fan", "input": [1], "key": "a"});
    let alone = server.post("/v1/runs", &alone).await.json();
    let asked = json!({"runs": [
        {"workflow": "fan", "input": [1], "key": "b"},
        {"workflow": "no-such-workflow"},
        {"workflow": "fan", "input": [1], "key": "a"},
        {"workflow": "fan", "input": [2], "key": "a"},
        {"workflow": "fan", "input": ["\u{0}"]},
        {"workflow": "fan", "key": ""},
        {"workflow": "fan", "input": [3]},
    ]});
    let answer = server.post("/v1/runs/batch", &asked).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    let results = answer.json()["results"].as_array().unwrap().clone();
    let statuses: Vec<&Value> = results.iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [201, 404, 200, 409, 422, 422, 201], "{results:#?}");
    let codes: Vec<&str> = results.iter().filter_map(|one| one["code"].as_str()).collect();
    assert_eq!(codes, ["unknown_workflow", "key_conflict", "invalid_input", "invalid_request"]);
    assert_eq!(results[2]["id"], alone["id"]);
    for started in [&results[0], &results[6]] {
        let run = format!("/v1/runs/{}", started["id"].as_str().unwrap());
        assert_eq!(server.get(&run).await.status, 200);
    }
    let runs = server.get("/v1/runs?limit=100").await.json();
    assert_eq!(runs["items"].as_array().unwrap().len(), 3, "{runs:#}");

    let again = json!({"runs": [{"workflow": "fan", "input": [1], "key": "b"}]});
    let again = server.post("/v1/runs/batch", &again).await;
    assert_eq!((again.status, &again.json()["results"][0]["id"]), (200, &results[0]["id"]));
    server.stopped().await;
}

#[tokio::test]
async fn a_batch_of_starts_sent_twice_starts_its_runs_once() {
    let server = Server::start(Access::Open).await;
    let client = Client::new(server.url()).unwrap();
    let definition: Definition = serde_json::from_str(&fan("fan", 10, r#""all""#)).unwrap();
    client.register_definition(&definition).await.unwrap();
    let keys: Vec<String> = (0..500).map(|number| format!("order-{number}")).collect();
    let start = async || {
        let starts = keys.iter().map(|key| {
            client.start_named::<_, Value>("fan", &json!([key])).key(key).label("shop", "north")
        });
        let started = client.start_all(starts).await.unwrap();
        started.into_iter().map(|run| run.unwrap().id()).collect::<Vec<_>>()
    };
    // At the same time, so that the batches meet in the database.
    let (first, second) = tokio::join!(start(), start());
    assert_eq!(first.len(), 500);
    assert_eq!(first, second);
    let found = client.runs(RunQuery::new().label("shop", "north")).all().await.unwrap();
    assert_eq!(found.len(), 500);

    let refused = client.start_all([client.start_named::<_, Value>("no-such", &json!(1))]).await;
    let refused = refused.unwrap().pop().unwrap().unwrap_err();
    assert_eq!((refused.status(), refused.code()), (Some(404), Some("unknown_workflow")));
    server.stopped().await;
}
