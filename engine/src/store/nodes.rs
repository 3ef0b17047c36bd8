//! Nodes, their heartbeats, and the database's clock.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::moment::Moment;
use crate::clock::{AHEAD, Elsewhere};

/// Takes a place among the nodes.
pub(crate) async fn join(connection: &mut PgConnection, name: &str) -> Result<i32, sqlx::Error> {
    sqlx::query_scalar("-- nodes_join\ninsert into nodes (name) values ($1) returning id")
        .bind(name)
        .fetch_one(connection)
        .await
}

/// Writes a heartbeat, with the node's present time. Returns the time since the last one, in milliseconds; `None` if
/// this node had been forgotten.
pub(crate) async fn beat(
    connection: &mut PgConnection,
    node: i32,
    name: &str,
    believed: Time,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar(
        "-- nodes_beat\n\
         with before as (select seen_at from nodes where id = $1) \
         insert into nodes (id, name, believed_at) overriding system value values ($1, $2, $3) \
         on conflict (id) do update set seen_at = clock_timestamp(), stopped_at = null, believed_at = excluded.believed_at \
         returning (select (extract(epoch from nodes.seen_at - b.seen_at) * 1000)::bigint from before b)",
    )
    .bind(node)
    .bind(name)
    .bind(Moment(believed))
    .fetch_one(connection)
    .await
}

/// Returns the clocks of the other nodes at their last heartbeats, the newest first.
pub(crate) async fn elsewhere(
    connection: &mut PgConnection,
    node: i32,
) -> Result<Vec<Elsewhere>, sqlx::Error> {
    let rows = sqlx::query(
        "-- nodes_elsewhere\n\
         select believed_at, (extract(epoch from clock_timestamp() - seen_at) * 1000)::bigint, stopped_at is not null \
         from nodes where id <> $1 and believed_at is not null order by believed_at desc limit 100",
    )
    .bind(node)
    .fetch_all(connection)
    .await?;
    let one = |row: &sqlx::postgres::PgRow| {
        let Moment(believed) = row.try_get(0)?;
        Ok(Elsewhere { believed, silent: row.try_get(1)?, stopped: row.try_get(2)? })
    };
    rows.iter().map(one).collect()
}

/// A node as its line says.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Peer {
    pub(crate) id: i32,
    /// Its last heartbeat, in microseconds of the database's clock.
    pub(crate) seen_at: i64,
    pub(crate) stopped: bool,
    /// By the database's clock that was too long ago.
    pub(crate) silent: bool,
}

/// Returns all nodes; `silent` are those that were not seen for `dead_after_ms`.
pub(crate) async fn seen(
    connection: &mut PgConnection,
    dead_after_ms: i64,
) -> Result<Vec<Peer>, sqlx::Error> {
    let rows = sqlx::query(
        "-- nodes_seen\n\
         select id, (extract(epoch from seen_at) * 1000000)::bigint, stopped_at is not null, \
         seen_at < clock_timestamp() - $1 * interval '1 millisecond' from nodes",
    )
    .bind(dead_after_ms)
    .fetch_all(connection)
    .await?;
    let peer = |row: &sqlx::postgres::PgRow| {
        let (id, seen_at) = (row.try_get(0)?, row.try_get(1)?);
        Ok(Peer { id, seen_at, stopped: row.try_get(2)?, silent: row.try_get(3)? })
    };
    rows.iter().map(peer).collect()
}

/// Returns the condition that the node of a column has died or left, by the clock of the database. `dead_after` is a
/// parameter, in milliseconds.
pub(crate) fn is_gone(node: &str, dead_after: &str) -> String {
    format!(
        "not exists (select 1 from nodes n where n.id = {node} and n.stopped_at is null \
           and n.seen_at >= clock_timestamp() - {dead_after} * interval '1 millisecond')"
    )
}

/// Leaves the nodes: others take over the rest immediately.
pub(crate) async fn leave(connection: &mut PgConnection, node: i32) -> Result<(), sqlx::Error> {
    sqlx::query("-- nodes_leave\nupdate nodes set stopped_at = clock_timestamp() where id = $1")
        .bind(node)
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns the database's clock.
pub(crate) async fn clock(connection: &mut PgConnection) -> Result<Time, sqlx::Error> {
    let row = sqlx::query("-- clock\nselect clock_timestamp()").fetch_one(connection).await?;
    let Moment(now) = row.try_get(0)?;
    Ok(now)
}

/// Writes a row, to know that writing works.
pub(crate) async fn probe(connection: &mut PgConnection, node: i32) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- probe\n\
         insert into probes (node, at) values ($1, clock_timestamp()) on conflict (node) do update set at = excluded.at",
    )
    .bind(node)
    .execute(connection)
    .await?;
    Ok(())
}

/// Corrects times that were written by a clock that was ahead: when nodes were last seen, and when jobs are due.
/// Returns the number of rows.
pub(crate) async fn set_back(connection: &mut PgConnection, now: Time) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "-- nodes_set_back\n\
         with seen as (update nodes set seen_at = clock_timestamp() \
           where seen_at > clock_timestamp() + $3 * interval '1 millisecond' returning 1), \
         due as (update jobs set next_at = least(next_at, $1), leased_until = null \
           where state in ('canary', 'running') and (next_at > $2 or leased_until > $2) returning 1) \
         select (select count(*) from seen) + (select count(*) from due)",
    )
    .bind(Moment(now))
    .bind(Moment(now.after(AHEAD)))
    .bind(i64::try_from(AHEAD.0).unwrap_or(i64::MAX))
    .fetch_one(connection)
    .await
}
