//! Requests with an `Idempotency-Key`: reserved before the act, completed with the response after it.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::PgConnection;

use super::moment::Moment;
use crate::idempotency::KeptAnswer;

/// Content of a key: the digest of the request's body, and the response once it is known.
pub(crate) type Known = (Vec<u8>, Option<KeptAnswer>);

/// Reserves a key, or takes it over if no node works on it any more. Returns when it was first reserved; `None` if it
/// is answered, being worked on, or belongs to another body.
///
/// Of two concurrent callers one inserts, and the other waits for it and then finds a valid lease.
pub(crate) async fn reserve(
    connection: &mut PgConnection,
    (namespace, scope): (&str, &[u8]),
    body_sha256: &[u8],
    (now, until): (Time, Time),
    node: i32,
    dead_after_ms: i64,
) -> Result<Option<Time>, sqlx::Error> {
    let row = sqlx::query(
        "-- idempotency_reserve\n\
         insert into idempotency_keys as k (namespace, scope, body_sha256, reserved_at, leased_until, node) \
         values ($1, $2, $3, $4, $5, $6) \
         on conflict (namespace, scope) do update set leased_until = excluded.leased_until, node = excluded.node \
         where k.status is null and k.body_sha256 = excluded.body_sha256 \
         and (k.leased_until <= excluded.reserved_at or not exists (select 1 from nodes n where n.id = k.node \
         and n.stopped_at is null and n.seen_at >= clock_timestamp() - $7 * interval '1 millisecond')) \
         returning k.reserved_at",
    )
    .bind(namespace)
    .bind(scope)
    .bind(body_sha256)
    .bind(Moment(now))
    .bind(Moment(until))
    .bind(node)
    .bind(dead_after_ms)
    .fetch_optional(connection)
    .await?;
    row.map(|row| row.try_get(0).map(|Moment(at)| at)).transpose()
}

/// Returns the content of a key.
pub(crate) async fn find(
    connection: &mut PgConnection,
    (namespace, scope): (&str, &[u8]),
) -> Result<Option<Known>, sqlx::Error> {
    let row = sqlx::query(
        "-- idempotency_find\n\
         select body_sha256, status, content_type, location, body, erased from idempotency_keys \
         where namespace = $1 and scope = $2",
    )
    .bind(namespace)
    .bind(scope)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let status: Option<i16> = row.try_get(1)?;
    let answer = match status {
        None => None,
        Some(status) => Some(KeptAnswer {
            status: u16::try_from(status).unwrap_or(200),
            content_type: row.try_get(2)?,
            location: row.try_get(3)?,
            body: row.try_get(4)?,
            erased: row.try_get(5)?,
        }),
    };
    Ok(Some((row.try_get(0)?, answer)))
}

/// Keeps the answer, unless one is kept already.
pub(crate) async fn keep(
    connection: &mut PgConnection,
    (namespace, scope): (&str, &[u8]),
    answer: &KeptAnswer,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- idempotency_keep\n\
         update idempotency_keys set status = $3, content_type = $4, location = $5, body = $6 \
         where namespace = $1 and scope = $2 and status is null",
    )
    .bind(namespace)
    .bind(scope)
    .bind(i16::try_from(answer.status).unwrap_or(200))
    .bind(answer.content_type.as_deref())
    .bind(answer.location.as_deref())
    .bind(answer.body.as_deref())
    .execute(connection)
    .await?;
    Ok(())
}

/// Lets a repeat take the key over immediately: it is unknown if the act was done.
pub(crate) async fn free(
    connection: &mut PgConnection,
    (namespace, scope): (&str, &[u8]),
    node: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- idempotency_free\n\
         update idempotency_keys set leased_until = reserved_at \
         where namespace = $1 and scope = $2 and node = $3 and status is null",
    )
    .bind(namespace)
    .bind(scope)
    .bind(node)
    .execute(connection)
    .await?;
    Ok(())
}

/// Forgets a key under which nothing was done.
pub(crate) async fn drop_key(
    connection: &mut PgConnection,
    (namespace, scope): (&str, &[u8]),
    node: i32,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- idempotency_drop\n\
         delete from idempotency_keys where namespace = $1 and scope = $2 and node = $3 and status is null",
    )
    .bind(namespace)
    .bind(scope)
    .bind(node)
    .execute(connection)
    .await?;
    Ok(())
}

/// Deletes keys that were reserved before `before`, at most `limit`. Returns their number.
pub(crate) async fn forget(
    connection: &mut PgConnection,
    before: Time,
    limit: i64,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "-- idempotency_forget\n\
         delete from idempotency_keys where ctid = any(array(select ctid from idempotency_keys \
         where reserved_at < $1 order by reserved_at limit $2 for update skip locked))",
    )
    .bind(Moment(before))
    .bind(limit)
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}
