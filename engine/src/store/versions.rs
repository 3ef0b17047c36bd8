//! Versions of the workflows of runs, and migrations of runs in flight.

use std::collections::BTreeMap;

use backstitch_saga::protocol::{Mapping, MigratedRun, MigrationView, OnObstacle};
use backstitch_saga::{RunId, Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::{Moment, beyond};
use super::spaces::Waiting;

/// Number of runs of one version in one state, and the oldest of them with the time of its start.
pub(crate) struct Load {
    pub(crate) version: i32,
    pub(crate) state: String,
    pub(crate) count: i64,
    pub(crate) oldest: (Time, Uuid),
}

/// Counts the runs of these versions that have not ended.
pub(crate) async fn load(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
    versions: &[i32],
) -> Result<Vec<Load>, sqlx::Error> {
    let rows = sqlx::query(
        "-- versions_load\n\
         select l.version, l.state, l.count, l.oldest, r.started_at from (\
           select version, state, count(*), min(id::text)::uuid as oldest from runs \
           where namespace = $1 and workflow = $2 and version = any($3) and state <> 'ended' \
           group by version, state) l join runs r on r.id = l.oldest order by l.version, l.state",
    )
    .bind(namespace)
    .bind(workflow)
    .bind(versions)
    .fetch_all(connection)
    .await?;
    let load = |row: &PgRow| {
        Ok(Load {
            version: row.try_get(0)?,
            state: row.try_get(1)?,
            count: row.try_get(2)?,
            oldest: (row.try_get::<Moment, _>(4)?.0, row.try_get(3)?),
        })
    };
    rows.iter().map(load).collect()
}

/// Lists runs of one version that have not ended, by state and id, after the given one.
pub(crate) async fn active(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
    version: i32,
    after: &(String, Uuid),
    limit: i64,
) -> Result<Vec<(String, RunId)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- versions_active\n\
         select state, id from runs where namespace = $1 and state <> 'ended' and (state, id) > ($4, $5) \
         and workflow = $2 and version = $3 order by state, id limit $6",
    )
    .bind(namespace)
    .bind(workflow)
    .bind(version)
    .bind(&after.0)
    .bind(after.1)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, RunId(row.try_get(1)?)))).collect()
}

/// A line of the table `migrations`.
pub(crate) struct MigrationRow {
    pub(crate) namespace: String,
    pub(crate) id: Uuid,
    pub(crate) workflow: String,
    pub(crate) from: i32,
    pub(crate) to: i32,
    pub(crate) mapping: String,
    pub(crate) on_obstacle: OnObstacle,
    pub(crate) state: String,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) created_at: Time,
}

const COLUMNS: &str = "namespace, id, workflow, from_version, to_version, mapping, on_obstacle, state, actor, \
    reason, created_at, stopped_because, ended_at";

/// Writes a migration with all runs that have not ended, in one statement. Returns false when another migration of
/// the workflow is under way.
pub(crate) async fn create(
    connection: &mut PgConnection,
    row: &MigrationRow,
) -> Result<bool, sqlx::Error> {
    let created: i64 = sqlx::query_scalar(
        "-- migrations_create\n\
         with new as (insert into migrations (namespace, id, workflow, from_version, to_version, mapping, on_obstacle, \
         state, actor, reason, created_at) values ($1, $2, $3, $4, $5, $6, $7, 'checking', $8, $9, $10) \
         on conflict do nothing returning namespace, id), \
         listed as (insert into migrated_runs (namespace, migration, run_id, result) \
         select n.namespace, n.id, r.id, 'waiting' from new n, runs r \
         where r.namespace = $1 and r.workflow = $3 and r.version = $4 and r.state <> 'ended') \
         select count(*) from new",
    )
    .bind(&row.namespace)
    .bind(row.id)
    .bind(&row.workflow)
    .bind(row.from)
    .bind(row.to)
    .bind(&row.mapping)
    .bind(row.on_obstacle.as_str())
    .bind(&row.actor)
    .bind(&row.reason)
    .bind(Moment(row.created_at))
    .fetch_one(connection)
    .await?;
    Ok(created == 1)
}

/// Migrations under way, by namespace.
const WAITING: Waiting = Waiting {
    table: "migrations",
    when: "state in ('checking', 'moving')",
    by: "workflow",
    due: "true",
    spaces: 512,
};

/// Returns the statement `migrations_claim`.
pub(crate) fn migrations_claim() -> String {
    format!(
        "-- migrations_claim\n{}, \
         found as materialized (select m.* from due d cross join lateral (select m.namespace, m.id from migrations m \
           where m.namespace = d.namespace and m.state in ('checking', 'moving') \
           and (m.worked_until is null or m.worked_until < $2 or m.worked_until > $4) order by m.workflow limit 1 for update skip locked) m limit 1) \
         update migrations set worked_until = $3, tries = tries + 1 where (namespace, id) in \
         (select namespace, id from found) returning {COLUMNS}, tries",
        WAITING.due_spaces(),
    )
}

/// Takes a migration that no node works on, of the first namespace after `after` that has one. The try is counted
/// before it is made. Returns also the number of times that it was taken since it last made progress.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    now: Time,
    until: Time,
    after: &str,
) -> Result<Option<(MigrationRow, i32)>, sqlx::Error> {
    let text = sqlx::AssertSqlSafe(migrations_claim());
    let row = sqlx::query(text)
        .bind(after)
        .bind(Moment(now))
        .bind(Moment(until))
        .bind(Moment(beyond(until)))
        .fetch_optional(connection)
        .await?;
    row.as_ref().map(|row| Ok((migration_row(row)?, row.try_get(13)?))).transpose()
}

/// Goes on working on a migration, perhaps in another state. Returns false when it is over.
pub(crate) async fn go_on(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
    state: &str,
    until: Time,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- migrations_go_on\n\
         update migrations set state = $3, worked_until = $4, tries = 0 \
         where namespace = $1 and id = $2 and state in ('checking', 'moving')",
    )
    .bind(namespace)
    .bind(id)
    .bind(state)
    .bind(Moment(until))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a migration, unless it is over already. `because` when it stops before it is done.
pub(crate) async fn finish(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
    because: Option<&str>,
    at: Time,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- migrations_finish\n\
         update migrations set state = case when $3::text is null then 'done' else 'stopped' end, \
         stopped_because = $3, ended_at = $4, worked_until = null \
         where namespace = $1 and id = $2 and state in ('checking', 'moving')",
    )
    .bind(namespace)
    .bind(id)
    .bind(because)
    .bind(Moment(at))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Lists runs of a migration by id, after the given one; only those with this result when given.
pub(crate) async fn runs(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
    result: Option<&str>,
    after: Uuid,
    limit: i64,
) -> Result<Vec<MigratedRun>, sqlx::Error> {
    let rows = sqlx::query(
        "-- migrated_runs_page\n\
         select run_id, result, message from migrated_runs where namespace = $1 and migration = $2 \
         and ($3::text is null or result = $3) and run_id > $4 order by run_id limit $5",
    )
    .bind(namespace)
    .bind(id)
    .bind(result)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let run = |row: &PgRow| {
        Ok(MigratedRun {
            run: RunId(row.try_get(0)?),
            result: row.try_get(1)?,
            message: row.try_get(2)?,
        })
    };
    rows.iter().map(run).collect()
}

/// Records results of runs of a migration.
pub(crate) async fn note(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
    results: &[MigratedRun],
) -> Result<(), sqlx::Error> {
    let runs: Vec<Uuid> = results.iter().map(|one| one.run.0).collect();
    let words: Vec<&str> = results.iter().map(|one| one.result.as_str()).collect();
    let messages: Vec<Option<String>> =
        results.iter().map(|one| one.message.as_deref().map(super::batch::printable)).collect();
    sqlx::query(
        "-- migrated_runs_note\n\
         update migrated_runs m set result = x.result, message = x.message \
         from unnest($3::uuid[], $4::text[], $5::text[]) as x(run_id, result, message) \
         where m.namespace = $1 and m.migration = $2 and m.run_id = x.run_id",
    )
    .bind(namespace)
    .bind(id)
    .bind(runs)
    .bind(words)
    .bind(messages)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the number of runs of a migration by result.
pub(crate) async fn results(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
) -> Result<BTreeMap<String, u64>, sqlx::Error> {
    let rows = sqlx::query(
        "-- migrated_runs_count\n\
         select result, count(*) from migrated_runs where namespace = $1 and migration = $2 group by result",
    )
    .bind(namespace)
    .bind(id)
    .fetch_all(connection)
    .await?;
    let count = |row: &PgRow| {
        let count: i64 = row.try_get(1)?;
        Ok((row.try_get(0)?, u64::try_from(count).unwrap_or_default()))
    };
    rows.iter().map(count).collect()
}

/// Lists migrations of a workflow, newest first, before the given one; one alone with `id`.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
    id: Option<Uuid>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<MigrationView>, sqlx::Error> {
    let text = sqlx::AssertSqlSafe(format!(
        "-- migrations_list\n\
         select {COLUMNS} from migrations where namespace = $1 and workflow = $2 and ($3::uuid is null or id = $3) \
         and ($4::uuid is null or id < $4) order by id desc limit $5"
    ));
    let rows = sqlx::query(text)
        .bind(namespace)
        .bind(workflow)
        .bind(id)
        .bind(before)
        .bind(limit)
        .fetch_all(&mut *connection)
        .await?;
    let mut views = Vec::with_capacity(rows.len());
    for row in &rows {
        let one = migration_row(row)?;
        let ended_at: Option<Moment> = row.try_get(12)?;
        let runs = results(connection, namespace, one.id).await?;
        let (mapping, damaged) = match serde_json::from_str(&one.mapping) {
            Ok(mapping) => (mapping, None),
            Err(error) => (Mapping::default(), Some(bad_row(one.id, &error.to_string()))),
        };
        views.push(MigrationView {
            id: one.id,
            workflow: one.workflow,
            from: u32::try_from(one.from).unwrap_or_default(),
            to: u32::try_from(one.to).unwrap_or_default(),
            mapping,
            on_obstacle: one.on_obstacle,
            state: one.state,
            stopped_because: row.try_get(11)?,
            total: runs.values().sum(),
            runs,
            actor: one.actor,
            reason: one.reason,
            created_at: Timestamp(one.created_at),
            ended_at: ended_at.map(|Moment(at)| Timestamp(at)),
            damaged,
        });
    }
    Ok(views)
}

fn bad_row(id: Uuid, detail: &str) -> String {
    format!("table migrations, id {id}, column mapping: {detail}")
}

fn migration_row(row: &PgRow) -> Result<MigrationRow, sqlx::Error> {
    let on_obstacle: String = row.try_get(6)?;
    let Moment(created_at) = row.try_get(10)?;
    Ok(MigrationRow {
        namespace: row.try_get(0)?,
        id: row.try_get(1)?,
        workflow: row.try_get(2)?,
        from: row.try_get(3)?,
        to: row.try_get(4)?,
        mapping: row.try_get(5)?,
        on_obstacle: if on_obstacle == "leave" { OnObstacle::Leave } else { OnObstacle::Stop },
        state: row.try_get(7)?,
        actor: row.try_get(8)?,
        reason: row.try_get(9)?,
        created_at,
    })
}
