//! The table `runs` outside of batches: who is in charge, what is due, what there is.

use std::collections::{BTreeMap, HashSet};

use backstitch_saga::protocol::{Outcome, RunLine, State};
use backstitch_saga::{RunId, Span, Time, Timestamp};
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::{Row, query_builder::QueryBuilder};
use uuid::Uuid;

use super::moment::Moment;
use super::partitions::first_id;
use crate::RunFilter;
use crate::charge::Owned;

/// Parks runs of which `node` is in charge: from now on they are checked when `wakes[i]` has come. Rows that others
/// have locked are not waited for; their runs are returned.
pub(crate) async fn park(
    connection: &mut PgConnection,
    node: i32,
    runs: &[Uuid],
    wakes: &[Option<Time>],
) -> Result<HashSet<RunId>, sqlx::Error> {
    let wakes: Vec<Option<Moment>> = wakes.iter().map(|at| at.map(Moment)).collect();
    let parked = sqlx::query(
        "-- runs_park\n\
         with free as materialized (select r.id, x.wake_at from unnest($2::uuid[], $3::timestamptz[]) as x(id, wake_at) \
           join runs r on r.id = x.id where r.node = $1 for update of r skip locked) \
         update runs r set node = null, wake_at = f.wake_at from free f where r.id = f.id",
    )
    .bind(node)
    .bind(runs)
    .bind(wakes)
    .execute(&mut *connection)
    .await?;
    if usize::try_from(parked.rows_affected()) == Ok(runs.len()) {
        return Ok(HashSet::new());
    }
    let left: Vec<Uuid> = sqlx::query_scalar(
        "-- runs_not_parked\nselect id from runs where id = any($2) and node = $1",
    )
    .bind(node)
    .bind(runs)
    .fetch_all(connection)
    .await?;
    Ok(left.into_iter().map(RunId).collect())
}

/// Takes charge of all parked runs that are due at `now` if they are no more than `most`, otherwise of none. Returns
/// them with their namespaces, and whether they were more.
pub(crate) async fn wake(
    connection: &mut PgConnection,
    node: i32,
    now: Time,
    most: i64,
) -> Result<(Vec<Owned>, bool), sqlx::Error> {
    let rows = sqlx::query(
        "-- runs_wake\n\
         with found as materialized (select id from runs where wake_at <= $2 order by wake_at limit $3 + 1 \
           for update skip locked), \
         taken as (update runs set node = $1, wake_at = null where id in (select id from found) \
           and (select count(*) from found) <= $3 returning id, namespace) \
         select id, namespace from taken union all select null, null from found having count(*) > $3",
    )
    .bind(node)
    .bind(Moment(now))
    .bind(most)
    .fetch_all(connection)
    .await?;
    few(&rows)
}

/// Takes charge of all runs of the dead nodes `gone` if they are no more than `most`, otherwise of none. Returns them
/// with their namespaces, and whether they were more.
pub(crate) async fn take_over(
    connection: &mut PgConnection,
    node: i32,
    gone: &[i32],
    most: i64,
) -> Result<(Vec<Owned>, bool), sqlx::Error> {
    let rows = sqlx::query(
        "-- runs_take_over\n\
         with found as materialized (select id from runs where node = any($2) limit $3 + 1 for update skip locked), \
         taken as (update runs set node = $1 where id in (select id from found) \
           and (select count(*) from found) <= $3 returning id, namespace) \
         select id, namespace from taken union all select null, null from found having count(*) > $3",
    )
    .bind(node)
    .bind(gone)
    .bind(most)
    .fetch_all(connection)
    .await?;
    few(&rows)
}

fn few(rows: &[PgRow]) -> Result<(Vec<Owned>, bool), sqlx::Error> {
    let mut found = Vec::with_capacity(rows.len());
    for row in rows {
        let (id, namespace): (Option<Uuid>, Option<String>) = (row.try_get(0)?, row.try_get(1)?);
        found.extend(id.map(RunId).zip(namespace));
    }
    let more = found.len() < rows.len();
    Ok((found, more))
}

/// Lists parked runs that are due at `now`, at most `limit`: namespaces take turns, each with its oldest first. Looks
/// at no more than `looked_at` of the oldest and of the newest.
pub(crate) async fn due(
    connection: &mut PgConnection,
    now: Time,
    (looked_at, limit): (i64, i64),
) -> Result<Vec<Owned>, sqlx::Error> {
    let rows = sqlx::query(
        "-- runs_due\n\
         select id, namespace from (select id, namespace, wake_at, \
           row_number() over (partition by namespace order by wake_at, id) as place from (\
             (select id, namespace, wake_at from runs where wake_at <= $1 order by wake_at limit $2) union \
             (select id, namespace, wake_at from runs where wake_at <= $1 order by wake_at desc limit $2)) d) p \
         order by place, wake_at limit $3",
    )
    .bind(Moment(now))
    .bind(looked_at)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    owned(&rows)
}

/// Takes charge of those of `runs` that are parked and due at `now`.
pub(crate) async fn wake_these(
    connection: &mut PgConnection,
    node: i32,
    now: Time,
    runs: &[Uuid],
) -> Result<Vec<Owned>, sqlx::Error> {
    let rows = sqlx::query(
        "-- runs_wake_these\n\
         update runs set node = $1, wake_at = null where id in (select id from runs where id = any($3) \
           and wake_at <= $2 order by id for update skip locked) returning id, namespace",
    )
    .bind(node)
    .bind(Moment(now))
    .bind(runs)
    .fetch_all(connection)
    .await?;
    owned(&rows)
}

/// Lists runs of the dead nodes `gone`, at most `limit`: namespaces take turns. Examines no more than `looked_at`.
pub(crate) async fn of_nodes(
    connection: &mut PgConnection,
    gone: &[i32],
    (looked_at, limit): (i64, i64),
) -> Result<Vec<Owned>, sqlx::Error> {
    let rows = sqlx::query(
        "-- runs_of_nodes\n\
         select id, namespace from (select id, namespace, row_number() over (partition by namespace order by id) as place \
           from (select id, namespace from runs where node = any($1) limit $2) d) p order by place, id limit $3",
    )
    .bind(gone)
    .bind(looked_at)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    owned(&rows)
}

/// Takes charge of those of `runs` that the dead nodes `gone` are in charge of.
pub(crate) async fn take_over_these(
    connection: &mut PgConnection,
    node: i32,
    gone: &[i32],
    runs: &[Uuid],
) -> Result<Vec<Owned>, sqlx::Error> {
    let rows = sqlx::query(
        "-- runs_take_over_these\n\
         update runs set node = $1 where id in (select id from runs where id = any($3) and node = any($2) \
           order by id for update skip locked) returning id, namespace",
    )
    .bind(node)
    .bind(gone)
    .bind(runs)
    .fetch_all(connection)
    .await?;
    owned(&rows)
}

/// Lists the runs that `node` is in charge of.
pub(crate) async fn in_charge(
    connection: &mut PgConnection,
    node: i32,
) -> Result<Vec<Owned>, sqlx::Error> {
    let rows = sqlx::query("-- runs_of_node\nselect id, namespace from runs where node = $1")
        .bind(node)
        .fetch_all(connection)
        .await?;
    owned(&rows)
}

/// Reads runs and their namespaces.
pub(super) fn owned(rows: &[PgRow]) -> Result<Vec<Owned>, sqlx::Error> {
    rows.iter().map(|row| Ok((RunId(row.try_get(0)?), row.try_get(1)?))).collect()
}

/// Returns the namespace of a run and whether it has ended.
pub(crate) async fn ended(
    connection: &mut PgConnection,
    run: RunId,
) -> Result<Option<(String, bool)>, sqlx::Error> {
    let row =
        sqlx::query("-- runs_ended\nselect namespace, state = 'ended' from runs where id = $1")
            .bind(run.0)
            .fetch_optional(connection)
            .await?;
    row.map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).transpose()
}

/// Returns those of `runs` that have ended.
pub(crate) async fn ended_of(
    connection: &mut PgConnection,
    runs: &[RunId],
) -> Result<Vec<RunId>, sqlx::Error> {
    let ids: Vec<Uuid> = runs.iter().map(|run| run.0).collect();
    let ended: Vec<Uuid> = sqlx::query_scalar(
        "-- runs_ended_of\n\
         select w.id from unnest($1::uuid[]) as w(id) cross join lateral (\
           select from runs r where r.id = w.id and r.state = 'ended' limit 1) r",
    )
    .bind(ids)
    .fetch_all(connection)
    .await?;
    Ok(ended.into_iter().map(RunId).collect())
}

/// Returns the state of a run.
pub(crate) async fn state(
    connection: &mut PgConnection,
    run: RunId,
) -> Result<Option<State>, sqlx::Error> {
    let word: Option<String> =
        sqlx::query_scalar("-- runs_state\nselect state from runs where id = $1")
            .bind(run.0)
            .fetch_optional(connection)
            .await?;
    Ok(word.and_then(|word| state_of(&word)))
}

/// Adds the conditions of `filter` on a run `r` of `namespace`. `lead` is the time by which the id of a run may be
/// ahead of its start, so that the index of ids serves; `None` if no run may be missed.
pub(crate) fn push_filter(
    query: &mut QueryBuilder<Postgres>,
    namespace: &str,
    filter: &RunFilter,
    lead: Option<Span>,
) {
    if let Some(workflow) = &filter.workflow {
        query.push(" and r.workflow = ").push_bind(workflow.clone());
    }
    if let Some(state) = filter.state {
        // Spelt so that the index of active runs can serve.
        if state != State::Ended {
            query.push(" and r.state <> 'ended'");
        }
        query.push(" and r.state = ").push_bind(state.as_str());
    }
    if let Some(outcome) = filter.outcome {
        query.push(" and r.outcome = ").push_bind(outcome.as_str());
    }
    if let Some(key) = &filter.key {
        query.push(" and r.id in (select k.run_id from run_keys k where k.namespace = ");
        query.push_bind(namespace.to_owned());
        query.push(" and k.key = ").push_bind(key.clone()).push(")");
    }
    if let Some(id) = &filter.correlation_id {
        // A run that was given none has its own id.
        query.push(" and (r.correlation_id = ").push_bind(id.clone());
        let own: Option<Uuid> = id.parse().ok();
        if let Some(own) = own {
            query.push(" or (r.correlation_id is null and r.id = ").push_bind(own).push(")");
        }
        query.push(")");
    }
    let unknown_in = filter.unknown_in.as_ref().map(|queue| unknown_in(queue));
    let asked_of = filter.assignee.as_ref().map(|who| asked_of(who));
    for condition in filter.condition.iter().chain(&unknown_in).chain(&asked_of) {
        // Spelt so that the index of runs with conditions can serve.
        query.push(" and r.conditions <> '{}' and r.conditions @> array[");
        query.push_bind(condition.clone()).push("]");
    }
    if let Some(incident) = filter.incident {
        query.push(if incident {
            " and r.conditions <> '{}' and r.conditions @> array['IncidentOpen']"
        } else {
            " and not r.conditions @> array['IncidentOpen']"
        });
    }
    if !filter.labels.is_empty() {
        let labels: BTreeMap<_, _> = filter.labels.iter().cloned().collect();
        let labels = serde_json::to_string(&labels).unwrap_or_default();
        query.push(" and r.labels @> ").push_bind(labels).push("::jsonb");
    }
    push_times(query, filter, lead);
}

/// The same for the times. A run's id shows when it was requested: it may begin much later (a child, a start in a
/// transaction that stayed open), but earlier only if the clock that made the id was ahead.
fn push_times(query: &mut QueryBuilder<Postgres>, filter: &RunFilter, lead: Option<Span>) {
    if let Some(Timestamp(from)) = filter.started_from {
        query.push(" and r.started_at >= ").push_bind(Moment(from));
    }
    if let Some(Timestamp(to)) = filter.started_to {
        query.push(" and r.started_at < ").push_bind(Moment(to));
        if let Some(lead) = lead {
            query.push(" and r.id < ").push_bind(first_id(to.after(lead)));
        }
    }
    if let Some(Timestamp(from)) = filter.ended_from {
        query.push(" and r.ended_at >= ").push_bind(Moment(from));
    }
    if let Some(Timestamp(to)) = filter.ended_to {
        query.push(" and r.ended_at < ").push_bind(Moment(to));
    }
}

/// Returns the mark of a run with a step that may have happened in the system behind `queue`.
pub(crate) fn unknown_in(queue: &str) -> String {
    format!("{UNKNOWN_IN}{queue}")
}

const UNKNOWN_IN: &str = "StepUnknown:";

/// Returns the mark of a run that asks `who` for a signal. Conditions are joined with commas, and an entry of the index
/// has a limit, so that long names are distinguished by their beginning only.
pub(crate) fn asked_of(who: &str) -> String {
    let mut mark = ASKED_OF.to_owned();
    for c in who.chars().take(MARKED) {
        match c {
            ',' | '%' | '\0' => mark += &format!("%{:02x}", u32::from(c)),
            c => mark.push(c),
        }
    }
    mark
}

const ASKED_OF: &str = "SignalAwaited:";
/// So many characters of a name are marked.
const MARKED: usize = 200;

pub(super) fn run_line(row: &PgRow) -> Result<RunLine, sqlx::Error> {
    let id: Uuid = row.try_get(0)?;
    let labels: Option<String> = row.try_get(5)?;
    let labels = labels.map(|text| serde_json::from_str(&text)).transpose();
    let version: i32 = row.try_get(2)?;
    let correlation_id: Option<String> = row.try_get(4)?;
    let Moment(started_at) = row.try_get(9)?;
    let ended_at: Option<Moment> = row.try_get(10)?;
    let outcome: Option<String> = row.try_get(7)?;
    let mut conditions: Vec<String> = row.try_get(8)?;
    conditions
        .retain(|condition| !condition.starts_with(UNKNOWN_IN) && !condition.starts_with(ASKED_OF));
    Ok(RunLine {
        id: RunId(id),
        workflow: row.try_get(1)?,
        version: u32::try_from(version).unwrap_or_default(),
        key: row.try_get(3)?,
        correlation_id: correlation_id.unwrap_or_else(|| id.to_string()),
        labels: labels
            .map_err(|error| bad_row(id, "labels", &error.to_string()))?
            .unwrap_or_default(),
        state: state_of(row.try_get(6)?).ok_or_else(|| bad_row(id, "state", "not a state"))?,
        outcome: outcome
            .map(|word| outcome_of(&word).ok_or_else(|| bad_row(id, "outcome", "not an outcome")))
            .transpose()?,
        conditions,
        started_at: Timestamp(started_at),
        ended_at: ended_at.map(|Moment(at)| Timestamp(at)),
    })
}

fn bad_row(id: Uuid, column: &str, detail: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("table runs, id {id}, column {column}: {detail}").into())
}

pub(super) fn state_of(word: &str) -> Option<State> {
    use State::{Compensating, CompensationBlocked, Ended, Paused, Queued, Running, Waiting};
    [Queued, Waiting, Running, Paused, Compensating, CompensationBlocked, Ended]
        .into_iter()
        .find(|state| state.as_str() == word)
}

pub(super) fn outcome_of(word: &str) -> Option<Outcome> {
    use Outcome::{
        Cancelled, Compensated, CompensatedWithManualSteps, FailedClean, FailedDirty,
        PartiallyCompleted, Succeeded,
    };
    [
        Succeeded,
        PartiallyCompleted,
        FailedClean,
        FailedDirty,
        Compensated,
        CompensatedWithManualSteps,
        Cancelled,
    ]
    .into_iter()
    .find(|outcome| outcome.as_str() == word)
}

/// Returns the workflow of a run.
pub(crate) async fn workflow_of(
    connection: &mut PgConnection,
    namespace: &str,
    run: RunId,
) -> Result<Option<String>, sqlx::Error> {
    sqlx::query_scalar(
        "-- runs_workflow_of\nselect workflow from runs where namespace = $1 and id = $2",
    )
    .bind(namespace)
    .bind(run.0)
    .fetch_optional(connection)
    .await
}
