//! Facts, those who wait for them, and those who have promised to establish them.

use backstitch_saga::protocol::{FactView, FactWaiter, OnWithdrawn, Requirement};
use backstitch_saga::{RunId, Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;
use super::spaces::{Found, Waiting, share};

fn columns(all: &[Requirement]) -> (Vec<&str>, Vec<&str>) {
    all.iter().map(|one| (one.on.as_str(), one.fact.as_str())).unzip()
}

/// Note about a run before it begins.
pub(crate) struct Note<'a> {
    pub(crate) run: RunId,
    /// Its workflow and the caller's own key.
    pub(crate) start: Option<(&'a str, &'a str)>,
    pub(crate) requires: &'a [Requirement],
    /// Policy for each of them when it is withdrawn; without policies nothing is noted.
    pub(crate) policies: &'a [OnWithdrawn],
    pub(crate) produces: &'a [Requirement],
    /// It enters the line of a serial key.
    pub(crate) serial: bool,
    pub(crate) since: Time,
    /// Time that it waits for its requirements.
    pub(crate) until: Time,
}

/// Stores required and promised facts of a run, if there are any. Returns the requirements that it waits for: those
/// that are not established, and those that it was known to wait for.
pub(crate) async fn note(
    connection: &mut PgConnection,
    namespace: &str,
    note: &Note<'_>,
) -> Result<Vec<Requirement>, sqlx::Error> {
    let (subjects, facts) = columns(note.requires);
    let (made_about, made) = columns(note.produces);
    let rows = sqlx::query(
        "-- sequenced_add\n\
         with w as (insert into awaited as a (run_id, namespace, subject, fact, since, until) \
           select $1, $2, x.subject, x.fact, $3, $4 from unnest($5::text[], $6::text[]) as x(subject, fact) \
           where not exists (select 1 from facts f where f.namespace = $2 and f.subject = x.subject \
             and f.fact = x.fact and f.withdrawn_at is null) \
           on conflict (namespace, subject, fact, run_id) do update set until = a.until returning fact, subject), \
         p as (insert into promised (run_id, namespace, subject, fact) \
           select $1, $2, x.subject, x.fact from unnest($7::text[], $8::text[]) as x(subject, fact) \
           on conflict do nothing), \
         q as (insert into required (run_id, namespace, subject, fact, on_withdrawn, withdrawn) \
           select $1, $2, x.subject, x.fact, x.policy, coalesce((select f.withdrawn_at is not null from facts f \
             where f.namespace = $2 and f.subject = x.subject and f.fact = x.fact), false) \
           from unnest($5::text[], $6::text[], $12::text[]) as x(subject, fact, policy) where x.policy is not null \
           on conflict do nothing), \
         s as (insert into sequenced (run_id, namespace, since, workflow, start_key) select $1, $2, $3, $10, $11 \
           where $9 or cardinality($7::text[]) > 0 or cardinality($12::text[]) > 0 or exists (select 1 from w) \
           on conflict do nothing) \
         select $1, fact, subject from w",
    )
    .bind(note.run.0)
    .bind(namespace)
    .bind(Moment(note.since))
    .bind(Moment(note.until))
    .bind(subjects)
    .bind(facts)
    .bind(made_about)
    .bind(made)
    .bind(note.serial)
    .bind(note.start.map(|(workflow, _)| workflow))
    .bind(note.start.map(|(_, key)| key))
    .bind(note.policies.iter().map(|policy| policy.as_str()).collect::<Vec<_>>())
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| requirement(row).map(|(_, one)| one)).collect()
}

/// A fact that a run waits for.
pub(crate) struct Awaited {
    pub(crate) run: RunId,
    pub(crate) one: Requirement,
    pub(crate) until: Time,
    /// A person was informed.
    pub(crate) overdue: bool,
    /// It is established.
    pub(crate) met: bool,
}

/// Returns the requirements that these runs wait for.
pub(crate) async fn awaited(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<Awaited>, sqlx::Error> {
    let rows = sqlx::query(
        "-- awaited_of_runs\n\
         select a.run_id, a.fact, a.subject, a.until, a.overdue, f.fact is not null from awaited a \
         left join lateral (select f.fact from facts f where f.namespace = a.namespace and f.subject = a.subject \
           and f.fact = a.fact and f.withdrawn_at is null) f on true where a.run_id = any($1)",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    let awaited = |row: &PgRow| {
        let (run, one) = requirement(row)?;
        let Moment(until) = row.try_get(3)?;
        Ok(Awaited { run, one, until, overdue: row.try_get(4)?, met: row.try_get(5)? })
    };
    rows.iter().map(awaited).collect()
}

/// Lets these runs wait once more, for the original time, for facts of which a person was informed.
pub(crate) async fn wait_again(
    connection: &mut PgConnection,
    runs: &[Uuid],
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- awaited_again\n\
         update awaited set since = $2, until = $2 + (until - since), overdue = false \
         where run_id = any($1) and overdue",
    )
    .bind(runs)
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Lists runs that have promised to establish a fact.
pub(crate) async fn promisers(
    connection: &mut PgConnection,
    namespace: &str,
    fact: &Requirement,
    limit: i64,
) -> Result<Vec<RunId>, sqlx::Error> {
    let runs: Vec<Uuid> = sqlx::query_scalar(
        "-- promised_of_fact\n\
         select run_id from promised where namespace = $1 and subject = $2 and fact = $3 order by run_id limit $4",
    )
    .bind(namespace)
    .bind(&fact.on)
    .bind(&fact.fact)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(runs.into_iter().map(RunId).collect())
}

/// Returns those of these runs that both wait for facts and have promised some.
pub(crate) async fn awaiting_and_promising(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<RunId>, sqlx::Error> {
    let runs: Vec<Uuid> = sqlx::query_scalar(
        "-- awaiting_and_promising\n\
         select distinct a.run_id from awaited a join promised p on p.run_id = a.run_id where a.run_id = any($1)",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    Ok(runs.into_iter().map(RunId).collect())
}

/// Returns each requirement that these runs wait for, with each run that has promised it, at most `limit`.
pub(crate) async fn awaited_of_whom(
    connection: &mut PgConnection,
    runs: &[Uuid],
    limit: i64,
) -> Result<Vec<(RunId, Requirement, Option<RunId>)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- awaited_of_whom\n\
         select a.run_id, a.fact, a.subject, p.run_id from awaited a left join promised p \
         on p.namespace = a.namespace and p.subject = a.subject and p.fact = a.fact where a.run_id = any($1) \
         order by 1, 2, 3, 4 limit $2",
    )
    .bind(runs)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let edge = |row: &PgRow| {
        let (run, one) = requirement(row)?;
        let by: Option<Uuid> = row.try_get(3)?;
        Ok((run, one, by.map(RunId)))
    };
    rows.iter().map(edge).collect()
}

/// Lists runs that await a fact, after the given one.
pub(crate) async fn waiters(
    connection: &mut PgConnection,
    namespace: &str,
    fact: &Requirement,
    after: Uuid,
    limit: i64,
) -> Result<Vec<RunId>, sqlx::Error> {
    let runs: Vec<Uuid> = sqlx::query_scalar(
        "-- awaited_of_fact\n\
         select run_id from awaited where namespace = $1 and subject = $2 and fact = $3 and run_id > $4 \
         order by run_id limit $5",
    )
    .bind(namespace)
    .bind(&fact.on)
    .bind(&fact.fact)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(runs.into_iter().map(RunId).collect())
}

/// Notes that these runs do not wait for these facts any more.
pub(crate) async fn released(
    connection: &mut PgConnection,
    all: &[(RunId, Requirement)],
) -> Result<(), sqlx::Error> {
    let runs: Vec<Uuid> = all.iter().map(|(run, _)| run.0).collect();
    let subjects: Vec<&str> = all.iter().map(|(_, one)| one.on.as_str()).collect();
    let facts: Vec<&str> = all.iter().map(|(_, one)| one.fact.as_str()).collect();
    sqlx::query(
        "-- awaited_released\n\
         delete from awaited a using unnest($1::uuid[], $2::text[], $3::text[]) as x(run_id, subject, fact) \
         where a.run_id = x.run_id and a.subject = x.subject and a.fact = x.fact",
    )
    .bind(runs)
    .bind(subjects)
    .bind(facts)
    .execute(connection)
    .await?;
    Ok(())
}

/// Facts that runs wait for, by namespace.
const WAITING: Waiting =
    Waiting { table: "awaited", when: "not overdue", by: "until", due: "first <= $2", spaces: 64 };

/// Returns the statement `awaited_overdue`.
pub(crate) fn awaited_overdue() -> String {
    format!(
        "-- awaited_overdue\n{}, \
         found as (select a.* from due d cross join lateral (select a.run_id, a.fact, a.subject from awaited a \
           where a.namespace = d.namespace and not a.overdue and a.until <= $2 order by a.until limit {}) a) \
         select t.last, f.run_id, f.fact, f.subject from turn t left join found f on true",
        WAITING.due_spaces(),
        share("$3"),
    )
}

/// Finds runs that have waited for a fact until now without a report, in turns between the namespaces after
/// `after`.
pub(crate) async fn overdue(
    connection: &mut PgConnection,
    now: Time,
    limit: i64,
    after: &str,
) -> Result<Found<(RunId, Requirement)>, sqlx::Error> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(awaited_overdue()))
        .bind(after)
        .bind(Moment(now))
        .bind(limit)
        .fetch_all(connection)
        .await?;
    Found::read(&rows, |row| requirement_from(row, 1))
}

/// Notes that these were reported.
pub(crate) async fn told_overdue(
    connection: &mut PgConnection,
    runs: &[Uuid],
    now: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- awaited_told\nupdate awaited set overdue = true where run_id = any($1) and until <= $2",
    )
    .bind(runs)
    .bind(Moment(now))
    .execute(connection)
    .await?;
    Ok(())
}

/// Establishes facts, in one order everywhere, so that two transactions with the same facts do not deadlock. An
/// established fact is left alone. Returns whether any was not established.
pub(crate) async fn establish(
    connection: &mut PgConnection,
    namespace: &str,
    facts: &[Requirement],
    by: &str,
    at: Time,
) -> Result<bool, sqlx::Error> {
    let (subjects, names) = columns(facts);
    let done = sqlx::query(
        "-- facts_establish\n\
         insert into facts (namespace, subject, fact, at, by) \
         select distinct $1, x.subject, x.fact, $4::timestamptz, $5 from unnest($2::text[], $3::text[]) as x(subject, fact) \
         order by 2, 3 on conflict (namespace, subject, fact) do update set at = excluded.at, by = excluded.by, withdrawn_at = null, withdrawn_by = null \
         where facts.withdrawn_at is not null",
    )
    .bind(namespace)
    .bind(subjects)
    .bind(names)
    .bind(Moment(at))
    .bind(by)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() > 0)
}

/// Withdraws a fact. Returns whether it stood.
pub(crate) async fn withdraw(
    connection: &mut PgConnection,
    namespace: &str,
    fact: &Requirement,
    by: &str,
    at: Time,
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(
        "-- facts_withdraw\n\
         update facts set withdrawn_at = $4, withdrawn_by = $5 \
         where namespace = $1 and subject = $2 and fact = $3 and withdrawn_at is null",
    )
    .bind(namespace)
    .bind(&fact.on)
    .bind(&fact.fact)
    .bind(Moment(at))
    .bind(by)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Withdraws those of `facts` that `by` established.
pub(crate) async fn withdraw_of(
    connection: &mut PgConnection,
    namespace: &str,
    facts: &[Requirement],
    by: &str,
    at: Time,
) -> Result<(), sqlx::Error> {
    let (subjects, names) = columns(facts);
    sqlx::query(
        "-- facts_withdraw_of\n\
         update facts f set withdrawn_at = $5, withdrawn_by = $4 from unnest($2::text[], $3::text[]) as x(subject, fact) \
         where f.namespace = $1 and f.subject = x.subject and f.fact = x.fact and f.by = $4 and f.withdrawn_at is null",
    )
    .bind(namespace)
    .bind(subjects)
    .bind(names)
    .bind(by)
    .bind(Moment(at))
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the facts that runs have promised to establish.
pub(crate) async fn promised(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<(RunId, Requirement)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- promised_of_runs\nselect run_id, fact, subject from promised where run_id = any($1)",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    rows.iter().map(requirement).collect()
}

/// Returns the facts about a subject, at most `limit`.
pub(crate) async fn facts_of(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
    limit: i64,
) -> Result<Vec<FactView>, sqlx::Error> {
    let rows = sqlx::query(
        "-- facts_of_subject\n\
         select fact, subject, at, by, withdrawn_at, withdrawn_by from facts where namespace = $1 and subject = $2 \
         order by fact limit $3",
    )
    .bind(namespace)
    .bind(subject)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let fact = |row: &PgRow| {
        let Moment(at) = row.try_get(2)?;
        let withdrawn: Option<Moment> = row.try_get(4)?;
        Ok(FactView {
            fact: row.try_get(0)?,
            on: row.try_get(1)?,
            at: Timestamp(at),
            by: row.try_get(3)?,
            withdrawn_at: withdrawn.map(|Moment(at)| Timestamp(at)),
            withdrawn_by: row.try_get(5)?,
        })
    };
    rows.iter().map(fact).collect()
}

/// Returns the runs that wait for facts about a subject, at most `limit`.
pub(crate) async fn waiting_on(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
    limit: i64,
) -> Result<Vec<FactWaiter>, sqlx::Error> {
    let rows = sqlx::query(
        "-- awaited_of_subject\n\
         select run_id, fact, since, until from awaited where namespace = $1 and subject = $2 \
         order by fact, run_id limit $3",
    )
    .bind(namespace)
    .bind(subject)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    let waiter = |row: &PgRow| {
        let (Moment(since), Moment(until)) = (row.try_get(2)?, row.try_get(3)?);
        Ok(FactWaiter {
            run: RunId(row.try_get(0)?),
            fact: row.try_get(1)?,
            since: Timestamp(since),
            until: Timestamp(until),
        })
    };
    rows.iter().map(waiter).collect()
}

/// Returns the newest version of each workflow that requires or produces facts.
pub(crate) async fn sequenced_definitions(
    connection: &mut PgConnection,
    namespace: &str,
) -> Result<Vec<String>, sqlx::Error> {
    sqlx::query_scalar(
        "-- definitions_sequenced\n\
         select body from (select distinct on (name) name, body from definitions where namespace = $1 \
         order by name, version desc) d where body like '%\"sequence\"%'",
    )
    .bind(namespace)
    .fetch_all(connection)
    .await
}

fn requirement(row: &PgRow) -> Result<(RunId, Requirement), sqlx::Error> {
    requirement_from(row, 0)
}

fn requirement_from(row: &PgRow, first: usize) -> Result<(RunId, Requirement), sqlx::Error> {
    let (fact, on) = (row.try_get(first + 1)?, row.try_get(first + 2)?);
    Ok((RunId(row.try_get(first)?), Requirement { fact, on }))
}
