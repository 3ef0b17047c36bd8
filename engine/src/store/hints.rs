//! Hints: identifiers of documents, by their values.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;

/// A hint with its document.
#[derive(Debug)]
pub(crate) struct HintRow {
    pub(crate) intake: Uuid,
    pub(crate) ord: i16,
    pub(crate) source: String,
    pub(crate) verdict: String,
    pub(crate) received_at: Time,
    pub(crate) event: Option<Uuid>,
    pub(crate) mapped_event: Option<Uuid>,
    /// JSON list of all hints of the document.
    pub(crate) hints: Option<String>,
    pub(crate) stream: Option<String>,
}

/// Lists hints of a namespace with a value, the newest first, from before one of them on.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    (kind, value): (&str, &str),
    before: Option<(Uuid, i16)>,
    limit: i64,
) -> Result<Vec<HintRow>, sqlx::Error> {
    let (intake, ord) = before.unzip();
    let rows = sqlx::query(
        "-- hint_find\n\
         select h.intake, h.ord, i.source, i.verdict, i.received_at, i.event, i.mapped_event, i.hints, \
           (select e.stream from event e where e.batch = overlay(coalesce(i.mapped_event, i.event)::text placing '0000' from 33 for 4)::uuid \
             and e.ord = ('x' || right(coalesce(i.mapped_event, i.event)::text, 4))::bit(16)::integer) as stream \
         from (select intake, ord from hint where namespace = $1 and kind = $2 and value = $3 \
             and ($4::uuid is null or (intake, ord) < ($4, $5)) order by intake desc, ord desc limit $6) h \
         join intake i on i.id = h.intake order by h.intake desc, h.ord desc",
    )
    .bind(namespace)
    .bind(kind)
    .bind(value)
    .bind(intake)
    .bind(ord)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(hint_row).collect()
}

fn hint_row(row: &PgRow) -> Result<HintRow, sqlx::Error> {
    let Moment(received_at) = row.try_get(4)?;
    Ok(HintRow {
        intake: row.try_get(0)?,
        ord: row.try_get(1)?,
        source: row.try_get(2)?,
        verdict: row.try_get(3)?,
        received_at,
        event: row.try_get(5)?,
        mapped_event: row.try_get(6)?,
        hints: row.try_get(7)?,
        stream: row.try_get(8)?,
    })
}
