//! Upkeep of governed queues: unused permits, keys that are full again, tasks from before the policy.

use std::collections::BTreeMap;

use backstitch_saga::{RunId, TaskKey, Time};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::batch::int;
use super::moment::{Moment, beyond};
use super::ready::task_key;

/// Takes back permits by which nothing was leased. A later lease by one finds it missing.
pub(crate) async fn take_back(
    connection: &mut PgConnection,
    permits: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query("-- permits_take_back\ndelete from permits where id = any($1) and not leased")
        .bind(permits)
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes back permits by which nothing was leased in time, or whose node is dead. Returns their number. All that lapse
/// do so before `all_until`, which limits the search to few rows. A row with a much later time was not written by a
/// right clock.
pub(crate) async fn lapse(
    connection: &mut PgConnection,
    now: Time,
    all_until: Time,
    dead_after_ms: i64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "-- permits_lapse\n\
         delete from permits p where (look_at <= $2 or look_at > $4) and not leased and (look_at < $1 or look_at > $4 \
         or not exists (select 1 from nodes n where n.id = p.node and n.stopped_at is null \
         and n.seen_at >= clock_timestamp() - $3 * interval '1 millisecond'))",
    )
    .bind(Moment(now))
    .bind(Moment(all_until))
    .bind(dead_after_ms)
    .bind(Moment(beyond(all_until)))
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// A permit by which a task was leased, to be compared with the journal.
pub(crate) struct Doubtful {
    pub(crate) id: Uuid,
    pub(crate) namespace: String,
    pub(crate) run: RunId,
    pub(crate) task: TaskKey,
}

/// Returns permits that were not checked for long; they are checked again at `next`.
pub(crate) async fn doubtful(
    connection: &mut PgConnection,
    now: Time,
    next: Time,
    limit: i64,
) -> Result<Vec<Doubtful>, sqlx::Error> {
    let rows = sqlx::query(
        "-- permits_doubtful\n\
         update permits p set look_at = $2 where p.id in (select id from permits where (look_at < $1 or look_at > $4) and leased \
           order by look_at limit $3 for update skip locked) \
         returning p.id, p.namespace, p.run_id, p.step, p.action, p.attempt",
    )
    .bind(Moment(now))
    .bind(Moment(next))
    .bind(limit)
    .bind(Moment(beyond(next)))
    .fetch_all(connection)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        if let Some(task) = task_key(row.try_get(3)?, row.try_get(4)?, row.try_get(5)?) {
            let run = RunId(row.try_get(2)?);
            found.push(Doubtful { id: row.try_get(0)?, namespace: row.try_get(1)?, run, task });
        }
    }
    Ok(found)
}

/// Removes permits whose lease is over, as the journal says.
pub(crate) async fn over(
    connection: &mut PgConnection,
    permits: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query("-- permits_over\ndelete from permits where id = any($1)")
        .bind(permits)
        .execute(connection)
        .await?;
    Ok(())
}

/// Forgets keys that have all their tokens again.
pub(crate) async fn forget_full(
    connection: &mut PgConnection,
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query("-- fair_keys_forget\ndelete from fair_keys where full_at < $1")
        .bind(Moment(now))
        .execute(connection)
        .await?;
    Ok(())
}

/// Takes the turn to search the tasks of a queue, if no other node has since `swept_at`.
pub(crate) async fn sweep_turn(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
    swept_at: Option<Time>,
    now: Time,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- queues_sweep_turn\n\
         update queues set swept_at = $4 where namespace = $1 and queue = $2 and swept_at is not distinct from $3",
    )
    .bind(namespace)
    .bind(queue)
    .bind(swept_at.map(Moment))
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// A task that came on offer before its queue was governed, with the labels of its run.
pub(crate) struct Plain {
    pub(crate) run: RunId,
    pub(crate) task: TaskKey,
    pub(crate) labels: BTreeMap<String, String>,
}

/// Returns tasks of a queue that no permit would be given for because of their ranks: they have none, or an
/// invalid one.
pub(crate) async fn plain(
    connection: &mut PgConnection,
    namespace: &str,
    queue: &str,
    limit: i64,
) -> Result<Vec<Plain>, sqlx::Error> {
    let rows = sqlx::query(
        "-- ready_plain\n\
         select t.run_id, t.step, t.action, t.attempt, (select labels::text from runs where id = t.run_id) \
         from (select * from ready where namespace = $1 and queue = $2 and (fair_key is null or priority is null \
           or priority not between 0 and 9 or retry is distinct from (attempt > 1)) limit $3) t",
    )
    .bind(namespace)
    .bind(queue)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let labels: Option<String> = row.try_get(4)?;
        let labels = labels.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default();
        if let Some(task) = task_key(row.try_get(1)?, row.try_get(2)?, row.try_get(3)?) {
            found.push(Plain { run: RunId(row.try_get(0)?), task, labels });
        }
    }
    Ok(found)
}

/// Gives tasks on offer their priority and fair key.
pub(crate) async fn adopt(
    connection: &mut PgConnection,
    tasks: &[(&Plain, i16, String)],
) -> Result<(), sqlx::Error> {
    let runs: Vec<Uuid> = tasks.iter().map(|(one, ..)| one.run.0).collect();
    let steps: Vec<String> = tasks.iter().map(|(one, ..)| one.task.step.to_string()).collect();
    let actions: Vec<&str> = tasks.iter().map(|(one, ..)| one.task.action.as_str()).collect();
    let attempts: Vec<i32> = tasks.iter().map(|(one, ..)| int(one.task.attempt)).collect();
    let priorities: Vec<i16> = tasks.iter().map(|(_, priority, _)| *priority).collect();
    let keys: Vec<&str> = tasks.iter().map(|(.., key)| key.as_str()).collect();
    let retries: Vec<bool> = tasks.iter().map(|(one, ..)| one.task.attempt > 1).collect();
    sqlx::query(
        "-- ready_adopt\n\
         update ready r set priority = x.priority, fair_key = x.fair_key, retry = x.retry \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::smallint[], $6::text[], $7::boolean[]) \
           as x(run_id, step, action, attempt, priority, fair_key, retry) \
         where r.run_id = x.run_id and r.step = x.step and r.action = x.action and r.attempt = x.attempt",
    )
    .bind(runs)
    .bind(steps)
    .bind(actions)
    .bind(attempts)
    .bind(priorities)
    .bind(keys)
    .bind(retries)
    .execute(connection)
    .await?;
    Ok(())
}
