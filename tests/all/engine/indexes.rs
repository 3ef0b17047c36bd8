//! Indexes: lists, the doctor, retention, definitions, credentials.

use std::time::Duration;

use backstitch_engine::{BackgroundTask, Error, Options, Role, RunFilter};
use backstitch_saga::protocol::{FailureKind, Outcome, State};
use backstitch_saga::{RunId, Span};
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, chain, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};

/// Nobody mends anything before the doctor does.
fn unchecked(options: &mut Options) {
    options.tuning.check_every = Duration::MAX;
}

#[tokio::test]
async fn the_doctor_finds_and_mends() {
    let url = database().await;
    let engine = node(&url, unchecked).await;
    let incident = chain("one", &["a"]).replace(
        r#""retry":{"first_delay":"20ms""#,
        r#""on_failure":"incident","retry":{"first_delay":"20ms""#,
    );
    engine.register(NS, &incident).await.unwrap();
    let hand = Hand::new(&engine);
    let mut runs = Vec::new();
    for _ in 0..3 {
        runs.push(engine.start_run(NS, start("one", "1")).await.unwrap().id);
    }
    let task = hand.one().await;
    hand.fail(&task, FailureKind::Permanent).await;
    let view = engine.run(NS, task.run, None).await.unwrap();
    assert!(view.conditions.iter().any(|condition| condition.kind == "IncidentOpen"), "{view:?}");
    engine.stop().await;
    let engine = node(&url, unchecked).await;
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    let mut connection = PgConnection::connect(&url).await.unwrap();
    for wrong in [
        "update runs set state = 'ended', outcome = 'succeeded' where state <> 'waiting'",
        "delete from ready",
        "delete from incidents",
        "update acts set actor = 'nobody'",
        "insert into ready (run_id, step, action, attempt, namespace, queue, name, offered_at) \
         values (gen_random_uuid(), 'x', 'forward', 1, 'n', 'q', 'h', now())",
    ] {
        sqlx::raw_sql(wrong).execute(&mut connection).await.unwrap();
    }
    let found = engine.doctor(false).await.unwrap();
    assert_eq!((found.runs_checked, found.runs_wrong, found.mended), (3, 4, 0));
    // State and outcome of two runs, what they had on offer, an incident, and a line without a journal.
    assert_eq!(found.differences.len(), 4 + 2 + 1 + 1, "{:#?}", found.differences);
    assert_eq!(engine.doctor(true).await.unwrap().mended, 4);
    let after = engine.doctor(false).await.unwrap();
    assert_eq!(after.differences, Vec::<String>::new());
    // What was mended is worked on.
    let hand = Hand::new(&engine);
    for _ in 0..2 {
        let task = hand.one().await;
        assert_eq!(hand.succeed(&[task]).await[0].status, 200);
    }
}

async fn list(engine: &backstitch_engine::Engine, filter: RunFilter) -> Vec<RunId> {
    let mut found = Vec::new();
    let mut filter = RunFilter { limit: 2, ..filter };
    loop {
        let page = engine.runs(NS, filter.clone()).await.unwrap();
        found.extend(page.items.iter().map(|line| line.id));
        match page.next {
            Some(next) => filter.after = Some(next),
            None => return found,
        }
    }
}

#[tokio::test]
async fn runs_are_found_by_what_they_are() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let mut runs = Vec::new();
    for (number, workflow) in ["one", "two", "one", "two", "one"].into_iter().enumerate() {
        let mut request = start(workflow, "1");
        request.key = Some(format!("k{number}"));
        request.labels.insert("parity".to_owned(), (number % 2).to_string());
        runs.push(engine.start_run(NS, request).await.unwrap().id);
    }
    let hand = Hand::new(&engine);
    let task = loop {
        let task = hand.one().await;
        if task.run == runs[0] {
            break task;
        }
    };
    hand.succeed(&[task]).await;
    let any = RunFilter::default;
    let newest_first: Vec<RunId> = runs.iter().rev().copied().collect();
    assert_eq!(list(&engine, any()).await, newest_first);
    let two = RunFilter { workflow: Some("two".to_owned()), ..any() };
    assert_eq!(list(&engine, two).await, [runs[3], runs[1]]);
    let ended = RunFilter { state: Some(State::Ended), ..any() };
    assert_eq!(list(&engine, ended).await, [runs[0]]);
    let succeeded = RunFilter { outcome: Some(Outcome::Succeeded), ..any() };
    assert_eq!(list(&engine, succeeded).await, [runs[0]]);
    let key = RunFilter { key: Some("k3".to_owned()), ..any() };
    assert_eq!(list(&engine, key).await, [runs[3]]);
    let labels = RunFilter { labels: vec![("parity".to_owned(), "1".to_owned())], ..any() };
    assert_eq!(list(&engine, labels).await, [runs[3], runs[1]]);
    let nothing = RunFilter { key: Some("\0' or 1=1".to_owned()), ..any() };
    assert!(list(&engine, nothing).await.is_empty());
    assert!(
        engine.runs("elsewhere", RunFilter { limit: 10, ..any() }).await.unwrap().items.is_empty()
    );
    let forged = RunFilter { after: Some("r00".to_owned()), limit: 1, ..any() };
    assert!(matches!(
        engine.runs(NS, forged).await,
        Err(Error::Invalid { code: "invalid_cursor", .. })
    ));
    for foreign in [
        engine.run("elsewhere", runs[0], None).await,
        engine.run("elsewhere", runs[1], Some(1)).await,
    ] {
        assert!(matches!(foreign, Err(Error::NotFound { code: "unknown_run", .. })));
    }
}

#[tokio::test]
async fn history_is_read_page_by_page() {
    let engine = node(&database().await, |_| {}).await;
    engine.register(NS, &chain("two", &["a", "b"])).await.unwrap();
    let hand = Hand::new(&engine);
    let started = engine.start_run(NS, start("two", "1")).await.unwrap();
    for _ in 0..2 {
        let task = hand.one().await;
        hand.succeed(&[task]).await;
    }
    let whole = engine.history(NS, started.id, None, 1_000).await.unwrap();
    let (mut paged, mut after) = (Vec::new(), None);
    loop {
        let page = engine.history(NS, started.id, after.as_deref(), 2).await.unwrap();
        assert!(page.items.len() <= 2);
        paged.extend(page.items.iter().map(|entry| entry.event.text().to_owned()));
        after = page.next;
        if after.is_none() {
            break;
        }
    }
    let whole: Vec<&str> = whole.items.iter().map(|entry| entry.event.text()).collect();
    assert_eq!(paged, whole);
    let view = engine.run(NS, started.id, Some(1)).await.unwrap();
    assert_eq!((view.seq, view.outcome), (1, None), "as it was after its first record");
}

#[tokio::test]
async fn old_runs_go_with_their_partition() {
    let url = database().await;
    let engine = node(&url, |options| options.retention = Some(Duration::from_secs(86_400))).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    // Two weeks that are long over, with one ended run each; one of them also has a run that still moves.
    for (week, from, to, active) in [
        (
            "p20240101",
            "018cc251-f400-0000-0000-000000000000",
            "018ce65e-a800-0000-0000-000000000000",
            false,
        ),
        (
            "p20240108",
            "018ce65e-a800-0000-0000-000000000000",
            "018d0a6b-5c00-0000-0000-000000000000",
            true,
        ),
    ] {
        for table in ["journal", "snapshots", "runs", "incidents"] {
            let text = format!(
                "create table {table}_{week} partition of {table} for values from ('{from}') to ('{to}')"
            );
            sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
        }
        let state = if active { "running" } else { "ended" };
        let text = format!(
            "insert into runs (id, namespace, workflow, version, definition, state, started_at, ended_at) \
             values ('{from}', 'n', 'w', 1, 'd', '{state}', '2024-01-02', '2024-01-03')"
        );
        sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
    }
    let started = engine.start_run(NS, start("one", "1")).await.unwrap();
    // A week that is read at that moment is dropped with the next look.
    eventually("the week is dropped", async || {
        engine.run_once(BackgroundTask::Maintenance).await.unwrap();
        metric(&engine, "partitions_dropped_total") == 1.0
    })
    .await;
    let left: Vec<String> = sqlx::query_scalar(
        "select relname::text from pg_class where relname like 'runs_p2024____' and relkind = 'r'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert_eq!(left, ["runs_p20240108"]);
    let partition = partition_of(&mut connection, started.id).await;
    assert!(
        partition.starts_with("runs_p2"),
        "new runs do not fall into the default partition: {partition}"
    );
}

/// Returns the partition that holds a run's line.
async fn partition_of(connection: &mut PgConnection, run: RunId) -> String {
    sqlx::query_scalar("select tableoid::regclass::text from runs where id = $1")
        .bind(run.0)
        .fetch_one(connection)
        .await
        .unwrap()
}

#[tokio::test]
async fn a_week_that_is_dropped_behind_a_node_stops_nothing() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.run_once(BackgroundTask::Maintenance).await.unwrap();
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    engine.start_run(NS, start("one", "1")).await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let weeks: Vec<String> = sqlx::query_scalar(
        "select substr(relname::text, 6) from pg_class where relname like 'runs\\_p____%' and relkind = 'r'",
    )
    .fetch_all(&mut connection)
    .await
    .unwrap();
    assert!(weeks.len() > 1, "{weeks:?}");
    for week in weeks {
        for table in ["journal", "snapshots", "runs", "incidents"] {
            let text = format!("drop table {table}_{week}");
            sqlx::raw_sql(sqlx::AssertSqlSafe(text)).execute(&mut connection).await.unwrap();
        }
    }
    let started = engine.start_run(NS, start("one", "2")).await.unwrap();
    let partition = partition_of(&mut connection, started.id).await;
    assert_eq!(partition, "runs_default");
}

#[tokio::test]
async fn milestones_of_a_batch_share_a_row() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let starts = (0..20).map(|number| start("one", &number.to_string())).collect();
    let answers = engine.start_runs(NS, starts).await;
    let mut runs: Vec<String> =
        answers.into_iter().map(|answer| answer.id.unwrap().to_string()).collect();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    let rows: Vec<(String, String)> =
        sqlx::query_as("select namespace, milestones from events order by id")
            .fetch_all(&mut connection)
            .await
            .unwrap();
    assert!(rows.len() < 20, "{} rows", rows.len());
    let mut told = Vec::new();
    for (namespace, milestones) in rows {
        assert_eq!(namespace, NS);
        let milestones: Vec<serde_json::Value> = serde_json::from_str(&milestones).unwrap();
        for milestone in milestones {
            assert_eq!(milestone["type"], "run.started");
            assert_eq!((&milestone["workflow"], &milestone["version"]), (&"one".into(), &1.into()));
            told.push(milestone["run"].as_str().unwrap().to_owned());
        }
    }
    runs.sort_unstable();
    told.sort_unstable();
    assert_eq!(told, runs);
}

#[tokio::test]
async fn definitions_never_change() {
    let engine = node(&database().await, |_| {}).await;
    let definition = chain("one", &["a"]);
    engine.register(NS, &definition).await.unwrap();
    let changed = definition.replace("1s", "2s");
    assert!(matches!(
        engine.register(NS, &changed).await,
        Err(Error::Conflict { code: "version_conflict", .. })
    ));
    engine.register(NS, &changed.replace(r#""version":1"#, r#""version":2"#)).await.unwrap();
    let newest = engine.workflow(NS, "one", None).await.unwrap();
    assert_eq!((newest.version, newest.definition.is_some()), (2, true));
    let started = engine.start_run(NS, start("one", "1")).await.unwrap();
    assert_eq!(engine.run(NS, started.id, None).await.unwrap().version, 2, "the newest at once");
    let page = engine.workflows(NS, None, None, 1).await.unwrap();
    assert_eq!(page.items[0].version, 1);
    let rest = engine.workflows(NS, Some("one"), page.next.as_deref(), 10).await.unwrap();
    assert_eq!((rest.items.len(), rest.items[0].version, rest.next), (1, 2, None));
    let bad = engine.register(NS, r#"{"name":"BAD","version":0,"steps":[]}"#).await.unwrap_err();
    assert!(
        matches!(bad, Error::Invalid { code: "invalid_definition", ref violations } if violations.len() >= 2)
    );
    assert!(matches!(
        engine.start_run(NS, start("none", "1")).await,
        Err(Error::NotFound { code: "unknown_workflow", .. })
    ));
}

#[tokio::test]
async fn input_is_held_to_its_schema() {
    let engine = node(&database().await, |_| {}).await;
    let schema = r#"{"type":"object","required":["n"],"properties":{"n":{"type":"integer"}}}"#;
    let definition =
        chain("one", &["a"]).replace(r#""steps""#, &format!(r#""input_schema":{schema},"steps""#));
    engine.register(NS, &definition).await.unwrap();
    engine.start_run(NS, start("one", r#"{"n":1}"#)).await.unwrap();
    match engine.start_run(NS, start("one", r#"{"n":"x"}"#)).await {
        Err(Error::Invalid { code: "invalid_input", violations }) => {
            assert_eq!(violations[0].pointer, "/input/n");
        }
        other => panic!("{other:?}"),
    }
    for bad in [r#"{"n":1,"t":"\u0000"}"#, r#"{"n":1,"t":"\ud800"}"#, r#"{"n":1e999}"#] {
        let refused = engine.start_run(NS, start("one", bad)).await;
        assert!(matches!(refused, Err(Error::Invalid { .. })), "{bad}: {refused:?}");
    }
    let mut keyed = start("one", r#"{"n":1}"#);
    keyed.key = Some("a\0b".to_owned());
    assert!(matches!(
        engine.start_run(NS, keyed).await,
        Err(Error::Invalid { code: "invalid_request", .. })
    ));
}

#[tokio::test]
async fn credentials_are_found_by_their_secret_alone() {
    let engine = node(&database().await, |_| {}).await;
    let secret = engine.create_credential(NS, "ci", Role::Starter).await.unwrap();
    let found = engine.credential(&secret).await.unwrap().unwrap();
    assert_eq!(
        (found.name.as_str(), found.namespace.as_str(), found.role),
        ("ci", NS, Role::Starter)
    );
    assert!(engine.credential("bst_0").await.unwrap().is_none());
    assert!(matches!(
        engine.create_credential(NS, "ci", Role::Admin).await,
        Err(Error::Conflict { code: "credential_conflict", .. })
    ));
    engine.revoke_credential(NS, "ci").await.unwrap();
    assert!(engine.credential(&secret).await.unwrap().is_none());
    assert!(engine.revoke_credential(NS, "ci").await.is_err());
    let _ = Span::ZERO;
}

#[tokio::test]
async fn an_end_seen_elsewhere_ends_the_wait() {
    let url = database().await;
    let (first, second) = (node(&url, |_| {}).await, node(&url, |_| {}).await);
    first.register(NS, &chain("one", &["a"])).await.unwrap();
    let started = first.start_run(NS, start("one", "1")).await.unwrap();
    let hand = Hand::new(&second);
    let (view, ()) = tokio::join!(
        async { first.wait(NS, started.id, Duration::from_secs(60)).await.unwrap() },
        async {
            let task = hand.one().await;
            hand.succeed(&[task]).await;
        }
    );
    assert_eq!(view.outcome, Some(Outcome::Succeeded));
}
