//! Rights: every role on every route, and callers without a credential.

use std::time::{Duration, Instant};

use backstitch_api::{Access, Limits};
use backstitch_engine::Role;
use backstitch_tests::node::{NS, chain};
use backstitch_tests::server::{Answer, Operation, Server, operations, send, with_json};
use uuid::Uuid;

/// Longest wait for anything.
const PATIENCE: Duration = Duration::from_secs(60);

async fn ask(server: &Server, operation: &Operation, id: &str, secret: Option<&str>) -> Answer {
    let mut request = server.request(&operation.method, &operation.path(id));
    if let Some(secret) = secret {
        request = request.bearer_auth(secret);
    }
    send(match &operation.body {
        // The example of a claim waits; nothing will come.
        Some(body) => with_json(request, body.to_string().replace("\"20s\"", "\"0s\"")),
        None => request,
    })
    .await
}

#[tokio::test]
async fn every_role_on_every_route() {
    let server = Server::start(Access::Keys).await;
    let roles = [
        (Role::Operator, &["read", "start", "act"][..]),
        (Role::Starter, &["read", "start"]),
        (Role::Worker, &["read", "work", "register"]),
        (Role::Viewer, &["read"]),
        // Last, because it may revoke and make what the others ask for.
        (Role::Admin, &["read", "start", "act", "work", "register", "admin"]),
    ];
    let id = Uuid::new_v4().to_string();
    let (mut allowed, mut refused) = (0, 0);
    for (role, rights) in roles {
        let name = format!("{role:?}").to_lowercase();
        let secret = server.engine.create_credential(NS, &name, role).await.unwrap();
        for operation in operations() {
            let Some(right) = &operation.right else { continue };
            let answer = ask(&server, &operation, &id, Some(&secret)).await;
            if rights.contains(&right.as_str()) {
                assert!(
                    answer.was_let_in() && ![500, 503].contains(&answer.status),
                    "{role:?} {operation:?} {answer:?}"
                );
                allowed += 1;
            } else {
                assert_eq!(answer.problem(403), "forbidden", "{role:?} {operation:?}");
                refused += 1;
            }
        }
    }
    assert!(allowed > 50 && refused > 30, "{allowed} allowed, {refused} refused");
    server.stopped().await;
}

#[tokio::test]
async fn nobody_gets_in_without_a_known_credential() {
    let server = Server::start(Access::Keys).await;
    let revoked = server.engine.create_credential(NS, "gone", Role::Admin).await.unwrap();
    server.engine.revoke_credential(NS, "gone").await.unwrap();
    for operation in operations() {
        let id = Uuid::new_v4().to_string();
        let nobody = ask(&server, &operation, &id, None).await;
        if operation.is_door() {
            assert_eq!(nobody.problem(404), "unknown_source", "{operation:?}");
            continue;
        }
        if operation.right.is_none() {
            assert_eq!(nobody.status, 200, "{operation:?}");
            continue;
        }
        assert_eq!(nobody.problem(401), "credential_missing", "{operation:?}");
        assert!(nobody.headers["www-authenticate"].to_str().unwrap().starts_with("Bearer "));
        for secret in ["bsk_0000", "' or 1=1 --", revoked.as_str()] {
            let mut answer = ask(&server, &operation, &id, Some(secret)).await;
            // There are more operations than one address may try with secrets that nobody knows.
            while answer.status == 429 {
                assert_eq!(answer.problem(429), "too_many_failed_logins");
                tokio::time::sleep(Duration::from_secs(1)).await;
                answer = ask(&server, &operation, &id, Some(secret)).await;
            }
            assert_eq!(answer.problem(401), "credential_unknown", "{operation:?} {secret}");
        }
    }
    server.stopped().await;
}

#[tokio::test]
async fn an_admin_makes_and_revokes_credentials() {
    let server = Server::start(Access::Keys).await;
    let admin = server.engine.create_credential(NS, "root", Role::Admin).await.unwrap();
    let put = || with_json(server.request("PUT", "/v1/credentials/w-1"), r#"{"role":"worker"}"#);
    let made = send(put().bearer_auth(&admin)).await;
    assert_eq!(made.status, 201, "{made:?}");
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    assert!(secret.starts_with("bsk_"));
    assert_eq!(send(put().bearer_auth(&admin)).await.problem(409), "credential_conflict");
    let who = || server.request("GET", "/v1/whoami").bearer_auth(&secret);
    let expected =
        serde_json::json!({ "name": "w-1", "namespace": NS, "role": "worker", "open": false });
    assert_eq!(send(who()).await.json(), expected);
    let foreign = who().header("backstitch-namespace", "other");
    assert_eq!(send(foreign).await.problem(403), "forbidden");
    let delete = || server.request("DELETE", "/v1/credentials/w-1").bearer_auth(&admin);
    assert_eq!(send(delete()).await.status, 204);
    assert_eq!(send(delete()).await.problem(404), "unknown_credential");
    assert_eq!(send(who()).await.problem(401), "credential_unknown");
    server.stopped().await;
}

/// Waits until so many requests of `server` wait for something.
pub(super) async fn until_waiting(server: &Server, count: usize) {
    let wanted = format!("backstitch_http_waiting {count}\n");
    let until = Instant::now() + PATIENCE;
    while !server.get("/metrics").await.text.contains(&wanted) {
        assert!(Instant::now() < until, "{count} requests do not wait");
    }
}

pub(super) fn claim() -> serde_json::Value {
    serde_json::json!({
        "worker": "w", "session": Uuid::new_v4(), "max": 1, "wait": "30s",
        "queues": { "default": ["x"] },
    })
}

#[tokio::test]
async fn a_revoked_credential_is_refused_at_once_on_every_node_and_waits_for_nothing() {
    let one = Server::start(Access::Keys).await;
    let (two, three) = (one.beside().await, one.beside().await);
    let nodes = [&one, &two, &three];
    one.engine.register(NS, &chain("two", &["a"])).await.unwrap();
    let starter = one.engine.create_credential(NS, "s", Role::Starter).await.unwrap();
    let start = with_json(one.request("POST", "/v1/runs"), r#"{"workflow":"two"}"#);
    let started = send(start.bearer_auth(&starter)).await;
    assert_eq!(started.status, 201, "{started:?}");
    let path = format!("{}?wait=30s", started.headers["location"].to_str().unwrap());
    let worker = one.engine.create_credential(NS, "w", Role::Worker).await.unwrap();
    let mut waiting = Vec::new();
    for node in nodes {
        let claiming = with_json(node.request("POST", "/v1/tasks/claim"), claim());
        waiting.push(tokio::spawn(send(claiming.bearer_auth(&worker))));
        waiting.push(tokio::spawn(send(node.request("GET", &path).bearer_auth(&worker))));
    }
    for node in nodes {
        until_waiting(node, 2).await;
    }
    let began = Instant::now();
    two.engine.revoke_credential(NS, "w").await.unwrap();
    for answer in waiting {
        assert_eq!(answer.await.unwrap().problem(401), "credential_unknown");
    }
    for node in nodes {
        let answer = send(node.request("GET", "/v1/whoami").bearer_auth(&worker)).await;
        assert_eq!(answer.problem(401), "credential_unknown");
        let answer = send(node.request("GET", "/v1/whoami").bearer_auth(&starter)).await;
        assert_eq!(answer.status, 200, "others are let in: {answer:?}");
    }
    // Long before the polls would have been over.
    assert!(began.elapsed() < Duration::from_secs(25), "{:?}", began.elapsed());
    for server in [one, two, three] {
        server.stopped().await;
    }
}

#[tokio::test]
async fn a_credential_that_is_hammered_while_it_is_revoked_is_not_remembered() {
    let server = Server::start(Access::Keys).await;
    let secret = server.engine.create_credential(NS, "w", Role::Viewer).await.unwrap();
    let hammering = async {
        loop {
            if server.engine.credential(&secret).await.unwrap().is_none() {
                return;
            }
            tokio::task::yield_now().await;
        }
    };
    let (revoked, gone) = tokio::join!(
        server.engine.revoke_credential(NS, "w"),
        tokio::time::timeout(Duration::from_millis(4_500), hammering)
    );
    revoked.unwrap();
    gone.expect("it is refused before anything that is remembered grows old");
    server.stopped().await;
}

#[tokio::test]
async fn who_waits_in_one_namespace_or_for_runs_leaves_places_to_the_workers_of_others() {
    let limits = Limits { waiting: 8, ..Limits::default() };
    let server = Server::start_within(Access::Open, limits).await;
    server.engine.register(NS, &chain("two", &["a"])).await.unwrap();
    let started = server.post("/v1/runs", r#"{"workflow":"two"}"#).await;
    let path = format!("{}?wait=30s", started.headers["location"].to_str().unwrap());
    let mut waiting = Vec::new();
    for _ in 0..4 {
        waiting.push(tokio::spawn(send(server.request("GET", &path))));
    }
    until_waiting(&server, 4).await;
    assert_eq!(server.get(&path).await.problem(503), "busy", "half of the places");
    for _ in 0..4 {
        let claiming = server.bare("POST", "/v1/tasks/claim").header("backstitch-namespace", "a");
        waiting.push(tokio::spawn(send(with_json(claiming, claim()))));
    }
    until_waiting(&server, 8).await;
    let claiming = || server.bare("POST", "/v1/tasks/claim");
    let again = with_json(claiming().header("backstitch-namespace", "a"), claim());
    assert_eq!(send(again).await.problem(503), "busy");
    let other = with_json(claiming().header("backstitch-namespace", "b"), claim());
    waiting.push(tokio::spawn(send(other)));
    until_waiting(&server, 9).await;
    waiting.iter().for_each(tokio::task::JoinHandle::abort);
    server.stopped().await;
}
