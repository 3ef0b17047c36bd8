//! Erasure of documents and events: what is found of an entity, and what is deleted or emptied.

use backstitch_saga::Time;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::log::place_of;
use super::moment::Moment;

/// A line of the table `data_erasure`.
#[derive(Clone, Debug)]
pub(crate) struct DataErasure {
    pub(crate) id: Uuid,
    pub(crate) namespace: String,
    pub(crate) asked: Option<String>,
    pub(crate) documents: i64,
    pub(crate) events: i64,
    pub(crate) runs: i64,
    pub(crate) runs_left: i64,
    pub(crate) passes: i16,
    pub(crate) waits_for: Option<String>,
    pub(crate) actor: String,
    pub(crate) reason: String,
    pub(crate) created_at: Time,
    pub(crate) ended_at: Option<Time>,
}

const COLUMNS: &str = "d.id, d.namespace, d.asked, d.documents, d.events, d.runs, d.passes, d.waits_for, d.actor, d.reason, \
    d.created_at, d.ended_at, d.runs_left";

fn erasure_row(row: &PgRow) -> Result<DataErasure, sqlx::Error> {
    let Moment(created_at) = row.try_get(10)?;
    let ended_at: Option<Moment> = row.try_get(11)?;
    Ok(DataErasure {
        id: row.try_get(0)?,
        namespace: row.try_get(1)?,
        asked: row.try_get(2)?,
        documents: row.try_get(3)?,
        events: row.try_get(4)?,
        runs: row.try_get(5)?,
        runs_left: row.try_get(12)?,
        passes: row.try_get(6)?,
        waits_for: row.try_get(7)?,
        actor: row.try_get(8)?,
        reason: row.try_get(9)?,
        created_at,
        ended_at: ended_at.map(|Moment(at)| at),
    })
}

/// Records an erasure, so that another node continues it if this one dies.
pub(crate) async fn create(
    connection: &mut PgConnection,
    row: &DataErasure,
    due_at: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- data_erasure_create\n\
         insert into data_erasure (id, namespace, asked, state, actor, reason, created_at, due_at) \
         values ($1, $2, $3, 'running', $4, $5, $6, $7)",
    )
    .bind(row.id)
    .bind(&row.namespace)
    .bind(&row.asked)
    .bind(&row.actor)
    .bind(&row.reason)
    .bind(Moment(row.created_at))
    .bind(Moment(due_at))
    .execute(connection)
    .await
    .map(drop)
}

/// Reads at most `limit` that are due, and has other nodes leave them alone until `until`.
pub(crate) async fn due(
    connection: &mut PgConnection,
    (now, until): (Time, Time),
    limit: i64,
) -> Result<Vec<DataErasure>, sqlx::Error> {
    let text = format!(
        "-- data_erasure_due\n\
         update data_erasure d set due_at = $2 where d.id in (select id from data_erasure where state = 'running' and due_at <= $1 \
           order by due_at limit $3 for update skip locked) returning {COLUMNS}"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(Moment(now)).bind(Moment(until)).bind(limit);
    query.fetch_all(connection).await?.iter().map(erasure_row).collect()
}

/// Finds one.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
) -> Result<Option<DataErasure>, sqlx::Error> {
    let text = format!(
        "-- data_erasure_find\nselect {COLUMNS} from data_erasure d where d.namespace = $1 and d.id = $2"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(id);
    query.fetch_optional(connection).await?.as_ref().map(erasure_row).transpose()
}

/// Returns those of a namespace, the newest first, from before one of them on.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<DataErasure>, sqlx::Error> {
    let text = format!(
        "-- data_erasure_list\n\
         select {COLUMNS} from data_erasure d where d.namespace = $1 and ($2::uuid is null or d.id < $2) order by d.id desc limit $3"
    );
    let query = sqlx::query(AssertSqlSafe(text)).bind(namespace).bind(before).bind(limit);
    query.fetch_all(connection).await?.iter().map(erasure_row).collect()
}

/// Says that a pass was made: what is erased is forgotten with the last.
pub(crate) async fn passed(
    connection: &mut PgConnection,
    id: Uuid,
    (is_last, now, due_at): (bool, Time, Time),
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- data_erasure_passed\n\
         update data_erasure set passes = passes + 1, waits_for = null, due_at = $4, state = case when $2 then 'done' else state end, \
           asked = case when $2 then null else asked end, ended_at = case when $2 then $3 end where id = $1 and state = 'running'",
    )
    .bind(id)
    .bind(is_last)
    .bind(Moment(now))
    .bind(Moment(due_at))
    .execute(connection)
    .await
    .map(drop)
}

/// Counts a run that was erased, or says for what it waits.
pub(crate) async fn ran(
    connection: &mut PgConnection,
    id: Uuid,
    (runs, waits_for): (i64, Option<&str>),
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- data_erasure_ran\n\
         update data_erasure set runs = runs + $2, waits_for = $3 where id = $1 and state = 'running'",
    )
    .bind(id)
    .bind(runs)
    .bind(waits_for)
    .execute(connection)
    .await
    .map(drop)
}

/// The id of an event `e`.
const ID: &str =
    "overlay(e.batch::text placing lpad(to_hex(e.ord::integer), 4, '0') from 33 for 4)::uuid";

/// Finds events of a stream that have data.
pub(crate) async fn of_stream(
    connection: &mut PgConnection,
    (namespace, stream): (&str, &str),
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    let text = format!(
        "-- data_erasure_of_stream\n\
         select {ID} from event e where e.namespace = $1 and e.stream = $2 \
         and exists (select from event_body b where b.batch = e.batch and b.ord = e.ord) limit $3"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(text)).bind(namespace).bind(stream).bind(limit);
    query.fetch_all(connection).await
}

/// Lists documents that had an identifier.
pub(crate) async fn of_hint(
    connection: &mut PgConnection,
    namespace: &str,
    (kind, value): (&str, &str),
    limit: i64,
) -> Result<Vec<Uuid>, sqlx::Error> {
    sqlx::query_scalar(
        "-- data_erasure_of_hint\n\
         select distinct intake from hint where namespace = $1 and kind = $2 and value = $3 limit $4",
    )
    .bind(namespace)
    .bind(kind)
    .bind(value)
    .bind(limit)
    .fetch_all(connection)
    .await
}

/// Returns the correlation ids and causes of events, and the runs that emitted them.
pub(crate) async fn stories(
    connection: &mut PgConnection,
    namespace: &str,
    events: &[Uuid],
) -> Result<Vec<(String, Option<String>, Option<String>)>, sqlx::Error> {
    let (batches, ords): (Vec<Uuid>, Vec<i16>) = events.iter().map(|id| place_of(*id)).unzip();
    sqlx::query_as(
        "-- data_erasure_stories\n\
         select e.correlation_id, e.causation_id, case when e.source like 'workflow/%' then e.labels::json ->> 'run' end \
         from unnest($2::uuid[], $3::smallint[]) as p(batch, ord) \
         join event e on e.batch = p.batch and e.ord = p.ord where e.namespace = $1",
    )
    .bind(namespace)
    .bind(batches)
    .bind(ords)
    .fetch_all(connection)
    .await
}

/// Returns whether a correlation id has data beside that of `events`. Milestones of runs do not
/// count.
pub(crate) async fn is_shared(
    connection: &mut PgConnection,
    (namespace, story): (&str, &str),
    events: &[Uuid],
) -> Result<bool, sqlx::Error> {
    let (batches, ords): (Vec<Uuid>, Vec<i16>) = events.iter().map(|id| place_of(*id)).unzip();
    sqlx::query_scalar(
        "-- data_erasure_is_shared\n\
         select exists (select from event e where e.namespace = $1 and e.correlation_id = $2 \
           and not (e.source like 'workflow/%' and coalesce(e.stream, '') like 'run:%') \
           and exists (select from event_body b where b.batch = e.batch and b.ord = e.ord) \
           and not exists (select from unnest($3::uuid[], $4::smallint[]) as p(batch, ord) \
             where p.batch = e.batch and p.ord = e.ord))",
    )
    .bind(namespace)
    .bind(story)
    .bind(batches)
    .bind(ords)
    .fetch_one(connection)
    .await
}

/// Finds events that others caused, by their correlation ids.
pub(crate) async fn caused_by(
    connection: &mut PgConnection,
    namespace: &str,
    stories: &[String],
    events: &[Uuid],
) -> Result<Vec<Uuid>, sqlx::Error> {
    let causes: Vec<String> = events.iter().map(Uuid::to_string).collect();
    let text = format!(
        "-- data_erasure_caused_by\n\
         select {ID} from event e where e.namespace = $1 and e.correlation_id = any($2) and e.causation_id = any($3)"
    );
    let query = sqlx::query_scalar(AssertSqlSafe(text)).bind(namespace).bind(stories).bind(causes);
    query.fetch_all(connection).await
}

/// Lists documents that became one of the events or were mapped to one, beside those that are known, each with
/// its events.
pub(crate) async fn documents(
    connection: &mut PgConnection,
    namespace: &str,
    events: &[Uuid],
    known: &[Uuid],
) -> Result<Vec<(Uuid, Option<Uuid>, Option<Uuid>)>, sqlx::Error> {
    sqlx::query_as(
        "-- data_erasure_documents\n\
         select id, event, mapped_event from intake \
         where namespace = $1 and (id = any($3) or event = any($2) or mapped_event = any($2))",
    )
    .bind(namespace)
    .bind(events)
    .bind(known)
    .fetch_all(connection)
    .await
}

/// Erases documents and the data of events, and counts both, and the runs that are left. Positions, envelopes and
/// leaves stay, and so do the keys of emitted events, which name nobody: a node that was about to append such an event
/// finds that it exists.
pub(crate) async fn erase(
    connection: &mut PgConnection,
    erasure: &DataErasure,
    (documents, events): (&[Uuid], &[Uuid]),
    (emitted, left): (&str, i64),
) -> Result<(), sqlx::Error> {
    let (batches, ords): (Vec<Uuid>, Vec<i16>) = events.iter().map(|id| place_of(*id)).unzip();
    sqlx::query(
        "-- data_erasure_erase\n\
         with places as (select * from unnest($3::uuid[], $4::smallint[]) as p(batch, ord)), \
           streams as (update stream s set body_batch = null, body_ord = null, body_digest = null from places p \
             where s.namespace = $2 and s.body_batch = p.batch and s.body_ord = p.ord returning 1), \
           emitted as (update event_key k set digest = '' from places p where k.namespace = $2 and k.source = $6 \
             and k.batch = p.batch and k.ord = p.ord returning 1), \
           keys as (delete from event_key k using places p where k.namespace = $2 and k.source <> $6 \
             and k.batch = p.batch and k.ord = p.ord returning 1), \
           bodies as (delete from event_body b using places p where b.batch = p.batch and b.ord = p.ord returning 1), \
           hints as (delete from hint h where h.intake = any($5) returning 1), \
           raws as (delete from intake_raw r where r.id = any($5) returning 1), \
           rows as (update import_refused f set message = '' where f.intake = any($5) returning 1), \
           known as (update intake i set digest = '', message = null, errors = null, headers = '{}', hints = null, peer = null, \
             request_id = null, mapped_digest = null, changes = null, unmapped = null, failures = null where i.id = any($5) returning 1) \
         update data_erasure set documents = documents + (select count(*) from raws), events = events + (select count(*) from bodies), \
           runs_left = runs_left + $7 where id = $1",
    )
    .bind(erasure.id)
    .bind(&erasure.namespace)
    .bind(batches)
    .bind(ords)
    .bind(documents)
    .bind(emitted)
    .bind(left)
    .execute(connection)
    .await
    .map(drop)
}

/// Deletes the links of an entity, and claims of its ids.
pub(crate) async fn erase_links(
    connection: &mut PgConnection,
    namespace: &str,
    stream: &str,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- data_erasure_links\n\
         with conflicts as (delete from link_conflict where namespace = $1 and (stream = $2 or holder = $2)) \
         delete from link where namespace = $1 and stream = $2",
    )
    .bind(namespace)
    .bind(stream)
    .execute(connection)
    .await
    .map(drop)
}
