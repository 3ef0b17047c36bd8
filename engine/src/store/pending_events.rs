//! Pending events of subscriptions: those that were taken up and wait, or whose runs are under way. Rows change in transactions
//! that hold the lock of the subscription's row, but for what is written of answers to starts, which names the state that it leaves.
//! Rows are found one by one, by an index, and changed where they are found: a plan that is right for an empty table is right then
//! for a large one.

pub(crate) mod candidates;
pub(crate) mod keys;

use std::collections::HashSet;

use backstitch_saga::{RunId, Time};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::moment::Moment;
use super::subscriptions::{Stop, SubscriptionRow, json};

/// A pending event, by the generation in which it was taken up and its position.
pub(crate) type Place = (i32, i64);

/// Locks the row of a subscription until the transaction ends, and returns it, if it is still at the revision and position of `row`.
pub(crate) async fn lock(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
) -> Result<Option<SubscriptionRow>, sqlx::Error> {
    let found = sqlx::query(
        "-- pending_lock\n\
         select pending, skipped, skips from subscription \
         where namespace = $1 and name = $2 and revision = $3 and position = $4 and state = 'active' for update",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(row.revision)
    .bind(row.position)
    .fetch_optional(connection)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let skips: String = found.try_get(2)?;
    Ok(Some(SubscriptionRow {
        pending: found.try_get(0)?,
        skipped: found.try_get(1)?,
        skips: serde_json::from_str(&skips).unwrap_or_default(),
        ..row.clone()
    }))
}

fn split(places: &[Place]) -> (Vec<i32>, Vec<i64>) {
    places.iter().copied().unzip()
}

/// Deletes pending events that were started, or that are blocked, as said of each. Returns those that were there.
pub(crate) async fn remove(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    places: &[(Place, bool)],
) -> Result<Vec<Place>, sqlx::Error> {
    let (generations, positions): (Vec<i32>, Vec<i64>) =
        places.iter().map(|(place, _)| *place).unzip();
    let state = |blocked: bool| if blocked { "blocked" } else { "started" };
    let rows = sqlx::query(
        "-- pending_remove\n\
         delete from subscription_event t \
         using unnest($3::integer[], $4::bigint[], $5::text[]) as d(generation, position, state) \
           cross join lateral (select e.ctid from subscription_event e where e.namespace = $1 and e.name = $2 \
             and e.generation = d.generation and e.position = d.position and e.state = d.state limit 1) e \
         where t.ctid = e.ctid returning t.generation, t.position",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(generations)
    .bind(positions)
    .bind(places.iter().map(|(_, blocked)| state(*blocked)).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Reason why a pending event is in the way of others.
#[derive(Debug)]
pub(crate) struct Obstacle {
    pub(crate) place: Place,
    pub(crate) incident: Option<i32>,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Has pending events whose runs are under way block their keys.
pub(crate) async fn block(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    obstacles: &[Obstacle],
    now: Time,
) -> Result<(), sqlx::Error> {
    let (generations, positions): (Vec<i32>, Vec<i64>) =
        obstacles.iter().map(|one| one.place).unzip();
    sqlx::query(
        "-- pending_block\n\
         update subscription_event t set state = 'blocked', incident = b.incident, code = b.code, message = b.message, since = $7 \
         from unnest($3::integer[], $4::bigint[], $5::integer[], $6::text[], $8::text[]) \
             as b(generation, position, incident, code, message) \
           cross join lateral (select e.ctid from subscription_event e where e.namespace = $1 and e.name = $2 \
             and e.generation = b.generation and e.position = b.position and e.state = 'started' limit 1) e \
         where t.ctid = e.ctid",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(generations)
    .bind(positions)
    .bind(obstacles.iter().map(|one| one.incident).collect::<Vec<_>>())
    .bind(obstacles.iter().map(|one| one.code.as_str()).collect::<Vec<_>>())
    .bind(Moment(now))
    .bind(obstacles.iter().map(|one| one.message.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Has pending events block their keys no longer: their runs go on, or they have none and are started again.
pub(crate) async fn unblock(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    places: &[Place],
    now: Time,
) -> Result<(), sqlx::Error> {
    let (generations, positions) = split(places);
    sqlx::query(
        "-- pending_unblock\n\
         update subscription_event t set state = case when t.run_id is null then 'ready' else 'started' end, \
         incident = null, code = null, message = null, retry_at = null, since = $5 \
         from unnest($3::integer[], $4::bigint[]) as u(generation, position) \
           cross join lateral (select e.ctid from subscription_event e where e.namespace = $1 and e.name = $2 \
             and e.generation = u.generation and e.position = u.position and e.state = 'blocked' limit 1) e \
         where t.ctid = e.ctid",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(generations)
    .bind(positions)
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives the next event of each key its turn, where none has it.
pub(crate) async fn promote(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    keys: &[String],
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- pending_promote\n\
         update subscription_event t set state = 'ready', since = $4 from unnest($3::text[]) k(key) \
           cross join lateral (select e.ctid, e.state from subscription_event e \
             where e.namespace = $1 and e.name = $2 and e.key between k.key and k.key \
             order by e.key, e.generation, e.position limit 1) e \
         where t.ctid = e.ctid and e.state = 'waiting'",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(keys)
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns those of `keys` that have pending events.
pub(crate) async fn occupied(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    keys: &[&str],
) -> Result<HashSet<String>, sqlx::Error> {
    let found: Vec<String> = sqlx::query_scalar(
        "-- pending_occupied\n\
         select k.key from unnest($3::text[]) k(key) cross join lateral (select from subscription_event e \
           where e.namespace = $1 and e.name = $2 and e.key between k.key and k.key order by e.key limit 1) e",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(keys)
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().collect())
}

/// Takes up events: positions, keys, and whether they may start at once. Returns how many were not there.
pub(crate) async fn add(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    (positions, keys, ready): (&[i64], &[Option<String>], &[bool]),
    now: Time,
) -> Result<i64, sqlx::Error> {
    let done = sqlx::query(
        "-- pending_add\n\
         insert into subscription_event (namespace, name, generation, position, key, state, since) \
         select $1, $2, $3, n.position, n.key, case when n.ready then 'ready' else 'waiting' end, $7 \
         from unnest($4::bigint[], $5::text[], $6::boolean[]) as n(position, key, ready) \
         on conflict do nothing",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(row.generation)
    .bind(positions)
    .bind(keys)
    .bind(ready)
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(i64::try_from(done.rows_affected()).unwrap_or(i64::MAX))
}

/// Returns the pending events whose turn has come, in their order, as many as there is room for below `most` under way.
pub(crate) async fn ready(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    (most, limit): (i64, i64),
) -> Result<Vec<Place>, sqlx::Error> {
    let rows = sqlx::query(
        "-- pending_ready\n\
         select e.generation, e.position from subscription_event e where e.namespace = $1 and e.name = $2 and e.state = 'ready' \
         order by e.generation, e.position limit least($4, greatest(0, $3 - \
           (select count(*) from subscription_event f where f.namespace = $1 and f.name = $2 and f.state = 'starting') - \
           (select count(*) from subscription_event f where f.namespace = $1 and f.name = $2 and f.state = 'started')))",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(most)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Writes under which ids the runs of pending events are about to be started.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    places: &[Place],
    runs: &[Uuid],
    now: Time,
) -> Result<(), sqlx::Error> {
    let (generations, positions) = split(places);
    sqlx::query(
        "-- pending_begin\n\
         update subscription_event t set state = 'starting', run_id = b.run_id, since = $6 \
         from unnest($3::integer[], $4::bigint[], $5::uuid[]) as b(generation, position, run_id) \
           cross join lateral (select e.ctid from subscription_event e where e.namespace = $1 and e.name = $2 \
             and e.generation = b.generation and e.position = b.position and e.state = 'ready' limit 1) e \
         where t.ctid = e.ctid",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(generations)
    .bind(positions)
    .bind(runs)
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the pending events whose starts are asked for, or were when a node died, in their order.
pub(crate) async fn starting(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    limit: i64,
) -> Result<Vec<(Place, RunId)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- pending_starting\n\
         select e.generation, e.position, e.run_id from subscription_event e \
         where e.namespace = $1 and e.name = $2 and e.state = 'starting' and e.run_id is not null \
         order by e.generation, e.position limit $3",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| Ok(((row.try_get(0)?, row.try_get(1)?), RunId(row.try_get(2)?))))
        .collect()
}

/// Returns whether there are pending events whose turn has come and that have not started.
pub(crate) async fn has_turns(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "-- pending_has_turns\n\
         select exists (select from subscription_event where namespace = $1 and name = $2 and state = 'ready') \
         or exists (select from subscription_event where namespace = $1 and name = $2 and state = 'starting')",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .fetch_one(connection)
    .await
}

/// Returns the first event that is in the way of all others.
pub(crate) async fn first_blocked(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
) -> Result<Option<Stop>, sqlx::Error> {
    let found = sqlx::query(
        "-- pending_first_blocked\n\
         select e.position, e.code, e.message, e.since from subscription_event e \
         where e.namespace = $1 and e.name = $2 and e.state = 'blocked' order by e.generation, e.position limit 1",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .fetch_optional(connection)
    .await?;
    let Some(found) = found else { return Ok(None) };
    let text = |at: usize| found.try_get::<Option<String>, _>(at).map(Option::unwrap_or_default);
    let Moment(since) = found.try_get(3)?;
    Ok(Some(Stop { position: found.try_get(0)?, code: text(1)?, message: text(2)?, since }))
}

/// Writes how far a subscription has come whose row is locked.
pub(crate) async fn save(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    stop: Option<&Stop>,
    (retry_at, look_at): (Option<Time>, Option<Time>),
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- pending_save\n\
         update subscription set position = $3, pending = $4, skipped = $5, skips = $6, stopped_at = $7, stopped_code = $8, \
         stopped_message = $9, stopped_since = $10, retry_at = $11, look_at = $12 where namespace = $1 and name = $2",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(row.position)
    .bind(row.pending)
    .bind(row.skipped)
    .bind(json(&row.skips)?)
    .bind(stop.map(|stop| stop.position))
    .bind(stop.map(|stop| stop.code.as_str()))
    .bind(stop.map(|stop| stop.message.as_str()))
    .bind(stop.map(|stop| Moment(stop.since)))
    .bind(retry_at.map(Moment))
    .bind(look_at.map(Moment))
    .execute(connection)
    .await?;
    Ok(())
}

/// Result of the start of a pending event.
#[derive(Debug)]
pub(crate) enum Answer {
    /// It is a run; one of another start, of which nothing is known, without an id.
    Started(Option<RunId>),
    /// It is refused, and tried again then.
    Refused { code: String, message: String, retry_at: Time },
    /// It has its turn later.
    Later,
}

/// Writes what became of starts.
pub(crate) async fn answered(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    answers: &[(Place, Answer)],
    now: Time,
) -> Result<(), sqlx::Error> {
    let (generations, positions): (Vec<i32>, Vec<i64>) = answers.iter().map(|one| one.0).unzip();
    let (mut states, mut runs, mut codes) = (Vec::new(), Vec::new(), Vec::new());
    let (mut messages, mut retries) = (Vec::new(), Vec::new());
    for (_, answer) in answers {
        let (state, run, refusal) = match answer {
            Answer::Started(run) => ("started", run.map(|run| run.0), None),
            Answer::Refused { code, message, retry_at } => {
                ("blocked", None, Some((code.as_str(), message.as_str(), Moment(*retry_at))))
            }
            Answer::Later => ("ready", None, None),
        };
        states.push(state);
        runs.push(run);
        codes.push(refusal.map(|(code, _, _)| code));
        messages.push(refusal.map(|(_, message, _)| message));
        retries.push(refusal.map(|(_, _, retry_at)| retry_at));
    }
    sqlx::query(
        "-- pending_answered\n\
         update subscription_event t set state = a.state, run_id = a.run_id, code = a.code, message = a.message, \
         retry_at = a.retry_at, since = $10 \
         from unnest($3::integer[], $4::bigint[], $5::text[], $6::uuid[], $7::text[], $8::text[], $9::timestamptz[]) \
             as a(generation, position, state, run_id, code, message, retry_at) \
           cross join lateral (select e.ctid from subscription_event e where e.namespace = $1 and e.name = $2 \
             and e.generation = a.generation and e.position = a.position and e.state = 'starting' limit 1) e \
         where t.ctid = e.ctid",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(generations)
    .bind(positions)
    .bind(states)
    .bind(runs)
    .bind(codes)
    .bind(messages)
    .bind(retries)
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets a subscription go that a node had taken, unless somebody has changed it meanwhile: how many runs were started, when its pending
/// events are looked at again and more are taken up, and what it stands at.
pub(crate) async fn release(
    connection: &mut PgConnection,
    row: &SubscriptionRow,
    node: i32,
    (started, look_at, retry_at): (i64, Option<Time>, Option<Time>),
    stop: Option<&Stop>,
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- pending_release\n\
         update subscription set taken_by = null, taken_until = $5, started = started + $6, look_at = $7, retry_at = $8, \
         stopped_at = $9, stopped_code = $10, stopped_message = $11, stopped_since = $12 \
         where namespace = $1 and name = $2 and revision = $3 and taken_by = $4",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(row.revision)
    .bind(node)
    .bind(Moment(now))
    .bind(started)
    .bind(look_at.map(Moment))
    .bind(retry_at.map(Moment))
    .bind(stop.map(|stop| stop.position))
    .bind(stop.map(|stop| stop.code.as_str()))
    .bind(stop.map(|stop| stop.message.as_str()))
    .bind(stop.map(|stop| Moment(stop.since)))
    .execute(connection)
    .await?;
    Ok(())
}
