//! Requests of workers: claims, heartbeats and reports.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use backstitch_saga::protocol::{
    ClaimTasks, ClaimedTasks, Heartbeat, HeldTask, MOST_HELD, TaskAnswer, TaskOutcome, TaskReport,
    status_of,
};
use backstitch_saga::{Command, ErrorKind, Payload, RunId, TaskKey, Violation};
use uuid::Uuid;

use crate::cooperation::Pieces;
use crate::dispatch::{MOST_NAMES, NoPoll, key_of};
use crate::executor::request::{Answers, Request, ShardCommand};
use crate::leases::Unproven;
use crate::node::Node;
use crate::reports::{self, Report};
use crate::{Error, Worker};

/// The longest wait for a task.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The most tasks that one poll may ask for.
pub(crate) const MOST_TASKS: u32 = 1_000;
/// The most kinds of task that one worker may name.
pub(crate) const MOST_HANDLERS: usize = 1_000;
/// The most queues that one worker may name.
pub(crate) const MOST_QUEUES: usize = 1_000;
/// Delay before a worker asks again whose namespace names too many queues and handlers: silent sessions are forgotten
/// by then.
const ASK_AGAIN: Duration = Duration::from_secs(5);
/// The longest name of a worker, queue or handler, in bytes.
const NAME_LIMIT: usize = 200;

/// Returns tasks for a worker: those available now, or those that come within `claim.wait`.
pub(crate) async fn claim(
    node: &Arc<Node>,
    worker: Worker<'_>,
    claim: ClaimTasks,
) -> Result<ClaimedTasks, Error> {
    check(&claim)?;
    if node.is_closing() {
        return Err(Error::Busy);
    }
    let until = Instant::now() + claim.wait.duration().min(LONGEST_WAIT);
    let polled = node
        .dispatcher
        .poll(&worker.namespace.into(), worker.credential, &claim)
        .map_err(|why| match why {
            NoPoll::Foreign => foreign_session(),
            NoPoll::TooManyNames => too_many_names(),
        })?;
    let _poll = Poll { node, session: claim.session };
    node.hand_out(polled.matches);
    node.take_back(polled.back);
    // A look serves a worker that polls constantly from time to time anyway, unless tasks are known to wait
    // there.
    if polled.hungry && (polled.fresh || node.backlog.load(Ordering::Relaxed)) {
        node.hungry.notify_one();
    }
    if polled.hungry {
        node.flow.hungry(polled.fresh);
    }
    let (mut tasks, mut asks) = (polled.tasks, polled.asks);
    while tasks.is_empty() && !asks {
        let rest = until.saturating_duration_since(Instant::now());
        if rest.is_zero() || node.is_closing() {
            break;
        }
        // Over when it rings or when the wait is; then it checks for tasks.
        let _ = tokio::time::timeout(rest, polled.bell.notified()).await;
        let fetched = node.dispatcher.fetch(claim.session, &polled.bell, claim.max);
        let Some(fetched) = fetched else { break };
        (tasks, asks) = fetched;
    }
    for offer in &mut tasks {
        let (run, task) = key_of(offer);
        offer.lease = Some(node.leases.token(run, &task, claim.session));
    }
    Ok(ClaimedTasks { tasks, holding_unknown: asks })
}

/// A poll in progress; over when the worker is answered, or has disconnected.
struct Poll<'a> {
    node: &'a Node,
    session: Uuid,
}

impl Drop for Poll<'_> {
    fn drop(&mut self) {
        self.node.dispatcher.end_poll(self.session);
    }
}

fn check(claim: &ClaimTasks) -> Result<(), Error> {
    let mut violations = Vec::new();
    let mut name = |pointer: &str, name: &str| {
        if name.is_empty() || name.len() > NAME_LIMIT || name.contains('\0') {
            let message = format!("a name of 1 to {NAME_LIMIT} bytes without U+0000 is needed");
            violations.push(Violation::new(pointer, "invalid_name", message));
        }
    };
    name("/worker", &claim.worker);
    for (queue, handlers) in &claim.queues {
        name("/queues", queue);
        handlers.iter().for_each(|handler| name("/queues", handler));
    }
    if claim.queues.values().map(Vec::len).sum::<usize>() > MOST_HANDLERS {
        let message = format!("at most {MOST_HANDLERS} handlers");
        violations.push(Violation::new("/queues", "too_many", message));
    }
    if claim.queues.len() > MOST_QUEUES {
        let message = format!("at most {MOST_QUEUES} queues");
        violations.push(Violation::new("/queues", "too_many", message));
    }
    if claim.max == 0 || claim.max > MOST_TASKS {
        let message = format!("between 1 and {MOST_TASKS}, not {}", claim.max);
        violations.push(Violation::new("/max", "out_of_range", message));
    }
    if claim.holding.as_ref().is_some_and(|held| held.len() > MOST_HELD) {
        let message = format!("at most {MOST_HELD} tasks");
        violations.push(Violation::new("/holding", "too_many", message));
    }
    if violations.is_empty() {
        return Ok(());
    }
    Err(Error::Invalid { code: "invalid_request", violations })
}

/// Takes reports; each has its own result, in order.
pub(crate) async fn complete(
    node: &Arc<Node>,
    worker: Worker<'_>,
    reports: Vec<TaskReport>,
) -> Vec<TaskAnswer> {
    let limit = node.options.payload_limit;
    let (mut asked, mut pieces) = (Vec::with_capacity(reports.len()), Pieces::default());
    for report in reports {
        let TaskReport { run, step, action, attempt, lease, outcome } = report;
        pieces.done(bytes_of(&outcome)).await;
        let task = TaskKey { step, action, attempt };
        let session = node.leases.session(run, &task, lease.as_deref(), worker.must_prove);
        let (command, amended) = Report::of(task, outcome, limit).into_parts();
        asked.push(Asked { run, session, command, amended });
    }
    ask_all(node, worker.namespace, asked).await
}

/// Returns the bytes of the document that a report brings.
fn bytes_of(outcome: &TaskOutcome) -> usize {
    match outcome {
        TaskOutcome::Succeeded { output, .. } => output.text().len(),
        TaskOutcome::Failed(failure) => {
            failure.details.as_ref().map_or(0, |details| details.text().len())
        }
        TaskOutcome::DoneWithoutOutput { .. } => 0,
    }
}

/// Takes heartbeats; each has its own result, in order.
pub(crate) async fn heartbeat(
    node: &Arc<Node>,
    worker: Worker<'_>,
    beats: Vec<Heartbeat>,
) -> Vec<TaskAnswer> {
    let limit = node.options.payload_limit;
    let asked = beats.into_iter().map(|beat| {
        let Heartbeat { run, step, action, attempt, lease, details } = beat;
        let task = TaskKey { step, action, attempt };
        let session = node.leases.session(run, &task, lease.as_deref(), worker.must_prove);
        let (details, amended) = reports::details(details, limit);
        Asked { run, session, command: Command::Beat { task, details }, amended }
    });
    ask_all(node, worker.namespace, asked.collect()).await
}

/// Takes back tasks that a session has not begun; each has its own result, in order.
pub(crate) async fn release(
    node: &Arc<Node>,
    worker: Worker<'_>,
    session: Uuid,
    tasks: Vec<HeldTask>,
) -> Vec<TaskAnswer> {
    let named: Arc<str> = session.to_string().into();
    let asked = tasks.into_iter().map(|held| {
        let HeldTask { run, step, action, attempt, lease } = held;
        let task = TaskKey { step, action, attempt };
        let proven = node.leases.session(run, &task, lease.as_deref(), worker.must_prove);
        let proven = match proven {
            Ok(Some(other)) if other != session => Err(Unproven::Foreign),
            proven => proven,
        };
        let command = Command::GiveBack { task, session: named.clone(), since: None };
        Asked { run, session: proven, command, amended: Vec::new() }
    });
    ask_all(node, worker.namespace, asked.collect()).await
}

/// Ends a session: tasks reserved for it are released, and all nodes learn of its end. Returns the number of these
/// tasks.
pub(crate) async fn sign_off(
    node: &Arc<Node>,
    worker: Worker<'_>,
    session: Uuid,
) -> Result<u32, Error> {
    let Worker { namespace, credential, .. } = worker;
    let back = node.dispatcher.sign_off(namespace, credential, session);
    let back = back.ok_or_else(foreign_session)?;
    let count = u32::try_from(back.len()).unwrap_or(u32::MAX);
    node.take_back(back);
    crate::workers::sign_off(node, namespace, session).await?;
    Ok(count)
}

fn foreign_session() -> Error {
    let message = "this session belongs to another namespace or credential; use a new one";
    Error::invalid("invalid_request", Violation::new("/session", "foreign_session", message))
}

fn too_many_names() -> Error {
    let message = format!(
        "the sessions of the namespace may name {MOST_NAMES} queues and handlers at a server; end sessions that are over, \
         or name fewer"
    );
    Error::Quota { code: "too_many_names", message, retry_after: Some(ASK_AGAIN) }
}

pub(crate) fn check_payload(
    pointer: &str,
    payload: Option<&Payload>,
    limit: usize,
) -> Result<(), Error> {
    payload.map_or(Ok(()), |payload| payload.check(limit)).map_err(|violation| {
        let pointer = format!("{pointer}{}", violation.pointer);
        Error::invalid("invalid_payload", Violation { pointer, ..violation })
    })
}

/// Something that a worker says of a task.
struct Asked {
    run: RunId,
    /// The session that showed the token of the lease.
    session: Result<Option<Uuid>, Unproven>,
    command: Command,
    /// Parts of its texts that were amended.
    amended: Vec<String>,
}

/// Returns the answer to what is said of a task without the token of its lease.
fn unproven(why: Unproven) -> TaskAnswer {
    let (code, message) = match why {
        Unproven::Missing => (
            "lease_token_missing",
            "send the member lease of the task back, as it came with the claim",
        ),
        Unproven::Wrong => (
            "lease_token_wrong",
            "this is not the token that came with this attempt of the task; another worker holds it",
        ),
        Unproven::Foreign => (
            "lease_token_wrong",
            "this is the token of another session, and a session gives back its own tasks alone",
        ),
    };
    TaskAnswer {
        status: status_of(ErrorKind::Forbidden),
        code: Some(code.to_owned()),
        message: Some(message.to_owned()),
    }
}

/// Gives many commands to their shards, one message each, and waits for all answers.
async fn ask_all(node: &Arc<Node>, namespace: &str, asked: Vec<Asked>) -> Vec<TaskAnswer> {
    let namespace: Arc<str> = namespace.into();
    let answers = Answers::new(asked.len());
    let mut envelopes = Vec::with_capacity(asked.len());
    let mut all_amended = Vec::with_capacity(asked.len());
    for (slot, Asked { run, session, command, amended }) in asked.into_iter().enumerate() {
        let mut ticket = answers.ticket(slot);
        match session {
            Ok(session) => {
                let order = ShardCommand::Command(command);
                let mut envelope = Request::asked(run, namespace.clone(), order, ticket);
                envelope.session = session;
                envelopes.push(envelope);
                all_amended.push(Ok(amended));
            }
            Err(why) => {
                ticket.answer(Err(Error::Busy));
                all_amended.push(Err(why));
            }
        }
    }
    if let Err((_, refused)) = node.submit(envelopes) {
        // Messages of workers were lost.
        node.hearing.failed(node.clock.now());
        refused.into_iter().for_each(|mut envelope| envelope.answer(Err(Error::Busy)));
    }
    let answered = answers.wait().await.into_iter().zip(&all_amended);
    let answered = answered.map(|(answer, amended)| match (answer, amended) {
        (_, Err(why)) => unproven(*why),
        (Ok(_), Ok(amended)) => Report::answer(amended),
        (Err(error), Ok(_)) => error.task_answer(),
    });
    answered.collect()
}
