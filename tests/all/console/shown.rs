//! Content of pages, by viewer; and the acts of forms, with their reasons.

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_tests::server::Server;
use serde_json::json;

use super::doors::PAGES;
use super::{Viewer, api, attribute, parked, posted};

/// Text that would be a script if a page took it for one.
const SCRIPT: &str = "</title><script>alert(1)</script><img src=x onerror=alert(2)>\"'";

#[tokio::test]
async fn a_browser_that_asks_for_the_server_is_led_to_the_console() {
    let server = Server::start(Access::Open).await;
    let request = super::client().get(server.url()).header("accept", "text/html,*/*");
    let answer = backstitch_tests::server::send(request).await;
    assert_eq!((answer.status, &answer.headers["location"]), (303, &"/console".parse().unwrap()));
    let plain = server.get("/").await;
    assert_eq!((plain.status, &plain.json()["console"]), (200, &json!("/console")));
    server.stopped().await;
}

#[tokio::test]
async fn a_page_without_anything_to_show_teaches() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    for page in PAGES.iter().filter(|page| !page.contains("nothing") && !page.contains("new")) {
        let text = viewer.page(page).await;
        assert!(text.contains("class=\"empty\""), "{page}: {text}");
    }
    assert_eq!(viewer.get("/console/nothing/here").await.status, 404);
    let run = viewer.get("/console/runs/019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11").await;
    assert!(run.status == 404 && run.text.contains("unknown_run"), "{run:?}");
    let bad = viewer.page("/console/runs?started_from=yesterday").await;
    assert!(bad.contains("class=\"refused\"") && bad.contains("started_from"), "{bad}");
    server.stopped().await;
}

#[tokio::test]
async fn what_users_send_is_shown_as_text() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let run = parked(&server, "order", SCRIPT, SCRIPT).await;
    let labels = json!({ "set": { "team": SCRIPT }, "reason": SCRIPT });
    let labelled = server.request("PATCH", &format!("/v1/runs/{run}/labels"));
    let labelled =
        backstitch_tests::server::send(backstitch_tests::server::with_json(labelled, labels)).await;
    assert_eq!(labelled.status, 200, "{labelled:?}");
    let incident =
        api(&server, "/v1/incidents").await["items"][0]["id"].as_str().unwrap().to_owned();
    posted(&server, &format!("/v1/incidents/{incident}/note"), json!({ "note": SCRIPT })).await;
    posted(&server, &format!("/v1/runs/{run}/pause"), json!({ "reason": SCRIPT, "name": SCRIPT }))
        .await;
    let job = posted(
        &server,
        "/v1/jobs",
        json!({ "verb": "retry", "reason": SCRIPT, "runs": { "key": SCRIPT } }),
    )
    .await;
    let job = job.json()["id"].as_str().unwrap().to_owned();
    let mut pages: Vec<String> = PAGES.iter().map(|page| (*page).to_owned()).collect();
    pages.extend([
        format!("/console/runs/{run}"),
        format!("/console/runs/{run}?as_of=3"),
        format!("/console/runs/{run}/journal"),
        format!("/console/runs/{run}/undo"),
        format!("/console/runs/{run}/undo?way=back_to&step={}", super::encoded(SCRIPT)),
        format!("/console/runs/{run}/steps/charge"),
        format!("/console/runs/{run}/steps/{}", super::encoded(SCRIPT)),
        format!("/console/incidents/{incident}"),
        format!("/console/jobs/{job}"),
        format!("/console/runs?key={0}&label=team:{0}&workflow={0}", super::encoded(SCRIPT)),
        format!("/console/jobs/new?of=runs&verb=rerun&from={0}&key={0}", super::encoded(SCRIPT)),
        format!("/console/login?next={}", super::encoded(SCRIPT)),
        format!("/console/audit?actor={}", super::encoded(SCRIPT)),
        "/console/workflows/order/1".to_owned(),
    ]);
    let mut told = 0;
    for page in &pages {
        let answer = viewer.get(page).await;
        assert!(answer.status < 500, "{page}: {answer:?}");
        for raw in ["<script>", "<img", "</title><s"] {
            assert!(!answer.text.contains(raw), "{page} has {raw}: {}", answer.text);
        }
        told += usize::from(answer.text.contains("alert(1)"));
    }
    assert!(told > 10, "only {told} pages show it at all");
    server.stopped().await;
}

#[tokio::test]
async fn a_viewer_sees_no_verb_and_the_server_decides_again() {
    let server = Server::start(Access::Keys).await;
    let viewer = Viewer::new(&server, "vera", Role::Viewer).await;
    let operator = Viewer::new(&server, "ann", Role::Operator).await;
    let run = parked(&server, "order", "o-1", "declined").await;
    let incident = format!("{run}-1");
    for page in [
        format!("/console/runs/{run}"),
        format!("/console/incidents/{incident}"),
        "/console/workflows/order/1".to_owned(),
    ] {
        assert!(!viewer.page(&page).await.contains("action=\"/console/act\""), "{page}");
        assert!(operator.page(&page).await.contains("action=\"/console/act\""), "{page}");
    }
    let fields = [
        ("token", &*viewer.token().await),
        ("method", "POST"),
        ("path", &format!("/v1/runs/{run}/cancel")),
        ("f.s.reason", "r"),
    ];
    let refused = viewer.post("/console/act", &fields).await;
    assert!(refused.status == 403 && refused.text.contains("forbidden"), "{refused:?}");
    server.stopped().await;
}

#[tokio::test]
async fn a_verb_is_done_with_its_reason_once_however_often_the_form_is_sent() {
    let server = Server::start(Access::Keys).await;
    let ann = Viewer::new(&server, "ann", Role::Operator).await;
    let run = parked(&server, "order", "o-1", "declined").await;
    let place = format!("/console/runs/{run}");
    let page = ann.page(&place).await;
    let skip = page.split("<details class=\"deed\"").find(|form| form.contains(">Skip<")).unwrap();
    let hidden = |name: &str| attribute(skip, &format!("name=\"{name}\" value=\"")).unwrap();
    let (token, path, key) = (hidden("token"), hidden("path"), hidden("key"));
    assert_eq!(path, format!("/v1/runs/{run}/steps/charge/skip"));
    let fields = [
        ("token", token.as_str()),
        ("method", "POST"),
        ("path", path.as_str()),
        ("key", key.as_str()),
        ("word", "skip"),
        ("back", place.as_str()),
        ("f.s.reason", "The customer has it"),
        ("f.j.output", "{\"by\": \"hand\"}"),
    ];
    for _ in 0..2 {
        let done = ann.post("/console/act", &fields).await;
        assert_eq!(done.status, 303, "{done:?}");
        assert_eq!(done.headers["location"].to_str().unwrap(), format!("{place}?done=skip"));
    }
    assert!(ann.page(&format!("{place}?done=skip")).await.contains("Done: skip"));
    let journal = ann.page(&format!("{place}/journal")).await;
    assert!(journal.contains("ann: The customer has it"), "{journal}");
    assert_eq!(journal.matches("<strong>skipped by hand</strong>").count(), 1, "{journal}");
    let audit = ann.page("/console/audit").await;
    assert!(audit.contains("The customer has it") && audit.contains(">skip<"), "{audit}");
    // Without a reason nothing is done, and the page says what is missing.
    let refused = ann
        .post(
            "/console/act",
            &[("token", &token), ("method", "POST"), ("path", &format!("/v1/runs/{run}/kill"))],
        )
        .await;
    assert!(refused.status >= 400 && refused.text.contains("reason"), "{refused:?}");
    server.stopped().await;
}

#[tokio::test]
async fn an_undo_is_planned_before_anything_is_written() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let run = parked(&server, "order", "o-1", "declined").await;
    let before = api(&server, &format!("/v1/runs/{run}")).await["seq"].clone();
    for way in [
        "way=all",
        "way=back_to&step=reserve",
        "way=steps&choose=reserve",
        "way=rerun&step=reserve",
    ] {
        let page = viewer.page(&format!("/console/runs/{run}/undo?{way}")).await;
        assert!(
            page.contains("<code>undo</code>") && page.contains("class=\"mark\""),
            "{way}: {page}"
        );
    }
    assert_eq!(api(&server, &format!("/v1/runs/{run}")).await["seq"], before);
    let page = viewer.page(&format!("/console/runs/{run}/undo?way=back_to&step=reserve")).await;
    let form = page.split("<details class=\"deed\"").nth(1).unwrap();
    let scope = attribute(form, "name=\"f.j.scope\" value=\"").unwrap();
    assert_eq!(scope, "{&#34;back_to&#34;:&#34;reserve&#34;}");
    let fields = [
        ("token", &*attribute(form, "name=\"token\" value=\"").unwrap()),
        ("method", "POST"),
        ("path", &attribute(form, "name=\"path\" value=\"").unwrap()),
        ("f.j.scope", "{\"back_to\":\"reserve\"}"),
        ("f.s.reason", "Withdrawn"),
    ];
    assert_eq!(viewer.post("/console/act", &fields).await.status, 303);
    let view = api(&server, &format!("/v1/runs/{run}")).await;
    assert_eq!(view["state"], "compensating", "{view}");
    server.stopped().await;
}

#[tokio::test]
async fn time_travel_shows_a_run_as_it_was() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let run = parked(&server, "order", "o-1", "declined").await;
    let now = viewer.page(&format!("/console/runs/{run}")).await;
    assert!(now.contains("aria-label=\"charge: parked\""), "{now}");
    let then = viewer.page(&format!("/console/runs/{run}?as_of=1")).await;
    assert!(then.contains("As it was after record 1 of"), "{then}");
    assert!(
        then.contains("aria-label=\"reserve: offered\"")
            || then.contains("aria-label=\"reserve: leased\""),
        "{then}"
    );
    assert!(!then.contains("action=\"/console/act\"") && !then.contains("data-live"), "{then}");
    server.stopped().await;
}

#[tokio::test]
async fn one_thing_is_done_to_many_by_a_job_that_is_planned_first() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    parked(&server, "order", "o-1", "declined").await;
    let fingerprint = api(&server, "/v1/incidents").await["items"][0]["fingerprint"].clone();
    let fingerprint = fingerprint.as_str().unwrap();
    let list = viewer.page(&format!("/console/incidents?fingerprint={fingerprint}")).await;
    assert!(list.contains("Do one thing to all of these"), "{list}");
    let plan = viewer
        .page(&format!("/console/jobs/new?of=incidents&verb=cancel&fingerprint={fingerprint}"))
        .await;
    assert!(plan.contains("would be done to <strong>1</strong>"), "{plan}");
    let form = plan.split("<details class=\"deed").nth(1).unwrap();
    let fields = [
        ("token", &*attribute(form, "name=\"token\" value=\"").unwrap()),
        ("method", "POST"),
        ("path", "/v1/jobs"),
        ("then", "/console/jobs/{id}"),
        ("f.s.verb", "cancel"),
        ("f.j.incidents", &format!("{{\"fingerprint\":\"{fingerprint}\"}}")),
        ("f.n.canary.first", "1"),
        ("f.s.canary.wait", "1s"),
        ("f.n.rate", "10"),
        ("f.s.reason", "The bank is down"),
    ];
    let made = viewer.post("/console/act", &fields).await;
    let job = made.headers["location"].to_str().unwrap().replace("?done=", "");
    assert!(job.starts_with("/console/jobs/0"), "{made:?}");
    assert!(viewer.page(&job).await.contains("The bank is down"));
    server.stopped().await;
}

#[tokio::test]
async fn the_journal_says_what_a_person_changed_of_an_input() {
    let server = Server::start(Access::Open).await;
    let viewer = Viewer::at_open(&server);
    let run = parked(&server, "order", "o-1", "declined").await;
    let input = json!({ "order": "o-1", "note": "card 4712" });
    let edited = json!({ "input": input, "reason": "Another card" });
    let retried = posted(&server, &format!("/v1/runs/{run}/steps/charge/retry"), edited).await;
    assert!(retried.status < 300, "{retried:?}");
    let journal = viewer.page(&format!("/console/runs/{run}/journal")).await;
    let change = "<code>/note</code></td><td><del><code>&#34;&#60;b&#62;&#34;</code></del></td>\
        <td><ins><code>&#34;card 4712&#34;</code></ins>";
    assert!(journal.contains(change), "{journal}");
    assert_eq!(journal.matches("<ins>").count(), 1, "{journal}");
    server.stopped().await;
}
