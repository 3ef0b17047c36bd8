//! Signals that wait for the run of their business key.

use backstitch_saga::RunId;
use sqlx::Row;
use sqlx::postgres::PgConnection;

/// A signal for the run of a business key.
#[derive(Clone, Debug)]
pub(crate) struct EarlySignal {
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) key: String,
    pub(crate) signal: String,
    /// JSON text.
    pub(crate) data: String,
    pub(crate) actor: String,
}

/// Keeps a signal, unless one of its name is kept already. Answers the data that is kept then, and whose it is.
pub(crate) async fn keep(
    connection: &mut PgConnection,
    early: &EarlySignal,
) -> Result<(String, String), sqlx::Error> {
    let row = sqlx::query(
        "-- early_signals_keep\n\
         insert into early_signals as e (namespace, workflow, key, signal, data, actor) \
         values ($1, $2, $3, $4, $5, $6) \
         on conflict (namespace, workflow, key, signal) do update set actor = e.actor \
         returning data, actor",
    )
    .bind(&early.namespace)
    .bind(&early.workflow)
    .bind(&early.key)
    .bind(&early.signal)
    .bind(&early.data)
    .bind(&early.actor)
    .fetch_one(connection)
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Signals whose runs have been started meanwhile, at most `limit`; without the `stayed` oldest ones.
pub(crate) async fn deliverable(
    connection: &mut PgConnection,
    limit: i64,
    stayed: i64,
) -> Result<Vec<(RunId, EarlySignal)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- early_signals_deliverable\n\
         select k.run_id, e.namespace, e.workflow, e.key, e.signal, e.data, e.actor \
         from early_signals e \
         join run_keys k on (k.namespace, k.key, k.workflow) = (e.namespace, e.key, e.workflow) \
         order by e.at, e.namespace, e.workflow, e.key, e.signal limit $1 offset $2",
    )
    .bind(limit)
    .bind(stayed)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let early = EarlySignal {
                namespace: row.try_get(1)?,
                workflow: row.try_get(2)?,
                key: row.try_get(3)?,
                signal: row.try_get(4)?,
                data: row.try_get(5)?,
                actor: row.try_get(6)?,
            };
            Ok((RunId(row.try_get(0)?), early))
        })
        .collect()
}

/// Forgets a signal that its run has, or refused.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    early: &EarlySignal,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- early_signals_forget\n\
         delete from early_signals \
         where (namespace, workflow, key, signal) = ($1, $2, $3, $4)",
    )
    .bind(&early.namespace)
    .bind(&early.workflow)
    .bind(&early.key)
    .bind(&early.signal)
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets signals whose runs were never started, older than `days`.
pub(crate) async fn forget_old(
    connection: &mut PgConnection,
    days: i32,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "-- early_signals_forget_old\n\
         delete from early_signals where at < clock_timestamp() - make_interval(days => $1)",
    )
    .bind(days)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
