//! Starts runs for events, from the cursors of subscriptions on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstitch_integration::events::{MAX_HOPS, Verdict};
use backstitch_saga::protocol::{EventView, StartRun, SubscriptionInput};
use backstitch_saga::{Payload, Refusal, RefusalCode, Span, Violation};
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;

use super::wants::Seen;
use super::{EVENTS_AT_ONCE, filter_of};
use crate::background::{BackgroundTask, millis, once};
use crate::crash::commit;
use crate::log::{trust_of, view};
use crate::node::Node;
use crate::store::log::{self, EventRow, LogFilter};
use crate::store::skips;
use crate::store::subscriptions::{self as table, Move, Progress, Stop, SubscriptionRow};
use crate::{Error, StartedRun, start};

/// Number of subscriptions that a node works on concurrently.
const AT_ONCE: i64 = 8;
/// Subscriptions that are looked at with one statement.
const LOOKED_AT: i64 = 1_000;
/// Approximate size of the events that are processed together, in bytes.
pub(super) const BYTES: i64 = 1024 * 1024;
/// Time for which a node has a subscription to itself.
const TAKEN_FOR: Duration = Duration::from_secs(20);
/// Delay before a refused start is retried.
pub(super) const REFUSED_FOR: Span = Span::secs(10);
/// Delay before starts without an answer are retried.
pub(super) const AGAIN_AFTER: Span = Span::secs(1);
/// Code of events that are past retention.
pub(super) const PAST_RETENTION: &str = "position_past_retention";

/// Starts runs when events got positions here, and now and then, since other nodes give positions, too.
pub(crate) async fn serve(node: Arc<Node>) {
    let every = node.options.tuning.log_every;
    let mut numbered = node.log.subscribe();
    loop {
        // Changed or not, it looks for what is due.
        tokio::select! {
            _ = tokio::time::timeout(every, numbered.changed()) => {}
            () = node.heard.wait() => {}
        }
        if let Err(error) = once(&node, BackgroundTask::Dispatch).await {
            tracing::warn!(%error, "starting runs for events failed and is tried again");
            tokio::time::sleep(every).await;
        }
    }
}

/// Processes the events that are due in all subscriptions. Returns the number of started runs.
pub(crate) async fn dispatch(node: &Arc<Node>) -> Result<usize, Error> {
    let mut started = 0;
    let dead_after = millis(node.options.tuning.dead_after);
    let mut heard = node.heard.take();
    loop {
        let now = node.clock.now();
        let mut connection = node.database.keepers.acquire().await?;
        let (namespaces, names): (Vec<String>, Vec<String>) = heard.iter().cloned().unzip();
        let names = (&namespaces[..], &names[..]);
        let standing = table::standing(&mut connection, now, names, dead_after).await?;
        let number = |count: i64| usize::try_from(count).unwrap_or_default();
        node.counters.subscriptions_stopped.set(number(standing.stopped));
        node.counters.subscriptions_behind.set(number(standing.behind));
        node.counters.subscriptions_pending.set(number(standing.pending));
        if standing.due == 0 {
            let busy = table::pending_among(&mut connection, names).await?;
            node.heard.leave(heard, &busy);
            return Ok(started);
        }
        if standing.due > AT_ONCE {
            pass_by(node, &mut connection).await?;
        }
        let until = now.after(TAKEN_FOR.into());
        let whose = (node.id, dead_after);
        let taken = commit!(
            "subscription_take",
            table::take(&mut connection, whose, (now, until), AT_ONCE, names).await
        )?;
        // The connection is not kept while runs are started.
        drop(connection);
        if taken.is_empty() {
            return Ok(started);
        }
        for row in &taken {
            heard.remove(&(row.namespace.clone(), row.name.clone()));
        }
        let mut under_way = JoinSet::new();
        for row in taken {
            let node = Arc::clone(node);
            under_way.spawn(async move {
                let (namespace, name) = (row.namespace.clone(), row.name.clone());
                let done = work(&node, row).await;
                if done.is_err() {
                    let_go(&node, &namespace, &name).await;
                }
                done
            });
        }
        let mut failed = None;
        while let Some(done) = under_way.join_next().await {
            match done {
                Ok(Ok(count)) => started += count,
                Ok(Err(error)) => failed = Some(error),
                Err(error) => {
                    failed = Some(Error::Bug(format!("starting runs for events: {error}")));
                }
            }
        }
        if let Some(error) = failed {
            return Err(error);
        }
    }
}

/// Moves the cursors of subscriptions that want none of the next events. Those that want one are left where they are.
async fn pass_by(node: &Node, connection: &mut PgConnection) -> Result<(), Error> {
    let now = node.clock.now();
    let mut groups: BTreeMap<(String, i64), Vec<SubscriptionRow>> = BTreeMap::new();
    for row in table::waiting(connection, now, LOOKED_AT).await? {
        groups.entry((row.namespace.clone(), row.position)).or_default().push(row);
    }
    let mut moves = Vec::new();
    for ((namespace, position), rows) in groups {
        let head = rows.iter().map(|row| row.head).min().unwrap_or(position);
        if rows.len() < 2 || log::heads(connection, &namespace).await?.horizon > position {
            continue;
        }
        let bounds = (EVENTS_AT_ONCE, BYTES);
        let every = LogFilter::default();
        let (events, looked) =
            log::page(connection, &namespace, &every, (position, head), bounds).await?;
        // One that cannot be read is told by who works on it.
        let Ok(events) = events.into_iter().map(seen).collect::<Result<Vec<Seen>, Error>>() else {
            continue;
        };
        let idle = rows.into_iter().filter(|row| !row.damaged && wants_none(row, &events));
        moves.extend(idle.map(|row| Move { row, position: looked }));
    }
    if !moves.is_empty() {
        commit!("subscription_pass", table::move_past(connection, &moves, now).await)?;
    }
    Ok(())
}

fn wants_none(row: &SubscriptionRow, events: &[Seen]) -> bool {
    filter_of(&row.spec.filter).is_ok_and(|filter| {
        events.iter().all(|event| event.verdict(&filter, row.spec.kind) == Verdict::NoMatch)
    })
}

/// Lets a subscription go that could not be dealt with. If this fails, too, it is free when its time is over.
async fn let_go(node: &Node, namespace: &str, name: &str) {
    let Ok(mut connection) = node.database.keepers.acquire().await else { return };
    let again_at = node.clock.now().after(AGAIN_AFTER);
    let done = commit!(
        "subscription_let_go",
        table::let_go(&mut connection, node.id, (namespace, name), again_at).await
    );
    if let Err(error) = done {
        tracing::debug!(%error, name, "a subscription stays taken for its time");
    }
}

/// Processes the next events of a subscription. Returns the number of started runs.
async fn work(node: &Arc<Node>, row: SubscriptionRow) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    if let Some(stop) = row.stop.clone().filter(|_| row.damaged) {
        return stand(node, &mut connection, &row, stop).await;
    }
    if row.pending > 0 || row.spec.has_turns() {
        return super::pending::work(node, connection, row).await;
    }
    let Next { events: wanted, skipped, looked } =
        match next(node, &mut connection, &row, EVENTS_AT_ONCE).await? {
            Ok(next) => next,
            Err(stop) => return stand(node, &mut connection, &row, stop).await,
        };
    drop(connection);
    // Events emitted by a run for the last event of a chain would have no end.
    let last = wanted.iter().position(|event| event.hops >= MAX_HOPS);
    let starts = wanted[..last.unwrap_or(wanted.len())].iter();
    let starts =
        starts.map(|event| Ok((node.clock.new_run(), start_of(&row, event, row.generation)?)));
    let starts: Vec<_> = starts.collect::<Result<_, Error>>()?;
    let mut answers = match starts.is_empty() {
        true => Vec::new(),
        false => start::start_runs(node, &row.namespace, starts).await,
    };
    answers.extend(last.map(|_| Err(end_of_chain())));
    let progress = progress(node, &row, (&wanted[..], answers), (looked, skipped));
    let started = usize::try_from(progress.started).unwrap_or_default();
    node.counters.subscription_starts.add(started);
    if let (Some((stop, _)), None) = (&progress.stop, &row.stop) {
        warn_of(&row, stop);
    }
    let mut connection = node.database.keepers.acquire().await?;
    let now = node.clock.now();
    let moved = commit!(
        "subscription_advance",
        table::advance(&mut connection, &row, &progress, now).await
    )?;
    if moved {
        let skipped = i64::try_from(progress.skipped.len()).unwrap_or_default();
        skips::trim(&mut connection, &row, row.skipped.saturating_add(skipped)).await?;
    }
    Ok(started)
}

/// Says in the log of the server that a subscription stands.
pub(super) fn warn_of(row: &SubscriptionRow, stop: &Stop) {
    tracing::warn!(
        subscription = row.name,
        code = stop.code,
        "the start of an event is refused, or its run stops all; its subscription stands until it goes on or is skipped"
    );
}

/// Returns an event with the facts that filters ask for.
fn seen(row: EventRow) -> Result<Seen, Error> {
    let trust = trust_of(row.trust);
    Ok(Seen::new(view(row)?, trust))
}

/// The next events after a cursor.
pub(super) struct Next {
    /// Those that are wanted.
    pub(super) events: Vec<EventView>,
    /// Positions of those that would be if they were trusted more.
    pub(super) skipped: Vec<i64>,
    /// Position up to which the log was looked through.
    pub(super) looked: i64,
}

/// Reads the next events of a subscription, at most `limit`; what it stands at if they are past retention.
pub(super) async fn next(
    node: &Node,
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    limit: i64,
) -> Result<Result<Next, Stop>, Error> {
    let horizon = log::heads(connection, &row.namespace).await?.horizon;
    if row.position < horizon {
        return Ok(Err(past_retention(node, row, horizon)));
    }
    let range = (row.position, row.head);
    let bounds = (limit, BYTES);
    let every = LogFilter::default();
    let (rows, looked) = log::page(connection, &row.namespace, &every, range, bounds).await?;
    let filter = filter_of(&row.spec.filter)?;
    let (mut events, mut skipped) = (Vec::new(), Vec::new());
    for event in rows {
        let position = event.position;
        let seen = seen(event)?;
        match seen.verdict(&filter, row.spec.kind) {
            Verdict::Match => events.push(seen.event),
            Verdict::TrustBelowMinimum => skipped.extend(position),
            Verdict::NoMatch => {}
        }
    }
    Ok(Ok(Next { events, skipped, looked }))
}

/// Refuses the start of a run for an event at the end of a chain of causes that is as long as it may be.
pub(super) fn end_of_chain() -> Error {
    let message = format!(
        "the event is number {MAX_HOPS} in a chain of causes, and no more are allowed: runs and events start each other; mend \
         the filter, and skip the event"
    );
    Error::invalid("propagation_loop", Violation::new("/hops", "propagation_loop", message))
}

/// Returns the event at which a subscription stands whose next events are past retention; a person skips them.
fn past_retention(node: &Node, row: &SubscriptionRow, horizon: i64) -> Stop {
    let message =
        format!("events after position {} and up to {horizon} are past retention", row.position);
    Stop {
        position: horizon,
        code: PAST_RETENTION.to_owned(),
        message,
        since: row.stop.as_ref().map_or(node.clock.now(), |stop| stop.since),
    }
}

/// Stops a subscription until a person acts on it.
async fn stand(
    node: &Node,
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    stop: Stop,
) -> Result<usize, Error> {
    let now = node.clock.now();
    let stop = Some((stop, now.after(REFUSED_FOR)));
    let progress =
        Progress { position: row.position, started: 0, skipped: Vec::new(), stop, again_at: None };
    commit!("subscription_advance", table::advance(connection, row, &progress, now).await)?;
    Ok(0)
}

/// Returns how far the answers to starts lead: up to the first that is refused or unknown.
fn progress(
    node: &Node,
    row: &SubscriptionRow,
    (wanted, answers): (&[EventView], Vec<Result<StartedRun, Error>>),
    (looked, skipped): (i64, Vec<i64>),
) -> Progress {
    let now = node.clock.now();
    let mut progress =
        Progress { position: looked, started: 0, skipped, stop: None, again_at: None };
    for (event, answer) in wanted.iter().zip(answers) {
        let position = event.position.and_then(|at| i64::try_from(at).ok()).unwrap_or_default();
        let error = match answer {
            Ok(_) => {
                progress.started += 1;
                continue;
            }
            // Its data was erased since, or its workflow has another version now: it was started all the same.
            Err(error) if was_started(&error) => {
                progress.started += 1;
                continue;
            }
            Err(error) => error,
        };
        // Later runs are then found by their keys. Skipped events are counted when they are finally passed.
        progress.position = position.saturating_sub(1).max(row.position);
        progress.skipped.clear();
        match error {
            error if is_later(&error) => progress.again_at = Some(now.after(AGAIN_AFTER)),
            other => {
                let answer = other.task_answer();
                let since = row.stop.as_ref().filter(|stop| stop.position == position);
                let stop = Stop {
                    position,
                    code: answer.code.unwrap_or_default(),
                    message: answer.message.unwrap_or_default(),
                    since: since.map_or(now, |stop| stop.since),
                };
                progress.stop = Some((stop, now.after(REFUSED_FOR)));
            }
        }
        break;
    }
    progress
}

/// Returns whether the event had started a run before, which is not named.
pub(super) fn was_started(error: &Error) -> bool {
    matches!(
        error,
        Error::Conflict { code: "key_conflict", .. }
            | Error::Refused(Refusal { code: RefusalCode::AlreadyStarted, .. })
    )
}

/// Returns whether a start is to be asked for again soon.
pub(super) fn is_later(error: &Error) -> bool {
    matches!(error, Error::Busy | Error::Store(_) | Error::Quota { retry_after: Some(_), .. })
}

/// Returns the start of the run for an event.
pub(super) fn start_of(
    row: &SubscriptionRow,
    event: &EventView,
    generation: i32,
) -> Result<StartRun, Error> {
    let input = match row.spec.input {
        SubscriptionInput::Data => event.data.clone(),
        SubscriptionInput::Event => {
            Payload::of(event).map_err(|error| Error::Bug(error.to_string()))?
        }
    };
    let position = event.position.unwrap_or_default();
    Ok(StartRun {
        workflow: row.spec.workflow.clone(),
        version: row.spec.version,
        key: Some(format!("{}/{generation}/{position}", row.name)),
        input,
        correlation_id: Some(event.correlation_id.clone()),
        causation_id: Some(event.id.to_string()),
        labels: BTreeMap::new(),
        sequence: None,
        start_at: None,
        delay: None,
        end_by: None,
        undo_budget: None,
    })
}
