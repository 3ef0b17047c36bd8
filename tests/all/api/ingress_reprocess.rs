//! Many documents are processed again after what was wrong was mended: only what differs is written, and reasons are
//! told once.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_tests::node::NS;
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

const TOKEN: &str = "a-token-of-the-crm";
const TRANSFORM: &str = "/v1/transforms/crm.contact/1/customer/1";

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

async fn put_transform(server: &Server, states: &Value) {
    let body = json!({"transform": transform(states), "reason": "r"});
    let answer = send(with_json(server.request("PUT", TRANSFORM), body)).await;
    assert!(answer.status < 300, "{answer:?}");
}

async fn put_source(server: &Server, version: u32) {
    let spec = json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact", "to": "customer@1"}],
        "version_from": {"fixed": version}, "dedupe": [{"pointer": "/id"}, {"pointer": "/full_name"}],
    });
    let body = json!({"spec": spec, "secret": TOKEN});
    let answer = send(with_json(server.request("PUT", "/v1/sources/crm"), body)).await;
    assert!(answer.status < 300, "{answer:?}");
}

async fn server(states: &Value) -> Server {
    let server = Server::start(Access::Open).await;
    let text = json!({"type": "string"});
    let contact = json!({"id": text, "full_name": text, "st": text});
    register(&server, "crm.contact", contact, json!(["id", "full_name", "st"])).await;
    let status = json!({"enum": ["active", "inactive"]});
    let customer = json!({"id": text, "name": text, "status": status});
    register(&server, "customer", customer, json!(["id", "name", "status"])).await;
    put_transform(&server, states).await;
    put_source(&server, 1).await;
    server
}

async fn take(server: &Server, documents: &[Value]) -> Vec<Value> {
    let path = format!("/v1/in/{NS}/crm/batch");
    let request = server.bare("POST", &path).bearer_auth(TOKEN);
    let answer = send(with_json(request, json!(documents))).await;
    assert!([202, 207].contains(&answer.status), "{answer:?}");
    answer.json()["records"].as_array().unwrap().clone()
}

fn contact(id: &str, name: &str, state: &str) -> Value {
    json!({"id": id, "full_name": name, "st": state})
}

async fn events(server: &Server) -> i64 {
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    sqlx::query_scalar("select count(*) from event").fetch_one(&mut owner).await.unwrap()
}

async fn ask(server: &Server, what: Value) -> Answer {
    let mut body = json!({"reason": "mended"});
    body.as_object_mut().unwrap().extend(what.as_object().unwrap().clone());
    server.post("/v1/reprocessings", body).await
}

/// Changed, same, failed, refused and overtaken once it is done.
async fn reprocess(server: &Server, what: Value) -> [u64; 5] {
    let answer = ask(server, what).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let path = format!("/v1/reprocessings/{}", answer.json()["id"].as_str().unwrap());
    let until = Instant::now() + Duration::from_secs(600);
    loop {
        server.engine.run_once(BackgroundTask::Reprocess).await.unwrap();
        let view = server.get(&path).await.json();
        if view["state"] == "done" {
            let names = ["changed", "same", "failed", "refused", "overtaken"];
            return names.map(|name| view[name].as_u64().unwrap());
        }
        assert!(Instant::now() < until, "{view}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn of_a_bug_in_37_of_many_documents_what_if_says_37_reprocess_writes_37_and_again_writes_none()
 {
    let server = server(&json!({"A": "active", "X": "active"})).await;
    // `BACKSTITCH_SCALE=full` makes it ten thousand.
    let is_full = std::env::var("BACKSTITCH_SCALE").is_ok_and(|scale| scale == "full");
    let count: i64 = if is_full { 10_000 } else { 740 };
    let every = count / 37;
    let wrong = |at: i64| at % every == 7 && at / every < 37;
    let documents: Vec<Value> = (0..count)
        .map(|at| contact(&format!("c-{at}"), "N", if wrong(at) { "X" } else { "A" }))
        .collect();
    for batch in documents.chunks(1_000) {
        assert!(take(&server, batch).await.iter().all(|record| record["status"] == 202));
    }
    let same = count.unsigned_abs() - 37;
    assert_eq!(events(&server).await, 2 * count);
    let mended = json!({"A": "active", "X": "inactive"});
    let what_if = json!({"transform": transform(&mended), "last": 10_000});
    let what_if = server.post(&format!("{TRANSFORM}/what-if"), what_if).await.json();
    assert_eq!((&what_if["differ"], &what_if["same"]), (&json!(37), &json!(same)), "{what_if}");
    put_transform(&server, &mended).await;
    let source = json!({"source": "crm"});
    let dry = json!({"source": "crm", "dry_run": true});
    assert_eq!(reprocess(&server, dry).await, [37, same, 0, 0, 0]);
    assert_eq!(events(&server).await, 2 * count, "a dry run writes nothing");
    assert_eq!(reprocess(&server, source.clone()).await, [37, same, 0, 0, 0]);
    assert_eq!(events(&server).await, 2 * count + 37);
    for what in [source, json!({"contract": "crm.contact@1"}), json!({"mapping": "mapped"})] {
        assert_eq!(reprocess(&server, what).await, [0, count.unsigned_abs(), 0, 0, 0]);
    }
    assert_eq!(events(&server).await, 2 * count + 37);
    let listed = server.get("/v1/reprocessings?limit=2").await.json();
    assert_eq!((listed["items"].as_array().unwrap().len(), listed["next"].is_string()), (2, true));
    server.stopped().await;
}

#[tokio::test]
async fn documents_of_a_page_whose_node_died_are_counted_as_what_became_of_them() {
    let server = server(&json!({"A": "active", "X": "active"})).await;
    let documents: Vec<Value> = (0..60)
        .map(|at| contact(&format!("c-{at}"), "N", if at % 10 < 3 { "X" } else { "A" }))
        .collect();
    take(&server, &documents).await;
    take(&server, &[json!({"id": "c-60", "st": "A"})]).await;
    put_transform(&server, &json!({"A": "active", "X": "inactive"})).await;
    let asked = ask(&server, json!({})).await;
    let id = asked.json()["id"].as_str().unwrap().to_owned();
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    let begin = "select after from reprocess";
    let after: uuid::Uuid = sqlx::query_scalar(begin).fetch_one(&mut owner).await.unwrap();
    let until = Instant::now() + Duration::from_secs(60);
    let view = async |server: &Server| server.get(&format!("/v1/reprocessings/{id}")).await.json();
    for _ in 0..3 {
        while view(&server).await["state"] != "done" {
            server.engine.run_once(BackgroundTask::Reprocess).await.unwrap();
            assert!(Instant::now() < until);
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        let view = view(&server).await;
        let counts =
            ["changed", "same", "failed", "refused", "overtaken"].map(|name| view[name].clone());
        assert_eq!(counts, [18, 42, 0, 1, 0].map(|count| json!(count)), "{view}");
        // As if the node had died after it had written the events, and before it had counted them.
        let lost = "update reprocess set after = $1, changed = 0, same = 0, failed = 0, refused = 0, overtaken = 0, \
            state = 'running', ended_at = null, taken_by = 77, taken_until = now() + interval '1 hour'";
        sqlx::query(lost).bind(after).execute(&mut owner).await.unwrap();
    }
    assert_eq!(events(&server).await, 138);
    server.stopped().await;
}

#[tokio::test]
async fn a_reason_why_documents_cannot_be_mapped_is_told_once_and_gone_when_they_are() {
    let server = server(&json!({"A": "active"})).await;
    let documents: Vec<Value> =
        (0..30).map(|at| contact(&format!("c-{at}"), "N", ["A", "X", "X"][at % 3])).collect();
    take(&server, &documents).await;
    let told = server.get("/v1/mapping-problems").await.json();
    let items = told["items"].as_array().unwrap();
    assert_eq!((items.len(), &told["more"]), (1, &json!(false)), "{told}");
    let problem = &items[0];
    assert_eq!(
        (&problem["documents"], &problem["pointer"], &problem["value"], &problem["to"]),
        (&json!(20), &json!("/st"), &json!("X"), &json!("customer@1"))
    );
    assert!(problem["message"].as_str().unwrap().len() > 5);
    assert_eq!(server.get("/v1/mapping-problems?source=erp").await.json()["items"], json!([]));
    let failed = json!({"mapping": "failed"});
    assert_eq!(reprocess(&server, failed.clone()).await, [0, 0, 20, 0, 0]);
    put_transform(&server, &json!({"A": "active", "X": "inactive"})).await;
    assert_eq!(reprocess(&server, failed.clone()).await, [20, 0, 0, 0, 0]);
    assert_eq!(server.get("/v1/mapping-problems").await.json()["items"], json!([]));
    assert_eq!(reprocess(&server, failed).await, [0; 5]);
    assert_eq!(events(&server).await, 60);
    server.stopped().await;
}

#[tokio::test]
async fn an_older_document_does_not_set_its_entity_back() {
    let server = server(&json!({"A": "active", "I": "active"})).await;
    let mut sent = Vec::new();
    for (name, state) in [("Ann", "I"), ("Anne", "X"), ("Anna", "I")] {
        sent.extend(take(&server, &[contact("c-1", name, state)]).await);
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    put_transform(&server, &json!({"A": "active", "I": "inactive", "X": "inactive"})).await;
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let again =
        |at: usize| format!("/v1/intakes/{}/reprocess", sent[at]["intake_id"].as_str().unwrap());
    for at in [0, 1] {
        let view = server.post(&again(at), json!({"reason": "r"})).await.json();
        assert_eq!(view["mapping"]["state"], "overtaken", "{view}");
    }
    assert_eq!(events(&server).await, 5);
    assert_eq!(reprocess(&server, json!({})).await, [1, 0, 0, 0, 2]);
    assert_eq!(reprocess(&server, json!({})).await, [0, 1, 0, 0, 2]);
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    let body: String = sqlx::query_scalar(
        "select b.body from stream s join event_body b on (b.batch, b.ord) = (s.body_batch, s.body_ord)",
    )
    .fetch_one(&mut owner)
    .await
    .unwrap();
    let body: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(body, json!({"id": "c-1", "name": "Anna", "status": "inactive"}));
    assert_eq!(server.get("/v1/mapping-problems").await.json()["items"], json!([]));
    let listed = server.get("/v1/intakes?mapping=overtaken").await.json();
    assert_eq!(listed["items"].as_array().unwrap().len(), 2);
    server.stopped().await;
}

#[tokio::test]
async fn documents_that_were_refused_are_taken_in_once_what_was_wrong_is_mended() {
    let server = server(&json!({"A": "active"})).await;
    let documents = [json!({"id": "c-1", "st": "A"}), json!({"id": 7}), contact("c-2", "Bob", "A")];
    take(&server, &documents).await;
    let refused = json!({"verdict": "refused", "code": "schema_violation"});
    assert_eq!(reprocess(&server, refused.clone()).await, [0, 0, 0, 2, 0]);
    let text = json!({"type": "string"});
    let contact = json!({"id": text, "full_name": text, "st": text});
    register(&server, "crm.contact", contact, json!(["id"])).await;
    let body = json!({"transform": transform(&json!({"A": "active"})), "reason": "r"});
    let path = "/v1/transforms/crm.contact/2/customer/1";
    assert!(send(with_json(server.request("PUT", path), body)).await.status < 500);
    let spec = json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact"}], "version_from": {"fixed": 2},
        "dedupe": [{"pointer": "/id"}],
    });
    let put = json!({"spec": spec});
    assert_eq!(send(with_json(server.request("PUT", "/v1/sources/crm"), put)).await.status, 200);
    let mut dry = refused.clone();
    dry["dry_run"] = json!(true);
    assert_eq!(reprocess(&server, dry).await, [1, 0, 0, 1, 0]);
    assert_eq!(reprocess(&server, refused.clone()).await, [1, 0, 0, 1, 0]);
    assert_eq!(reprocess(&server, refused).await, [0, 0, 0, 1, 0]);
    assert_eq!(events(&server).await, 3);
    server.stopped().await;
}

#[tokio::test]
async fn a_reprocess_needs_a_reason_is_stopped_and_seen_in_its_namespace_only() {
    let server = server(&json!({"A": "active"})).await;
    assert_eq!(server.post("/v1/reprocessings", json!({"reason": ""})).await.status, 422);
    let unknown = server.post("/v1/reprocessings", json!({"reason": "r", "sauce": "crm"})).await;
    assert_eq!(unknown.problem(400), "unknown_field");
    let made =
        ask(&server, json!({"from": "2026-01-01T00:00:00Z", "to": "2026-01-02T00:00:00Z"})).await;
    let path = format!("/v1/reprocessings/{}", made.json()["id"].as_str().unwrap());
    let stop = format!("{path}/stop");
    assert_eq!(server.post(&stop, json!({"reason": "enough"})).await.json()["state"], "stopped");
    assert_eq!(server.post(&stop, json!({"reason": "r"})).await.problem(409), "reprocess_ended");
    let elsewhere = server.bare("GET", &path).header("backstitch-namespace", "elsewhere");
    assert_eq!(send(elsewhere).await.problem(404), "unknown_reprocess");
    let id = path.rsplit('/').next().unwrap();
    let acts = server.get(&format!("/v1/acts?job={id}")).await.json();
    assert_eq!(acts["items"].as_array().unwrap().len(), 2, "{acts}");
    server.stopped().await;
}
