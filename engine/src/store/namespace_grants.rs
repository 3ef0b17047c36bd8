//! Grants of namespaces to roles of the database: the table `namespace_grants`.

use backstitch_saga::protocol::DatabaseRoleView;
use backstitch_saga::{Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::moment::Moment;

/// Grants a role that there is. Returns `None` when there is none, else whether it had no grant.
pub(crate) async fn grant(
    connection: &mut PgConnection,
    (namespace, role): (&str, &str),
    (at, by): (Time, &str),
    most: i64,
) -> Result<Option<bool>, sqlx::Error> {
    let known: Option<String> = sqlx::query_scalar(
        "-- namespace_grants_role\nselect rolname::text from pg_roles where rolname = $1",
    )
    .bind(role)
    .fetch_optional(&mut *connection)
    .await?;
    if known.is_none() {
        return Ok(None);
    }
    let done = sqlx::query(
        "-- namespace_grants_grant\n\
         insert into namespace_grants (namespace, role, granted_at, granted_by) select $1, $2, $3, $4 \
         where (select count(*) from namespace_grants where namespace = $1) < $5 on conflict do nothing",
    )
    .bind(namespace)
    .bind(role)
    .bind(Moment(at))
    .bind(by)
    .bind(most)
    .execute(connection)
    .await?;
    Ok(Some(done.rows_affected() == 1))
}

/// Takes the grant of a role back. Returns whether it had one.
pub(crate) async fn revoke(
    connection: &mut PgConnection,
    namespace: &str,
    role: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- namespace_grants_revoke\ndelete from namespace_grants where namespace = $1 and role = $2",
    )
    .bind(namespace)
    .bind(role)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Lists roles with a grant by name, after `after`.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<DatabaseRoleView>, sqlx::Error> {
    let rows = sqlx::query(
        "-- namespace_grants_list\n\
         select role, granted_at, granted_by from namespace_grants where namespace = $1 and role > $2 \
         order by role limit $3",
    )
    .bind(namespace)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let Moment(at) = row.try_get(1)?;
            Ok(DatabaseRoleView {
                role: row.try_get(0)?,
                granted_at: Timestamp(at),
                granted_by: row.try_get(2)?,
            })
        })
        .collect()
}
