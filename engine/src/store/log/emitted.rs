//! Events that runs emitted, on their way to the log.

use backstitch_saga::{RunId, Time};
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use crate::store::moment::Moment;
use crate::store::spaces::{Found, Waiting};

/// Namespaces of one turn.
const SPACES: usize = 64;

/// Events that were emitted, by namespace.
const WAITING: Waiting =
    Waiting { table: "emitted", when: "true", by: "id", due: "true", spaces: SPACES };

/// Returns the statement that finds namespaces with events on their way.
fn emitted_due() -> String {
    format!(
        "-- emitted_due\n{} select t.last, d.namespace from turn t left join due d on true",
        WAITING.due_spaces()
    )
}

/// An event that a run emitted.
#[derive(Debug)]
pub(crate) struct EmittedRow {
    pub(crate) id: i64,
    pub(crate) run: RunId,
    pub(crate) seq: i32,
    pub(crate) place: i32,
    pub(crate) at: Time,
    pub(crate) event: String,
    pub(crate) data: String,
}

/// Finds namespaces after `after` with events on their way.
pub(crate) async fn due(
    connection: &mut PgConnection,
    after: &str,
) -> Result<Found<String>, sqlx::Error> {
    let rows = sqlx::query(AssertSqlSafe(emitted_due())).bind(after).fetch_all(connection).await?;
    Found::read(&rows, |row| row.try_get(1))
}

/// Returns the last event of a namespace that is on its way.
pub(crate) async fn last(
    connection: &mut PgConnection,
    namespace: &str,
) -> Result<Option<i64>, sqlx::Error> {
    sqlx::query_scalar("-- emitted_last\nselect max(id) from emitted where namespace = $1")
        .bind(namespace)
        .fetch_one(connection)
        .await
}

/// Returns the first events of a namespace in the order in which they were emitted: at most `limit` and about `bytes`,
/// but one at least.
pub(crate) async fn first(
    connection: &mut PgConnection,
    namespace: &str,
    (limit, bytes): (i64, i64),
) -> Result<Vec<EmittedRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- emitted_first\n\
         select id, run_id, seq, place, at, event, data from \
           (select f.*, sum(octet_length(data) + 512) over (order by id) - octet_length(data) - 512 as before from \
             (select * from emitted where namespace = $1 order by id limit $2) f) b \
         where before < $3 order by id",
    )
    .bind(namespace)
    .bind(limit)
    .bind(bytes)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let run: Uuid = row.try_get(1)?;
            let Moment(at) = row.try_get(4)?;
            Ok(EmittedRow {
                id: row.try_get(0)?,
                run: RunId(run),
                seq: row.try_get(2)?,
                place: row.try_get(3)?,
                at,
                event: row.try_get(5)?,
                data: row.try_get(6)?,
            })
        })
        .collect()
}

/// Deletes events that are in the log.
pub(crate) async fn taken(
    connection: &mut PgConnection,
    namespace: &str,
    ids: &[i64],
) -> Result<(), sqlx::Error> {
    sqlx::query("-- emitted_taken\ndelete from emitted where namespace = $1 and id = any($2)")
        .bind(namespace)
        .bind(ids)
        .execute(connection)
        .await
        .map(drop)
}
