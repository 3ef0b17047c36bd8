//! The same document however it is spelt: a repeat with other escapes or numbers is a repeat, not a conflict.

use std::collections::BTreeMap;

use backstitch_api::Access;
use backstitch_sdk::StartInTransaction;
use backstitch_tests::node::{NS, ask, chain, json as document};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

/// A document in three spellings, and another one.
const PLAIN: &str = r#"{"name":"café","total":100,"tags":["a/b","😀"]}"#;
const ESCAPED: &str =
    r#"{ "tags": ["a\/b", "\ud83d\ude00"], "total": 1e2, "n\u0061me": "caf\u00e9" }"#;
const POINTED: &str = r#"{"name":"caf\u00E9","total":100.00,"tags":["\u0061\/b","😀"]}"#;
const OTHER: &str = r#"{"name":"cafe","total":100,"tags":["a/b","😀"]}"#;

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let wait = r#"{"name":"waits","version":1,"steps":[{"id":"w","wait":{"signal":"go"}},{"id":"v","wait":{"signal":"on"}}]}"#;
    server.engine.register(NS, wait).await.unwrap();
    server
}

fn start(key: &str, input: &str) -> String {
    format!(r#"{{"workflow":"one","key":"{key}","input":{input}}}"#)
}

#[tokio::test]
async fn a_start_with_the_same_key_and_the_input_spelt_otherwise_is_the_same_start() {
    let server = server().await;
    for spellings in [[PLAIN, ESCAPED, POINTED], [ESCAPED, POINTED, PLAIN]] {
        let key = uuid::Uuid::new_v4().to_string();
        let first = server.post("/v1/runs", start(&key, spellings[0])).await;
        assert_eq!(first.status, 201, "{first:?}");
        for again in spellings {
            let again = server.post("/v1/runs", start(&key, again)).await;
            assert_eq!((again.status, &again.json()["id"]), (200, &first.json()["id"]));
        }
        let other = server.post("/v1/runs", start(&key, OTHER)).await;
        assert_eq!(other.problem(409), "key_conflict");
        // All in one request, so that they meet in one batch.
        let runs = spellings.map(|input| start("all", input)).join(",");
        let all = server.post("/v1/runs/batch", format!(r#"{{"runs":[{runs}]}}"#)).await.json();
        let ids: Vec<&Value> = (0..3).map(|at| &all["results"][at]["id"]).collect();
        assert!(ids[0].is_string() && ids.iter().all(|id| *id == ids[0]), "{all:#}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_key_whose_digest_was_kept_by_an_earlier_version_still_tells_the_same_start() {
    let server = server().await;
    let mut connection = PgConnection::connect(server.database()).await.unwrap();
    for (key, began, again) in
        [("e", ESCAPED, PLAIN), ("p", PLAIN, ESCAPED), ("l", ESCAPED, ESCAPED)]
    {
        let first = server.post("/v1/runs", start(key, began)).await;
        // As the text without its layout was digested once.
        let digest = sqlx::query(
            "update run_keys set input_digest = sha256(convert_to($1, 'utf8')) where key = $2",
        );
        let layout = document(began).without_layout();
        digest.bind(&layout).bind(key).execute(&mut connection).await.unwrap();
        let again = server.post("/v1/runs", start(key, again)).await;
        assert_eq!((again.status, &again.json()["id"]), (200, &first.json()["id"]), "{key}");
        let other = server.post("/v1/runs", start(key, OTHER)).await;
        assert_eq!(other.problem(409), "key_conflict");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_start_from_a_transaction_is_the_same_as_one_by_rest_that_is_spelt_otherwise() {
    let server = server().await;
    let first = server.post("/v1/runs", start("k", ESCAPED)).await.json();
    let mut connection = PgConnection::connect(server.database()).await.unwrap();
    let input: Value = serde_json::from_str(PLAIN).unwrap();
    let asked = StartInTransaction::named("one", &input).unwrap().namespace(NS).key("k");
    let run = ask(&mut connection, &asked).await;
    assert_eq!(first["id"], json!(run));
    loop {
        let waiting = server.get("/v1/start-requests?state=waiting").await.json();
        if waiting["items"].as_array().unwrap().is_empty() {
            break;
        }
        tokio::task::yield_now().await;
    }
    let refused = server.get("/v1/start-requests?state=refused").await.json();
    assert_eq!(refused["items"], json!([]), "{refused:#}");
    server.stopped().await;
}

#[tokio::test]
async fn a_signal_that_is_repeated_in_another_spelling_is_the_same() {
    let server = server().await;
    let run = server.post("/v1/runs", r#"{"workflow":"waits","key":"there"}"#).await.json();
    let to_run = format!("/v1/runs/{}/signals/go", run["id"].as_str().unwrap());
    let early = |data: &str| {
        format!(r#"{{"workflow":"waits","key":"not-yet","signal":"go","data":{data}}}"#)
    };
    let mut statuses: BTreeMap<&str, Vec<u16>> = BTreeMap::new();
    for data in [ESCAPED, PLAIN, POINTED, OTHER] {
        let answer = server.post(&to_run, format!(r#"{{"data":{data}}}"#)).await;
        statuses.entry("run").or_default().push(answer.status);
        let answer = server.post("/v1/signals", early(data)).await;
        statuses.entry("early").or_default().push(answer.status);
    }
    assert_eq!(statuses["run"], [200, 200, 200, 409]);
    assert_eq!(statuses["early"], [202, 202, 202, 409]);
    server.stopped().await;
}

#[tokio::test]
async fn a_definition_that_is_spelt_otherwise_is_the_same_definition() {
    let server = server().await;
    let definition = |said: &str| {
        format!(
            r#"{{"name":"said","version":1,"steps":[{{"id":"a","task":{{"name":"do","class":"read_only","input":{{"const":{said}}}}}}}]}}"#
        )
    };
    let path = "/v1/workflows/said/versions/1";
    let put =
        async |said: &str| send(with_json(server.request("PUT", path), definition(said))).await;
    assert_eq!(put(ESCAPED).await.status, 201);
    for again in [ESCAPED, PLAIN, POINTED] {
        assert_eq!(put(again).await.status, 200);
    }
    assert_eq!(put(OTHER).await.problem(409), "version_conflict");
    // What was registered first is what runs.
    let there = server.get(path).await;
    assert!(there.text.contains(r#""n\u0061me": "caf\u00e9""#), "{there:?}");
    server.stopped().await;
}
