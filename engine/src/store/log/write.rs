//! Writes appends: everything that was decided, in one statement and one transaction.

use std::collections::HashMap;
use std::sync::{LazyLock, PoisonError, RwLock};

use backstitch_saga::Time;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, SqlSafeStr, SqlStr};
use uuid::Uuid;

use crate::store::batch::part;
use crate::store::intake::{self, Intakes, NewIntake};
use crate::store::moment::Moment;
use crate::store::partitions::{Week, Weeks};

/// Error code of PostgreSQL if a key is taken.
const UNIQUE_VIOLATION: &str = "23505";
/// Its error code if a stream has moved on, see [`TEXT`].
const DIVISION_BY_ZERO: &str = "22012";
/// Its error code if a partition no longer exists.
const UNDEFINED_TABLE: &str = "42P01";

part!(
    /// Events.
    Events {
        batch: Uuid,
        ord: i16,
        namespace: String,
        event_type: String,
        stream: Option<String>,
        stream_version: Option<i64>,
        contract: Option<String>,
        op: Option<&'static str>,
        op_corrected: bool,
        noop: bool,
        changed: Option<String>,
        source: String,
        claimed_source: Option<String>,
        source_id: Option<String>,
        trust: i16,
        occurred_at: Option<String>,
        received_at: Moment,
        correlation_id: String,
        causation_id: Option<String>,
        hops: i32,
        traceparent: Option<String>,
        labels: Option<String>,
        bytes: i32,
        leaf: Vec<u8>,
        body: Option<String>,
        salt: Vec<u8>,
    }
);
part!(
    /// Keys of events.
    Keys { namespace: String, source: String, id: String, batch: Uuid, ord: i16, digest: Vec<u8> }
);
part!(
    /// Heads of streams, by namespace and name; `before` is the version that was decided on, 0 for a new one.
    Streams {
        namespace: String,
        stream: String,
        before: i64,
        version: i64,
        entity: Option<&'static str>,
        body_batch: Option<Uuid>,
        body_ord: Option<i16>,
        body_digest: Option<Vec<u8>>,
        changed_at: Moment,
    }
);
part!(
    /// Batches.
    Batches { namespace: String, batch: Uuid, n: i16, at: Moment }
);

/// Rows of one transaction.
#[derive(Debug, Default)]
pub(crate) struct Append {
    events: Events,
    keys: Keys,
    streams: Streams,
    batches: Batches,
    /// Documents that events were made of.
    intakes: Intakes,
    /// Streams that there were before.
    moved: i64,
}

/// An event to be written.
#[derive(Debug)]
pub(crate) struct NewEvent {
    pub(crate) batch: Uuid,
    pub(crate) ord: i16,
    pub(crate) namespace: String,
    pub(crate) event_type: String,
    pub(crate) stream: Option<String>,
    pub(crate) stream_version: Option<i64>,
    pub(crate) contract: Option<String>,
    pub(crate) op: Option<&'static str>,
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
    pub(crate) leaf: Vec<u8>,
    pub(crate) body: String,
    pub(crate) salt: [u8; 16],
}

/// A key to be written.
#[derive(Debug)]
pub(crate) struct NewKey {
    pub(crate) namespace: String,
    pub(crate) source: String,
    pub(crate) id: String,
    pub(crate) batch: Uuid,
    pub(crate) ord: i16,
    pub(crate) digest: Vec<u8>,
}

/// Head of a stream to be moved on.
#[derive(Debug)]
pub(crate) struct NewHead {
    pub(crate) namespace: String,
    pub(crate) stream: String,
    pub(crate) before: i64,
    pub(crate) version: i64,
    /// `None` when no event had an operation.
    pub(crate) entity: Option<&'static str>,
    /// Place and digest of the last body.
    pub(crate) body: Option<(Uuid, i16, [u8; 32])>,
    pub(crate) changed_at: Time,
}

impl Append {
    pub(crate) fn event(&mut self, event: NewEvent) {
        let bytes = i32::try_from(event.body.len()).unwrap_or(i32::MAX);
        self.events.add((
            event.batch,
            event.ord,
            event.namespace,
            event.event_type,
            event.stream,
            event.stream_version,
            event.contract,
            event.op,
            event.op_corrected,
            event.noop,
            event.changed,
            event.source,
            event.claimed_source,
            event.source_id,
            event.trust,
            event.occurred_at,
            Moment(event.received_at),
            event.correlation_id,
            event.causation_id,
            event.hops,
            event.traceparent,
            event.labels,
            bytes,
            event.leaf,
            Some(event.body),
            event.salt.to_vec(),
        ));
    }

    pub(crate) fn key(&mut self, key: NewKey) {
        self.keys.add((key.namespace, key.source, key.id, key.batch, key.ord, key.digest));
    }

    pub(crate) fn head(&mut self, head: NewHead) {
        self.moved += i64::from(head.before > 0);
        self.streams.add((
            head.namespace,
            head.stream,
            head.before,
            head.version,
            head.entity,
            head.body.map(|(batch, ..)| batch),
            head.body.map(|(_, ord, _)| ord),
            head.body.map(|(.., digest)| digest.to_vec()),
            Moment(head.changed_at),
        ));
    }

    pub(crate) fn intake(&mut self, intake: NewIntake) {
        self.intakes.push(intake);
    }

    pub(crate) fn batch(&mut self, namespace: String, batch: Uuid, events: i16, at: Time) {
        self.batches.add((namespace, batch, events, Moment(at)));
    }

    /// Returns the number of events.
    pub(crate) fn count(&self) -> usize {
        self.events.len()
    }
}

/// Result of an append.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// It is written.
    Done,
    /// Nothing is written: a stream or a key is not as it was when it was decided.
    Refused,
}

/// Returns the statement. Rows whose key is taken, and a division by zero where a stream has moved on, undo all of it.
/// Rows that others may write concurrently are sorted, to avoid deadlocks. The row that announces a batch takes its
/// identity after the heads were loaded: events visible then have lower ones.
const TEXT: &str = "-- log_append\n\
with heads as (select * from unnest($33::text[], $34::text[], $35::bigint[], $36::bigint[], $37::text[], $38::uuid[],
    $39::smallint[], $40::bytea[], $41::timestamptz[]) as x(namespace, stream, before, version, entity, body_batch, body_ord,
    body_digest, changed_at)),
moved as (update stream s set version = x.version, entity = coalesce(x.entity, s.entity),
    body_batch = case when x.entity is null then s.body_batch else x.body_batch end,
    body_ord = case when x.entity is null then s.body_ord else x.body_ord end,
    body_digest = case when x.entity is null then s.body_digest else x.body_digest end, changed_at = x.changed_at
  from heads x where x.before > 0 and s.namespace = x.namespace and s.stream = x.stream and s.version = x.before returning 1),
begun as (insert into stream (namespace, stream, version, entity, body_batch, body_ord, body_digest, changed_at)
  select x.namespace, x.stream, x.version, x.entity, x.body_batch, x.body_ord, x.body_digest, x.changed_at
  from heads x where x.before = 0 returning 1),
keys as (insert into event_key (namespace, source, id, batch, ord, digest)
  select * from unnest($27::text[], $28::text[], $29::text[], $30::uuid[], $31::smallint[], $32::bytea[]) returning 1),
events as (select * from unnest($1::uuid[], $2::smallint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::text[],
    $8::text[], $9::bool[], $10::bool[], $11::text[], $12::text[], $13::text[], $14::text[], $15::smallint[], $16::text[],
    $17::timestamptz[], $18::text[], $19::text[], $20::integer[], $21::text[], $22::text[], $23::integer[], $24::bytea[],
    $25::text[], $26::bytea[]) as x(batch, ord, namespace, type, stream, stream_version, contract, op, op_corrected, noop,
    changed, source, claimed_source, source_id, trust, occurred_at, received_at, correlation_id, causation_id, hops,
    traceparent, labels, bytes, leaf, body, salt)),
written as (insert into {event} (batch, ord, namespace, type, stream, stream_version, contract, op, op_corrected, noop,
    changed, source, claimed_source, source_id, trust, occurred_at, received_at, correlation_id, causation_id, hops,
    traceparent, labels, bytes, leaf)
  select x.batch, x.ord, x.namespace, x.type, x.stream, x.stream_version, x.contract, x.op, x.op_corrected, x.noop,
    x.changed, x.source, x.claimed_source, x.source_id, x.trust, x.occurred_at, x.received_at, x.correlation_id,
    x.causation_id, x.hops, x.traceparent, x.labels, x.bytes, x.leaf from events x returning 1),
bodies as (insert into {event_body} (batch, ord, body, salt) select x.batch, x.ord, x.body, x.salt from events x
  returning 1),
told as (insert into announced (namespace, batch, n, at)
  select * from unnest($42::text[], $43::uuid[], $44::smallint[], $45::timestamptz[]) returning 1)
select 1 / (case when (select count(*) from moved) = $46 then 1 else 0 end)";

/// The end of the statement, before which further parts are inserted.
const END: &str = "\nselect 1 / (case";
/// The parameters before those of documents.
const PARAMETERS: usize = 46;

/// The statements for a week with partitions, or for none; with documents, and without.
static TEXTS: LazyLock<RwLock<Texts>> = LazyLock::new(RwLock::default);

type Texts = HashMap<(Option<Week>, bool), SqlStr>;

/// Returns the statement for a week with partitions, or for none.
fn text(week: Option<Week>, documents: bool) -> SqlStr {
    let key = (week, documents);
    if let Some(text) = TEXTS.read().unwrap_or_else(PoisonError::into_inner).get(&key) {
        return text.clone();
    }
    let table = |name: &str| week.map_or_else(|| name.to_owned(), |week| week.partition(name));
    let mut text =
        TEXT.replace("{event}", &table("event")).replace("{event_body}", &table("event_body"));
    if documents {
        text = text.replace(END, &format!(",\n{}{END}", intake::parts(PARAMETERS + 1)));
    }
    let text = AssertSqlSafe(text).into_sql_str();
    TEXTS.write().unwrap_or_else(PoisonError::into_inner).insert(key, text.clone());
    text
}

impl Append {
    /// Returns the first batch; `None` when nothing is to be written.
    pub(crate) fn first_batch(&self) -> Option<Uuid> {
        self.batches.batch.first().copied()
    }

    /// Writes everything, or nothing.
    pub(crate) async fn write(
        &self,
        connection: &mut PgConnection,
        weeks: &Weeks,
    ) -> Result<Written, sqlx::Error> {
        let week = weeks.of(&self.batches.batch);
        match self.write_to(connection, week).await {
            // The partition was dropped in between, or a clock is far off.
            Err(sqlx::Error::Database(error))
                if week.is_some() && error.code().as_deref() == Some(UNDEFINED_TABLE) =>
            {
                self.write_to(connection, None).await
            }
            written => written,
        }
    }

    async fn write_to(
        &self,
        connection: &mut PgConnection,
        week: Option<Week>,
    ) -> Result<Written, sqlx::Error> {
        let documents = self.intakes.len() > 0;
        let query = self.events.bind(sqlx::query(text(week, documents)));
        let query = self.batches.bind(self.streams.bind(self.keys.bind(query)));
        let mut query = query.bind(self.moved);
        if documents {
            query = self.intakes.bind(query);
        }
        match query.execute(connection).await {
            Ok(_) => Ok(Written::Done),
            Err(sqlx::Error::Database(error))
                if matches!(error.code().as_deref(), Some(UNIQUE_VIOLATION | DIVISION_BY_ZERO)) =>
            {
                Ok(Written::Refused)
            }
            Err(error) => Err(error),
        }
    }
}

/// Returns whether events of a batch are there.
pub(crate) async fn is_written(
    connection: &mut PgConnection,
    batch: Uuid,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("-- log_is_written\nselect exists (select from event where batch = $1)")
        .bind(batch)
        .fetch_one(connection)
        .await
}
