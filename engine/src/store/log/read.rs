//! Reads the log: by position, by stream, by correlation, and single events.

use backstitch_saga::Time;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::logged::{EVENT, MILESTONE, TOLD, logged};
use crate::store::moment::Moment;

/// Batches that one statement looks through for events that a filter wants, and events of them.
const LOOKED_THROUGH: (i64, i64) = (5_000, 20_000);

/// Filter of events.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogFilter {
    pub(crate) stream: Option<String>,
    /// A type.
    pub(crate) event_type: Option<String>,
    /// Prefix of the types.
    pub(crate) prefix: Option<String>,
    pub(crate) correlation_id: Option<String>,
}

/// Head and horizon of the log of a namespace.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heads {
    pub(crate) position: i64,
    pub(crate) horizon: i64,
}

/// An event as it is stored.
#[derive(Debug)]
pub(crate) struct EventRow {
    pub(crate) position: Option<i64>,
    pub(crate) batch: Uuid,
    pub(crate) ord: i16,
    pub(crate) event_type: String,
    pub(crate) stream: Option<String>,
    pub(crate) stream_version: Option<i64>,
    pub(crate) contract: Option<String>,
    pub(crate) op: Option<String>,
    pub(crate) op_corrected: bool,
    pub(crate) noop: bool,
    pub(crate) changed: Option<String>,
    pub(crate) source: String,
    pub(crate) claimed_source: Option<String>,
    pub(crate) source_id: Option<String>,
    pub(crate) trust: i16,
    pub(crate) occurred_at: Option<String>,
    pub(crate) received_at: Time,
    pub(crate) correlation_id: String,
    pub(crate) causation_id: Option<String>,
    pub(crate) hops: i32,
    pub(crate) traceparent: Option<String>,
    pub(crate) labels: Option<String>,
    pub(crate) body: Option<String>,
    pub(crate) erased: bool,
}

/// Columns of an [`EventRow`] behind its position, of `e` and `b`.
const COLUMNS: &str = "e.batch, e.ord, e.type, e.stream, e.stream_version, e.contract, e.op, e.op_corrected, e.noop, \
    e.changed, e.source, e.claimed_source, e.source_id, e.trust, e.occurred_at, e.received_at, e.correlation_id, \
    e.causation_id, e.hops, e.traceparent, e.labels, coalesce(e.told, b.body), b.batch is null and e.told is null as erased";

fn event_row(row: &PgRow) -> Result<EventRow, sqlx::Error> {
    let Moment(received_at) = row.try_get(16)?;
    Ok(EventRow {
        position: row.try_get(0)?,
        batch: row.try_get(1)?,
        ord: row.try_get(2)?,
        event_type: row.try_get(3)?,
        stream: row.try_get(4)?,
        stream_version: row.try_get(5)?,
        contract: row.try_get(6)?,
        op: row.try_get(7)?,
        op_corrected: row.try_get(8)?,
        noop: row.try_get(9)?,
        changed: row.try_get(10)?,
        source: row.try_get(11)?,
        claimed_source: row.try_get(12)?,
        source_id: row.try_get(13)?,
        trust: row.try_get(14)?,
        occurred_at: row.try_get(15)?,
        received_at,
        correlation_id: row.try_get(17)?,
        causation_id: row.try_get(18)?,
        hops: row.try_get(19)?,
        traceparent: row.try_get(20)?,
        labels: row.try_get(21)?,
        body: row.try_get(22)?,
        erased: row.try_get(23)?,
    })
}

/// Reads head and horizon of a namespace.
pub(crate) async fn heads(
    connection: &mut PgConnection,
    namespace: &str,
) -> Result<Heads, sqlx::Error> {
    let row =
        sqlx::query("-- log_heads\nselect position, horizon from log_head where namespace = $1")
            .bind(namespace)
            .fetch_optional(connection)
            .await?;
    let Some(row) = row else { return Ok(Heads::default()) };
    Ok(Heads { position: row.try_get(0)?, horizon: row.try_get(1)? })
}

/// Reads the heads of namespaces; one without events has none.
pub(crate) async fn heads_of(
    connection: &mut PgConnection,
    namespaces: &[String],
) -> Result<Vec<(String, i64)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- log_heads_of\nselect namespace, position from log_head where namespace = any($1)",
    )
    .bind(namespaces)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Finds an event.
pub(crate) async fn event(
    connection: &mut PgConnection,
    namespace: &str,
    (batch, ord): (Uuid, i16),
) -> Result<Option<EventRow>, sqlx::Error> {
    let text = format!(
        "-- log_event\n\
         select p.upto - p.n + 1 + e.ord, {COLUMNS} from {logged} e \
         left join event_body b on b.batch = e.batch and b.ord = e.ord \
         left join position p on p.batch = e.batch \
         where e.ord = $2 and e.namespace = $3",
        logged = logged("batch = $1")
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(batch).bind(ord).bind(namespace);
    query.fetch_optional(connection).await?.as_ref().map(event_row).transpose()
}

/// Condition for the wanted ones of the events that were found.
const WANTED: &str = "p.upto - p.n + 1 + e.ord > $2 and p.upto - p.n + 1 + e.ord <= $3 \
    and ($7::text is null or e.type = $7) and ($8::text is null or starts_with(e.type, $8))";
/// The parameters that only some of the statements need, so that all have the same.
const UNUSED: &str = "$6::text is null and $9::text is null and $11::uuid is null";

/// Condition for rows of milestones that were written with records of a run.
const OF_RUN: &str =
    "written_with = any(array(select j.batch from journal j where j.run_id = $11::uuid))";

/// The beginning of the statement that reads a stream: of the events that have versions from the first one after the
/// position on, and of those that tell of a run.
fn of_stream() -> String {
    format!(
        "with recursive search (low, high) as (\
           select coalesce((select min(e.stream_version) from event e where e.namespace = $1 and e.stream = $6), 1) - 1, \
             coalesce((select s.version from stream s where s.namespace = $1 and s.stream = $6), 0) \
           union all select case when k.before then m.middle else s.low end, \
             case when k.before then s.high else m.middle - 1 end \
           from search s cross join lateral (select (s.low + s.high + 1) / 2 as middle) m \
           cross join lateral (select exists (select from event e join position p on p.batch = e.batch \
             where e.namespace = $1 and e.stream = $6 and e.stream_version = m.middle \
             and p.upto - p.n + 1 + e.ord <= $2) as before) k where s.low < s.high), \
         looked as materialized (select $3::bigint as upto, null::bigint as many), \
         found as materialized (select * from (\
           (select p.upto - p.n + 1 + e.ord as position, {EVENT} from event e \
             join position p on p.batch = e.batch where e.namespace = $1 and e.stream = $6 \
             and e.stream_version > (select max(low) from search) and {WANTED} \
             and ($9::text is null or e.correlation_id = $9) order by e.stream_version limit $4) \
           union all ({milestones} and e.stream = $6 and ($9::text is null or e.correlation_id = $9) \
             order by 1 limit $4)) both_of order by 1 limit $4), \
         unused as (select where $10::bigint > 0)",
        milestones = milestones(&format!("m.{OF_RUN}"))
    )
}

/// The beginning of the statement that reads a story.
fn of_story() -> String {
    format!(
        "with looked as materialized (select $3::bigint as upto, null::bigint as many), \
         found as materialized (select * from (\
           (select p.upto - p.n + 1 + e.ord as position, {EVENT} from event e \
             join position p on p.batch = e.batch where e.namespace = $1 and e.correlation_id = $9 and {WANTED} \
             order by 1 limit $4) \
           union all ({milestones} and e.correlation_id = $9 order by 1 limit $4)) both_of order by 1 limit $4), \
         unused as (select where $6::text is null and $10::bigint > 0)",
        milestones = milestones(&format!(
            "m.batch in (select o.batch from milestone o where o.{OF_RUN} \
               union select o.batch from milestone o where o.stories @> array[$9::text])"
        ))
    )
}

/// The beginning of the statement that reads the log from a position on.
fn of_all() -> String {
    format!(
        "with batches as materialized (select upto, batch, n from position where namespace = $1 and upto > $2 \
           and upto - n < $3 order by upto limit $10), \
         looked as materialized (select max(upto) as upto, count(*) as many from batches), \
         found as materialized (select p.upto - p.n + 1 + e.ord as position, e.* from batches p \
           cross join lateral {logged} e where {WANTED} order by 1 limit $4), unused as (select where {UNUSED})",
        logged = logged("batch = p.batch")
    )
}

/// The events of milestones that satisfy `which`, with their positions.
fn milestones(which: &str) -> String {
    format!(
        "select p.upto - p.n + 1 + e.ord as position, e.* from (select {MILESTONE} from milestone m {TOLD} \
           where m.namespace = $1 and {which}) e join position p on p.batch = e.batch where {WANTED}"
    )
}

/// Returns events with positions after `after` and up to `head`, in their order: at most `limit` and about `bytes`, but
/// at least one; and the position up to which the log was searched.
pub(crate) async fn page(
    connection: &mut PgConnection,
    namespace: &str,
    filter: &LogFilter,
    (after, head): (i64, i64),
    (limit, bytes): (i64, i64),
) -> Result<(Vec<EventRow>, i64), sqlx::Error> {
    // Each source gives the events with their positions, in order, and its progress.
    let found = match (&filter.stream, &filter.correlation_id) {
        (Some(_), _) => of_stream(),
        (None, Some(_)) => of_story(),
        (None, None) => of_all(),
    };
    // The run that is told of in the stream or story, if it is one of a run.
    let run = filter
        .stream
        .as_deref()
        .map_or(filter.correlation_id.as_deref(), |stream| stream.strip_prefix("run:"));
    let run = run.and_then(|text| text.parse::<Uuid>().ok());
    let text = format!(
        "-- log_page\n{found}, \
         counted as (select f.*, sum(f.bytes + 512) over (order by f.position) - f.bytes - 512 as before from found f) \
         select e.position, {COLUMNS}, l.upto, l.many, (select count(*) from found) from looked l left join counted e on e.before < $5 \
         left join event_body b on b.batch = e.batch and b.ord = e.ord order by e.position"
    );
    let filtered = filter.event_type.is_some() || filter.prefix.is_some();
    let (batches, events) = if filtered { LOOKED_THROUGH } else { (limit, limit) };
    let by_position = filter.stream.is_none() && filter.correlation_id.is_none();
    let head = if by_position { head.min(after.saturating_add(events)) } else { head };
    let rows = sqlx::query(AssertSqlSafe(text))
        .bind(namespace)
        .bind(after)
        .bind(head)
        .bind(limit)
        .bind(bytes)
        .bind(&filter.stream)
        .bind(&filter.event_type)
        .bind(&filter.prefix)
        .bind(&filter.correlation_id)
        .bind(batches)
        .bind(run)
        .fetch_all(connection)
        .await?;
    let Some(first) = rows.first() else { return Ok((Vec::new(), after)) };
    let looked: Option<i64> = first.try_get(24)?;
    let many: Option<i64> = first.try_get(25)?;
    let mut events = Vec::with_capacity(rows.len());
    for row in &rows {
        let position: Option<i64> = row.try_get(0)?;
        if position.is_some() {
            events.push(event_row(row)?);
        }
    }
    let found: i64 = first.try_get(26)?;
    let count = i64::try_from(events.len()).unwrap_or(i64::MAX);
    // Events left out for their size, or after the limit, were not searched.
    let cut = count < found || count >= limit;
    let last = events.last().and_then(|event| event.position);
    let next = match (last, cut) {
        (Some(last), true) => last,
        _ if many.is_some_and(|many| many < batches) => head,
        (last, _) => looked.or(last).unwrap_or(head).min(head),
    };
    Ok((events, next.max(after)))
}

/// Events at `positions`, in their order, as far as they are there: about `bytes`, but one at least.
pub(crate) async fn at(
    connection: &mut PgConnection,
    namespace: &str,
    positions: &[i64],
    bytes: i64,
) -> Result<Vec<EventRow>, sqlx::Error> {
    let text = format!(
        "-- log_at\n\
         with found as materialized (select w.position, e.* from unnest($2::bigint[]) as w(position) \
           cross join lateral (select p.upto, p.batch, p.n from position p where p.namespace = $1 and p.upto >= w.position \
             order by p.upto limit 1) p \
           cross join lateral (select {EVENT} from event e where e.batch = p.batch and e.ord = w.position - (p.upto - p.n + 1) \
             union all select {MILESTONE} from milestone m {TOLD} \
               where m.batch = p.batch and t.place - 1 = w.position - (p.upto - p.n + 1)) e), \
         counted as (select f.*, sum(f.bytes + 512) over (order by f.position) - f.bytes - 512 as before from found f) \
         select e.position, {COLUMNS} from counted e left join event_body b on b.batch = e.batch and b.ord = e.ord \
         where e.before < $3 order by e.position"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(positions).bind(bytes);
    query.fetch_all(connection).await?.iter().map(event_row).collect()
}

/// State of a stream.
#[derive(Debug)]
pub(crate) struct StreamNow {
    pub(crate) version: i64,
    /// The last event that says something of the entity, and when the document that it was made of came, or else
    /// itself.
    pub(crate) newest: Option<(Uuid, Time)>,
}

/// Returns the state of a stream.
pub(crate) async fn newest_of_stream(
    connection: &mut PgConnection,
    namespace: &str,
    stream: &str,
) -> Result<Option<StreamNow>, sqlx::Error> {
    let row = sqlx::query(
        "-- log_newest_of_stream\n\
         select s.version, e.id, coalesce((select max(i.received_at) from intake i where i.mapped_event = e.id), e.received_at) \
         from stream s left join lateral (select overlay(l.batch::text placing lpad(to_hex(l.ord::integer), 4, '0') from 33 for 4)::uuid as id, \
             l.received_at from event l where l.namespace = s.namespace and l.stream = s.stream and l.op is not null \
             order by l.stream_version desc limit 1) e on true \
         where s.namespace = $1 and s.stream = $2",
    )
    .bind(namespace)
    .bind(stream)
    .fetch_optional(connection)
    .await?;
    let Some(row) = row else { return Ok(None) };
    let (id, at): (Option<Uuid>, Option<Moment>) = (row.try_get(1)?, row.try_get(2)?);
    Ok(Some(StreamNow { version: row.try_get(0)?, newest: id.zip(at.map(|Moment(at)| at)) }))
}
