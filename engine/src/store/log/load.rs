//! Loads what appends are decided on: heads of streams, keys and causes, in one statement.

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::logged::logged;

/// The objects to load, each with its namespace.
#[derive(Debug, Default)]
pub(crate) struct Wanted {
    stream_namespaces: Vec<String>,
    streams: Vec<String>,
    /// `true` if the last body is wanted, too.
    bodies: Vec<bool>,
    key_namespaces: Vec<String>,
    key_sources: Vec<String>,
    keys: Vec<String>,
    cause_namespaces: Vec<String>,
    cause_batches: Vec<Uuid>,
    cause_ords: Vec<i16>,
}

impl Wanted {
    pub(crate) fn stream(&mut self, namespace: &str, stream: &str, body: bool) {
        self.stream_namespaces.push(namespace.to_owned());
        self.streams.push(stream.to_owned());
        self.bodies.push(body);
    }

    pub(crate) fn key(&mut self, namespace: &str, source: &str, id: &str) {
        self.key_namespaces.push(namespace.to_owned());
        self.key_sources.push(source.to_owned());
        self.keys.push(id.to_owned());
    }

    pub(crate) fn cause(&mut self, namespace: &str, (batch, ord): (Uuid, i16)) {
        self.cause_namespaces.push(namespace.to_owned());
        self.cause_batches.push(batch);
        self.cause_ords.push(ord);
    }

    /// Returns whether nothing is wanted.
    fn is_empty(&self) -> bool {
        self.streams.is_empty() && self.keys.is_empty() && self.cause_batches.is_empty()
    }
}

/// Head of a stream.
#[derive(Debug)]
pub(crate) struct KnownStream {
    pub(crate) namespace: String,
    pub(crate) stream: String,
    pub(crate) version: i64,
    pub(crate) entity: Option<String>,
    pub(crate) body_digest: Option<Vec<u8>>,
    pub(crate) body: Option<String>,
}

/// An event that was appended, by its key or its id.
#[derive(Debug)]
pub(crate) struct KnownEvent {
    pub(crate) namespace: String,
    /// Empty for a cause.
    pub(crate) source: String,
    /// Empty for a cause.
    pub(crate) key: String,
    pub(crate) digest: Vec<u8>,
    pub(crate) batch: Uuid,
    pub(crate) ord: i16,
    pub(crate) stream: Option<String>,
    pub(crate) version: Option<i64>,
    pub(crate) op: Option<String>,
    pub(crate) op_corrected: bool,
    pub(crate) noop: bool,
    pub(crate) correlation_id: String,
    pub(crate) hops: i32,
    pub(crate) trust: i16,
}

/// The loaded objects.
#[derive(Debug, Default)]
pub(crate) struct Loaded {
    pub(crate) streams: Vec<KnownStream>,
    pub(crate) keys: Vec<KnownEvent>,
    pub(crate) causes: Vec<KnownEvent>,
}

/// Loads what is wanted. Whatever is written on the connection from then on waits for locks no longer than `patience`.
pub(crate) async fn load(
    connection: &mut PgConnection,
    wanted: &Wanted,
    patience: &str,
) -> Result<Loaded, sqlx::Error> {
    if wanted.is_empty() {
        return Ok(Loaded::default());
    }
    // An event of a dropped week leaves its key behind for a while; it is returned without its content.
    let text = format!(
        "-- log_load\n\
         select 0::smallint as kind, s.namespace, '' as source, s.stream, s.version, s.entity, s.body_digest, \
           s.body_batch, s.body_ord, b.body, false as corrected, false as noop, '' as correlation, 0 as hops, \
           0::smallint as trust \
         from unnest($1::text[], $2::text[], $3::bool[]) as w(namespace, stream, body) \
         join stream s on s.namespace = w.namespace and s.stream = w.stream \
         left join event_body b on w.body and s.entity = 'present' and b.batch = s.body_batch and b.ord = s.body_ord \
         union all \
         select 1::smallint, k.namespace, k.source, e.stream, e.stream_version, e.op, k.digest, k.batch, k.ord, k.id, \
           coalesce(e.op_corrected, false), coalesce(e.noop, false), '', 0, 0::smallint \
         from unnest($4::text[], $5::text[], $6::text[]) as w(namespace, source, id) \
         join event_key k on k.namespace = w.namespace and k.source = w.source and k.id = w.id \
         left join event e on e.batch = k.batch and e.ord = k.ord \
         union all \
         select 2::smallint, e.namespace, '', e.stream, e.stream_version, e.op, ''::bytea, e.batch, e.ord, '', \
           false, false, e.correlation_id, e.hops, e.trust \
         from unnest($7::text[], $8::uuid[], $9::smallint[]) as w(namespace, batch, ord) \
         cross join lateral {} e where e.ord = w.ord and e.namespace = w.namespace \
         union all \
         select 3::smallint, set_config('lock_timeout', $10, false), '', '', 0, '', ''::bytea, null::uuid, \
           0::smallint, '', false, false, '', 0, 0::smallint",
        logged("batch = w.batch")
    );
    let rows = sqlx::query(AssertSqlSafe(text))
        .bind(&wanted.stream_namespaces)
        .bind(&wanted.streams)
        .bind(&wanted.bodies)
        .bind(&wanted.key_namespaces)
        .bind(&wanted.key_sources)
        .bind(&wanted.keys)
        .bind(&wanted.cause_namespaces)
        .bind(&wanted.cause_batches)
        .bind(&wanted.cause_ords)
        .bind(patience)
        .fetch_all(connection)
        .await?;
    let mut loaded = Loaded::default();
    for row in rows {
        let kind: i16 = row.try_get(0)?;
        if kind == 3 {
            continue;
        }
        if kind == 0 {
            loaded.streams.push(KnownStream {
                namespace: row.try_get(1)?,
                stream: row.try_get(3)?,
                version: row.try_get(4)?,
                entity: row.try_get(5)?,
                body_digest: row.try_get(6)?,
                body: row.try_get(9)?,
            });
            continue;
        }
        let event = KnownEvent {
            namespace: row.try_get(1)?,
            source: row.try_get(2)?,
            key: row.try_get(9)?,
            digest: row.try_get(6)?,
            batch: row.try_get(7)?,
            ord: row.try_get(8)?,
            stream: row.try_get(3)?,
            version: row.try_get(4)?,
            op: row.try_get(5)?,
            op_corrected: row.try_get(10)?,
            noop: row.try_get(11)?,
            correlation_id: row.try_get(12)?,
            hops: row.try_get(13)?,
            trust: row.try_get(14)?,
        };
        if kind == 1 { loaded.keys.push(event) } else { loaded.causes.push(event) }
    }
    Ok(loaded)
}
