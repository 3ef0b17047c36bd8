//! Schedules over HTTP: every verb, every kind of mistake, and starts that come by themselves.

use backstitch_api::Access;
use backstitch_saga::protocol::{ActFilter, BackfillSchedule, Overlap, ScheduleSpec, StartOutcome};
use backstitch_saga::{Span, Timestamp};
use backstitch_sdk::Client;
use backstitch_tests::node::{Hand, NS, chain};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};

const NIGHTLY: &str = "/v1/schedules/nightly";

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    let strict = chain("strict", &["a"]).replacen(
        '{',
        r#"{"input_schema":{"type":"object","required":["shop"],"properties":{"shop":{"type":"string"}}},"#,
        1,
    );
    for definition in [chain("one", &["a"]), strict] {
        server.engine.register(NS, &definition).await.unwrap();
    }
    server
}

async fn put(server: &Server, path: &str, body: &Value) -> Answer {
    send(with_json(server.request("PUT", path), body)).await
}

fn spec() -> Value {
    json!({"cron": "30 2 * * *", "time_zone": "Europe/Berlin", "workflow": "one"})
}

fn errors(answer: &Answer) -> Vec<(String, String)> {
    let errors = answer.json()["errors"].as_array().unwrap().clone();
    let text = |value: &Value| value.as_str().unwrap().to_owned();
    errors.iter().map(|one| (text(&one["pointer"]), text(&one["code"]))).collect()
}

#[tokio::test]
async fn a_schedule_is_put_shown_listed_and_deleted() {
    let server = server().await;
    let made = put(&server, NIGHTLY, &spec()).await;
    assert_eq!(
        (made.status, made.headers["location"].to_str().unwrap()),
        (201, NIGHTLY),
        "{made:?}"
    );
    assert_eq!(put(&server, NIGHTLY, &spec()).await.status, 200);
    let shown = server.get(NIGHTLY).await.json();
    assert_eq!(shown["spec"]["catch_up"], "1h");
    assert!(shown["next"]["local"].as_str().unwrap().contains("T02:30:00+0"), "{shown:#}");
    let mut other = spec();
    other["overlap"] = "queue".into();
    assert_eq!(put(&server, NIGHTLY, &other).await.json()["spec"]["overlap"], "queue");

    put(&server, "/v1/schedules/daily", &spec()).await;
    let first = server.get("/v1/schedules?limit=1").await.json();
    assert_eq!(first["items"][0]["name"], "daily");
    let after = format!("/v1/schedules?limit=1&after={}", first["next"].as_str().unwrap());
    let second = server.get(&after).await.json();
    assert_eq!((&second["items"][0]["name"], &second["next"]), (&json!("nightly"), &Value::Null));

    assert!(server.engine.schedule("other", "nightly").await.is_err(), "of another namespace");
    assert_eq!(send(server.request("DELETE", NIGHTLY)).await.status, 204);
    assert_eq!(server.get(NIGHTLY).await.problem(404), "unknown_schedule");
    // What was done to it is still known; the same put again was no act.
    let acts = server.get("/v1/acts?schedule=nightly").await.json()["items"].clone();
    let acts = acts.as_array().unwrap().iter();
    let acts: Vec<(&str, &Value)> =
        acts.map(|one| (one["verb"].as_str().unwrap(), &one["detail"]["overlap"])).collect();
    let (queue, skip) = (json!("queue"), json!("skip"));
    assert_eq!(acts, [("delete", &Value::Null), ("put", &queue), ("put", &skip)]);
    assert_eq!(send(server.request("DELETE", NIGHTLY)).await.problem(404), "unknown_schedule");
    server.stopped().await;
}

#[tokio::test]
async fn what_of_a_schedule_has_no_effect_is_warned_of() {
    let server = server().await;
    let warned = async |more: Value| {
        let mut body = spec();
        body.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        let answer = put(&server, NIGHTLY, &body).await;
        assert!(answer.status < 300, "{answer:?}");
        assert_eq!(answer.json()["warnings"], server.get(NIGHTLY).await.json()["warnings"]);
        answer.json()["warnings"].as_array().map_or_else(Vec::new, |warnings| {
            let of = |warning: &Value| format!("{} {}", warning["code"], warning["pointer"]);
            warnings.iter().map(of).collect()
        })
    };
    assert_eq!(warned(json!({})).await, [""; 0]);
    assert_eq!(warned(json!({"queue_limit": 5})).await, [r#""no_effect" "/queue_limit""#]);
    assert_eq!(warned(json!({"queue_limit": 5, "overlap": "queue"})).await, [""; 0]);
    let over = json!({"end": "2020-01-01T00:00:00Z"});
    assert_eq!(warned(over).await, [r#""never_due" "/end""#]);
    server.stopped().await;
}

#[tokio::test]
async fn all_that_is_wrong_with_a_schedule_is_told_at_once() {
    let server = server().await;
    let bad = json!({
        "cron": "61 * * * *", "time_zone": "Mars/Base", "workflow": "nobody's", "queue_limit": 0,
        "jitter": "2d", "catch_up": "400d", "labels": {"schedule": "x", "a:b": "c"}
    });
    let answer = put(&server, NIGHTLY, &bad).await;
    assert_eq!(answer.problem(422), "invalid_schedule");
    let expected = [
        ("/cron", "invalid_cron"),
        ("/time_zone", "unknown_time_zone"),
        ("/queue_limit", "out_of_range"),
        ("/jitter", "out_of_range"),
        ("/catch_up", "out_of_range"),
        ("/labels/a:b", "forbidden_character"),
        ("/labels/schedule", "reserved_name"),
        ("/workflow", "unknown_workflow"),
    ];
    assert_eq!(errors(&answer), expected.map(|(at, code)| (at.to_owned(), code.to_owned())));
    for (change, pointer, code) in [
        (json!({"workflow": "strict", "input": {"shop": 7}}), "/input/shop", "schema"),
        (json!({"workflow": "strict"}), "/input", "schema"),
        (json!({"input": [1], "instant_as": "at"}), "/instant_as", "wrong_type"),
        (json!({"input": {"at": 1}, "instant_as": "at"}), "/instant_as", "duplicate_key"),
        (json!({"input": ["\u{0}"]}), "/input/0", "nul_character"),
        (json!({"version": 9}), "/workflow", "unknown_workflow"),
    ] {
        let mut body = spec();
        body.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        let answer = put(&server, NIGHTLY, &body).await;
        assert_eq!(answer.problem(422), "invalid_schedule", "{body}");
        assert_eq!(errors(&answer), [(pointer.to_owned(), code.to_owned())], "{body}");
    }
    for (member, value) in [("overlap", "never"), ("jitter", "soon"), ("cron", "")] {
        let mut body = spec();
        body[member] = value.into();
        let _ = put(&server, NIGHTLY, &body).await.problem(422);
    }
    for name in ["Nightly", "a%20b", "-"] {
        let answer = put(&server, &format!("/v1/schedules/{name}"), &spec()).await;
        assert_eq!(answer.problem(400), "invalid_path", "{name}");
    }
    for path in ["/next", "/starts", ""] {
        let answer = server.get(&format!("{NIGHTLY}{path}")).await;
        assert_eq!(answer.problem(404), "unknown_schedule");
    }
    put(&server, NIGHTLY, &spec()).await;
    assert_eq!(server.get(&format!("{NIGHTLY}/next?count=0")).await.problem(400), "invalid_query");
    let cursor = server.get(&format!("{NIGHTLY}/starts?after=x")).await;
    assert_eq!(cursor.problem(400), "invalid_cursor");
    for verb in ["pause", "resume", "trigger"] {
        let answer = server.post(&format!("{NIGHTLY}/{verb}"), json!({"reason": " "})).await;
        assert_eq!(answer.problem(422), "reason_missing", "{verb}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn the_next_starts_know_both_changes_of_the_clocks() {
    let server = server().await;
    put(&server, NIGHTLY, &spec()).await;
    let next = server.get(&format!("{NIGHTLY}/next?count=400")).await.json();
    let locals: Vec<&str> = next["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["local"].as_str().unwrap())
        .collect();
    let odd: Vec<&&str> = locals.iter().filter(|local| !local.contains("T02:30:00")).collect();
    assert_eq!(locals.len(), 400);
    assert!(odd.len() == 1 || odd.len() == 2, "{odd:?}");
    assert!(odd.iter().all(|local| local.contains("-03-") && local.ends_with("T03:00:00+02:00")));
    assert_eq!(next["paused"], false);
    server.stopped().await;
}

#[tokio::test]
async fn a_start_can_be_had_now() {
    let server = server().await;
    let mut body = spec();
    body["workflow"] = "strict".into();
    body["input"] = json!({"shop": "north"});
    body["instant_as"] = "at".into();
    put(&server, NIGHTLY, &body).await;
    server.post(&format!("{NIGHTLY}/pause"), json!({"reason": "moving house"})).await;
    let trigger = async |overlap: Option<&str>, key: &str| {
        let mut body = json!({"reason": "wanted now"});
        if let Some(overlap) = overlap {
            body["overlap"] = overlap.into();
        }
        let request = server.request("POST", &format!("{NIGHTLY}/trigger"));
        send(with_json(request.header("idempotency-key", key), body)).await
    };
    let first = trigger(None, "a").await;
    assert_eq!(
        (first.status, &first.json()["start"]["outcome"]),
        (200, &json!("started")),
        "{first:?}"
    );
    assert_eq!(first.json()["start"]["actor"], "anonymous");
    let run = first.json()["start"]["run"].as_str().unwrap().to_owned();
    let shown = server.get(&format!("/v1/runs/{run}")).await.json();
    assert_eq!(shown["labels"]["schedule"], "nightly");
    assert_eq!(shown["labels"]["scheduled_for"], shown["input"]["at"]);
    assert_eq!(shown["input"]["shop"], "north");
    assert_eq!(trigger(None, "a").await.text, first.text, "asked twice");

    let second = trigger(None, "b").await.json();
    assert_eq!(
        (&second["start"]["outcome"], &second["start"]["run"]),
        (&json!("skipped"), &Value::Null)
    );
    let third = trigger(Some("queue"), "c").await;
    assert_eq!((third.status, &third.json()["waiting"]), (202, &json!(true)), "{third:?}");
    assert_eq!(server.get(NIGHTLY).await.json()["waiting"][0]["origin"], "trigger");
    let fourth = trigger(Some("allow"), "d").await.json();
    assert_eq!(fourth["start"]["outcome"], "started");

    let hand = Hand::new(&server.engine);
    for _ in 0..3 {
        let task = hand.one().await;
        hand.succeed(&[task]).await;
    }
    // A run is at work before its schedule has told of it.
    while !server.get(NIGHTLY).await.json()["waiting"].is_null() {
        tokio::task::yield_now().await;
    }
    let starts = server.get(&format!("{NIGHTLY}/starts")).await.json();
    let lines = starts["items"].as_array().unwrap().iter();
    let outcomes: Vec<&str> = lines.map(|one| one["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["started", "started", "skipped", "started"], "newest first");
    let page = server.get(&format!("{NIGHTLY}/starts?limit=3")).await.json();
    let after = page["next"].as_str().unwrap();
    let rest = server.get(&format!("{NIGHTLY}/starts?limit=3&after={after}")).await.json();
    assert_eq!((rest["items"].as_array().unwrap().len(), &rest["next"]), (1, &Value::Null));
    server.stopped().await;
}

#[tokio::test]
async fn the_client_puts_pauses_and_makes_up_for_what_was_missed() {
    let server = server().await;
    let client = Client::new(server.url()).unwrap();
    client
        .register_definition(&serde_json::from_str(&chain("one", &["a"])).unwrap())
        .await
        .unwrap();
    let text = r#"{"cron":"* * * * * *","workflow":"one","overlap":"allow"}"#;
    let spec: ScheduleSpec = serde_json::from_str(text).unwrap();
    let made = client.put_schedule("busy", &spec).await.unwrap();
    assert!(made.next.is_some());
    // It starts by itself, second by second.
    while client.schedule("busy").await.unwrap().counts.started < 2 {
        tokio::task::yield_now().await;
    }
    let paused = client.pause_schedule("busy", "quiet, please").await.unwrap();
    assert_eq!(paused.paused.unwrap().reason, "quiet, please");
    assert_eq!(paused.next, None);
    let next = client.next_of_schedule("busy", 3).await.unwrap();
    assert!(next.paused && next.items.len() == 3);
    let lines = client.schedules().all().await.unwrap();
    assert!(lines.len() == 1 && lines[0].paused);

    let last = client.schedule_starts("busy").all().await.unwrap();
    assert!(last.iter().all(|start| start.outcome == StartOutcome::Started));
    let from = last.iter().map(|start| start.scheduled_for).min().unwrap();
    let to = last.iter().map(|start| start.scheduled_for).max().unwrap();
    // Ten seconds before it was made, and all that it has started.
    let from = backstitch_saga::Timestamp(backstitch_saga::Time(from.0.0 - 10_000));
    let mut ask = BackfillSchedule {
        from,
        to,
        overlap: Overlap::Allow,
        limit: 1_000,
        reason: "there was no such schedule then".to_owned(),
        dry_run: true,
    };
    let plan = client.backfill_schedule("busy", &ask).await.unwrap();
    assert_eq!((plan.instants.first(), plan.instants.last()), (Some(&from), Some(&to)));
    assert!(client.schedule("busy").await.unwrap().backfills.is_empty());
    ask.dry_run = false;
    // What has its run already is told as left out.
    let done = async || {
        let counts = client.schedule("busy").await.unwrap().counts;
        counts.started + counts.skipped
    };
    let before = done().await;
    client.backfill_schedule("busy", &ask).await.unwrap();
    while done().await < before + u64::from(plan.count) {
        tokio::task::yield_now().await;
    }
    let query = backstitch_sdk::RunQuery::new().label("schedule", "busy");
    let runs = client.runs(query).all().await.unwrap();
    assert_eq!(runs.len(), plan.count as usize, "an instant has one run");

    ask.limit = 5;
    let refused = client.backfill_schedule("busy", &ask).await.unwrap_err();
    assert_eq!((refused.status(), refused.code()), (Some(422), Some("invalid_request")));
    let resumed = client.resume_schedule("busy", "go on").await.unwrap();
    assert!(resumed.paused.is_none() && resumed.next.is_some());
    let triggered = client.trigger_schedule("busy", None, "one more").await.unwrap();
    assert_eq!(triggered.start.unwrap().outcome, StartOutcome::Started);
    let filter = ActFilter { schedule: Some("busy".to_owned()), ..ActFilter::default() };
    let acts = client.acts(&filter).all().await.unwrap();
    let acts: Vec<&str> = acts.iter().map(|one| one.verb.as_str()).collect();
    assert_eq!(acts, ["trigger", "resume", "backfill", "pause", "put"]);
    client.delete_schedule("busy").await.unwrap();
    assert_eq!(client.schedule("busy").await.unwrap_err().code(), Some("unknown_schedule"));
    server.stopped().await;
}

#[tokio::test]
async fn runs_of_a_schedule_end_within_the_time_that_it_says() {
    let server = server().await;
    let mut spec = spec();
    spec["end_within"] = "0s".into();
    let refused = put(&server, NIGHTLY, &spec).await;
    assert_eq!(errors(&refused), [("/end_within".to_owned(), "out_of_range".to_owned())]);
    spec["end_within"] = "6h".into();
    let made = put(&server, NIGHTLY, &spec).await;
    assert_eq!((made.status, &made.json()["spec"]["end_within"]), (201, &json!("6h")));
    let begun = server.post(&format!("{NIGHTLY}/trigger"), json!({ "reason": "r" })).await;
    assert!(begun.status < 300, "{begun:?}");
    let runs = async || server.get("/v1/runs?label=schedule:nightly").await.json()["items"].clone();
    backstitch_tests::eventually("the schedule starts a run", async || {
        runs().await.as_array().is_some_and(|runs| !runs.is_empty())
    })
    .await;
    let run = runs().await[0]["id"].as_str().unwrap().to_owned();
    let run = server.get(&format!("/v1/runs/{run}")).await.json();
    let time = |text: &Value| serde_json::from_value::<Timestamp>(text.clone()).unwrap().0;
    let left = time(&run["end_by"]["at"]).since(time(&run["started_at"]));
    assert!((Span::hours(5)..=Span::hours(6)).contains(&left), "{run:#}");
    server.stopped().await;
}
