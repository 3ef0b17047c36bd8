//! A server that takes in documents is killed over and over: every document that was answered is in the log once, and
//! every other one at most once.
//!
//! `BACKSTITCH_CHAOS_KILLS` says how often it is killed, 4 times without it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backstitch_tests::chance::Chance;
use backstitch_tests::postgres;
use backstitch_tests::processes::{Program, Server};
use reqwest::{Client, Method};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PROGRAM: &str = env!("CARGO_BIN_EXE_backstitch-under-test");
const TOKEN: &str = "a-token-of-the-crm";
/// Number of senders of single documents, and of batches.
const SENDERS: (u64, u64) = (4, 2);
/// Rows of a file.
const ROWS: usize = 300;
/// Time that anything may take.
const WITHIN: Duration = Duration::from_secs(60);
/// Time that the rows of a file may take: a node that dies leaves them to others a minute later.
const IMPORTED_WITHIN: Duration = Duration::from_secs(240);

fn kills() -> usize {
    let count = std::env::var("BACKSTITCH_CHAOS_KILLS").ok();
    count.map_or(4, |count| count.parse().expect("BACKSTITCH_CHAOS_KILLS must be a number"))
}

/// A client of a server that is away now and then.
#[derive(Clone)]
struct Sender {
    http: Client,
    url: String,
    /// Number of responses of the server.
    answers: Arc<AtomicU64>,
}

impl Sender {
    /// Asks once; `None` when it is not known what came of it.
    async fn once(
        &self,
        method: Method,
        path: &str,
        kind: &str,
        body: String,
    ) -> Option<(u16, Value)> {
        let request = self.http.request(method, format!("{}{path}", self.url)).bearer_auth(TOKEN);
        let answer = request.header("content-type", kind).body(body).send().await.ok()?;
        let status = answer.status().as_u16();
        let body = answer.text().await.ok()?;
        self.answers.fetch_add(1, Ordering::Relaxed);
        (status != 503).then(|| (status, serde_json::from_str(&body).unwrap_or_default()))
    }

    /// Asks until it is known.
    async fn ask(&self, method: Method, path: &str, kind: &str, body: &str) -> (u16, Value) {
        let until = Instant::now() + WITHIN;
        loop {
            if let Some(told) = self.once(method.clone(), path, kind, body.to_owned()).await {
                return told;
            }
            assert!(Instant::now() < until, "{method} {path} is not answered");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    async fn json(&self, method: Method, path: &str, body: Value) -> Value {
        let (status, told) = self.ask(method, path, "application/json", &body.to_string()).await;
        assert!(status < 300, "{path}: {status} {told}");
        told
    }
}

async fn set_up(sender: &Sender) {
    let text = json!({"type": "string"});
    let schema = json!({"type": "object", "properties": {"id": text, "name": text}, "required": ["id", "name"]});
    for subject in ["crm.contact", "customer"] {
        let path = format!("/v1/contracts/{subject}/versions");
        sender.json(Method::POST, &path, json!({"schema": schema})).await;
    }
    let rules = json!([{"to": "/id", "copy": "/id"}, {"to": "/name", "copy": "/name"}]);
    let transform =
        json!({"transform": {"stream": "customer:{/name}", "rules": rules}, "reason": "r"});
    sender.json(Method::PUT, "/v1/transforms/crm.contact/1/customer/1", transform).await;
    let spec = json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact", "to": "customer@1"}],
        "version_from": {"fixed": 1}, "dedupe": [{"pointer": "/id"}],
    });
    let source = json!({"spec": spec, "secret": TOKEN});
    sender.json(Method::PUT, "/v1/sources/crm", source).await;
}

/// The customers are few, so that senders meet at their streams.
fn contact(id: &str, chance: &mut Chance) -> Value {
    json!({"id": id, "name": format!("c-{}", chance.below(12))})
}

/// The acknowledged event of each document.
type Answered = BTreeMap<String, String>;

fn note(answered: &mut Answered, id: &str, told: &Value) {
    let event = told["event_id"].as_str().unwrap_or_else(|| panic!("{id}: {told}")).to_owned();
    let before = answered.insert(id.to_owned(), event.clone());
    assert!(before.is_none_or(|before| before == event), "{id} has two events");
}

/// Sends documents one by one. Of some it is not asked again what became of them.
async fn one_by_one(sender: Sender, number: u64, stop: Arc<AtomicBool>) -> Answered {
    let (mut chance, mut answered) = (Chance::new(number), Answered::new());
    for at in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let id = format!("one-{number}-{at}");
        let body = contact(&id, &mut chance).to_string();
        let path = "/v1/in/default/crm";
        let gives_up = chance.below(4) == 0;
        let told = if gives_up {
            sender.once(Method::POST, path, "application/json", body).await
        } else {
            Some(sender.ask(Method::POST, path, "application/json", &body).await)
        };
        let Some((status, told)) = told else { continue };
        assert!([200, 202].contains(&status), "{id}: {status} {told}");
        note(&mut answered, &id, &told);
    }
    answered
}

async fn in_batches(sender: Sender, number: u64, stop: Arc<AtomicBool>) -> Answered {
    let (mut chance, mut answered) = (Chance::new(100 + number), Answered::new());
    for at in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let ids: Vec<String> =
            (0..20).map(|record| format!("batch-{number}-{at}-{record}")).collect();
        let batch: Vec<Value> = ids.iter().map(|id| contact(id, &mut chance)).collect();
        let (path, body) = ("/v1/in/default/crm/batch", json!(batch).to_string());
        let (_, told) = sender.ask(Method::POST, path, "application/json", &body).await;
        let records = told["records"].as_array().unwrap_or_else(|| panic!("{told}"));
        for (id, record) in ids.iter().zip(records) {
            // A record whose fate is not known is sent again by who has to know.
            if [200, 202].contains(&record["status"].as_u64().unwrap_or_default()) {
                note(&mut answered, id, record);
            }
        }
    }
    answered
}

/// Sends files, each until it is there, and answers how many.
async fn files(sender: Sender, stop: Arc<AtomicBool>) -> Vec<String> {
    let (mut chance, mut imports) = (Chance::new(7), Vec::new());
    for at in 0.. {
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let rows =
            (0..ROWS).map(|row| contact(&format!("file-{at}-{row}"), &mut chance).to_string());
        let file = rows.collect::<Vec<_>>().join("\n");
        let path = "/v1/in/default/crm/files";
        let (status, told) = sender.ask(Method::POST, path, "application/x-ndjson", &file).await;
        assert!([200, 202].contains(&status), "{status} {told}");
        imports.push(told["import_id"].as_str().unwrap().to_owned());
        let view = format!("/v1/imports/{}", imports[at]);
        let until = Instant::now() + IMPORTED_WITHIN;
        while !stop.load(Ordering::Relaxed) {
            let (_, told) = sender.ask(Method::GET, &view, "application/json", "").await;
            if told["state"] == "done" {
                break;
            }
            assert!(Instant::now() < until, "{told}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    imports
}

/// Waits until all rows of files are taken in, each once.
async fn imported(sender: &Sender, imports: &[String]) {
    let until = Instant::now() + IMPORTED_WITHIN;
    for import in imports {
        loop {
            let view = format!("/v1/imports/{import}");
            let (_, told) = sender.ask(Method::GET, &view, "application/json", "").await;
            if told["state"] == "done" {
                assert_eq!(
                    (&told["rows"], &told["accepted"]),
                    (&json!(ROWS), &json!(ROWS)),
                    "{told}"
                );
                break;
            }
            assert!(Instant::now() < until, "{told}");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
}

/// Returns all events up to the head, once nothing comes any more.
async fn log(sender: &Sender) -> Vec<Value> {
    let (mut events, mut after) = (Vec::new(), 0);
    loop {
        let path = format!("/v1/events?limit=1000&after={after}&wait=2s");
        let (_, page) = sender.ask(Method::GET, &path, "application/json", "").await;
        let items = page["items"].as_array().unwrap_or_else(|| panic!("{page}")).clone();
        if items.is_empty() && page["next"] == page["head"] {
            return events;
        }
        after = page["next"].as_u64().unwrap();
        events.extend(items);
    }
}

/// Positions are dense, and streams are in their order.
fn assert_in_order(events: &[Value]) {
    let mut versions: BTreeMap<&str, u64> = BTreeMap::new();
    for (event, position) in events.iter().zip(1..) {
        assert_eq!(event["position"].as_u64(), Some(position), "{event}");
        if let Some(stream) = event["stream"].as_str() {
            let version = versions.entry(stream).or_default();
            *version += 1;
            assert_eq!(event["version"].as_u64(), Some(*version), "{event}");
        }
    }
}

/// Every document is in the log once, mapped once, and what was answered is there.
fn assert_once(events: &[Value], answered: &Answered, files: usize) {
    let mut of_documents: BTreeMap<&str, &str> = BTreeMap::new();
    let mut mapped: BTreeMap<&str, u32> = BTreeMap::new();
    for event in events {
        let (id, of) = (event["id"].as_str().unwrap(), event["data"]["id"].as_str().unwrap());
        match event["type"].as_str().unwrap() {
            "crm.contact" => assert!(of_documents.insert(of, id).is_none(), "{of} is there twice"),
            _ => *mapped.entry(of).or_default() += 1,
        }
    }
    assert!(mapped.values().all(|count| *count == 1), "a document was mapped twice");
    assert_eq!(mapped.len(), of_documents.len(), "each document was mapped");
    let lost: Vec<&String> = answered
        .iter()
        .filter(|(id, event)| of_documents.get(id.as_str()) != Some(&event.as_str()))
        .map(|(id, _)| id)
        .collect();
    assert_eq!(lost, Vec::<&String>::new(), "they were answered");
    let rows = of_documents.keys().filter(|id| id.starts_with("file-")).count();
    assert_eq!(rows, files * ROWS, "each row of a file is there");
}

#[tokio::test(flavor = "multi_thread")]
async fn every_document_that_was_answered_is_in_the_log_once_however_often_the_server_is_killed() {
    let program = Program::new(PROGRAM, "ingress-kills");
    let postgres = postgres::server().await;
    postgres.create_database("ingress_kills").await.unwrap();
    let database = postgres.url("ingress_kills");
    backstitch_engine::migrate(&database).await.unwrap();
    let mut server = Server::start(&program, &database).await;
    let http = Client::builder().timeout(Duration::from_secs(10)).build().unwrap();
    let sender = Sender { http, url: server.url(), answers: Arc::default() };
    set_up(&sender).await;
    let stop = Arc::new(AtomicBool::new(false));
    let mut senders = JoinSet::new();
    for number in 0..SENDERS.0 {
        senders.spawn(one_by_one(sender.clone(), number, Arc::clone(&stop)));
    }
    for number in 0..SENDERS.1 {
        senders.spawn(in_batches(sender.clone(), number, Arc::clone(&stop)));
    }
    let imports = tokio::spawn(files(sender.clone(), Arc::clone(&stop)));
    let mut chance = Chance::new(2026);
    for _ in 0..kills() {
        // It dies when it has answered some requests, however slow the machine is.
        let enough = sender.answers.load(Ordering::Relaxed) + 10 + chance.below(60);
        let until = Instant::now() + WITHIN;
        while sender.answers.load(Ordering::Relaxed) < enough {
            assert!(Instant::now() < until, "nothing is answered any more");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        tokio::time::sleep(Duration::from_millis(chance.below(30))).await;
        server.kill_and_start().await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    stop.store(true, Ordering::Relaxed);
    let mut answered = Answered::new();
    while let Some(done) = senders.join_next().await {
        answered.extend(done.unwrap());
    }
    let imports = imports.await.unwrap();
    imported(&sender, &imports).await;
    let events = log(&sender).await;
    assert_in_order(&events);
    assert_once(&events, &answered, imports.len());
    println!(
        "{} kills: {} answered, {} files, {} events",
        kills(),
        answered.len(),
        imports.len(),
        events.len()
    );
    assert!(answered.len() > 50 && !imports.is_empty(), "too little was sent");
}
