//! Positions of batches that were announced. Their transaction holds the locks of the heads of their namespaces; these
//! are taken in one statement and used in the next, whose snapshot is therefore younger than the lock.

use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::store::moment::Moment;
use crate::store::spaces::{Found, Waiting};

/// Namespaces of one turn.
const SPACES: usize = 64;
/// Batches of a namespace in one turn.
const BATCHES: i64 = 1_000;

/// Announced batches, by namespace.
const WAITING: Waiting =
    Waiting { table: "announced", when: "true", by: "id", due: "true", spaces: SPACES };

/// Returns the statement that finds namespaces with announced batches.
fn announced_due() -> String {
    format!(
        "-- announced_due\n{} select t.last, d.namespace from turn t left join due d on true",
        WAITING.due_spaces()
    )
}

/// Finds namespaces after `after` in which batches wait for their positions.
pub(crate) async fn due(
    connection: &mut PgConnection,
    after: &str,
) -> Result<Found<String>, sqlx::Error> {
    let rows =
        sqlx::query(sqlx::AssertSqlSafe(announced_due())).bind(after).fetch_all(connection).await?;
    Found::read(&rows, |row| row.try_get(1))
}

/// Result of numbering.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Numbered {
    pub(crate) batches: i64,
    pub(crate) events: i64,
    /// `true` if a namespace may have more.
    pub(crate) more: bool,
}

/// Locks the heads of these namespaces, in a transaction of the caller, and makes those that are missing.
pub(crate) async fn lock_heads(
    connection: &mut PgConnection,
    namespaces: &[String],
) -> Result<(), sqlx::Error> {
    let locked: Vec<String> = sqlx::query_scalar(
        "-- log_head_lock\nselect namespace from log_head where namespace = any($1) order by namespace for update",
    )
    .bind(namespaces)
    .fetch_all(&mut *connection)
    .await?;
    if locked.len() < namespaces.len() {
        // The first batch of a namespace, or its head was lost: it continues after the last position. Its head is
        // locked from now on, too: by its insertion.
        sqlx::query(
            "-- log_head_begin\n\
             insert into log_head (namespace, position, horizon) select x.namespace, b.position, coalesce(f.horizon, b.position) \
             from unnest($1::text[]) as x(namespace) \
             left join lateral (select p.upto from position p where p.namespace = x.namespace \
               order by p.upto desc limit 1) l on true \
             left join lateral (select p.upto - p.n as horizon from position p where p.namespace = x.namespace \
               order by p.upto limit 1) f on true \
             cross join lateral (select coalesce(l.upto, greatest(0, \
               (select max(c.position) from log_cursor c where c.namespace = x.namespace), \
               (select max(s.position) from subscription s where s.namespace = x.namespace))) as position) b \
             order by x.namespace on conflict do nothing",
        )
        .bind(namespaces)
        .execute(&mut *connection)
        .await?;
        sqlx::query(
            "-- log_head_lock_all\nselect namespace from log_head where namespace = any($1) order by namespace for update",
        )
        .bind(namespaces)
        .fetch_all(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Gives positions to announced batches of these namespaces, in a transaction of the caller. Waits for whoever does so.
pub(crate) async fn number(
    connection: &mut PgConnection,
    namespaces: &[String],
) -> Result<Numbered, sqlx::Error> {
    lock_heads(connection, namespaces).await?;
    let row = sqlx::query(
        "-- log_number\n\
         with due as materialized (select t.id from unnest($1::text[]) as s(namespace) cross join lateral \
           (select a.id from announced a where a.namespace = s.namespace order by a.id limit $2) t), \
         taken as (delete from announced a using due d where a.id = d.id returning a.id, a.namespace, a.batch, a.n), \
         numbered as materialized (select t.namespace, t.batch, t.n, \
           h.position + sum(t.n) over (partition by t.namespace order by t.id) as upto \
           from taken t join log_head h on h.namespace = t.namespace), \
         put as (insert into position (namespace, upto, batch, n) \
           select namespace, upto, batch, n from numbered returning 1), \
         last as materialized (select namespace, max(upto) as upto, count(*) as batches from numbered group by namespace), \
         moved as (update log_head h set position = l.upto from last l where h.namespace = l.namespace returning 1) \
         select count(*), coalesce(sum(n), 0)::bigint, coalesce((select max(batches) from last), 0) from numbered",
    )
    .bind(namespaces)
    .bind(BATCHES)
    .fetch_one(connection)
    .await?;
    let most: i64 = row.try_get(2)?;
    Ok(Numbered { batches: row.try_get(0)?, events: row.try_get(1)?, more: most == BATCHES })
}

/// Batches that wait for their positions.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Backlog {
    /// Number of batches, up to a bound.
    pub(crate) batches: i64,
    /// Time at which the oldest of them was appended.
    pub(crate) oldest: Option<Moment>,
}

/// The most batches that are counted.
const COUNTED: i64 = 100_000;

/// Counts the batches that wait for their positions.
pub(crate) async fn backlog(connection: &mut PgConnection) -> Result<Backlog, sqlx::Error> {
    let row = sqlx::query(
        "-- announced_backlog\n\
         select count(*), min(at) from (select at from announced order by id limit $1) a",
    )
    .bind(COUNTED)
    .fetch_one(connection)
    .await?;
    Ok(Backlog { batches: row.try_get(0)?, oldest: row.try_get(1)? })
}
