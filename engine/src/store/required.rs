//! The table `required`: what runs under way require, and what they know of it.

use backstitch_saga::protocol::{FactDependent, OnWithdrawn, Requirement};
use backstitch_saga::{RequiredFact, RunId, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;

/// A run that does not know the present state of a fact that it requires.
#[derive(Clone, Debug)]
pub(crate) struct Changed {
    pub(crate) run: RunId,
    pub(crate) one: Requirement,
    pub(crate) policy: OnWithdrawn,
    /// The fact is withdrawn; else it is established again.
    pub(crate) withdrawn: bool,
    /// The person or run that withdrew it.
    pub(crate) by: Option<String>,
}

/// Returns those of these runs that do not know the present state of a fact that they require.
pub(crate) async fn changed(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<Changed>, sqlx::Error> {
    let rows = sqlx::query(
        "-- required_changed\n\
         select q.run_id, q.fact, q.subject, q.on_withdrawn, f.withdrawn_at is not null, f.withdrawn_by \
         from required q join facts f on f.namespace = q.namespace and f.subject = q.subject and f.fact = q.fact \
         where q.run_id = any($1) and (f.withdrawn_at is not null) <> q.withdrawn",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

/// Returns runs after the given one that require a fact and do not know its state.
pub(crate) async fn changed_by(
    connection: &mut PgConnection,
    namespace: &str,
    fact: &Requirement,
    after: Uuid,
    limit: i64,
) -> Result<Vec<Changed>, sqlx::Error> {
    let rows = sqlx::query(
        "-- required_changed_by_fact\n\
         select q.run_id, q.fact, q.subject, q.on_withdrawn, f.withdrawn_at is not null, f.withdrawn_by \
         from required q join facts f on f.namespace = q.namespace and f.subject = q.subject and f.fact = q.fact \
         where q.namespace = $1 and q.subject = $2 and q.fact = $3 and q.run_id > $4 \
         and (f.withdrawn_at is not null) <> q.withdrawn order by q.run_id limit $5",
    )
    .bind(namespace)
    .bind(&fact.on)
    .bind(&fact.fact)
    .bind(after)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(read).collect()
}

fn read(row: &PgRow) -> Result<Changed, sqlx::Error> {
    Ok(Changed {
        run: RunId(row.try_get(0)?),
        one: Requirement { fact: row.try_get(1)?, on: row.try_get(2)? },
        policy: policy(row.try_get(3)?),
        withdrawn: row.try_get(4)?,
        by: row.try_get(5)?,
    })
}

fn policy(word: &str) -> OnWithdrawn {
    let all = [OnWithdrawn::Ignore, OnWithdrawn::Incident, OnWithdrawn::Cancel];
    all.into_iter().find(|policy| policy.as_str() == word).unwrap_or_default()
}

/// Returns the requirements of these runs, each with a flag: the run knows that it was withdrawn.
pub(crate) async fn of(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<(RunId, RequiredFact, bool)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- required_of_runs\n\
         select run_id, fact, subject, on_withdrawn, withdrawn from required where run_id = any($1)",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    let line = |row: &PgRow| {
        let one = Requirement { fact: row.try_get(1)?, on: row.try_get(2)? };
        let required = RequiredFact { one, on_withdrawn: policy(row.try_get(3)?) };
        Ok((RunId(row.try_get(0)?), required, row.try_get(4)?))
    };
    rows.iter().map(line).collect()
}

/// Writes the missing rows of a run, and corrects its policy.
pub(crate) async fn restore(
    connection: &mut PgConnection,
    namespace: &str,
    run: RunId,
    required: &[(RequiredFact, bool)],
) -> Result<(), sqlx::Error> {
    let column = |pick: fn(&RequiredFact) -> &str| -> Vec<&str> {
        required.iter().map(|(one, _)| pick(one)).collect()
    };
    sqlx::query(
        "-- required_restore\n\
         insert into required (run_id, namespace, subject, fact, on_withdrawn, withdrawn) \
         select $1, $2, x.* from unnest($3::text[], $4::text[], $5::text[], $6::boolean[]) x \
         on conflict (namespace, subject, fact, run_id) do update set on_withdrawn = excluded.on_withdrawn",
    )
    .bind(run.0)
    .bind(namespace)
    .bind(column(|one| &one.one.on))
    .bind(column(|one| &one.one.fact))
    .bind(column(|one| one.on_withdrawn.as_str()))
    .bind(required.iter().map(|(_, withdrawn)| *withdrawn).collect::<Vec<bool>>())
    .execute(connection)
    .await?;
    Ok(())
}

/// Notes that they know it now. Those that have not begun wait for what was withdrawn, until
/// `until`.
pub(crate) async fn told(
    connection: &mut PgConnection,
    told: &[Changed],
    now: Time,
    until: Time,
) -> Result<(), sqlx::Error> {
    let runs: Vec<Uuid> = told.iter().map(|one| one.run.0).collect();
    let subjects: Vec<&str> = told.iter().map(|one| one.one.on.as_str()).collect();
    let facts: Vec<&str> = told.iter().map(|one| one.one.fact.as_str()).collect();
    let withdrawn: Vec<bool> = told.iter().map(|one| one.withdrawn).collect();
    sqlx::query(
        "-- required_told\n\
         with x as (select * from unnest($1::uuid[], $2::text[], $3::text[], $4::boolean[]) \
           as x(run_id, subject, fact, withdrawn)), \
         again as (insert into awaited (run_id, namespace, subject, fact, since, until) \
           select x.run_id, r.namespace, x.subject, x.fact, $5, $6 from x join runs r on r.id = x.run_id \
           where x.withdrawn and r.state <> 'ended' and r.conditions <> '{}' \
           and r.conditions @> '{DependencyUnmet}' on conflict do nothing) \
         update required q set withdrawn = x.withdrawn from x \
         where q.run_id = x.run_id and q.subject = x.subject and q.fact = x.fact",
    )
    .bind(runs)
    .bind(subjects)
    .bind(facts)
    .bind(withdrawn)
    .bind(Moment(now))
    .bind(Moment(until))
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the runs under way that require facts about a subject, at most `limit`.
pub(crate) async fn dependents(
    connection: &mut PgConnection,
    namespace: &str,
    subject: &str,
    limit: i64,
) -> Result<Vec<FactDependent>, sqlx::Error> {
    let rows = sqlx::query(
        "-- required_of_subject\n\
         select q.run_id, q.fact, q.subject, q.on_withdrawn from required q join runs r on r.id = q.run_id \
         where q.namespace = $1 and q.subject = $2 and r.state <> 'ended' order by q.fact, q.run_id limit $3",
    )
    .bind(namespace)
    .bind(subject)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(dependent).collect()
}

/// Returns the runs in progress that require facts which `by` has established and which are still
/// established, at most `limit`.
pub(crate) async fn dependents_of(
    connection: &mut PgConnection,
    namespace: &str,
    facts: &[Requirement],
    by: &str,
    limit: i64,
) -> Result<Vec<FactDependent>, sqlx::Error> {
    let subjects: Vec<&str> = facts.iter().map(|one| one.on.as_str()).collect();
    let names: Vec<&str> = facts.iter().map(|one| one.fact.as_str()).collect();
    let rows = sqlx::query(
        "-- required_of_facts\n\
         select q.run_id, q.fact, q.subject, q.on_withdrawn \
         from (select distinct * from unnest($2::text[], $3::text[]) as x(subject, fact)) x \
         join facts f on f.namespace = $1 and f.subject = x.subject and f.fact = x.fact \
           and f.by = $4 and f.withdrawn_at is null \
         join required q on q.namespace = $1 and q.subject = x.subject and q.fact = x.fact \
         join runs r on r.id = q.run_id and r.state <> 'ended' order by q.fact, q.subject, q.run_id limit $5",
    )
    .bind(namespace)
    .bind(subjects)
    .bind(names)
    .bind(by)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(dependent).collect()
}

fn dependent(row: &PgRow) -> Result<FactDependent, sqlx::Error> {
    Ok(FactDependent {
        run: RunId(row.try_get(0)?),
        fact: row.try_get(1)?,
        on: row.try_get(2)?,
        on_withdrawn: policy(row.try_get(3)?),
    })
}
