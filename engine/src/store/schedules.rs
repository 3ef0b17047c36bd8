//! Schedules and the history of their starts. Every write names the revision that was read: of concurrent writes one
//! succeeds, and its entries of the history are written with it or not at all.

use backstitch_saga::Time;
use backstitch_saga::protocol::{ScheduleSpec, ScheduleStart, StartOrigin};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{Connection, Row};

use super::acts::{self, Act};
use super::moment::Moment;
use super::spaces::{Found, Waiting, share};
use crate::schedules::plan::{State, Told};

/// A line of the table `schedules`.
#[derive(Clone, Debug)]
pub(crate) struct ScheduleRow {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) revision: i64,
    pub(crate) spec: ScheduleSpec,
    pub(crate) state: State,
}

/// Damaged schedules, by namespace.
const WAITING: Waiting = Waiting {
    table: "schedules",
    when: "due_at is not null",
    by: "due_at",
    due: "first <= $3",
    spaces: 64,
};

/// Returns the statement `schedules_take`.
pub(crate) fn schedules_take() -> String {
    format!(
        "-- schedules_take\n{}, \
         picked as (select p.namespace, p.name from due d cross join lateral (select s.namespace, s.name \
           from schedules s where s.namespace = d.namespace and s.due_at <= $3 order by s.due_at limit {} \
           for update skip locked) p), \
         taken as (update schedules s set due_at = $2 from picked p \
           where s.namespace = p.namespace and s.name = p.name \
           returning s.namespace, s.name, s.revision, s.spec, s.state) \
         select t.last, s.namespace, s.name, s.revision, s.spec, s.state from turn t left join taken s on true",
        WAITING.due_spaces(),
        share("$4"),
    )
}

/// Takes schedules that are due at `now`, in turns between the namespaces after `after`, so that no other node does
/// before `until`. A node that dies leaves them due then. A row that cannot be read does not hold up the others.
/// Returns the namespace of each.
pub(crate) async fn take(
    connection: &mut PgConnection,
    (now, until): (Time, Time),
    limit: i64,
    after: &str,
) -> Result<Found<(String, Result<ScheduleRow, sqlx::Error>)>, sqlx::Error> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(schedules_take()))
        .bind(after)
        .bind(Moment(until))
        .bind(Moment(now))
        .bind(limit)
        .fetch_all(connection)
        .await?;
    Found::read(&rows, |row| Ok((row.try_get(1)?, schedule_row_from(row, 1))))
}

/// Returns one schedule.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
) -> Result<Option<ScheduleRow>, sqlx::Error> {
    let row = sqlx::query(
        "-- schedules_find\n\
         select namespace, name, revision, spec, state from schedules where namespace = $1 and name = $2",
    )
    .bind(namespace)
    .bind(name)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(schedule_row).transpose()
}

/// Schedules by name, after the given one; each with its name, also one that cannot be read.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    after: Option<&str>,
    limit: i64,
) -> Result<Vec<(String, Result<ScheduleRow, sqlx::Error>)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- schedules_list\n\
         select namespace, name, revision, spec, state from schedules \
         where namespace = $1 and name > $2 order by name limit $3",
    )
    .bind(namespace)
    .bind(after.unwrap_or_default())
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(1)?, schedule_row(row)))).collect()
}

/// A schedule among all: namespace and name.
pub(crate) type Place = (String, String);

/// A row of a walk: its key, its due time, and the schedule unless it cannot be read.
pub(crate) type Walked = (Place, Option<Time>, Result<ScheduleRow, sqlx::Error>);

/// Schedules of all namespaces after `after`, with when each is due.
pub(crate) async fn walk(
    connection: &mut PgConnection,
    after: Option<&Place>,
    limit: i64,
) -> Result<Vec<Walked>, sqlx::Error> {
    let (namespace, name) = after.map_or(("", ""), |(namespace, name)| (namespace, name));
    let rows = sqlx::query(
        "-- schedules_walk\n\
         select namespace, name, revision, spec, state, due_at from schedules \
         where (namespace, name) > ($1, $2) order by namespace, name limit $3",
    )
    .bind(namespace)
    .bind(name)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let walked = |row: &PgRow| {
        let due: Option<Moment> = row.try_get(5)?;
        Ok(((row.try_get(0)?, row.try_get(1)?), due.map(|due| due.0), schedule_row(row)))
    };
    rows.iter().map(walked).collect()
}

/// Makes a schedule, with the act that does so. Returns whether the name was free.
pub(crate) async fn create(
    connection: &mut PgConnection,
    row: &ScheduleRow,
    due: Option<Time>,
    act: &Act<'_>,
) -> Result<bool, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let made = sqlx::query(
        "-- schedules_create\n\
         insert into schedules (namespace, name, spec, state, due_at) values ($1, $2, $3, $4, $5) \
         on conflict do nothing",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(text(&row.spec)?)
    .bind(text(&row.state)?)
    .bind(due.map(Moment))
    .execute(&mut *transaction)
    .await?;
    if made.rows_affected() == 1 {
        acts::add(&mut transaction, act).await?;
    }
    transaction.commit().await?;
    Ok(made.rows_affected() == 1)
}

/// Writes a schedule as `row`, with the entries of its history and the act that changed it, unless it was written
/// since `row.revision`. Returns the new revision.
pub(crate) async fn write(
    connection: &mut PgConnection,
    row: &ScheduleRow,
    due: Option<Time>,
    told: &[Told],
    act: Option<&Act<'_>>,
) -> Result<Option<i64>, sqlx::Error> {
    let by_hand = |one: &&Told| one.start.origin == StartOrigin::Trigger;
    let key = |one| Some(one).filter(by_hand).and_then(|one| one.key.as_deref());
    let keys: Vec<Option<&str>> = told.iter().map(key).collect();
    let ats: Vec<Moment> = told.iter().map(|one| Moment(one.start.at.0)).collect();
    let starts: Result<Vec<String>, _> = told.iter().map(|one| text(&one.start)).collect();
    let mut transaction = connection.begin().await?;
    let revision: Option<i64> = sqlx::query_scalar(
        "-- schedules_write\n\
         with written as (update schedules set spec = $4, state = $5, due_at = $6, \
           revision = nextval('schedule_revisions') \
           where namespace = $1 and name = $2 and revision = $3 returning revision), \
         told as (insert into schedule_starts (namespace, schedule, key, at, start) \
           select $1, $2, t.key, t.at, t.start from written, \
           unnest($7::text[], $8::timestamptz[], $9::text[]) with ordinality as t(key, at, start, place) \
           order by t.place) \
         select revision from written",
    )
    .bind(&row.namespace)
    .bind(&row.name)
    .bind(row.revision)
    .bind(text(&row.spec)?)
    .bind(text(&row.state)?)
    .bind(due.map(Moment))
    .bind(keys)
    .bind(ats)
    .bind(starts?)
    .fetch_optional(&mut *transaction)
    .await?;
    if let Some(act) = act.filter(|_| revision.is_some()) {
        acts::add(&mut transaction, act).await?;
    }
    transaction.commit().await?;
    Ok(revision)
}

/// Deletes a schedule, unless it was written since `revision`, and records the results of its starts. Its history and
/// acts stay. Returns whether it was deleted.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    revision: Option<i64>,
    told: &[Told],
    act: &Act<'_>,
) -> Result<bool, sqlx::Error> {
    let starts: Result<Vec<String>, _> = told.iter().map(|one| text(&one.start)).collect();
    let mut transaction = connection.begin().await?;
    let done = sqlx::query(
        "-- schedules_delete\n\
         delete from schedules where namespace = $1 and name = $2 and revision = coalesce($3, revision)",
    )
    .bind(act.namespace)
    .bind(act.name)
    .bind(revision)
    .execute(&mut *transaction)
    .await?;
    if done.rows_affected() == 1 {
        sqlx::query(
            "-- schedule_starts_add\n\
             insert into schedule_starts (namespace, schedule, at, start) \
             select $1, $2, $3, t.start from unnest($4::text[]) with ordinality as t(start, place) order by t.place",
        )
        .bind(act.namespace)
        .bind(act.name)
        .bind(Moment(act.at))
        .bind(starts?)
        .execute(&mut *transaction)
        .await?;
        acts::add(&mut transaction, act).await?;
    }
    transaction.commit().await?;
    Ok(done.rows_affected() == 1)
}

/// Returns the history of a schedule, newest first, before the line `before`.
pub(crate) async fn starts(
    connection: &mut PgConnection,
    namespace: &str,
    name: &str,
    before: Option<i64>,
    limit: i64,
) -> Result<Vec<(i64, ScheduleStart)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- schedule_starts_list\n\
         select id, start from schedule_starts where namespace = $1 and schedule = $2 and id < $3 \
         order by id desc limit $4",
    )
    .bind(namespace)
    .bind(name)
    .bind(before.unwrap_or(i64::MAX))
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(start_row).collect()
}

/// Returns the result of the manual start with this key.
pub(crate) async fn start_by_hand(
    connection: &mut PgConnection,
    namespace: &str,
    key: &str,
) -> Result<Option<ScheduleStart>, sqlx::Error> {
    let row = sqlx::query(
        "-- schedule_starts_by_hand\n\
         select id, start from schedule_starts where namespace = $1 and key = $2 order by id limit 1",
    )
    .bind(namespace)
    .bind(key)
    .fetch_optional(connection)
    .await?;
    row.as_ref().map(|row| start_row(row).map(|(_, start)| start)).transpose()
}

fn start_row(row: &PgRow) -> Result<(i64, ScheduleStart), sqlx::Error> {
    let id: i64 = row.try_get(0)?;
    let place = || format!("table schedule_starts, id {id}, column start");
    Ok((id, read(row.try_get(1)?, place)?))
}

fn schedule_row(row: &PgRow) -> Result<ScheduleRow, sqlx::Error> {
    schedule_row_from(row, 0)
}

fn schedule_row_from(row: &PgRow, first: usize) -> Result<ScheduleRow, sqlx::Error> {
    let (namespace, name): (String, String) = (row.try_get(first)?, row.try_get(first + 1)?);
    let place =
        |column: &str| format!("table schedules, schedule {namespace}/{name}, column {column}");
    Ok(ScheduleRow {
        revision: row.try_get(first + 2)?,
        spec: read(row.try_get(first + 3)?, || place("spec"))?,
        state: read(row.try_get(first + 4)?, || place("state"))?,
        namespace,
        name,
    })
}

fn read<T: DeserializeOwned>(text: &str, place: impl Fn() -> String) -> Result<T, sqlx::Error> {
    serde_json::from_str(text)
        .map_err(|error| sqlx::Error::Decode(format!("{}: {error}", place()).into()))
}

fn text<T: Serialize>(value: &T) -> Result<String, sqlx::Error> {
    serde_json::to_string(value).map_err(|error| sqlx::Error::Encode(error.into()))
}
