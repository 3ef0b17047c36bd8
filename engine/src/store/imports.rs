//! Imports: files in pieces, and the progress of their rows.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query_builder::QueryBuilder;
use uuid::Uuid;

use super::batch::part;
use super::long_work::LongWork;
use super::moment::Moment;

/// A line of the table `import`.
#[derive(Clone, Debug)]
pub(crate) struct ImportRow {
    pub(crate) id: Uuid,
    pub(crate) namespace: String,
    pub(crate) source: String,
    pub(crate) state: String,
    pub(crate) form: String,
    pub(crate) content_type: String,
    pub(crate) header: Option<Vec<u8>>,
    pub(crate) trust: i16,
    pub(crate) peer: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) headers: String,
    pub(crate) received_at: Time,
    pub(crate) ended_at: Option<Time>,
    pub(crate) digest: Option<Vec<u8>>,
    pub(crate) bytes: i64,
    pub(crate) rows: i64,
    pub(crate) accepted: i64,
    pub(crate) duplicates: i64,
    pub(crate) refused: i64,
    pub(crate) waits_for: Option<String>,
}

const COLUMNS: &str = "t.id, t.namespace, t.source, t.state, t.form, t.content_type, t.header, t.trust, t.peer, t.request_id, \
    t.headers, t.received_at, t.ended_at, t.digest, t.bytes, t.rows, t.accepted, t.duplicates, t.refused, t.waits_for";

const WORK: LongWork = LongWork {
    table: "import",
    columns: COLUMNS,
    when: "and not exists (select from import e where e.namespace = o.namespace and e.source = o.source \
        and e.state = 'running' and e.id < o.id)",
};

fn import_row(row: &PgRow) -> Result<ImportRow, sqlx::Error> {
    let Moment(received_at) = row.try_get(11)?;
    let ended_at: Option<Moment> = row.try_get(12)?;
    Ok(ImportRow {
        id: row.try_get(0)?,
        namespace: row.try_get(1)?,
        source: row.try_get(2)?,
        state: row.try_get(3)?,
        form: row.try_get(4)?,
        content_type: row.try_get(5)?,
        header: row.try_get(6)?,
        trust: row.try_get(7)?,
        peer: row.try_get(8)?,
        request_id: row.try_get(9)?,
        headers: row.try_get(10)?,
        received_at,
        ended_at: ended_at.map(|Moment(at)| at),
        digest: row.try_get(13)?,
        bytes: row.try_get(14)?,
        rows: row.try_get(15)?,
        accepted: row.try_get(16)?,
        duplicates: row.try_get(17)?,
        refused: row.try_get(18)?,
        waits_for: row.try_get(19)?,
    })
}

/// Begins an import, unless `most` of its namespace are under way. Returns whether it did.
pub(crate) async fn begin(
    connection: &mut PgConnection,
    row: &ImportRow,
    most: i64,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- import_begin\n\
         insert into import (id, namespace, source, state, form, content_type, trust, peer, request_id, headers, received_at, \
           changed_at, due_at) \
         select $1, $2, $3, 'receiving', $4, $5, $6, $7, $8, $9, $10, $10, $10 where $11 > \
           (select count(*) from import o where o.namespace = $2 and o.state in ('receiving', 'running'))",
    )
    .bind(row.id)
    .bind(&row.namespace)
    .bind(&row.source)
    .bind(&row.form)
    .bind(&row.content_type)
    .bind(row.trust)
    .bind(&row.peer)
    .bind(&row.request_id)
    .bind(&row.headers)
    .bind(Moment(row.received_at))
    .bind(most)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Rows of a file, stored until they are processed.
#[derive(Debug)]
pub(crate) struct NewPiece {
    pub(crate) number: i32,
    pub(crate) first_row: i64,
    pub(crate) rows: i32,
    pub(crate) body: Vec<u8>,
}

/// Stores a piece of a file that is being received, of which so many bytes have arrived. Returns whether it still
/// is.
pub(crate) async fn receive(
    connection: &mut PgConnection,
    id: Uuid,
    piece: &NewPiece,
    (bytes, now): (i64, Time),
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- import_receive\n\
         with received as (update import set bytes = $6, rows = $3 + $4 - 1, pieces = $2, changed_at = $7 \
           where id = $1 and state = 'receiving' returning id) \
         insert into import_piece (import, number, first_row, rows, body) select id, $2, $3, $4, $5 from received",
    )
    .bind(id)
    .bind(piece.number)
    .bind(piece.first_row)
    .bind(piece.rows)
    .bind(&piece.body)
    .bind(bytes)
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Result for a file that has been uploaded completely.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Whole {
    /// Its rows are processed from now on.
    Runs,
    /// It came before, as this import.
    Repeats(Uuid),
    /// It is no longer received.
    Gone,
}

/// Says that a file has come whole; one that came before is forgotten again.
pub(crate) async fn finish(
    connection: &mut PgConnection,
    row: &ImportRow,
    now: Time,
) -> Result<Whole, sqlx::Error> {
    for _ in 0..2 {
        let first: Option<Uuid> = sqlx::query_scalar(
            "-- import_first\n\
             select id from import where namespace = $1 and source = $2 and digest = $3 and state in ('running', 'done') and id <> $4",
        )
        .bind(&row.namespace)
        .bind(&row.source)
        .bind(&row.digest)
        .bind(row.id)
        .fetch_optional(&mut *connection)
        .await?;
        if let Some(first) = first {
            remove(connection, row.id).await?;
            return Ok(Whole::Repeats(first));
        }
        let done = sqlx::query(
            "-- import_finish\n\
             update import set state = case when pieces = 0 then 'done' else 'running' end, header = $2, digest = $3, bytes = $4, \
               changed_at = $5, due_at = $5, ended_at = case when pieces = 0 then $5 end where id = $1 and state = 'receiving'",
        )
        .bind(row.id)
        .bind(&row.header)
        .bind(&row.digest)
        .bind(row.bytes)
        .bind(Moment(now))
        .execute(&mut *connection)
        .await;
        match done {
            Ok(done) if done.rows_affected() == 1 => return Ok(Whole::Runs),
            Ok(_) => return Ok(Whole::Gone),
            // The same file came whole just now over another connection.
            Err(sqlx::Error::Database(error)) if error.is_unique_violation() => {}
            Err(error) => return Err(error),
        }
    }
    Ok(Whole::Gone)
}

/// Forgets a file that is not received any more.
pub(crate) async fn remove(connection: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- import_remove\n\
         with gone as (delete from import where id = $1 and state = 'receiving' returning id) \
         delete from import_piece p using gone where p.import = gone.id",
    )
    .bind(id)
    .execute(connection)
    .await
    .map(drop)
}

/// Deletes files without new data since `before`. Returns their number.
pub(crate) async fn remove_abandoned(
    connection: &mut PgConnection,
    before: Time,
) -> Result<u64, sqlx::Error> {
    let done = sqlx::query(
        "-- import_abandoned\n\
         with gone as (delete from import where id in (select id from import where state = 'receiving' and changed_at < $1 \
             order by due_at limit 100 for update skip locked) returning id), \
           pieces as (delete from import_piece p using gone where p.import = gone.id) \
         select from gone",
    )
    .bind(Moment(before))
    .execute(connection)
    .await?;
    Ok(done.rows_affected())
}

/// Takes imports with waiting rows, the oldest of a source, see [`LongWork::take`].
pub(crate) async fn take(
    connection: &mut PgConnection,
    whose: (i32, i64),
    times: (Time, Time),
    limit: i64,
) -> Result<Vec<ImportRow>, sqlx::Error> {
    WORK.take(connection, whose, times, limit).await?.iter().map(import_row).collect()
}

/// A piece with rows to process.
#[derive(Debug)]
pub(crate) struct Piece {
    pub(crate) number: i32,
    pub(crate) first_row: i64,
    pub(crate) body: Vec<u8>,
}

/// Reads the next piece of an import; `None` when there is none left.
pub(crate) async fn next(
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<Piece>, sqlx::Error> {
    let row = sqlx::query(
        "-- import_next\nselect number, first_row, body from import_piece where import = $1 order by number limit 1",
    )
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.map(|row| {
        Ok(Piece { number: row.try_get(0)?, first_row: row.try_get(1)?, body: row.try_get(2)? })
    })
    .transpose()
}

part!(
    /// Rows that were refused.
    Refusals { number: i64, intake: Option<Uuid>, code: String, message: String }
);

/// Results for the rows of a piece.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    pub(crate) accepted: i64,
    pub(crate) duplicates: i64,
    pub(crate) refused: i64,
    refusals: Refusals,
}

impl Tally {
    /// Counts a row that was refused.
    pub(crate) fn refuse(&mut self, number: i64, intake: Option<Uuid>, code: &str, message: &str) {
        self.refused += 1;
        let message = super::batch::printable(message);
        self.refusals.add((number, intake, code.to_owned(), message));
    }
}

/// Removes a processed piece, and counts its rows; nothing is counted if it does not exist any more. The import is due
/// again at `due_at`, or has ended with its last piece.
pub(crate) async fn count(
    connection: &mut PgConnection,
    (id, number): (Uuid, i32),
    tally: &Tally,
    (now, due_at): (Time, Time),
) -> Result<(), sqlx::Error> {
    let query = sqlx::query(
        "-- import_count\n\
         with gone as (delete from import_piece where import = $1 and number = $2 returning import), \
           refused as (insert into import_refused (import, number, intake, code, message) \
             select g.import, x.number, x.intake, x.code, x.message \
             from gone g cross join unnest($8::bigint[], $9::uuid[], $10::text[], $11::text[]) as x(number, intake, code, message)) \
         update import i set accepted = accepted + $3, duplicates = duplicates + $4, refused = refused + $5, changed_at = $6, \
           due_at = $7, waits_for = null, taken_by = null, taken_until = null, \
           state = case when i.pieces = $2 then 'done' else i.state end, ended_at = case when i.pieces = $2 then $6 end \
         from gone g where i.id = g.import and i.state = 'running'",
    )
    .bind(id)
    .bind(number)
    .bind(tally.accepted)
    .bind(tally.duplicates)
    .bind(tally.refused)
    .bind(Moment(now))
    .bind(Moment(due_at));
    tally.refusals.bind(query).execute(connection).await.map(drop)
}

/// Says why it does not go on before `due_at`.
pub(crate) async fn put_off(
    connection: &mut PgConnection,
    id: Uuid,
    why: &str,
    due_at: Time,
) -> Result<(), sqlx::Error> {
    WORK.put_off(connection, id, why, due_at).await
}

/// Cancels an import that is under way. Returns whether it was.
pub(crate) async fn cancel(
    connection: &mut PgConnection,
    (namespace, id): (&str, Uuid),
    now: Time,
) -> Result<bool, sqlx::Error> {
    let done: Option<i32> = sqlx::query_scalar(
        "-- import_cancel\n\
         with ended as (update import set state = 'cancelled', ended_at = $3, changed_at = $3, waits_for = null \
             where namespace = $1 and id = $2 and state in ('receiving', 'running') returning id), \
           pieces as (delete from import_piece p using ended e where p.import = e.id) \
         select 1 from ended",
    )
    .bind(namespace)
    .bind(id)
    .bind(Moment(now))
    .fetch_optional(connection)
    .await?;
    Ok(done.is_some())
}

/// Finds one of a namespace.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
) -> Result<Option<ImportRow>, sqlx::Error> {
    WORK.find(connection, namespace, id).await?.as_ref().map(import_row).transpose()
}

/// Imports of a namespace, the newest first, from before one of them on.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    (source, state): (Option<&str>, Option<&str>),
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ImportRow>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- import_list\nselect ");
    query.push(COLUMNS).push(" from import t where t.namespace = ").push_bind(namespace);
    if let Some(source) = source {
        query.push(" and t.source = ").push_bind(source);
    }
    if let Some(state) = state {
        query.push(" and t.state = ").push_bind(state);
    }
    if let Some(before) = before {
        query.push(" and t.id < ").push_bind(before);
    }
    query.push(" order by t.id desc limit ").push_bind(limit);
    query.build().fetch_all(connection).await?.iter().map(import_row).collect()
}

/// A row that was refused.
#[derive(Debug)]
pub(crate) struct RefusedRow {
    pub(crate) number: i64,
    pub(crate) intake: Option<Uuid>,
    pub(crate) code: String,
    pub(crate) message: String,
}

/// Lists rows of an import that were refused, by their numbers.
pub(crate) async fn refused(
    connection: &mut PgConnection,
    id: Uuid,
    after: i64,
    limit: i64,
) -> Result<Vec<RefusedRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- import_refused\n\
         select number, intake, code, message from import_refused where import = $1 and number > $2 order by number limit $3",
    )
    .bind(id)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(RefusedRow {
                number: row.try_get(0)?,
                intake: row.try_get(1)?,
                code: row.try_get(2)?,
                message: row.try_get(3)?,
            })
        })
        .collect()
}
