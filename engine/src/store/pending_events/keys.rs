//! Pending events of subscriptions, as people see and change them.

use backstitch_saga::{RunId, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::Place;
use crate::store::moment::Moment;

/// The first pending event of a key.
#[derive(Debug)]
pub(crate) struct First {
    pub(crate) place: Place,
    pub(crate) key: Option<String>,
    pub(crate) state: String,
    pub(crate) run: Option<RunId>,
    pub(crate) incident: Option<i32>,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) since: Time,
    /// Events of the key behind it.
    pub(crate) waiting: i64,
}

fn first(row: &PgRow) -> Result<First, sqlx::Error> {
    let (run, Moment(since)): (Option<Uuid>, Moment) = (row.try_get(4)?, row.try_get(8)?);
    Ok(First {
        place: (row.try_get(0)?, row.try_get(1)?),
        key: row.try_get(2)?,
        state: row.try_get(3)?,
        run: run.map(RunId),
        incident: row.try_get(5)?,
        code: row.try_get(6)?,
        message: row.try_get(7)?,
        since,
        waiting: row.try_get(9)?,
    })
}

/// Lists the first pending event of each key that stands in one of `states`, in their order, after one of them.
pub(crate) async fn firsts(
    connection: &mut PgConnection,
    (namespace, name): (&str, &str),
    states: &[&str],
    after: Option<Place>,
    limit: i64,
) -> Result<Vec<First>, sqlx::Error> {
    let (generation, position) = after.unwrap_or((0, -1));
    let rows = sqlx::query(
        "-- pending_firsts\n\
         select e.generation, e.position, e.key, e.state, e.run_id, e.incident, e.code, e.message, e.since, \
         (select count(*) from subscription_event w where w.namespace = $1 and w.name = $2 and w.key = e.key and w.state = 'waiting') \
         from subscription_event e where e.namespace = $1 and e.name = $2 and e.state = any($3) \
         and (e.generation, e.position) > ($4, $5) order by e.generation, e.position limit $6",
    )
    .bind(namespace)
    .bind(name)
    .bind(states)
    .bind(generation)
    .bind(position)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(first).collect()
}

/// Numbers of pending events of a subscription.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Counts {
    pub(crate) waiting: i64,
    pub(crate) in_flight: i64,
    pub(crate) blocked: i64,
    /// Position of the oldest that has started no run.
    pub(crate) oldest: Option<i64>,
}

/// Counts the pending events of a subscription.
pub(crate) async fn counts(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<Counts, sqlx::Error> {
    let row = sqlx::query(
        "-- pending_counts\n\
         select count(*) filter (where state in ('waiting', 'ready')), count(*) filter (where state in ('starting', 'started')), \
         count(*) filter (where state = 'blocked'), min(position) filter (where state in ('waiting', 'ready')) \
         from subscription_event where namespace = $1 and name = $2",
    )
    .bind(namespace)
    .bind(name)
    .fetch_one(connection)
    .await?;
    let (waiting, in_flight) = (row.try_get(0)?, row.try_get(1)?);
    Ok(Counts { waiting, in_flight, blocked: row.try_get(2)?, oldest: row.try_get(3)? })
}

/// Deletes pending events that have started no run: their subscription begins again. Returns how many.
pub(crate) async fn drop_unstarted(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<i64, sqlx::Error> {
    let done = sqlx::query(
        "-- pending_drop\n\
         delete from subscription_event where namespace = $1 and name = $2 and run_id is null and state <> 'starting'",
    )
    .bind(namespace)
    .bind(name)
    .execute(connection)
    .await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
}

/// Deletes the oldest pending event of a position that is in the way of others; with `ready`, also one that is about to start.
pub(crate) async fn take_out(
    connection: &mut PgConnection,
    (namespace, name): (&str, &str),
    position: i64,
    ready: bool,
) -> Result<Option<First>, sqlx::Error> {
    let found = sqlx::query(
        "-- pending_take_out\n\
         delete from subscription_event e using (select min(generation) as generation from subscription_event \
           where namespace = $1 and name = $2 and position = $3 and (state = 'blocked' or ($4 and state = 'ready'))) o \
         where e.namespace = $1 and e.name = $2 and e.position = $3 and e.generation = o.generation \
         and (e.state = 'blocked' or ($4 and e.state = 'ready')) \
         returning e.generation, e.position, e.key, e.state, e.run_id, e.incident, e.code, e.message, e.since, 0::bigint",
    )
    .bind(namespace)
    .bind(name)
    .bind(position)
    .bind(ready)
    .fetch_optional(connection)
    .await?;
    found.as_ref().map(first).transpose()
}
