//! Transforms over HTTP: revisions, activation, tests with a trace, and what is refused.

use backstitch_api::Access;
use backstitch_tests::server::{Answer, Server, send, with_json};
use futures::future::join_all;
use serde_json::{Value, json};

const EDGE: &str = "/v1/transforms/crm.contact/1/customer/1";

/// Returns a server with a vendor's contract and one of ours.
async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    let text = json!({"type": "string"});
    for (subject, name) in [("crm.contact", "full_name"), ("customer", "name")] {
        let members = json!({"id": text, name: text});
        let schema = json!({"type": "object", "properties": members, "required": ["id"]});
        let path = format!("/v1/contracts/{subject}/versions");
        let answer = server.post(&path, json!({ "schema": schema })).await;
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    server
}

async fn put(server: &Server, path: &str, body: Value) -> Answer {
    send(with_json(server.request("PUT", path), body)).await
}

/// Returns a transform that takes the name from the vendor's member, or says so.
fn copying() -> Value {
    json!({"rules": [
        {"to": "/id", "copy": "/id"},
        {"to": "/name", "copy": "/full_name", "required": true},
    ]})
}

fn naming(name: &str) -> Value {
    json!({"rules": [{"to": "/id", "copy": "/id"}, {"to": "/name", "const": name}]})
}

#[tokio::test]
async fn a_transform_that_does_not_fit_its_contracts_is_refused_with_places() {
    let server = server().await;
    let wrong =
        json!({"rules": [{"to": "/id", "copy": "/nowhere"}, {"to": "/colour", "const": "red"}]});
    let refused = put(&server, EDGE, json!({ "transform": wrong })).await;
    assert_eq!(refused.problem(422), "invalid_transform");
    let errors = refused.json()["errors"].as_array().unwrap().clone();
    let codes: Vec<&str> = errors.iter().map(|error| error["code"].as_str().unwrap()).collect();
    assert!(codes.contains(&"source_path_unknown"), "{errors:?}");
    assert!(codes.contains(&"target_path_unknown"), "{errors:?}");
    for error in &errors {
        assert!(error["pointer"].as_str().unwrap().starts_with("/transform/rules"), "{error}");
    }
    let unfilled = json!({"rules": [{"to": "/name", "copy": "/full_name"}]});
    let refused = put(&server, EDGE, json!({ "transform": unfilled })).await;
    assert!(refused.text.contains("required_target_unfilled"), "{refused:?}");
    let elsewhere = "/v1/transforms/crm.contact/1/order/1";
    let refused = put(&server, elsewhere, json!({ "transform": copying() })).await;
    assert_eq!(refused.problem(404), "unknown_contract");
    let later = "/v1/transforms/crm.contact/1/customer/2";
    let refused = put(&server, later, json!({ "transform": copying() })).await;
    assert_eq!(refused.problem(404), "unknown_contract_version");
    assert_eq!(server.get(EDGE).await.problem(404), "unknown_transform");
    let retire = json!({"state": "retired", "reason": "a test"});
    let retired = put(&server, "/v1/contracts/customer/versions/1/state", retire).await;
    assert_eq!(retired.status, 200, "{retired:?}");
    let refused = put(&server, EDGE, json!({ "transform": copying() })).await;
    assert_eq!(refused.problem(409), "version_retired");
    assert_eq!(server.get("/v1/transforms").await.json()["items"], json!([]));
    server.stopped().await;
}

#[tokio::test]
async fn a_revision_is_used_when_it_is_activated_and_the_same_is_no_new_one() {
    let server = server().await;
    assert_eq!(put(&server, EDGE, json!({ "transform": copying() })).await.status, 201);
    let spelt = copying().to_string().replace("\"/id\"", " \"/id\" ");
    let same =
        put(&server, EDGE, json!({ "transform": serde_json::from_str::<Value>(&spelt).unwrap() }))
            .await;
    assert_eq!((same.status, &same.json()["newest"]), (200, &json!(1)));
    let kept = json!({ "transform": naming("b"), "activate": false });
    let kept = put(&server, EDGE, kept).await;
    assert_eq!(
        (kept.status, &kept.json()["newest"], &kept.json()["active"]),
        (201, &json!(2), &json!(1))
    );
    let document = json!({"id": "1", "full_name": "a"});
    let test = format!("{EDGE}/test");
    let name = async |ask: Value| {
        let answer = server.post(&test, ask).await;
        assert_eq!(answer.status, 200, "{answer:?}");
        answer.json()["result"]["body"]["name"].clone()
    };
    assert_eq!(name(json!({ "document": document })).await, "a");
    assert_eq!(name(json!({ "document": document, "revision": 2 })).await, "b");
    assert_eq!(name(json!({ "document": document, "transform": naming("c") })).await, "c");
    let activate = format!("{EDGE}/activate");
    let unsaid = server.post(&activate, json!({"revision": 2, "reason": ""})).await;
    assert_eq!(unsaid.problem(422), "reason_missing");
    let unknown = server.post(&activate, json!({"revision": 3, "reason": "a test"})).await;
    assert_eq!(unknown.problem(404), "unknown_revision");
    let active = server.post(&activate, json!({"revision": 2, "reason": "a test"})).await;
    assert_eq!((active.status, &active.json()["transform"]), (200, &naming("b")));
    assert_eq!(name(json!({ "document": document })).await, "b");
    let back = server.post(&activate, json!({"revision": 1, "reason": "a test"})).await;
    assert_eq!(back.json()["active"], 1);
    let acts = server.get("/v1/acts?contract=customer").await.json();
    let verbs: Vec<&str> = acts["items"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|act| act["verb"].as_str().unwrap())
        .collect();
    assert_eq!(verbs, ["register", "put", "put", "activate", "activate"]);
    let request = server.bare("GET", EDGE).header("backstitch-namespace", "elsewhere");
    assert_eq!(send(request).await.problem(404), "unknown_transform");
    server.stopped().await;
}

#[tokio::test]
async fn a_test_says_what_each_rule_did_and_what_could_not_be_mapped() {
    let server = server().await;
    assert_eq!(put(&server, EDGE, json!({ "transform": copying() })).await.status, 201);
    let test = format!("{EDGE}/test");
    let document = json!({"id": "1", "full_name": "Ann", "colour": "red"});
    let made = server.post(&test, json!({ "document": document })).await.json();
    assert_eq!(made["result"]["body"], json!({"id": "1", "name": "Ann"}));
    assert_eq!(made["result"]["unmapped"], json!({"/colour": "red"}));
    let trace = made["trace"].as_array().unwrap();
    assert_eq!(trace.len(), 2);
    assert_eq!((&trace[1]["to"], &trace[1]["result"]), (&json!("/name"), &json!("set")));
    let failed = server.post(&test, json!({ "document": {"id": "1"} })).await.json();
    assert_eq!((&failed["mapped"], &failed["result"]), (&json!(false), &Value::Null));
    assert_eq!(failed["failures"][0]["rule"], "/rules/1", "{failed}");
    let unlike = server.post(&test, json!({ "document": {"id": 1} })).await;
    assert_eq!(unlike.problem(422), "invalid_document");
    assert_eq!(unlike.json()["errors"][0]["pointer"], "/document/id");
    let both = json!({ "document": {"id": "1"}, "transform": copying(), "revision": 1 });
    assert_eq!(server.post(&test, both).await.problem(422), "invalid_request");
    server.stopped().await;
}

#[tokio::test]
async fn a_hostile_document_or_transform_is_refused_with_its_code_and_the_server_lives() {
    let server = server().await;
    assert_eq!(put(&server, EDGE, json!({ "transform": copying() })).await.status, 201);
    let deep = format!("{}1{}", "[".repeat(20_000), "]".repeat(20_000));
    let hostile = [
        (r#"{"id":"\u0000"}"#.to_owned(), "nul_character"),
        (r#"{"id":"\ud800"}"#.to_owned(), "lone_surrogate"),
        (r#"{"id":1e1000000}"#.to_owned(), "number_out_of_range"),
        (r#"{"id":"a","id":"b"}"#.to_owned(), "duplicate_key"),
        (format!(r#"{{"id":{deep}}}"#), "nesting_too_deep"),
    ];
    for (document, code) in hostile {
        let answer =
            server.post(&format!("{EDGE}/test"), format!(r#"{{"document":{document}}}"#)).await;
        assert_eq!(answer.problem(422), "invalid_document", "{code}");
        assert_eq!(answer.json()["errors"][0]["code"], code);
        let request =
            with_json(server.request("PUT", EDGE), format!(r#"{{"transform":{document}}}"#));
        let answer = send(request).await;
        assert_eq!(answer.problem(422), "invalid_transform", "{code}");
        assert!(answer.text.contains(code), "{answer:?}");
    }
    assert_eq!(server.get(EDGE).await.json()["newest"], 1);
    server.stopped().await;
}

#[tokio::test]
async fn revisions_that_are_put_at_once_get_numbers_of_their_own() {
    let server = server().await;
    let names = ["a", "b", "c", "d"];
    let puts = names.map(|name| put(&server, EDGE, json!({ "transform": naming(name) })));
    for answer in join_all(puts).await {
        assert_eq!(answer.status, 201, "{answer:?}");
    }
    let view = server.get(EDGE).await.json();
    assert_eq!((&view["newest"], &view["active"]), (&json!(4), &json!(4)));
    assert_eq!(view["revisions"].as_array().unwrap().len(), 4);
    let line = server.get("/v1/transforms?limit=1").await.json();
    assert_eq!((&line["items"][0]["from"], &line["next"]), (&json!("crm.contact"), &Value::Null));
    server.stopped().await;
}
