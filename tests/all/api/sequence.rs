//! Requirements as callers meet them: orders that come before their customers, facts that do not come, what is refused.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::BackgroundTask;
use backstitch_saga::protocol::{RunView, State, StepView};
use backstitch_saga::{RunId, Span};
use backstitch_tests::chance::Chance;
use backstitch_tests::node::{Hand, NS};
use backstitch_tests::server::{Answer, Server, send, with_json};
use serde_json::{Value, json};

fn one_step(name: &str, sequence: &Value) -> Value {
    json!({"name": name, "version": 1, "sequence": sequence, "steps": [{"id": "do", "task": {
        "name": "do", "input": {"path": "/input"}, "compensate": {"name": "undo"},
        "timeouts": {"heartbeat": "30s", "attempt": "5m", "step": "10m"}}}]})
}

async fn register(server: &Server, definition: &Value) -> Answer {
    let path = format!("/v1/workflows/{}/versions/1", definition["name"].as_str().unwrap());
    send(with_json(server.request("PUT", &path), definition)).await
}

async fn view(server: &Server, run: RunId) -> RunView {
    server.engine.run(NS, run, None).await.unwrap()
}

fn id(answer: &Value) -> RunId {
    answer["id"].as_str().unwrap().parse().unwrap()
}

/// Waits until `what` is so; it must be within ten seconds.
async fn until(what: &str, mut so: impl AsyncFnMut() -> bool) {
    let limit = Instant::now() + Duration::from_secs(60);
    while !so().await {
        assert!(Instant::now() < limit, "not within ten seconds: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn shuffled(count: u64, chance: &mut Chance) -> Vec<u64> {
    let mut all: Vec<u64> = (0..count).collect();
    for at in (1..all.len()).rev() {
        all.swap(at, usize::try_from(chance.below(at as u64 + 1)).unwrap());
    }
    all
}

const ORDERS: u64 = 1_000;
const CUSTOMERS: u64 = 250;

/// Starts all orders, in batches at both servers. Returns each run with its customer.
async fn orders(servers: &[&Server; 2], chance: &mut Chance) -> BTreeMap<RunId, u64> {
    let mut orders = BTreeMap::new();
    for (at, part) in shuffled(ORDERS, chance).chunks(100).enumerate() {
        let customers: Vec<u64> = part.iter().map(|order| order % CUSTOMERS).collect();
        let runs: Vec<Value> = customers
            .iter()
            .map(|customer| json!({"workflow": "order", "input": {"customer": customer}}))
            .collect();
        let answer = servers[at % 2].post("/v1/runs/batch", json!({"runs": runs})).await;
        assert_eq!(answer.status, 201, "{answer:?}");
        let answer = answer.json();
        let started = answer["results"].as_array().unwrap().iter().map(id);
        orders.extend(started.zip(customers));
    }
    assert_eq!(orders.len(), 1_000);
    orders
}

/// A customer comes: half of them as runs that establish the fact, half as facts that another system tells.
async fn customer_comes(server: &Server, customer: u64, chance: &mut Chance) {
    if chance.percent(50) {
        let body = json!({"workflow": "customer", "input": {"customer": customer}});
        assert_eq!(server.post("/v1/runs", body).await.status, 201);
    } else {
        let path = format!("/v1/facts/customer:{customer}/customer.created/establish");
        assert_eq!(server.post(&path, json!({"reason": "told by the crm"})).await.status, 200);
    }
}

#[tokio::test]
async fn a_thousand_orders_that_come_before_their_customers() {
    let here = Server::start(Access::Open).await;
    let there = here.beside().await;
    let servers = [&here, &there];
    let on = json!({"array": [{"const": "customer"}, {"path": "/input/customer"}]});
    let fact = json!([{"fact": "customer.created", "on": on}]);
    for (name, sequence) in
        [("order", json!({"requires": fact})), ("customer", json!({"produces": fact}))]
    {
        assert_eq!(register(&here, &one_step(name, &sequence)).await.status, 201);
    }
    let mut chance = Chance::seeded();
    let orders = orders(&servers, &mut chance).await;
    let hands = servers.map(|server| Hand::new(&server.engine));
    for hand in &hands {
        assert!(hand.claim(1, Span::millis(50)).await.is_empty(), "an order before its customer");
    }
    let (first, customer) = orders.iter().next().unwrap();
    let waits = view(&there, *first).await;
    let condition = waits.conditions.iter().find(|one| one.kind == "DependencyUnmet").unwrap();
    assert!(condition.message.contains(&format!("'customer:{customer}'")), "{condition:?}");
    let facts = here.get(&format!("/v1/facts/customer:{customer}")).await.json();
    let told = ["facts", "waiting"].map(|of| facts[of].as_array().unwrap().len());
    assert_eq!(told, [0, 4]);

    let mut acted: BTreeSet<RunId> = BTreeSet::new();
    let mut work = async |wait: Span| {
        let mut found = false;
        for hand in &hands {
            let tasks = hand.claim(100, wait).await;
            found |= !tasks.is_empty();
            for task in &tasks {
                assert_eq!(task.attempt, 1, "an attempt was burnt");
                let Some(customer) = orders.get(&task.run) else { continue };
                let subject = format!("customer:{customer}");
                let about = here.engine.facts_about(NS, &subject).await.unwrap();
                let facts: Vec<&str> = about.facts.iter().map(|one| one.fact.as_str()).collect();
                assert_eq!(facts, ["customer.created"], "an order acts before its customer");
                assert!(acted.insert(task.run), "an order acts twice");
            }
            hand.succeed(&tasks).await;
        }
        (found, acted.len())
    };
    let mut customers = shuffled(CUSTOMERS, &mut chance).into_iter();
    let (mut done, mut quiet) = (0, 0);
    while done < 1_000 {
        let more: Vec<u64> = customers.by_ref().take(25).collect();
        for customer in &more {
            let server = servers[usize::from(chance.percent(50))];
            customer_comes(server, *customer, &mut chance).await;
        }
        let (found, so_far) = work(Span::millis(if more.is_empty() { 500 } else { 20 })).await;
        done = so_far;
        quiet = if found || !more.is_empty() { 0 } else { quiet + 1 };
        assert!(quiet < 20, "{done} of 1,000 orders were done, and nothing comes");
    }
    for run in orders.keys() {
        let view = view(&here, *run).await;
        let StepView { attempts, deliveries, .. } = &view.steps[0];
        assert_eq!((view.outcome.unwrap().as_str(), *attempts, *deliveries), ("succeeded", 1, 1));
    }
    assert_eq!(here.engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    here.stopped().await;
    there.stopped().await;
}

#[tokio::test]
async fn who_waits_for_too_long_becomes_an_incident_that_a_person_resolves() {
    let server = Server::start(Access::Open).await;
    assert_eq!(register(&server, &one_step("order", &json!({}))).await.status, 201);
    let requires = json!([{"fact": "paid", "on": "invoice:7"}]);
    let ask =
        json!({"workflow": "order", "sequence": {"requires": requires, "requires_within": "1ms"}});
    let run = id(&server.post("/v1/runs", ask).await.json());
    until("it is an incident", async || {
        server.engine.run_once(BackgroundTask::Sequence).await.unwrap();
        view(&server, run).await.conditions.iter().any(|one| one.kind == "IncidentOpen")
    })
    .await;
    let told = view(&server, run).await;
    let incident = told.conditions.iter().find(|one| one.kind == "IncidentOpen").unwrap();
    assert!(incident.message.starts_with("dependency_unmet: paid was not"), "{incident:?}");
    let skip = format!("/v1/runs/{run}/skip-requirements");
    assert_eq!(server.post(&skip, json!({"reason": " "})).await.problem(422), "reason_missing");
    let skipped = server.post(&skip, json!({"reason": "paid by hand"})).await;
    assert_eq!((skipped.status, &skipped.json()["conditions"]), (200, &json!([])), "{skipped:?}");
    assert_eq!(
        server.post(&skip, json!({"reason": "again"})).await.problem(409),
        "nothing_required"
    );
    let hand = Hand::new(&server.engine);
    let task = hand.one().await;
    assert_eq!((task.run, task.attempt), (run, 1));
    hand.succeed(&[task]).await;

    // What stands is not waited for; what was withdrawn is.
    let (establish, withdraw) =
        ("/v1/facts/invoice:7/paid/establish", "/v1/facts/invoice:7/paid/withdraw");
    for path in [establish, withdraw] {
        assert_eq!(server.post(path, json!({"reason": " "})).await.problem(422), "reason_missing");
    }
    for reason in ["by transfer", "told twice"] {
        assert_eq!(server.post(establish, json!({"reason": reason})).await.status, 200);
    }
    let ask = json!({"workflow": "order", "sequence": {"requires": requires}});
    let run = id(&server.post("/v1/runs", &ask).await.json());
    assert_eq!(hand.one().await.run, run);
    let bounced = json!({"reason": "it bounced"});
    let withdrawn = server.post(withdraw, &bounced).await;
    assert_eq!(
        (withdrawn.status, withdrawn.json()["facts"][0]["withdrawn_by"].is_string()),
        (200, true)
    );
    assert_eq!(server.post(withdraw, &bounced).await.problem(404), "unknown_fact");
    // Each is an act; what changed nothing is none.
    let acts = server.get("/v1/acts?subject=invoice:7").await.json();
    let told = acts["items"].as_array().unwrap().iter();
    let told: Vec<_> = told.map(|act| json!([act["verb"], act["reason"], act["detail"]])).collect();
    let paid = json!({"fact": "paid"});
    let of = |verb: &str, reason: &str| json!([verb, reason, paid]);
    assert_eq!(told, [of("withdraw", "it bounced"), of("establish", "by transfer")]);
    let run = id(&server.post("/v1/runs", &ask).await.json());
    assert_eq!(view(&server, run).await.state, State::Waiting);
    server.stopped().await;
}

#[tokio::test]
async fn circles_and_nonsense_are_refused_when_registered() {
    let server = Server::start(Access::Open).await;
    let fact = |fact: &str| json!([{"fact": fact, "on": {"path": "/input"}}]);
    let first = one_step("first", &json!({"requires": fact("b"), "produces": fact("a")}));
    assert_eq!(register(&server, &first).await.status, 201);
    let second = one_step("second", &json!({"requires": fact("a"), "produces": fact("b")}));
    let refused = register(&server, &second).await;
    assert_eq!(refused.problem(422), "invalid_definition");
    let told = refused.json()["errors"][0].clone();
    assert_eq!(
        (&told["code"], &told["pointer"]),
        (&json!("requirement_cycle"), &json!("/sequence/requires"))
    );
    let odd = json!({"serial_key": {"path": "/steps/do"}, "requires": fact("Not A Fact")});
    let refused = register(&server, &one_step("odd", &odd)).await;
    assert_eq!(refused.json()["errors"].as_array().unwrap().len(), 2, "{refused:?}");
    server.stopped().await;
}
