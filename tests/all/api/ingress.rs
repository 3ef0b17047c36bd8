//! Sources and their doors over HTTP: a document is verified, held to its contract, kept as it came, and in the log
//! once.

use std::collections::BTreeSet;

use backstitch_api::Access;
use backstitch_tests::node::{NS, metric};
use backstitch_tests::server::{Answer, Server, send, with_json};
use futures::future::join_all;
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-the-crm";
const SOURCE: &str = "/v1/sources/crm";

fn door() -> String {
    format!("/v1/in/{NS}/crm")
}

fn schema() -> Value {
    let text = json!({"type": "string"});
    json!({"type": "object", "properties": {"id": text, "name": text}, "required": ["id", "name"]})
}

fn spec() -> Value {
    json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact"}], "version_from": {"fixed": 1},
        "dedupe": [{"pointer": "/id"}],
    })
}

/// `spec` with some members put for others.
#[expect(clippy::needless_pass_by_value, reason = "tests pass what they make")]
fn with(more: Value) -> Value {
    let mut spec = spec();
    spec.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    spec
}

async fn register(server: &Server, subject: &str, schema: Value) {
    let path = format!("/v1/contracts/{subject}/versions");
    assert!(server.post(&path, json!({"schema": schema})).await.status < 300);
}

async fn put(server: &Server, spec: Value) -> Answer {
    let body = json!({"spec": spec, "secret": TOKEN});
    send(with_json(server.request("PUT", SOURCE), body)).await
}

/// Returns a server with a source of contacts.
async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    register(&server, "crm.contact", schema()).await;
    let made = put(&server, spec()).await;
    assert_eq!((made.status, &made.json()["address"]), (201, &json!(door())), "{made:?}");
    server
}

/// Sends bytes as the source does, without any header of ours.
async fn send_bytes(server: &Server, path: &str, body: impl Into<Vec<u8>>) -> Answer {
    let request = server.bare("POST", path).bearer_auth(TOKEN);
    send(request.header("content-type", "application/json").body(body.into())).await
}

async fn send_in(server: &Server, body: &Value) -> Answer {
    send_bytes(server, &door(), body.to_string()).await
}

fn contact(id: &str) -> Value {
    json!({"id": id, "name": "Ann"})
}

/// Returns the events of the log, once there are so many.
async fn events(server: &Server, count: usize) -> Vec<Value> {
    loop {
        let page = server.get("/v1/events?limit=1000").await.json();
        let items = page["items"].as_array().unwrap().clone();
        if items.len() >= count {
            return items;
        }
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
}

async fn listed(server: &Server, query: &str) -> Vec<Value> {
    let page = server.get(&format!("/v1/intakes?{query}")).await.json();
    page["items"].as_array().unwrap_or_else(|| panic!("{page}")).clone()
}

#[tokio::test]
async fn a_document_is_in_the_log_once_and_kept_byte_for_byte() {
    let server = server().await;
    // Spaces, escapes, the spelling of numbers: what a reader would change.
    let body = "  { \"name\" : \"\\u00c4nn\", \"id\":\"c-1\",\"n\": 1.50e+2 }\r\n";
    let taken = send_bytes(&server, &door(), body).await;
    assert_eq!(taken.status, 202, "{taken:?}");
    let receipt = taken.json();
    assert_eq!(receipt["duplicate"], false);
    let again = send_bytes(&server, &door(), body).await;
    assert_eq!(again.status, 200, "{again:?}");
    for id in ["intake_id", "event_id"] {
        assert_eq!(again.json()[id], receipt[id], "{id}");
    }
    assert_eq!(again.json()["duplicate"], true);
    let intake = format!("/v1/intakes/{}", receipt["intake_id"].as_str().unwrap());
    let raw = server.get(&format!("{intake}/raw")).await;
    assert_eq!((raw.text.as_str(), raw.kind.as_str()), (body, "application/json"));
    let view = server.get(&intake).await.json();
    assert_eq!(
        (&view["verdict"], &view["event_id"], &view["contract"], &view["trust"], &view["bytes"]),
        (
            &json!("accepted"),
            &receipt["event_id"],
            &json!("crm.contact@1"),
            &json!("authenticated"),
            &json!(body.len())
        )
    );
    let headers = view["headers"].as_object().unwrap();
    assert!(
        !headers.contains_key("authorization") && headers.contains_key("content-type"),
        "{view}"
    );
    let event = events(&server, 1).await.remove(0);
    assert_eq!(
        (&event["id"], &event["type"], &event["contract"], &event["source"], &event["trust"]),
        (
            &receipt["event_id"],
            &json!("crm.contact"),
            &json!("crm.contact@1"),
            &json!("crm"),
            &json!("authenticated")
        )
    );
    assert_eq!(event["received_at"], view["received_at"]);
    let other = send_bytes(&server, &door(), r#"{"id":"c-1","name":"Bob"}"#).await;
    assert_eq!(other.problem(409), "dedupe_key_reused");
    let kept = format!("/v1/intakes/{}", other.json()["intake_id"].as_str().unwrap());
    assert_eq!(server.get(&kept).await.json()["code"], "dedupe_key_reused");
    assert_eq!(events(&server, 1).await.len(), 1);
    let count = |name: &str| metric(&server.engine, name);
    assert_eq!(
        (
            count("intake_accepted_total"),
            count("intake_duplicates_total"),
            count("intake_refused_total")
        ),
        (1.0, 1.0, 1.0)
    );
    server.stopped().await;
}

#[tokio::test]
async fn documents_that_are_sent_at_once_to_two_servers_are_one_event_each() {
    let server = server().await;
    let other = server.beside().await;
    let sends = (0..120).map(async |at| {
        let server = if at % 2 == 0 { &server } else { &other };
        send_in(server, &contact(&format!("c-{}", at % 10))).await
    });
    let answers = join_all(sends).await;
    let statuses: Vec<u16> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses.iter().filter(|status| **status == 202).count(), 10, "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 202].contains(status)), "{statuses:?}");
    let ids: BTreeSet<String> =
        answers.iter().map(|answer| answer.json()["intake_id"].to_string()).collect();
    assert_eq!(ids.len(), 10);
    assert_eq!(
        (events(&server, 10).await.len(), listed(&server, "source=crm").await.len()),
        (10, 10)
    );
    other.stopped().await;
    server.stopped().await;
}

#[tokio::test]
async fn the_checks_come_in_their_order_each_with_its_code() {
    let server = server().await;
    assert_eq!(
        put(&server, with(json!({"max_bytes": 200, "version_from": {"pointer": "/v"}})))
            .await
            .status,
        200
    );
    register(
        &server,
        "crm.contact",
        json!({"type": "object", "properties": {"id": {"type": "string"}}}),
    )
    .await;
    let state = json!({"state": "retired", "reason": "r"});
    let path = "/v1/contracts/crm.contact/versions/2/state";
    assert_eq!(send(with_json(server.request("PUT", path), state)).await.status, 200);
    let ask = async |path: &str, token: &str, kind: &str, body: &str| {
        let request = server.bare("POST", path).header("content-type", kind);
        let request = if token.is_empty() { request } else { request.bearer_auth(token) };
        send(request.body(body.to_owned())).await
    };
    let json = "application/json";
    let long = format!("[\"{}\"]", "x".repeat(300));
    let door = door();
    // Each has what is wrong, and everything behind it wrong as well.
    for (path, token, kind, body, status, code) in [
        ("/v1/in/nowhere/crm", "", "text/plain", long.as_str(), 404, "unknown_source"),
        ("/v1/in/Not%20A%20Name/crm", "", "text/plain", &long, 404, "unknown_source"),
        (&door, "wrong", "text/plain", &long, 413, "payload_too_large"),
        (&door, "wrong", "text/plain", "{", 415, "content_type_not_supported"),
        (
            &door,
            "wrong",
            "application/json; charset=latin1",
            "{",
            415,
            "content_type_not_supported",
        ),
        (&door, "", json, "{", 401, "signature_missing"),
        (&door, "wrong", json, "{", 401, "signature_invalid"),
        (&door, TOKEN, json, "{", 400, "invalid_json"),
        (&door, TOKEN, "application/cloudevents+json", "{}", 422, "cloudevent_not_valid"),
        (&door, TOKEN, json, "{}", 422, "version_missing"),
        (&door, TOKEN, json, r#"{"v":7}"#, 422, "version_unknown"),
        (&door, TOKEN, json, r#"{"v":2}"#, 422, "version_retired"),
        (&door, TOKEN, json, r#"{"v":1,"name":7}"#, 422, "schema_violation"),
    ] {
        let answer = ask(path, token, kind, body).await;
        assert_eq!(answer.problem(status), code, "{path} {kind} {body}");
        // What was refused before the sender was verified leaves nothing but a count.
        let is_kept = answer.json()["intake_id"].is_string();
        assert_eq!(is_kept, token == TOKEN, "{answer:?}");
    }
    let violation = ask(&door, TOKEN, json, r#"{"v":1,"name":7}"#).await.json();
    assert_eq!(violation["errors"].as_array().unwrap().len(), 2, "all that is wrong: {violation}");
    assert_eq!(put(&server, with(json!({"dedupe": [{"pointer": "/key"}]}))).await.status, 200);
    let missing = ask(&door, TOKEN, json, r#"{"id":"a","name":"b"}"#).await;
    assert_eq!(missing.problem(422), "dedupe_key_missing");
    let when = json!({"accepts": [{"match": {"header": "X-Event", "is": "contact"}, "contract": "crm.contact"}]});
    assert_eq!(put(&server, with(when)).await.status, 200);
    assert_eq!(
        ask(&door, TOKEN, json, r#"{"id":"a","name":"b"}"#).await.problem(422),
        "unknown_type"
    );
    assert_eq!(put(&server, with(json!({"enabled": false}))).await.status, 200);
    assert_eq!(ask(&door, "wrong", "text/plain", &long).await.problem(403), "source_disabled");
    assert!(metric(&server.engine, "intake_unverified_total") >= 4.0);
    assert_eq!(listed(&server, "verdict=accepted").await.len(), 0);
    assert!(server.get("/v1/events").await.json()["items"].as_array().unwrap().is_empty());
    server.stopped().await;
}

/// Documents that PostgreSQL or a reader could not hold, each with its code.
fn hostile() -> Vec<(Vec<u8>, &'static str)> {
    let deep = "[".repeat(20_000) + &"]".repeat(20_000);
    vec![
        (br#"{"id":"\u0000","name":"a"}"#.to_vec(), "nul_character"),
        (br#"{"id":"\ud800","name":"a"}"#.to_vec(), "lone_surrogate"),
        (br#"{"id":"a","name":"b","n":1e1000000}"#.to_vec(), "number_out_of_range"),
        (br#"{"id":"a","id":"b","name":"c"}"#.to_vec(), "duplicate_key"),
        (deep.into_bytes(), "nesting_too_deep"),
        (b"{\"id\":\"\xff\"}".to_vec(), "invalid_json"),
        (b"{\"id\":\"\0\"}".to_vec(), "invalid_json"),
        (Vec::new(), "invalid_json"),
        ("\u{feff}{}".as_bytes().to_vec(), "invalid_json"),
    ]
}

#[tokio::test]
async fn what_nobody_could_hold_is_refused_with_its_code_and_kept_as_it_came() {
    let server = server().await;
    for (body, code) in hostile() {
        let answer = send_bytes(&server, &door(), body.clone()).await;
        assert_eq!(answer.problem(400), code, "{answer:?}");
        let id = answer.json()["intake_id"].as_str().unwrap().to_owned();
        let raw = server.request("GET", &format!("/v1/intakes/{id}/raw")).send().await.unwrap();
        assert_eq!(raw.bytes().await.unwrap(), body, "{code}");
        let view = server.get(&format!("/v1/intakes/{id}")).await.json();
        assert_eq!((&view["verdict"], &view["code"]), (&json!("refused"), &json!(code)));
        let listed = listed(&server, &format!("code={code}&limit=1")).await;
        assert_eq!(listed[0]["id"], json!(id));
        if let Ok(text) = String::from_utf8(body)
            && !text.is_empty()
        {
            // As a record of a batch: a text that is no JSON spoils the whole, all else only the record.
            let batch = format!("[{},{text}]", contact(&format!("good-{code}")));
            let answer = send_bytes(&server, &format!("{}/batch", door()), batch).await;
            match answer.status {
                207 => {
                    let records = answer.json()["records"].clone();
                    assert_eq!(
                        (&records[0]["status"], &records[1]["code"]),
                        (&json!(202), &json!(code))
                    );
                }
                status => assert_eq!(
                    (status, answer.problem(400).as_str()),
                    (400, "invalid_json"),
                    "{code}"
                ),
            }
        }
    }
    assert_eq!(send_in(&server, &contact("still")).await.status, 202);
    server.stopped().await;
}

#[tokio::test]
async fn a_signature_is_checked_over_the_bytes_and_a_secret_is_changed_without_a_gap() {
    let server = server().await;
    let github = with(json!({"verify": {"scheme": "github"}}));
    let body = json!({"spec": github, "secret": "a secret of both"});
    assert_eq!(send(with_json(server.request("PUT", SOURCE), body)).await.status, 200);
    let text = r#"{"id":"g-1","name":"Ann"}"#;
    let first = "8d75b404efc61d0673ee24ac3ad3716e371553c5fc6c98c24f0fee314f35cb59";
    let second = "e24d8772432a81daafcd6dc77ca0d03ef921992723f83c24460c3edaa0b58b1e";
    let signed = async |signature: &str, body: &str| {
        let request = server.bare("POST", &door()).header("content-type", "application/json");
        send(
            request
                .header("x-hub-signature-256", format!("sha256={signature}"))
                .body(body.to_owned()),
        )
        .await
    };
    assert_eq!(signed(first, text).await.status, 202);
    assert_eq!(signed(second, text).await.problem(401), "signature_invalid");
    assert_eq!(signed(first, &text.replace("Ann", "Anx")).await.problem(401), "signature_invalid");
    let rotate = json!({"secret": "the next secret", "overlap": "1h", "reason": "r"});
    let rotated = server.post("/v1/sources/crm/rotate", rotate.clone()).await;
    assert_eq!(rotated.json()["secrets"].as_array().map(Vec::len), Some(2), "{rotated:?}");
    assert_eq!((signed(first, text).await.status, signed(second, text).await.status), (200, 200));
    // As after an answer that was lost.
    let again = server.post("/v1/sources/crm/rotate", rotate).await;
    assert_eq!(again.json()["secrets"], rotated.json()["secrets"]);
    assert_eq!(signed(first, text).await.status, 200);
    // Back to the first alone: there is no overlap.
    let back = json!({"secret": "a secret of both", "overlap": "0s"});
    let back = server.post("/v1/sources/crm/rotate", back).await.json();
    assert_eq!(back["secrets"].as_array().map(Vec::len), Some(1), "{back}");
    assert_eq!((signed(first, text).await.status, signed(second, text).await.status), (200, 401));
    assert_eq!(events(&server, 1).await[0]["trust"], "signed");
    let stripe = json!({"spec": with(json!({"verify": {"scheme": "stripe"}}))});
    assert_eq!(send(with_json(server.request("PUT", SOURCE), stripe)).await.status, 200);
    let old = server.bare("POST", &door()).header("content-type", "application/json");
    let old = old.header(
        "stripe-signature",
        "t=1600000000,v1=bca70eb707d095eae6dbce639635b266b99e10924dec32a54f504c88877fe76e",
    );
    assert_eq!(send(old.body(text)).await.problem(401), "timestamp_out_of_tolerance");
    server.stopped().await;
}

#[tokio::test]
async fn a_secret_is_shown_nowhere() {
    let server = server().await;
    let rotate = json!({"secret": "another-token-of-the-crm", "overlap": "1d"});
    assert_eq!(server.post("/v1/sources/crm/rotate", rotate).await.status, 200);
    assert_eq!(send_in(&server, &contact("c-1")).await.status, 202);
    let id = listed(&server, "source=crm").await[0]["id"].as_str().unwrap().to_owned();
    let short = json!({"spec": spec(), "secret": "tiny-s"});
    let refused = send(with_json(server.request("PUT", SOURCE), short)).await;
    assert_eq!(refused.problem(422), "invalid_source");
    let mut shown = refused.text;
    for path in [
        "/v1/sources",
        SOURCE,
        "/v1/acts?source=crm",
        "/v1/intakes",
        &format!("/v1/intakes/{id}"),
        "/v1/events",
    ] {
        shown += &server.get(path).await.text;
    }
    assert!(shown.contains("rotate") && shown.contains("crm.contact@1"), "{shown}");
    for secret in [TOKEN, "another-token-of-the-crm", "tiny-s"] {
        assert!(!shown.contains(secret), "{shown}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_spec_that_makes_no_sense_is_refused_with_all_that_is_wrong() {
    let server = server().await;
    let refused = put(
        &server,
        with(json!({
            "verify": {"scheme": "hmac", "header": "x", "signed": "{ts}"}, "max_bytes": 9_000_000, "rate": 0,
            "hints": [{"kind": "E Mail", "at": "/mail"}],
        })),
    )
    .await;
    assert_eq!(refused.problem(422), "invalid_source");
    let places: BTreeSet<String> = refused.json()["errors"]
        .as_array()
        .unwrap()
        .iter()
        .map(|wrong| wrong["pointer"].as_str().unwrap().to_owned())
        .collect();
    for place in ["/spec/verify", "/spec/max_bytes", "/spec/rate", "/spec/hints/0/kind"] {
        assert!(places.contains(place), "{place}: {refused:?}");
    }
    let place = async |more: Value| {
        let refused = put(&server, with(more)).await;
        assert_eq!(refused.problem(422), "invalid_source");
        refused.json()["errors"][0]["pointer"].as_str().unwrap().to_owned()
    };
    let unknown = json!({"accepts": [{"contract": "crm.contakt"}]});
    assert_eq!(place(unknown).await, "/spec/accepts/0/contract");
    assert_eq!(
        place(json!({"accepts": [{"contract": "a\u{0}b"}]})).await,
        "/spec/accepts/0/contract"
    );
    assert_eq!(place(json!({"accepts": []})).await, "/spec/accepts");
    let open = json!({"spec": with(json!({"verify": {"scheme": "none"}}))});
    let open = send(with_json(server.request("PUT", "/v1/sources/open"), open)).await;
    assert_eq!(open.problem(422), "invalid_source");
    assert_eq!(open.json()["errors"][0]["pointer"], "/spec/rate");
    let secretless = json!({"spec": spec()});
    let secretless = send(with_json(server.request("PUT", "/v1/sources/new"), secretless)).await;
    assert_eq!(secretless.json()["errors"][0]["pointer"], "/spec/verify");
    let unknown_member = with(json!({"acepts": []}));
    assert_eq!(put(&server, unknown_member).await.problem(400), "unknown_field");
    // None of that has changed it.
    let view = server.get(SOURCE).await.json();
    assert_eq!((&view["version"], &view["spec"]["max_bytes"]), (&json!(1), &json!(262_144)));
    let same = put(&server, spec()).await;
    assert_eq!((same.status, &same.json()["version"]), (200, &json!(1)));
    let acts = server.get("/v1/acts?source=crm").await.json();
    assert_eq!(acts["items"].as_array().unwrap().len(), 1, "{acts}");
    let deleted = send(server.request("DELETE", SOURCE)).await;
    assert_eq!(deleted.status, 204);
    assert_eq!(send_in(&server, &contact("c-1")).await.problem(404), "unknown_source");
    server.stopped().await;
}

#[tokio::test]
async fn a_source_sends_no_more_than_its_rate_and_takes_nothing_from_another() {
    let server = server().await;
    assert_eq!(put(&server, with(json!({"rate": 5}))).await.status, 200);
    let body = json!({"spec": spec(), "secret": TOKEN});
    assert_eq!(send(with_json(server.request("PUT", "/v1/sources/erp"), body)).await.status, 201);
    // Senders that are not verified do not take from the rate of the one that is.
    for _ in 0..50 {
        let forged = server.bare("POST", &door()).bearer_auth("forged-token");
        assert_eq!(send(with_json(forged, contact("x"))).await.status, 401);
    }
    let mut refused = 0;
    for at in 0..40 {
        let answer = send_in(&server, &contact(&format!("c-{at}"))).await;
        if at < 10 {
            assert_eq!(answer.status, 202, "a burst of two seconds: {answer:?}");
        } else if answer.status == 429 {
            assert_eq!(answer.problem(429), "too_many_documents");
            assert!(answer.headers.contains_key("retry-after"));
            refused += 1;
        }
    }
    assert!(refused > 10, "{refused}");
    let other = format!("/v1/in/{NS}/erp");
    for at in 0..40 {
        let body = contact(&format!("e-{at}")).to_string();
        assert_eq!(send_bytes(&server, &other, body).await.status, 202);
    }
    assert_eq!(
        listed(&server, "verdict=refused").await.len(),
        0,
        "nothing is kept of what was too much"
    );
    server.stopped().await;
}
