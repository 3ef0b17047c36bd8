//! The table `ready` outside of batches: who may hand out what.

use std::sync::Arc;

use backstitch_saga::{Action, RunId, TaskKey, Time, planted};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::batch::ReadyRow;
use super::moment::{Moment, beyond};

/// Tasks that waiting workers could do.
#[derive(Debug)]
pub(crate) struct Wanted {
    pub(crate) namespace: Arc<str>,
    pub(crate) queue: String,
    pub(crate) name: String,
    pub(crate) limit: i32,
}

/// Reserves the oldest tasks that are `wanted` and that no node has reserved, until `until`.
pub(crate) async fn reserve(
    connection: &mut PgConnection,
    node: i32,
    wanted: &[Wanted],
    now: Time,
    until: Time,
) -> Result<Vec<ReadyRow>, sqlx::Error> {
    let namespaces: Vec<&str> = wanted.iter().map(|one| &*one.namespace).collect();
    let queues: Vec<&str> = wanted.iter().map(|one| one.queue.as_str()).collect();
    let names: Vec<&str> = wanted.iter().map(|one| one.name.as_str()).collect();
    let limits: Vec<i32> = wanted.iter().map(|one| one.limit).collect();
    let now = if planted!("claim-new-only") { Time(0) } else { now };
    let rows = sqlx::query(
        "-- ready_reserve\n\
         with picked as (select r.run_id, r.step, r.action, r.attempt, w.number \
           from unnest($2::text[], $3::text[], $4::text[], $5::integer[]) with ordinality \
             as w(namespace, queue, name, limited, number) \
           cross join lateral (select * from ready r where r.namespace = w.namespace and r.queue = w.queue \
             and r.name = w.name and (r.reserved_until is null or r.reserved_until < $6 or r.reserved_until > $8) \
             order by r.offered_at limit w.limited for update skip locked) r) \
         update ready r set reserved_by = $1, reserved_until = $7 from picked p \
         where r.run_id = p.run_id and r.step = p.step and r.action = p.action and r.attempt = p.attempt \
         returning r.run_id, r.step, r.action, r.attempt, p.number, r.offered_at",
    )
    .bind(node)
    .bind(namespaces)
    .bind(queues)
    .bind(names)
    .bind(limits)
    .bind(Moment(now))
    .bind(Moment(until))
    .bind(Moment(beyond(until)))
    .fetch_all(connection)
    .await?;
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let number: i64 = row.try_get(4)?;
        let Moment(offered_at) = row.try_get(5)?;
        let one = usize::try_from(number - 1).ok().and_then(|at| wanted.get(at));
        let Some(one) = one else { continue };
        let run = RunId(row.try_get(0)?);
        let Some(task) = task_key(row.try_get(1)?, row.try_get(2)?, row.try_get(3)?) else {
            tracing::warn!(%run, "a line of the table ready names no task; run `backstitch doctor`");
            continue;
        };
        found.push((
            offered_at,
            ReadyRow {
                run,
                task,
                namespace: one.namespace.clone(),
                queue: one.queue.clone(),
                name: one.name.clone(),
                reserved: Some((node, until)),
                rank: None,
                offered_at,
            },
        ));
    }
    found.sort_by_key(|(offered_at, _)| *offered_at);
    Ok(found.into_iter().map(|(_, row)| row).collect())
}

/// Returns the task that a line names.
pub(crate) fn task_key(step: &str, action: &str, attempt: i32) -> Option<TaskKey> {
    let action = [Action::Forward, Action::Verify, Action::Compensate]
        .into_iter()
        .find(|known| known.as_str() == action)?;
    Some(TaskKey { step: step.parse().ok()?, action, attempt: u32::try_from(attempt).ok()? })
}
