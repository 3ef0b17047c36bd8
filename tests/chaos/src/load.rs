//! Clients that start runs and act on them, and hands that work for engines without being trustworthy.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use backstitch_tests::chance::Chance;
use serde_json::{Value, json};
use tokio::task::JoinSet;
use uuid::Uuid;

use crate::client::{Api, Saw};
use crate::field::Field;
use crate::ledger::{self, Ask, Came, Op};
use crate::program::Program;
use crate::worker::{Job, total};

/// Number of clients.
const CLIENTS: u64 = 6;
/// Number of serial keys that runs are started under.
const LINES: u64 = 12;
/// Number of runs that may be open at the same time.
const MOST_OPEN: usize = 120;

/// The load on a field.
pub struct Load {
    field: Arc<Field>,
    programs: Vec<Program>,
    stopping: AtomicBool,
    open: AtomicUsize,
    /// Runs on which somebody acted in a way that changes how they end.
    interfered: Mutex<HashSet<Uuid>>,
    /// Requests that clients gave up.
    given_up: Mutex<Vec<String>>,
    /// Runs with the serial keys under which they were started.
    serial_keys: Mutex<HashMap<Uuid, String>>,
    /// Number of started runs.
    pub started: AtomicUsize,
}

impl Load {
    /// Returns a load of these programs, which must be registered.
    #[must_use]
    pub fn new(field: &Arc<Field>, programs: &[Program]) -> Arc<Load> {
        Arc::new(Load {
            field: Arc::clone(field),
            programs: programs.to_vec(),
            stopping: AtomicBool::new(false),
            open: AtomicUsize::new(0),
            interfered: Mutex::default(),
            given_up: Mutex::default(),
            serial_keys: Mutex::default(),
            started: AtomicUsize::new(0),
        })
    }

    /// Begins it.
    #[must_use]
    pub fn begin(self: &Arc<Self>, chance: &mut Chance) -> JoinSet<()> {
        let mut all = JoinSet::new();
        for client in 0..CLIENTS {
            all.spawn(Arc::clone(self).client(client, chance.fork()));
        }
        for _ in 0..2 {
            all.spawn(Arc::clone(self).rogue(chance.fork()));
        }
        all
    }

    /// Lets what is under way come to its end, and begins nothing new.
    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::Relaxed)
    }

    /// Returns the runs on which somebody acted.
    #[must_use]
    pub fn interfered(&self) -> HashSet<Uuid> {
        self.interfered.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns runs with the serial keys under which they were started.
    #[must_use]
    pub fn serial_keys(&self) -> HashMap<Uuid, String> {
        self.serial_keys.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Returns the requests that clients gave up.
    #[must_use]
    pub fn given_up(&self) -> Vec<String> {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn give_up(&self, why: &anyhow::Error) {
        self.given_up.lock().unwrap_or_else(PoisonError::into_inner).push(format!("{why:#}"));
    }

    async fn client(self: Arc<Self>, client: u64, mut chance: Chance) {
        let mut started = JoinSet::new();
        let mut number = 0;
        while !self.is_stopping() {
            if self.open.load(Ordering::Relaxed) < MOST_OPEN {
                number += 1;
                let key = format!("client-{client}-{number}");
                let load = Arc::clone(&self);
                started.spawn(load.one(key, chance.fork()));
            }
            tokio::time::sleep(Duration::from_millis(200 + chance.below(600))).await;
            while started.try_join_next().is_some() {}
        }
        while started.join_next().await.is_some() {}
    }

    /// Lets one run go from its start to its end.
    async fn one(self: Arc<Self>, key: String, mut chance: Chance) {
        self.open.fetch_add(1, Ordering::Relaxed);
        if let Err(error) = self.live(&key, &mut chance).await {
            self.give_up(&error.context(key));
        }
        self.open.fetch_sub(1, Ordering::Relaxed);
    }

    async fn live(&self, key: &str, chance: &mut Chance) -> anyhow::Result<()> {
        let place = usize::try_from(chance.below(self.programs.len() as u64)).unwrap_or(0);
        let program = &self.programs[place];
        let api = self.field.api().at(usize::try_from(chance.below(3)).unwrap_or(0));
        let run = match chance.below(100) {
            0..6 => self.in_transaction(&program.name, key).await?,
            6..12 => same_key(&api, &program.name, key).await?,
            12..22 => self.in_line(&api, &program.name, key, chance.below(LINES)).await?,
            _ => api.start(&program.name, key).await?,
        };
        self.started.fetch_add(1, Ordering::Relaxed);
        let (cancels, pauses) = (chance.percent(7), chance.percent(5));
        let wait =
            |chance: &mut Chance| tokio::time::sleep(Duration::from_millis(chance.below(700)));
        if cancels {
            wait(chance).await;
            self.interfered.lock().unwrap_or_else(PoisonError::into_inner).insert(run);
            api.act(run, "cancel").await;
        }
        if pauses {
            wait(chance).await;
            api.act(run, "pause").await;
            wait(chance).await;
            api.at(1).act(run, "resume").await;
        }
        for (signal, adds) in program.signals() {
            wait(chance).await;
            api.at(usize::try_from(chance.below(3)).unwrap_or(0))
                .signal(run, &signal, adds)
                .await?;
        }
        Ok(())
    }

    /// Starts a run that waits for others with its serial key.
    async fn in_line(
        &self,
        api: &Api,
        workflow: &str,
        key: &str,
        line: u64,
    ) -> anyhow::Result<Uuid> {
        let serial_key = format!("line-{line}");
        let run = api.start_in_line(workflow, key, Some(&serial_key)).await?;
        let mut all = self.serial_keys.lock().unwrap_or_else(PoisonError::into_inner);
        all.insert(run, serial_key);
        Ok(run)
    }

    /// Starts a run in a transaction of its own, as an application does, and waits until it is there.
    async fn in_transaction(&self, workflow: &str, key: &str) -> anyhow::Result<Uuid> {
        let start = "select backstitch.start_run($1, 'null'::jsonb, key => $2)";
        let mut run: Option<Uuid> = None;
        for _ in 0..100 {
            let asked = async {
                let mut connection = self.field.sql().await?;
                let query = sqlx::query_scalar(start).bind(workflow).bind(key);
                let run: Uuid = query.fetch_one(&mut connection).await?;
                anyhow::Ok(run)
            };
            // Without an answer it is asked again with the same key, which names the same run.
            if let Ok(id) = asked.await {
                run = Some(id);
                break;
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        let Some(run) = run else { anyhow::bail!("PostgreSQL did not take a start") };
        for _ in 0..300 {
            match self
                .field
                .api()
                .once(reqwest::Method::GET, &format!("/v1/runs/{run}"), None, "")
                .await
            {
                Saw::Ok(_) => return Ok(run),
                _ => tokio::time::sleep(Duration::from_millis(100)).await,
            }
        }
        anyhow::bail!("run {run}, asked for in a transaction, has not begun")
    }

    /// Works by hand, and badly: reports twice, late, too early or never.
    async fn rogue(self: Arc<Self>, mut chance: Chance) {
        let http = reqwest::Client::new();
        while !self.is_stopping() {
            let engine = usize::try_from(chance.below(3)).unwrap_or(0);
            let api = self.field.api().at(engine);
            let tasks = api.claim(Uuid::new_v4(), 2, "300ms").await;
            for task in tasks {
                let job: Job = serde_json::from_value(task["input"].clone()).unwrap_or_default();
                let plain = task["action"] == "forward" && !job.script.refuses && !job.script.kills;
                let way = chance.below(100);
                if !plain || job.script.doubts + job.script.fails > 0 || way < 20 {
                    // Nobody hears of it again: its lease runs out.
                    continue;
                }
                let load = Arc::clone(&self);
                let (api, http) = (api.clone(), http.clone());
                // Late ones do not hold up the others.
                tokio::spawn(async move { load.misreport(&api, &http, &task, &job, way).await });
            }
            tokio::time::sleep(Duration::from_millis(150 + chance.below(500))).await;
        }
    }

    async fn misreport(
        &self,
        api: &Api,
        http: &reqwest::Client,
        task: &Value,
        job: &Job,
        way: u64,
    ) {
        let mut forged = task.clone();
        forged["attempt"] = json!(task["attempt"].as_u64().unwrap_or(0) + 1);
        let output = json!({ "v": job.needs.values().map(total).sum::<i64>() + job.script.adds });
        if way >= 85 {
            api.report(&[&forged], &output).await;
        }
        if !job.script.reads {
            let text = |name: &str| task[name].as_str().unwrap_or_default().to_owned();
            let ask = Ask {
                op: Op::Apply,
                run: text("run").parse().unwrap_or_default(),
                step: text("step"),
                attempt: task["attempt"].as_u64().and_then(|n| u32::try_from(n).ok()).unwrap_or(0),
                key: text("effect_key").parse().unwrap_or_default(),
                worker: "rogue".to_owned(),
                moves: job.script.moves.clone(),
            };
            let url = self.field.ground.lock().await.ledger_url().to_owned();
            match ledger::send(http, &url, &ask).await {
                Ok(Came::Done | Came::Repeat) => {}
                _ => return,
            }
        }
        if way < 55 {
            tokio::time::sleep(Duration::from_millis(2_500)).await;
        }
        let (one, two) = (api.clone(), api.at(1));
        let both = [task];
        tokio::join!(one.report(&both, &output), two.report(&both, &output));
    }
}

/// Starts with one key many times at once, at all engines; all must get the same run.
async fn same_key(api: &Api, workflow: &str, key: &str) -> anyhow::Result<Uuid> {
    let starts = (0..6).map(|engine| {
        let api = api.at(engine);
        async move { api.start(workflow, key).await }
    });
    let runs = futures::future::try_join_all(starts).await?;
    let distinct: HashSet<Uuid> = runs.iter().copied().collect();
    anyhow::ensure!(distinct.len() == 1, "I12: one key started {} runs", distinct.len());
    Ok(runs[0])
}
