//! One namespace and another, every role, every operation: a matrix made from the OpenAPI document. What is foreign is
//! as if it did not exist, not a byte of it is seen, and nothing that is asked from outside changes it.

use backstitch_api::Access;
use backstitch_engine::{BackgroundTask, Engine, FactAct, Role};
use backstitch_saga::protocol::{FailureKind, Requirement, StartRun, StartSequence};
use backstitch_saga::{By, Command, Hold, HoldKind};
use backstitch_tests::node::{Hand, NS, chain, json, start};
use backstitch_tests::server::{Answer, Operation, Server, operations, send, with_json};

/// Stands in every text of the namespace that is looked at, and in no request.
const MARK: &str = "only-for-our-eyes";
/// The namespace of those who look.
const OTHER: &str = "other";

const ROLES: [(Role, &[&str]); 5] = [
    (Role::Viewer, &["read"]),
    (Role::Worker, &["read", "work", "register"]),
    (Role::Starter, &["read", "start"]),
    (Role::Operator, &["read", "start", "act"]),
    (Role::Admin, &["read", "start", "act", "work", "register", "admin"]),
];

/// Returns the right that an operation needs; none when it is for everybody.
fn right(operation: &Operation) -> Option<&str> {
    operation.right.as_deref()
}

/// Reading first, making what is missing last.
fn in_order() -> Vec<Operation> {
    let mut all: Vec<Operation> =
        operations().into_iter().filter(|operation| right(operation).is_some()).collect();
    let turn = |operation: &Operation| match operation.method.as_str() {
        "GET" => 0,
        "PUT" => 2,
        _ => 1,
    };
    all.sort_by_key(turn);
    all
}

/// Returns whether it creates the object that it names, if that does not exist. Any queue may be paused, any fact
/// established, any contract checked and registered.
fn makes(operation: &Operation) -> bool {
    let acts = [
        "/v1/queues/{name}/pause",
        "/v1/facts/{subject}/{fact}/establish",
        "/v1/contracts/{subject}/check",
        "/v1/contracts/{subject}/versions",
    ];
    operation.method == "PUT" || acts.contains(&operation.path.as_str())
}

async fn ask(server: &Server, operation: &Operation, id: &str, secret: &str) -> Answer {
    // What is made has a name of its own: nobody finds what another role made before.
    let path = match makes(operation) {
        true if operation.path.contains("{subject}") => {
            operation.path_with(id, "subject", "made-elsewhere")
        }
        true if operation.path.contains("{external_id}") => {
            operation.path_with(id, "external_id", "made-elsewhere")
        }
        true => operation.path_with(id, "name", "made-elsewhere"),
        false => operation.path(id),
    };
    let request = server.request(&operation.method, &path).bearer_auth(secret);
    send(match &operation.body {
        Some(body) => {
            let body = body.to_string().replace("019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11", id);
            with_json(request, body.replace("\"wait\":\"20s\"", "\"wait\":\"0s\""))
        }
        None => request,
    })
    .await
}

/// Runs of our namespace in different states, with the mark wherever a text can stand. Returns one that moves.
async fn furnish(engine: &Engine) -> String {
    let retry = "\"retry\":{\"first_delay\":\"20ms\"";
    let parking = chain("place-order", &["each", MARK])
        .replace(retry, &format!("\"on_failure\":\"incident\",{retry}"));
    engine.register(NS, &parking).await.unwrap();
    let order = |key: &str| {
        let mut start = start("place-order", &format!("\"{MARK}\""));
        start.key = Some(format!("{MARK}-{key}"));
        start.correlation_id = Some(MARK.to_owned());
        start.labels.insert("label".to_owned(), MARK.to_owned());
        start.input = json(&format!("{{\"{MARK}\":true}}"));
        start
    };
    let by = || By { actor: MARK.into(), reason: MARK.to_owned() };
    let fact = Requirement { fact: "customer.created".to_owned(), on: "customer:42".to_owned() };
    engine.act_on_fact(NS, &fact, FactAct::Establish, &by()).await.unwrap();
    let serial =
        StartSequence { serial_key: Some("customer:42".to_owned()), ..StartSequence::default() };
    for key in ["holds", "waits"] {
        let start = StartRun { sequence: Some(serial.clone()), ..order(key) };
        let run = engine.start_run(NS, start).await.unwrap().id;
        let hold = Hold::new(HoldKind::Paused, MARK);
        let hold = Command::Hold { hold, by: Some(by()), message: MARK.to_owned() };
        engine.command(NS, run, hold).await.unwrap();
        let blocked = HoldKind::KeyBlocked.condition();
        let is_blocked = async || {
            let conditions = engine.run(NS, run, None).await.unwrap().conditions;
            conditions.iter().any(|condition| condition.kind == blocked)
        };
        while key == "holds" && is_blocked().await {
            engine.run_once(BackgroundTask::Sequence).await.unwrap();
        }
    }
    // Held before there is a worker, so that nothing moves it while we look.
    let moving = engine.start_run(NS, order("moves")).await.unwrap().id;
    let hold = Hold::new(HoldKind::Paused, MARK);
    let hold = Command::Hold { hold, by: Some(by()), message: MARK.to_owned() };
    engine.command(NS, moving, hold).await.unwrap();
    let hand = Hand::new(engine);
    let parked = engine.start_run(NS, order("parked")).await.unwrap().id;
    hand.succeed(&[hand.one().await]).await;
    hand.fail(&hand.one().await, FailureKind::Permanent).await;
    engine.command(NS, parked, Command::Retry { step: None, input: None, by: by() }).await.unwrap();
    hand.fail(&hand.one().await, FailureKind::Permanent).await;
    moving.to_string()
}

/// Everything that an admin of our namespace sees.
async fn all_there_is(server: &Server, id: &str, secret: &str) -> Vec<(String, String)> {
    let mut seen = Vec::new();
    // Who works, what is waited for and what is counted now changes by itself.
    let by_itself = ["/background-tasks", "/workers", "/why", "/counts", "/status", "/credentials"];
    let stays = |operation: &&Operation| {
        operation.method == "GET" && !by_itself.iter().any(|end| operation.path.ends_with(end))
    };
    for operation in in_order().iter().filter(stays) {
        let answer = ask(server, operation, id, secret).await;
        seen.push((operation.path.clone(), answer.text));
    }
    seen
}

#[tokio::test]
async fn what_is_foreign_does_not_exist_for_any_role() {
    let server = Server::start(Access::Keys).await;
    let id = furnish(&server.engine).await;
    let admin = server.engine.create_credential(NS, "root", Role::Admin).await.unwrap();
    let before = all_there_is(&server, &id, &admin).await;
    let marked = before.iter().filter(|(_, text)| text.contains(MARK)).count();
    assert!(marked >= 6, "only {marked} operations show the mark: {before:#?}");
    let (mut foreign, mut refused) = (0, 0);
    for (role, rights) in ROLES {
        let name = format!("{role:?}").to_lowercase();
        let secret = server.engine.create_credential(OTHER, &name, role).await.unwrap();
        for operation in in_order() {
            let answer = ask(&server, &operation, &id, &secret).await;
            let headers = format!("{:?}", answer.headers);
            assert!(!answer.text.contains(MARK), "{role:?} {operation:?} {answer:?}");
            assert!(!headers.contains(MARK), "{role:?} {operation:?} {answer:?}");
            if !rights.contains(&right(&operation).unwrap_or_default()) {
                assert_eq!(answer.problem(403), "forbidden", "{role:?} {operation:?}");
                refused += 1;
            } else if operation.path.contains('{') && !makes(&operation) {
                // Lists of what belongs to something may be empty instead.
                let empty = [r#"{"items":[]}"#, r#"{"facts":[],"waiting":[]}"#];
                if !empty.contains(&answer.text.as_str()) {
                    let code = answer.problem(404);
                    assert!(code.starts_with("unknown_"), "{role:?} {operation:?} {code}");
                }
                foreign += 1;
            } else {
                assert!(answer.status < 500, "{role:?} {operation:?} {answer:?}");
            }
        }
        // Who names the other namespace outright is told that it is not theirs.
        let named = server.request("GET", "/v1/runs").bearer_auth(&secret);
        let named = send(named.header("backstitch-namespace", NS)).await;
        assert_eq!(named.problem(403), "forbidden", "{role:?}");
    }
    assert!(foreign >= 30 && refused >= 40, "{foreign} foreign, {refused} refused");
    assert_eq!(all_there_is(&server, &id, &admin).await, before, "nothing was changed");
    server.stopped().await;
}

#[tokio::test]
async fn what_is_ours_is_there_as_far_as_the_role_goes() {
    let server = Server::start(Access::Keys).await;
    let (mut allowed, mut refused) = (0, 0);
    for (role, rights) in ROLES {
        let name = format!("{role:?}").to_lowercase();
        for operation in in_order() {
            let rightful = rights.contains(&right(&operation).unwrap_or_default());
            // Each in a namespace of its own, so that nobody finds what another has changed.
            let space = format!("space-{}", allowed + refused);
            let secret = server.engine.create_credential(&space, &name, role).await.unwrap();
            let id = match rightful {
                true => {
                    server.engine.register(&space, &chain("place-order", &["each"])).await.unwrap();
                    let run = server.engine.start_run(&space, start("place-order", "1")).await;
                    run.unwrap().id.to_string()
                }
                false => uuid::Uuid::new_v4().to_string(),
            };
            let answer = ask(&server, &operation, &id, &secret).await;
            if !rightful {
                assert_eq!(answer.problem(403), "forbidden", "{role:?} {operation:?}");
                refused += 1;
                continue;
            }
            assert!(answer.was_let_in(), "{role:?} {operation:?} {answer:?}");
            assert!(answer.status < 500, "{role:?} {operation:?} {answer:?}");
            assert!(!answer.text.contains("unknown_run"), "{role:?} {operation:?} {answer:?}");
            allowed += 1;
        }
    }
    assert!(allowed >= 70 && refused >= 40, "{allowed} allowed, {refused} refused");
    server.stopped().await;
}
