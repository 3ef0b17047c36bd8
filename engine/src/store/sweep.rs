//! Runs that their index forgot: in nobody's charge, with nothing that would wake them, and nobody told.

use backstitch_saga::RunId;
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

/// Takes charge of such runs after `after`, at most `limit`. Should this node die here, they are taken over like others.
pub(crate) async fn adrift(
    connection: &mut PgConnection,
    node: i32,
    after: Uuid,
    limit: i64,
) -> Result<Vec<RunId>, sqlx::Error> {
    let rows = sqlx::query(
        "-- runs_adrift\n\
         update runs set node = $1 where id in (select id from runs r where id > $2 and state <> 'ended' \
           and node is null and wake_at is null and conditions = '{}' \
           and not exists (select 1 from ready t where t.run_id = r.id) \
           order by id limit $3 for update skip locked) returning id",
    )
    .bind(node)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(RunId(row.try_get(0)?))).collect()
}
