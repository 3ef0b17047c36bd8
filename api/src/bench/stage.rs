//! The environment of a measurement: a PostgreSQL, and on it a fresh database with servers and workers, each a process
//! of this program.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, bail};
use backstitch_engine::bench::{self, Gauge};
use backstitch_engine::local_postgres::{LocalPostgres, StartOptions};
use backstitch_sdk::{Client, Workflow};
use backstitch_shop::process::Process;
use tokio::io::{BufReader, Lines};
use tokio::process::{ChildStdout, Command};

use super::cpu;

/// Settings of the private server beside our own: enough memory and WAL that a minute of load does not wait for
/// checkpoints. `fsync` and `synchronous_commit` stay on.
const SETTINGS: [(&str, &str); 3] =
    [("shared_buffers", "512MB"), ("max_wal_size", "8GB"), ("checkpoint_timeout", "15min")];

/// The PostgreSQL server that is used.
pub(super) struct Ground {
    url: String,
    /// Its postmaster, when it runs on this machine.
    postmaster: Option<u32>,
    /// In words.
    pub(super) server: String,
    private: Option<LocalPostgres>,
    databases: u32,
    pub(super) logs: PathBuf,
    keep_logs: bool,
}

impl Ground {
    /// Prepares the server at `url`, or a private one.
    pub(super) async fn prepare(
        url: Option<&str>,
        settings: &[(String, String)],
        logs: Option<PathBuf>,
    ) -> anyhow::Result<Ground> {
        let private = match url {
            Some(_) => None,
            None => {
                let own = SETTINGS.map(|(name, value)| (name.to_owned(), value.to_owned()));
                let settings = own.into_iter().chain(settings.iter().cloned()).collect();
                Some(
                    LocalPostgres::start(StartOptions { settings, ..StartOptions::default() })
                        .await?,
                )
            }
        };
        let url = match (&private, url) {
            (Some(private), _) => private.url("postgres"),
            (None, Some(url)) => url.to_owned(),
            (None, None) => bail!("there is no PostgreSQL"),
        };
        let (backend, server) = Gauge::connect(&url).await?.server().await?;
        let postmaster = match &private {
            Some(private) => Some(private.pid()),
            None => u32::try_from(backend).ok().and_then(|pid| cpu::parent_of(pid, "postgres")),
        };
        let keep_logs = logs.is_some();
        let logs = logs.unwrap_or_else(|| {
            std::env::temp_dir().join(format!("backstitch-bench-{}", std::process::id()))
        });
        std::fs::create_dir_all(&logs)
            .with_context(|| format!("{} cannot be made", logs.display()))?;
        Ok(Ground { url, postmaster, server, private, databases: 0, logs, keep_logs })
    }

    /// Returns a fresh, migrated database: its name and URL.
    pub(super) async fn database(&mut self) -> anyhow::Result<(String, String)> {
        self.databases += 1;
        let name = format!("backstitch_bench_{}_{}", std::process::id(), self.databases);
        bench::make_database(&self.url, &name).await?;
        let mut url: reqwest::Url = self.url.parse().context("the database URL makes no sense")?;
        url.set_path(&format!("/{name}"));
        backstitch_engine::migrate(url.as_str()).await?;
        Ok((name, url.into()))
    }

    /// Drops a database that was made here.
    pub(super) async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        Ok(bench::drop_database(&self.url, name).await?)
    }

    /// Lets PostgreSQL write out what it still has to.
    pub(super) async fn rest(&self) -> anyhow::Result<()> {
        let mut gauge = Gauge::connect(&self.url).await?;
        if let Err(error) = gauge.checkpoint().await {
            tracing::warn!(%error, "no checkpoint between the loads; figures may be less steady");
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
        Ok(())
    }

    /// Returns the processor seconds of all of PostgreSQL, when it runs on this machine.
    pub(super) fn postgres_cpu(&self) -> Option<f64> {
        self.postmaster.map(cpu::of_family)
    }

    /// Stops the private server, if there is one.
    pub(super) async fn clear(self) {
        if let Some(private) = self.private {
            private.stop().await;
        }
        if !self.keep_logs {
            // Left-over logs harm nobody.
            let _ = std::fs::remove_dir_all(&self.logs);
        }
    }
}

/// One server with its worker.
pub(super) struct Pair {
    pub(super) url: String,
    pub(super) server: Process,
    pub(super) worker: Option<Process>,
    /// Output of the worker.
    pub(super) lines: Option<Lines<BufReader<ChildStdout>>>,
}

/// The processes to start.
#[derive(Clone, Copy)]
pub(super) struct Cast {
    pub(super) nodes: usize,
    pub(super) workers: bool,
    pub(super) hand_offs: bool,
    pub(super) concurrency: usize,
}

/// A database with everything that works on it.
pub(super) struct Stage {
    pub(super) name: String,
    pub(super) database: String,
    pub(super) pairs: Vec<Pair>,
}

impl Stage {
    /// Starts servers and workers on a fresh database, and registers `workflows`.
    pub(super) async fn set<In, Out>(
        ground: &mut Ground,
        cast: Cast,
        workflow: &Workflow<In, Out>,
    ) -> anyhow::Result<Stage> {
        let (name, database) = ground.database().await?;
        let mut pairs = Vec::new();
        for node in 1..=cast.nodes {
            pairs.push(Pair::start(ground, &database, node, cast).await?);
        }
        if let Some(pair) = pairs.first() {
            Client::new(&pair.url)?.register(workflow).await?;
        }
        Ok(Stage { name, database, pairs })
    }

    /// Returns the processor seconds of all servers, and of all workers.
    pub(super) fn cpu(&self) -> (f64, f64) {
        let of = |process: &Process| process.pid().map_or(0.0, cpu::of_process);
        let servers = self.pairs.iter().map(|pair| of(&pair.server)).sum();
        let workers = self.pairs.iter().filter_map(|pair| pair.worker.as_ref()).map(of).sum();
        (servers, workers)
    }

    /// Returns the most memory that a server had, in MiB.
    pub(super) fn peak_mib(&self) -> Option<f64> {
        let peaks = self.pairs.iter().filter_map(|pair| cpu::peak_mib(pair.server.pid()?));
        peaks.max_by(f64::total_cmp)
    }

    /// Fails if a process ended early, with its last output.
    pub(super) fn check_alive(&mut self) -> anyhow::Result<()> {
        let processes = self.pairs.iter_mut();
        for process in processes.flat_map(|pair| [Some(&mut pair.server), pair.worker.as_mut()]) {
            let Some(process) = process else { continue };
            if let Some(status) = process.ended() {
                bail!("the {} process ended ({status})\n{}", process.name(), process.last_words());
            }
        }
        Ok(())
    }

    /// Stops the workers, then the servers. The database stays.
    pub(super) async fn strike(self) {
        let (workers, servers): (Vec<_>, Vec<_>) =
            self.pairs.into_iter().map(|pair| (pair.worker, pair.server)).unzip();
        for process in workers.into_iter().flatten().chain(servers) {
            process.stop().await;
        }
    }
}

impl Pair {
    async fn start(
        ground: &Ground,
        database: &str,
        node: usize,
        cast: Cast,
    ) -> anyhow::Result<Pair> {
        let name = format!("server-{node}");
        let log = ground.logs.join(format!("{name}.log"));
        let mut command = program()?;
        command
            .args(["serve", "--open", "--listen", "127.0.0.1:0", "--with-parent"])
            .env("BACKSTITCH_DATABASE_URL", database);
        let (server, url) = Process::start(&name, &mut command, &log).await?;
        let (mut worker, mut lines) = (None, None);
        if cast.workers {
            let name = format!("worker-{node}");
            let log = ground.logs.join(format!("{name}.log"));
            let mut command = program()?;
            command.args(["bench-worker", "--server", &url]);
            command.arg("--concurrency").arg(cast.concurrency.to_string());
            if cast.hand_offs {
                command.arg("--hand-offs");
            }
            let (process, _, said) = Process::start_and_hear(&name, &mut command, &log).await?;
            (worker, lines) = (Some(process), Some(said));
        }
        Ok(Pair { url, server, worker, lines })
    }
}

/// Returns this program, whatever the shell around it is set up for.
pub(super) fn program() -> anyhow::Result<Command> {
    let program = std::env::current_exe().context("this program cannot find itself")?;
    let mut command = Command::new(program);
    for variable in std::env::vars_os().map(|(name, _)| name) {
        if variable.to_string_lossy().starts_with("BACKSTITCH_") {
            command.env_remove(variable);
        }
    }
    Ok(command)
}
