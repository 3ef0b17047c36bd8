//! Subscriptions with an order or a limit: events of a key start their runs one after the other, and what became of a run lets those
//! behind it go on or not.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_saga::Span;
use backstitch_saga::protocol::{FailureKind, TaskOffer};
use backstitch_tests::node::{Hand, NS, chain, metric};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

const PATH: &str = "/v1/subscriptions/sync";
/// Its step waits for a person when it fails.
const SYNC: &str = r#"{"name":"sync","version":1,"steps":[{"id":"a","task":{"name":"do","class":"retriable","input":{"path":"/input"},
    "retry":{"first_delay":"10ms","jitter":"none","max_attempts":1},"timeouts":{"heartbeat":"5s","attempt":"10s"}}}]}"#;

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, SYNC).await.unwrap();
    server.engine.register(NS, &chain("undone", &["a"])).await.unwrap();
    server
}

async fn put(server: &Server, spec: Value) -> Answer {
    let mut whole = json!({"workflow": "sync", "input": "data", "key": "/key", "from": 0});
    for (name, value) in spec.as_object().unwrap() {
        whole[name] = value.clone();
    }
    send(with_json(server.request("PUT", PATH), whole)).await
}

/// Publishes one event for each, as `key:number`.
async fn publish(server: &Server, events: &[&str]) {
    let events: Vec<Value> = events
        .iter()
        .map(|text| {
            let (key, number) = text.split_once(':').unwrap();
            json!({"type": "t", "data": {"key": key, "n": number.parse::<u64>().unwrap()}})
        })
        .collect();
    let answer = server.post("/v1/events", json!({"events": events})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

fn event_of(task: &TaskOffer) -> String {
    let data: Value = serde_json::from_str(task.input.text()).unwrap();
    format!("{}:{}", data["key"].as_str().unwrap(), data["n"])
}

/// Claims so many tasks, and returns them by what they are for.
async fn claim(hand: &Hand, count: usize) -> Vec<(String, TaskOffer)> {
    let mut tasks = Vec::new();
    let until = Instant::now() + Duration::from_secs(20);
    while tasks.len() < count {
        assert!(Instant::now() < until, "{count} tasks, and there are {}", tasks.len());
        tasks.extend(hand.claim(10, Span::millis(200)).await);
    }
    let mut tasks: Vec<_> = tasks.into_iter().map(|task| (event_of(&task), task)).collect();
    tasks.sort_by(|one, other| one.0.cmp(&other.0));
    tasks
}

fn names(tasks: &[(String, TaskOffer)]) -> Vec<&str> {
    tasks.iter().map(|(name, _)| name.as_str()).collect()
}

async fn until(server: &Server, path: &str, when: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let view = server.get(path).await.json();
        if when(&view) {
            return view;
        }
        assert!(Instant::now() < until, "{view}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn blocked(server: &Server, count: usize) -> Value {
    let path = format!("{PATH}/keys?state=blocked");
    until(server, &path, |page| page["items"].as_array().unwrap().len() == count).await
}

async fn at_rest(server: &Server) -> Value {
    until(server, PATH, |view| {
        view["behind"] == 0
            && view["pending"] == json!({"waiting": 0, "in_flight": 0, "blocked": 0})
    })
    .await
}

async fn skip(server: &Server, body: Value) -> Answer {
    server.post(&format!("{PATH}/skip"), body).await
}

#[tokio::test]
async fn events_of_one_key_start_their_runs_one_after_the_other_and_other_keys_go_on() {
    let server = server().await;
    assert_eq!(put(&server, json!({})).await.status, 201);
    publish(&server, &["a:1", "a:2", "b:1", "a:3"]).await;
    let hand = Hand::new(&server.engine);
    let first = claim(&hand, 2).await;
    assert_eq!(names(&first), ["a:1", "b:1"]);
    let view = until(&server, PATH, |view| view["pending"]["in_flight"] == 2).await;
    assert_eq!((&view["pending"]["waiting"], &view["position"]), (&json!(2), &json!(4)));
    assert!(view["behind_seconds"].is_u64(), "{view}");
    let keys = server.get(&format!("{PATH}/keys")).await.json();
    let found: Vec<_> = keys["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|key| {
            (
                key["key"].as_str().unwrap(),
                key["state"].as_str().unwrap(),
                key["waiting"].as_u64().unwrap(),
            )
        })
        .collect();
    assert_eq!(found, [("a", "in_flight", 2), ("b", "in_flight", 0)]);
    assert!(hand.claim(10, Span::millis(100)).await.is_empty(), "nothing overtakes");
    hand.succeed(&[first[0].1.clone()]).await;
    let second = claim(&hand, 1).await;
    assert_eq!(names(&second), ["a:2"]);
    hand.succeed(&[second[0].1.clone(), first[1].1.clone()]).await;
    let third = claim(&hand, 1).await;
    assert_eq!(names(&third), ["a:3"]);
    hand.succeed(&[third[0].1.clone()]).await;
    let view = at_rest(&server).await;
    assert_eq!((&view["started"], &view["skipped"]), (&json!(4), &json!(0)));
    assert!(view.get("behind_seconds").is_none(), "{view}");
    let runs = server.get("/v1/runs").await.json();
    let mut keys: Vec<&str> =
        runs["items"].as_array().unwrap().iter().map(|run| run["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["sync/1/1", "sync/1/2", "sync/1/3", "sync/1/4"]);
    server.stopped().await;
}

#[tokio::test]
async fn a_key_whose_run_needs_a_person_is_blocked_until_the_run_goes_on_or_the_event_is_skipped() {
    let server = server().await;
    // With room for one run: what blocks a key takes none.
    assert_eq!(put(&server, json!({"max_in_flight": 1})).await.status, 201);
    publish(&server, &["a:1", "a:2", "b:1", "c:1"]).await;
    let hand = Hand::new(&server.engine);
    let task = hand.one().await;
    assert_eq!(event_of(&task), "a:1");
    hand.fail(&task, FailureKind::Permanent).await;
    let keys = blocked(&server, 1).await;
    let key = &keys["items"][0];
    assert_eq!(
        (&key["key"], &key["position"], &key["waiting"]),
        (&json!("a"), &json!(1), &json!(1))
    );
    assert_eq!((&key["code"], &key["run"]), (&json!("run_parked"), &json!(task.run)));
    let incident = key["incident"].as_str().unwrap().to_owned();
    assert_eq!(server.get(&format!("/v1/incidents/{incident}")).await.status, 200);
    let task = hand.one().await;
    assert_eq!(event_of(&task), "b:1");
    hand.fail(&task, FailureKind::Permanent).await;
    blocked(&server, 2).await;
    let third = hand.one().await;
    assert_eq!(event_of(&third), "c:1");
    let unknown = skip(&server, json!({"position": 4, "reason": "r"})).await;
    assert_eq!(unknown.problem(409), "event_not_blocked");
    let unsaid = skip(&server, json!({"reason": "r"})).await;
    assert_eq!(unsaid.problem(409), "subscription_not_stopped");
    let skipped = skip(&server, json!({"position": 1, "reason": "it is wrong"})).await;
    assert_eq!(
        (skipped.status, &skipped.json()["skipped_by_reason"]),
        (200, &json!({"by_hand": 1}))
    );
    hand.succeed(&[third]).await;
    let task = hand.one().await;
    assert_eq!(event_of(&task), "a:2");
    hand.succeed(&[task]).await;
    // The run of the other is repaired: its key goes on by itself.
    let run = blocked(&server, 1).await["items"][0]["run"].as_str().unwrap().to_owned();
    let retry =
        server.post(&format!("/v1/runs/{run}/steps/a/retry"), json!({"reason": "mended"})).await;
    assert_eq!(retry.status, 200, "{retry:?}");
    publish(&server, &["b:2"]).await;
    let task = hand.one().await;
    assert_eq!(event_of(&task), "b:1");
    hand.succeed(&[task]).await;
    let task = hand.one().await;
    assert_eq!(event_of(&task), "b:2");
    hand.succeed(&[task]).await;
    at_rest(&server).await;
    let skips = server.get(&format!("{PATH}/skips")).await.json();
    let skips = skips["items"].as_array().unwrap();
    assert_eq!(skips.len(), 1);
    assert_eq!(
        (&skips[0]["position"], &skips[0]["key"], &skips[0]["reason"]),
        (&json!(1), &json!("a"), &json!("by_hand"))
    );
    assert!(skips[0]["actor"].is_string() && skips[0]["run"].is_string(), "{skips:?}");
    let acts = server.get("/v1/acts?subscription=sync").await.json();
    assert_eq!(acts["items"][0]["verb"], "skip");
    server.stopped().await;
}

#[tokio::test]
async fn a_run_that_has_failed_blocks_its_key_too_or_is_passed_over_as_the_subscription_says() {
    let server = server().await;
    assert_eq!(put(&server, json!({"workflow": "undone"})).await.status, 201);
    publish(&server, &["a:1", "a:2"]).await;
    let hand = Hand::new(&server.engine);
    let task = hand.one().await;
    hand.fail(&task, FailureKind::Permanent).await;
    let keys = blocked(&server, 1).await;
    assert_eq!(keys["items"][0]["code"], "run_failed");
    assert!(keys["items"][0].get("incident").is_none(), "{keys}");
    // The policy holds for what was there before, too.
    let changed = put(&server, json!({"workflow": "undone", "on_failure": "skip"})).await;
    assert_eq!(changed.status, 200, "{changed:?}");
    let task = hand.one().await;
    assert_eq!(event_of(&task), "a:2");
    hand.fail(&task, FailureKind::Permanent).await;
    let view = at_rest(&server).await;
    assert_eq!(view["skipped_by_reason"], json!({"run_failed": 2}));
    let page = server.get(&format!("{PATH}/skips?limit=1")).await.json();
    assert_eq!(
        (&page["items"][0]["position"], page["items"].as_array().unwrap().len()),
        (&json!(2), 1)
    );
    let next = page["next"].as_str().unwrap();
    let page = server.get(&format!("{PATH}/skips?limit=1&after={next}")).await.json();
    assert_eq!(page["items"][0]["position"], 1);
    server.stopped().await;
}

#[tokio::test]
async fn one_that_stops_for_all_starts_nothing_until_its_event_is_settled() {
    let server = server().await;
    assert_eq!(put(&server, json!({"on_failure": "stop_all"})).await.status, 201);
    publish(&server, &["a:1", "b:1"]).await;
    let hand = Hand::new(&server.engine);
    let tasks = claim(&hand, 2).await;
    hand.fail(&tasks[0].1, FailureKind::Permanent).await;
    let view = until(&server, PATH, |view| view["state"] == "stopped").await;
    assert_eq!(
        (&view["stopped"]["position"], &view["stopped"]["code"]),
        (&json!(1), &json!("run_parked"))
    );
    publish(&server, &["c:1"]).await;
    // What is under way goes on.
    hand.succeed(&[tasks[1].1.clone()]).await;
    server.engine.run_once(BackgroundTask::Dispatch).await.unwrap();
    assert!(hand.claim(1, Span::millis(100)).await.is_empty(), "nothing starts");
    let view = server.get(PATH).await.json();
    assert_eq!((&view["state"], &view["position"]), (&json!("stopped"), &json!(2)));
    let skipped = skip(&server, json!({"reason": "it is wrong"})).await;
    assert_eq!((skipped.status, &skipped.json()["state"]), (200, &json!("active")));
    let task = hand.one().await;
    assert_eq!(event_of(&task), "c:1");
    hand.succeed(&[task]).await;
    let view = at_rest(&server).await;
    assert_eq!(
        (&view["state"], &view["skipped_by_reason"]),
        (&json!("active"), &json!({"by_hand": 1}))
    );
    server.stopped().await;
}

#[tokio::test]
async fn limits_keep_events_in_the_log_and_hold_no_producer_up() {
    let server = server().await;
    let spec = json!({"key": null, "max_in_flight": 2, "max_backlog": 4});
    assert_eq!(put(&server, spec).await.status, 201);
    let events: Vec<String> = (1..=9).map(|number| format!("k:{number}")).collect();
    for event in &events {
        publish(&server, &[event]).await;
    }
    let hand = Hand::new(&server.engine);
    let (mut seen, mut held) = (Vec::new(), Vec::new());
    while seen.len() < 9 {
        held.extend(claim(&hand, 1).await);
        let view = server.get(PATH).await.json();
        let count = |name: &str| view["pending"][name].as_u64().unwrap();
        assert!(held.len() <= 2 && count("in_flight") <= 2, "{view}");
        assert!(count("in_flight") + count("waiting") <= 4, "{view}");
        if held.len() == 2 || seen.len() + held.len() == 9 {
            let done = std::mem::take(&mut held);
            hand.succeed(&done.iter().map(|(_, task)| task.clone()).collect::<Vec<_>>()).await;
            seen.extend(done.into_iter().map(|(name, _)| name));
        }
    }
    seen.sort();
    assert_eq!(seen, events);
    at_rest(&server).await;
    for (name, value) in [("max_in_flight", 0), ("max_in_flight", 10_001), ("max_backlog", 100_001)]
    {
        let refused = put(&server, json!({(name): value})).await;
        assert_eq!(refused.problem(422), "invalid_subscription");
        assert_eq!(refused.json()["errors"][0]["pointer"], format!("/{name}"));
    }
    let refused = put(&server, json!({"key": "key"})).await;
    assert_eq!(
        (refused.problem(422), &refused.json()["errors"][0]["pointer"]),
        ("invalid_subscription".into(), &json!("/key"))
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_start_that_is_refused_blocks_its_key_only_and_a_missing_workflow_stops_all() {
    let server = Server::start(Access::Open).await;
    assert_eq!(put(&server, json!({})).await.status, 201);
    publish(&server, &["a:1"]).await;
    let view = until(&server, PATH, |view| view["state"] == "stopped").await;
    assert_eq!(view["stopped"]["code"], "unknown_workflow");
    let strict = SYNC.replacen(
        r#""version":1,"#,
        r#""version":1,"input_schema":{"properties":{"n":{"type":"integer","maximum":10}}},"#,
        1,
    );
    server.engine.register(NS, &strict).await.unwrap();
    publish(&server, &["b:11", "b:1", "c:1"]).await;
    assert_eq!(
        server.post(&format!("{PATH}/skip"), json!({"reason": "it is old"})).await.status,
        200
    );
    let hand = Hand::new(&server.engine);
    let tasks = claim(&hand, 1).await;
    assert_eq!(names(&tasks), ["c:1"]);
    let keys = blocked(&server, 1).await;
    assert_eq!(
        (&keys["items"][0]["key"], &keys["items"][0]["code"]),
        (&json!("b"), &json!("invalid_input"))
    );
    assert!(keys["items"][0].get("run").is_none(), "{keys}");
    assert_eq!(skip(&server, json!({"position": 2, "reason": "r"})).await.status, 200);
    let more = claim(&hand, 1).await;
    assert_eq!(names(&more), ["b:1"]);
    hand.succeed(&[tasks[0].1.clone(), more[0].1.clone()]).await;
    let view = at_rest(&server).await;
    assert_eq!((&view["skipped_by_reason"], &view["started"]), (&json!({"by_hand": 2}), &json!(2)));
    server.stopped().await;
}

#[tokio::test]
async fn a_reset_keeps_the_order_of_a_key_behind_runs_that_are_under_way() {
    let server = server().await;
    assert_eq!(put(&server, json!({})).await.status, 201);
    publish(&server, &["a:1", "a:2"]).await;
    let hand = Hand::new(&server.engine);
    let before = claim(&hand, 1).await;
    let paused = server.post(&format!("{PATH}/pause"), json!({"reason": "r"})).await;
    assert_eq!(paused.json()["state"], "paused");
    let reset = server.post(&format!("{PATH}/reset"), json!({"position": 0, "reason": "r"})).await;
    assert_eq!((reset.status, &reset.json()["generation"]), (200, &json!(2)));
    server.engine.run_once(BackgroundTask::Dispatch).await.unwrap();
    assert_eq!(server.get(PATH).await.json()["position"], 0);
    assert_eq!(server.post(&format!("{PATH}/resume"), json!({"reason": "r"})).await.status, 200);
    until(&server, PATH, |view| view["pending"]["waiting"] == 2).await;
    assert!(
        hand.claim(1, Span::millis(100)).await.is_empty(),
        "the first generation has not ended"
    );
    hand.succeed(&[before[0].1.clone()]).await;
    for expected in ["a:1", "a:2"] {
        let task = claim(&hand, 1).await;
        assert_eq!(names(&task), [expected]);
        hand.succeed(&[task[0].1.clone()]).await;
    }
    at_rest(&server).await;
    let runs = server.get("/v1/runs").await.json();
    let mut keys: Vec<&str> =
        runs["items"].as_array().unwrap().iter().map(|run| run["key"].as_str().unwrap()).collect();
    keys.sort_unstable();
    assert_eq!(keys, ["sync/1/1", "sync/2/1", "sync/2/2"]);
    assert_eq!(send(server.request("DELETE", PATH)).await.status, 204);
    let missing = server.get(&format!("{PATH}/keys")).await;
    assert_eq!(missing.problem(404), "unknown_subscription");
    server.stopped().await;
}

#[tokio::test]
async fn what_another_node_sees_or_nobody_hears_is_found_by_looking() {
    let server = server().await;
    let other = server.beside().await;
    assert_eq!(put(&server, json!({})).await.status, 201);
    publish(&server, &["a:1", "a:2", "a:3"]).await;
    // The runs are worked on at the other node.
    let hand = Hand::new(&other.engine);
    for expected in ["a:1", "a:2", "a:3"] {
        let task = claim(&hand, 1).await;
        assert_eq!(names(&task), [expected]);
        hand.succeed(&[task[0].1.clone()]).await;
    }
    at_rest(&server).await;
    // Rows as of a node that died after it had written under which ids runs begin.
    publish(&server, &["b:1"]).await;
    let task = claim(&hand, 1).await;
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    let done = sqlx::query(
        "update subscription_event set state = 'starting' where key = 'b' and state = 'started'",
    )
    .execute(&mut owner);
    until(&server, PATH, |view| view["pending"]["in_flight"] == 1).await;
    done.await.unwrap();
    hand.succeed(&[task[0].1.clone()]).await;
    at_rest(&server).await;
    let runs: i64 =
        sqlx::query_scalar("select count(*) from runs").fetch_one(&mut owner).await.unwrap();
    assert_eq!(runs, 4, "each event has one run");
    assert!(
        metric(&server.engine, "subscription_starts_total")
            + metric(&other.engine, "subscription_starts_total")
            >= 4.0
    );
    other.stopped().await;
    server.stopped().await;
}

#[tokio::test]
async fn many_subscriptions_that_want_nothing_of_what_comes_are_moved_past_it_together() {
    let server = server().await;
    for number in 0..40 {
        // One of them wants what comes.
        let wanted = if number == 7 { "t" } else { "other" };
        let spec =
            json!({"workflow": "sync", "input": "data", "from": 0, "filter": {"types": [wanted]}});
        let path = format!("/v1/subscriptions/many-{number}");
        assert_eq!(send(with_json(server.request("PUT", &path), spec)).await.status, 201);
    }
    let events: Vec<String> = (1..=20).map(|number| format!("k:{number}")).collect();
    publish(&server, &events.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let page = until(&server, "/v1/subscriptions", |page| {
        page["items"].as_array().unwrap().iter().all(|one| one["position"] == 20)
    })
    .await;
    let started: u64 =
        page["items"].as_array().unwrap().iter().map(|one| one["started"].as_u64().unwrap()).sum();
    assert_eq!((started, &page["items"][0]["skipped"]), (20, &json!(0)));
    server.stopped().await;
}
