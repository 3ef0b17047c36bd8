//! Credentials. Secrets are never stored, only their digests.

use sqlx::Row;
use sqlx::postgres::PgConnection;

/// Makes a credential. A revoked one of the same name is replaced. Answers whether the name was free.
pub(crate) async fn create(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
    role: &str,
    digest: &[u8],
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- credentials_create\n\
         insert into credentials (namespace, name, role, secret_sha256) values ($1, $2, $3, $4) \
         on conflict (namespace, name) do update set role = excluded.role, secret_sha256 = excluded.secret_sha256, \
         created_at = clock_timestamp(), revoked_at = null where credentials.revoked_at is not null",
    )
    .bind(namespace)
    .bind(name)
    .bind(role)
    .bind(digest)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Withdraws a credential and says so on `channel`. Answers whether there was one.
pub(crate) async fn revoke(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
    channel: &str,
) -> Result<bool, sqlx::Error> {
    let told = sqlx::query(
        "-- credentials_revoke\n\
         with done as (update credentials set revoked_at = clock_timestamp() \
         where namespace = $1 and name = $2 and revoked_at is null returning 1) \
         select pg_notify($3, '') from done",
    )
    .bind(namespace)
    .bind(name)
    .bind(channel)
    .fetch_all(connection)
    .await?;
    Ok(!told.is_empty())
}

/// Namespace, name and role of the valid credential with this digest.
pub(crate) async fn find(
    connection: &mut PgConnection,
    digest: &[u8],
) -> Result<Option<(String, String, String)>, sqlx::Error> {
    let row = sqlx::query(
        "-- credentials_find\n\
         select namespace, name, role from credentials where secret_sha256 = $1 and revoked_at is null",
    )
    .bind(digest)
    .fetch_optional(connection)
    .await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).transpose()
}
