//! Events over HTTP: appended once and in order, read by position, and what is refused.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_saga::protocol::NewEvent;
use backstitch_sdk::Client;
use backstitch_tests::node::NS;
use backstitch_tests::server::{Answer, Server, send};
use futures::future::join_all;
use serde_json::{Value, json};

async fn publish(server: &Server, events: Value) -> Answer {
    server.post("/v1/events", json!({ "events": events })).await
}

/// Reads the log after `after` until its end is `head`.
async fn read(server: &Server, query: &str, head: u64) -> Vec<Value> {
    let until = Instant::now() + Duration::from_secs(60);
    loop {
        let page = server.get(&format!("/v1/events?{query}")).await.json();
        if page["head"].as_u64().unwrap() >= head {
            return page["items"].as_array().unwrap().clone();
        }
        assert!(Instant::now() < until, "{page}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

fn column(events: &[Value], name: &str) -> Vec<Value> {
    events.iter().map(|event| event[name].clone()).collect()
}

#[tokio::test]
async fn events_get_dense_positions_in_the_order_of_their_streams() {
    let server = Server::start(Access::Open).await;
    let rounds = (0..8).map(|round| {
        let events = json!([
            {"type": "order.placed", "stream": format!("order:{}", round % 2), "data": {"round": round}},
            {"type": "stock.counted", "data": round},
        ]);
        publish(&server, events)
    });
    for answer in join_all(rounds).await {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let events = read(&server, "limit=100", 16).await;
    assert_eq!(column(&events, "position"), (1..=16).map(Value::from).collect::<Vec<_>>());
    for stream in ["order:0", "order:1"] {
        let of: Vec<Value> =
            events.iter().filter(|event| event["stream"] == stream).cloned().collect();
        assert_eq!(column(&of, "version"), [1, 2, 3, 4].map(Value::from));
        assert_eq!(read(&server, &format!("stream={stream}"), 16).await, of);
    }
    let second = read(&server, "limit=5&after=5", 16).await;
    assert_eq!(second, events[5..10]);
    let placed = read(&server, "type=order.*", 16).await;
    assert_eq!(placed.len(), 8);
    assert_eq!(read(&server, "type=order.placed", 16).await, placed);
    assert_eq!(read(&server, "type=order", 16).await, Vec::<Value>::new());
    let id = events[3]["id"].as_str().unwrap();
    assert_eq!(server.get(&format!("/v1/events/{id}")).await.json(), events[3]);
    let story = read(&server, &format!("correlation={id}"), 16).await;
    assert_eq!(column(&story, "id"), [Value::from(id)]);
    let elsewhere = server.bare("GET", &format!("/v1/events/{id}"));
    let elsewhere = send(elsewhere.header("backstitch-namespace", "elsewhere")).await;
    assert_eq!(elsewhere.problem(404), "unknown_event");
    server.stopped().await;
}

#[tokio::test]
async fn a_page_that_looked_in_vain_says_how_far_it_looked() {
    let server = Server::start(Access::Open).await;
    let events: Vec<Value> = (0..30).map(|at| json!({"type": format!("t{at}")})).collect();
    assert_eq!(publish(&server, json!(events)).await.status, 201);
    read(&server, "", 30).await;
    for (query, count, next) in [
        ("type=t9", 1, 30),
        ("type=none", 0, 30),
        ("after=29&limit=5", 1, 30),
        ("after=30", 0, 30),
        ("after=77", 0, 77),
        ("limit=7", 7, 7),
        ("type=t3&limit=1", 1, 4),
        ("stream=none", 0, 30),
        ("correlation=none", 0, 30),
    ] {
        let page = server.get(&format!("/v1/events?{query}")).await.json();
        let found = (page["items"].as_array().unwrap().len(), page["next"].as_u64().unwrap());
        assert_eq!(found, (count, next), "{query}");
    }
    for wrong in ["-1", "x", "1.0", "+1", "99999999999999999999"] {
        let answer = server.get(&format!("/v1/events?after={wrong}")).await;
        assert_eq!(answer.problem(400), "invalid_cursor", "{wrong}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_page_is_bounded_in_bytes() {
    let server = Server::start(Access::Open).await;
    let data = "x".repeat(200_000);
    for _ in 0..3 {
        let events: Vec<Value> = (0..20).map(|_| json!({"type": "large", "data": data})).collect();
        assert_eq!(publish(&server, json!(events)).await.status, 201);
    }
    let all = read(&server, "limit=1000", 60).await;
    assert!((30..60).contains(&all.len()), "{}", all.len());
    let page = server.get(&format!("/v1/events?after={}&limit=1000", all.len())).await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 60 - all.len());
    assert_eq!(page["next"], 60);
    server.stopped().await;
}

#[tokio::test]
async fn an_event_that_is_sent_again_is_appended_once_and_answered_the_same() {
    let server = Server::start(Access::Open).await;
    let event = json!({"type": "order.placed", "id": "1", "source": "shop", "stream": "order:1", "expected_version": 0, "data": {"a": 1, "b": [1, 2]}});
    let all = join_all((0..8).map(|_| publish(&server, json!([event])))).await;
    assert_eq!(all.iter().filter(|answer| answer.status == 201).count(), 1, "{all:?}");
    let first = all.iter().find(|answer| answer.status == 201).unwrap().json();
    for answer in all.iter().filter(|answer| answer.status != 201) {
        assert_eq!(answer.status, 200);
        let mut told = answer.json();
        told["events"][0].as_object_mut().unwrap().remove("repeated");
        assert_eq!(told, first);
    }
    let mut spelt = event.clone();
    spelt["data"] = json!({"b": [1.0, 2], "a": 1});
    assert_eq!(publish(&server, json!([spelt])).await.status, 200);
    let mut other = event.clone();
    other["data"]["a"] = json!(2);
    let refused = publish(&server, json!([{"type": "x", "stream": "order:2"}, other])).await;
    assert_eq!(refused.problem(409), "event_id_reused");
    let mut elsewhere = event.clone();
    (elsewhere["source"], elsewhere["expected_version"]) = (json!("web"), json!(1));
    let (one, both) = (elsewhere.clone(), json!([elsewhere, elsewhere]));
    let told = publish(&server, both).await.json();
    assert_eq!(
        (&told["events"][0]["version"], &told["events"][1]["version"]),
        (&json!(2), &json!(2))
    );
    assert_eq!(told["events"][1]["repeated"], true);
    assert_eq!(publish(&server, json!([one])).await.status, 200);
    assert_eq!(read(&server, "", 2).await.len(), 2);
    server.stopped().await;
}

#[tokio::test]
async fn of_those_who_expect_one_version_one_appends_and_the_others_are_told_the_actual_one() {
    let (server, other) = {
        let server = Server::start(Access::Open).await;
        let other = server.beside().await;
        (server, other)
    };
    for version in 0..5 {
        let event = json!({"type": "t", "stream": "s:1", "expected_version": version});
        let asked = (0..6).map(|at| {
            publish(
                if at % 2 == 0 { &server } else { &other },
                json!([event.clone(), {"type": "beside"}]),
            )
        });
        let answers = join_all(asked).await;
        let appended = answers.iter().filter(|answer| answer.status == 201).count();
        assert_eq!(appended, 1, "{answers:?}");
        for refused in answers.iter().filter(|answer| answer.status != 201) {
            assert_eq!(refused.problem(409), "stream_version_conflict");
            assert_eq!(refused.json()["actual_version"], version + 1);
        }
    }
    let events = read(&server, "", 10).await;
    assert_eq!(events.len(), 10, "what goes with a refused event is not appended either");
    other.stopped().await;
    server.stopped().await;
}

#[tokio::test]
async fn snapshots_yield_what_changed_and_a_file_sent_again_changes_nothing() {
    let server = Server::start(Access::Open).await;
    let snapshot =
        |data: Value| json!({"type": "customer", "stream": "customer:1", "op": "S", "data": data});
    for (data, op, noop) in [
        (json!({"name": "Ann", "city": "Hull"}), "C", false),
        (json!({"city": "Hull", "name": "Ann"}), "S", true),
        (json!({"name": "Ann", "city": "York"}), "U", false),
    ] {
        let told = publish(&server, json!([snapshot(data)])).await.json();
        let told = &told["events"][0];
        assert_eq!((&told["op"], told["noop"] == true), (&json!(op), noop), "{told}");
    }
    let gone = json!({"type": "customer", "stream": "customer:1", "op": "D"});
    let again =
        json!({"type": "customer", "stream": "customer:1", "op": "U", "data": {"name": "Bob"}});
    let told = publish(&server, json!([gone, again])).await.json();
    assert_eq!(
        (&told["events"][1]["op"], &told["events"][1]["op_corrected"]),
        (&json!("C"), &json!(true))
    );
    let events = read(&server, "stream=customer:1", 5).await;
    let changed = column(&events, "changed");
    assert_eq!(changed[2], json!(["/city"]));
    assert_eq!(changed[1], json!([]));
    assert_eq!(changed[3], json!(["/city", "/name"]));
    server.stopped().await;
}

#[tokio::test]
async fn an_event_inherits_story_and_hops_from_its_cause_and_a_loop_is_refused() {
    let server = Server::start(Access::Open).await;
    let told = publish(&server, json!([{"type": "t", "correlation_id": "story"}])).await.json();
    let mut cause = told["events"][0]["id"].clone();
    for hop in 1..=25 {
        let told = publish(&server, json!([{"type": "t", "causation_id": cause}])).await;
        assert_eq!(told.status, 201, "{hop} {told:?}");
        cause = told.json()["events"][0]["id"].clone();
    }
    let refused = publish(&server, json!([{"type": "t", "causation_id": cause}])).await;
    assert_eq!(refused.problem(422), "propagation_loop");
    let events = read(&server, "correlation=story", 26).await;
    assert_eq!(column(&events, "hops"), (0..=25).map(Value::from).collect::<Vec<_>>());
    server.stopped().await;
}

#[tokio::test]
async fn the_client_publishes_and_reads_what_was_published() {
    let server = Server::start(Access::Open).await;
    let client = Client::new(server.url()).unwrap().namespace(NS).unwrap();
    let event = json!({"type": "order.placed", "id": "1", "data": {"a": 1}});
    let event: NewEvent = serde_json::from_value(event).unwrap();
    let told = client.publish(vec![event.clone(), event]).await.unwrap();
    assert_eq!((told[0].id, told[1].repeated), (told[1].id, true));
    let page = client.events_after(0, 10, Duration::from_secs(10)).await.unwrap();
    assert_eq!((page.items.len(), page.items[0].id, page.next), (1, told[0].id, 1));
    let again = client.events_after(1, 10, Duration::from_millis(50)).await.unwrap();
    assert!(again.items.is_empty());
    assert_eq!(client.event(told[0].id).await.unwrap().data.text(), r#"{"a":1}"#);
    server.stopped().await;
}

async fn cloud(server: &Server, kind: &str, body: &str) -> Answer {
    let request = server.request("POST", "/v1/events");
    send(request.header("content-type", kind).body(body.to_owned())).await
}

#[tokio::test]
async fn cloud_events_are_taken_one_by_one_and_in_batches() {
    let server = Server::start(Access::Open).await;
    let one = r#"{"specversion":"1.0","id":"1","source":"/crm","type":"contact.changed","subject":"contact:7","time":"2026-01-05T12:00:00.123456789+01:00","dataschema":"crm.contact@1","op":"S","team":"north","data":{"amount":12345678901234567890.10}}"#;
    let told = cloud(&server, "application/cloudevents+json; charset=utf-8", one).await;
    assert_eq!((told.status, &told.json()["events"][0]["op"]), (201, &json!("C")));
    let batch = format!(
        r#"[{one},{{"specversion":"1.0","id":"2","source":"/crm","type":"x","subject":"contact:7","expectedversion":1,"data":"text","datacontenttype":"text/plain"}}]"#
    );
    let told = cloud(&server, "application/cloudevents-batch+json", &batch).await;
    assert_eq!((told.status, &told.json()["events"][0]["repeated"]), (201, &json!(true)));
    let events = read(&server, "", 2).await;
    let first = &events[0];
    assert_eq!(first["occurred_at"], "2026-01-05T11:00:00.123456789Z");
    assert_eq!(
        (&first["claimed_source"], &first["source"]),
        (&json!("/crm"), &json!("api/anonymous"))
    );
    assert_eq!(
        (&first["contract"], &first["labels"]),
        (&json!("crm.contact@1"), &json!({"team": "north"}))
    );
    let text = server.get("/v1/events").await.text;
    assert!(text.contains("12345678901234567890.10"), "{text}");
    assert_eq!(events[1]["labels"]["datacontenttype"], "text/plain");
    let wrong = format!(r#"[{one},{{"specversion":"1.0","id":"3","source":"/crm"}},7]"#);
    let refused = cloud(&server, "application/cloudevents-batch+json", &wrong).await;
    assert_eq!(refused.problem(422), "invalid_event");
    let places = column(refused.json()["errors"].as_array().unwrap(), "pointer");
    assert_eq!(places, ["/1/type", "/2"]);
    let untold = cloud(&server, "text/plain", one).await;
    assert_eq!(untold.problem(415), "unsupported_media_type");
    server.stopped().await;
}

#[tokio::test]
async fn a_hostile_event_is_refused_with_its_code_at_every_form() {
    let server = Server::start(Access::Open).await;
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let large = format!("\"{}\"", "x".repeat(300 * 1024));
    for (data, code) in [
        (r#"{"a":"\u0000"}"#, "nul_character"),
        (r#""\ud800""#, "lone_surrogate"),
        (r#"{"a":1e1000000}"#, "number_out_of_range"),
        (r#"{"a":{"b":1,"b":1}}"#, "duplicate_key"),
        (&deep, "nesting_too_deep"),
        (&large, "payload_too_large"),
    ] {
        let native = format!(r#"{{"events":[{{"type":"t","data":{data}}}]}}"#);
        let refused = server.post("/v1/events", native).await;
        assert_eq!(refused.problem(422), "invalid_event", "{code}");
        let error = &refused.json()["errors"][0];
        assert_eq!(error["code"], code);
        assert!(error["pointer"].as_str().unwrap().starts_with("/events/0/data"), "{error}");
        let event =
            format!(r#"{{"specversion":"1.0","id":"1","source":"s","type":"t","data":{data}}}"#);
        for (kind, body) in [
            ("application/cloudevents+json", event.clone()),
            ("application/cloudevents-batch+json", format!("[{event}]")),
        ] {
            let refused = cloud(&server, kind, &body).await;
            assert_eq!(refused.problem(422), "invalid_event", "{code}");
            assert_eq!(refused.json()["errors"][0]["code"], code, "{kind}");
        }
    }
    for (event, place) in [
        (json!({"type": ""}), "/events/0/type"),
        (json!({"type": "a\u{0}"}), "/events/0/type"),
        (json!({"type": "t", "stream": "x".repeat(257)}), "/events/0/stream"),
        (json!({"type": "t", "op": "C"}), "/events/0/op"),
        (json!({"type": "t", "expected_version": 1}), "/events/0/expected_version"),
        (json!({"type": "t", "occurred_at": "yesterday"}), "/events/0/occurred_at"),
        (json!({"type": "t", "labels": {"": "x"}}), "/events/0/labels"),
    ] {
        let refused = publish(&server, json!([event])).await;
        let _ = refused.problem(422);
        assert_eq!(refused.json()["errors"][0]["pointer"], place);
    }
    let many: Vec<Value> = (0..1_001).map(|_| json!({"type": "t"})).collect();
    assert_eq!(publish(&server, json!(many)).await.problem(422), "invalid_request");
    assert_eq!(publish(&server, json!([])).await.problem(422), "invalid_request");
    assert_eq!(server.get("/v1/events").await.json()["head"], 0);
    server.stopped().await;
}

#[tokio::test]
async fn a_reader_that_waits_is_told_of_the_next_event_it_wants_also_from_another_node() {
    let server = Server::start(Access::Open).await;
    let other = server.beside().await;
    let wanted = server.get("/v1/events?type=wanted&wait=20s");
    let published = async {
        publish(&other, json!([{"type": "other"}])).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        publish(&other, json!([{"type": "wanted"}])).await;
    };
    let began = Instant::now();
    let (page, ()) = tokio::join!(wanted, published);
    let page = page.json();
    assert_eq!(column(page["items"].as_array().unwrap(), "position"), [Value::from(2)], "{page}");
    assert!(began.elapsed() < Duration::from_secs(15), "{:?}", began.elapsed());
    let nothing = server.get("/v1/events?after=2&wait=100ms").await.json();
    assert_eq!((&nothing["items"], &nothing["next"]), (&json!([]), &json!(2)));
    other.stopped().await;
    server.stopped().await;
}
