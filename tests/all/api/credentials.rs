//! Credentials as people need them: listed, ended, rotated, bounded, and never taken over by another.

use std::time::{Duration, Instant};

use backstitch_api::Access;
use backstitch_engine::{BackgroundTask, Role};
use backstitch_saga::protocol::{NewCredential, RotateCredential};
use backstitch_saga::{By, Span};
use backstitch_tests::node::{NS, chain};
use backstitch_tests::server::{Answer, Operation, Server, operations, send, with_json};
use serde_json::{Value, json};
use uuid::Uuid;

use super::access::{claim, until_waiting};

fn by() -> By {
    By { actor: "ops".into(), reason: String::new() }
}

fn new(role: Role) -> NewCredential {
    NewCredential { role: role.into(), expires_in: None, queues: None, workflows: None }
}

async fn ask(
    server: &Server,
    method: &str,
    path: &str,
    secret: &str,
    body: Option<Value>,
) -> Answer {
    let request = server.request(method, path).bearer_auth(secret);
    send(match body {
        Some(body) => with_json(request, body),
        None => request,
    })
    .await
}

#[tokio::test]
async fn credentials_are_listed_without_secrets_with_who_made_them_and_their_last_use() {
    let server = Server::start(Access::Keys).await;
    let admin = server.engine.create_credential(NS, "root", Role::Admin).await.unwrap();
    let body = json!({"role": "worker", "expires_in": "90d", "queues": ["billing-*"], "workflows": ["place-*"]});
    let made = ask(&server, "PUT", "/v1/credentials/w-1", &admin, Some(body)).await;
    assert_eq!(made.status, 201, "{made:?}");
    assert_eq!(made.json()["queues"], json!(["billing-*"]), "its bounds are shown");
    let secret = made.json()["secret"].as_str().unwrap().to_owned();
    let who = ask(&server, "GET", "/v1/whoami", &secret, None).await.json();
    assert_eq!((&who["queues"], &who["workflows"]), (&json!(["billing-*"]), &json!(["place-*"])));
    assert_eq!(who["expires_at"], made.json()["expires_at"]);
    server.engine.run_once(BackgroundTask::NoteUsed).await.unwrap();
    let first = ask(&server, "GET", "/v1/credentials?limit=1", &admin, None).await.json();
    assert_eq!(first["items"][0]["name"], "root");
    let next = format!("/v1/credentials?limit=1&after={}", first["next"].as_str().unwrap());
    let second = ask(&server, "GET", &next, &admin, None).await;
    let line = second.json()["items"][0].clone();
    assert_eq!(
        (&line["name"], &line["state"], &line["created_by"]),
        (&json!("w-1"), &json!("active"), &json!("root"))
    );
    assert!(line["used_at"].is_string() && line["expires_at"].is_string(), "{line}");
    assert_eq!(second.json()["next"], Value::Null);
    assert!(!second.text.contains("bsk_") && !second.text.contains("sha"), "{second:?}");
    let acts = ask(&server, "GET", "/v1/acts?credential=w-1", &admin, None).await;
    assert_eq!(acts.json()["items"][0]["verb"], "create");
    assert_eq!(acts.json()["items"][0]["actor"], "root");
    assert!(!acts.text.contains("bsk_"), "{acts:?}");
    for role in ["operator", "starter", "worker", "viewer"] {
        let other = server
            .engine
            .make_credential(
                NS,
                role,
                &new(match role {
                    "operator" => Role::Operator,
                    "starter" => Role::Starter,
                    "worker" => Role::Worker,
                    _ => Role::Viewer,
                }),
                &by(),
            )
            .await
            .unwrap();
        let refused = ask(&server, "GET", "/v1/credentials", &other.secret, None).await;
        assert_eq!(refused.problem(403), "forbidden");
    }
    server.stopped().await;
}

#[tokio::test]
async fn the_name_of_a_revoked_credential_is_not_given_again() {
    let server = Server::start(Access::Keys).await;
    let admin = server.engine.create_credential(NS, "root", Role::Admin).await.unwrap();
    let put = async || {
        ask(&server, "PUT", "/v1/credentials/ann", &admin, Some(json!({"role": "starter"}))).await
    };
    assert_eq!(put().await.status, 201);
    assert_eq!(put().await.problem(409), "credential_conflict");
    assert_eq!(ask(&server, "DELETE", "/v1/credentials/ann", &admin, None).await.status, 204);
    assert_eq!(put().await.problem(409), "credential_name_used");
    let rotate = json!({"overlap": "1h"});
    let rotated = ask(&server, "POST", "/v1/credentials/ann/rotate", &admin, Some(rotate)).await;
    assert_eq!(rotated.problem(404), "unknown_credential");
    let list = ask(&server, "GET", "/v1/credentials", &admin, None).await.json();
    assert_eq!(
        (&list["items"][0]["state"], &list["items"][0]["revoked_by"]),
        (&json!("revoked"), &json!("root"))
    );
    for (body, code) in [
        (json!({"role": "admin", "queues": ["a"]}), "invalid_request"),
        (json!({"role": "worker", "queues": [""]}), "invalid_request"),
        (json!({"role": "worker", "workflows": vec!["x"; 101]}), "invalid_request"),
        (json!({"role": "worker", "expires_in": "0s"}), "invalid_request"),
    ] {
        let refused = ask(&server, "PUT", "/v1/credentials/bad", &admin, Some(body)).await;
        assert_eq!(refused.problem(422), code);
    }
    server.stopped().await;
}

/// Has claims of `secret` wait at all nodes; what they are answered, and after how long.
async fn wait_at_all(
    nodes: &[&Server; 3],
    secret: &str,
) -> Vec<tokio::task::JoinHandle<(Answer, Instant)>> {
    let mut waiting = Vec::new();
    for node in nodes {
        let claiming =
            with_json(node.request("POST", "/v1/tasks/claim"), claim()).bearer_auth(secret);
        waiting.push(tokio::spawn(async { (send(claiming).await, Instant::now()) }));
        until_waiting(node, 1).await;
    }
    waiting
}

async fn all_refused(
    what: &str,
    since: Instant,
    waiting: Vec<tokio::task::JoinHandle<(Answer, Instant)>>,
) {
    let mut slowest = Duration::ZERO;
    for one in waiting {
        let (answer, at) = one.await.unwrap();
        assert_eq!(answer.problem(401), "credential_unknown");
        slowest = slowest.max(at.saturating_duration_since(since));
    }
    println!("{what}: the last of three waiting claims was refused after {slowest:?}");
    // Long before the polls would have been over.
    assert!(slowest < Duration::from_secs(25), "{what}: {slowest:?}");
}

#[tokio::test]
async fn the_secret_of_before_ends_on_every_node_with_its_overlap_and_long_polls_with_it() {
    let one = Server::start(Access::Keys).await;
    let (two, three) = (one.beside().await, one.beside().await);
    let nodes = [&one, &two, &three];
    let first = one.engine.create_credential(NS, "w", Role::Worker).await.unwrap();
    let who = async |node: &Server, secret: &str| {
        ask(node, "GET", "/v1/whoami", secret, None).await.status
    };
    for node in nodes {
        assert_eq!(who(node, &first).await, 200);
    }
    // Both are good while they overlap.
    let overlap = RotateCredential { overlap: Span::secs(3_600), expires_in: None };
    let second = two.engine.rotate_credential(NS, "w", &overlap, &by()).await.unwrap();
    assert!(second.previous_until.is_some());
    for node in nodes {
        assert_eq!((who(node, &first).await, who(node, &second.secret).await), (200, 200));
    }
    // An answer that was lost: asked again, the newest is replaced and the first stays.
    let third = three.engine.rotate_credential(NS, "w", &overlap, &by()).await.unwrap();
    let waiting = wait_at_all(&nodes, &first).await;
    for node in nodes {
        assert_eq!(who(node, &first).await, 200);
        assert_eq!(who(node, &second.secret).await, 401);
        assert_eq!(who(node, &third.secret).await, 200);
    }
    // The overlap is cut short.
    let cut = RotateCredential { overlap: Span::secs(1), expires_in: None };
    let fourth = one.engine.rotate_credential(NS, "w", &cut, &by()).await.unwrap();
    let over = Instant::now() + Duration::from_secs(1);
    all_refused("end of an overlap", over, waiting).await;
    for node in nodes {
        assert_eq!((who(node, &first).await, who(node, &fourth.secret).await), (401, 200));
    }
    // Without an overlap the secret of before ends at once.
    let waiting = wait_at_all(&nodes, &fourth.secret).await;
    let now = RotateCredential::default();
    let since = Instant::now();
    let fifth = two.engine.rotate_credential(NS, "w", &now, &by()).await.unwrap();
    all_refused("rotation", since, waiting).await;
    for node in nodes {
        assert_eq!((who(node, &fourth.secret).await, who(node, &fifth.secret).await), (401, 200));
    }
    for server in [one, two, three] {
        server.stopped().await;
    }
}

#[tokio::test]
async fn a_credential_is_refused_on_every_node_when_its_time_is_over_and_long_polls_with_it() {
    let one = Server::start(Access::Keys).await;
    let (two, three) = (one.beside().await, one.beside().await);
    let nodes = [&one, &two, &three];
    // Its time is so long that its claims wait before that is over.
    let asked = NewCredential { expires_in: Some(Span::secs(3_600)), ..new(Role::Worker) };
    one.engine.make_credential(NS, "w", &asked, &by()).await.unwrap();
    let long = RotateCredential { overlap: Span::ZERO, expires_in: Some(Span::secs(8)) };
    let secret = one.engine.rotate_credential(NS, "w", &long, &by()).await.unwrap().secret;
    let over = Instant::now() + Duration::from_secs(8);
    let waiting = wait_at_all(&nodes, &secret).await;
    assert!(Instant::now() < over, "the claims wait before its time is over");
    all_refused("expiry", over, waiting).await;
    for node in nodes {
        let answer = ask(node, "GET", "/v1/whoami", &secret, None).await;
        assert_eq!(answer.problem(401), "credential_unknown");
    }
    let page = one.engine.credentials(NS, None, 10).await.unwrap();
    let line = serde_json::to_value(&page.items[0]).unwrap();
    assert_eq!(line["state"], "expired");
    for server in [one, two, three] {
        server.stopped().await;
    }
}

/// The objects of operations with ids in their paths.
struct Ids {
    run: String,
    job: String,
    plan: String,
    request: String,
}

async fn furnish(server: &Server, admin: &str) -> Ids {
    let post = async |path: &str, body: Value| {
        let answer = ask(server, "POST", path, admin, Some(body)).await;
        assert!(answer.status < 300, "{path} {answer:?}");
        answer.json()
    };
    server.engine.register(NS, &chain("place-order", &["a"])).await.unwrap();
    let run = post("/v1/runs", json!({"workflow": "place-order", "input": 1})).await;
    let job = post(
        "/v1/jobs",
        json!({"verb": "pause", "runs": {"workflow": "place-order"}, "reason": "r"}),
    )
    .await;
    let spec = json!({"cron": "0 0 1 1 *", "time_zone": "UTC", "workflow": "place-order"});
    let put = ask(server, "PUT", "/v1/schedules/place-order", admin, Some(spec)).await;
    assert_eq!(put.status, 201, "{put:?}");
    let spec = json!({"workflow": "place-order"});
    let put = ask(server, "PUT", "/v1/subscriptions/place-order", admin, Some(spec)).await;
    assert_eq!(put.status, 201, "{put:?}");
    let mut owner =
        <sqlx::PgConnection as sqlx::Connection>::connect(server.database()).await.unwrap();
    let owner: &mut sqlx::PgConnection = &mut owner;
    let request: Uuid = sqlx::query_scalar(
        "select backstitch.start_run('place-order', 'null', namespace => $1, version => 9)",
    )
    .bind(NS)
    .fetch_one(owner)
    .await
    .unwrap();
    while server.engine.start_request(NS, request).await.unwrap().refusal.is_none() {
        server.engine.run_once(BackgroundTask::TakeAsked).await.unwrap();
    }
    let plan = json!({"scope": "all", "reason": "r"});
    let path = format!("/v1/runs/{}/plans", run["id"].as_str().unwrap());
    let plan = post(&path, plan).await;
    let id = |value: &Value| value["id"].as_str().unwrap().to_owned();
    Ids { run: id(&run), job: id(&job), plan: id(&plan), request: request.to_string() }
}

async fn perform(server: &Server, operation: &Operation, ids: &Ids, secret: &str) -> Answer {
    let id = match operation.path.as_str() {
        path if path.starts_with("/v1/jobs/") => &ids.job,
        path if path.starts_with("/v1/plans/") => &ids.plan,
        path if path.starts_with("/v1/start-requests/") => &ids.request,
        _ => &ids.run,
    };
    let body = operation
        .body
        .as_ref()
        .map(|body| serde_json::from_str(&body.to_string().replace("\"20s\"", "\"0s\"")).unwrap());
    ask(server, &operation.method, &operation.path(id), secret, body).await
}

#[tokio::test]
async fn every_operation_is_bounded_by_what_it_is_about() {
    let server = Server::start(Access::Keys).await;
    let admin = server.engine.create_credential(NS, "root", Role::Admin).await.unwrap();
    let ids = furnish(&server, &admin).await;
    let make = async |name: String, role: Role, patterns: &str| {
        let all = Some(vec![patterns.to_owned()]);
        let asked = NewCredential { queues: all.clone(), workflows: all, ..new(role) };
        server.engine.make_credential(NS, &name, &asked, &by()).await.unwrap().secret
    };
    let (mut refused, mut allowed, mut unbound) = (0, 0, 0);
    for (role, rights) in [
        (Role::Worker, &["read", "work", "register"][..]),
        (Role::Operator, &["read", "start", "act"]),
    ] {
        let outside = make(format!("outside-{}", role.as_str()), role, "elsewhere-*").await;
        let inside = make(format!("inside-{}", role.as_str()), role, "*").await;
        let ours = |operation: &Operation| {
            operation.right.as_deref().is_some_and(|right| rights.contains(&right))
        };
        let ours: Vec<Operation> = operations().into_iter().filter(ours).collect();
        for operation in &ours {
            let answer = perform(&server, operation, &ids, &outside).await;
            // What is said of a task is bound by the token of its lease.
            let by_lease = ["/complete", "/heartbeat", "/release", "/sign-off"];
            let by_lease = by_lease.iter().any(|end| operation.path.ends_with(end));
            match &operation.bounds {
                Some(_) if by_lease => {
                    assert!([200, 403].contains(&answer.status), "{operation:?} {answer:?}");
                    assert!(!answer.text.contains("\"status\":200"), "{operation:?} {answer:?}");
                }
                Some(_) => {
                    assert_eq!(answer.problem(403), "out_of_scope", "{operation:?}");
                    refused += 1;
                }
                None => {
                    assert!(!answer.text.contains("out_of_scope"), "{operation:?} {answer:?}");
                    unbound += 1;
                }
            }
        }
        for operation in &ours {
            let answer = perform(&server, operation, &ids, &inside).await;
            assert!(!answer.text.contains("out_of_scope"), "{operation:?} {answer:?}");
            assert!(![401, 500, 503].contains(&answer.status), "{operation:?} {answer:?}");
            allowed += 1;
        }
    }
    println!("{refused} refused, {allowed} allowed, {unbound} bound to neither");
    assert!(refused > 40 && unbound > 40, "{refused} {unbound}");
    server.stopped().await;
}

#[tokio::test]
async fn a_worker_with_bounds_touches_its_queues_and_registers_its_workflows_alone() {
    let server = Server::start(Access::Keys).await;
    let admin = server.engine.create_credential(NS, "root", Role::Admin).await.unwrap();
    let asked = NewCredential {
        queues: Some(vec!["billing-*".to_owned()]),
        workflows: Some(vec!["bill-*".to_owned()]),
        ..new(Role::Worker)
    };
    let secret = server.engine.make_credential(NS, "w", &asked, &by()).await.unwrap().secret;
    let claims = |queues: Value| json!({"worker": "w", "session": Uuid::new_v4(), "max": 1, "wait": "0s", "queues": queues});
    let good = claims(json!({"billing-1": ["x"]}));
    assert_eq!(ask(&server, "POST", "/v1/tasks/claim", &secret, Some(good)).await.status, 200);
    let bad = claims(json!({"billing-1": ["x"], "default": ["x"]}));
    let answer = ask(&server, "POST", "/v1/tasks/claim", &secret, Some(bad)).await;
    assert_eq!(answer.problem(403), "out_of_scope");
    let define = |name: &str, queue: &str| {
        json!({"name": name, "version": 1, "steps": [{"id": "a", "task": {"name": "x", "queue": queue,
            "class": "read_only", "input": {"path": "/input"}}}]})
    };
    for (name, queue, status) in [
        ("bill-one", "billing-1", 201),
        ("bill-two", "default", 403),
        ("place-order", "billing-1", 403),
    ] {
        let path = format!("/v1/workflows/{name}/versions/1");
        let answer = ask(&server, "PUT", &path, &secret, Some(define(name, queue))).await;
        assert_eq!(answer.status, status, "{name} {queue} {answer:?}");
    }
    let acts = ask(&server, "GET", "/v1/acts?workflow=bill-one&verb=register", &admin, None).await;
    let act = &acts.json()["items"][0];
    assert_eq!((&act["actor"], &act["detail"]), (&json!("w"), &json!({"version": 1})));
    server.stopped().await;
}

#[tokio::test]
async fn a_worker_does_not_report_what_another_of_its_namespace_does() {
    let server = Server::start(Access::Keys).await;
    server.engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let admin = server.engine.create_credential(NS, "root", Role::Admin).await.unwrap();
    let worker = server.engine.create_credential(NS, "w", Role::Worker).await.unwrap();
    let thief = server.engine.create_credential(NS, "thief", Role::Worker).await.unwrap();
    let started = json!({"workflow": "one", "input": 1});
    ask(&server, "POST", "/v1/runs", &admin, Some(started)).await;
    let session = Uuid::new_v4();
    let claims = json!({"worker": "w", "session": session, "max": 1, "wait": "10s", "queues": {"default": ["do"]}});
    let claimed =
        ask(&server, "POST", "/v1/tasks/claim", &worker, Some(claims.clone())).await.json();
    let task = &claimed["tasks"][0];
    let stolen = ask(&server, "POST", "/v1/tasks/claim", &thief, Some(claims)).await;
    assert_eq!(stolen.status, 422, "{stolen:?}");
    let report = |lease: &Value| {
        let mut report = super::tasks::report_of(task, &json!({"succeeded": {"output": "forged"}}));
        report["lease"] = lease.clone();
        if lease.is_null() {
            report.as_object_mut().unwrap().remove("lease");
        }
        json!({"results": [report]})
    };
    for (lease, code) in
        [(Value::Null, "lease_token_missing"), (json!("0".repeat(64)), "lease_token_wrong")]
    {
        let answer = ask(&server, "POST", "/v1/tasks/complete", &thief, Some(report(&lease))).await;
        assert_eq!((answer.status, &answer.json()["results"][0]["code"]), (403, &json!(code)));
    }
    let answer =
        ask(&server, "POST", "/v1/tasks/complete", &worker, Some(report(&task["lease"]))).await;
    assert_eq!(answer.status, 200, "{answer:?}");
    server.stopped().await;
}

#[tokio::test]
async fn roles_of_the_database_are_granted_a_namespace_by_its_admin() {
    let server = Server::start(Access::Keys).await;
    let admin = server.engine.create_credential(NS, "root", Role::Admin).await.unwrap();
    // A role that every PostgreSQL has.
    let path = "/v1/database-roles/pg_monitor";
    let unknown = "/v1/database-roles/nobody-has-this-name";
    assert_eq!(
        ask(&server, "PUT", unknown, &admin, None).await.problem(404),
        "unknown_database_role"
    );
    assert_eq!(
        ask(&server, "DELETE", path, &admin, None).await.problem(404),
        "unknown_database_role"
    );
    for _ in 0..2 {
        assert_eq!(ask(&server, "PUT", path, &admin, None).await.status, 204);
    }
    let list = ask(&server, "GET", "/v1/database-roles", &admin, None).await.json();
    assert_eq!(
        (&list["items"][0]["role"], &list["items"][0]["granted_by"]),
        (&json!("pg_monitor"), &json!("root"))
    );
    assert_eq!(ask(&server, "DELETE", path, &admin, None).await.status, 204);
    let acts = ask(&server, "GET", "/v1/acts?database_role=pg_monitor", &admin, None).await.json();
    let verbs: Vec<&Value> =
        acts["items"].as_array().unwrap().iter().map(|act| &act["verb"]).collect();
    assert_eq!(verbs, ["revoke", "grant"]);
    server.stopped().await;
}
