//! Drills with two engines.

use std::collections::HashSet;
use std::time::Duration;

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use tokio::time::sleep;
use uuid::Uuid;

use super::scene::{Came, Scene, output, run_of, status};
use super::single::{apply, claim_all, fan, solo};
use crate::client::{Api, Saw};
use crate::program::{Body, Program};
use crate::proxy::Way;
use crate::stage::Ground;
use crate::worker::Script;

/// Number of contested runs.
const RUNS: usize = 16;

/// Time until a request has a known result.
const WAIT: Duration = Duration::from_secs(15);

/// Two engines take the last reports of fan-outs at the same moment, and the last report of a run together with a
/// pause.
pub(super) async fn two_engines(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let mut scene = Scene::set(ground, 2, bug, &[fan(), solo()], |_, _| {}).await?;
    let (one, two) = (scene.at(0), scene.at(1));
    let mut raced = 0.0;
    for number in 0..RUNS {
        // Both have it in memory: the one that starts it, and the one that hands out.
        let run = one.start("fan", &format!("fan-{number}")).await?;
        scene.interfered.insert(run);
        let mut tasks = claim_all(&two, 6).await;
        tasks.retain(|task| run_of(task).is_ok_and(|of| of == run));
        let all: Vec<&Value> = tasks.iter().collect();
        apply(ground, &all).await?;
        let (here, there) = all.split_at(all.len() / 2);
        let out = output();
        tokio::join!(one.report(here, &out), two.report(there, &out));
        raced += 1.0;
    }
    scene.counts.push(("join raced".to_owned(), raced));
    for number in 0..4 {
        let run = one.start("solo", &format!("solo-{number}")).await?;
        scene.interfered.insert(run);
        let Some(task) = claim_of(ground, &one, run).await? else { continue };
        // The other has it in memory, too, and decides at once; what it decides is late.
        two.act(run, "pause").await;
        two.act(run, "resume").await;
        scene.proxies[1].set(Way::Slow(Duration::from_millis(200)));
        let (both, out) = ([&task], output());
        let last = async {
            sleep(Duration::from_millis(80)).await;
            one.report(&both, &out).await
        };
        tokio::join!(two.act(run, "pause"), last);
        scene.proxies[1].set(Way::Open);
        one.act(run, "resume").await;
    }
    scene.finish().await
}

/// Returns the task of a run. Those of others that come first are done.
async fn claim_of(ground: &Ground, api: &Api, run: Uuid) -> anyhow::Result<Option<Value>> {
    for _ in 0..20 {
        for task in claim_all(api, 1).await {
            if run_of(&task)? == run {
                return Ok(Some(task));
            }
            apply(ground, &[&task]).await?;
            api.report(&[&task], &output()).await;
        }
    }
    Ok(None)
}

/// A run sleeps at an engine whose clock is right, next to one whose machine is an hour ahead.
pub(super) async fn clocks(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let script = |adds| Script { adds, ..Script::default() };
    let program = Program::new("nap")
        .task("a", &[], script(1))
        .step("nap", &["a"], Body::Sleep(2_500))
        .task("b", &["nap"], script(2));
    let lie = ("BACKSTITCH_CLOCK_LIE".to_owned(), "3600000".to_owned());
    let scene = Scene::set(ground, 2, bug, &[program], |number, engine| {
        if number == 1 {
            engine.env.push(lie.clone());
        }
    })
    .await?;
    scene.timeline.note("the second engine's machine is an hour ahead");
    for number in 0..4 {
        scene.at(0).start("nap", &format!("nap-{number}")).await?;
    }
    scene.finish().await
}

/// A hundred start with one key at two engines.
pub(super) async fn one_key(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let mut scene = Scene::set(ground, 2, bug, &[solo()], |_, _| {}).await?;
    let starts = (0..100).map(|number| {
        let api = scene.at(number % 2);
        async move { api.start("solo", "the-one").await }
    });
    let started = futures::future::try_join_all(starts).await?;
    let distinct: HashSet<Uuid> = started.into_iter().collect();
    sleep(Duration::from_millis(100)).await;
    let listed = scene.api.all("/v1/runs").await?;
    if distinct.len() != 1 || listed.len() != 1 {
        let what = format!("one key started {} runs, {} are listed", distinct.len(), listed.len());
        scene.wrong("I12", distinct.iter().next().copied(), what);
    }
    scene.finish().await
}

/// Runs wait at one engine for a signal that never comes; that for which their new version waits in its place has come
/// already. They move while engines die, and end.
pub(super) async fn moved_signals(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let wait = |signal: &str| Body::Wait(signal.to_owned(), 5);
    let old = Program::new("moved").step("first", &[], wait("go")).step(
        "second",
        &["first"],
        wait("never"),
    );
    let new =
        Program::new("moved").step("first", &[], wait("go")).step("second", &["first"], wait("go"));
    let mut scene = Scene::set(ground, 2, bug, &[old], |_, _| {}).await?;
    let mut definition = new.definition();
    definition["version"] = json!(2);
    let path = "/v1/workflows/moved/versions/2";
    status(&scene.api, Method::PUT, path, Some(&definition)).await;
    let mut runs = Vec::new();
    for number in 0..8 {
        // Without a version they would begin on the new one.
        let body = json!({ "workflow": "moved", "version": 1, "key": format!("moved-{number}") });
        let started =
            scene.at(number % 2).ask(Method::POST, "/v1/runs", Some(&body), "", WAIT).await;
        let Saw::Ok(started) = started else { anyhow::bail!("POST /v1/runs: {started:?}") };
        let run: Uuid = started["id"].as_str().context("a run has an id")?.parse()?;
        scene.interfered.insert(run);
        scene.at(number % 2).signal(run, "go", 5).await?;
        runs.push(run);
    }
    let move_them = json!({ "from": 1, "to": 2, "reason": "chaos" });
    let path = "/v1/workflows/moved/migrations";
    let key = Uuid::new_v4().to_string();
    let asked = scene.api.ask(Method::POST, path, Some(&move_them), &key, WAIT).await;
    scene.timeline.note(format!("the runs move: {asked:?}"));
    scene.kill_and_start(0).await?;
    scene.kill_and_start(1).await?;
    let until = std::time::Instant::now() + WAIT;
    for run in runs {
        loop {
            let seen = scene.api.get(&format!("/v1/runs/{run}")).await?;
            if seen["state"] == "ended" {
                break;
            }
            if std::time::Instant::now() > until {
                scene.wrong("I9", Some(run), "it waits for a signal that was accepted");
                break;
            }
            sleep(Duration::from_millis(100)).await;
        }
    }
    scene.finish().await
}
