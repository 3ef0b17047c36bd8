//! The edge of the server: what is refused before it is read, and versions and records that there cannot be.

use backstitch_api::Access;
use backstitch_tests::node::chain;
use backstitch_tests::server::{Server, operations, send, with_json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// Sends the head of a request that announces a body, and nothing of the body. Returns what comes back.
async fn announce(server: &Server, method: &str, path: &str, more: &str) -> String {
    let address = server.url().strip_prefix("http://").unwrap();
    let mut stream = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "{method} {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n{more}\r\n"
    );
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

#[tokio::test]
async fn a_body_beyond_the_limit_of_its_route_is_refused_unread_with_and_without_a_key() {
    let server = Server::start(Access::Open).await;
    let large = ["/v1/runs/batch", "/v1/tasks/complete", "/v1/tasks/heartbeat", "/v1/events"];
    let mut asked = 0;
    for operation in operations()
        .into_iter()
        .filter(|operation| operation.body.is_some() && !operation.is_door())
    {
        let limit = if large.contains(&operation.path.as_str()) { 16 } else { 1 };
        let beyond = limit * 1024 * 1024 + 1;
        let path = operation.path("019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11");
        for key in ["", "idempotency-key: large\r\n"] {
            let more = format!("{key}content-length: {beyond}\r\n");
            let answer = announce(&server, &operation.method, &path, &more).await;
            assert!(answer.starts_with("HTTP/1.1 413 "), "{operation:?} {answer}");
            assert!(answer.contains("\"body_too_large\""), "{operation:?} {answer}");
            asked += 1;
        }
    }
    assert!(asked > 60, "{asked}");
    server.stopped().await;
}

#[tokio::test]
async fn a_compressed_body_is_refused_as_such_by_every_route_that_takes_one() {
    let server = Server::start(Access::Open).await;
    for operation in operations()
        .into_iter()
        .filter(|operation| operation.body.is_some() && !operation.is_door())
    {
        let path = operation.path("019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11");
        for key in [None, Some("compressed")] {
            let mut request = with_json(server.request(&operation.method, &path), "{}");
            request = request.header("content-encoding", "gzip");
            if let Some(key) = key {
                request = request.header("idempotency-key", key);
            }
            let answer = send(request).await;
            assert_eq!(answer.problem(415), "unsupported_encoding", "{operation:?}");
            assert_eq!(answer.headers["accept-encoding"], "identity");
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_version_that_cannot_be_stored_is_refused_and_never_taken_for_another() {
    let server = Server::start(Access::Open).await;
    let put = async |version: u64, definition: &str| {
        let path = format!("/v1/workflows/two/versions/{version}");
        send(with_json(server.request("PUT", &path), definition)).await
    };
    let definition = |version: u64| {
        chain("two", &["a"]).replace("\"version\":1", &format!("\"version\":{version}"))
    };
    for version in [2_147_483_648, 4_294_967_295] {
        let refused = put(version, &definition(version)).await;
        assert_eq!(refused.problem(422), "invalid_definition");
        assert_eq!(refused.json()["errors"][0]["code"], "invalid_version");
        assert_eq!(refused.json()["errors"][0]["pointer"], "/version");
        let valid = server.post("/v1/workflows/validate", definition(version)).await;
        assert_eq!(valid.problem(422), "invalid_definition");
    }
    assert_eq!(put(2_147_483_647, &definition(2_147_483_647)).await.status, 201);
    for path in [
        "/v1/workflows/two/versions/2147483648",
        "/v1/workflows/two/versions/4294967295",
        "/v1/workflows/two/versions/0",
    ] {
        assert_eq!(server.get(path).await.problem(404), "unknown_workflow", "{path}");
    }
    let started = server.post("/v1/runs", r#"{"workflow":"two","version":2147483648}"#).await;
    assert_eq!(started.problem(404), "unknown_workflow");
    server.stopped().await;
}

#[tokio::test]
async fn records_are_counted_from_one() {
    let server = Server::start(Access::Open).await;
    let definition = chain("two", &["a"]);
    let put = with_json(server.request("PUT", "/v1/workflows/two/versions/1"), &definition);
    assert_eq!(send(put).await.status, 201);
    let started = server.post("/v1/runs", r#"{"workflow":"two"}"#).await.json();
    let run = started["id"].as_str().unwrap().to_owned();
    let none = server.get(&format!("/v1/runs/{run}?as_of=0")).await;
    assert_eq!(none.problem(400), "invalid_query");
    assert_eq!(server.get(&format!("/v1/runs/{run}?as_of=1")).await.status, 200);
    for beyond in ["1000", "4294967296"] {
        let none = server.get(&format!("/v1/runs/{run}?as_of={beyond}")).await;
        assert_eq!(none.problem(404), "unknown_record");
    }
    server.stopped().await;
}
