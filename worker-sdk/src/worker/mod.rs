//! The worker: claims tasks, calls handlers, reports the results, and sends heartbeats.
//!
//! It decides nothing about a run and keeps nothing: if it dies, the server notices and asks another.

mod failures;
mod heart;
mod report;
mod stop;

use std::collections::HashMap;
use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use backstitch_saga::Span;
use backstitch_saga::protocol::{
    ClaimTasks, HeldTask, MOST_HELD, TaskOffer, TaskOutcome, TaskReport,
};
use tokio::sync::{Notify, RwLock};
use tokio::task::{AbortHandle, JoinSet};
use tokio::time::Instant;
use tracing::Instrument;
use uuid::Uuid;

use crate::Workflow;
use crate::backoff::Backoff;
use crate::client::{Client, ClientError};
use crate::context::InFlight;
use crate::handlers::{Handlers, registers_handlers};
use failures::Failures;
use report::Reports;

/// Time for which the server keeps a claim that finds no task.
const POLL: Span = Span::secs(20);
/// Longest time that the last claim may still take when the worker is stopped.
const LAST_CLAIM: Duration = Duration::from_millis(300);
/// The most tasks that one claim may ask for.
const CLAIM_MAX: usize = 1_000;

/// A process that does tasks.
///
/// ```no_run
/// # use backstitch_sdk::{Client, Task, TaskContext, TaskError, Worker};
/// # use serde::{Deserialize, Serialize};
/// # #[derive(Serialize, Deserialize)] pub struct Charge { cents: u64 }
/// # #[derive(Serialize, Deserialize)] pub struct Payment { authorization: String }
/// # pub const CHARGE_CARD: Task<Charge, Payment> = Task::new("charge_card");
/// async fn charge_card(ctx: TaskContext, charge: Charge) -> Result<Payment, TaskError> {
///     // Hand ctx.effect_key() to the payment service, so that it charges once however often it is asked.
///     Ok(Payment { authorization: format!("{}-{}", ctx.effect_key(), charge.cents) })
/// }
///
/// # async fn run() -> Result<(), backstitch_sdk::ClientError> {
/// Worker::new(Client::from_env()?)
///     .task(CHARGE_CARD, charge_card)
///     .concurrency(64)
///     .run(async { let _ = tokio::signal::ctrl_c().await; })
///     .await?;
/// # Ok(())
/// # }
/// ```
#[must_use = "a worker does nothing until it runs"]
pub struct Worker {
    client: Client,
    handlers: Handlers,
    name: String,
    concurrency: usize,
    drain: Duration,
    on_report: Option<Box<OnReport>>,
}

/// Callback for reports that counted.
type OnReport = dyn Fn(&TaskReport) + Send + Sync;

/// The end of a worker.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Drained {
    /// Reports that counted.
    pub reported: u64,
    /// Reports that came too late: the attempt had been revoked or its lease was over.
    pub late: u64,
    /// Tasks that were given back, or not finished or not reported when the time to drain was over; the server asks
    /// another worker.
    pub abandoned: u64,
}

impl Worker {
    /// Makes a worker without handlers, for 100 concurrent tasks.
    pub fn new(client: Client) -> Worker {
        Worker {
            client,
            handlers: Handlers::new(),
            name: default_name(),
            concurrency: 100,
            drain: Duration::from_secs(30),
            on_report: None,
        }
    }

    registers_handlers!();

    /// Checks, before anything runs, that this worker has every handler of `workflow`: task, compensation and probe.
    /// The handlers of a child run belong to its own workflow, which is checked separately.
    ///
    /// # Errors
    /// [`ClientError::Setup`] with the names of those that it lacks.
    pub fn check<In, Out>(&self, workflow: &Workflow<In, Out>) -> Result<(), ClientError> {
        let missing = self.handlers.missing(workflow);
        if missing.is_empty() {
            return Ok(());
        }
        let (name, missing) = (workflow.name(), missing.join(", "));
        Err(ClientError::Setup(format!(
            "this worker lacks handlers of the workflow {name}: {missing}; register them, or leave them to another worker"
        )))
    }

    /// Sets the name of the worker for people; by default the host's name and the process id. Each process has its own:
    /// a task over which a worker was lost is handed to a worker that has nothing else, in no session of its name.
    pub fn name(mut self, name: impl Into<String>) -> Worker {
        self.name = name.into();
        self
    }

    /// Sets the number of tasks that it holds at the same time, from the claim until the server has answered the
    /// report; 100 by default.
    pub fn concurrency(mut self, tasks: usize) -> Worker {
        self.concurrency = tasks.max(1);
        self
    }

    /// Sets the time that it may take to finish its tasks once it is stopped; 30 seconds by default. Handlers that
    /// take longer are stopped: see [`TaskContext::safe_to_stop`].
    pub fn drain_within(mut self, time: Duration) -> Worker {
        self.drain = time;
        self
    }

    /// Calls `tell` for each report once the server has answered that it counted: from then on it is durable. For
    /// metrics and the like; it must not block.
    pub fn on_report(mut self, tell: impl Fn(&TaskReport) + Send + Sync + 'static) -> Worker {
        self.on_report = Some(Box::new(tell));
        self
    }

    /// Works until `shutdown` is done; then it claims no more, gives back tasks that it has not begun, finishes the
    /// others, signs off and returns the result. Dropping the future instead stops everything immediately, like a
    /// crash: its tasks are handed out again when their leases end.
    ///
    /// Restarts of the server, busy answers and lost connections are waited out.
    ///
    /// # Errors
    /// [`ClientError`] when the server will not have it: no handlers, or a key that may not claim.
    pub async fn run(self, shutdown: impl Future<Output = ()>) -> Result<Drained, ClientError> {
        if self.handlers.is_empty() {
            return Err(ClientError::Setup("a worker needs at least one handler".to_owned()));
        }
        let claim = ClaimTasks {
            worker: self.name.clone(),
            session: Uuid::new_v4(),
            queues: self.handlers.queues(),
            max: 1,
            wait: POLL,
            holding: None,
        };
        let session = claim.session;
        let heart_client = self.client.with_own_connections()?;
        let desk = Desk::new(self.client, self.handlers, self.concurrency, self.on_report);
        let desk = Arc::new(Desk { session, ..desk });
        let _stop_all = StopAll(Arc::clone(&desk));
        heart::start(&desk, heart_client)?;
        let mut background = JoinSet::new();
        for _ in 0..report::SENDERS {
            background.spawn(report::run(Arc::clone(&desk)));
        }
        tracing::info!(worker = %self.name, concurrency = self.concurrency, "the worker claims tasks");
        let refused = claim_until(&desk, claim, shutdown).await.err();
        desk.give_back_unbegun().await;
        let drained = desk.drain(self.drain).await;
        desk.stop_rest().await;
        desk.sign_off().await;
        desk.failures.tell_rest();
        tracing::info!(worker = %self.name, ?drained, "the worker has stopped");
        match refused {
            Some(error) => Err(error),
            None => Ok(drained),
        }
    }
}

/// Claims tasks and begins them until `shutdown` is done.
///
/// The claim under way then is given a moment to be answered: its tasks may be on their way already, and dropped they
/// would be in nobody's hands until their leases end.
async fn claim_until(
    desk: &Arc<Desk>,
    mut claim: ClaimTasks,
    shutdown: impl Future<Output = ()>,
) -> Result<(), ClientError> {
    let mut shutdown = std::pin::pin!(shutdown);
    let mut backoff = Backoff::new();
    // `true` if tasks may have been leased to this session that are not here.
    let mut some_may_be_missing = false;
    loop {
        let free = tokio::select! {
            free = desk.free_slots() => free,
            () = &mut shutdown => return Ok(()),
        };
        claim.max = u32::try_from(free.min(CLAIM_MAX)).unwrap_or(1);
        claim.holding = some_may_be_missing.then(|| desk.holding()).flatten();
        let mut claiming = std::pin::pin!(desk.client.claim(&claim));
        let claimed = tokio::select! {
            claimed = &mut claiming => claimed,
            () = &mut shutdown => {
                if let Ok(Ok(claimed)) = tokio::time::timeout(LAST_CLAIM, claiming).await {
                    desk.give_back(&claimed.tasks).await;
                }
                return Ok(());
            }
        };
        match claimed {
            Ok(claimed) => {
                some_may_be_missing = claimed.holding_unknown;
                desk.begin(claimed.tasks);
                backoff = Backoff::new();
            }
            Err(error) if error.is_transient() => {
                tracing::warn!(%error, "claiming failed; trying again");
                some_may_be_missing = true;
                tokio::select! {
                    () = backoff.wait(error.retry_after()) => {}
                    () = &mut shutdown => return Ok(()),
                }
            }
            Err(error) => {
                tracing::error!(%error, "the server will not have this worker");
                return Err(error);
            }
        }
    }
}

/// State that the parts of a worker share.
pub(crate) struct Desk {
    client: Client,
    session: Uuid,
    stopped: AtomicBool,
    /// Number of tasks that were given back before they were begun.
    given_back: AtomicU64,
    handlers: Handlers,
    concurrency: usize,
    held: Mutex<HashMap<u64, Held>>,
    next_ticket: AtomicU64,
    slot_freed: Notify,
    /// Shared by the tasks under way; held whole by one that must be done alone.
    company: RwLock<()>,
    heart: Arc<Notify>,
    /// Time at which the heart next checks the tasks. Locked after `held`.
    next_beat: Mutex<Instant>,
    reports: Reports,
    failures: Failures,
    on_report: Option<Box<OnReport>>,
}

/// A task from its claim until its report is answered.
struct Held {
    task: Arc<InFlight>,
    /// Time of the last heartbeat.
    last_beat: Instant,
    work: AbortHandle,
}

impl Desk {
    fn new(
        client: Client,
        handlers: Handlers,
        concurrency: usize,
        on_report: Option<Box<OnReport>>,
    ) -> Desk {
        Desk {
            client,
            session: Uuid::nil(),
            stopped: AtomicBool::new(false),
            given_back: AtomicU64::new(0),
            handlers,
            concurrency,
            held: Mutex::default(),
            next_ticket: AtomicU64::new(0),
            slot_freed: Notify::new(),
            company: RwLock::new(()),
            heart: Arc::new(Notify::new()),
            next_beat: Mutex::new(Instant::now()),
            reports: Reports::default(),
            failures: Failures::default(),
            on_report,
        }
    }

    fn held(&self) -> MutexGuard<'_, HashMap<u64, Held>> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn next_beat(&self) -> MutexGuard<'_, Instant> {
        self.next_beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Returns the tasks that are here; `None` when they are more than a claim may name.
    fn holding(&self) -> Option<Vec<HeldTask>> {
        let held = self.held();
        let task = |one: &Held| {
            let TaskOffer { run, step, action, attempt, .. } = &one.task.offer;
            HeldTask {
                run: *run,
                step: step.clone(),
                action: *action,
                attempt: *attempt,
                lease: None,
            }
        };
        (held.len() <= MOST_HELD).then(|| held.values().map(task).collect())
    }

    /// Waits until there is a free slot; returns their number.
    async fn free_slots(&self) -> usize {
        loop {
            let freed = self.slot_freed.notified();
            let free = self.concurrency.saturating_sub(self.held().len());
            if free > 0 {
                return free;
            }
            freed.await;
        }
    }

    /// Begins tasks just claimed.
    fn begin(self: &Arc<Self>, offers: Vec<TaskOffer>) {
        let now = Instant::now();
        let mut held = self.held();
        let mut first_beat = None;
        for offer in offers {
            let ticket = self.next_ticket.fetch_add(1, Ordering::Relaxed);
            let task = InFlight::new(offer, self.client.codec.clone(), Arc::clone(&self.heart));
            let work = tokio::spawn(Arc::clone(self).work(ticket, Arc::clone(&task)));
            let one = Held { task, last_beat: now, work: work.abort_handle() };
            let due = heart::due(&one);
            first_beat = Some(first_beat.map_or(due, |first: Instant| first.min(due)));
            held.insert(ticket, one);
        }
        let sooner = first_beat.is_some_and(|first| first < *self.next_beat());
        drop(held);
        if sooner {
            self.heart.notify_one();
        }
    }

    /// Does one task and passes its report on.
    async fn work(self: Arc<Self>, ticket: u64, task: Arc<InFlight>) {
        let offer = &task.offer;
        let span = tracing::info_span!(
            "task",
            run = %offer.run,
            step = %offer.step,
            action = offer.action.as_str(),
            attempt = offer.attempt,
        );
        // A task over which a worker was lost is done with nothing beside it, so that others are not lost with it.
        let (beside, alone) = match offer.alone {
            true => (None, Some(self.company.write().await)),
            false => (Some(self.company.read().await), None),
        };
        if !task.begin() {
            return;
        }
        let work = async {
            let outcome = task.watched(self.handlers.call(Arc::clone(&task))).await;
            if let TaskOutcome::Failed(failure) = &outcome {
                self.failures.tell(&offer.name, failure);
            }
            outcome
        };
        let outcome = work.instrument(span).await;
        drop((beside, alone));
        self.reports.add(ticket, &task.offer, outcome);
    }

    /// Takes tasks whose reports were answered off the desk.
    fn release(&self, tickets: impl IntoIterator<Item = u64>) {
        let mut held = self.held();
        for ticket in tickets {
            held.remove(&ticket);
        }
        drop(held);
        self.slot_freed.notify_waiters();
    }

    /// Waits until nothing is held any more, for so long.
    async fn drain(&self, within: Duration) -> Drained {
        let until = Instant::now() + within;
        loop {
            let freed = self.slot_freed.notified();
            if self.held().is_empty() {
                break;
            }
            if tokio::time::timeout_at(until, freed).await.is_err() {
                break;
            }
        }
        let unfinished = u64::try_from(self.held().len()).unwrap_or(u64::MAX);
        self.reports.counted(unfinished + self.given_back.load(Ordering::Relaxed))
    }
}

/// Stops everything that still runs when the worker ends or is dropped.
struct StopAll(Arc<Desk>);

impl Drop for StopAll {
    fn drop(&mut self) {
        self.0.stopped.store(true, Ordering::Release);
        self.0.heart.notify_one();
        for (_, held) in self.0.held().drain() {
            held.task.cancel();
            held.work.abort();
        }
    }
}

/// Returns the host's name and the process id.
fn default_name() -> String {
    let file = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let host = file.or_else(|| std::env::var("HOSTNAME").ok()).map(|name| name.trim().to_owned());
    let host = host.filter(|host| !host.is_empty() && host.len() <= 100);
    format!("{}-{}", host.as_deref().unwrap_or("worker"), std::process::id())
}
