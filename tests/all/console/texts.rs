//! Whatever users send stands in pages as text: in documents, events, definitions, forms for people, reasons, notes.

use backstitch_api::Access;
use backstitch_saga::protocol::TaskOutcome;
use backstitch_tests::node::{Hand, NS, chain, json as payload, report};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

use super::doors::PAGES;
use super::{Viewer, encoded};

/// Text that would be a script, or close what it stands in, if a page took it for more than text.
const SCRIPT: &str = "</textarea></pre></title><script>alert(1)</script><img src=x onerror=alert(2)>\"' onfocus=alert(3) x=";

/// Sends what must be taken, and answers what was answered.
async fn sent(server: &Server, method: &str, path: &str, body: Value) -> Value {
    let answer = send(with_json(server.request(method, path), body)).await;
    assert!(answer.status < 300, "{method} {path}: {answer:?}");
    serde_json::from_str(&answer.text).unwrap_or_default()
}

fn id(of: &Value, member: &str) -> String {
    of[member].as_str().unwrap_or_default().to_owned()
}

/// Runs with hostile texts; the pages about them.
async fn runs(server: &Server) -> Vec<String> {
    let mut order: Value = serde_json::from_str(&chain("order", &["reserve", "charge"])).unwrap();
    order["description"] = json!(SCRIPT);
    order["input_schema"] = json!({ "description": SCRIPT });
    sent(server, "PUT", "/v1/workflows/order/versions/1", order.clone()).await;
    order["version"] = json!(2);
    order["description"] = json!(format!("{SCRIPT} again"));
    sent(server, "PUT", "/v1/workflows/order/versions/2", order).await;
    let ask = json!({ "name": "ask", "version": 1, "steps": [{ "id": "approve", "wait": {
        "signal": "approval", "title": SCRIPT, "assignee": { "const": SCRIPT }, "timeout": "2d",
        "schema": { "type": "object", "title": SCRIPT, "properties": { "why": { "type": "string", "title": SCRIPT,
            "description": SCRIPT, "enum": [SCRIPT] } } } } }] });
    sent(server, "PUT", "/v1/workflows/ask/versions/1", ask).await;
    let start = json!({ "workflow": "order", "key": SCRIPT, "correlation_id": SCRIPT,
        "input": { SCRIPT: SCRIPT }, "labels": { "team": SCRIPT } });
    let run = id(&sent(server, "POST", "/v1/runs", start).await, "id");
    let asking = id(&sent(server, "POST", "/v1/runs", json!({ "workflow": "ask" })).await, "id");
    let task = Hand::new(&server.engine).one().await;
    let output = payload(&json!({ "label": SCRIPT }).to_string());
    let done = TaskOutcome::Succeeded { output, external_id: Some(SCRIPT.to_owned()) };
    assert_eq!(server.engine.complete(NS, vec![report(&task, done)]).await[0].status, 200);
    let plan = json!({ "scope": "all", "reason": SCRIPT });
    let plan = sent(server, "POST", &format!("/v1/runs/{run}/plans"), plan).await;
    let migration = json!({ "from": 1, "to": 2, "reason": SCRIPT, "on_obstacle": "leave" });
    let migration = sent(server, "POST", "/v1/workflows/order/migrations", migration).await;
    let pause = json!({ "reason": SCRIPT });
    sent(server, "POST", "/v1/workflows/order/pause", pause).await;
    vec![
        format!("/console/runs/{run}"),
        format!("/console/runs/{run}/journal"),
        format!("/console/runs/{run}/steps/reserve"),
        format!("/console/runs/{run}/undo?way=all"),
        format!("/console/runs/{asking}"),
        format!("/console/plans/{}", id(&plan, "id")),
        format!("/console/workflows/order/migrations/{}", id(&migration, "id")),
        "/console/workflows/order/1".to_owned(),
        "/console/workflows/ask/1".to_owned(),
        "/console/workflows/order/2/compare".to_owned(),
        "/console/workflows/order/1/rehearsal".to_owned(),
        "/console/decisions".to_owned(),
    ]
}

/// Documents and events with hostile texts; the pages about them.
async fn documents(server: &Server) -> Vec<String> {
    let schema = json!({ "type": "object", "description": SCRIPT, "required": ["id"],
        "properties": { "id": { "type": "string" }, "name": { "type": "string", "maxLength": 200 } } });
    for subject in ["crm.contact", "customer"] {
        let path = format!("/v1/contracts/{subject}/versions");
        sent(server, "POST", &path, json!({ "schema": schema, "reason": SCRIPT })).await;
    }
    let rules = json!([{ "to": "/id", "copy": "/id" }, { "to": "/name", "const": SCRIPT }]);
    let path = "/v1/transforms/crm.contact/1/customer/1";
    sent(server, "PUT", path, json!({ "transform": { "rules": rules }, "reason": SCRIPT })).await;
    let spec = json!({ "verify": { "scheme": "bearer" },
        "accepts": [{ "contract": "crm.contact", "to": "customer@1" }], "version_from": { "fixed": 1 } });
    let source = json!({ "spec": spec, "secret": "a-token-of-the-crm", "reason": SCRIPT });
    sent(server, "PUT", "/v1/sources/crm", source).await;
    let door = async |document: Value| {
        let request = server.bare("POST", &format!("/v1/in/{NS}/crm"));
        send(with_json(request.bearer_auth("a-token-of-the-crm"), document)).await
    };
    let taken = door(json!({ "id": "7", "name": SCRIPT })).await.json();
    let refused = door(json!({ "id": 7, SCRIPT: SCRIPT })).await;
    assert!(refused.status >= 400, "{refused:?}");
    let events = json!({ "events": [{ "type": "order.paid", "source": SCRIPT, "stream": "order:7",
        "correlation_id": SCRIPT, "data": { SCRIPT: SCRIPT }, "labels": { "team": SCRIPT } }] });
    let told = sent(server, "POST", "/v1/events", events).await;
    let event = id(&told["events"][0], "id");
    let link = json!({ "stream": "customer:7", "reason": SCRIPT });
    sent(server, "PUT", &format!("/v1/links/crm/{}", encoded(SCRIPT)), link).await;
    let query = format!("document={}", encoded(&json!({ "id": "7", "name": SCRIPT }).to_string()));
    let intakes = super::api(server, "/v1/intakes").await;
    let mut pages: Vec<String> = intakes["items"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| format!("/console/intakes/{}", id(one, "id")))
        .collect();
    assert_eq!(pages.len(), 2, "{intakes}");
    pages.extend([
        format!("/console/events/{event}"),
        format!("/console/events/{}", id(&taken, "event_id")),
        format!("/console/events?correlation={}", encoded(SCRIPT)),
        "/console/contracts/crm.contact/1".to_owned(),
        format!("/console/contracts/crm.contact?schema={}", encoded(SCRIPT)),
        format!("/console/transforms/crm.contact/1/customer/1?{query}"),
        format!("/console/links?system=crm&id={}", encoded(SCRIPT)),
    ]);
    pages
}

/// Settings with hostile texts; the pages about them.
async fn settings(server: &Server) -> Vec<String> {
    let nightly = json!({ "cron": "0 2 * * *", "workflow": "order", "input": { SCRIPT: SCRIPT },
        "labels": { "team": SCRIPT } });
    sent(server, "PUT", "/v1/schedules/nightly", nightly).await;
    sent(server, "POST", "/v1/schedules/nightly/pause", json!({ "reason": SCRIPT })).await;
    sent(server, "PUT", "/v1/queues/erp", json!({ "concurrency": 2, "fair_by": SCRIPT })).await;
    sent(server, "POST", "/v1/queues/erp/pause", json!({ "reason": SCRIPT })).await;
    let subscription = json!({ "filter": { "types": ["order.*"] }, "workflow": "order" });
    sent(server, "PUT", "/v1/subscriptions/orders", subscription).await;
    let fact = format!("/v1/facts/{}/paid/establish", encoded(SCRIPT));
    sent(server, "POST", &fact, json!({ "reason": SCRIPT })).await;
    let erasure = json!({ "stream": "order:7", "reason": SCRIPT });
    let erasure = sent(server, "POST", "/v1/erasures", erasure).await;
    let reprocess = json!({ "source": "crm", "reason": SCRIPT });
    let reprocess = sent(server, "POST", "/v1/reprocessings", reprocess).await;
    vec![
        "/console/schedules/nightly".to_owned(),
        format!("/console/keys?subject={0}&key={0}", encoded(SCRIPT)),
        format!("/console/erasures/{}", id(&erasure, "id")),
        format!("/console/reprocessings/{}", id(&reprocess, "id")),
    ]
}

#[tokio::test]
async fn a_script_in_any_text_is_shown_as_text() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let mut pages: Vec<String> = PAGES.iter().map(|page| (*page).to_owned()).collect();
    let few = pages.len();
    pages.extend(runs(&server).await);
    pages.extend(documents(&server).await);
    pages.extend(settings(&server).await);
    let mut silent = Vec::new();
    for (number, page) in pages.iter().enumerate() {
        let answer = viewer.get(page).await;
        assert!(answer.status < 500, "{page}: {answer:?}");
        for raw in
            ["<script>", "<img", "</title><s", "</textarea></pre>", "\" onfocus=", "' onfocus="]
        {
            assert!(!answer.text.contains(raw), "{page} has {raw}: {}", answer.text);
        }
        if number >= few && !answer.text.contains("alert(1)") {
            silent.push(page.clone());
        }
    }
    // What says none of it proves nothing: only these have no text of a user.
    silent.retain(|page| {
        !page.contains("/rehearsal") && !page.contains("/undo") && !page.contains("/plans/")
    });
    assert_eq!(silent, Vec::<String>::new(), "no text of a user stands there");
    server.stopped().await;
}
