//! Identifiers of documents: captured from what is accepted and what is refused, found in whatever spelling, never
//! merged.

use backstitch_api::Access;
use backstitch_tests::node::NS;
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};

const TOKEN: &str = "a-token-of-the-crm";

async fn register(server: &Server, subject: &str, required: Value) {
    let text = json!({"type": "string"});
    let members = json!({"id": text, "mail": text, "tel": text, "land": text, "no": text});
    let schema = json!({"type": "object", "properties": members, "required": required});
    let path = format!("/v1/contracts/{subject}/versions");
    let answer = server.post(&path, json!({"schema": schema})).await;
    assert!(answer.status < 300, "{answer:?}");
}

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    register(&server, "crm.contact", json!(["id"])).await;
    register(&server, "customer", json!(["id"])).await;
    let transform = json!({"stream": "customer:{/id}", "rules": [{"to": "/id", "copy": "/id"}]});
    let body = json!({"transform": transform, "reason": "r"});
    let put = server.request("PUT", "/v1/transforms/crm.contact/1/customer/1");
    assert!(send(with_json(put, body)).await.status < 300);
    let spec = json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact", "to": "customer@1"}],
        "version_from": {"fixed": 1},
        "hints": [
            {"kind": "email", "at": "/mail"}, {"kind": "phone", "at": "/tel", "region_from": "/land"},
            {"kind": "legacy_id:erp", "at": "/no"},
        ],
    });
    let body = json!({"spec": spec, "secret": TOKEN});
    let answer = send(with_json(server.request("PUT", "/v1/sources/crm"), body)).await;
    assert!(answer.status < 300, "{answer:?}");
    server
}

async fn take(server: &Server, document: Value) -> Answer {
    let request = server.request("POST", &format!("/v1/in/{NS}/crm")).bearer_auth(TOKEN);
    send(with_json(request, document)).await
}

async fn find(server: &Server, query: &str) -> Vec<Value> {
    let answer = server.get(&format!("/v1/hints?{query}")).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    answer.json()["items"].as_array().unwrap().clone()
}

#[tokio::test]
async fn documents_are_found_by_their_identifiers_whether_accepted_or_refused_in_whatever_spelling()
{
    let server = server().await;
    let first = take(&server, json!({"id": "7", "mail": " Ann@Shop.internal ", "tel": "030 901820", "land": "DE", "no": "A-1"})).await;
    assert_eq!(first.status, 202, "{first:?}");
    // A refused one, which is when somebody looks for it; and one of nobody.
    let refused = take(&server, json!({"mail": "ann@shop.INTERNAL", "tel": "+49 30 901820"})).await;
    assert_eq!(refused.problem(422), "schema_violation");
    assert_eq!(
        take(&server, json!({"id": "8", "mail": "test@example.com", "no": "0000"})).await.status,
        202
    );

    let found = find(&server, "kind=email&value=ANN@shop.internal").await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        (&found[0]["verdict"], &found[1]["verdict"]),
        (&json!("refused"), &json!("accepted"))
    );
    assert_eq!(
        (&found[1]["value_raw"], &found[1]["value_norm"]),
        (&json!(" Ann@Shop.internal "), &json!("Ann@shop.internal"))
    );
    assert_eq!(
        (&found[1]["stream"], &found[1]["at"], &found[1]["junk"]),
        (&json!("customer:7"), &json!("/mail"), &json!(false))
    );
    assert_eq!(found[1]["intake_id"], first.json()["intake_id"]);
    assert_eq!(found[0].get("event_id"), None);
    for query in ["kind=phone&value=%2B4930901820", "kind=phone&value=030%20901820&region=DE"] {
        let found = find(&server, query).await;
        let places: Vec<&Value> = found.iter().map(|hint| &hint["value_norm"]).collect();
        assert_eq!(places, ["+4930901820", "+4930901820"], "{query}");
    }
    assert_eq!(find(&server, "kind=legacy_id:erp&value=A-1").await.len(), 1);
    assert_eq!(find(&server, "kind=email&value=test@example.com").await[0]["junk"], true);
    for query in
        ["kind=legacy_id:erp&value=a-1", "kind=email&value=A-1", "kind=phone&value=030%20901820"]
    {
        assert_eq!(find(&server, query).await, Vec::<Value>::new(), "{query}");
    }
    // Pages, newest first.
    let page = server.get("/v1/hints?kind=email&value=ann@shop.internal&limit=1").await.json();
    let next = page["next"].as_str().unwrap();
    let rest = server
        .get(&format!("/v1/hints?kind=email&value=ann@shop.internal&limit=1&after={next}"))
        .await
        .json();
    assert_eq!(
        (&page["items"][0]["verdict"], &rest["items"][0]["verdict"]),
        (&json!("refused"), &json!("accepted"))
    );
    assert!(rest["next"].is_null());
    for query in ["", "?kind=email", "?value=a"] {
        assert_eq!(server.get(&format!("/v1/hints{query}")).await.problem(422), "invalid_request");
    }
    let request = server.bare("GET", "/v1/hints?kind=email&value=ann@shop.internal");
    let elsewhere = send(request.header("backstitch-namespace", "elsewhere")).await;
    assert_eq!(elsewhere.json()["items"], json!([]));
    server.stopped().await;
}

#[tokio::test]
async fn hints_of_a_document_that_is_processed_again_are_those_that_its_source_names_then() {
    let server = server().await;
    let refused =
        take(&server, json!({"mail": "a@shop.internal", "tel": "b@shop.internal", "no": "n"}))
            .await;
    let id = refused.json()["intake_id"].as_str().unwrap().to_owned();
    let mut spec = server.get("/v1/sources/crm").await.json()["spec"].clone();
    spec["hints"] = json!([{"kind": "email", "at": "/tel"}]);
    let body = json!({"spec": spec});
    assert_eq!(send(with_json(server.request("PUT", "/v1/sources/crm"), body)).await.status, 200);
    let path = format!("/v1/intakes/{id}/reprocess");
    assert_eq!(server.post(&path, json!({"reason": "r"})).await.json()["verdict"], "refused");
    assert_eq!(find(&server, "kind=email&value=b@shop.internal").await.len(), 1);
    for query in ["kind=email&value=a@shop.internal", "kind=legacy_id:erp&value=n"] {
        assert_eq!(find(&server, query).await, Vec::<Value>::new(), "{query}");
    }
    server.stopped().await;
}

async fn link(server: &Server, id: &str, stream: &str) -> Answer {
    let body = json!({"stream": stream});
    send(with_json(server.request("PUT", &format!("/v1/links/erp/{id}")), body)).await
}

async fn holder(server: &Server, id: &str) -> Value {
    server.get(&format!("/v1/links/erp/{id}")).await.json()["stream"].clone()
}

#[tokio::test]
async fn an_id_of_a_system_belongs_to_one_entity_and_a_second_claim_waits_for_a_person() {
    let server = Server::start(Access::Open).await;
    let made = link(&server, "4711", "customer:1").await;
    assert_eq!((made.status, &made.json()["external_id"]), (201, &json!("4711")), "{made:?}");
    assert_eq!(link(&server, "4711", "customer:1").await.status, 200);
    for _ in 0..2 {
        assert_eq!(link(&server, "4711", "customer:2").await.problem(409), "link_conflict");
    }
    let open = server.get("/v1/link-conflicts?state=open").await.json();
    let open = open["items"].as_array().unwrap();
    assert_eq!(open.len(), 1, "{open:?}");
    let first = &open[0];
    assert_eq!((&first["stream"], &first["holder"]), (&json!("customer:2"), &json!("customer:1")));
    let path = format!("/v1/link-conflicts/{}/resolve", first["id"].as_str().unwrap());
    let keep = |keep: &str| json!({"keep": keep, "reason": "compared"});
    assert_eq!(server.post(&path, json!({"keep": "holder", "reason": ""})).await.status, 422);
    let resolved = server.post(&path, keep("claimant")).await;
    assert_eq!((resolved.status, &resolved.json()["kept"]), (200, &json!("claimant")));
    assert_eq!(server.post(&path, keep("claimant")).await.status, 200);
    assert_eq!(server.post(&path, keep("holder")).await.problem(409), "link_conflict_resolved");
    assert_eq!(holder(&server, "4711").await, "customer:2");
    // The holder of before has no id there, and gets another; that one is then claimed in vain.
    let none = server.get("/v1/links?stream=customer:1").await.json();
    assert_eq!(none["items"], json!([]));
    assert_eq!(link(&server, "4712", "customer:1").await.status, 201);
    assert_eq!(link(&server, "4712", "customer:2").await.problem(409), "link_conflict");
    let open = server.get("/v1/link-conflicts?state=open").await.json();
    let path = format!("/v1/link-conflicts/{}/resolve", open["items"][0]["id"].as_str().unwrap());
    assert_eq!(server.post(&path, keep("holder")).await.status, 200);
    assert_eq!(holder(&server, "4712").await, "customer:1");
    // Another id in the system takes the place of the first, which is free.
    assert_eq!(link(&server, "A%2F1", "customer:2").await.status, 201);
    assert_eq!(server.get("/v1/links/erp/4711").await.problem(404), "unknown_link");
    assert_eq!(link(&server, "4711", "customer:3").await.status, 201);
    let all = server.get("/v1/links?system=erp&limit=2").await.json();
    let next = all["next"].as_str().unwrap();
    let rest = server.get(&format!("/v1/links?system=erp&limit=2&after={next}")).await.json();
    assert_eq!(rest["items"].as_array().unwrap().len(), 1);
    assert_eq!(send(server.request("DELETE", "/v1/links/erp/4711")).await.status, 204);
    assert_eq!(
        send(server.request("DELETE", "/v1/links/erp/4711")).await.problem(404),
        "unknown_link"
    );
    let acts = server.get("/v1/acts?subject=customer:3").await.json();
    let verbs: Vec<&Value> =
        acts["items"].as_array().unwrap().iter().map(|act| &act["verb"]).collect();
    assert_eq!(verbs, ["delete", "put"]);
    assert_eq!(link(&server, "%01", "customer:3").await.problem(400), "invalid_path");
    server.stopped().await;
}

#[tokio::test]
async fn claims_at_the_same_instant_leave_one_link() {
    let server = Server::start(Access::Open).await;
    let claims = (0..8).map(|at| {
        let server = &server;
        async move { link(server, "1", &format!("customer:{at}")).await.status }
    });
    let mut statuses = futures::future::join_all(claims).await;
    statuses.sort_unstable();
    assert_eq!(statuses, [201, 409, 409, 409, 409, 409, 409, 409]);
    let open = server.get("/v1/link-conflicts?state=open").await.json();
    assert_eq!(open["items"].as_array().unwrap().len(), 7);
    server.stopped().await;
}
