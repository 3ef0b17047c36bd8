//! A bad night, walked through in the browser alone: the group, one of it, an undo that two must agree on, a redrive
//! with a canary that is watched live, the last one by hand. In the end the ledgers of the other systems agree with
//! what is shown.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use backstitch_api::Access;
use backstitch_engine::{Engine, Role};
use backstitch_saga::protocol::{Failure, FailureKind, TaskOffer, TaskOutcome};
use backstitch_saga::{Action, Span};
use backstitch_tests::node::{Hand, NS, chain, report};
use backstitch_tests::server::{Server, send, with_json};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use super::driver::{Browser, browser};
use super::register;

const ORDERS: usize = 6;

/// The systems that steps call: for each order and step what stands there.
#[derive(Clone, Default)]
struct Systems {
    ledger: Arc<Mutex<BTreeMap<(String, String), i32>>>,
    /// Keys of effects that were asked for before, which are not done again.
    seen: Arc<Mutex<BTreeSet<String>>>,
    bank_is_up: Arc<AtomicBool>,
}

impl Systems {
    fn stands(&self, order: &str, step: &str) -> i32 {
        let ledger = self.ledger.lock().unwrap();
        ledger.get(&(order.to_owned(), step.to_owned())).copied().unwrap_or_default()
    }

    /// Does a task, as the systems are.
    fn call(&self, order: &str, offer: &TaskOffer) -> TaskOutcome {
        let (step, action) = (&*offer.step.to_string(), offer.action);
        let refused = |code: &str, message: &str| {
            let (code, message) = (code.to_owned(), message.to_owned());
            let kind = FailureKind::Permanent;
            TaskOutcome::Failed(Failure { kind, code, message, details: None, retry_after: None })
        };
        if step == "pay" && !self.bank_is_up.load(Ordering::Relaxed) {
            return refused("bank_closed", "the bank does not answer");
        }
        if (step, order) == ("ship", "order-6") {
            return refused("no_label", "there is no label for parcels by sea");
        }
        let change = if action == Action::Compensate { -1 } else { 1 };
        if self.seen.lock().unwrap().insert(offer.effect_key.to_string()) {
            let place = (order.to_owned(), step.to_owned());
            *self.ledger.lock().unwrap().entry(place).or_default() += change;
        }
        TaskOutcome::Succeeded {
            output: backstitch_tests::node::json("{}"),
            external_id: Some(format!("{step}-of-{order}")),
        }
    }

    /// Works for as long as the engine does.
    async fn work(self, engine: Engine) {
        let hand = Hand::new(&engine);
        loop {
            for offer in hand.claim(10, Span::secs(1)).await {
                let input: Value = serde_json::from_str(offer.input.text()).unwrap();
                let order = input["order"].as_str().unwrap();
                let outcome = self.call(order, &offer);
                engine.complete(NS, vec![report(&offer, outcome)]).await;
            }
        }
    }
}

/// Somebody at a browser.
struct Person<'a> {
    browser: Browser,
    server: &'a Server,
}

impl Person<'_> {
    async fn at<'a>(server: &'a Server, name: &str) -> Option<Person<'a>> {
        let browser = browser((1280, 900), false).await?;
        let secret = server.engine.create_credential(NS, name, Role::Operator).await.unwrap();
        browser.go(&format!("{}/", server.url())).await;
        browser.write("#secret", &secret).await;
        browser.click("button.main").await;
        browser.says("Overview").await;
        Some(Person { browser, server })
    }

    async fn go(&self, path: &str) {
        self.browser.go(&format!("{}{path}", self.server.url())).await;
    }

    /// Follows the first link whose text has `text`.
    async fn follow(&self, text: &str) {
        self.browser.says(text).await;
        let script = format!(
            "const link = [...document.querySelectorAll('main a')].find((one) => one.textContent.includes({})); link.click()",
            json!(text)
        );
        self.browser.run(&script).await;
    }

    /// Opens the form of a verb, fills it in and sends it.
    async fn does(&self, verb: &str, fields: &[(&str, &str)]) {
        self.browser.says(verb).await;
        let script = format!(
            "const deed = [...document.querySelectorAll('details.deed')].find((one) => \
             one.querySelector('summary').textContent.trim() === {}); deed.open = true; deed.id = 'chosen'; \
             deed.querySelectorAll('input:not([type=hidden])').forEach((one) => {{ if ({}.includes(one.name)) one.value = '' }})",
            json!(verb),
            json!(fields.iter().map(|(name, _)| *name).collect::<Vec<_>>())
        );
        self.browser.run(&script).await;
        for (name, value) in fields {
            self.browser.write(&format!("#chosen [name='{name}']"), value).await;
        }
        self.browser.click("#chosen button.main").await;
    }

    async fn says(&self, text: &str) {
        self.browser.says(text).await;
    }
}

/// Returns the orders of the night, all but paid.
async fn evening(server: &Server, systems: &Systems) -> JoinHandle<()> {
    let parks = r#""on_failure":"incident","retry":{"first_delay":"20ms""#;
    let definition = chain("order", &["reserve", "pay", "ship"]);
    let definition = definition.replace(r#""retry":{"first_delay":"20ms""#, parks);
    register(server, &definition).await;
    let worker = tokio::spawn(systems.clone().work(server.engine.clone()));
    for number in 1..=ORDERS {
        let mut start =
            backstitch_tests::node::start("order", &format!(r#"{{"order":"order-{number}"}}"#));
        start.key = Some(format!("order-{number}"));
        server.engine.start_run(NS, start).await.unwrap();
    }
    let ops = server.engine.create_credential(NS, "ops", Role::Admin).await.unwrap();
    let path = "/v1/workflows/order/undo-approval";
    let ask = json!({ "approval": "always", "reason": "two look at it" });
    let set = with_json(server.bare("PUT", path).bearer_auth(&ops), ask);
    assert_eq!(send(set).await.status, 200);
    backstitch_tests::eventually("all wait for a person", async || {
        let open = server.bare("GET", "/v1/incidents?state=open&limit=100").bearer_auth(&ops);
        send(open).await.json()["items"].as_array().unwrap().len() == ORDERS
    })
    .await;
    worker
}

#[tokio::test]
async fn a_night_is_walked_through_from_the_group_to_the_last_one() {
    let server = Server::start(Access::Keys).await;
    let systems = Systems::default();
    let Some(ann) = Person::at(&server, "ann").await else { return };
    let Some(bob) = Person::at(&server, "bob").await else { return };
    let worker = evening(&server, &systems).await;

    // What is broken, and one of it.
    ann.go("/console").await;
    ann.follow("the bank does not answer").await;
    ann.says("Do one thing to all of these").await;
    ann.follow("order order-1").await;
    ann.says("Why it stands").await;
    let run = ann.browser.place().await;

    // The customer of that one cannot wait: an undo that two must agree on.
    ann.follow("Plan an undo").await;
    ann.says("One person may not undo so much").await;
    ann.does("Write it down as a plan", &[("f.s.reason", "The customer cannot wait")]).await;
    ann.says("needs approval").await;
    let plan = ann.browser.place().await;
    let plan = plan.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned();
    bob.go("/console/plans").await;
    bob.follow("everything").await;
    bob.does("Approve", &[("f.s.reason", "I have called the customer")]).await;
    bob.says("I have called the customer").await;
    ann.go(&format!("/console/plans/{plan}")).await;
    ann.says("approved").await;
    ann.does("Undo this", &[]).await;
    ann.says("compensated").await;
    assert!(ann.browser.place().await.starts_with(run.split('?').next().unwrap()));

    // The bank is back: the others once more, first two of them, watched live.
    systems.bank_is_up.store(true, Ordering::Relaxed);
    ann.go("/console").await;
    ann.follow("the bank does not answer").await;
    ann.follow("Do one thing to all of these").await;
    ann.says("would be done to 5").await;
    let fields =
        [("f.n.canary.first", "2"), ("f.s.canary.wait", "1s"), ("f.s.reason", "The bank is back")];
    ann.does("Start the job", &fields).await;
    ann.says("Tried first on").await;
    ann.says("done retry").await;

    // What is left is another trouble, and is done by hand.
    ann.go("/console/incidents?workflow=order").await;
    ann.follow("task exhausted").await;
    ann.says("there is no label").await;
    let fields = [("f.j.output", "{\"label\": \"by hand\"}"), ("f.s.reason", "Labelled by hand")];
    ann.does("Resolve", &fields).await;
    ann.says("Done: resolve").await;
    ann.go("/console/incidents").await;
    ann.says("Nothing needs a person").await;
    ann.go("/console/effects").await;
    ann.says("Nothing stands in another system that should not").await;

    for number in 1..=ORDERS {
        let order = format!("order-{number}");
        let stands = ["reserve", "pay", "ship"].map(|step| systems.stands(&order, step));
        let expected = match number {
            1 => [0, 0, 0],
            6 => [1, 1, 0],
            _ => [1, 1, 1],
        };
        assert_eq!(stands, expected, "{order}");
    }
    for person in [&ann, &bob] {
        assert_eq!(person.browser.errors().await, Vec::<String>::new());
    }
    worker.abort();
    server.stopped().await;
}
