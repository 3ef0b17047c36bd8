//! Everything the demo needs, started in order and stopped together: PostgreSQL, the server, the three services, the
//! worker. Each but PostgreSQL is a child process of this very program.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context, bail};
use backstitch_engine::local_postgres::{LocalPostgres, StartOptions};
use backstitch_sdk::Client;
use backstitch_shop::desk::LedgerView;
use backstitch_shop::effect::Kind;
use backstitch_shop::faults::Faults;
use backstitch_shop::process::Process;
use backstitch_shop::service::Shelf;
use backstitch_workflows::Order;
use futures::future::select_all;
use serde::Serialize;
use tokio::process::Command;

use super::voice::Voice;

/// The database of the demo.
const DATABASE: &str = "demo";

/// Time that the worker waits for a service: short, since the demo makes it time out.
const SERVICE_TIMEOUT: &str = "800ms";

/// The running processes. Dropped, everything is killed.
pub(crate) struct Stage {
    /// Talks to the server.
    pub(crate) client: Client,
    /// Address of the server.
    pub(crate) server: String,
    /// Addresses of the services.
    pub(crate) services: Vec<(Kind, String)>,
    /// Connection string for `psql`.
    pub(crate) database: String,
    http: reqwest::Client,
    processes: Vec<Process>,
    postgres: LocalPostgres,
    logs: PathBuf,
}

impl Stage {
    /// Starts everything, and says so.
    ///
    /// # Errors
    /// An error that names what could not be started, with its last lines.
    pub(crate) async fn set(voice: &Voice) -> anyhow::Result<Stage> {
        Stage::set_with(voice, &Kind::ALL).await
    }

    /// Returns the same without the shop: PostgreSQL and the server.
    ///
    /// # Errors
    /// As [`Stage::set`].
    pub(crate) async fn bare(voice: &Voice) -> anyhow::Result<Stage> {
        Stage::set_with(voice, &[]).await
    }

    async fn set_with(voice: &Voice, shop: &[Kind]) -> anyhow::Result<Stage> {
        let program = std::env::current_exe().context("this program cannot find itself")?;

        let since = Instant::now();
        let postgres = LocalPostgres::start(StartOptions::default()).await?;
        postgres.create_database(DATABASE).await?;
        let database = postgres.url(DATABASE);
        let pid = postgres.pid();
        // It goes when PostgreSQL's own directory goes, however this process ends: who removes that must own it.
        let logs = postgres.dir().join("demo");
        let made = std::fs::create_dir(&logs).and_then(|()| {
            let owner = std::fs::metadata(postgres.dir())?;
            chown(&logs, Some(owner.uid()), Some(owner.gid()))
        });
        made.with_context(|| format!("{} cannot be made", logs.display()))?;
        voice.started("PostgreSQL", "private, in a temporary directory", Some(pid), since);

        let since = Instant::now();
        backstitch_engine::migrate(&database).await?;
        voice.started("schema", "migrated", None, since);

        let mut starter = Starter { program: &program, logs: &logs, voice, processes: Vec::new() };
        let serve = ["serve", "--open", "--listen", "127.0.0.1:0", "--with-parent"];
        let server =
            starter.start("server", &serve, &[("BACKSTITCH_DATABASE_URL", &database)]).await?;
        let mut services = Vec::new();
        for kind in shop.iter().copied() {
            let args = ["shop", kind.as_str(), "--with-parent"];
            services.push((kind, starter.start(kind.as_str(), &args, &[]).await?));
        }
        let mut work = vec!["shop", "worker", "--with-parent", "--timeout", SERVICE_TIMEOUT];
        work.extend(["--server", &server]);
        for (flag, (_, url)) in ["--stock", "--payment", "--shipping"].iter().zip(&services) {
            work.extend([*flag, url]);
        }
        if !shop.is_empty() {
            starter.start("worker", &work, &[]).await?;
        }
        let processes = starter.processes;
        let client = Client::new(&server)?;
        let http = reqwest::Client::new();
        Ok(Stage { client, server, services, database, http, processes, postgres, logs })
    }

    /// Does `work`, unless one of the processes ends meanwhile.
    ///
    /// # Errors
    /// Those of `work`; which process ended, and its last words.
    pub(crate) async fn guard<T>(
        &mut self,
        work: impl Future<Output = anyhow::Result<T>>,
    ) -> anyhow::Result<T> {
        let first_to_end =
            select_all(self.processes.iter_mut().map(|process| Box::pin(process.wait())));
        let (status, index) = tokio::select! {
            done = work => return done,
            (status, index, _) = first_to_end => (status, index),
        };
        let how = status.map_or("it is gone".to_owned(), |status| status.to_string());
        match self.processes.get(index) {
            Some(process) => {
                bail!("the {} process ended ({how})\n{}", process.name(), process.last_words())
            }
            None => bail!("a process ended ({how})"),
        }
    }

    /// Returns the part of the stage that guarded work needs.
    pub(crate) fn shop(&self) -> Shop {
        Shop {
            client: self.client.clone(),
            http: self.http.clone(),
            services: self.services.clone(),
        }
    }

    /// Says what to try while everything keeps running.
    ///
    /// # Errors
    /// When the order to try cannot be written.
    pub(crate) fn invite(&self, orders: &[Order], voice: &Voice) -> anyhow::Result<()> {
        let order = self.logs.join("order.json");
        let start = serde_json::json!({"workflow": "place-order", "input": orders.first()});
        std::fs::write(&order, format!("{start:#}"))?;
        let url = |kind| {
            self.services.iter().find(|(service, _)| *service == kind).map_or("", |(_, url)| url)
        };
        let (server, database) = (&self.server, &self.database);
        let (stock, payment) = (url(Kind::Stock), url(Kind::Payment));
        let json = "-H 'content-type: application/json'";
        voice.say("\nEverything keeps running. To try:\n");
        for (what, how) in [
            ("the console", format!("{server}/console")),
            ("the API, to read and to call", format!("{server}/docs")),
            ("the latest runs", format!("curl '{server}/v1/runs?limit=5'")),
            (
                "one more order",
                format!("curl '{server}/v1/runs?wait=10s' {json} -d @{}", order.display()),
            ),
            ("a run's history", format!("curl '{server}/v1/runs/RUN/history'")),
            ("the ledger of the stock", format!("curl {stock}/ledger")),
            (
                "cards are declined",
                format!(
                    r#"curl -X PUT {payment}/faults {json} -d '{{"rules":[{{"match":{{"op":"charge"}},"fault":"refuse"}}]}}'"#
                ),
            ),
            ("all is well again", format!("curl -X PUT {payment}/faults {json} -d '{{}}'")),
            ("the journal", format!("psql '{database}'")),
            ("the logs", format!("ls {}", self.logs.display())),
        ] {
            voice.say(format_args!("  {what:<29} {how}"));
        }
        voice.say("\nCtrl-C stops everything.");
        Ok(())
    }

    /// Returns the address of the console.
    pub(crate) fn console(&self) -> String {
        format!("{}/console", self.server)
    }

    /// Stops everything.
    pub(crate) async fn strike(mut self) {
        // Those who ask first, those who answer last.
        while let Some(process) = self.processes.pop() {
            process.stop().await;
        }
        self.postgres.stop().await;
    }
}

/// The server and the services, as the demo talks to them.
#[derive(Clone)]
pub(crate) struct Shop {
    /// Talks to the server.
    pub(crate) client: Client,
    http: reqwest::Client,
    services: Vec<(Kind, String)>,
}

impl Shop {
    /// Sets the switchboard of a service.
    pub(crate) async fn misbehave(&self, kind: Kind, faults: &Faults) -> anyhow::Result<()> {
        self.put(kind, "faults", faults).await
    }

    /// Says what is on the shelves.
    pub(crate) async fn fill_shelves(&self, shelves: &[Shelf]) -> anyhow::Result<()> {
        self.put(Kind::Stock, "shelves", shelves).await
    }

    /// Returns the ledgers of all services.
    pub(crate) async fn ledgers(&self) -> anyhow::Result<Vec<LedgerView>> {
        let mut ledgers = Vec::new();
        for (_, url) in &self.services {
            let answer = self.http.get(format!("{url}/ledger")).send().await?;
            ledgers.push(answer.error_for_status()?.json().await?);
        }
        Ok(ledgers)
    }

    async fn put<T: Serialize + ?Sized>(
        &self,
        kind: Kind,
        what: &str,
        body: &T,
    ) -> anyhow::Result<()> {
        let url = self.services.iter().find(|(service, _)| *service == kind).map(|(_, url)| url);
        let url = url.with_context(|| format!("there is no {} service", kind.as_str()))?;
        self.http.put(format!("{url}/{what}")).json(body).send().await?.error_for_status()?;
        Ok(())
    }
}

/// Starts child processes of this program, one after the other.
struct Starter<'a> {
    program: &'a Path,
    logs: &'a Path,
    voice: &'a Voice,
    processes: Vec<Process>,
}

impl Starter<'_> {
    /// Starts one and answers the URL that it names.
    async fn start(
        &mut self,
        name: &str,
        args: &[&str],
        env: &[(&str, &str)],
    ) -> anyhow::Result<String> {
        let since = Instant::now();
        let mut command = Command::new(self.program);
        // The demo's own processes, whatever the shell around it is set up for.
        for variable in std::env::vars_os().map(|(name, _)| name) {
            if variable.to_string_lossy().starts_with("BACKSTITCH_") {
                command.env_remove(variable);
            }
        }
        command.args(args).envs(env.iter().copied());
        let log = self.logs.join(format!("{name}.log"));
        let (process, url) = Process::start(name, &mut command, &log).await?;
        let up = if name == "worker" { "does the tasks" } else { url.as_str() };
        self.voice.started(name, up, process.pid(), since);
        self.processes.push(process);
        Ok(url)
    }
}
