//! Pages about versions, documents that come in, and limits: what they show, and what is done through them.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_tests::node::{NS, chain};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};

use super::{Viewer, api, attribute, parked, posted, register};

/// The form on a page that is called so: its hidden fields.
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
