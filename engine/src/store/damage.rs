//! Runs that are put aside, as the indexes show them.

use backstitch_saga::{RunId, Time};
use sqlx::postgres::PgConnection;

use super::moment::Moment;

/// What is told of such a run.
pub(crate) struct Damage<'a> {
    pub(crate) run: RunId,
    pub(crate) kind: &'static str,
    pub(crate) condition: &'static str,
    pub(crate) fingerprint: String,
    pub(crate) message: &'a str,
    pub(crate) at: Time,
}

/// Shows that a run is put aside: by a condition, and by an incident with the number 0, which no journal gives.
/// Nobody is in charge of it, and none of its tasks is on offer. Answers whether that is new.
pub(crate) async fn put_aside(
    connection: &mut PgConnection,
    damage: &Damage<'_>,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- runs_put_aside\n\
         with aside as (update runs r set node = null, wake_at = null, conditions = r.conditions || array( \
             select c from unnest(array['IncidentOpen', $6::text]) c where not c = any(r.conditions)) \
           where r.id = $1 and not $6::text = any(r.conditions) returning r.namespace, r.workflow), \
         taken as (delete from ready where run_id = $1 and exists (select 1 from aside)) \
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
