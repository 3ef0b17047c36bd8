//! Reprocessing of many documents, and why documents cannot be mapped.

use backstitch_saga::Time;
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query_builder::QueryBuilder;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::intake::{IntakeFilter, IntakeRow, line_with_headers, push_filter};
use super::long_work::LongWork;
use super::moment::Moment;

/// A line of the table `reprocess`.
#[derive(Clone, Debug)]
pub(crate) struct ReprocessRow {
    pub(crate) id: Uuid,
    pub(crate) namespace: String,
    pub(crate) asked: String,
    pub(crate) state: String,
    pub(crate) after: Uuid,
    pub(crate) until: Uuid,
    pub(crate) counts: Counts,
    pub(crate) waits_for: Option<String>,
    pub(crate) actor: String,
    pub(crate) created_at: Time,
    pub(crate) ended_at: Option<Time>,
}

/// Number of documents by result.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) changed: i64,
    pub(crate) same: i64,
    pub(crate) failed: i64,
    pub(crate) refused: i64,
    pub(crate) overtaken: i64,
}

const COLUMNS: &str = "t.id, t.namespace, t.asked, t.state, t.after, t.until, t.changed, t.same, t.failed, t.refused, t.overtaken, \
    t.waits_for, t.actor, t.created_at, t.ended_at";

const WORK: LongWork = LongWork { table: "reprocess", columns: COLUMNS, when: "" };

fn reprocess_row(row: &PgRow) -> Result<ReprocessRow, sqlx::Error> {
    let Moment(created_at) = row.try_get(13)?;
    let ended_at: Option<Moment> = row.try_get(14)?;
    Ok(ReprocessRow {
        id: row.try_get(0)?,
        namespace: row.try_get(1)?,
        asked: row.try_get(2)?,
        state: row.try_get(3)?,
        after: row.try_get(4)?,
        until: row.try_get(5)?,
        counts: Counts {
            changed: row.try_get(6)?,
            same: row.try_get(7)?,
            failed: row.try_get(8)?,
            refused: row.try_get(9)?,
            overtaken: row.try_get(10)?,
        },
        waits_for: row.try_get(11)?,
        actor: row.try_get(12)?,
        created_at,
        ended_at: ended_at.map(|Moment(at)| at),
    })
}

/// Begins to reprocess documents, unless `most` of the namespace are at it. Returns whether it did.
pub(crate) async fn create(
    connection: &mut PgConnection,
    row: &ReprocessRow,
    due_at: Time,
    most: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- reprocess_create\n\
         insert into reprocess (id, namespace, asked, state, after, until, actor, created_at, due_at) \
         select $1, $2, $3, 'running', $4, $5, $6, $7, $8 where $9 > \
           (select count(*) from reprocess o where o.namespace = $2 and o.state = 'running')",
    )
    .bind(row.id)
    .bind(&row.namespace)
    .bind(&row.asked)
    .bind(row.after)
    .bind(row.until)
    .bind(&row.actor)
    .bind(Moment(row.created_at))
    .bind(Moment(due_at))
    .bind(most)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Takes those that have documents to process, see [`LongWork::take`].
pub(crate) async fn take(
    connection: &mut PgConnection,
    whose: (i32, i64),
    times: (Time, Time),
    limit: i64,
) -> Result<Vec<ReprocessRow>, sqlx::Error> {
    WORK.take(connection, whose, times, limit).await?.iter().map(reprocess_row).collect()
}

/// Returns the next documents with their bytes, which are missing for erased ones: as many as have so many bytes
/// together, and at least one.
pub(crate) async fn next(
    connection: &mut PgConnection,
    row: &ReprocessRow,
    filter: &IntakeFilter,
    (most, bytes): (i64, i64),
) -> Result<Vec<(IntakeRow, Option<Vec<u8>>)>, sqlx::Error> {
    let mut query =
        QueryBuilder::<Postgres>::new("-- reprocess_next\nselect i.*, r.raw from (select ");
    query
        .push(line_with_headers())
        .push(", sum(bytes) over (order by id) - bytes as before from intake where namespace = ");
    query.push_bind(&row.namespace).push(" and id > ").push_bind(row.after);
    query.push(" and id < ").push_bind(row.until);
    push_filter(&mut query, filter);
    query.push(" order by id limit ").push_bind(most);
    query.push(") i left join intake_raw r on r.id = i.id where i.before <= ").push_bind(bytes);
    query.push(" order by i.id");
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(|row| Ok((super::intake::intake_row(row)?, row.try_get("raw")?))).collect()
}

/// Counts the results of the documents up to `last`, unless another node did; without a last one it has ended.
pub(crate) async fn count(
    connection: &mut PgConnection,
    row: &ReprocessRow,
    (last, counts): (Option<Uuid>, Counts),
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- reprocess_count\n\
         update reprocess set after = coalesce($3, after), changed = changed + $4, same = same + $5, failed = failed + $6, \
           refused = refused + $7, overtaken = overtaken + $8, due_at = $9, waits_for = null, taken_by = null, \
           taken_until = null, state = case when $3 is null then 'done' else state end, ended_at = case when $3 is null then $9 end \
         where id = $1 and after = $2 and state = 'running'",
    )
    .bind(row.id)
    .bind(row.after)
    .bind(last)
    .bind(counts.changed)
    .bind(counts.same)
    .bind(counts.failed)
    .bind(counts.refused)
    .bind(counts.overtaken)
    .bind(Moment(now))
    .execute(connection)
    .await
    .map(drop)
}

/// Says why it does not go on before `due_at`.
pub(crate) async fn put_off(
    connection: &mut PgConnection,
    id: Uuid,
    why: &str,
    due_at: Time,
) -> Result<(), sqlx::Error> {
    WORK.put_off(connection, id, why, due_at).await
}

/// Stops it. Returns whether it was running.
pub(crate) async fn stop(
    connection: &mut PgConnection,
    (namespace, id): (&str, Uuid),
    now: Time,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- reprocess_stop\n\
         update reprocess set state = 'stopped', ended_at = $3, waits_for = null where namespace = $1 and id = $2 and state = 'running'",
    )
    .bind(namespace)
    .bind(id)
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Finds one of a namespace.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
) -> Result<Option<ReprocessRow>, sqlx::Error> {
    WORK.find(connection, namespace, id).await?.as_ref().map(reprocess_row).transpose()
}

/// Returns those of a namespace, the newest first, from before one of them on.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ReprocessRow>, sqlx::Error> {
    let text = format!(
        "-- reprocess_list\n\
         select {COLUMNS} from reprocess t where t.namespace = $1 and ($2::uuid is null or t.id < $2) order by t.id desc limit $3"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(before).bind(limit);
    query.fetch_all(connection).await?.iter().map(reprocess_row).collect()
}

/// Documents that cannot be mapped for one reason.
#[derive(Debug)]
pub(crate) struct ProblemRow {
    pub(crate) contract: String,
    pub(crate) to: String,
    pub(crate) code: String,
    pub(crate) pointer: String,
    pub(crate) documents: i64,
    pub(crate) first_at: Time,
    pub(crate) last_at: Time,
    pub(crate) intake: Uuid,
    /// JSON list of the failures of the last one.
    pub(crate) failures: String,
    /// Number of documents that were read, of all reasons.
    pub(crate) looked: i64,
}

/// Returns the reasons for which the last `most` unmapped documents cannot be mapped, the most
/// frequent first.
pub(crate) async fn problems(
    connection: &mut PgConnection,
    namespace: &str,
    source: Option<&str>,
    (most, reasons): (i64, i64),
) -> Result<Vec<ProblemRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- mapping_problems\n\
         with failed as (select id, coalesce(contract, '') as contract, coalesce(mapped_to, '') as mapped_to, received_at, \
             coalesce(failures, '[]') as failures, coalesce(failures::json -> 0 ->> 'code', '') as code, \
             coalesce(failures::json -> 0 ->> 'pointer', '') as pointer \
           from intake where namespace = $1 and mapping = 'failed' and ($2::text is null or source = $2) order by id desc limit $3) \
         select contract, mapped_to, code, pointer, count(*), min(received_at), max(received_at), \
           (array_agg(id order by id desc))[1], (array_agg(failures order by id desc))[1], (select count(*) from failed) \
         from failed group by contract, mapped_to, code, pointer order by count(*) desc, contract, mapped_to, code, pointer limit $4",
    )
    .bind(namespace)
    .bind(source)
    .bind(most)
    .bind(reasons)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let (Moment(first_at), Moment(last_at)) = (row.try_get(5)?, row.try_get(6)?);
            Ok(ProblemRow {
                contract: row.try_get(0)?,
                to: row.try_get(1)?,
                code: row.try_get(2)?,
                pointer: row.try_get(3)?,
                documents: row.try_get(4)?,
                first_at,
                last_at,
                intake: row.try_get(7)?,
                failures: row.try_get(8)?,
                looked: row.try_get(9)?,
            })
        })
        .collect()
}
