//! Starts runs for events, from the cursors of subscriptions on.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use backstitch_integration::document::Pointer;
use backstitch_integration::events::{Facts, Filter, MAX_HOPS, Op, Verdict};
use backstitch_saga::protocol::{EventView, StartRun, SubscriptionInput, SubscriptionKind};
use backstitch_saga::{Payload, Refusal, RefusalCode, Span, Violation};
use sqlx::postgres::PgConnection;
use tokio::task::JoinSet;

use super::{EVENTS_AT_ONCE, filter_of};
use crate::background::{BackgroundTask, millis, once};
use crate::crash::commit;
use crate::log::{trust_of, view};
use crate::node::Node;
use crate::store::log::{self, LogFilter};
use crate::store::subscriptions::{self as table, Progress, Stop, SubscriptionRow};
use crate::{Error, StartedRun, start};

/// Number of subscriptions that a node works on concurrently.
const AT_ONCE: i64 = 8;
/// Approximate size of the events that are processed together, in bytes.
const BYTES: i64 = 1024 * 1024;
/// Time for which a node has a subscription to itself.
const TAKEN_FOR: Duration = Duration::from_secs(20);
/// Delay before a refused start is retried.
const REFUSED_FOR: Span = Span::secs(10);
/// Delay before starts without an answer are retried.
const AGAIN_AFTER: Span = Span::secs(1);

/// Starts runs when events got positions here, and now and then, since other nodes give positions, too.
pub(crate) async fn serve(node: Arc<Node>) {
    let every = node.options.tuning.log_every;
    let mut numbered = node.log.subscribe();
    loop {
        // Changed or not, it looks for what is due.
        let _ = tokio::time::timeout(every, numbered.changed()).await;
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
    loop {
        let now = node.clock.now();
        let mut connection = node.database.keepers.acquire().await?;
        let standing = table::standing(&mut connection, now, dead_after).await?;
        let number = |count: i64| usize::try_from(count).unwrap_or_default();
        node.counters.subscriptions_stopped.set(number(standing.stopped));
        node.counters.subscriptions_behind.set(number(standing.behind));
        if standing.due == 0 {
            return Ok(started);
        }
        let until = now.after(TAKEN_FOR.into());
        let whose = (node.id, dead_after);
        let taken = commit!(
            "subscription_take",
            table::take(&mut connection, whose, (now, until), AT_ONCE).await
        )?;
        // The connection is not kept while runs are started.
        drop(connection);
        if taken.is_empty() {
            return Ok(started);
        }
        let mut under_way = JoinSet::new();
        for row in taken {
            let node = Arc::clone(node);
            under_way.spawn(async move { work(&node, row).await });
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

/// Processes the next events of a subscription. Returns the number of started runs.
async fn work(node: &Arc<Node>, row: SubscriptionRow) -> Result<usize, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    if let Some(stop) = row.stop.clone().filter(|_| row.damaged) {
        return stand(node, &mut connection, &row, stop).await;
    }
    let range = (row.position, row.head);
    let bounds = (EVENTS_AT_ONCE, BYTES);
    let every = LogFilter::default();
    let horizon = log::heads(&mut connection, &row.namespace).await?.horizon;
    if row.position < horizon {
        return past_retention(node, &mut connection, &row, horizon).await;
    }
    let found = log::page(&mut connection, &row.namespace, &every, range, bounds).await?;
    drop(connection);
    let (rows, looked) = found;
    let filter = filter_of(&row.spec.filter)?;
    let (mut wanted, mut skipped) = (Vec::new(), 0);
    for event in rows {
        let trust = trust_of(event.trust);
        let event = view(event)?;
        if row.spec.kind == SubscriptionKind::Consumer && follows_vendor(&event) {
            continue;
        }
        match verdict(&filter, &event, trust) {
            Verdict::Match => wanted.push(event),
            Verdict::TrustBelowMinimum => skipped += 1,
            Verdict::NoMatch => {}
        }
    }
    // Events emitted by a run for the last event of a chain would have no end.
    let last = wanted.iter().position(|event| event.hops >= MAX_HOPS);
    let starts = wanted[..last.unwrap_or(wanted.len())].iter();
    let starts = starts.map(|event| Ok((node.clock.new_run(), start_of(&row, event)?)));
    let starts: Vec<_> = starts.collect::<Result<_, Error>>()?;
    let mut answers = match starts.is_empty() {
        true => Vec::new(),
        false => start::start_runs(node, &row.namespace, starts).await,
    };
    answers.extend(last.map(|_| Err(end_of_chain())));
    let progress = progress(node, &row, (&wanted[..], answers), (looked, skipped));
    let started = usize::try_from(progress.started).unwrap_or_default();
    node.counters.subscription_starts.add(started);
    if progress.stop.is_some() && row.stop.is_none() {
        tracing::warn!(
            subscription = row.name,
            code = progress.stop.as_ref().map(|(stop, _)| stop.code.as_str()),
            "the start of an event is refused; its subscription stands until it is accepted or skipped"
        );
    }
    let mut connection = node.database.keepers.acquire().await?;
    let now = node.clock.now();
    commit!("subscription_advance", table::advance(&mut connection, &row, &progress, now).await)?;
    Ok(started)
}

/// Refuses the start of a run for an event at the end of a chain of causes that is as long as it may be.
fn end_of_chain() -> Error {
    let message = format!(
        "the event is number {MAX_HOPS} in a chain of causes, and no more are allowed: runs and events start each other; mend \
         the filter, and skip the event"
    );
    Error::invalid("propagation_loop", Violation::new("/hops", "propagation_loop", message))
}

/// Stops a subscription whose next events were deleted; a person skips them.
async fn past_retention(
    node: &Node,
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    horizon: i64,
) -> Result<usize, Error> {
    let stop = Stop {
        position: horizon,
        code: "position_past_retention".to_owned(),
        message: format!(
            "events after position {} and up to {horizon} are past retention",
            row.position
        ),
        since: row.stop.as_ref().map_or(node.clock.now(), |stop| stop.since),
    };
    stand(node, connection, row, stop).await
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
        Progress { position: row.position, started: 0, skipped: 0, stop, again_at: None };
    commit!("subscription_advance", table::advance(connection, row, &progress, now).await)?;
    Ok(0)
}

/// Returns how far the answers to starts lead: up to the first that is refused or unknown.
fn progress(
    node: &Node,
    row: &SubscriptionRow,
    (wanted, answers): (&[EventView], Vec<Result<StartedRun, Error>>),
    (looked, skipped): (i64, i64),
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
            Err(
                Error::Conflict { code: "key_conflict", .. }
                | Error::Refused(Refusal { code: RefusalCode::AlreadyStarted, .. }),
            ) => {
                progress.started += 1;
                continue;
            }
            Err(error) => error,
        };
        // Later runs are then found by their keys. Skipped events are counted when they are finally passed.
        progress.position = position.saturating_sub(1).max(row.position);
        progress.skipped = 0;
        match error {
            Error::Busy | Error::Store(_) | Error::Quota { retry_after: Some(_), .. } => {
                progress.again_at = Some(now.after(AGAIN_AFTER));
            }
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

/// Returns whether an event follows the contract of a vendor.
fn follows_vendor(event: &EventView) -> bool {
    event.contract.as_ref().is_some_and(|contract| contract.contains('.'))
}

fn verdict(
    filter: &Filter,
    event: &EventView,
    trust: backstitch_integration::events::Trust,
) -> Verdict {
    if event.noop {
        return Verdict::NoMatch;
    }
    let changed: Vec<Pointer> =
        event.changed.iter().flatten().filter_map(|place| Pointer::parse(place).ok()).collect();
    let labels: BTreeMap<String, String> =
        event.labels.iter().map(|(name, value)| (name.clone(), value.clone())).collect();
    filter.matches(&Facts {
        event_type: &event.event_type,
        op: event.op.and_then(|op| Op::of(op.letter())),
        changed: &changed,
        labels: &labels,
        source: &event.source,
        trust,
    })
}

/// Returns the start of the run for an event.
fn start_of(row: &SubscriptionRow, event: &EventView) -> Result<StartRun, Error> {
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
        key: Some(format!("{}/{}/{position}", row.name, row.generation)),
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
