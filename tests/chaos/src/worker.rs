//! The worker of the harness: it does what a step's input tells it to, at the ledger, and misbehaves as it is told.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use backstitch_sdk::{
    Client, CompensationContext, Probe, Task, TaskContext, TaskError, Undo, Verdict, Worker,
    protocol,
};
use backstitch_shop::child;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ledger::{self, Ask, Came, Op};

/// Does a step.
pub const DO: Task<Job, Out> = Task::new("do");
/// Undoes it.
pub const UNDO: Undo<Job, Out> = Undo::new("undo");
/// Looks whether it was done.
pub const LOOK: Probe<Job, Out> = Probe::new("look");

/// Input of a step.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Job {
    /// The outputs of the steps that it needs.
    #[serde(default)]
    pub needs: BTreeMap<String, Value>,
    /// Its script.
    pub script: Script,
}

/// Behaviour of a step. The attempts of a step are numbered from 1, those lost to a fault included.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Script {
    /// The number that it adds to the sum of its needs.
    pub adds: i64,
    /// Its movements.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub moves: Vec<(String, i64)>,
    /// It takes so long before the effect.
    #[serde(skip_serializing_if = "is_zero")]
    pub ms: u64,
    /// So many attempts fail before the effect.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub fails: u32,
    /// It fails for good, without an effect.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub refuses: bool,
    /// So many attempts make the effect and do not know it.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub doubts: u32,
    /// So many attempts at undoing it fail.
    #[serde(skip_serializing_if = "is_zero_u32")]
    pub undo_fails: u32,
    /// It kills the worker.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub kills: bool,
    /// It is poison when three workers are lost over it, however often faults cost it one.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub few_losses: bool,
    /// It has no effect at all.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub reads: bool,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's signature")]
fn is_zero_u32(number: &u32) -> bool {
    *number == 0
}

/// Output of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Out {
    /// The sum so far.
    pub v: i64,
}

/// Returns the sum of everything called `v` in a document.
#[must_use]
pub fn total(value: &Value) -> i64 {
    match value {
        Value::Array(all) => all.iter().map(total).sum(),
        Value::Object(members) => members
            .iter()
            .map(|(name, value)| match value.as_i64() {
                Some(number) if name == "v" => number,
                _ => total(value),
            })
            .sum(),
        _ => 0,
    }
}

/// The moment at which a worker dies, and at which of its effects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Death {
    /// Before the effect is asked for.
    Before(u64),
    /// Between the effect and its report.
    Between(u64),
    /// After the report has been answered.
    After(u64),
}

impl std::str::FromStr for Death {
    type Err = String;

    fn from_str(text: &str) -> Result<Death, String> {
        let parsed = text.split_once(':').and_then(|(when, n)| Some((when, n.parse().ok()?)));
        match parsed {
            Some(("before", n)) => Ok(Death::Before(n)),
            Some(("between", n)) => Ok(Death::Between(n)),
            Some(("after", n)) => Ok(Death::After(n)),
            _ => Err(format!("'{text}' is not before:N, between:N or after:N")),
        }
    }
}

impl std::fmt::Display for Death {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Death::Before(n) => write!(f, "before:{n}"),
            Death::Between(n) => write!(f, "between:{n}"),
            Death::After(n) => write!(f, "after:{n}"),
        }
    }
}

/// State that the handlers share.
pub struct Hands {
    name: String,
    ledger: String,
    http: reqwest::Client,
    death: Option<Death>,
    /// `true` if a script may kill this process.
    mortal: bool,
    effects: AtomicU64,
}

impl Hands {
    /// Hands that ask the ledger at `ledger`.
    ///
    /// # Panics
    /// Never: the client has no options that could be wrong.
    #[must_use]
    pub fn new(name: &str, ledger: &str, death: Option<Death>, mortal: bool) -> Arc<Hands> {
        let http = reqwest::Client::builder().timeout(Duration::from_secs(2)).build();
        let http = http.unwrap_or_default();
        let effects = AtomicU64::new(0);
        let (name, ledger) = (name.to_owned(), ledger.to_owned());
        Arc::new(Hands { name, ledger, http, death, mortal, effects })
    }

    /// One request for an attempt; `key` is that of the forward effect.
    async fn ask(&self, op: Op, context: &TaskContext, job: &Job) -> Result<Came, TaskError> {
        let nth = match op {
            Op::Probe => 0,
            Op::Apply | Op::Revert => self.effects.fetch_add(1, Ordering::Relaxed) + 1,
        };
        if self.death == Some(Death::Before(nth)) {
            std::process::abort();
        }
        let ask = Ask {
            op,
            run: context.run().0,
            step: context.step().to_string(),
            attempt: context.attempt(),
            key: context.forward_key(),
            worker: self.name.clone(),
            moves: job.script.moves.clone(),
        };
        let came = ledger::send(&self.http, &self.ledger, &ask).await;
        if self.death == Some(Death::Between(nth)) {
            std::process::abort();
        }
        came.map_err(|error| TaskError::unknown("ledger_silent", error))
    }

    async fn forward(&self, context: TaskContext, job: Job) -> Result<Out, TaskError> {
        let script = &job.script;
        if script.kills && self.mortal {
            std::process::abort();
        }
        if script.ms > 0 {
            tokio::time::sleep(Duration::from_millis(script.ms)).await;
        }
        if script.refuses {
            return Err(TaskError::permanent("refused", "the script says so"));
        }
        if context.attempt() <= script.fails {
            return Err(TaskError::retryable("not_yet", "the script says so"));
        }
        if !script.reads && self.ask(Op::Apply, &context, &job).await? == Came::Refused {
            return Err(TaskError::permanent("undone_before", "it was undone before it came"));
        }
        if context.attempt() <= script.doubts {
            return Err(TaskError::unknown("in_doubt", "the script says so"));
        }
        let needs: i64 = job.needs.values().map(total).sum();
        Ok(Out { v: needs + script.adds })
    }

    async fn undo(
        &self,
        context: TaskContext,
        undoing: CompensationContext<Job, Out>,
    ) -> Result<(), TaskError> {
        if context.attempt() <= undoing.input.script.undo_fails {
            return Err(TaskError::retryable("not_yet", "the script says so"));
        }
        self.ask(Op::Revert, &context, &undoing.input).await.map(|_| ())
    }

    async fn look(&self, context: TaskContext, job: Job) -> Result<Verdict<Out>, TaskError> {
        match self.ask(Op::Probe, &context, &job).await? {
            Came::Absent => Ok(Verdict::NotHappened),
            Came::Done | Came::Repeat | Came::Refused => {
                let needs: i64 = job.needs.values().map(total).sum();
                Ok(Verdict::Happened(Out { v: needs + job.script.adds }))
            }
        }
    }

    /// Returns a worker with these hands.
    ///
    /// # Errors
    /// When the URL of the server makes no sense.
    pub fn worker(self: &Arc<Hands>, server: &str, concurrency: usize) -> anyhow::Result<Worker> {
        let client = Client::new(server)?.tries(2);
        let (forward, undo, look) = (Arc::clone(self), Arc::clone(self), Arc::clone(self));
        let counted = Arc::clone(self);
        let answered = AtomicU64::new(0);
        Ok(Worker::new(client)
            .name(self.name.clone())
            .concurrency(concurrency)
            .drain_within(Duration::from_secs(2))
            .task(DO, move |context, job| {
                let hands = Arc::clone(&forward);
                async move { hands.forward(context, job).await }
            })
            .undo(UNDO, move |context, undoing| {
                let hands = Arc::clone(&undo);
                async move { hands.undo(context, undoing).await }
            })
            .probe(LOOK, move |context, job| {
                let hands = Arc::clone(&look);
                async move { hands.look(context, job).await }
            })
            .on_report(move |_: &protocol::TaskReport| {
                let nth = answered.fetch_add(1, Ordering::Relaxed) + 1;
                if counted.death == Some(Death::After(nth)) {
                    std::process::abort();
                }
            }))
    }
}

/// Is the worker process: works for `server` until its parent is gone.
///
/// # Errors
/// When the server will not have it.
pub async fn run(
    server: &str,
    ledger: &str,
    name: &str,
    concurrency: usize,
    death: Option<Death>,
) -> anyhow::Result<()> {
    let worker = Hands::new(name, ledger, death, true).worker(server, concurrency)?;
    child::announce("The worker works for", server);
    worker.run(child::told_to_stop(true)).await.context("the worker")?;
    Ok(())
}
