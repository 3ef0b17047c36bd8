//! Statements of bugs put in on purpose; see `crate::planted`.

use backstitch_saga::planted;
use sqlx::postgres::PgConnection;

use super::batch::{Offers, Updates};

/// Writes index rows even if their records were not inserted.
pub(crate) async fn stray_rows(connection: &mut PgConnection, updates: &Updates) {
    if !planted!("stray-index-row") {
        return;
    }
    let query = sqlx::query(
        "-- planted_stray_rows\n\
         update runs r set state = x.state, outcome = x.outcome, conditions = string_to_array(x.conditions, ','), \
         ended_at = x.ended_at, node = x.node, wake_at = x.wake_at \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::text[], $5::timestamptz[], $6::integer[], \
         $7::timestamptz[], $8::integer[], $9::text[], $10::text[]) \
         as x(id, state, outcome, conditions, ended_at, node, wake_at, version, definition, labels) where r.id = x.id",
    );
    let _ = updates.bind(query).execute(connection).await;
}

/// Puts tasks on offer, in a transaction of its own.
pub(crate) async fn enqueue(
    connection: &mut PgConnection,
    offers: &Offers,
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(
        "-- planted_enqueue\n\
         insert into ready (run_id, step, action, attempt, namespace, queue, name, offered_at, reserved_by, \
         reserved_until) select * from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[], $6::text[], \
         $7::text[], $8::timestamptz[], $9::integer[], $10::timestamptz[]) on conflict do nothing",
    );
    offers.bind(query).execute(connection).await?;
    Ok(())
}
