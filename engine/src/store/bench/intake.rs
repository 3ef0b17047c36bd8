//! Documents of sources: the tables that a team would make by hand, and the bare statements of the engine.

use std::time::Instant;

use backstitch_saga::Time;
use sqlx::postgres::{PgPool, PgPoolOptions};
use uuid::Uuid;

use super::super::intake::{Mapping, NewIntake};
use super::super::log::{Append, NewEvent, NewHead, NewKey};
use super::super::partitions::{first_id, prepare};
use super::super::{Database, StoreError, nodes};
use super::floor::Written;
use crate::Error;

/// Connections of what is written by hand.
const BY_HAND: u32 = 16;

/// The tables that a team would make by hand.
#[derive(Debug)]
pub(crate) struct ByHandTables {
    pool: PgPool,
}

impl ByHandTables {
    pub(crate) async fn make(url: &str) -> Result<ByHandTables, Error> {
        let pool = PgPoolOptions::new().max_connections(BY_HAND).connect(url).await?;
        sqlx::raw_sql(
            "-- by_hand_tables\n\
             create table by_hand_raw (id uuid primary key default gen_random_uuid(), key text not null unique, received_at timestamptz not null \
               default now(), body bytea not null); \
             create table by_hand_customer (id uuid primary key references by_hand_raw (id), customer text not null, email text not null, \
               body jsonb not null); \
             create index by_hand_customer_email on by_hand_customer (email); \
             create index by_hand_customer_customer on by_hand_customer (customer)",
        )
        .execute(&pool)
        .await?;
        Ok(ByHandTables { pool })
    }

    /// Inserts a document by its key, with the mail address and the body that it was mapped to. Returns whether it was
    /// new.
    pub(crate) async fn insert(
        &self,
        (key, email, canonical): (&str, &str, &str),
        raw: &[u8],
    ) -> Result<bool, Error> {
        let mut transaction = self.pool.begin().await?;
        let id: Option<Uuid> = sqlx::query_scalar(
            "-- by_hand_raw\n\
             insert into by_hand_raw (key, body) values ($1, $2) on conflict (key) do nothing returning id",
        )
        .bind(key)
        .bind(raw)
        .fetch_optional(&mut *transaction)
        .await?;
        let Some(id) = id else { return Ok(false) };
        sqlx::query(
            "-- by_hand_customer\n\
             insert into by_hand_customer (id, customer, email, body) values ($1, $2, $3, $4::jsonb)",
        )
        .bind(id)
        .bind(key)
        .bind(email)
        .bind(canonical)
        .execute(&mut *transaction)
        .await?;
        transaction.commit().await?;
        Ok(true)
    }

    pub(crate) async fn count(&self) -> Result<i64, Error> {
        let count = sqlx::query_scalar("-- by_hand_count\nselect count(*) from by_hand_customer");
        Ok(count.fetch_one(&self.pool).await?)
    }
}

/// Writes batches of `batch` documents until the second instant; counts from the first on. A document counts as a run
/// and as a step.
pub(crate) async fn write(
    url: &str,
    body: &str,
    batch: usize,
    (from, until): (Instant, Instant),
) -> Result<Written, Error> {
    let database = Database::open(url, 1).await?;
    let mut connection = database.writer().await?;
    let now = nodes::clock(&mut connection).await.map_err(StoreError::from)?;
    database.weeks.learn(prepare(&mut connection, now).await?);
    let mut written = Written::default();
    loop {
        let rows = rows(body, batch, now);
        let asked = Instant::now();
        if asked >= until {
            return Ok(written);
        }
        rows.write(&mut connection, &database.weeks).await?;
        if asked >= from {
            written.note(batch as u64, batch as u64, asked.elapsed());
        }
    }
}

/// Returns an id of a document, or of a batch of events, that came at `at`.
fn new_id(at: Time) -> Uuid {
    let chance = rand::random::<u128>() & ((1 << 74) - 1);
    let version = (0x7 << 76) | (0x2 << 62);
    let id = first_id(at).as_u128() | (chance & !(0xf << 76) & !(0x3 << 62)) | version;
    Uuid::from_u128(id)
}

/// Returns the rows of documents: each its own with its bytes and a hint, its event, and the event that it was mapped
/// to.
fn rows(body: &str, count: usize, at: Time) -> Append {
    let batch = super::super::log::batch_of(new_id(at));
    let mut append = Append::default();
    for place in 0..count {
        let id = new_id(at);
        let stream = format!("customer:{id}");
        let ords = [place * 2, place * 2 + 1].map(|ord| i16::try_from(ord).unwrap_or(i16::MAX));
        let [first, second] = ords.map(|ord| super::super::log::event_id(batch, ord));
        for (ord, stream) in ords.into_iter().zip([None, Some(stream.clone())]) {
            append.event(event(batch, ord, (stream, at), body));
            let key = if ord % 2 == 0 { id.to_string() } else { format!("{id}>1") };
            append.key(NewKey {
                namespace: "default".to_owned(),
                source: "\u{1}crm".to_owned(),
                id: key,
                batch,
                ord,
                digest: vec![7; 32],
            });
        }
        append.head(NewHead {
            namespace: "default".to_owned(),
            stream,
            before: 0,
            version: 1,
            entity: Some("present"),
            body: Some((batch, ords[1], [7; 32])),
            changed_at: at,
        });
        append.intake(document(id, (first, second), at, body));
    }
    let events = i16::try_from(count * 2).unwrap_or(i16::MAX);
    append.batch("default".to_owned(), batch, events, at);
    append
}

fn event(batch: Uuid, ord: i16, (stream, at): (Option<String>, Time), body: &str) -> NewEvent {
    let is_mapped = stream.is_some();
    NewEvent {
        batch,
        ord,
        namespace: "default".to_owned(),
        event_type: if is_mapped { "customer" } else { "crm.contact" }.to_owned(),
        stream_version: is_mapped.then_some(1),
        contract: Some(if is_mapped { "customer@1" } else { "crm.contact@1" }.to_owned()),
        op: is_mapped.then_some("C"),
        stream,
        op_corrected: false,
        noop: false,
        changed: None,
        source: "crm".to_owned(),
        claimed_source: None,
        source_id: None,
        trust: 3,
        occurred_at: None,
        received_at: at,
        correlation_id: batch.to_string(),
        causation_id: is_mapped.then(|| batch.to_string()),
        hops: i32::from(is_mapped),
        traceparent: None,
        labels: None,
        leaf: vec![7; 32],
        body: body.to_owned(),
        salt: [7; 16],
    }
}

fn document(id: Uuid, (event, mapped): (Uuid, Uuid), at: Time, body: &str) -> NewIntake {
    let hints = format!(
        r#"[{{"kind":"email","value_raw":"{id}@shop.internal","value_search":"{id}@shop.internal","junk":false}}]"#
    );
    NewIntake {
        id,
        namespace: "default".to_owned(),
        source: "crm".to_owned(),
        source_version: 1,
        verdict: "accepted",
        code: None,
        message: None,
        errors: None,
        received_at: at,
        processed_at: None,
        door: "request",
        form: "json",
        trust: 3,
        contract: Some("crm.contact@1".to_owned()),
        event: Some(event),
        digest: vec![7; 32],
        bytes: i32::try_from(body.len()).unwrap_or(i32::MAX),
        content_type: "application/json".to_owned(),
        peer: Some("127.0.0.1".to_owned()),
        request_id: None,
        headers: r#"{"content-type":"application/json","host":"localhost"}"#.to_owned(),
        hints: Some(hints),
        mapped: Some(Mapping {
            state: "mapped",
            to: "customer@1".to_owned(),
            revision: Some(1),
            event: Some(mapped),
            digest: Some(vec![7; 32]),
            count: 1,
            changes: None,
            unmapped: None,
            failures: None,
        }),
        reprocess: None,
        raw: Some(body.as_bytes().to_vec()),
    }
}
