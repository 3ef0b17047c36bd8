//! Named cursors of readers.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};

use crate::store::moment::Moment;

/// A line of the table `log_cursor`, with the head of its log.
#[derive(Debug)]
pub(crate) struct CursorRow {
    pub(crate) name: String,
    pub(crate) position: i64,
    pub(crate) changed_at: Time,
    pub(crate) changed_by: String,
    pub(crate) head: i64,
}

fn cursor_row(row: &PgRow) -> Result<CursorRow, sqlx::Error> {
    let Moment(changed_at) = row.try_get(2)?;
    Ok(CursorRow {
        name: row.try_get(0)?,
        position: row.try_get(1)?,
        changed_at,
        changed_by: row.try_get(3)?,
        head: row.try_get(4)?,
    })
}

/// Finds a cursor.
pub(crate) async fn cursor(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<Option<CursorRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- log_cursor_find\n\
         select c.name, c.position, c.changed_at, c.changed_by, coalesce(h.position, 0) from log_cursor c \
         left join log_head h on h.namespace = c.namespace where c.namespace = $1 and c.name = $2",
    )
    .bind(namespace)
    .bind(name)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(cursor_row).transpose()
}

/// Lists cursors of a namespace by name, after one of them.
pub(crate) async fn cursors(
    connection: &mut PgConnection,
    namespace: &str,
    after: &str,
    limit: i64,
) -> Result<Vec<CursorRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- log_cursor_list\n\
         select c.name, c.position, c.changed_at, c.changed_by, coalesce(h.position, 0) from log_cursor c \
         left join log_head h on h.namespace = c.namespace where c.namespace = $1 and c.name > $2 \
         order by c.name limit $3",
    )
    .bind(namespace)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(cursor_row).collect()
}

/// Moves a cursor from `expected` on, or creates it when nothing is expected and there are fewer than `most`. Returns
/// whether it did.
pub(crate) async fn move_cursor(
    connection: &mut PgConnection,
    (namespace, name): (&str, &str),
    (expected, position): (Option<i64>, i64),
    (at, by): (Time, &str),
    most: i64,
) -> Result<bool, sqlx::Error> {
    let text = match expected {
        Some(_) => {
            "-- log_cursor_move\n\
             update log_cursor set position = $3, changed_at = $4, changed_by = $5 \
             where namespace = $1 and name = $2 and position = $6 and $7::bigint > 0"
        }
        None => {
            "-- log_cursor_create\n\
             insert into log_cursor (namespace, name, position, changed_at, changed_by) select $1, $2, $3, $4, $5 \
             where $6::bigint is null and (select count(*) from (select 1 from log_cursor where namespace = $1 limit $7) n) < $7 \
             on conflict do nothing"
        }
    };
    let done = sqlx::query(text)
        .bind(namespace)
        .bind(name)
        .bind(position)
        .bind(Moment(at))
        .bind(by)
        .bind(expected)
        .bind(most)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Deletes a cursor. Returns whether it was there.
pub(crate) async fn delete_cursor(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- log_cursor_delete\ndelete from log_cursor where namespace = $1 and name = $2",
    )
    .bind(namespace)
    .bind(name)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}
