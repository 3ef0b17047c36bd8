//! The table `workflow_pauses`: whose new runs are held, by whom and why.

use backstitch_saga::protocol::PauseView;
use backstitch_saga::{RunId, Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::moment::Moment;
use super::spaces::{Found, Waiting, share};

/// Threshold from which many incidents with one new fingerprint count as a bad deployment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Suspicion {
    /// In so many runs,
    pub(crate) runs: i64,
    /// that opened since then,
    pub(crate) since: Time,
    /// and none with this fingerprint between then and `since`.
    pub(crate) unseen_since: Time,
}

/// Pauses each workflow with so many runs that opened incidents with one new fingerprint; once for each fingerprint.
/// Runs that people killed or erased do not count. Returns the pauses: namespace, workflow, reason.
pub(crate) async fn guard(
    connection: &mut PgConnection,
    actor: &str,
    now: Time,
    suspicion: Suspicion,
) -> Result<Vec<(String, String, String)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- pauses_guard\n\
         with recent as (select namespace, workflow, fingerprint, count(distinct run_id) as runs, \
           min(opened_at) as first_seen from incidents i where resolved_at is null and opened_at >= $3 \
           and not (kind = 'effects_left' and exists (select 1 from acts a \
             where a.run_id = i.run_id and a.verb = 'kill')) \
           group by namespace, workflow, fingerprint having count(distinct run_id) >= $5), \
         paused as (insert into workflow_pauses (namespace, workflow, since, actor, reason, fingerprint, runs) \
         select distinct on (r.namespace, r.workflow) r.namespace, r.workflow, $2, $1, \
           r.runs || ' runs opened incidents of one new cause since ' || \
           to_char(r.first_seen, 'HH24:MI:SS') || ' UTC: suspected bad deploy', r.fingerprint, r.runs \
         from recent r \
         where not exists (select 1 from incidents i where i.namespace = r.namespace \
           and i.fingerprint = r.fingerprint and i.opened_at >= $4 and i.opened_at < $3) \
         and not exists (select 1 from workflow_pauses p where p.namespace = r.namespace \
           and p.workflow = r.workflow and p.fingerprint = r.fingerprint) \
         order by r.namespace, r.workflow, r.runs desc \
         on conflict (namespace, workflow) where resumed_at is null do nothing \
         returning namespace, workflow, reason), \
         acted as (insert into acts_beside_runs (namespace, at, kind, name, actor, verb, reason) \
         select namespace, $2, 'workflow', workflow, $1, 'pause', reason from paused) \
         select namespace, workflow, reason from paused",
    )
    .bind(actor)
    .bind(Moment(now))
    .bind(Moment(suspicion.since))
    .bind(Moment(suspicion.unseen_since))
    .bind(suspicion.runs)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// Changes the pause of a workflow by a person's request. Returns whether there was anything to change.
async fn change(
    connection: &mut PgConnection,
    statement: &'static str,
    (namespace, workflow): (&str, &str),
    (at, (actor, reason)): (Time, (&str, &str)),
) -> Result<bool, sqlx::Error> {
    let done = sqlx::query(statement)
        .bind(namespace)
        .bind(workflow)
        .bind(Moment(at))
        .bind(actor)
        .bind(reason)
        .execute(connection)
        .await?;
    Ok(done.rows_affected() == 1)
}

/// Pauses a workflow. Returns whether it was not paused before.
pub(crate) async fn pause(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
    at: Time,
    by: (&str, &str),
) -> Result<bool, sqlx::Error> {
    change(
        connection,
        "-- pauses_pause\n\
         insert into workflow_pauses (namespace, workflow, since, actor, reason) values ($1, $2, $3, $4, $5) \
         on conflict (namespace, workflow) where resumed_at is null do nothing",
        (namespace, workflow),
        (at, by),
    )
    .await
}

/// Lets a workflow go on. Returns whether it was paused.
pub(crate) async fn resume(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
    at: Time,
    by: (&str, &str),
) -> Result<bool, sqlx::Error> {
    change(
        connection,
        "-- pauses_resume\n\
         update workflow_pauses set resumed_at = $3, resumed_by = $4, resume_reason = $5 \
         where namespace = $1 and workflow = $2 and resumed_at is null",
        (namespace, workflow),
        (at, by),
    )
    .await
}

/// Creates a pause that is over, so that the runs of a workflow are released which are held without a known pause.
/// Returns whether there are such.
pub(crate) async fn let_go(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
    at: Time,
    by: (&str, &str),
) -> Result<bool, sqlx::Error> {
    change(
        connection,
        "-- pauses_let_go\n\
         insert into workflow_pauses (namespace, workflow, since, actor, reason, resumed_at, resumed_by, resume_reason) \
         select $1, $2, $3, $4, $5, $3, $4, $5 \
         where exists (select 1 from runs where namespace = $1 and workflow = $2 and state <> 'ended' \
           and conditions <> '{}' and conditions @> array['WorkflowPaused']) \
         and not exists (select 1 from workflow_pauses where namespace = $1 and workflow = $2 and released_at is null)",
        (namespace, workflow),
        (at, by),
    )
    .await
}

/// Returns the workflows of those of these runs that an unknown pause holds: namespace and workflow.
pub(crate) async fn forgotten(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<(String, String)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- pauses_forgotten\n\
         select distinct r.namespace, r.workflow from runs r \
         where r.id = any($1) and r.state <> 'ended' and r.conditions @> array['WorkflowPaused'] \
         and not exists (select 1 from workflow_pauses p where p.namespace = r.namespace and p.workflow = r.workflow \
           and p.released_at is null)",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Returns all workflows that are paused now: namespace, workflow, reason.
pub(crate) async fn paused(
    connection: &mut PgConnection,
) -> Result<Vec<(String, String, String)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- pauses_open\nselect namespace, workflow, reason from workflow_pauses where resumed_at is null",
    )
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))).collect()
}

/// Returns the pauses of a namespace, newest first, before `before`.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    before: i64,
    limit: i64,
) -> Result<Vec<(i64, PauseView)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- pauses_list\n\
         select id, workflow, since, actor, reason, fingerprint, runs, resumed_at, resumed_by, resume_reason \
         from workflow_pauses where namespace = $1 and id < $2 order by id desc limit $3",
    )
    .bind(namespace)
    .bind(before)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(view).collect()
}

fn view(row: &PgRow) -> Result<(i64, PauseView), sqlx::Error> {
    let Moment(since) = row.try_get(2)?;
    let runs: Option<i32> = row.try_get(6)?;
    let resumed_at: Option<Moment> = row.try_get(7)?;
    let view = PauseView {
        workflow: row.try_get(1)?,
        since: Timestamp(since),
        actor: row.try_get(3)?,
        reason: row.try_get(4)?,
        fingerprint: row.try_get(5)?,
        runs: runs.map(|runs| u32::try_from(runs).unwrap_or_default()),
        resumed_at: resumed_at.map(|Moment(at)| Timestamp(at)),
        resumed_by: row.try_get(8)?,
        resume_reason: row.try_get(9)?,
    };
    Ok((row.try_get(0)?, view))
}

/// A pause that is over, with runs to release.
#[derive(Clone, Debug)]
pub(crate) struct Over {
    pub(crate) namespace: String,
    pub(crate) workflow: String,
    pub(crate) id: i64,
    pub(crate) at: Time,
    pub(crate) actor: String,
    pub(crate) reason: String,
}

/// Pauses that are over and of which runs may still be held, by namespace.
const OVER: Waiting = Waiting {
    table: "workflow_pauses",
    when: "resumed_at is not null and released_at is null",
    by: "resumed_at",
    due: "true",
    spaces: 16,
};

/// Returns the statement `pauses_over`.
pub(crate) fn pauses_over() -> String {
    format!(
        "-- pauses_over\n{}, \
         found as (select p.* from due d cross join lateral (select * from workflow_pauses p \
           where p.namespace = d.namespace and p.resumed_at is not null and p.released_at is null \
           and not exists (select 1 from workflow_pauses n where n.namespace = p.namespace \
             and n.workflow = p.workflow and n.resumed_at is null) order by p.resumed_at limit {}) p) \
         select t.last, p.namespace, p.workflow, p.id, p.resumed_at, p.resumed_by, p.resume_reason \
         from turn t left join found p on true",
        OVER.due_spaces(),
        share("$2"),
    )
}

/// Finds pauses that are over and of which runs may still be held, at most `limit`, in turns between the namespaces
/// after `after`. One whose workflow is paused again is left out.
pub(crate) async fn over(
    connection: &mut PgConnection,
    limit: i64,
    after: &str,
) -> Result<Found<Over>, sqlx::Error> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(pauses_over()))
        .bind(after)
        .bind(limit)
        .fetch_all(connection)
        .await?;
    Found::read(&rows, |row| {
        let Moment(at) = row.try_get(4)?;
        Ok(Over {
            namespace: row.try_get(1)?,
            workflow: row.try_get(2)?,
            id: row.try_get(3)?,
            at,
            actor: row.try_get(5)?,
            reason: row.try_get(6)?,
        })
    })
}

/// Lists runs of a workflow that its pause holds.
pub(crate) async fn held(
    connection: &mut PgConnection,
    namespace: &str,
    workflow: &str,
    limit: i64,
) -> Result<Vec<RunId>, sqlx::Error> {
    let ids: Vec<Uuid> = sqlx::query_scalar(
        "-- pauses_held\n\
         select id from runs where namespace = $1 and workflow = $2 and state <> 'ended' and conditions <> '{}' \
         and conditions @> array['WorkflowPaused'] order by id limit $3",
    )
    .bind(namespace)
    .bind(workflow)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    Ok(ids.into_iter().map(RunId).collect())
}

/// Notes that all runs of a pause were released.
pub(crate) async fn released(
    connection: &mut PgConnection,
    over: &Over,
    at: Time,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- pauses_released\n\
         update workflow_pauses set released_at = $4 where namespace = $1 and workflow = $2 and id = $3",
    )
    .bind(&over.namespace)
    .bind(&over.workflow)
    .bind(over.id)
    .bind(Moment(at))
    .execute(connection)
    .await?;
    Ok(())
}
