//! Pages about versions, documents that come in, and limits: what they show, and what is done through them.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_tests::node::{NS, chain};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

use super::{Viewer, api, attribute, parked, posted, register};

/// Returns the form on a page that is called so: its hidden fields.
fn form(page: &str, label: &str) -> Vec<(String, String)> {
    let summary = format!("<summary>{label}</summary>");
    let (_, form) = page.split_once(&summary).unwrap_or_else(|| panic!("no {label}: {page}"));
    let form = form.split("</form>").next().unwrap();
    let hidden = form.split("<input type=\"hidden\" ").skip(1);
    let text = |one: &str, name: &str| {
        let value = attribute(one, &format!("{name}=\"")).unwrap();
        value.replace("&#34;", "\"").replace("&#60;", "<")
    };
    hidden.map(|one| (text(one, "name"), text(one, "value"))).collect()
}

/// Sends the form that is called so, with more fields.
async fn send_form(viewer: &Viewer<'_>, page: &str, label: &str, more: &[(&str, &str)]) -> String {
    let text = viewer.page(page).await;
    let hidden = form(&text, label);
    let mut fields: Vec<(&str, &str)> =
        hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fields.extend(more);
    let done = viewer.post("/console/act", &fields).await;
    assert_eq!(done.status, 303, "{label}: {done:?}");
    done.headers["location"].to_str().unwrap().to_owned()
}

/// The next version of a workflow of three steps: one is new, one goes to another queue.
async fn second_version(server: &Server, workflow: &str) {
    let steps = ["reserve", "charge", "label", "ship"];
    let mut next: Value = serde_json::from_str(&chain(workflow, &steps)).unwrap();
    next["version"] = json!(2);
    next["steps"][1]["task"]["on_failure"] = json!("incident");
    next["steps"][1]["task"]["queue"] = json!("bank");
    register(server, &next.to_string()).await;
}

#[tokio::test]
async fn two_versions_are_compared_step_by_step() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    parked(&server, "order", "o-1", "declined").await;
    second_version(&server, "order").await;
    let page = viewer.page("/console/workflows/order/2/compare").await;
    assert!(page.contains("v1 → v2"), "{page}");
    for (badge, step) in [("new", "label"), ("changed", "charge"), ("changed", "ship")] {
        assert!(
            page.contains(&format!("{badge}</span> <strong>{step}</strong>")),
            "{step}: {page}"
        );
    }
    assert!(page.contains("/task/queue") && page.contains("bank"), "{page}");
    assert!(page.contains("1 steps are the same"), "{page}");
    let back = viewer.page("/console/workflows/order/1/compare?with=2").await;
    assert!(back.contains("gone</span> <strong>label</strong>"), "{back}");
    let same = viewer.page("/console/workflows/order/1/compare?with=1").await;
    assert!(same.contains("Both versions are the same"), "{same}");
    server.stopped().await;
}

#[tokio::test]
async fn a_rehearsal_is_shown_as_a_table_of_failure_points() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    register(&server, &chain("order", &["reserve", "charge"])).await;
    let found = api(&server, "/v1/workflows/order/versions/1/rehearsal").await;
    let (traces, closed) = (found["traces"].as_u64().unwrap(), found["closed"].as_u64().unwrap());
    assert!(traces > 50 && closed + found["parked"].as_u64().unwrap() == traces, "{found}");
    let page = viewer.page("/console/workflows/order/1/rehearsal").await;
    for text in
        ["<th scope=\"row\">reserve</th>", "<th scope=\"row\">charge</th>", "crash after effect"]
    {
        assert!(page.contains(text), "{text}: {page}");
    }
    assert!(page.contains("title=\"charge fails for good: "), "{page}");
    assert_eq!(viewer.get("/console/workflows/order/7/rehearsal").await.status, 404);
    server.stopped().await;
}

#[tokio::test]
async fn runs_move_to_another_version_once_what_is_in_the_way_is_known() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let run = parked(&server, "order", "o-1", "declined").await;
    second_version(&server, "order").await;
    let place = "/console/workflows/order/migrations?from=1&to=2";
    let page = viewer.page(place).await;
    assert!(page.contains("Nothing is in the way of any of them"), "{page}");
    assert_eq!(api(&server, &format!("/v1/runs/{run}")).await["version"], 1, "nothing is written");
    let fields = [("f.s.on_obstacle", "stop"), ("f.s.reason", "The bank has a queue")];
    let to = send_form(&viewer, place, "Move the runs", &fields).await;
    assert!(to.starts_with("/console/workflows/order/migrations/0"), "{to}");
    let until = Instant::now() + Duration::from_secs(30);
    while api(&server, &format!("/v1/runs/{run}")).await["version"] != 2 {
        assert!(Instant::now() < until, "it does not move: {}", viewer.page(&to).await);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let moved = viewer.page(&format!("{}?result=moved", to.split('?').next().unwrap())).await;
    assert!(moved.contains(&run) && moved.contains("The bank has a queue"), "{moved}");
    server.stopped().await;
}

#[tokio::test]
async fn what_is_set_by_a_document_is_changed_as_it_is_shown() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    register(&server, &chain("order", &["reserve"])).await;
    let put = |path: &str, body: Value| send(with_json(server.request("PUT", path), body));
    let nightly = json!({ "cron": "0 2 * * *", "time_zone": "Europe/Berlin", "workflow": "order", "input": 1 });
    assert_eq!(put("/v1/schedules/nightly", nightly.clone()).await.status, 201);
    assert!(put("/v1/queues/erp", json!({ "concurrency": 20 })).await.status < 300);
    let mut later = nightly;
    later["cron"] = json!("0 3 * * *");
    let later = later.to_string();
    send_form(&viewer, "/console/schedules/nightly", "Change", &[("f.d.document", &later)]).await;
    assert_eq!(api(&server, "/v1/schedules/nightly").await["spec"]["cron"], "0 3 * * *");
    send_form(
        &viewer,
        "/console/queues",
        "Change the policy",
        &[("f.d.document", "{\"concurrency\": 5}")],
    )
    .await;
    assert_eq!(api(&server, "/v1/queues/erp").await["policy"]["concurrency"], 5);
    send_form(&viewer, "/console/limits", "Set quotas", &[("f.d.document", "{\"schedules\": 1}")])
        .await;
    let limits = viewer.page("/console/limits").await;
    assert!(limits.contains("used up") && limits.contains("an admin of the namespace"), "{limits}");
    let approval = [("f.j.approval", "{\"above\": 20}"), ("f.s.reason", "Two look at refunds")];
    send_form(&viewer, "/console/workflows/order/1", "Undos by two", &approval).await;
    let set = api(&server, "/v1/workflows/order/undo-approval").await;
    assert_eq!(set["approval"]["above"], 20);
    server.stopped().await;
}

#[tokio::test]
async fn only_an_admin_is_offered_what_an_admin_may() {
    let server = Server::start(Access::Keys).await;
    let run = parked(&server, "order", "o-1", "declined").await;
    let ann = Viewer::new(&server, "ann", Role::Operator).await;
    let ops = Viewer::new(&server, "ops", Role::Admin).await;
    for (page, label) in [
        (format!("/console/runs/{run}"), "Erase"),
        ("/console/workflows/order/1".to_owned(), "Undos by two"),
        ("/console/limits".to_owned(), "Set quotas"),
        ("/console/erasures".to_owned(), "Erase a stream"),
    ] {
        let summary = format!("<summary>{label}</summary>");
        assert!(!ann.page(&page).await.contains(&summary), "{page}");
        assert!(ops.page(&page).await.contains(&summary), "{page}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_file_is_shown_with_the_rows_that_were_refused() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let members = json!({ "id": { "type": "string" }, "name": { "type": "string" } });
    let schema = json!({ "type": "object", "properties": members, "required": ["id"] });
    posted(&server, "/v1/contracts/crm.contact/versions", json!({ "schema": schema })).await;
    let spec = json!({
        "verify": { "scheme": "bearer" }, "accepts": [{ "contract": "crm.contact" }], "version_from": { "fixed": 1 } });
    let body = json!({ "spec": spec, "secret": "a-token-of-the-crm" });
    let made = send(with_json(server.request("PUT", "/v1/sources/crm"), body)).await;
    assert!(made.status < 300, "{made:?}");
    let file =
        server.bare("POST", &format!("/v1/in/{NS}/crm/files")).bearer_auth("a-token-of-the-crm");
    let file = file.header("content-type", "application/x-ndjson");
    let sent = send(file.body("{\"id\":\"8\"}\n{\"id\":9}\n")).await.json();
    let id = sent["import_id"].as_str().unwrap();
    let until = Instant::now() + Duration::from_secs(30);
    while api(&server, &format!("/v1/imports/{id}")).await["state"] != "done" {
        assert!(Instant::now() < until);
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let page = viewer.page(&format!("/console/imports/{id}")).await;
    assert!(page.contains("File of crm") && page.contains("schema_violation"), "{page}");
    let list = viewer.page("/console/imports?source=crm&state=done").await;
    assert!(list.contains(&format!("/console/imports/{id}")), "{list}");
    let none = viewer.page("/console/imports?state=running").await;
    assert!(none.contains("class=\"empty\""), "{none}");
    server.stopped().await;
}

/// Sends the form of a page that is called so as a script does, with more fields.
async fn send_as_script(
    viewer: &Viewer<'_>,
    page: &str,
    label: &str,
    more: &[(&str, &str)],
) -> backstitch_tests::server::Answer {
    let text = viewer.page(page).await;
    let hidden = form(&text, label);
    let mut fields: Vec<(&str, &str)> =
        hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fields.extend(more);
    send(viewer.form("/console/act", &fields).header("hx-request", "true")).await
}

/// A form that makes something: its page, its label, its fields, and the page that it leads to.
type Making = (&'static str, &'static str, Vec<(&'static str, String)>, &'static str);

/// Everything that is made by a form of its own, in an order in which it can be.
fn makings() -> Vec<Making> {
    let schema = json!({ "type": "object", "properties": { "id": { "type": "string" } }, "required": ["id"] });
    let nightly = json!({ "cron": "0 2 * * *", "workflow": "order", "end_within": "6h" });
    let spec = json!({
        "verify": { "scheme": "bearer" }, "accepts": [{ "contract": "crm.contact" }],
        "version_from": { "fixed": 1 } });
    let subscription = json!({ "filter": { "types": ["order.*"] }, "workflow": "order" });
    let rules = json!({ "rules": [{ "to": "/id", "copy": "/id" }] });
    let of = |fields: &[(&'static str, &dyn std::fmt::Display)]| {
        fields.iter().map(|(name, value)| (*name, value.to_string())).collect::<Vec<_>>()
    };
    let contract = |subject: &'static str| {
        of(&[("f.p.subject", &subject), ("f.j.schema", &schema), ("f.s.reason", &"r")])
    };
    let order = chain("order", &["reserve"]);
    let transform = of(&[
        ("f.p.from", &"crm.contact"),
        ("f.p.from_version", &1),
        ("f.p.to", &"customer"),
        ("f.p.to_version", &1),
        ("f.j.transform", &rules),
        ("f.s.reason", &"r"),
    ]);
    let named = |name: &'static str, document: &Value| {
        of(&[("f.p.name", &name), ("f.d.document", document)])
    };
    let source = of(&[
        ("f.p.name", &"crm"),
        ("f.j.spec", &spec),
        ("f.s.secret", &"a-token-of-the-crm"),
        ("f.s.reason", &"r"),
    ]);
    let fact = of(&[("f.p.subject", &"customer:42"), ("f.p.fact", &"paid"), ("f.s.reason", &"r")]);
    let link = of(&[
        ("f.p.system", &"crm"),
        ("f.p.external_id", &"7/8"),
        ("f.s.stream", &"customer:42"),
        ("f.s.reason", &"r"),
    ]);
    vec![
        ("workflows", "Register a version", of(&[("f.d.document", &order)]), "workflows/order/1"),
        ("schedules", "New schedule", named("nightly", &nightly), "schedules/nightly"),
        ("queues", "Govern a queue", named("erp", &json!({ "concurrency": 5 })), "queues"),
        ("events", "New subscription", named("orders", &subscription), "events"),
        ("contracts", "New contract", contract("crm.contact"), "contracts/crm.contact"),
        ("contracts", "New contract", contract("customer"), "contracts/customer"),
        ("contracts", "New transform", transform, "transforms/crm.contact/1/customer/1"),
        ("sources", "New source", source, "sources"),
        ("keys", "Establish a fact", fact, "keys"),
        ("links", "Link an id", link, "links"),
    ]
}

#[tokio::test]
async fn what_there_is_none_of_is_made_by_a_form() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    for (page, label, fields, to) in makings() {
        let fields: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let went = send_form(&viewer, &format!("/console/{page}"), label, &fields).await;
        assert_eq!(went.split('?').next().unwrap(), format!("/console/{to}"), "{label}");
        let shown = viewer.page(&went).await;
        assert!(shown.contains("Done: "), "{label}: {shown}");
    }
    for path in [
        "/v1/workflows/order/versions/1",
        "/v1/schedules/nightly",
        "/v1/queues/erp",
        "/v1/subscriptions/orders",
        "/v1/transforms/crm.contact/1/customer/1",
        "/v1/sources/crm",
        "/v1/links/crm/7%2F8",
    ] {
        api(&server, path).await;
    }
    assert_eq!(api(&server, "/v1/facts/customer:42").await["facts"][0]["fact"], "paid");
    // A revision that is not to be used at once waits.
    let other = r#"{"rules":[{"to":"/id","const":"x"}]}"#;
    let fields = [("f.j.transform", other), ("f.j.activate", "false"), ("f.s.reason", "Another")];
    let page = "/console/transforms/crm.contact/1/customer/1";
    send_form(&viewer, page, "Write a revision", &fields).await;
    let now = api(&server, "/v1/transforms/crm.contact/1/customer/1").await;
    let revisions = now["revisions"].as_array().unwrap().len();
    assert_eq!((&now["active"], revisions), (&json!(1), 2), "{now}");
    server.stopped().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_form_is_told_beside_it() {
    let server = Server::start(Access::Keys).await;
    let ann = Viewer::new(&server, "ann", Role::Operator).await;
    register(&server, &chain("order", &["reserve"])).await;
    let page = "/console/schedules";
    let wrong = r#"{"cron":"61 * * * *","workflow":"nobody"}"#;
    for (name, document, status, told) in [
        ("nightly", wrong, 422, vec!["invalid_schedule", "/cron", "/workflow"]),
        ("nightly", "{", 422, vec!["invalid_request", "/document", "JSON"]),
        ("..", "{}", 422, vec!["invalid_request", "/name"]),
        ("", "{}", 422, vec!["invalid_request", "/name"]),
    ] {
        let fields = [("f.p.name", name), ("f.d.document", document)];
        let answer = send_as_script(&ann, page, "New schedule", &fields).await;
        assert_eq!(answer.status, status, "{answer:?}");
        assert!(!answer.text.contains("<html") && !answer.headers.contains_key("hx-redirect"));
        for text in told {
            assert!(answer.text.contains(text), "{text}: {answer:?}");
        }
    }
    let right = r#"{"cron":"1 * * * *","workflow":"order"}"#;
    let fields = [("f.p.name", "nightly"), ("f.d.document", right)];
    let hidden = form(&ann.page(page).await, "New schedule");
    let made = send_as_script(&ann, page, "New schedule", &fields).await;
    let to = made.headers["hx-redirect"].to_str().unwrap();
    assert_eq!((made.status, to), (200, "/console/schedules/nightly?done=put-schedule"));
    // Whose session is over is led to where one signs in.
    server.engine.revoke_credential(NS, "ann").await.unwrap();
    let mut hidden: Vec<(&str, &str)> =
        hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    hidden.extend(fields);
    let over = send(ann.form("/console/act", &hidden).header("hx-request", "true")).await;
    let to = over.headers["hx-redirect"].to_str().unwrap();
    assert!(to.starts_with("/console/login"), "{over:?}");
    server.stopped().await;
}

#[tokio::test]
async fn a_credential_is_made_and_rotated_and_its_secret_is_shown_once() {
    let server = Server::start(Access::Keys).await;
    let ops = Viewer::new(&server, "ops", Role::Admin).await;
    let page = "/console/credentials";
    let text = ops.page(page).await;
    let hidden = form(&text, "New credential");
    let mut fields: Vec<(&str, &str)> =
        hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fields.extend([("f.p.name", "vera"), ("f.s.role", "viewer"), ("f.j.queues", "[\"mail\"]")]);
    let made = ops.post("/console/act", &fields).await;
    assert_eq!(made.status, 200, "{made:?}");
    let secret = |page: &str| {
        let (_, rest) = page.split_once("<pre tabindex=\"0\">").unwrap();
        rest.split('<').next().unwrap().to_owned()
    };
    let first = secret(&made.text);
    let vera = Viewer::with(&server, &first).await;
    assert!(vera.page("/console").await.contains("vera"));
    let again = ops.page(page).await;
    assert!(again.contains("vera") && again.contains("queues mail"), "{again}");
    assert!(!again.contains(&first), "it is shown once");
    let row = &again[again.find(">vera<").unwrap()..];
    let hidden = form(row, "Rotate");
    let mut fields: Vec<(&str, &str)> =
        hidden.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    fields.push(("f.s.overlap", "0s"));
    let rotated = send(ops.form("/console/act", &fields).header("hx-request", "true")).await;
    assert_eq!((rotated.status, &rotated.headers["hx-retarget"]), (200, &"#main".parse().unwrap()));
    let second = secret(&rotated.text);
    assert_ne!(first, second);
    assert_eq!(super::sign_in(&server, &first).await.status, 401);
    Viewer::with(&server, &second).await;
    server.stopped().await;
}

#[tokio::test]
async fn a_form_that_the_state_of_things_refused_can_be_sent_again_with_another_reason() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let run = parked(&server, "order", "o-1", "declined").await;
    let place = format!("/console/runs/{run}");
    let hidden = form(&viewer.page(&place).await, "Retry");
    let killed = posted(&server, &format!("/v1/runs/{run}/kill"), json!({ "reason": "r" })).await;
    assert!(killed.status < 300, "{killed:?}");
    let mut fields: Vec<(String, String)> = hidden;
    for reason in ["First", "Second", "Third"] {
        let mut sent: Vec<(&str, &str)> =
            fields.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        sent.push(("f.s.reason", reason));
        let answer = send(viewer.form("/console/act", &sent).header("hx-request", "true")).await;
        assert_eq!(answer.status, 409, "{reason}: {answer:?}");
        let key = attribute(&answer.text, "name=\"key\" value=\"").expect("another key");
        assert!(fields.iter().all(|(_, value)| *value != key), "{answer:?}");
        fields.push(("key".to_owned(), key));
    }
    server.stopped().await;
}
