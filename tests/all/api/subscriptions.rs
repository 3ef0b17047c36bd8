//! Subscriptions over HTTP: each event that is wanted starts one run, whoever dies and however often it is looked.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_tests::node::{NS, chain, metric};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

const PATH: &str = "/v1/subscriptions/welcome";

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("greet", &["a"])).await.unwrap();
    server
}

async fn publish(server: &Server, events: Value) {
    let answer = server.post("/v1/events", json!({ "events": events })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
}

async fn put(server: &Server, spec: Value) -> Answer {
    send(with_json(server.request("PUT", PATH), spec)).await
}

/// Returns the subscription once it satisfies `when`.
async fn until(server: &Server, when: impl Fn(&Value) -> bool) -> Value {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let view = server.get(PATH).await.json();
        if when(&view) {
            return view;
        }
        assert!(Instant::now() < until, "{view}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn at(server: &Server, position: u64) -> Value {
    until(server, |view| view["position"] == position).await
}

/// Returns the inputs of all runs by their keys.
async fn inputs(server: &Server) -> Vec<(String, Value)> {
    let runs = server.get("/v1/runs?limit=1000").await.json();
    let mut found = Vec::new();
    for run in runs["items"].as_array().unwrap() {
        let id = run["id"].as_str().unwrap();
        let view = server.get(&format!("/v1/runs/{id}")).await.json();
        found.push((view["key"].as_str().unwrap().to_owned(), view["input"].clone()));
    }
    found.sort_by(|one, other| one.0.cmp(&other.0));
    found
}

#[tokio::test]
async fn each_event_that_is_wanted_starts_one_run_with_the_story_of_the_event() {
    let server = server().await;
    publish(&server, json!([{"type": "customer.before"}])).await;
    let spec = json!({"filter": {"types": ["customer.*"], "ops": ["C", "U"]}, "workflow": "greet", "input": "data"});
    // Where the head has come to is seen by then.
    while server.get("/v1/events").await.json()["head"] != 1 {}
    assert_eq!(put(&server, spec.clone()).await.status, 201);
    let customer = |data: Value| json!({"type": "customer.seen", "stream": "customer:1", "op": "S", "correlation_id": "story", "data": data});
    publish(
        &server,
        json!([
            customer(json!({"a": 1})),
            customer(json!({"a": 1})),
            {"type": "order.placed", "stream": "order:1", "op": "C"},
            customer(json!({"a": 2})),
        ]),
    )
    .await;
    let view = at(&server, 5).await;
    assert_eq!(
        (&view["started"], &view["behind"], &view["state"]),
        (&json!(2), &json!(0), &json!("active"))
    );
    let found = inputs(&server).await;
    let expected = [("welcome/1/2", json!({"a": 1})), ("welcome/1/5", json!({"a": 2}))]
        .map(|(key, input)| (key.to_owned(), input));
    assert_eq!(found, expected);
    let runs = server.get("/v1/runs").await.json();
    assert!(
        runs["items"].as_array().unwrap().iter().all(|run| run["correlation_id"] == "story"),
        "{runs}"
    );
    let same = put(&server, spec).await;
    assert_eq!((same.status, &same.json()["position"]), (200, &json!(5)));
    assert!(metric(&server.engine, "subscription_starts_total") >= 2.0);
    server.stopped().await;
}

#[tokio::test]
async fn a_cursor_that_was_not_moved_starts_nothing_twice() {
    let server = server().await;
    let other = server.beside().await;
    assert_eq!(put(&server, json!({"workflow": "greet"})).await.status, 201);
    let events: Vec<Value> = (0..450).map(|at| json!({"type": format!("t{at}")})).collect();
    publish(&server, json!(events)).await;
    at(&server, 450).await;
    let mut owner = PgConnection::connect(server.database()).await.unwrap();
    // As if nodes had died after their starts, again and again, with the subscription in their hands.
    for _ in 0..3 {
        sqlx::query("update subscription set position = 0, taken_by = 77, taken_until = now() + interval '1 hour'")
            .execute(&mut owner)
            .await
            .unwrap();
        let both = [&server, &other].map(|server| server.engine.run_once(BackgroundTask::Dispatch));
        futures::future::try_join_all(both).await.unwrap();
        at(&server, 450).await;
    }
    let runs: i64 =
        sqlx::query_scalar("select count(*) from runs").fetch_one(&mut owner).await.unwrap();
    assert_eq!(runs, 450);
    let found = inputs(&server).await;
    assert_eq!(found[0].1["type"], "t0");
    assert_eq!(
        (&found[0].1["position"], &found[0].1["source"]),
        (&json!(1), &json!("api/anonymous"))
    );
    other.stopped().await;
    server.stopped().await;
}

#[tokio::test]
async fn an_event_whose_start_is_refused_stops_the_subscription_until_it_is_accepted_or_skipped() {
    let server = Server::start(Access::Open).await;
    let made = put(&server, json!({"workflow": "greet"})).await;
    assert_eq!(
        (made.status, &made.json()["warnings"][0]["code"]),
        (201, &json!("unknown_workflow"))
    );
    assert_eq!(server.get(PATH).await.json()["warnings"], made.json()["warnings"]);
    assert_eq!(
        server.post(&format!("{PATH}/skip"), json!({"reason": "r"})).await.problem(409),
        "subscription_not_stopped"
    );
    publish(&server, json!([{"type": "a"}, {"type": "b"}])).await;
    let view = until(&server, |view| view["state"] == "stopped").await;
    assert_eq!((&view["position"], &view["stopped"]["position"]), (&json!(0), &json!(1)));
    assert_eq!(view["stopped"]["code"], "unknown_workflow");
    let skipped = server.post(&format!("{PATH}/skip"), json!({"reason": "it is old"})).await;
    assert_eq!((skipped.status, &skipped.json()["position"]), (200, &json!(1)));
    let view = until(&server, |view| view["stopped"]["position"] == 2).await;
    assert_eq!(view["state"], "stopped");
    server.engine.register(NS, &chain("greet", &["a"])).await.unwrap();
    let resumed = put(&server, json!({"workflow": "greet", "version": 1})).await;
    assert_eq!(resumed.json()["state"], "active");
    assert!(resumed.json().get("warnings").is_none(), "{resumed:?}");
    assert_eq!(at(&server, 2).await["started"], 1);
    let acts = server.get("/v1/acts?subscription=welcome").await.json();
    let verbs: Vec<&str> =
        acts["items"].as_array().unwrap().iter().map(|act| act["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["put", "skip", "put"]);
    server.stopped().await;
}

#[tokio::test]
async fn a_reset_starts_runs_once_more_and_a_pause_lets_events_wait() {
    let server = server().await;
    assert_eq!(put(&server, json!({"workflow": "greet", "from": 0})).await.status, 201);
    publish(&server, json!([{"type": "a"}, {"type": "b"}])).await;
    at(&server, 2).await;
    let unsaid = server.post(&format!("{PATH}/pause"), json!({"reason": ""})).await;
    assert_eq!(unsaid.problem(422), "reason_missing");
    let paused = server.post(&format!("{PATH}/pause"), json!({"reason": "r"})).await;
    assert_eq!(paused.json()["state"], "paused");
    let beyond = server.post(&format!("{PATH}/reset"), json!({"position": 3, "reason": "r"})).await;
    assert_eq!(
        (beyond.problem(422), &beyond.json()["errors"][0]["pointer"]),
        ("invalid_request".into(), &json!("/position"))
    );
    let other = json!({"workflow": "greet", "from": 3});
    let beyond = send(with_json(server.request("PUT", "/v1/subscriptions/later"), other)).await;
    assert_eq!(beyond.problem(422), "invalid_subscription");
    let reset = server.post(&format!("{PATH}/reset"), json!({"position": 1, "reason": "r"})).await;
    assert_eq!((&reset.json()["generation"], &reset.json()["position"]), (&json!(2), &json!(1)));
    server.engine.run_once(BackgroundTask::Dispatch).await.unwrap();
    assert_eq!(server.get(PATH).await.json()["position"], 1);
    let resumed = server.post(&format!("{PATH}/resume"), json!({"reason": "r"})).await;
    assert_eq!(resumed.json()["state"], "active");
    at(&server, 2).await;
    let keys: Vec<String> = inputs(&server).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["welcome/1/1", "welcome/1/2", "welcome/2/2"]);
    let request = server.bare("GET", PATH).header("backstitch-namespace", "elsewhere");
    assert_eq!(send(request).await.problem(404), "unknown_subscription");
    assert_eq!(send(server.request("DELETE", PATH)).await.status, 204);
    assert_eq!(send(server.request("DELETE", PATH)).await.problem(404), "unknown_subscription");
    server.stopped().await;
}

#[tokio::test]
async fn a_filter_that_makes_no_sense_is_refused_and_one_by_trust_counts_what_it_skips() {
    let server = server().await;
    for (filter, place) in [
        (json!({"types": ["a*"]}), "/filter/types"),
        (json!({"changed_any": ["x"]}), "/filter"),
        (json!({"sources": ["a"], "source_not": ["a"]}), "/filter/source_not"),
    ] {
        let refused = put(&server, json!({"workflow": "greet", "filter": filter})).await;
        assert_eq!(refused.problem(422), "invalid_subscription");
        assert_eq!(refused.json()["errors"][0]["pointer"], place);
    }
    let misspelt = put(&server, json!({"workflow": "greet", "filter": {"type": ["a"]}})).await;
    assert_eq!(misspelt.problem(400), "unknown_field");
    let signed = json!({"workflow": "greet", "filter": {"min_trust": "signed"}});
    assert_eq!(put(&server, signed).await.status, 201);
    publish(&server, json!([{"type": "a"}])).await;
    let view = at(&server, 1).await;
    assert_eq!((&view["skipped"], &view["started"]), (&json!(1), &json!(0)));
    server.stopped().await;
}

#[tokio::test]
async fn a_contract_of_a_vendor_is_for_mappers_only() {
    let server = server().await;
    let contract = json!({"schema": {"type": "object"}});
    let made = server.post("/v1/contracts/crm.contact/versions", contract).await;
    assert_eq!(made.status, 201, "{made:?}");
    for types in [json!(["crm.contact"]), json!(["order.placed", "crm.*"])] {
        let place = format!("/filter/types/{}", types.as_array().unwrap().len() - 1);
        let refused = put(&server, json!({"workflow": "greet", "filter": {"types": types}})).await;
        assert_eq!(refused.problem(422), "invalid_subscription");
        let error = &refused.json()["errors"][0];
        assert_eq!((&error["code"], &error["pointer"]), (&json!("vendor_contract"), &json!(place)));
    }
    // Names with a dot that are no contracts of vendors are no matter.
    let spec = json!({"workflow": "greet", "filter": {"types": ["crm.other", "order.*", "*"]}});
    let made = put(&server, spec.clone()).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json()["spec"].get("kind"), None);
    let events = json!([{"type": "crm.contact", "contract": "crm.contact@1"}, {"type": "customer", "contract": "customer@1"}]);
    publish(&server, events).await;
    let view = at(&server, 2).await;
    assert_eq!((&view["started"], &view["skipped"]), (&json!(1), &json!(0)));
    let mapper = json!({"workflow": "greet", "kind": "mapper", "filter": {"types": ["crm.*"]}});
    let changed = put(&server, mapper).await;
    assert_eq!((changed.status, &changed.json()["spec"]["kind"]), (200, &json!("mapper")));
    let again = server.post(&format!("{PATH}/reset"), json!({"position": 0, "reason": "r"})).await;
    assert_eq!(again.status, 200);
    assert_eq!(at(&server, 2).await["started"], 2);
    let keys: Vec<String> = inputs(&server).await.into_iter().map(|(key, _)| key).collect();
    assert_eq!(keys, ["welcome/1/2", "welcome/2/1"]);
    server.stopped().await;
}
