//! Requests byte by byte, as no client of ours would send them: bodies without end, bodies that break off, slow
//! clients. The server answers, closes, keeps its memory, and others are not affected.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use backstitch_api::{Access, Limits};
use backstitch_tests::node::NS;
use backstitch_tests::postgres;
use backstitch_tests::processes::{self, Program};
use backstitch_tests::server::{Server, operations};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::timeout;

const PROGRAM: &str = env!("CARGO_BIN_EXE_backstitch-under-test");
const MIB: usize = 1024 * 1024;
/// Time that a response may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// Returns the head of a request, ready for a body.
fn head(method: &str, path: &str, more: &str) -> String {
    format!(
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nBackstitch-Namespace: {NS}\r\n{more}\r\n"
    )
}

/// Sends `begin`, then `again` over and over as a chunked body, up to `most` bytes in all or until the server has
/// enough. Returns how much the server took, and what it said.
async fn endless(address: SocketAddr, begin: &[u8], again: &[u8], most: usize) -> (usize, String) {
    let stream = TcpStream::connect(address).await.unwrap();
    let (mut reading, mut writing) = stream.into_split();
    let sending = async {
        let mut sent = 0;
        if writing.write_all(begin).await.is_err() {
            return sent;
        }
        while sent < most && writing.write_all(again).await.is_ok() {
            sent += again.len();
        }
        sent
    };
    let hearing = async {
        let mut answer = Vec::new();
        // A connection that is cut in the middle of a body may break off the answer, too.
        let _ = timeout(PATIENCE, reading.read_to_end(&mut answer)).await;
        String::from_utf8_lossy(&answer).into_owned()
    };
    let sending = timeout(PATIENCE, sending);
    let (sent, answer) = tokio::join!(sending, hearing);
    (sent.expect("the server reads, or closes"), answer)
}

fn chunk(bytes: &[u8]) -> Vec<u8> {
    [format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()
}

/// Returns a line of what the system knows of the memory of a process, in bytes.
fn memory(pid: u32, name: &str) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
    line.trim().trim_end_matches(" kB").parse::<usize>().unwrap() * 1024
}

/// Returns the most memory that a process had in use, in bytes.
fn peak(pid: u32) -> usize {
    memory(pid, "VmHWM:")
}

/// Returns the number of files and connections that a process has open.
fn open_files(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap().count()
}

/// Waits until a process has as many files open as `enough` says.
async fn files_until(pid: u32, enough: impl Fn(usize) -> bool) {
    let began = Instant::now();
    while !enough(open_files(pid)) {
        assert!(began.elapsed() < PATIENCE, "{} files", open_files(pid));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Returns a connection on which `path` is asked for again and again, with little room for answers, of which none is
/// read.
async fn unread(address: SocketAddr, path: &str) -> TcpStream {
    let socket = TcpSocket::new_v4().unwrap();
    socket.set_recv_buffer_size(4 * 1024).unwrap();
    let mut stream = socket.connect(address).await.unwrap();
    let again = head("GET", path, "").repeat(100);
    stream.write_all(again.as_bytes()).await.unwrap();
    stream
}

#[tokio::test]
async fn answers_that_nobody_reads_are_not_kept() {
    const MANY: usize = 128;
    let program = Program::new(PROGRAM, "unread");
    let server = processes::Server::start(&program, &postgres::database().await).await;
    let definition = backstitch_tests::node::chain("one", &["a"]);
    let long = serde_json::json!({ "workflow": "one", "input": "x".repeat(200 * 1024) });
    let http = reqwest::Client::builder().pool_max_idle_per_host(0).build().unwrap();
    let ask = |method: &str, path: &str, body: String| {
        let request = http.request(method.parse().unwrap(), format!("{}{path}", server.url()));
        let request = request.header("backstitch-namespace", NS);
        request.header("content-type", "application/json").body(body).send()
    };
    ask("PUT", "/v1/workflows/one/versions/1", definition).await.unwrap();
    let started = ask("POST", "/v1/runs", long.to_string()).await.unwrap();
    let path = started.headers()["location"].to_str().unwrap().to_owned();
    // What the server needs for so many at once is not growth, nor what its allocator keeps of answers that were cut.
    let read = (0..MANY).map(|_| async { ask("GET", &path, String::new()).await?.bytes().await });
    for answer in futures::future::join_all(read).await {
        assert!(answer.unwrap().len() > 200 * 1024);
    }
    let pid = server.pid();
    files_until(pid, |files| files < MANY).await;
    let calm = open_files(pid);
    let stall = async || {
        let stalled =
            futures::future::join_all((0..MANY).map(|_| unread(server.address(), &path))).await;
        files_until(pid, |files| files >= calm + MANY / 2).await;
        stalled
    };
    drop(stall().await);
    files_until(pid, |files| files <= calm).await;
    let before = (calm, memory(pid, "VmRSS:"));
    let stalled = stall().await;
    let began = Instant::now();
    let most = Limits::default().answer_timeout + PATIENCE;
    let (mut files, mut kept) = (0, 0);
    while open_files(pid) > before.0 {
        (files, kept) = (files.max(open_files(pid)), kept.max(memory(pid, "VmRSS:")));
        assert!(began.elapsed() < most, "{} files, {} before", open_files(pid), before.0);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    // Memory is given back a little later.
    let mut after = memory(pid, "VmRSS:");
    while after >= before.1 + 16 * MIB && began.elapsed() < most + PATIENCE {
        tokio::time::sleep(Duration::from_millis(100)).await;
        after = memory(pid, "VmRSS:");
    }
    println!("before {before:?}, then {files} files and {kept}, after {after}");
    drop(stalled);
    assert!(began.elapsed() >= Limits::default().answer_timeout, "nobody was cut off too early");
    assert!(after < before.1 + 16 * MIB, "{after} bytes, {} before", before.1);
}

#[tokio::test]
async fn bodies_without_end_and_without_bottom_cost_no_memory() {
    let program = Program::new(PROGRAM, "wire");
    let server = processes::Server::start(&program, &postgres::database().await).await;
    let address = server.address();
    let chunked = "Transfer-Encoding: chunked\r\n";
    let keyed = format!("{chunked}Idempotency-Key: endless\r\n");
    let text = chunk(&b"x".repeat(64 * 1024));
    let nested = chunk(&b"[".repeat(64 * 1024));
    let members = chunk(&br#""a":{"a":["#.repeat(8 * 1024));
    let id = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";
    // What the server needs for a body of the largest kind is not growth.
    let warm = head("POST", "/v1/tasks/complete", chunked);
    let _ = endless(address, warm.as_bytes(), &text, 64 * MIB).await;
    let before = peak(server.pid());
    let mut asked = 0;
    for operation in
        operations().iter().filter(|operation| operation.body.is_some() && !operation.is_door())
    {
        for (more, piece) in [(chunked, &text), (&keyed, &nested), (chunked, &members)] {
            let head = head(&operation.method, &operation.path(id), more);
            let (sent, answer) = endless(address, head.as_bytes(), piece, 64 * MIB).await;
            assert!(sent < 64 * MIB, "{operation:?} took {sent} bytes");
            // The answer may be lost with the connection, but it is never another.
            let refused = answer.starts_with("HTTP/1.1 413 ") && answer.contains("body_too_large");
            assert!(refused || answer.is_empty(), "{operation:?} {answer}");
            asked += 1;
        }
    }
    let one_by_one = peak(server.pid()).saturating_sub(before);
    let head = head("POST", "/v1/runs", chunked);
    let many = (0..64).map(|_| endless(address, head.as_bytes(), &nested, 16 * MIB));
    let taken: usize = futures::future::join_all(many).await.iter().map(|(sent, _)| *sent).sum();
    let all = peak(server.pid()).saturating_sub(before);
    println!(
        "{asked} endless bodies one by one: {} KiB more memory; 64 at once, {} MiB taken: {} KiB more",
        one_by_one / 1024,
        taken / MIB,
        all / 1024
    );
    assert!(asked > 60, "{asked}");
    assert!(one_by_one < 48 * MIB, "{} MiB", one_by_one / MIB);
    assert!(all < 192 * MIB, "{} MiB", all / MIB);
    for (begin, again) in [
        ("GET /v1/runs HTTP/1.1\r\nHost: localhost\r\nX-Long: ", &b"x".repeat(64 * 1024)[..]),
        ("GET /v1/runs HTTP/1.1\r\nHost: localhost\r\n", &b"X-Many: 1\r\n".repeat(1_000)),
        ("GET /v1/runs?after=", &b"x".repeat(64 * 1024)),
        ("", b"\x16\x03\x01\x00\xff\x00\x00"),
    ] {
        let (sent, answer) = endless(address, begin.as_bytes(), again, 64 * MIB).await;
        assert!(sent < 64 * MIB, "{begin} took {sent} bytes");
        let refused = ["HTTP/1.1 431", "HTTP/1.1 414", "HTTP/1.1 400"];
        let fits = answer.is_empty() || refused.iter().any(|status| answer.starts_with(status));
        assert!(fits, "{begin} {answer}");
    }
    assert!(peak(server.pid()).saturating_sub(before) < 192 * MIB);
    let ready = format!("{}/readyz", server.url());
    assert_eq!(reqwest::get(ready).await.unwrap().status(), 200, "it goes on");
}

/// Returns a server whose clients must hurry.
async fn in_a_hurry() -> (Server, SocketAddr) {
    let limits = Limits {
        body_timeout: Duration::from_millis(300),
        idle_timeout: Duration::from_millis(600),
        ..Limits::default()
    };
    let server = Server::start_within(Access::Open, limits).await;
    let address = server.url().trim_start_matches("http://").parse().unwrap();
    (server, address)
}

/// Sends `text`, keeps the connection open, and answers all that comes until the server closes it.
async fn dawdle(address: SocketAddr, text: &str) -> String {
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(text.as_bytes()).await.unwrap();
    let mut answer = String::new();
    timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it is closed").unwrap();
    answer
}

#[tokio::test]
async fn who_takes_too_long_is_told_so_and_holds_up_nobody() {
    let (server, address) = in_a_hurry().await;
    let id = "019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11";
    let mut slow = Vec::new();
    for operation in operations()
        .into_iter()
        .filter(|operation| operation.body.is_some() && !operation.is_door())
    {
        let head = head(&operation.method, &operation.path(id), "Content-Length: 100\r\n");
        slow.push(async move {
            let answer = dawdle(address, &format!("{head}{{\"workflow\":")).await;
            assert!(answer.starts_with("HTTP/1.1 408 "), "{operation:?} {answer}");
            assert!(answer.contains("body_too_slow") && answer.contains("connection: close"));
        });
    }
    assert!(slow.len() > 20, "{}", slow.len());
    // Who never comes to the end of the headers hears nothing, and is not waited for.
    let mute = async {
        let answer = dawdle(address, "GET /v1/runs HTTP/1.1\r\nHost: localhost\r\nX-Slow: ").await;
        assert!(!answer.contains(" 200 "), "{answer}");
        assert_eq!(dawdle(address, "").await, "");
    };
    let others = async {
        let began = Instant::now();
        for _ in 0..20 {
            assert_eq!(server.get("/v1/runs").await.status, 200);
        }
        began.elapsed()
    };
    let ((), _, took) = tokio::join!(mute, futures::future::join_all(slow), others);
    assert!(took < Duration::from_secs(10), "{took:?}");
    server.stopped().await;
}

#[tokio::test]
async fn who_takes_an_answer_slowly_gets_it_and_who_takes_nothing_gives_way() {
    let limits =
        Limits { answer_timeout: Duration::from_millis(400), connections: 8, ..Limits::default() };
    let server = Server::start_within(Access::Open, limits).await;
    let address: SocketAddr = server.url().trim_start_matches("http://").parse().unwrap();
    let mut slow = TcpStream::connect(address).await.unwrap();
    slow.write_all(head("GET", "/openapi.json", "").repeat(100).as_bytes()).await.unwrap();
    let (mut taken, mut piece) = (0, vec![0; 128 * 1024]);
    let began = Instant::now();
    while began.elapsed() < Duration::from_millis(1_600) {
        taken += timeout(PATIENCE, slow.read(&mut piece)).await.unwrap().unwrap();
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert!(taken > 100 * 1024, "{taken}");
    // From now on it reads nothing, like those that take all places that are left.
    let mut others = Vec::new();
    for _ in 0..3 {
        others.push(unread(address, "/openapi.json").await);
    }
    let begun = Instant::now();
    while !answers(address).await {
        assert!(begun.elapsed() < PATIENCE, "there is no place again");
    }
    drop((slow, others));
    server.stopped().await;
}

/// Returns whether a new connection is served; one too many is closed.
async fn answers(address: SocketAddr) -> bool {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let mut answer = Vec::new();
    let asked = head("GET", "/livez", "Connection: close\r\n");
    // One that is closed may say so at any of these.
    stream.write_all(asked.as_bytes()).await.is_ok()
        && timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("an end").is_ok()
        && answer.starts_with(b"HTTP/1.1 200 ")
}

#[tokio::test]
async fn a_peer_has_at_most_as_many_connections_as_stay_free() {
    let limits = Limits {
        connections: 8,
        first_request_timeout: Duration::from_millis(500),
        ..Limits::default()
    };
    let server = Server::start_within(Access::Open, limits).await;
    let address: SocketAddr = server.url().trim_start_matches("http://").parse().unwrap();
    let mut idle = Vec::new();
    for _ in 0..4 {
        idle.push(TcpStream::connect(address).await.unwrap());
    }
    // Accepted in order: the fifth of this peer is one too many.
    assert!(!answers(address).await, "half of the connections are kept for others");
    // Those that ask for nothing are closed, long before connections that once asked for something.
    for stream in &mut idle {
        let mut answer = String::new();
        timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("it is closed").unwrap();
        assert_eq!(answer, "");
    }
    assert!(answers(address).await);
    server.stopped().await;
}

#[tokio::test]
async fn large_bodies_on_their_way_leave_room_for_other_namespaces() {
    let limits = Limits { bodies: 2_000_000, ..Limits::default() };
    let server = Server::start_within(Access::Open, limits).await;
    let address: SocketAddr = server.url().trim_start_matches("http://").parse().unwrap();
    let begin = |namespace: &str| {
        let whole = head("POST", "/v1/runs", "Content-Length: 900000\r\n");
        format!("{}{{", whole.replace(NS, namespace))
    };
    let mut first = TcpStream::connect(address).await.unwrap();
    first.write_all(begin("a").as_bytes()).await.unwrap();
    let refused = async |namespace: &str| {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(begin(namespace).as_bytes()).await.unwrap();
        let mut start = [0; 12];
        // What is taken waits for the rest of the body.
        let heard = timeout(Duration::from_millis(500), stream.read_exact(&mut start)).await;
        (heard.is_ok().then(|| String::from_utf8_lossy(&start).into_owned()), stream)
    };
    let begun = Instant::now();
    while refused("a").await.0.is_none() {
        assert!(begun.elapsed() < PATIENCE, "a second large body of one namespace is taken");
    }
    let (heard, _other) = refused("b").await;
    assert_eq!(heard, None, "that of another namespace is taken");
    let small = server.post("/v1/runs", r#"{"workflow":"none"}"#).await;
    assert_eq!(small.problem(404), "unknown_workflow", "small ones need no room");
    server.stopped().await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_told_so_and_nothing_is_done() {
    let server = Server::start(Access::Open).await;
    let address: SocketAddr = server.url().trim_start_matches("http://").parse().unwrap();
    let definition = backstitch_tests::node::chain("one", &["a"]);
    server.engine.register(NS, &definition).await.unwrap();
    let body = r#"{"workflow":"one","key":"k"}"#;
    for more in ["", "Idempotency-Key: broken-off\r\n"] {
        let length = format!("Content-Length: {}\r\n{more}", body.len() + 1);
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(head("POST", "/v1/runs", &length).as_bytes()).await.unwrap();
        stream.write_all(body.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        let heard = timeout(PATIENCE, stream.read_to_string(&mut answer)).await.expect("an end");
        let told = answer.starts_with("HTTP/1.1 400 ") && answer.contains("body_incomplete");
        assert!(heard.is_ok() && (told || answer.is_empty()), "{answer}");
    }
    assert_eq!(server.get("/v1/runs").await.json()["items"], serde_json::json!([]));
    let whole = server.post("/v1/runs", body).await;
    assert_eq!(whole.status, 201, "the key is free: {whole:?}");
    server.stopped().await;
}
