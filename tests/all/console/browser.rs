//! The console in a real browser: each page in both themes, on a desk and on a phone; verbs clicked through to their
//! effect; without a mouse.

use backstitch_api::Access;
use backstitch_engine::Role;
use backstitch_saga::Span;
use backstitch_tests::node::{Hand, NS, chain, fan};
use backstitch_tests::server::Server;
use serde_json::{Value, json};

use super::doors::PAGES;
use super::driver::{Browser, browser};
use super::{api, parked, posted, register};

/// The keys of WebDriver.
const TAB: &str = "\u{E004}";
const ENTER: &str = "\u{E007}";

async fn signed_in(browser: &Browser, server: &Server, name: &str, role: Role) {
    let secret = server.engine.create_credential(NS, name, role).await.unwrap();
    browser.go(&format!("{}/", server.url())).await;
    browser.write("#secret", &secret).await;
    browser.click("button.main").await;
    browser.says("Overview").await;
}

/// Runs of all kinds, as a night has them; the pages about them.
async fn night(server: &Server) -> Vec<(String, String)> {
    let run = parked(server, "place-order", "order-10248", "card 4711 has expired").await;
    let second = parked(server, "place-order", "order-10249", "card 4712 has expired").await;
    register(server, &fan("ship-all", 3, r#""all""#)).await;
    let start = backstitch_tests::node::start("ship-all", "[1,2,3,4,5,6,7,8,9,10,11,12]");
    let wide = server.engine.start_run(NS, start).await.unwrap().id.to_string();
    let hand = Hand::new(&server.engine);
    let tasks = hand.claim(3, Span::secs(30)).await;
    hand.succeed(&tasks).await;
    hand.claim(2, Span::secs(30)).await;
    let approve = json!({
        "name": "refund", "version": 1, "steps": [{
            "id": "approve", "wait": {
                "signal": "approval", "title": "Refund 4,200 EUR to customer 7?", "timeout": "2d",
                "schema": { "type": "object", "required": ["approved"], "properties": {
                    "approved": { "type": "boolean" }, "note": { "type": "string" } } } } }] });
    register(server, &approve.to_string()).await;
    let asking = server.engine.start_run(NS, backstitch_tests::node::start("refund", "{}")).await;
    let asking = asking.unwrap().id.to_string();
    let compensate = json!({ "scope": "all", "reason": "The customer withdrew" });
    let secret = server.engine.create_credential(NS, "night", Role::Admin).await.unwrap();
    let send = async |method: &str, path: &str, body: Value| {
        let request = server.bare(method, path).bearer_auth(&secret);
        let answer =
            backstitch_tests::server::send(backstitch_tests::server::with_json(request, body))
                .await;
        assert!(answer.status < 300, "{answer:?}");
        answer.json()
    };
    send("POST", &format!("/v1/runs/{second}/compensate"), compensate).await;
    send(
        "PUT",
        "/v1/queues/erp",
        json!({ "concurrency": 20, "fair_by": "customer", "breaker": {} }),
    )
    .await;
    let nightly = json!({ "cron": "0 2 * * *", "time_zone": "Europe/Berlin", "workflow": "ship-all", "input": [1] });
    send("PUT", "/v1/schedules/nightly", nightly).await;
    let job =
        json!({ "verb": "retry", "reason": "The card was renewed", "runs": { "key": "none" } });
    let job = send("POST", "/v1/jobs", job).await["id"].as_str().unwrap().to_owned();
    let plan = json!({ "scope": "all", "reason": "The customer withdrew" });
    let plan = send("POST", &format!("/v1/runs/{run}/plans"), plan).await["id"]
        .as_str()
        .unwrap()
        .to_owned();
    let (event, intake, import) = documents(server, &secret).await;
    next_version(server, "place-order").await;
    let mut pages: Vec<(String, String)> = PAGES
        .iter()
        .filter(|page| !page.contains("nothing"))
        .map(|page| {
            let name = page.trim_start_matches("/console").trim_matches('/').replace('/', "-");
            (if name.is_empty() { "overview".to_owned() } else { name }, (*page).to_owned())
        })
        .collect();
    for (name, page) in [
        ("run-parked", format!("/console/runs/{run}")),
        ("run-past", format!("/console/runs/{run}?as_of=3")),
        ("run-undone", format!("/console/runs/{second}")),
        ("run-wide", format!("/console/runs/{wide}")),
        ("run-asking", format!("/console/runs/{asking}")),
        ("journal", format!("/console/runs/{run}/journal")),
        ("undo", format!("/console/runs/{run}/undo")),
        ("step", format!("/console/runs/{wide}/steps/each")),
        ("incident", format!("/console/incidents/{run}-1")),
        ("job", format!("/console/jobs/{job}")),
        ("job-plan", "/console/jobs/new?of=incidents&verb=cancel&workflow=place-order".to_owned()),
        ("workflow", "/console/workflows/place-order/1".to_owned()),
        ("schedule", "/console/schedules/nightly".to_owned()),
        ("plan", format!("/console/plans/{plan}")),
        ("plan-changed", format!("/console/runs/{run}/undo?way=all&plan={plan}&revision=1")),
        ("event", format!("/console/events/{event}")),
        ("intake", format!("/console/intakes/{intake}")),
        ("contract", "/console/contracts/crm.contact".to_owned()),
        ("contract-version", "/console/contracts/crm.contact/1".to_owned()),
        ("transform", "/console/transforms/crm.contact/1/customer/1".to_owned()),
        ("import", format!("/console/imports/{import}")),
        ("credentials", "/console/credentials".to_owned()),
        ("compare", "/console/workflows/place-order/2/compare".to_owned()),
        ("rehearsal", "/console/workflows/place-order/2/rehearsal".to_owned()),
        ("migrations", "/console/workflows/place-order/migrations?from=1&to=2".to_owned()),
    ] {
        pages.push((name.to_owned(), page));
    }
    pages
}

/// Makes a source with a document that was taken in and one that was refused, the contracts that they are held to,
/// and the event that came of it, and a file with a row that was refused. Returns the ids of the event, of the
/// document and of the import.
async fn documents(server: &Server, secret: &str) -> (String, String, String) {
    let send = async |method: &str, path: &str, bearer: &str, body: Value| {
        let request = server.bare(method, path).bearer_auth(bearer);
        backstitch_tests::server::send(backstitch_tests::server::with_json(request, body)).await
    };
    for (subject, name) in [("crm.contact", "full_name"), ("customer", "name")] {
        let members = json!({ "id": { "type": "string" }, name: { "type": "string" } });
        let schema = json!({ "type": "object", "properties": members, "required": ["id"] });
        let path = format!("/v1/contracts/{subject}/versions");
        let made = send("POST", &path, secret, json!({ "schema": schema })).await;
        assert!(made.status < 300, "{made:?}");
    }
    let rules = json!([{ "to": "/id", "copy": "/id" }, { "to": "/name", "copy": "/full_name" }]);
    let path = "/v1/transforms/crm.contact/1/customer/1";
    let made = send("PUT", path, secret, json!({ "transform": { "rules": rules } })).await;
    assert!(made.status < 300, "{made:?}");
    let spec = json!({
        "verify": { "scheme": "bearer" }, "accepts": [{ "contract": "crm.contact", "to": "customer@1" }],
        "version_from": { "fixed": 1 } });
    let token = "a-token-of-the-crm";
    let made =
        send("PUT", "/v1/sources/crm", secret, json!({ "spec": spec, "secret": token })).await;
    assert!(made.status < 300, "{made:?}");
    let door = format!("/v1/in/{NS}/crm");
    let taken = send("POST", &door, token, json!({ "id": "7", "full_name": "Ann" })).await.json();
    let refused = send("POST", &door, token, json!({ "id": 7 })).await;
    assert!(refused.status >= 400, "{refused:?}");
    let file = server.bare("POST", &format!("{door}/files")).bearer_auth(token);
    let rows = "{\"id\":\"8\",\"full_name\":\"Bob\"}\n{\"id\":9}\n";
    let file = file.header("content-type", "application/x-ndjson").body(rows);
    let file = backstitch_tests::server::send(file).await.json();
    let id = |of: &Value, name: &str| of[name].as_str().unwrap_or_default().to_owned();
    (id(&taken, "event_id"), id(&taken, "intake_id"), id(&file, "import_id"))
}

/// Registers the next version of a workflow, with a step more and one that is called otherwise.
async fn next_version(server: &Server, workflow: &str) {
    let steps = ["reserve", "charge", "label", "ship"];
    let mut next: Value = serde_json::from_str(&chain(workflow, &steps)).unwrap();
    next["version"] = json!(2);
    next["steps"][1]["task"]["on_failure"] = json!("incident");
    next["steps"][3]["task"]["name"] = json!("do_ship");
    register(server, &next.to_string()).await;
}

#[tokio::test]
async fn each_page_is_fit_for_everybody_and_asks_nobody_else() {
    let server = Server::start(Access::Keys).await;
    let pages = night(&server).await;
    for (size, dark, role) in [
        ((1380, 900), false, Role::Operator),
        ((390, 844), true, Role::Admin),
        ((1380, 900), true, Role::Admin),
        ((390, 844), false, Role::Operator),
    ] {
        let Some(browser) = browser(size, dark).await else { return };
        browser.go(&format!("{}/console", server.url())).await;
        let look = format!(
            "{}-{}",
            if size.0 > 600 { "desk" } else { "phone" },
            if dark { "dark" } else { "light" }
        );
        browser.shoot(&format!("login-{look}")).await;
        assert_eq!(browser.unfit().await, Vec::<String>::new(), "the page to sign in");
        signed_in(&browser, &server, &look, role).await;
        for (name, page) in &pages {
            browser.go(&format!("{}{page}", server.url())).await;
            browser.shoot(&format!("{name}-{look}")).await;
            assert_eq!(browser.unfit().await, Vec::<String>::new(), "{page}, {look}");
            assert_eq!(browser.errors().await, Vec::<String>::new(), "{page}, {look}");
            let wide = browser.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth").await;
            assert!(wide.as_i64().unwrap() <= 0, "{page} is too wide by {wide}, {look}");
        }
        for url in browser.requests().await {
            let ours = url.starts_with(server.url())
                || url.starts_with("data:")
                || url.starts_with("chrome");
            assert!(ours, "{url} was asked for");
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_night_is_walked_through_without_a_mouse() {
    let server = Server::start(Access::Open).await;
    let Some(browser) = browser((1280, 900), false).await else { return };
    let run = parked(&server, "order", "order-1", "card 4711 has expired").await;
    // The namespace of the tests, chosen as a person would.
    browser.go(&format!("{}/console", server.url())).await;
    tab_to(&browser, "summary", "Another namespace").await;
    // Whoever comes to a field with the tabulator writes in place of what stood there.
    browser.press(&format!("{ENTER}{TAB}{NS}{ENTER}")).await;
    browser.says("card 4711 has expired").await;
    // From the group to the incident, and what is done about it, by the keyboard alone.
    tab_to(&browser, "a", "card 4711 has expired").await;
    browser.press(ENTER).await;
    browser.says("Do one thing to all of these").await;
    tab_to(&browser, "a", "task exhausted").await;
    browser.press(ENTER).await;
    browser.says("Attempts").await;
    tab_to(&browser, "summary", "Skip").await;
    browser.press(ENTER).await;
    browser.says("Goes on without the step").await;
    browser.press(&format!("{TAB}{TAB}Paid in cash{ENTER}")).await;
    browser.says("Done: skip").await;
    let history = api(&server, &format!("/v1/runs/{run}/history")).await.to_string();
    assert!(history.contains("Paid in cash"), "{history}");
    assert_eq!(browser.errors().await, Vec::<String>::new());
    server.stopped().await;
}

/// Goes on with the tabulator until an element of this kind has the focus that says `text`.
async fn tab_to(browser: &Browser, kind: &str, text: &str) {
    for _ in 0..120 {
        browser.press(TAB).await;
        let script = "const at = document.activeElement; return [at.localName, at.textContent]";
        let at = browser.run(script).await;
        if at[0] == kind && at[1].as_str().is_some_and(|at| at.contains(text)) {
            return;
        }
    }
    panic!("no way leads to '{text}' without a mouse: {}", browser.text().await);
}

#[tokio::test]
async fn a_page_follows_its_run_by_itself_and_a_verb_is_clicked_through() {
    let server = Server::start(Access::Open).await;
    let Some(browser) = browser((1280, 900), false).await else { return };
    let run = parked(&server, "order", "order-1", "card 4711 has expired").await;
    browser.go(&format!("{}/console/jobs", server.url())).await;
    browser.run(&format!("document.cookie = 'backstitch_namespace={NS}; path=/console'")).await;
    let place = format!("{}/console/runs/{run}", server.url());
    browser.go(&place).await;
    browser.says("Why it stands").await;
    posted(
        &server,
        &format!("/v1/runs/{run}/pause"),
        json!({ "reason": "Maintenance", "name": "night" }),
    )
    .await;
    browser.says("Maintenance").await;
    let skip = "document.querySelectorAll('details.deed > summary').forEach((one) => { if (one.textContent === 'Skip') { one.click(); one.parentElement.id = 'skip' } })";
    browser.run(skip).await;
    browser.write("#skip input[name='f.s.reason']", "The customer paid in cash").await;
    browser.click("#skip button.main").await;
    browser.says("Done: skip").await;
    assert!(browser.place().await.starts_with(&place));
    let history = api(&server, &format!("/v1/runs/{run}/history")).await.to_string();
    assert!(history.contains("The customer paid in cash"), "{history}");
    assert_eq!(browser.errors().await, Vec::<String>::new());
    // While a form is open nothing is taken from under it.
    browser.run("document.querySelector('details.deed').open = true").await;
    posted(&server, &format!("/v1/runs/{run}/resume"), json!({ "reason": "Over" })).await;
    browser.says("Show what has changed").await;
    server.stopped().await;
}

#[tokio::test]
async fn the_slider_goes_through_the_journal() {
    let server = Server::start(Access::Open).await;
    let Some(browser) = browser((1280, 900), false).await else { return };
    let run = parked(&server, "order", "order-1", "card 4711 has expired").await;
    browser.go(&format!("{}/console/jobs", server.url())).await;
    browser.run(&format!("document.cookie = 'backstitch_namespace={NS}; path=/console'")).await;
    browser.go(&format!("{}/console/runs/{run}", server.url())).await;
    browser.says("Graph").await;
    browser.run("document.querySelector('[data-travel] input').focus()").await;
    browser.press("\u{E012}\u{E012}").await;
    browser.says("As it was after record").await;
    assert!(browser.place().await.contains("as_of="), "the address says what is shown");
    assert_eq!(browser.errors().await, Vec::<String>::new());
    server.stopped().await;
}

#[tokio::test]
async fn what_is_wrong_with_a_form_stands_beside_what_was_typed() {
    let server = Server::start(Access::Keys).await;
    let Some(browser) = browser((1280, 900), false).await else { return };
    register(&server, &chain("order", &["reserve"])).await;
    signed_in(&browser, &server, "ann", Role::Operator).await;
    browser.go(&format!("{}/console/schedules", server.url())).await;
    browser.click("details.deed > summary").await;
    let document = "details.deed textarea";
    let set = |text: &str| format!("document.querySelector('{document}').value = {}", json!(text));
    browser.write("details.deed input[name='f.p.name']", "nightly").await;
    browser.run(&set(r#"{"cron": "61 * * * *", "workflow": "order"}"#)).await;
    browser.click("details.deed button.main").await;
    browser.says("invalid_schedule").await;
    browser.says("/cron").await;
    browser.shoot("form-refused-desk-light").await;
    let kept = browser.run(&format!("return document.querySelector('{document}').value")).await;
    assert!(kept.as_str().unwrap().contains("61 * * * *"), "{kept}");
    assert!(browser.place().await.ends_with("/console/schedules"));
    assert_eq!(browser.unfit().await, Vec::<String>::new());
    // The browser tells of each answer that refuses something.
    let told = browser.errors().await;
    assert!(told.iter().all(|line| line.contains("422")), "{told:?}");
    browser.run(&set(r#"{"cron": "1 * * * *", "workflow": "order"}"#)).await;
    browser.click("details.deed button.main").await;
    browser.says("Done: put-schedule").await;
    assert!(browser.place().await.contains("/console/schedules/nightly"));
    assert_eq!(browser.errors().await, Vec::<String>::new());
    server.stopped().await;
}

#[tokio::test]
async fn the_log_is_followed_by_itself() {
    let server = Server::start(Access::Open).await;
    let Some(browser) = browser((1280, 900), false).await else { return };
    browser.go(&format!("{}/console/jobs", server.url())).await;
    browser.run(&format!("document.cookie = 'backstitch_namespace={NS}; path=/console'")).await;
    browser.go(&format!("{}/console/events", server.url())).await;
    browser.says("There is no event here").await;
    let event = json!({ "type": "order.paid", "source": "shop", "stream": "order:7", "data": { "paid": true } });
    let told = posted(&server, "/v1/events", json!({ "events": [event] })).await;
    assert!(told.status < 300, "{told:?}");
    browser.says("order.paid").await;
    assert_eq!(browser.errors().await, Vec::<String>::new());
    server.stopped().await;
}

#[tokio::test]
async fn a_child_is_opened_in_the_page_of_its_parent() {
    let server = Server::start(Access::Open).await;
    let Some(browser) = browser((1280, 900), false).await else { return };
    register(&server, &chain("label", &["print", "stick"])).await;
    let parent = json!({ "name": "order", "version": 1, "steps": [
        { "id": "label", "child": { "workflow": "label", "input": { "path": "/input" } } }] });
    register(&server, &parent.to_string()).await;
    let start = backstitch_tests::node::start("order", "1");
    let run = server.engine.start_run(NS, start).await.unwrap().id;
    let place = format!("/v1/runs/{run}/tree");
    backstitch_tests::eventually("the child has begun", async || {
        api(&server, &place).await["runs"].as_array().is_some_and(|runs| runs.len() == 2)
    })
    .await;
    browser.go(&format!("{}/console/jobs", server.url())).await;
    browser.run(&format!("document.cookie = 'backstitch_namespace={NS}; path=/console'")).await;
    browser.go(&format!("{}/console/runs/{run}", server.url())).await;
    browser.click("details.child > summary").await;
    let shown = "return document.querySelectorAll('details.child .spot').length";
    let until = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while browser.run(shown).await != 2 {
        assert!(std::time::Instant::now() < until, "{}", browser.text().await);
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    assert_eq!(browser.errors().await, Vec::<String>::new());
    server.stopped().await;
}
