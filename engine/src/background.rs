//! What a node does without being asked. Each loop is a function that does its work once; all of them only read the
//! indexes and submit commands.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use backstitch_saga::{Time, planted};
use sqlx::postgres::PgConnection;
use tokio::task::JoinHandle;

use crate::crash::commit;
use crate::database_clock;
use crate::dispatch::ReservedTask;
use crate::flow;
use crate::forever::forever;
use crate::node::{Message, Node};
use crate::reads::waiters;
use crate::store::ready::Wanted;
use crate::store::{forget, nodes, partitions, ready, session};
use crate::{Error, charge, completions, credentials, inbox, schedules, signals};

/// The most tasks that are reserved at once, of one kind.
const TASKS: u32 = 1_000;
/// For how long a node that is gone is remembered.
const NODES_FOR: Duration = Duration::from_secs(86_400);
/// For how long a worker that is gone is remembered.
const WORKERS_FOR: Duration = Duration::from_secs(3_600);
/// Workers are kept free at most once in so long.
const BREATH: Duration = Duration::from_millis(10);
/// How many more than workers wait for, when there are many.
const TASKS_AHEAD: u32 = 250;

pub(crate) fn millis(span: Duration) -> i64 {
    i64::try_from(span.as_millis()).unwrap_or(i64::MAX)
}

async fn connection(node: &Node) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, Error> {
    Ok(node.database.keepers.acquire().await?)
}

/// Shows that this node lives, see [`show_life`]. While it cannot, it hears nobody either.
pub(crate) async fn beat(node: &Node) -> Result<(), Error> {
    let shown = match connection(node).await {
        Ok(mut connection) => {
            let limit = node.options.tuning.dead_after;
            let shown = tokio::time::timeout(limit, show_life(node, &mut connection)).await;
            shown.unwrap_or_else(|_| {
                // Nobody waits for its answer, nor for those of the others.
                connection.close_on_drop();
                session::unanswered();
                Err(Error::Store(format!("the database did not answer within {limit:?}")))
            })
        }
        Err(error) => Err(error),
    };
    match shown {
        Ok(()) => node.hearing.wrote(node.clock.now()),
        Err(_) => {
            node.hearing.failed(node.clock.now());
            node.health.beat_failed();
        }
    }
    shown
}

/// Sets the clock, and shows that this node lives. When others have had reason to take it for gone, it forgets that it
/// was in charge of anything; whatever it goes on to write puts it in charge again, and what nobody took over, too.
async fn show_life(node: &Node, connection: &mut PgConnection) -> Result<(), Error> {
    database_clock::follow(node, connection).await?;
    let now = node.clock.now();
    let since = commit!(
        "nodes_beat",
        nodes::beat(connection, node.id, &node.options.node_name, now).await
    )?;
    let silent = node.health.beat();
    let dead_after = node.options.tuning.dead_after;
    // By a clock that is in doubt no time can be measured, but this node's own does.
    let by_database = match since {
        Some(since) => since >= millis(dead_after) && node.clock.doubt().is_none(),
        None => true,
    };
    if by_database || silent >= dead_after {
        tracing::warn!(
            ?since,
            "this node was silent for so long that others may have taken over its runs"
        );
        for door in &node.shards {
            // A shard that is gone is in charge of nothing.
            let _ = door.inbox.send(Message::Disown);
        }
        node.forgot.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Looks for tasks that waiting workers could do, and that no node keeps in mind. Answers how many.
pub(crate) async fn look_for_tasks(node: &Node) -> Result<usize, Error> {
    // What lies there in numbers is fetched ahead.
    let ahead = if node.backlog.load(Ordering::Relaxed) { TASKS_AHEAD } else { 0 };
    let wanted: Vec<Wanted> = node
        .dispatcher
        .wanted()
        .into_iter()
        // Those of governed queues need permits.
        .filter(|(namespace, queue, ..)| !node.flow.is_governed(namespace, queue))
        .map(|(namespace, queue, name, count)| Wanted {
            namespace,
            queue,
            name,
            limit: i32::try_from((count + ahead).min(TASKS)).unwrap_or(1),
        })
        .collect();
    if wanted.is_empty() {
        node.backlog.store(false, Ordering::Relaxed);
        return Ok(0);
    }
    let mut connection = connection(node).await?;
    let now = node.clock.now();
    let until = now.after(node.options.tuning.reserve_for.into());
    let found = commit!(
        "ready_reserve",
        ready::reserve(&mut connection, node.id, &wanted, now, until).await
    )?;
    let count = found.len();
    node.backlog.store(count > 0, Ordering::Relaxed);
    let forget_at = node.clock.instant(until);
    let hints = found.into_iter().map(|row| ReservedTask {
        run: row.run,
        task: row.task,
        namespace: row.namespace,
        queue: row.queue,
        name: row.name,
        until: forget_at,
        first: false,
    });
    let matches = node.dispatcher.remember(hints);
    node.hand_out(matches);
    Ok(count)
}

/// Takes back what was put aside for workers that do not fetch it. With `all`, from every worker. Answers how many.
pub(crate) fn take_back(node: &Node, all: bool) -> usize {
    let back = node.dispatcher.expire(all);
    let (sessions, hints) = node.dispatcher.sizes();
    node.counters.sessions.set(sessions);
    node.counters.hints.set(hints);
    let count = back.len();
    node.take_back(back);
    count
}

/// Makes partitions ahead of time, drops those past retention, forgets old nodes.
pub(crate) async fn run_maintenance(node: &Node) -> Result<(), Error> {
    let mut connection = connection(node).await?;
    let now = node.clock.now();
    let prepared = commit!("partitions_prepare", partitions::prepare(&mut connection, now).await);
    let prepared = prepared.map(|weeks| node.database.weeks.learn(weeks));
    node.database.weeks.warn_if_few(now);
    // By the clock that the database fills the columns in with.
    let ago = |span: Duration| {
        let now = node.clock.as_shown(now);
        Time(now.0.saturating_sub(millis(span)))
    };
    commit!("nodes_forget", forget::nodes(&mut connection, ago(NODES_FOR)).await)?;
    signals::forget_old(&mut connection, ago(signals::KEEP)).await?;
    commit!("workers_forget", forget::workers(&mut connection, ago(WORKERS_FOR)).await)?;
    commit!("open_effects_forget", forget::open_effects(&mut connection).await)?;
    commit!("plans_forget", forget::plans(&mut connection).await)?;
    if let Some(before) = crate::retention::before(node) {
        commit!("schedules_forget", forget::schedule_starts(&mut connection, before).await)?;
        commit!("jobs_forget", forget::jobs(&mut connection, before).await)?;
    }
    let before = crate::retention::before(node);
    commit!("imports_forget", forget::imports(&mut connection, before).await)?;
    crate::retention::begin(node, connection).await?;
    Ok(prepared?)
}

/// Something that a node does without being asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackgroundTask {
    /// Set the clock, show that the node lives.
    Beat,
    /// Take over the runs of nodes that are gone.
    TakeOver,
    /// Take charge of parked runs that are due.
    Wake,
    /// Look for tasks that waiting workers could do.
    LookForTasks,
    /// Take back what was put aside for workers that do not fetch it.
    TakeBack,
    /// Look for bad deploys, learn which workflows are paused, let go what is not any more.
    Guard,
    /// Work on jobs: one verb on many.
    WorkJobs,
    /// Make partitions ahead of time, drop those past retention, forget old nodes.
    Maintenance,
    /// Go on erasing runs, and deleting ended runs past retention whose week others keep.
    DeleteRuns,
    /// Take what applications asked for in their own transactions.
    TakeAsked,
    /// Bring signals that came early to runs that have been started meanwhile.
    DeliverSignals,
    /// Write down which workers have come and gone.
    Workers,
    /// Look for runs that nothing would wake.
    Sweep,
    /// Compare the indexes of some runs with their journals, and mend them.
    CheckIndexes,
    /// Forget the answers to requests with an `Idempotency-Key` that are past retention.
    ForgetAnswers,
    /// Start what schedules have due.
    Schedules,
    /// Go on with migrations of runs in flight.
    Migrate,
    /// Learn which queues are governed, and look after their permits.
    KeepQueues,
    /// Give the permits that can be given now.
    GivePermits,
    /// Find who is to be told about serial keys and facts.
    Sequence,
    /// Keep workers free for tasks over which a worker was lost.
    KeepFree,
    /// Learn the quotas of namespaces.
    LearnQuotas,
    /// Note which credentials were used.
    NoteUsed,
    /// Look for the ends of runs that are waited for.
    LookForEnds,
    /// Give events of the log their positions.
    Number,
    /// Start runs for events that subscriptions want.
    Dispatch,
    /// Take what runs emitted to the log.
    Emit,
    /// Take in rows of files.
    Import,
    /// Process documents of sources again.
    Reprocess,
}

impl BackgroundTask {
    /// All of them, in order.
    pub const ALL: [BackgroundTask; 29] = [
        BackgroundTask::Beat,
        BackgroundTask::TakeOver,
        BackgroundTask::Wake,
        BackgroundTask::LookForTasks,
        BackgroundTask::TakeBack,
        BackgroundTask::Guard,
        BackgroundTask::WorkJobs,
        BackgroundTask::Maintenance,
        BackgroundTask::DeleteRuns,
        BackgroundTask::TakeAsked,
        BackgroundTask::DeliverSignals,
        BackgroundTask::Workers,
        BackgroundTask::Sweep,
        BackgroundTask::CheckIndexes,
        BackgroundTask::ForgetAnswers,
        BackgroundTask::Schedules,
        BackgroundTask::Migrate,
        BackgroundTask::KeepQueues,
        BackgroundTask::GivePermits,
        BackgroundTask::Sequence,
        BackgroundTask::KeepFree,
        BackgroundTask::LearnQuotas,
        BackgroundTask::NoteUsed,
        BackgroundTask::LookForEnds,
        BackgroundTask::Number,
        BackgroundTask::Dispatch,
        BackgroundTask::Emit,
        BackgroundTask::Import,
        BackgroundTask::Reprocess,
    ];

    /// The name under which it is counted.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            BackgroundTask::Beat => "heartbeat",
            BackgroundTask::TakeOver => "take_over",
            BackgroundTask::Wake => "wake",
            BackgroundTask::LookForTasks => "look_for_tasks",
            BackgroundTask::TakeBack => "take_back",
            BackgroundTask::Guard => "guard",
            BackgroundTask::WorkJobs => "jobs",
            BackgroundTask::Maintenance => "maintenance",
            BackgroundTask::DeleteRuns => "retention",
            BackgroundTask::TakeAsked => "start_requests",
            BackgroundTask::DeliverSignals => "signals",
            BackgroundTask::Workers => "workers",
            BackgroundTask::Sweep => "sweep",
            BackgroundTask::CheckIndexes => "index_check",
            BackgroundTask::ForgetAnswers => "forget_answers",
            BackgroundTask::Schedules => "schedules",
            BackgroundTask::Migrate => "migrations",
            BackgroundTask::KeepQueues => "queues",
            BackgroundTask::GivePermits => "permits",
            BackgroundTask::Sequence => "sequence",
            BackgroundTask::KeepFree => "suspects",
            BackgroundTask::LearnQuotas => "quotas",
            BackgroundTask::NoteUsed => "credentials",
            BackgroundTask::LookForEnds => "ends",
            BackgroundTask::Number => "log",
            BackgroundTask::Dispatch => "subscriptions",
            BackgroundTask::Emit => "emitted",
            BackgroundTask::Import => "imports",
            BackgroundTask::Reprocess => "reprocesses",
        }
    }
}

/// Does a chore once, and counts it. Answers how many runs or tasks it found, where it looks for any.
pub(crate) async fn once(node: &Arc<Node>, chore: BackgroundTask) -> Result<usize, Error> {
    let began = Instant::now();
    let done = work(node, chore).await;
    node.background.note(chore, began.elapsed(), done.is_ok());
    done
}

async fn work(node: &Arc<Node>, chore: BackgroundTask) -> Result<usize, Error> {
    match chore {
        BackgroundTask::Beat => beat(node).await.map(|()| 0),
        BackgroundTask::TakeOver => charge::take_over(node).await,
        BackgroundTask::Wake => charge::wake(node).await,
        BackgroundTask::LookForTasks => look_for_tasks(node).await,
        BackgroundTask::TakeBack => Ok(take_back(node, false)),
        BackgroundTask::Guard => {
            crate::approvals::learn(node).await?;
            crate::pauses::guard(node).await
        }
        BackgroundTask::WorkJobs => crate::jobs::work(node).await,
        BackgroundTask::Maintenance => run_maintenance(node).await.map(|()| 0),
        BackgroundTask::DeleteRuns => crate::erasure::erase_and_delete(node).await,
        BackgroundTask::TakeAsked => Ok(inbox::take(node).await? + completions::take(node).await?),
        BackgroundTask::DeliverSignals => signals::deliver(node).await,
        BackgroundTask::ForgetAnswers if node.clock.leapt_lately() => Ok(0),
        BackgroundTask::ForgetAnswers => {
            let answers = crate::idempotency::forget(node).await?;
            Ok(answers + inbox::forget(node).await? + completions::forget(node).await?)
        }
        BackgroundTask::Schedules => schedules::fire(node).await,
        BackgroundTask::Workers => crate::workers::write_down(node).await,
        BackgroundTask::Sweep => crate::sweep::sweep(node).await,
        BackgroundTask::CheckIndexes => crate::index_check::check(node).await,
        BackgroundTask::Migrate => crate::versions::work(node).await,
        BackgroundTask::KeepQueues => flow::upkeep::keep(node).await,
        BackgroundTask::GivePermits => flow::serve::give(node).await.map(|given| given.permits),
        BackgroundTask::Sequence => crate::sequence::sweep(node).await,
        BackgroundTask::KeepFree => crate::alone::keep(node).await,
        BackgroundTask::LearnQuotas => crate::quotas::learn(node).await,
        BackgroundTask::NoteUsed => credentials::note_used(node).await,
        BackgroundTask::LookForEnds => waiters::look(node).await,
        BackgroundTask::Number => crate::log::number(node).await,
        BackgroundTask::Dispatch => crate::subscriptions::dispatch(node).await,
        BackgroundTask::Emit => crate::log::take_emitted(node).await,
        BackgroundTask::Import => crate::ingress::import(node).await,
        BackgroundTask::Reprocess => crate::ingress::reprocess(node).await,
    }
}

/// Begins all loops.
pub(crate) fn spawn(node: &Arc<Node>) -> Vec<JoinHandle<()>> {
    let tuning = &node.options.tuning;
    let every = |span: Duration, chore: BackgroundTask| {
        forever(node, chore.as_str(), move |node| every(node, span, chore))
    };
    let (beat, minute) = (tuning.beat_every, Duration::from_secs(60));
    vec![
        every(beat, BackgroundTask::Beat),
        every(beat, BackgroundTask::TakeOver),
        every(tuning.wake_every, BackgroundTask::Wake),
        every(tuning.wake_every, BackgroundTask::DeliverSignals),
        every(tuning.credit_grace / 4, BackgroundTask::TakeBack),
        every(beat, BackgroundTask::Guard),
        forever(node, BackgroundTask::WorkJobs.as_str(), crate::jobs::serve),
        every(minute * 60, BackgroundTask::Maintenance),
        every(crate::retention::EVERY, BackgroundTask::DeleteRuns),
        every(minute, BackgroundTask::ForgetAnswers),
        every(credentials::USED_EVERY, BackgroundTask::NoteUsed),
        every(tuning.schedules_every, BackgroundTask::Schedules),
        every(beat, BackgroundTask::Workers),
        every(minute / 2, BackgroundTask::Sweep),
        every(crate::index_check::EVERY, BackgroundTask::CheckIndexes),
        every(beat, BackgroundTask::Migrate),
        every(beat, BackgroundTask::Sequence),
        forever(node, "tell_of_sequence", crate::sequence::serve),
        forever(node, BackgroundTask::LookForTasks.as_str(), serve_hungry),
        forever(node, BackgroundTask::KeepFree.as_str(), serve_alone),
        forever(node, "listen", inbox::keep_listening),
        forever(node, BackgroundTask::TakeAsked.as_str(), serve_asked),
        every(beat, BackgroundTask::KeepQueues),
        every(beat, BackgroundTask::LearnQuotas),
        every(waiters::LOOK_EVERY, BackgroundTask::LookForEnds),
        forever(node, BackgroundTask::GivePermits.as_str(), flow::serve::serve),
        forever(node, BackgroundTask::Number.as_str(), crate::log::serve),
        forever(node, BackgroundTask::Dispatch.as_str(), crate::subscriptions::serve),
        forever(node, BackgroundTask::Emit.as_str(), crate::log::serve_emitted),
        forever(node, "log_heads", crate::log::serve_heads),
        every(beat, BackgroundTask::Import),
        every(beat, BackgroundTask::Reprocess),
    ]
}

async fn every(node: Arc<Node>, span: Duration, chore: BackgroundTask) {
    let mut ticks = tokio::time::interval(span.max(Duration::from_millis(1)));
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Err(error) = once(&node, chore).await {
            tracing::warn!(?chore, %error, "a chore failed and is tried again");
        }
    }
}

/// Looks for tasks when a worker waits for more than this node knows of, and now and then while any waits.
async fn serve_hungry(node: Arc<Node>) {
    let ready_every = node.options.tuning.ready_every;
    loop {
        // Rung or not, what waits is looked for.
        let _ = tokio::time::timeout(ready_every, node.hungry.notified()).await;
        if let Err(error) = once(&node, BackgroundTask::LookForTasks).await {
            tracing::warn!(%error, "looking for tasks failed and is tried again");
            tokio::time::sleep(ready_every).await;
        }
    }
}

/// Keeps workers free when something changed about that, and now and then, since other nodes may ask for it.
async fn serve_alone(node: Arc<Node>) {
    let every = node.options.tuning.beat_every;
    loop {
        // Rung or not, what others ask for is read.
        let _ = tokio::time::timeout(every, node.dispatcher.alone.notified()).await;
        if let Err(error) = once(&node, BackgroundTask::KeepFree).await {
            tracing::warn!(%error, "keeping workers free failed and is tried again");
            tokio::time::sleep(node.options.tuning.ready_every).await;
        }
        // While it rings all the time, what changed meanwhile is looked at together.
        tokio::time::sleep(BREATH).await;
    }
}

/// Takes what applications ask for when one rings, and now and then.
async fn serve_asked(node: Arc<Node>) {
    let inbox_every = node.options.tuning.inbox_every;
    loop {
        if planted!("notify-only") {
            node.asked.notified().await;
        }
        // Rung or not, what waits is looked for.
        let _ = tokio::time::timeout(inbox_every, node.asked.notified()).await;
        if let Err(error) = once(&node, BackgroundTask::TakeAsked).await {
            tracing::warn!(%error, "taking what applications asked for failed and is tried again");
            tokio::time::sleep(inbox_every).await;
        }
    }
}
