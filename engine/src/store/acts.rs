//! The table `acts`: what people did to runs. Written with the records that say so.

use backstitch_saga::protocol::ActLine;
use backstitch_saga::{RunId, Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query_builder::QueryBuilder;
use uuid::Uuid;

use super::batch::part;
use super::moment::Moment;

part!(
    /// Acts of people.
    Acts {
        run_id: Uuid,
        seq: i32,
        place: i32,
        namespace: String,
        workflow: String,
        at: Moment,
        actor: String,
        verb: &'static str,
        step: Option<String>,
        reason: String,
    }
);

/// A line of `acts`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct ActRow {
    pub(crate) seq: i32,
    pub(crate) place: i32,
    pub(crate) at: Time,
    pub(crate) actor: String,
    pub(crate) verb: String,
    pub(crate) step: Option<String>,
    pub(crate) reason: String,
}

/// All acts on `runs`, in order.
pub(crate) async fn of_runs(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<Vec<(RunId, ActRow)>, sqlx::Error> {
    let rows = sqlx::query(
        "-- acts_of_runs\n\
         select run_id, seq, place, at, actor, verb, step, reason from acts \
         where run_id = any($1) order by run_id, seq, place",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    rows.iter()
        .map(|row| {
            let Moment(at) = row.try_get(3)?;
            let act = ActRow {
                seq: row.try_get(1)?,
                place: row.try_get(2)?,
                at,
                actor: row.try_get(4)?,
                verb: row.try_get(5)?,
                step: row.try_get(6)?,
                reason: row.try_get(7)?,
            };
            Ok((RunId(row.try_get(0)?), act))
        })
        .collect()
}

/// Writes the acts of one run anew.
pub(crate) async fn insert(
    connection: &mut PgConnection,
    run: RunId,
    (namespace, workflow): (&str, &str),
    acts: &[ActRow],
) -> Result<(), sqlx::Error> {
    for act in acts {
        sqlx::query(
            "-- acts_insert\n\
             insert into acts (run_id, seq, place, namespace, workflow, at, actor, verb, step, reason) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10)",
        )
        .bind(run.0)
        .bind(act.seq)
        .bind(act.place)
        .bind(namespace)
        .bind(workflow)
        .bind(Moment(act.at))
        .bind(&act.actor)
        .bind(&act.verb)
        .bind(&act.step)
        .bind(&act.reason)
        .execute(&mut *connection)
        .await?;
    }
    Ok(())
}

/// Where a page of acts ends: instant, run, record, place.
pub(crate) type ActPlace = (Time, RunId, i32, i32);

/// Which acts to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActFilter<'a> {
    pub(crate) actor: Option<&'a str>,
    pub(crate) run: Option<RunId>,
    pub(crate) verb: Option<&'a str>,
    pub(crate) from: Option<Time>,
    pub(crate) to: Option<Time>,
}

/// Acts of a namespace, newest first, before the place `before`.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    filter: &ActFilter<'_>,
    before: Option<ActPlace>,
    limit: i64,
) -> Result<Vec<(ActPlace, ActLine)>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(
        "-- acts_list\n\
         select run_id, seq, place, at, actor, verb, step, reason, workflow from acts where namespace = ",
    );
    query.push_bind(namespace);
    if let Some(actor) = filter.actor {
        query.push(" and actor = ").push_bind(actor);
    }
    if let Some(run) = filter.run {
        query.push(" and run_id = ").push_bind(run.0);
    }
    if let Some(verb) = filter.verb {
        query.push(" and verb = ").push_bind(verb);
    }
    if let Some(from) = filter.from {
        query.push(" and at >= ").push_bind(Moment(from));
    }
    if let Some(to) = filter.to {
        query.push(" and at < ").push_bind(Moment(to));
    }
    if let Some((at, run, seq, place)) = before {
        query.push(" and (at, run_id, seq, place) < (").push_bind(Moment(at));
        query.push(", ").push_bind(run.0).push(", ").push_bind(seq);
        query.push(", ").push_bind(place).push(")");
    }
    query.push(" order by at desc, run_id desc, seq desc, place desc limit ").push_bind(limit);
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(act_line).collect()
}

fn act_line(row: &PgRow) -> Result<(ActPlace, ActLine), sqlx::Error> {
    let run = RunId(row.try_get(0)?);
    let (seq, place): (i32, i32) = (row.try_get(1)?, row.try_get(2)?);
    let Moment(at) = row.try_get(3)?;
    let line = ActLine {
        run,
        workflow: row.try_get(8)?,
        seq: u64::try_from(seq).unwrap_or_default(),
        at: Timestamp(at),
        actor: row.try_get(4)?,
        verb: row.try_get(5)?,
        step: row.try_get(6)?,
        reason: row.try_get(7)?,
    };
    Ok(((at, run, seq, place), line))
}

/// Whether somebody did something to a run since `since`, for that very reason.
pub(crate) async fn was_done(
    connection: &mut PgConnection,
    run: RunId,
    verb: &str,
    by: &backstitch_saga::By,
    since: Time,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "-- acts_was_done\n\
         select exists (select 1 from acts where run_id = $1 and verb = $2 and actor = $3 and reason = $4 and at >= $5)",
    )
    .bind(run.0)
    .bind(verb)
    .bind(super::batch::printable(&by.actor))
    .bind(super::batch::printable(&by.reason))
    .bind(Moment(since))
    .fetch_one(connection)
    .await
}
