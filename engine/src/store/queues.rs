//! The table `queues`: limits of queues, and the state of their limiters.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::flow::count;
use super::moment::Moment;

/// A line of `queues`. Policy and limiter are JSON.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct QueueRow {
    pub(crate) namespace: String,
    pub(crate) queue: String,
    pub(crate) policy: String,
    pub(crate) limiter: String,
    /// When, by whom, why.
    pub(crate) paused: Option<(Time, String, String)>,
    pub(crate) changed_at: Time,
    pub(crate) changed_by: String,
    pub(crate) swept_at: Option<Time>,
}

fn queue_row(row: &PgRow) -> Result<QueueRow, sqlx::Error> {
    let paused_at: Option<Moment> = row.try_get(4)?;
    let Moment(changed_at) = row.try_get(7)?;
    let swept_at: Option<Moment> = row.try_get(9)?;
    let paused = match paused_at {
        // One without a person or a reason is a pause all the same.
        Some(Moment(at)) => {
            let (by, why): (Option<String>, Option<String>) = (row.try_get(5)?, row.try_get(6)?);
            Some((at, by.unwrap_or_default(), why.unwrap_or_default()))
        }
        None => None,
    };
    Ok(QueueRow {
        namespace: row.try_get(0)?,
        queue: row.try_get(1)?,
        policy: row.try_get(2)?,
        limiter: row.try_get(3)?,
        paused,
        changed_at,
        changed_by: row.try_get(8)?,
        swept_at: swept_at.map(|Moment(at)| at),
    })
}

/// Returns all governed queues of all namespaces.
pub(crate) async fn all(connection: &mut PgConnection) -> Result<Vec<QueueRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- queues_all\n\
         select namespace, queue, policy, limiter, paused_at, paused_by, paused_why, changed_at, changed_by, swept_at \
         from queues",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(queue_row).collect()
}

/// Lists governed queues of a namespace by name, after `after`.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<QueueRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- queues_list\n\
         select namespace, queue, policy, limiter, paused_at, paused_by, paused_why, changed_at, changed_by, swept_at \
         from queues where namespace = $1 and queue > $2 order by queue limit $3",
    )
    .bind(namespace)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(queue_row).collect()
}

/// Returns one governed queue.
pub(crate) async fn one(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
) -> Result<Option<QueueRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- queues_one\n\
         select namespace, queue, policy, limiter, paused_at, paused_by, paused_why, changed_at, changed_by, swept_at \
         from queues where namespace = $1 and queue = $2",
    )
    .bind(namespace)
    .bind(queue)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(queue_row).transpose()
}

/// Returns one governed queue; no other transaction changes it, or gives permits for it, until the
/// transaction ends.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
) -> Result<Option<QueueRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- queues_lock\n\
         select namespace, queue, policy, limiter, paused_at, paused_by, paused_why, changed_at, changed_by, swept_at \
         from queues where namespace = $1 and queue = $2 for update",
    )
    .bind(namespace)
    .bind(queue)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(queue_row).transpose()
}

/// Lets the keys of a queue be checked again at `at`, if not before.
pub(crate) async fn free_keys(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
    at: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- queues_free_keys\n\
         update fair_keys set free_at = $3 where namespace = $1 and queue = $2 and free_at > $3",
    )
    .bind(namespace)
    .bind(queue)
    .bind(Moment(at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Counts the tasks of governed queues that are held and, up to `most`, those that wait: in the
/// order of `queues`.
pub(crate) async fn counts(
    connection: &mut PgConnection,
    namespace: &str,
    queues: &[String],
    most: i64,
) -> Result<Vec<(u32, u32)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- queues_counts\n\
         select (select count(*) from permits p where p.namespace = $1 and p.queue = q.queue), \
         (select count(*) from (select 1 from ready r where r.namespace = $1 and r.queue = q.queue \
           and not exists (select 1 from permits p where p.run_id = r.run_id and p.step = r.step \
             and p.action = r.action and p.attempt = r.attempt) limit $3) w) \
         from unnest($2::text[]) with ordinality as q(queue, number) order by q.number",
    )
    .bind(namespace)
    .bind(queues)
    .bind(most)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((count(row, 0)?, count(row, 1)?))).collect()
}

/// Makes a queue governed, if it is not, so that its row can be locked.
pub(crate) async fn found(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
    by: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- queues_found\n\
         insert into queues (namespace, queue, policy, changed_by) values ($1, $2, '{}', $3) \
         on conflict (namespace, queue) do nothing",
    )
    .bind(namespace)
    .bind(queue)
    .bind(by)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Writes all that a person changed of a queue.
pub(crate) async fn change(
    connection: &mut PgConnection,
    row: &QueueRow,
) -> Result<(), sqlx::Error> {
    let (at, by, why) = match &row.paused {
        Some((at, by, why)) => (Some(Moment(*at)), Some(by), Some(why)),
        None => (None, None, None),
    };
    sqlx::query(
        "-- queues_change\n\
         update queues set policy = $3, limiter = $4, paused_at = $5, paused_by = $6, paused_why = $7, \
         changed_at = $8, changed_by = $9 where namespace = $1 and queue = $2",
    )
    .bind(&row.namespace)
    .bind(&row.queue)
    .bind(&row.policy)
    .bind(&row.limiter)
    .bind(at)
    .bind(by)
    .bind(why)
    .bind(Moment(row.changed_at))
    .bind(&row.changed_by)
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets the queue be governed no more. Returns whether it was.
pub(crate) async fn remove(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
) -> Result<bool, sqlx::Error> {
    let mut removed = 0;
    for text in [
        "-- queues_remove_permits\ndelete from permits where namespace = $1 and queue = $2",
        "-- queues_remove_keys\ndelete from fair_keys where namespace = $1 and queue = $2",
        "-- queues_remove\ndelete from queues where namespace = $1 and queue = $2",
    ] {
        let query = sqlx::query(text).bind(namespace).bind(queue);
        removed = query.execute(&mut *connection).await?.rows_affected();
    }
    Ok(removed == 1)
}

/// Writes the state of a queue's limiter.
pub(crate) async fn keep_limiter(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
    limiter: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- queues_keep_limiter\nupdate queues set limiter = $3 where namespace = $1 and queue = $2",
    )
    .bind(namespace)
    .bind(queue)
    .bind(limiter)
    .execute(connection)
    .await?;
    Ok(())
}
