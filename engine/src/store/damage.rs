//! Runs that are put aside, as the indexes show them.

use backstitch_saga::{RunId, Time};
use sqlx::postgres::PgConnection;

use super::moment::Moment;

/// Description of a damaged run.
pub(crate) struct Damage<'a> {
    pub(crate) run: RunId,
    pub(crate) kind: &'static str,
    pub(crate) condition: &'static str,
    pub(crate) fingerprint: String,
    pub(crate) message: &'a str,
    pub(crate) at: Time,
}

/// Marks a run as put aside: by a condition, and by an incident with the number 0, which no journal gives. No
/// node is in charge of it, and none of its tasks is offered. Returns whether that is new.
pub(crate) async fn put_aside(
    connection: &mut PgConnection,
    damage: &Damage<'_>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- runs_put_aside\n\
         with aside as (update runs r set node = null, wake_at = null, conditions = r.conditions || array( \
             select c from unnest(array['IncidentOpen', $6::text]) c where not c = any(r.conditions)) \
           where r.id = $1 and not $6::text = any(r.conditions) returning r.namespace, r.workflow), \
         taken as (delete from ready where run_id = $1 and exists (select 1 from aside)), \
         counted as (delete from timer_tries where run_id = $1) \
         insert into incidents (run_id, incident, namespace, workflow, kind, message, opened_at, code, fingerprint) \
         select $1, 0, a.namespace, a.workflow, $2, $3, $4, $2, $5 from aside a \
         on conflict (run_id, incident) do update \
         set message = excluded.message, opened_at = excluded.opened_at, resolved_at = null",
    )
    .bind(damage.run.0)
    .bind(damage.kind)
    .bind(damage.message)
    .bind(Moment(damage.at))
    .bind(&damage.fingerprint)
    .bind(damage.condition)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Counts that a defect stopped the timer of a run. Returns the number of times in a row, each within ten minutes of
/// the last. Deletes some counts that are no longer needed.
pub(crate) async fn timer_failed(
    connection: &mut PgConnection,
    run: RunId,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "-- timers_failed\n\
         with old as (delete from timer_tries where ctid = any(array( \
             select o.ctid from timer_tries o where o.failed_at < now() - interval '1 day' and o.run_id <> $1 \
             order by o.failed_at limit 100 for update skip locked))) \
         insert into timer_tries as t (run_id, tries, failed_at) values ($1, 1, now()) \
         on conflict (run_id) do update set failed_at = now(), \
           tries = case when t.failed_at > now() - interval '10 minutes' then t.tries + 1 else 1 end \
         returning tries::bigint",
    )
    .bind(run.0)
    .fetch_one(connection)
    .await
}
