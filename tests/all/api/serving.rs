//! Serving requests: waiting, keys, reports, pages, metrics, closing.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_saga::Span;
use backstitch_saga::protocol::FailureKind;
use backstitch_tests::node::{Hand, chain};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::json;

async fn open_server() -> Server {
    let server = Server::start(Access::Open).await;
    let definition = chain("two", &["a", "b"]);
    let put = || with_json(server.request("PUT", "/v1/workflows/two/versions/1"), &definition);
    let registered = send(put()).await;
    assert_eq!(registered.status, 201, "{registered:?}");
    assert_eq!(registered.headers["location"], "/v1/workflows/two/versions/1");
    assert_eq!(send(put()).await.status, 200);
    server
}

#[tokio::test]
async fn a_caller_who_waits_is_told_by_the_status() {
    let server = open_server().await;
    let started = server.post("/v1/runs?wait=10ms", r#"{"workflow":"two","key":"k"}"#).await;
    assert_eq!((started.status, started.json()["state"].as_str()), (202, Some("queued")));
    let path = started.headers["location"].to_str().unwrap().to_owned();
    let hand = Hand::new(&server.engine);
    let work = async {
        for _ in 0..2 {
            let task = hand.one().await;
            hand.succeed(&[task]).await;
        }
    };
    let path_waiting = format!("{path}?wait=10s");
    let (waited, ()) = tokio::join!(server.get(&path_waiting), work);
    assert_eq!((waited.status, waited.json()["outcome"].as_str()), (200, Some("succeeded")));
    let again = server.post("/v1/runs", r#"{"workflow":"two","key":"k"}"#).await;
    assert_eq!((again.status, &again.json()["created"]), (200, &json!(false)));
    assert_eq!(again.headers["location"], path);
    let other = server.post("/v1/runs", r#"{"workflow":"two","key":"k","input":1}"#).await;
    assert_eq!(other.problem(409), "key_conflict");

    let fail = async {
        let task = hand.one().await;
        hand.succeed(&[task]).await;
        let task = hand.one().await;
        hand.fail(&task, FailureKind::Permanent).await;
        let undo = hand.one().await;
        hand.succeed(&[undo]).await;
    };
    let (ended, ()) = tokio::join!(server.post("/v1/runs?wait=10s", r#"{"workflow":"two"}"#), fail);
    assert_eq!((ended.status, ended.json()["outcome"].as_str()), (207, Some("compensated")));
    server.stopped().await;
}

#[tokio::test]
async fn a_hundred_starts_with_one_key_are_one_run() {
    let server = open_server().await;
    let body = r#"{"workflow":"two","key":"once","input":{"n":1}}"#;
    let all = tokio::spawn({
        let requests: Vec<_> =
            (0..100).map(|_| with_json(server.request("POST", "/v1/runs"), body)).collect();
        async move {
            let mut answers = tokio::task::JoinSet::new();
            requests.into_iter().for_each(|request| {
                answers.spawn(send(request));
            });
            answers.join_all().await
        }
    });
    let answers = all.await.unwrap();
    let ids: std::collections::BTreeSet<_> =
        answers.iter().map(|answer| answer.json()["id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(ids.len(), 1);
    let created = answers.iter().filter(|answer| answer.status == 201).count();
    assert_eq!((created, answers.len()), (1, 100));
    server.stopped().await;
}

#[tokio::test]
async fn reports_are_answered_each_for_itself() {
    let server = open_server().await;
    server.post("/v1/runs", r#"{"workflow":"two"}"#).await;
    let claim = json!({
        "worker": "w", "session": uuid::Uuid::new_v4(), "max": 1, "wait": "10s",
        "queues": { "default": ["do", "undo"] }
    });
    let claimed = server.post("/v1/tasks/claim", &claim).await.json();
    let task = &claimed["tasks"][0];
    let report = |attempt: u64, outcome: serde_json::Value| {
        json!({
            "run": task["run"], "step": task["step"], "action": "forward", "attempt": attempt,
            "outcome": outcome
        })
    };
    let good = report(1, json!({ "succeeded": { "output": 1 } }));
    let late = report(9, json!({ "succeeded": { "output": 1 } }));
    let beat = json!({ "beats": [{
        "run": task["run"], "step": task["step"], "action": "forward", "attempt": 1, "details": 7
    }] });
    assert_eq!(server.post("/v1/tasks/heartbeat", &beat).await.status, 200);
    let answer = server.post("/v1/tasks/complete", json!({ "results": [good, late] })).await;
    assert_eq!(answer.status, 207);
    let answers = answer.json();
    let statuses: Vec<_> =
        answers["results"].as_array().unwrap().iter().map(|one| one["status"].as_u64()).collect();
    assert_eq!(statuses, [Some(200), Some(409)]);
    assert_eq!(answers["results"][1]["code"], "lease_lost");
    let late = server.post("/v1/tasks/complete", json!({ "results": [late] })).await;
    assert_eq!(late.status, 409, "one answer gives its status to all");
    let again = server.post("/v1/tasks/complete", json!({ "results": [good] })).await;
    assert_eq!(again.status, 200, "twice is once");
    server.stopped().await;
}

#[tokio::test]
async fn a_run_is_planned_undone_and_read_page_by_page() {
    let server = open_server().await;
    let started = server.post("/v1/runs", r#"{"workflow":"two","labels":{"a":"b:c"}}"#).await;
    let path = started.headers["location"].to_str().unwrap().to_owned();
    let hand = Hand::new(&server.engine);
    for _ in 0..2 {
        let task = hand.one().await;
        hand.succeed(&[task]).await;
    }
    let undo = format!("{path}/compensate");
    let plan = server.post(&undo, r#"{"scope":"all","dry_run":true}"#).await;
    let steps: Vec<_> =
        plan.json()["steps"].as_array().unwrap().iter().map(|s| s["step"].clone()).collect();
    assert_eq!((plan.status, steps), (200, vec![json!("b"), json!("a")]));
    assert_eq!(server.post(&undo, r#"{"scope":"all"}"#).await.problem(422), "reason_missing");
    let request = with_json(server.request("POST", &undo), r#"{"scope":"all","reason":"why"}"#);
    let begun = send(request.header("backstitch-actor", "Ann")).await;
    assert_eq!((begun.status, begun.json()["state"].as_str()), (202, Some("compensating")));
    let marked =
        server.post(&format!("{path}/steps/b/mark-compensated"), r#"{"reason":"by hand"}"#).await;
    assert_eq!(marked.status, 200, "{marked:?}");

    let mut events = Vec::new();
    let mut page = format!("{path}/history?limit=2");
    loop {
        let answer = server.get(&page).await.json();
        events.extend(answer["items"].as_array().unwrap().iter().cloned());
        let Some(next) = answer["next"].as_str() else { break };
        page = format!("{path}/history?limit=2&after={next}");
    }
    let whole = server.get(&format!("{path}/history?limit=1000")).await.json();
    assert_eq!(json!(events), whole["items"]);
    let by = &events.iter().find_map(|e| e["event"].get("compensation_started")).unwrap()["by"];
    assert_eq!(by, &json!({ "actor": "Ann", "reason": "why" }));
    let found = server.get("/v1/runs?label=a:b:c&workflow=two").await.json();
    assert_eq!(found["items"].as_array().unwrap().len(), 1);
    assert_eq!(server.get("/v1/runs?label=a:b").await.json()["items"], json!([]));
    assert_eq!(server.get("/v1/runs?after=h00").await.problem(400), "invalid_cursor");
    server.stopped().await;
}

#[tokio::test]
async fn closing_answers_at_once_what_waits() {
    let mut server = open_server().await;
    let started = server.post("/v1/runs", r#"{"workflow":"two"}"#).await;
    let path = format!("{}?wait=30s", started.headers["location"].to_str().unwrap());
    let claim = json!({
        "worker": "w", "session": uuid::Uuid::new_v4(), "max": 1, "wait": "30s",
        "queues": { "elsewhere": ["x"] }
    });
    let waiting = tokio::spawn(send(server.request("GET", &path)));
    let claiming = tokio::spawn(send(with_json(server.request("POST", "/v1/tasks/claim"), &claim)));
    let begun = Instant::now();
    while !server.get("/metrics").await.text.contains("backstitch_http_waiting 2\n") {
        assert!(begun.elapsed() < Duration::from_secs(10), "nobody waits");
    }
    server.stop();
    let (waited, claimed) = (waiting.await.unwrap(), claiming.await.unwrap());
    assert_eq!((waited.status, waited.json()["outcome"].clone()), (202, json!(null)));
    assert_eq!((claimed.status, claimed.json()), (200, json!({ "tasks": [] })));
    server.stopped().await;
    assert!(begun.elapsed() < Span::secs(20).duration(), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn the_pages_work_without_the_internet() {
    let server = open_server().await;
    let page = server.get("/docs/").await;
    assert_eq!(page.status, 200);
    let mut loaded = 0;
    let html = page.text.replace("href=\"", "src=\"");
    for part in html.split("src=\"").skip(1) {
        let file = part.split('"').next().unwrap().trim_start_matches("./");
        assert!(!file.contains("//"), "the page loads {file}");
        let request = server.request("GET", &format!("/docs/{file}"));
        let response = request.send().await.unwrap();
        assert_eq!(response.status(), 200, "{file}");
        loaded += 1;
    }
    assert!(loaded >= 5, "{loaded}");
    let setup = server.get("/docs/swagger-initializer.js").await.text;
    assert!(setup.contains("\"/openapi.json\"") && setup.contains("\"validatorUrl\": \"none\""));
    let document = server.get("/openapi.json").await;
    assert_eq!(
        (document.kind.as_str(), &document.json()["info"]["title"]),
        ("application/json", &json!("Backstitch"))
    );
    server.stopped().await;
}

#[tokio::test]
async fn the_server_tells_how_it_is() {
    let server = open_server().await;
    assert_eq!((server.get("/livez").await.status, server.get("/readyz").await.status), (200, 200));
    let home = server.get("/").await;
    assert_eq!((home.status, home.kind.as_str()), (200, "application/json"));
    for (_, link) in home.json().as_object().unwrap() {
        let link = link.as_str().unwrap();
        if link.starts_with('/') && link != "/v1" {
            assert!(server.get(link).await.status < 400, "{link}");
        }
    }
    let page = send(server.request("GET", "/").header("accept", "text/html")).await;
    assert!(page.kind.starts_with("text/html") && page.text.contains("href=\"/docs\""), "{page:?}");
    let request = server.request("GET", "/v1/whoami").header("x-request-id", "order-17");
    let answer = send(request).await;
    assert_eq!(answer.headers["x-request-id"], "order-17");
    assert_eq!(answer.headers["backstitch-mode"], "open");
    server.get("/v1/schedules").await;
    let numbers = server.get("/metrics").await;
    assert_eq!(numbers.kind, "text/plain; version=0.0.4; charset=utf-8");
    let mut seen = 0;
    for line in numbers.text.lines().filter(|line| !line.starts_with('#')) {
        let (name, value) = line.rsplit_once(' ').unwrap();
        let ours = ["backstitch_", "process_"].iter().any(|prefix| name.starts_with(prefix));
        assert!(ours && value.parse::<f64>().is_ok(), "{line}");
        seen += 1;
    }
    assert!(seen > 20, "{seen}");
    let counted =
        "backstitch_http_requests_total{method=\"GET\",route=\"/v1/schedules\",status=\"200\"} 1";
    assert!(numbers.text.lines().any(|line| line == counted), "{}", numbers.text);
    server.stopped().await;
}
