//! Somebody is erased: no byte of them is left in a dump of the database, and all else reads on.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_engine::local_postgres::find_binaries;
use backstitch_tests::node::{NS, chain};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

const TOKEN: &str = "a-token-of-the-crm";
/// What is found of somebody, and of somebody else.
const MARKS: [&str; 2] = ["Zebedee-Quagga", "zebedee@quagga"];
const OTHER: &str = "Other-Person-17";

/// A dump of the database, where the program for it is installed.
async fn dump(url: &str) -> Option<String> {
    let initdb = find_binaries().ok()?.initdb;
    let real = std::fs::canonicalize(&initdb).ok()?;
    let beside = [initdb, real].map(|path| path.with_file_name("pg_dump"));
    let program = beside.into_iter().find(|path| path.exists())?;
    let output = tokio::process::Command::new(program).arg(url).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).to_lowercase())
}

/// Lines of a dump that have `mark`, as text or in bytes.
fn lines<'d>(dump: &'d str, mark: &str) -> Vec<&'d str> {
    let text = mark.to_lowercase();
    let bytes: String = mark.bytes().map(|byte| format!("{byte:02x}")).collect();
    let lower: String = text.bytes().map(|byte| format!("{byte:02x}")).collect();
    let has = |line: &&str| line.contains(&text) || line.contains(&bytes) || line.contains(&lower);
    dump.lines().filter(has).collect()
}

async fn take(server: &Server, document: Value) -> Value {
    let request = server.bare("POST", &format!("/v1/in/{NS}/crm")).bearer_auth(TOKEN);
    send(with_json(request, document)).await.json()
}

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("greet", &["a"])).await.unwrap();
    let text = json!({"type": "string"});
    let shape = json!({"type": "object", "properties": {"id": text, "name": text, "mail": text}, "required": ["id", "name"]});
    for subject in ["crm.contact", "customer"] {
        let path = format!("/v1/contracts/{subject}/versions");
        assert!(server.post(&path, json!({"schema": shape})).await.status < 300);
    }
    let rules = json!([{"to": "/id", "copy": "/id"}, {"to": "/name", "copy": "/name"}]);
    let body = json!({"transform": {"stream": "customer:{/id}", "rules": rules}, "reason": "r"});
    let put = server.request("PUT", "/v1/transforms/crm.contact/1/customer/1");
    assert!(send(with_json(put, body)).await.status < 300);
    let spec = json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact", "to": "customer@1"}],
        "version_from": {"fixed": 1}, "dedupe": [{"pointer": "/id"}, {"pointer": "/name"}],
        "hints": [{"kind": "email", "at": "/mail"}],
    });
    let body = json!({"spec": spec, "secret": TOKEN});
    assert!(send(with_json(server.request("PUT", "/v1/sources/crm"), body)).await.status < 300);
    let spec = json!({"workflow": "greet", "filter": {"types": ["customer"]}});
    let put = send(with_json(server.request("PUT", "/v1/subscriptions/greet"), spec)).await;
    assert_eq!(put.status, 201, "{put:?}");
    for at in 0..20 {
        let document =
            json!({"id": format!("c-{at}"), "name": OTHER, "mail": format!("o{at}@shop.internal")});
        assert!(take(&server, document).await["event_id"].is_string());
    }
    for (id, name) in [("z-1", MARKS[0]), ("z-1", "Zebedee-Quagga II")] {
        let document = json!({"id": id, "name": name, "mail": "Zebedee@quagga.internal"});
        assert!(take(&server, document).await["event_id"].is_string());
    }
    // Refused, and kept.
    take(&server, json!({"id": 7, "name": MARKS[0], "mail": "zebedee@QUAGGA.internal"})).await;
    let link = json!({"stream": "customer:z-1"});
    let put = server.request("PUT", "/v1/links/erp/zebedee@quagga");
    assert_eq!(send(with_json(put, link)).await.status, 201);
    let until = Instant::now() + Duration::from_secs(30);
    while server.get("/v1/subscriptions/greet").await.json()["started"] != 22 {
        assert!(Instant::now() < until, "{}", server.get("/v1/subscriptions/greet").await.text);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    server
}

/// Makes the second pass of an erasure, and returns it.
async fn finished(server: &Server, id: &str) -> Value {
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    let path = format!("/v1/erasures/{id}");
    let until = Instant::now() + Duration::from_secs(30);
    loop {
        for table in ["data_erasure", "erasures"] {
            let text = format!("update {table} set due_at = now() - interval '1 second'");
            sqlx::query(sqlx::AssertSqlSafe(text)).execute(&mut owner).await.unwrap();
        }
        server.engine.run_once(BackgroundTask::DeleteRuns).await.unwrap();
        let view = server.get(&path).await.json();
        if view["state"] == "done" {
            return view;
        }
        assert!(Instant::now() < until, "{view}");
    }
}

async fn assert_gone(server: &Server) {
    let Some(dump) = dump(server.database()).await else { return };
    for mark in MARKS {
        assert_eq!(lines(&dump, mark), Vec::<&str>::new(), "{mark}");
    }
    assert!(lines(&dump, OTHER).len() > 40);
}

#[tokio::test]
async fn no_byte_of_somebody_is_left_in_a_dump_and_the_others_read_on() {
    let server = server().await;
    if let Some(dump) = dump(server.database()).await {
        assert!(MARKS.iter().all(|mark| lines(&dump, mark).len() > 3));
    }
    let ask = json!({"hint": {"kind": "email", "value": "ZEBEDEE@quagga.internal"}, "kill": true, "reason": "request 1"});
    let begun = server.post("/v1/erasures", ask.clone()).await;
    assert_eq!(begun.status, 201, "{begun:?}");
    let begun = begun.json();
    assert_eq!(
        (&begun["documents"], &begun["events"], &begun["state"]),
        (&json!(3), &json!(4), &json!("running")),
        "{begun}"
    );
    let events = server.get("/v1/events?limit=100").await.json();
    let events = events["items"].as_array().unwrap();
    assert_eq!(events.len(), 44, "positions stay");
    let erased: Vec<&Value> = events.iter().filter(|event| event["erased"] == true).collect();
    assert_eq!(erased.len(), 4);
    assert!(erased.iter().all(|event| event["data"].is_null()));
    let hints = server.get("/v1/hints?kind=email&value=zebedee@quagga.internal").await.json();
    assert_eq!(hints["items"], json!([]));
    let documents = server.get("/v1/intakes?limit=100").await.json();
    assert_eq!(documents["items"].as_array().unwrap().len(), 23);
    // The link is one of the stream, which was not asked for.
    let stream = json!({"stream": "customer:z-1", "reason": "request 1"});
    let second = server.post("/v1/erasures", stream).await.json();
    let view = finished(&server, begun["id"].as_str().unwrap()).await;
    assert_eq!(view["runs"], 2, "{view}");
    finished(&server, second["id"].as_str().unwrap()).await;
    assert_gone(&server).await;
    // A document that comes again is new, and its entity goes on.
    let again = take(&server, json!({"id": "z-1", "name": "Zoe"})).await;
    assert_eq!(again["duplicate"], false, "{again}");
    let twice = server.post("/v1/erasures", ask).await.json();
    assert_eq!((&twice["documents"], &twice["events"]), (&json!(0), &json!(0)));
    server.stopped().await;
}

#[tokio::test]
async fn a_stream_is_erased_with_the_documents_that_led_to_it_and_waits_for_runs_that_go_on() {
    let server = server().await;
    let ask = json!({"stream": "customer:z-1", "reason": "request 2"});
    let begun = server.post("/v1/erasures", ask).await.json();
    assert_eq!((&begun["documents"], &begun["state"]), (&json!(0), &json!("running")), "{begun}");
    assert!(begun["waits_for"].as_str().unwrap().contains("run_goes_on"), "{begun}");
    let runs = server.get("/v1/runs?limit=100").await.json();
    for run in runs["items"].as_array().unwrap() {
        let path = format!("/v1/runs/{}/kill", run["id"].as_str().unwrap());
        assert!(server.post(&path, json!({"reason": "r"})).await.status < 300);
    }
    let view = finished(&server, begun["id"].as_str().unwrap()).await;
    assert_eq!(
        (&view["documents"], &view["events"], &view["runs"]),
        (&json!(2), &json!(4), &json!(2))
    );
    assert_eq!(server.get("/v1/links/erp/zebedee@quagga").await.problem(404), "unknown_link");
    // What was refused became no event: only its identifier leads to it.
    let hint = json!({"hint": {"kind": "email", "value": "zebedee@quagga.internal"}, "reason": "request 2"});
    let begun = server.post("/v1/erasures", hint).await.json();
    assert_eq!(begun["documents"], 1);
    finished(&server, begun["id"].as_str().unwrap()).await;
    assert_gone(&server).await;
    server.stopped().await;
}

#[tokio::test]
async fn an_erasure_names_one_thing_that_is_somebody_and_says_why() {
    let server = Server::start(Access::Open).await;
    let junk = json!({"kind": "email", "value": "test@example.com"});
    let hint = json!({"kind": "email", "value": "a@shop.internal"});
    for (ask, code) in [
        (json!({"reason": "r"}), "contradiction"),
        (json!({"reason": "r", "stream": "s", "hint": hint}), "contradiction"),
        (json!({"reason": "r", "hint": junk}), "hint_is_junk"),
    ] {
        let refused = server.post("/v1/erasures", ask).await;
        assert_eq!(refused.problem(422), "invalid_request");
        assert_eq!(refused.json()["errors"][0]["code"], code);
    }
    assert_eq!(server.post("/v1/erasures", json!({"reason": "", "stream": "s"})).await.status, 422);
    let made = server.post("/v1/erasures", json!({"reason": "r", "stream": "s"})).await.json();
    let path = format!("/v1/erasures/{}", made["id"].as_str().unwrap());
    let elsewhere = server.bare("GET", &path).header("backstitch-namespace", "elsewhere");
    assert_eq!(send(elsewhere).await.problem(404), "unknown_erasure");
    assert_eq!(server.get("/v1/erasures").await.json()["items"].as_array().unwrap().len(), 1);
    server.stopped().await;
}
