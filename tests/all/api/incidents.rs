//! Incidents as people see them: listed, grouped, counted, shown, acted on; and the audit of it all.

use backstitch_api::Access;
use backstitch_saga::RunId;
use backstitch_saga::protocol::{Failure, FailureKind, TaskOffer, TaskOutcome};
use backstitch_tests::node::{Hand, NS, chain, fan, report, start};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

/// Returns a workflow whose steps wait for a person when they fail.
pub(super) fn parking(name: &str, steps: &[&str]) -> String {
    let retry = r#""retry":{"first_delay":"20ms""#;
    chain(name, steps).replace(retry, &format!(r#""on_failure":"incident",{retry}"#))
}

pub(super) async fn fail(hand: &Hand, task: &TaskOffer, code: &str, message: &str) {
    let failure = Failure {
        kind: FailureKind::Permanent,
        code: code.to_owned(),
        message: message.to_owned(),
        details: None,
        retry_after: None,
    };
    let answers = hand.engine.complete(NS, vec![report(task, TaskOutcome::Failed(failure))]).await;
    assert_eq!(answers[0].status, 200, "{answers:?}");
}

/// Starts `count` runs of `workflow` and lets each fail at its first step: with `code`, and a message that tells its
/// number.
pub(super) async fn failing(
    server: &Server,
    hand: &Hand,
    workflow: &str,
    count: usize,
    code: &str,
) {
    for number in 0..count {
        let mut request = start(workflow, &number.to_string());
        request.key = Some(format!("{workflow}-{code}-{number}"));
        server.engine.start_run(NS, request).await.unwrap();
        let task = hand.one().await;
        fail(hand, &task, code, &format!("card 47{number} of 'c-{number}' has expired")).await;
    }
}

/// Returns all elements of a list, two at a time.
pub(super) async fn all(server: &Server, path: &str) -> Vec<Value> {
    let mut found = Vec::new();
    let mut url = format!("{path}limit=2");
    loop {
        let answer = server.get(&url).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        let page = answer.json();
        let items = page["items"].as_array().unwrap();
        assert!(items.len() <= 2);
        found.extend(items.iter().cloned());
        let Some(next) = page["next"].as_str() else { return found };
        url = format!("{path}limit=2&after={next}");
    }
}

async fn count(server: &Server, query: &str) -> usize {
    all(server, &format!("/v1/incidents?{query}")).await.len()
}

#[tokio::test]
async fn incidents_are_found_by_what_they_are() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay", "ship"])).await.unwrap();
    server.engine.register(NS, &parking("refund", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    failing(&server, &hand, "order", 3, "card_declined").await;
    failing(&server, &hand, "refund", 2, "card_declined").await;
    failing(&server, &hand, "order", 1, "bank_closed").await;

    let every = all(&server, "/v1/incidents?").await;
    assert_eq!(every.len(), 6);
    let newest = &every[0];
    assert_eq!(newest["code"], "bank_closed", "newest first: {every:#?}");
    assert_eq!(newest["key"], "order-bank_closed-0");
    assert_eq!(
        (&newest["kind"], &newest["step"], &newest["state"], &newest["occurrences"]),
        (&json!("task_exhausted"), &json!("pay"), &json!("open"), &json!(1))
    );
    assert_eq!(newest["id"], format!("{}-1", newest["run"].as_str().unwrap()));
    for (query, found) in [
        ("state=open&", 6),
        ("state=resolved&", 0),
        ("workflow=order&", 4),
        ("workflow=order&step=pay&kind=task_exhausted&state=open&", 4),
        ("step=ship&", 0),
        ("kind=task_unknown&", 0),
        ("older_than=1h&", 0),
        ("older_than=0s&", 6),
        ("assignee=ann&", 0),
        (&format!("run={}&", newest["run"].as_str().unwrap()), 1),
        (&format!("fingerprint={}&", newest["fingerprint"].as_str().unwrap()), 1),
        (&format!("state=open&fingerprint={}&", every[5]["fingerprint"].as_str().unwrap()), 3),
    ] {
        assert_eq!(count(&server, query).await, found, "{query}");
    }

    let groups = all(&server, "/v1/incidents/groups?").await;
    let told: Vec<_> = groups
        .iter()
        .map(|group| (group["count"].as_u64(), &group["workflow"], &group["code"]))
        .collect();
    assert_eq!(
        told,
        [
            (Some(3), &json!("order"), &json!("card_declined")),
            (Some(2), &json!("refund"), &json!("card_declined")),
            (Some(1), &json!("order"), &json!("bank_closed"))
        ]
    );
    assert_eq!(groups[0]["sample"], every[3]["id"], "the newest of them: {groups:#?}");
    assert_eq!(groups[0]["message"], "card_declined: card 472 of 'c-2' has expired");
    assert_eq!(
        (&groups[0]["first_seen"], &groups[0]["last_seen"]),
        (&every[5]["opened_at"], &every[3]["opened_at"])
    );
    assert_eq!((&groups[0]["last_hour"], &groups[0]["hour_before"]), (&json!(3), &json!(0)));
    let filtered = all(&server, "/v1/incidents/groups?workflow=refund&").await;
    assert_eq!((filtered.len(), &filtered[0]["step"]), (1, &json!("pay")));

    let counts = server.get("/v1/incidents/counts").await.json();
    let kinds = json!([{"kind": "task_exhausted", "open": 6, "oldest": every[5]["opened_at"]}]);
    assert_eq!((&counts["open"], &counts["kinds"]), (&json!(6), &kinds));
    let status = server.get("/v1/status").await.json();
    assert_eq!(status["incidents"]["kinds"], kinds);
    assert_eq!(status["runs"], json!({"waiting": 6}));
    assert_eq!((&status["database_reachable"], status.get("oldest_task")), (&json!(true), None));
    assert_eq!(server.get("/v1/incidents?after=n00").await.problem(400), "invalid_cursor");
    server.stopped().await;
}

#[tokio::test]
async fn an_incident_tells_what_was_tried_and_what_can_be_done() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    let run = server.engine.start_run(NS, start("order", "1")).await.unwrap().id;
    for _ in 0..3 {
        let task = hand.one().await;
        hand.fail(&task, FailureKind::Retryable).await;
    }
    let first = server.get(&format!("/v1/incidents/{run}-1")).await.json();
    assert_eq!(
        first["next"],
        json!(["retry", "skip", "resolve", "compensate", "cancel", "abandon"])
    );
    assert_eq!(
        (&first["task"]["state"], &first["run_state"]),
        (&json!("parked"), &json!("waiting"))
    );
    let attempts = first["attempts"].as_array().unwrap();
    let tried: Vec<_> = attempts.iter().map(|one| one["attempt"].as_u64().unwrap()).collect();
    assert_eq!(tried, [3, 2, 1]);
    for one in attempts {
        assert_eq!(one["error"]["code"], "refused");
        assert!(one["worker"].as_str().unwrap().starts_with("hand/"), "{one}");
    }
    // The same trouble comes back to the same step.
    let retry = server.post(&format!("/v1/runs/{run}/retry"), r#"{"reason":"fixed"}"#).await;
    assert_eq!(retry.status, 200, "{retry:?}");
    let task = hand.one().await;
    hand.fail(&task, FailureKind::Permanent).await;
    let old = server.get(&format!("/v1/incidents/{run}-1")).await.json();
    assert_eq!((&old["state"], &old["next"]), (&json!("resolved"), &json!([])));
    let new = server.get(&format!("/v1/incidents/{run}-2")).await.json();
    assert_eq!((&new["state"], &new["occurrences"]), (&json!("open"), &json!(2)));
    assert_eq!((&new["first_seen"], &new["last_seen"]), (&old["opened_at"], &new["opened_at"]));
    assert_eq!(new["fingerprint"], old["fingerprint"]);

    let missing = server.get(&format!("/v1/incidents/{run}-3")).await;
    assert_eq!(missing.problem(404), "unknown_incident");
    assert_eq!(server.get(&format!("/v1/incidents/{run}")).await.problem(400), "invalid_path");
    server.stopped().await;
}

#[tokio::test]
async fn items_of_a_map_are_one_group() {
    let server = Server::start(Access::Open).await;
    let retry = r#""retry":{"first_delay":"10ms","jitter":"none","max_attempts""#;
    let parked =
        fan("bulk", 10, r#""all""#).replace(retry, &format!(r#""on_failure":"incident",{retry}"#));
    server.engine.register(NS, &parked).await.unwrap();
    let hand = Hand::new(&server.engine);
    server.engine.start_run(NS, start("bulk", "[1,2,3]")).await.unwrap();
    let tasks = hand.claim(3, backstitch_saga::Span::secs(10)).await;
    for task in &tasks {
        fail(&hand, task, "gone", "no such row").await;
    }
    let mut left = 3 - tasks.len();
    while left > 0 {
        let task = hand.one().await;
        fail(&hand, &task, "gone", "no such row").await;
        left -= 1;
    }
    let groups = all(&server, "/v1/incidents/groups?").await;
    assert_eq!(
        (groups.len(), &groups[0]["count"], &groups[0]["step"]),
        (1, &json!(3), &json!("each"))
    );
    assert_eq!(count(&server, "step=each&").await, 3);
    assert_eq!(count(&server, "step=each/1&").await, 1);
    server.stopped().await;
}

/// Does something about an incident, as `actor`.
async fn about(server: &Server, id: &str, verb: &str, actor: &str, body: Value) -> Answer {
    let request = server.request("POST", &format!("/v1/incidents/{id}/{verb}"));
    send(with_json(request.header("backstitch-actor", actor), body)).await
}

#[tokio::test]
async fn verbs_are_acts_on_the_run_of_the_incident() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    failing(&server, &hand, "order", 4, "card_declined").await;
    let ids: Vec<String> = all(&server, "/v1/incidents?")
        .await
        .iter()
        .map(|incident| incident["id"].as_str().unwrap().to_owned())
        .collect();
    let why = || json!({"reason": "the bank is back"});
    let blank = about(&server, &ids[0], "retry", "ann", json!({"reason": " "})).await;
    assert_eq!(blank.problem(422), "reason_missing");
    for _ in 0..2 {
        let retried = about(&server, &ids[0], "retry", "ann", why()).await;
        assert_eq!((retried.status, &retried.json()["state"]), (200, &json!("resolved")));
    }
    let late = about(&server, &ids[0], "retry", "bob", why()).await;
    assert_eq!(late.problem(409), "incident_resolved");
    let task = hand.one().await;
    assert_eq!(ids[0], format!("{}-1", task.run));
    hand.succeed(&[task]).await;
    for (id, verb) in [(&ids[1], "cancel"), (&ids[2], "abandon"), (&ids[3], "compensate")] {
        let done = about(&server, id, verb, "ann", why()).await;
        assert_eq!((done.status, &done.json()["run_state"]), (200, &json!("ended")), "{done:?}");
    }
    let odd = about(&server, &ids[1], "mark-compensated", "ann", why()).await;
    assert_eq!(odd.problem(409), "incident_resolved");
    let done = ["compensate", "kill", "cancel", "retry"];
    let done = done.map(|verb| format!("{verb} by ann: the bank is back"));
    assert_eq!(audit(&server, "").await, done);
    server.stopped().await;
}

#[tokio::test]
async fn a_blocked_compensation_is_vouched_for() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("order", &["pay", "ship"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    server.engine.start_run(NS, start("order", "1")).await.unwrap();
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    let task = hand.one().await;
    fail(&hand, &task, "no_route", "nobody goes there").await;
    let undo = hand.one().await;
    fail(&hand, &undo, "already_settled", "the payment 4711 was settled").await;
    let blocked = &all(&server, "/v1/incidents?state=open&kind=compensation_blocked&").await[0];
    assert_eq!((&blocked["step"], &blocked["code"]), (&json!("pay"), &json!("already_settled")));
    let id = blocked["id"].as_str().unwrap();
    let view = server.get(&format!("/v1/incidents/{id}")).await.json();
    assert_eq!(view["next"], json!(["retry", "mark-compensated", "abandon"]));
    let actions: Vec<_> =
        view["attempts"].as_array().unwrap().iter().map(|a| &a["action"]).collect();
    assert_eq!(actions, ["compensate", "forward"]);
    let marked =
        about(&server, id, "mark-compensated", "ann", json!({"reason": "refunded by the bank"}))
            .await;
    assert_eq!((marked.status, &marked.json()["run_state"]), (200, &json!("ended")), "{marked:?}");
    let run = server.get(&format!("/v1/runs/{}", blocked["run"].as_str().unwrap())).await.json();
    assert_eq!(run["outcome"], "compensated_with_manual_steps");
    assert_eq!(audit(&server, "").await, ["mark-compensated by ann: refunded by the bank"]);
    server.stopped().await;
}

#[tokio::test]
async fn what_people_add_stays_when_the_index_is_rebuilt() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    failing(&server, &hand, "order", 2, "card_declined").await;
    let ids: Vec<String> = all(&server, "/v1/incidents?")
        .await
        .iter()
        .map(|incident| incident["id"].as_str().unwrap().to_owned())
        .collect();
    let given = json!({"assignee": "ann", "note": "you know the bank"});
    assert_eq!(about(&server, &ids[0], "assign", "bob", given).await.status, 200);
    assert_eq!(
        about(&server, &ids[0], "note", "ann", json!({"note": "it is down"})).await.status,
        200
    );
    assert_eq!(count(&server, "assignee=ann&state=open&").await, 1);
    let mut connection = PgConnection::connect(server.database()).await.unwrap();
    sqlx::raw_sql("update incidents set fingerprint = '', code = null; delete from acts")
        .execute(&mut connection)
        .await
        .unwrap();
    assert_eq!(server.engine.doctor(true).await.unwrap().mended, 2);
    let view = server.get(&format!("/v1/incidents/{}", ids[0])).await.json();
    assert_eq!((&view["assignee"], &view["code"]), (&json!("ann"), &json!("card_declined")));
    let notes: Vec<_> = view["notes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|note| (&note["actor"], note.get("assignee"), note.get("note")))
        .collect();
    assert_eq!(
        notes,
        [
            (&json!("bob"), Some(&json!("ann")), Some(&json!("you know the bank"))),
            (&json!("ann"), None, Some(&json!("it is down")))
        ]
    );
    let taken = about(&server, &ids[0], "assign", "bob", json!({"assignee": ""})).await.json();
    assert_eq!((taken.get("assignee"), &taken["notes"][2]["assignee"]), (None, &json!("")));
    assert_eq!(count(&server, "assignee=ann&").await, 0);
    let (run, _) = ids[0].rsplit_once('-').unwrap();
    let missing = about(&server, &format!("{run}-9"), "note", "ann", json!({"note": "?"})).await;
    assert_eq!(missing.problem(404), "unknown_incident");
    server.stopped().await;
}

/// Returns the verbs in the audit, newest first, as `verb by actor: reason`.
pub(super) async fn audit(server: &Server, query: &str) -> Vec<String> {
    let lines = all(server, &format!("/v1/acts?{query}")).await;
    lines
        .iter()
        .map(|line| {
            let text = |name: &str| line[name].as_str().unwrap().to_owned();
            format!("{} by {}: {}", text("verb"), text("actor"), text("reason"))
        })
        .collect()
}

async fn act(server: &Server, run: RunId, verb: &str, actor: &str, reason: &str) {
    let request = server.request("POST", &format!("/v1/runs/{run}/{verb}"));
    let body = match verb {
        "compensate" => json!({"scope": "all", "reason": reason}),
        _ => json!({"reason": reason}),
    };
    let answer = send(with_json(request.header("backstitch-actor", actor), body)).await;
    assert!(answer.status < 300, "{answer:?}");
}

#[tokio::test]
async fn what_people_did_is_listed_and_can_be_rebuilt() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(server.engine.start_run(NS, start("order", "1")).await.unwrap().id);
        let task = hand.one().await;
        hand.fail(&task, FailureKind::Permanent).await;
    }
    act(&server, runs[0], "retry", "ann", "fixed").await;
    act(&server, runs[0], "retry", "ann", "fixed").await;
    act(&server, runs[1], "kill", "bob", "a test order").await;
    act(&server, runs[2], "compensate", "ann", "withdrawn").await;
    let done = ["compensate by ann: withdrawn", "kill by bob: a test order", "retry by ann: fixed"];
    assert_eq!(audit(&server, "").await, done, "an act that is repeated is one act");
    assert_eq!(audit(&server, "actor=ann&").await, [done[0], done[2]]);
    assert_eq!(audit(&server, "verb=kill&").await, [done[1]]);
    assert_eq!(audit(&server, &format!("run={}&", runs[2])).await, [done[0]]);
    assert_eq!(audit(&server, "to=2026-01-01T00:00:00Z&").await, [""; 0]);
    assert_eq!(audit(&server, "from=2026-01-01T00:00:00Z&verb=retry&").await, [done[2]]);
    assert_eq!(server.engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    server.stopped().await;
}

#[tokio::test]
async fn a_step_is_skipped_resolved_or_retried_with_another_input() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay", "ship"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    failing(&server, &hand, "order", 3, "card_declined").await;
    let ids: Vec<String> = all(&server, "/v1/incidents?")
        .await
        .iter()
        .map(|incident| incident["id"].as_str().unwrap().to_owned())
        .collect();
    let why = "looked into it";
    for (id, verb, body) in [
        (&ids[0], "skip", json!({"reason": why, "output": {"paid": false}})),
        (
            &ids[1],
            "resolve",
            json!({"reason": why, "output": {"paid": true}, "external_id": "p-1"}),
        ),
    ] {
        for _ in 0..2 {
            let done = about(&server, id, verb, "ann", body.clone()).await;
            assert_eq!((done.status, &done.json()["state"]), (200, &json!("resolved")), "{done:?}");
        }
        let task = hand.one().await;
        assert_eq!((task.step.to_string().as_str(), id), ("ship", &format!("{}-1", task.run)));
        hand.succeed(&[task]).await;
    }
    let large = json!({"reason": why, "input": "x".repeat(300 * 1024)});
    assert_eq!(
        about(&server, &ids[2], "retry", "ann", large).await.problem(422),
        "invalid_payload"
    );
    let better = json!({"reason": why, "input": {"card": "4712"}});
    assert_eq!(about(&server, &ids[2], "retry", "ann", better).await.status, 200);
    let task = hand.one().await;
    assert_eq!(task.input.text(), r#"{"card":"4712"}"#);
    hand.succeed(&[task]).await;
    let done = ["retry", "resolve", "skip"].map(|verb| format!("{verb} by ann: {why}"));
    assert_eq!(audit(&server, "").await, done);
    assert_eq!(server.engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    server.stopped().await;
}

#[tokio::test]
async fn status_counts_runs_of_the_last_hour_by_outcome() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    for number in 0..3 {
        server.engine.start_run(NS, start("order", &number.to_string())).await.unwrap();
    }
    for _ in 0..2 {
        let task = hand.one().await;
        hand.succeed(&[task]).await;
    }
    // It is counted at most once a second.
    backstitch_tests::eventually("both are counted", async || {
        let status = server.get("/v1/status").await.json();
        status["ended"] == json!({ "succeeded": 2 })
    })
    .await;
    server.stopped().await;
}
