//! Attempts that may be completed in a transaction of the worker's: the table `fences`.
//!
//! A worker's open transaction locks its row. Nothing here waits for that lock: what is locked is left alone.

use std::collections::{BTreeMap, HashMap};

use backstitch_saga::{Action, RunId, StepPath, TaskKey, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;
use super::spaces::{Found, Waiting, share};
use crate::crash::crash_point;

/// A task of a run.
pub(crate) type Fence = (RunId, TaskKey);

/// The completion of an attempt by a worker.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Completion {
    pub(crate) namespace: String,
    /// JSON text.
    pub(crate) output: String,
    pub(crate) external_id: Option<String>,
}

/// A completed attempt as its row says, or which row cannot be read.
pub(crate) type Completed = Result<(Fence, Completion), Unreadable>;

/// A row that cannot be read.
#[derive(Clone, Debug)]
pub(crate) struct Unreadable {
    pub(crate) namespace: String,
    pub(crate) run: RunId,
    pub(crate) why: String,
}

/// The columns of the key, one array each.
struct Keys {
    runs: Vec<Uuid>,
    steps: Vec<String>,
    actions: Vec<&'static str>,
    attempts: Vec<i32>,
}

impl Keys {
    fn of(fences: &[Fence]) -> Keys {
        let tasks = || fences.iter().map(|(_, task)| task);
        Keys {
            runs: fences.iter().map(|(run, _)| run.0).collect(),
            steps: tasks().map(|task| task.step.to_string()).collect(),
            actions: tasks().map(|task| task.action.as_str()).collect(),
            attempts: tasks().map(|task| i32::try_from(task.attempt).unwrap_or(i32::MAX)).collect(),
        }
    }
}

/// Lets workers complete attempts that were handed out at `at`, which the database's clock shows as `shown`. Not if
/// that is long ago: then it is not known any more whether they were revoked since.
pub(crate) async fn open(
    connection: &mut PgConnection,
    fences: &[Fence],
    namespaces: &[String],
    (at, shown): (Time, Time),
) -> Result<(), sqlx::Error> {
    let keys = Keys::of(fences);
    sqlx::query(
        "-- fences_open\n\
         insert into fences (run_id, step, action, attempt, namespace, opened_at) \
         select x.*, $6 from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[]) as x \
         where clock_timestamp() < $7::timestamptz + interval '10 minutes' on conflict do nothing",
    )
    .bind(keys.runs)
    .bind(keys.steps)
    .bind(keys.actions)
    .bind(keys.attempts)
    .bind(namespaces)
    .bind(Moment(at))
    .bind(Moment(shown))
    .execute(connection)
    .await?;
    Ok(())
}

/// Fences that could not be taken: with the completion when the worker has completed the attempt, without one while a
/// transaction of the worker's is open.
pub(crate) type Left = HashMap<RunId, Vec<(TaskKey, Option<Completion>)>>;

/// Takes the right to complete attempts away: permanently from those that `ended`, each with its namespace; from
/// those `given_back` until they are handed out again. Returns those of which that was not possible.
pub(crate) async fn take(
    connection: &mut PgConnection,
    (ended, namespaces): (&[Fence], &[String]),
    given_back: &[Fence],
    at: Time,
) -> Result<Left, sqlx::Error> {
    if !ended.is_empty() {
        revoke(connection, ended, namespaces, at).await?;
    }
    if !given_back.is_empty() {
        withdraw(connection, given_back).await?;
    }
    let all: Vec<Fence> = ended.iter().chain(given_back).cloned().collect();
    left(connection, &all).await
}

/// Revokes a fence. A missing one is made as revoked, so that a slow node cannot make it
/// afterwards.
async fn revoke(
    connection: &mut PgConnection,
    fences: &[Fence],
    namespaces: &[String],
    at: Time,
) -> Result<(), sqlx::Error> {
    let Keys { runs, steps, actions, attempts } = Keys::of(fences);
    for text in [
        "-- fences_revoke\n\
         with free as materialized (select f.run_id, f.step, f.action, f.attempt \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[]) as w(run_id, step, action, attempt) \
         join fences f on (f.run_id, f.step, f.action, f.attempt) = (w.run_id, w.step, w.action, w.attempt) \
         where f.completed_at is null and f.revoked_at is null for update of f skip locked) \
         update fences f set revoked_at = $6 from free x \
         where (f.run_id, f.step, f.action, f.attempt) = (x.run_id, x.step, x.action, x.attempt)",
        "-- fences_revoke_ahead\n\
         insert into fences (run_id, step, action, attempt, namespace, revoked_at) select w.*, $6 \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[], $5::text[]) as \
         w(run_id, step, action, attempt, namespace) where not exists (select 1 from fences f \
         where (f.run_id, f.step, f.action, f.attempt) = (w.run_id, w.step, w.action, w.attempt)) \
         on conflict do nothing",
    ] {
        sqlx::query(text)
            .bind(&runs)
            .bind(&steps)
            .bind(&actions)
            .bind(&attempts)
            .bind(namespaces)
            .bind(Moment(at))
            .execute(&mut *connection)
            .await?;
        crash_point!("fences_revoke.half");
    }
    Ok(())
}

/// Removes fences of attempts that no worker holds any more. The next worker gets another.
async fn withdraw(connection: &mut PgConnection, fences: &[Fence]) -> Result<(), sqlx::Error> {
    let Keys { runs, steps, actions, attempts } = Keys::of(fences);
    sqlx::query(
        "-- fences_withdraw\n\
         with free as materialized (select f.run_id, f.step, f.action, f.attempt \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[]) as w(run_id, step, action, attempt) \
         join fences f on (f.run_id, f.step, f.action, f.attempt) = (w.run_id, w.step, w.action, w.attempt) \
         where f.completed_at is null and f.revoked_at is null for update of f skip locked) \
         delete from fences f using free x \
         where (f.run_id, f.step, f.action, f.attempt) = (x.run_id, x.step, x.action, x.attempt)",
    )
    .bind(runs)
    .bind(steps)
    .bind(actions)
    .bind(attempts)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns those of these fences that are there and not revoked.
async fn left(connection: &mut PgConnection, fences: &[Fence]) -> Result<Left, sqlx::Error> {
    let Keys { runs, steps, actions, attempts } = Keys::of(fences);
    let rows = sqlx::query(
        "-- fences_left\n\
         select f.run_id, f.step, f.action, f.attempt, f.namespace, f.completed_at is not null, f.output, f.external_id \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[]) as w(run_id, step, action, attempt) \
         join fences f on (f.run_id, f.step, f.action, f.attempt) = (w.run_id, w.step, w.action, w.attempt) \
         where f.revoked_at is null and f.closed_at is null",
    )
    .bind(&runs)
    .bind(&steps)
    .bind(&actions)
    .bind(&attempts)
    .fetch_all(connection)
    .await?;
    let mut left = Left::new();
    for row in &rows {
        let (run, task) = fence(row)?;
        let completed: bool = row.try_get(5)?;
        let completion = completed.then(|| completion(row)).transpose()?;
        left.entry(run).or_default().push((task, completion));
    }
    Ok(left)
}

/// Attempts that were completed and are not part of the journal yet, by namespace.
const WAITING: Waiting = Waiting {
    table: "fences",
    when: "completed_at is not null and closed_at is null",
    by: "completed_at",
    due: "true",
    spaces: 64,
};

/// Returns the statement `fences_completed`.
pub(crate) fn fences_completed() -> String {
    format!(
        "-- fences_completed\n{}, \
         found as (select f.* from due d \
           left join unnest($5::text[], $6::bigint[]) as c(namespace, stayed) on c.namespace = d.namespace \
           cross join lateral (select * from fences f where f.namespace = d.namespace \
             and f.completed_at is not null and f.closed_at is null and (f.completed_at <= $2 or f.completed_at > $3) \
             order by f.completed_at, f.run_id, f.step, f.action, f.attempt \
             limit {} offset coalesce(c.stayed, 0)) f) \
         select t.last, f.run_id, f.step, f.action, f.attempt, f.namespace, f.output, f.external_id \
         from turn t left join found f on true",
        WAITING.due_spaces(),
        share("$4"),
    )
}

/// Finds attempts that were completed before `before`, oldest first, and are not part of the journal yet, in turns
/// between the namespaces after `after`. Attempts completed after `now` were completed while the database's clock was
/// wrong, and are included. At most `limit`, without the `stayed` oldest of each namespace. A row that cannot be read
/// delays no other.
pub(crate) async fn completed(
    connection: &mut PgConnection,
    (before, now): (Time, Time),
    limit: i64,
    after: &str,
    stayed: &BTreeMap<String, i64>,
) -> Result<Found<Completed>, sqlx::Error> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(fences_completed()))
        .bind(after)
        .bind(Moment(before))
        .bind(Moment(now))
        .bind(limit)
        .bind(stayed.keys().cloned().collect::<Vec<String>>())
        .bind(stayed.values().copied().collect::<Vec<i64>>())
        .fetch_all(connection)
        .await?;
    Found::read(&rows, |row| {
        let (run, namespace): (Uuid, String) = (row.try_get(1)?, row.try_get(5)?);
        // Without an output there is nothing that could be read: it is what it is when the text is no JSON.
        let output: Option<String> = row.try_get(6)?;
        let completion = Completion {
            namespace: namespace.clone(),
            output: output.unwrap_or_default(),
            external_id: row.try_get(7)?,
        };
        Ok(match fence_from(row, 1) {
            Ok(fence) => Ok((fence, completion)),
            Err(why) => Err(Unreadable { namespace, run: RunId(run), why: why.to_string() }),
        })
    })
}

/// Closes attempts whose end is in the journal: one that its worker completed is remembered for a while without its
/// output, the others are deleted. One that a worker has locked stays, and is found later.
pub(crate) async fn close(
    connection: &mut PgConnection,
    fences: &[Fence],
    at: Time,
) -> Result<(), sqlx::Error> {
    let keys = Keys::of(fences);
    sqlx::query(
        "-- fences_close\n\
         with ours as materialized (select f.run_id, f.step, f.action, f.attempt, f.completed_at \
         from unnest($1::uuid[], $2::text[], $3::text[], $4::integer[]) as w(run_id, step, action, attempt) \
         join fences f on (f.run_id, f.step, f.action, f.attempt) = (w.run_id, w.step, w.action, w.attempt) \
         for update of f skip locked), \
         kept as (update fences f set closed_at = $5, output = null from ours x where x.completed_at is not null \
         and (f.run_id, f.step, f.action, f.attempt) = (x.run_id, x.step, x.action, x.attempt)) \
         delete from fences f using ours x where x.completed_at is null \
         and (f.run_id, f.step, f.action, f.attempt) = (x.run_id, x.step, x.action, x.attempt)",
    )
    .bind(keys.runs)
    .bind(keys.steps)
    .bind(keys.actions)
    .bind(keys.attempts)
    .bind(Moment(at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes fences that were revoked before `revoked`, and those that were closed before `closed`, at most `limit` of
/// each. Returns their number.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    revoked: Time,
    closed: Time,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "-- fences_forget\n\
         delete from fences where ctid = any(array(select ctid from fences \
         where revoked_at < $1 order by revoked_at limit $3 for update skip locked)) \
         or ctid = any(array(select ctid from fences \
         where closed_at < $2 order by closed_at limit $3 for update skip locked))",
    )
    .bind(Moment(revoked))
    .bind(Moment(closed))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

fn fence(row: &PgRow) -> Result<Fence, sqlx::Error> {
    fence_from(row, 0)
}

fn fence_from(row: &PgRow, first: usize) -> Result<Fence, sqlx::Error> {
    let run: Uuid = row.try_get(first)?;
    let (step, action): (String, String) = (row.try_get(first + 1)?, row.try_get(first + 2)?);
    let attempt: i32 = row.try_get(first + 3)?;
    let bad = |column: &str, detail: &str| {
        sqlx::Error::Decode(format!("table fences, run {run}, column {column}: {detail}").into())
    };
    let path: StepPath = step.parse().map_err(|_| bad("step", &step))?;
    let action = [Action::Forward, Action::Compensate]
        .into_iter()
        .find(|known| known.as_str() == action)
        .ok_or_else(|| bad("action", &action))?;
    let attempt = u32::try_from(attempt).map_err(|_| bad("attempt", "negative"))?;
    Ok((RunId(run), TaskKey { step: path, action, attempt }))
}

fn completion(row: &PgRow) -> Result<Completion, sqlx::Error> {
    let output: Option<String> = row.try_get(6)?;
    Ok(Completion {
        namespace: row.try_get(4)?,
        output: output.unwrap_or_default(),
        external_id: row.try_get(7)?,
    })
}
