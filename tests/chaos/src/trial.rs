//! One trial: one engine, one shape of workflow, one point at which the engine dies; it is restarted, the run goes on
//! to its end, and what is left behind is checked.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail};
use serde_json::Value;
use uuid::Uuid;

use crate::client::{Api, Log};
use crate::evidence::{Evidence, Knowledge, Violation, collect};
use crate::invariants;
use crate::shapes::{Beside, Shape};
use crate::stage::{Engine, Ground};
use crate::timeline::Timeline;
use crate::worker::Hands;
use crate::{intake, lines, office};

/// Time that a run may take after the engine is back.
const DRAIN_WITHIN: Duration = Duration::from_secs(25);

/// The setup of a trial.
#[derive(Clone, Debug, Default)]
pub struct Setup {
    /// The point at which the engine dies, and at which passage.
    pub crash: Option<(String, u32)>,
    /// The file that gets the points that were passed.
    pub seen: Option<PathBuf>,
    /// The bug that the engine has.
    pub bug: Option<String>,
}

/// Result of a trial.
pub struct Came {
    /// `true` if the engine died at the point.
    pub reached: bool,
    /// Violations.
    pub violations: Vec<Violation>,
    /// The evidence.
    pub evidence: Evidence,
    /// From the engine's death until the runs had ended.
    pub recovery: Option<Duration>,
}

/// Tries one shape.
///
/// # Errors
/// When the trial itself could not be made.
pub async fn run(ground: &Ground, shape: &Shape, setup: &Setup) -> anyhow::Result<Came> {
    let database = ground.database().await?;
    let id = database.trim_start_matches("chaos_").to_owned();
    let mut engine = ground.engine(&format!("engine-{id}"), &ground.url(&database, None)?);
    // With few events a run has a snapshot, and with little memory it is loaded often.
    engine.tuning.push_str(",first_snapshot=12,cache_weight=400");
    engine.args.extend(["--retention".to_owned(), "30d".to_owned()]);
    if let Some((point, passage)) = &setup.crash {
        engine.env.push(("BACKSTITCH_CRASH".to_owned(), format!("{point}:{passage}")));
    }
    if let Some(path) = &setup.seen {
        engine.env.push(("BACKSTITCH_CRASH_SEEN".to_owned(), path.display().to_string()));
    }
    if let Some(bug) = &setup.bug {
        engine.env.push(("BACKSTITCH_BUG".to_owned(), bug.clone()));
    }
    let came = with_engine(ground, shape, &mut engine).await;
    let came = came.with_context(|| format!("the engine's last words:\n{}", engine.last_words()));
    engine.kill().await?;
    ground.drop_database(&database).await?;
    came
}

async fn with_engine(ground: &Ground, shape: &Shape, engine: &mut Engine) -> anyhow::Result<Came> {
    let timeline = Timeline::default();
    let database_url = engine.database_url.clone();
    let mut died: Option<Instant> = None;
    if let Err(error) = engine.start().await {
        timeline.note(format!("the engine died while it started: {error}"));
        died = Some(Instant::now());
        revive(engine, &timeline).await?;
    }
    let api = Api::new(&[engine.url()], &Log::default());
    let hands = Hands::new("worker", ground.ledger_url(), None, false);
    let worker = hands.worker(&engine.url(), 8)?;
    let worker = tokio::spawn(worker.run(std::future::pending()));
    let mut knowledge = Knowledge::of([&shape.program]);
    let mut client = Box::pin(drive(&api, shape, &database_url));
    let drained = loop {
        tokio::select! {
            drained = &mut client => break drained,
            () = engine.died() => {
                timeline.note("the engine died");
                died = Some(Instant::now());
                revive(engine, &timeline).await?;
            }
        }
    };
    let recovery = died.map(|died| died.elapsed());
    drop(client);
    // One more time around: it leaves in order, and comes back.
    engine.stop().await;
    timeline.note("the engine was stopped in order");
    revive(engine, &timeline).await?;
    let mut evidence = Evidence::default();
    let mut violations = Vec::new();
    match drained {
        Ok(done) => {
            knowledge.interfered.extend(done.interfered);
            knowledge.ended.extend(done.ended);
        }
        Err(error) => violations.push(Violation {
            invariant: "I9",
            run: None,
            what: format!("the client could not come to an end: {error:#}"),
        }),
    }
    evidence =
        collect(&api, &knowledge, &ground.ledger_file(), &timeline).await.unwrap_or(evidence);
    worker.abort();
    violations.extend(invariants::check(&evidence));
    let told = |mark: &crate::timeline::Mark| mark.what.starts_with("the engine died");
    let reached = timeline.marks().iter().any(told);
    Ok(Came { reached, violations, evidence, recovery })
}

/// Starts the engine again, without the point at which it dies.
async fn revive(engine: &mut Engine, timeline: &Timeline) -> anyhow::Result<()> {
    engine.env.retain(|(name, _)| name != "BACKSTITCH_CRASH");
    engine.start().await?;
    timeline.note("the engine is back");
    Ok(())
}

/// The actions of a client, with the results.
#[derive(Default)]
pub struct Done {
    /// Runs on which it acted.
    pub interfered: Vec<Uuid>,
    /// Runs as they were when they had ended.
    pub ended: Vec<(Uuid, Value)>,
}

async fn drive(api: &Api, shape: &Shape, database_url: &str) -> anyhow::Result<Done> {
    api.register(&shape.program).await?;
    let mut done = Done::default();
    let mut runs = Vec::new();
    done.interfered = match shape.beside {
        Beside::Nothing => Vec::new(),
        Beside::Office => office::work(api, database_url).await?,
        Beside::Lines => lines::work(api, database_url).await?,
        Beside::Intake => intake::work(api, database_url).await?,
    };
    runs.clone_from(&done.interfered);
    for key in ["one", "two", "two"] {
        let run = api.start(&shape.program.name, key).await?;
        for (signal, adds) in shape.program.signals() {
            api.signal(run, &signal, adds).await?;
        }
        runs.push(run);
    }
    if let Some(sequence) = &shape.program.sequence {
        let (fact, subject) = &sequence.requires;
        api.establish(fact, subject).await?;
    }
    for run in runs {
        done.ended.push((run, until_ended(api, run, DRAIN_WITHIN).await?));
    }
    Ok(done)
}

/// Waits for a run to end, or to need a person.
///
/// # Errors
/// When it does neither in time.
pub async fn until_ended(api: &Api, run: Uuid, within: Duration) -> anyhow::Result<Value> {
    let until = Instant::now() + within;
    loop {
        let view = api.get(&format!("/v1/runs/{run}?wait=1s")).await?;
        if view["state"] == "ended" {
            return Ok(view);
        }
        if Instant::now() > until {
            bail!("run {run} has not ended: {}", view["summary"]);
        }
    }
}
