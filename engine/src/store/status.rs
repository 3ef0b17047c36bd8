//! Counts of a namespace, for those who poll.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::moment::Moment;

/// What one look finds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Open incidents by kind, with the oldest of each.
    pub(crate) incidents: Vec<(String, i64, Time)>,
    /// Runs that have not ended, by state.
    pub(crate) runs: Vec<(String, i64)>,
    /// Since when the oldest task on offer waits.
    pub(crate) oldest_task: Option<Time>,
}

/// Counts what is open. Each part reads an index of what is open, so the cost grows with that and not with all there
/// ever was; the oldest task is found by one step for each queue and handler.
pub(crate) async fn count(
    connection: &mut PgConnection,
    namespace: &str,
) -> Result<Counts, sqlx::Error> {
    let rows = sqlx::query(
        "-- status\n\
         with recursive kinds as ( \
           (select queue, name from ready where namespace = $1 order by queue, name limit 1) \
           union all select n.queue, n.name from kinds k cross join lateral \
             (select r.queue, r.name from ready r where r.namespace = $1 and (r.queue, r.name) > (k.queue, k.name) \
              order by r.queue, r.name limit 1) n), \
         oldest as (select min(o.offered_at) as at from kinds k cross join lateral \
           (select r.offered_at from ready r where r.namespace = $1 and r.queue = k.queue and r.name = k.name \
            order by r.offered_at limit 1) o) \
         select 'incident', kind, count(*), min(opened_at) from incidents \
         where namespace = $1 and resolved_at is null group by kind \
         union all select 'run', state, count(*), null from runs \
         where namespace = $1 and state <> 'ended' group by state \
         union all select 'task', '', 0, at from oldest order by 1, 2",
    )
    .bind(namespace)
    .fetch_all(connection)
    .await?;
    let mut counts = Counts::default();
    for row in rows {
        let (what, word, count): (String, String, i64) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let since: Option<Moment> = row.try_get(3)?;
        match (what.as_str(), since) {
            ("incident", Some(Moment(oldest))) => counts.incidents.push((word, count, oldest)),
            ("run", _) => counts.runs.push((word, count)),
            (_, since) => counts.oldest_task = since.map(|Moment(at)| at),
        }
    }
    Ok(counts)
}
