//! The proof that the indexes say what the journals say, and the mending where they do not.
//!
//! Each page of runs is read from one snapshot of the database, so that a busy system is no difference. Mending stops
//! the writers for the page that it mends.

mod differences;
mod events;

use std::borrow::Cow;
use std::collections::HashSet;
use std::sync::Arc;

use backstitch_saga::{
    Act, Begun, OpenEffects, OpenedIncident, Record, Run, RunId, Span, TaskKey, Time, fingerprint,
    history,
};
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use crate::crash::commit;
use crate::damage::{STOPPED, UNREADABLE};
use crate::executor::digest::InputDigest;
use crate::executor::index::state_of;
use crate::executor::load::fold_rows;
use crate::node::Node;
use crate::store::acts::ActRow;
use crate::store::batch::printable;
use crate::store::codec::decode;
use crate::store::index::{self, Charge, EffectRow, IncidentRow, IndexRows, ReadyLine, RunRow};
use crate::store::journal;
use crate::store::rewrite::rewrite;
use crate::{Diagnosis, Error, damage, sequence};

use differences::differences;

/// Number of runs that are read together.
const PAGE: i64 = 200;
/// Largest number of differences that are listed; all are counted and repaired.
const TOLD: usize = 1_000;
/// Time for which writers are waited for when a person requests a repair.
const PATIENT: &str = "30s";
/// Milliseconds by which a journal may be ahead of the clock before that is reported.
const AHEAD: i64 = 1_000;
/// Longest time between a record and the write of its fences.
const FENCED_WITHIN: Span = Span::secs(5);

/// Compares the indexes with the journals, and mends them if asked.
pub(crate) async fn examine(node: &Arc<Node>, mend: bool) -> Result<Diagnosis, Error> {
    let mut connection = node.database.readers.acquire().await?;
    let mut diagnosis = Diagnosis::default();
    let mut after = Uuid::nil();
    loop {
        let mut snapshot = connection.begin().await?;
        index::one_snapshot(&mut snapshot).await?;
        let page = index::journaled(&mut snapshot, after, PAGE).await?;
        let found = compare(node, &mut snapshot, &page).await?;
        snapshot.rollback().await?;
        diagnosis.runs_checked += page.len() as u64;
        settle(node, &mut connection, found, mend, &mut diagnosis).await?;
        match page.last() {
            Some(last) => after = *last,
            None => break,
        }
    }
    let headless = index::headless(&mut connection).await?;
    let found = compare(node, &mut connection, &headless).await?;
    settle(node, &mut connection, found, mend, &mut diagnosis).await?;
    let mut runs: Vec<RunId> = Vec::new();
    for (table, run) in index::orphans(&mut connection).await? {
        diagnosis.runs_wrong += 1;
        tell(&mut diagnosis, format!("{run}: has a line in {table}, but no journal"));
        runs.push(RunId(run));
    }
    if mend && !runs.is_empty() {
        diagnosis.mended += self::mend(node, &mut connection, &runs, PATIENT).await?;
    }
    let misfits = events::lines(&mut connection).await?;
    if mend {
        crate::log::restore_positions(node).await?;
    }
    for head in crate::log::examine_heads(node, mend).await? {
        tell(&mut diagnosis, head);
    }
    for schedule in crate::schedules::damaged(node).await? {
        tell(&mut diagnosis, schedule);
    }
    for queue in crate::flow::damaged_rows(&mut connection).await? {
        tell(&mut diagnosis, queue);
    }
    for line in misfits {
        tell(&mut diagnosis, line);
    }
    Ok(diagnosis)
}

/// Tells what was found, and mends it if asked. A run whose journal is damaged is put aside then.
async fn settle(
    node: &Arc<Node>,
    connection: &mut PgConnection,
    found: Found,
    mend: bool,
    diagnosis: &mut Diagnosis,
) -> Result<(), Error> {
    let Found { wrong, damaged, stopped, keyless } = found;
    diagnosis.runs_wrong += (wrong.len() + damaged.len() + stopped.len() + keyless.len()) as u64;
    for (_, run, other) in keyless {
        let what = "was started with its key while run_keys had no line for it; this cannot be mended: end one of the two";
        tell(diagnosis, format!("{run}: {other} {what}"));
    }
    let mut runs = Vec::with_capacity(wrong.len() + stopped.len());
    for run in stopped {
        runs.push(run);
        tell(diagnosis, format!("{run}: it was put aside, as a defect stops its timer"));
    }
    for (run, differences) in wrong {
        runs.push(run);
        differences.into_iter().for_each(|one| tell(diagnosis, format!("{run}: {one}")));
    }
    for Broken { run, what, known } in damaged {
        tell(diagnosis, format!("{run}: its journal cannot be folded: {what}"));
        if mend && !known {
            damage::put_aside(node, run, &what).await?;
        }
    }
    if mend && !runs.is_empty() {
        diagnosis.mended += self::mend(node, connection, &runs, PATIENT).await?;
    }
    Ok(())
}

fn tell(diagnosis: &mut Diagnosis, difference: String) {
    if diagnosis.differences.len() < TOLD {
        diagnosis.differences.push(difference);
    }
}

/// Result of a comparison.
#[derive(Default)]
pub(crate) struct Found {
    /// Runs whose index rows can be mended, with what is wrong.
    pub(crate) wrong: Vec<(RunId, Vec<String>)>,
    /// Runs whose journals cannot be read.
    pub(crate) damaged: Vec<Broken>,
    /// Runs whose timers a defect stops.
    stopped: Vec<RunId>,
    /// Runs that have not ended and whose keys others have, by namespace. That cannot be mended.
    pub(crate) keyless: Vec<(String, RunId, RunId)>,
}

/// A run whose journal cannot be read.
pub(crate) struct Broken {
    pub(crate) run: RunId,
    pub(crate) what: String,
    /// It was put aside before.
    pub(crate) known: bool,
}

/// Compares some runs. The connection sees one state of the database.
pub(crate) async fn compare(
    node: &Node,
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Found, Error> {
    let there = index::read(connection, runs).await?;
    let nodes = index::known_nodes(connection).await?;
    let mut found = Found::default();
    for run in runs.iter().map(|run| RunId(*run)) {
        let there = there.get(&run).cloned().unwrap_or_default();
        match expected(node, connection, run, &there, &nodes).await {
            Ok(IndexRows { run: None, .. }) if there.run.is_some() => {
                let known = there.run.as_ref().is_some_and(is_aside);
                found.damaged.push(Broken { run, what: "it has no records".to_owned(), known });
            }
            Ok(_) if is_stopped(&there) => found.stopped.push(run),
            Ok(expected) => {
                if let (Some(row), Some(other)) = (&expected.run, there.key_taken_by)
                    && row.ended_at.is_none()
                {
                    found.keyless.push((row.namespace.clone(), run, other));
                }
                let differences = differences(&expected, &there);
                if !differences.is_empty() {
                    found.wrong.push((run, differences));
                }
            }
            Err(Error::Damaged(what)) => {
                let known = there.run.as_ref().is_some_and(is_aside);
                found.damaged.push(Broken { run, what, known });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(found)
}

fn is_aside(row: &RunRow) -> bool {
    row.conditions.iter().any(|one| one == UNREADABLE)
}

/// Returns whether a run was put aside because a defect stops its timer.
fn is_stopped(rows: &IndexRows) -> bool {
    let row = rows.run.as_ref();
    row.is_some_and(|row| row.conditions.iter().any(|one| one == STOPPED))
}

/// Returns the index rows that a run should have. The node in charge is not in its journal: any node is right, or
/// none as long as its timer is looked after in time.
async fn expected(
    node: &Node,
    connection: &mut PgConnection,
    id: RunId,
    there: &IndexRows,
    nodes: &HashSet<i32>,
) -> Result<IndexRows, Error> {
    let rows = journal::load_until(connection, id, i32::MAX).await?;
    if rows.is_empty() {
        return Ok(IndexRows::default());
    }
    let run = fold_rows(&node.definitions, connection, id, None, &rows).await?;
    let records: Result<Vec<Record>, String> = rows.iter().map(|row| decode(id, row)).collect();
    let records = records.map_err(Error::Damaged)?;
    let due = due_by_clock(node, &run);
    let charge = match there.run.as_ref().map(|row| &row.charge) {
        Some(Charge::Node(other))
            if (run.ended_at().is_none() || due.is_some()) && nodes.contains(other) =>
        {
            Charge::Node(*other)
        }
        Some(Charge::Parked(Some(at))) if due.is_some_and(|due| *at <= due) => {
            Charge::Parked(Some(*at))
        }
        _ => Charge::Parked(due),
    };
    let mut ready: Vec<_> = run
        .offered()
        .into_iter()
        .map(|task| {
            let (queue, name) = run.route(&task).unwrap_or_default();
            ReadyLine {
                step: task.step.to_string(),
                action: task.action.as_str().to_owned(),
                attempt: i32::try_from(task.attempt).unwrap_or(i32::MAX),
                namespace: run.namespace().to_owned(),
                queue: queue.to_owned(),
                name: name.to_owned(),
            }
        })
        .collect();
    ready.sort();
    let incidents = incidents(&run, &records);
    let effects = effects(&run);
    let acts = rows.iter().zip(&records).flat_map(|(row, record)| acts(row.seq, record)).collect();
    let row = run_row(&run, &records, charge);
    let keyed = row.as_ref().is_some_and(|row| row.key.is_some());
    let key = run.input().filter(|_| keyed).map(|input| InputDigest::of(input).bytes().to_vec());
    let fences = fences(node, &run);
    let sequence = sequence::rows::expected(&run, &records);
    Ok(IndexRows {
        run: row,
        ready,
        incidents,
        effects,
        acts,
        key,
        key_taken_by: None,
        fences,
        sequence,
    })
}

/// Returns the time at which something of a run is due, by the clock.
fn due_by_clock(node: &Node, run: &Run) -> Option<Time> {
    let ahead = run.moved_at().0.saturating_sub(node.clock.now().0);
    let ahead = if ahead > AHEAD { ahead } else { 0 };
    run.next_due().map(|due| Time(due.0.saturating_sub(ahead)))
}

/// Returns the attempts that workers may complete in transactions. They are written after the record, so that those of
/// a young one may be missing.
fn fences(node: &Node, run: &Run) -> Vec<(String, String, i32)> {
    if node.clock.now() < run.moved_at().after(FENCED_WITHIN) {
        return Vec::new();
    }
    let fence = |task: TaskKey| {
        let attempt = i32::try_from(task.attempt).unwrap_or(i32::MAX);
        (task.step.to_string(), task.action.as_str().to_owned(), attempt)
    };
    run.fenced().into_iter().map(fence).collect()
}

fn run_row(run: &Run, records: &[Record], charge: Charge) -> Option<RunRow> {
    let Begun { namespace, workflow, key, correlation_id, .. } = records.first()?.begun()?;
    let state = state_of(run, None);
    Some(RunRow {
        namespace: namespace.to_string(),
        workflow: workflow.to_string(),
        version: i32::try_from(run.version()).unwrap_or(i32::MAX),
        definition: run.definition().to_owned(),
        key: key.as_deref().map(str::to_owned),
        correlation_id: correlation_id.as_deref().map(str::to_owned),
        labels: (!run.labels().is_empty())
            .then(|| serde_json::to_string(run.labels()).unwrap_or_default()),
        state: state.state.as_str().to_owned(),
        outcome: state.outcome.map(|outcome| outcome.as_str().to_owned()),
        conditions: state.conditions.into_iter().map(Cow::into_owned).collect(),
        started_at: run.started_at(),
        ended_at: state.ended_at,
        charge,
    })
}

fn effects(run: &Run) -> Vec<EffectRow> {
    let int = |count| i32::try_from(count).unwrap_or(i32::MAX);
    let row = |open: OpenEffects| EffectRow {
        step: open.step,
        namespace: run.namespace().to_owned(),
        workflow: run.graph().definition.name.clone(),
        system: open.system,
        standing: int(open.standing),
        unknown: int(open.unknown),
    };
    let mut rows: Vec<EffectRow> = run.open_effects().into_iter().map(row).collect();
    rows.sort_unstable_by(|a, b| a.step.cmp(&b.step));
    rows
}

fn incidents(run: &Run, records: &[Record]) -> Vec<IncidentRow> {
    let workflow = &*run.graph().definition.name;
    let row = |one: history::Incident| {
        let OpenedIncident { incident, kind, step, code, message } = one.opened;
        let (step, code) = (step.as_ref(), code.as_deref());
        IncidentRow {
            incident: i32::try_from(incident).unwrap_or(i32::MAX),
            namespace: run.namespace().to_owned(),
            workflow: workflow.to_owned(),
            kind: kind.as_str().to_owned(),
            step: step.map(ToString::to_string),
            code: code.map(printable),
            message: printable(&message),
            fingerprint: fingerprint(workflow, step, kind, code, &message),
            opened_at: one.opened_at,
            resolved_at: one.resolved_at,
        }
    };
    history::incidents(records).into_iter().map(row).collect()
}

/// Returns the acts of people in one record.
fn acts(seq: i32, record: &Record) -> Vec<ActRow> {
    let row = |(place, act): (usize, Act<'_>)| ActRow {
        seq,
        place: i32::try_from(place).unwrap_or(i32::MAX),
        at: record.at,
        actor: printable(&act.by.actor),
        verb: act.verb.to_owned(),
        step: act.step.map(ToString::to_string),
        reason: printable(&act.by.reason),
    };
    record.acts().map(row).collect()
}

/// Rewrites the index rows of some runs. Returns the number that were still wrong.
pub(crate) async fn mend(
    node: &Node,
    connection: &mut PgConnection,
    runs: &[RunId],
    patience: &str,
) -> Result<u64, Error> {
    let mut transaction = connection.begin().await?;
    index::stop_writers(&mut transaction, patience).await?;
    let ids: Vec<Uuid> = runs.iter().map(|run| run.0).collect();
    let found = index::read(&mut transaction, &ids).await?;
    let nodes = index::known_nodes(&mut transaction).await?;
    let mut mended = 0;
    for run in runs {
        let there = found.get(run).cloned().unwrap_or_default();
        let expected = match expected(node, &mut transaction, *run, &there, &nodes).await {
            Err(Error::Damaged(_)) => continue,
            expected => expected?,
        };
        if !differences(&expected, &there).is_empty() {
            rewrite(&mut transaction, *run, &expected, &there).await?;
            mended += 1;
        }
    }
    commit!("indexes_mend", transaction.commit().await)?;
    Ok(mended)
}

/// Rewrites the index rows of one run by its journal.
pub(crate) async fn rewrite_indexes(
    node: &Node,
    connection: &mut PgConnection,
    run: RunId,
) -> Result<(), Error> {
    let there = index::read(connection, &[run.0]).await?.remove(&run).unwrap_or_default();
    let nodes = index::known_nodes(connection).await?;
    let expected = expected(node, connection, run, &there, &nodes).await?;
    Ok(rewrite(connection, run, &expected, &there).await?)
}
