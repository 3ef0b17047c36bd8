//! Events that steps emit, over HTTP: in the log once with what was done, held and taken back with undo.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_saga::protocol::{FailureKind, TaskOffer};
use backstitch_tests::node::{Hand, NS};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

/// Returns a workflow of two steps for a worker, of which the first emits something.
fn order(emits: &Value) -> String {
    let task = json!({"name": "do", "input": {"path": "/input"}, "compensate": {"name": "undo"},
        "retry": {"max_attempts": 1}});
    let steps = json!([
        {"id": "pay", "task": task, "emits": emits},
        {"id": "ship", "after": ["pay"], "task": task}]);
    json!({"name": "order", "version": 1, "steps": steps}).to_string()
}

async fn start(server: &Server, body: Value) -> String {
    let started = server.post("/v1/runs", body).await;
    assert_eq!(started.status, 201, "{started:?}");
    started.json()["id"].as_str().unwrap().to_owned()
}

/// Returns the log once it has so many events.
async fn log(server: &Server, count: usize) -> Vec<Value> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let page = server.get("/v1/events?limit=1000").await.json();
        let events = page["items"].as_array().unwrap().clone();
        if events.len() >= count {
            assert_eq!(events.len(), count, "{page}");
            return events;
        }
        assert!(Instant::now() < until, "{page}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn types(events: &[Value]) -> Vec<&str> {
    events.iter().map(|event| event["type"].as_str().unwrap()).collect()
}

async fn succeed(hand: &Hand) -> TaskOffer {
    let task = hand.one().await;
    hand.succeed(std::slice::from_ref(&task)).await;
    task
}

/// Keeps what leaves the queue of emitted events, to put it there again.
const KEPT: &str = "create table kept (like emitted);
    create function keep() returns trigger language plpgsql security definer set search_path from current as
        $$ begin insert into kept select old.*; return old; end $$;
    create trigger keep before delete on emitted for each row execute function keep()";
const AGAIN: &str = "insert into emitted (namespace, run_id, seq, place, at, event, data) \
    select namespace, run_id, seq, place, at, event, data from kept order by id";

/// Waits until all that was emitted is in the log.
async fn taken(owner: &mut PgConnection) {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let count = "select count(*) from emitted";
        let left: i64 = sqlx::query_scalar(count).fetch_one(&mut *owner).await.unwrap();
        if left == 0 {
            return;
        }
        assert!(Instant::now() < until, "{left} events are left");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

async fn owner(server: &Server) -> PgConnection {
    PgConnection::connect(server.database()).await.unwrap()
}

#[tokio::test]
async fn an_event_of_a_step_is_in_the_log_once_with_its_success_and_is_taken_back_with_its_undo() {
    let server = Server::start(Access::Open).await;
    let mut owner = owner(&server).await;
    sqlx::raw_sql(KEPT).execute(&mut owner).await.unwrap();
    let emits = json!([
        {"type": "order.paid", "entity": "order", "stream": {"path": "/input/id"}, "op": "C", "contract": "order@1",
            "release": "at_once", "retract": {"type": "order.unpaid", "op": "D"}},
        {"type": "order.kept", "release": "at_success"}]);
    server.engine.register(NS, &order(&emits)).await.unwrap();
    let hand = Hand::new(&server.engine);
    let run =
        start(&server, json!({"workflow": "order", "input": {"id": 7}, "correlation_id": "story"}))
            .await;
    succeed(&hand).await;
    let paid = log(&server, 1).await.remove(0);
    let expected = json!({"type": "order.paid", "stream": "order:7", "version": 1, "op": "C", "contract": "order@1",
        "data": {"id": 7}, "source": "workflow/order", "trust": "authenticated", "correlation_id": "story", "hops": 0,
        "labels": {"run": run, "step": "pay"}});
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&paid[name], value, "{name}: {paid}");
    }
    assert!(paid["occurred_at"].as_str().unwrap() <= paid["received_at"].as_str().unwrap());
    let ship = hand.one().await;
    hand.fail(&ship, FailureKind::Permanent).await;
    succeed(&hand).await;
    let events = log(&server, 2).await;
    assert_eq!(types(&events), ["order.paid", "order.unpaid"]);
    let unpaid = &events[1];
    assert_eq!(
        (&unpaid["stream"], &unpaid["version"], &unpaid["op"], &unpaid["labels"]["retracts"]),
        (&json!("order:7"), &json!(2), &json!("D"), &json!("order.paid"))
    );
    taken(&mut owner).await;
    // As if nodes had died before they had deleted what they took.
    for _ in 0..3 {
        let put = sqlx::query(AGAIN).execute(&mut owner).await.unwrap();
        assert!(put.rows_affected() >= 2);
        server.engine.run_once(BackgroundTask::Emit).await.unwrap();
        taken(&mut owner).await;
    }
    assert_eq!(log(&server, 2).await, events);
    server.stopped().await;
}

#[tokio::test]
async fn events_that_are_held_come_with_the_success_of_their_run() {
    let server = Server::start(Access::Open).await;
    let emits = json!([{"type": "order.paid"}, {"type": "order.known", "release": "at_pivot"}]);
    server.engine.register(NS, &order(&emits)).await.unwrap();
    let hand = Hand::new(&server.engine);
    let run = start(&server, json!({"workflow": "order", "input": 1})).await;
    succeed(&hand).await;
    server.engine.run_once(BackgroundTask::Emit).await.unwrap();
    assert_eq!(log(&server, 0).await, Vec::<Value>::new());
    succeed(&hand).await;
    let events = log(&server, 2).await;
    assert_eq!(types(&events), ["order.paid", "order.known"]);
    assert!(events.iter().all(|event| event["labels"]["run"] == run.as_str()), "{events:?}");
    let history = server.get(&format!("/v1/runs/{run}/history")).await;
    assert!(history.text.contains("emitted"), "{history:?}");
    server.stopped().await;
}

#[tokio::test]
async fn a_stream_that_an_application_holds_delays_events_and_no_run() {
    let server = Server::start(Access::Open).await;
    let emits = json!([{"type": "order.paid", "stream": {"const": "order:1"}, "release": "at_once", "retract": {"type": "no"}}]);
    server.engine.register(NS, &order(&emits)).await.unwrap();
    let mut owner = owner(&server).await;
    let mut open = owner.begin().await.unwrap();
    let append =
        "select backstitch.append_event('order.seen', stream => 'order:1', namespace => $1)";
    sqlx::query(append).bind(NS).execute(&mut *open).await.unwrap();
    let hand = Hand::new(&server.engine);
    let run = start(&server, json!({"workflow": "order", "input": 1})).await;
    for _ in 0..2 {
        succeed(&hand).await;
    }
    let ended = server.get(&format!("/v1/runs/{run}?wait=10s")).await.json();
    assert_eq!(ended["outcome"], "succeeded", "{ended}");
    assert_eq!(log(&server, 0).await.len(), 0);
    open.commit().await.unwrap();
    let events = log(&server, 2).await;
    assert_eq!(types(&events), ["order.seen", "order.paid"]);
    assert_eq!(events[1]["version"], 2);
    server.stopped().await;
}

#[tokio::test]
async fn a_workflow_that_starts_itself_by_its_events_stops_at_the_end_of_the_chain() {
    let server = Server::start(Access::Open).await;
    let ping = json!({"name": "ping", "version": 1, "steps": [
        {"id": "again", "sleep": {"for": "1ms"}, "emits": [{"type": "ping"}]}]});
    server.engine.register(NS, &ping.to_string()).await.unwrap();
    let spec = json!({"filter": {"types": ["ping"]}, "workflow": "ping"});
    let put = send(with_json(server.request("PUT", "/v1/subscriptions/pings"), spec)).await;
    assert_eq!(put.status, 201, "{put:?}");
    let answer = server.post("/v1/events", json!({"events": [{"type": "ping"}]})).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    let events = log(&server, 26).await;
    let hops: Vec<u64> = events.iter().map(|event| event["hops"].as_u64().unwrap()).collect();
    assert_eq!(hops, (0..=25).collect::<Vec<_>>());
    for pair in events.windows(2) {
        assert_eq!(pair[1]["causation_id"], pair[0]["id"]);
        assert_eq!(pair[1]["correlation_id"], events[0]["id"]);
    }
    backstitch_tests::eventually("the subscription stops", async || {
        server.get("/v1/subscriptions/pings").await.json()["state"] == "stopped"
    })
    .await;
    let view = server.get("/v1/subscriptions/pings").await.json();
    assert!(view.to_string().contains("propagation_loop"), "{view}");
    let skipped = server.post("/v1/subscriptions/pings/skip", json!({"reason": "a loop"})).await;
    assert_eq!(skipped.status, 200, "{skipped:?}");
    server.stopped().await;
}

#[tokio::test]
async fn a_run_started_with_a_cause_at_the_end_of_its_chain_tells_what_it_did_without_a_cause() {
    let server = Server::start(Access::Open).await;
    let ping = json!({"name": "ping", "version": 1, "steps": [
        {"id": "again", "sleep": {"for": "1ms"}, "emits": [{"type": "pong"}]}]});
    server.engine.register(NS, &ping.to_string()).await.unwrap();
    let mut cause = Value::Null;
    for _ in 0..=25 {
        let event = json!({"events": [{"type": "ping", "causation_id": cause}]});
        let answer = server.post("/v1/events", event).await;
        cause = answer.json()["events"][0]["id"].clone();
    }
    start(&server, json!({"workflow": "ping", "causation_id": cause})).await;
    let pong = log(&server, 27).await.remove(26);
    assert_eq!(
        (&pong["hops"], &pong["causation_id"], &pong["labels"]["emit_error"]),
        (&json!(25), &Value::Null, &json!("propagation_loop"))
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_workflow_has_the_milestones_that_it_asks_for_in_the_log() {
    let server = Server::start(Access::Open).await;
    let definition = json!({"name": "asks", "version": 1, "milestones": ["started", "ended", "incidents"], "steps": [
        {"id": "a", "task": {"name": "do", "input": {"path": "/input"}, "class": "read_only", "on_failure": "incident",
            "retry": {"max_attempts": 1}}}]});
    server.engine.register(NS, &definition.to_string()).await.unwrap();
    let hand = Hand::new(&server.engine);
    let run = start(&server, json!({"workflow": "asks"})).await;
    let task = hand.one().await;
    hand.fail(&task, FailureKind::Permanent).await;
    let events = log(&server, 2).await;
    assert_eq!(types(&events), ["run.started", "incident.opened"]);
    assert_eq!(
        (&events[1]["data"]["kind"], &events[1]["data"]["step"], &events[1]["data"]["incident"]),
        (&json!("task_exhausted"), &json!("a"), &json!(1))
    );
    let kill = json!({"reason": "no use"});
    let killed = server.post(&format!("/v1/runs/{run}/kill"), kill).await;
    assert_eq!(killed.status, 200, "{killed:?}");
    let events = log(&server, 4).await;
    assert_eq!(types(&events)[2..], ["incident.resolved", "run.cancelled"]);
    let ended = &events[3];
    assert_eq!(
        (&ended["stream"], &ended["version"], &ended["data"]),
        (
            &json!(format!("run:{run}")),
            &Value::Null,
            &json!({"run": run, "workflow": "asks", "version": 1, "outcome": "cancelled"})
        )
    );
    assert_eq!(
        (&ended["source"], &ended["trust"], &ended["hops"], &ended["labels"]),
        (&json!("workflow/asks"), &json!("authenticated"), &json!(0), &json!({"run": run}))
    );
    server.stopped().await;
}

/// A workflow that tells of its starts and ends.
async fn telling(server: &Server) {
    let definition = json!({"name": "tells", "version": 1, "milestones": ["started", "ended"], "steps": [
        {"id": "again", "sleep": {"for": "1ms"}}]});
    server.engine.register(NS, &definition.to_string()).await.unwrap();
}

#[tokio::test]
async fn milestones_take_rows_of_the_milestones_alone_and_are_found_as_all_events_are() {
    let server = Server::start(Access::Open).await;
    telling(&server).await;
    let story = r#"a "story" of {some}, \ others"#;
    let mut runs = Vec::new();
    for number in 0..5 {
        let own = if number < 2 { Value::Null } else { json!(story) };
        runs.push(start(&server, json!({"workflow": "tells", "correlation_id": own})).await);
    }
    let events = log(&server, 10).await;
    let positions: Vec<u64> =
        events.iter().map(|event| event["position"].as_u64().unwrap()).collect();
    assert_eq!(positions, (1..=10).collect::<Vec<u64>>());
    let mut owner = owner(&server).await;
    for table in ["event", "event_body", "event_key", "stream", "emitted"] {
        let count = sqlx::AssertSqlSafe(format!("select count(*) from {table}"));
        let count: i64 = sqlx::query_scalar(count).fetch_one(&mut owner).await.unwrap();
        assert_eq!(count, 0, "{table}");
    }
    let find = async |query: String| {
        let page = server.get(&format!("/v1/events?{query}")).await.json();
        page["items"].as_array().unwrap().clone()
    };
    let of = |run: &str| -> Vec<Value> {
        events.iter().filter(|event| event["data"]["run"] == run).cloned().collect()
    };
    for run in &runs {
        let told = find(format!("stream=run:{run}")).await;
        assert_eq!(types(&told), ["run.started", "run.succeeded"]);
        assert_eq!(told, of(run));
        let (first, last) = (&told[0], &told[1]);
        assert_eq!(
            find(format!("stream=run:{run}&after={}", first["position"])).await,
            std::slice::from_ref(last)
        );
        assert_eq!(
            find(format!("stream=run:{run}&type=run.succeeded")).await,
            std::slice::from_ref(last)
        );
        let one = server.get(&format!("/v1/events/{}", last["id"].as_str().unwrap())).await;
        assert_eq!(one.json(), *last);
    }
    assert_eq!(find(format!("correlation={}", runs[0])).await, of(&runs[0]));
    let others: Vec<Value> =
        events.iter().filter(|event| event["correlation_id"] == story).cloned().collect();
    assert_eq!(others.len(), 6);
    let encoded: String = story.bytes().map(|byte| format!("%{byte:02X}")).collect();
    assert_eq!(find(format!("correlation={encoded}")).await, others);
    assert_eq!(find("type=run.started&limit=2".to_owned()).await.len(), 2);
    let doctor = server.engine.doctor(false).await.unwrap();
    assert_eq!(doctor.differences, Vec::<String>::new());
    sqlx::query("delete from milestone where told like '%' || $1 || '%'")
        .bind(&runs[0])
        .execute(&mut owner)
        .await
        .unwrap();
    let doctor = server.engine.doctor(false).await.unwrap().differences;
    assert!(doctor.iter().any(|line| line.contains("has 0 events")), "{doctor:?}");
    server.stopped().await;
}

#[tokio::test]
async fn what_follows_from_a_milestone_is_one_further_in_its_chain() {
    let server = Server::start(Access::Open).await;
    telling(&server).await;
    let run = start(&server, json!({"workflow": "tells", "correlation_id": "story"})).await;
    let ended = log(&server, 2).await.remove(1);
    let cause = ended["id"].as_str().unwrap();
    let event = json!({"events": [{"type": "noted", "causation_id": cause}]});
    assert_eq!(server.post("/v1/events", event).await.status, 201);
    let append = "select backstitch.append_event('noted', causation_id => $1, namespace => 'test')";
    sqlx::query(append).bind(cause).execute(&mut owner(&server).await).await.unwrap();
    let next = start(&server, json!({"workflow": "tells", "causation_id": cause})).await;
    assert_ne!(next, run);
    let events = log(&server, 6).await;
    for event in &events[2..] {
        assert_eq!((&event["hops"], &event["causation_id"]), (&json!(1), &json!(cause)), "{event}");
    }
    for event in events.iter().filter(|event| event["type"] == "noted") {
        assert_eq!(event["correlation_id"], "story", "{event}");
    }
    let lineage = server.get(&format!("/v1/events/{cause}/lineage")).await.json();
    assert_eq!(lineage["effects"].as_array().unwrap().len(), 2, "{lineage}");
    server.stopped().await;
}
