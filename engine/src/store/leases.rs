//! The key of the tokens of leases.

use sqlx::postgres::PgConnection;

/// The key that all nodes share.
pub(crate) async fn key(connection: &mut PgConnection) -> Result<Vec<u8>, sqlx::Error> {
    sqlx::query_scalar("-- lease_key\nselect secret from lease_keys where id = 1")
        .fetch_one(connection)
        .await
}
