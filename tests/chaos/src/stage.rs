//! The processes under fire: PostgreSQL, the ledger, engines and workers, and how each is hurt.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use backstitch_engine::local_postgres::LocalPostgres;
use backstitch_shop::process::Process;
use backstitch_tests::processes::free_address;
use tokio::process::Command;

use crate::ledger;
use crate::proxy::{Proxy, Target};
use crate::server::Server;
use crate::worker::Death;

/// Says which role a process of this program plays.
pub const ROLE: &str = "BACKSTITCH_CHAOS_ROLE";

/// Inner workings of the engines under fire: what takes seconds in production takes parts of a second, and two runs do
/// what takes many.
pub const TUNING: &str = "dead_after=1500ms,beat_every=300ms,park_after=300ms,reserve_for=1s,statement_limit=3s,\
    resolve_for=5s,wake_every=100ms,shards=1,batch_beside=2";

/// The builds of `backstitch` that are tried.
#[derive(Clone)]
struct Builds {
    program: PathBuf,
    /// Another, to and from which engines go.
    other: Option<PathBuf>,
}

/// Number of grounds that this process has made: each has directories of its own.
static GROUNDS: AtomicU32 = AtomicU32::new(0);

/// The ground on which trials stand: one PostgreSQL and one ledger, and a directory for what is written.
pub struct Ground {
    dir: PathBuf,
    builds: Builds,
    /// PostgreSQL.
    pub server: Server,
    _ledger: Process,
    ledger_url: String,
    next: AtomicU32,
    keep: bool,
}

const TEMPLATE: &str = "template_of_chaos";

impl Ground {
    /// Starts PostgreSQL and the ledger. `program` is the `backstitch` to be tried; this program plays it otherwise.
    /// `other` is another build of it, to and from which engines go. With `keep`, logs and data are left behind.
    ///
    /// # Errors
    /// When one of them does not start.
    pub async fn start(
        program: Option<&Path>,
        other: Option<&Path>,
        settings: &[(&str, &str)],
        keep: bool,
    ) -> anyhow::Result<Ground> {
        let own = std::env::current_exe().context("this program cannot find itself")?;
        let program = program.map_or(own, Path::to_owned);
        let builds = Builds { program, other: other.map(Path::to_owned) };
        Ground::make(builds, settings, Vec::new(), keep).await
    }

    /// Another ground for the same builds, whose PostgreSQL has `env` in its environment.
    ///
    /// # Errors
    /// When something does not start.
    pub async fn beside(&self, env: Vec<(String, String)>) -> anyhow::Result<Ground> {
        Ground::make(self.builds.clone(), &[], env, self.keep).await
    }

    async fn make(
        builds: Builds,
        settings: &[(&str, &str)],
        env: Vec<(String, String)>,
        keep: bool,
    ) -> anyhow::Result<Ground> {
        let own = std::env::current_exe().context("this program cannot find itself")?;
        let number = GROUNDS.fetch_add(1, Ordering::Relaxed);
        let place = |what: &str| {
            let name = format!("backstitch-{what}-{}-{number}", std::process::id());
            std::env::temp_dir().join(name)
        };
        let (dir, data) = (place("chaos"), place("chaos-pg"));
        std::fs::create_dir_all(&dir)?;
        let mut all = vec![("fsync".to_owned(), "off".to_owned())];
        all.extend(settings.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        let server = Server::start(data, all, env, keep).await?;
        server.get()?.create_database(TEMPLATE).await?;
        backstitch_engine::migrate(&server.get()?.url(TEMPLATE)).await?;
        let mut command = Command::new(&own);
        command.env(ROLE, "ledger").arg(ledger::file_in(&dir));
        let log = dir.join("ledger.log");
        let (process, url) = Process::start("ledger", &mut command, &log).await?;
        Ok(Ground {
            dir,
            builds,
            server,
            _ledger: process,
            ledger_url: url,
            next: AtomicU32::new(0),
            keep,
        })
    }

    /// Returns the directory of logs.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Returns the address of the ledger.
    #[must_use]
    pub fn ledger_url(&self) -> &str {
        &self.ledger_url
    }

    /// Returns the file of the ledger.
    #[must_use]
    pub fn ledger_file(&self) -> PathBuf {
        ledger::file_in(&self.dir)
    }

    /// PostgreSQL.
    ///
    /// # Errors
    /// While it is down.
    pub fn postgres(&self) -> anyhow::Result<&LocalPostgres> {
        self.server.get()
    }

    /// Makes a migrated database and answers its name.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn database(&self) -> anyhow::Result<String> {
        let name = format!("chaos_{}", self.next.fetch_add(1, Ordering::Relaxed));
        self.copy(&name, TEMPLATE).await?;
        Ok(name)
    }

    /// Makes the database `name` a copy of `template`.
    ///
    /// # Errors
    /// When PostgreSQL does not answer, or the template stays in use.
    pub async fn copy(&self, name: &str, template: &str) -> anyhow::Result<()> {
        // The template may be in use by another copy for a moment.
        for _ in 0..50 {
            if self.postgres()?.copy_database(name, template).await.is_ok() {
                return Ok(());
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(self.postgres()?.copy_database(name, template).await?)
    }

    /// Forgets a database.
    ///
    /// # Errors
    /// When PostgreSQL does not answer.
    pub async fn drop_database(&self, name: &str) -> anyhow::Result<()> {
        Ok(self.postgres()?.drop_database(name).await?)
    }

    /// Returns whether engines can change from one build to another.
    #[must_use]
    pub fn has_other(&self) -> bool {
        self.builds.other.is_some()
    }

    /// Returns the target of proxies in front of PostgreSQL.
    ///
    /// # Errors
    /// While it is down.
    pub fn postgres_target(&self) -> anyhow::Result<Target> {
        Ok(Target::Unix(self.postgres()?.dir().join(".s.PGSQL.5432")))
    }

    /// Returns a proxy in front of PostgreSQL.
    ///
    /// # Errors
    /// When there is no port.
    pub async fn postgres_proxy(&self) -> anyhow::Result<Proxy> {
        Proxy::start(self.postgres_target()?).await
    }

    /// Returns the URL of a database, through a proxy when there is one.
    ///
    /// # Errors
    /// While PostgreSQL is down.
    pub fn url(&self, database: &str, proxy: Option<&Proxy>) -> anyhow::Result<String> {
        Ok(match proxy {
            Some(proxy) => {
                format!("postgres://backstitch@{}/{database}?sslmode=disable", proxy.address())
            }
            None => self.postgres()?.url(database),
        })
    }

    /// Returns an engine that is not started yet.
    ///
    /// # Panics
    /// When no port is free.
    #[must_use]
    pub fn engine(&self, name: &str, database_url: &str) -> Engine {
        Engine {
            name: name.to_owned(),
            program: self.builds.program.clone(),
            other: self.builds.other.clone(),
            address: free_address().to_string(),
            database_url: database_url.to_owned(),
            tuning: TUNING.to_owned(),
            open: true,
            args: Vec::new(),
            env: Vec::new(),
            log: self.dir.join(format!("{name}.log")),
            process: None,
        }
    }

    /// Starts a worker process for `server`.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn worker(
        &self,
        name: &str,
        server: &str,
        ledger: &str,
        death: Option<Death>,
    ) -> anyhow::Result<Process> {
        self.worker_with(name, server, ledger, death, &[]).await
    }

    /// Returns the same with this in its environment.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn worker_with(
        &self,
        name: &str,
        server: &str,
        ledger: &str,
        death: Option<Death>,
        env: &[(String, String)],
    ) -> anyhow::Result<Process> {
        let mut command = Command::new(std::env::current_exe()?);
        command.env(ROLE, "worker").args([server, ledger, name]);
        command.envs(env.iter().map(|(name, value)| (name, value)));
        if let Some(death) = death {
            command.arg(death.to_string());
        }
        let log = self.dir.join(format!("{name}.log"));
        Ok(Process::start(name, &mut command, &log).await?.0)
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        if self.keep {
            println!("logs are in {}", self.dir.display());
        } else {
            // What cannot be removed lies in the directory for temporary files.
            let _ = std::fs::remove_dir_all(&self.dir);
        }
    }
}

/// An engine under fire: always at the same address, on the same database.
pub struct Engine {
    /// Its name.
    pub name: String,
    program: PathBuf,
    other: Option<PathBuf>,
    address: String,
    /// URL of its database.
    pub database_url: String,
    /// Its inner workings; those that it is delivered with when this is empty.
    pub tuning: String,
    /// It asks nobody for a credential.
    pub open: bool,
    /// Further arguments of `serve`.
    pub args: Vec<String>,
    /// Its environment.
    pub env: Vec<(String, String)>,
    log: PathBuf,
    process: Option<Process>,
}

impl Engine {
    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Starts it.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(&mut self) -> anyhow::Result<()> {
        let mut command = Command::new(&self.program);
        command
            .env(ROLE, "program")
            .env("BACKSTITCH_DATABASE_URL", &self.database_url)
            .env("BACKSTITCH_NODE_NAME", &self.name)
            .envs(self.env.iter().map(|(name, value)| (name, value)))
            .args(["serve", "--with-parent", "--listen", &self.address])
            .args(self.open.then_some("--open"))
            .args(&self.args);
        if !self.tuning.is_empty() {
            command.env("BACKSTITCH_TUNING", &self.tuning);
        }
        let (process, _) = Process::start(&self.name, &mut command, &self.log).await?;
        self.process = Some(process);
        Ok(())
    }

    /// The next time it starts, it is of the other build, if there is one.
    pub fn change_build(&mut self) {
        if let Some(other) = &mut self.other {
            std::mem::swap(other, &mut self.program);
        }
    }

    /// Returns its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.process.as_ref().and_then(Process::pid)
    }

    /// Returns whether it has ended by itself.
    pub fn has_died(&mut self) -> bool {
        self.process.as_mut().is_none_or(|process| process.ended().is_some())
    }

    /// Ready when it has ended by itself.
    pub async fn died(&mut self) {
        if let Some(process) = &mut self.process {
            process.wait().await;
        }
        self.process = None;
    }

    /// Kills it, `kill -9`.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut process) = self.process.take() {
            process.kill().await?;
        }
        Ok(())
    }

    /// Lets it stop in order.
    pub async fn stop(&mut self) {
        if let Some(process) = self.process.take() {
            process.stop().await;
        }
    }

    /// Sends it a signal, such as `STOP` or `CONT`.
    ///
    /// # Errors
    /// When it is not there.
    pub async fn signal(&self, name: &str) -> anyhow::Result<()> {
        signal(self.pid().context("the engine is down")?, name).await
    }

    /// Returns the end of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines[lines.len().saturating_sub(20)..].join("\n")
    }
}

/// Sends a signal to a process that this one started.
///
/// # Errors
/// When it is not there.
pub async fn signal(pid: u32, name: &str) -> anyhow::Result<()> {
    let mut kill = Command::new("kill");
    let sent = kill.args(["-s", name, &pid.to_string()]).stderr(Stdio::null()).status().await?;
    anyhow::ensure!(sent.success(), "process {pid} is not there");
    Ok(())
}
