//! The table `alone`: workers that all nodes keep free for one task.

use std::sync::Arc;

use backstitch_saga::{RunId, TaskKey};
use sqlx::Row as _;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::batch::int;

/// A worker that this node wants to be kept free, and for what.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) namespace: Arc<str>,
    pub(crate) worker: String,
    pub(crate) run: RunId,
    pub(crate) task: TaskKey,
}

/// A worker that is to be kept free.
#[derive(Clone, Debug)]
pub(crate) struct Row {
    pub(crate) namespace: String,
    pub(crate) worker: String,
    /// The node of the task.
    pub(crate) node: i32,
    /// All other nodes that live have agreed.
    pub(crate) agreed: bool,
    /// The asking node has agreed.
    pub(crate) ours: bool,
}

/// Asks all nodes to keep workers free. A worker that is kept for another task stays so; for the same task this node
/// replaces the one that asked before.
pub(crate) async fn ask(
    connection: &mut PgConnection,
    node: i32,
    asked: &[Ask],
) -> Result<(), sqlx::Error> {
    let namespaces: Vec<&str> = asked.iter().map(|one| &*one.namespace).collect();
    let workers: Vec<&str> = asked.iter().map(|one| one.worker.as_str()).collect();
    let runs: Vec<Uuid> = asked.iter().map(|one| one.run.0).collect();
    let steps: Vec<String> = asked.iter().map(|one| one.task.step.to_string()).collect();
    let actions: Vec<&str> = asked.iter().map(|one| one.task.action.as_str()).collect();
    let attempts: Vec<i32> = asked.iter().map(|one| int(one.task.attempt)).collect();
    sqlx::query(
        "-- alone_ask\n\
         insert into alone (namespace, worker, node, run_id, step, action, attempt) \
         select n, w, $1, r, s, a, t from unnest($2::text[], $3::text[], $4::uuid[], $5::text[], $6::text[], $7::integer[]) \
           as x(n, w, r, s, a, t) order by n, w \
         on conflict (namespace, worker) do update set node = excluded.node, agreed = '{}' \
           where alone.node <> excluded.node and alone.run_id = excluded.run_id and alone.step = excluded.step \
           and alone.action = excluded.action and alone.attempt = excluded.attempt",
    )
    .bind(node)
    .bind(namespaces)
    .bind(workers)
    .bind(runs)
    .bind(steps)
    .bind(actions)
    .bind(attempts)
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives up workers that this node needs no more.
pub(crate) async fn give_up(
    connection: &mut PgConnection,
    node: i32,
    over: &[(Arc<str>, String)],
) -> Result<(), sqlx::Error> {
    let namespaces: Vec<&str> = over.iter().map(|(namespace, _)| &**namespace).collect();
    let workers: Vec<&str> = over.iter().map(|(_, worker)| worker.as_str()).collect();
    sqlx::query(
        "-- alone_give_up\n\
         delete from alone a using unnest($2::text[], $3::text[]) as x(namespace, worker) \
         where a.node = $1 and a.namespace = x.namespace and a.worker = x.worker",
    )
    .bind(node)
    .bind(namespaces)
    .bind(workers)
    .execute(connection)
    .await?;
    Ok(())
}

/// Agrees to keep workers free that hold no task of this node.
pub(crate) async fn agree(
    connection: &mut PgConnection,
    node: i32,
    workers: &[(Arc<str>, String)],
) -> Result<(), sqlx::Error> {
    let namespaces: Vec<&str> = workers.iter().map(|(namespace, _)| &**namespace).collect();
    let names: Vec<&str> = workers.iter().map(|(_, worker)| worker.as_str()).collect();
    sqlx::query(
        "-- alone_agree\n\
         update alone a set agreed = a.agreed || $1 from unnest($2::text[], $3::text[]) as x(namespace, worker) \
         where a.namespace = x.namespace and a.worker = x.worker and a.node <> $1 and not a.agreed @> array[$1]",
    )
    .bind(node)
    .bind(namespaces)
    .bind(names)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns all workers that are kept free, as node `node` sees them.
pub(crate) async fn all(
    connection: &mut PgConnection,
    node: i32,
    dead_after_ms: i64,
) -> Result<Vec<Row>, sqlx::Error> {
    let rows = sqlx::query(
        "-- alone_all\n\
         select a.namespace, a.worker, a.node, a.agreed @> array[$1], \
           not exists (select 1 from nodes n where n.stopped_at is null and n.id <> a.node and n.id <> all(a.agreed) \
             and n.seen_at > clock_timestamp() - $2 * interval '1 millisecond') \
         from alone a",
    )
    .bind(node)
    .bind(dead_after_ms)
    .fetch_all(connection)
    .await?;
    let read = |row: &sqlx::postgres::PgRow| {
        Ok(Row {
            namespace: row.try_get(0)?,
            worker: row.try_get(1)?,
            node: row.try_get(2)?,
            ours: row.try_get(3)?,
            agreed: row.try_get(4)?,
        })
    };
    rows.iter().map(read).collect()
}

/// Deletes the requests of dead nodes: the nodes that took over their tasks had time to ask for the same.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    gone_for_ms: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- alone_forget\n\
         delete from alone a where not exists (select 1 from nodes n where n.id = a.node \
           and coalesce(n.stopped_at, n.seen_at) > clock_timestamp() - $1 * interval '1 millisecond')",
    )
    .bind(gone_for_ms)
    .execute(connection)
    .await?;
    Ok(())
}
