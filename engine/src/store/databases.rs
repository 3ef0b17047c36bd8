//! Databases of a server that is our own. Names are quoted, so that any name is just a name.

use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

/// Returns whether a database of this name exists.
pub(crate) async fn exists(connection: &mut PgConnection, name: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "-- database_exists\nselect exists (select 1 from pg_database where datname = $1)",
    )
    .bind(name)
    .fetch_one(connection)
    .await
}

/// Makes a database: empty, or a copy of `template`.
pub(crate) async fn create(
    connection: &mut PgConnection,
    name: &str,
    template: Option<&str>,
) -> Result<(), sqlx::Error> {
    let template = template.map_or(String::new(), |from| format!(" template {}", quoted(from)));
    run(connection, format!("-- database_create\ncreate database {}{template}", quoted(name))).await
}

/// Drops a database, even if sessions are connected to it.
pub(crate) async fn drop(connection: &mut PgConnection, name: &str) -> Result<(), sqlx::Error> {
    run(connection, format!("-- database_drop\ndrop database {} with (force)", quoted(name))).await
}

async fn run(connection: &mut PgConnection, text: String) -> Result<(), sqlx::Error> {
    sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await?;
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
