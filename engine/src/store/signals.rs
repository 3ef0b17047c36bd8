//! Signals that wait for the run of their business key.

use backstitch_saga::RunId;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::spaces::{Found, Waiting};

/// A signal for the run of a business key.
#[derive(Clone, Debug)]
pub(crate) struct EarlySignal {
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) key: String,
    pub(crate) signal: String,
    /// JSON text.
    pub(crate) data: String,
    pub(crate) actor: String,
}

/// Keeps a signal, unless one of its name is kept already. Returns the data that is kept then, and whose it is.
pub(crate) async fn keep(
    connection: &mut PgConnection,
    early: &EarlySignal,
) -> Result<(String, String), sqlx::Error> {
    let row = sqlx::query(
        "-- early_signals_keep\n\
         insert into early_signals as e (namespace, workflow, key, signal, data, actor) \
         values ($1, $2, $3, $4, $5, $6) \
         on conflict (namespace, workflow, key, signal) do update set actor = e.actor \
         returning data, actor",
    )
    .bind(&early.namespace)
    .bind(&early.workflow)
    .bind(&early.key)
    .bind(&early.signal)
    .bind(&early.data)
    .bind(&early.actor)
    .fetch_one(connection)
    .await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

/// Early signals, by namespace.
const WAITING: Waiting =
    Waiting { table: "early_signals", when: "true", by: "workflow", due: "true", spaces: 64 };

/// The business key of a run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct KeyOf {
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) key: String,
}

/// Place of a signal in its namespace: workflow, key, signal.
pub(crate) type SignalPlace = (String, String, String);

/// Result of one look at early signals.
#[derive(Debug, Default)]
pub(crate) struct Deliverable {
    /// Runs for which signals are kept, with their keys; each once.
    pub(crate) found: Vec<(RunId, KeyOf)>,
    /// Namespaces that were searched, with the place of the last signal if more may follow.
    pub(crate) places: Vec<(String, Option<SignalPlace>)>,
    /// The namespace after which more may follow.
    pub(crate) last: Option<String>,
}

/// Returns the statement `early_signals_deliverable`.
pub(crate) fn early_signals_deliverable() -> String {
    format!(
        "-- early_signals_deliverable\n{}, \
         found as (select d.namespace, f.* from due d \
           left join unnest($3::text[], $4::text[], $5::text[], $6::text[]) as c(namespace, workflow, key, signal) \
             on c.namespace = d.namespace \
           cross join lateral (select w.*, k.run_id, \
             row_number() over (order by w.workflow, w.key, w.signal) = $2 as is_last from (\
             select e.workflow, e.key, e.signal from early_signals e where e.namespace = d.namespace \
             and (e.workflow, e.key, e.signal) > (coalesce(c.workflow, ''), coalesce(c.key, ''), coalesce(c.signal, '')) \
             order by e.workflow, e.key, e.signal limit $2) w left join lateral (select k.run_id from run_keys k \
               where (k.namespace, k.key, k.workflow) = (d.namespace, w.key, w.workflow)) k on true \
             order by w.workflow, w.key, w.signal) f where f.run_id is not null or f.is_last) \
         select t.last, d.namespace, f.run_id, f.workflow, f.key, f.signal, f.is_last from turn t \
         left join due d on true left join found f on f.namespace = d.namespace order by d.namespace",
        WAITING.due_spaces(),
    )
}

/// Finds signals whose runs have been started since among `limit` of each namespace after `after`, beginning there
/// after its place in `places`.
pub(crate) async fn deliverable(
    connection: &mut PgConnection,
    limit: i64,
    after: &str,
    places: &[(String, SignalPlace)],
) -> Result<Deliverable, sqlx::Error> {
    let column =
        |one: fn(&(String, SignalPlace)) -> &str| places.iter().map(one).collect::<Vec<_>>();
    let rows = sqlx::query(sqlx::AssertSqlSafe(early_signals_deliverable()))
        .bind(after)
        .bind(limit)
        .bind(column(|(namespace, _)| namespace))
        .bind(column(|(_, place)| &place.0))
        .bind(column(|(_, place)| &place.1))
        .bind(column(|(_, place)| &place.2))
        .fetch_all(connection)
        .await?;
    let Found { rows, last } = Found::read(&rows, looked_at)?;
    let mut looked = Deliverable { last, ..Deliverable::default() };
    for LookedAt { namespace, signal, run, is_last } in rows {
        let place = signal.clone().filter(|_| is_last);
        match looked.places.last_mut() {
            Some((known, before)) if *known == namespace => *before = place.or(before.take()),
            _ => looked.places.push((namespace.clone(), place)),
        }
        if let (Some(run), Some((workflow, key, _))) = (run, signal)
            && looked.found.last().is_none_or(|(last, _)| *last != run)
        {
            looked.found.push((run, KeyOf { namespace, workflow, key }));
        }
    }
    Ok(looked)
}

/// A signal that was read, with its run, if that exists; and a flag: it is the last of a full page.
struct LookedAt {
    namespace: String,
    signal: Option<SignalPlace>,
    run: Option<RunId>,
    is_last: bool,
}

fn looked_at(row: &PgRow) -> Result<LookedAt, sqlx::Error> {
    let run: Option<Uuid> = row.try_get(2)?;
    let signal = match row.try_get::<Option<String>, _>(3)? {
        Some(workflow) => Some((workflow, row.try_get(4)?, row.try_get(5)?)),
        None => None,
    };
    let is_last = row.try_get::<Option<bool>, _>(6)? == Some(true);
    Ok(LookedAt { namespace: row.try_get(1)?, signal, run: run.map(RunId), is_last })
}

/// Returns the key of a run for which signals are kept; `None` when there are none.
pub(crate) async fn key_of(
    connection: &mut PgConnection,
    namespace: &str,
    run: RunId,
) -> Result<Option<KeyOf>, sqlx::Error> {
    let row = sqlx::query(
        "-- early_signals_key_of\n\
         select k.workflow, k.key from runs r \
         join run_keys k on (k.namespace, k.key, k.workflow, k.run_id) = (r.namespace, r.key, r.workflow, r.id) \
         where r.id = $1 and r.namespace = $2 and exists (select 1 from early_signals e \
           where (e.namespace, e.workflow, e.key) = (k.namespace, k.workflow, k.key))",
    )
    .bind(run.0)
    .bind(namespace)
    .fetch_optional(connection)
    .await?;
    let key = |row: PgRow| {
        let namespace = namespace.to_owned();
        Ok(KeyOf { namespace, workflow: row.try_get(0)?, key: row.try_get(1)? })
    };
    row.map(key).transpose()
}

/// Returns the signals that are kept for a key, in the order in which they came, `limit` of them.
pub(crate) async fn kept_for(
    connection: &mut PgConnection,
    of: &KeyOf,
    limit: i64,
) -> Result<Vec<EarlySignal>, sqlx::Error> {
    let rows = sqlx::query(
        "-- early_signals_kept_for\n\
         select signal, data, actor from early_signals where (namespace, workflow, key) = ($1, $2, $3) \
         order by at, signal limit $4",
    )
    .bind(&of.namespace)
    .bind(&of.workflow)
    .bind(&of.key)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let early = |row: &PgRow| {
        let KeyOf { namespace, workflow, key } = of.clone();
        Ok(EarlySignal {
            namespace,
            workflow,
            key,
            signal: row.try_get(0)?,
            data: row.try_get(1)?,
            actor: row.try_get(2)?,
        })
    };
    rows.iter().map(early).collect()
}

/// Forgets a signal that its run has, or refused.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    early: &EarlySignal,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- early_signals_forget\n\
         delete from early_signals \
         where (namespace, workflow, key, signal) = ($1, $2, $3, $4)",
    )
    .bind(&early.namespace)
    .bind(&early.workflow)
    .bind(&early.key)
    .bind(&early.signal)
    .execute(connection)
    .await?;
    Ok(())
}
