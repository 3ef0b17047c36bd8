//! Serial keys and their lines, and the runs that hold or await something.

use backstitch_saga::{RunId, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;
use super::spaces::{Found, Waiting, share};

/// Rows to which serial keys are hashed; a power of two. Nodes of all versions must agree on it.
const LOCKS: i64 = 1_024;

/// A run in the line of a serial key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) run: RunId,
    pub(crate) holding: bool,
    pub(crate) granted: bool,
    pub(crate) replaced_by: Option<RunId>,
    pub(crate) told: bool,
    pub(crate) since: Time,
}

/// Waits until no other transaction changes the line of a key; the lock ends with the transaction.
pub(crate) async fn lock_key(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
) -> Result<(), sqlx::Error> {
    while !take_lock(connection, namespace, key).await? {
        // A lost row is written again; its writer has the lock.
        let written = sqlx::query(
            "-- serial_keys_lock_make\n\
             insert into serial_key_locks (bucket) values ((hashtextextended($1 || ' ' || $2, 7) & $3)::integer) \
             on conflict do nothing",
        )
        .bind(namespace)
        .bind(key)
        .bind(LOCKS - 1)
        .execute(&mut *connection)
        .await?;
        if written.rows_affected() > 0 {
            break;
        }
    }
    Ok(())
}

/// Locks the row of a key; `false` when there is none.
async fn take_lock(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
) -> Result<bool, sqlx::Error> {
    let found = sqlx::query(
        "-- serial_keys_lock\n\
         select bucket from serial_key_locks where bucket = (hashtextextended($1 || ' ' || $2, 7) & $3)::integer for update",
    )
    .bind(namespace)
    .bind(key)
    .bind(LOCKS - 1)
    .fetch_optional(connection)
    .await?;
    Ok(found.is_some())
}

/// Returns the line of a key, in order.
pub(crate) async fn line(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
    limit: i64,
) -> Result<Vec<Place>, sqlx::Error> {
    let rows = sqlx::query(
        "-- serial_keys_line\n\
         select run_id, state = 'holding', granted, replaced_by, told, since from serial_keys \
         where namespace = $1 and key = $2 order by place limit $3",
    )
    .bind(namespace)
    .bind(key)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(place).collect()
}

/// Returns, of the line of a key, who holds it, and the first that was not replaced.
pub(crate) async fn head(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
) -> Result<Vec<Place>, sqlx::Error> {
    let rows = sqlx::query(
        "-- serial_keys_head\n\
         select run_id, state = 'holding', granted, replaced_by, told, since from serial_keys \
         where namespace = $1 and key = $2 and (state = 'holding' or place = (select k.place from serial_keys k \
           where k.namespace = $1 and k.key = $2 and k.replaced_by is null order by k.place limit 1)) order by place",
    )
    .bind(namespace)
    .bind(key)
    .fetch_all(connection)
    .await?;
    rows.iter().map(place).collect()
}

/// Returns the holder of a key, and those who were in line before a run and were not replaced.
pub(crate) async fn before(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
    run: RunId,
) -> Result<Vec<Place>, sqlx::Error> {
    let rows = sqlx::query(
        "-- serial_keys_before\n\
         select run_id, state = 'holding', granted, replaced_by, told, since from serial_keys k \
         where namespace = $1 and key = $2 and run_id <> $3 and (state = 'holding' or (replaced_by is null \
           and place < (select own.place from serial_keys own where own.run_id = $3))) order by place",
    )
    .bind(namespace)
    .bind(key)
    .bind(run.0)
    .fetch_all(connection)
    .await?;
    rows.iter().map(place).collect()
}

/// Returns the runs in the line of a key with a pending notification.
pub(crate) async fn untold(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
) -> Result<Vec<Place>, sqlx::Error> {
    let rows = sqlx::query(
        "-- serial_keys_untold\n\
         select run_id, state = 'holding', granted, replaced_by, told, since from serial_keys \
         where namespace = $1 and key = $2 and ((state = 'holding' and not granted) \
         or (replaced_by is not null and not told)) order by place",
    )
    .bind(namespace)
    .bind(key)
    .fetch_all(connection)
    .await?;
    rows.iter().map(place).collect()
}

/// Returns the run that a caller's own key is about to start in the line of a serial key.
pub(crate) async fn twin(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
    (workflow, start_key): (&str, &str),
) -> Result<Option<RunId>, sqlx::Error> {
    let run: Option<Uuid> = sqlx::query_scalar(
        "-- serial_keys_twin\n\
         select k.run_id from sequenced s join serial_keys k on k.run_id = s.run_id \
         where s.namespace = $1 and s.start_key = $4 and s.workflow = $3 and k.key = $2 limit 1",
    )
    .bind(namespace)
    .bind(key)
    .bind(workflow)
    .bind(start_key)
    .fetch_optional(connection)
    .await?;
    Ok(run.map(RunId))
}

fn place(row: &PgRow) -> Result<Place, sqlx::Error> {
    let replaced_by: Option<Uuid> = row.try_get(3)?;
    let Moment(since) = row.try_get(5)?;
    Ok(Place {
        run: RunId(row.try_get(0)?),
        holding: row.try_get(1)?,
        granted: row.try_get(2)?,
        replaced_by: replaced_by.map(RunId),
        told: row.try_get(4)?,
        since,
    })
}

/// Puts a run at the end of a line, and marks those that it replaces.
pub(crate) async fn enter(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
    run: RunId,
    holding: bool,
    replaced: &[Uuid],
    at: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- serial_keys_enter\n\
         with replaced as (update serial_keys set replaced_by = $3 where run_id = any($5)), \
         holder as (insert into serial_key_holders (namespace, key, run_id, since) select $1, $2, $3, $6 where $4 = 'holding' \
           on conflict (namespace, key) do update set run_id = excluded.run_id, since = excluded.since) \
         insert into serial_keys (namespace, key, run_id, state, since) values ($1, $2, $3, $4, $6)",
    )
    .bind(namespace)
    .bind(key)
    .bind(run.0)
    .bind(if holding { "holding" } else { "waiting" })
    .bind(replaced)
    .bind(Moment(at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the keys that runs hold or wait for.
pub(crate) async fn keys_of(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<(RunId, String, String)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- serial_keys_of_runs\n\
         select run_id, namespace, key from serial_keys where run_id = any($1) \
         union select run_id, namespace, key from serial_key_holders where run_id = any($1)",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((RunId(row.try_get(0)?), row.try_get(1)?, row.try_get(2)?))).collect()
}

/// Returns the lines of these runs in which they have a pending notification, or are to get the
/// key.
pub(crate) async fn lines_that_move(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- serial_keys_that_move\n\
         select distinct k.namespace, k.key from serial_keys k where k.run_id = any($1) \
         and ((k.state = 'holding' and not k.granted) or (k.replaced_by is not null and not k.told) \
         or (k.state = 'waiting' and k.replaced_by is null \
           and not exists (select 1 from awaited a where a.run_id = k.run_id) \
           and not exists (select 1 from serial_keys h join sequenced s on s.run_id = h.run_id \
             where h.namespace = k.namespace and h.key = k.key and h.state = 'holding')))",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Lines with pending notifications, by namespace.
const TO_TELL: Waiting = Waiting {
    table: "serial_keys",
    when: "((state = 'holding' and not granted) or (replaced_by is not null and not told))",
    by: "key",
    due: "true",
    spaces: 64,
};

/// Returns the statement `serial_keys_to_tell`.
pub(crate) fn serial_keys_to_tell() -> String {
    format!(
        "-- serial_keys_to_tell\n{}, \
         found as (select k.* from due d cross join lateral (select k.namespace, k.key from serial_keys k \
           where k.namespace = d.namespace and ((k.state = 'holding' and not k.granted) \
             or (k.replaced_by is not null and not k.told)) and k.since < $2 order by k.key, k.since limit {}) k) \
         select t.last, f.namespace, f.key from turn t left join found f on true",
        TO_TELL.due_spaces(),
        share("$3"),
    )
}

/// Finds keys whose line has had a pending notification since before `before`, in turns between the namespaces after
/// `after`.
pub(crate) async fn to_tell(
    connection: &mut PgConnection,
    before: Time,
    limit: i64,
    after: &str,
) -> Result<Found<(String, String)>, sqlx::Error> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(serial_keys_to_tell()))
        .bind(after)
        .bind(Moment(before))
        .bind(limit)
        .fetch_all(connection)
        .await?;
    Found::read(&rows, |row| Ok((row.try_get(1)?, row.try_get(2)?)))
}

/// Takes a run out of its line.
pub(crate) async fn leave(connection: &mut PgConnection, run: RunId) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- serial_keys_leave\n\
         with holder as (delete from serial_key_holders where run_id = $1) delete from serial_keys where run_id = $1",
    )
    .bind(run.0)
    .execute(connection)
    .await?;
    Ok(())
}

/// Records the notifications of runs in a line.
pub(crate) async fn told(
    connection: &mut PgConnection,
    granted: &[Uuid],
    replaced: &[Uuid],
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- serial_keys_told\n\
         update serial_keys set granted = granted or run_id = any($1), told = told or run_id = any($2) \
         where run_id = any($1 || $2)",
    )
    .bind(granted)
    .bind(replaced)
    .execute(connection)
    .await?;
    Ok(())
}

/// State of a run that holds or awaits something.
pub(crate) struct Standing {
    pub(crate) run: RunId,
    pub(crate) namespace: String,
    pub(crate) since: Time,
    /// It had ended before.
    pub(crate) reopened: bool,
    /// `None` when there is no such run.
    pub(crate) state: Option<String>,
    pub(crate) outcome: Option<String>,
    pub(crate) conditions: Vec<String>,
}

/// Returns the state of those of `runs` that hold or await something, in order of their ids.
pub(crate) async fn standing(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<Standing>, sqlx::Error> {
    let rows = sqlx::query(
        "-- sequenced_standing\n\
         select s.run_id, s.namespace, s.since, s.reopened, r.state, r.outcome, r.conditions from \
         (select * from sequenced where run_id = any($1)) s \
         left join lateral (select * from runs r where r.id = s.run_id) r on true",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    let mut found: Vec<Standing> =
        rows.iter().map(|row| standing_from(row, 0)).collect::<Result<_, sqlx::Error>>()?;
    found.sort_by_key(|one| one.run);
    Ok(found)
}

/// Runs that hold or await something, by namespace.
const SEQUENCED: Waiting =
    Waiting { table: "sequenced", when: "true", by: "run_id", due: "true", spaces: 64 };

/// Returns the statement `sequenced_all_standing`.
pub(crate) fn sequenced_all_standing() -> String {
    format!(
        "-- sequenced_all_standing\n{}, \
         found as (select s.* from due d \
           left join unnest($3::text[], $4::uuid[]) as c(namespace, run_id) on c.namespace = d.namespace \
           cross join lateral (select s.* from sequenced s where s.namespace = d.namespace \
             and s.run_id > coalesce(c.run_id, '00000000-0000-0000-0000-000000000000'::uuid) \
             order by s.run_id limit {}) s) \
         select t.last, s.run_id, s.namespace, s.since, s.reopened, r.state, r.outcome, r.conditions from turn t \
         left join found s on true left join lateral (select * from runs r where r.id = s.run_id) r on true",
        SEQUENCED.due_spaces(),
        share("$2"),
    )
}

/// Returns the state of runs that hold or await something, in turns between the namespaces after `after`, beginning in
/// each after its place in `places`. At most `limit`, and one of each namespace.
pub(crate) async fn all_standing(
    connection: &mut PgConnection,
    limit: i64,
    after: &str,
    places: &[(String, Uuid)],
) -> Result<Found<Standing>, sqlx::Error> {
    let (namespaces, runs): (Vec<&str>, Vec<Uuid>) =
        places.iter().map(|(namespace, run)| (namespace.as_str(), *run)).unzip();
    let rows = sqlx::query(sqlx::AssertSqlSafe(sequenced_all_standing()))
        .bind(after)
        .bind(limit)
        .bind(namespaces)
        .bind(runs)
        .fetch_all(connection)
        .await?;
    Found::read(&rows, |row| standing_from(row, 1))
}

fn standing_from(row: &PgRow, first: usize) -> Result<Standing, sqlx::Error> {
    let Moment(since) = row.try_get(first + 2)?;
    let conditions: Option<Vec<String>> = row.try_get(first + 6)?;
    Ok(Standing {
        run: RunId(row.try_get(first)?),
        namespace: row.try_get(first + 1)?,
        since,
        reopened: row.try_get(first + 3)?,
        state: row.try_get(first + 4)?,
        outcome: row.try_get(first + 5)?,
        conditions: conditions.unwrap_or_default(),
    })
}

/// Lists runs after `after` that wait for their turn although no row says so, at most `limit`, in order of
/// their ids.
pub(crate) async fn unplaced(
    connection: &mut PgConnection,
    after: Uuid,
    limit: i64,
) -> Result<Vec<(RunId, String)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- runs_unplaced\n\
         select r.id, r.namespace from runs r where r.id > $1 and r.state <> 'ended' and r.conditions <> '{}' \
         and r.conditions && '{KeyBlocked,DependencyUnmet}' and not r.conditions && '{StartDelayed}' \
         and not exists (select 1 from sequenced s where s.run_id = r.id) order by r.id limit $2",
    )
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((RunId(row.try_get(0)?), row.try_get(1)?))).collect()
}

/// Forgets these runs, for which nothing is left to do, unless they move again since.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    runs: &[Uuid],
    reopened: bool,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- sequenced_forget\n\
         with no_longer_awaited as (delete from awaited where run_id = any($1)), \
         no_longer_promised as (delete from promised where run_id = any($1)), \
         no_longer_required as (delete from required where run_id = any($1)) \
         delete from sequenced where run_id = any($1) and reopened = $2",
    )
    .bind(runs)
    .bind(reopened)
    .execute(connection)
    .await?;
    Ok(())
}
