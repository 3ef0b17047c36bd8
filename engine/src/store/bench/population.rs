//! A standing population: copies of a run that is at rest.

use backstitch_saga::RunId;
use sqlx::Row;
use uuid::Uuid;

use crate::Error;

/// Copies made by one statement.
const AT_ONCE: usize = 5_000;
/// The time over which the ids of the copies are spread, in milliseconds.
const SPREAD: u64 = 3_600_000;

/// Makes `count` copies of `run`.
pub(crate) async fn copy_run(url: &str, run: RunId, count: usize) -> Result<(), Error> {
    let mut connection = super::connect(url).await?;
    let row = sqlx::query(
        "-- copy_source\n\
         select node, (extract(epoch from clock_timestamp()) * 1000)::bigint from runs where id = $1",
    )
    .bind(run.0)
    .fetch_optional(&mut connection)
    .await?
    .ok_or_else(|| Error::unknown_run(run))?;
    let node: Option<i32> = row.try_get(0)?;
    let now: i64 = row.try_get(1)?;
    if node.is_some() {
        return Err(Error::Conflict {
            code: "run_in_charge",
            message: format!("a node still has run {run} in its charge; try again in a second"),
        });
    }
    let first = u64::try_from(now).unwrap_or_default().saturating_sub(SPREAD);
    let mut done = 0;
    while done < count {
        let ids: Vec<Uuid> = (done..count.min(done + AT_ONCE))
            .map(|place| id_at(first + SPREAD * place as u64 / count as u64))
            .collect();
        for text in [
            "-- copy_journal\n\
             insert into journal (run_id, seq, format, at, batch, events, payloads) \
             select x.id, j.seq, j.format, j.at, j.batch, j.events, j.payloads \
             from unnest($1::uuid[]) x(id) cross join journal j where j.run_id = $2",
            "-- copy_runs\n\
             insert into runs (id, namespace, workflow, version, definition, key, correlation_id, labels, state, \
               outcome, conditions, started_at, ended_at, node, wake_at) \
             select x.id, r.namespace, r.workflow, r.version, r.definition, r.key, r.correlation_id, r.labels, \
               r.state, r.outcome, r.conditions, r.started_at, r.ended_at, r.node, r.wake_at \
             from unnest($1::uuid[]) x(id) cross join runs r where r.id = $2",
        ] {
            sqlx::query(text).bind(&ids).bind(run.0).execute(&mut connection).await?;
        }
        done += ids.len();
    }
    sqlx::query("-- copy_analyze\nanalyze journal, runs").execute(&mut connection).await?;
    Ok(())
}

fn id_at(millis: u64) -> Uuid {
    let nanos = u32::try_from(millis % 1_000).unwrap_or_default() * 1_000_000;
    Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, millis / 1_000, nanos))
}
