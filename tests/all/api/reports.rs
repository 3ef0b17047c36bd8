//! Reports over REST: what happened counts, whatever its words are, and outputs are what the definition promises.

use backstitch_api::Access;
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};

use super::tasks::{claim, report_of};

async fn register(server: &Server, definition: Value) {
    let name = definition["name"].as_str().unwrap().to_owned();
    let put = server.request("PUT", &format!("/v1/workflows/{name}/versions/1"));
    let registered = send(with_json(put, definition)).await;
    assert_eq!(registered.status, 201, "{registered:?}");
}

async fn start(server: &Server, workflow: &str) -> String {
    let started = server.post("/v1/runs", json!({ "workflow": workflow, "input": 1 })).await.json();
    format!("/v1/runs/{}", started["id"].as_str().unwrap_or_else(|| panic!("{started:#}")))
}

async fn report(server: &Server, reports: Vec<Value>) -> Answer {
    server.post("/v1/tasks/complete", json!({ "results": reports })).await
}

fn one(name: &str, members: &Value) -> Value {
    let mut task = json!({ "name": name, "input": { "path": "/input" } });
    task.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    json!({ "name": name, "version": 1, "steps": [{ "id": "a", "task": task }] })
}

#[tokio::test]
async fn a_failure_counts_with_its_kind_whatever_its_words_are() {
    let server = Server::start(Access::Open).await;
    register(&server, one("pay", &json!({ "compensate": { "name": "undo" } }))).await;
    let cases = [
        (
            json!({ "code": "refused", "message": "\u{1b}[31mcard\u{0} refused\u{b}\u{85}" }),
            "refused",
        ),
        (json!({ "code": "refused", "message": "x".repeat(16_001) }), "refused"),
        (json!({ "code": "Card-Declined", "message": "no" }), "invalid_code"),
        (json!({ "code": "", "message": "no" }), "invalid_code"),
        (json!({ "code": "refused", "message": "no", "details": "x".repeat(300_000) }), "refused"),
        (json!({ "code": "refused", "message": "no", "details": "\u{0}" }), "refused"),
        (json!({ "code": "refused", "message": "no", "retry_after": 30 }), "refused"),
        (json!({ "code": "refused", "message": 5, "more": true }), "refused"),
        (json!({ "message": "no" }), "invalid_code"),
    ];
    for (mut failure, code) in cases {
        let run = start(&server, "pay").await;
        let task = claim(&server, &["pay"]).await;
        failure["kind"] = json!("permanent");
        let answer = report(&server, vec![report_of(&task, &json!({ "failed": failure }))]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["results"][0]["code"], "amended", "{answer:?}");
        let view = server.get(&format!("{run}?wait=10s")).await.json();
        assert_eq!(
            (&view["outcome"], &view["error"]["failure"]["code"]),
            (&json!("failed_clean"), &json!(code)),
            "{view:#}"
        );
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_report_that_cannot_be_read_does_not_harm_the_others() {
    let server = Server::start(Access::Open).await;
    register(&server, one("pay", &json!({ "compensate": { "name": "undo" } }))).await;
    let (first, second) = (start(&server, "pay").await, start(&server, "pay").await);
    let (one, two) = (claim(&server, &["pay"]).await, claim(&server, &["pay"]).await);
    let good = json!({ "succeeded": { "output": 1 } });
    let mut odd = report_of(&one, &good);
    odd["attempt"] = json!("first");
    let answer = report(&server, vec![odd, report_of(&two, &good)]).await;
    assert_eq!(answer.status, 207, "{answer:?}");
    let statuses: Vec<_> = answer.json()["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["status"].clone())
        .collect();
    assert_eq!(statuses, [json!(422), json!(200)]);
    report(&server, vec![report_of(&one, &good)]).await;
    for run in [first, second] {
        assert_eq!(server.get(&format!("{run}?wait=10s")).await.json()["outcome"], "succeeded");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_character_that_is_none_loses_no_report_of_the_request() {
    let server = Server::start(Access::Open).await;
    register(&server, one("pay", &json!({ "compensate": { "name": "undo" } }))).await;
    for bad in [&b"\xff"[..], b"\x1b", b"\\x1b", b"\\ud800"] {
        let (first, second) = (start(&server, "pay").await, start(&server, "pay").await);
        let (one, two) = (claim(&server, &["pay"]).await, claim(&server, &["pay"]).await);
        let failed =
            json!({ "failed": { "kind": "permanent", "code": "refused", "message": "BAD" } });
        let reports =
            [report_of(&one, &failed), report_of(&two, &json!({ "succeeded": { "output": 1 } }))];
        let body = json!({ "results": reports }).to_string();
        let (before, after) = body.split_once("BAD").unwrap();
        let body = [before.as_bytes(), bad, after.as_bytes()].concat();
        let post = server.request("POST", "/v1/tasks/complete");
        let answer = send(post.header("content-type", "application/json").body(body)).await;
        let codes: Vec<Value> = answer.json()["results"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| one["code"].clone())
            .collect();
        assert_eq!((answer.status, codes), (200, vec![json!("amended"), Value::Null]), "{bad:?}");
        let ended = [first, second].map(async |run| {
            server.get(&format!("{run}?wait=10s")).await.json()["outcome"].clone()
        });
        for (ended, expected) in ended.into_iter().zip(["failed_clean", "succeeded"]) {
            assert_eq!(ended.await, expected);
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_failure_whose_kind_is_none_ends_the_attempt_as_unknown_with_its_code() {
    let server = Server::start(Access::Open).await;
    let members = json!({ "compensate": { "name": "undo" }, "retry": { "max_attempts": 1 } });
    register(&server, one("pay", &members)).await;
    for kind in ["Permanent", "timeout"] {
        let run = start(&server, "pay").await;
        let task = claim(&server, &["pay"]).await;
        let failed = json!({ "failed": { "kind": kind, "code": "no_funds", "message": "no" } });
        let answer = report(&server, vec![report_of(&task, &failed)]).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        assert_eq!(answer.json()["results"][0]["code"], "amended");
        let undo = claim(&server, &["pay", "undo"]).await;
        assert_eq!((&undo["action"], &undo["forward"]), (&json!("compensate"), &json!("unknown")));
        report(&server, vec![report_of(&undo, &json!({ "succeeded": { "output": null } }))]).await;
        let error = &server.get(&format!("{run}?wait=10s")).await.json()["error"]["failure"];
        assert_eq!((&error["kind"], &error["code"]), (&json!("unknown"), &json!("no_funds")));
    }
    server.stopped().await;
}

#[tokio::test]
async fn work_whose_output_cannot_be_sent_is_reported_as_done_without_one() {
    let server = Server::start(Access::Open).await;
    register(&server, one("pay", &json!({ "compensate": { "name": "undo" } }))).await;
    let run = start(&server, "pay").await;
    let task = claim(&server, &["pay"]).await;
    let large = json!({ "succeeded": { "output": "x".repeat(16 << 20) } });
    let refused = report(&server, vec![report_of(&task, &large)]).await;
    assert_eq!(refused.problem(413), "body_too_large");
    let done =
        json!({ "done_without_output": { "code": "output_too_large", "message": "17 MiB" } });
    for _ in 0..2 {
        assert_eq!(report(&server, vec![report_of(&task, &done)]).await.status, 200);
    }
    let undo = claim(&server, &["pay", "undo"]).await;
    assert_eq!((&undo["action"], &undo["forward"]), (&json!("compensate"), &json!("unknown")));
    report(&server, vec![report_of(&undo, &done)]).await;
    let view = server.get(&format!("{run}?wait=10s")).await.json();
    assert_eq!(
        (&view["outcome"], &view["error"]["failure"]["code"]),
        (&json!("compensated"), &json!("output_too_large")),
        "{view:#}"
    );
    server.stopped().await;
}

#[tokio::test]
async fn an_output_too_large_ends_the_attempt_and_is_undone() {
    let server = Server::start(Access::Open).await;
    register(&server, one("pay", &json!({ "compensate": { "name": "undo" } }))).await;
    let run = start(&server, "pay").await;
    let task = claim(&server, &["pay"]).await;
    let large = json!({ "succeeded": { "output": "x".repeat(300_000) } });
    for _ in 0..2 {
        assert_eq!(report(&server, vec![report_of(&task, &large)]).await.status, 200);
    }
    let undo = claim(&server, &["pay", "undo"]).await;
    assert_eq!((&undo["action"], &undo["forward"]), (&json!("compensate"), &json!("unknown")));
    report(&server, vec![report_of(&undo, &json!({ "succeeded": { "output": null } }))]).await;
    let view = server.get(&format!("{run}?wait=10s")).await.json();
    assert_eq!(
        (&view["outcome"], &view["error"]["failure"]["code"]),
        (&json!("compensated"), &json!("output_too_large")),
        "{view:#}"
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_sign_of_life_counts_without_what_cannot_be_kept_of_it() {
    let server = Server::start(Access::Open).await;
    register(&server, one("pay", &json!({ "compensate": { "name": "undo" } }))).await;
    start(&server, "pay").await;
    let task = claim(&server, &["pay"]).await;
    for mut beat in [json!({ "details": "x".repeat(300_000) }), json!({ "progress": 1 })] {
        for name in ["run", "step", "action", "attempt"] {
            beat[name] = task[name].clone();
        }
        let answer = server.post("/v1/tasks/heartbeat", json!({ "beats": [beat] })).await;
        assert_eq!((answer.status, &answer.json()["results"][0]["code"]), (200, &json!("amended")));
    }
    server.stopped().await;
}

#[tokio::test]
async fn an_output_that_breaks_the_schema_of_its_step_is_done_without_one() {
    let server = Server::start(Access::Open).await;
    let schema = json!({ "type": "array", "items": { "type": "integer" } });
    register(
        &server,
        one("pay", &json!({ "compensate": { "name": "undo" }, "output_schema": schema })),
    )
    .await;
    // The first is judged before the schema is compiled, the second at once, the third is large.
    let large: Vec<Value> =
        (0..5_000).map(|n| if n == 4_999 { json!("x") } else { json!(n) }).collect();
    for output in [json!({ "no": "list" }), json!(["x"]), json!(large)] {
        let run = start(&server, "pay").await;
        let task = claim(&server, &["pay"]).await;
        let answer =
            report(&server, vec![report_of(&task, &json!({ "succeeded": { "output": output } }))])
                .await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let undo = claim(&server, &["pay", "undo"]).await;
        assert_eq!((&undo["action"], &undo["forward"]), (&json!("compensate"), &json!("unknown")));
        report(&server, vec![report_of(&undo, &json!({ "succeeded": { "output": null } }))]).await;
        let view = server.get(&format!("{run}?wait=10s")).await.json();
        assert_eq!(
            (&view["outcome"], &view["error"]["failure"]["code"]),
            (&json!("compensated"), &json!("invalid_output")),
            "{view:#}"
        );
    }
    let run = start(&server, "pay").await;
    let task = claim(&server, &["pay"]).await;
    let fine: Vec<u32> = (0..5_000).collect();
    report(&server, vec![report_of(&task, &json!({ "succeeded": { "output": fine } }))]).await;
    assert_eq!(server.get(&format!("{run}?wait=10s")).await.json()["outcome"], "succeeded");
    server.stopped().await;
}

#[tokio::test]
async fn a_person_gives_an_output_that_satisfies_the_schema() {
    let server = Server::start(Access::Open).await;
    let members = json!({ "compensate": { "name": "undo" }, "output_schema": { "type": "integer" },
        "on_failure": "incident", "retry": { "max_attempts": 1 } });
    register(&server, one("pay", &members)).await;
    let run = start(&server, "pay").await;
    let task = claim(&server, &["pay"]).await;
    report(&server, vec![report_of(&task, &json!({ "succeeded": { "output": "seven" } }))]).await;
    let resolve = async |output: Value| {
        server
            .post(
                &format!("{run}/steps/a/resolve"),
                json!({ "output": output, "reason": "it is seven" }),
            )
            .await
    };
    assert_eq!(resolve(json!("seven")).await.problem(422), "invalid_output");
    assert_eq!(resolve(json!(7)).await.status, 200);
    assert_eq!(server.get(&format!("{run}?wait=10s")).await.json()["outcome"], "succeeded");
    server.stopped().await;
}

#[tokio::test]
async fn a_run_whose_output_breaks_its_schema_fails_and_is_undone() {
    let server = Server::start(Access::Open).await;
    let mut definition = one("pay", &json!({ "compensate": { "name": "undo" } }));
    definition["output"] = json!({ "path": "/steps/a" });
    definition["output_schema"] = json!({ "type": "object", "required": ["charge"] });
    register(&server, definition).await;
    let finish = async |output: Value| {
        let run = start(&server, "pay").await;
        let task = claim(&server, &["pay"]).await;
        report(&server, vec![report_of(&task, &json!({ "succeeded": { "output": output } }))])
            .await;
        run
    };
    let run = finish(json!({ "charge": "c1" })).await;
    let view = server.get(&format!("{run}?wait=10s")).await.json();
    assert_eq!((&view["outcome"], &view["output"]["charge"]), (&json!("succeeded"), &json!("c1")));
    for _ in 0..2 {
        let run = finish(json!({ "chrage": "c1" })).await;
        let undo = claim(&server, &["pay", "undo"]).await;
        report(&server, vec![report_of(&undo, &json!({ "succeeded": { "output": null } }))]).await;
        let view = server.get(&format!("{run}?wait=10s")).await.json();
        assert_eq!(
            (&view["outcome"], &view["error"]["failure"]["code"]),
            (&json!("compensated"), &json!("invalid_output")),
            "{view:#}"
        );
        assert_eq!(view["output"], Value::Null);
    }
    server.stopped().await;
}
