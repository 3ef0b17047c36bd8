//! Quotas of namespaces, and counts of what they limit.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::moment::Moment;

/// A line of the table `quotas`.
#[derive(Clone, Debug)]
pub(crate) struct QuotasRow {
    pub(crate) namespace: String,
    /// JSON.
    pub(crate) limits: String,
    pub(crate) changed_at: Time,
    pub(crate) changed_by: String,
}

/// Sets the quotas of a namespace.
pub(crate) async fn set(connection: &mut PgConnection, row: &QuotasRow) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- quotas_set\n\
         insert into quotas (namespace, limits, changed_at, changed_by) values ($1, $2, $3, $4) \
         on conflict (namespace) do update set limits = excluded.limits, changed_at = excluded.changed_at, \
         changed_by = excluded.changed_by",
    )
    .bind(&row.namespace)
    .bind(&row.limits)
    .bind(Moment(row.changed_at))
    .bind(&row.changed_by)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the quotas of all namespaces that have some.
pub(crate) async fn all(connection: &mut PgConnection) -> Result<Vec<QuotasRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- quotas_all\n\
         select namespace, limits, changed_at, changed_by from quotas",
    )
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let Moment(changed_at) = row.try_get(2)?;
            let (namespace, limits, changed_by) =
                (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
            Ok(QuotasRow { namespace, limits, changed_at, changed_by })
        })
        .collect()
}

/// Something that a quota limits and the database counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Counted {
    Runs,
    Definitions,
    Schedules,
    EarlySignals,
    KeptAnswers,
}

impl Counted {
    fn statement(self) -> &'static str {
        match self {
            Counted::Runs => {
                "-- quotas_runs\n\
                 select count(*) from (select 1 from runs where namespace = $1 and state <> 'ended' limit $2) n"
            }
            Counted::Definitions => {
                "-- quotas_definitions\n\
                 select count(*) from (select 1 from definitions where namespace = $1 limit $2) n"
            }
            Counted::Schedules => {
                "-- quotas_schedules\n\
                 select count(*) from (select 1 from schedules where namespace = $1 limit $2) n"
            }
            Counted::EarlySignals => {
                "-- quotas_early_signals\n\
                 select count(*) from (select 1 from early_signals where namespace = $1 limit $2) n"
            }
            Counted::KeptAnswers => {
                "-- quotas_kept_answers\n\
                 select count(*) from (select 1 from idempotency_keys where namespace = $1 limit $2) n"
            }
        }
    }
}

/// Counts what a namespace has, up to `most`.
pub(crate) async fn count(
    connection: &mut PgConnection,
    namespace: &str,
    counted: Counted,
    most: i64,
) -> Result<u32, sqlx::Error> {
    let count: i64 = sqlx::query_scalar(counted.statement())
        .bind(namespace)
        .bind(most)
        .fetch_one(connection)
        .await?;
    Ok(u32::try_from(count).unwrap_or(u32::MAX))
}
