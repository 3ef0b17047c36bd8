//! Servers and workers as real processes that can be killed and started again, around services that live in the
//! test: the ledgers are never in doubt.

#![expect(
    clippy::unwrap_used,
    reason = "a test that cannot set up its processes has nothing better to do"
)]

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::path::PathBuf;
use std::process::ExitStatus;
use std::sync::atomic::{AtomicU32, Ordering};

use backstitch_sdk::Client;
use backstitch_shop::check::{Audit, RunStory, audit};
use backstitch_shop::desk::{Desk, Setup};
use backstitch_shop::effect::Kind;
use backstitch_shop::faults::Faults;
use backstitch_shop::process::Process;
use tokio::process::Command;

/// The program under test, and where its processes write their logs.
pub struct Program {
    path: PathBuf,
    logs: PathBuf,
}

impl Program {
    /// Returns the program at `path`. The logs of `test` go to a directory of its own, which is left behind when it
    /// fails.
    ///
    /// # Panics
    /// When the directory cannot be made.
    #[must_use]
    pub fn new(path: &str, test: &str) -> Program {
        let name = format!("backstitch-{test}-{}", std::process::id());
        let logs = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&logs).unwrap();
        Program { path: PathBuf::from(path), logs }
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.path);
        command.args(args).arg("--with-parent");
        command
    }

    async fn start(&self, name: &str, command: &mut Command) -> Process {
        let log = self.logs.join(format!("{name}.log"));
        match Process::start(name, command, &log).await {
            Ok((process, _)) => process,
            Err(error) => panic!("{error:#}"),
        }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if std::thread::panicking() {
            eprintln!("the logs of the processes are in {}", self.logs.display());
        } else {
            let _ = std::fs::remove_dir_all(&self.logs);
        }
    }
}

/// A server process that always listens on the same address and works on the same database.
pub struct Server<'a> {
    program: &'a Program,
    address: SocketAddr,
    database_url: String,
    process: Process,
}

impl<'a> Server<'a> {
    /// Starts one on a free port.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn start(program: &'a Program, database_url: &str) -> Server<'a> {
        let address = free_address();
        let process = Server::process(program, address, database_url).await;
        Server { program, address, database_url: database_url.to_owned(), process }
    }

    async fn process(program: &Program, address: SocketAddr, database_url: &str) -> Process {
        let listen = address.to_string();
        let mut command = program.command(&["serve", "--open", "--listen", &listen]);
        command.env("BACKSTITCH_DATABASE_URL", database_url);
        program.start("server", &mut command).await
    }

    /// Returns its address.
    #[must_use]
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Returns the same as an address.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns its process id.
    ///
    /// # Panics
    /// When it has ended.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid().expect("it runs")
    }

    /// Returns a client of it, which bears its being away for a while.
    ///
    /// # Panics
    /// When the client cannot be set up.
    #[must_use]
    pub fn client(&self) -> Client {
        Client::new(&self.url()).unwrap().tries(60)
    }

    /// Kills it, `kill -9`, and starts it again.
    ///
    /// # Panics
    /// When it had ended before, or does not start again.
    pub async fn kill_and_start(&mut self) {
        let ended = self.process.ended();
        assert!(ended.is_none(), "the server had ended: {ended:?}\n{}", self.process.last_words());
        self.process.kill().await.unwrap();
        self.process = Server::process(self.program, self.address, &self.database_url).await;
    }
}

/// Returns an address that nobody listens on. Its port is none of those that connections get by themselves: one of
/// them would be in the way of a server that starts again.
///
/// # Panics
/// When no port is free.
#[must_use]
pub fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    const FIRST: u32 = 10_000;
    const PORTS: u32 = 22_000;
    // Processes that run beside this one begin elsewhere.
    let begin = std::process::id().wrapping_mul(97);
    for _ in 0..PORTS {
        let place = begin.wrapping_add(NEXT.fetch_add(1, Ordering::Relaxed)) % PORTS;
        let port = u16::try_from(FIRST + place).expect("a port");
        if let Ok(listener) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            return listener.local_addr().expect("the address of a listener");
        }
    }
    panic!("no port is free from {FIRST} on");
}

/// The three services, inside the test.
pub struct Services {
    desks: Vec<(Kind, Desk, String)>,
}

impl Services {
    /// Opens and serves them.
    ///
    /// # Panics
    /// When there is no port to listen on.
    pub async fn open() -> Services {
        let mut desks = Vec::new();
        for kind in Kind::ALL {
            let desk = Desk::open(kind, &Setup::default()).unwrap();
            let listener = tokio::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
            let url = format!("http://{}", listener.local_addr().unwrap());
            tokio::spawn(desk.clone().serve(listener, std::future::pending()));
            desks.push((kind, desk, url));
        }
        Services { desks }
    }

    /// Returns the desk of one of them.
    ///
    /// # Panics
    /// Never: there is one of each kind.
    #[must_use]
    pub fn desk(&self, kind: Kind) -> &Desk {
        self.desks.iter().find(|(desk, ..)| *desk == kind).map(|(_, desk, _)| desk).unwrap()
    }

    /// Sets all switchboards.
    pub fn misbehave(&self, faults: &Faults) {
        self.desks.iter().for_each(|(_, desk, _)| desk.misbehave(faults.clone()));
    }

    /// Returns the number of requests that were answered from a ledger, without a second effect.
    #[must_use]
    pub fn repeats(&self) -> u64 {
        self.desks.iter().map(|(_, desk, _)| desk.ledger().repeats).sum()
    }

    /// Lays the ledgers beside what the runs say.
    #[must_use]
    pub fn audit(&self, runs: &[RunStory]) -> Audit {
        let ledgers: Vec<_> = self.desks.iter().map(|(_, desk, _)| desk.ledger()).collect();
        audit(runs, &ledgers)
    }

    /// Starts a worker that calls them, for so many tasks at once; with `die_after`, one that dies after so many
    /// effects, before it reports the last.
    ///
    /// # Panics
    /// When it does not start.
    pub async fn worker(
        &self,
        program: &Program,
        server: &Server<'_>,
        concurrency: usize,
        die_after: Option<u64>,
    ) -> Worker {
        let mut command = program.command(&["shop", "worker", "--timeout", "500ms"]);
        command.args(["--server", &server.url(), "--concurrency", &concurrency.to_string()]);
        for (kind, _, url) in &self.desks {
            command.args([format!("--{}", kind.as_str()), url.clone()]);
        }
        if let Some(effects) = die_after {
            command.args(["--die-after", &effects.to_string()]);
        }
        Worker { process: program.start("worker", &mut command).await }
    }
}

/// A worker process.
pub struct Worker {
    process: Process,
}

impl Worker {
    /// Waits until it is dead.
    ///
    /// # Panics
    /// When nobody knows how it ended.
    pub async fn died(mut self) -> ExitStatus {
        self.process.wait().await.unwrap()
    }
}
