//! The base of a drill: a few engines on a database of their own, and the way to its end.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use anyhow::Context as _;
use reqwest::Method;
use serde_json::{Value, json};
use sqlx::{Connection as _, PgConnection};
use uuid::Uuid;

use crate::client::{Api, Log, Saw};
use crate::evidence::{Evidence, Knowledge, Violation, collect};
use crate::evidence_counts::BY_ENGINES;
use crate::invariants;
use crate::program::Program;
use crate::proxy::Proxy;
use crate::stage::{Engine, Ground};
use crate::timeline::Timeline;
use crate::worker::Hands;

/// Time that the runs of a drill may take to end once workers work.
const DRAIN_WITHIN: Duration = Duration::from_secs(12);

/// A few engines on a database of their own.
pub(super) struct Scene<'a> {
    ground: &'a Ground,
    database: String,
    /// The engines.
    pub(super) engines: Vec<Engine>,
    /// Between each and PostgreSQL.
    pub(super) proxies: Vec<Proxy>,
    /// The actions.
    pub(super) timeline: Timeline,
    /// A client of all engines.
    pub(super) api: Api,
    programs: Vec<Program>,
    /// Runs on which somebody acted.
    pub(super) interfered: HashSet<Uuid>,
    /// Findings of the drill itself.
    pub(super) violations: Vec<Violation>,
    /// Counts.
    pub(super) counts: Vec<(String, f64)>,
}

/// Result of a drill.
#[derive(Default)]
pub struct Came {
    /// Violations.
    pub violations: Vec<Violation>,
    /// The evidence.
    pub evidence: Evidence,
    /// Counts.
    pub counts: Vec<(String, f64)>,
    /// Further lines of the report.
    pub lines: Vec<String>,
    /// Parts that could not be done here, with the reason.
    pub skipped: Option<String>,
}

impl<'a> Scene<'a> {
    /// So many engines with `bug`, each changed by `change` before it starts, and the programs registered.
    ///
    /// # Errors
    /// When something does not start.
    pub(super) async fn set(
        ground: &'a Ground,
        count: usize,
        bug: Option<&str>,
        programs: &[Program],
        change: impl Fn(usize, &mut Engine),
    ) -> anyhow::Result<Scene<'a>> {
        let database = ground.database().await?;
        let (mut engines, mut proxies) = (Vec::new(), Vec::new());
        for number in 0..count {
            let proxy = ground.postgres_proxy().await?;
            let name = format!("{database}-{number}");
            let mut engine = ground.engine(&name, &ground.url(&database, Some(&proxy))?);
            engine.tuning.push_str(",shards=1");
            if let Some(bug) = bug {
                engine.env.push(("BACKSTITCH_BUG".to_owned(), bug.to_owned()));
                // The check of the indexes would heal what the bug breaks before it is seen.
                engine.tuning.push_str(",check_every=never");
            }
            change(number, &mut engine);
            engine.start().await?;
            engines.push(engine);
            proxies.push(proxy);
        }
        let urls: Vec<String> = engines.iter().map(Engine::url).collect();
        let api = Api::new(&urls, &Log::default());
        for program in programs {
            api.register(program).await?;
        }
        Ok(Scene {
            ground,
            database,
            engines,
            proxies,
            timeline: Timeline::default(),
            api,
            programs: programs.to_vec(),
            interfered: HashSet::new(),
            violations: Vec::new(),
            counts: Vec::new(),
        })
    }

    /// Returns a connection to the database.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub(super) async fn sql(&self) -> anyhow::Result<PgConnection> {
        Ok(PgConnection::connect(&self.ground.url(&self.database, None)?).await?)
    }

    /// Returns a client of one engine alone.
    #[must_use]
    pub(super) fn at(&self, engine: usize) -> Api {
        self.api.at(engine).alone()
    }

    /// Something is wrong.
    pub(super) fn wrong(
        &mut self,
        invariant: &'static str,
        run: Option<Uuid>,
        what: impl Into<String>,
    ) {
        self.violations.push(Violation { invariant, run, what: what.into() });
    }

    /// Starts an engine that has died, or lets it die first, and says so.
    ///
    /// # Errors
    /// When it does not start.
    pub(super) async fn kill_and_start(&mut self, engine: usize) -> anyhow::Result<()> {
        self.count_numbers(engine).await;
        let engine = &mut self.engines[engine];
        engine.kill().await?;
        self.timeline.note(format!("{} was killed", engine.name));
        engine.env.retain(|(name, _)| name != "BACKSTITCH_CRASH");
        engine.start().await?;
        self.timeline.note(format!("{} is back", engine.name));
        Ok(())
    }

    async fn count_numbers(&mut self, engine: usize) {
        for (name, value) in self.at(engine).metrics().await {
            if let Some((told, _)) = BY_ENGINES.iter().find(|(_, metric)| *metric == name) {
                self.counts.push(((*told).to_owned(), value));
            }
        }
    }

    /// Lets workers do what is left, waits until all runs have ended, and checks everything.
    ///
    /// # Errors
    /// When the harness itself failed.
    pub(super) async fn finish(mut self) -> anyhow::Result<Came> {
        let mut workers = Vec::new();
        for engine in &self.engines {
            let hands = Hands::new("worker", self.ground.ledger_url(), None, false);
            let worker = hands.worker(&engine.url(), 16)?;
            workers.push(tokio::spawn(worker.run(std::future::pending())));
        }
        let until = Instant::now() + DRAIN_WITHIN;
        while Instant::now() < until {
            let open = self.api.all("/v1/runs").await.unwrap_or_default();
            let open = open.iter().filter(|line| line["state"] != "ended").count();
            if open == 0 {
                break;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        for engine in 0..self.engines.len() {
            self.count_numbers(engine).await;
        }
        let mut knowledge = Knowledge::of(&self.programs);
        knowledge.interfered.clone_from(&self.interfered);
        let ledger = self.ground.ledger_file();
        let collected = collect(&self.api, &knowledge, &ledger, &self.timeline).await;
        workers.iter().for_each(tokio::task::JoinHandle::abort);
        let mut violations = std::mem::take(&mut self.violations);
        let evidence = match collected {
            Ok(evidence) => evidence,
            Err(error) => {
                let what = format!("what was done cannot be read: {error:#}");
                violations.push(Violation { invariant: "I8", run: None, what });
                Evidence::default()
            }
        };
        violations.extend(invariants::check(&evidence));
        for engine in &mut self.engines {
            engine.kill().await?;
        }
        self.ground.drop_database(&self.database).await?;
        Ok(Came { violations, evidence, counts: self.counts, ..Came::default() })
    }
}

/// Returns the run of a task.
///
/// # Errors
/// When it names none.
pub(super) fn run_of(task: &Value) -> anyhow::Result<Uuid> {
    Ok(task["run"].as_str().context("a task without a run")?.parse()?)
}

/// Sends a request once and answers its status; 0 without an answer.
pub(super) async fn status(api: &Api, method: Method, path: &str, body: Option<&Value>) -> u16 {
    match api.once(method, path, body, "").await {
        Saw::Ok(_) => 200,
        Saw::Refused { status, .. } => status,
        Saw::Unknown(_) => 0,
    }
}

/// Returns the output of steps of drills.
#[must_use]
pub(super) fn output() -> Value {
    json!({ "v": 1 })
}
