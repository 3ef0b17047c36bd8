//! Counts over all namespaces, for `/metrics`.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::moment::Moment;

/// Largest number of tasks of one handler that are counted.
const MOST_TASKS: i64 = 100_000;
/// Largest number of rows in progress that are counted.
const MOST_ROWS: i64 = 100_000;
/// Number of queues with offered tasks that are counted.
const MOST_QUEUES: i64 = 1_000;

/// Result of one count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Open incidents by kind, with the oldest of each.
    pub(crate) incidents: Vec<(String, u64, Time)>,
    /// Runs that have not ended, by workflow and state.
    pub(crate) runs: Vec<(String, String, u64)>,
    /// Tasks on offer by queue, with the oldest of each.
    pub(crate) queues: Vec<(String, u64, Time)>,
    /// Rows in progress between sources, runs and the log, by name, with the oldest of each.
    pub(crate) on_the_way: Vec<(String, u64, Time)>,
}

/// Counts what is open, moves and waits. Each statement reads an index of that alone, so the cost does not grow with
/// what has ended.
pub(crate) async fn count(connection: &mut PgConnection) -> Result<Counts, sqlx::Error> {
    Ok(Counts {
        incidents: oldest(connection, INCIDENTS, &[]).await?,
        runs: runs(connection).await?,
        queues: oldest(connection, QUEUES, &[MOST_TASKS, MOST_QUEUES]).await?,
        on_the_way: oldest(connection, ON_THE_WAY, &[MOST_ROWS]).await?,
    })
}

const INCIDENTS: &str = "-- statistics_incidents\n\
    select kind, count(*), min(opened_at) from incidents where resolved_at is null group by kind order by kind";

const RUNS: &str = "-- statistics_runs\n\
    select workflow, state, count(*) from runs where state <> 'ended' group by workflow, state order by 1, 2";

const QUEUES: &str = "-- statistics_queues\n\
    with recursive kinds as ( \
      (select namespace, queue, name, 1::bigint as found from ready order by namespace, queue, name limit 1) \
      union all select n.namespace, n.queue, n.name, k.found + 1 from kinds k cross join lateral \
        (select r.namespace, r.queue, r.name from ready r \
         where (r.namespace, r.queue, r.name) > (k.namespace, k.queue, k.name) \
         order by r.namespace, r.queue, r.name limit 1) n where k.found < $2), \
    counted as (select k.queue, c.tasks, c.oldest from kinds k cross join lateral \
      (select count(*) as tasks, min(o.offered_at) as oldest from (select r.offered_at from ready r \
        where r.namespace = k.namespace and r.queue = k.queue and r.name = k.name \
        order by r.offered_at limit $1) o) c where c.tasks > 0) \
    select queue, sum(tasks)::bigint, min(oldest) from counted group by queue order by queue limit 100";

const ON_THE_WAY: &str = "-- statistics_on_the_way\n\
    select 'emitted', count(*), min(at) from (select at from emitted limit $1) e having count(*) > 0 \
    union all select 'import_' || (case when waits_for is null then state else 'waiting' end), count(*), min(changed_at) \
      from (select state, waits_for, changed_at from import where state in ('receiving', 'running') limit $1) i group by 1 \
    union all select 'reprocess_' || (case when waits_for is null then state else 'waiting' end), count(*), min(created_at) \
      from (select state, waits_for, created_at from reprocess where state = 'running' limit $1) r group by 1 \
    union all select 'erasure', count(*), min(created_at) \
      from (select created_at from data_erasure where state = 'running' limit $1) d having count(*) > 0 \
    union all select 'not_mapped', count(*), min(received_at) \
      from (select received_at from intake where mapping = 'failed' limit $1) m having count(*) > 0";

async fn oldest(
    connection: &mut PgConnection,
    statement: &'static str,
    limits: &[i64],
) -> Result<Vec<(String, u64, Time)>, sqlx::Error> {
    let mut query = sqlx::query(statement);
    for limit in limits {
        query = query.bind(limit);
    }
    let rows = query.fetch_all(connection).await?;
    let read = |row: &sqlx::postgres::PgRow| {
        let (count, Moment(since)): (i64, Moment) = (row.try_get(1)?, row.try_get(2)?);
        Ok((row.try_get(0)?, u64::try_from(count).unwrap_or_default(), since))
    };
    rows.iter().map(read).collect()
}

async fn runs(connection: &mut PgConnection) -> Result<Vec<(String, String, u64)>, sqlx::Error> {
    let rows = sqlx::query(RUNS).fetch_all(connection).await?;
    let read = |row: &sqlx::postgres::PgRow| {
        let count: i64 = row.try_get(2)?;
        Ok((row.try_get(0)?, row.try_get(1)?, u64::try_from(count).unwrap_or_default()))
    };
    rows.iter().map(read).collect()
}
