//! Documents inside runs against a real PostgreSQL: what does not fit into a record, and what is too large.

use backstitch_engine::Engine;
use backstitch_saga::protocol::{Outcome, RunView};
use backstitch_saga::{Payload, RunId, Span};
use backstitch_tests::node::{Hand, NS, node, start};
use backstitch_tests::postgres::database;
use serde_json::{Value, json};

const ITEMS: usize = 40;

/// Returns a fan-out whose items each get a document of about a kilobyte that is put together for them.
fn definition() -> String {
    let input = json!({"array": [{"path": "/input/b"}, {"path": "/item"}]});
    json!({"name": "many", "version": 1, "steps": [{"id": "each", "map": {
        "items": {"path": "/input/list"}, "join": "all", "empty": "succeed",
        "task": {"name": "do", "input": input, "class": "read_only"}}}]})
    .to_string()
}

fn input() -> String {
    let list: Vec<usize> = (0..ITEMS).collect();
    json!({"list": list, "b": "x".repeat(1_000)}).to_string()
}

async fn small_node(url: &str) -> Engine {
    node(url, |options| options.limits.record = 5_000).await
}

async fn view(engine: &Engine, run: RunId) -> RunView {
    engine.run(NS, run, None).await.unwrap()
}

async fn work_until_the_end(engine: &Engine, run: RunId) -> usize {
    let hand = Hand::new(engine);
    let mut done = 0;
    while view(engine, run).await.outcome.is_none() {
        let offers = hand.claim(100, Span::secs(1)).await;
        done += offers.len();
        for offer in &offers {
            let input: Value = offer.input.to().unwrap();
            assert_eq!(input[1], json!(offer.step.item));
        }
        hand.succeed(&offers).await;
    }
    done
}

#[tokio::test]
async fn a_fan_out_that_does_not_fit_into_a_record_goes_on_by_itself() {
    let url = database().await;
    let engine = small_node(&url).await;
    engine.register(NS, &definition()).await.unwrap();
    let run = engine.start_run(NS, start("many", &input())).await.unwrap().id;
    assert_eq!(work_until_the_end(&engine, run).await, ITEMS);
    let view = view(&engine, run).await;
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
    let history = engine.history(NS, run, None, 1_000).await.unwrap();
    let deferred = |event: &Payload| event.text().starts_with(r#"{"deferred""#);
    assert!(history.items.iter().filter(|entry| deferred(&entry.event)).count() > 3);
    engine.stop().await;
}

#[tokio::test]
async fn a_run_that_was_deferred_goes_on_at_another_node() {
    let url = database().await;
    let first = node(&url, |options| {
        options.limits.record = 5_000;
        // It dies after its first record.
        options.tuning.before_decide = Some(|command| {
            assert!(!matches!(command, backstitch_saga::Command::Tick), "no tick here");
        });
    })
    .await;
    first.register(NS, &definition()).await.unwrap();
    let run = first.start_run(NS, start("many", &input())).await.unwrap().id;
    assert!(view(&first, run).await.steps[0].items["waiting"] > 0);
    first.stop().await;
    let second = small_node(&url).await;
    assert_eq!(work_until_the_end(&second, run).await, ITEMS);
    assert_eq!(view(&second, run).await.outcome, Some(Outcome::Succeeded));
    second.stop().await;
}

#[tokio::test]
async fn inputs_that_expressions_make_too_large_fail_their_run_and_write_nothing() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    let eight = vec![json!({"path": "/input/b"}); 8];
    let definition = json!({"name": "large", "version": 1, "steps": [{"id": "each", "map": {
        "items": {"path": "/input/list"}, "join": "all", "empty": "succeed",
        "task": {"name": "do", "input": {"array": eight}, "class": "read_only"}}}]});
    engine.register(NS, &definition.to_string()).await.unwrap();
    let input = json!({"list": vec![0; 200], "b": "x".repeat(240_000)}).to_string();
    let run = engine.start_run(NS, start("large", &input)).await.unwrap().id;
    let view = view(&engine, run).await;
    assert_eq!(view.outcome, Some(Outcome::FailedClean));
    assert_eq!(view.error.unwrap().failure.code, "input_too_large");
    let history = engine.history(NS, run, None, 1_000).await.unwrap();
    let bytes: usize = history.items.iter().map(|entry| entry.event.text().len()).sum();
    assert!(bytes < 300_000, "{bytes} bytes of history");
    engine.stop().await;
}
