//! Answers of bounded size: histories, items and runs are cut where they are full, and go on from there.

use backstitch_api::Access;
use backstitch_engine::fuzz::forged_cursor;
use backstitch_saga::Span;
use backstitch_saga::protocol::TaskOutcome;
use backstitch_tests::node::{Hand, NS, json as document, report};
use backstitch_tests::server::Server;
use serde_json::{Value, json};

const MIB: usize = 1024 * 1024;
const ITEMS: usize = 60;

/// Returns a run whose items each gave a document of 200 kB: 12 MB in all.
async fn large(server: &Server) -> String {
    let definition = json!({"name": "large", "version": 1, "steps": [{"id": "each", "map": {
        "items": {"path": "/input"}, "key": {"path": "/item"}, "join": "all", "empty": "succeed",
        "task": {"name": "do", "input": {"path": "/item"}, "class": "read_only"}}}]});
    server.engine.register(NS, &definition.to_string()).await.unwrap();
    let list: Vec<String> = (0..ITEMS).map(|item| format!("sku {item}")).collect();
    let started = server.post("/v1/runs", json!({"workflow": "large", "input": list})).await.json();
    let hand = Hand::new(&server.engine);
    let output = document(&json!("x".repeat(200_000)).to_string());
    let mut done = 0;
    while done < ITEMS {
        let offers = hand.claim(20, Span::secs(30)).await;
        done += offers.len();
        assert!(offers.iter().all(|offer| offer.item_key.is_some()));
        let outcome = TaskOutcome::Succeeded { output: output.clone(), external_id: None };
        let reports = offers.iter().map(|offer| report(offer, outcome.clone())).collect();
        server.engine.complete(NS, reports).await;
    }
    format!("/v1/runs/{}", started["id"].as_str().unwrap())
}

/// Returns all elements of a list, and the bytes of its largest page.
async fn walk(server: &Server, path: &str) -> (Vec<Value>, usize) {
    let (mut found, mut largest, mut after) = (Vec::new(), 0, String::new());
    loop {
        let answer = server.get(&format!("{path}?limit=1000{after}")).await;
        largest = largest.max(answer.text.len());
        let page = answer.json();
        let items = page["items"].as_array().unwrap();
        found.extend(items.iter().cloned());
        match page["next"].as_str() {
            Some(next) => {
                assert!(!items.is_empty());
                after = format!("&after={next}");
            }
            None => return (found, largest),
        }
    }
}

#[tokio::test]
async fn histories_and_items_are_cut_where_an_answer_is_full() {
    let server = Server::start(Access::Open).await;
    let run = large(&server).await;
    let (history, largest) = walk(&server, &format!("{run}/history")).await;
    assert!(largest < 9 * MIB, "{largest}");
    let succeeded = history.iter().filter(|entry| entry["event"].get("succeeded").is_some());
    assert_eq!(succeeded.count(), ITEMS);
    let seqs: Vec<u64> = history.iter().map(|entry| entry["seq"].as_u64().unwrap()).collect();
    assert!(seqs.is_sorted());
    let (items, largest) = walk(&server, &format!("{run}/steps/each/items")).await;
    assert!(largest < 9 * MIB, "{largest}");
    let keys: Vec<&str> = items.iter().map(|item| item["item_key"].as_str().unwrap()).collect();
    assert_eq!(keys, (0..ITEMS).map(|item| format!("sku {item}")).collect::<Vec<_>>());
    server.stopped().await;
}

#[tokio::test]
async fn an_item_is_found_by_its_key_wherever_a_step_is_named() {
    let server = Server::start(Access::Open).await;
    let run = large(&server).await;
    let page = server.get(&format!("{run}/steps/each/items?key=sku%207")).await.json();
    assert_eq!(page["items"].as_array().unwrap().len(), 1);
    assert_eq!(page["items"][0]["step"], "each/7");
    let item = server.get(&format!("{run}/steps/each?key=sku%207")).await.json();
    assert_eq!((&item["step"], &item["item_key"]), (&json!("each/7"), &json!("sku 7")));
    let none = server.get(&format!("{run}/steps/each?key=sku%20700")).await;
    assert_eq!(none.problem(404), "unknown_step");
    let none = server.get(&format!("{run}/steps/each/items?key=sku%20700")).await.json();
    assert_eq!(none["items"], json!([]));
    let retry = format!("{run}/steps/each/retry?key=sku%207");
    let refused = server.post(&retry, r#"{"reason":"once more"}"#).await;
    assert_eq!(refused.problem(409), "nothing_to_retry");
    server.stopped().await;
}

#[tokio::test]
async fn the_view_of_a_run_leaves_out_outputs_that_would_make_it_too_large() {
    let server = Server::start(Access::Open).await;
    let steps: Vec<Value> = (0..ITEMS)
        .map(|step| json!({"id": format!("s{step}"), "task": {"name": "do", "class": "read_only", "input": {"const": step}}}))
        .collect();
    let definition = json!({"name": "wide", "version": 1, "steps": steps});
    server.engine.register(NS, &definition.to_string()).await.unwrap();
    let started = server.post("/v1/runs", json!({"workflow": "wide"})).await.json();
    let hand = Hand::new(&server.engine);
    let output = document(&json!("x".repeat(200_000)).to_string());
    let mut done = 0;
    while done < ITEMS {
        let offers = hand.claim(20, Span::secs(30)).await;
        done += offers.len();
        let outcome = TaskOutcome::Succeeded { output: output.clone(), external_id: None };
        let reports = offers.iter().map(|offer| report(offer, outcome.clone())).collect();
        server.engine.complete(NS, reports).await;
    }
    let run = format!("/v1/runs/{}", started["id"].as_str().unwrap());
    let answer = server.get(&run).await;
    assert!(answer.text.len() < 9 * MIB, "{}", answer.text.len());
    let view = answer.json();
    let told = view["steps"].as_array().unwrap();
    assert!(told[0]["output"].is_string() && told[0].get("output_bytes").is_none());
    let last = &told[ITEMS - 1];
    assert!(last.get("output").is_none());
    assert_eq!((&last["state"], &last["output_bytes"]), (&json!("succeeded"), &json!(200_002)));
    let whole = server.get(&format!("{run}/steps/s{}", ITEMS - 1)).await.json();
    assert_eq!(whole["output"].as_str().unwrap().len(), 200_000);
    server.stopped().await;
}

#[tokio::test]
async fn plans_are_answered_in_pages_of_bounded_size() {
    let server = Server::start(Access::Open).await;
    let definition = json!({"name": "undone", "version": 1, "steps": [
        {"id": "each", "map": {"items": {"path": "/input"}, "join": "all", "empty": "succeed",
            "task": {"name": "do", "input": {"path": "/item"}, "compensate": {"name": "undo"}}}},
        {"id": "last", "after": ["each"], "task": {"name": "do", "input": {"const": "z"}, "compensate": {"name": "undo"}}}]});
    server.engine.register(NS, &definition.to_string()).await.unwrap();
    let list: Vec<usize> = (0..ITEMS).collect();
    let started = server.post("/v1/runs", json!({"workflow": "undone", "input": list})).await;
    let run = started.json()["id"].as_str().unwrap().to_owned();
    let hand = Hand::new(&server.engine);
    let output = document(&json!("x".repeat(200_000)).to_string());
    let mut done = 0;
    while done < ITEMS + 1 {
        let offers = hand.claim(20, Span::secs(30)).await;
        done += offers.len();
        let outcome = TaskOutcome::Succeeded { output: output.clone(), external_id: None };
        let reports = offers.iter().map(|offer| report(offer, outcome.clone())).collect();
        server.engine.complete(NS, reports).await;
    }
    let wanted: Vec<String> = std::iter::once("last".to_owned())
        .chain((0..ITEMS).map(|item| format!("each/{item}")))
        .collect();
    for (verb, ask, inner) in [
        ("compensate", json!({"scope": "all", "reason": "", "dry_run": true}), ""),
        ("rerun", json!({"from": "each", "reason": "", "dry_run": true}), "/undo"),
    ] {
        for limit in [7, 1_000] {
            let (mut found, mut after) = (Vec::new(), String::new());
            loop {
                let path = format!("/v1/runs/{run}/{verb}?limit={limit}{after}");
                let answer = server.post(&path, &ask).await;
                assert!(
                    answer.status == 200 && answer.text.len() < 9 * MIB,
                    "{}",
                    answer.text.len()
                );
                let whole = answer.json();
                let plan = whole.pointer(inner).unwrap();
                assert_eq!(plan["total"], ITEMS + 1);
                let steps = plan["steps"].as_array().unwrap();
                assert!(!steps.is_empty() && steps.len() <= limit);
                found.extend(steps.iter().map(|undo| undo["step"].as_str().unwrap().to_owned()));
                let Some(next) = plan["next"].as_str() else { break };
                after = format!("&after={next}");
            }
            assert_eq!(found, wanted, "{verb} {limit}");
        }
        let gone = forged_cursor('u', "each/999");
        let gone = server.post(&format!("/v1/runs/{run}/{verb}?after={gone}"), &ask).await;
        assert_eq!(gone.problem(409), "nothing_to_compensate");
    }
    server.stopped().await;
}
