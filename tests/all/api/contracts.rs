//! Contracts over HTTP: versions, compatibility, readers, and what is refused.

use backstitch_api::Access;

use backstitch_sdk::{Client, contract_of};
use backstitch_tests::server::{Answer, Server, send, with_json};
use futures::future::join_all;
use serde_json::{Value, json};

async fn server() -> Server {
    Server::start(Access::Open).await
}

async fn put(server: &Server, path: &str, body: Value) -> Answer {
    send(with_json(server.request("PUT", path), body)).await
}

/// Returns the schema of a customer with these members, of which the first is required.
fn schema(members: &[&str]) -> Value {
    let properties: serde_json::Map<String, Value> =
        members.iter().map(|name| ((*name).to_owned(), json!({"type": "string"}))).collect();
    json!({"type": "object", "properties": properties, "required": members[..1]})
}

fn requiring_two() -> Value {
    let mut schema = schema(&["id", "name"]);
    schema["required"] = json!(["id", "name"]);
    schema
}

async fn register(server: &Server, subject: &str, body: Value) -> Answer {
    server.post(&format!("/v1/contracts/{subject}/versions"), body).await
}

async fn registered(server: &Server, subject: &str, schema: Value) -> u64 {
    let answer = register(server, subject, json!({ "schema": schema })).await;
    assert_eq!(answer.status, 201, "{answer:?}");
    answer.json()["version"].as_u64().unwrap()
}

#[tokio::test]
async fn a_schema_that_is_spelt_otherwise_is_the_same_version() {
    let server = server().await;
    assert_eq!(registered(&server, "customer", schema(&["id"])).await, 1);
    let spelt = r#"{"schema": {"required":["id"], "properties":{ "id":{"type":"string"} },"type":"object"}}"#;
    let same = server.post("/v1/contracts/customer/versions", spelt).await;
    assert_eq!((same.status, &same.json()["version"]), (200, &json!(1)));
    assert_eq!(registered(&server, "customer", schema(&["id", "name"])).await, 2);
    let view = server.get("/v1/contracts/customer").await.json();
    assert_eq!((&view["mode"], &view["kind"]), (&json!("full_transitive"), &json!("canonical")));
    assert_eq!(view["versions"].as_array().unwrap().len(), 2);
    let version = server.get("/v1/contracts/customer/versions/1").await.json();
    assert_eq!(version["schema"], schema(&["id"]));
    assert_eq!(registered(&server, "crm.contact", schema(&["id"])).await, 1);
    let vendor = server.get("/v1/contracts/crm.contact").await.json();
    assert_eq!((&vendor["mode"], &vendor["kind"]), (&json!("none"), &json!("vendor")));
    let first = server.get("/v1/contracts?limit=1").await.json();
    assert_eq!(first["items"][0]["subject"], "crm.contact");
    let next = first["next"].as_str().unwrap();
    let second = server.get(&format!("/v1/contracts?limit=1&after={next}")).await.json();
    assert_eq!(
        (&second["items"][0]["subject"], &second["next"]),
        (&json!("customer"), &Value::Null)
    );
    server.stopped().await;
}

#[tokio::test]
async fn an_incompatible_schema_is_refused_with_a_document_that_shows_it() {
    let server = server().await;
    registered(&server, "customer", schema(&["id"])).await;
    let refused = register(&server, "customer", json!({ "schema": requiring_two() })).await;
    assert_eq!(refused.problem(409), "incompatible_schema");
    let breaks = refused.json()["breaks"].clone();
    let backward = &breaks[0];
    assert_eq!(
        (&backward["rule"], &backward["direction"], &backward["version"]),
        (&json!("required"), &json!("backward"), &json!(1)),
        "{breaks}"
    );
    assert_eq!(backward["document"], json!({"id": ""}));
    let check = server
        .post("/v1/contracts/customer/check", json!({ "schema": requiring_two() }))
        .await
        .json();
    assert_eq!(
        (&check["accepted"], &check["code"]),
        (&json!(false), &json!("incompatible_schema"))
    );
    assert_eq!(check["breaks"], breaks);
    let check = server
        .post("/v1/contracts/customer/check", json!({ "schema": schema(&["id", "b"]) }))
        .await;
    assert_eq!((&check.json()["accepted"], &check.json()["version"]), (&json!(true), &json!(2)));
    let check =
        server.post("/v1/contracts/unheard-of/check", json!({ "schema": schema(&["id"]) })).await;
    assert_eq!((&check.json()["accepted"], &check.json()["version"]), (&json!(true), &json!(1)));
    assert_eq!(server.get("/v1/contracts/unheard-of").await.problem(404), "unknown_contract");
    let view = server.get("/v1/contracts/customer").await.json();
    assert_eq!(view["versions"].as_array().unwrap().len(), 1, "a check writes nothing");
    server.stopped().await;
}

#[tokio::test]
async fn a_breaking_version_needs_a_transform_up_and_one_down_while_there_are_readers() {
    let server = server().await;
    registered(&server, "customer", schema(&["id"])).await;
    let pin = put(&server, "/v1/contracts/customer/readers/billing", json!({"version": 1})).await;
    assert_eq!(pin.status, 200, "{pin:?}");
    let up = json!({"rules": [{"to": "/id", "copy": "/id"}, {"to": "/name", "const": "unknown"}]});
    let down = json!({"rules": [{"to": "/id", "copy": "/id"}]});
    let ask = |edges: Value| {
        let mut body = json!({ "schema": requiring_two() });
        body.as_object_mut().unwrap().extend(edges.as_object().unwrap().clone());
        register(&server, "customer", body)
    };
    let refused = ask(json!({ "up": up })).await;
    assert_eq!(refused.problem(409), "transform_required");
    assert!(refused.text.contains("billing"), "{refused:?}");
    let wrong = json!({"rules": [{"to": "/id", "copy": "/nowhere"}]});
    let refused = ask(json!({ "up": wrong, "down": down })).await;
    assert_eq!(refused.problem(422), "invalid_transform");
    let places: Vec<_> = refused.json()["errors"].as_array().unwrap().clone();
    assert!(
        places.iter().all(|error| error["pointer"].as_str().unwrap().starts_with("/up")),
        "{places:?}"
    );
    let accepted = ask(json!({ "up": up, "down": down })).await;
    assert_eq!(accepted.status, 201, "{accepted:?}");
    let view = server.get("/v1/contracts/customer/versions/2").await.json();
    assert_eq!((&view["up"], &view["down"]), (&up, &down));
    assert_eq!(view["breaks"][0]["rule"], "required");
    let first = json!({ "schema": schema(&["id"]), "up": up });
    let first = register(&server, "order", first).await;
    assert_eq!(
        first.problem(422),
        "invalid_transform",
        "there is nothing before the first version"
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_version_with_readers_cannot_be_retired_and_a_retired_one_gets_none() {
    let server = server().await;
    registered(&server, "customer", schema(&["id"])).await;
    registered(&server, "customer", schema(&["id", "name"])).await;
    let reader = "/v1/contracts/customer/readers/billing";
    assert_eq!(put(&server, reader, json!({"version": 1})).await.status, 200);
    assert_eq!(
        put(&server, reader, json!({"version": 7})).await.problem(404),
        "unknown_contract_version"
    );
    let state = "/v1/contracts/customer/versions/1/state";
    let retire = json!({"state": "retired", "reason": "a test"});
    let refused = put(&server, state, retire.clone()).await;
    assert_eq!(refused.problem(409), "contract_has_readers");
    assert!(refused.text.contains("billing"), "{refused:?}");
    let unsaid = put(&server, state, json!({"state": "deprecated", "reason": ""})).await;
    assert_eq!(unsaid.problem(422), "reason_missing");
    let deprecate = json!({"state": "deprecated", "reason": "a test"});
    assert_eq!(put(&server, state, deprecate).await.json()["state"], "deprecated");
    assert_eq!(put(&server, reader, json!({"version": 2})).await.status, 200);
    assert_eq!(put(&server, state, retire).await.json()["state"], "retired");
    let late = put(&server, "/v1/contracts/customer/readers/late", json!({"version": 1})).await;
    assert_eq!(late.problem(409), "version_retired");
    assert_eq!(send(server.request("DELETE", reader)).await.status, 204);
    assert_eq!(send(server.request("DELETE", reader)).await.problem(404), "unknown_reader");
    let acts = server.get("/v1/acts?contract=customer").await.json();
    let verbs: Vec<&str> = acts["items"]
        .as_array()
        .unwrap()
        .iter()
        .rev()
        .map(|act| act["verb"].as_str().unwrap())
        .collect();
    assert_eq!(
        verbs,
        ["register", "register", "pin", "set-state", "pin", "set-state", "unpin"],
        "nothing that was refused stands in the audit"
    );
    server.stopped().await;
}

#[tokio::test]
async fn versions_that_are_registered_at_once_get_numbers_of_their_own() {
    let server = server().await;
    let names = ["a", "b", "c", "d"];
    let asks = names
        .iter()
        .chain(&names)
        .map(|name| register(&server, "crm.contact", json!({ "schema": schema(&[name]) })));
    let answers = join_all(asks).await;
    let mut made: Vec<u64> = Vec::new();
    for answer in &answers {
        assert!(matches!(answer.status, 200 | 201), "{answer:?}");
        if answer.status == 201 {
            made.push(answer.json()["version"].as_u64().unwrap());
        }
    }
    made.sort_unstable();
    assert_eq!(made, [1, 2, 3, 4]);
    let view = server.get("/v1/contracts/crm.contact").await.json();
    assert_eq!(view["versions"].as_array().unwrap().len(), 4);
    server.stopped().await;
}

#[tokio::test]
async fn a_reader_that_is_pinned_while_its_version_is_retired_never_reads_a_retired_version() {
    let server = server().await;
    registered(&server, "customer", schema(&["id"])).await;
    for round in 0..10 {
        let reader = format!("/v1/contracts/customer/readers/reader-{round}");
        let state = "/v1/contracts/customer/versions/1/state";
        let (pinned, retired) = tokio::join!(
            put(&server, &reader, json!({"version": 1})),
            put(&server, state, json!({"state": "retired", "reason": "a test"})),
        );
        match (pinned.status, retired.status) {
            (200, 409) => assert_eq!(retired.problem(409), "contract_has_readers"),
            (409, 200) => assert_eq!(pinned.problem(409), "version_retired"),
            _ => panic!("{pinned:?} {retired:?}"),
        }
        put(&server, state, json!({"state": "active", "reason": "a test"})).await;
        send(server.request("DELETE", &reader)).await;
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_hostile_schema_is_refused_with_its_code_and_the_server_lives() {
    let server = server().await;
    let deep = |open: &str, close: &str, levels: usize| {
        format!("{}{{}}{}", open.repeat(levels), close.repeat(levels))
    };
    let of_schema = [
        (r#"{"type":"string","const":"\u0000"}"#.to_owned(), "nul_character"),
        (r#"{"type":"string","const":"\ud800"}"#.to_owned(), "lone_surrogate"),
        (r#"{"type":"number","maximum":1e1000000}"#.to_owned(), "number_out_of_range"),
        (r#"{"type":"string","type":"string"}"#.to_owned(), "duplicate_key"),
        (deep(r#"{"items":"#, "}", 100), "nesting_too_deep"),
        (r#"{"$ref":"https://elsewhere/schema"}"#.to_owned(), "reference_not_supported"),
        (
            r##"{"$defs":{"a":{"$ref":"#/$defs/a"}},"$ref":"#/$defs/a"}"##.to_owned(),
            "reference_cycle",
        ),
        (r#"{"type":"object","patternProperties":{}}"#.to_owned(), "keyword_not_supported"),
        (format!(r#"{{"type":"string","enum":["{}"]}}"#, "x".repeat(70_000)), "payload_too_large"),
    ];
    for (schema, code) in of_schema {
        for route in ["versions", "check"] {
            let path = format!("/v1/contracts/customer/{route}");
            let answer = server.post(&path, format!(r#"{{"schema":{schema}}}"#)).await;
            assert_eq!(answer.problem(422), "invalid_schema", "{code}");
            let error = answer.json()["errors"][0].clone();
            assert_eq!(error["code"], code, "{error}");
            assert!(error["pointer"].as_str().unwrap().starts_with("/schema"), "{error}");
        }
    }
    let bottomless = format!(r#"{{"schema":{}}}"#, deep(r#"{"items":"#, "}", 20_000));
    let answer = server.post("/v1/contracts/customer/versions", bottomless).await;
    assert_eq!(answer.problem(422), "invalid_schema");
    for subject in ["Customer", "a..b", "a%00b", "%F0%9F%A6%80"] {
        let answer = register(&server, subject, json!({ "schema": {} })).await;
        assert!((400..500).contains(&answer.status), "{subject}: {answer:?}");
        let answer = server.get(&format!("/v1/contracts/{subject}")).await;
        assert!((400..500).contains(&answer.status), "{subject}: {answer:?}");
    }
    assert_eq!(server.get("/v1/contracts").await.json()["items"], json!([]));
    server.stopped().await;
}

#[tokio::test]
async fn a_mode_holds_from_when_it_is_set_and_in_its_namespace_alone() {
    let server = server().await;
    registered(&server, "customer", schema(&["id"])).await;
    let other = json!({ "schema": schema(&["id", "a"]), "mode": "none" });
    assert_eq!(register(&server, "customer", other).await.problem(409), "mode_conflict");
    let set = json!({"mode": "none", "reason": "a test"});
    assert_eq!(put(&server, "/v1/contracts/customer", set.clone()).await.json()["mode"], "none");
    assert_eq!(registered(&server, "customer", requiring_two()).await, 2);
    assert_eq!(put(&server, "/v1/contracts/order", set).await.problem(404), "unknown_contract");
    let request = server.bare("GET", "/v1/contracts/customer");
    let elsewhere = send(request.header("backstitch-namespace", "elsewhere")).await;
    assert_eq!(elsewhere.problem(404), "unknown_contract");
    server.stopped().await;
}

#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema counts")]
struct Line {
    sku: String,
    quantity: u32,
}

#[derive(schemars::JsonSchema)]
#[expect(dead_code, reason = "only its schema counts")]
struct Order {
    id: String,
    note: Option<String>,
    lines: Vec<Line>,
    first: Option<Line>,
    weight: f64,
}

#[tokio::test]
async fn a_rust_type_registers_its_own_contract() {
    let server = server().await;
    let client = Client::new(server.url()).unwrap().namespace("default").unwrap();
    let contract = contract_of::<Order>().unwrap();
    let first = client.register_contract("order", &contract).await.unwrap();
    let again = client.register_contract("order", &contract).await.unwrap();
    assert_eq!((first.version, again.version), (1, 1));
    let other = contract_of::<Line>().unwrap();
    let refused = client.register_contract("order", &other).await.unwrap_err();
    assert_eq!(refused.code(), Some("incompatible_schema"));
    assert!(!client.check_contract("order", &other).await.unwrap().accepted);
    assert_eq!(client.contract("order").await.unwrap().versions.len(), 1);
    server.stopped().await;
}
