//! Files of sources: rows are taken in one by one, counted once whoever dies, and a file that comes again yields
//! nothing.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_tests::node::NS;
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;

const TOKEN: &str = "a-token-of-the-crm";
const LINES: &str = "application/x-ndjson";
const CSV: &str = "text/csv; charset=utf-8";

async fn put(server: &Server, more: Value) {
    let mut spec = json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact"}], "version_from": {"fixed": 1},
        "dedupe": [{"pointer": "/id"}], "hints": [{"kind": "email", "at": "/mail"}], "max_bytes": 1_000,
    });
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    let body = json!({"spec": spec, "secret": TOKEN});
    let answer = send(with_json(server.request("PUT", "/v1/sources/crm"), body)).await;
    assert!(answer.status < 300, "{answer:?}");
}

async fn register(server: &Server, required: Value) {
    let text = json!({"type": "string"});
    let members = json!({"id": text, "name": text, "mail": text});
    let schema = json!({"type": "object", "properties": members, "required": required});
    let answer = server.post("/v1/contracts/crm.contact/versions", json!({"schema": schema})).await;
    assert!(answer.status < 300, "{answer:?}");
}

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    register(&server, json!(["id", "name"])).await;
    put(&server, json!({})).await;
    server
}

async fn file(server: &Server, kind: &str, body: impl Into<reqwest::Body>) -> Answer {
    let request = server.bare("POST", &format!("/v1/in/{NS}/crm/files")).bearer_auth(TOKEN);
    send(request.header("content-type", kind).body(body)).await
}

async fn done(server: &Server, receipt: &Answer) -> Value {
    let path = format!("/v1/imports/{}", receipt.json()["import_id"].as_str().unwrap());
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let view = server.get(&path).await.json();
        if view["state"] == "done" {
            return view;
        }
        assert!(Instant::now() < until, "{view}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn counts(view: &Value) -> [u64; 5] {
    ["rows", "accepted", "duplicates", "refused", "left"].map(|name| view[name].as_u64().unwrap())
}

async fn count_events(server: &Server) -> i64 {
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    let count = sqlx::query_scalar("select count(*) from event").fetch_one(&mut owner).await;
    count.unwrap()
}

fn lines(from: usize, to: usize) -> String {
    (from..to).map(|at| format!("{{\"id\":\"c-{at}\",\"name\":\"n\"}}\n")).collect()
}

#[tokio::test]
async fn each_row_of_a_file_is_taken_or_refused_for_itself_and_the_file_again_yields_nothing() {
    let server = server().await;
    let long = format!("{{\"id\":\"l\",\"name\":\"{}\"}}", "x".repeat(20_000));
    let odd = format!(
        "\n{{\"id\":\"x\"}}\r\n  \n{{\"id\":\n{long}\n{{\"id\":\"c-3\",\"name\":\"n\"}}\n[]"
    );
    let text = format!("{}{odd}", lines(0, 1_100));
    let receipt = file(&server, LINES, text.clone()).await;
    assert_eq!(receipt.status, 202, "{receipt:?}");
    let told = receipt.json();
    assert_eq!((&told["rows"], &told["bytes"]), (&json!(1_105), &json!(text.len())));
    let view = done(&server, &receipt).await;
    assert_eq!(counts(&view), [1_105, 1_100, 1, 4, 0], "{view}");
    assert!(view["digest"].as_str().unwrap().len() == 64 && view["ended_at"].is_string());
    let path = format!("/v1/imports/{}/refused", view["id"].as_str().unwrap());
    let first = server.get(&format!("{path}?limit=3")).await.json();
    let rest =
        server.get(&format!("{path}?after={}", first["next"].as_str().unwrap())).await.json();
    let rows: Vec<(u64, String)> = [&first, &rest]
        .iter()
        .flat_map(|page| page["items"].as_array().unwrap())
        .map(|row| (row["row"].as_u64().unwrap(), row["code"].as_str().unwrap().to_owned()))
        .collect();
    let expected = [
        (1_101, "schema_violation"),
        (1_102, "invalid_json"),
        (1_103, "payload_too_large"),
        (1_105, "schema_violation"),
    ];
    assert_eq!(rows, expected.map(|(row, code)| (row, code.to_owned())));
    assert_eq!(first["items"][2].get("intake_id"), None);
    let kept = first["items"][0]["intake_id"].as_str().unwrap();
    let intake = server.get(&format!("/v1/intakes/{kept}")).await.json();
    assert_eq!((&intake["door"], &intake["trust"]), (&json!("file"), &json!("authenticated")));
    assert_eq!(server.get(&format!("/v1/intakes/{kept}/raw")).await.text, r#"{"id":"x"}"#);
    assert_eq!(count_events(&server).await, 1_100);

    let again = file(&server, LINES, text.clone()).await;
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &json!(true)), "{again:?}");
    assert_eq!(again.json()["import_id"], told["import_id"]);
    let more = format!("{}{}", lines(0, 1_100), "{\"id\":\"new\",\"name\":\"n\"}");
    let receipt = file(&server, LINES, more).await;
    assert_eq!(counts(&done(&server, &receipt).await), [1_101, 1, 1_100, 0, 0]);
    assert_eq!(count_events(&server).await, 1_101);
    let all = server.get("/v1/imports?source=crm&state=done").await.json();
    assert_eq!(all["items"].as_array().unwrap().len(), 2);
    assert_eq!(server.get("/v1/imports?state=running").await.json()["items"], json!([]));
    server.stopped().await;
}

#[tokio::test]
async fn a_row_of_csv_is_a_document_of_texts_that_is_kept_with_the_header() {
    let server = server().await;
    put(&server, json!({"dedupe": []})).await;
    let text = "\u{feff}id,name,mail\r\nc-1,\"Ann \"\"A\"\", of\nYork\",\"Ann@shop.test\"\r\nc-2,Bob,\r\n\r\nc-3,\"\"\nc-4,a\"b,\nc-5,,x\nc-6,\"C\",";
    let receipt = file(&server, CSV, text).await;
    assert_eq!((receipt.status, &receipt.json()["rows"]), (202, &json!(6)), "{receipt:?}");
    let view = done(&server, &receipt).await;
    assert_eq!((counts(&view), &view["form"]), ([6, 3, 0, 3, 0], &json!("csv")), "{view}");
    while server.get("/v1/events").await.json()["head"] != 3 {}
    let events = server.get("/v1/events").await.json();
    let data: Vec<&Value> =
        events["items"].as_array().unwrap().iter().map(|event| &event["data"]).collect();
    let expected = [
        json!({"id": "c-1", "name": "Ann \"A\", of\nYork", "mail": "Ann@shop.test"}),
        json!({"id": "c-2", "name": "Bob"}),
        json!({"id": "c-6", "name": "C"}),
    ];
    assert_eq!(data, expected.iter().collect::<Vec<_>>());
    let refused = format!("/v1/imports/{}/refused", view["id"].as_str().unwrap());
    let rows = server.get(&refused).await.json()["items"].clone();
    let codes: Vec<&Value> = rows.as_array().unwrap().iter().map(|row| &row["code"]).collect();
    assert_eq!(codes, ["csv_not_valid", "csv_not_valid", "schema_violation"]);
    let kept = rows[2]["intake_id"].as_str().unwrap();
    let raw = server.get(&format!("/v1/intakes/{kept}/raw")).await;
    assert_eq!(raw.text, "id,name,mail\nc-5,,x");
    // Without a dedupe key a row is known by its place in the file.
    let again = file(&server, CSV, text).await;
    assert_eq!((again.status, &again.json()["duplicate"]), (200, &json!(true)));
    assert_eq!(count_events(&server).await, 3);

    register(&server, json!(["id"])).await;
    put(&server, json!({"dedupe": [], "version_from": {"fixed": 2}})).await;
    let path = format!("/v1/intakes/{kept}/reprocess");
    let mended = server.post(&path, json!({"reason": "names may be missing"})).await.json();
    assert_eq!(
        (&mended["verdict"], &mended["contract"]),
        (&json!("accepted"), &json!("crm.contact@2"))
    );
    assert_eq!(count_events(&server).await, 4);
    server.stopped().await;
}

#[tokio::test]
async fn a_node_that_dies_between_the_rows_and_their_counts_counts_none_twice() {
    let server = server().await;
    let text = format!("{}{{\"id\":7}}\n{{}}\n{}", lines(0, 600), lines(0, 1));
    let receipt = file(&server, LINES, text).await;
    let view = done(&server, &receipt).await;
    assert_eq!(counts(&view), [603, 600, 1, 2, 0]);
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    // The same file as it was before its last piece was counted, and before any was.
    let last = format!("{{\"id\":7}}\n{{}}\n{}", lines(0, 1));
    let mut piece = Vec::new();
    for row in [lines(0, 600).as_str(), last.as_str()].concat().lines().skip(500) {
        piece.extend_from_slice(&u32::try_from(row.len()).unwrap().to_be_bytes());
        piece.extend_from_slice(row.as_bytes());
    }
    for _ in 0..2 {
        sqlx::query("with gone as (delete from import_refused) \
            update import set state = 'running', ended_at = null, accepted = 500, duplicates = 0, refused = 0, due_at = now(), taken_by = 77, \
            taken_until = now() + interval '1 hour'")
            .execute(&mut owner)
            .await
            .unwrap();
        sqlx::query("insert into import_piece (import, number, first_row, rows, body) select id, 2, 501, 103, $1 from import")
            .bind(&piece)
            .execute(&mut owner)
            .await
            .unwrap();
        server.engine.run_once(BackgroundTask::Import).await.unwrap();
        let again = done(&server, &receipt).await;
        assert_eq!(counts(&again), [603, 600, 1, 2, 0]);
        let path = format!("/v1/imports/{}/refused", again["id"].as_str().unwrap());
        let rows = server.get(&path).await.json()["items"].clone();
        assert_eq!((&rows[0]["row"], &rows[1]["row"]), (&json!(601), &json!(602)));
        assert_eq!(rows[0]["code"], "schema_violation");
    }
    assert_eq!(count_events(&server).await, 600);
    server.stopped().await;
}

#[tokio::test]
async fn an_import_that_a_node_has_taken_waits_for_it_until_the_node_is_gone() {
    let server = server().await;
    let receipt = file(&server, LINES, lines(0, 3)).await;
    let view = done(&server, &receipt).await;
    let other = server.beside().await;
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    sqlx::query(
        "update import set state = 'running', ended_at = null, accepted = 0, due_at = now() - interval '1 second', \
         taken_by = (select max(id) from nodes), taken_until = now() + interval '1 hour'",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    let piece: Vec<u8> = lines(0, 3)
        .lines()
        .flat_map(|row| {
            let length = u32::try_from(row.len()).unwrap().to_be_bytes();
            length.into_iter().chain(row.bytes()).collect::<Vec<u8>>()
        })
        .collect();
    sqlx::query("insert into import_piece (import, number, first_row, rows, body) select id, pieces, 1, 3, $1 from import")
        .bind(&piece)
        .execute(&mut owner)
        .await
        .unwrap();
    server.engine.run_once(BackgroundTask::Import).await.unwrap();
    let path = format!("/v1/imports/{}", view["id"].as_str().unwrap());
    assert_eq!(server.get(&path).await.json()["state"], "running");
    other.stopped().await;
    server.engine.run_once(BackgroundTask::Import).await.unwrap();
    assert_eq!(counts(&done(&server, &receipt).await), [3, 3, 0, 0, 0]);
    server.stopped().await;
}

#[tokio::test]
async fn what_is_no_file_of_a_verified_sender_is_refused_before_it_is_read() {
    let server = server().await;
    for (kind, body, status, code) in [
        ("application/json", "{}", 415, "content_type_not_supported"),
        ("text/csv; charset=latin1", "a", 415, "content_type_not_supported"),
        (CSV, "", 400, "csv_not_valid"),
        (CSV, "a,b,a\n1,2,3", 400, "duplicate_key"),
        (CSV, "a,,c\n1,2,3", 400, "csv_not_valid"),
        (CSV, "a,\"b", 400, "csv_not_valid"),
        (CSV, "a\0\n", 400, "nul_character"),
    ] {
        assert_eq!(file(&server, kind, body).await.problem(status), code, "{body}");
    }
    let path = format!("/v1/in/{NS}/crm/files");
    let other = server.bare("POST", &path).bearer_auth("another").header("content-type", CSV);
    assert_eq!(send(other.body("a\n1")).await.problem(401), "signature_invalid");
    let encoded = server.bare("POST", &path).bearer_auth(TOKEN).header("content-type", CSV);
    let encoded = encoded.header("content-encoding", "gzip").body("a\n1");
    assert_eq!(send(encoded).await.problem(415), "unsupported_encoding");
    // One that breaks off is forgotten.
    let head = format!(
        "POST {path} HTTP/1.1\r\nhost: localhost\r\nauthorization: Bearer {TOKEN}\r\ncontent-type: {LINES}\r\n\
         content-length: 100000\r\n\r\n"
    );
    let mut stream =
        TcpStream::connect(server.url().strip_prefix("http://").unwrap()).await.unwrap();
    stream.write_all(format!("{head}{}", lines(0, 600)).as_bytes()).await.unwrap();
    while server.get("/v1/imports?state=receiving").await.json()["items"] == json!([]) {}
    drop(stream);
    let until = Instant::now() + Duration::from_secs(60);
    while server.get("/v1/imports").await.json()["items"] != json!([]) {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    put(&server, json!({"enabled": false})).await;
    assert_eq!(file(&server, CSV, "a\n1").await.problem(403), "source_disabled");
    put(&server, json!({"verify": {"scheme": "github"}})).await;
    assert_eq!(file(&server, CSV, "a\n1").await.problem(403), "file_not_verifiable");
    assert_eq!(count_events(&server).await, 0);
    let empty = done(&server, &{
        put(&server, json!({})).await;
        file(&server, CSV, "id,name").await
    })
    .await;
    assert_eq!(counts(&empty), [0; 5]);
    server.stopped().await;
}

#[tokio::test]
async fn an_import_waits_while_its_source_takes_nothing_and_a_person_ends_it() {
    let server = server().await;
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    let receipt = file(&server, LINES, lines(0, 10)).await;
    done(&server, &receipt).await;
    put(&server, json!({"enabled": false})).await;
    sqlx::query(
        "update import set state = 'running', accepted = 0, ended_at = null, due_at = now()",
    )
    .execute(&mut owner)
    .await
    .unwrap();
    let path = format!("/v1/imports/{}", receipt.json()["import_id"].as_str().unwrap());
    let until = Instant::now() + Duration::from_secs(60);
    while server.get(&path).await.json()["waits_for"].is_null() {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let cancel = format!("{path}/cancel");
    assert_eq!(server.post(&cancel, json!({"reason": ""})).await.status, 422);
    let ended = server.post(&cancel, json!({"reason": "the wrong file"})).await;
    let view = ended.json();
    assert_eq!(
        (ended.status, &view["state"], &view["left"]),
        (200, &json!("cancelled"), &json!(10))
    );
    assert_eq!(server.post(&cancel, json!({"reason": "r"})).await.problem(409), "import_ended");
    let acts = server.get("/v1/acts?source=crm&verb=cancel").await.json();
    assert_eq!(acts["items"].as_array().unwrap().len(), 1, "{acts}");
    let elsewhere = server.bare("GET", &path).header("backstitch-namespace", "elsewhere");
    assert_eq!(send(elsewhere).await.problem(404), "unknown_import");
    // The same file is taken in anew then; its rows were taken in before.
    put(&server, json!({})).await;
    let again = file(&server, LINES, lines(0, 10)).await;
    assert_eq!(again.status, 202, "{again:?}");
    assert_eq!(counts(&done(&server, &again).await), [10, 0, 10, 0, 0]);
    server.stopped().await;
}
