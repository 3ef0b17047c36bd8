//! Sessions with PostgreSQL that must not be used again, and the poolers that cannot be used at all.

use std::os::unix::fs::MetadataExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use backstitch_engine::{Engine, Options, grant_server, migrate};
use backstitch_saga::protocol::Outcome;
use backstitch_tests::eventually;
use backstitch_tests::node::{Hand, NS, by, chain, node, start};
use backstitch_tests::postgres::{database, server};
use backstitch_tests::proxy::Proxy;
use sqlx::{AssertSqlSafe, Connection, PgConnection};

/// A workflow that sleeps, fails once and is tried again.
const RESTING: &str = r#"{"name":"resting","version":1,"steps":[
    {"id":"nap","sleep":{"for":"2s"}},
    {"id":"work","after":["nap"],"task":{"name":"do","input":{"path":"/input"},"class":"retriable",
      "retry":{"first_delay":"100ms","jitter":"none"}}}]}"#;

fn name_of(url: &str) -> String {
    url.split('?').next().unwrap().rsplit('/').next().unwrap().to_owned()
}

async fn execute(connection: &mut PgConnection, text: String) {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await.unwrap();
}

/// Ends every session of a database but this one.
const CUT: &str = "select pg_terminate_backend(pid) from pg_stat_activity \
    where datname = current_database() and pid <> pg_backend_pid()";

#[tokio::test]
async fn sessions_that_were_read_only_are_left_once_the_database_takes_writes() {
    let url = database().await;
    let engine = node(&url, |options| {
        options.tuning.beat_every = Duration::from_millis(100);
        options.tuning.park_after = Duration::from_millis(100);
    })
    .await;
    engine.register(NS, RESTING).await.unwrap();
    let schedule = r#"{"cron":"* * * * * *","workflow":"resting","overlap":"allow"}"#;
    engine
        .put_schedule(NS, "ticking", serde_json::from_str(schedule).unwrap(), &by("a test"))
        .await
        .unwrap();
    let run = engine.start_run(NS, start("resting", "1")).await.unwrap().id;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    let name = name_of(&url);
    // What a writer that was demoted behind the same name does to sessions.
    execute(&mut outside, format!("alter database {name} set default_transaction_read_only = on"))
        .await;
    execute(&mut outside, CUT.to_owned()).await;
    eventually("the node is not ready", async || engine.probe().await.is_err()).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    assert!(engine.probe().await.is_err(), "nor does it become ready while nothing is written");
    assert!(engine.status(NS).await.conditions.iter().any(|one| one.kind == "WritesFail"));
    assert!(engine.start_run(NS, start("resting", "2")).await.is_err());
    execute(&mut outside, "begin read write".to_owned()).await;
    execute(
        &mut outside,
        format!("alter database {name} reset default_transaction_read_only; commit"),
    )
    .await;
    let count = async || -> i64 {
        let mut fresh = PgConnection::connect(&url).await.unwrap();
        sqlx::query_scalar("select count(*) from runs").fetch_one(&mut fresh).await.unwrap()
    };
    let before = count().await;
    eventually("the node is ready", async || engine.probe().await.is_ok()).await;
    let hand = Hand::new(&engine);
    let task = loop {
        let task = hand.one().await;
        if task.run == run {
            break task;
        }
    };
    hand.succeed(&[task]).await;
    let view = engine.wait(NS, run, Duration::from_secs(60)).await.unwrap();
    assert_eq!(view.outcome, Some(Outcome::Succeeded), "it woke from its sleep");
    eventually("schedules start runs", async || count().await > before).await;
    engine.stop().await;
}

#[tokio::test]
async fn sessions_that_are_cut_or_lose_their_settings_are_left() {
    let url = database().await;
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let hand = Hand::new(&engine);
    let mut outside = PgConnection::connect(&url).await.unwrap();
    for round in 0..3 {
        execute(&mut outside, CUT.to_owned()).await;
        let begun = async || engine.start_run(NS, start("one", &round.to_string())).await;
        let mut started = begun().await;
        while started.is_err() {
            started = begun().await;
        }
        let task = hand.one().await;
        hand.succeed(&[task]).await;
    }
    eventually("the node is ready", async || engine.probe().await.is_ok()).await;
    assert!(engine.doctor(false).await.unwrap().differences.is_empty());
}

#[tokio::test]
async fn sessions_that_fall_silent_are_left() {
    let url = database().await;
    let proxy = Proxy::start(server().await.dir().to_owned()).await;
    let engine = node(&proxy.url(&name_of(&url)), |options| {
        options.tuning.statement_limit = Duration::from_secs(3);
    })
    .await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let hand = Hand::new(&engine);
    engine.start_run(NS, start("one", "1")).await.unwrap();
    hand.succeed(&[hand.one().await]).await;
    // Nothing is closed and nothing answers: the system would wait for a quarter of an hour.
    proxy.silence();
    let began = Instant::now();
    let begun = async || engine.start_run(NS, start("one", "2")).await;
    let mut started = begun().await;
    while started.is_err() {
        assert!(began.elapsed() < Duration::from_secs(60), "{started:?}");
        started = begun().await;
    }
    let task = hand.one().await;
    hand.succeed(&[task]).await;
    eventually("the node is ready", async || engine.probe().await.is_ok()).await;
    assert!(began.elapsed() < Duration::from_secs(60), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_database_url_with_a_parameter_that_is_not_known_is_refused() {
    let url = format!("{}&sslmod=hunter2", database().await);
    let mut refused = vec![migrate(&url).await.unwrap_err().to_string()];
    let Err(error) = Engine::start(Options::new(&url)).await else { panic!("started") };
    refused.push(error.to_string());
    for error in refused {
        assert!(error.contains("'sslmod' is not known") && !error.contains("hunter2"), "{error}");
    }
}

/// A pgbouncer in front of the server of the tests.
struct Bouncer {
    child: Child,
    dir: PathBuf,
}

impl Drop for Bouncer {
    fn drop(&mut self) {
        // It may be gone already.
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

impl Bouncer {
    /// `None` where pgbouncer is not installed.
    async fn start(mode: &str, settings: &str) -> Option<Bouncer> {
        let program = ["/usr/sbin/pgbouncer", "/usr/bin/pgbouncer"];
        let Some(program) = program.into_iter().find(|path| std::fs::exists(path).unwrap()) else {
            eprintln!("SKIPPED: pgbouncer is not installed, so nothing is known of poolers");
            return None;
        };
        let upstream = server().await.dir();
        let owner = std::fs::metadata(upstream).unwrap();
        let dir =
            std::env::temp_dir().join(format!("bs-bouncer-{}", uuid::Uuid::new_v4().simple()));
        std::fs::create_dir(&dir).unwrap();
        std::os::unix::fs::chown(&dir, Some(owner.uid()), Some(owner.gid())).unwrap();
        let config = format!(
            "[databases]\n* = host={}\n[pgbouncer]\nunix_socket_dir = {}\nlisten_port = 6432\nauth_type = any\n\
             pool_mode = {mode}\n{settings}\n",
            upstream.display(),
            dir.display()
        );
        // With auth_type any all clients are one user of the server.
        let config = config.replace("* = host=", "* = user=backstitch host=");
        let file = dir.join("bouncer.ini");
        std::fs::write(&file, config).unwrap();
        let child = Command::new(program)
            .arg(&file)
            .uid(owner.uid())
            .gid(owner.gid())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let bouncer = Bouncer { child, dir };
        let socket = bouncer.dir.join(".s.PGSQL.6432");
        eventually("pgbouncer listens", async || socket.exists()).await;
        Some(bouncer)
    }

    fn url(&self, name: &str) -> String {
        let dir = self.dir.display().to_string().replace('/', "%2F");
        format!("postgres://backstitch@localhost:6432/{name}?host={dir}")
    }
}

#[tokio::test]
async fn a_pooler_that_gives_each_transaction_another_session_is_refused() {
    for mode in ["transaction", "statement"] {
        for settings in
            ["", "server_round_robin = 1", "min_pool_size = 5\nserver_reset_query_always = 1"]
        {
            let Some(bouncer) = Bouncer::start(mode, settings).await else { return };
            let url = bouncer.url(&name_of(&database().await));
            let mut refused = vec![migrate(&url).await.unwrap_err().to_string()];
            let Err(error) = Engine::start(Options::new(&url)).await else {
                panic!("started behind {mode} {settings}")
            };
            refused.push(error.to_string());
            for error in refused {
                assert!(
                    error.contains("connect to PostgreSQL itself or use session mode"),
                    "{mode} {settings}: {error}"
                );
            }
        }
    }
}

#[tokio::test]
async fn a_pooler_in_session_mode_serves_a_node_whose_settings_hold() {
    let settings = "default_pool_size = 60\nserver_reset_query = discard all";
    let Some(bouncer) = Bouncer::start("session", settings).await else { return };
    let name = name_of(&database().await);
    let url = bouncer.url(&name);
    migrate(&url).await.unwrap();
    let engine = node(&url, |_| {}).await;
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    let hand = Hand::new(&engine);
    for round in 0..10 {
        let run = engine.start_run(NS, start("one", &round.to_string())).await.unwrap().id;
        let task = hand.one().await;
        assert_eq!(task.run, run);
        hand.succeed(&[task]).await;
    }
    engine.probe().await.unwrap();
    assert!(engine.doctor(false).await.unwrap().differences.is_empty());
    // A statement that may take as long as it likes would be a session without its settings.
    let mut outside = PgConnection::connect(&server().await.url(&name)).await.unwrap();
    execute(&mut outside, "begin; lock table nodes in access exclusive mode".to_owned()).await;
    eventually("the node is not ready", async || engine.probe().await.is_err()).await;
    execute(&mut outside, "rollback".to_owned()).await;
    eventually("the node is ready", async || engine.probe().await.is_ok()).await;
    engine.stop().await;
}

/// Makes a role that a server may connect as, with a limit of its sessions. Returns its name and the URL.
async fn limited(url: &str, outside: &mut PgConnection, limit: i32) -> (String, String) {
    let role = format!("few_{}", name_of(url));
    execute(outside, format!("create role {role} login connection limit {limit}")).await;
    grant_server(url, &role, None).await.unwrap();
    let user = url.split("://").nth(1).and_then(|rest| rest.split(['@', ':']).next()).unwrap();
    let url = url.replacen(&format!("://{user}"), &format!("://{role}"), 1);
    (role, url)
}

#[tokio::test]
async fn a_server_does_not_start_where_fewer_sessions_are_granted_than_it_needs() {
    let url = database().await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    let (role, limited) = limited(&url, &mut outside, 20).await;
    let options = Options::new(&*limited);
    let refused = Engine::start(options.clone()).await.err().unwrap().to_string();
    let words =
        "sessions with PostgreSQL, and the connection limit of the role allows 20; raise it";
    assert!(refused.contains(words), "{refused}");
    execute(&mut outside, format!("alter role {role} connection limit 60")).await;
    Engine::start(options.clone()).await.unwrap().stop().await;
    let name = name_of(&url);
    execute(&mut outside, format!("alter database {name} connection limit 12")).await;
    let refused = Engine::start(options).await.err().unwrap().to_string();
    assert!(refused.contains("the connection limit of the database allows 12"), "{refused}");
    execute(&mut outside, format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn sessions_that_cannot_be_had_are_told_and_gone_on_without_once_they_can() {
    let url = database().await;
    let mut outside = PgConnection::connect(&url).await.unwrap();
    let (role, limited) = limited(&url, &mut outside, 60).await;
    let engine = Engine::start(Options::new(&*limited)).await.unwrap();
    engine.register(NS, &chain("one", &["a"])).await.unwrap();
    engine.probe().await.unwrap();
    // What it has it keeps; nothing more is granted.
    execute(&mut outside, format!("alter role {role} connection limit 1")).await;
    let asking = tokio::spawn({
        let engine = engine.clone();
        async move {
            futures::future::join_all((0..8).map(|_| engine.start_run(NS, start("one", "1")))).await
        }
    });
    let told = async || {
        let status = engine.status(NS).await;
        let condition = status.conditions.iter().find(|one| one.kind == "SessionsMissing");
        condition.is_some_and(|one| one.message.contains("needs up to"))
    };
    eventually("the shortage is a condition", told).await;
    let unready = engine.probe().await.unwrap_err().to_string();
    assert!(unready.contains("raise max_connections"), "{unready}");
    execute(&mut outside, format!("alter role {role} connection limit 60")).await;
    eventually("the node is ready", async || engine.probe().await.is_ok()).await;
    asking.await.unwrap();
    engine.start_run(NS, start("one", "2")).await.unwrap();
    eventually("nothing is told any more", async || engine.status(NS).await.conditions.is_empty())
        .await;
    engine.stop().await;
    execute(&mut outside, format!("drop owned by {role}; drop role {role}")).await;
}

#[tokio::test]
async fn a_node_that_starts_while_no_connection_is_free_waits_for_one() {
    let url = database().await;
    let name = name_of(&url);
    let late = format!("late_{name}");
    let mut outside = PgConnection::connect(&url).await.unwrap();
    execute(&mut outside, format!("create role {late} login connection limit 0")).await;
    grant_server(&url, &late, None).await.unwrap();
    let user = url.split("://").nth(1).and_then(|rest| rest.split(['@', ':']).next()).unwrap();
    let url = url.replacen(&format!("://{user}"), &format!("://{late}"), 1);
    let mut options = Options::new(&*url);
    let refused = Engine::start(options.clone()).await.err().unwrap().to_string();
    assert!(refused.contains("too many connections"), "{refused}");
    options.database_wait = Duration::from_secs(60);
    let started = tokio::spawn(Engine::start(options));
    tokio::time::sleep(Duration::from_millis(600)).await;
    assert!(!started.is_finished(), "it waits");
    execute(&mut outside, format!("alter role {late} connection limit -1")).await;
    started.await.unwrap().unwrap().stop().await;
    execute(&mut outside, format!("drop owned by {late}; drop role {late}")).await;
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_not_waited_for() {
    let url = database().await;
    let mut options = Options::new(url.replacen(&name_of(&url), "no_such_database", 1));
    options.database_wait = Duration::from_secs(3_600);
    let refused = Engine::start(options).await.err().unwrap().to_string();
    assert!(refused.contains("does not exist"), "{refused}");
}
