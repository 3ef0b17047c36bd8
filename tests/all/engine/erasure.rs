//! Runs whose documents are erased: no byte of them is left in the database, and the skeleton stays.

use backstitch_engine::local_postgres::find_binaries;
use backstitch_engine::{BackgroundTask, Engine, Error, IncidentAct};
use backstitch_saga::protocol::{EraseRun, Failure, FailureKind, IncidentId, Outcome, TaskOutcome};
use backstitch_saga::{By, Command, Payload, RunId};
use backstitch_tests::node::{Hand, NS, by, chain, node, report, start};
use backstitch_tests::postgres::{as_server, database};
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A mark in every document and in every text that a person can give.
const MARK: &str = "Ann-Marker-4711";

async fn execute(connection: &mut PgConnection, text: impl Into<String>) {
    sqlx::raw_sql(AssertSqlSafe(text.into())).execute(connection).await.unwrap();
}

async fn count(connection: &mut PgConnection, what: &str) -> i64 {
    let text = format!("select count(*) from {what}");
    sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(connection).await.unwrap()
}

/// Everything that stands in any table, as text, a line for each row; also the bytes of kept answers.
async fn everything(connection: &mut PgConnection) -> String {
    let tables: Vec<String> = sqlx::query_scalar(
        "select c.oid::regclass::text from pg_class c join pg_namespace n on n.oid = c.relnamespace \
         where c.relkind = 'r' and n.nspname not in ('pg_catalog', 'information_schema', 'pg_toast')",
    )
    .fetch_all(&mut *connection)
    .await
    .unwrap();
    let mut all = String::new();
    for table in tables {
        let text = format!("select to_jsonb(t)::text from {table} t");
        let rows: Vec<String> =
            sqlx::query_scalar(AssertSqlSafe(text)).fetch_all(&mut *connection).await.unwrap();
        rows.iter().for_each(|row| all.push_str(&format!("{table} {row}\n")));
    }
    let bodies: Vec<Vec<u8>> =
        sqlx::query_scalar("select body from idempotency_keys where body is not null")
            .fetch_all(connection)
            .await
            .unwrap();
    bodies.iter().for_each(|body| all.push_str(&String::from_utf8_lossy(body)));
    all
}

/// Returns a dump of the database, where the program for it is installed.
async fn dump(url: &str) -> Option<String> {
    let initdb = find_binaries().ok()?.initdb;
    let real = std::fs::canonicalize(&initdb).ok()?;
    let beside = [initdb, real].map(|path| path.with_file_name("pg_dump"));
    let program = beside.into_iter().find(|path| path.exists())?;
    let output = tokio::process::Command::new(program).arg(url).output().await.unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

async fn assert_no_mark(url: &str, connection: &mut PgConnection) {
    let all = everything(connection).await;
    let left: Vec<&str> = all.lines().filter(|line| line.contains(MARK)).collect();
    assert_eq!(left, Vec::<&str>::new());
    if let Some(dump) = dump(url).await {
        assert!(!dump.contains(MARK));
    }
}

fn request() -> EraseRun {
    EraseRun { reason: "a test".to_owned(), kill: false }
}

async fn erase(engine: &Engine, run: RunId) -> Result<u64, Error> {
    engine.erase(NS, run, &request(), &by("a test")).await.map(|erased| erased.runs)
}

fn code(error: &Error) -> &str {
    match error {
        Error::Conflict { code, .. } | Error::NotFound { code, .. } => code,
        Error::Refused(refusal) => refusal.code.as_str(),
        other => panic!("{other:?}"),
    }
}

/// Returns a run that has seen documents of every kind and waits for a person.
async fn marked(engine: &Engine) -> RunId {
    let steps = r#"{"name":"marked","version":1,"sequence":{"serial_key":{"path":"/input/who"}},"steps":[
        {"id":"a","task":{"name":"do","input":{"path":"/input"},"compensate":{"name":"undo"}}},
        {"id":"w","after":["a"],"wait":{"signal":"go"}},
        {"id":"m","after":["w"],"map":{"items":{"path":"/input/list"},"join":"all","empty":"succeed","task":{"name":"do","input":{"path":"/item"},"class":"read_only"}}},
        {"id":"b","after":["m"],"task":{"name":"do","input":{"path":"/steps/a"},"on_failure":"incident","class":"retriable","retry":{"max_attempts":1}}}]}"#;
    engine.register(NS, steps).await.unwrap();
    let mut request = start("marked", &format!(r#"{{"who":"{MARK}","list":["{MARK}"]}}"#));
    request.key = Some(format!("key-{MARK}"));
    request.correlation_id = Some(format!("story-{MARK}"));
    request.labels.insert("who".to_owned(), MARK.to_owned());
    let run = engine.start_run(NS, request.clone()).await.unwrap().id;
    let hand = Hand::new(engine);
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    let signal = Command::Signal {
        name: "go".into(),
        data: Payload::trusted(format!("\"{MARK}\"")).unwrap(),
        by: By { actor: MARK.into(), reason: MARK.to_owned() },
        checked: None,
    };
    engine.command(NS, run, signal).await.unwrap();
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    let task = hand.one().await;
    let failure = Failure {
        kind: FailureKind::Permanent,
        code: "refused".to_owned(),
        message: MARK.to_owned(),
        details: Some(Payload::trusted(format!("\"{MARK}\"")).unwrap()),
        retry_after: None,
    };
    engine.complete(NS, vec![report(&task, TaskOutcome::Failed(failure))]).await;
    run
}

/// Adds what other parts keep of it.
async fn mark_beside(owner: &mut PgConnection, run: RunId) {
    execute(owner, format!(
        "insert into incident_notes (run_id, incident, namespace, at, actor, note) values ('{run}', 1, '{NS}', now(), 'ann', '{MARK}');
         insert into early_signals (namespace, workflow, key, signal, data, actor) values ('{NS}', 'marked', 'key-{MARK}', 'late', '\"{MARK}\"', 'ann');
         insert into start_requests (id, namespace, run_id, workflow, input, state) values (gen_random_uuid(), '{NS}', '{run}', 'marked', '\"{MARK}\"', 'refused');
         insert into idempotency_keys (namespace, scope, body_sha256, reserved_at, leased_until, status, body)
         values ('{NS}', 'a', 'b', now(), now(), 200, convert_to('{{\"run\":\"{run}\",\"input\":\"{MARK}\"}}', 'UTF8'))"
    )).await;
}

#[tokio::test]
async fn nothing_is_left_of_the_documents_of_a_run_that_is_erased() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = node(&url, |options| options.tuning.first_snapshot = 2).await;
    let run = marked(&engine).await;
    mark_beside(&mut owner, run).await;
    assert_eq!(code(&erase(&engine, run).await.unwrap_err()), "run_goes_on");
    engine.command(NS, run, Command::Kill { by: by(MARK) }).await.unwrap();
    assert!(everything(&mut owner).await.matches(MARK).count() > 10);
    let erased = engine.erase(NS, run, &request(), &by("a test")).await.unwrap();
    assert_eq!((erased.runs, erased.pending), (1, 0));
    assert_no_mark(&url, &mut owner).await;
    // The skeleton is there, and says so.
    let view = engine.run(NS, run, None).await.unwrap();
    assert_eq!((view.workflow.as_str(), view.erased_at), ("marked", Some(erased.erased_at)));
    assert!(view.outcome.is_some() && view.input.is_null() && view.labels.is_empty());
    assert!(view.conditions.iter().any(|one| one.kind == "Erased"), "{view:?}");
    let history = engine.history(NS, run, None, 1_000).await.unwrap();
    assert!(history.items.iter().any(|entry| entry.event.text().contains("a test")));
    assert_eq!(engine.doctor(false).await.unwrap().differences, Vec::<String>::new());
    let acts: Vec<String> = sqlx::query_scalar(AssertSqlSafe(format!(
        "select actor || ' ' || reason from acts where run_id = '{run}' and verb = 'erase'"
    )))
    .fetch_all(&mut owner)
    .await
    .unwrap();
    assert_eq!(acts, ["ann a test"]);
    // Twice is once, and nothing else can be asked of it.
    let again = engine.erase(NS, run, &request(), &by("again")).await.unwrap();
    assert_eq!(again.erased_at, erased.erased_at);
    let label = Command::Label {
        set: [("a".to_owned(), "b".to_owned())].into(),
        remove: Vec::new(),
        by: by("a test"),
    };
    let refused = engine.command(NS, run, label).await.unwrap_err();
    assert_eq!(code(&refused), "run_erased");
    let incident = IncidentId { run, number: 1 };
    for refused in [
        engine.note_incident(NS, incident, "ann", MARK).await.unwrap_err(),
        engine.assign_incident(NS, incident, "ann", Some(MARK), None).await.unwrap_err(),
        engine
            .act_on_incident(NS, incident, IncidentAct::MarkCompensated, by(""))
            .await
            .unwrap_err(),
    ] {
        assert_eq!(code(&refused), "run_erased");
    }
    // What was written meanwhile goes with the second pass, and the note of it then.
    execute(&mut owner, format!("insert into snapshots (run_id, seq, definition, state) values ('{run}', 1, 'd', '{MARK}')")).await;
    execute(&mut owner, "update erasures set due_at = now() - interval '1 minute'").await;
    engine.run_once(BackgroundTask::DeleteRuns).await.unwrap();
    assert_no_mark(&url, &mut owner).await;
    assert_eq!(count(&mut owner, "erasures").await, 0);
}

#[tokio::test]
async fn a_note_that_waited_for_an_erasure_is_refused() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let mut eraser = PgConnection::connect(&url).await.unwrap();
    let engine = node(&url, |_| {}).await;
    let incident = IncidentId { run: marked(&engine).await, number: 1 };
    // What the record of an erasure does to the index, not committed yet.
    let mut transaction = eraser.begin().await.unwrap();
    let text = "update runs set conditions = array_append(conditions, 'Erased')";
    sqlx::query(text).execute(&mut *transaction).await.unwrap();
    let asked = [None, Some("bob")].map(|assignee| {
        let engine = engine.clone();
        tokio::spawn(async move {
            match assignee {
                None => engine.note_incident(NS, incident, "ann", MARK).await,
                Some(bob) => {
                    engine.assign_incident(NS, incident, "ann", Some(bob), Some(MARK)).await
                }
            }
        })
    });
    let waits = "pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'";
    while count(&mut owner, waits).await < 2 {
        tokio::time::sleep(std::time::Duration::from_millis(10)).await;
    }
    transaction.commit().await.unwrap();
    for asked in asked {
        assert_eq!(code(&asked.await.unwrap().unwrap_err()), "run_erased");
    }
    assert_eq!(count(&mut owner, "incident_notes").await, 0);
    assert_eq!(count(&mut owner, "incident_assignees").await, 0);
}

#[tokio::test]
async fn two_nodes_that_erase_a_run_at_once_erase_it_once_and_a_third_shows_nothing_of_it() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let (one, other, third) =
        (node(&url, |_| {}).await, node(&url, |_| {}).await, node(&url, |_| {}).await);
    let run = marked(&one).await;
    // Each has it in memory, with its documents.
    for engine in [&other, &third] {
        let label = Command::Label {
            set: [("who".to_owned(), MARK.to_owned())].into(),
            remove: Vec::new(),
            by: by(MARK),
        };
        engine.command(NS, run, label).await.unwrap();
    }
    one.command(NS, run, Command::Kill { by: by("over") }).await.unwrap();
    // PostgreSQL may end one of them to let the other go on; whoever asked asks again.
    let erase_again = async |engine: &Engine| {
        for _ in 0..10 {
            match erase(engine, run).await {
                Err(error) if error.to_string().contains("40P01") => {}
                done => return done.unwrap(),
            }
        }
        panic!("one of them never erases it");
    };
    tokio::join!(erase_again(&one), erase_again(&other));
    assert_no_mark(&url, &mut owner).await;
    let erased = format!("journal where run_id = '{run}' and events like '%\"erased\":{{%'");
    assert_eq!(count(&mut owner, &erased).await, 1);
    assert_eq!(
        count(&mut owner, &format!("acts where run_id = '{run}' and verb = 'erase'")).await,
        1
    );
    third.run_once(BackgroundTask::DeleteRuns).await.unwrap();
    for engine in [&one, &other, &third] {
        let view = engine.run(NS, run, None).await.unwrap();
        assert!(view.erased_at.is_some() && !serde_json::to_string(&view).unwrap().contains(MARK));
    }
}

#[tokio::test]
async fn a_run_that_goes_on_is_erased_if_it_is_to_be_killed() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = node(&url, |_| {}).await;
    let run = marked(&engine).await;
    let ask = EraseRun { kill: true, ..request() };
    let nameless = By { actor: "ann".into(), reason: String::new() };
    let refused = engine.erase(NS, run, &ask, &nameless).await.unwrap_err();
    assert_eq!(code(&refused), "reason_missing");
    assert_eq!(engine.erase(NS, run, &ask, &by("a test")).await.unwrap().runs, 1);
    assert_no_mark(&url, &mut owner).await;
    let view = engine.run(NS, run, None).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::FailedDirty), "what it did stays");
}

#[tokio::test]
async fn a_tree_is_erased_from_its_root_when_all_of_it_has_ended() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let parent = r#"{"name":"parent","version":1,"steps":[
        {"id":"c","child":{"workflow":"one","version":1,"input":{"path":"/input"}}}]}"#;
    engine.register(NS, parent).await.unwrap();
    let root = engine.start_run(NS, start("parent", &format!("\"{MARK}\""))).await.unwrap().id;
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    let child = task.run;
    assert_eq!(code(&erase(&engine, child).await.unwrap_err()), "not_the_root");
    assert_eq!(code(&erase(&engine, root).await.unwrap_err()), "run_goes_on");
    assert_eq!(hand.succeed(&[task]).await[0].status, 200);
    let long = std::time::Duration::from_secs(60);
    assert!(engine.wait(NS, root, long).await.unwrap().outcome.is_some());
    assert_eq!(erase(&engine, root).await.unwrap(), 2);
    assert_no_mark(&url, &mut owner).await;
    assert!(engine.run(NS, child, None).await.unwrap().erased_at.is_some());
    let unknown = engine.erase("elsewhere", root, &request(), &by("a test")).await.unwrap_err();
    assert_eq!(code(&unknown), "unknown_run");
}

#[tokio::test]
async fn a_servers_role_rewrites_no_journal_of_a_run_that_is_not_erased() {
    let url = database().await;
    let mut owner = PgConnection::connect(&url).await.unwrap();
    let engine = node(&url, |_| {}).await;
    let run = marked(&engine).await;
    let mut server = PgConnection::connect(&as_server(&url)).await.unwrap();
    let rewrite = async |server: &mut PgConnection, seq: i32, events: &str, payloads: &str| {
        sqlx::query("select backstitch.erase_run($1, $2, $3, $4)")
            .bind(run.0)
            .bind(vec![seq])
            .bind(vec![events.to_owned()])
            .bind(vec![payloads.to_owned()])
            .execute(server)
            .await
            .map_err(|error| error.to_string())
    };
    let refused = rewrite(&mut server, 1, "[]", "[null]").await.unwrap_err();
    assert!(refused.contains("was not erased"), "{refused}");
    engine.command(NS, run, Command::Kill { by: by("over") }).await.unwrap();
    assert_eq!(erase(&engine, run).await.unwrap(), 1);
    let last = format!("select max(seq) from journal where run_id = '{run}'");
    let last: i32 = sqlx::query_scalar(AssertSqlSafe(last)).fetch_one(&mut owner).await.unwrap();
    let refused = rewrite(&mut server, last, "[]", "[null]").await.unwrap_err();
    assert!(refused.contains("must stay"), "{refused}");
    let refused = rewrite(&mut server, 1, "[]", "[\"a document\"]").await.unwrap_err();
    assert!(refused.contains("without documents"), "{refused}");
}
