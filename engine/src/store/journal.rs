//! Reading journals and snapshots.

use std::collections::HashMap;

use backstitch_saga::{RunId, Time};
use sqlx::Row;
use sqlx::postgres::{PgConnection, PgRow};
use uuid::Uuid;

use super::codec::JournalRow;
use super::moment::Moment;

/// The stored part of one run.
#[derive(Debug, Default)]
pub(crate) struct Stored {
    pub(crate) snapshot: Option<Snapshot>,
    /// The records after the snapshot, in order.
    pub(crate) rows: Vec<JournalRow>,
    /// The node in charge, as the index has it.
    pub(crate) node: Option<i32>,
}

/// A place where folding may begin.
#[derive(Debug)]
pub(crate) struct Snapshot {
    pub(crate) seq: i32,
    pub(crate) definition: String,
    pub(crate) state: String,
}

/// Reads what is stored of `runs`. Runs without a journal are missing in the answer.
pub(crate) async fn load(
    connection: &mut PgConnection,
    runs: &[RunId],
) -> Result<HashMap<RunId, Stored>, sqlx::Error> {
    let ids: Vec<Uuid> = runs.iter().map(|run| run.0).collect();
    let mut found: HashMap<RunId, Stored> = HashMap::with_capacity(runs.len());
    for row in sqlx::query(
        "-- snapshots_load\n\
         select s.run_id, s.seq, s.definition, s.state from unnest($1::uuid[]) as w(id) \
         cross join lateral (select * from snapshots s where s.run_id = w.id) s",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?
    {
        let snapshot =
            Snapshot { seq: row.try_get(1)?, definition: row.try_get(2)?, state: row.try_get(3)? };
        found.entry(RunId(row.try_get(0)?)).or_default().snapshot = Some(snapshot);
    }
    let after: Vec<i32> = runs
        .iter()
        .map(|run| found.get(run).and_then(|one| one.snapshot.as_ref()).map_or(0, |one| one.seq))
        .collect();
    for row in sqlx::query(
        "-- journal_load\n\
         select j.run_id, j.seq, j.format, j.at, j.events, j.payloads \
         from unnest($1::uuid[], $2::integer[]) as w(id, after) \
         cross join lateral (select * from journal j where j.run_id = w.id and j.seq > w.after order by j.seq) j",
    )
    .bind(&ids)
    .bind(&after)
    .fetch_all(&mut *connection)
    .await?
    {
        found.entry(RunId(row.try_get(0)?)).or_default().rows.push(journal_row(&row, 1)?);
    }
    for row in sqlx::query(
        "-- runs_in_charge\n\
         select r.id, r.node from unnest($1::uuid[]) as w(id) \
         cross join lateral (select * from runs r where r.id = w.id) r",
    )
    .bind(&ids)
    .fetch_all(&mut *connection)
    .await?
    {
        if let Some(stored) = found.get_mut(&RunId(row.try_get(0)?)) {
            stored.node = row.try_get(1)?;
        }
    }
    Ok(found)
}

/// Returns how many of `runs`, in order, have at most `bytes` bytes together that [`load`] would read: at least the
/// first one.
pub(crate) async fn fitting(
    connection: &mut PgConnection,
    runs: &[RunId],
    bytes: usize,
) -> Result<usize, sqlx::Error> {
    if runs.len() < 2 {
        return Ok(runs.len());
    }
    let ids: Vec<Uuid> = runs.iter().map(|run| run.0).collect();
    let fitting: i64 = sqlx::query_scalar(
        "-- journal_fitting\n\
         select count(*) from (select sum(b.bytes) over (order by w.place) as upto from unnest($1::uuid[]) with ordinality as w(id, place) \
         left join lateral (select s.seq, octet_length(s.state)::bigint as bytes from snapshots s where s.run_id = w.id) s on true \
         cross join lateral (select coalesce(s.bytes, 0) \
           + coalesce(sum(octet_length(j.events)::bigint + coalesce(octet_length(j.payloads), 0)), 0) as bytes \
           from journal j where j.run_id = w.id and j.seq > coalesce(s.seq, 0)) b) f where f.upto <= $2",
    )
    .bind(&ids)
    .bind(i64::try_from(bytes).unwrap_or(i64::MAX))
    .fetch_one(connection)
    .await?;
    Ok(usize::try_from(fitting).unwrap_or(1).max(1))
}

/// Reads the whole journal of `run` up to record `until`, without a snapshot.
pub(crate) async fn load_until(
    connection: &mut PgConnection,
    run: RunId,
    until: i32,
) -> Result<Vec<JournalRow>, sqlx::Error> {
    let rows = sqlx::query(
        "-- journal_until\n\
         select seq, format, at, events, payloads from journal where run_id = $1 and seq <= $2 order by seq",
    )
    .bind(run.0)
    .bind(until)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| journal_row(row, 0)).collect()
}

/// Reads at most `limit` records of `run` from `from` on, and no more after those that have `bytes` bytes together.
pub(crate) async fn page(
    connection: &mut PgConnection,
    run: RunId,
    from: i32,
    limit: usize,
    bytes: usize,
) -> Result<Vec<JournalRow>, sqlx::Error> {
    let whole = |number| i64::try_from(number).unwrap_or(i64::MAX);
    let rows = sqlx::query(
        "-- journal_page\n\
         select seq, format, at, events, payloads from (\
         select *, sum(own) over (order by seq) - own as before from (\
         select seq, format, at, events, payloads, \
         octet_length(events) + coalesce(octet_length(payloads), 0) as own from journal \
         where run_id = $1 and seq >= $2 order by seq limit $3) j) k where before < $4 order by seq",
    )
    .bind(run.0)
    .bind(from)
    .bind(whole(limit))
    .bind(whole(bytes))
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| journal_row(row, 0)).collect()
}

/// Returns the last record of each of `runs`; runs without a journal are missing.
pub(crate) async fn last_seqs(
    connection: &mut PgConnection,
    runs: &[Uuid],
) -> Result<HashMap<RunId, i32>, sqlx::Error> {
    let rows = sqlx::query(
        "-- journal_last\n\
         select w.id, j.seq from unnest($1::uuid[]) as w(id) cross join lateral \
         (select seq from journal j where j.run_id = w.id order by j.seq desc limit 1) j",
    )
    .bind(runs)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok((RunId(row.try_get(0)?), row.try_get(1)?))).collect()
}

/// Returns the runs of those records `(runs[i], seqs[i])` that `batch` wrote.
pub(crate) async fn written_by(
    connection: &mut PgConnection,
    batch: Uuid,
    runs: &[Uuid],
    seqs: &[i32],
) -> Result<Vec<RunId>, sqlx::Error> {
    let rows = sqlx::query(
        "-- journal_written_by\n\
         select j.run_id from unnest($2::uuid[], $3::integer[]) as w(id, seq) \
         cross join lateral (select * from journal j where j.run_id = w.id and j.seq = w.seq) j \
         where j.batch = $1",
    )
    .bind(batch)
    .bind(runs)
    .bind(seqs)
    .fetch_all(connection)
    .await?;
    rows.iter().map(|row| Ok(RunId(row.try_get(0)?))).collect()
}

/// Keeps a snapshot, unless a newer one exists.
pub(crate) async fn keep_snapshot(
    connection: &mut PgConnection,
    run: RunId,
    snapshot: &Snapshot,
) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- snapshots_keep\n\
         insert into snapshots (run_id, seq, definition, state) values ($1, $2, $3, $4) \
         on conflict (run_id) do update set seq = excluded.seq, \
         definition = excluded.definition, state = excluded.state \
         where snapshots.seq < excluded.seq",
    )
    .bind(run.0)
    .bind(snapshot.seq)
    .bind(&snapshot.definition)
    .bind(&snapshot.state)
    .execute(connection)
    .await?;
    Ok(())
}

fn journal_row(row: &PgRow, from: usize) -> Result<JournalRow, sqlx::Error> {
    let Moment(at): Moment = row.try_get(from + 2)?;
    Ok(JournalRow {
        seq: row.try_get(from)?,
        format: row.try_get(from + 1)?,
        at: Time(at.0),
        events: row.try_get(from + 3)?,
        payloads: row.try_get(from + 4)?,
    })
}
