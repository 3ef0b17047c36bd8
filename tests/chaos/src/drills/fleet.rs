//! Drills under a steady load: timers and schedules, clocks that lie, engines that go from one build to another.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::scene::{Came, Scene};
use crate::evidence::Violation;
use crate::invariants::lateness;
use crate::program::{Body, Program};
use crate::schedules::{self, Schedules};
use crate::stage::Ground;
use crate::worker::{Hands, Script};

/// Lateness of timers without faults, in milliseconds.
const LATE: i64 = 1_000;
/// Time for which schedules are edited.
const EDITED_FOR: Duration = Duration::from_secs(9);
/// Number of crashes of the only engine.
const CRASHES: u32 = 5;
/// Longest stall of this machine with which its clocks are usable, in milliseconds.
const STILL: u128 = 300;

fn nap(ms: u64) -> Program {
    let script = |adds| Script { adds, ..Script::default() };
    Program::new("nap").task("a", &[], script(1)).step("nap", &["a"], Body::Sleep(ms)).task(
        "b",
        &["nap"],
        Script { fails: 1, ..script(2) },
    )
}

/// Workers for each engine, in this process.
fn workers(ground: &Ground, scene: &Scene<'_>) -> anyhow::Result<Vec<JoinHandle<()>>> {
    let mut all = Vec::new();
    for engine in &scene.engines {
        let worker = Hands::new("worker", ground.ledger_url(), None, false);
        let worker = worker.worker(&engine.url(), 16)?;
        all.push(tokio::spawn(async move {
            // It ends with the drill.
            let _ = worker.run(std::future::pending()).await;
        }));
    }
    Ok(all)
}

/// Nothing is wrong: 99 of 100 timers fire within a second.
pub(super) async fn timers(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let scene = Scene::set(ground, 1, bug, &[nap(900)], |_, _| {}).await?;
    let working = workers(ground, &scene)?;
    let still = tokio::spawn(async {
        let mut worst = 0;
        loop {
            let began = Instant::now();
            sleep(Duration::from_millis(50)).await;
            worst = worst.max(began.elapsed().as_millis() - 50);
            if worst > STILL || began.elapsed().is_zero() {
                return worst;
            }
        }
    });
    for number in 0..60 {
        scene.api.start("nap", &format!("nap-{number}")).await?;
        sleep(Duration::from_millis(30)).await;
    }
    let mut came = scene.finish().await?;
    working.iter().for_each(JoinHandle::abort);
    let mut late = lateness(&came.evidence);
    late.sort_unstable();
    let p99 = late.get((late.len() * 99).div_ceil(100).saturating_sub(1)).copied();
    let Some(p99) = p99 else {
        came.skipped = Some("no timer fired".to_owned());
        return Ok(came);
    };
    if still.is_finished() {
        came.skipped = Some(format!(
            "lateness of timers (p99 {p99} ms): this machine stood still for {} ms",
            still.await?
        ));
    } else if p99 > LATE {
        let what = format!("99 of 100 timers were up to {p99} ms late while nothing was wrong");
        came.violations.push(Violation { invariant: "I10", run: None, what });
    }
    came.lines
        .push(format!("lateness of {} timers while nothing is wrong: p99 {p99} ms", late.len()));
    Ok(came)
}

/// Schedules of seconds, while engines die, also all at once.
pub(super) async fn instants(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let mut scene = Scene::set(ground, 2, bug, &[schedules::program()], |_, _| {}).await?;
    let working = workers(ground, &scene)?;
    let mut watched = Schedules::begin(&scene.api).await?;
    sleep(Duration::from_millis(2_500)).await;
    scene.kill_and_start(0).await?;
    for engine in &mut scene.engines {
        engine.kill().await?;
    }
    scene.timeline.note("no engine is there");
    sleep(Duration::from_millis(3_500)).await;
    for engine in &mut scene.engines {
        engine.start().await?;
    }
    scene.timeline.note("the engines are back");
    watch_to_the_end(&mut scene, &mut watched).await?;
    let came = scene.finish().await;
    working.iter().for_each(JoinHandle::abort);
    came
}

/// Schedules are put again all the time, with another input and another workflow, while engines die. Which instants
/// there are stays the same: each has one run.
pub(super) async fn edited_schedules(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let programs = [schedules::program(), schedules::second_program()];
    let mut scene = Scene::set(ground, 2, bug, &programs, |_, _| {}).await?;
    let working = workers(ground, &scene)?;
    let mut watched = Schedules::begin(&scene.api).await?;
    let began = Instant::now();
    let mut edits = 0;
    while began.elapsed() < EDITED_FOR {
        watched.edit(&scene.api, edits).await?;
        edits += 1;
        if edits == 40 {
            scene.kill_and_start(0).await?;
        }
        sleep(Duration::from_millis(20)).await;
    }
    scene.timeline.note(format!("each schedule was edited {edits} times"));
    #[expect(clippy::cast_precision_loss, reason = "a few hundred")]
    scene.counts.push(("edit of a schedule".to_owned(), edits as f64));
    watch_to_the_end(&mut scene, &mut watched).await?;
    let came = scene.finish().await;
    working.iter().for_each(JoinHandle::abort);
    came
}

/// The only engine crashes over and over, away for longer than a heartbeat may be missing, while workers that are well
/// do what they hold. No task is poison for that.
pub(super) async fn crash_loop(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let slow = Script { adds: 1, ms: 1_500, few_losses: true, ..Script::default() };
    let program = Program::new("slow").task("a", &[], slow);
    let mut scene = Scene::set(ground, 1, bug, &[program], |_, _| {}).await?;
    let working = workers(ground, &scene)?;
    for number in 0..24 {
        scene.api.start("slow", &format!("slow-{number}")).await?;
    }
    for _ in 0..CRASHES {
        sleep(Duration::from_millis(700)).await;
        scene.engines[0].kill().await?;
        scene.timeline.note("the only engine has crashed");
        sleep(Duration::from_millis(2_200)).await;
        scene.engines[0].start().await?;
    }
    let poison = scene.api.all("/v1/incidents?kind=poison").await?;
    for incident in &poison {
        let run = incident["run"].as_str().and_then(|run| run.parse().ok());
        scene.wrong("I9", run, "an innocent task is called poison");
    }
    let came = scene.finish().await;
    working.iter().for_each(JoinHandle::abort);
    came
}

async fn watch_to_the_end(scene: &mut Scene<'_>, watched: &mut Schedules) -> anyhow::Result<()> {
    watched.end(&scene.api).await?;
    let (found, count) = watched.check(&scene.api).await?;
    scene.violations.extend(found);
    #[expect(clippy::cast_precision_loss, reason = "a few dozen")]
    scene.counts.push(("instant of a schedule".to_owned(), count as f64));
    Ok(())
}

/// Returns the path of the library that falsifies clocks.
pub(super) fn faketime() -> Option<PathBuf> {
    let dirs = [
        "/usr/lib/x86_64-linux-gnu/faketime",
        "/usr/lib/aarch64-linux-gnu/faketime",
        "/usr/lib/faketime",
    ];
    dirs.iter().map(|dir| Path::new(dir).join("libfaketimeMT.so.1")).find(|path| path.exists())
}

/// Returns the environment that falsifies the clock of a process; its monotonic clock is right, as
/// on a real machine.
pub(super) fn lie(library: &Path, lie: (&str, &str)) -> Vec<(String, String)> {
    let library = library.display().to_string();
    [
        ("LD_PRELOAD", library.as_str()),
        ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
        ("DONT_FAKE_MONOTONIC", "1"),
        ("FAKETIME_NO_CACHE", "1"),
        lie,
    ]
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .to_vec()
}

/// The machine of one engine is three hours ahead, that of another three hours behind, that of the third jumps; so do
/// those of workers. Timers and schedules are as if nothing were.
pub(super) async fn lying_clocks(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let Some(library) = faketime() else {
        return Ok(Came {
            skipped: Some("faketime is not installed".to_owned()),
            ..Came::default()
        });
    };
    let clock = ground.dir().join("jumping-clock");
    std::fs::write(&clock, "+0\n")?;
    let file = clock.display().to_string();
    let jumps = ("FAKETIME_TIMESTAMP_FILE", file.as_str());
    let lies = [("FAKETIME", "+3h"), ("FAKETIME", "-3h"), jumps].map(|one| lie(&library, one));
    let programs = [nap(2_000), schedules::program()];
    let mut scene = Scene::set(ground, 3, bug, &programs, |number, engine| {
        engine.env.extend(lies[number].iter().cloned());
    })
    .await?;
    scene.timeline.note("engines are 3 h ahead, 3 h behind, and jumping");
    let jumping = tokio::spawn(async move {
        for lie in ["+2h", "-2h", "+40s", "-90s", "+0"].iter().cycle() {
            // A clock that cannot be set stays.
            let _ = std::fs::write(&clock, format!("{lie}\n"));
            sleep(Duration::from_millis(700)).await;
        }
    });
    let mut working = Vec::new();
    for (number, engine) in scene.engines.iter().enumerate() {
        let name = format!("liar-{number}");
        let (url, lie) = (engine.url(), &lies[(number + 1) % lies.len()]);
        working.push(ground.worker_with(&name, &url, ground.ledger_url(), None, lie).await?);
    }
    let mut watched = Schedules::begin(&scene.api).await?;
    for number in 0..24 {
        scene.at(number % 3).start("nap", &format!("nap-{number}")).await?;
        sleep(Duration::from_millis(200)).await;
    }
    watch_to_the_end(&mut scene, &mut watched).await?;
    for mut worker in working {
        worker.kill().await?;
    }
    let mut came = scene.finish().await?;
    jumping.abort();
    let worst = lateness(&came.evidence).into_iter().max().unwrap_or_default();
    came.lines.push(format!("clocks wrong by three hours: no timer more than {worst} ms late"));
    // Far more than anything but a clock could make of it.
    if worst > 8_000 {
        let what = format!("a timer was {worst} ms late by a clock that lies");
        came.violations.push(Violation { invariant: "I10", run: None, what });
    }
    Ok(came)
}

/// Three engines go one by one to the other build, and back, while runs are started and worked on.
pub(super) async fn upgrade(ground: &Ground, bug: Option<&str>) -> anyhow::Result<Came> {
    let script = |adds| Script { adds, ..Script::default() };
    let steps = Program::new("steps").task("a", &[], script(1)).task("b", &["a"], script(2)).task(
        "c",
        &["b"],
        script(3),
    );
    let mut scene = Scene::set(ground, 3, bug, &[steps, nap(600)], |_, _| {}).await?;
    let working = workers(ground, &scene)?;
    let stop = Arc::new(AtomicBool::new(false));
    let (stopping, api) = (Arc::clone(&stop), scene.api.clone());
    let starting = tokio::spawn(async move {
        let mut number = 0;
        while !stopping.load(Ordering::Relaxed) {
            let workflow = if number % 3 == 0 { "nap" } else { "steps" };
            api.at(number % 3).start(workflow, &format!("{workflow}-{number}")).await?;
            number += 1;
            sleep(Duration::from_millis(40)).await;
        }
        anyhow::Ok(())
    });
    for round in ["the other build", "the first build"] {
        for engine in &mut scene.engines {
            engine.stop().await;
            engine.change_build();
            engine.start().await?;
            scene.timeline.note(format!("{} is of {round}", engine.name));
            sleep(Duration::from_millis(400)).await;
        }
    }
    stop.store(true, Ordering::Relaxed);
    starting.await??;
    let mut came = scene.finish().await?;
    working.iter().for_each(JoinHandle::abort);
    if ground.has_other() {
        came.counts.push(("engine went to another build".to_owned(), 6.0));
    } else {
        came.skipped = Some(
            "engines were restarted in turn, with one build; --other names a second".to_owned(),
        );
    }
    Ok(came)
}
