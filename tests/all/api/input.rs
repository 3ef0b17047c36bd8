//! Bad input: each gets its own clear error, never a 500, and the server goes on.

use backstitch_api::Access;
use backstitch_engine::fuzz::forged_cursor;
use backstitch_tests::node::{NS, chain, start};
use backstitch_tests::server::{Server, operations, send, with_json};
use serde_json::{Value, json};
use uuid::Uuid;

#[tokio::test]
async fn bad_bodies_are_refused_by_every_route_that_takes_one() {
    let server = Server::start(Access::Open).await;
    let id = Uuid::new_v4().to_string();
    let mut asked = 0;
    for operation in operations() {
        let Some(example) = operation.body.as_ref().filter(|_| !operation.is_door()) else {
            continue;
        };
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
        // What workers say has happened counts, whatever else they say.
        let counts = REPORTS.contains(&operation.path.as_str());
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
        if counts && answer.json()["results"].is_array() {
            assert!([207, 403, 404].contains(&answer.status), "{operation:?} {answer:?}");
        } else if answer.status == 400 {
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
    for path in ["/v1", "/v1/runs/", "/v2/runs", "/docs/nope.js"] {
        assert_eq!(server.get(path).await.problem(404), "unknown_route", "{path}");
    }
    let answer = send(server.request("PATCH", "/v1/runs")).await;
    assert_eq!(answer.problem(405), "method_not_allowed");
    assert_eq!(answer.headers["allow"], "GET,HEAD,POST");
    server.stopped().await;
}

/// `document` as text, once for each member of each object in it, down to the fourth level: that member stands there
/// twice.
fn doubled(document: &Value, depth: usize) -> Vec<String> {
    let mut all = Vec::new();
    let around = |name: &str, inner: String| match document {
        Value::Object(members) => {
            let members: Vec<String> = members
                .iter()
                .map(|(other, value)| match other == name {
                    true => format!("{}:{inner}", Value::from(name)),
                    false => format!("{}:{value}", Value::from(other.as_str())),
                })
                .collect();
            format!("{{{}}}", members.join(","))
        }
        _ => format!("[{inner}]"),
    };
    match document {
        _ if depth == 0 => {}
        Value::Object(members) => {
            for (name, value) in members {
                all.push(around(name, format!("{value},{}:{value}", Value::from(name.as_str()))));
                all.extend(doubled(value, depth - 1).into_iter().map(|inner| around(name, inner)));
            }
        }
        Value::Array(list) => {
            let first = list.first().map(|first| doubled(first, depth - 1)).unwrap_or_default();
            all.extend(first.into_iter().map(|inner| around("", inner)));
        }
        _ => {}
    }
    all
}

/// The routes by which workers tell what has happened.
const REPORTS: [&str; 2] = ["/v1/tasks/complete", "/v1/tasks/heartbeat"];

/// Returns the example of a request. What workers report counts although its documents cannot be kept: they are left
/// out.
fn without_documents(path: &str, example: &Value) -> Value {
    fn cut(value: &mut Value) {
        match value {
            Value::Object(members) => {
                for (name, value) in members {
                    if ["details", "output"].contains(&name.as_str()) {
                        *value = Value::from(1);
                    }
                    cut(value);
                }
            }
            Value::Array(list) => list.iter_mut().for_each(cut),
            _ => {}
        }
    }
    let mut example = example.clone();
    if REPORTS.contains(&path) {
        cut(&mut example);
    }
    example
}

#[tokio::test]
async fn what_stands_twice_or_breaks_off_is_refused_by_every_route_that_takes_a_body() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("place-order", &["payment"])).await.unwrap();
    let id = server.engine.start_run(NS, start("place-order", "1")).await.unwrap().id.to_string();
    let (mut twice, mut cut) = (0, 0);
    for operation in operations() {
        let Some(example) = operation.body.as_ref().filter(|_| !operation.is_door()) else {
            continue;
        };
        let request = || server.request(&operation.method, &operation.path(&id));
        for text in doubled(&without_documents(&operation.path, example), 4) {
            let answer = send(with_json(request(), &text)).await;
            // What a worker says counts, also said twice; the run and the lease of the example are not there.
            let counts = REPORTS.contains(&operation.path.as_str())
                && [207, 403, 404].contains(&answer.status);
            let refused = [400, 422].contains(&answer.status);
            assert!(refused || counts, "{operation:?} {text} {answer:?}");
            // Many things in one request are answered each for itself.
            if !answer.json()["results"].is_array() {
                let _ = answer.problem(answer.status);
            }
            // What comes in one of several forms has one member, not two.
            let told = ["duplicate_key", "Exactly one member"];
            let told = told.iter().any(|told| answer.text.contains(told));
            assert!(told || counts, "{operation:?} {text} {answer:?}");
            twice += 1;
        }
        let text = example.to_string();
        let places = (1..text.len()).filter(|at| text.is_char_boundary(*at));
        for at in places.step_by(text.len() / 40 + 1) {
            let answer = send(with_json(request(), &text[..at])).await;
            assert_eq!(answer.problem(400), "malformed_json", "{operation:?} {}", &text[..at]);
            cut += 1;
        }
    }
    assert!(twice > 100 && cut > 500, "{twice} twice, {cut} cut");
    server.stopped().await;
}

/// `document`, once for each member of each object in it, down to the third level, and each kind of value with that
/// value in the member's place; and once without the member.
fn spoiled(document: &Value, depth: usize) -> Vec<Value> {
    let mut all = Vec::new();
    match document {
        _ if depth == 0 => {}
        Value::Object(members) => {
            for (name, value) in members {
                let with = |value: Value| {
                    let mut other = members.clone();
                    other.insert(name.clone(), value);
                    Value::Object(other)
                };
                let wrong =
                    json!([null, true, -1, 1.5, "x y", [1], {"all": 1, "any": 2}, {"x": {}}]);
                all.extend(wrong.as_array().into_iter().flatten().cloned().map(with));
                all.extend(spoiled(value, depth - 1).into_iter().map(with));
                let mut without = members.clone();
                without.remove(name);
                all.push(Value::Object(without));
            }
        }
        Value::Array(list) => {
            let first = list.first().map(|first| spoiled(first, depth - 1)).unwrap_or_default();
            all.extend(first.into_iter().map(|first| json!([first])));
        }
        _ => {}
    }
    all
}

#[tokio::test]
async fn what_is_wrong_with_a_body_is_said_without_words_of_rust() {
    const RUST: [&str; 9] = [
        "newtype",
        " variant",
        "struct ",
        "invalid type",
        "invalid value:",
        "invalid length",
        "missing field",
        "unknown field",
        "line 1 column",
    ];
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("place-order", &["payment"])).await.unwrap();
    let id = server.engine.start_run(NS, start("place-order", "1")).await.unwrap().id.to_string();
    let mut refused = 0;
    let mut operations = operations();
    // Quotas that are set hold for what comes after them.
    operations.sort_by_key(|operation| operation.path.contains("quotas"));
    for operation in operations {
        let Some(mut example) = operation.body.clone().filter(|_| !operation.is_door()) else {
            continue;
        };
        if example.get("wait").is_some() {
            example["wait"] = "1ms".into();
        }
        for body in spoiled(&example, 3) {
            let request = server.request(&operation.method, &operation.path(&id));
            let answer = send(with_json(request, &body)).await;
            assert!(answer.status < 500, "{operation:?} {body} {answer:?}");
            let words = RUST.iter().find(|words| answer.text.contains(**words));
            assert_eq!(words, None, "{} {} {body} {answer:?}", operation.method, operation.path);
            refused += usize::from(answer.status >= 400);
        }
    }
    assert!(refused > 1_000, "{refused} were refused");
    server.stopped().await;
}

#[tokio::test]
async fn forged_cursors_lead_nowhere_and_break_nothing() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("place-order", &["each", "payment"])).await.unwrap();
    let id = server.engine.start_run(NS, start("place-order", "1")).await.unwrap().id.to_string();
    let long = "x".repeat(2_000);
    let places = [
        "",
        "x",
        "-1",
        "+7",
        "0 0",
        "-2147483648 -1",
        "2147483647 18446744073709551615",
        "9223372036854775807",
        "99999999999999999999",
        "1 '; drop table runs; --",
        "' or 1=1 --",
        "\u{0}",
        "1 a\u{0}b",
        "\u{202e}",
        "00000000-0000-0000-0000-000000000000",
        "ffffffff-ffff-ffff-ffff-ffffffffffff",
        "ffffffff-ffff-ffff-ffff-ffffffffffff 2147483647 w",
        "no-such-state ffffffff-ffff-ffff-ffff-ffffffffffff",
        "running ffffffff-ffff-ffff-ffff-ffffffffffff",
        "253402300800000 ffffffff-ffff-ffff-ffff-ffffffffffff",
        "9223372036854775807 ffffffff-ffff-ffff-ffff-ffffffffffff",
        "-9223372036854775808 ffffffff-ffff-ffff-ffff-ffffffffffff 1",
        &long,
    ];
    let (mut refused, mut read) = (0, 0);
    for operation in operations() {
        if !operation.parameters.iter().any(|parameter| parameter.name == "after") {
            continue;
        }
        for kind in 'a'..='z' {
            for place in places {
                let path = format!("{}?after={}", operation.path(&id), forged_cursor(kind, place));
                let mut request = server.request(&operation.method, &path);
                if let Some(mut example) = operation.body.clone() {
                    // The plan of an act is a list, too.
                    example["dry_run"] = true.into();
                    let json = request.header("content-type", "application/json");
                    request = json.body(example.to_string());
                }
                let answer = send(request).await;
                match answer.status {
                    200 | 404 | 409 => read += 1,
                    _ => {
                        let code = answer.problem(400);
                        assert_eq!(
                            code, "invalid_cursor",
                            "{operation:?} {kind} {place} {answer:?}"
                        );
                        refused += 1;
                    }
                }
            }
        }
    }
    assert!(refused > 2_000 && read > 20, "{refused} refused, {read} read");
    assert_eq!(server.get(&format!("/v1/runs/{id}")).await.status, 200, "it is still there");
    server.stopped().await;
}

#[tokio::test]
async fn an_unknown_word_for_an_enumerated_parameter_is_refused_with_the_words_there_are() {
    let server = Server::start(Access::Open).await;
    let id = Uuid::new_v4().to_string();
    let mut asked = 0;
    for operation in operations() {
        for parameter in operation.parameters.iter().filter(|one| !one.words.is_empty()) {
            let path = match parameter.place.as_str() {
                "query" => format!("{}?{}=no_such_word", operation.path(&id), parameter.name),
                _ => operation.path_with(&id, &parameter.name, "no_such_word"),
            };
            let request = server.request(&operation.method, &path);
            let answer = match &operation.body {
                Some(body) => send(with_json(request, body)).await,
                None => send(request).await,
            };
            let code = answer.problem(400);
            assert!(["invalid_query", "invalid_path"].contains(&code.as_str()), "{path} {code}");
            let told = answer.json().to_string();
            for word in &parameter.words {
                assert!(told.contains(word.as_str()), "{path} does not name {word}: {told}");
            }
            asked += 1;
        }
    }
    assert!(asked >= 9, "{asked} parameters are enumerated");
    server.stopped().await;
}
