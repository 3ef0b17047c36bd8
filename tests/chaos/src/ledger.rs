//! The ledger of effects: a process of its own that knows nothing of the engine. It does what it is asked under a key,
//! once per key, undoes it, and writes everything that it was asked to a file. Whoever checks reads that file.

use std::collections::HashMap;
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context as _;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use axum::{Json, Router};
use backstitch_shop::child;
use serde::{Deserialize, Serialize};
use tokio::net::TcpListener;
use uuid::Uuid;

use crate::timeline::now_ms;

/// A request to the ledger.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Op {
    /// Make the effect.
    Apply,
    /// Undo it; if it has not been made, see to it that it never is.
    Revert,
    /// Say whether it stands.
    Probe,
}

/// A request, made on behalf of one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// The operation.
    pub op: Op,
    /// The run.
    pub run: Uuid,
    /// The step or item.
    pub step: String,
    /// The attempt.
    pub attempt: u32,
    /// The key of the effect, the same for its undoing.
    pub key: Uuid,
    /// The worker.
    pub worker: String,
    /// Movements: account and amount.
    #[serde(default)]
    pub moves: Vec<(String, i64)>,
}

/// Result of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Came {
    /// It was done now.
    Done,
    /// It had been done before.
    Repeat,
    /// It was undone before it came, and is not done any more.
    Refused,
    /// An effect was probed for and does not stand.
    Absent,
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// From 1.
    pub n: u64,
    /// By this machine's clock, milliseconds since 1970.
    pub at: i64,
    /// The request.
    #[serde(flatten)]
    pub ask: Ask,
    /// The result.
    pub came: Came,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Effect {
    Stands,
    Undone,
}

struct Book {
    file: File,
    lines: u64,
    effects: HashMap<Uuid, Effect>,
    /// Without it each request is another effect, as with a target that knows no keys.
    dedup: bool,
}

impl Book {
    fn enter(&mut self, ask: Ask) -> anyhow::Result<Came> {
        let known = self.effects.get(&ask.key).copied();
        let came = match (ask.op, known) {
            (Op::Apply, Some(Effect::Undone)) => Came::Refused,
            (Op::Apply, Some(Effect::Stands)) if self.dedup => Came::Repeat,
            (Op::Apply, _) => {
                self.effects.insert(ask.key, Effect::Stands);
                Came::Done
            }
            (Op::Revert, Some(Effect::Undone)) => Came::Repeat,
            (Op::Revert, _) => {
                self.effects.insert(ask.key, Effect::Undone);
                Came::Done
            }
            (Op::Probe, Some(Effect::Stands)) => Came::Repeat,
            (Op::Probe, _) => Came::Absent,
        };
        self.lines += 1;
        let line = Line { n: self.lines, at: now_ms(), ask, came };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file.write_all(text.as_bytes())?;
        Ok(came)
    }
}

/// Serves a ledger that writes to `file`, until its parent is gone.
///
/// # Errors
/// When the file or the address is not to be had.
pub async fn serve(file: &Path, dedup: bool) -> anyhow::Result<()> {
    let mut book = Book { file: open(file)?, lines: 0, effects: HashMap::new(), dedup };
    for line in read(file)? {
        book.lines = line.n;
        match (line.ask.op, line.came) {
            (Op::Apply, Came::Done) => book.effects.insert(line.ask.key, Effect::Stands),
            (Op::Revert, Came::Done) => book.effects.insert(line.ask.key, Effect::Undone),
            _ => None,
        };
    }
    let router = Router::new().route("/", post(ask)).with_state(Arc::new(Mutex::new(book)));
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    child::announce("The ledger listens on", &format!("http://{}", listener.local_addr()?));
    axum::serve(listener, router).with_graceful_shutdown(child::told_to_stop(true)).await?;
    Ok(())
}

async fn ask(
    State(book): State<Arc<Mutex<Book>>>,
    Json(ask): Json<Ask>,
) -> Result<Json<Came>, StatusCode> {
    let mut book = book.lock().unwrap_or_else(PoisonError::into_inner);
    book.enter(ask).map(Json).map_err(|_| StatusCode::INTERNAL_SERVER_ERROR)
}

fn open(file: &Path) -> anyhow::Result<File> {
    let opened = File::options().create(true).append(true).open(file);
    opened.with_context(|| format!("the ledger {} cannot be opened", file.display()))
}

/// Reads everything that a ledger has written so far.
///
/// # Errors
/// When the file is not a ledger.
pub fn read(file: &Path) -> anyhow::Result<Vec<Line>> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    // A line that is being written has no end yet.
    let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
    whole.lines().map(|line| Ok(serde_json::from_str(line)?)).collect()
}

/// Returns the lines of a ledger by run.
///
/// # Errors
/// When the file is not a ledger.
pub fn by_run(file: &Path) -> anyhow::Result<HashMap<Uuid, Vec<Line>>> {
    let mut runs: HashMap<Uuid, Vec<Line>> = HashMap::new();
    for line in read(file)? {
        runs.entry(line.ask.run).or_default().push(line);
    }
    Ok(runs)
}

/// Asks the ledger at `url`. An error says nothing about whether it was done.
///
/// # Errors
/// When no answer came.
pub async fn send(http: &reqwest::Client, url: &str, ask: &Ask) -> anyhow::Result<Came> {
    let response = http.post(url).json(ask).send().await?.error_for_status()?;
    Ok(response.json().await?)
}

/// Returns the file of a ledger.
#[must_use]
pub fn file_in(dir: &Path) -> PathBuf {
    dir.join("ledger.ndjson")
}
