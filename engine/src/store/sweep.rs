//! Runs that their index has lost: without a node in charge, with nothing that would wake them, and
//! without an incident.

use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::runs::owned;
use crate::charge::Owned;

/// Lists such runs after `after` with their namespaces, at most `limit`, in order of their ids.
pub(crate) async fn adrift(
    connection: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Owned>, sqlx::Error> {
    let rows = sqlx::query(
        "-- runs_adrift\n\
         select id, namespace from runs r where id > $1 and state <> 'ended' \
           and node is null and wake_at is null and conditions = '{}' \
           and not exists (select 1 from ready t where t.run_id = r.id) order by id limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    owned(&rows)
}

/// Takes charge of those of `runs` that are still adrift. Should this node die here, they are taken over like others.
pub(crate) async fn take(
    connection: &mut PgConnection,
    node: i32,
    runs: &[Uuid],
) -> Result<Vec<Owned>, sqlx::Error> {
    let rows = sqlx::query(
        "-- runs_adrift_take\n\
         update runs set node = $1 where id in (select id from runs r where id = any($2) and state <> 'ended' \
           and node is null and wake_at is null and conditions = '{}' \
           and not exists (select 1 from ready t where t.run_id = r.id) \
           order by id for update skip locked) returning id, namespace",
    )
    .bind(node)
    .bind(runs)
    .fetch_all(connection)
    .await?;
    owned(&rows)
}
