//! A private PostgreSQL server, started from the binaries on this machine and stopped with its parent.
//!
//! For `backstitch dev`, the demo and the tests. It listens on a unix socket in its own directory only, commits with
//! `fsync` on, and drops to an unprivileged user when started by root. It downloads nothing and manages no server
//! that it did not start.

mod claim;
mod find;
mod place;

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use sqlx::postgres::PgConnectOptions;
use sqlx::{ConnectOptions, Connection, PgConnection};

use crate::store::{databases, schema};
use claim::Claim;
pub use find::{Binaries, find_binaries};
pub use place::default_data_dir;
use place::{Unprivileged, drop_to, make_dir, unprivileged};

/// Longest time that a server may take to accept connections, recovery after a crash included.
const START_LIMIT: Duration = Duration::from_secs(60);
/// Longest time that the last server on the same directory may take to stop.
const LOCK_LIMIT: Duration = Duration::from_secs(15);
/// The superuser of every private server.
const SUPERUSER: &str = "backstitch";

/// Runs the server and stops it when standard input ends, which it also does when the parent was killed. Arguments:
/// the directory to remove afterwards (or nothing), the signal that stops it, the log, then the server's command.
const WATCHDOG: &str = r#"
remove=$1; signal=$2; log=$3; shift 3
exec 3<&0
"$@" </dev/null >>"$log" 2>&1 3<&- &
server=$!
echo $server
( cat <&3 >/dev/null; kill -s "$signal" $server; sleep 10; kill -s QUIT $server ) >/dev/null 2>&1 &
guard=$!
exec 3<&- </dev/null >/dev/null 2>&1
wait $server
code=$?
kill $guard
if [ -n "$remove" ]; then rm -rf "$remove"; fi
exit $code
"#;

/// Options of a private server.
#[derive(Clone, Debug, Default)]
pub struct StartOptions {
    /// Directory of the data, with log and socket; created if it does not exist. Without it the data goes
    /// to a temporary directory and is removed when the server stops.
    pub data_dir: Option<PathBuf>,
    /// Server settings beside our own, as in `postgresql.conf`.
    pub settings: Vec<(String, String)>,
    /// Variables of the server's environment beside ours, such as those of a library to load before others.
    pub env: Vec<(String, String)>,
}

/// The reason for which there is no private server.
#[derive(Debug, thiserror::Error)]
pub enum LocalPostgresError {
    /// No usable binaries.
    #[error("{0}")]
    NotFound(String),
    /// Another server works on the directory.
    #[error("{holder} uses {}; stop it, or choose another data directory", .dir.display())]
    InUse {
        /// The directory.
        dir: PathBuf,
        /// The process that uses it, with its id.
        holder: String,
    },
    /// The unprivileged user that the server must run as cannot get there.
    #[error(
        "PostgreSQL refuses to run as root, and the user '{user}' cannot enter {}; choose a data directory that it can reach, such as {}", .blocked.display(), .instead.display()
    )]
    Unreachable {
        /// The user.
        user: String,
        /// The directory that shuts it out.
        blocked: PathBuf,
        /// The directory that would work.
        instead: PathBuf,
    },
    /// Something on the way failed.
    #[error("{what}: {detail}")]
    Failed {
        /// The action that failed.
        what: String,
        /// Details of the failure.
        detail: String,
    },
}

fn failed(what: impl Into<String>, detail: impl std::fmt::Display) -> LocalPostgresError {
    LocalPostgresError::Failed { what: what.into(), detail: detail.to_string() }
}

/// A running private server. It stops when this is dropped, and when this process dies, however it dies.
#[derive(Debug)]
pub struct LocalPostgres {
    dir: PathBuf,
    pid: u32,
    watchdog: Option<Child>,
    /// Held for as long as the server belongs to this process.
    _claim: Option<Claim>,
}

impl LocalPostgres {
    /// Finds the binaries, makes a cluster if there is none, starts the server and waits until it answers.
    ///
    /// # Errors
    /// [`LocalPostgresError`], which says what to do.
    pub async fn start(options: StartOptions) -> Result<LocalPostgres, LocalPostgresError> {
        let binaries = find_binaries()?;
        let server = tokio::task::spawn_blocking(move || launch(&binaries, &options))
            .await
            .map_err(|error| failed("starting PostgreSQL", error))??;
        server.ready().await
    }

    /// Returns the URL of the database `name` on this server, for sqlx and libpq alike.
    #[must_use]
    pub fn url(&self, name: &str) -> String {
        let dir = percent_encode(&self.dir.to_string_lossy());
        format!("postgres://{SUPERUSER}@localhost/{}?host={dir}", percent_encode(name))
    }

    /// Makes an empty database.
    ///
    /// # Errors
    /// When the name is taken, or the server does not answer.
    pub async fn create_database(&self, name: &str) -> Result<(), LocalPostgresError> {
        let mut connection = self.connect().await?;
        let made = databases::create(&mut connection, name, None).await;
        made.map_err(|error| failed(format!("making the database {name}"), error))
    }

    /// Creates a database as a copy of `template`, to which no session may be connected.
    ///
    /// # Errors
    /// When the name is taken, the template is in use, or the server does not answer.
    pub async fn copy_database(
        &self,
        name: &str,
        template: &str,
    ) -> Result<(), LocalPostgresError> {
        let mut connection = self.connect().await?;
        let made = databases::create(&mut connection, name, Some(template)).await;
        made.map_err(|error| failed(format!("copying the database {template} to {name}"), error))
    }

    /// Creates the database `name` unless it exists.
    ///
    /// # Errors
    /// When the server does not answer.
    pub async fn ensure_database(&self, name: &str) -> Result<(), LocalPostgresError> {
        let mut connection = self.connect().await?;
        let made = match databases::exists(&mut connection, name).await {
            Ok(true) => Ok(()),
            Ok(false) => databases::create(&mut connection, name, None).await,
            Err(error) => Err(error),
        };
        made.map_err(|error| failed(format!("making the database {name}"), error))
    }

    /// Drops a database, even if sessions are connected to it.
    ///
    /// # Errors
    /// When it does not exist, or the server does not answer.
    pub async fn drop_database(&self, name: &str) -> Result<(), LocalPostgresError> {
        let mut connection = self.connect().await?;
        let dropped = databases::drop(&mut connection, name).await;
        dropped.map_err(|error| failed(format!("dropping the database {name}"), error))
    }

    /// Returns the process id of the server.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Returns the directory of data, log (`server.log`) and socket.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Stops the server and waits for its end. Connections are cut; committed data stays.
    pub async fn stop(mut self) {
        let Some(mut watchdog) = self.watchdog.take() else { return };
        drop(watchdog.stdin.take());
        if let Err(error) = tokio::task::spawn_blocking(move || watchdog.wait()).await {
            tracing::warn!(%error, "nobody waited for the private PostgreSQL to stop");
        }
    }

    async fn connect(&self) -> Result<PgConnection, LocalPostgresError> {
        let options: PgConnectOptions =
            self.url("postgres").parse().map_err(|error| failed("reading our own URL", error))?;
        let options = options.disable_statement_logging();
        PgConnection::connect_with(&options)
            .await
            .map_err(|error| failed(format!("connecting to {}", self.url("postgres")), error))
    }

    async fn ready(mut self) -> Result<LocalPostgres, LocalPostgresError> {
        let started = Instant::now();
        loop {
            let refused = match self.connect().await {
                Ok(connection) => {
                    drop(connection);
                    return Ok(self);
                }
                Err(refused) => refused,
            };
            let gone = match self.watchdog.as_mut() {
                Some(watchdog) => !matches!(watchdog.try_wait(), Ok(None)),
                None => true,
            };
            if gone || started.elapsed() > START_LIMIT {
                let log = tail(&self.dir.join("server.log"));
                return Err(failed("PostgreSQL did not start", format!("{refused}\n{log}")));
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Drop for LocalPostgres {
    fn drop(&mut self) {
        let Some(mut watchdog) = self.watchdog.take() else { return };
        drop(watchdog.stdin.take());
        // Only to leave no zombie behind: the watchdog stops the server also when nobody waits.
        std::thread::spawn(move || watchdog.wait());
    }
}

fn launch(
    binaries: &Binaries,
    options: &StartOptions,
) -> Result<LocalPostgres, LocalPostgresError> {
    let user = unprivileged()?;
    let dir = make_dir(options.data_dir.as_deref(), user.as_ref())?;
    // Before anything else: a second process gets an immediate error that names the first.
    let claim = options.data_dir.is_some().then(|| Claim::of(&dir)).transpose()?;
    let cluster = dir.join("cluster");
    if !cluster.join("PG_VERSION").exists() {
        initialise(binaries, &cluster, options.data_dir.is_none(), user.as_ref())?;
    }
    wait_for_lock(&cluster)?;
    let ephemeral = options.data_dir.is_none();
    let mut command = Command::new("/bin/sh");
    command.args(["-c", WATCHDOG, "backstitch-postgres"]);
    command.arg(if ephemeral { dir.as_os_str() } else { "".as_ref() });
    command.arg(if ephemeral { "QUIT" } else { "INT" });
    command.arg(dir.join("server.log")).arg(&binaries.postgres).arg("-D").arg(&cluster);
    for (name, value) in [
        ("listen_addresses", ""),
        ("unix_socket_directories", &dir.to_string_lossy()),
        ("max_connections", "200"),
        ("fsync", "on"),
        ("log_checkpoints", "off"),
        // For those who look at the tables with a client of their own.
        ("search_path", &format!("{}, public", schema::OURS)),
    ] {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    for (name, value) in &options.settings {
        command.arg("-c").arg(format!("{name}={value}"));
    }
    command.envs(options.env.iter().map(|(name, value)| (name, value)));
    // A group of its own: Ctrl-C is for the program, which then stops its server in order.
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).process_group(0);
    drop_to(&mut command, user.as_ref(), &dir);
    let mut watchdog = command.spawn().map_err(|error| failed("starting /bin/sh", error))?;
    let mut line = String::new();
    if let Some(stdout) = watchdog.stdout.take() {
        BufReader::new(stdout).read_line(&mut line).map_err(|error| failed("/bin/sh", error))?;
    }
    let pid = line.trim().parse().map_err(|_| failed("starting PostgreSQL", "no process id"))?;
    Ok(LocalPostgres { dir, pid, watchdog: Some(watchdog), _claim: claim })
}

fn initialise(
    binaries: &Binaries,
    cluster: &Path,
    ephemeral: bool,
    user: Option<&Unprivileged>,
) -> Result<(), LocalPostgresError> {
    let mut command = Command::new(&binaries.initdb);
    command.arg("-D").arg(cluster).args([
        "--username",
        SUPERUSER,
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C",
        "--no-instructions",
    ]);
    if ephemeral {
        command.arg("--no-sync");
    }
    drop_to(&mut command, user, cluster.parent().unwrap_or(cluster));
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|error| failed(format!("starting {}", binaries.initdb.display()), error))?;
    if output.status.success() {
        return Ok(());
    }
    Err(failed(
        format!("{} failed", binaries.initdb.display()),
        String::from_utf8_lossy(&output.stderr).trim(),
    ))
}

/// Waits for the end of the last server on `cluster`: one that was killed with its parent takes a moment.
fn wait_for_lock(cluster: &Path) -> Result<(), LocalPostgresError> {
    let lock = cluster.join("postmaster.pid");
    let started = Instant::now();
    let mut told = false;
    while let Ok(text) = fs::read_to_string(&lock) {
        let pid = text.lines().next().unwrap_or_default().trim();
        let alive = Command::new("kill")
            .args(["-0", pid])
            .stderr(Stdio::null())
            .status()
            .is_ok_and(|status| status.success());
        if !alive {
            return Ok(());
        }
        if started.elapsed() > LOCK_LIMIT {
            let holder = format!("another PostgreSQL server (process {pid})");
            return Err(LocalPostgresError::InUse { dir: cluster.to_owned(), holder });
        }
        if !told {
            tracing::info!(pid, limit = ?LOCK_LIMIT, "waiting for the last PostgreSQL server on {} to stop", cluster.display());
            told = true;
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

fn tail(log: &Path) -> String {
    let text = fs::read_to_string(log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(12)..].join("\n")
}

fn percent_encode(text: &str) -> String {
    let mut encoded = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~/".contains(&byte) {
            encoded.push(char::from(byte));
        } else {
            encoded.push_str(&format!("%{byte:02X}"));
        }
    }
    encoded
}
