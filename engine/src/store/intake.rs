//! Intake: documents of sources as they arrived, and their results.

use backstitch_saga::Time;
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query_builder::QueryBuilder;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::batch::{part, printable};
use super::moment::Moment;

part!(
    /// Documents that arrived. An existing one is changed if it was refused.
    Intakes {
        id: Uuid,
        namespace: String,
        source: String,
        source_version: i32,
        verdict: &'static str,
        code: Option<String>,
        message: Option<String>,
        errors: Option<String>,
        received_at: Moment,
        processed_at: Option<Moment>,
        door: &'static str,
        form: &'static str,
        trust: i16,
        contract: Option<String>,
        event: Option<Uuid>,
        digest: Vec<u8>,
        bytes: i32,
        content_type: String,
        peer: Option<String>,
        request_id: Option<String>,
        headers: String,
        hints: Option<String>,
        mapping: Option<&'static str>,
        mapped_to: Option<String>,
        mapped_revision: Option<i32>,
        mapped_event: Option<Uuid>,
        mapped_digest: Option<Vec<u8>>,
        mappings: i32,
        changes: Option<String>,
        unmapped: Option<String>,
        failures: Option<String>,
        reprocess: Option<Uuid>,
        raw: Option<Vec<u8>>,
    }
);

/// A document to be written.
#[derive(Clone, Debug)]
pub(crate) struct NewIntake {
    pub(crate) id: Uuid,
    pub(crate) namespace: String,
    pub(crate) source: String,
    pub(crate) source_version: i32,
    pub(crate) verdict: &'static str,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    pub(crate) errors: Option<String>,
    pub(crate) received_at: Time,
    /// Set for an existing document that was processed again.
    pub(crate) processed_at: Option<Time>,
    pub(crate) door: &'static str,
    pub(crate) form: &'static str,
    pub(crate) trust: i16,
    pub(crate) contract: Option<String>,
    pub(crate) event: Option<Uuid>,
    pub(crate) digest: Vec<u8>,
    pub(crate) bytes: i32,
    pub(crate) content_type: String,
    pub(crate) peer: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) headers: String,
    pub(crate) hints: Option<String>,
    /// Result of its transform, if it is to be mapped.
    pub(crate) mapped: Option<Mapping>,
    /// The reprocessing that appends its event.
    pub(crate) reprocess: Option<Uuid>,
    /// The bytes; `None` for an existing document.
    pub(crate) raw: Option<Vec<u8>>,
}

/// Result of a transform for a document.
#[derive(Clone, Debug)]
pub(crate) struct Mapping {
    /// `mapped` or `failed`.
    pub(crate) state: &'static str,
    /// The contract that it is mapped to.
    pub(crate) to: String,
    pub(crate) revision: Option<i32>,
    pub(crate) event: Option<Uuid>,
    pub(crate) digest: Option<Vec<u8>>,
    /// Number of events made of it, this one included.
    pub(crate) count: i32,
    pub(crate) changes: Option<String>,
    pub(crate) unmapped: Option<String>,
    pub(crate) failures: Option<String>,
}

impl Intakes {
    pub(crate) fn push(&mut self, new: NewIntake) {
        let mapped = new.mapped;
        let text = |of: fn(&Mapping) -> Option<&String>| {
            mapped.as_ref().and_then(of).map(|text| printable(text))
        };
        let (changes, unmapped) =
            (text(|one| one.changes.as_ref()), text(|one| one.unmapped.as_ref()));
        let failures = text(|one| one.failures.as_ref());
        self.add((
            new.id,
            new.namespace,
            new.source,
            new.source_version,
            new.verdict,
            new.code,
            new.message.as_deref().map(printable),
            new.errors.as_deref().map(printable),
            Moment(new.received_at),
            new.processed_at.map(Moment),
            new.door,
            new.form,
            new.trust,
            new.contract,
            new.event,
            new.digest,
            new.bytes,
            printable(&new.content_type),
            new.peer,
            new.request_id.as_deref().map(printable),
            printable(&new.headers),
            new.hints.as_deref().map(printable),
            mapped.as_ref().map(|mapped| mapped.state),
            mapped.as_ref().map(|mapped| mapped.to.clone()),
            mapped.as_ref().and_then(|mapped| mapped.revision),
            mapped.as_ref().and_then(|mapped| mapped.event),
            mapped.as_ref().and_then(|mapped| mapped.digest.clone()),
            mapped.as_ref().map_or(0, |mapped| mapped.count),
            changes,
            unmapped,
            failures,
            new.reprocess,
            new.raw,
        ));
    }
}

/// Returns the parts of a statement that write documents, whose columns are the parameters from `first` on.
pub(crate) fn parts(first: usize) -> String {
    const TYPES: [&str; 33] = [
        "uuid",
        "text",
        "text",
        "integer",
        "text",
        "text",
        "text",
        "text",
        "timestamptz",
        "timestamptz",
        "text",
        "text",
        "smallint",
        "text",
        "uuid",
        "bytea",
        "integer",
        "text",
        "text",
        "text",
        "text",
        "text",
        "text",
        "text",
        "integer",
        "uuid",
        "bytea",
        "integer",
        "text",
        "text",
        "text",
        "uuid",
        "bytea",
    ];
    const COLUMNS: &str = "id, namespace, source, source_version, verdict, code, message, errors, received_at, \
        processed_at, door, form, trust, contract, event, digest, bytes, content_type, peer, request_id, headers, hints, \
        mapping, mapped_to, mapped_revision, mapped_event, mapped_digest, mappings, changes, unmapped, failures, reprocess";
    let parameters: Vec<String> =
        (first..).zip(TYPES).map(|(number, kind)| format!("${number}::{kind}[]")).collect();
    let values: Vec<String> = COLUMNS.split(", ").map(|column| format!("x.{column}")).collect();
    format!(
        "taken as (select * from unnest({}) as x({COLUMNS}, raw)), \
         intakes as (insert into intake ({COLUMNS}) select {} from taken x where x.raw is not null returning 1), \
         raws as (insert into intake_raw (id, raw) select x.id, x.raw from taken x where x.raw is not null returning 1), \
         again as (update intake i set source_version = x.source_version, verdict = x.verdict, code = x.code, \
           message = x.message, errors = x.errors, processed_at = x.processed_at, contract = x.contract, event = x.event, \
           hints = coalesce(x.hints, i.hints), mapping = x.mapping, mapped_to = x.mapped_to, \
           mapped_revision = x.mapped_revision, mapped_event = coalesce(x.mapped_event, i.mapped_event), \
           mapped_digest = coalesce(x.mapped_digest, i.mapped_digest), mappings = greatest(x.mappings, i.mappings), \
           changes = x.changes, unmapped = x.unmapped, failures = x.failures, \
           reprocess = coalesce(x.reprocess, i.reprocess) \
           from taken x where x.raw is null and i.id = x.id and (i.verdict = 'refused' or x.mapping is not null) \
           returning 1), \
         hinted as (insert into hint (intake, ord, namespace, kind, value, junk) \
           select x.id, h.ord, x.namespace, h.hint ->> 'kind', coalesce(h.hint ->> 'value_search', h.hint ->> 'value_raw'), \
             (h.hint ->> 'junk')::boolean \
           from taken x cross join lateral jsonb_array_elements(x.hints::jsonb) with ordinality as h(hint, ord) \
           where x.hints is not null on conflict (intake, ord) do update set kind = excluded.kind, value = excluded.value, \
             junk = excluded.junk returning 1), \
         unhinted as (delete from hint h using taken x where x.raw is null and x.hints is not null and h.intake = x.id \
           and h.ord > jsonb_array_length(x.hints::jsonb) returning 1)",
        parameters.join(", "),
        values.join(", "),
    )
}

/// Writes documents that became no event. Returns the number of existing ones that were changed.
pub(crate) async fn write(
    connection: &mut PgConnection,
    intakes: &Intakes,
) -> Result<u64, sqlx::Error> {
    let text = format!("-- intake_write\nwith {} select count(*) from again", parts(1));
    let query = intakes.bind(sqlx::query(AssertSqlSafe(text)));
    let changed: i64 = query.fetch_one(connection).await?.try_get(0)?;
    Ok(changed.unsigned_abs())
}

/// A line of the table `intake`.
#[derive(Clone, Debug)]
pub(crate) struct IntakeRow {
    pub(crate) id: Uuid,
    pub(crate) source: String,
    pub(crate) source_version: i32,
    pub(crate) verdict: String,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    /// Empty in lists.
    pub(crate) errors: Option<String>,
    pub(crate) received_at: Time,
    pub(crate) processed_at: Option<Time>,
    pub(crate) door: String,
    pub(crate) form: String,
    pub(crate) trust: i16,
    pub(crate) contract: Option<String>,
    pub(crate) event: Option<Uuid>,
    pub(crate) digest: Vec<u8>,
    pub(crate) bytes: i32,
    pub(crate) content_type: String,
    pub(crate) peer: Option<String>,
    pub(crate) request_id: Option<String>,
    pub(crate) mapping: Option<String>,
    pub(crate) mapped_to: Option<String>,
    pub(crate) mapped_revision: Option<i32>,
    pub(crate) mapped_event: Option<Uuid>,
    pub(crate) mapped_digest: Option<Vec<u8>>,
    pub(crate) mappings: i32,
    /// The reprocessing that wrote its last event.
    pub(crate) reprocess: Option<Uuid>,
    /// Empty in lists, as are those that follow.
    pub(crate) headers: Option<String>,
    pub(crate) changes: Option<String>,
    pub(crate) unmapped: Option<String>,
    pub(crate) failures: Option<String>,
}

const LINE: &str = "id, source, source_version, verdict, code, message, received_at, processed_at, door, form, trust, \
    contract, event, digest, bytes, content_type, peer, request_id, mapping, mapped_to, mapped_revision, mapped_event, \
    mapped_digest, mappings, reprocess";

pub(super) fn intake_row(row: &PgRow) -> Result<IntakeRow, sqlx::Error> {
    let Moment(received_at) = row.try_get(6)?;
    let processed_at: Option<Moment> = row.try_get(7)?;
    Ok(IntakeRow {
        id: row.try_get(0)?,
        source: row.try_get(1)?,
        source_version: row.try_get(2)?,
        verdict: row.try_get(3)?,
        code: row.try_get(4)?,
        message: row.try_get(5)?,
        received_at,
        processed_at: processed_at.map(|Moment(at)| at),
        door: row.try_get(8)?,
        form: row.try_get(9)?,
        trust: row.try_get(10)?,
        contract: row.try_get(11)?,
        event: row.try_get(12)?,
        digest: row.try_get(13)?,
        bytes: row.try_get(14)?,
        content_type: row.try_get(15)?,
        peer: row.try_get(16)?,
        request_id: row.try_get(17)?,
        mapping: row.try_get(18)?,
        mapped_to: row.try_get(19)?,
        mapped_revision: row.try_get(20)?,
        mapped_event: row.try_get(21)?,
        mapped_digest: row.try_get(22)?,
        mappings: row.try_get(23)?,
        reprocess: row.try_get(24)?,
        errors: row.try_get(25)?,
        headers: row.try_get(26)?,
        changes: row.try_get(27)?,
        unmapped: row.try_get(28)?,
        failures: row.try_get(29)?,
    })
}

/// Filter of documents.
#[derive(Clone, Debug, Default)]
pub(crate) struct IntakeFilter {
    pub(crate) source: Option<String>,
    pub(crate) verdict: Option<&'static str>,
    pub(crate) code: Option<String>,
    pub(crate) mapping: Option<&'static str>,
    pub(crate) contract: Option<String>,
}

/// Lists documents of a namespace, the newest first, from before one of them on.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    filter: &IntakeFilter,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<IntakeRow>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- intake_list\nselect ");
    query.push(LINE).push(", null::text, null::text, null::text, null::text, null::text from intake where namespace = ");
    query.push_bind(namespace);
    push_filter(&mut query, filter);
    if let Some(before) = before {
        query.push(" and id < ").push_bind(before);
    }
    query.push(" order by id desc limit ").push_bind(limit);
    query.build().fetch_all(connection).await?.iter().map(intake_row).collect()
}

/// Adds what documents are wanted.
pub(super) fn push_filter(query: &mut QueryBuilder<Postgres>, filter: &IntakeFilter) {
    if let Some(source) = &filter.source {
        query.push(" and source = ").push_bind(source.clone());
    }
    if let Some(verdict) = filter.verdict {
        // As the index has it.
        query.push(match verdict {
            "refused" => " and verdict = 'refused'",
            _ => " and verdict = 'accepted'",
        });
    }
    if let Some(mapping) = filter.mapping {
        query.push(match mapping {
            "failed" => " and mapping = 'failed'",
            "overtaken" => " and mapping = 'overtaken'",
            _ => " and mapping = 'mapped'",
        });
    }
    if let Some(contract) = &filter.contract {
        query.push(" and contract = ").push_bind(contract.clone());
    }
    if let Some(code) = &filter.code {
        query.push(" and code = ").push_bind(code.clone());
    }
}

/// Returns the columns of a line with the headers of the request.
pub(super) fn line_with_headers() -> String {
    format!(
        "{LINE}, null::text as errors, headers, null::text as changes, null::text as unmapped, null::text as failures"
    )
}

/// Finds a document.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
) -> Result<Option<IntakeRow>, sqlx::Error> {
    let text = format!(
        "-- intake_find\nselect {LINE}, errors, headers, changes, unmapped, failures from intake where namespace = $1 and id = $2"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(id);
    query.fetch_optional(connection).await?.as_ref().map(intake_row).transpose()
}

/// Finds the bytes of a document; `None` if they were deleted.
pub(crate) async fn raw(
    connection: &mut PgConnection,
    id: Uuid,
) -> Result<Option<Vec<u8>>, sqlx::Error> {
    sqlx::query_scalar("-- intake_raw\nselect raw from intake_raw where id = $1")
        .bind(id)
        .fetch_optional(connection)
        .await
}

/// Returns the documents of which one of `events` was made.
pub(crate) async fn behind(
    connection: &mut PgConnection,
    namespace: &str,
    events: &[Uuid],
) -> Result<Vec<IntakeRow>, sqlx::Error> {
    let text = format!(
        "-- intake_behind\n\
         select {LINE}, null::text, null::text, null::text, null::text, null::text from intake \
         where namespace = $1 and (event = any($2) or mapped_event = any($2)) order by id limit 100"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(events);
    query.fetch_all(connection).await?.iter().map(intake_row).collect()
}

/// A document that was accepted.
#[derive(Debug)]
pub(crate) struct SampleRow {
    pub(crate) id: Uuid,
    pub(crate) form: String,
    pub(crate) raw: Vec<u8>,
}

/// Returns the last documents that follow a contract, as many as have so many bytes together.
pub(crate) async fn samples(
    connection: &mut PgConnection,
    namespace: &str,
    contract: &str,
    (most, bytes): (i64, i64),
) -> Result<Vec<SampleRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- intake_samples\n\
         select i.id, i.form, r.raw from (select id, form, sum(bytes) over (order by id desc) as upto from \
           (select id, form, bytes from intake where namespace = $1 and contract = $2 and verdict = 'accepted' \
            order by id desc limit $3) l) i \
         join intake_raw r on r.id = i.id where i.upto <= $4 order by i.id desc",
    )
    .bind(namespace)
    .bind(contract)
    .bind(most)
    .bind(bytes)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            Ok(SampleRow { id: row.try_get(0)?, form: row.try_get(1)?, raw: row.try_get(2)? })
        })
        .collect()
}

/// Finds the documents that became events, each with its event.
pub(crate) async fn of_events(
    connection: &mut PgConnection,
    events: &[Uuid],
) -> Result<Vec<(Uuid, Uuid)>, sqlx::Error> {
    sqlx::query_as(
        "-- intake_of_events\n\
         select distinct on (event) event, id from intake where event = any($1) order by event, id",
    )
    .bind(events)
    .fetch_all(connection)
    .await
}

/// Returns the results of existing documents.
pub(crate) async fn verdicts(
    connection: &mut PgConnection,
    ids: &[Uuid],
) -> Result<Vec<(Uuid, String, Option<String>, Option<String>)>, sqlx::Error> {
    sqlx::query_as(
        "-- intake_verdicts\nselect id, verdict, code, message from intake where id = any($1)",
    )
    .bind(ids)
    .fetch_all(connection)
    .await
}
