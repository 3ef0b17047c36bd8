//! Links of entities to other systems, and claims that contradict them.

use backstitch_saga::Time;
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query_builder::QueryBuilder;
use uuid::Uuid;

use super::moment::Moment;

/// A link.
#[derive(Clone, Debug)]
pub(crate) struct LinkRow {
    pub(crate) system: String,
    pub(crate) external_id: String,
    pub(crate) stream: String,
    pub(crate) linked_at: Time,
    pub(crate) linked_by: String,
}

const LINK: &str = "system, external_id, stream, linked_at, linked_by";

fn link_row(row: &PgRow) -> Result<LinkRow, sqlx::Error> {
    let Moment(linked_at) = row.try_get(3)?;
    Ok(LinkRow {
        system: row.try_get(0)?,
        external_id: row.try_get(1)?,
        stream: row.try_get(2)?,
        linked_at,
        linked_by: row.try_get(4)?,
    })
}

/// Finds a link, and locks it until the end of the transaction.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    (system, external_id): (&str, &str),
) -> Result<Option<LinkRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- link_find\n\
         select system, external_id, stream, linked_at, linked_by from link \
         where namespace = $1 and system = $2 and external_id = $3 for update",
    )
    .bind(namespace)
    .bind(system)
    .bind(external_id)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(link_row).transpose()
}

/// Links an id that belongs to no entity; the id that the entity had in the system is free then. Returns whether it
/// still belonged to none.
pub(crate) async fn put(
    connection: &mut PgConnection,
    namespace: &str,
    row: &LinkRow,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- link_put\n\
         insert into link (namespace, system, external_id, stream, linked_at, linked_by) values ($1, $2, $3, $4, $5, $6) \
         on conflict (namespace, stream, system) do update set external_id = excluded.external_id, \
           linked_at = excluded.linked_at, linked_by = excluded.linked_by",
    )
    .bind(namespace)
    .bind(&row.system)
    .bind(&row.external_id)
    .bind(&row.stream)
    .bind(Moment(row.linked_at))
    .bind(&row.linked_by)
    .execute(connection)
    .await;
    match done {
        Ok(_) => Ok(true),
        Err(sqlx::Error::Database(error)) if error.is_unique_violation() => Ok(false),
        Err(error) => Err(error),
    }
}

/// Deletes a link. Returns the stream of its entity.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    namespace: &str,
    (system, external_id): (&str, &str),
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "-- link_delete\n\
         delete from link where namespace = $1 and system = $2 and external_id = $3 returning stream",
    )
    .bind(namespace)
    .bind(system)
    .bind(external_id)
    .fetch_optional(connection)
    .await
}

/// Lists links of a namespace by system and id, after one of them.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    (stream, system): (Option<&str>, Option<&str>),
    after: Option<(String, String)>,
    limit: i64,
) -> Result<Vec<LinkRow>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- link_list\nselect ");
    query.push(LINK).push(" from link where namespace = ").push_bind(namespace);
    if let Some(stream) = stream {
        query.push(" and stream = ").push_bind(stream);
    }
    if let Some(system) = system {
        query.push(" and system = ").push_bind(system);
    }
    if let Some((system, external_id)) = after {
        query.push(" and (system, external_id) > (").push_bind(system);
        query.push(", ").push_bind(external_id).push(")");
    }
    query.push(" order by system, external_id limit ").push_bind(limit);
    query.build().fetch_all(connection).await?.iter().map(link_row).collect()
}

/// A claim of an id that belongs to another entity.
#[derive(Clone, Debug)]
pub(crate) struct ConflictRow {
    pub(crate) id: Uuid,
    pub(crate) system: String,
    pub(crate) external_id: String,
    pub(crate) stream: String,
    pub(crate) holder: String,
    pub(crate) claimed_at: Time,
    pub(crate) claimed_by: String,
    pub(crate) resolved_at: Option<Time>,
    pub(crate) resolved_by: Option<String>,
    pub(crate) kept: Option<String>,
}

const CONFLICT: &str = "id, system, external_id, stream, holder, claimed_at, claimed_by, resolved_at, resolved_by, kept";

fn conflict_row(row: &PgRow) -> Result<ConflictRow, sqlx::Error> {
    let Moment(claimed_at) = row.try_get(5)?;
    let resolved_at: Option<Moment> = row.try_get(7)?;
    Ok(ConflictRow {
        id: row.try_get(0)?,
        system: row.try_get(1)?,
        external_id: row.try_get(2)?,
        stream: row.try_get(3)?,
        holder: row.try_get(4)?,
        claimed_at,
        claimed_by: row.try_get(6)?,
        resolved_at: resolved_at.map(|Moment(at)| at),
        resolved_by: row.try_get(8)?,
        kept: row.try_get(9)?,
    })
}

/// Notes a claim for a person, once, unless `most` of the namespace wait.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    namespace: &str,
    row: &ConflictRow,
    most: i64,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- link_claim\n\
         insert into link_conflict (id, namespace, system, external_id, stream, holder, claimed_at, claimed_by) \
         select $1, $2, $3, $4, $5, $6, $7, $8 where $9 > (select count(*) from \
           (select from link_conflict where namespace = $2 and resolved_at is null limit $9) n) \
         on conflict (namespace, system, external_id, stream) where resolved_at is null do nothing",
    )
    .bind(row.id)
    .bind(namespace)
    .bind(&row.system)
    .bind(&row.external_id)
    .bind(&row.stream)
    .bind(&row.holder)
    .bind(Moment(row.claimed_at))
    .bind(&row.claimed_by)
    .bind(most)
    .execute(connection)
    .await
    .map(drop)
}

/// Claims of a namespace, the newest first, from before one of them on.
pub(crate) async fn conflicts(
    connection: &mut PgConnection,
    namespace: &str,
    open: Option<bool>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<ConflictRow>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- link_conflicts\nselect ");
    query.push(CONFLICT).push(" from link_conflict where namespace = ").push_bind(namespace);
    match open {
        Some(true) => drop(query.push(" and resolved_at is null")),
        Some(false) => drop(query.push(" and resolved_at is not null")),
        None => {}
    }
    if let Some(before) = before {
        query.push(" and id < ").push_bind(before);
    }
    query.push(" order by id desc limit ").push_bind(limit);
    query.build().fetch_all(connection).await?.iter().map(conflict_row).collect()
}

/// Finds a claim, and locks it until the end of the transaction.
pub(crate) async fn conflict(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
) -> Result<Option<ConflictRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- link_conflict\n\
         select id, system, external_id, stream, holder, claimed_at, claimed_by, resolved_at, resolved_by, kept \
         from link_conflict where namespace = $1 and id = $2 for update",
    )
    .bind(namespace)
    .bind(id)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(conflict_row).transpose()
}

/// Says to whom an id belongs that was claimed.
pub(crate) async fn resolve(
    connection: &mut PgConnection,
    id: Uuid,
    kept: &str,
    (by, at): (&str, Time),
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- link_resolve\n\
         update link_conflict set kept = $2, resolved_by = $3, resolved_at = $4 where id = $1",
    )
    .bind(id)
    .bind(kept)
    .bind(by)
    .bind(Moment(at))
    .execute(connection)
    .await
    .map(drop)
}
