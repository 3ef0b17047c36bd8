//! Batches of sources, CloudEvents, and documents that are processed again.

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_tests::node::NS;
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-the-crm";

fn door() -> String {
    format!("/v1/in/{NS}/crm")
}

fn batch() -> String {
    format!("{}/batch", door())
}

async fn register(server: &Server, subject: &str, members: Value, required: Value) {
    let schema = json!({"type": "object", "properties": members, "required": required});
    let path = format!("/v1/contracts/{subject}/versions");
    let answer = server.post(&path, json!({"schema": schema})).await;
    assert!(answer.status < 300, "{answer:?}");
}

async fn put(server: &Server, more: Value) {
    let mut spec = json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact"}], "version_from": {"fixed": 1},
        "dedupe": [{"pointer": "/id"}],
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = json!({"spec": spec, "secret": TOKEN});
    let answer = send(with_json(server.request("PUT", "/v1/sources/crm"), body)).await;
    assert!(answer.status < 300, "{answer:?}");
}

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    let text = json!({"type": "string"});
    register(&server, "crm.contact", json!({"id": text, "name": text}), json!(["id", "name"]))
        .await;
    put(&server, json!({})).await;
    server
}

async fn send_as(server: &Server, path: &str, kind: &str, body: impl ToString) -> Answer {
    let request = server.bare("POST", path).bearer_auth(TOKEN);
    send(request.header("content-type", kind).body(body.to_string())).await
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

fn statuses(answer: &Answer) -> Vec<u64> {
    let records = answer.json()["records"].as_array().unwrap().clone();
    records.iter().map(|record| record["status"].as_u64().unwrap()).collect()
}

#[tokio::test]
async fn each_record_of_a_batch_is_taken_or_refused_for_itself() {
    let server = server().await;
    let json = "application/json";
    let records = json!([
        {"id": "a", "name": "1"}, {"id": "b"}, {"id": "c", "name": "3"}, {"id": "a", "name": "1"}, {"id": "a", "name": "x"}, 7,
    ]);
    let answer = send_as(&server, &batch(), json, &records).await;
    assert_eq!(
        (answer.status, statuses(&answer)),
        (207, vec![202, 422, 202, 200, 409, 422]),
        "{answer:?}"
    );
    let told = answer.json()["records"].clone();
    assert_eq!(
        (&told[1]["code"], &told[4]["code"]),
        (&json!("schema_violation"), &json!("dedupe_key_reused"))
    );
    assert_eq!(told[3]["event_id"], told[0]["event_id"]);
    assert_eq!(told[1]["errors"][0]["pointer"], "");
    let raw = format!("/v1/intakes/{}/raw", told[1]["intake_id"].as_str().unwrap());
    assert_eq!(server.get(&raw).await.text, r#"{"id":"b"}"#);
    // Lines, and again what was there.
    let lines = "{\"id\":\"a\",\"name\":\"1\"}\n\n{\"id\":\"d\",\"name\":\"4\"}\r\n";
    let answer = send_as(&server, &batch(), "application/x-ndjson", lines).await;
    assert_eq!((answer.status, statuses(&answer)), (202, vec![200, 202]));
    assert_eq!(events(&server, 3).await.len(), 3);
    for (kind, body, status, code) in [
        (json, "{}".to_owned(), 400, "not_a_batch"),
        (json, "[1,".to_owned(), 400, "invalid_json"),
        (json, format!("[{}1]", "1,".repeat(1_000)), 400, "batch_too_large"),
        ("application/cloudevents+json", "[]".to_owned(), 415, "content_type_not_supported"),
    ] {
        assert_eq!(send_as(&server, &batch(), kind, &body).await.problem(status), code);
    }
    let large = format!("[\"{}\"]", "x".repeat(5 << 20));
    assert_eq!(send_as(&server, &batch(), json, &large).await.problem(413), "payload_too_large");
    let empty = send_as(&server, &batch(), json, "[]").await;
    assert_eq!((empty.status, statuses(&empty).len()), (202, 0));
    server.stopped().await;
}

#[tokio::test]
async fn of_an_atomic_batch_all_records_are_taken_or_none() {
    let server = server().await;
    let atomic = format!("{}?atomic=true", batch());
    let json = "application/json";
    let wrong = json!([{"id": "a", "name": "1"}, {"id": "b"}]);
    let answer = send_as(&server, &atomic, json, &wrong).await;
    assert_eq!((answer.status, statuses(&answer)), (422, vec![422, 422]), "{answer:?}");
    assert_eq!(answer.json()["records"][0]["code"], "batch_refused");
    assert_eq!(answer.json()["records"][1]["code"], "schema_violation");
    assert_eq!(server.get("/v1/events").await.json()["items"], json!([]));
    let right: Vec<Value> =
        (0..1_000).map(|at| json!({"id": format!("r-{at}"), "name": "n"})).collect();
    let taken = send_as(&server, &atomic, json, json!(right)).await;
    assert_eq!(taken.status, 202, "{}", taken.text);
    assert_eq!(events(&server, 1_000).await.len(), 1_000);
    let again = send_as(&server, &atomic, json, json!(right)).await;
    assert!(statuses(&again).iter().all(|status| *status == 200));
    let reused = json!([{"id": "new", "name": "1"}, {"id": "r-1", "name": "other"}]);
    let answer = send_as(&server, &atomic, json, &reused).await;
    assert_eq!((answer.status, statuses(&answer)), (422, vec![409, 409]));
    assert_eq!(events(&server, 1_000).await.len(), 1_000);
    server.stopped().await;
}

#[tokio::test]
async fn the_door_says_who_sent_a_cloudevent_and_a_vendor_names_no_stream_of_ours() {
    let server = server().await;
    let text = json!({"type": "string"});
    register(&server, "customer", json!({"id": text}), json!(["id"])).await;
    put(
        &server,
        json!({
            "accepts": [
                {"match": {"pointer": "/type", "is": "customer"}, "contract": "customer"}, {"contract": "crm.contact"},
            ],
            "dedupe": [{"pointer": "/id"}, {"pointer": "/source"}],
        }),
    )
    .await;
    let event = |kind: &str, id: &str| {
        json!({
            "specversion": "1.0", "id": id, "source": "/theirs", "type": kind, "subject": "customer:42", "op": "C",
            "time": "2026-01-05T12:00:00+01:00", "data": {"id": "c-1", "name": "Ann"},
        })
    };
    let one = send_as(&server, &door(), "application/cloudevents+json", event("theirs", "1")).await;
    assert_eq!(one.status, 202, "{one:?}");
    let mut ours = event("customer", "2");
    ours["data"] = json!({"id": "c-1"});
    let list = json!([ours, event("theirs", "1"), {"specversion": "1.0"}]);
    let answer = send_as(&server, &batch(), "application/cloudevents-batch+json", list).await;
    // The same event is a repeat only as the same bytes; serde writes them alike here.
    assert_eq!(statuses(&answer), vec![202, 200, 422], "{answer:?}");
    let found = events(&server, 2).await;
    let theirs = found.iter().find(|event| event["type"] == "crm.contact").unwrap();
    assert_eq!(
        (
            &theirs["source"],
            &theirs["claimed_source"],
            &theirs["source_id"],
            &theirs["occurred_at"]
        ),
        (&json!("crm"), &json!("/theirs"), &json!("1"), &json!("2026-01-05T11:00:00Z"))
    );
    assert_eq!((&theirs["stream"], &theirs["labels"]["type"]), (&Value::Null, &json!("theirs")));
    let ours = found.iter().find(|event| event["type"] == "customer").unwrap();
    assert_eq!(
        (&ours["stream"], &ours["op"], &ours["contract"]),
        (&json!("customer:42"), &json!("C"), &json!("customer@1"))
    );
    server.stopped().await;
}

#[tokio::test]
async fn what_was_refused_is_processed_again_and_is_one_event() {
    let server = server().await;
    let json = "application/json";
    // Two of the same that were refused, and one from a batch that stays wrong.
    let first = send_as(&server, &door(), json, r#"{"id":"late"}"#).await.json();
    let second = send_as(&server, &door(), json, r#"{"id":"late"}"#).await.json();
    let third = send_as(&server, &batch(), json, "[{}]").await.json()["records"][0].clone();
    let again = async |told: &Value| {
        let path = format!("/v1/intakes/{}/reprocess", told["intake_id"].as_str().unwrap());
        let answer = server.post(&path, json!({"reason": "mended"})).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()
    };
    let before = again(&first).await;
    assert_eq!(
        (&before["verdict"], &before["code"]),
        (&json!("refused"), &json!("schema_violation"))
    );
    assert!(before["processed_at"].is_string());
    let text = json!({"type": "string"});
    register(&server, "crm.contact", json!({"id": text}), json!(["id"])).await;
    put(&server, json!({"version_from": {"fixed": 2}})).await;
    let both = futures::future::join(again(&first), again(&first)).await;
    assert_eq!(both.0["event_id"], both.1["event_id"], "{both:?}");
    assert_eq!(
        (&both.0["verdict"], &both.0["contract"]),
        (&json!("accepted"), &json!("crm.contact@2"))
    );
    assert_eq!((&both.0["received_at"], &both.0["code"]), (&before["received_at"], &Value::Null));
    let twin = again(&second).await;
    assert_eq!((&twin["verdict"], &twin["event_id"]), (&json!("accepted"), &both.0["event_id"]));
    let wrong = again(&third).await;
    assert_eq!((&wrong["verdict"], &wrong["door"]), (&json!("refused"), &json!("batch")));
    let found = events(&server, 1).await;
    assert_eq!((found.len(), &found[0]["received_at"]), (1, &before["received_at"]));
    let acts = server.get("/v1/acts?source=crm&verb=reprocess").await.json();
    assert!(acts["items"].as_array().unwrap().len() >= 4, "{acts}");
    let path = format!("/v1/intakes/{}/reprocess", third["intake_id"].as_str().unwrap());
    assert_eq!(server.post(&path, json!({"reason": ""})).await.problem(422), "reason_missing");
    server.stopped().await;
}

#[tokio::test]
async fn sources_and_intake_are_those_of_a_namespace_and_only_an_admin_makes_sources() {
    let server = Server::start(Access::Keys).await;
    let secret = async |namespace: &str, role: Role| {
        let name = format!("{role:?}").to_lowercase();
        server.engine.create_credential(namespace, &name, role).await.unwrap()
    };
    let (admin, operator, other) = (
        secret(NS, Role::Admin).await,
        secret(NS, Role::Operator).await,
        secret("other", Role::Admin).await,
    );
    let ask = async |method: &str, path: &str, secret: &str, body: Value| {
        send(with_json(server.bare(method, path).bearer_auth(secret), body)).await
    };
    let schema = json!({"schema": {"type": "object", "properties": {"id": {"type": "string"}}}});
    ask("POST", "/v1/contracts/crm.contact/versions", &operator, schema).await;
    let source = json!({
        "spec": {"verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact"}], "version_from": {"fixed": 1}},
        "secret": TOKEN,
    });
    assert_eq!(
        ask("PUT", "/v1/sources/crm", &operator, source.clone()).await.problem(403),
        "forbidden"
    );
    // Its contract is not there.
    assert_eq!(
        ask("PUT", "/v1/sources/crm", &other, source.clone()).await.problem(422),
        "invalid_source"
    );
    assert_eq!(ask("PUT", "/v1/sources/crm", &admin, source).await.status, 201);
    let taken = send_as(&server, &door(), "application/json", r#"{"id":"1"}"#).await;
    assert_eq!(taken.status, 202, "no credential is asked for: {taken:?}");
    let id = taken.json()["intake_id"].as_str().unwrap().to_owned();
    for path in
        [format!("/v1/intakes/{id}"), format!("/v1/intakes/{id}/raw"), "/v1/sources/crm".to_owned()]
    {
        assert_eq!(ask("GET", &path, &operator, json!({})).await.status, 200, "{path}");
        assert_eq!(ask("GET", &path, &other, json!({})).await.status, 404, "{path}");
    }
    let path = format!("/v1/intakes/{id}/reprocess");
    assert_eq!(ask("POST", &path, &other, json!({"reason": "r"})).await.status, 404);
    let elsewhere = send_as(&server, "/v1/in/other/crm", "application/json", "{}").await;
    assert_eq!(elsewhere.problem(404), "unknown_source");
    assert_eq!(ask("GET", "/v1/intakes", &other, json!({})).await.json()["items"], json!([]));
    server.stopped().await;
}
