//! Much of everything that sources send: memory does not grow with the size of a file, nor with the number of sources.
//!
//! `BACKSTITCH_SCALE=full` makes a file of a gigabyte and a hundred thousand sources; without it they are small.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use backstitch_tests::postgres;
use backstitch_tests::processes::{Program, Server};
use futures::{StreamExt, stream};
use reqwest::Client;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const PROGRAM: &str = env!("CARGO_BIN_EXE_backstitch-under-test");
const TOKEN: &str = "a-token-of-the-crm";
const MIB: u64 = 1024 * 1024;
/// Time that anything may take.
const WITHIN: Duration = Duration::from_secs(3_600);

/// Returns whether sizes are those of a large installation.
fn is_full() -> bool {
    std::env::var("BACKSTITCH_SCALE").is_ok_and(|scale| scale == "full")
}

/// Returns the memory that a process has now, in bytes.
fn resident(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.unwrap_or_default() * 1024
}

/// Watches the memory of a process until it is told to stop, and answers the most that it had.
async fn most(pid: u32, stop: Arc<AtomicBool>) -> u64 {
    let mut most = 0;
    while !stop.load(Ordering::Relaxed) {
        most = most.max(resident(pid));
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    most
}

async fn database(name: &str) -> String {
    let server = postgres::server().await;
    server.create_database(name).await.unwrap();
    let url = server.url(name);
    backstitch_engine::migrate(&url).await.unwrap();
    url
}

async fn ask(http: &Client, server: &Server<'_>, namespace: &str, request: (&str, &str, Value)) {
    let (method, path, body) = request;
    let url = format!("{}{path}", server.url());
    let request = http.request(method.parse().unwrap(), url).json(&body);
    let answer = request.header("backstitch-namespace", namespace).send().await.unwrap();
    assert!(answer.status().is_success(), "{path}: {}", answer.text().await.unwrap());
}

async fn set_up(http: &Client, server: &Server<'_>, namespace: &str) {
    let text = json!({"type": "string"});
    let schema =
        json!({"type": "object", "properties": {"id": text, "note": text}, "required": ["id"]});
    let contract = ("POST", "/v1/contracts/crm.contact/versions", json!({"schema": schema}));
    ask(http, server, namespace, contract).await;
    let spec = json!({
        "verify": {"scheme": "bearer"}, "accepts": [{"contract": "crm.contact"}], "version_from": {"fixed": 1},
        "dedupe": [{"pointer": "/id"}],
    });
    let source = ("PUT", "/v1/sources/crm", json!({"spec": spec, "secret": TOKEN}));
    ask(http, server, namespace, source).await;
}

/// Sends a file of so many rows of about 2 kB while it is made. Returns its bytes and what the server answered.
async fn send_file(address: SocketAddr, rows: u64) -> (u64, Value) {
    let row = |at: u64| format!("{{\"id\":\"r-{at:09}\",\"note\":\"{}\"}}\n", "x".repeat(2_000));
    let length = row(0).len() as u64 * rows;
    let mut connection = TcpStream::connect(address).await.unwrap();
    let head = format!(
        "POST /v1/in/default/crm/files HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer {TOKEN}\r\n\
         Content-Type: application/x-ndjson\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n"
    );
    connection.write_all(head.as_bytes()).await.unwrap();
    let mut buffer = String::new();
    for at in 0..rows {
        buffer += &row(at);
        if buffer.len() > 1_000_000 || at + 1 == rows {
            connection.write_all(buffer.as_bytes()).await.unwrap();
            buffer.clear();
        }
    }
    let mut answer = String::new();
    connection.read_to_string(&mut answer).await.unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(head.starts_with("HTTP/1.1 202"), "{answer}");
    let from = body.find('{').unwrap();
    let to = body.rfind('}').unwrap();
    (length, serde_json::from_str(&body[from..=to]).unwrap())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_file_is_imported_within_a_hundred_megabytes_above_idle() {
    let rows = if is_full() { 530_000 } else { 8_000 };
    let program = Program::new(PROGRAM, "ingress-scale-file");
    let server = Server::start(&program, &database("ingress_scale_file").await).await;
    let http = Client::new();
    set_up(&http, &server, "default").await;
    tokio::time::sleep(Duration::from_secs(1)).await;
    let idle = resident(server.pid());
    let stop = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(most(server.pid(), Arc::clone(&stop)));
    let began = Instant::now();
    let (bytes, receipt) = send_file(server.address(), rows).await;
    let received = began.elapsed();
    let url = format!("{}/v1/imports/{}", server.url(), receipt["import_id"].as_str().unwrap());
    loop {
        let view: Value = http.get(&url).send().await.unwrap().json().await.unwrap();
        if view["state"] == "done" {
            assert_eq!((&view["rows"], &view["accepted"]), (&json!(rows), &json!(rows)), "{view}");
            break;
        }
        assert!(began.elapsed() < WITHIN, "{view}");
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    stop.store(true, Ordering::Relaxed);
    let above = watch.await.unwrap().saturating_sub(idle);
    println!(
        "{bytes} bytes, {rows} rows: received in {received:?}, taken in after {:?}, {} MiB idle, {} MiB above it",
        began.elapsed(),
        idle / MIB,
        above / MIB
    );
    assert!(above <= 100_000_000, "{above} bytes above idle");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_with_many_sources_and_keys_keeps_its_memory() {
    let (spaces, of_each) = if is_full() { (100_u64, 1_000_u64) } else { (10, 60) };
    let program = Program::new(PROGRAM, "ingress-scale-sources");
    let database = database("ingress_scale_sources").await;
    let server = Server::start(&program, &database).await;
    let http = Client::new();
    for space in 0..spaces {
        set_up(&http, &server, &format!("s-{space}")).await;
    }
    let mut owner = PgConnection::connect(&database).await.unwrap();
    for (table, columns) in [
        ("source", "revision, version, spec, changed_at, changed_by"),
        ("source_secret", "slot, secret, added_at, added_by, until"),
    ] {
        let copies = format!(
            "insert into {table} (namespace, name, {columns}) select namespace, 'crm-' || g, {columns} from {table}, generate_series(1, {of_each}) g"
        );
        sqlx::query(sqlx::AssertSqlSafe(copies)).execute(&mut owner).await.unwrap();
    }
    let idle = resident(server.pid());
    let stop = Arc::new(AtomicBool::new(false));
    let watch = tokio::spawn(most(server.pid(), Arc::clone(&stop)));
    let (began, accepted) = (Instant::now(), AtomicU64::new(0));
    let all = (0..spaces).flat_map(|space| (1..=of_each).map(move |source| (space, source)));
    stream::iter(all)
        .for_each_concurrent(32, |(space, source)| {
            let (http, accepted) = (&http, &accepted);
            let url = format!("{}/v1/in/s-{space}/crm-{source}", server.url());
            async move {
                let document =
                    json!({"id": format!("d-{space}-{source}"), "note": "x".repeat(200)});
                loop {
                    let request = http.post(&url).bearer_auth(TOKEN).json(&document);
                    let status = request.send().await.unwrap().status().as_u16();
                    if status == 202 {
                        accepted.fetch_add(1, Ordering::Relaxed);
                        return;
                    }
                    // It has a connection for each namespace only; who asks again is taken in.
                    assert!([429, 503].contains(&status), "{url}: {status}");
                    assert!(began.elapsed() < WITHIN);
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            }
        })
        .await;
    stop.store(true, Ordering::Relaxed);
    let above = watch.await.unwrap().saturating_sub(idle);
    assert_eq!(accepted.load(Ordering::Relaxed), spaces * of_each);
    println!(
        "{} sources and keys in {:?}: {} MiB idle, {} MiB above it",
        spaces * of_each,
        began.elapsed(),
        idle / MIB,
        above / MIB
    );
    // What it knows of sources and of schemas has 64 MiB each.
    assert!(above <= 160 * MIB, "{above} bytes above idle");
}
