//! JSON Schemas of definitions: no schema and no document keeps a node from its other work, whichever way it comes.

use std::time::Duration;

use backstitch_engine::{BackgroundTask, Error, Options};
use backstitch_saga::Payload;
use backstitch_saga::protocol::{Outcome, StartRequestState, StartRun};
use backstitch_sdk::StartInTransaction;
use backstitch_tests::node::{NS, ask, node, start};
use backstitch_tests::postgres::database;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

fn workflow(name: &str, members: &Value) -> String {
    let mut definition =
        json!({ "name": name, "version": 1, "steps": [{ "id": "a", "sleep": { "for": "1ms" } }] });
    definition.as_object_mut().unwrap().extend(members.as_object().unwrap().clone());
    definition.to_string()
}

/// Two alternatives that both recurse: an evaluation doubles with each level of the document.
fn alternatives() -> Value {
    let branch = json!({ "type": "object", "required": ["a"], "properties": { "a": { "$ref": "#/$defs/n" } } });
    json!({ "$defs": { "n": { "oneOf": [branch, branch, { "type": "integer" }] } }, "$ref": "#/$defs/n" })
}

fn nested(levels: usize) -> Value {
    (0..levels).fold(json!(1), |inner, _| json!({ "a": inner }))
}

fn code(error: &Error) -> (&str, &str) {
    match error {
        Error::Invalid { code, violations } => (code, violations[0].code.as_str()),
        other => panic!("{other}"),
    }
}

fn deaf(options: &mut Options) {
    options.tuning.inbox_every = Duration::from_secs(3_600);
}

#[tokio::test]
async fn a_document_too_costly_for_its_schema_is_refused_however_it_comes() {
    let url = database().await;
    let engine = node(&url, deaf).await;
    engine
        .register(NS, &workflow("deep", &json!({ "input_schema": alternatives() })))
        .await
        .unwrap();
    let child = json!({ "steps": [{ "id": "k", "child": { "workflow": "deep", "input": { "path": "/input" } } }] });
    engine.register(NS, &workflow("mother", &child)).await.unwrap();
    let deep = nested(60).to_string();
    let refused = engine.start_run(NS, start("deep", &deep)).await.unwrap_err();
    assert_eq!(code(&refused), ("schema_too_costly", "schema_too_costly"));
    let refused = engine.start_run(NS, start("deep", &nested(4).to_string())).await.unwrap_err();
    assert_eq!(code(&refused), ("invalid_input", "schema"));
    engine.start_run(NS, start("deep", "1")).await.unwrap();

    let mut shop = PgConnection::connect(&url).await.unwrap();
    ask(&mut shop, &StartInTransaction::named("deep", &nested(60)).unwrap().namespace(NS)).await;
    let listed = async || {
        engine.run_once(BackgroundTask::TakeAsked).await.unwrap();
        engine.start_requests(NS, Some(StartRequestState::Refused), None, 10).await.unwrap().items
    };
    let mut refused = listed().await;
    while refused.is_empty() {
        refused = listed().await;
    }
    assert_eq!(refused[0].refusal.as_ref().unwrap().code, "schema_too_costly");

    let mother = engine.start_run(NS, start("mother", &deep)).await.unwrap();
    let view = engine.wait(NS, mother.id, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::FailedClean));
    assert!(view.error.unwrap().failure.message.contains("schema_too_costly"));
}

#[tokio::test]
async fn a_schema_beyond_a_bound_is_refused_when_its_definition_is_registered() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    let pattern = json!({ "allOf": vec![json!({ "pattern": r"(?i)\p{L}{200}0" }); 60] });
    let misspelt = json!({ "type": "object", "requird": ["a"] });
    let cases = [
        ("/input_schema", workflow("x", &json!({ "input_schema": pattern })), "pattern_too_large"),
        (
            "/input_schema/requird",
            workflow("x", &json!({ "input_schema": misspelt })),
            "unknown_keyword",
        ),
        (
            "/output_schema/format",
            workflow("x", &json!({ "output_schema": { "format": "datetime" } })),
            "unknown_format",
        ),
        (
            "/steps/0/wait/schema/$ref",
            workflow(
                "x",
                &json!({ "steps": [{ "id": "w", "wait": { "signal": "s", "schema": { "$ref": "http://x/y" } } }] }),
            ),
            "unsupported_reference",
        ),
    ];
    for (pointer, definition, expected) in cases {
        for refused in [
            engine.register(NS, &definition).await.map(drop).unwrap_err(),
            engine.examine(NS, &definition).await.map(drop).unwrap_err(),
            backstitch_engine::validate(&definition).map(drop).unwrap_err(),
        ] {
            let Error::Invalid { code: "invalid_definition", violations } = refused else {
                panic!("{refused}")
            };
            assert_eq!(violations[0].code, expected);
            assert!(violations[0].pointer.starts_with(pointer), "{violations:?}");
        }
    }
}

#[tokio::test]
async fn costly_evaluations_of_one_namespace_leave_the_others_to_go_on() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    let schema = json!({ "items": { "pattern": "^([a-z]+)*(?=x)[a-z]$" } });
    engine.register("alpha", &workflow("slow", &json!({ "input_schema": schema }))).await.unwrap();
    engine
        .register("beta", &workflow("fast", &json!({ "input_schema": { "type": "integer" } })))
        .await
        .unwrap();
    let texts = Payload::of(&Value::Array(vec![json!("a".repeat(60)); 60])).unwrap();
    let slow = StartRun { input: texts, ..start("slow", "1") };
    let attack = tokio::spawn({
        let engine = engine.clone();
        async move { engine.start_runs("alpha", vec![slow; 20]).await }
    });
    for _ in 0..20 {
        let started = engine.start_run("beta", start("fast", "7"));
        tokio::time::timeout(Duration::from_secs(30), started).await.unwrap().unwrap();
    }
    let answers = attack.await.unwrap();
    assert!(answers.iter().all(|answer| matches!(answer.status, 422 | 503)), "{answers:?}");
}

#[tokio::test]
async fn a_start_request_over_which_nodes_die_is_set_aside_and_the_others_begin() {
    let url = database().await;
    let engine = node(&url, deaf).await;
    engine.register(NS, &workflow("plain", &json!({}))).await.unwrap();
    let mut shop = PgConnection::connect(&url).await.unwrap();
    let mut runs = Vec::new();
    let mut transaction = shop.begin().await.unwrap();
    for number in 0..4 {
        runs.push(
            ask(
                &mut transaction,
                &StartInTransaction::named("plain", &number).unwrap().namespace(NS),
            )
            .await,
        );
    }
    // Three nodes died while they had the first, and once also the second.
    for (run, tries) in [(runs[0], 3), (runs[1], 1)] {
        sqlx::query("update start_requests set tries = $2, reserved_until = now() - interval '1 second' where run_id = $1")
            .bind(run.0)
            .bind(tries)
            .execute(&mut *transaction)
            .await
            .unwrap();
    }
    transaction.commit().await.unwrap();
    let waiting = "select count(*) from start_requests where state = 'waiting'";
    while sqlx::query_scalar::<_, i64>(waiting).fetch_one(&mut shop).await.unwrap() > 0 {
        engine.run_once(BackgroundTask::TakeAsked).await.unwrap();
    }
    for run in &runs[1..] {
        engine.run(NS, *run, None).await.unwrap();
    }
    let refused = engine.start_requests(NS, None, None, 10).await.unwrap().items;
    assert_eq!((refused.len(), refused[0].run), (1, runs[0]));
    assert_eq!(refused[0].refusal.as_ref().unwrap().code, "poison");
}
