//! Reports of stuck documents and events between sources, runs and the log: in the status of the namespace, in metrics,
//! and by the doctor.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_tests::node::NS;
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const TOKEN: &str = "a-token-of-the-crm";

async fn put(server: &Server, path: &str, body: Value) {
    let answer = send(with_json(server.request("PUT", path), body)).await;
    assert!(answer.status < 300, "{path}: {answer:?}");
}

async fn put_transform(server: &Server, states: Value) {
    let rules =
        json!([{"to": "/id", "copy": "/id"}, {"to": "/state", "enum": "/st", "map": states}]);
    let body = json!({"transform": {"stream": "customer:{/id}", "rules": rules}, "reason": "r"});
    put(server, "/v1/transforms/crm.contact/1/customer/1", body).await;
}

async fn server() -> Server {
    prepared(Server::start(Access::Open).await).await
}

async fn prepared(server: Server) -> Server {
    let text = json!({"type": "string"});
    let shape = json!({"type": "object", "properties": {"id": text, "st": text, "state": text}, "required": ["id"]});
    for subject in ["crm.contact", "customer"] {
        let path = format!("/v1/contracts/{subject}/versions");
        assert!(server.post(&path, json!({"schema": shape})).await.status < 300);
    }
    put_transform(&server, json!({"A": "active"})).await;
    put_source(&server, true).await;
    server
}

async fn put_source(server: &Server, enabled: bool) {
    let spec = json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact", "to": "customer@1"}],
        "version_from": {"fixed": 1}, "dedupe": [{"pointer": "/id"}], "enabled": enabled,
    });
    put(server, "/v1/sources/crm", json!({"spec": spec, "secret": TOKEN})).await;
}

async fn take(server: &Server, path: &str, kind: &str, body: String) -> Value {
    let request = server.bare("POST", &format!("/v1/in/{NS}/crm{path}")).bearer_auth(TOKEN);
    let answer = send(request.header("content-type", kind).body(body)).await;
    assert!(answer.status < 300, "{answer:?}");
    answer.json()
}

/// Waits until the status has a condition, or has it no more. Returns what it says.
async fn condition(server: &Server, kind: &str, is_there: bool) -> String {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let status = server.get("/v1/status").await.json();
        let all = status["conditions"].as_array().cloned().unwrap_or_default();
        let found = all.iter().find(|condition| condition["type"] == kind);
        if found.is_some() == is_there {
            return found
                .map_or_else(String::new, |one| one["message"].as_str().unwrap().to_owned());
        }
        assert!(Instant::now() < until, "{kind}: {status}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Waits until a number is as it should be.
async fn number(server: &Server, sample: &str, is: impl Fn(f64) -> bool) {
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        let text = server.get("/metrics").await.text;
        let found = text
            .lines()
            .find_map(|line| line.strip_prefix(sample)?.strip_prefix(' ')?.parse().ok());
        if found.is_some_and(&is) {
            return;
        }
        assert!(Instant::now() < until, "{sample}: {found:?}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn documents_that_cannot_be_mapped_and_files_that_wait_are_told_until_they_do_not() {
    let server = server().await;
    for at in 0..3 {
        take(
            &server,
            "",
            "application/json",
            json!({"id": format!("x-{at}"), "st": "X"}).to_string(),
        )
        .await;
    }
    let told = condition(&server, "DocumentsNotMapped", true).await;
    assert!(told.starts_with("3 documents") && told.contains("mapping-problems"), "{told}");
    number(&server, "backstitch_documents_not_mapped", |count| count == 3.0).await;
    put_transform(&server, json!({"A": "active", "X": "gone"})).await;
    assert_eq!(server.post("/v1/reprocessings", json!({"reason": "r"})).await.status, 201);
    condition(&server, "DocumentsNotMapped", false).await;
    number(&server, "backstitch_documents_not_mapped", |count| count == 0.0).await;
    // A file whose source takes nothing any more.
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    let row = json!({"id": "f-1", "st": "A"}).to_string();
    let import = take(&server, "/files", "application/x-ndjson", row).await;
    let id = import["import_id"].as_str().unwrap().to_owned();
    put_source(&server, false).await;
    // It remembers the source for a second.
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    let again = "update import set state = 'running', rows = rows + 1, pieces = pieces + 1, ended_at = null where id = $1::uuid";
    sqlx::query(again).bind(&id).execute(&mut owner).await.unwrap();
    server.engine.run_once(BackgroundTask::Import).await.unwrap();
    let told = condition(&server, "ImportsWait", true).await;
    assert!(told.starts_with("1 imports cannot take in their rows: "), "{told}");
    number(&server, "backstitch_imports{state=\"waiting\"}", |count| count == 1.0).await;
    let reason = json!({"reason": "r"});
    assert_eq!(server.post(&format!("/v1/imports/{id}/cancel"), reason).await.status, 200);
    condition(&server, "ImportsWait", false).await;
    server.stopped().await;
}

#[tokio::test]
async fn what_runs_emitted_and_does_not_get_into_the_log_is_told() {
    let server = Server::start(Access::Open).await;
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    sqlx::query(
        "insert into emitted (namespace, run_id, seq, place, at, event, data) \
         values ($1, gen_random_uuid(), 1, 0, now() - interval '2 minutes', '{', 'null')",
    )
    .bind(NS)
    .execute(&mut owner)
    .await
    .unwrap();
    // It keeps no other back.
    sqlx::query(
        "insert into emitted (namespace, run_id, seq, place, at, event, data) \
         values ($1, gen_random_uuid(), 1, 0, now(), $2, '7')",
    )
    .bind(NS)
    .bind(
        json!({"type": "order.paid", "workflow": "order", "correlation_id": "s", "labels": {}})
            .to_string(),
    )
    .execute(&mut owner)
    .await
    .unwrap();
    server.engine.run_once(BackgroundTask::Emit).await.unwrap();
    let event = server.get("/v1/events?wait=5s").await.json();
    assert_eq!(event["items"][0]["data"], 7, "{event}");
    let told = condition(&server, "EmittedEventsWait", true).await;
    assert!(told.contains("does not get into the log"), "{told}");
    number(&server, "backstitch_emitted_waiting", |count| count == 1.0).await;
    number(&server, "backstitch_emitted_oldest_age_seconds", |age| age >= 119.0).await;
    sqlx::query("delete from emitted").execute(&mut owner).await.unwrap();
    condition(&server, "EmittedEventsWait", false).await;
    server.stopped().await;
}

#[tokio::test]
async fn the_doctor_tells_what_of_documents_files_and_events_does_not_fit() {
    let server = prepared(Server::start_unchecked(Access::Open).await).await;
    for at in 0..3 {
        take(
            &server,
            "",
            "application/json",
            json!({"id": format!("a-{at}"), "st": "A"}).to_string(),
        )
        .await;
    }
    let import = take(
        &server,
        "/files",
        "application/x-ndjson",
        json!({"id": "f-1", "st": "A"}).to_string(),
    )
    .await;
    let path = format!("/v1/imports/{}", import["import_id"].as_str().unwrap());
    let until = Instant::now() + Duration::from_secs(30);
    while server.get(&path).await.json()["state"] != "done"
        || server.get("/v1/events").await.json()["head"] != 8
    {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    assert_eq!(server.engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    for (damage, told) in [
        (
            "delete from position where upto = 8",
            ["have no position", "its head is at 8; the last position is 6"],
        ),
        (
            "delete from position where upto = 2",
            ["have no position", "end at 0, and it begins after 2"],
        ),
        ("update log_head set position = 7", ["its head is at 7; the last position is 6", ""]),
        (
            "update stream set version = 5 where stream = 'customer:a-1'",
            ["customer:a-1", "version 5; its events say 1"],
        ),
        (
            "delete from event e using position p where p.upto = 6 and e.batch = p.batch and e.ord = 0",
            ["has 1 events; its positions are 2", "the event that it became is not there"],
        ),
        ("update import set accepted = 7", ["7 rows are counted or wait; the file has 1", ""]),
    ] {
        let mut transaction = owner.begin().await.unwrap();
        sqlx::query(AssertSqlSafe(damage)).execute(&mut *transaction).await.unwrap();
        transaction.commit().await.unwrap();
        let found = server.engine.doctor(false).await.unwrap().differences;
        for part in told {
            assert!(found.iter().any(|line| line.contains(part)), "{damage}: {part}\n{found:?}");
        }
    }
    server.stopped().await;
}
