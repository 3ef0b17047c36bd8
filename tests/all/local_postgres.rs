//! The private server: it works, keeps what it is told to keep, and dies with its parent.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use backstitch_engine::local_postgres::{LocalPostgres, StartOptions};
use backstitch_tests::postgres;
use sqlx::{Connection, PgConnection};

const CHILD: &str = "BACKSTITCH_TEST_POSTGRES_CHILD";

async fn one(url: &str, statement: &'static str) -> i32 {
    let mut connection = PgConnection::connect(url).await.unwrap();
    sqlx::query_scalar(statement).fetch_one(&mut connection).await.unwrap()
}

fn temporary(name: &str) -> std::path::PathBuf {
    std::env::temp_dir().join(format!("backstitch-test-{name}-{}", std::process::id()))
}

#[tokio::test]
async fn databases_are_made_and_copied() {
    let server = postgres::server().await;
    server.create_database("first").await.unwrap();
    let mut connection = PgConnection::connect(&server.url("first")).await.unwrap();
    sqlx::raw_sql("create table t as select 42 as n").execute(&mut connection).await.unwrap();
    connection.close().await.unwrap();
    server.copy_database("odd \"name\"", "first").await.unwrap();
    assert_eq!(one(&server.url("odd \"name\""), "select n from t").await, 42);
    assert!(server.create_database("first").await.is_err(), "a taken name is refused");
    server.drop_database("first").await.unwrap();
}

#[tokio::test]
async fn data_survives_a_restart() {
    let dir = temporary("restart");
    let options = StartOptions { data_dir: Some(dir.clone()), ..StartOptions::default() };
    let server = LocalPostgres::start(options.clone()).await.unwrap();
    let url = server.url("kept");
    server.ensure_database("kept").await.unwrap();
    let mut connection = PgConnection::connect(&url).await.unwrap();
    sqlx::raw_sql("create table t as select 7 as n").execute(&mut connection).await.unwrap();
    server.stop().await;
    let server = LocalPostgres::start(options).await.unwrap();
    server.ensure_database("kept").await.unwrap();
    assert_eq!(server.url("kept"), url);
    assert_eq!(one(&url, "select n from t").await, 7);
    server.stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}

/// Not a test of its own: the parent that the next test kills.
#[tokio::test]
async fn child_that_is_killed() {
    if std::env::var_os(CHILD).is_none() {
        return;
    }
    let server = LocalPostgres::start(StartOptions::default()).await.unwrap();
    println!("\nCHILD {} {}", server.pid(), server.dir().display());
    std::future::pending::<()>().await;
}

#[tokio::test]
async fn the_server_dies_with_a_killed_parent() {
    let mut child = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "local_postgres::child_that_is_killed", "--nocapture"])
        .env(CHILD, "1")
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let line =
        lines.map_while(Result::ok).find_map(|line| line.strip_prefix("CHILD ").map(str::to_owned));
    let line = line.unwrap();
    let (pid, dir) = line.split_once(' ').unwrap();
    assert!(Path::new(dir).exists());
    child.kill().unwrap();
    child.wait().unwrap();
    let alive = || {
        let status = Command::new("kill").args(["-0", pid]).stderr(Stdio::null()).status();
        status.unwrap().success()
    };
    let started = Instant::now();
    while alive() || Path::new(dir).exists() {
        assert!(started.elapsed() < Duration::from_secs(60), "the server outlived its parent");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn a_directory_that_is_in_use_is_refused_at_once_and_its_holder_named() {
    let dir = temporary("claimed");
    let options = StartOptions { data_dir: Some(dir.clone()), ..StartOptions::default() };
    let server = LocalPostgres::start(options.clone()).await.unwrap();
    let began = Instant::now();
    let refused = LocalPostgres::start(options.clone()).await.unwrap_err().to_string();
    assert!(began.elapsed() < Duration::from_secs(12), "{:?}", began.elapsed());
    let holder = format!("another `backstitch` (process {})", std::process::id());
    assert!(refused.starts_with(&holder) && refused.contains("choose another"), "{refused}");
    server.stop().await;
    LocalPostgres::start(options).await.unwrap().stop().await;
    std::fs::remove_dir_all(dir).unwrap();
}
