//! Contracts: subjects, their versions, and the readers that are pinned to them.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::moment::Moment;

/// A line of the table `contracts`.
#[derive(Clone, Debug)]
pub(crate) struct SubjectRow {
    pub(crate) subject: String,
    pub(crate) mode: String,
    /// Grows with every change of the subject, its versions and its readers.
    pub(crate) revision: i64,
    pub(crate) changed_at: Time,
    pub(crate) changed_by: String,
}

/// A line of the table `contract_versions`.
#[derive(Clone, Debug)]
pub(crate) struct VersionRow {
    pub(crate) version: i32,
    pub(crate) state: String,
    pub(crate) digest: String,
    /// Empty in lists.
    pub(crate) schema: String,
    pub(crate) up: Option<String>,
    pub(crate) down: Option<String>,
    pub(crate) breaks: Option<String>,
    pub(crate) registered_at: Time,
    pub(crate) registered_by: String,
}

/// A line of the table `contract_readers`.
#[derive(Clone, Debug)]
pub(crate) struct ReaderRow {
    pub(crate) name: String,
    pub(crate) version: i32,
    pub(crate) pinned_at: Time,
    pub(crate) pinned_by: String,
}

/// Lists subjects of a namespace after one of them, each with its newest version.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<(SubjectRow, i32)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- contracts_list\n\
         select c.subject, c.mode, c.revision, c.changed_at, c.changed_by, v.newest from contracts c \
         cross join lateral (select coalesce(max(version), 0) as newest from contract_versions \
         where namespace = c.namespace and subject = c.subject) v \
         where c.namespace = $1 and c.subject > $2 order by c.subject limit $3",
    )
    .bind(namespace)
    .bind(after.unwrap_or_default())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((subject_row(row)?, row.try_get(5)?))).collect()
}

/// Counts the subjects of a namespace, up to `most`.
pub(crate) async fn count(
    connection: &mut PgConnection,
    namespace: &str,
    most: i64,
) -> Result<i64, sqlx::Error> {
    sqlx::query_scalar(
        "-- contracts_count\n\
         select count(*) from (select 1 from contracts where namespace = $1 limit $2) n",
    )
    .bind(namespace)
    .bind(most)
    .fetch_one(connection)
    .await
}

/// Finds a subject.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
) -> Result<Option<SubjectRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- contracts_find\n\
         select subject, mode, revision, changed_at, changed_by from contracts \
         where namespace = $1 and subject = $2",
    )
    .bind(namespace)
    .bind(subject)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(subject_row).transpose()
}

/// Finds a subject of a vendor: the one with this name, or the first that begins so.
pub(crate) async fn vendor(
    connection: &mut PgConnection,
    namespace: &str,
    (name, is_prefix): (&str, bool),
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "-- contracts_vendor\n\
         select subject from contracts where namespace = $1 and strpos(subject, '.') > 0 \
         and case when $3 then starts_with(subject, $2) else subject = $2 end order by subject limit 1",
    )
    .bind(namespace)
    .bind(name)
    .bind(is_prefix)
    .fetch_optional(connection)
    .await
}

fn subject_row(row: &PgRow) -> Result<SubjectRow, sqlx::Error> {
    let Moment(changed_at) = row.try_get(3)?;
    Ok(SubjectRow {
        subject: row.try_get(0)?,
        mode: row.try_get(1)?,
        revision: row.try_get(2)?,
        changed_at,
        changed_by: row.try_get(4)?,
    })
}

/// Creates a subject. Returns whether it did not exist.
pub(crate) async fn create(
    connection: &mut PgConnection,
    namespace: &str,
    row: &SubjectRow,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- contracts_create\n\
         insert into contracts (namespace, subject, mode, changed_at, changed_by) \
         values ($1, $2, $3, $4, $5) on conflict do nothing",
    )
    .bind(namespace)
    .bind(&row.subject)
    .bind(&row.mode)
    .bind(Moment(row.changed_at))
    .bind(&row.changed_by)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Moves a subject on from the revision that a decision was made on. Returns whether it still stood there; its row is
/// locked then until the end of the transaction.
pub(crate) async fn advance(
    connection: &mut PgConnection,
    namespace: &str,
    row: &SubjectRow,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- contracts_advance\n\
         update contracts set revision = revision + 1, mode = $4, changed_at = $5, changed_by = $6 \
         where namespace = $1 and subject = $2 and revision = $3",
    )
    .bind(namespace)
    .bind(&row.subject)
    .bind(row.revision)
    .bind(&row.mode)
    .bind(Moment(row.changed_at))
    .bind(&row.changed_by)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Returns all versions of a subject in their order, with their schemas.
pub(crate) async fn versions_whole(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
) -> Result<Vec<VersionRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- contract_versions_whole\n\
         select version, state, digest, schema, up, down, breaks, registered_at, registered_by \
         from contract_versions where namespace = $1 and subject = $2 order by version",
    )
    .bind(namespace)
    .bind(subject)
    .fetch_all(connection)
    .await?;
    rows.iter().map(version_row).collect()
}

/// Returns all versions of a subject in their order, without their documents.
pub(crate) async fn versions(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
) -> Result<Vec<VersionRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- contract_versions_list\n\
         select version, state, digest, '', null::text, null::text, null::text, registered_at, registered_by \
         from contract_versions where namespace = $1 and subject = $2 order by version",
    )
    .bind(namespace)
    .bind(subject)
    .fetch_all(connection)
    .await?;
    rows.iter().map(version_row).collect()
}

/// Finds a version of a subject.
pub(crate) async fn version(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
    version: i32,
) -> Result<Option<VersionRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- contract_versions_find\n\
         select version, state, digest, schema, up, down, breaks, registered_at, registered_by \
         from contract_versions where namespace = $1 and subject = $2 and version = $3",
    )
    .bind(namespace)
    .bind(subject)
    .bind(version)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(version_row).transpose()
}

fn version_row(row: &PgRow) -> Result<VersionRow, sqlx::Error> {
    let Moment(registered_at) = row.try_get(7)?;
    Ok(VersionRow {
        version: row.try_get(0)?,
        state: row.try_get(1)?,
        digest: row.try_get(2)?,
        schema: row.try_get(3)?,
        up: row.try_get(4)?,
        down: row.try_get(5)?,
        breaks: row.try_get(6)?,
        registered_at,
        registered_by: row.try_get(8)?,
    })
}

/// Inserts a version, under the lock of its subject.
pub(crate) async fn add_version(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
    row: &VersionRow,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- contract_versions_add\n\
         insert into contract_versions (namespace, subject, version, state, digest, schema, up, down, breaks, \
         registered_at, registered_by) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(namespace)
    .bind(subject)
    .bind(row.version)
    .bind(&row.state)
    .bind(&row.digest)
    .bind(&row.schema)
    .bind(&row.up)
    .bind(&row.down)
    .bind(&row.breaks)
    .bind(Moment(row.registered_at))
    .bind(&row.registered_by)
    .execute(connection)
    .await?;
    Ok(())
}

/// Sets the state of a version, under the lock of its subject.
pub(crate) async fn set_state(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
    (version, state): (i32, &str),
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- contract_versions_set_state\n\
         update contract_versions set state = $4 where namespace = $1 and subject = $2 and version = $3",
    )
    .bind(namespace)
    .bind(subject)
    .bind(version)
    .bind(state)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns all readers of a subject by name.
pub(crate) async fn readers(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
) -> Result<Vec<ReaderRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- contract_readers_list\n\
         select name, version, pinned_at, pinned_by from contract_readers \
         where namespace = $1 and subject = $2 order by name",
    )
    .bind(namespace)
    .bind(subject)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let Moment(pinned_at) = row.try_get(2)?;
            let (name, version, pinned_by) = (row.try_get(0)?, row.try_get(1)?, row.try_get(3)?);
            Ok(ReaderRow { name, version, pinned_at, pinned_by })
        })
        .collect()
}

/// Pins a reader to a version, under the lock of its subject.
pub(crate) async fn pin(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
    row: &ReaderRow,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- contract_readers_pin\n\
         insert into contract_readers (namespace, subject, name, version, pinned_at, pinned_by) \
         values ($1, $2, $3, $4, $5, $6) on conflict (namespace, subject, name) do update set \
         version = excluded.version, pinned_at = excluded.pinned_at, pinned_by = excluded.pinned_by",
    )
    .bind(namespace)
    .bind(subject)
    .bind(&row.name)
    .bind(row.version)
    .bind(Moment(row.pinned_at))
    .bind(&row.pinned_by)
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes a reader, under the lock of its subject.
pub(crate) async fn unpin(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
    name: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- contract_readers_unpin\n\
         delete from contract_readers where namespace = $1 and subject = $2 and name = $3",
    )
    .bind(namespace)
    .bind(subject)
    .bind(name)
    .execute(connection)
    .await?;
    Ok(())
}
