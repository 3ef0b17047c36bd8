//! Drills with one engine.

use std::time::{Duration, Instant};

use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::scene::{Came, Scene, output, run_of, status};
use crate::client::{Api, Log, Saw};
use crate::program::{Body, Join, Program};
use crate::proxy::Way;
use crate::stage::Ground;
use crate::worker::Script;

/// Longer than a lease of the programs here lasts without a sign of life.
const LEASE_OVER: Duration = Duration::from_millis(2_000);

fn reads() -> Script {
    Script { reads: true, adds: 1, ..Script::default() }
}

pub(super) fn adds(adds: i64) -> Script {
    Script { adds, ..Script::default() }
}

/// One step without effects.
pub(super) fn solo() -> Program {
    Program::new("solo").task("a", &[], reads())
}

/// Six items without effects at once, and one step after them.
pub(super) fn fan() -> Program {
    let map = Body::Map { items: vec![adds(1); 6], join: Join::All, at_once: 6 };
    Program::new("fan").step("each", &[], map).task("last", &["each"], reads())
}

/// Claims tasks of `api` until there are so many, or none comes any more.
pub(super) async fn claim_all(api: &Api, count: usize) -> Vec<Value> {
    let (session, mut tasks) = (Uuid::new_v4(), Vec::new());
    let until = Instant::now() + Duration::from_secs(10);
    while tasks.len() < count && Instant::now() < until {
        let most = u32::try_from(count - tasks.len()).unwrap_or(1);
        tasks.extend(api.claim(session, most, "500ms").await);
    }
    tasks
}

/// An attempt reports when its lease is over: while the next one is in another's hands, and while it is on offer.
pub(super) async fn late_reports(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let scene = Scene::set(ground, 1, bug, &[solo()], |_, _| {}).await?;
    let api = scene.at(0);
    api.start("solo", "held").await?;
    let first = api.claim_one(Uuid::new_v4()).await?;
    sleep(LEASE_OVER).await;
    let second = api.claim_one(Uuid::new_v4()).await?;
    scene.timeline.note("the first attempt reports while the second is leased");
    api.report(&[&first], &output()).await;
    api.report(&[&second], &output()).await;
    api.report(&[&first, &second], &output()).await;

    api.start("solo", "offered").await?;
    let first = api.claim_one(Uuid::new_v4()).await?;
    sleep(LEASE_OVER).await;
    scene.timeline.note("the first attempt reports while the second is on offer");
    api.report(&[&first], &output()).await;
    api.report(&[&first], &output()).await;
    scene.finish().await
}

/// All items of a fan-out are reported in one request, so that they are decided in one batch.
pub(super) async fn many_at_once(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let program = Program::new("six").step(
        "each",
        &[],
        Body::Map { items: vec![adds(1); 6], join: Join::BestEffort, at_once: 6 },
    );
    let mut scene = Scene::set(ground, 1, bug, &[program], |_, _| {}).await?;
    let api = scene.at(0);
    for number in 0..4 {
        let run = api.start("six", &format!("six-{number}")).await?;
        // What is reported by hand is not in the ledger.
        scene.interfered.insert(run);
        let tasks = claim_all(&api, 6).await;
        let tasks: Vec<&Value> = tasks.iter().collect();
        apply(ground, &tasks).await?;
        api.report(&tasks, &output()).await;
    }
    scene.finish().await
}

/// Makes the effects of tasks that are reported by hand.
pub(super) async fn apply(ground: &Ground, tasks: &[&Value]) -> anyhow::Result<()> {
    let http = reqwest::Client::new();
    for task in tasks {
        let text = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
        let ask = crate::ledger::Ask {
            op: crate::ledger::Op::Apply,
            run: run_of(task)?,
            step: text("step"),
            attempt: 1,
            key: text("effect_key").parse()?,
            worker: "hand".to_owned(),
            moves: Vec::new(),
        };
        crate::ledger::send(&http, ground.ledger_url(), &ask).await?;
    }
    Ok(())
}

/// The engine dies while its commit hangs: nobody may have been told that it was done.
pub(super) async fn hung_commit(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let mut scene = Scene::set(ground, 1, bug, &[solo()], |_, _| {}).await?;
    let api = scene.at(0);
    api.start("solo", "before").await?;
    scene.proxies[0].set(Way::Silent);
    scene.timeline.note("the way to PostgreSQL is half-open");
    let asking = {
        let api = api.clone();
        tokio::spawn(async move { api.start_once("solo", "meanwhile").await })
    };
    sleep(Duration::from_millis(700)).await;
    scene.proxies[0].set(Way::Cut);
    scene.engines[0].kill().await?;
    scene.timeline.note("the engine was killed");
    let _ = asking.await?;
    scene.proxies[0].set(Way::Open);
    scene.kill_and_start(0).await?;
    scene.finish().await
}

/// The engine dies with many tasks reserved that it had not handed out.
pub(super) async fn reserved_tasks(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let mut scene = Scene::set(ground, 1, bug, &[solo()], |_, _| {}).await?;
    let api = scene.at(0);
    for number in 0..30 {
        api.start("solo", &format!("solo-{number}")).await?;
    }
    let session = Uuid::new_v4();
    for _ in 0..3 {
        api.claim(session, 1, "1s").await;
    }
    scene.kill_and_start(0).await?;
    scene.finish().await
}

/// The engine dies right after a commit that put a task on offer.
pub(super) async fn after_commit(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let crash = ("BACKSTITCH_CRASH".to_owned(), "batch.after:3".to_owned());
    let mut scene = Scene::set(ground, 1, bug, &[solo()], |_, engine| {
        engine.env.push(crash.clone());
    })
    .await?;
    let api = scene.at(0);
    for number in 0..3 {
        api.start_once("solo", &format!("solo-{number}")).await;
    }
    let until = Instant::now() + Duration::from_secs(5);
    while !scene.engines[0].has_died() && Instant::now() < until {
        sleep(Duration::from_millis(20)).await;
    }
    if !crate::points::points().is_empty() && !scene.engines[0].has_died() {
        scene.wrong("drill", None, "the engine did not die at its crash point");
    }
    scene.kill_and_start(0).await?;
    scene.finish().await
}

/// A diamond with a tail is undone.
pub(super) async fn undo(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let program = Program::new("diamond")
        .task("a", &[], adds(1))
        .task("b", &["a"], adds(2))
        .task("c", &["a"], adds(3))
        .task("d", &["b", "c"], adds(4))
        .task("e", &["d"], Script { refuses: true, ..Script::default() });
    let scene = Scene::set(ground, 1, bug, &[program], |_, _| {}).await?;
    for number in 0..3 {
        scene.api.start("diamond", &format!("diamond-{number}")).await?;
    }
    scene.finish().await
}

/// A start is asked for in a transaction while nobody hears NOTIFY.
pub(super) async fn unheard(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let mut scene = Scene::set(ground, 1, bug, &[solo()], |_, _| {}).await?;
    let mut sql = scene.sql().await?;
    sqlx::query(
        "select pg_terminate_backend(pid) from pg_stat_activity \
         where query ilike 'listen%' and datname = current_database()",
    )
    .execute(&mut sql)
    .await?;
    scene.timeline.note("nobody hears NOTIFY");
    let run: Uuid = sqlx::query_scalar("select backstitch.start_run('solo', 'null'::jsonb)")
        .fetch_one(&mut sql)
        .await?;
    let until = Instant::now() + Duration::from_secs(3);
    let path = format!("/v1/runs/{run}");
    while status(&scene.api, Method::GET, &path, None).await != 200 {
        if Instant::now() > until {
            scene.wrong("I9", Some(run), "a start that was committed has not begun after 3 s");
            break;
        }
        sleep(Duration::from_millis(50)).await;
    }
    scene.finish().await
}

/// The answer to a commit is lost on its way to the engine.
pub(super) async fn lost_answer(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let scene = Scene::set(ground, 1, bug, &[solo()], |_, _| {}).await?;
    let api = scene.at(0);
    for number in 0..3 {
        let key = format!("needle-{number}");
        scene.proxies[0].lose_answer_to(&key);
        scene.timeline.note(format!("the answer to the commit of {key} is lost"));
        api.start_once("solo", &key).await;
    }
    scene.finish().await
}

/// Another namespace asks for a run, in every way.
pub(super) async fn namespaces(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let mut scene = Scene::set(ground, 1, bug, &[solo()], |_, _| {}).await?;
    let run = scene.api.start("solo", "mine").await?;
    let other = scene.at(0).in_namespace("other");
    let reason = json!({ "reason": "to see" });
    for (method, path, body) in [
        (Method::GET, format!("/v1/runs/{run}"), None),
        (Method::GET, format!("/v1/runs/{run}/history"), None),
        (Method::GET, format!("/v1/runs/{run}/why"), None),
        (Method::GET, format!("/v1/runs/{run}?as_of=1"), None),
        (Method::POST, format!("/v1/runs/{run}/cancel"), Some(&reason)),
    ] {
        let status = status(&other, method.clone(), &path, body).await;
        if status != 404 {
            let what = format!("{method} {path} in another namespace was answered {status}");
            scene.wrong("I14", Some(run), what);
        }
    }
    let listed = other.all("/v1/runs").await?;
    if !listed.is_empty() {
        scene.wrong("I14", Some(run), "another namespace lists it");
    }
    let claimed = other.claim(Uuid::new_v4(), 10, "300ms").await;
    if !claimed.is_empty() {
        scene.wrong("I14", Some(run), "another namespace got its task");
    }
    scene.finish().await
}

/// The engine is restarted while the second attempt of a step is under way.
pub(super) async fn restart(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let mut scene = Scene::set(ground, 1, bug, &[solo()], |_, _| {}).await?;
    let api = scene.at(0);
    api.start("solo", "solo").await?;
    let first = api.claim_one(Uuid::new_v4()).await?;
    sleep(LEASE_OVER).await;
    let second = api.claim_one(Uuid::new_v4()).await?;
    scene.kill_and_start(0).await?;
    sleep(2 * LEASE_OVER).await;
    let third = api.claim_one(Uuid::new_v4()).await?;
    for stale in [&first, &second] {
        api.report(&[stale], &output()).await;
    }
    api.report(&[&third], &output()).await;
    scene.finish().await
}

/// The database refuses what one of many reports would write: only that one pays.
pub(super) async fn culprit(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let mut scene = Scene::set(ground, 1, bug, &[solo()], |_, _| {}).await?;
    let mut sql = scene.sql().await?;
    sqlx::query("alter table journal add constraint no_pill check (payloads not like '%pill%')")
        .execute(&mut sql)
        .await?;
    let api = scene.at(0);
    for number in 0..4 {
        api.start("solo", &format!("solo-{number}")).await?;
    }
    let tasks = claim_all(&api, 4).await;
    // What is seen of the one that is refused is looked at here.
    let apart = Api::new(&[scene.engines[0].url()], &Log::default());
    let (pill, good) = (json!({ "v": 1, "pill": true }), output());
    let outputs = std::iter::once(&pill).chain(std::iter::repeat(&good));
    let reports: Vec<(&Value, &Value)> = tasks.iter().zip(outputs).collect();
    let saw = apart.report_each(&reports).await;
    let refused = matches!(saw.first(), Some(Saw::Refused { status: 500, .. }));
    let taken = saw.len() == 4 && saw.iter().skip(1).all(|saw| matches!(saw, Saw::Ok(_)));
    if !refused || !taken {
        scene.wrong("I2", None, "one report that cannot be written made others pay");
    }
    sqlx::query("alter table journal drop constraint no_pill").execute(&mut sql).await?;
    scene.finish().await
}
