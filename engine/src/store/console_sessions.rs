//! Sessions of the web console. Secrets are never stored, only their digests.

use backstitch_saga::Time;
use sqlx::postgres::PgConnection;

use super::moment::Moment;

/// A session to be made.
pub(crate) struct NewRow<'a> {
    pub(crate) digest: &'a [u8],
    /// Digest of the secret of a credential.
    pub(crate) made_with: &'a [u8],
    pub(crate) at: Time,
    pub(crate) expires_at: Time,
}

/// Makes a session of the credential whose secret has the digest `made_with`; `false` when no credential has. Of its
/// sessions the oldest go beyond `most`, and of all that are over some.
pub(crate) async fn create(
    connection: &mut PgConnection,
    row: &NewRow<'_>,
    most: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- console_sessions_create\n\
         with c as (select namespace, name from credentials \
         where revoked_at is null and (secret_sha256 = $2 or previous_sha256 = $2)), \
         ended as (delete from console_sessions where secret_sha256 in \
         (select secret_sha256 from console_sessions where expires_at <= $3 order by expires_at limit 100)), \
         beyond as (delete from console_sessions where secret_sha256 in (select s.secret_sha256 from console_sessions s \
         join c using (namespace, name) order by s.created_at desc offset $5 limit 100)) \
         insert into console_sessions (secret_sha256, namespace, name, made_with, created_at, expires_at) \
         select $1, namespace, name, $2, $3, $4 from c",
    )
    .bind(row.digest)
    .bind(row.made_with)
    .bind(Moment(row.at))
    .bind(Moment(row.expires_at))
    .bind(most - 1)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Ends a session and says so on `channel`. Returns whether there was one.
pub(crate) async fn end(
    connection: &mut PgConnection,
    digest: &[u8],
    channel: &str,
) -> Result<bool, sqlx::Error> {
    let told = sqlx::query(
        "-- console_sessions_end\n\
         with done as (delete from console_sessions where secret_sha256 = $1 returning 1) select pg_notify($2, '') from done",
    )
    .bind(digest)
    .bind(channel)
    .fetch_all(connection)
    .await?;
    Ok(!told.is_empty())
}
