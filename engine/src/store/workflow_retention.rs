//! The table `workflow_retention`: retention of the ended runs of a workflow, where it differs from the server's.

use backstitch_saga::{Span, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::moment::Moment;

/// A workflow's own retention.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Own {
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    /// Retention of its ended runs; `None` for ever.
    pub(crate) keep: Option<Span>,
    pub(crate) changed_at: Time,
    pub(crate) changed_by: String,
    pub(crate) reason: String,
}

/// Reads at most `limit` workflows with a retention of their own after one of them.
pub(crate) async fn list(
    connection: &mut PgConnection,
    after: (&str, &str),
    limit: i64,
) -> Result<Vec<Own>, sqlx::Error> {
    let rows = sqlx::query(
        "-- workflow_retention_list\n\
         select namespace, workflow, keep_ms, changed_at, changed_by, reason from workflow_retention \
         where (namespace, workflow) > ($1, $2) order by namespace, workflow limit $3",
    )
    .bind(after.0)
    .bind(after.1)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(own_of).collect()
}

/// Finds the retention of one workflow, if it has one of its own.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
) -> Result<Option<Own>, sqlx::Error> {
    let row = sqlx::query(
        "-- workflow_retention_find\n\
         select namespace, workflow, keep_ms, changed_at, changed_by, reason from workflow_retention \
         where namespace = $1 and workflow = $2",
    )
    .bind(namespace)
    .bind(workflow)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(own_of).transpose()
}

fn own_of(row: &PgRow) -> Result<Own, sqlx::Error> {
    let keep: Option<i64> = row.try_get(2)?;
    let Moment(changed_at) = row.try_get(3)?;
    Ok(Own {
        namespace: row.try_get(0)?,
        workflow: row.try_get(1)?,
        keep: keep.map(|keep| Span(u64::try_from(keep).unwrap_or_default())),
        changed_at,
        changed_by: row.try_get(4)?,
        reason: row.try_get(5)?,
    })
}

/// Gives a workflow a retention of its own.
pub(crate) async fn set(connection: &mut PgConnection, own: &Own) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- workflow_retention_set\n\
         insert into workflow_retention (namespace, workflow, keep_ms, changed_at, changed_by, reason) \
         values ($1, $2, $3, $4, $5, $6) on conflict (namespace, workflow) do update set \
         keep_ms = excluded.keep_ms, changed_at = excluded.changed_at, changed_by = excluded.changed_by, \
         reason = excluded.reason",
    )
    .bind(&own.namespace)
    .bind(&own.workflow)
    .bind(own.keep.map(|keep| i64::try_from(keep.0).unwrap_or(i64::MAX)))
    .bind(Moment(own.changed_at))
    .bind(&own.changed_by)
    .bind(&own.reason)
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets a workflow follow the server again.
pub(crate) async fn unset(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- workflow_retention_unset\ndelete from workflow_retention where namespace = $1 and workflow = $2",
    )
    .bind(namespace)
    .bind(workflow)
    .execute(connection)
    .await?;
    Ok(())
}
