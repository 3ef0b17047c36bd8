//! Health on a listener of its own, answered however stuck the server is.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use backstitch_api::{Access, Limits, ServerConfig};
use backstitch_tests::server::Server;

/// Asks without any runtime. Returns the status and the whole answer.
fn ask(address: SocketAddr, method: &str, path: &str) -> (u16, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    write!(stream, "{method} {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n")
        .unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).unwrap();
    let status = text.split(' ').nth(1).unwrap_or_default().parse().unwrap();
    (status, text)
}

async fn server(stall: Duration) -> (Server, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    let limits = Limits { stall, ..Limits::default() };
    let health = Some(Arc::new(listener));
    let server = Server::with(ServerConfig {
        access: Access::Open,
        limits,
        health,
        ..ServerConfig::default()
    });
    (server.await, address)
}

/// Asks from a thread, while the runtime goes on.
async fn ask_beside(address: SocketAddr, path: &'static str) -> (u16, String) {
    tokio::task::spawn_blocking(move || ask(address, "GET", path)).await.unwrap()
}

#[tokio::test]
async fn health_is_answered_while_the_runtime_of_the_server_is_stuck() {
    let (server, address) = server(Duration::from_secs(2)).await;
    assert_eq!(ask_beside(address, "/livez").await.0, 200);
    assert_eq!(ask_beside(address, "/readyz").await.0, 200);
    assert!(
        ask_beside(address, "/metrics").await.1.contains("backstitch_runtime_stalls_total 0\n")
    );
    // This runtime has one thread, and that waits here: the server is stuck.
    let until = |path: &'static str, wanted: u16| loop {
        let (status, text) = ask(address, "GET", path);
        if status == wanted {
            return text;
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    assert!(until("/livez", 503).contains("\"stalled\""));
    assert!(until("/readyz", 503).contains("\"not_ready\""));
    assert!(until("/metrics", 200).contains("backstitch_runtime_stalls_total 1\n"));
    // And now it is not any more.
    while ask_beside(address, "/livez").await.0 != 200 {}
    while ask_beside(address, "/readyz").await.0 != 200 {}
    assert_eq!(server.get("/livez").await.status, 200);
    server.stopped().await;
}

#[tokio::test]
async fn the_listener_of_health_has_health_alone() {
    let (server, address) = server(Duration::from_secs(20)).await;
    let table = [
        ("GET", "/v1/whoami", 404),
        ("GET", "/openapi.json", 404),
        ("POST", "/livez", 405),
        ("HEAD", "/livez", 200),
        ("GET", "/livez", 200),
    ];
    for (method, path, status) in table {
        let asked = tokio::task::spawn_blocking(move || ask(address, method, path));
        let (answered, text) = asked.await.unwrap();
        assert_eq!(answered, status, "{method} {path}: {text}");
        for guard in ["cache-control: no-store", "referrer-policy: no-referrer"] {
            assert!(text.contains(guard), "{text}");
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn connections_that_say_nothing_keep_nobody_from_health() {
    let (server, address) = server(Duration::from_secs(20)).await;
    assert_eq!(ask_beside(address, "/livez").await.0, 200);
    let idle: Vec<_> = (0..300).map(|_| TcpStream::connect(address).unwrap()).collect();
    // A peer has its share at most; once its idle connections are closed, it is answered again.
    let answered = tokio::task::spawn_blocking(move || {
        loop {
            let mut stream = TcpStream::connect(address).unwrap();
            let _ = write!(stream, "GET /livez HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n");
            let mut text = String::new();
            if stream.read_to_string(&mut text).is_ok() && !text.is_empty() {
                return text;
            }
            std::thread::sleep(Duration::from_millis(100));
        }
    });
    assert!(answered.await.unwrap().starts_with("HTTP/1.1 200"));
    drop(idle);
    server.stopped().await;
}
