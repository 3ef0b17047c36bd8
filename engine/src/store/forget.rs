//! Deletion of rows past their time. Each statement deletes a bounded number of rows in one order and leaves out locked
//! rows, so that concurrent nodes wait neither for each other nor for others.

use backstitch_saga::Time;
use sqlx::AssertSqlSafe;
use sqlx::postgres::PgConnection;

use super::moment::Moment;

/// Rows that one statement deletes.
const ROWS: i64 = 5_000;
/// Statements in a row; the rest has its turn with the next look.
const STATEMENTS: usize = 200;

/// Deletes rows of `table` that satisfy `when`, in order of `by`. `$1` is the instant. Returns their
/// number.
async fn delete(
    connection: &mut PgConnection,
    (name, table): (&str, &str),
    (when, by): (&str, &str),
    at: Option<Time>,
) -> Result<u64, sqlx::Error> {
    let text = format!(
        "-- {name}\n\
         delete from {table} where ctid = any(array(select t.ctid from {table} t where {when} \
         order by {by} limit $2 for update skip locked))"
    );
    let mut deleted = 0;
    for _ in 0..STATEMENTS {
        let done = sqlx::query(AssertSqlSafe(text.clone()))
            .bind(at.map(Moment))
            .bind(ROWS)
            .execute(&mut *connection)
            .await?;
        deleted += done.rows_affected();
        if done.rows_affected() < ROWS.unsigned_abs() {
            break;
        }
    }
    Ok(deleted)
}

/// Forgets milestones from before `before`.
pub(super) async fn events(connection: &mut PgConnection, before: Time) -> Result<(), sqlx::Error> {
    let rows = ("t.at < $1", "t.id");
    delete(connection, ("events_drop", "events"), rows, Some(before)).await.map(drop)
}

/// Forgets open effects of runs that retention has deleted.
pub(crate) async fn open_effects(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let gone = "$1::timestamptz is null and not exists (select from runs r where r.id = t.run_id)";
    let rows = (gone, "t.run_id, t.step");
    delete(connection, ("open_effects_forget", "open_effects"), rows, None).await.map(drop)
}

/// Forgets plans of runs that retention has deleted.
pub(crate) async fn plans(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    let gone = "$1::timestamptz is null and not exists (select from runs r where r.id = t.run_id)";
    let rows = (gone, "t.id");
    delete(connection, ("plans_forget", "compensation_plans"), rows, None).await.map(drop)
}

/// Deletes results of starts of schedules before `before`.
pub(crate) async fn schedule_starts(
    connection: &mut PgConnection,
    before: Time,
) -> Result<(), sqlx::Error> {
    let rows = ("t.at < $1", "t.id");
    delete(connection, ("schedule_starts_forget", "schedule_starts"), rows, Some(before))
        .await
        .map(drop)
}

/// Forgets jobs that ended before `before`.
pub(crate) async fn jobs(connection: &mut PgConnection, before: Time) -> Result<(), sqlx::Error> {
    let rows = ("t.ended_at < $1", "t.ended_at, t.id");
    delete(connection, ("jobs_forget", "jobs"), rows, Some(before)).await.map(drop)
}

/// Deletes imports that ended before `before`, conflicts that were resolved before it, and rows and reports of imports
/// that do not exist any more or are over.
pub(crate) async fn imports(
    connection: &mut PgConnection,
    before: Option<Time>,
) -> Result<(), sqlx::Error> {
    let rows = ("t.ended_at < $1", "t.ended_at, t.id");
    delete(connection, ("imports_forget", "import"), rows, before).await?;
    let rows = ("t.ended_at < $1", "t.ended_at, t.id");
    delete(connection, ("imports_forget_reprocesses", "reprocess"), rows, before).await?;
    let rows = ("t.resolved_at < $1", "t.resolved_at, t.id");
    delete(connection, ("imports_forget_conflicts", "link_conflict"), rows, before).await?;
    let gone = "$1::timestamptz is distinct from 'epoch' and not exists (select from import i where i.id = t.import)";
    let rows = (gone, "t.import, t.number");
    delete(connection, ("imports_forget_refused", "import_refused"), rows, before).await?;
    let over = "$1::timestamptz is distinct from 'epoch' and not exists (select from import i where i.id = t.import \
        and i.state in ('receiving', 'running'))";
    let rows = (over, "t.import, t.number");
    delete(connection, ("imports_forget_pieces", "import_piece"), rows, before).await.map(drop)
}

/// Deletes signals whose runs were never started, kept before `before`. Returns their number.
pub(crate) async fn early_signals(
    connection: &mut PgConnection,
    before: Time,
) -> Result<u64, sqlx::Error> {
    let rows = ("t.at < $1", "t.namespace, t.workflow, t.key, t.signal");
    delete(connection, ("early_signals_forget_old", "early_signals"), rows, Some(before)).await
}

/// Deletes workers that left, or whose node died, before `before`.
pub(crate) async fn workers(
    connection: &mut PgConnection,
    before: Time,
) -> Result<(), sqlx::Error> {
    let when = "t.gone_at < $1 or not exists (select 1 from nodes n where n.id = t.node and n.seen_at > $1)";
    delete(connection, ("workers_forget", "workers"), (when, "t.ctid"), Some(before))
        .await
        .map(drop)
}

/// Deletes nodes that died before `before` and have no runs any more.
pub(crate) async fn nodes(connection: &mut PgConnection, before: Time) -> Result<(), sqlx::Error> {
    let when = "t.seen_at < $1 and not exists (select 1 from runs r where r.node = t.id)";
    delete(connection, ("nodes_forget", "nodes"), (when, "t.id"), Some(before)).await.map(drop)
}
