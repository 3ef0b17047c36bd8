//! Starts at a later instant, and labels that are given after the start.

use backstitch_api::Access;
use backstitch_saga::{Span, Time};
use backstitch_sdk::{StartInTransaction, StartLaterInTransaction};
use backstitch_tests::node::{Hand, NS, chain};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("one", &["a"])).await.unwrap();
    server
}

async fn start(server: &Server, more: Value) -> Answer {
    let mut body = json!({"workflow": "one"});
    body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    server.post("/v1/runs", body).await
}

fn id(answer: &Answer) -> String {
    answer.json()["id"].as_str().unwrap_or_else(|| panic!("{answer:?}")).to_owned()
}

async fn run(server: &Server, id: &str) -> Value {
    server.get(&format!("/v1/runs/{id}")).await.json()
}

/// Looks at a run until `is` holds of it.
async fn until(server: &Server, id: &str, is: impl Fn(&Value) -> bool) {
    let began = std::time::Instant::now();
    loop {
        let view = run(server, id).await;
        if is(&view) {
            return;
        }
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{view:#}");
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn a_run_started_with_a_delay_is_there_at_once_and_begins_when_its_instant_has_come() {
    let server = server().await;
    let hand = Hand::new(&server.engine);
    let made = start(&server, json!({"delay": "2s", "key": "k"})).await;
    assert_eq!(made.status, 201, "{made:?}");
    let id = id(&made);
    let view = run(&server, &id).await;
    assert_eq!(
        (&view["state"], &view["steps"][0]["state"]),
        (&json!("waiting"), &json!("waiting"))
    );
    assert_eq!(view["conditions"][0]["type"], "StartDelayed", "{view:#}");
    let why = server.get(&format!("/v1/runs/{id}/why")).await.json();
    assert_eq!(why["waits_for"][0]["kind"], "start_delayed", "{why:#}");
    assert_eq!(why["waits_for"][0]["until"], view["start_at"]);
    assert_eq!(made.json()["start_at"], view["start_at"]);
    let found = server.get("/v1/runs?condition=StartDelayed").await.json();
    assert_eq!(found["items"][0]["id"], id.as_str());
    // The same again is the same run, whenever that would begin.
    let again = start(&server, json!({"delay": "1h", "key": "k"})).await;
    assert_eq!((again.status, &again.json()["id"]), (200, &json!(id)));
    let task = hand.claim(1, Span::secs(20)).await.pop().expect("a task");
    let at = server.engine.run(NS, id.parse().unwrap(), None).await.unwrap();
    let history = server.get(&format!("/v1/runs/{id}/history")).await.json();
    let offered = history["items"].as_array().unwrap().last().unwrap()["at"].clone();
    assert!(offered.as_str().unwrap() >= view["start_at"].as_str().unwrap(), "{history:#}");
    assert_eq!(Some(at.deadline.0), at.start_at.map(|start| start.0.after(Span::days(7))));
    hand.succeed(&[task]).await;
    server.stopped().await;
}

#[tokio::test]
async fn a_start_for_an_instant_that_has_passed_begins_at_once_and_says_so() {
    let server = server().await;
    for past in [json!({"start_at": "2026-01-01T00:00:00Z"}), json!({"delay": "0s"})] {
        let made = start(&server, past).await;
        let answer = made.json();
        assert_eq!((made.status, answer.get("start_at")), (201, None), "{answer}");
        assert_eq!(run(&server, &id(&made)).await["state"], "queued");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_delayed_run_can_be_cancelled_and_killed_before_it_begins() {
    let server = server().await;
    for (verb, state) in [("cancel", "cancelled"), ("kill", "cancelled")] {
        let id = id(&start(&server, json!({"delay": "30d"})).await);
        let path = format!("/v1/runs/{id}/{verb}");
        let answer = server.post(&path, json!({"reason": "not needed"})).await;
        assert!(answer.status < 300, "{answer:?}");
        let view = run(&server, &id).await;
        assert_eq!((&view["state"], &view["outcome"]), (&json!("ended"), &json!(state)), "{verb}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_start_too_far_ahead_or_said_twice_is_refused() {
    let server = server().await;
    for (more, pointer) in [
        (json!({"delay": "367d"}), "/delay"),
        (json!({"start_at": "2999-01-01T00:00:00Z"}), "/start_at"),
        (json!({"start_at": "2026-01-01T00:00:00Z", "delay": "1s"}), "/delay"),
    ] {
        let answer = start(&server, more.clone()).await;
        assert_eq!(answer.problem(422), "invalid_request", "{more}");
        assert_eq!(answer.json()["errors"][0]["pointer"], pointer, "{more}");
    }
    let past = start(&server, json!({"start_at": "2026-01-01T00:00:00Z"})).await;
    let view = run(&server, &id(&past)).await;
    assert_eq!((&view["state"], &view["start_at"]), (&json!("queued"), &Value::Null));
    let many =
        json!({"runs": [{"workflow": "one", "delay": "1h"}, {"workflow": "one", "delay": "400d"}]});
    let many = server.post("/v1/runs/batch", many).await.json();
    let statuses: Vec<&Value> =
        many["results"].as_array().unwrap().iter().map(|one| &one["status"]).collect();
    assert_eq!(statuses, [201, 422]);
    server.stopped().await;
}

#[tokio::test]
async fn a_delayed_run_takes_its_place_under_a_serial_key_when_its_instant_has_come() {
    let server = server().await;
    let hand = Hand::new(&server.engine);
    let key = |more: Value| {
        let mut body = json!({"sequence": {"serial_key": "customer-1"}});
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        body
    };
    let delayed = id(&start(&server, key(json!({"delay": "2s"}))).await);
    // It blocks nobody while its instant has not come.
    let first = id(&start(&server, key(json!({"input": 1}))).await);
    until(&server, &first, |view| view["conditions"] == json!([])).await;
    // Its instant comes while the key is held: it waits in line.
    let kinds = |view: &Value| -> Vec<String> {
        let conditions = view["conditions"].as_array().cloned().unwrap_or_default();
        conditions.iter().filter_map(|one| one["type"].as_str().map(str::to_owned)).collect()
    };
    assert!(kinds(&run(&server, &delayed).await).contains(&"KeyBlocked".to_owned()));
    until(&server, &delayed, |view| kinds(view) == ["KeyBlocked"]).await;
    let task = hand.claim(1, Span::secs(20)).await.pop().expect("a task");
    assert_eq!(task.run.to_string(), first);
    hand.succeed(&[task]).await;
    let task = hand.claim(1, Span::secs(20)).await.pop().expect("a task");
    assert_eq!(task.run.to_string(), delayed);
    hand.succeed(&[task]).await;
    server.stopped().await;
}

#[tokio::test]
async fn a_start_in_a_transaction_may_name_a_later_instant_and_is_held_to_the_same_rules() {
    let server = server().await;
    let mut sql = PgConnection::connect(server.database()).await.unwrap();
    let ask = "select backstitch.start_run_at(workflow => 'one', start_at => clock_timestamp() + interval '1 hour', \
        namespace => $1, labels => $2::text::jsonb)::text";
    let mut asked = Vec::new();
    for labels in [r#"{"team":"x"}"#, r#"{"a:b":"x"}"#] {
        let run: String =
            sqlx::query_scalar(ask).bind(NS).bind(labels).fetch_one(&mut sql).await.unwrap();
        asked.push(run);
    }
    let later = StartInTransaction::named("one", &Value::Null).unwrap().namespace(NS);
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    let in_an_hour = Time(i64::try_from(since.as_millis()).unwrap()).after(Span::hours(1));
    let later = later.start_at(in_an_hour.into());
    let mut by_sdk = sqlx::query_scalar::<_, uuid::Uuid>(StartLaterInTransaction::SQL);
    for parameter in later.parameters() {
        by_sdk = by_sdk.bind(parameter);
    }
    let by_sdk = by_sdk.fetch_one(&mut sql).await.unwrap().to_string();
    server.engine.run_once(backstitch_engine::BackgroundTask::TakeAsked).await.unwrap();
    for run in [&asked[0], &by_sdk] {
        until(&server, run, |view| view["conditions"][0]["type"] == "StartDelayed").await;
    }
    let mut refused = Value::Null;
    let began = std::time::Instant::now();
    while refused["items"][0].is_null() {
        assert!(began.elapsed() < std::time::Duration::from_secs(60), "{refused}");
        refused = server.get("/v1/start-requests?state=refused").await.json();
    }
    let refusal = &refused["items"][0]["refusal"];
    assert_eq!(refused["items"][0]["run"], asked[1].as_str());
    assert_eq!(
        (&refusal["code"], &refusal["errors"][0]["pointer"], &refusal["errors"][0]["code"]),
        (&json!("invalid_request"), &json!("/labels/a:b"), &json!("forbidden_character"))
    );
    server.stopped().await;
}

async fn label(server: &Server, id: &str, body: Value) -> Answer {
    let request = server.request("PATCH", &format!("/v1/runs/{id}/labels"));
    send(with_json(request.header("backstitch-actor", "ann"), &body)).await
}

#[tokio::test]
async fn labels_given_later_are_found_at_once_also_on_a_run_that_has_ended() {
    let server = server().await;
    let hand = Hand::new(&server.engine);
    let id = id(&start(&server, json!({"labels": {"old": "1"}})).await);
    let given = label(&server, &id, json!({"set": {"team": "x"}, "reason": "found it"})).await;
    assert_eq!((given.status, &given.json()["labels"]), (200, &json!({"old": "1", "team": "x"})));
    let found = async |label: &str| {
        let found = server.get(&format!("/v1/runs?label={label}")).await.json();
        found["items"].as_array().unwrap().len()
    };
    assert_eq!((found("team:x").await, found("old:1").await), (1, 1));
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    // These name the schedule of a run, and no person gives or takes them.
    for reserved in [
        json!({"set": {"schedule": "nightly"}, "reason": "no"}),
        json!({"remove": ["scheduled_for"], "reason": "no"}),
    ] {
        let refused = label(&server, &id, reserved).await;
        assert_eq!(
            (refused.status, &refused.json()["errors"][0]["code"]),
            (422, &json!("reserved_name"))
        );
    }
    let refused = start(&server, json!({"labels": {"schedule": "nightly"}})).await;
    assert_eq!(
        (refused.status, &refused.json()["errors"][0]["code"]),
        (422, &json!("reserved_name"))
    );
    let change = json!({"set": {"team": "y", "late": "yes"}, "remove": ["old", "none"]});
    for _ in 0..2 {
        let changed = label(&server, &id, change.clone()).await;
        assert_eq!(changed.json()["labels"], json!({"late": "yes", "team": "y"}), "{changed:?}");
        assert_eq!(changed.json()["state"], "ended");
    }
    assert_eq!((found("team:x").await, found("old:1").await), (0, 0));
    assert_eq!((found("team:y").await, found("late:yes").await), (1, 1));
    let acts = server.get("/v1/acts?actor=ann").await.json();
    let verbs: Vec<&str> =
        acts["items"].as_array().unwrap().iter().map(|act| act["verb"].as_str().unwrap()).collect();
    assert_eq!(verbs, ["label", "label"], "{acts:#}");
    for (body, pointer, code) in [
        (json!({"set": {"a:b": "c"}}), "/set/a:b", "forbidden_character"),
        (json!({"set": {"a": ""}}), "/set/a", "empty"),
        (json!({"remove": [""]}), "/remove/0", "empty"),
        (json!({}), "/remove", "out_of_range"),
    ] {
        let answer = label(&server, &id, body.clone()).await;
        assert_eq!(answer.problem(422), "invalid_request", "{body}");
        let error = &answer.json()["errors"][0];
        assert_eq!((&error["pointer"], &error["code"]), (&json!(pointer), &json!(code)), "{body}");
    }
    let many: serde_json::Map<String, Value> =
        (0..31).map(|number| (format!("l{number}"), json!("v"))).collect();
    assert_eq!(label(&server, &id, json!({"set": many})).await.problem(422), "too_many_labels");
    server.stopped().await;
}

#[tokio::test]
async fn spans_that_can_never_be_reached_are_warned_of_when_a_workflow_is_checked_and_registered() {
    let server = server().await;
    let definition =
        json!({"name": "naps", "version": 1, "steps": [{"id": "a", "sleep": {"for": "30d"}}]});
    let checked = server.post("/v1/workflows/validate", definition.clone()).await;
    let request = || server.request("PUT", "/v1/workflows/naps/versions/1");
    let registered = send(with_json(request(), &definition)).await;
    let again = send(with_json(request(), &definition)).await;
    assert_eq!((checked.status, registered.status, again.status), (200, 201, 200));
    for answer in [checked, registered, again] {
        let warnings = answer.json()["warnings"].clone();
        assert_eq!(warnings.as_array().map(Vec::len), Some(1), "{answer:?}");
        assert_eq!(
            (&warnings[0]["code"], &warnings[0]["pointer"]),
            (&json!("never_reached"), &json!("/steps/0/sleep/for"))
        );
    }
    let parent = json!({"name": "mum", "version": 1, "timeout": "1h", "steps": [
        {"id": "a", "child": {"workflow": "kid", "input": {"const": 1}}}]});
    let kid = json!({"name": "kid", "version": 1, "timeout": "2h", "steps": [{"id": "a", "sleep": {"for": "1s"}}]});
    assert_eq!(
        server.post("/v1/workflows/validate", parent.clone()).await.json()["warnings"],
        Value::Null,
        "the child is not known yet"
    );
    send(with_json(server.request("PUT", "/v1/workflows/kid/versions/1"), &kid)).await;
    let warned = server.post("/v1/workflows/validate", parent).await.json();
    assert_eq!(warned["warnings"][0]["pointer"], "/steps/0/child", "{warned}");
    server.stopped().await;
}

#[tokio::test]
async fn workflows_that_start_each_other_without_a_condition_are_warned_of() {
    let server = server().await;
    let child = |name: &str, of: &str, when: Value| {
        let mut step = json!({"id": "c", "child": {"workflow": of, "input": {"path": "/input"}}});
        if !when.is_null() {
            step["when"] = when;
        }
        json!({"name": name, "version": 1, "steps": [step]})
    };
    let ping = child("ping", "pong", Value::Null);
    let put = async |name: &str, body: &Value| {
        let request = server.request("PUT", &format!("/v1/workflows/{name}/versions/1"));
        send(with_json(request, body)).await.json()["warnings"].clone()
    };
    assert_eq!(put("ping", &ping).await, Value::Null, "the other is not known yet");
    let warned = put("pong", &child("pong", "ping", Value::Null)).await;
    assert_eq!(
        (&warned[0]["code"], &warned[0]["pointer"]),
        (&json!("starts_itself"), &json!("/steps/0/child"))
    );
    assert!(warned[0]["message"].as_str().unwrap().contains("by way of 'ping'"), "{warned}");
    let guarded = child("pang", "ping", json!({"path": "/input/again"}));
    assert_eq!(put("pang", &guarded).await, Value::Null);
    server.stopped().await;
}
