//! Acts of people: on runs in the table `acts`, written with the records that hold them, and on all else
//! in `acts_beside_runs`.

use backstitch_saga::protocol::{ActFilter, ActLine};
use backstitch_saga::{By, Payload, RunId, Time, Timestamp};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query_builder::QueryBuilder;
use uuid::Uuid;

use super::batch::{part, printable};
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

/// Returns all acts on `runs`, in order.
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

/// Rewrites the acts of one run.
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

/// The end of a page of acts: instant, run, record, place.
pub(crate) type ActPlace = (Time, RunId, i32, i32);

/// Objects other than runs that people act on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Thing {
    Workflow,
    Queue,
    Schedule,
    Job,
    /// The subject of a fact.
    Subject,
    Credential,
    /// A role of the database, and what it was granted.
    DatabaseRole,
    /// The quotas of the namespace.
    Quotas,
    /// A contract, by its subject.
    Contract,
    Subscription,
    Source,
}

impl Thing {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Thing::Workflow => "workflow",
            Thing::Queue => "queue",
            Thing::Schedule => "schedule",
            Thing::Job => "job",
            Thing::Subject => "subject",
            Thing::Credential => "credential",
            Thing::DatabaseRole => "database_role",
            Thing::Quotas => "quotas",
            Thing::Contract => "contract",
            Thing::Subscription => "subscription",
            Thing::Source => "source",
        }
    }
}

/// An act of a person on something that is no run.
#[derive(Clone, Debug)]
pub(crate) struct Act<'a> {
    pub(crate) namespace: &'a str,
    pub(crate) thing: Thing,
    pub(crate) name: &'a str,
    pub(crate) at: Time,
    pub(crate) verb: &'static str,
    pub(crate) by: &'a By,
    /// The document of the act, as JSON.
    pub(crate) detail: Option<String>,
}

/// Writes down an act, in the transaction that does it.
pub(crate) async fn add(connection: &mut PgConnection, act: &Act<'_>) -> Result<(), sqlx::Error> {
    debug_assert!(ActFilter::VERBS.contains(&act.verb), "the audit must know '{}'", act.verb);
    sqlx::query(
        "-- acts_add\n\
         insert into acts_beside_runs (namespace, at, kind, name, actor, verb, reason, detail) \
         values ($1, $2, $3, $4, $5, $6, $7, $8)",
    )
    .bind(act.namespace)
    .bind(Moment(act.at))
    .bind(act.thing.as_str())
    .bind(act.name)
    .bind(printable(&act.by.actor))
    .bind(act.verb)
    .bind(printable(&act.by.reason))
    .bind(&act.detail)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the objects other than a run that a filter names.
fn things(filter: &ActFilter) -> Vec<(Thing, &str)> {
    let named = [
        (Thing::Workflow, &filter.workflow),
        (Thing::Queue, &filter.queue),
        (Thing::Schedule, &filter.schedule),
        (Thing::Job, &filter.job),
        (Thing::Subject, &filter.subject),
        (Thing::Credential, &filter.credential),
        (Thing::DatabaseRole, &filter.database_role),
        (Thing::Contract, &filter.contract),
        (Thing::Subscription, &filter.subscription),
        (Thing::Source, &filter.source),
    ];
    named.into_iter().filter_map(|(thing, name)| Some((thing, name.as_deref()?))).collect()
}

/// Acts of a namespace, newest first, before the place `before`. Those beside runs have the nil run and their number in
/// the place of a record's.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    filter: &ActFilter,
    before: Option<ActPlace>,
    (limit, bytes): (i64, i64),
) -> Result<Vec<(ActPlace, ActLine)>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new(
        "-- acts_list\n\
         select * from (select *, coalesce(sum(octet_length(detail)) over (order by at desc, run_id desc, seq desc, \
         place desc), 0) - coalesce(octet_length(detail), 0) as before from (select * from (",
    );
    let things = things(filter);
    let of_runs = things.iter().all(|(thing, _)| *thing == Thing::Workflow);
    let beside_runs = filter.run.is_none() && things.len() < 2;
    if !of_runs && !beside_runs {
        return Ok(Vec::new());
    }
    if of_runs {
        query.push(
            "(select run_id, seq, place, at, actor, verb, step, reason, workflow, 'run' as kind, '' as name, \
             null::text as detail from acts where namespace = ",
        );
        query.push_bind(namespace);
        if let Some(run) = filter.run {
            query.push(" and run_id = ").push_bind(run.0);
        }
        if let Some(workflow) = &filter.workflow {
            query.push(" and workflow = ").push_bind(workflow);
        }
        push_common(&mut query, filter, before, "run_id, seq, place");
        query.push(" order by at desc, run_id desc, seq desc, place desc limit ");
        query.push_bind(limit).push(")");
    }
    if of_runs && beside_runs {
        query.push(" union all ");
    }
    if beside_runs {
        query.push("(select ").push_bind(Uuid::nil());
        query.push(
            " as run_id, id as seq, 0 as place, at, actor, verb, null as step, reason, '' as workflow, kind, name, \
             detail from acts_beside_runs where namespace = ",
        );
        query.push_bind(namespace);
        if let Some((thing, name)) = things.first() {
            query.push(" and kind = ").push_bind(thing.as_str());
            query.push(" and name = ").push_bind(*name);
        }
        push_common(
            &mut query,
            filter,
            before,
            "'00000000-0000-0000-0000-000000000000'::uuid, id, 0",
        );
        query.push(" order by at desc, id desc limit ").push_bind(limit).push(")");
    }
    query
        .push(") acts order by at desc, run_id desc, seq desc, place desc limit ")
        .push_bind(limit);
    // No more after those whose details have as many bytes as an answer may have.
    query.push(") acts) acts where before < ").push_bind(bytes);
    query.push(" order by at desc, run_id desc, seq desc, place desc");
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(act_line).collect()
}

/// Adds the conditions that hold for both tables; `place` is the position of a row among those of
/// one instant.
fn push_common(
    query: &mut QueryBuilder<Postgres>,
    filter: &ActFilter,
    before: Option<ActPlace>,
    place: &str,
) {
    if let Some(actor) = &filter.actor {
        query.push(" and actor = ").push_bind(actor);
    }
    if let Some(verb) = &filter.verb {
        query.push(" and verb = ").push_bind(verb);
    }
    if let Some(from) = filter.from {
        query.push(" and at >= ").push_bind(Moment(from.0));
    }
    if let Some(to) = filter.to {
        query.push(" and at < ").push_bind(Moment(to.0));
    }
    if let Some((at, run, seq, number)) = before {
        query.push(" and at <= ").push_bind(Moment(at));
        query.push(" and (at, ").push(place).push(") < (").push_bind(Moment(at));
        query.push(", ").push_bind(run.0).push(", ").push_bind(seq);
        query.push(", ").push_bind(number).push(")");
    }
}

fn act_line(row: &PgRow) -> Result<(ActPlace, ActLine), sqlx::Error> {
    let run = RunId(row.try_get(0)?);
    let (seq, place): (i32, i32) = (row.try_get(1)?, row.try_get(2)?);
    let Moment(at) = row.try_get(3)?;
    let (kind, name): (String, String) = (row.try_get(9)?, row.try_get(10)?);
    let named = |thing: Thing| (kind == thing.as_str()).then(|| name.clone());
    let is_run = kind == "run";
    let detail: Option<String> = row.try_get(11)?;
    let detail = detail.map(Payload::trusted).transpose();
    let line = ActLine {
        run: is_run.then_some(run),
        seq: is_run.then(|| u64::try_from(seq).unwrap_or_default()),
        workflow: if is_run { Some(row.try_get(8)?) } else { named(Thing::Workflow) },
        queue: named(Thing::Queue),
        schedule: named(Thing::Schedule),
        job: named(Thing::Job),
        subject: named(Thing::Subject),
        credential: named(Thing::Credential),
        database_role: named(Thing::DatabaseRole),
        contract: named(Thing::Contract),
        subscription: named(Thing::Subscription),
        source: named(Thing::Source),
        at: Timestamp(at),
        actor: row.try_get(4)?,
        verb: row.try_get(5)?,
        step: row.try_get(6)?,
        reason: row.try_get(7)?,
        detail: detail.map_err(|error| sqlx::Error::Decode(error.into()))?,
    };
    Ok(((at, run, seq, place), line))
}

/// Returns whether somebody acted on a run since `since`, with this reason.
pub(crate) async fn was_done(
    connection: &mut PgConnection,
    run: RunId,
    verb: &str,
    by: &By,
    since: Time,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(
        "-- acts_was_done\n\
         select exists (select 1 from acts where run_id = $1 and verb = $2 and actor = $3 and reason = $4 and at >= $5)",
    )
    .bind(run.0)
    .bind(verb)
    .bind(printable(&by.actor))
    .bind(printable(&by.reason))
    .bind(Moment(since))
    .fetch_one(connection)
    .await
}
