//! Sessions that hold locks which sessions of ours wait for, and runs whose rows others have locked.

use std::collections::HashSet;

use backstitch_saga::RunId;
use sqlx::Connection;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

/// Longest wait for a table when rows are examined.
const PATIENCE: &str = "500ms";

/// Names a session that others of this user wait for, as a text for people. Details of sessions of other roles are only
/// shown to those who may see them.
pub(crate) async fn blocker(connection: &mut PgConnection) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "-- blockers_find\n\
         select format('session %s of the role %s%s%s', b.pid, coalesce(b.usename, 'unknown'), \
           case when b.application_name <> '' then format(' (%s)', b.application_name) else '' end, \
           case when b.xact_start is not null then format(', in a transaction since %s s', \
             extract(epoch from clock_timestamp() - b.xact_start)::bigint) else '' end) \
         from pg_stat_activity w cross join lateral unnest(pg_blocking_pids(w.pid)) as p(pid) \
         join pg_stat_activity b on b.pid = p.pid \
         where w.datname = current_database() and w.usename = current_user and w.wait_event_type = 'Lock' \
         and not exists (select 1 from unnest(pg_blocking_pids(b.pid))) order by b.xact_start nulls last, b.pid limit 1",
    )
    .fetch_optional(connection)
    .await
}

/// Finds those of these runs whose rows another session has locked.
pub(crate) async fn locked_runs(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<HashSet<RunId>, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    sqlx::query("-- blockers_patience\nselect set_config('lock_timeout', $1, true)")
        .bind(PATIENCE)
        .execute(&mut *transaction)
        .await?;
    let known: Vec<Uuid> =
        sqlx::query_scalar("-- blockers_runs\nselect id from runs where id = any($1)")
            .bind(runs)
            .fetch_all(&mut *transaction)
            .await?;
    let free: Vec<Uuid> = sqlx::query_scalar(
        "-- blockers_free\nselect id from runs where id = any($1) for update skip locked",
    )
    .bind(runs)
    .fetch_all(&mut *transaction)
    .await?;
    transaction.rollback().await?;
    let free: HashSet<Uuid> = free.into_iter().collect();
    Ok(known.into_iter().filter(|run| !free.contains(run)).map(RunId).collect())
}
