//! The log as a stream over HTTP: what comes is sent on, from where a reader was, for as long as it may read.

use std::time::Duration;

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_tests::node::NS;
use backstitch_tests::server::{Server, send};
use reqwest::Response;
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(60);

async fn publish(server: &Server, types: &[&str]) {
    let events: Vec<Value> = types.iter().map(|name| json!({"type": name})).collect();
    let answer = server.post("/v1/events", json!({ "events": events })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

async fn open(server: &Server, path: &str, accept: &str, last: Option<&str>) -> Response {
    let request = server.request("GET", path).header("accept", accept);
    let request = match last {
        Some(last) => request.header("last-event-id", last),
        None => request,
    };
    let response = request.send().await.unwrap();
    assert_eq!(response.status(), 200);
    assert_eq!(response.headers()["content-type"], accept);
    response
}

/// Reads a stream until it satisfies `enough`, or ends.
async fn read(stream: &mut Response, text: &mut String, enough: impl Fn(&str) -> bool) -> bool {
    while !enough(text) {
        let piece = tokio::time::timeout(WITHIN, stream.chunk()).await;
        match piece.unwrap_or_else(|_| panic!("nothing came: {text}")) {
            Ok(Some(bytes)) => text.push_str(std::str::from_utf8(&bytes).unwrap()),
            Ok(None) | Err(_) => return false,
        }
    }
    true
}

fn positions(text: &str) -> Vec<u64> {
    let (whole, _) = text.rsplit_once('\n').unwrap_or_default();
    whole
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).unwrap()["position"].as_u64())
        .collect()
}

const LINES: &str = "application/x-ndjson";

#[tokio::test]
async fn a_stream_has_what_there_is_and_then_what_comes_at_any_node() {
    let server = Server::start(Access::Open).await;
    let other = server.beside().await;
    publish(&server, &["a", "b"]).await;
    let mut stream = open(&server, "/v1/events", LINES, None).await;
    let mut text = String::new();
    assert!(read(&mut stream, &mut text, |text| positions(text).len() >= 2).await);
    publish(&server, &["c"]).await;
    publish(&other, &["d", "e"]).await;
    assert!(read(&mut stream, &mut text, |text| positions(text).len() >= 5).await);
    assert_eq!(positions(&text), [1, 2, 3, 4, 5]);
    let mut filtered = open(&other, "/v1/events?type=e&after=1", LINES, None).await;
    let mut text = String::new();
    assert!(read(&mut filtered, &mut text, |text| !positions(text).is_empty()).await);
    assert_eq!(positions(&text), [5]);
    other.stopped().await;
    assert!(!read(&mut filtered, &mut text, |_| false).await, "a stream ends with its server");
    server.stopped().await;
}

#[tokio::test]
async fn server_sent_events_go_on_after_the_last_that_was_seen() {
    let server = Server::start(Access::Open).await;
    let event =
        "{\"events\":[{\"type\":\"a\",\"data\":{\n\"text\":\"one\\ntwo\"}},{\"type\":\"b\"}]}";
    assert_eq!(server.post("/v1/events", event).await.status, 201);
    let mut stream = open(&server, "/v1/events", "text/event-stream", None).await;
    let mut text = String::new();
    assert!(read(&mut stream, &mut text, |text| text.contains("id: 2\n")).await);
    drop(stream);
    // Where the log is comes before it, if nothing had a position yet.
    let first = text.split("\n\n").find(|message| message.starts_with("id: 1\ndata: ")).unwrap();
    let (_, data) = first.split_once("\ndata: ").unwrap();
    let data: Value = serde_json::from_str(data).unwrap();
    assert_eq!(data["data"], json!({"text": "one\ntwo"}));
    publish(&server, &["c"]).await;
    let mut stream = open(&server, "/v1/events?after=0", "text/event-stream", Some("2")).await;
    let mut text = String::new();
    assert!(read(&mut stream, &mut text, |text| text.contains("id: 3\n")).await);
    assert!(text.contains("id: 3\ndata: {") && !text.contains("id: 1\n"), "{text}");
    server.stopped().await;
}

#[tokio::test]
async fn a_stream_that_cannot_begin_is_refused_like_a_page() {
    let server = Server::start(Access::Open).await;
    for (path, last, status, code) in [
        ("/v1/events?after=x", "", 400, "invalid_cursor"),
        ("/v1/events", "x", 400, "invalid_cursor"),
        ("/v1/events", "123456789012345678901234567890123", 400, "invalid_cursor"),
        ("/v1/events?wait=1s", "", 400, "invalid_query"),
        ("/v1/events?limit=0", "", 400, "invalid_query"),
    ] {
        let request = server.request("GET", path).header("accept", LINES);
        let answer = send(request.header("last-event-id", last)).await;
        assert_eq!(answer.problem(status), code, "{path} {last}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_credential_has_so_many_streams_and_none_once_it_is_withdrawn() {
    let server = Server::start(Access::Keys).await;
    let secret = server.engine.create_credential(NS, "reader", Role::Viewer).await.unwrap();
    let ask = || {
        let request = server.bare("GET", "/v1/events").header("accept", LINES);
        request.header("authorization", format!("Bearer {secret}")).send()
    };
    let mut streams = Vec::new();
    for _ in 0..100 {
        let stream = ask().await.unwrap();
        assert_eq!(stream.status(), 200);
        streams.push(stream);
    }
    let refused = ask().await.unwrap();
    assert_eq!(refused.status(), 429);
    assert!(refused.text().await.unwrap().contains("too_many_streams"));
    drop(streams.split_off(1));
    backstitch_tests::eventually("there is room again", async || {
        ask().await.unwrap().status() == 200
    })
    .await;
    server.engine.revoke_credential(NS, "reader").await.unwrap();
    let mut text = String::new();
    let mut stream = streams.remove(0);
    assert!(!read(&mut stream, &mut text, |_| false).await, "it ends when the credential does");
    server.stopped().await;
}
