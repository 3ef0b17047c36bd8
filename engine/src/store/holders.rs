//! The holder of a serial key. It is recorded twice, in the line and beside it, so that a lost row admits no second
//! run: before a node gives the key away, it restores the run that was given it and has not ended.

use backstitch_saga::{RunId, Time};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::moment::Moment;

/// Rewrites the row of the run that holds a key, as parts of a statement with namespace, key and time: `held` has a row
/// if a run holds it, `back` names the run that was restored. A holder that has ended and that no node looks after is
/// removed.
const REINSTATED: &str = "over as (delete from serial_keys k where k.namespace = $1 and k.key = $2 and k.state = 'holding' \
     and not exists (select 1 from sequenced s where s.run_id = k.run_id) \
     and exists (select 1 from runs r where r.id = k.run_id and r.state = 'ended') returning k.run_id), \
   held as (select 1 from serial_keys k where k.namespace = $1 and k.key = $2 and k.state = 'holding' \
     and not exists (select 1 from over o where o.run_id = k.run_id)), \
   back as (insert into serial_keys (namespace, key, run_id, state, since) \
     select h.namespace, h.key, h.run_id, 'holding', $3 from serial_key_holders h \
     where h.namespace = $1 and h.key = $2 and not exists (select 1 from held) \
     and (exists (select 1 from runs r where r.id = h.run_id and r.state <> 'ended') \
       or (exists (select 1 from sequenced s where s.run_id = h.run_id) \
         and not exists (select 1 from runs r where r.id = h.run_id))) \
     on conflict (run_id) do update set namespace = excluded.namespace, key = excluded.key, state = 'holding', \
       since = excluded.since, granted = false returning run_id)";

/// Restores the holder of a key that has none, if a run that was given it has not ended. Returns that run.
pub(crate) async fn reinstate(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
    at: Time,
) -> Result<Option<RunId>, sqlx::Error> {
    let text = format!("-- serial_keys_reinstate\nwith {REINSTATED} select run_id from back");
    let run: Option<Uuid> = sqlx::query_scalar(sqlx::AssertSqlSafe(text))
        .bind(namespace)
        .bind(key)
        .bind(Moment(at))
        .fetch_optional(connection)
        .await?;
    Ok(run.map(RunId))
}

/// Result for a key that nobody held.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Promoted {
    /// A run holds it, or none waits for it.
    Nobody,
    /// The first in line holds it now.
    Next,
    /// This run had it, and its row was lost.
    Back(RunId),
}

/// Gives a key without a holder to the first in line that was not replaced and awaits no fact.
pub(crate) async fn promote(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
    at: Time,
) -> Result<Promoted, sqlx::Error> {
    let text = format!(
        "-- serial_keys_next\n\
         with {REINSTATED}, \
         next as (update serial_keys set state = 'holding', since = $3 where namespace = $1 and key = $2 and place = \
           (select k.place from serial_keys k where k.namespace = $1 and k.key = $2 and k.replaced_by is null \
             and k.state = 'waiting' \
             and not exists (select 1 from awaited a where a.run_id = k.run_id) order by k.place limit 1) \
           and not exists (select 1 from held) and not exists (select 1 from back) returning namespace, key, run_id), \
         holder as (insert into serial_key_holders (namespace, key, run_id, since) \
           select namespace, key, run_id, $3 from next \
           on conflict (namespace, key) do update set run_id = excluded.run_id, since = excluded.since) \
         select (select count(*) from next) > 0, (select run_id from back)"
    );
    let row = sqlx::query(sqlx::AssertSqlSafe(text))
        .bind(namespace)
        .bind(key)
        .bind(Moment(at))
        .fetch_one(connection)
        .await?;
    let back: Option<Uuid> = row.try_get(1)?;
    Ok(match (back, row.try_get(0)?) {
        (Some(run), _) => Promoted::Back(RunId(run)),
        (None, true) => Promoted::Next,
        (None, false) => Promoted::Nobody,
    })
}
