//! Identifiers of documents: captured from what is accepted and what is refused, found in whatever spelling, never merged.

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
    let first = take(&server, json!({"id": "7", "mail": " Ann@Shop.test ", "tel": "030 901820", "land": "DE", "no": "A-1"})).await;
    assert_eq!(first.status, 202, "{first:?}");
    // A refused one, which is when somebody looks for it; and one of nobody.
    let refused = take(&server, json!({"mail": "ann@shop.TEST", "tel": "+49 30 901820"})).await;
    assert_eq!(refused.problem(422), "schema_violation");
    assert_eq!(
        take(&server, json!({"id": "8", "mail": "test@example.com", "no": "0000"})).await.status,
        202
    );

    let found = find(&server, "kind=email&value=ANN@shop.test").await;
    assert_eq!(found.len(), 2, "{found:?}");
    assert_eq!(
        (&found[0]["verdict"], &found[1]["verdict"]),
        (&json!("refused"), &json!("accepted"))
    );
    assert_eq!(
        (&found[1]["value_raw"], &found[1]["value_norm"]),
        (&json!(" Ann@Shop.test "), &json!("Ann@shop.test"))
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
    let page = server.get("/v1/hints?kind=email&value=ann@shop.test&limit=1").await.json();
    let next = page["next"].as_str().unwrap();
    let rest = server
        .get(&format!("/v1/hints?kind=email&value=ann@shop.test&limit=1&after={next}"))
        .await
        .json();
    assert_eq!(
        (&page["items"][0]["verdict"], &rest["items"][0]["verdict"]),
        (&json!("refused"), &json!("accepted"))
    );
    assert!(rest["next"].is_null());
    for query in ["", "?kind=email", "?value=a"] {
        assert_eq!(server.get(&format!("/v1/hints{query}")).await.problem(400), "invalid_query");
    }
    let request = server.bare("GET", "/v1/hints?kind=email&value=ann@shop.test");
    let elsewhere = send(request.header("backstitch-namespace", "elsewhere")).await;
    assert_eq!(elsewhere.json()["items"], json!([]));
    server.stopped().await;
}

#[tokio::test]
async fn hints_of_a_document_that_is_processed_again_are_those_that_its_source_names_then() {
    let server = server().await;
    let refused =
        take(&server, json!({"mail": "a@shop.test", "tel": "b@shop.test", "no": "n"})).await;
    let id = refused.json()["intake_id"].as_str().unwrap().to_owned();
    let mut spec = server.get("/v1/sources/crm").await.json()["spec"].clone();
    spec["hints"] = json!([{"kind": "email", "at": "/tel"}]);
    let body = json!({"spec": spec});
    assert_eq!(send(with_json(server.request("PUT", "/v1/sources/crm"), body)).await.status, 200);
    let path = format!("/v1/intakes/{id}/reprocess");
    assert_eq!(server.post(&path, json!({"reason": "r"})).await.json()["verdict"], "refused");
    assert_eq!(find(&server, "kind=email&value=b@shop.test").await.len(), 1);
    for query in ["kind=email&value=a@shop.test", "kind=legacy_id:erp&value=n"] {
        assert_eq!(find(&server, query).await, Vec::<Value>::new(), "{query}");
    }
    server.stopped().await;
}
