//! Documents of vendors are mapped to contracts of our own as they come in, and again when their transform was mended.

use backstitch_api::Access;
use backstitch_tests::node::NS;
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-the-crm";
const TRANSFORM: &str = "/v1/transforms/crm.contact/1/customer/1";

fn door() -> String {
    format!("/v1/in/{NS}/crm")
}

async fn register(server: &Server, subject: &str, members: Value, required: Value) {
    let schema = json!({"type": "object", "properties": members, "required": required});
    let path = format!("/v1/contracts/{subject}/versions");
    let answer = server.post(&path, json!({"schema": schema})).await;
    assert!(answer.status < 300, "{answer:?}");
}

/// Maps contacts to customers; what their state means is said by `states`.
fn transform(states: &Value) -> Value {
    let rules = json!([
        {"to": "/id", "copy": "/id"}, {"to": "/name", "copy": "/full_name"},
        {"to": "/status", "enum": "/st", "map": states},
    ]);
    json!({"stream": "customer:{/id}", "rules": rules})
}

async fn put_transform(server: &Server, states: &Value) -> Answer {
    let body = json!({"transform": transform(states), "reason": "r"});
    send(with_json(server.request("PUT", TRANSFORM), body)).await
}

/// Returns a server with a source of contacts that become customers.
async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    let text = json!({"type": "string"});
    let contact = json!({"id": text, "full_name": text, "st": text});
    register(&server, "crm.contact", contact, json!(["id", "full_name", "st"])).await;
    let status = json!({"enum": ["active", "inactive"]});
    let customer = json!({"id": text, "name": text, "status": status});
    register(&server, "customer", customer, json!(["id", "name", "status"])).await;
    let spec = json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact", "to": "customer@1"}],
        "version_from": {"fixed": 1}, "dedupe": [{"pointer": "/id"}, {"pointer": "/full_name"}],
    });
    let body = json!({"spec": spec, "secret": TOKEN});
    let answer = send(with_json(server.request("PUT", "/v1/sources/crm"), body)).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    server
}

async fn send_in(server: &Server, path: &str, body: Value) -> Value {
    let answer = send(with_json(server.bare("POST", path).bearer_auth(TOKEN), body)).await;
    assert!(answer.status < 300, "{answer:?}");
    answer.json()
}

async fn intake(server: &Server, receipt: &Value) -> Value {
    let id = receipt["intake_id"].as_str().unwrap();
    server.get(&format!("/v1/intakes/{id}")).await.json()
}

async fn again(server: &Server, receipt: &Value) -> Value {
    let id = receipt["intake_id"].as_str().unwrap();
    let path = format!("/v1/intakes/{id}/reprocess");
    let answer = server.post(&path, json!({"reason": "mended"})).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()
}

async fn events(server: &Server, count: usize) -> Vec<Value> {
    loop {
        let page = server.get("/v1/events?limit=1000").await.json();
        let items = page["items"].as_array().unwrap().clone();
        if items.len() >= count {
            return items;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

fn contact(id: &str, name: &str, state: &str) -> Value {
    json!({"id": id, "full_name": name, "st": state, "colour": "red"})
}

#[tokio::test]
async fn a_document_and_what_it_is_mapped_to_are_appended_together_and_once() {
    let server = server().await;
    let states = json!({"A": "active", "I": "inactive"});
    assert_eq!(put_transform(&server, &states).await.status, 201);
    let first = send_in(&server, &door(), contact("c-1", "Ann", "A")).await;
    let second = send_in(&server, &door(), contact("c-1", "Anne", "A")).await;
    assert_eq!(send_in(&server, &door(), contact("c-1", "Ann", "A")).await["duplicate"], true);
    let found = events(&server, 4).await;
    assert_eq!(found.len(), 4, "{found:?}");
    let (theirs, ours) = (&found[0], &found[1]);
    assert_eq!((&theirs["id"], &theirs["type"]), (&first["event_id"], &json!("crm.contact")));
    assert_eq!(
        (&ours["type"], &ours["contract"], &ours["stream"], &ours["data"]),
        (
            &json!("customer"),
            &json!("customer@1"),
            &json!("customer:c-1"),
            &json!({"id": "c-1", "name": "Ann", "status": "active"})
        )
    );
    assert_eq!(
        (
            &ours["causation_id"],
            &ours["correlation_id"],
            &ours["hops"],
            &ours["source"],
            &ours["trust"]
        ),
        (&theirs["id"], &theirs["id"], &json!(1), &json!("crm"), &json!("authenticated"))
    );
    // A source that sends what it has yields what changed.
    assert_eq!(
        (&ours["op"], &found[3]["op"], &found[3]["changed"]),
        (&json!("C"), &json!("U"), &json!(["/name"]))
    );
    let view = intake(&server, &second).await;
    let mapping = &view["mapping"];
    assert_eq!(
        (
            &mapping["state"],
            &mapping["to"],
            &mapping["revision"],
            &mapping["event_id"],
            &mapping["events"]
        ),
        (&json!("mapped"), &json!("customer@1"), &json!(1), &found[3]["id"], &json!(1))
    );
    assert_eq!(mapping["unmapped"], json!({"/colour": "red"}), "{view}");
    let path = format!("/v1/events/{}/lineage", ours["id"].as_str().unwrap());
    let lineage = server.get(&path).await.json();
    assert_eq!(lineage["causes"][0]["id"], theirs["id"], "{lineage}");
    assert_eq!(lineage["documents"][0]["id"], first["intake_id"]);
    let path = format!("/v1/events/{}/lineage", theirs["id"].as_str().unwrap());
    let lineage = server.get(&path).await.json();
    assert_eq!((&lineage["effects"][0]["id"], &lineage["more"]), (&ours["id"], &json!(false)));
    let batch =
        json!([contact("c-2", "Bob", "I"), contact("c-3", "Cy", "A"), contact("c-2", "Bob", "I")]);
    send_in(&server, &format!("{}/batch?atomic=true", door()), batch).await;
    let found = events(&server, 8).await;
    let customers: Vec<&Value> = found.iter().filter(|event| event["type"] == "customer").collect();
    assert_eq!((found.len(), customers.len()), (8, 4));
    assert!(
        customers
            .iter()
            .all(|ours| found.iter().any(|theirs| theirs["id"] == ours["causation_id"]))
    );
    server.stopped().await;
}

#[tokio::test]
async fn what_cannot_be_mapped_is_an_event_all_the_same_and_is_mapped_once_it_can_be() {
    let server = server().await;
    let first = send_in(&server, &door(), contact("c-1", "Ann", "A")).await;
    let view = intake(&server, &first).await;
    assert_eq!(
        (&view["verdict"], &view["mapping"]["state"]),
        (&json!("accepted"), &json!("failed"))
    );
    assert_eq!(view["mapping"]["failures"][0]["code"], "transform_missing", "{view}");
    assert_eq!(put_transform(&server, &json!({"A": "active"})).await.status, 201);
    // What a door knows of transforms is a second old at most.
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    let second = send_in(&server, &door(), contact("c-2", "Bob", "X")).await;
    let view = intake(&server, &second).await;
    let failure = &view["mapping"]["failures"][0];
    assert_eq!((&failure["pointer"], &failure["value"]), (&json!("/st"), &json!("X")), "{view}");
    let failed = server.get("/v1/intakes?mapping=failed").await.json();
    assert_eq!(failed["items"].as_array().unwrap().len(), 2);
    let mapped = again(&server, &first).await;
    assert_eq!(
        (&mapped["mapping"]["state"], &mapped["mapping"]["events"]),
        (&json!("mapped"), &json!(1))
    );
    assert_eq!(again(&server, &second).await["mapping"]["state"], "failed");
    let found = events(&server, 3).await;
    assert_eq!(
        (found.len(), &found[2]["causation_id"], &found[2]["data"]["name"]),
        (3, &first["event_id"], &json!("Ann"))
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_document_that_is_mapped_again_is_another_event_only_if_the_result_differs() {
    let server = server().await;
    assert_eq!(put_transform(&server, &json!({"A": "active", "I": "active"})).await.status, 201);
    let mut sent = Vec::new();
    for at in 0..10 {
        let state = if at % 3 == 0 { "I" } else { "A" };
        sent.push(send_in(&server, &door(), contact(&format!("c-{at}"), "N", state)).await);
    }
    let what_if = json!({"transform": transform(&json!({"A": "active", "I": "inactive"}))});
    let found = server.post(&format!("{TRANSFORM}/what-if"), what_if).await;
    assert_eq!(found.status, 200, "{found:?}");
    let found = found.json();
    assert_eq!(
        (&found["documents"], &found["same"], &found["differ"], &found["broken"]),
        (&json!(10), &json!(6), &json!(4), &json!(0))
    );
    assert_eq!(found["samples"][0]["changed"], json!(["/status"]), "{found}");
    assert_eq!(put_transform(&server, &json!({"A": "active", "I": "inactive"})).await.status, 201);
    tokio::time::sleep(std::time::Duration::from_millis(1_100)).await;
    for _ in 0..2 {
        let both = sent.iter().map(|receipt| again(&server, receipt));
        futures::future::join_all(both).await;
    }
    let found = events(&server, 24).await;
    assert_eq!(found.len(), 24, "four of ten differ, and are written once");
    for event in &found[20..] {
        assert_eq!((&event["op"], &event["changed"]), (&json!("U"), &json!(["/status"])));
        let before = event["labels"]["supersedes"].as_str().unwrap();
        assert!(
            found[..20].iter().any(|event| event["id"] == before && event["type"] == "customer")
        );
    }
    let view = intake(&server, &sent[0]).await;
    assert_eq!((&view["mapping"]["events"], &view["mapping"]["revision"]), (&json!(2), &json!(2)));
    let same = intake(&server, &sent[1]).await;
    assert_eq!((&same["mapping"]["events"], &same["mapping"]["revision"]), (&json!(1), &json!(2)));
    server.stopped().await;
}
