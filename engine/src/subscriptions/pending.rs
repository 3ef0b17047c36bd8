//! Deals with events that wait for their turn: in an order per key, or under a limit of what is under way.
//!
//! One round is a transaction under the lock of the subscription's row, and starts. The transaction lets go what is over, takes up
//! events, moves the cursor, and writes under which ids runs are about to be started. Whoever finds such ids left by a node that died
//! asks for the same starts again.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use backstitch_integration::document::value_of;
use backstitch_integration::events::{
    Judgement, KeySource, MAX_HOPS, OnFailure, SkipReason, judge, place,
};
use backstitch_saga::protocol::{EventView, OnEventFailure};
use backstitch_saga::{RunId, Span, Time};
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgConnection;
use sqlx::{Connection, Postgres};

use super::dispatch::{
    AGAIN_AFTER, BYTES, Next, PAST_RETENTION, REFUSED_FOR, end_of_chain, is_later, next, start_of,
    warn_of, was_started,
};
use super::{EVENTS_AT_ONCE, MAX_BACKLOG, MAX_IN_FLIGHT};
use crate::crash::commit;
use crate::log::view;
use crate::node::Node;
use crate::store::log;
use crate::store::pending_events::candidates::{self, Candidate, JUDGED};
use crate::store::pending_events::{self as table, Answer, Obstacle, Place};
use crate::store::skips::{self, Skip};
use crate::store::subscriptions::{Stop, SubscriptionRow};
use crate::{Error, StartedRun, start};

/// Interval of looks at pending events of which nothing is heard, because the node that saw the end of a run died.
const LOOK_EVERY: Span = Span::secs(5);

/// Findings of a round before its transaction.
struct Found {
    candidates: Vec<Candidate>,
    next: Option<Next>,
    /// Event at which it stands whatever becomes of its pending events.
    stop: Option<Stop>,
}

impl Found {
    /// Returns whether nothing is to be written.
    fn is_nothing(&self, row: &SubscriptionRow) -> bool {
        let stands = self.stop.is_some() || row.stop.is_some();
        self.candidates.is_empty() && self.next.is_none() && !stands
    }
}

/// Result of the transaction of a round.
struct Written {
    row: SubscriptionRow,
    /// The events that were taken up.
    events: Vec<EventView>,
    /// It stands.
    stop: Option<Stop>,
    /// There is more to be done at once.
    more: bool,
    /// Time from which more events are taken up, if not at once.
    retry_at: Option<Time>,
}

/// Results of starts.
#[derive(Default)]
struct Outcome {
    answers: Vec<(Place, Answer)>,
    started: i64,
    /// Some could not be answered.
    later: bool,
    /// For some there was no room.
    more: bool,
    /// No start can be accepted.
    stop: Option<Stop>,
}

/// Deals with the pending events of a subscription, and takes up more. Returns how many started runs.
pub(super) async fn work(
    node: &Arc<Node>,
    mut connection: PoolConnection<Postgres>,
    row: SubscriptionRow,
) -> Result<usize, Error> {
    node.heard.heed(&row.namespace, &row.name);
    let now = node.clock.now();
    let found = find(node, &mut connection, &row, now).await?;
    if found.is_nothing(&row) && !table::has_turns(&mut connection, &row).await? {
        let later = Some(now.after(LOOK_EVERY));
        let (look_at, is_full) = (later.filter(|_| row.pending > 0), is_full(&row));
        let progress = (0, look_at, later.filter(|_| is_full));
        commit!(
            "subscription_rest",
            table::release(&mut connection, &row, node.id, progress, None, now).await
        )?;
        return Ok(0);
    }
    // A person changed it, or another node went on: it is looked at again.
    let Some(written) = write(node, &mut connection, &row, found, now).await? else { return Ok(0) };
    let Written { row: after, events, stop, more, retry_at } = written;
    let starting = match stop {
        Some(_) => Vec::new(),
        None => table::starting(&mut connection, &after, EVENTS_AT_ONCE).await?,
    };
    let read = read(&mut connection, &after, &starting, events).await?;
    drop(connection);
    let outcome = ask(node, &after, starting, &read).await?;
    let now = node.clock.now();
    let (stop, retry_at) = match outcome.stop {
        Some(stop) => (Some(stop), Some(now.after(REFUSED_FOR))),
        None => (stop, retry_at),
    };
    if let (Some(stop), None) = (&stop, &row.stop) {
        warn_of(&row, stop);
    }
    let look_at = match after.pending {
        0 => None,
        _ if stop.is_some() => retry_at,
        _ if outcome.later => Some(now.after(AGAIN_AFTER)),
        _ if more || outcome.more => Some(now),
        _ => Some(now.after(LOOK_EVERY)),
    };
    let mut connection = node.database.keepers.acquire().await?;
    let mut transaction = connection.begin().await?;
    // In the order of locks: the subscription, then its events.
    let progress = (outcome.started, look_at, retry_at);
    table::release(&mut transaction, &after, node.id, progress, stop.as_ref(), now).await?;
    if !outcome.answers.is_empty() {
        table::answered(&mut transaction, &after, &outcome.answers, now).await?;
    }
    commit!("subscription_started", transaction.commit().await)?;
    let started = usize::try_from(outcome.started).unwrap_or_default();
    node.counters.subscription_starts.add(started);
    Ok(started)
}

fn on_failure(row: &SubscriptionRow) -> OnFailure {
    match row.spec.on_failure.unwrap_or_default() {
        OnEventFailure::BlockKey => OnFailure::BlockKey,
        OnEventFailure::Skip => OnFailure::Skip,
        OnEventFailure::StopAll => OnFailure::StopAll,
    }
}

fn max_backlog(row: &SubscriptionRow) -> i64 {
    row.spec.max_backlog.map_or(MAX_BACKLOG, i64::from)
}

fn is_full(row: &SubscriptionRow) -> bool {
    row.pending >= max_backlog(row)
}

/// Finds what may have become of pending events, and the events after the cursor.
async fn find(
    node: &Node,
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    now: Time,
) -> Result<Found, Error> {
    let all = on_failure(row) == OnFailure::Skip;
    let candidates = candidates::find(connection, row, all, now).await?;
    let room = max_backlog(row).saturating_sub(row.pending).min(EVENTS_AT_ONCE);
    let (next, stop) = match room > 0 && row.position < row.head {
        true => match next(node, connection, row, room).await? {
            Ok(next) => (Some(next), None),
            Err(stop) => (None, Some(stop)),
        },
        false => (None, None),
    };
    Ok(Found { candidates, next, stop })
}

/// Writes a round; nothing, and `None`, if the subscription is not as it was read.
async fn write(
    node: &Node,
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    found: Found,
    now: Time,
) -> Result<Option<Written>, Error> {
    let Found { candidates, next, stop } = found;
    let mut transaction = connection.begin().await?;
    let Some(mut row) = table::lock(&mut transaction, row).await? else { return Ok(None) };
    let skipped = row.skipped;
    let mut more = candidates.len() >= JUDGED;
    settle(&mut transaction, &mut row, candidates, now).await?;
    let stop = match stop {
        None if on_failure(&row) == OnFailure::StopAll => {
            table::first_blocked(&mut transaction, &row).await?
        }
        stop => stop,
    };
    let mut events = Vec::new();
    if stop.is_none() {
        if let Some(next) = next {
            events = take_up(&mut transaction, &mut row, next, now).await?;
        }
        let most = row.spec.max_in_flight.map_or(MAX_IN_FLIGHT, i64::from);
        let chosen = table::ready(&mut transaction, &row, (most, EVENTS_AT_ONCE)).await?;
        more |= chosen.len() >= usize::try_from(EVENTS_AT_ONCE).unwrap_or(usize::MAX);
        if !chosen.is_empty() {
            let runs: Vec<_> = chosen.iter().map(|_| node.clock.new_run().0).collect();
            table::begin(&mut transaction, &row, &chosen, &runs, now).await?;
        }
    }
    let stands = stop.is_some() || is_full(&row);
    let retry_at = stands.then(|| now.after(LOOK_EVERY));
    let look_at = (row.pending > 0).then_some(now);
    // What it stood at is told until it is known whether it still does.
    let told = stop.as_ref().or(row.stop.as_ref());
    table::save(&mut transaction, &row, told, (retry_at, look_at)).await?;
    let before = SubscriptionRow { skipped, ..row.clone() };
    skips::trim(&mut transaction, &before, row.skipped).await?;
    commit!("subscription_turns", transaction.commit().await)?;
    Ok(Some(Written { row, events, stop, more, retry_at }))
}

/// Lets go what is over, and has what is not be in the way of others or no longer.
async fn settle(
    transaction: &mut PgConnection,
    row: &mut SubscriptionRow,
    candidates: Vec<Candidate>,
    now: Time,
) -> Result<(), Error> {
    let on_failure = on_failure(row);
    let (mut over, mut unblocked, mut obstacles) = (HashMap::new(), Vec::new(), Vec::new());
    for one in candidates {
        match judge(on_failure, one.blocked, one.standing) {
            // A start that was refused is asked for again.
            Judgement::Keep if one.blocked && one.run.is_none() => unblocked.push(one.place),
            Judgement::Keep => {}
            Judgement::Unblock => unblocked.push(one.place),
            Judgement::Done => drop(over.insert(one.place, (one, None))),
            Judgement::Skip(reason) => drop(over.insert(one.place, (one, Some(reason)))),
            Judgement::Block(reason) => obstacles.push(obstacle(one, reason)),
        }
    }
    if !over.is_empty() {
        let places: Vec<(Place, bool)> =
            over.values().map(|(one, _)| (one.place, one.blocked)).collect();
        let removed = table::remove(transaction, row, &places).await?;
        row.pending -= i64::try_from(removed.len()).unwrap_or_default();
        let (mut keys, mut skips) = (HashSet::new(), Vec::new());
        for (one, reason) in removed.iter().filter_map(|place| over.remove(place)) {
            keys.extend(one.key.clone());
            if let Some(reason) = reason {
                row.skip(reason, 1);
                skips.push(skip_of(one, reason, now));
            }
        }
        skips::add(transaction, row, &skips).await?;
        let keys: Vec<String> = keys.into_iter().collect();
        table::promote(transaction, row, &keys, now).await?;
    }
    if !unblocked.is_empty() {
        table::unblock(transaction, row, &unblocked, now).await?;
    }
    if !obstacles.is_empty() {
        table::block(transaction, row, &obstacles, now).await?;
    }
    Ok(())
}

fn obstacle(one: Candidate, reason: SkipReason) -> Obstacle {
    let run = one.run.map_or_else(|| "its run".to_owned(), |run| format!("run {run}"));
    let what = match one.incident {
        Some(_) => format!("{run} needs a person: {}", one.message.unwrap_or_default()),
        None => format!("{run} has failed"),
    };
    let code = reason.name().to_owned();
    Obstacle { place: one.place, incident: one.incident, code, message: what }
}

fn skip_of(one: Candidate, reason: SkipReason, now: Time) -> Skip {
    Skip {
        place: one.place,
        reason: reason.name().to_owned(),
        key: one.key,
        run: one.run,
        code: one.code,
        message: one.message,
        at: now,
        actor: None,
    }
}

/// Takes up events, and moves the cursor. Returns the events.
async fn take_up(
    transaction: &mut PgConnection,
    row: &mut SubscriptionRow,
    next: Next,
    now: Time,
) -> Result<Vec<EventView>, Error> {
    let source = row.spec.key.as_deref().and_then(|text| KeySource::parse(text).ok());
    let keys: Vec<Option<String>> =
        next.events.iter().map(|event| key_of(source.as_ref(), event)).collect();
    let positions: Vec<i64> = next.events.iter().map(position_of).collect();
    if !positions.is_empty() {
        let named: Vec<&str> = keys.iter().flatten().map(String::as_str).collect();
        let occupied = match named.is_empty() {
            true => HashSet::new(),
            false => table::occupied(transaction, row, &named).await?,
        };
        let ready = place(occupied, &keys);
        row.pending += table::add(transaction, row, (&positions, &keys, &ready), now).await?;
    }
    let reason = SkipReason::TrustBelowMinimum;
    let skips = next.skipped.iter().map(|position| Skip {
        place: (row.generation, *position),
        reason: reason.name().to_owned(),
        key: None,
        run: None,
        code: None,
        message: None,
        at: now,
        actor: None,
    });
    let skips: Vec<Skip> = skips.collect();
    skips::add(transaction, row, &skips).await?;
    row.skip(reason, i64::try_from(skips.len()).unwrap_or_default());
    row.position = next.looked;
    Ok(next.events)
}

fn key_of(source: Option<&KeySource>, event: &EventView) -> Option<String> {
    let source = source?;
    // Data is read only where the key stands in it.
    let data = match source {
        KeySource::Stream => None,
        KeySource::Data(_) => value_of(&event.data).ok(),
    };
    source.key(event.stream.as_deref(), data.as_ref())
}

fn position_of(event: &EventView) -> i64 {
    event.position.and_then(|at| i64::try_from(at).ok()).unwrap_or_default()
}

/// Events by their positions.
struct Read {
    events: HashMap<i64, EventView>,
    /// Those of the log were read up to here, as there was no room for more.
    upto: Option<i64>,
}

/// Reads the events of starts that are not among those that were taken up just now.
async fn read(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    starting: &[(Place, RunId)],
    new: Vec<EventView>,
) -> Result<Read, Error> {
    let mut events: HashMap<i64, EventView> =
        new.into_iter().map(|event| (position_of(&event), event)).collect();
    let mut missing: Vec<i64> = starting.iter().map(|((_, position), _)| *position).collect();
    missing.retain(|position| !events.contains_key(position));
    missing.sort_unstable();
    missing.dedup();
    let mut upto = None;
    if !missing.is_empty() {
        for found in log::at(connection, &row.namespace, &missing, BYTES).await? {
            let event = view(found)?;
            upto = Some(position_of(&event));
            events.insert(position_of(&event), event);
        }
    }
    Ok(Read { events, upto })
}

/// Asks for starts, and says what became of them.
async fn ask(
    node: &Arc<Node>,
    row: &SubscriptionRow,
    starting: Vec<(Place, RunId)>,
    read: &Read,
) -> Result<Outcome, Error> {
    let (mut outcome, mut asked, mut starts) = (Outcome::default(), Vec::new(), Vec::new());
    for (at, run) in starting {
        match read.events.get(&at.1) {
            Some(event) if event.hops >= MAX_HOPS => {
                refused(node, &mut outcome, at, &end_of_chain());
            }
            Some(event) => {
                asked.push(at);
                starts.push((run, start_of(row, event, at.0)?));
            }
            // There was no room for it; its turn is the next.
            None if read.upto.is_some_and(|upto| at.1 > upto) => outcome.more = true,
            None => refused(node, &mut outcome, at, &gone(at.1)),
        }
    }
    let answers = match starts.is_empty() {
        true => Vec::new(),
        false => start::start_runs(node, &row.namespace, starts).await,
    };
    for (at, answer) in asked.into_iter().zip(answers) {
        match answer {
            Ok(StartedRun { id, .. }) => {
                outcome.started += 1;
                outcome.answers.push((at, Answer::Started(Some(id))));
            }
            Err(error) if was_started(&error) => {
                outcome.started += 1;
                outcome.answers.push((at, Answer::Started(None)));
            }
            Err(error) if is_later(&error) => outcome.later = true,
            Err(error @ Error::NotFound { .. }) => {
                outcome.answers.push((at, Answer::Later));
                let since = row.stop.as_ref().map_or(node.clock.now(), |stop| stop.since);
                let told = error.task_answer();
                outcome.stop.get_or_insert(Stop {
                    position: at.1,
                    code: told.code.unwrap_or_default(),
                    message: told.message.unwrap_or_default(),
                    since,
                });
            }
            Err(error) => refused(node, &mut outcome, at, &error),
        }
    }
    Ok(outcome)
}

/// The event of a start is past retention.
fn gone(position: i64) -> Error {
    Error::PastRetention {
        message: format!("the event at position {position} is past retention ({PAST_RETENTION})"),
        oldest: position.saturating_add(1).unsigned_abs(),
    }
}

fn refused(node: &Node, outcome: &mut Outcome, at: Place, error: &Error) {
    let told = error.task_answer();
    let answer = Answer::Refused {
        code: told.code.unwrap_or_default(),
        message: told.message.unwrap_or_default(),
        retry_at: node.clock.now().after(REFUSED_FOR),
    };
    outcome.answers.push((at, answer));
}
