//! The background tasks that belong to no other part: heartbeats, tasks for waiting workers, maintenance.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use backstitch_saga::{Time, planted};
use sqlx::postgres::PgConnection;

use super::{BackgroundTask, millis, once};
use crate::crash::commit;
use crate::database_clock;
use crate::dispatch::ReservedTask;
use crate::node::{Message, Node};
use crate::store::ready::Wanted;
use crate::store::{forget, nodes, partitions, ready, session};
use crate::{Error, completions, inbox, signals};

/// Largest number of tasks of one kind that are reserved together.
const TASKS: u32 = 1_000;
/// Time for which a dead node is remembered.
const NODES_FOR: Duration = Duration::from_secs(86_400);
/// Time for which a worker that left is remembered.
const WORKERS_FOR: Duration = Duration::from_secs(3_600);
/// Workers are kept free at most once in so long.
const BREATH: Duration = Duration::from_millis(10);
/// Number of tasks to fetch beyond the present demand, if there are many.
const TASKS_AHEAD: u32 = 250;

async fn connection(node: &Node) -> Result<sqlx::pool::PoolConnection<sqlx::Postgres>, Error> {
    Ok(node.database.keepers.acquire().await?)
}

/// Writes this node's heartbeat, see [`show_life`]. While it cannot, it receives no heartbeats of
/// workers either.
pub(super) async fn beat(node: &Node) -> Result<(), Error> {
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
        Ok(()) => {
            node.hearing.wrote(node.clock.now());
            super::stall::look(node).await;
        }
        Err(_) => {
            node.hearing.failed(node.clock.now());
            node.health.beat_failed();
        }
    }
    shown
}

/// Sets the clock, and writes this node's heartbeat. If others have declared it dead, it gives up charge of all runs;
/// its next records put it in charge again, and it regains what no other node took over.
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
            // A shard that has ended is in charge of nothing.
            let _ = door.inbox.send(Message::Disown);
        }
        node.forgot.store(true, Ordering::Relaxed);
    }
    Ok(())
}

/// Looks for tasks that waiting workers could do, and that no node remembers. Returns their number.
pub(super) async fn look_for_tasks(node: &Node) -> Result<usize, Error> {
    // If there are many tasks, more are fetched ahead.
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

/// Takes back tasks that are reserved for workers that do not fetch them. With `all`, from every worker. Returns
/// their number.
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
pub(super) async fn run_maintenance(node: &Node) -> Result<(), Error> {
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

/// Learns which workflows need a second person for undos, then guards against bad deploys.
pub(super) async fn guard(node: &Arc<Node>) -> Result<usize, Error> {
    crate::approvals::learn(node).await?;
    crate::pauses::guard(node).await
}

/// Forgets answers to requests, of the API and of applications' transactions, that are past retention.
pub(super) async fn forget_answers(node: &Node) -> Result<usize, Error> {
    if node.clock.leapt_lately() {
        return Ok(0);
    }
    let answers = crate::idempotency::forget(node).await?;
    Ok(answers + inbox::forget(node).await? + completions::forget(node).await?)
}

/// Looks for tasks when a worker waits for more than this node knows of, and now and then while any waits.
pub(super) async fn serve_hungry(node: Arc<Node>) {
    let ready_every = node.options.tuning.ready_every;
    loop {
        // Woken or not, it looks for waiting work.
        let _ = tokio::time::timeout(ready_every, node.hungry.notified()).await;
        if let Err(error) = once(&node, BackgroundTask::LookForTasks).await {
            tracing::warn!(%error, "looking for tasks failed and is tried again");
            tokio::time::sleep(ready_every).await;
        }
    }
}

/// Keeps workers free when something changed about that, and now and then, since other nodes may ask for it.
pub(super) async fn serve_alone(node: Arc<Node>) {
    let every = node.options.tuning.beat_every;
    loop {
        // Rung or not, what others ask for is read.
        let _ = tokio::time::timeout(every, node.dispatcher.alone.notified()).await;
        if let Err(error) = once(&node, BackgroundTask::KeepFree).await {
            tracing::warn!(%error, "keeping workers free failed and is tried again");
            tokio::time::sleep(node.options.tuning.ready_every).await;
        }
        // While it rings constantly, changes are processed together.
        tokio::time::sleep(BREATH).await;
    }
}

/// Takes what applications ask for when one rings, and now and then.
pub(super) async fn serve_asked(node: Arc<Node>) {
    let inbox_every = node.options.tuning.inbox_every;
    loop {
        if planted!("notify-only") {
            node.asked.notified().await;
        }
        // Woken or not, it looks for waiting work.
        let _ = tokio::time::timeout(inbox_every, node.asked.notified()).await;
        if let Err(error) = once(&node, BackgroundTask::TakeAsked).await {
            tracing::warn!(%error, "taking what applications asked for failed and is tried again");
            tokio::time::sleep(inbox_every).await;
        }
    }
}
