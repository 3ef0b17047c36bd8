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

/// Keeps a signal, unless one of its name is kept already. Answers the data that is kept then, and whose it is.
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

/// Place of a signal in its namespace: workflow, key, signal.
pub(crate) type SignalPlace = (String, String, String);

/// What one look at early signals found.
#[derive(Debug, Default)]
pub(crate) struct Deliverable {
    pub(crate) found: Vec<(RunId, EarlySignal)>,
    /// Namespaces that were looked at, with the place of the last signal where more may follow.
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
             select e.workflow, e.key, e.signal, e.data, e.actor from early_signals e where e.namespace = d.namespace \
             and (e.workflow, e.key, e.signal) > (coalesce(c.workflow, ''), coalesce(c.key, ''), coalesce(c.signal, '')) \
             order by e.workflow, e.key, e.signal limit $2) w left join lateral (select k.run_id from run_keys k \
               where (k.namespace, k.key, k.workflow) = (d.namespace, w.key, w.workflow)) k on true \
             order by w.workflow, w.key, w.signal) f where f.run_id is not null or f.is_last) \
         select t.last, d.namespace, f.run_id, f.workflow, f.key, f.signal, f.data, f.actor, f.is_last from turn t \
         left join due d on true left join found f on f.namespace = d.namespace order by d.namespace",
        WAITING.due_spaces(),
    )
}

/// Finds signals whose runs have been started meanwhile among `limit` of each namespace after `after`, beginning there
/// behind its place in `places`.
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
    for (namespace, signal) in rows {
        let is_last = signal.as_ref().is_some_and(|(_, _, is_last)| *is_last);
        let place = signal
            .as_ref()
            .filter(|_| is_last)
            .map(|(_, early, _)| (early.workflow.clone(), early.key.clone(), early.signal.clone()));
        match looked.places.last_mut() {
            Some((known, before)) if *known == namespace => *before = place.or(before.take()),
            _ => looked.places.push((namespace, place)),
        }
        looked.found.extend(signal.and_then(|(run, early, _)| Some((run?, early))));
    }
    Ok(looked)
}

type LookedAt = (String, Option<(Option<RunId>, EarlySignal, bool)>);

fn looked_at(row: &PgRow) -> Result<LookedAt, sqlx::Error> {
    let namespace: String = row.try_get(1)?;
    let Some(workflow) = row.try_get::<Option<String>, _>(3)? else { return Ok((namespace, None)) };
    let run: Option<Uuid> = row.try_get(2)?;
    let early = EarlySignal {
        namespace: namespace.clone(),
        workflow,
        key: row.try_get(4)?,
        signal: row.try_get(5)?,
        data: row.try_get(6)?,
        actor: row.try_get(7)?,
    };
    Ok((namespace, Some((run.map(RunId), early, row.try_get(8)?))))
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
