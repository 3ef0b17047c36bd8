//! The PostgreSQL under fire: restarted, replaced by a standby, and short of room. It knows nothing of engines.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context as _, bail, ensure};
use backstitch_engine::local_postgres::{LocalPostgres, StartOptions, find_binaries};
use sqlx::{Connection as _, PgConnection};
use tokio::process::Command;
use tokio::time::sleep;

use crate::stage::signal;

/// Time that anything here may take.
const WITHIN: Duration = Duration::from_secs(60);
/// Free space on the small disk, in MiB, and its growth once there is room again.
const SPARE: u64 = 48;
const ROOMY: u64 = 4_096;

/// PostgreSQL, with its data in a directory of ours.
pub struct Server {
    postgres: Option<LocalPostgres>,
    options: StartOptions,
    lives: u32,
    /// Its data is left behind.
    keep: bool,
}

/// A standby that has everything that the primary has acknowledged.
pub struct Standby {
    postgres: LocalPostgres,
    options: StartOptions,
}

impl Server {
    /// Starts it with its data in `dir`, and with `env` in its environment.
    ///
    /// # Errors
    /// When it does not start.
    pub async fn start(
        dir: PathBuf,
        settings: Vec<(String, String)>,
        env: Vec<(String, String)>,
        keep: bool,
    ) -> anyhow::Result<Server> {
        let options = StartOptions { data_dir: Some(dir), settings, env };
        let postgres = Some(LocalPostgres::start(options.clone()).await?);
        Ok(Server { postgres, options, lives: 1, keep })
    }

    /// Returns the process, while there is one.
    ///
    /// # Errors
    /// While it is down.
    pub fn get(&self) -> anyhow::Result<&LocalPostgres> {
        self.postgres.as_ref().context("PostgreSQL is down")
    }

    fn dir(&self) -> &Path {
        self.options.data_dir.as_deref().unwrap_or(Path::new("/nowhere"))
    }

    /// Sends it a signal (`INT`: fast, `QUIT`: immediate) and starts it again.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn restart(&mut self, signal_name: &str) -> anyhow::Result<()> {
        signal(self.get()?.pid(), signal_name).await?;
        self.start_again().await
    }

    async fn start_again(&mut self) -> anyhow::Result<()> {
        if let Some(postgres) = self.postgres.take() {
            postgres.stop().await;
        }
        self.postgres = Some(LocalPostgres::start(self.options.clone()).await?);
        Ok(())
    }

    /// Starts a standby, and lets the primary acknowledge nothing any more that the standby does not have.
    ///
    /// # Errors
    /// When it cannot be made.
    pub async fn stand_by(&mut self) -> anyhow::Result<Standby> {
        self.lives += 1;
        let primary = self.get()?;
        let dir = PathBuf::from(format!("{}.{}", self.dir().display(), self.lives));
        std::fs::create_dir_all(&dir)?;
        let backup = base_backup().context("pg_basebackup is not there")?;
        let from =
            format!("host={} user=backstitch application_name=standby", primary.dir().display());
        let to = dir.join("cluster").display().to_string();
        run(&backup, &["-d", &from, "-D", &to, "-R", "-X", "stream", "-c", "fast", "-N"]).await?;
        // It runs as whoever the primary runs as.
        let like = format!("--reference={}", primary.dir().display());
        run(Path::new("chown"), &["-R", &like, &dir.display().to_string()]).await?;
        let options = StartOptions { data_dir: Some(dir), ..self.options.clone() };
        let postgres = LocalPostgres::start(options.clone()).await?;
        let mut sql = connect(primary).await?;
        for text in
            ["alter system set synchronous_standby_names = 'standby'", "select pg_reload_conf()"]
        {
            sqlx::query(text).execute(&mut sql).await?;
        }
        let until = std::time::Instant::now() + WITHIN;
        loop {
            let streams: bool = sqlx::query_scalar(
                "select exists (select 1 from pg_stat_replication where state = 'streaming' and sync_state = 'sync')",
            )
            .fetch_one(&mut sql)
            .await?;
            if streams {
                return Ok(Standby { postgres, options });
            }
            ensure!(std::time::Instant::now() < until, "the standby does not stream");
            sleep(Duration::from_millis(50)).await;
        }
    }

    /// The primary dies with all its processes, `kill -9`, and its data with it. The standby takes its place; it takes
    /// no writes before it is promoted.
    ///
    /// # Errors
    /// When the primary cannot be killed.
    pub async fn die_before(&mut self, standby: Standby) -> anyhow::Result<()> {
        let Some(primary) = self.postgres.take() else { bail!("PostgreSQL is down") };
        let mut doomed = vec![primary.pid()];
        doomed.extend(children_of(primary.pid()));
        for pid in doomed {
            // A backend may have gone by itself.
            let _ = signal(pid, "KILL").await;
        }
        primary.stop().await;
        self.throw_away();
        self.postgres = Some(standby.postgres);
        self.options = standby.options;
        Ok(())
    }

    /// Makes the standby that has taken the primary's place a primary.
    ///
    /// # Errors
    /// When it is not promoted in time.
    pub async fn promote(&self) -> anyhow::Result<()> {
        let mut sql = connect(self.get()?).await?;
        let promoted: bool =
            sqlx::query_scalar("select pg_promote(true, 50)").fetch_one(&mut sql).await?;
        ensure!(promoted, "the standby was not promoted in time");
        Ok(())
    }

    /// Moves the data to a disk of its own, if it is not there yet, that has room for little more.
    ///
    /// # Errors
    /// When that is not possible here; then everything is as it was.
    pub async fn move_to_small_disk(&mut self) -> anyhow::Result<()> {
        let disk = self.dir().join("disk");
        let (cluster, moved) = (self.dir().join("cluster"), disk.join("cluster"));
        if !disk.exists() {
            std::fs::create_dir_all(&disk)?;
            let at = disk.display().to_string();
            if let Err(error) = run(Path::new("mount"), &["-t", "tmpfs", "tmpfs", &at]).await {
                std::fs::remove_dir(&disk)?;
                return Err(error);
            }
            if let Some(postgres) = self.postgres.take() {
                postgres.stop().await;
            }
            let (from, to) = (cluster.display().to_string(), moved.display().to_string());
            run(Path::new("chown"), &[&format!("--reference={from}"), &at]).await?;
            run(Path::new("cp"), &["-a", &from, &to]).await?;
            std::fs::remove_dir_all(&cluster)?;
            std::os::unix::fs::symlink(&moved, &cluster)?;
            self.start_again().await?;
        }
        let used = run(Path::new("du"), &["-sm", &disk.display().to_string()]).await?;
        let used: u64 = used.split_whitespace().next().unwrap_or_default().parse()?;
        self.resize(used + SPARE).await
    }

    async fn resize(&self, mib: u64) -> anyhow::Result<()> {
        let (disk, size) = (self.dir().join("disk"), format!("remount,size={mib}m"));
        run(Path::new("mount"), &["-o", &size, &disk.display().to_string()]).await.map(drop)
    }

    /// Fills the small disk to the last byte, and has PostgreSQL ask for more of it.
    ///
    /// # Errors
    /// When there is no small disk.
    pub async fn fill_disk(&self) -> anyhow::Result<()> {
        let file = self.dir().join("disk/filling");
        let filling = tokio::task::spawn_blocking(move || -> std::io::Result<()> {
            let mut file = std::fs::File::create(file)?;
            let zeros = vec![0; 1 << 16];
            while std::io::Write::write_all(&mut file, &zeros).is_ok() {}
            Ok(())
        });
        filling.await??;
        // Each takes another file for the log; what waits to be used again is used up.
        for _ in 0..20 {
            let switched = async {
                let mut sql = connect(self.get()?).await?;
                let text =
                    "select pg_logical_emit_message(true, 'chaos', 'full'), pg_switch_wal()::text";
                sqlx::query(text).execute(&mut sql).await?;
                anyhow::Ok(())
            };
            if !matches!(tokio::time::timeout(Duration::from_secs(2), switched).await, Ok(Ok(()))) {
                break;
            }
        }
        Ok(())
    }

    /// Makes room again, and starts PostgreSQL if it has died. Returns whether it had.
    ///
    /// # Errors
    /// When it does not come back.
    pub async fn make_room(&mut self) -> anyhow::Result<bool> {
        std::fs::remove_file(self.dir().join("disk/filling"))?;
        self.resize(ROOMY).await?;
        let until = std::time::Instant::now() + WITHIN;
        let mut died = false;
        loop {
            if let Ok(postgres) = self.get() {
                if connect(postgres).await.is_ok() {
                    return Ok(died);
                }
                if signal(postgres.pid(), "0").await.is_err() {
                    died = true;
                    self.start_again().await?;
                }
            }
            ensure!(std::time::Instant::now() < until, "PostgreSQL does not come back");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// Files that cannot be removed stay in the directory for temporary files.
    fn throw_away(&self) {
        let disk = self.dir().join("disk");
        if disk.exists() {
            let mut unmount = std::process::Command::new("umount");
            let _ = unmount.arg("-l").arg(&disk).stderr(Stdio::null()).status();
        }
        let _ = std::fs::remove_dir_all(self.dir());
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let stopping = self.postgres.take();
        let pid = stopping.as_ref().map_or(0, LocalPostgres::pid).to_string();
        drop(stopping);
        let lives = || {
            let mut kill = std::process::Command::new("kill");
            kill.args(["-0", &pid])
                .stderr(Stdio::null())
                .status()
                .is_ok_and(|found| found.success())
        };
        let until = std::time::Instant::now() + Duration::from_secs(5);
        while pid != "0" && lives() && std::time::Instant::now() < until {
            std::thread::sleep(Duration::from_millis(50));
        }
        if !self.keep {
            self.throw_away();
        }
    }
}

/// Returns the program that copies a running server, if it is there: with the others, or wherever they really are.
#[must_use]
pub fn base_backup() -> Option<PathBuf> {
    let initdb = find_binaries().ok()?.initdb;
    let real = std::fs::canonicalize(&initdb).ok()?;
    let beside = [initdb, real].map(|path| path.with_file_name("pg_basebackup"));
    beside.into_iter().find(|path| path.exists())
}

/// Returns whether this process may mount a small disk.
pub async fn can_mount() -> bool {
    let probe = std::env::temp_dir().join(format!("backstitch-chaos-mount-{}", std::process::id()));
    let at = probe.display().to_string();
    let mounted = std::fs::create_dir_all(&probe).is_ok()
        && run(Path::new("mount"), &["-t", "tmpfs", "-o", "size=1m", "tmpfs", &at]).await.is_ok();
    if mounted {
        let _ = run(Path::new("umount"), &[&at]).await;
    }
    let _ = std::fs::remove_dir(&probe);
    mounted
}

async fn connect(postgres: &LocalPostgres) -> anyhow::Result<PgConnection> {
    Ok(PgConnection::connect(&postgres.url("postgres")).await?)
}

/// Runs a program to its end; what it printed.
async fn run(program: &Path, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(program);
    let output = command.args(args).stdin(Stdio::null()).output();
    let output = output.await.with_context(|| program.display().to_string())?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{} {args:?}: {said}", program.display());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// Returns the processes that a process has started.
fn children_of(parent: u32) -> Vec<u32> {
    let parent_of = |pid: u32| -> Option<u32> {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        // After the name, which ends with the last parenthesis: the state, then the parent.
        stat.rsplit_once(')')?.1.split_whitespace().nth(1)?.parse().ok()
    };
    let all = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = all.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.filter(|pid| parent_of(*pid) == Some(parent)).collect()
}
