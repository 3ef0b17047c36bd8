//! Registered workflow definitions.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use super::moment::Moment;

/// A line of the table `definitions`.
#[derive(Clone, Debug)]
pub(crate) struct DefinitionRow {
    pub(crate) name: String,
    pub(crate) version: i32,
    pub(crate) hash: String,
    pub(crate) registered_at: Time,
    pub(crate) body: String,
}

/// Registers a definition unless its name and version are taken. Returns the hash that is registered now, and
/// whether this call registered it.
pub(crate) async fn register(
    connection: &mut PgConnection,
    namespace: &str,
    row: &DefinitionRow,
) -> Result<(String, bool), sqlx::Error> {
    let inserted = sqlx::query(
        "-- definitions_register\n\
         insert into definitions (namespace, name, version, hash, body) values ($1, $2, $3, $4, $5) \
         on conflict do nothing",
    )
    .bind(namespace)
    .bind(&row.name)
    .bind(row.version)
    .bind(&row.hash)
    .bind(&row.body)
    .execute(&mut *connection)
    .await?;
    if inserted.rows_affected() == 1 {
        return Ok((row.hash.clone(), true));
    }
    let there: String = sqlx::query_scalar(
        "-- definitions_hash\n\
         select hash from definitions where namespace = $1 and name = $2 and version = $3",
    )
    .bind(namespace)
    .bind(&row.name)
    .bind(row.version)
    .fetch_one(connection)
    .await?;
    Ok((there, false))
}

/// Returns one version, the newest without `version`.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
    version: Option<i32>,
) -> Result<Option<DefinitionRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- definitions_find\n\
         select name, version, hash, registered_at, body from definitions \
         where namespace = $1 and name = $2 and ($3::integer is null or version = $3) \
         order by version desc limit 1",
    )
    .bind(namespace)
    .bind(name)
    .bind(version)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(definition_row).transpose()
}

/// Returns the text with this hash. Which namespace registered it makes no difference: the hash is of the text.
pub(crate) async fn body(
    connection: &mut PgConnection,
    hash: &str,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar("-- definitions_body\nselect body from definitions where hash = $1 limit 1")
        .bind(hash)
        .fetch_optional(connection)
        .await
}

/// Lists versions by name and version, after the given one.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    name: Option<&str>,
    after: Option<&(String, i32)>,
    limit: i64,
) -> Result<Vec<DefinitionRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- definitions_list\n\
         select name, version, hash, registered_at, '' from definitions \
         where namespace = $1 and ($2::text is null or name = $2) \
         and ($3::text is null or (name, version) > ($3, $4)) order by name, version limit $5",
    )
    .bind(namespace)
    .bind(name)
    .bind(after.map(|(name, _)| name))
    .bind(after.map_or(0, |(_, version)| *version))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(definition_row).collect()
}

fn definition_row(row: &PgRow) -> Result<DefinitionRow, sqlx::Error> {
    let Moment(registered_at) = row.try_get(3)?;
    Ok(DefinitionRow {
        name: row.try_get(0)?,
        version: row.try_get(1)?,
        hash: row.try_get(2)?,
        registered_at,
        body: row.try_get(4)?,
    })
}
