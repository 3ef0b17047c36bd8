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
/// Texts of the erased entity, and of another.
const MARKS: [&str; 2] = ["Zebedee-Quagga", "zebedee@quagga"];
const OTHER: &str = "Other-Person-17";

/// Number of other entities; `BACKSTITCH_SCALE=full` makes them a thousand less one.
fn others() -> usize {
    let is_full = std::env::var("BACKSTITCH_SCALE").is_ok_and(|scale| scale == "full");
    if is_full { 999 } else { 20 }
}

/// Returns a dump of the database, where the program for it is installed.
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
    for at in 0..others() {
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
    let until = Instant::now() + Duration::from_secs(120);
    while server.get("/v1/subscriptions/greet").await.json()["started"] != others() + 2 {
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
    let mut events = Vec::new();
    for after in [0, 1_000, 2_000] {
        let page = server.get(&format!("/v1/events?limit=1000&after={after}")).await.json();
        events.extend(page["items"].as_array().unwrap().clone());
    }
    assert_eq!(events.len(), 2 * others() + 4, "positions stay");
    let erased: Vec<&Value> = events.iter().filter(|event| event["erased"] == true).collect();
    assert_eq!(erased.len(), 4);
    assert!(erased.iter().all(|event| event["data"].is_null()));
    let hints = server.get("/v1/hints?kind=email&value=zebedee@quagga.internal").await.json();
    assert_eq!(hints["items"], json!([]));
    let documents = server.get("/v1/intakes?limit=1000").await.json();
    assert_eq!(documents["items"].as_array().unwrap().len(), (others() + 3).min(1_000));
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
    let runs = server.get("/v1/runs?limit=1000").await.json();
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

/// Appends a change of a customer, in a story.
async fn append(server: &Server, stream: &str, name: &str, story: &str) -> Value {
    let event = json!({"type": "customer", "stream": stream, "op": "S", "data": {"id": stream, "name": name}, "correlation_id": story});
    let answer = server.post("/v1/events", json!({"events": [event]})).await;
    assert!(answer.status < 300, "{answer:?}");
    answer.json()
}

async fn start(server: &Server, body: Value) -> String {
    let started = server.post("/v1/runs", body).await;
    assert_eq!(started.status, 201, "{started:?}");
    started.json()["id"].as_str().unwrap().to_owned()
}

async fn is_erased(server: &Server, run: &str) -> bool {
    server.get(&format!("/v1/runs/{run}")).await.json()["erased_at"].is_string()
}

#[tokio::test]
async fn a_story_of_many_loses_only_the_runs_that_came_of_what_is_erased() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("greet", &["a"])).await.unwrap();
    let mut caused = Vec::new();
    for (stream, name) in [("customer:z", MARKS[0]), ("customer:o", OTHER)] {
        let receipt = append(&server, stream, name, "night-7").await;
        let cause = receipt["events"][0]["id"].clone();
        assert!(cause.is_string(), "{receipt}");
        let body = json!({"workflow": "greet", "input": {"name": name}, "correlation_id": "night-7", "causation_id": cause});
        caused.push(start(&server, body).await);
    }
    let free = json!({"workflow": "greet", "input": {"name": OTHER}, "correlation_id": "night-7"});
    caused.push(start(&server, free).await);
    append(&server, "customer:z", "Zebedee-Quagga III", "alone-1").await;
    let alone =
        json!({"workflow": "greet", "input": {"name": MARKS[0]}, "correlation_id": "alone-1"});
    caused.push(start(&server, alone).await);
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    let kept = "select string_agg(p.upto || ' ' || e.ord || encode(e.leaf, 'hex'), ',' order by p.upto, e.ord) \
        from event e join position p on p.batch = e.batch where e.stream like 'customer:%'";
    let until = Instant::now() + Duration::from_secs(60);
    while server.get("/v1/events").await.json()["head"] != 3 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let leaves: String = sqlx::query_scalar(kept).fetch_one(&mut owner).await.unwrap();
    let ask = json!({"stream": "customer:z", "kill": true, "reason": "request 3"});
    let begun = server.post("/v1/erasures", ask).await;
    assert_eq!(begun.status, 201, "{begun:?}");
    let view = finished(&server, begun.json()["id"].as_str().unwrap()).await;
    assert_eq!(
        (&view["events"], &view["runs"], &view["runs_left"]),
        (&json!(2), &json!(2), &json!(1)),
        "{view}"
    );
    let after: String = sqlx::query_scalar(kept).fetch_one(&mut owner).await.unwrap();
    assert_eq!(after, leaves, "positions and leaves stay");
    let mut erased = Vec::new();
    for run in &caused {
        erased.push(is_erased(&server, run).await);
    }
    assert_eq!(erased, [true, false, false, true]);
    let events = server.get("/v1/events?stream=customer:o").await.json();
    assert_eq!(events["items"][0]["data"]["name"], OTHER);
    server.stopped().await;
}

/// Returns a workflow whose step is a decision, after which it emits the name of a customer.
fn approve() -> String {
    json!({"name": "approve", "version": 1, "steps": [
        {"id": "decide", "wait": {"signal": "decision"}, "emits": [{"type": "customer.approved", "entity": "customer",
            "stream": {"path": "/input/id"}, "data": {"path": "/input"}, "release": "at_once"}]},
        {"id": "then", "after": ["decide"], "wait": {"signal": "more"}}]})
    .to_string()
}

#[tokio::test]
async fn what_a_run_emitted_does_not_come_into_the_log_after_the_erasure() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &approve()).await.unwrap();
    append(&server, "customer:z", MARKS[0], "s-1").await;
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    sqlx::raw_sql(
        "create table kept (like emitted);
        create function keep() returns trigger language plpgsql security definer set search_path from current as
            $$ begin insert into kept select old.*; return old; end $$;
        create trigger keep before delete on emitted for each row execute function keep()",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    // An application holds the stream, so that what the run emits stays in the queue.
    let mut application = PgConnection::connect(server.database()).await.unwrap();
    let mut held = application.begin().await.unwrap();
    sqlx::query("select from stream where stream = 'customer:z' for update")
        .execute(&mut *held)
        .await
        .unwrap();
    let body = json!({"workflow": "approve", "key": "k", "input": {"id": "z", "name": MARKS[0]}});
    let run = start(&server, body).await;
    let signal = json!({"workflow": "approve", "key": "k", "signal": "decision", "data": {}});
    assert!(server.post("/v1/signals", signal).await.status < 300);
    let waiting = "select count(*) from emitted";
    let until = Instant::now() + Duration::from_secs(60);
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut owner).await.unwrap() == 0 {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let ask = json!({"stream": "customer:z", "kill": true, "reason": "request 4"});
    let begun = server.post("/v1/erasures", ask).await.json();
    assert_eq!((&begun["events"], &begun["state"]), (&json!(0), &json!("running")), "{begun}");
    assert!(begun["waits_for"].as_str().unwrap().contains("on its way"), "{begun}");
    held.rollback().await.unwrap();
    let view = finished(&server, begun["id"].as_str().unwrap()).await;
    assert_eq!((&view["events"], &view["runs"]), (&json!(2), &json!(1)), "{view}");
    assert!(is_erased(&server, &run).await);
    // A node had read it from the queue before, and appends it now.
    let again = "insert into emitted (namespace, run_id, seq, place, at, event, data) \
        select namespace, run_id, seq, place, at, event, data from kept";
    assert_eq!(sqlx::query(again).execute(&mut owner).await.unwrap().rows_affected(), 1);
    server.engine.run_once(BackgroundTask::Emit).await.unwrap();
    sqlx::raw_sql("drop trigger keep on emitted; drop table kept")
        .execute(&mut owner)
        .await
        .unwrap();
    let events = server.get("/v1/events?limit=100").await.json();
    let events = events["items"].as_array().unwrap();
    assert_eq!(events.len(), 2, "{events:?}");
    assert!(events.iter().all(|event| event["erased"] == true), "{events:?}");
    if let Some(dump) = dump(server.database()).await {
        assert_eq!(lines(&dump, MARKS[0]), Vec::<&str>::new());
    }
    server.stopped().await;
}
