//! One verb on many: the canary first, at a rate, stopped when the trouble comes back, whatever dies in between.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_saga::Span;
use backstitch_tests::node::{Hand, NS, chain, node, start};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};

use super::incidents::{all, audit, fail, failing, parking};

/// Returns a server with `count` runs that wait for a person, all for one cause, and the fingerprint of that.
pub(super) async fn stuck(count: usize) -> (Server, Hand, String) {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &parking("order", &["pay"])).await.unwrap();
    let hand = Hand::new(&server.engine);
    failing(&server, &hand, "order", count, "card_declined").await;
    let groups = all(&server, "/v1/incidents/groups?").await;
    assert_eq!((groups.len(), groups[0]["count"].as_u64()), (1, Some(count as u64)));
    let fingerprint = groups[0]["fingerprint"].as_str().unwrap().to_owned();
    (server, hand, fingerprint)
}

pub(super) async fn ask(server: &Server, path: &str, body: &Value) -> Answer {
    let request = server.request("POST", path).header("backstitch-actor", "ann");
    send(with_json(request, body)).await
}

pub(super) async fn create(server: &Server, body: &Value) -> String {
    let made = ask(server, "/v1/jobs", body).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = made.json()["id"].as_str().unwrap().to_owned();
    assert_eq!(made.headers["location"], format!("/v1/jobs/{id}"));
    id
}

/// Returns the job once `is` holds of it, worked on meanwhile.
pub(super) async fn until(server: &Server, id: &str, is: impl Fn(&Value) -> bool) -> Value {
    let began = Instant::now();
    loop {
        server.engine.run_once(BackgroundTask::WorkJobs).await.unwrap();
        let job = server.get(&format!("/v1/jobs/{id}")).await.json();
        let progress = &job["progress"];
        let sum: u64 = ["waiting", "left", "done", "came_back", "refused"]
            .iter()
            .filter_map(|part| progress[part].as_u64())
            .sum();
        assert_eq!(Some(sum), progress["total"].as_u64(), "{job}");
        if is(&job) {
            return job;
        }
        assert!(began.elapsed() < Duration::from_secs(60), "{job:#}");
    }
}

/// Waits until all tasks on offer are claimed, `count` in all.
pub(super) async fn claim(hand: &Hand, count: usize) -> Vec<backstitch_saga::protocol::TaskOffer> {
    let mut tasks = Vec::new();
    while tasks.len() < count {
        let more = hand.claim(10, Span::secs(30)).await;
        assert!(!more.is_empty(), "{} of {count}", tasks.len());
        tasks.extend(more);
    }
    tasks
}

#[tokio::test]
async fn the_canary_must_prove_itself_first() {
    let (server, hand, fingerprint) = stuck(7).await;
    let plan = json!({"verb": "retry", "incidents": {"fingerprint": fingerprint}, "dry_run": true});
    let planned = ask(&server, "/v1/jobs", &plan).await;
    assert_eq!((planned.status, &planned.json()["count"]), (200, &json!(7)));
    assert_eq!(planned.json()["first"][0]["state"], "waiting");
    assert_eq!(server.get("/v1/jobs").await.json()["items"], json!([]), "nothing was written");

    let id = create(
        &server,
        &json!({"verb": "retry", "incidents": {"fingerprint": fingerprint}, "reason": "fixed",
            "rate": 1000, "canary": {"first": 2}}),
    )
    .await;
    let job = until(&server, &id, |job| job["progress"]["done"] == 2).await;
    assert_eq!((&job["state"], &job["progress"]["waiting"]), (&json!("canary"), &json!(5)));
    let tasks = claim(&hand, 2).await;
    hand.succeed(&tasks[..1]).await;
    server.engine.run_once(BackgroundTask::WorkJobs).await.unwrap();
    let job = server.get(&format!("/v1/jobs/{id}")).await.json();
    assert_eq!(
        (&job["state"], &job["progress"]["done"]),
        (&json!("canary"), &json!(2)),
        "one is open"
    );
    hand.succeed(&tasks[1..]).await;
    let job = until(&server, &id, |job| job["state"] == "done").await;
    assert_eq!(
        job["progress"],
        json!({"waiting": 0, "done": 7, "came_back": 0, "refused": 0, "total": 7})
    );
    let rest = claim(&hand, 5).await;
    hand.succeed(&rest).await;
    let items = all(&server, &format!("/v1/jobs/{id}/items?")).await;
    assert_eq!(items.len(), 7);
    assert!(items.iter().all(|item| item["state"] == "done" && item["acted_at"].is_string()));
    let oldest_first: Vec<_> = items.iter().map(|item| item["position"].as_u64()).collect();
    assert_eq!(oldest_first, (1..=7).map(Some).collect::<Vec<_>>());
    let reason = format!("retry by ann: fixed (job {id})");
    assert_eq!(audit(&server, "actor=ann&verb=retry&").await, vec![reason; 7]);
    assert_eq!(server.get("/v1/incidents?state=open").await.json()["items"], json!([]));
    server.stopped().await;
}

#[tokio::test]
async fn a_canary_that_fails_stops_the_job() {
    let (server, hand, fingerprint) = stuck(4).await;
    let ask_for = json!({"verb": "retry", "incidents": {"fingerprint": fingerprint}, "reason": "fixed?",
        "rate": 1000, "canary": {"first": 1}});
    let id = create(&server, &ask_for).await;
    until(&server, &id, |job| job["progress"]["done"] == 1).await;
    let task = hand.one().await;
    fail(&hand, &task, "other", "now it is something else").await;
    let job = until(&server, &id, |job| job["state"] == "stopped").await;
    assert_eq!(
        (&job["why"], &job["progress"]["left"]),
        (&json!("one of the canary needs a person again"), &json!(3))
    );

    let mut impatient = ask_for.clone();
    impatient["canary"]["wait"] = "100ms".into();
    let id = create(&server, &impatient).await;
    let job = until(&server, &id, |job| job["state"] == "stopped").await;
    assert_eq!(job["why"], "1 of the canary did not prove themselves within 100ms");
    for verb in ["pause", "resume"] {
        let late = ask(&server, &format!("/v1/jobs/{id}/{verb}"), &json!({"reason": "?"})).await;
        assert_eq!(late.problem(409), "job_not_moving");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_job_stops_when_the_trouble_comes_back() {
    let (server, hand, fingerprint) = stuck(12).await;
    let id = create(
        &server,
        &json!({"verb": "retry", "incidents": {"workflow": "order"}, "reason": "fixed?", "rate": 5,
            "stop_when": {"count": 2}}),
    )
    .await;
    let (mut failed, began) = (0, Instant::now());
    while failed < 2 {
        server.engine.run_once(BackgroundTask::WorkJobs).await.unwrap();
        for task in hand.claim(1, Span::millis(20)).await {
            fail(&hand, &task, "card_declined", "card 4799 of 'c-99' has expired").await;
            failed += 1;
        }
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    let job = until(&server, &id, |job| job["state"] == "stopped").await;
    assert_eq!(job["progress"]["came_back"], 2);
    assert!(job["why"].as_str().unwrap().ends_with("came back"), "{job}");
    assert!(job["progress"]["left"].as_u64().unwrap() >= 7, "at five a second: {job}");
    let back = all(&server, &format!("/v1/jobs/{id}/items?state=came_back&")).await;
    assert_eq!(back.len(), 2);
    let again = all(&server, &format!("/v1/incidents?state=open&fingerprint={fingerprint}&")).await;
    assert_eq!(again.iter().filter(|incident| incident["occurrences"] == 2).count(), 2);
    server.stopped().await;
}

#[tokio::test]
async fn an_act_that_is_repeated_after_a_crash_is_one_act() {
    let (server, hand, _) = stuck(2).await;
    let id = create(
        &server,
        &json!({"verb": "retry", "incidents": {"workflow": "order"}, "reason": "fixed", "rate": 0.1}),
    )
    .await;
    until(&server, &id, |job| job["progress"]["done"] == 1).await;
    // A node acts on the second and dies before it says so.
    let items = all(&server, &format!("/v1/jobs/{id}/items?")).await;
    let incident = items[1]["incident"].as_str().unwrap();
    let body = json!({"reason": format!("fixed (job {id})")});
    assert_eq!(ask(&server, &format!("/v1/incidents/{incident}/retry"), &body).await.status, 200);
    // A pause and a resume make the job due at once.
    for verb in ["pause", "resume"] {
        let turned =
            ask(&server, &format!("/v1/jobs/{id}/{verb}"), &json!({"reason": "see"})).await;
        assert_eq!(turned.status, 200, "{turned:?}");
    }
    // Another node goes on with it.
    let other = node(server.database(), |_| {}).await;
    let began = Instant::now();
    while server.get(&format!("/v1/jobs/{id}")).await.json()["state"] != "done" {
        other.run_once(BackgroundTask::WorkJobs).await.unwrap();
        assert!(began.elapsed() < Duration::from_secs(60));
    }
    let job = server.get(&format!("/v1/jobs/{id}")).await.json();
    assert_eq!((&job["progress"]["done"], &job["progress"]["refused"]), (&json!(2), &json!(0)));
    assert_eq!(audit(&server, "verb=retry&").await.len(), 2, "one act for each");
    assert_eq!(claim(&hand, 2).await.len(), 2);
    server.stopped().await;
}

#[tokio::test]
async fn a_job_of_a_node_that_is_gone_is_gone_on_with_at_once_and_that_of_another_is_not() {
    let (server, _hand, _) = stuck(1).await;
    let other = node(server.database(), |_| {}).await;
    let mut sql = PgConnection::connect(server.database()).await.unwrap();
    let lives: i32 =
        sqlx::query_scalar("select max(id) from nodes").fetch_one(&mut sql).await.unwrap();
    let gone: i32 = sqlx::query_scalar(
        "insert into nodes (name, seen_at) values ('gone', clock_timestamp() - interval '1 minute') returning id",
    )
    .fetch_one(&mut sql)
    .await
    .unwrap();
    let body = json!({"verb": "retry", "incidents": {"workflow": "order"}, "reason": "fixed"});
    let id = create(&server, &body).await;
    until(&server, &id, |job| job["state"] == "done").await;
    // It is as if it were under way in the hands of a node that lives, then of one that does not.
    let own = "update jobs set node = $1, state = 'running', next_at = '-infinity', ended_at = null, \
         leased_until = clock_timestamp() + interval '1 hour'";
    sqlx::query(own).bind(lives).execute(&mut sql).await.unwrap();
    server.engine.run_once(BackgroundTask::WorkJobs).await.unwrap();
    let left: bool =
        sqlx::query_scalar("select leased_until is not null from jobs where id = $1::uuid")
            .bind(&id)
            .fetch_one(&mut sql)
            .await
            .unwrap();
    assert!(left, "its node lives");
    sqlx::query(own).bind(gone).execute(&mut sql).await.unwrap();
    until(&server, &id, |job| job["state"] == "done").await;
    other.stop().await;
    server.stopped().await;
}

#[tokio::test]
async fn runs_are_acted_on_by_their_filter_and_each_refusal_is_told() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("order", &["pay"])).await.unwrap();
    let mut runs = Vec::new();
    for number in 0..6 {
        let mut request = start("order", "1");
        request.labels.insert("batch".to_owned(), (number % 2).to_string());
        runs.push(server.engine.start_run(NS, request).await.unwrap().id);
    }
    let ask_for = json!({"verb": "cancel", "runs": {"workflow": "order", "labels": {"batch": "1"}},
        "reason": "a test batch", "rate": 1000});
    let id = create(&server, &ask_for).await;
    let job = until(&server, &id, |job| job["state"] == "done").await;
    assert_eq!((&job["progress"]["done"], &job["progress"]["total"]), (&json!(3), &json!(3)));
    let ended = server.get("/v1/runs?workflow=order&state=ended&label=batch:1").await.json();
    assert_eq!(ended["items"].as_array().unwrap().len(), 3);
    assert_eq!(server.get("/v1/runs?state=ended&label=batch:0").await.json()["items"], json!([]));
    let kill =
        json!({"verb": "abandon", "runs": {"labels": {"batch": "1"}}, "reason": "?", "rate": 1000});
    let id = create(&server, &kill).await;
    let job = until(&server, &id, |job| job["state"] == "done").await;
    assert_eq!(job["progress"]["refused"], 3, "{job}");
    let items = all(&server, &format!("/v1/jobs/{id}/items?state=refused&")).await;
    assert_eq!((items.len(), &items[0]["code"]), (3, &json!("run_ended")));
    for (verb, ended) in [("cancel", json!(3)), ("compensate", json!(null))] {
        let ask_for = json!({"verb": verb, "runs": {"workflow": "order"}, "dry_run": true});
        let planned = server.post("/v1/jobs", ask_for).await.json();
        assert_eq!((&planned["count"], &planned["ended"]), (&json!(6), &ended), "{verb}");
    }
    assert_eq!(all(&server, "/v1/jobs?state=done&").await.len(), 2);
    server.stopped().await;
}

#[tokio::test]
async fn a_job_is_paused_stopped_and_refused() {
    let (server, _hand, _) = stuck(3).await;
    let slow = json!({"verb": "cancel", "incidents": {}, "reason": "gone", "rate": 0.1});
    let id = create(&server, &slow).await;
    until(&server, &id, |job| job["progress"]["done"] == 1).await;
    let paused = ask(&server, &format!("/v1/jobs/{id}/pause"), &json!({"reason": "wait"})).await;
    assert_eq!(
        (&paused.json()["state"], &paused.json()["why"]),
        (&json!("paused"), &json!("paused by ann: wait"))
    );
    let stopped = ask(&server, &format!("/v1/jobs/{id}/stop"), &json!({"reason": "enough"})).await;
    assert_eq!(
        (&stopped.json()["state"], stopped.json()["ended_at"].is_string()),
        (&json!("stopped"), true)
    );
    assert_eq!(
        audit(&server, &format!("job={id}&")).await,
        ["stop by ann: enough", "pause by ann: wait", "create by ann: gone"]
    );
    assert_eq!(
        server.get("/v1/incidents?state=open").await.json()["items"].as_array().unwrap().len(),
        2
    );
    for (body, place) in [
        (json!({"verb": "retry", "incidents": {}}), "/reason"),
        (json!({"verb": "retry", "reason": "?"}), ""),
        (json!({"verb": "retry", "incidents": {}, "runs": {}, "reason": "?"}), ""),
        (json!({"verb": "retry", "incidents": {}, "reason": "?", "rate": 0}), "/rate"),
        (
            json!({"verb": "retry", "incidents": {}, "reason": "?", "canary": {"first": 0}}),
            "/canary/first",
        ),
        (
            json!({"verb": "retry", "incidents": {}, "reason": "?", "stop_when": {"ratio": 2}}),
            "/stop_when/ratio",
        ),
        (json!({"verb": "mark-compensated", "runs": {}, "reason": "?"}), "/verb"),
        (
            json!({"verb": "retry", "incidents": {"state": "resolved"}, "reason": "?"}),
            "/incidents/state",
        ),
        (
            json!({"verb": "retry", "incidents": {"kind": "a\u{0}"}, "reason": "?"}),
            "/incidents/kind",
        ),
    ] {
        let refused = ask(&server, "/v1/jobs", &body).await;
        assert_eq!(refused.problem(422), "invalid_request", "{body}");
        assert_eq!(refused.json()["errors"][0]["pointer"], place, "{body}");
    }
    // The same request with the same key is the same job.
    let keyed = || {
        let request = server.request("POST", "/v1/jobs").header("idempotency-key", "once");
        send(with_json(request, &slow))
    };
    let (first, second) = (keyed().await, keyed().await);
    assert_eq!((first.status, first.text), (201, second.text));
    assert_eq!(all(&server, "/v1/jobs?").await.len(), 2);
    server.stopped().await;
}

/// Four runs of one workflow that nobody works on.
async fn four() -> (Server, Vec<String>) {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("order", &["pay"])).await.unwrap();
    let mut runs = Vec::new();
    for _ in 0..4 {
        runs.push(server.engine.start_run(NS, start("order", "1")).await.unwrap().id.to_string());
    }
    (server, runs)
}

#[tokio::test]
async fn runs_are_paused_resumed_labelled_and_killed_by_a_job() {
    let (server, runs) = four().await;
    let of = |verb: &str, more: Value| {
        let mut body =
            json!({"verb": verb, "runs": {"workflow": "order"}, "reason": "moving", "rate": 1000});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let done = async |body: Value| {
        let id = create(&server, &body).await;
        let job =
            until(&server, &id, |job| job["state"] == "done" || job["state"] == "stopped").await;
        assert_eq!((&job["state"], &job["progress"]["done"]), (&json!("done"), &json!(4)), "{job}");
    };
    let count = async |filter: &str| {
        let found = server.get(&format!("/v1/runs?{filter}")).await.json();
        found["items"].as_array().unwrap().len()
    };
    done(of("pause", json!({"canary": {"first": 1, "wait": "5s"}}))).await;
    assert_eq!(count("state=paused").await, runs.len());
    done(of("label", json!({"set": {"team": "x"}}))).await;
    assert_eq!(count("label=team:x").await, runs.len());
    done(of("resume", json!({}))).await;
    assert_eq!(count("state=paused").await, 0);
    done(of("kill", json!({}))).await;
    assert_eq!(count("state=ended").await, runs.len());
    server.stopped().await;
}

#[tokio::test]
async fn what_runs_leave_that_a_job_kills_has_not_come_back() {
    let server = Server::start(Access::Open).await;
    let waits = r#"{"name":"order","version":1,"steps":[
        {"id":"pay","task":{"name":"do","input":{"const":1},"compensate":{"name":"undo"}}},
        {"id":"go","after":["pay"],"wait":{"signal":"go","timeout":"1d"}}]}"#;
    server.engine.register(NS, waits).await.unwrap();
    let hand = Hand::new(&server.engine);
    for _ in 0..3 {
        server.engine.start_run(NS, start("order", "1")).await.unwrap();
    }
    let tasks = claim(&hand, 3).await;
    hand.succeed(&tasks).await;
    let body = json!({"verb": "kill", "runs": {"workflow": "order"}, "canary": {"first": 1, "wait": "1m"},
        "stop_when": {"count": 1}, "reason": "they go on for ever", "rate": 1000});
    let id = create(&server, &body).await;
    let job = until(&server, &id, |job| job["state"] == "done" || job["state"] == "stopped").await;
    assert_eq!((&job["state"], &job["progress"]["done"]), (&json!("done"), &json!(3)), "{job}");
    let open = all(&server, "/v1/incidents?").await;
    let left = open.iter().filter(|one| one["kind"] == "effects_left");
    assert_eq!(left.count(), 3, "each is told: {open:?}");
    server.stopped().await;
}

#[tokio::test]
async fn runs_are_sent_a_signal_and_gone_back_with_by_a_job() {
    let server = Server::start(Access::Open).await;
    let waits = r#"{"name":"order","version":1,"steps":[
        {"id":"go","wait":{"signal":"go","schema":{"type":"object"},"timeout":"1d"}},
        {"id":"pay","after":["go"],"task":{"name":"do","input":{"path":"/steps/go"},"compensate":{"name":"undo"}}}]}"#;
    server.engine.register(NS, waits).await.unwrap();
    let hand = Hand::new(&server.engine);
    for _ in 0..2 {
        server.engine.start_run(NS, start("order", "1")).await.unwrap();
    }
    let wrong = json!({"verb": "signal", "runs": {}, "signal": "go", "data": 7, "reason": "?", "rate": 1000});
    let id = create(&server, &wrong).await;
    let job = until(&server, &id, |job| job["state"] == "done").await;
    assert_eq!(job["progress"]["refused"], 2, "{job}");
    let items = all(&server, &format!("/v1/jobs/{id}/items?")).await;
    assert_eq!(items[0]["code"], "invalid_data");
    let right = json!({"verb": "signal", "runs": {}, "signal": "go", "data": {"n": 1}, "reason": "go", "rate": 1000});
    let id = create(&server, &right).await;
    let job = until(&server, &id, |job| job["state"] == "done").await;
    assert_eq!(job["progress"]["done"], 2, "{job}");
    let tasks = claim(&hand, 2).await;
    hand.succeed(&tasks).await;
    let rerun = json!({"verb": "rerun", "runs": {"state": "ended"}, "from": "pay", "reason": "again", "rate": 1000});
    let planned = ask(
        &server,
        "/v1/jobs",
        &json!({"verb": "rerun", "runs": {"state": "ended"}, "from": "pay", "dry_run": true}),
    )
    .await;
    assert_eq!((planned.status, &planned.json()["count"]), (200, &json!(2)));
    let id = create(&server, &rerun).await;
    let job = until(&server, &id, |job| job["state"] == "done").await;
    assert_eq!(job["progress"]["done"], 2, "{job}");
    assert_eq!(audit(&server, "actor=ann&verb=rerun&").await.len(), 2);
    // The runs have ended again, and the node that acted on them had died before it noted that.
    for _ in 0..2 {
        hand.succeed(&claim(&hand, 2).await).await;
    }
    assert_eq!(all(&server, "/v1/runs?state=ended&").await.len(), 2);
    let mut outside = PgConnection::connect(server.database()).await.unwrap();
    for lost in [
        "update job_items set state = 'waiting', acted_at = null where state = 'done'",
        "update jobs set state = 'running', done = 0, ended_at = null, node = null, leased_until = null \
         where asked like '%rerun%'",
    ] {
        sqlx::query(lost).execute(&mut outside).await.unwrap();
    }
    let job = until(&server, &id, |job| job["state"] == "done").await;
    assert_eq!(job["progress"]["done"], 2, "{job}");
    assert_eq!(audit(&server, "actor=ann&verb=rerun&").await.len(), 2, "each is done once");
    server.stopped().await;
}

#[tokio::test]
async fn what_a_verb_needs_belongs_to_it_and_to_no_other() {
    let (server, _) = four().await;
    for (body, place) in [
        (json!({"verb": "rerun"}), "/from"),
        (json!({"verb": "signal"}), "/signal"),
        (json!({"verb": "label"}), "/set"),
        (json!({"verb": "label", "set": {"a:b": "c"}}), "/set/a:b"),
        (json!({"verb": "kill", "from": "pay"}), "/from"),
        (json!({"verb": "pause", "data": 1}), "/data"),
        (json!({"verb": "resume", "set": {"a": "b"}}), "/set"),
    ] {
        let mut body = body;
        body.as_object_mut()
            .unwrap()
            .extend([("runs".to_owned(), json!({})), ("reason".to_owned(), json!("?"))]);
        let refused = ask(&server, "/v1/jobs", &body).await;
        assert_eq!(refused.problem(422), "invalid_request", "{body}");
        assert_eq!(refused.json()["errors"][0]["pointer"], place, "{body}");
    }
    server.stopped().await;
}
