//! `backstitch doctor` as an operator types it: what it says of an index that is wrong, and that it mends only when asked.

use std::time::Duration;

use backstitch_tests::node::{NS, chain, node, start};
use backstitch_tests::postgres::database;
use sqlx::{Connection, PgConnection};

use super::{Said, program};

#[tokio::test]
async fn doctor_tells_each_column_that_differs_and_mends_only_when_asked() {
    let url = database().await;
    let engine = node(&url, |options| options.tuning.check_every = Duration::MAX).await;
    engine.register(NS, &chain("one", &["only"])).await.unwrap();
    let id = engine.start_run(NS, start("one", "1")).await.unwrap().id;
    let mut sql = PgConnection::connect(&url).await.unwrap();
    sqlx::query("update runs set version = 7, outcome = 'succeeded'")
        .execute(&mut sql)
        .await
        .unwrap();
    let doctor = async |args: &[&str]| {
        let mut command = program();
        command.arg("doctor").args(args).env("BACKSTITCH_DATABASE_URL", &url);
        Said::of(command.output().await.unwrap())
    };
    let told = [
        format!("{id}: runs says version: 7; the journal says: 1\n"),
        format!("{id}: runs says outcome: succeeded; the journal says: nothing\n"),
    ];
    for _ in 0..2 {
        let found = doctor(&[]).await;
        assert_eq!(found.code, 1, "{found:?}");
        assert!(told.iter().all(|line| found.out.contains(line)), "{found:?}");
        assert!(
            found.out.contains("1 journal read, 2 differences found in 1 run, 0 runs mended."),
            "{found:?}"
        );
    }
    let mended = doctor(&["--mend"]).await;
    assert!(told.iter().all(|line| mended.out.contains(line)), "{mended:?}");
    assert!(!mended.err.contains("no transaction in progress"), "{mended:?}");
    let well = doctor(&[]).await;
    assert_eq!((well.code, well.out.lines().count()), (0, 1), "{well:?}");
    engine.stop().await;
}
