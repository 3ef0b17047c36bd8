//! Sources: their specs, and their secrets.

use backstitch_saga::Time;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::moment::Moment;

/// A line of the table `source`.
#[derive(Clone, Debug)]
pub(crate) struct SourceRow {
    pub(crate) name: String,
    pub(crate) revision: Uuid,
    pub(crate) version: i32,
    pub(crate) spec: String,
    pub(crate) changed_at: Time,
    pub(crate) changed_by: String,
    /// Its secrets, the one in use first.
    pub(crate) secrets: Vec<SecretRow>,
}

/// A line of the table `source_secret`.
#[derive(Clone)]
pub(crate) struct SecretRow {
    /// Empty in lists.
    pub(crate) secret: String,
    pub(crate) added_at: Time,
    pub(crate) added_by: String,
    pub(crate) until: Option<Time>,
}

impl std::fmt::Debug for SecretRow {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SecretRow").field("until", &self.until).finish_non_exhaustive()
    }
}

const COLUMNS: &str = "s.name, s.revision, s.version, s.spec, s.changed_at, s.changed_by, k.added_at, k.added_by, k.until";

/// Puts the lines of a source and of its secrets together.
fn folded(rows: &[PgRow]) -> Result<Vec<SourceRow>, sqlx::Error> {
    let mut found: Vec<SourceRow> = Vec::new();
    for row in rows {
        let name: String = row.try_get(0)?;
        if found.last().is_none_or(|last| last.name != name) {
            let Moment(changed_at) = row.try_get(4)?;
            found.push(SourceRow {
                name,
                revision: row.try_get(1)?,
                version: row.try_get(2)?,
                spec: row.try_get(3)?,
                changed_at,
                changed_by: row.try_get(5)?,
                secrets: Vec::new(),
            });
        }
        let added_at: Option<Moment> = row.try_get(6)?;
        if let (Some(Moment(added_at)), Some(last)) = (added_at, found.last_mut()) {
            let until: Option<Moment> = row.try_get(8)?;
            last.secrets.push(SecretRow {
                secret: row.try_get(9)?,
                added_at,
                added_by: row.try_get(7)?,
                until: until.map(|Moment(at)| at),
            });
        }
    }
    Ok(found)
}

/// Finds a source with its secrets.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<Option<SourceRow>, sqlx::Error> {
    let text = format!(
        "-- source_find\n\
         select {COLUMNS}, k.secret from source s \
         left join source_secret k on k.namespace = s.namespace and k.name = s.name \
         where s.namespace = $1 and s.name = $2 order by k.slot"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(name);
    Ok(folded(&query.fetch_all(connection).await?)?.pop())
}

/// Lists sources of a namespace by name, after one of them, without what their secrets are.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<SourceRow>, sqlx::Error> {
    let text = format!(
        "-- source_list\n\
         select {COLUMNS}, '' as secret from (select * from source where namespace = $1 and name > $2 \
           order by name limit $3) s \
         left join source_secret k on k.namespace = s.namespace and k.name = s.name order by s.name, k.slot"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(after).bind(limit);
    folded(&query.fetch_all(connection).await?)
}

/// Counts the sources of a namespace, up to `most`.
pub(crate) async fn count(
    connection: &mut PgConnection,
    namespace: &str,
    most: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "-- source_count\n\
         select count(*) from (select 1 from source where namespace = $1 limit $2) n",
    )
    .bind(namespace)
    .bind(most)
    .fetch_one(connection)
    .await
}

/// Creates a source, or changes the one that is still at the revision `before`. Returns whether it did.
pub(crate) async fn put(
    connection: &mut PgConnection,
    namespace: &str,
    row: &SourceRow,
    before: Option<Uuid>,
) -> Result<bool, sqlx::Error> {
    let text = match before {
        Some(_) => {
            "-- source_change\n\
             update source set revision = $3, version = $4, spec = $5, changed_at = $6, changed_by = $7 \
             where namespace = $1 and name = $2 and revision = $8"
        }
        None => {
            "-- source_create\n\
             insert into source (namespace, name, revision, version, spec, changed_at, changed_by) \
             select $1, $2, $3, $4, $5, $6, $7 where $8::uuid is null on conflict do nothing"
        }
    };
    let done = sqlx::query(text)
        .bind(namespace)
        .bind(&row.name)
        .bind(row.revision)
        .bind(row.version)
        .bind(&row.spec)
        .bind(Moment(row.changed_at))
        .bind(&row.changed_by)
        .bind(before)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Sets the secrets of a source, under the lock of its row.
pub(crate) async fn set_secrets(
    connection: &mut PgConnection,
    namespace: &str,
    row: &SourceRow,
) -> Result<(), sqlx::Error> {
    delete_secrets(connection, namespace, &row.name).await?;
    for (slot, secret) in (0_i16..).zip(&row.secrets) {
        sqlx::query(
            "-- source_secret_add\n\
             insert into source_secret (namespace, name, slot, secret, added_at, added_by, until) \
             values ($1, $2, $3, $4, $5, $6, $7)",
        )
        .bind(namespace)
        .bind(&row.name)
        .bind(slot)
        .bind(&secret.secret)
        .bind(Moment(secret.added_at))
        .bind(&secret.added_by)
        .bind(secret.until.map(Moment))
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn delete_secrets(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- source_secret_delete\ndelete from source_secret where namespace = $1 and name = $2",
    )
    .bind(namespace)
    .bind(name)
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes a source with its secrets. Returns whether it was there.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<bool, sqlx::Error> {
    let done =
        sqlx::query("-- source_delete\ndelete from source where namespace = $1 and name = $2")
            .bind(namespace)
            .bind(name)
            .execute(&mut *connection)
            .await?;
    delete_secrets(connection, namespace, name).await?;
    Ok(done.rows_affected() == 1)
}

/// Returns which of `subjects` are contracts, each with its revision.
pub(crate) async fn subject_revisions(
    connection: &mut PgConnection,
    namespace: &str,
    subjects: &[String],
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    sqlx::query_as(
        "-- source_subjects\n\
         select subject, revision from contracts where namespace = $1 and subject = any($2)",
    )
    .bind(namespace)
    .bind(subjects)
    .fetch_all(connection)
    .await
}

/// Ends of a transform, and its active revision.
pub(crate) type ActiveRow = (String, i32, String, i32, i32);

/// Returns the active revision of each transform from `subjects`.
pub(crate) async fn active_transforms(
    connection: &mut PgConnection,
    namespace: &str,
    subjects: &[String],
) -> Result<Vec<ActiveRow>, sqlx::Error> {
    sqlx::query_as(
        "-- source_transforms\n\
         select from_subject, from_version, to_subject, to_version, active from transforms \
         where namespace = $1 and from_subject = any($2) \
         order by from_subject, from_version, to_subject, to_version",
    )
    .bind(namespace)
    .bind(subjects)
    .fetch_all(connection)
    .await
}

/// Returns the states of the versions of contracts, each with its subject and version.
pub(crate) async fn version_states(
    connection: &mut PgConnection,
    namespace: &str,
    subjects: &[String],
) -> Result<Vec<(String, i32, String)>, sqlx::Error> {
    sqlx::query_as(
        "-- source_versions\n\
         select subject, version, state from contract_versions where namespace = $1 and subject = any($2) \
         order by subject, version",
    )
    .bind(namespace)
    .bind(subjects)
    .fetch_all(connection)
    .await
}
