//! Transforms and their revisions.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::moment::Moment;

/// Name of a transform: the versions of contracts that it maps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Edge {
    pub(crate) from: String,
    pub(crate) from_version: i32,
    pub(crate) to: String,
    pub(crate) to_version: i32,
}

/// A line of the table `transforms`.
#[derive(Clone, Debug)]
pub(crate) struct TransformRow {
    pub(crate) edge: Edge,
    pub(crate) newest: i32,
    pub(crate) active: i32,
    pub(crate) changed_at: Time,
    pub(crate) changed_by: String,
}

/// A line of the table `transform_revisions`.
#[derive(Clone, Debug)]
pub(crate) struct RevisionRow {
    pub(crate) revision: i32,
    pub(crate) digest: String,
    /// Empty in lists.
    pub(crate) document: String,
    pub(crate) registered_at: Time,
    pub(crate) registered_by: String,
}

/// Lists transforms of a namespace after one of them.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    after: Option<&Edge>,
    limit: i64,
) -> Result<Vec<TransformRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- transforms_list\n\
         select from_subject, from_version, to_subject, to_version, newest, active, changed_at, changed_by \
         from transforms where namespace = $1 \
         and (from_subject, from_version, to_subject, to_version) > ($2, $3, $4, $5) \
         order by from_subject, from_version, to_subject, to_version limit $6",
    )
    .bind(namespace)
    .bind(after.map_or("", |edge| &edge.from))
    .bind(after.map_or(0, |edge| edge.from_version))
    .bind(after.map_or("", |edge| &edge.to))
    .bind(after.map_or(0, |edge| edge.to_version))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(transform_row).collect()
}

/// Counts the transforms of a namespace, up to `most`.
pub(crate) async fn count(
    connection: &mut PgConnection,
    namespace: &str,
    most: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "-- transforms_count\n\
         select count(*) from (select 1 from transforms where namespace = $1 limit $2) n",
    )
    .bind(namespace)
    .bind(most)
    .fetch_one(connection)
    .await
}

/// Finds a transform.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    edge: &Edge,
) -> Result<Option<TransformRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- transforms_find\n\
         select from_subject, from_version, to_subject, to_version, newest, active, changed_at, changed_by \
         from transforms where namespace = $1 and from_subject = $2 and from_version = $3 \
         and to_subject = $4 and to_version = $5",
    )
    .bind(namespace)
    .bind(&edge.from)
    .bind(edge.from_version)
    .bind(&edge.to)
    .bind(edge.to_version)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(transform_row).transpose()
}

fn transform_row(row: &PgRow) -> Result<TransformRow, sqlx::Error> {
    let Moment(changed_at) = row.try_get(6)?;
    Ok(TransformRow {
        edge: Edge {
            from: row.try_get(0)?,
            from_version: row.try_get(1)?,
            to: row.try_get(2)?,
            to_version: row.try_get(3)?,
        },
        newest: row.try_get(4)?,
        active: row.try_get(5)?,
        changed_at,
        changed_by: row.try_get(7)?,
    })
}

/// Creates a transform. Returns whether it did not exist.
pub(crate) async fn create(
    connection: &mut PgConnection,
    namespace: &str,
    row: &TransformRow,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- transforms_create\n\
         insert into transforms (namespace, from_subject, from_version, to_subject, to_version, newest, active, \
         changed_at, changed_by) values ($1, $2, $3, $4, $5, $6, $7, $8, $9) on conflict do nothing",
    )
    .bind(namespace)
    .bind(&row.edge.from)
    .bind(row.edge.from_version)
    .bind(&row.edge.to)
    .bind(row.edge.to_version)
    .bind(row.newest)
    .bind(row.active)
    .bind(Moment(row.changed_at))
    .bind(&row.changed_by)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Changes a transform from the state in which it was read, `before`: last and active revision. Returns whether it
/// was still in that state.
pub(crate) async fn change(
    connection: &mut PgConnection,
    namespace: &str,
    row: &TransformRow,
    before: (i32, i32),
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- transforms_change\n\
         update transforms set newest = $6, active = $7, changed_at = $8, changed_by = $9 \
         where namespace = $1 and from_subject = $2 and from_version = $3 and to_subject = $4 and to_version = $5 \
         and newest = $10 and active = $11",
    )
    .bind(namespace)
    .bind(&row.edge.from)
    .bind(row.edge.from_version)
    .bind(&row.edge.to)
    .bind(row.edge.to_version)
    .bind(row.newest)
    .bind(row.active)
    .bind(Moment(row.changed_at))
    .bind(&row.changed_by)
    .bind(before.0)
    .bind(before.1)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Inserts a revision, under the lock of its transform.
pub(crate) async fn add_revision(
    connection: &mut PgConnection,
    namespace: &str,
    edge: &Edge,
    row: &RevisionRow,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- transform_revisions_add\n\
         insert into transform_revisions (namespace, from_subject, from_version, to_subject, to_version, revision, \
         digest, document, registered_at, registered_by) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
    )
    .bind(namespace)
    .bind(&edge.from)
    .bind(edge.from_version)
    .bind(&edge.to)
    .bind(edge.to_version)
    .bind(row.revision)
    .bind(&row.digest)
    .bind(&row.document)
    .bind(Moment(row.registered_at))
    .bind(&row.registered_by)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns all revisions of a transform in their order, without their documents.
pub(crate) async fn revisions(
    connection: &mut PgConnection,
    namespace: &str,
    edge: &Edge,
) -> Result<Vec<RevisionRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- transform_revisions_list\n\
         select revision, digest, '', registered_at, registered_by from transform_revisions \
         where namespace = $1 and from_subject = $2 and from_version = $3 and to_subject = $4 and to_version = $5 \
         order by revision",
    )
    .bind(namespace)
    .bind(&edge.from)
    .bind(edge.from_version)
    .bind(&edge.to)
    .bind(edge.to_version)
    .fetch_all(connection)
    .await?;
    rows.iter().map(revision_row).collect()
}

/// Finds a revision of a transform.
pub(crate) async fn revision(
    connection: &mut PgConnection,
    namespace: &str,
    edge: &Edge,
    revision: i32,
) -> Result<Option<RevisionRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- transform_revisions_find\n\
         select revision, digest, document, registered_at, registered_by from transform_revisions \
         where namespace = $1 and from_subject = $2 and from_version = $3 and to_subject = $4 and to_version = $5 \
         and revision = $6",
    )
    .bind(namespace)
    .bind(&edge.from)
    .bind(edge.from_version)
    .bind(&edge.to)
    .bind(edge.to_version)
    .bind(revision)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(revision_row).transpose()
}

fn revision_row(row: &PgRow) -> Result<RevisionRow, sqlx::Error> {
    let Moment(registered_at) = row.try_get(3)?;
    Ok(RevisionRow {
        revision: row.try_get(0)?,
        digest: row.try_get(1)?,
        document: row.try_get(2)?,
        registered_at,
        registered_by: row.try_get(4)?,
    })
}
