//! Erasing runs: the table `erasures`, and what is deleted or emptied in the others.

use backstitch_saga::{RunId, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;

/// Number of kept responses that one statement searches.
const ANSWERS: i64 = 1_000;

/// Keys that are forgotten with one statement, and how often that is done in a row.
const KEYS: i64 = 1_000;
const PAGES: usize = 100;

/// A run that is being erased.
#[derive(Clone, Debug)]
pub(crate) struct Erasure {
    pub(crate) run: RunId,
    pub(crate) namespace: String,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) passes: i16,
}

/// Reads the run that `run` is a step of, if that is still there.
pub(crate) async fn parent(
    connection: &mut PgConnection,
    run: RunId,
) -> Result<Option<RunId>, sqlx::Error> {
    let found: Option<Uuid> = sqlx::query_scalar(
        "-- erasures_parent\n\
         select p.id from runs p where p.id = \
         (select substring(j.events from '\"parent\":\\{\"run\":\"([0-9a-f-]{36})\"')::uuid \
          from journal j where j.run_id = $1 and j.seq = 1)",
    )
    .bind(run.0)
    .fetch_optional(connection)
    .await?;
    Ok(found.map(RunId))
}

/// Reads the runs that `runs` have as steps and that are there, at most `limit`; `true` for those that have ended.
pub(crate) async fn children(
    connection: &mut PgConnection,
    runs: &[Uuid],
    limit: i64,
) -> Result<Vec<(Uuid, bool)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- erasures_children\n\
         select r.id, r.state = 'ended' from runs r where r.id in (\
         select m[1]::uuid from journal j cross join lateral \
         regexp_matches(j.events, '\"child_asked\":\\{[^{}]*\"run\":\"([0-9a-f-]{36})\"', 'g') as m \
         where j.run_id = any($1) and strpos(j.events, '\"child_asked\"') > 0) order by r.id limit $2",
    )
    .bind(runs)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Notes that runs are to be erased. One that is noted already stays so.
pub(crate) async fn ask(
    connection: &mut PgConnection,
    runs: &[Uuid],
    namespace: &str,
    at: Time,
    due: Time,
    (actor, reason): (&str, &str),
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- erasures_ask\n\
         insert into erasures (run_id, namespace, asked_at, actor, reason, due_at) \
         select id, $2, $3, $4, $5, $6 from unnest($1::uuid[]) as x(id) on conflict (run_id) do nothing",
    )
    .bind(runs)
    .bind(namespace)
    .bind(Moment(at))
    .bind(actor)
    .bind(reason)
    .bind(Moment(due))
    .execute(connection)
    .await?;
    Ok(())
}

/// Reads at most `limit` erasures that are due, and has other nodes leave them alone until `until`.
pub(crate) async fn due(
    connection: &mut PgConnection,
    now: Time,
    until: Time,
    limit: i64,
) -> Result<Vec<Erasure>, sqlx::Error> {
    let rows = sqlx::query(
        "-- erasures_due\n\
         update erasures e set due_at = $2 where e.run_id in \
         (select run_id from erasures where due_at <= $1 order by due_at limit $3 for update skip locked) \
         returning run_id, namespace, actor, reason, passes",
    )
    .bind(Moment(now))
    .bind(Moment(until))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let erasure = |row: &PgRow| {
        Ok(Erasure {
            run: RunId(row.try_get(0)?),
            namespace: row.try_get(1)?,
            actor: row.try_get(2)?,
            reason: row.try_get(3)?,
            passes: row.try_get(4)?,
        })
    };
    rows.iter().map(erasure).collect()
}

/// Reads the next `limit` runs that are being erased after one of them.
pub(crate) async fn page(
    connection: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "-- erasures_page\nselect run_id from erasures where run_id > $1 order by run_id limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Forgets an erasure: it is done, or was refused.
pub(crate) async fn forget(connection: &mut PgConnection, run: RunId) -> Result<(), sqlx::Error> {
    sqlx::query("-- erasures_forget\ndelete from erasures where run_id = $1")
        .bind(run.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Notes that everything of the run was erased once; it is checked again at `due`.
pub(crate) async fn passed(
    connection: &mut PgConnection,
    run: RunId,
    due: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- erasures_passed\nupdate erasures set passes = 1, due_at = $2 where run_id = $1",
    )
    .bind(run.0)
    .bind(Moment(due))
    .execute(connection)
    .await?;
    Ok(())
}

/// Rewrites records of a run, their events and their documents, and deletes the notes of people about it, by a function
/// of the owner.
pub(crate) async fn rewrite_records(
    connection: &mut PgConnection,
    run: RunId,
    seqs: &[i32],
    events: &[String],
    payloads: &[Option<String>],
) -> Result<(), sqlx::Error> {
    sqlx::query("-- erasures_records\nselect backstitch.erase_run($1, $2, $3, $4)")
        .bind(run.0)
        .bind(seqs)
        .bind(events)
        .bind(payloads)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes the snapshots of a run; its journal says the same.
pub(crate) async fn forget_snapshots(
    connection: &mut PgConnection,
    run: RunId,
) -> Result<(), sqlx::Error> {
    sqlx::query("-- erasures_snapshots\ndelete from snapshots where run_id = $1")
        .bind(run.0)
        .execute(connection)
        .await?;
    Ok(())
}

/// Deletes or empties all that is kept of a run beside its journal and its indexes.
pub(crate) async fn empty_the_rest(
    connection: &mut PgConnection,
    namespace: &str,
    run: RunId,
) -> Result<(), sqlx::Error> {
    forget_snapshots(connection, run).await?;
    for text in [
        // Keys first: they are found by what the index still says.
        "-- erasures_signals\n\
         delete from early_signals s using runs r where r.id = $1 and r.namespace = $2 \
         and (s.namespace, s.workflow, s.key) = (r.namespace, r.workflow, r.key)",
        // In one statement, so that no start finds neither.
        "-- erasures_key\n\
         with gone as (delete from run_keys k using runs r where r.id = $1 and r.namespace = $2 \
           and (k.namespace, k.workflow, k.key) = (r.namespace, r.workflow, r.key) and k.run_id = r.id \
           returning k.namespace, k.workflow, k.key, k.run_id) \
         insert into erased_keys (namespace, digest, run_id) \
         select namespace, backstitch.key_digest(namespace, workflow, key), run_id from gone on conflict do nothing",
        "-- erasures_start_requests\ndelete from start_requests where run_id = $1 and namespace = $2",
        "-- erasures_fences\ndelete from fences where run_id = $1 and $2 <> ''",
        "-- erasures_plans\ndelete from compensation_plans where run_id = $1 and $2 <> ''",
        "-- erasures_assignees\ndelete from incident_assignees where run_id = $1 and $2 <> ''",
        "-- erasures_required\ndelete from required where run_id = $1 and $2 <> ''",
        "-- erasures_promised\ndelete from promised where run_id = $1 and $2 <> ''",
        "-- erasures_awaited\ndelete from awaited where run_id = $1 and $2 <> ''",
        "-- erasures_sequenced\nupdate sequenced set start_key = null where run_id = $1 and $2 <> ''",
        "-- erasures_job_items\n\
         update job_items set message = null where run_id = $1 and message is not null \
         and job_id in (select id from jobs where namespace = $2)",
        "-- erasures_migrated\n\
         update migrated_runs set message = null where run_id = $1 and namespace = $2 \
         and migration in (select id from migrations where namespace = $2)",
        // Rows that the rewriting of the indexes restores, should the journal not fold.
        "-- erasures_run\n\
         update runs set key = null, correlation_id = null, labels = null where id = $1 and namespace = $2",
        "-- erasures_incidents\n\
         update incidents set message = '', fingerprint = '' where run_id = $1 and namespace = $2",
    ] {
        sqlx::query(text).bind(run.0).bind(namespace).execute(&mut *connection).await?;
    }
    Ok(())
}

/// Deletes the keys of erased runs without a journal.
pub(crate) async fn forget_keys(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    for _ in 0..PAGES {
        let done = sqlx::query(
            "-- erasures_forget_keys\n\
             delete from erased_keys where (namespace, digest) in (select e.namespace, e.digest from erased_keys e \
             where not exists (select 1 from journal j where j.run_id = e.run_id and j.seq = 1) limit $1)",
        )
        .bind(KEYS)
        .execute(&mut *connection)
        .await?;
        if done.rows_affected() < KEYS.unsigned_abs() {
            break;
        }
    }
    Ok(())
}

/// Empties the next kept responses that name a run; a repeat gets the error of an erased run. Returns the last one that
/// it checked, if there may be more.
pub(crate) async fn empty_answers(
    connection: &mut PgConnection,
    namespace: &str,
    run: RunId,
    after: &[u8],
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    let row = sqlx::query(
        "-- erasures_answers\n\
         with page as (select scope, position(convert_to($3, 'UTF8') in coalesce(body, '')) > 0 as names_it \
           from idempotency_keys where namespace = $1 and scope > $2 order by scope limit $4), \
         emptied as (update idempotency_keys k set body = null, erased = true from page p \
           where p.names_it and k.namespace = $1 and k.scope = p.scope returning 1) \
         select (select scope from page order by scope desc limit 1), (select count(*) from page), \
           (select count(*) from emptied)",
    )
    .bind(namespace)
    .bind(after)
    .bind(run.to_string())
    .bind(ANSWERS)
    .fetch_one(connection)
    .await?;
    let count: i64 = row.try_get(1)?;
    if count < ANSWERS { Ok(None) } else { row.try_get(0) }
}
