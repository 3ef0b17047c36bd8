//! Bad input: each gets its own clear error, never a 500, and the server goes on.

use backstitch_api::Access;
use backstitch_tests::server::{Server, operations, send, with_json};
use uuid::Uuid;

#[tokio::test]
async fn bad_bodies_are_refused_by_every_route_that_takes_one() {
    let server = Server::start(Access::Open).await;
    let id = Uuid::new_v4().to_string();
    let mut asked = 0;
    for operation in operations() {
        let Some(example) = &operation.body else { continue };
        let request = || server.request(&operation.method, &operation.path(&id));
        let deep = "[".repeat(100_000);
        for text in ["", "{", "nul", "[1", "\u{feff}{}", &deep] {
            let code = send(with_json(request(), text)).await.problem(400);
            assert_eq!(code, "malformed_json", "{operation:?} {}", &text[..text.len().min(20)]);
        }
        for text in [format!("{{\"input\":{deep}"), format!("{{\"results\":{deep}")] {
            let answer = send(with_json(request(), text)).await;
            assert!([400, 422].contains(&answer.status), "{operation:?} {answer:?}");
            let _ = answer.problem(answer.status);
        }
        let mut broken = example.to_string().into_bytes();
        broken.extend(b"\xff");
        let broken = request().header("content-type", "application/json").body(broken);
        assert_eq!(send(broken).await.problem(400), "malformed_json", "{operation:?}");
        for text in ["[]", "[\"two\",1]", "1", "null", "\"text\"", "{}"] {
            let answer = send(with_json(request(), text)).await;
            let _ = answer.problem(422);
        }
        let untyped = request().body(example.to_string());
        assert_eq!(send(untyped).await.problem(415), "unsupported_media_type", "{operation:?}");
        let large = "x".repeat(17 * 1024 * 1024);
        assert_eq!(send(with_json(request(), large)).await.problem(413), "body_too_large");
        let mut unknown = example.clone();
        unknown["no_such_member"] = true.into();
        let answer = send(with_json(request(), &unknown)).await;
        if answer.status == 400 {
            assert_eq!(answer.problem(400), "unknown_field");
            assert_eq!(answer.json()["errors"][0]["pointer"], "/no_such_member");
        } else {
            // Definitions are read by the rules, which tell all mistakes at once.
            assert_eq!(answer.problem(422), "invalid_definition", "{operation:?}");
        }
        asked += 1;
    }
    assert!(asked >= 11, "{asked}");
    server.stopped().await;
}

#[tokio::test]
async fn unknown_parameters_are_refused_by_every_route() {
    let server = Server::start(Access::Open).await;
    for operation in operations().into_iter().filter(|operation| operation.right.is_some()) {
        let path = format!("{}?no_such_parameter=1", operation.path(&Uuid::new_v4().to_string()));
        let request = server.request(&operation.method, &path);
        let answer = send(match &operation.body {
            Some(body) => with_json(request, body),
            None => request,
        })
        .await;
        assert_eq!(answer.problem(400), "invalid_query", "{operation:?}");
        assert_eq!(answer.json()["errors"][0]["pointer"], "?no_such_parameter");
    }
    server.stopped().await;
}

#[tokio::test]
async fn odd_text_finds_nothing_and_breaks_nothing() {
    let server = Server::start(Access::Open).await;
    let odd = [
        "%27%3B%20drop%20table%20runs%3B%20--",
        "%00",
        "%ff",
        "..%2F..%2Fetc",
        "%F0%9F%A6%80",
        "%E2%80%AE",
        "a%25",
    ];
    for text in odd {
        for path in ["/v1/workflows/{}", "/v1/workflows/{}/versions/1", "/v1/runs/{}", "/v1/{}"] {
            let answer = server.get(&path.replace("{}", text)).await;
            assert!([400, 404].contains(&answer.status), "{path} {text} {answer:?}");
            let _ = answer.problem(answer.status);
        }
        for name in ["workflow", "key", "condition", "label", "after", "state", "limit"] {
            let text = if name == "label" { format!("a:{text}") } else { text.to_owned() };
            let answer = server.get(&format!("/v1/runs?{name}={text}")).await;
            assert!([200, 400].contains(&answer.status), "{name} {text} {answer:?}");
        }
    }
    assert_eq!(server.get("/readyz").await.status, 200);
    server.stopped().await;
}

#[tokio::test]
async fn inputs_that_cannot_be_kept_are_refused_with_their_place() {
    let server = Server::start(Access::Open).await;
    let definition = backstitch_tests::node::chain("one", &["a"]);
    let put = server.request("PUT", "/v1/workflows/one/versions/1");
    assert_eq!(send(with_json(put, definition)).await.status, 201);
    let deep = format!("{}1{}", "[".repeat(2_000), "]".repeat(2_000));
    let large = format!("\"{}\"", "x".repeat(300 * 1024));
    for (input, place) in [
        (r#"{"a":["\u0000"]}"#, "/input/a/0"),
        (r#"{"a":"\ud800"}"#, "/input/a"),
        (r#"{"a":{"b":1,"b":2}}"#, "/input/a/b"),
        (r#"{"a":1e999}"#, "/input/a"),
        (&deep, ""),
        (&large, "/input"),
    ] {
        let answer =
            server.post("/v1/runs", format!(r#"{{"workflow":"one","input":{input}}}"#)).await;
        let _ = answer.problem(422);
        let pointer = answer.json()["errors"][0]["pointer"].as_str().unwrap().to_owned();
        assert!(pointer.starts_with(place), "{place} {pointer}");
    }
    let key = server.post("/v1/runs", r#"{"workflow":"one","key":"a\u0000b"}"#).await;
    assert_eq!(
        (key.problem(422).as_str(), &key.json()["errors"][0]["pointer"]),
        ("invalid_request", &"/key".into())
    );
    assert_eq!(server.get("/v1/runs").await.json()["items"], serde_json::json!([]));
    server.stopped().await;
}

#[tokio::test]
async fn what_is_no_route_is_a_problem_too() {
    let server = Server::start(Access::Open).await;
    for path in ["/", "/v1", "/v1/runs/", "/v2/runs", "/docs/nope.js"] {
        assert_eq!(server.get(path).await.problem(404), "unknown_route", "{path}");
    }
    let answer = send(server.request("PATCH", "/v1/runs")).await;
    assert_eq!(answer.problem(405), "method_not_allowed");
    assert_eq!(answer.headers["allow"], "GET,HEAD,POST");
    server.stopped().await;
}
