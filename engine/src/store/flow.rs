//! Permits of governed queues: waiting and held tasks, and the tasks that get a permit. The tables `permits`,
//! `fair_keys` and `ready`.
//!
//! Permits are given under the lock of the queue's row, and what that lock guards is read in later statements.

use std::collections::HashMap;

use backstitch_saga::{RunId, TaskKey, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::batch::int;
use super::moment::Moment;
use super::ready::task_key;
use crate::flow::bucket::Bucket;
use crate::flow::pick::Candidate;

pub(super) fn count(row: &PgRow, column: usize) -> Result<u32, sqlx::Error> {
    let count: i64 = row.try_get(column)?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}

/// Returns the queues that have offered tasks for these handlers without a permit, as positions in the lists.
/// Answers places in the lists.
pub(crate) async fn waiting(
    connection: &mut PgConnection,
    namespaces: &[String],
    queues: &[String],
    names: &[String],
) -> Result<Vec<usize>, sqlx::Error> {
    let found: Vec<i64> = sqlx::query_scalar(
        "-- flow_waiting\n\
         select w.number - 1 from unnest($1::text[], $2::text[], $3::text[]) with ordinality \
           as w(namespace, queue, name, number) \
         where exists (select 1 from ready r where r.namespace = w.namespace and r.queue = w.queue \
           and r.name = w.name and r.fair_key is not null \
           and not exists (select 1 from permits p where p.run_id = r.run_id and p.step = r.step \
             and p.action = r.action and p.attempt = r.attempt))",
    )
    .bind(namespaces)
    .bind(queues)
    .bind(names)
    .fetch_all(connection)
    .await?;
    Ok(found.into_iter().filter_map(|place| usize::try_from(place).ok()).collect())
}

/// Returns the number of permits that a queue has given, by fair key.
pub(crate) async fn held(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
) -> Result<HashMap<String, u32>, sqlx::Error> {
    let rows = sqlx::query(
        "-- flow_held\n\
         select fair_key, count(*) from permits where namespace = $1 and queue = $2 group by fair_key",
    )
    .bind(namespace)
    .bind(queue)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, count(row, 1)?))).collect()
}

/// Returns whether a task has a permit.
pub(crate) async fn is_held(
    connection: &mut PgConnection,
    run: RunId,
    task: &TaskKey,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "-- flow_is_held\n\
         select exists (select 1 from permits where run_id = $1 and step = $2 and action = $3 and attempt = $4)",
    )
    .bind(run.0)
    .bind(task.step.to_string())
    .bind(task.action.as_str())
    .bind(int(task.attempt))
    .fetch_one(connection)
    .await
}

/// Returns the handlers and priorities with tasks on offer: place of the name, priority; the highest first.
pub(crate) async fn levels(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
    names: &[String],
) -> Result<Vec<(usize, i16)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- flow_levels\n\
         select n.number - 1, l.level from unnest($3::text[]) with ordinality as n(name, number) \
         cross join unnest(array[9, 8, 7, 6, 5, 4, 3, 2, 1, 0]::smallint[]) as l(level) \
         where exists (select 1 from ready r where r.namespace = $1 and r.queue = $2 and r.name = n.name \
           and r.priority = l.level and r.fair_key is not null) order by l.level desc, n.number",
    )
    .bind(namespace)
    .bind(queue)
    .bind(names)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let place: i64 = row.try_get(0)?;
            Ok((usize::try_from(place).unwrap_or_default(), row.try_get(1)?))
        })
        .collect()
}

/// Filter of offered tasks.
pub(crate) struct Search<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) queue: &'a str,
    pub(crate) names: &'a [String],
    pub(crate) level: i16,
    /// Keys after this one.
    pub(crate) after: &'a str,
    /// So many keys, at most.
    pub(crate) keys: i32,
    /// So many tasks of a key, first attempts and retries each.
    pub(crate) per_key: i64,
    pub(crate) retries: bool,
    /// Keys that may have none.
    pub(crate) without: &'a [String],
    pub(crate) now: Time,
}

/// Returns the oldest tasks on offer without a permit, of each of the next keys. Walks from key to key through the
/// index, so that a key with many tasks costs no more than one with few.
pub(crate) async fn candidates(
    connection: &mut PgConnection,
    search: &Search<'_>,
) -> Result<Vec<Candidate>, sqlx::Error> {
    let rows = sqlx::query(
        "-- flow_candidates\n\
         with recursive keys(name, key, number) as (\
           select n.name, (select r.fair_key from ready r where r.namespace = $1 and r.queue = $2 \
             and r.name = n.name and r.priority = $4 and r.fair_key > $5 order by r.fair_key limit 1), 1 \
           from unnest($3::text[]) as n(name) \
           union all \
           select k.name, (select r.fair_key from ready r where r.namespace = $1 and r.queue = $2 \
             and r.name = k.name and r.priority = $4 and r.fair_key > k.key order by r.fair_key limit 1), k.number + 1 \
           from keys k where k.key is not null and k.number < $6) \
         select r.run_id, r.step, r.action, r.attempt, k.name, k.key, r.offered_at from keys k \
         cross join unnest(array[false, true]) as t(retry) \
         cross join lateral (select * from ready r where r.namespace = $1 and r.queue = $2 and r.name = k.name \
           and r.priority = $4 and r.fair_key = k.key and r.retry = t.retry \
           and not exists (select 1 from permits p where p.run_id = r.run_id and p.step = r.step \
             and p.action = r.action and p.attempt = r.attempt) \
           order by r.offered_at limit $7) r \
         where k.key is not null and k.key <> all($9) and (not t.retry or $8) \
         and not exists (select 1 from fair_keys f where f.namespace = $1 and f.queue = $2 and f.fair_key = k.key \
           and f.free_at > $10)",
    )
    .bind(search.namespace)
    .bind(search.queue)
    .bind(search.names)
    .bind(search.level)
    .bind(search.after)
    .bind(search.keys)
    .bind(search.per_key)
    .bind(search.retries)
    .bind(search.without)
    .bind(Moment(search.now))
    .fetch_all(connection)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let (run, Moment(offered_at)) = (RunId(row.try_get(0)?), row.try_get(6)?);
        let Some(task) = task_key(row.try_get(1)?, row.try_get(2)?, row.try_get(3)?) else {
            tracing::warn!(%run, "a line of the table ready names no task; run `backstitch doctor`");
            continue;
        };
        let (name, key) = (row.try_get(4)?, row.try_get(5)?);
        found.push(Candidate { run, task, name, key, offered_at });
    }
    Ok(found)
}

/// Returns the last of the keys that [`candidates`] examined, if there may be more after it.
pub(crate) async fn skip(
    connection: &mut PgConnection,
    search: &Search<'_>,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "-- flow_skip\n\
         with recursive keys(name, key, number) as (\
           select n.name, (select r.fair_key from ready r where r.namespace = $1 and r.queue = $2 \
             and r.name = n.name and r.priority = $4 and r.fair_key > $5 order by r.fair_key limit 1), 1 \
           from unnest($3::text[]) as n(name) \
           union all \
           select k.name, (select r.fair_key from ready r where r.namespace = $1 and r.queue = $2 \
             and r.name = k.name and r.priority = $4 and r.fair_key > k.key order by r.fair_key limit 1), k.number + 1 \
           from keys k where k.key is not null and k.number < $6) \
         select min(key) from keys where number = $6",
    )
    .bind(search.namespace)
    .bind(search.queue)
    .bind(search.names)
    .bind(search.level)
    .bind(search.after)
    .bind(search.keys)
    .fetch_one(connection)
    .await
}

/// Returns the buckets of keys, as far as they are not full.
pub(crate) async fn buckets(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
    keys: &[String],
) -> Result<HashMap<String, Bucket>, sqlx::Error> {
    let rows = sqlx::query(
        "-- flow_buckets\n\
         select fair_key, tokens, at from fair_keys where namespace = $1 and queue = $2 and fair_key = any($3)",
    )
    .bind(namespace)
    .bind(queue)
    .bind(keys)
    .fetch_all(connection)
    .await?;
    let bucket = |row: &PgRow| {
        let Moment(at) = row.try_get(2)?;
        Ok((row.try_get(0)?, Bucket { tokens: row.try_get(1)?, at }))
    };
    rows.iter().map(bucket).collect()
}

/// Writes the bucket of a key that has used some of it. `free_at` and `full_at`: when it has a token, and all.
pub(crate) async fn keep_buckets(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
    kept: &[(String, Bucket, Time, Time)],
) -> Result<(), sqlx::Error> {
    let keys: Vec<&str> = kept.iter().map(|(key, ..)| key.as_str()).collect();
    let tokens: Vec<f64> = kept.iter().map(|(_, bucket, ..)| bucket.tokens).collect();
    let at: Vec<Moment> = kept.iter().map(|(_, bucket, ..)| Moment(bucket.at)).collect();
    let free: Vec<Moment> = kept.iter().map(|(.., free, _)| Moment(*free)).collect();
    let full: Vec<Moment> = kept.iter().map(|(.., full)| Moment(*full)).collect();
    sqlx::query(
        "-- flow_keep_buckets\n\
         insert into fair_keys (namespace, queue, fair_key, tokens, at, free_at, full_at) \
         select $1, $2, x.* from unnest($3::text[], $4::float8[], $5::timestamptz[], $6::timestamptz[], \
           $7::timestamptz[]) as x(fair_key, tokens, at, free_at, full_at) \
         on conflict (namespace, queue, fair_key) do update set tokens = excluded.tokens, at = excluded.at, \
         free_at = excluded.free_at, full_at = excluded.full_at",
    )
    .bind(namespace)
    .bind(queue)
    .bind(keys)
    .bind(tokens)
    .bind(at)
    .bind(free)
    .bind(full)
    .execute(connection)
    .await?;
    Ok(())
}

/// Gives permits to tasks; each with its id.
pub(crate) async fn give(
    connection: &mut PgConnection,
    queue: (&str, &str),
    node: i32,
    given: &[(Uuid, &Candidate)],
    now: Time,
    look_at: Time,
) -> Result<(), sqlx::Error> {
    let ids: Vec<Uuid> = given.iter().map(|(id, _)| *id).collect();
    let runs: Vec<Uuid> = given.iter().map(|(_, one)| one.run.0).collect();
    let steps: Vec<String> = given.iter().map(|(_, one)| one.task.step.to_string()).collect();
    let actions: Vec<&str> = given.iter().map(|(_, one)| one.task.action.as_str()).collect();
    let attempts: Vec<i32> = given.iter().map(|(_, one)| int(one.task.attempt)).collect();
    let keys: Vec<&str> = given.iter().map(|(_, one)| one.key.as_str()).collect();
    sqlx::query(
        "-- flow_give\n\
         insert into permits (id, run_id, step, action, attempt, fair_key, namespace, queue, node, given_at, look_at) \
         select x.*, $7, $8, $9, $10, $11 from unnest($1::uuid[], $2::uuid[], $3::text[], $4::text[], $5::integer[], \
           $6::text[]) as x(id, run_id, step, action, attempt, fair_key)",
    )
    .bind(ids)
    .bind(runs)
    .bind(steps)
    .bind(actions)
    .bind(attempts)
    .bind(keys)
    .bind(queue.0)
    .bind(queue.1)
    .bind(node)
    .bind(Moment(now))
    .bind(Moment(look_at))
    .execute(connection)
    .await?;
    Ok(())
}
