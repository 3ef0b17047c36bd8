//! Events that subscriptions wanted and passed over.

use backstitch_saga::{RunId, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;
use super::pending_events::Place;
use super::subscriptions::SubscriptionRow;

/// Events that were passed over and are listed, of a subscription; the newest.
pub(crate) const MOST_SKIPS: i64 = 10_000;
/// After how many more of them the oldest go.
const TRIM_EVERY: i64 = 1_000;

/// An event that is passed over.
#[derive(Debug)]
pub(crate) struct Skip {
    pub(crate) place: Place,
    pub(crate) reason: String,
    pub(crate) key: Option<String>,
    pub(crate) run: Option<RunId>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) at: Time,
    pub(crate) actor: Option<String>,
}

/// Lists events that are passed over.
pub(crate) async fn add(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    skips: &[Skip],
) -> Result<(), sqlx::Error> {
    if skips.is_empty() {
        return Ok(());
    }
    let (generations, positions): (Vec<i32>, Vec<i64>) = skips.iter().map(|one| one.place).unzip();
    sqlx::query(
        "-- skips_add\n\
         insert into subscription_skip (namespace, name, generation, position, reason, key, run_id, code, message, at, actor) \
         select $1, $2, s.* from unnest($3::integer[], $4::bigint[], $5::text[], $6::text[], $7::uuid[], $8::text[], $9::text[], \
           $10::timestamptz[], $11::text[]) s on conflict do nothing",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(generations)
    .bind(positions)
    .bind(skips.iter().map(|one| one.reason.as_str()).collect::<Vec<_>>())
    .bind(skips.iter().map(|one| one.key.as_deref()).collect::<Vec<_>>())
    .bind(skips.iter().map(|one| one.run.map(|run| run.0)).collect::<Vec<_>>())
    .bind(skips.iter().map(|one| one.code.as_deref()).collect::<Vec<_>>())
    .bind(skips.iter().map(|one| one.message.as_deref()).collect::<Vec<_>>())
    .bind(skips.iter().map(|one| Moment(one.at)).collect::<Vec<_>>())
    .bind(skips.iter().map(|one| one.actor.as_deref()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes the oldest of the events that are listed as passed over once there are `skipped` of them, where `row` had fewer.
pub(crate) async fn trim(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    skipped: i64,
) -> Result<(), sqlx::Error> {
    if skipped / TRIM_EVERY == row.skipped / TRIM_EVERY {
        return Ok(());
    }
    sqlx::query(
        "-- skips_trim\n\
         delete from subscription_skip s using (select generation, position from subscription_skip \
           where namespace = $1 and name = $2 order by generation desc, position desc offset $3 limit 1) last \
         where s.namespace = $1 and s.name = $2 and (s.generation, s.position) <= (last.generation, last.position)",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(MOST_SKIPS)
    .execute(connection)
    .await?;
    Ok(())
}

/// Lists events that a subscription passed over, the newest first, before one of them.
pub(crate) async fn list(
    connection: &mut PgConnection,
    (namespace, name): (&str, &str),
    before: Option<Place>,
    limit: i64,
) -> Result<Vec<Skip>, sqlx::Error> {
    let (generation, position) = before.unwrap_or((i32::MAX, i64::MAX));
    let rows = sqlx::query(
        "-- skips_list\n\
         select generation, position, reason, key, run_id, code, message, at, actor from subscription_skip \
         where namespace = $1 and name = $2 and (generation, position) < ($3, $4) \
         order by generation desc, position desc limit $5",
    )
    .bind(namespace)
    .bind(name)
    .bind(generation)
    .bind(position)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(skip).collect()
}

fn skip(row: &PgRow) -> Result<Skip, sqlx::Error> {
    let (run, Moment(at)): (Option<Uuid>, Moment) = (row.try_get(4)?, row.try_get(7)?);
    Ok(Skip {
        place: (row.try_get(0)?, row.try_get(1)?),
        reason: row.try_get(2)?,
        key: row.try_get(3)?,
        run: run.map(RunId),
        code: row.try_get(5)?,
        message: row.try_get(6)?,
        at,
        actor: row.try_get(8)?,
    })
}
