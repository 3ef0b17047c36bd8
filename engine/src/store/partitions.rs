//! Partitions: one week of runs each, by the time in the run's UUIDv7. Made ahead, dropped as a whole.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};

use backstitch_saga::Time;
use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection};
use uuid::Uuid;

use super::{Trouble, nodes};

/// The tables that are partitioned by run, with the settings of their partitions.
const TABLES: [(&str, &str, &str); 4] = [
    ("journal", "run_id", " with (autovacuum_vacuum_insert_threshold = -1)"),
    ("snapshots", "run_id", ""),
    ("runs", "id", " with (fillfactor = 50)"),
    ("incidents", "run_id", ""),
];
/// Weeks made ahead.
const AHEAD: i64 = 4;
const WEEK: i64 = 7 * 86_400_000;
/// The first Monday of 1970, so that weeks begin on Mondays.
const MONDAY: i64 = 4 * 86_400_000;

/// The smallest id of runs that start at `at`.
pub(crate) fn first_id(at: Time) -> Uuid {
    let millis = u128::try_from(at.0.clamp(0, (1 << 48) - 1)).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}

fn week_of(at: Time) -> i64 {
    (at.0 - MONDAY).div_euclid(WEEK)
}

fn begin(week: i64) -> Time {
    Time(MONDAY + week * WEEK)
}

/// `p20260105`: the Monday that a week begins with.
fn suffix(week: i64) -> String {
    let day: String =
        begin(week).to_string().chars().filter(char::is_ascii_digit).take(8).collect();
    format!("p{day}")
}

/// The weeks that have a partition of each table, as far as a node knows. What belongs to runs of one of them is written
/// straight there: a statement on the whole table costs more with every partition that it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weeks(Arc<RwLock<BTreeSet<i64>>>);

/// A week with partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Week(i64);

impl Weeks {
    pub(crate) fn learn(&self, weeks: BTreeSet<i64>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = weeks;
    }

    /// The week that all of `runs` belong to, if it has partitions.
    pub(crate) fn of(&self, runs: &[Uuid]) -> Option<Week> {
        let week_of = |run: &Uuid| {
            let millis = i64::try_from(run.as_u128() >> 80).unwrap_or_default();
            week_of(Time(millis))
        };
        let (first, rest) = runs.split_first()?;
        let week = week_of(first);
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner).contains(&week);
        (known && rest.iter().all(|run| week_of(run) == week)).then_some(Week(week))
    }
}

impl Week {
    /// The name of its partition of `table`.
    pub(crate) fn partition(self, table: &str) -> String {
        format!("{table}_{}", suffix(self.0))
    }
}

/// Makes the partitions of this week and the weeks to come. Answers which weeks have all of them.
pub(crate) async fn prepare(connection: &mut PgConnection) -> Result<BTreeSet<i64>, Trouble> {
    let now = week_of(nodes::clock(&mut *connection).await?);
    let mut weeks: BTreeSet<i64> = (now..=now + AHEAD).collect();
    for week in now..=now + AHEAD {
        for (table, _, with) in TABLES {
            let name = format!("{table}_{}", suffix(week));
            if is_there(connection, &name).await? {
                continue;
            }
            let (from, to) = (first_id(begin(week)), first_id(begin(week + 1)));
            let text = format!(
                "-- partition_make\ncreate table if not exists {name} partition of {table} \
                 for values from ('{from}') to ('{to}'){with}"
            );
            match make(connection, text).await.map_err(Trouble::from) {
                Ok(()) => {}
                Err(Trouble::Data(error)) => {
                    weeks.remove(&week);
                    tracing::warn!(
                        partition = name,
                        error,
                        "runs of this week are in the default partition already and stay there, beyond retention"
                    );
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }
    Ok(weeks)
}

async fn make(connection: &mut PgConnection, text: String) -> Result<(), sqlx::Error> {
    let mut transaction = connection.begin().await?;
    lock(&mut transaction).await?;
    sqlx::query(AssertSqlSafe(text)).execute(&mut *transaction).await?;
    transaction.commit().await
}

/// Drops the weeks in which every run ended before `before`. Answers how many weeks went.
pub(crate) async fn drop_ended(
    connection: &mut PgConnection,
    before: Time,
) -> Result<u32, sqlx::Error> {
    let names: Vec<String> = sqlx::query_scalar(
        "-- partitions\n\
         select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent = 'runs'::regclass and c.relname ~ '^runs_p[0-9]{8}$' order by 1",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut dropped = 0;
    for week in week_of(Time(0))..week_of(before) {
        let suffix = suffix(week);
        if names.iter().any(|name| name.strip_prefix("runs_") == Some(suffix.as_str())) {
            dropped += u32::from(drop_week(connection, week, before).await?);
        }
    }
    Ok(dropped)
}

async fn drop_week(
    connection: &mut PgConnection,
    week: i64,
    before: Time,
) -> Result<bool, sqlx::Error> {
    let suffix = suffix(week);
    let mut transaction = connection.begin().await?;
    lock(&mut transaction).await?;
    sqlx::query("-- partition_wait\nset local lock_timeout = '3s'")
        .execute(&mut *transaction)
        .await?;
    if !is_there(&mut transaction, &format!("runs_{suffix}")).await? {
        // Another node was first.
        return Ok(false);
    }
    // Nothing may come in between the look and the drop.
    for table in ["journal", "runs"] {
        let text =
            format!("-- partition_lock\nlock table {table}_{suffix} in access exclusive mode");
        sqlx::query(AssertSqlSafe(text)).execute(&mut *transaction).await?;
    }
    let text = format!(
        "-- partition_in_use\nselect exists (select 1 from runs_{suffix} where state <> 'ended' or ended_at >= $1)"
    );
    let in_use: bool = sqlx::query_scalar(AssertSqlSafe(text))
        .bind(super::moment::Moment(before))
        .fetch_one(&mut *transaction)
        .await?;
    if in_use {
        return Ok(false);
    }
    let (from, to) = (first_id(begin(week)), first_id(begin(week + 1)));
    for text in [
        "-- run_keys_drop\ndelete from run_keys where run_id >= $1 and run_id < $2",
        "-- fences_drop\ndelete from fences where run_id >= $1 and run_id < $2",
        "-- ready_drop\ndelete from ready where run_id >= $1 and run_id < $2",
        "-- acts_drop\ndelete from acts where run_id >= $1 and run_id < $2",
        "-- incident_notes_drop\ndelete from incident_notes where run_id >= $1 and run_id < $2",
        "-- incident_assignees_drop\ndelete from incident_assignees where run_id >= $1 and run_id < $2",
    ] {
        sqlx::query(text).bind(from).bind(to).execute(&mut *transaction).await?;
    }
    sqlx::query("-- events_drop\ndelete from events where at < $1")
        .bind(super::moment::Moment(before))
        .execute(&mut *transaction)
        .await?;
    for (table, _, _) in TABLES {
        let text = format!("-- partition_drop\ndrop table if exists {table}_{suffix}");
        sqlx::query(AssertSqlSafe(text)).execute(&mut *transaction).await?;
    }
    transaction.commit().await?;
    Ok(true)
}

async fn is_there(connection: &mut PgConnection, table: &str) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar("-- partition_known\nselect to_regclass($1) is not null")
        .bind(table)
        .fetch_one(connection)
        .await
}

/// One node at a time.
async fn lock(connection: &mut PgConnection) -> Result<(), sqlx::Error> {
    sqlx::query("-- partition_turn\nselect pg_advisory_xact_lock(7210230501)")
        .execute(connection)
        .await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_begin_on_mondays() {
        let at = |text: &str| text.parse::<backstitch_saga::Timestamp>().unwrap().0;
        let week = week_of(at("2026-01-07T12:00:00Z"));
        assert_eq!(suffix(week), "p20260105");
        assert_eq!(week_of(at("2026-01-11T23:59:59.999Z")), week);
        assert_eq!(week_of(at("2026-01-12T00:00:00Z")), week + 1);
    }

    #[test]
    fn ids_of_a_week_lie_between_its_bounds() {
        let at = Time(1_767_700_000_123);
        let id =
            Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, 1_767_700_000, 123_000_000));
        assert!(first_id(at) <= id && id < first_id(Time(at.0 + 1)));
    }

    #[test]
    fn runs_of_one_known_week_go_straight_to_its_partitions() {
        let weeks = Weeks::default();
        let at = |text: &str| first_id(text.parse::<backstitch_saga::Timestamp>().unwrap().0);
        let (monday, sunday) = (at("2026-01-05T00:00:00Z"), at("2026-01-11T23:59:59.999Z"));
        assert_eq!(weeks.of(&[monday]), None);
        weeks.learn([week_of(Time(1_767_700_000_123))].into());
        let week = weeks.of(&[monday, sunday]).unwrap();
        assert_eq!(week.partition("runs"), "runs_p20260105");
        assert_eq!(weeks.of(&[monday, at("2026-01-12T00:00:00Z")]), None);
        assert_eq!(weeks.of(&[at("2026-01-04T23:59:59.999Z")]), None);
        assert_eq!(weeks.of(&[]), None);
    }
}
