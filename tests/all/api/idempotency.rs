//! `Idempotency-Key`: what is asked twice is done once and answered the same, also when the server died in between.

use backstitch_api::Access;
use backstitch_engine::{BackgroundTask, IdempotentRequest, Reserved, Role};
use backstitch_sdk::Client;
use backstitch_tests::node::{Hand, NS, chain};
use backstitch_tests::server::{Answer, Server, operations, send, with_json};
use futures::future::join_all;
use serde_json::{Value, json};
use sqlx::{Connection, PgConnection};

const START: &str = r#"{"workflow":"two","input":1}"#;

async fn server() -> Server {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    server
}

async fn keyed(server: &Server, path: &str, key: &str, body: impl ToString) -> Answer {
    let request = server.request("POST", path).header("idempotency-key", key);
    send(with_json(request, body)).await
}

fn replayed(answer: &Answer) -> bool {
    answer.headers.get("idempotency-replayed").is_some_and(|value| value == "true")
}

async fn count_runs(server: &Server) -> usize {
    let runs = server.get("/v1/runs?limit=1000").await.json();
    runs["items"].as_array().unwrap().len()
}

/// Leaves the state of a process that died during a request.
async fn die_with(
    server: &Server,
    path: &str,
    key: &str,
    body: &str,
) -> backstitch_engine::Reservation {
    let request = IdempotentRequest {
        namespace: NS,
        actor: "anonymous",
        method: "POST",
        path,
        key,
        body: body.as_bytes(),
    };
    let Reserved::Yours(reservation) = server.engine.reserve(request).await.unwrap() else {
        panic!("the key is taken")
    };
    let mut connection = PgConnection::connect(server.database()).await.unwrap();
    let sql = "update idempotency_keys set node = -1 where status is null";
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    reservation
}

#[tokio::test]
async fn fifty_at_once_are_one_run() {
    let server = server().await;
    let asked = join_all((0..50).map(|_| keyed(&server, "/v1/runs", "order-7", START))).await;
    let mut ids = Vec::new();
    for answer in &asked {
        match answer.status {
            201 => ids.push(answer.json()["id"].clone()),
            _ => {
                assert_eq!(answer.problem(409), "idempotency_in_flight");
                assert_eq!(answer.headers["retry-after"], "1");
            }
        }
    }
    assert!(!ids.is_empty() && ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    assert_eq!(asked.iter().filter(|one| one.status == 201 && !replayed(one)).count(), 1);
    // Quoted is the same key.
    let again = keyed(&server, "/v1/runs", "\"order-7\"", START).await;
    assert_eq!(
        (again.status, &again.json()["id"], &again.json()["created"]),
        (201, &ids[0], &json!(true))
    );
    assert!(replayed(&again));
    assert_eq!(
        again.headers["location"],
        format!("/v1/runs/{}", ids[0].as_str().unwrap()).as_str()
    );
    assert_eq!(again.headers["idempotency-retention"], "7d");
    assert_eq!(again.kind, "application/json");
    assert_eq!(count_runs(&server).await, 1);
    server.stopped().await;
}

#[tokio::test]
async fn a_repeat_is_told_when_a_run_of_its_answer_was_erased() {
    let server = server().await;
    let started = keyed(&server, "/v1/runs", "start", START).await;
    let run = started.json()["id"].as_str().unwrap().to_owned();
    let erase = format!("/v1/runs/{run}/erase");
    let reason = r#"{"reason":"a test","kill":true}"#;
    assert_eq!(keyed(&server, &erase, "erase", reason).await.status, 200);
    // The second pass empties the answer to the erasure, too.
    let mut connection = PgConnection::connect(server.database()).await.unwrap();
    let sql = "update erasures set due_at = now() - interval '1 minute'";
    sqlx::query(sql).execute(&mut connection).await.unwrap();
    server.engine.run_once(BackgroundTask::DeleteRuns).await.unwrap();
    let repeat = keyed(&server, "/v1/runs", "start", START).await;
    assert_eq!(repeat.problem(409), "run_erased");
    assert!(replayed(&repeat));
    let again = keyed(&server, &erase, "erase", reason).await;
    assert_eq!((again.status, &again.json()["id"]), (200, &json!(run)));
    assert_eq!(count_runs(&server).await, 1);
    server.stopped().await;
}

#[tokio::test]
async fn another_body_needs_another_key_and_nonsense_leaves_no_trace() {
    let server = server().await;
    let bad =
        keyed(&server, "/v1/runs", "k", r#"{"workflow":"two","input":1,"colour":"red"}"#).await;
    assert_eq!(bad.problem(400), "unknown_field");
    let unknown = keyed(&server, "/v1/runs", "k", r#"{"workflow":"nobody's"}"#).await;
    assert_eq!(unknown.problem(404), "unknown_workflow");
    let first = keyed(&server, "/v1/runs", "k", START).await;
    assert_eq!((first.status, replayed(&first)), (201, false));
    let other = keyed(&server, "/v1/runs", "k", r#"{"workflow":"two","input":2}"#).await;
    assert_eq!(other.problem(422), "idempotency_key_reused");
    // The raw bytes count, not what they mean.
    let spaced = keyed(&server, "/v1/runs", "k", r#"{"workflow":"two", "input":1}"#).await;
    assert_eq!(spaced.problem(422), "idempotency_key_reused");
    for key in ["", "two words", "\"open", &"k".repeat(256)] {
        let answer = keyed(&server, "/v1/runs", key, START).await;
        assert_eq!(answer.problem(400), "invalid_idempotency_key", "{key}");
    }
    // Where nothing is done the header means nothing.
    let definition = chain("two", &["a", "b"]);
    for _ in 0..2 {
        let valid = keyed(&server, "/v1/workflows/validate", "two words", &definition).await;
        assert_eq!((valid.status, replayed(&valid)), (200, false), "{valid:?}");
    }
    assert_eq!(count_runs(&server).await, 1);
    server.stopped().await;
}

#[tokio::test]
async fn a_key_belongs_to_who_asks_what_and_where() {
    let server = Server::start(Access::Keys).await;
    let mut secrets = Vec::new();
    for namespace in [NS, "other"] {
        server.engine.register(namespace, &chain("two", &["a", "b"])).await.unwrap();
        for name in ["ann", "bob"] {
            let made = server.engine.create_credential(namespace, name, Role::Operator).await;
            secrets.push(made.unwrap());
        }
    }
    let mut ids = Vec::new();
    for secret in &secrets {
        let request = server.request("POST", "/v1/runs").header("idempotency-key", "the-same");
        let answer = send(with_json(request.bearer_auth(secret), START)).await;
        assert_eq!((answer.status, replayed(&answer)), (201, false), "{answer:?}");
        ids.push(answer.json()["id"].as_str().unwrap().to_owned());
    }
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 4, "four callers, four runs");
    let batch = server.request("POST", "/v1/runs/batch").header("idempotency-key", "the-same");
    let batch =
        send(with_json(batch.bearer_auth(&secrets[0]), format!(r#"{{"runs":[{START}]}}"#))).await;
    assert_eq!((batch.status, replayed(&batch)), (201, false), "another path is another request");
    // Without a right there is no answer to be had by knowing a key.
    let viewer = server.engine.create_credential(NS, "eve", Role::Viewer).await.unwrap();
    let request = server.request("POST", "/v1/runs").header("idempotency-key", "the-same");
    assert_eq!(
        send(with_json(request.bearer_auth(&viewer), START)).await.problem(403),
        "forbidden"
    );
    server.stopped().await;
}

#[tokio::test]
async fn a_start_whose_process_died_after_it_is_the_same_run() {
    let server = server().await;
    // Dead before the effect.
    let before = die_with(&server, "/v1/runs", "before", START).await;
    let answer = keyed(&server, "/v1/runs", "before", START).await;
    assert_eq!((answer.status, replayed(&answer)), (201, false), "{answer:?}");
    assert_eq!(answer.json()["id"], before.run_id(0).to_string());
    // Dead after the effect, and the run has gone on since.
    let after = die_with(&server, "/v1/runs", "after", START).await;
    let start = serde_json::from_str(START).unwrap();
    server.engine.start_run_as(NS, after.run_id(0), start).await.unwrap();
    let hand = Hand::new(&server.engine);
    for _ in 0..4 {
        let task = hand.one().await;
        hand.succeed(&[task]).await;
    }
    let answer = keyed(&server, "/v1/runs", "after", START).await;
    assert_eq!((answer.status, replayed(&answer)), (201, false), "{answer:?}");
    assert_eq!(answer.json(), json!({"id": after.run_id(0), "created": true}));
    assert!(replayed(&keyed(&server, "/v1/runs", "after", START).await));
    assert_eq!(count_runs(&server).await, 2);
    server.stopped().await;
}

#[tokio::test]
async fn a_batch_whose_process_died_in_the_middle_starts_each_run_once() {
    let server = server().await;
    let one = |input: u32| json!({"workflow": "two", "input": input});
    let body =
        json!({"runs": [one(0), {"workflow": ""}, one(1), {"workflow": "two", "key": "mine"}]})
            .to_string();
    let dead = die_with(&server, "/v1/runs/batch", "b", &body).await;
    let start = serde_json::from_value(one(1)).unwrap();
    server.engine.start_run_as(NS, dead.run_id(1), start).await.unwrap();
    let answer = keyed(&server, "/v1/runs/batch", "b", &body).await;
    let statuses: Vec<Value> = answer.json()["results"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["status"].clone())
        .collect();
    assert_eq!(statuses, [201, 422, 201, 201], "{answer:?}");
    let again = keyed(&server, "/v1/runs/batch", "b", &body).await;
    assert_eq!((again.status, replayed(&again), &again.text), (207, true, &answer.text));
    assert_eq!(count_runs(&server).await, 3);
    server.stopped().await;
}

#[tokio::test]
async fn an_act_whose_process_died_after_it_is_done_once() {
    let server = server().await;
    let started = server.post("/v1/runs", START).await.json();
    let run = format!("/v1/runs/{}", started["id"].as_str().unwrap());
    let reason = r#"{"reason":"wrong order"}"#;
    for verb in ["cancel", "kill"] {
        let path = format!("{run}/{verb}");
        let started = server.post("/v1/runs", START).await.json();
        let path = path.replace(run.rsplit('/').next().unwrap(), started["id"].as_str().unwrap());
        die_with(&server, &path, "k", reason).await;
        let done = server.post(&path, reason).await;
        assert_eq!(done.status, 200, "{done:?}");
        let repeated = keyed(&server, &path, "k", reason).await;
        assert_eq!((repeated.status, replayed(&repeated)), (200, false), "{repeated:?}");
        let replay = keyed(&server, &path, "k", reason).await;
        assert_eq!((replay.status, replayed(&replay), &replay.text), (200, true, &repeated.text));
        let history =
            server.get(&format!("{}/history?limit=1000", path.rsplit_once('/').unwrap().0)).await;
        let asked = if verb == "cancel" { "cancel_requested" } else { "killed" };
        assert_eq!(history.text.matches(asked).count(), 1, "{history:?}");
    }
    // What the state of things forbade is final for its key.
    let path = format!("{run}/retry");
    let refused = keyed(&server, &path, "r", reason).await;
    assert_eq!(refused.problem(409), "nothing_to_retry");
    let again = keyed(&server, &path, "r", reason).await;
    assert_eq!((again.problem(409), replayed(&again)), ("nothing_to_retry".to_owned(), true));
    server.stopped().await;
}

#[tokio::test]
async fn what_is_past_retention_is_forgotten_and_what_is_too_large_is_not_kept() {
    let server = server().await;
    keyed(&server, "/v1/runs", "old", START).await;
    let mut connection = PgConnection::connect(server.database()).await.unwrap();
    assert_eq!(server.engine.run_once(BackgroundTask::ForgetAnswers).await.unwrap(), 0);
    for sql in [
        "update idempotency_keys set reserved_at = reserved_at - interval '8 days'",
        "insert into idempotency_keys select 'other', sha256(n::text::bytea), '', now() - interval '8 days', now() \
         from generate_series(1, 2500) n",
    ] {
        sqlx::query(sql).execute(&mut connection).await.unwrap();
    }
    assert_eq!(server.engine.run_once(BackgroundTask::ForgetAnswers).await.unwrap(), 2_501);
    let new = keyed(&server, "/v1/runs", "old", START).await;
    assert_eq!((new.status, replayed(&new)), (201, false));

    let large = json!({"workflow": "two", "input": "x".repeat(262_000)});
    let large = server.post("/v1/runs", large).await.json();
    let path = format!("/v1/runs/{}/cancel", large["id"].as_str().unwrap());
    let reason = r#"{"reason":"wrong order"}"#;
    let first = keyed(&server, &path, "large", reason).await;
    assert!(first.status == 200 && first.text.len() > 256 * 1024, "{}", first.text.len());
    let again = keyed(&server, &path, "large", reason).await;
    assert_eq!((again.status, replayed(&again), &again.json()["status"]), (200, true, &json!(200)));
    server.stopped().await;
}

#[tokio::test]
async fn every_route_that_acts_takes_a_key_and_no_other_does() {
    let server = server().await;
    let mut acting = 0;
    for operation in operations() {
        let right = operation.right.as_deref().unwrap_or_default();
        // What answers a secret keeps no answer.
        let acts = operation.method == "POST" && !["", "read", "work", "admin"].contains(&right);
        let url = operation.path("019a9b1e-3c00-7c41-9d3e-5b7f3f0a9c11");
        let request = server.request(&operation.method, &url).header("idempotency-key", "no key");
        let body = operation.body.map(|body| body.to_string().replace("\"20s\"", "\"0s\""));
        let answer = send(with_json(request, body.unwrap_or_default())).await;
        let refused = answer.status == 400 && answer.problem(400) == "invalid_idempotency_key";
        assert_eq!(refused, acts, "{} {url} {answer:?}", operation.method);
        acting += usize::from(acts);
    }
    assert!(acting > 8, "{acting}");
    server.stopped().await;
}

#[tokio::test]
async fn the_client_acts_under_a_key() {
    let server = Server::start(Access::Open).await;
    server.engine.register("default", &chain("two", &["a", "b"])).await.unwrap();
    let client = Client::new(server.url()).unwrap();
    let run = client.start_named::<_, Value>("two", &json!(1)).await.unwrap();
    client.cancel(run.id(), "wrong order").await.unwrap();
    let mut connection = PgConnection::connect(server.database()).await.unwrap();
    let kept = "select count(*) from idempotency_keys where status is not null";
    let kept: i64 = sqlx::query_scalar(kept).fetch_one(&mut connection).await.unwrap();
    assert_eq!(kept, 2);
    server.stopped().await;
}
