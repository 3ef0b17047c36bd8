//! The rows of runs that hold or await something, read, and rewritten by their journals.

use std::collections::HashMap;

use backstitch_saga::protocol::Requirement;
use backstitch_saga::{RequiredFact, RunId, Span};
use sqlx::Row;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::{facts, required, sequence};

/// The rows that a run has among others, or must have at least.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct SequenceRows {
    /// It is known to hold or await something.
    pub(crate) noted: bool,
    /// The serial key in whose line it is.
    pub(crate) key: Option<String>,
    /// It was notified that it has the key.
    pub(crate) has_key: bool,
    /// That it holds the key is written down a second time, or is not its to be written.
    pub(crate) is_holder: bool,
    /// The facts that it waits for; sorted.
    pub(crate) awaited: Vec<Requirement>,
    /// The facts that it establishes when it has succeeded; sorted.
    pub(crate) promised: Vec<Requirement>,
    /// The facts that it requires, established ones included, each with a flag: it knows that it was
    /// withdrawn.
    pub(crate) required: Vec<(RequiredFact, bool)>,
    /// Time that it waits for facts.
    pub(crate) within: Span,
}

/// Reads the rows of runs.
pub(crate) async fn read(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<HashMap<RunId, SequenceRows>, sqlx::Error> {
    let mut found: HashMap<RunId, SequenceRows> = HashMap::new();
    let places = sqlx::query(
        "-- serial_keys_of\n\
         select k.run_id, k.key, k.granted or k.state = 'holding', k.state = 'waiting' or exists (select 1 \
           from serial_key_holders h where h.namespace = k.namespace and h.key = k.key and h.run_id = k.run_id) \
         from serial_keys k where k.run_id = any($1)",
    )
    .bind(runs)
    .fetch_all(&mut *connection)
    .await?;
    for row in &places {
        let rows = found.entry(RunId(row.try_get(0)?)).or_default();
        (rows.key, rows.has_key) = (Some(row.try_get(1)?), row.try_get(2)?);
        rows.is_holder = row.try_get(3)?;
    }
    let noted: Vec<Uuid> =
        sqlx::query_scalar("-- sequenced_of\nselect run_id from sequenced where run_id = any($1)")
            .bind(runs)
            .fetch_all(&mut *connection)
            .await?;
    noted.into_iter().for_each(|run| found.entry(RunId(run)).or_default().noted = true);
    for awaited in facts::awaited(connection, runs).await? {
        found.entry(awaited.run).or_default().awaited.push(awaited.one);
    }
    for (run, one) in facts::promised(connection, runs).await? {
        found.entry(run).or_default().promised.push(one);
    }
    for (run, one, withdrawn) in required::of(connection, runs).await? {
        found.entry(run).or_default().required.push((one, withdrawn));
    }
    Ok(found)
}

/// Writes the missing rows. A run that has its key holds it, unless another was given it in between; then it is in
/// line, and goes on.
pub(crate) async fn restore(
    connection: &mut PgConnection,
    namespace: &str,
    run: RunId,
    rows: &SequenceRows,
) -> Result<(), sqlx::Error> {
    if !rows.noted {
        return Ok(());
    }
    let columns = |all: &[Requirement]| -> (Vec<String>, Vec<String>) {
        all.iter().map(|one| (one.on.clone(), one.fact.clone())).unzip()
    };
    let (subjects, facts) = columns(&rows.awaited);
    let (made_about, made) = columns(&rows.promised);
    // A fact that is established by now is found by the sweep, which notifies the run.
    sqlx::query(
        "-- sequenced_restore\n\
         with w as (insert into awaited (run_id, namespace, subject, fact, since, until) \
           select $1, $2, x.subject, x.fact, clock_timestamp(), clock_timestamp() + $7 * interval '1 millisecond' \
           from unnest($3::text[], $4::text[]) as x(subject, fact) on conflict do nothing), \
         p as (insert into promised (run_id, namespace, subject, fact) \
           select $1, $2, x.subject, x.fact from unnest($5::text[], $6::text[]) as x(subject, fact) \
           on conflict do nothing) \
         insert into sequenced (run_id, namespace, since) values ($1, $2, clock_timestamp()) on conflict do nothing",
    )
    .bind(run.0)
    .bind(namespace)
    .bind(subjects)
    .bind(facts)
    .bind(made_about)
    .bind(made)
    .bind(i64::try_from(rows.within.0).unwrap_or(i64::MAX))
    .execute(&mut *connection)
    .await?;
    required::restore(connection, namespace, run, &rows.required).await?;
    match &rows.key {
        Some(key) => place(connection, namespace, run, key, rows.has_key).await,
        None => Ok(()),
    }
}

async fn place(
    connection: &mut PgConnection,
    namespace: &str,
    run: RunId,
    key: &str,
    has_key: bool,
) -> Result<(), sqlx::Error> {
    sequence::lock_key(connection, namespace, key).await?;
    sqlx::query(
        "-- serial_keys_misplaced\n\
         delete from serial_keys where run_id = $1 and (namespace, key) <> ($2, $3)",
    )
    .bind(run.0)
    .bind(namespace)
    .bind(key)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "-- serial_keys_restore\n\
         insert into serial_keys as k (namespace, key, run_id, state, since, granted) \
         select $1, $2, $3, case when $4 and not exists (select 1 from serial_keys h where h.namespace = $1 \
           and h.key = $2 and h.state = 'holding') then 'holding' else 'waiting' end, clock_timestamp(), $4 \
         on conflict (run_id) do update set state = excluded.state, granted = true \
         where excluded.granted and k.state = 'waiting'",
    )
    .bind(namespace)
    .bind(key)
    .bind(run.0)
    .bind(has_key)
    .execute(&mut *connection)
    .await?;
    sqlx::query(
        "-- serial_key_holders_restore\n\
         insert into serial_key_holders (namespace, key, run_id, since) \
         select namespace, key, run_id, since from serial_keys where run_id = $1 and state = 'holding' \
         on conflict (namespace, key) do update set run_id = excluded.run_id, since = excluded.since",
    )
    .bind(run.0)
    .execute(connection)
    .await?;
    Ok(())
}
