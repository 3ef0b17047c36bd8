//! Pages of runs whose index rows are to be compared with their journals.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;

/// The end of a page of runs that have not ended: namespace, state, run.
pub(crate) type UnendedPlace = (String, String, Uuid);

/// Lists runs that have not ended, after `after`, with the node in charge of each.
pub(crate) async fn unended(
    connection: &mut PgConnection,
    after: &UnendedPlace,
    limit: i64,
) -> Result<Vec<(UnendedPlace, Option<i32>)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- walk_unended\n\
         select namespace, state, id, node from runs where state <> 'ended' and (namespace, state, id) > ($1, $2, $3) \
         order by namespace, state, id limit $4",
    )
    .bind(&after.0)
    .bind(&after.1)
    .bind(after.2)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let line =
        |row: &PgRow| Ok(((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?), row.try_get(3)?));
    rows.iter().map(line).collect()
}

/// Returns runs with offered tasks, after `after`; `true` for those that have ended or do not
/// exist.
pub(crate) async fn offered(
    connection: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<(Uuid, bool)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- walk_offered\n\
         select t.run_id, not exists (select 1 from runs r where r.id = t.run_id and r.state <> 'ended') \
         from (select distinct run_id from ready where run_id > $1 order by run_id limit $2) t order by t.run_id",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(suspect).collect()
}

/// Returns runs with a journal, newest first, before `before`; `true` for those that their index may have wrong: they
/// have no row in `runs`, or one that has ended although the last record does not end it or something is left open, or
/// their key is missing, or an incident of a run that was put aside outlived that. Each with the time of its beginning.
pub(crate) async fn journaled(
    connection: &mut PgConnection,
    before: Uuid,
    limit: i64,
) -> Result<Vec<(Uuid, bool, Option<Time>)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- walk_journaled\n\
         select j.run_id, r.id is null \
           or (r.state = 'ended' and (r.conditions <> '{}' or strpos(l.events, '\"ended\"') = 0)) \
           or (r.key is not null and not exists (select 1 from run_keys k \
             where (k.namespace, k.key, k.workflow) = (r.namespace, r.key, r.workflow))) \
           or (not r.conditions && '{JournalDamaged,TimerStopped}'::text[] and exists (select 1 from incidents i \
             where i.run_id = r.id and i.incident = 0 and i.resolved_at is null)), r.started_at \
         from (select run_id from journal where seq = 1 and run_id < $1 order by run_id desc limit $2) j \
         left join lateral (select r.* from runs r where r.id = j.run_id) r on true \
         left join lateral (select l.events from journal l where l.run_id = j.run_id order by l.seq desc limit 1) l on true \
         order by j.run_id desc",
    )
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let line = |row: &PgRow| {
        let started: Option<Moment> = row.try_get(2)?;
        let (run, wrong) = suspect(row)?;
        Ok((run, wrong, started.map(|Moment(at)| at)))
    };
    rows.iter().map(line).collect()
}

fn suspect(row: &PgRow) -> Result<(Uuid, bool), sqlx::Error> {
    Ok((row.try_get(0)?, row.try_get(1)?))
}
