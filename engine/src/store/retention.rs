//! Ended runs past retention that go one by one, as their week is kept or their workflow has a retention of its own:
//! what keeps the weeks, and the deletion of single runs.

use backstitch_saga::{RunId, Time};
use sqlx::postgres::{PgConnection, PgRow};
use sqlx::{AssertSqlSafe, Row};
use uuid::Uuid;

use super::moment::Moment;

/// Runs that keep a week are counted up to this many.
const COUNTED: i64 = 10_000;

/// The instant since which an ended run of a row `r` is kept, joined with its workflow's own retention `w`: $1 is that
/// of the server and $2 is now. Null keeps it for ever.
macro_rules! kept_since {
    () => {
        "case when w.workflow is null then $1 else $2 - w.keep_ms * interval '1 millisecond' end"
    };
}
/// The join that [`kept_since`] needs.
macro_rules! with_own {
    () => {
        "left join workflow_retention w on (w.namespace, w.workflow) = (r.namespace, r.workflow)"
    };
}

/// The time such that runs that ended before it are past retention.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Cutoff {
    pub(crate) now: Time,
    /// Runs that ended before this are past the server's retention; `None` when it keeps them for ever.
    pub(crate) before: Option<Time>,
}

/// The runs that a walk has still to look at.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Range {
    /// The namespace and name of the workflow; every workflow without it.
    pub(crate) workflow: Option<(String, String)>,
    /// The last run that was checked.
    pub(crate) after: Uuid,
    /// The first run that is not checked.
    pub(crate) to: Uuid,
}

impl Range {
    /// Returns all runs before `to`, of one workflow or of every.
    pub(crate) fn from_the_first(workflow: Option<(String, String)>, to: Uuid) -> Range {
        Range { workflow, after: Uuid::nil(), to }
    }
}

/// Runs of one namespace that keep a week from being dropped.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Holding {
    pub(crate) namespace: String,
    pub(crate) runs: i64,
    pub(crate) oldest: RunId,
    pub(crate) started_at: Time,
}

/// Finds the runs from one id up to another that did not end before their retention, by namespace. Counts no more than
/// 10,000.
pub(crate) async fn holding(
    connection: &mut PgConnection,
    (first, end): (Uuid, Uuid),
    cutoff: Cutoff,
) -> Result<Vec<Holding>, sqlx::Error> {
    const TEXT: &str = concat!(
        "-- retention_holding\n\
         select k.namespace, count(*), (array_agg(k.id order by k.id))[1], \
           (array_agg(k.started_at order by k.id))[1] \
         from (select r.id, r.namespace, r.started_at from runs r ",
        with_own!(),
        " where r.id >= $3 and r.id < $4 and (r.state <> 'ended' or coalesce(r.ended_at >= ",
        kept_since!(),
        ", true)) order by r.id limit $5) k group by k.namespace order by 3"
    );
    let rows = sqlx::query(TEXT)
        .bind(cutoff.before.map(Moment))
        .bind(Moment(cutoff.now))
        .bind(first)
        .bind(end)
        .bind(COUNTED)
        .fetch_all(connection)
        .await?;
    let holding = |row: &PgRow| {
        let Moment(started_at) = row.try_get(3)?;
        Ok(Holding {
            namespace: row.try_get(0)?,
            runs: row.try_get(1)?,
            oldest: RunId(row.try_get(2)?),
            started_at,
        })
    };
    rows.iter().map(holding).collect()
}

/// Reads the next `limit` runs of a range. Returns the last of them, if there may be more, and those past retention.
pub(crate) async fn page(
    connection: &mut PgConnection,
    range: &Range,
    cutoff: Cutoff,
    limit: i64,
) -> Result<(Option<Uuid>, Vec<Uuid>), sqlx::Error> {
    const PAST: &str = concat!(
        "select r.id, r.state = 'ended' and coalesce(r.ended_at < ",
        kept_since!(),
        ", false) from k r ",
        with_own!(),
        " order by r.id"
    );
    let text = match range.workflow {
        None => format!(
            "-- retention_page\n\
             with k as (select id, namespace, workflow, state, ended_at from runs \
             where id > $3 and id < $4 order by id limit $5) {PAST}"
        ),
        Some(_) => format!(
            "-- retention_page_of_workflow\n\
             with k as (select id, namespace, workflow, state, ended_at from runs \
             where namespace = $6 and workflow = $7 and id > $3 and id < $4 order by id limit $5) {PAST}"
        ),
    };
    let mut query = sqlx::query(AssertSqlSafe(text))
        .bind(cutoff.before.map(Moment))
        .bind(Moment(cutoff.now))
        .bind(range.after)
        .bind(range.to)
        .bind(limit);
    if let Some((namespace, workflow)) = &range.workflow {
        query = query.bind(namespace).bind(workflow);
    }
    let rows = query.fetch_all(connection).await?;
    let mut past = Vec::new();
    for row in &rows {
        if row.try_get(1)? {
            past.push(row.try_get(0)?);
        }
    }
    let full = i64::try_from(rows.len()) == Ok(limit);
    let last = rows.last().filter(|_| full).map(|row| row.try_get(0)).transpose()?;
    Ok((last, past))
}

/// Deletes those of `runs` that are past retention, of the server (`before`) or of their workflow, with all their rows,
/// in one transaction, until they have `records` records together, by a function of the owner, which checks each of
/// them again. Returns the number of deleted runs, and the last one if it did not check all.
pub(crate) async fn delete(
    connection: &mut PgConnection,
    runs: &[Uuid],
    before: Option<Time>,
    records: i32,
) -> Result<(usize, Option<Uuid>), sqlx::Error> {
    let (deleted, last): (i32, Option<Uuid>) = sqlx::query_as(
        "-- retention_delete\nselect deleted, last from backstitch.delete_runs($1, $2, $3)",
    )
    .bind(runs)
    .bind(before.map(Moment))
    .bind(records)
    .fetch_one(connection)
    .await?;
    Ok((usize::try_from(deleted).unwrap_or_default(), last))
}
