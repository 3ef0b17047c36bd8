//! Child processes as a parent sees them. They say when they are up ([`crate::child`]) and end with their parent:
//! dropped, they are killed; orphaned, they find their standard input closed.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};
use tokio::time::timeout;

/// Time that a process may take to report that it is ready.
const READY_WITHIN: Duration = Duration::from_secs(30);

/// Time that a process may take to end by itself.
const END_WITHIN: Duration = Duration::from_secs(5);

/// A running child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    /// Held open: the process ends when it closes. Apart from `child`, which closes it when it is waited for.
    stdin: Option<ChildStdin>,
    log: PathBuf,
}

impl Process {
    /// Starts `program`; what it says on standard error goes to the end of `log`. Returns what it prints on standard
    /// output, too.
    fn spawn(
        name: &str,
        program: &mut Command,
        log: &Path,
    ) -> anyhow::Result<(Process, Lines<BufReader<ChildStdout>>)> {
        let file = File::options()
            .create(true)
            .append(true)
            .open(log)
            .with_context(|| format!("the log {} cannot be opened", log.display()))?;
        let mut child = program
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(file)
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("the {name} process cannot be started"))?;
        let Some(out) = child.stdout.take() else {
            bail!("the {name} process has no standard output");
        };
        let stdin = child.stdin.take();
        let process = Process { name: name.to_owned(), child, stdin, log: log.to_owned() };
        Ok((process, BufReader::new(out).lines()))
    }

    /// Starts a process and waits until it says that it is up; the URL that it names is answered with it.
    ///
    /// # Errors
    /// When it cannot be started or ends before it is up; the message holds the end of its log.
    pub async fn start(
        name: &str,
        program: &mut Command,
        log: &Path,
    ) -> anyhow::Result<(Process, String)> {
        let (process, url, mut lines) = Process::start_and_hear(name, program, log).await?;
        // The pipe is kept empty, so that the process never blocks on it.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        Ok((process, url))
    }

    /// Starts the same, and returns what the process prints after that; it blocks when nobody reads
    /// it.
    ///
    /// # Errors
    /// As for [`Process::start`].
    pub async fn start_and_hear(
        name: &str,
        program: &mut Command,
        log: &Path,
    ) -> anyhow::Result<(Process, String, Lines<BufReader<ChildStdout>>)> {
        let (mut process, mut lines) = Process::spawn(name, program, log)?;
        match timeout(READY_WITHIN, lines.next_line()).await.map(Result::ok) {
            Ok(Some(Some(line))) => {
                let url = line.rsplit(' ').next().unwrap_or_default().to_owned();
                Ok((process, url, lines))
            }
            Ok(_) => {
                let status = timeout(END_WITHIN, process.child.wait()).await;
                let how = status
                    .ok()
                    .and_then(Result::ok)
                    .map_or("closed its output".to_owned(), |s| s.to_string());
                bail!("the {name} process did not start ({how})\n{}", process.last_words())
            }
            Err(_) => bail!(
                "the {name} process was not up within {READY_WITHIN:?}\n{}",
                process.last_words()
            ),
        }
    }

    /// Returns its name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Returns its process id, while it runs.
    #[must_use]
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Returns its exit status, if it has ended.
    pub fn ended(&mut self) -> Option<ExitStatus> {
        self.child.try_wait().ok().flatten()
    }

    /// Waits until it has ended by itself.
    pub async fn wait(&mut self) -> Option<ExitStatus> {
        self.child.wait().await.ok()
    }

    /// Kills it at once (SIGKILL) and waits until it is gone.
    ///
    /// # Errors
    /// When it cannot be killed.
    pub async fn kill(&mut self) -> anyhow::Result<()> {
        self.child.kill().await.with_context(|| format!("{} cannot be killed", self.name))
    }

    /// Asks it to end by closing its standard input, and kills it if it does not in five seconds.
    pub async fn stop(mut self) {
        drop(self.stdin.take());
        if timeout(END_WITHIN, self.child.wait()).await.is_err() {
            let _ = self.child.kill().await;
        }
    }

    /// Returns the last lines of its log.
    #[must_use]
    pub fn last_words(&self) -> String {
        let text = std::fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<&str> = text.lines().collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }
}
