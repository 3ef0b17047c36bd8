//! The key of the tokens of leases.

use sqlx::postgres::PgConnection;

/// Returns the key that all nodes share; `None` when its row is lost.
pub(crate) async fn key(connection: &mut PgConnection) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("-- lease_key\nselect secret from lease_keys where id = 1")
        .fetch_optional(connection)
        .await
}

/// Writes a new key where there is none, as the owner of the tables. Returns whether it did.
pub(crate) async fn restore(
    connection: &mut PgConnection,
    secret: [u8; 32],
) -> Result<bool, sqlx::Error> {
    // HMAC-SHA-256 is done in SQL with the two pads alone.
    let padded = |with: u8| -> Vec<u8> {
        (0..64).map(|at| secret.get(at).copied().unwrap_or_default() ^ with).collect()
    };
    let done = sqlx::query(
        "-- lease_key_restore\n\
         insert into lease_keys (id, secret, inner_pad, outer_pad) values (1, $1, $2, $3) on conflict do nothing",
    )
    .bind(secret.as_slice())
    .bind(padded(54))
    .bind(padded(92))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
