//! Makes the starts of schedules. The decisions of a turn are written first, and then carried out; any node may do
//! both, concurrently or repeatedly, with the same result:
//!
//! - Two nodes that take a turn concurrently conflict at the revision of the row: one goes on, the other reads again.
//! - A node that dies before the write has changed nothing. One that dies after it leaves starts that are *going*; the
//!   schedule is due again in a few seconds, and the next node makes them under the same keys, so that there is one run
//!   for each.
//! - The end of a start is written to the row and to the history in one statement.

use backstitch_saga::protocol::{StartOrigin, StartOutcome};
use backstitch_saga::{By, Command, RunId, Span, Time, Timestamp};
use futures::StreamExt;

use super::check::request;
use super::instants::{Calendar, When};
use super::plan::{POLL, Plan, Told, Waiting};
use crate::crash::commit;
use crate::node::Node;
use crate::rounds::in_turns;
use crate::store::acts::Act;
use crate::store::keys as run_keys;
use crate::store::runs;
use crate::store::schedules::{self as table, ScheduleRow};
use crate::{Error, start};

/// Time for which a node that took a schedule has it to itself.
pub(super) const TAKEN_FOR: Span = Span::secs(5);
/// Number of schedules that are taken together.
const TAKEN: i64 = 64;
/// Number of them that are processed concurrently.
const SIDE_BY_SIDE: usize = 8;
/// Number of rounds of a schedule in a row before others have their turn.
const ROUNDS: usize = 50;

/// Makes the starts of schedules that are due, in turns between namespaces. Returns the number of
/// started runs.
pub(crate) async fn fire(node: &Node) -> Result<usize, Error> {
    let (mut started, mut seen, mut before) = (0, 0, 0);
    let mut after = String::new();
    loop {
        let now = node.clock.now();
        let found = {
            let mut connection = node.database.keepers.acquire().await?;
            let until = now.after(TAKEN_FOR);
            commit!(
                "schedules_take",
                table::take(&mut connection, (now, until), TAKEN, &after).await
            )?
        };
        seen += found.rows.len();
        let rows = in_turns(found.rows, "", |(namespace, _)| namespace);
        let mut done = futures::stream::iter(rows)
            .map(async |(_, row)| drive(node, row?).await)
            .buffer_unordered(SIDE_BY_SIDE);
        while let Some(told) = done.next().await {
            match told {
                Ok(told) => started += told.iter().filter(|one| is_started(one)).count(),
                Err(error) => tracing::warn!(%error, "a schedule failed and is tried again"),
            }
        }
        after = match found.last {
            Some(last) => last,
            // Nothing is left when all namespaces had none.
            None if seen == before => return Ok(started),
            None => {
                before = seen;
                String::new()
            }
        };
    }
}

fn is_started(told: &Told) -> bool {
    told.start.outcome == StartOutcome::Started
}

/// Does what one schedule has to do now. Returns what was written into its history.
pub(super) async fn drive(node: &Node, mut row: ScheduleRow) -> Result<Vec<Told>, Error> {
    let mut written = Vec::new();
    // Results of starts that are not written yet.
    let mut told = Vec::new();
    let mut failed = false;
    for _ in 0..ROUNDS {
        let active = is_active(node, row.state.last_run()).await?;
        let now = node.clock.now();
        let calendar = calendar(&row)?;
        let plan = Plan {
            namespace: &row.namespace,
            name: &row.name,
            spec: &row.spec,
            calendar: &calendar,
        };
        let before = serde_json::to_string(&row.state);
        if row.state.is_ahead(now) {
            let known = super::heal::known(node, &row, now).await?;
            super::heal::tell(node, &row, now);
            row.state.set_back(&plan, now, known);
        }
        let mut turn = row.state.turn(&plan, now, active);
        told.append(&mut turn.told);
        fix_version(node, &mut row).await;
        let going: Vec<Waiting> = row.state.going().cloned().collect();
        let works = !failed && (turn.cancel.is_some() || !going.is_empty());
        let due = match (works, failed) {
            (true, _) => Some(now.after(TAKEN_FOR)),
            (false, true) => Some(now.after(POLL)),
            (false, false) => turn.due,
        };
        // Existing entries are not written again: of two nodes that make the same starts one could otherwise always
        // be ahead of the other's result.
        let stands =
            works && told.is_empty() && before.ok() == serde_json::to_string(&row.state).ok();
        if !stands {
            let Some(revision) = write(node, &row, due, &told, None).await? else {
                told.clear();
                match find(node, &row.namespace, &row.name).await? {
                    Some(there) => row = there,
                    None => break,
                }
                continue;
            };
            row.revision = revision;
        }
        node.counters.schedule_starts.add(told.iter().filter(|one| is_started(one)).count());
        written.append(&mut told);
        if !works {
            break;
        }
        failed = !carry_out(node, &mut row, &going, turn.cancel, &mut told).await;
    }
    Ok(written)
}

/// Cancels the run that is replaced and makes the starts that are going. Returns whether all came to an end.
async fn carry_out(
    node: &Node,
    row: &mut ScheduleRow,
    going: &[Waiting],
    cancel: Option<RunId>,
    told: &mut Vec<Told>,
) -> bool {
    let mut all = match cancel {
        Some(run) => cancel_replaced(node, row, run).await,
        None => true,
    };
    let taken = match started_elsewhere(node, row, going).await {
        Ok(taken) => taken,
        Err(error) => {
            tracing::warn!(schedule = row.name, %error, "starts are tried again");
            return false;
        }
    };
    let mut keys: Vec<&str> = Vec::with_capacity(going.len());
    let mut requests = Vec::with_capacity(going.len());
    for one in going {
        if let Some((_, workflow, run)) = taken.iter().find(|(key, ..)| *key == one.key) {
            let message = format!("the instant has started run {run} of '{workflow}'");
            let why = ("key_conflict".to_owned(), message);
            told.extend(row.state.settle(&one.key, Err(why), node.clock.now()));
            continue;
        }
        // An instant is started once: of two starts for it, the second goes on when the first has its run.
        if keys.contains(&one.key.as_str()) {
            continue;
        }
        // It was decided under the spec of then, and may have been made: asked for with another it would be refused, or
        // be a second run.
        let spec = row.state.spec_of(one, &row.spec);
        let version = one.version().or(spec.version);
        match request(&row.name, spec, version, one.instant, one.key.clone()) {
            Ok(mut request) => {
                let end = spec.end_within.map(|within| node.clock.now().after(within));
                request.end_by = end.map(Timestamp);
                keys.push(one.key.as_str());
                requests.push((node.clock.new_run(), request));
            }
            Err(violation) => {
                let why = (violation.code, violation.message);
                told.extend(row.state.settle(&one.key, Err(why), node.clock.now()));
            }
        }
    }
    let started = start::start_runs(node, &row.namespace, requests).await;
    for (key, started) in keys.into_iter().zip(started) {
        let result = match started {
            Ok(run) => Ok(run),
            Err(error @ (Error::Busy | Error::Store(_))) => {
                tracing::warn!(schedule = row.name, key, %error, "a start is tried again");
                all = false;
                continue;
            }
            Err(error) => {
                let answer = error.task_answer();
                let error = error.for_log();
                tracing::warn!(schedule = row.name, key, error, "a start was refused");
                Err((answer.code.unwrap_or_default(), answer.message.unwrap_or_default()))
            }
        };
        told.extend(row.state.settle(key, result, node.clock.now()));
    }
    all
}

/// Cancels the run that is replaced. Returns whether that was done, or needs not be.
async fn cancel_replaced(node: &Node, row: &mut ScheduleRow, run: RunId) -> bool {
    let actor = format!("schedule {}", row.name).into();
    let by = By { actor, reason: "the next start of the schedule replaces it".to_owned() };
    match node.ask(&row.namespace, run, Command::Cancel { by }).await {
        // A run that cannot be cancelled is waited for like one that can.
        Ok(_) | Err(Error::Refused(_) | Error::NotFound { .. }) => {
            row.state.cancelled(run);
            true
        }
        Err(error) => {
            tracing::warn!(schedule = row.name, %run, %error, "a run is yet to be replaced");
            false
        }
    }
}

/// Finds those of the starts whose instants have run already, as the schedule started another workflow then: the key,
/// that workflow and its run.
async fn started_elsewhere(
    node: &Node,
    row: &ScheduleRow,
    going: &[Waiting],
) -> Result<Vec<(String, String, RunId)>, Error> {
    let of_calendar = going.iter().filter(|one| one.origin != StartOrigin::Trigger);
    let starts: Vec<(&str, &str)> = of_calendar
        .map(|one| (one.key.as_str(), row.state.spec_of(one, &row.spec).workflow.as_str()))
        .collect();
    if starts.is_empty() {
        return Ok(Vec::new());
    }
    let mut connection = node.database.reader(&row.namespace).await?;
    Ok(run_keys::elsewhere(&mut connection, &row.namespace, &starts).await?)
}

/// Fixes the version that starts are made with, before they are recorded as going: repeated, they are the same,
/// whatever was registered in between. Without a version they are refused when they are made.
async fn fix_version(node: &Node, row: &mut ScheduleRow) {
    if row.spec.version.is_some() || !row.state.needs_version() {
        return;
    }
    let (database, name) = (&node.database, &row.spec.workflow);
    if let Ok(newest) = node.definitions.resolve(database, &row.namespace, name, None).await {
        row.state.fix_version(newest.graph.definition.version);
    }
}

/// Returns whether the run exists and has not ended.
async fn is_active(node: &Node, run: Option<RunId>) -> Result<bool, Error> {
    let Some(run) = run else { return Ok(false) };
    let mut connection = node.database.keepers.acquire().await?;
    Ok(runs::ended(&mut connection, run).await?.is_some_and(|(_, ended)| !ended))
}

/// Returns the pattern of a schedule that was checked when it was put there.
pub(super) fn calendar(row: &ScheduleRow) -> Result<Calendar, Error> {
    Calendar::read(&When::from(&row.spec)).map_err(|violations| {
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        damaged(&row.name, &first)
    })
}

/// Returns the error of a row of a schedule that cannot be read: it was changed from outside, or
/// written by a newer server.
pub(super) fn damaged(name: &str, why: &str) -> Error {
    let message = format!(
        "the schedule '{name}' cannot be read: {why}; repair its row, or delete it and put it again"
    );
    Error::Conflict { code: "schedule_damaged", message }
}

pub(super) async fn find(
    node: &Node,
    namespace: &str,
    name: &str,
) -> Result<Option<ScheduleRow>, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    match table::find(&mut connection, namespace, name).await {
        Err(sqlx::Error::Decode(why)) => Err(damaged(name, &why.to_string())),
        found => Ok(found?),
    }
}

pub(super) async fn write(
    node: &Node,
    row: &ScheduleRow,
    due: Option<Time>,
    told: &[Told],
    act: Option<&Act<'_>>,
) -> Result<Option<i64>, Error> {
    let mut connection = node.database.keepers.acquire().await?;
    Ok(commit!("schedules_write", table::write(&mut connection, row, due, told, act).await)?)
}
