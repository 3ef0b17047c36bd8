//! Ended runs past retention in weeks that cannot be dropped: what keeps the weeks, and the deletion of single runs.

use backstitch_saga::{RunId, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;

/// Runs that keep a week are counted up to this many.
const COUNTED: i64 = 10_000;

/// Runs of one namespace that keep a week from being dropped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Holding {
    pub(crate) namespace: String,
    pub(crate) runs: i64,
    pub(crate) oldest: RunId,
    pub(crate) started_at: Time,
}

/// Finds the runs from one id up to another that did not end before `before`, by namespace. Counts no more than 10,000.
pub(crate) async fn holding(
    connection: &mut PgConnection,
    (first, end): (Uuid, Uuid),
    before: Time,
) -> Result<Vec<Holding>, sqlx::Error> {
    let rows = sqlx::query(
        "-- retention_holding\n\
         select k.namespace, count(*), (array_agg(k.id order by k.id))[1], \
           (array_agg(k.started_at order by k.id))[1] \
         from (select r.id, r.namespace, r.started_at from runs r where r.id >= $1 and r.id < $2 \
         and (r.state <> 'ended' or coalesce(r.ended_at >= $3, true)) order by r.id limit $4) k \
         group by k.namespace order by 3",
    )
    .bind(first)
    .bind(end)
    .bind(Moment(before))
    .bind(COUNTED)
    .fetch_all(connection)
    .await?;
    let holding = |row: &PgRow| {
        let Moment(started_at) = row.try_get(3)?;
        Ok(Holding {
            namespace: row.try_get(0)?,
            runs: row.try_get(1)?,
            oldest: RunId(row.try_get(2)?),
            started_at,
        })
    };
    rows.iter().map(holding).collect()
}

/// Reads the next `limit` runs after one id and before another. Answers the last of them, if there may be more, and those
/// that ended before `before`.
pub(crate) async fn page(
    connection: &mut PgConnection,
    (after, end): (Uuid, Uuid),
    before: Time,
    limit: i64,
) -> Result<(Option<Uuid>, Vec<Uuid>), sqlx::Error> {
    let rows: Vec<(Uuid, bool)> = sqlx::query_as(
        "-- retention_page\n\
         select r.id, r.state = 'ended' and coalesce(r.ended_at < $3, false) from runs r \
         where r.id > $1 and r.id < $2 order by r.id limit $4",
    )
    .bind(after)
    .bind(end)
    .bind(Moment(before))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let full = i64::try_from(rows.len()) == Ok(limit);
    let last = rows.last().filter(|_| full).map(|(run, _)| *run);
    let past = rows.into_iter().filter(|(_, past)| *past).map(|(run, _)| run);
    Ok((last, past.collect()))
}

/// Deletes those of `runs` that ended before `before` with everything that is kept of them, in one transaction, until they
/// have `records` records together. The owner of the schema does it, and looks at each of them again. Answers how many runs
/// went, and the last if it did not look at all.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    runs: &[Uuid],
    before: Time,
    records: i32,
) -> Result<(usize, Option<Uuid>), sqlx::Error> {
    let (deleted, last): (i32, Option<Uuid>) = sqlx::query_as(
        "-- retention_delete\nselect deleted, last from backstitch.delete_runs($1, $2, $3)",
    )
    .bind(runs)
    .bind(Moment(before))
    .bind(records)
    .fetch_one(connection)
    .await?;
    Ok((usize::try_from(deleted).unwrap_or_default(), last))
}
