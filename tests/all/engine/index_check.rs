//! Rows of the indexes are lost or wrong, and journals cannot be read: both are found without an operator.

use std::time::Duration;

use backstitch_engine::{BackgroundTask, Engine, Error, FactAct, RunFilter};
use backstitch_saga::protocol::{
    FailureKind, IncidentFilter, OnConflict, Outcome, Requirement, StartRun, StartSequence,
    TaskOffer,
};
use backstitch_saga::{Command, IncidentKind, RunId, Span};
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, by, chain, metric, node, start};
use backstitch_tests::postgres::database;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

const NAP: &str = r#"{"name":"nap","version":1,"steps":[{"id":"one","sleep":{"for":"3s"}}]}"#;

async fn engine(url: &str) -> Engine {
    node(url, |options| {
        options.tuning.check_every = Duration::ZERO;
        options.tuning.park_after = Duration::from_millis(100);
    })
    .await
}

async fn execute(connection: &mut PgConnection, text: &str) -> u64 {
    let text = sqlx::raw_sql(AssertSqlSafe(text.to_owned()));
    text.execute(connection).await.unwrap().rows_affected()
}

/// Looks until the indexes say what the journals say.
async fn mended(engine: &Engine, what: &str) {
    eventually(what, async || {
        engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        engine.doctor(false).await.unwrap().differences.is_empty()
    })
    .await;
}

fn incident(name: &str) -> String {
    chain(name, &["a"]).replace(
        r#""retry":{"first_delay":"20ms""#,
        r#""on_failure":"incident","retry":{"first_delay":"20ms""#,
    )
}

#[tokio::test]
async fn an_index_row_that_is_lost_or_wrong_is_mended_whatever_it_is() {
    let url = database().await;
    let engine = engine(&url).await;
    let far = chain("one", &["a"]).replace(r#""name":"do","#, r#""name":"do","queue":"far","#);
    for definition in [NAP.to_owned(), far, incident("stuck")] {
        engine.register(NS, &definition.replace("3s", "1h")).await.unwrap();
    }
    let hand = Hand::new(&engine);
    let mut keyed = start("stuck", "1");
    keyed.key = Some("k".to_owned());
    let stuck = engine.start_run(NS, keyed.clone()).await.unwrap().id;
    hand.fail(&hand.one().await, FailureKind::Permanent).await;
    engine
        .command(
            NS,
            stuck,
            Command::Hold {
                hold: backstitch_saga::Hold::new(backstitch_saga::HoldKind::Paused, "a test"),
                by: Some(by("a test")),
                message: String::new(),
            },
        )
        .await
        .unwrap();
    let napping = engine.start_run(NS, start("nap", "1")).await.unwrap().id;
    let queued = engine.start_run(NS, start("one", "1")).await.unwrap().id;
    mended(&engine, "all is well").await;
    let before = metric(&engine, "indexes_mended_total");
    let mut outside = PgConnection::connect(&url).await.unwrap();
    for wrong in [
        "delete from ready",
        "update runs set wake_at = null, node = null",
        "update runs set wake_at = wake_at + interval '1 day', node = null where wake_at is not null",
        "update runs set node = 999",
        "update runs set state = 'compensating', conditions = '{}' where state <> 'waiting'",
        "update runs set state = 'ended', outcome = 'succeeded', ended_at = now(), node = null, wake_at = null",
        "update runs set namespace = 'elsewhere'",
        "update runs set version = 7, workflow = 'other'",
        "delete from runs",
        "delete from incidents",
        "update incidents set resolved_at = now()",
        "delete from run_keys",
        "delete from acts",
        "update ready set namespace = 'elsewhere'",
        "update ready set queue = 'elsewhere'",
        "update ready set name = 'elsewhere'",
        "update incidents set namespace = 'elsewhere'",
        "update incidents set workflow = 'elsewhere'",
        "insert into ready (run_id, step, action, attempt, namespace, queue, name, offered_at) \
         values (gen_random_uuid(), 'x', 'forward', 1, 'test', 'q', 'h', now())",
    ] {
        assert!(execute(&mut outside, wrong).await > 0, "{wrong}");
        mended(&engine, wrong).await;
    }
    assert!(metric(&engine, "indexes_mended_total") > before);
    // What was mended is right: the key is held, the task is on offer, the lists are complete.
    let again = engine.start_run(NS, keyed).await.unwrap();
    assert_eq!((again.id, again.created), (stuck, false));
    let offered = "select count(*) from ready where queue = 'far' and name = 'do'";
    assert_eq!(count(&url, offered).await, 1);
    let listed = engine.runs(NS, RunFilter { limit: 10, ..RunFilter::default() }).await.unwrap();
    let listed: Vec<RunId> = listed.items.iter().map(|line| line.id).collect();
    assert_eq!(listed, [queued, napping, stuck]);
}

#[tokio::test]
async fn a_key_that_was_given_away_while_its_line_was_lost_is_told_and_not_called_mended() {
    let url = database().await;
    let engine = engine(&url).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let keyed = StartRun { key: Some("k".to_owned()), ..start("one", "1") };
    let first = engine.start_run(NS, keyed.clone()).await.unwrap().id;
    mended(&engine, "all is well").await;
    let before = metric(&engine, "indexes_mended_total");
    let mut outside = PgConnection::connect(&url).await.unwrap();
    assert_eq!(execute(&mut outside, "delete from run_keys").await, 1);
    let second = engine.start_run(NS, keyed).await.unwrap();
    assert!(second.created && second.id != first);
    let told = async || {
        let conditions = engine.status(NS).await.conditions;
        conditions.into_iter().find(|one| one.kind == "KeysTaken").map(|one| one.message)
    };
    eventually("it is told", async || {
        engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        told().await.is_some_and(|message| message.contains(&first.to_string()))
    })
    .await;
    let diagnosis = engine.doctor(true).await.unwrap();
    assert_eq!((diagnosis.runs_wrong, diagnosis.mended), (1, 0), "{:?}", diagnosis.differences);
    assert!(diagnosis.differences[0].contains(&second.id.to_string()));
    assert_eq!(metric(&engine, "indexes_mended_total"), before);
    // Once one of the two has ended, all is well.
    let kill = Command::Kill { by: by("a test") };
    engine.command(NS, first, kill).await.unwrap();
    mended(&engine, "one of the two has ended").await;
    eventually("nothing is told", async || {
        engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        told().await.is_none()
    })
    .await;
}

#[tokio::test]
async fn a_run_that_its_index_forgot_goes_on_by_itself() {
    let url = database().await;
    let first = engine(&url).await;
    first.register(NS, NAP).await.unwrap();
    first.register(NS, &chain("one", &["a"])).await.unwrap();
    let napping = first.start_run(NS, start("nap", "1")).await.unwrap().id;
    let queued = first.start_run(NS, start("one", "1")).await.unwrap().id;
    first.stop().await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    execute(&mut outside, "update runs set wake_at = null, node = null").await;
    execute(&mut outside, "delete from ready").await;
    let second = engine(&url).await;
    let hand = Hand::new(&second);
    let task: TaskOffer = hand.one().await;
    assert_eq!(task.run, queued);
    hand.succeed(&[task]).await;
    for run in [napping, queued] {
        let view = second.wait(NS, run, Duration::from_secs(60)).await.unwrap();
        assert_eq!(view.outcome, Some(Outcome::Succeeded));
    }
}

#[tokio::test]
async fn a_place_among_others_that_is_lost_is_given_back() {
    let url = database().await;
    let engine = engine(&url).await;
    let sequence = r#""sequence":{"produces":[{"fact":"done","on":{"const":"x"}}]},"steps""#;
    let definition = chain("one", &["a"]).replace(r#""steps""#, sequence);
    engine.register(NS, &definition).await.unwrap();
    let begin = async |number: &str, key: &str, requires: Vec<Requirement>| {
        let sequence = StartSequence {
            serial_key: Some(key.to_owned()),
            on_conflict: Some(OnConflict::Queue),
            requires,
            ..StartSequence::default()
        };
        let request = StartRun { sequence: Some(sequence), ..start("one", number) };
        engine.start_run(NS, request).await.unwrap().id
    };
    let fact = Requirement { fact: "there".to_owned(), on: "y".to_owned() };
    let moving = begin("1", "k", Vec::new()).await;
    let waiting = begin("2", "k", Vec::new()).await;
    let awaiting = begin("3", "other", vec![fact.clone()]).await;
    mended(&engine, "all is well").await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    for wrong in [
        "delete from serial_keys where state = 'holding'",
        "delete from serial_keys where state = 'waiting'",
        "delete from serial_keys",
        "delete from serial_key_holders",
        "update serial_key_holders set run_id = gen_random_uuid()",
        "update serial_keys set granted = false, state = 'waiting' where state = 'holding'",
        "update serial_keys set key = 'elsewhere'",
        "delete from sequenced",
        "delete from awaited",
        "delete from promised",
        "delete from serial_keys; delete from sequenced; delete from awaited; delete from promised",
        "delete from serial_key_locks",
        "delete from required",
        "update required set on_withdrawn = 'ignore'",
        "update required set fact = 'other'",
    ] {
        assert!(execute(&mut outside, wrong).await > 0, "{wrong}");
        mended(&engine, wrong).await;
        let holding = "select run_id::text from serial_keys where key = 'k' and state = 'holding'";
        let holding: Vec<String> =
            sqlx::query_scalar(holding).fetch_all(&mut outside).await.unwrap();
        assert_eq!(holding, [moving.to_string()], "{wrong}");
    }
    // The key goes to who waits, and the fact lets the third begin.
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    assert_eq!(task.run, moving);
    hand.succeed(&[task]).await;
    let next = hand.one().await;
    assert_eq!(next.run, waiting);
    hand.succeed(&[next]).await;
    engine.act_on_fact(NS, &fact, FactAct::Establish, &by("a test")).await.unwrap();
    let last = hand.one().await;
    assert_eq!(last.run, awaiting);
    hand.succeed(&[last]).await;
    for run in [moving, waiting, awaiting] {
        let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
        assert_eq!(view.outcome, Some(Outcome::Succeeded));
    }
    eventually("nothing is left behind", async || {
        engine.run_once(BackgroundTask::Sequence).await.unwrap();
        let left = "select (select count(*) from serial_keys) + (select count(*) from sequenced) \
            + (select count(*) from awaited) + (select count(*) from promised) \
            + (select count(*) from serial_key_holders)";
        count(&url, left).await == 0
    })
    .await;
}

#[tokio::test]
async fn a_key_whose_row_is_lost_is_given_to_nobody_else() {
    let url = database().await;
    // Nobody looks for lost rows.
    let engine = node(&url, |options| options.tuning.check_every = Duration::MAX).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let begin = async |number: &str, policy: OnConflict| {
        let sequence = StartSequence {
            serial_key: Some("k".to_owned()),
            on_conflict: Some(policy),
            ..StartSequence::default()
        };
        let request = StartRun { sequence: Some(sequence), ..start("one", number) };
        engine.start_run(NS, request).await
    };
    let moving = begin("1", OnConflict::Queue).await.unwrap().id;
    let hand = Hand::new(&engine);
    let task = hand.one().await;
    assert_eq!(task.run, moving);
    let waiting = begin("2", OnConflict::Queue).await.unwrap().id;
    let last = begin("3", OnConflict::Queue).await.unwrap().id;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    let holding = "select run_id::text from serial_keys where key = 'k' and state = 'holding'";
    let lost = [
        "delete from serial_keys where state = 'holding'",
        "delete from serial_keys where state = 'holding'; delete from sequenced",
        "update serial_keys set state = 'waiting', granted = false",
        "delete from serial_key_holders",
    ];
    for lost in lost {
        assert!(execute(&mut outside, lost).await > 0, "{lost}");
        // Those in line are looked at, as at any time.
        eventually(lost, async || {
            engine.run_once(BackgroundTask::Sweep).await.unwrap();
            engine.run_once(BackgroundTask::Sequence).await.unwrap();
            let mut connection = PgConnection::connect(&url).await.unwrap();
            let held: Vec<String> =
                sqlx::query_scalar(holding).fetch_all(&mut connection).await.unwrap();
            assert!(held.iter().all(|run| *run == moving.to_string()), "{lost}: {held:?}");
            !held.is_empty()
        })
        .await;
        assert!(hand.claim(1, Span::millis(100)).await.is_empty(), "{lost}");
        execute(
            &mut outside,
            "insert into serial_key_holders select namespace, key, run_id, since \
            from serial_keys where state = 'holding' on conflict do nothing",
        )
        .await;
        let sequenced = "insert into sequenced (run_id, namespace, since) \
            select run_id, namespace, since from serial_keys on conflict do nothing";
        execute(&mut outside, sequenced).await;
    }
    // Nor is a start let in, and a place that is given back gives the key to nobody.
    execute(&mut outside, lost[0]).await;
    let refused = begin("4", OnConflict::Reject).await.unwrap_err();
    assert!(matches!(refused, Error::Conflict { code: "key_held", .. }), "{refused}");
    execute(&mut outside, lost[0]).await;
    assert_eq!(begin("5", OnConflict::UseExisting).await.unwrap().id, moving);
    execute(&mut outside, lost[0]).await;
    engine.command(NS, waiting, Command::Cancel { by: by("a test") }).await.unwrap();
    eventually("it has left the line", async || {
        engine.run_once(BackgroundTask::Sequence).await.unwrap();
        count(&url, "select count(*) from serial_keys").await == 2
    })
    .await;
    let held: Vec<String> = sqlx::query_scalar(holding).fetch_all(&mut outside).await.unwrap();
    assert_eq!(held, [moving.to_string()]);
    // The row is lost once more as the run ends: the next has its turn.
    execute(&mut outside, lost[0]).await;
    hand.succeed(&[task]).await;
    let task = hand.one().await;
    assert_eq!(task.run, last);
    // One that ended with all that says so lost is in nobody's way.
    execute(&mut outside, "delete from sequenced").await;
    hand.succeed(&[task]).await;
    let after = begin("6", OnConflict::Queue).await.unwrap().id;
    let task = hand.one().await;
    assert_eq!(task.run, after);
    hand.succeed(&[task]).await;
    eventually("nothing is left behind", async || {
        engine.run_once(BackgroundTask::Sequence).await.unwrap();
        let left = "select (select count(*) from serial_keys) + (select count(*) from sequenced) \
            + (select count(*) from serial_key_holders)";
        count(&url, left).await == 0
    })
    .await;
}

#[tokio::test]
async fn a_fence_that_is_lost_is_opened_again_while_the_attempt_is_held() {
    let url = database().await;
    let engine = engine(&url).await;
    let definition = chain("one", &["a"])
        .replace(r#""name":"do","#, r#""name":"do","transactional":true,"#)
        .replace(r#""heartbeat":"1s","attempt":"10s""#, r#""heartbeat":"1m","attempt":"2m""#);
    engine.register(NS, &definition).await.unwrap();
    let hand = Hand::new(&engine);
    engine.start_run(NS, start("one", "1")).await.unwrap();
    let task = hand.one().await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    eventually("the fence is open", async || count(&url, "select count(*) from fences").await == 1)
        .await;
    execute(&mut outside, "delete from fences").await;
    eventually("the fence is open again", async || {
        engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        count(&url, "select count(*) from fences where revoked_at is null").await == 1
    })
    .await;
    assert_eq!(hand.succeed(&[task]).await[0].status, 200);
    eventually("it is closed", async || count(&url, "select count(*) from fences").await == 0)
        .await;
}

async fn count(url: &str, text: &'static str) -> i64 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(text).fetch_one(&mut connection).await.unwrap()
}

/// Ways to destroy the journal of the run `$run`.
const DAMAGES: [&str; 13] = [
    "delete from journal where run_id = '$run'",
    "update journal set payloads = 'gone' where run_id = '$run' and seq = 1",
    "update journal set payloads = null where run_id = '$run' and seq = 1",
    "update journal set payloads = '[]' where run_id = '$run' and seq = 1",
    "update journal set events = 'gone' where run_id = '$run' and seq = 1",
    r#"update journal set events = '[{"teleported":{}}]' where run_id = '$run' and seq = 2"#,
    "update journal set events = replace(events, '\"one\"', '\"two\"') where run_id = '$run' and seq = 1",
    r#"update journal set events = '[{"incident_resolved":{"incident":4}}]' where run_id = '$run' and seq = 2"#,
    r#"update journal set events = '[{"leased":{"step":"one","action":"forward","attempt":-1,"worker":"w","until":1}}]' where run_id = '$run' and seq = 2"#,
    "update journal set format = 9 where run_id = '$run' and seq = 2",
    "update journal set seq = 3 where run_id = '$run' and seq = 2",
    "delete from journal where run_id = '$run' and seq = 1",
    "delete from definitions where name = 'nap'",
];

/// Returns a run of two records, the second of which says that it is paused.
async fn paused(engine: &Engine) -> RunId {
    let run = engine.start_run(NS, start("nap", r#""secret""#)).await.unwrap().id;
    let hold = backstitch_saga::Hold::new(backstitch_saga::HoldKind::Paused, "a test");
    let command = Command::Hold { hold, by: Some(by("a test")), message: String::new() };
    engine.command(NS, run, command).await.unwrap();
    run
}

fn is_damaged<T>(answer: &Result<T, Error>) -> bool {
    matches!(answer, Err(Error::Damaged(_)))
}

#[tokio::test]
async fn a_run_whose_journal_is_damaged_is_put_aside_until_it_is_repaired() {
    let url = database().await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    for damage in DAMAGES {
        let first = engine(&url).await;
        // It is not over before it is repaired, however long that takes.
        first.register(NS, &NAP.replace("3s", "1h")).await.unwrap();
        first.register("elsewhere", &chain("one", &["a"])).await.unwrap();
        let run = paused(&first).await;
        first.stop().await;
        execute(&mut outside, "create table kept as select * from journal").await;
        execute(&mut outside, "create table kept_definitions as select * from definitions").await;
        assert!(
            execute(&mut outside, &damage.replace("$run", &run.to_string())).await > 0,
            "{damage}"
        );
        let second = engine(&url).await;
        // Whoever asks is told so, by a code of its own.
        assert!(is_damaged(&second.run(NS, run, None).await), "{damage}");
        assert!(is_damaged(&second.why(NS, run).await), "{damage}");
        let cancel = Command::Cancel { by: by("a test") };
        assert!(is_damaged(&second.command(NS, run, cancel).await), "{damage}");
        assert!(matches!(second.run("elsewhere", run, None).await, Err(Error::NotFound { .. })));
        let with = |condition: &str| RunFilter {
            condition: Some(condition.to_owned()),
            limit: 10,
            ..RunFilter::default()
        };
        eventually(damage, async || {
            let listed = second.runs(NS, with("JournalDamaged")).await.unwrap();
            listed.items.iter().any(|line| line.id == run)
        })
        .await;
        let incidents = second.incidents(NS, &IncidentFilter::default(), None, 10).await.unwrap();
        let [told] = &incidents.items[..] else { panic!("{damage}: {incidents:?}") };
        assert_eq!((told.id.run, &*told.kind), (run, IncidentKind::JournalDamaged.as_str()));
        assert!(!told.message.contains("secret"), "{}", told.message);
        let view = second.incident(NS, told.id).await.unwrap();
        assert!(view.next.is_empty(), "nothing can be done about it but repairing");
        let named = second.doctor(true).await.unwrap().differences;
        assert!(named.iter().any(|one| one.starts_with(&run.to_string())), "{damage}: {named:?}");
        // The views and other namespaces go on.
        for view in ["history", "step", "effect", "document", "damaged_record"] {
            execute(&mut outside, &format!("select * from backstitch.{view}")).await;
        }
        let fine = second.start_run("elsewhere", start("one", "1")).await.unwrap().id;
        second.run("elsewhere", fine, None).await.unwrap();
        second.command("elsewhere", fine, Command::Cancel { by: by("a test") }).await.unwrap();
        // Once it is repaired, it goes on by itself.
        execute(&mut outside, &format!("delete from journal where run_id = '{run}'")).await;
        execute(
            &mut outside,
            &format!("insert into journal select * from kept where run_id = '{run}'"),
        )
        .await;
        execute(
            &mut outside,
            "insert into definitions select * from kept_definitions on conflict do nothing",
        )
        .await;
        execute(&mut outside, "drop table kept; drop table kept_definitions").await;
        mended(&second, damage).await;
        assert!(
            second
                .incidents(NS, &IncidentFilter::default(), None, 10)
                .await
                .unwrap()
                .items
                .is_empty()
        );
        let hold = backstitch_saga::Hold::new(backstitch_saga::HoldKind::Paused, "a test");
        let resume = Command::Unhold { hold: Some(hold), by: Some(by("a test")) };
        second.command(NS, run, resume).await.unwrap();
        let cancel = Command::Cancel { by: by("a test") };
        second.command(NS, run, cancel).await.unwrap();
        let view = second.wait(NS, run, Duration::from_secs(60)).await.unwrap();
        assert_eq!(view.outcome, Some(Outcome::Cancelled), "{damage}");
        second.stop().await;
    }
}

#[tokio::test]
async fn a_run_whose_records_are_all_gone_is_told_and_not_forgotten() {
    let url = database().await;
    let engine = engine(&url).await;
    engine.register(NS, NAP).await.unwrap();
    let run = paused(&engine).await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    execute(&mut outside, &format!("delete from journal where run_id = '{run}'")).await;
    eventually("it is put aside", async || {
        engine.run_once(BackgroundTask::CheckIndexes).await.unwrap();
        metric(&engine, "journals_damaged_total") == 1.0
    })
    .await;
    let incidents = engine.incidents(NS, &IncidentFilter::default(), None, 10).await.unwrap();
    assert_eq!(incidents.items[0].message, "it has no records");
}
