//! The tables `jobs` and `job_items`: one verb on many items, and their results.
//!
//! The counts on a job change only in the statement that changes its items, so that they always sum up.

use backstitch_saga::protocol::{
    IncidentId, ItemState, JobItem, JobProgress, JobState, JobView, NewJob,
};
use backstitch_saga::{IncidentKind, RunId, Time, Timestamp};
use sqlx::postgres::{PgConnection, PgRow, Postgres};
use sqlx::query_builder::QueryBuilder;
use sqlx::{Connection, Row};
use uuid::Uuid;

use super::acts::{self, Act};
use super::moment::Moment;
use super::nodes::is_gone;
use super::spaces::{Found, Waiting, share};

mod items;
mod many;

pub(crate) use items::items;
use many::push_many;
pub(crate) use many::{Many, plan};

/// A job as its node needs it.
#[derive(Clone, Debug)]
pub(crate) struct JobRow {
    pub(crate) namespace: String,
    pub(crate) view: JobView,
    /// Time until which the acts made are paid for by the rate.
    pub(crate) next_at: Time,
    /// Time by which the canary must have proven itself; none before all of it were acted on.
    pub(crate) canary_until: Option<Time>,
}

/// One of a job, as its node needs it.
#[derive(Clone, Debug)]
pub(crate) struct ItemRow {
    pub(crate) position: i32,
    pub(crate) run: RunId,
    pub(crate) incident: Option<u32>,
    /// The incident's step.
    pub(crate) step: Option<String>,
    pub(crate) acted_at: Option<Time>,
}

/// Result for one item.
#[derive(Clone, Debug)]
pub(crate) struct ItemResult {
    pub(crate) position: i32,
    pub(crate) acted_at: Time,
    pub(crate) state: ItemState,
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
}

const COLUMNS: &str = "id, namespace, asked, state, why, actor, created_at, ended_at, total, done, came_back, refused, \
    next_at, canary_until";

/// Creates a job with all its items. Returns their number; more than `most` are too many, and nothing is written. The
/// same id twice is one job.
pub(crate) async fn create(
    connection: &mut PgConnection,
    namespace: &str,
    job: &JobView,
    many: &Many,
    most: i64,
    act: &Act<'_>,
) -> Result<i64, sqlx::Error> {
    let mut transaction = connection.begin().await?;
    let made = sqlx::query(
        "-- jobs_create\n\
         insert into jobs (id, namespace, asked, state, actor, created_at, next_at, proven) \
         values ($1, $2, $3, $4, $5, $6, $6, $4 = 'running') on conflict (id) do nothing",
    )
    .bind(job.id)
    .bind(namespace)
    .bind(&act.detail)
    .bind(job.state.as_str())
    .bind(&job.actor)
    .bind(Moment(job.created_at.0))
    .execute(&mut *transaction)
    .await?;
    if made.rows_affected() == 0 {
        return Ok(0);
    }
    let mut query = QueryBuilder::<Postgres>::new(
        "-- job_items_create\n\
         insert into job_items (job_id, position, namespace, run_id, incident, fingerprint) select ",
    );
    query.push_bind(job.id).push(", m.position, ").push_bind(namespace);
    query.push(", m.run_id, m.incident, m.fingerprint from (");
    push_many(&mut query, namespace, many, job.created_at.0);
    query.push(") m where m.position <= ").push_bind(most + 1);
    let made = query.build().execute(&mut *transaction).await?.rows_affected();
    let total = i64::try_from(made).unwrap_or(i64::MAX);
    if total > most {
        transaction.rollback().await?;
        return Ok(total);
    }
    sqlx::query("-- jobs_total\nupdate jobs set total = $2 where id = $1")
        .bind(job.id)
        .bind(i32::try_from(total).unwrap_or(i32::MAX))
        .execute(&mut *transaction)
        .await?;
    acts::add(&mut transaction, act).await?;
    transaction.commit().await?;
    Ok(total)
}

/// Lists jobs of a namespace, newest first, before the job `before`.
pub(crate) async fn list(
    connection: &mut PgConnection,
    namespace: &str,
    state: Option<JobState>,
    before: Option<Uuid>,
    limit: i64,
) -> Result<Vec<JobView>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- jobs_list\nselect ");
    query.push(COLUMNS).push(" from jobs where namespace = ").push_bind(namespace);
    if let Some(state) = state {
        query.push(" and state = ").push_bind(state.as_str());
    }
    if let Some(before) = before {
        query.push(" and id < ").push_bind(before);
    }
    query.push(" order by id desc limit ").push_bind(limit);
    let rows = query.build().fetch_all(connection).await?;
    rows.iter().map(|row| Ok(job(row, 0)?.view)).collect()
}

/// Returns one job.
pub(crate) async fn find(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
) -> Result<Option<JobView>, sqlx::Error> {
    let mut query = QueryBuilder::<Postgres>::new("-- jobs_find\nselect ");
    query.push(COLUMNS).push(" from jobs where namespace = ").push_bind(namespace);
    query.push(" and id = ").push_bind(id);
    let row = query.build().fetch_optional(connection).await?;
    row.map(|row| Ok(job(&row, 0)?.view)).transpose()
}

/// A job that a node has taken.
#[derive(Debug)]
pub(crate) struct Claimed {
    pub(crate) id: Uuid,
    pub(crate) namespace: String,
    /// Number of times that it was taken since it was last given back.
    pub(crate) tries: i32,
    pub(crate) job: Result<JobRow, sqlx::Error>,
}

/// Jobs that move, by namespace.
const WAITING: Waiting = Waiting {
    table: "jobs",
    when: "state in ('canary', 'running')",
    by: "next_at",
    due: "first <= $3",
    spaces: 8,
};

/// Returns the statement `jobs_claim`.
pub(crate) fn jobs_claim() -> String {
    format!(
        "-- jobs_claim\n{}, \
         picked as (select p.due_id, p.paid_until from due d cross join lateral (\
           select j.id as due_id, j.next_at as paid_until from jobs j where j.namespace = d.namespace \
           and j.state in ('canary', 'running') and j.next_at <= $3 and (j.leased_until is null or j.leased_until < $3 or {}) \
           order by j.next_at limit {} for update skip locked) p), \
         taken as (update jobs set node = $2, leased_until = $5, next_at = $6, tries = tries + 1 \
           from picked where id = due_id returning {COLUMNS}, paid_until, tries) \
         select t.last, {COLUMNS}, paid_until, tries from turn t left join taken on true",
        WAITING.due_spaces(),
        is_gone("j.node", "$4"),
        share("$7"),
    )
}

/// Takes jobs that are due and that no other node works on, in turns between the namespaces after `after`. Jobs of a
/// dead node are free immediately. Until `until.1` none of them is due again: should this node die, its acts are paid
/// for. A row that cannot be read does not delay the others. The try is counted before it is made.
pub(crate) async fn claim(
    connection: &mut PgConnection,
    (node, dead_after_ms): (i32, i64),
    now: Time,
    until: (Time, Time),
    limit: i64,
    after: &str,
) -> Result<Found<Claimed>, sqlx::Error> {
    let rows = sqlx::query(sqlx::AssertSqlSafe(jobs_claim()))
        .bind(after)
        .bind(node)
        .bind(Moment(now))
        .bind(dead_after_ms)
        .bind(Moment(until.0))
        .bind(Moment(until.1))
        .bind(limit)
        .fetch_all(connection)
        .await?;
    let claimed = |row: &PgRow| {
        let Moment(next_at) = row.try_get(15)?;
        let job = job(row, 1)?;
        match job.view.damaged {
            Some(why) => Err(sqlx::Error::Decode(why.into())),
            None => Ok(JobRow { next_at, ..job }),
        }
    };
    Found::read(&rows, |row| {
        let (id, namespace, tries) = (row.try_get(1)?, row.try_get(2)?, row.try_get(16)?);
        Ok(Claimed { id, namespace, tries, job: claimed(row) })
    })
}

/// Returns the next of a job.
pub(crate) async fn waiting(
    connection: &mut PgConnection,
    id: Uuid,
    limit: i64,
) -> Result<Vec<ItemRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- job_items_waiting\n\
         select position, run_id, incident, null::text, acted_at from job_items \
         where job_id = $1 and state = 'waiting' order by position limit $2",
    )
    .bind(id)
    .bind(limit)
    .fetch_all(connection)
    .await?;
    rows.iter().map(item_row).collect()
}

/// Returns the first `first` of a job that were acted on and have not come back.
pub(crate) async fn canary(
    connection: &mut PgConnection,
    id: Uuid,
    first: u32,
) -> Result<Vec<ItemRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- job_items_canary\n\
         select t.position, t.run_id, t.incident, i.step, t.acted_at from job_items t \
         left join incidents i on i.run_id = t.run_id and i.incident = t.incident \
         where t.job_id = $1 and t.position <= $2 and t.state = 'done' order by t.position",
    )
    .bind(id)
    .bind(i32::try_from(first).unwrap_or(i32::MAX))
    .fetch_all(connection)
    .await?;
    rows.iter().map(item_row).collect()
}

/// Records results of items.
pub(crate) async fn record(
    connection: &mut PgConnection,
    id: Uuid,
    results: &[ItemResult],
) -> Result<(), sqlx::Error> {
    let positions: Vec<i32> = results.iter().map(|one| one.position).collect();
    let times: Vec<Moment> = results.iter().map(|one| Moment(one.acted_at)).collect();
    let states: Vec<&str> = results.iter().map(|one| one.state.as_str()).collect();
    let codes: Vec<Option<&str>> = results.iter().map(|one| one.code.as_deref()).collect();
    let messages: Vec<Option<String>> =
        results.iter().map(|one| one.message.as_deref().map(super::batch::printable)).collect();
    sqlx::query(
        "-- jobs_record\n\
         with written as (update job_items t set state = x.state, code = x.code, message = x.message, acted_at = x.at \
           from unnest($2::timestamptz[], $3::integer[], $4::text[], $5::text[], $6::text[]) \
             as x(at, position, state, code, message) \
           where t.job_id = $1 and t.position = x.position and t.state = 'waiting' returning t.state) \
         update jobs set done = done + (select count(*) from written where state = 'done'), \
         refused = refused + (select count(*) from written where state = 'refused') where id = $1",
    )
    .bind(id)
    .bind(times)
    .bind(positions)
    .bind(states)
    .bind(codes)
    .bind(messages)
    .execute(connection)
    .await?;
    Ok(())
}

/// Finds those acted on whose trouble has come back, at the same step or item, and says so. Looks at incidents that
/// opened since the job began, so that it costs by what came back and not by what was done. Incidents of the kind
/// `wanted` are what the job was to bring about. Returns the counts of the job after that.
pub(crate) async fn came_back(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
    (since, wanted): (Time, Option<IncidentKind>),
) -> Result<JobProgress, sqlx::Error> {
    let row = sqlx::query(
        "-- jobs_came_back\n\
         with back as (select distinct t.position from incidents i \
           join job_items t on t.job_id = $1 and t.run_id = i.run_id \
           left join incidents o on o.run_id = t.run_id and o.incident = t.incident \
           where i.namespace = $2 and i.resolved_at is null and i.opened_at >= $3 and t.state = 'done' \
           and i.incident > coalesce(t.incident, 0) and (t.incident is not null or i.opened_at >= t.acted_at) \
           and (t.fingerprint is null or t.fingerprint = i.fingerprint) and i.kind is distinct from $4 \
           and (o.run_id is null or o.step is not distinct from i.step)), \
         written as (update job_items t set state = 'came_back' from back b \
           where t.job_id = $1 and t.position = b.position and t.state = 'done' returning 1) \
         update jobs set came_back = came_back + (select count(*) from written), \
         done = done - (select count(*) from written) where id = $1 \
         returning total, done, came_back, refused",
    )
    .bind(id)
    .bind(namespace)
    .bind(Moment(since))
    .bind(wanted.map(IncidentKind::as_str))
    .fetch_one(connection)
    .await?;
    progress(&row, 0)
}

/// A change of state of a job.
#[derive(Clone, Debug)]
pub(crate) struct Turn<'a> {
    pub(crate) from: &'a [JobState],
    pub(crate) to: JobState,
    pub(crate) why: Option<&'a str>,
    pub(crate) at: Time,
}

/// Changes the state of a job, if it has the expected one. Returns whether it did.
pub(crate) async fn turn(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
    turn: &Turn<'_>,
) -> Result<bool, sqlx::Error> {
    let from: Vec<&str> = turn.from.iter().map(|state| state.as_str()).collect();
    let ends = matches!(turn.to, JobState::Stopped | JobState::Done);
    let done = sqlx::query(
        "-- jobs_turn\n\
         update jobs set state = $3, why = $4, ended_at = $5, \
         next_at = case when state = 'paused' then $6 else next_at end \
         where id = $1 and namespace = $2 and state = any($7)",
    )
    .bind(id)
    .bind(namespace)
    .bind(turn.to.as_str())
    .bind(turn.why.map(super::batch::printable))
    .bind(ends.then_some(Moment(turn.at)))
    .bind(Moment(turn.at))
    .bind(from)
    .execute(connection)
    .await?;
    Ok(done.rows_affected() == 1)
}

/// Notes that the canary of a job is behind it.
pub(crate) async fn prove(connection: &mut PgConnection, id: Uuid) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- jobs_prove\nupdate jobs set proven = true, state = 'running' where id = $1 and state = 'canary'",
    )
    .bind(id)
    .execute(connection)
    .await?;
    Ok(())
}

/// Returns the state in which a paused job goes on.
pub(crate) async fn resumes_as(
    connection: &mut PgConnection,
    namespace: &str,
    id: Uuid,
) -> Result<Option<JobState>, sqlx::Error> {
    let proven: Option<bool> = sqlx::query_scalar(
        "-- jobs_proven\nselect proven from jobs where id = $1 and namespace = $2",
    )
    .bind(id)
    .bind(namespace)
    .fetch_optional(connection)
    .await?;
    Ok(proven.map(|proven| if proven { JobState::Running } else { JobState::Canary }))
}

/// Gives a job back, to be continued at `next_at`.
pub(crate) async fn give_back(
    connection: &mut PgConnection,
    id: Uuid,
    node: i32,
    next_at: Time,
    canary_until: Option<Time>,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- jobs_give_back\n\
         update jobs set leased_until = null, next_at = $3, canary_until = $4, tries = 0 where id = $1 and node = $2",
    )
    .bind(id)
    .bind(node)
    .bind(Moment(next_at))
    .bind(canary_until.map(Moment))
    .execute(connection)
    .await?;
    Ok(())
}

fn bad(column: &str, detail: &str) -> sqlx::Error {
    sqlx::Error::Decode(format!("table jobs, column {column}: {detail}").into())
}

fn word<T: serde::de::DeserializeOwned>(column: &str, text: String) -> Result<T, sqlx::Error> {
    serde_json::from_value(serde_json::Value::String(text))
        .map_err(|error| bad(column, &error.to_string()))
}

/// Substitute for the request of a job that cannot be read.
const UNREADABLE: &str = r#"{"verb":"retry","reason":""}"#;

/// Returns a job by its row. The request may be damaged: the rest is returned all the same.
fn job(row: &PgRow, first: usize) -> Result<JobRow, sqlx::Error> {
    let asked: String = row.try_get(first + 2)?;
    let read = |text: &str| -> Result<NewJob, sqlx::Error> {
        serde_json::from_str(text).map_err(|error| bad("asked", &error.to_string()))
    };
    let (asked, damaged) = match read(&asked) {
        Ok(asked) => (asked, None),
        Err(why) => (read(UNREADABLE)?, Some(why.to_string())),
    };
    let (Moment(created_at), Moment(next_at)) = (row.try_get(first + 6)?, row.try_get(first + 12)?);
    let ended_at: Option<Moment> = row.try_get(first + 7)?;
    let canary_until: Option<Moment> = row.try_get(first + 13)?;
    let state = word("state", row.try_get(first + 3)?)?;
    let mut progress = progress(row, first + 8)?;
    if state == JobState::Stopped {
        (progress.waiting, progress.left) = (0, progress.waiting);
    }
    let view = JobView {
        id: row.try_get(first)?,
        state,
        why: row.try_get(first + 4)?,
        asked,
        actor: row.try_get(first + 5)?,
        created_at: Timestamp(created_at),
        ended_at: ended_at.map(|Moment(at)| Timestamp(at)),
        progress,
        damaged,
    };
    Ok(JobRow {
        namespace: row.try_get(first + 1)?,
        view,
        next_at,
        canary_until: canary_until.map(|Moment(at)| at),
    })
}

fn progress(row: &PgRow, from: usize) -> Result<JobProgress, sqlx::Error> {
    let number = |column: usize| -> Result<u64, sqlx::Error> {
        let count: i32 = row.try_get(from + column)?;
        Ok(u64::try_from(count).unwrap_or_default())
    };
    let (total, done, came_back, refused) = (number(0)?, number(1)?, number(2)?, number(3)?);
    let waiting = total.saturating_sub(done + came_back + refused);
    Ok(JobProgress { waiting, left: 0, done, came_back, refused, total })
}

fn item_row(row: &PgRow) -> Result<ItemRow, sqlx::Error> {
    let incident: Option<i32> = row.try_get(2)?;
    let acted_at: Option<Moment> = row.try_get(4)?;
    Ok(ItemRow {
        position: row.try_get(0)?,
        run: RunId(row.try_get(1)?),
        incident: incident.map(|number| u32::try_from(number).unwrap_or_default()),
        step: row.try_get(3)?,
        acted_at: acted_at.map(|Moment(at)| at),
    })
}

fn item(row: &PgRow) -> Result<JobItem, sqlx::Error> {
    let position: i32 = row.try_get(0)?;
    let run = RunId(row.try_get(1)?);
    let incident: Option<i32> = row.try_get(2)?;
    let number = |number| u32::try_from(number).unwrap_or_default();
    let acted_at: Option<Moment> = row.try_get(6)?;
    Ok(JobItem {
        position: number(position),
        run,
        incident: incident.map(|incident| IncidentId { run, number: number(incident) }),
        state: word("state", row.try_get(3)?)?,
        code: row.try_get(4)?,
        message: row.try_get(5)?,
        acted_at: acted_at.map(|Moment(at)| Timestamp(at)),
    })
}
