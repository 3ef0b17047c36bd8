//! Finding runs by what they are, over the API and in SQL.

use std::collections::BTreeMap;
use std::time::Duration;

use backstitch_api::Access;
use backstitch_engine::{BackgroundTask, RunFilter};
use backstitch_saga::protocol::{ClaimTasks, FailureKind, TaskOffer};
use backstitch_saga::{RunId, Span, Time, Timestamp};
use backstitch_tests::node::{Hand, NS, chain, fan, node, start};
use backstitch_tests::server::Server;
use serde_json::json;
use sqlx::{Connection, PgConnection};

use super::incidents::{all, parking};

/// One task of the queue `crm`.
async fn from_crm(hand: &Hand) -> TaskOffer {
    let claim = ClaimTasks {
        worker: "hand".to_owned(),
        session: uuid::Uuid::new_v4(),
        queues: BTreeMap::from([("crm".to_owned(), vec!["do".to_owned(), "undo".to_owned()])]),
        max: 1,
        wait: Span::secs(10),
        holding: None,
    };
    hand.engine.claim(NS, claim).await.unwrap().tasks.pop().expect("a task")
}

/// Returns a workflow of one step in the CRM, which may have happened when its attempt is not known.
fn in_crm(name: &str, on_unknown: &str) -> String {
    chain(name, &["pay"]).replace(
        r#""name":"do","#,
        &format!(r#""name":"do","queue":"crm","on_unknown":"{on_unknown}","#),
    )
}

async fn found(server: &Server, query: &str) -> Vec<String> {
    let runs = all(server, &format!("/v1/runs?{query}&")).await;
    runs.iter().map(|run| run["id"].as_str().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn runs_are_found_by_what_happened_to_them() {
    let server = Server::start(Access::Open).await;
    let engine = &server.engine;
    engine.register(NS, &parking("parked", &["pay"])).await.unwrap();
    engine.register(NS, &in_crm("doubted", "incident")).await.unwrap();
    engine.register(NS, &in_crm("undone", "compensate")).await.unwrap();
    let hand = Hand::new(engine);
    let mut request = start("parked", "1");
    request.correlation_id = Some("basket-7".to_owned());
    let parked = engine.start_run(NS, request).await.unwrap().id;
    hand.fail(&hand.one().await, FailureKind::Permanent).await;
    let doubted = engine.start_run(NS, start("doubted", "1")).await.unwrap().id;
    hand.fail(&from_crm(&hand).await, FailureKind::Unknown).await;
    let undone = engine.start_run(NS, start("undone", "1")).await.unwrap().id;
    hand.fail(&from_crm(&hand).await, FailureKind::Unknown).await;
    let of = |runs: &[RunId]| runs.iter().map(ToString::to_string).collect::<Vec<_>>();

    assert_eq!(found(&server, "correlation_id=basket-7").await, of(&[parked]));
    assert_eq!(found(&server, &format!("correlation_id={undone}")).await, of(&[undone]));
    assert_eq!(found(&server, "incident=true").await, of(&[doubted, parked]));
    assert_eq!(found(&server, "incident=false").await, of(&[undone]));
    assert_eq!(found(&server, "unknown_in=crm").await, of(&[undone, doubted]));
    assert_eq!(found(&server, "unknown_in=crm&workflow=undone").await, of(&[undone]));
    assert_eq!(found(&server, "unknown_in=default").await, of(&[]));
    let view = server.get(&format!("/v1/runs/{doubted}")).await.json();
    assert_eq!(view["progress"]["effects"], json!({"unknown": 1}), "as the run itself says");
    let listed = server.get("/v1/runs?workflow=doubted").await.json();
    assert_eq!(listed["items"][0]["conditions"], json!(["IncidentOpen"]));
    // Undone, it is in doubt no more.
    hand.succeed(&[from_crm(&hand).await]).await;
    assert_eq!(found(&server, "unknown_in=crm").await, of(&[doubted]));

    let started = view["started_at"].as_str().unwrap().parse::<Timestamp>().unwrap().0;
    let next = Timestamp(Time(started.0 + 1)).0;
    let between = format!("started_from={started}&started_to={next}&workflow=doubted");
    assert_eq!(found(&server, &between).await, of(&[doubted]));
    assert_eq!(found(&server, &format!("started_to={started}&workflow=doubted")).await, of(&[]));
    assert_eq!(found(&server, "ended_from=2026-01-01T00:00:00Z").await, of(&[undone]));
    assert_eq!(found(&server, "ended_to=2026-01-01T00:00:00Z").await, of(&[]));
    for bad in ["incident=maybe", "started_from=yesterday"] {
        assert_eq!(server.get(&format!("/v1/runs?{bad}")).await.problem(400), "invalid_query");
    }
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    server.stopped().await;
}

/// Returns the effects of a run in the view, counted as the run itself counts them.
async fn effects(connection: &mut PgConnection, run: RunId) -> BTreeMap<String, i64> {
    let rows: Vec<(String, i64)> = sqlx::query_as(
        "select effect, count(*) from backstitch.effect where run_id = $1 group by effect",
    )
    .bind(run.0)
    .fetch_all(connection)
    .await
    .unwrap();
    rows.into_iter().collect()
}

#[tokio::test]
async fn the_views_say_what_the_runs_say() {
    let server = Server::start(Access::Open).await;
    let engine = &server.engine;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    engine.register(NS, &fan("bulk", 2, r#""all""#)).await.unwrap();
    engine.register(NS, &in_crm("doubted", "incident")).await.unwrap();
    let hand = Hand::new(engine);
    let mut runs = Vec::new();
    // One half done, one undone, one in doubt, and a fan-out under way.
    runs.push(engine.start_run(NS, start("two", "1")).await.unwrap().id);
    hand.succeed(&[hand.one().await]).await;
    let held = hand.one().await;
    runs.push(engine.start_run(NS, start("two", "2")).await.unwrap().id);
    hand.succeed(&[hand.one().await]).await;
    hand.fail(&hand.one().await, FailureKind::Permanent).await;
    hand.succeed(&[hand.one().await]).await;
    runs.push(engine.start_run(NS, start("doubted", "1")).await.unwrap().id);
    hand.fail(&from_crm(&hand).await, FailureKind::Unknown).await;
    runs.push(engine.start_run(NS, start("bulk", "[1,2,3]")).await.unwrap().id);
    hand.succeed(&[hand.one().await]).await;

    let mut connection = PgConnection::connect(server.database()).await.unwrap();
    for run in &runs[..3] {
        let view = engine.run(NS, *run, None).await.unwrap();
        let told: BTreeMap<String, i64> =
            view.progress.effects.into_iter().map(|(word, count)| (word, count.into())).collect();
        assert_eq!(effects(&mut connection, *run).await, told, "{run}");
    }
    let bulk = effects(&mut connection, runs[3]).await;
    assert_eq!(bulk.get("applied"), Some(&1), "{bulk:?}");
    let (items, steps): (i64, i64) = sqlx::query_as(
        "select (select count(*) from backstitch.item where run_id = $1), \
         (select count(*) from backstitch.step where run_id = $1)",
    )
    .bind(runs[3].0)
    .fetch_one(&mut connection)
    .await
    .unwrap();
    assert_eq!((items, steps), (3, 4), "the map and its items");
    let (state, unknown): (String, Vec<String>) =
        sqlx::query_as("select state, unknown_in from backstitch.run where id = $1")
            .bind(runs[2].0)
            .fetch_one(&mut connection)
            .await
            .unwrap();
    assert_eq!((state.as_str(), unknown), ("waiting", vec!["crm".to_owned()]));
    let history = engine.history(NS, runs[1], None, 1_000).await.unwrap().items.len();
    let told: i64 = sqlx::query_scalar("select count(*) from backstitch.history where run_id = $1")
        .bind(runs[1].0)
        .fetch_one(&mut connection)
        .await
        .unwrap();
    assert_eq!(usize::try_from(told), Ok(history));
    hand.succeed(&[held]).await;
    server.stopped().await;
}

#[tokio::test]
async fn a_reader_of_the_views_reads_nothing_else() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("one", &["a"])).await.unwrap();
    server.engine.start_run(NS, start("one", r#""secret""#)).await.unwrap();
    let mut connection = PgConnection::connect(server.database()).await.unwrap();
    // As docs/sql-views.md has it.
    let page = include_str!("../../../docs/sql-views.md");
    let (_, grants) = page.split_once("create role reporting login password '…';\n").unwrap();
    let (grants, _) = grants.split_once("```").unwrap();
    let role = format!("reporting_{}", uuid::Uuid::new_v4().simple());
    let text =
        format!("create role {role};\n{}set role {role};", grants.replace("reporting", &role));
    sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    for view in ["run", "incident", "act", "history", "step", "item", "effect"] {
        let text = format!("select count(*) from backstitch.{view}");
        let read: Result<i64, _> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(&mut connection).await;
        assert!(read.is_ok(), "{view}: {read:?}");
    }
    for table in ["backstitch.document", "backstitch_data.journal", "backstitch_data.runs"] {
        let text = format!("select count(*) from {table}");
        let read: Result<i64, _> =
            sqlx::query_scalar(sqlx::AssertSqlSafe(text)).fetch_one(&mut connection).await;
        assert!(read.unwrap_err().to_string().contains("permission denied"), "{table}");
    }
    let history: Vec<String> = sqlx::query_scalar("select event::text from backstitch.history")
        .fetch_all(&mut connection)
        .await
        .unwrap();
    assert!(!history.is_empty() && history.iter().all(|event| !event.contains("secret")));
    sqlx::raw_sql("reset role").execute(&mut connection).await.unwrap();
    server.stopped().await;
}

#[tokio::test]
async fn several_labels_must_all_hold_and_two_values_of_one_are_refused() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("two", &["a"])).await.unwrap();
    for (team, site) in [("x", "1"), ("x", "2"), ("y", "1")] {
        let labels = json!({ "team": team, "site": site });
        server.post("/v1/runs", json!({ "workflow": "two", "labels": labels })).await;
    }
    assert_eq!(found(&server, "label=team:x").await.len(), 2);
    assert_eq!(found(&server, "label=team:x&label=site:1").await.len(), 1);
    assert_eq!(found(&server, "label=team:x&label=team:x").await.len(), 2);
    for query in ["label=team:x&label=team:y", "label=team:y&label=site:1&label=team:x"] {
        let answer = server.get(&format!("/v1/runs?{query}")).await;
        assert_eq!(answer.problem(400), "invalid_query", "{query}");
    }
    server.stopped().await;
}

#[tokio::test]
async fn a_word_that_is_not_of_its_set_and_an_id_that_is_none_are_refused() {
    let server = Server::start(Access::Open).await;
    for (query, told) in [
        ("acts?verb=foo", "mark-compensated"),
        ("acts?job=abc", "job"),
        ("acts?run=abc", "run"),
        ("incidents?fingerprint=abc", "16 hexadecimal digits"),
        ("incidents?kind=foo", "task_exhausted"),
        ("incidents/groups?kind=foo", "task_exhausted"),
        ("runs?state=foo", "ended"),
        ("jobs?state=foo", "canary"),
        ("start-requests?state=foo", "waiting"),
    ] {
        let answer = server.get(&format!("/v1/{query}")).await;
        assert_eq!(answer.problem(400), "invalid_query", "{query}");
        assert!(answer.text.contains(told), "{answer:?}");
    }
    assert_eq!(server.get("/v1/acts?verb=retry").await.status, 200);
    server.stopped().await;
}

#[tokio::test]
async fn a_condition_by_which_no_run_is_searched_is_refused() {
    let server = Server::start(Access::Open).await;
    for name in ["NoWorker", "Nonsense", "incidentopen", ""] {
        let answer = server.get(&format!("/v1/runs?condition={name}")).await;
        assert_eq!(answer.problem(400), "invalid_query", "{name}");
        assert!(answer.text.contains("SignalAwaited"), "it says which there are: {answer:?}");
        let job = json!({
            "verb": "cancel", "reason": "test", "dry_run": true, "runs": { "condition": name },
        });
        let answer = server.post("/v1/jobs", job).await;
        assert_eq!(answer.problem(422), "invalid_request", "{name}");
    }
    assert_eq!(server.get("/v1/runs?condition=StepUnknown").await.status, 200);
    server.stopped().await;
}

#[tokio::test]
async fn runs_are_found_by_when_they_began_however_old_their_ids_are() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("two", &["a"])).await.unwrap();
    // As a child of a parent that has run for long, or a start in a transaction that stayed open.
    let (now, _) = uuid::Uuid::now_v7().get_timestamp().unwrap().to_unix();
    let asked = uuid::Timestamp::from_unix(uuid::NoContext, now - 3_600, 0);
    let run = RunId(uuid::Uuid::new_v7(asked));
    server.engine.start_run_as(NS, run, start("two", "1")).await.unwrap();
    let began = server.get(&format!("/v1/runs/{run}")).await.json()["started_at"].clone();
    let began = began.as_str().unwrap();
    let of = [run.to_string()];
    assert_eq!(found(&server, &format!("started_from={began}")).await, of);
    let job = json!({
        "verb": "cancel", "reason": "test", "dry_run": true,
        "runs": { "workflow": "two", "started_from": began },
    });
    let told = server.post("/v1/jobs", job).await.json();
    assert_eq!(told["count"], 1, "{told}");
    server.stopped().await;
}

#[tokio::test]
async fn runs_are_found_by_when_they_began_although_their_ids_are_of_later() {
    let server = Server::start(Access::Open).await;
    server.engine.register(NS, &chain("two", &["a"])).await.unwrap();
    // As a start in a transaction, while the clock of the database was ahead.
    let (now, _) = uuid::Uuid::now_v7().get_timestamp().unwrap().to_unix();
    let asked = uuid::Timestamp::from_unix(uuid::NoContext, now + 3_600, 0);
    let run = RunId(uuid::Uuid::new_v7(asked));
    server.engine.start_run_as(NS, run, start("two", "1")).await.unwrap();
    let later = Timestamp(Time(i64::try_from(now).unwrap() * 1_000 + 60_000));
    let job = json!({
        "verb": "cancel", "reason": "test", "dry_run": true,
        "runs": { "workflow": "two", "started_to": later },
    });
    let told = server.post("/v1/jobs", job).await.json();
    assert_eq!(told["count"], 1, "{told}");
    // A server knows it as soon as it has seen it.
    let node = node(server.database(), |options| options.tuning.check_every = Duration::ZERO).await;
    node.run_once(BackgroundTask::CheckIndexes).await.unwrap();
    let filter = RunFilter { started_to: Some(later), limit: 10, ..RunFilter::default() };
    let listed = node.runs(NS, filter).await.unwrap().items;
    assert_eq!(listed.iter().map(|line| line.id).collect::<Vec<RunId>>(), [run]);
    node.stop().await;
    server.stopped().await;
}
