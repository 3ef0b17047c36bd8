//! The table `open_effects`: effects in other systems that remain and should not, or that may remain.

use backstitch_saga::protocol::{EffectFilter, EffectLine, SystemCount};
use backstitch_saga::{RunId, Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query_builder::QueryBuilder;
use uuid::Uuid;

use super::index::EffectRow;
use super::moment::Moment;

/// The end of a page: the time since when its last entry is open, and its key.
pub(crate) type EffectPlace = (Time, RunId, String);

fn count(row: &PgRow, column: usize) -> Result<u32, sqlx::Error> {
    Ok(u32::try_from(row.try_get::<i32, _>(column)?).unwrap_or_default())
}

/// Lists open effects of a namespace, the oldest first, after the place `after`. `now` is what "older than" counts
/// from.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    filter: &EffectFilter,
    now: Time,
    after: Option<&EffectPlace>,
    limit: i64,
) -> Result<Vec<EffectLine>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(
        "-- open_effects_list\n\
         select e.run_id, e.workflow, r.key, e.step, e.system, e.standing, e.unknown, e.since, r.state, r.outcome \
         from open_effects e join runs r on r.id = e.run_id where e.namespace = ",
    );
    query.push_bind(namespace);
    if let Some(system) = &filter.system {
        query.push(" and e.system = ").push_bind(system);
    }
    if let Some(workflow) = &filter.workflow {
        query.push(" and e.workflow = ").push_bind(workflow);
    }
    if let Some(status) = filter.status {
        query.push(format!(" and e.{} > 0", status.as_str()));
    }
    if let Some(span) = filter.older_than {
        let before = Time(now.0.saturating_sub_unsigned(span.0));
        query.push(" and e.since < ").push_bind(Moment(before));
    }
    if let Some((since, run, step)) = after {
        query.push(" and (e.since, e.run_id, e.step) > (").push_bind(Moment(*since));
        query.push(", ").push_bind(run.0).push(", ").push_bind(step).push(")");
    }
    query.push(" order by e.since, e.run_id, e.step limit ").push_bind(limit);
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(line).collect()
}

fn line(row: &PgRow) -> Result<EffectLine, sqlx::Error> {
    let run = RunId(row.try_get(0)?);
    let (state, outcome): (String, Option<String>) = (row.try_get(8)?, row.try_get(9)?);
    let Moment(since) = row.try_get(7)?;
    let unknown_state =
        || sqlx::Error::Decode(format!("table runs, run {run}, column state: {state}").into());
    Ok(EffectLine {
        run,
        workflow: row.try_get(1)?,
        key: row.try_get(2)?,
        step: row.try_get(3)?,
        system: row.try_get(4)?,
        standing: count(row, 5)?,
        unknown: count(row, 6)?,
        since: Timestamp(since),
        state: super::runs::state_of(&state).ok_or_else(unknown_state)?,
        outcome: outcome.as_deref().and_then(super::runs::outcome_of),
    })
}

/// Returns the open effects of a namespace by system, of the oldest `most` lines, and whether there are more.
pub(crate) async fn by_system(
    connection: &mut PgConnection,
    namespace: &str,
    most: i64,
) -> Result<(Vec<SystemCount>, bool), sqlx::Error> {
    let rows = sqlx::query(
        "-- open_effects_by_system\n\
         select system, count(distinct run_id), sum(standing)::bigint, sum(unknown)::bigint, min(since), \
         bool_or(place > $2) from (select e.*, row_number() over (order by e.since, e.run_id, e.step) as place \
           from open_effects e where e.namespace = $1 order by e.since, e.run_id, e.step limit $2 + 1) e \
         group by system order by min(since), system",
    )
    .bind(namespace)
    .bind(most)
    .fetch_all(connection)
    .await?;
    let number = |count: i64| u64::try_from(count).unwrap_or_default();
    let mut more = false;
    let mut found = Vec::with_capacity(rows.len());
    for row in &rows {
        let Moment(oldest) = row.try_get(4)?;
        more |= row.try_get::<bool, _>(5)?;
        found.push(SystemCount {
            system: row.try_get(0)?,
            runs: number(row.try_get(1)?),
            standing: number(row.try_get(2)?),
            unknown: number(row.try_get(3)?),
            oldest: Timestamp(oldest),
        });
    }
    Ok((found, more))
}

/// Returns the lines of some runs, sorted by step.
pub(super) async fn of_runs(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<(RunId, EffectRow)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- index_open_effects\n\
         select run_id, step, namespace, workflow, system, standing, unknown from open_effects \
         where run_id = any($1) order by run_id, step collate \"C\"",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    let effect = |row: &PgRow| {
        let effect = EffectRow {
            step: row.try_get(1)?,
            namespace: row.try_get(2)?,
            workflow: row.try_get(3)?,
            system: row.try_get(4)?,
            standing: row.try_get(5)?,
            unknown: row.try_get(6)?,
        };
        Ok((RunId(row.try_get(0)?), effect))
    };
    rows.iter().map(effect).collect()
}

/// Rewrites the rows of a run. An existing one keeps its time.
pub(super) async fn rewrite(
    connection: &mut PgConnection,
    run: RunId,
    rows: &[EffectRow],
) -> Result<(), sqlx::Error> {
    let texts = |column: fn(&EffectRow) -> &str| rows.iter().map(column).collect::<Vec<_>>();
    let steps = texts(|row| &row.step);
    sqlx::query(
        "-- index_rewrite_open_effects\ndelete from open_effects where run_id = $1 and step <> all($2)",
    )
    .bind(run.0)
    .bind(&steps)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "-- index_insert_open_effects\n\
         insert into open_effects as e (run_id, step, namespace, workflow, system, standing, unknown, since) \
         select $1, x.*, clock_timestamp() from unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::integer[], \
           $7::integer[]) as x on conflict (run_id, step) do update set namespace = excluded.namespace, \
         workflow = excluded.workflow, system = excluded.system, standing = excluded.standing, \
         unknown = excluded.unknown",
    )
    .bind(run.0)
    .bind(&steps)
    .bind(texts(|row| &row.namespace))
    .bind(texts(|row| &row.workflow))
    .bind(texts(|row| &row.system))
    .bind(rows.iter().map(|row| row.standing).collect::<Vec<_>>())
    .bind(rows.iter().map(|row| row.unknown).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}
