//! Every operation of the API, asked with everything that is wrong: never a 5xx, always a problem with a code, always a
//! status that the document names. The table is the OpenAPI document itself, so a new operation is asked, too.

use std::collections::BTreeSet;

use backstitch_api::Access;
use backstitch_tests::node::{NS, chain, start};
use backstitch_tests::server::{Answer, Operation, Server, operations, send, with_json};
use serde_json::{Value, json};

/// Texts that do not fit into a path or a query, or fit nowhere; encoded.
const TEXTS: [&str; 12] = [
    "%00",
    "%ff%fe",
    "..%2F..%2Fetc%2Fpasswd",
    "%27%3B%20drop%20table%20runs%3B%20--",
    "-1",
    "0",
    "99999999999999999999999",
    "1e400",
    "%F0%9F%A6%80",
    "null",
    "r00000000aa",
    "%7B%22a%22%3A1%7D",
];

/// Returns documents of wrong forms, as JSON text.
fn documents() -> Vec<String> {
    let mut all: Vec<String> = [
        "null",
        "true",
        "0",
        "-1",
        "1.5",
        "18446744073709551616",
        "1e400",
        "\"\"",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"' or 1=1 --\"",
        "\"1h\"",
        "[]",
        "[null]",
        "[[]]",
        "{}",
        "{\"\":null}",
        "{\"a\":1,\"a\":2}",
    ]
    .map(str::to_owned)
    .into();
    all.push(format!("\"{}\"", "x".repeat(300 * 1024)));
    all.push(format!("{}{}", "[".repeat(300), "]".repeat(300)));
    all.push(format!("{}1{}", "{\"a\":".repeat(100), "}".repeat(100)));
    all
}

/// Judges answers.
struct Judge {
    server: Server,
    asked: usize,
    refused: usize,
    wrong: BTreeSet<String>,
}

impl Judge {
    fn see(&mut self, operation: &Operation, what: &str, answer: &Answer) {
        self.asked += 1;
        let what: String = what.chars().take(120).collect();
        let mut wrong = |why: &str| {
            let text: String = answer.text.chars().take(300).collect();
            self.wrong.insert(format!(
                "{} {} with {what}: {} {why}: {text}",
                operation.method, operation.path, answer.status
            ));
        };
        if answer.status >= 500 {
            wrong("is an error of ours");
        } else if !operation.statuses.contains(&answer.status.to_string()) {
            wrong("stands not in the document");
        }
        if answer.status >= 400 {
            self.refused += 1;
            let problem: Value = serde_json::from_str(&answer.text).unwrap_or_default();
            // Some requests carry many things, each of which is answered for itself.
            let each = problem["results"].is_array();
            let code = problem["code"].as_str().unwrap_or_default();
            if !each && (answer.kind != "application/problem+json" || code.is_empty()) {
                wrong("is no problem with a code");
            }
        }
    }

    async fn ask(&mut self, operation: &Operation, path: &str, body: Option<&str>) {
        let request = self.server.request(&operation.method, path);
        let answer = send(match body {
            Some(body) => with_json(request, body),
            None => request,
        })
        .await;
        let what = body.map_or_else(|| path.to_owned(), |body| format!("{path} {body}"));
        self.see(operation, &what, &answer);
    }
}

/// The places of a document down to the third level.
fn places(document: &Value, here: &str, depth: usize, found: &mut Vec<String>) {
    if depth == 0 {
        return;
    }
    let mut inner = |name: String, value: &Value| {
        let place = format!("{here}/{}", name.replace('~', "~0").replace('/', "~1"));
        found.push(place.clone());
        places(value, &place, depth - 1, found);
    };
    match document {
        Value::Object(members) => {
            members.iter().for_each(|(name, value)| inner(name.clone(), value));
        }
        Value::Array(all) => {
            all.iter().take(1).enumerate().for_each(|(at, value)| inner(at.to_string(), value));
        }
        _ => {}
    }
}

/// `body` with `text` at `place`, as text: not everything that is sent has a form as a value.
fn with(body: &Value, place: &str, text: &str) -> String {
    const MARK: &str = "here-stands-something-else";
    let mut changed = body.clone();
    if let Some(value) = changed.pointer_mut(place) {
        *value = MARK.into();
    }
    changed.to_string().replacen(&format!("\"{MARK}\""), text, 1)
}

#[tokio::test]
async fn nothing_that_is_sent_breaks_anything() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("place-order", &["each", "payment"])).await.unwrap();
    let id = server.engine.start_run(NS, start("place-order", "1")).await.unwrap().id.to_string();
    let mut judge = Judge { server, asked: 0, refused: 0, wrong: BTreeSet::new() };
    let documents = documents();
    let mut in_order = operations();
    // Of a run that was erased nothing more can be asked.
    in_order.sort_by_key(|operation| operation.path.ends_with("/erase"));
    for operation in in_order.iter().filter(|operation| operation.right.is_some()) {
        let body = operation.body.as_ref().map(|body| {
            let text = body.to_string().replace("019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11", &id);
            serde_json::from_str::<Value>(&text.replace("\"wait\":\"20s\"", "\"wait\":\"0s\""))
                .unwrap()
        });
        let text = body.as_ref().map(Value::to_string);
        for parameter in &operation.parameters {
            let texts = TEXTS.iter().map(|text| (*text).to_owned());
            for value in texts.chain(["x".repeat(8_000)]) {
                let path = match parameter.place.as_str() {
                    "path" => operation.path_with(&id, &parameter.name, &value),
                    _ => format!("{}?{}={value}", operation.path(&id), parameter.name),
                };
                judge.ask(operation, &path, text.as_deref()).await;
            }
            if parameter.place == "query" {
                let twice = format!("{}?{1}=1&{1}=2", operation.path(&id), parameter.name);
                judge.ask(operation, &twice, text.as_deref()).await;
            }
        }
        let path = operation.path(&id);
        let Some(body) = body else { continue };
        let mut all = vec![String::new()];
        places(&body, "", 3, &mut all);
        for place in &all {
            for document in &documents {
                judge.ask(operation, &path, Some(&with(&body, place, document))).await;
            }
        }
        for member in body.as_object().into_iter().flatten().map(|(name, _)| name) {
            let mut without = body.clone();
            without.as_object_mut().unwrap().remove(member);
            judge.ask(operation, &path, Some(&without.to_string())).await;
        }
        let mut more = body.clone();
        more["no_such_member"] = json!({ "a": [1] });
        judge.ask(operation, &path, Some(&more.to_string())).await;
    }
    for (name, value) in [
        ("backstitch-namespace", "Not A Name"),
        ("backstitch-actor", ""),
        ("idempotency-key", ""),
        ("idempotency-key", "\"never closed"),
        ("x-request-id", "\u{e9}"),
        ("authorization", "Basic Og=="),
        ("content-encoding", "gzip"),
    ] {
        for operation in operations().iter().filter(|operation| operation.right.is_some()) {
            let mut request = judge.server.bare(&operation.method, &operation.path(&id));
            if let Some(body) = &operation.body {
                request = with_json(request, body.to_string().replace("\"20s\"", "\"0s\""));
            }
            let Ok(value) = reqwest::header::HeaderValue::from_bytes(value.as_bytes()) else {
                continue;
            };
            let answer = send(request.header(name, value)).await;
            judge.see(operation, name, &answer);
        }
    }
    let Judge { server, asked, refused, wrong } = judge;
    assert!(wrong.is_empty(), "{} of {asked} were wrong: {wrong:#?}", wrong.len());
    assert!(asked > 3_000 && refused > 2_000, "{asked} asked, {refused} refused");
    assert_eq!(server.get("/readyz").await.status, 200);
    assert_eq!(server.get(&format!("/v1/runs/{id}")).await.status, 200, "it is still there");
    server.stopped().await;
}
