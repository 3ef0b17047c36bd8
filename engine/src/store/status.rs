//! Counts of a namespace, for those who poll.

use backstitch_saga::Time;
use backstitch_saga::protocol::Outcome;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::moment::Moment;
use super::partitions::first_id;

/// Result of one count.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts {
    /// Open incidents by kind, with the oldest of each.
    pub(crate) incidents: Vec<(String, i64, Time)>,
    /// Runs that have not ended, by state.
    pub(crate) runs: Vec<(String, i64)>,
    /// Runs that were started lately and have ended, by outcome, up to [`MOST_ENDED`] each.
    pub(crate) ended: Vec<(String, i64)>,
    /// The time since when the oldest offered task waits.
    pub(crate) oldest_task: Option<Time>,
    /// Rows in progress between sources, runs and the log, by kind: the reason of the wait if it is known, their
    /// number, and the time since when.
    pub(crate) on_the_way: Vec<(String, String, i64, Time)>,
}

/// The most documents that cannot be mapped, and keys that are blocked, that are counted.
pub(crate) const MOST_COUNTED: i64 = 1_000;

/// The most runs of an outcome that are counted.
pub(crate) const MOST_ENDED: i64 = 1_000;

/// Counts open things, and the outcomes of runs that were started after `since`. Each part reads an index of what is
/// open, or the newest part of an index up to a bound, so the cost grows with that and not with all there ever was; the
/// oldest task is found by one step for each queue and handler.
pub(crate) async fn count(
    connection: &mut PgConnection,
    namespace: &str,
    since: Time,
) -> Result<Counts, sqlx::Error> {
    // Ranges of the outcome and the id together, in their order: only the index of both can give them, whatever the
    // planner thinks of how many runs have an outcome.
    let words: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
    let first = first_id(since);
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
         union all select 'ended', w.word, count(*), null from unnest($3::text[]) w(word) cross join lateral \
           (select 1 from runs r where r.namespace = $1 and r.outcome is not null and (r.outcome, r.id) >= (w.word, $4) \
              and (r.outcome, r.id) <= (w.word, 'ffffffff-ffff-ffff-ffff-ffffffffffff') order by r.outcome, r.id limit $5) r \
            group by w.word \
         union all select 'task', '', 0, at from oldest \
         union all select 'import', min(waits_for), count(*), min(changed_at) from import \
         where namespace = $1 and state = 'running' and waits_for is not null having count(*) > 0 \
         union all select 'reprocess', min(waits_for), count(*), min(created_at) from reprocess \
         where namespace = $1 and state = 'running' and waits_for is not null having count(*) > 0 \
         union all select 'erasure', min(waits_for), count(*), min(created_at) from data_erasure \
         where namespace = $1 and state = 'running' and waits_for is not null having count(*) > 0 \
         union all select 'document', '', count(*), min(received_at) from \
           (select received_at from intake where namespace = $1 and mapping = 'failed' order by id limit $2) d having count(*) > 0 \
         union all select 'subscription', min(stopped_code), count(*), min(stopped_since) from subscription \
         where namespace = $1 and state = 'active' and stopped_at is not null having count(*) > 0 \
         union all select 'key', '', count(*), min(since) from \
           (select e.since from subscription s cross join lateral (select e.since from subscription_event e \
               where e.namespace = s.namespace and e.name = s.name and e.state = 'blocked' limit $2) e \
             where s.namespace = $1 and s.pending > 0 limit $2) k having count(*) > 0 \
         union all select 'emitted', '', 1, at from (select at from emitted where namespace = $1 order by id limit 1) e order by 1, 2",
    )
    .bind(namespace)
    .bind(MOST_COUNTED)
    .bind(&words)
    .bind(first)
    .bind(MOST_ENDED)
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
            ("ended", _) => counts.ended.push((word, count)),
            ("task", since) => counts.oldest_task = since.map(|Moment(at)| at),
            (_, Some(Moment(since))) => counts.on_the_way.push((what, word, count, since)),
            (_, None) => {}
        }
    }
    Ok(counts)
}
