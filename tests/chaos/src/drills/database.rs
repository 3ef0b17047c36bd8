//! Drills about what an engine believes of its database: sessions that take no writes, and rows that are lost.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::json;
use sqlx::{AssertSqlSafe, PgConnection};
use tokio::time::sleep;

use super::fleet::{faketime, lie};
use super::scene::{Came, Scene, status};
use super::single::{adds, claim_all};
use crate::program::{Body, Program};
use crate::stage::Ground;
use crate::worker::Script;

/// Time that a node may take to notice that its sessions accept no writes, and to be ready again once they
/// do.
const NOTICED_WITHIN: Duration = Duration::from_secs(10);

/// Returns a task, a sleep, and a task that fails once.
fn nap() -> Program {
    Program::new("nap").task("a", &[], adds(1)).step("nap", &["a"], Body::Sleep(4_000)).task(
        "b",
        &["nap"],
        Script { fails: 1, ..adds(2) },
    )
}

async fn execute(sql: &mut PgConnection, text: &str) -> anyhow::Result<()> {
    sqlx::query(AssertSqlSafe(text)).execute(sql).await?;
    Ok(())
}

/// Waits until `/readyz` of the first engine is answered by 200, or by anything else.
async fn ready(scene: &Scene<'_>, wanted: bool) -> bool {
    let (api, until) = (scene.at(0), Instant::now() + NOTICED_WITHIN);
    while Instant::now() < until {
        if (status(&api, Method::GET, "/readyz", None).await == 200) == wanted {
            return true;
        }
        sleep(Duration::from_millis(50)).await;
    }
    false
}

/// All sessions are closed, and those made instead take no writes, as behind a name that leads to a demoted server for
/// a while. Timers, retries and the sessions of people go on soon after new sessions take writes again.
pub(super) async fn read_only_sessions(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let mut scene = Scene::set(ground, 1, bug, &[nap()], |_, _| {}).await?;
    let mut sql = scene.sql().await?;
    for number in 0..6 {
        scene.at(0).start("nap", &format!("before-{number}")).await?;
    }
    let name: String = sqlx::query_scalar("select current_database()").fetch_one(&mut sql).await?;
    execute(&mut sql, &format!("alter database {name} set default_transaction_read_only = on"))
        .await?;
    execute(
        &mut sql,
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where datname = current_database() and pid <> pg_backend_pid()",
    )
    .await?;
    scene.timeline.note("new sessions take no writes");
    if !ready(&scene, false).await {
        scene.wrong("I9", None, "/readyz says 200 while no session takes writes");
    }
    // Every pool makes new sessions meanwhile.
    sleep(Duration::from_secs(2)).await;
    execute(&mut sql, &format!("alter database {name} reset default_transaction_read_only"))
        .await?;
    scene.timeline.note("new sessions take writes");
    if !ready(&scene, true).await {
        scene.wrong("I9", None, "/readyz does not say 200 though new sessions take writes");
    }
    for number in 0..6 {
        scene.at(0).start("nap", &format!("after-{number}")).await?;
    }
    scene.finish().await
}

/// The clock of PostgreSQL is an hour ahead for some seconds, then right again. Timers and retries of runs that begin
/// then come in time.
pub(super) async fn database_clock(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let Some(library) = faketime() else {
        let skipped = Some("faketime is not installed".to_owned());
        return Ok(Came { skipped, ..Came::default() });
    };
    let clock = std::env::temp_dir().join(format!("backstitch-chaos-clock-{}", std::process::id()));
    std::fs::write(&clock, "+0\n")?;
    let file = clock.display().to_string();
    let apart = ground.beside(lie(&library, ("FAKETIME_TIMESTAMP_FILE", &file))).await?;
    let plain = Program::new("plain").task("a", &[], adds(1));
    let mut scene = Scene::set(&apart, 1, bug, &[nap(), plain], |_, _| {}).await?;
    scene.at(0).start("plain", "before").await?;
    std::fs::write(&clock, "+1h\n")?;
    scene.timeline.note("the clock of PostgreSQL is an hour ahead");
    for number in 0..8 {
        scene.at(0).start("plain", &format!("ahead-{number}")).await?;
        sleep(Duration::from_millis(500)).await;
    }
    std::fs::write(&clock, "+0\n")?;
    scene.timeline.note("the clock of PostgreSQL is right");
    if !ready(&scene, true).await {
        scene.wrong("I9", None, "/readyz does not say 200 though the clock is right again");
    }
    for number in 0..6 {
        scene.at(0).start("nap", &format!("after-{number}")).await?;
    }
    let came = scene.finish().await;
    std::fs::remove_file(&clock)?;
    came
}

/// Rows of the indexes are lost: a task that is on offer, a timer, the node in charge. The journal knows, and the runs
/// go on without anybody's help.
pub(super) async fn lost_rows(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let tasks = Program::new("pair").task("a", &[], adds(1)).task("b", &["a"], adds(2));
    let scene = Scene::set(ground, 2, bug, &[nap(), tasks], |_, engine| {
        engine.tuning.push_str(",check_every=1s");
    })
    .await?;
    let mut sql = scene.sql().await?;
    let naps = 6;
    for number in 0..naps {
        scene.at(number % 2).start("nap", &format!("nap-{number}")).await?;
    }
    // The first steps of the naps are done by hand, so that they sleep.
    let claimed = claim_all(&scene.at(0), naps).await;
    let claimed: Vec<_> = claimed.iter().collect();
    super::single::apply(ground, &claimed).await?;
    scene.at(0).report(&claimed, &json!({ "v": 1 })).await;
    for number in 0..6 {
        scene.at(number % 2).start("pair", &format!("pair-{number}")).await?;
    }
    // Nobody is in charge of a run that has been quiet for long; its timer is known to the table alone.
    sleep(Duration::from_millis(1_800)).await;
    execute(&mut sql, "delete from ready").await?;
    execute(&mut sql, "update runs set wake_at = null, node = null").await?;
    scene.timeline.note("the rows of tasks on offer and of timers are gone");
    scene.finish().await
}
