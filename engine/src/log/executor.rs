//! Appends requests in batches: loads, decides, writes in one statement, and decides again when that is refused.

use std::collections::{HashMap, VecDeque};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant};

use backstitch_integration::events::{AppendRefusal, Known};
use backstitch_saga::Violation;
use backstitch_saga::protocol::EventReceipt;
use tokio::sync::{mpsc, oneshot};

use super::draft::EventDraft;
use super::rows::{self, Rows};
use crate::admission::Place;
use crate::crash::commit;
use crate::node::Node;
use crate::store::StoreError;
use crate::store::log::{self as table, Append, Wanted, Written};
use crate::store::session::Kept;
use crate::{Error, store};

/// The most events of one batch, roughly.
const EVENTS: usize = 2_000;
/// The most bytes of one batch, roughly.
const BYTES: usize = 4 * 1024 * 1024;
/// The most events of a batch that are compared with the body before, which is loaded for them.
const COMPARED: usize = 250;
/// Bytes that a namespace may have in a batch before another one has its turn.
const TURN: usize = 64 * 1024;
/// Number of tries of a batch before its requests are decided one by one, and number of tries of each of
/// those.
const TRIES: (usize, usize) = (3, 20);
/// Time for which locks of streams and keys are waited for; requests that wait longer, for an open transaction, wait
/// apart.
const PATIENCE: (&str, &str) = ("100ms", "10s");
/// Delay before the database is asked again.
const AGAIN: Duration = Duration::from_millis(50);

/// A request.
pub(crate) struct Ask {
    pub(super) namespace: Arc<str>,
    pub(super) events: Vec<EventDraft>,
    pub(super) bytes: usize,
    pub(super) answer: oneshot::Sender<Result<Vec<EventReceipt>, Error>>,
    /// Its share of the room for waiting requests.
    #[allow(dead_code, reason = "they are free when they are dropped")]
    pub(super) places: Vec<Place>,
}

/// A message to the executor.
pub(crate) enum Message {
    Append(Ask),
    /// Answered once everything that came before is done.
    Drain(oneshot::Sender<()>),
}

/// Requests that wait, by namespace, in turns.
#[derive(Default)]
struct Waiting {
    lanes: HashMap<Arc<str>, VecDeque<Ask>>,
    turns: VecDeque<Arc<str>>,
}

impl Waiting {
    fn push(&mut self, ask: Ask) {
        let lane = self.lanes.entry(Arc::clone(&ask.namespace)).or_default();
        if lane.is_empty() {
            self.turns.push_back(Arc::clone(&ask.namespace));
        }
        lane.push_back(ask);
    }

    /// Takes the requests of the next batch.
    fn batch(&mut self) -> Vec<Ask> {
        let mut batch = Vec::new();
        let (mut events, mut bytes, mut compared) = (0, 0, 0);
        while let Some(namespace) = self.turns.pop_front() {
            let Some(lane) = self.lanes.get_mut(&namespace) else { continue };
            let mut turn = 0;
            while turn < TURN && events < EVENTS && bytes < BYTES && compared < COMPARED {
                let Some(ask) = lane.pop_front() else { break };
                turn += ask.bytes;
                bytes += ask.bytes;
                events += ask.events.len();
                compared += ask.events.iter().filter(|one| one.draft.value.is_some()).count();
                batch.push(ask);
            }
            if lane.is_empty() {
                self.lanes.remove(&namespace);
            } else {
                self.turns.push_back(namespace);
            }
            if events >= EVENTS || bytes >= BYTES || compared >= COMPARED {
                break;
            }
        }
        batch
    }
}

/// The decisions about a batch.
struct Decided {
    rows: Append,
    answers: Vec<Result<Vec<EventReceipt>, Error>>,
}

/// Appends what is asked for.
pub(crate) struct Executor {
    node: Arc<Node>,
    inbox: mpsc::UnboundedReceiver<Message>,
    waiting: Waiting,
    drains: Vec<oneshot::Sender<()>>,
    connection: Option<Kept>,
    patience: &'static str,
    /// The task in which requests wait for transactions of others; `None` in that task itself.
    apart: Option<mpsc::UnboundedSender<Message>>,
}

impl Executor {
    /// Returns the executor, and the one to which it passes requests that wait for the transactions of
    /// others.
    pub(crate) fn pair(node: &Arc<Node>, inbox: mpsc::UnboundedReceiver<Message>) -> [Executor; 2] {
        let (apart, outlet) = mpsc::unbounded_channel();
        let new = |inbox, patience, apart| Executor {
            node: Arc::clone(node),
            inbox,
            waiting: Waiting::default(),
            drains: Vec::new(),
            connection: None,
            patience,
            apart,
        };
        let (short, long) = PATIENCE;
        [new(inbox, short, Some(apart)), new(outlet, long, None)]
    }

    /// Works until nobody can send any more.
    pub(crate) async fn run(mut self) {
        loop {
            if self.waiting.turns.is_empty() {
                for done in self.drains.drain(..) {
                    // A caller that has given up need not know; one that has ended has nothing left to
                    // do.
                    match &self.apart {
                        Some(apart) => drop(apart.send(Message::Drain(done))),
                        None => drop(done.send(())),
                    }
                }
                let Some(message) = self.inbox.recv().await else { return };
                self.take(message);
            }
            while let Ok(message) = self.inbox.try_recv() {
                self.take(message);
            }
            let batch = self.waiting.batch();
            if !batch.is_empty() {
                self.append(batch).await;
            }
        }
    }

    fn take(&mut self, message: Message) {
        match message {
            Message::Append(ask) => self.waiting.push(ask),
            Message::Drain(done) => self.drains.push(done),
        }
    }

    async fn append(&mut self, asks: Vec<Ask>) {
        let (together, alone) = TRIES;
        for ask in self.attempt(asks, together).await {
            self.node.counters.retried_one_by_one.one();
            for ask in self.attempt(vec![ask], alone).await {
                answer(ask, Err(Error::Busy));
            }
        }
    }

    /// Appends requests, and returns them if others were in the way so many times, or the database refuses one of them.
    async fn attempt(&mut self, asks: Vec<Ask>, tries: usize) -> Vec<Ask> {
        for _ in 0..tries {
            let decided = match self.decide(&asks).await {
                Ok(decided) => decided,
                Err(trouble) => return self.failed(asks, &trouble),
            };
            match self.write(&decided.rows).await {
                Ok(Written::Done) => {
                    if decided.rows.first_batch().is_some() {
                        self.node.counters.events_appended.add(decided.rows.count());
                        self.node.log.ring();
                    }
                    asks.into_iter().zip(decided.answers).for_each(|(ask, told)| answer(ask, told));
                    return Vec::new();
                }
                Ok(Written::Refused) => self.node.counters.conflicts.one(),
                Err(trouble) => return self.failed(asks, &trouble),
            }
        }
        asks
    }

    /// Answers requests that the database failed. A batch that it refuses is tried one by one; requests that wait for
    /// others wait apart.
    fn failed(&self, asks: Vec<Ask>, trouble: &StoreError) -> Vec<Ask> {
        match (trouble, &self.apart) {
            (StoreError::Rejected(_) | StoreError::Retryable(_), _) if asks.len() > 1 => {
                return asks;
            }
            (StoreError::Retryable(_), Some(apart)) => {
                for ask in asks {
                    // An executor that has ended drops the request, and the caller gets an error.
                    let _ = apart.send(Message::Append(ask));
                }
                return Vec::new();
            }
            (StoreError::Retryable(_), None) => {
                asks.into_iter().for_each(|ask| answer(ask, Err(Error::Busy)));
                return Vec::new();
            }
            _ => {}
        }
        self.node.counters.store_failures.one();
        for ask in asks {
            answer(ask, Err(Error::Store(trouble.message().to_owned())));
        }
        Vec::new()
    }

    /// Loads what requests need, and decides about them in their order.
    async fn decide(&mut self, asks: &[Ask]) -> Result<Decided, StoreError> {
        let mut known = self.load(asks).await?;
        let mut rows = Rows::new(&self.node, &known);
        let mut answers = Vec::with_capacity(asks.len());
        for ask in asks {
            let known = known.entry(Arc::clone(&ask.namespace)).or_default();
            let drafts: Vec<_> = ask.events.iter().map(|event| event.draft.clone()).collect();
            let batch = rows.batch(&ask.namespace);
            let decided = catch_unwind(AssertUnwindSafe(|| {
                known.append(&drafts, |new| batch.id(new).to_string())
            }));
            answers.push(match decided {
                Ok(Ok(outcomes)) => Ok(rows.add(&ask.namespace, &ask.events, &outcomes)),
                Ok(Err(refusal)) => Err(refused(refusal)),
                Err(_) => {
                    self.node.counters.bugs.one();
                    Err(Error::Bug("a request to append events was dropped".to_owned()))
                }
            });
        }
        Ok(Decided { rows: rows.finish(), answers })
    }

    async fn load(&mut self, asks: &[Ask]) -> Result<HashMap<Arc<str>, Known>, StoreError> {
        let wanted = rows::wanted(asks.iter().map(|ask| (&*ask.namespace, &ask.events[..])));
        let until = Instant::now() + self.node.options.tuning.resolve_for;
        loop {
            match self.load_once(&wanted).await {
                Ok(loaded) => return Ok(rows::known(loaded)),
                Err(trouble) if Instant::now() > until => {
                    return Err(StoreError::NotCommitted(trouble.message().to_owned()));
                }
                Err(_) => {
                    self.connection = None;
                    tokio::time::sleep(AGAIN).await;
                }
            }
        }
    }

    async fn load_once(&mut self, wanted: &Wanted) -> Result<table::Loaded, StoreError> {
        let limit = self.node.options.tuning.statement_limit;
        let connection = self.node.database.kept(&mut self.connection).await?;
        match tokio::time::timeout(limit, table::load(connection, wanted, self.patience)).await {
            Ok(loaded) => Ok(loaded?),
            Err(_) => {
                Err(StoreError::Indeterminate(format!("no answer within {} s", limit.as_secs())))
            }
        }
    }

    /// Writes rows, and determines the result if the answer is lost. The same rows are sent again: if they exist
    /// already, or are inserted because their statement still runs somewhere, their keys refuse them.
    async fn write(&mut self, rows: &Append) -> Result<Written, StoreError> {
        let Some(batch) = rows.first_batch() else { return Ok(Written::Done) };
        let until = Instant::now() + self.node.options.tuning.resolve_for;
        let mut in_doubt = false;
        loop {
            let trouble = match self.write_once(rows).await {
                Ok(Written::Done) => return Ok(Written::Done),
                Ok(Written::Refused) if !in_doubt => return Ok(Written::Refused),
                Ok(Written::Refused) => match self.is_written(batch).await {
                    Ok(true) => return Ok(Written::Done),
                    Ok(false) => return Ok(Written::Refused),
                    Err(trouble) => trouble,
                },
                Err(StoreError::Rejected(text)) => return Err(StoreError::Rejected(text)),
                // Others hold a lock: nothing was written.
                Err(StoreError::Retryable(text)) if !in_doubt => {
                    return Err(StoreError::Retryable(text));
                }
                Err(trouble) => trouble,
            };
            if matches!(trouble, StoreError::Indeterminate(_)) {
                if !in_doubt {
                    self.node.counters.unknown_commits.one();
                    tracing::warn!(
                        error = trouble.message(),
                        "the answer to an append was lost; its rows are sent again"
                    );
                }
                in_doubt = true;
            }
            if !matches!(trouble, StoreError::Retryable(_)) {
                self.connection = None;
            }
            if Instant::now() > until {
                return Err(match in_doubt {
                    true => StoreError::Indeterminate(trouble.message().to_owned()),
                    false => trouble,
                });
            }
            tokio::time::sleep(AGAIN).await;
        }
    }

    async fn write_once(&mut self, rows: &Append) -> Result<Written, StoreError> {
        let limit = self.node.options.tuning.statement_limit;
        let connection = self.node.database.kept(&mut self.connection).await?;
        let weeks = &self.node.database.weeks;
        let written = tokio::time::timeout(limit, rows.write(connection, weeks));
        match commit!("log_append", written.await) {
            Ok(written) => Ok(written?),
            Err(_) => {
                Err(StoreError::Indeterminate(format!("no answer within {} s", limit.as_secs())))
            }
        }
    }

    async fn is_written(&mut self, batch: uuid::Uuid) -> Result<bool, StoreError> {
        let connection = self.node.database.kept(&mut self.connection).await?;
        Ok(store::log::is_written(connection, batch).await?)
    }
}

fn answer(ask: Ask, told: Result<Vec<EventReceipt>, Error>) {
    // A caller that has given up asks again and gets the same result.
    let _ = ask.answer.send(told);
}

fn refused(refusal: AppendRefusal) -> Error {
    match refusal {
        AppendRefusal::Version { draft, stream, expected, actual } => Error::StreamVersion {
            message: format!(
                "event {draft} expects the stream '{stream}' at version {expected}; it is at {actual}; nothing was appended"
            ),
            actual,
        },
        AppendRefusal::Reused { draft, first } => Error::Conflict {
            code: "event_id_reused",
            message: format!(
                "event {draft} has the id of event {first}, and differs from it; nothing was appended"
            ),
        },
        AppendRefusal::Loop { draft, message } => {
            let place = format!("/events/{draft}/causation_id");
            Error::invalid("propagation_loop", Violation::new(place, "propagation_loop", message))
        }
    }
}
