//! The index rows of runs, read as a whole: to be compared with what the journals say.

use std::collections::{HashMap, HashSet};

use backstitch_saga::{RunId, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::acts::{self, ActRow};
use super::moment::Moment;
use super::open_effects;
use super::rows::{self, SequenceRows};

/// The index rows of one run, present or expected.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct IndexRows {
    pub(crate) run: Option<RunRow>,
    /// Sorted.
    pub(crate) ready: Vec<ReadyLine>,
    /// Sorted by number.
    pub(crate) incidents: Vec<IncidentRow>,
    /// Sorted by step.
    pub(crate) effects: Vec<EffectRow>,
    /// Sorted by record and place.
    pub(crate) acts: Vec<ActRow>,
    /// The digest of the input under the run's key, present or expected.
    pub(crate) key: Option<Vec<u8>>,
    /// The other run that has its key: started while the line of this one was lost.
    pub(crate) key_taken_by: Option<RunId>,
    /// Step, action, attempt of fences; those that should be there at least.
    pub(crate) fences: Vec<(String, String, i32)>,
    /// Its serial key and facts as present; as expected, the part that it must have.
    pub(crate) sequence: SequenceRows,
}

/// A line of `ready`, without what only says who is about to hand the task out.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct ReadyLine {
    pub(crate) step: String,
    pub(crate) action: String,
    pub(crate) attempt: i32,
    pub(crate) namespace: String,
    pub(crate) queue: String,
    pub(crate) name: String,
}

/// A line of `open_effects`, without since when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct EffectRow {
    pub(crate) step: String,
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) system: String,
    pub(crate) standing: i32,
    pub(crate) unknown: i32,
}

/// A line of `runs`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RunRow {
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) version: i32,
    pub(crate) definition: String,
    pub(crate) key: Option<String>,
    pub(crate) correlation_id: Option<String>,
    pub(crate) labels: Option<String>,
    pub(crate) state: String,
    pub(crate) outcome: Option<String>,
    pub(crate) conditions: Vec<String>,
    pub(crate) started_at: Time,
    pub(crate) ended_at: Option<Time>,
    pub(crate) charge: Charge,
}

/// The node in charge of a run's timers.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Charge {
    /// This node.
    Node(i32),
    /// None until then.
    Parked(Option<Time>),
}

/// A line of `incidents`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct IncidentRow {
    pub(crate) incident: i32,
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) kind: String,
    pub(crate) step: Option<String>,
    pub(crate) code: Option<String>,
    pub(crate) message: String,
    pub(crate) fingerprint: String,
    pub(crate) opened_at: Time,
    pub(crate) resolved_at: Option<Time>,
}

/// Lists runs that have a journal, by id, after `after`.
pub(crate) async fn journaled(
    connection: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "-- journal_runs\nselect run_id from journal where seq = 1 and run_id > $1 order by run_id limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Lists runs whose journals have lost their first record.
pub(crate) async fn headless(connection: &mut PgConnection) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "-- index_headless\n\
         select id from runs r where not exists (select 1 from journal j where j.run_id = r.id and j.seq = 1) \
         and exists (select 1 from journal j where j.run_id = r.id)",
    )
    .fetch_all(connection)
    .await
}

/// Lists index rows of runs that have no journal: table and run.
pub(crate) async fn orphans(
    connection: &mut PgConnection,
) -> Result<Vec<(String, Uuid)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- index_orphans\n\
         select 'runs', id from runs r where not exists (select 1 from journal j where j.run_id = r.id) \
         union all select 'ready', run_id from ready r \
         where not exists (select 1 from journal j where j.run_id = r.run_id) \
         union all select 'incidents', run_id from incidents i \
         where not exists (select 1 from journal j where j.run_id = i.run_id) \
         union all select 'acts', run_id from acts a \
         where not exists (select 1 from journal j where j.run_id = a.run_id) \
         union all select 'open_effects', run_id from open_effects e \
         where not exists (select 1 from journal j where j.run_id = e.run_id)",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Returns the index rows of `runs`.
pub(crate) async fn read(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<HashMap<RunId, IndexRows>, sqlx::Error> {
    let mut found: HashMap<RunId, IndexRows> = HashMap::new();
    for row in sqlx::query(
        "-- index_runs\n\
         select id, namespace, workflow, version, definition, key, correlation_id, labels::text, state, outcome, \
         conditions, started_at, ended_at, node, wake_at from runs where id = any($1)",
    )
    .bind(runs)
    .fetch_all(&mut *connection)
    .await?
    {
        found.entry(RunId(row.try_get(0)?)).or_default().run = Some(run_row(&row)?);
    }
    ready_of(&mut *connection, runs, &mut found).await?;
    incidents_of(&mut *connection, runs, &mut found).await?;
    keys_of(&mut *connection, runs, &mut found).await?;
    for row in sqlx::query(
        "-- index_fences\nselect run_id, step, action, attempt from fences where run_id = any($1)",
    )
    .bind(runs)
    .fetch_all(&mut *connection)
    .await?
    {
        let fences = &mut found.entry(RunId(row.try_get(0)?)).or_default().fences;
        fences.push((row.try_get(1)?, row.try_get(2)?, row.try_get(3)?));
    }
    for (run, effect) in open_effects::of_runs(&mut *connection, runs).await? {
        found.entry(run).or_default().effects.push(effect);
    }
    for (run, act) in acts::of_runs(&mut *connection, runs).await? {
        found.entry(run).or_default().acts.push(act);
    }
    for (run, sequence) in rows::read(&mut *connection, runs).await? {
        found.entry(run).or_default().sequence = sequence;
    }
    found.values_mut().for_each(|rows| rows.ready.sort());
    Ok(found)
}

/// Reads the lines in `ready` of runs.
async fn ready_of(
    connection: &mut PgConnection,
    runs: &[Uuid],
    found: &mut HashMap<RunId, IndexRows>,
) -> Result<(), sqlx::Error> {
    for row in sqlx::query(
        "-- index_ready\n\
         select run_id, step, action, attempt, namespace, queue, name from ready where run_id = any($1)",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?
    {
        let ready = &mut found.entry(RunId(row.try_get(0)?)).or_default().ready;
        ready.push(ReadyLine {
            step: row.try_get(1)?,
            action: row.try_get(2)?,
            attempt: row.try_get(3)?,
            namespace: row.try_get(4)?,
            queue: row.try_get(5)?,
            name: row.try_get(6)?,
        });
    }
    Ok(())
}

/// Reads the incidents of runs.
async fn incidents_of(
    connection: &mut PgConnection,
    runs: &[Uuid],
    found: &mut HashMap<RunId, IndexRows>,
) -> Result<(), sqlx::Error> {
    for row in sqlx::query(
        "-- index_incidents\n\
         select run_id, incident, kind, step, message, opened_at, resolved_at, code, fingerprint, \
         namespace, workflow from incidents \
         where run_id = any($1) order by incident",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?
    {
        let Moment(opened_at) = row.try_get(5)?;
        let resolved_at: Option<Moment> = row.try_get(6)?;
        found.entry(RunId(row.try_get(0)?)).or_default().incidents.push(IncidentRow {
            incident: row.try_get(1)?,
            kind: row.try_get(2)?,
            step: row.try_get(3)?,
            message: row.try_get(4)?,
            opened_at,
            resolved_at: resolved_at.map(|Moment(at)| at),
            code: row.try_get(7)?,
            fingerprint: row.try_get(8)?,
            namespace: row.try_get(9)?,
            workflow: row.try_get(10)?,
        });
    }
    Ok(())
}

/// Reads the business keys of runs, and which runs have them.
async fn keys_of(
    connection: &mut PgConnection,
    runs: &[Uuid],
    found: &mut HashMap<RunId, IndexRows>,
) -> Result<(), sqlx::Error> {
    for row in sqlx::query(
        "-- index_keys\n\
         select r.id, k.input_digest, k.run_id from runs r join run_keys k \
         on (k.namespace, k.key, k.workflow) = (r.namespace, r.key, r.workflow) where r.id = any($1)",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?
    {
        let (run, holder): (Uuid, Uuid) = (row.try_get(0)?, row.try_get(2)?);
        let rows = found.entry(RunId(run)).or_default();
        if run == holder {
            rows.key = row.try_get(1)?;
        } else {
            rows.key_taken_by = Some(RunId(holder));
        }
    }
    Ok(())
}

fn run_row(row: &PgRow) -> Result<RunRow, sqlx::Error> {
    let Moment(started_at) = row.try_get(11)?;
    let ended_at: Option<Moment> = row.try_get(12)?;
    let node: Option<i32> = row.try_get(13)?;
    let wake_at: Option<Moment> = row.try_get(14)?;
    Ok(RunRow {
        namespace: row.try_get(1)?,
        workflow: row.try_get(2)?,
        version: row.try_get(3)?,
        definition: row.try_get(4)?,
        key: row.try_get(5)?,
        correlation_id: row.try_get(6)?,
        labels: row.try_get(7)?,
        state: row.try_get(8)?,
        outcome: row.try_get(9)?,
        conditions: row.try_get(10)?,
        started_at,
        ended_at: ended_at.map(|Moment(at)| at),
        charge: match node {
            Some(node) => Charge::Node(node),
            None => Charge::Parked(wake_at.map(|Moment(at)| at)),
        },
    })
}

/// Makes the transaction that has just begun see one state of the database, and change nothing.
pub(crate) async fn one_snapshot(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("-- index_snapshot\nset transaction isolation level repeatable read, read only")
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns all nodes that are not forgotten.
pub(crate) async fn known_nodes(
    connection: &mut PgConnection,
) -> Result<HashSet<i32>, sqlx::Error> {
    let ids: Vec<i32> =
        sqlx::query_scalar("-- nodes_known\nselect id from nodes").fetch_all(connection).await?;
    Ok(ids.into_iter().collect())
}

/// Stops all writers of journals until the transaction ends. Waits for those in progress as long as `patience`, in
/// PostgreSQL's words; later ones wait behind.
pub(crate) async fn stop_writers(
    connection: &mut PgConnection,
    patience: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query("-- index_patience\nselect set_config('lock_timeout', $1, true)")
        .bind(patience)
        .execute(&mut *connection)
        .await?;
    sqlx::query("-- index_lock\nselect backstitch.stop_writers()").execute(connection).await?;
    Ok(())
}
