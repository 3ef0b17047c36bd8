//! The table `workers`: who works where, as all nodes see it.

use std::collections::BTreeMap;
use std::sync::Arc;

use backstitch_saga::protocol::WorkerView;
use backstitch_saga::{Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::moment::Moment;

/// A session as its node knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Present {
    pub(crate) session: Uuid,
    pub(crate) namespace: Arc<str>,
    pub(crate) worker: String,
    /// Handlers by queue.
    pub(crate) queues: Arc<BTreeMap<String, Vec<String>>>,
}

/// State of the workers for one kind of task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Serving {
    /// Sessions that do it now.
    pub(crate) sessions: u32,
    /// Time at which the last one signed off or was lost, as far as that is remembered.
    pub(crate) last_gone: Option<Time>,
}

/// The sessions of namespace `$1`, each gone at the latest with its node: one that stopped, or was not seen for `$2`
/// ms.
macro_rules! presence {
    () => {
        "select v.worker, v.session, v.node, v.queues, v.since, n.name, \
           case when n.stopped_at is not null then least(v.gone_at, n.stopped_at) \
             when n.seen_at is null then coalesce(v.gone_at, v.since) \
             when n.seen_at < clock_timestamp() - $2 * interval '1 millisecond' then least(v.gone_at, n.seen_at) \
             else v.gone_at end as gone_at \
         from workers v left join nodes n on n.id = v.node where v.namespace = $1"
    };
}

/// Writes the sessions that have come, or do other things than before.
pub(crate) async fn come(
    connection: &mut PgConnection,
    node: i32,
    present: &[Present],
) -> Result<(), sqlx::Error> {
    let namespaces: Vec<&str> = present.iter().map(|one| &*one.namespace).collect();
    let workers: Vec<&str> = present.iter().map(|one| one.worker.as_str()).collect();
    let sessions: Vec<Uuid> = present.iter().map(|one| one.session).collect();
    let queues: Vec<String> = present
        .iter()
        .map(|one| serde_json::to_string(&*one.queues).unwrap_or_else(|_| "{}".to_owned()))
        .collect();
    sqlx::query(
        "-- workers_come\n\
         insert into workers (node, namespace, worker, session, queues) \
         select $1, n, w, s, q::jsonb from unnest($2::text[], $3::text[], $4::uuid[], $5::text[]) as x(n, w, s, q) \
         on conflict (namespace, worker, session, node) do update set queues = excluded.queues, gone_at = null",
    )
    .bind(node)
    .bind(namespaces)
    .bind(workers)
    .bind(sessions)
    .bind(queues)
    .execute(connection)
    .await?;
    Ok(())
}

/// Writes that sessions have left.
pub(crate) async fn go(
    connection: &mut PgConnection,
    node: i32,
    sessions: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- workers_go\n\
         update workers set gone_at = clock_timestamp() where node = $1 and session = any($2) and gone_at is null",
    )
    .bind(node)
    .bind(sessions)
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that a session has ended, at whatever node it asked.
pub(crate) async fn sign_off(
    connection: &mut PgConnection,
    namespace: &str,
    session: Uuid,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- workers_sign_off\n\
         update workers set gone_at = clock_timestamp() where namespace = $1 and session = $2 and gone_at is null",
    )
    .bind(namespace)
    .bind(session)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns, for each kind of task, `queues[i]` and `handlers[i]`, who does it.
pub(crate) async fn serving(
    connection: &mut PgConnection,
    namespace: &str,
    queues: &[&str],
    handlers: &[&str],
    dead_after_ms: i64,
) -> Result<Vec<Serving>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "-- workers_serving\nwith w as materialized (",
        presence!(),
        ") select count(w.queues) filter (where w.gone_at is null), max(w.gone_at) \
         from unnest($3::text[], $4::text[]) with ordinality as x(queue, handler, place) \
         left join w on w.queues -> x.queue ? x.handler group by x.place order by x.place",
    ))
    .bind(namespace)
    .bind(dead_after_ms)
    .bind(queues)
    .bind(handlers)
    .fetch_all(connection)
    .await?;
    let read = |row: &sqlx::postgres::PgRow| {
        let sessions: i64 = row.try_get(0)?;
        let last_gone: Option<Moment> = row.try_get(1)?;
        let sessions = u32::try_from(sessions).unwrap_or(u32::MAX);
        Ok(Serving { sessions, last_gone: last_gone.map(|Moment(at)| at) })
    };
    rows.iter().map(read).collect()
}

/// Returns the sessions of a namespace by worker, session and node, after `after`; with those that are `gone`, or
/// without.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    dead_after_ms: i64,
    after: &(String, Uuid, i32),
    gone: bool,
    limit: i64,
) -> Result<Vec<(WorkerView, i32)>, sqlx::Error> {
    let rows = sqlx::query(concat!(
        "-- workers_list\nwith w as (",
        presence!(),
        ") select worker, session, node, name, queues::text, since, gone_at from w \
         where (worker, session, node) > ($3, $4, $5) and ($6 or gone_at is null) \
         order by worker, session, node limit $7",
    ))
    .bind(namespace)
    .bind(dead_after_ms)
    .bind(&after.0)
    .bind(after.1)
    .bind(after.2)
    .bind(gone)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let read = |row: &sqlx::postgres::PgRow| {
        let queues: String = row.try_get(4)?;
        let name: Option<String> = row.try_get(3)?;
        let Moment(since) = row.try_get(5)?;
        let gone_at: Option<Moment> = row.try_get(6)?;
        let view = WorkerView {
            worker: row.try_get(0)?,
            session: row.try_get(1)?,
            node: name.unwrap_or_default(),
            // One whose queues cannot be read does not hide the others.
            queues: serde_json::from_str(&queues).unwrap_or_default(),
            since: Timestamp(since),
            gone_at: gone_at.map(|Moment(at)| Timestamp(at)),
        };
        Ok((view, row.try_get(2)?))
    };
    rows.iter().map(read).collect()
}
