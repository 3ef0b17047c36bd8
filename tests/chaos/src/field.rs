//! The field of a random plan: three engines on one database, each behind a proxy of its own; workers that reach them
//! and the ledger through others; and the numbers of all engines, through all their lives.

use std::collections::HashMap;
use std::sync::{Arc, Mutex as Locked, PoisonError};
use std::time::Duration;

use backstitch_shop::process::Process;
use sqlx::{Connection as _, PgConnection};
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

use crate::client::{Api, Log};
use crate::proxy::{Proxy, Target};
use crate::stage::{Engine, Ground};
use crate::timeline::Timeline;
use crate::worker::Death;

/// Number of engines, and of workers.
pub const ENGINES: usize = 3;

/// Everything under fire.
pub struct Field {
    /// PostgreSQL and the ledger.
    pub ground: Mutex<Ground>,
    /// The name of the database.
    pub database: String,
    /// The engines.
    pub engines: Vec<Mutex<Engine>>,
    /// Between each engine and PostgreSQL.
    pub to_postgres: Vec<Proxy>,
    /// Between workers and each engine.
    pub to_engine: Vec<Proxy>,
    /// Between workers and the ledger.
    pub to_ledger: Proxy,
    /// The workers.
    pub workers: Vec<Mutex<Slot>>,
    /// The actions.
    pub timeline: Timeline,
    /// The calls of clients.
    pub log: Log,
    urls: Vec<String>,
    /// The last numbers of each life of each engine.
    numbers: Locked<HashMap<(usize, u32), HashMap<String, f64>>>,
}

/// A place for a worker process.
pub struct Slot {
    process: Option<Process>,
    lives: u32,
}

impl Field {
    /// Sets everything up on `ground`.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn set(ground: Ground, bug: Option<&str>) -> anyhow::Result<Arc<Field>> {
        let database = ground.database().await?;
        let (mut engines, mut to_postgres, mut to_engine) = (Vec::new(), Vec::new(), Vec::new());
        let mut urls = Vec::new();
        for number in 0..ENGINES {
            let proxy = ground.postgres_proxy().await?;
            let url = ground.url(&database, Some(&proxy))?;
            let mut engine = ground.engine(&format!("engine-{number}"), &url);
            let shards = 1 + number % 2;
            engine
                .tuning
                .push_str(&format!(",first_snapshot=40,cache_weight=40000,shards={shards}"));
            if let Some(bug) = bug {
                engine.env.push(("BACKSTITCH_BUG".to_owned(), bug.to_owned()));
            }
            engine.start().await?;
            let address = engine.url().trim_start_matches("http://").to_owned();
            urls.push(engine.url());
            to_engine.push(Proxy::start(Target::Tcp(address)).await?);
            to_postgres.push(proxy);
            engines.push(Mutex::new(engine));
        }
        let ledger = ground.ledger_url().trim_start_matches("http://").to_owned();
        let to_ledger = Proxy::start(Target::Tcp(ledger)).await?;
        let workers = (0..ENGINES).map(|_| Mutex::new(Slot { process: None, lives: 0 })).collect();
        let field = Field {
            ground: Mutex::new(ground),
            database,
            engines,
            to_postgres,
            to_engine,
            to_ledger,
            workers,
            timeline: Timeline::default(),
            log: Log::default(),
            urls,
            numbers: Locked::default(),
        };
        for number in 0..ENGINES {
            field.new_worker(number, None).await?;
        }
        Ok(Arc::new(field))
    }

    /// Returns a client of all engines.
    #[must_use]
    pub fn api(&self) -> Api {
        Api::new(&self.urls, &self.log)
    }

    /// Returns a connection to the database, past all proxies.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn sql(&self) -> anyhow::Result<PgConnection> {
        let url = self.ground.lock().await.url(&self.database, None)?;
        Ok(tokio::time::timeout(Duration::from_secs(5), PgConnection::connect(&url)).await??)
    }

    /// Kills the worker of a place, if it lives, and starts another.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn new_worker(&self, number: usize, death: Option<Death>) -> anyhow::Result<()> {
        let mut slot = self.workers[number].lock().await;
        if let Some(mut process) = slot.process.take() {
            process.kill().await?;
        }
        slot.lives += 1;
        let server = format!("http://{}", self.to_engine[number].address());
        let ledger = format!("http://{}", self.to_ledger.address());
        let name = format!("worker-{number}.{}", slot.lives);
        let ground = self.ground.lock().await;
        slot.process = Some(ground.worker(&name, &server, &ledger, death).await?);
        Ok(())
    }

    /// Returns the process id of a worker, if it lives.
    pub async fn worker_pid(&self, number: usize) -> Option<u32> {
        self.workers[number].lock().await.process.as_ref().and_then(Process::pid)
    }

    /// Starts workers anew that have died.
    ///
    /// # Errors
    /// When one does not start.
    pub async fn revive_workers(&self) -> anyhow::Result<()> {
        for number in 0..self.workers.len() {
            let dead = {
                let mut slot = self.workers[number].lock().await;
                slot.process.as_mut().is_none_or(|process| process.ended().is_some())
            };
            if dead {
                self.new_worker(number, None).await?;
            }
        }
        Ok(())
    }

    /// Keeps workers alive and looks at the engines' numbers, for as long as it is not aborted.
    #[must_use]
    pub fn tend(self: &Arc<Self>) -> JoinHandle<()> {
        let field = Arc::clone(self);
        tokio::spawn(async move {
            loop {
                // One that does not start is started the next time.
                let _ = field.revive_workers().await;
                field.look_at_numbers().await;
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        })
    }

    async fn look_at_numbers(&self) {
        for number in 0..self.engines.len() {
            // An engine that is being hurt is looked at later.
            let Ok(pid) = self.engines[number].try_lock().map(|engine| engine.pid()) else {
                continue;
            };
            let Some(pid) = pid else { continue };
            let asked = self.api().at(number);
            let asked = tokio::time::timeout(Duration::from_millis(500), asked.metrics());
            let Ok(numbers) = asked.await else { continue };
            if !numbers.is_empty() {
                let mut all = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
                all.insert((number, pid), numbers.into_iter().collect());
            }
        }
    }

    /// Returns a counter of all engines, over all their lives; what an engine counted right before it died may be
    /// missing.
    #[must_use]
    pub fn counted(&self, counter: &str) -> f64 {
        let all = self.numbers.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().filter_map(|life| life.get(counter)).sum()
    }

    /// Returns the memory in KiB, and how many files are open, of each engine that runs.
    pub async fn sizes(&self) -> Vec<(u64, usize)> {
        let mut sizes = Vec::new();
        for engine in &self.engines {
            let Some(pid) = engine.lock().await.pid() else { continue };
            let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
            let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
            let memory = memory.and_then(|text| text.split_whitespace().next()?.parse().ok());
            let files = std::fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count);
            sizes.push((memory.unwrap_or(0), files));
        }
        sizes
    }
}
