//! Index rows of runs, rewritten by their journals.

use backstitch_saga::RunId;
use sqlx::postgres::PgConnection;

use super::acts::{self, ActRow};
use super::index::{Charge, IncidentRow, IndexRows, ReadyLine, RunRow};
use super::moment::Moment;
use super::open_effects;

/// Rewrites all index rows of one run. Correct acts stay, and wrong ones are set aside: no act of a person is
/// deleted.
pub(crate) async fn rewrite(
    connection: &mut PgConnection,
    run: RunId,
    rows: &IndexRows,
    there: &IndexRows,
) -> Result<(), sqlx::Error> {
    for text in [
        "-- index_rewrite_runs\ndelete from runs where id = $1",
        "-- index_rewrite_incidents\ndelete from incidents where run_id = $1",
    ] {
        sqlx::query(text).bind(run.0).execute(&mut *connection).await?;
    }
    let is_missing = |act: &&ActRow| !there.acts.contains(act);
    let mut missing: Vec<ActRow> = rows.acts.iter().filter(is_missing).cloned().collect();
    if there.acts.iter().any(|act| !rows.acts.contains(act)) {
        sqlx::query("-- index_set_acts_aside\nselect backstitch.set_acts_aside($1)")
            .bind(run.0)
            .execute(&mut *connection)
            .await?;
        missing.clone_from(&rows.acts);
    }
    take_off_offer(connection, run, rows).await?;
    open_effects::rewrite(connection, run, &rows.effects).await?;
    let Some(row) = &rows.run else { return Ok(()) };
    insert_run(connection, run, row).await?;
    offer(connection, run, rows).await?;
    for incident in &rows.incidents {
        insert_incident(connection, run, incident).await?;
    }
    note_key(connection, run, row, rows).await?;
    open_fences(connection, run, row, rows).await?;
    super::rows::restore(connection, &row.namespace, run, &rows.sequence).await?;
    acts::insert(connection, run, (&row.namespace, &row.workflow), &missing).await
}

/// Deletes tasks that are offered and should not be. Correct rows stay: they have more than the journal, the time since
/// when a task waits and its rank.
async fn take_off_offer(
    connection: &mut PgConnection,
    run: RunId,
    rows: &IndexRows,
) -> Result<(), sqlx::Error> {
    let ready = || rows.ready.iter();
    sqlx::query(
        "-- index_rewrite_ready\n\
         delete from ready r where r.run_id = $1 and not exists (select 1 from \
         unnest($2::text[], $3::text[], $4::integer[], $5::text[], $6::text[], $7::text[]) \
           as x(step, action, attempt, namespace, queue, name) \
         where (x.step, x.action, x.attempt, x.namespace, x.queue, x.name) \
           = (r.step, r.action, r.attempt, r.namespace, r.queue, r.name))",
    )
    .bind(run.0)
    .bind(ready().map(|row| row.step.as_str()).collect::<Vec<_>>())
    .bind(ready().map(|row| row.action.as_str()).collect::<Vec<_>>())
    .bind(ready().map(|row| row.attempt).collect::<Vec<_>>())
    .bind(ready().map(|row| row.namespace.as_str()).collect::<Vec<_>>())
    .bind(ready().map(|row| row.queue.as_str()).collect::<Vec<_>>())
    .bind(ready().map(|row| row.name.as_str()).collect::<Vec<_>>())
    .execute(connection)
    .await?;
    Ok(())
}

async fn insert_run(
    connection: &mut PgConnection,
    run: RunId,
    row: &RunRow,
) -> Result<(), sqlx::Error> {
    let (node, wake_at) = match &row.charge {
        Charge::Node(node) => (Some(*node), None),
        Charge::Parked(wake_at) => (None, wake_at.map(Moment)),
    };
    sqlx::query(
        "-- index_insert_run\n\
         insert into runs (id, namespace, workflow, version, definition, key, correlation_id, labels, state, outcome, \
         conditions, started_at, ended_at, node, wake_at) \
         values ($1, $2, $3, $4, $5, $6, $7, $8::jsonb, $9, $10, $11, $12, $13, $14, $15)",
    )
    .bind(run.0)
    .bind(&row.namespace)
    .bind(&row.workflow)
    .bind(row.version)
    .bind(&row.definition)
    .bind(&row.key)
    .bind(&row.correlation_id)
    .bind(&row.labels)
    .bind(&row.state)
    .bind(&row.outcome)
    .bind(&row.conditions)
    .bind(Moment(row.started_at))
    .bind(row.ended_at.map(Moment))
    .bind(node)
    .bind(wake_at)
    .execute(connection)
    .await?;
    Ok(())
}

async fn offer(
    connection: &mut PgConnection,
    run: RunId,
    rows: &IndexRows,
) -> Result<(), sqlx::Error> {
    for ReadyLine { step, action, attempt, namespace, queue, name } in &rows.ready {
        sqlx::query(
            "-- index_insert_ready\n\
             insert into ready (run_id, step, action, attempt, namespace, queue, name, offered_at) \
             values ($1, $2, $3, $4, $5, $6, $7, clock_timestamp()) on conflict do nothing",
        )
        .bind(run.0)
        .bind(step)
        .bind(action)
        .bind(attempt)
        .bind(namespace)
        .bind(queue)
        .bind(name)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

async fn insert_incident(
    connection: &mut PgConnection,
    run: RunId,
    incident: &IncidentRow,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- index_insert_incident\n\
         insert into incidents (run_id, incident, namespace, workflow, kind, step, message, opened_at, \
         resolved_at, code, fingerprint) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)",
    )
    .bind(run.0)
    .bind(incident.incident)
    .bind(&incident.namespace)
    .bind(&incident.workflow)
    .bind(&incident.kind)
    .bind(&incident.step)
    .bind(&incident.message)
    .bind(Moment(incident.opened_at))
    .bind(incident.resolved_at.map(Moment))
    .bind(&incident.code)
    .bind(&incident.fingerprint)
    .execute(connection)
    .await?;
    Ok(())
}

async fn note_key(
    connection: &mut PgConnection,
    run: RunId,
    row: &RunRow,
    rows: &IndexRows,
) -> Result<(), sqlx::Error> {
    let (Some(key), Some(digest)) = (&row.key, &rows.key) else { return Ok(()) };
    sqlx::query(
        "-- index_insert_key\n\
         insert into run_keys (namespace, key, workflow, run_id, input_digest) values ($1, $2, $3, $4, $5) \
         on conflict do nothing",
    )
    .bind(&row.namespace)
    .bind(key)
    .bind(&row.workflow)
    .bind(run.0)
    .bind(digest)
    .execute(connection)
    .await?;
    Ok(())
}

async fn open_fences(
    connection: &mut PgConnection,
    run: RunId,
    row: &RunRow,
    rows: &IndexRows,
) -> Result<(), sqlx::Error> {
    for (step, action, attempt) in &rows.fences {
        sqlx::query(
            "-- index_insert_fence\n\
             insert into fences (run_id, step, action, attempt, namespace, opened_at) \
             values ($1, $2, $3, $4, $5, clock_timestamp()) on conflict do nothing",
        )
        .bind(run.0)
        .bind(step)
        .bind(action)
        .bind(attempt)
        .bind(&row.namespace)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}
