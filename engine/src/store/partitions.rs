//! Partitions: one week of runs each, by the time in the run's UUIDv7. Made ahead, dropped as a whole.

use std::collections::BTreeSet;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use backstitch_saga::Time;
use sqlx::postgres::PgConnection;
use uuid::Uuid;

use super::retention::{Cutoff, Holding, holding};
use super::{StoreError, forget};

/// The tables that are partitioned by run, those by batch of events, and those by document that came in.
const TABLES: [&str; 9] = [
    "journal",
    "snapshots",
    "runs",
    "incidents",
    "event",
    "event_body",
    "intake",
    "intake_raw",
    "hint",
];
/// Number of tries to create or drop a partition: readers of several tables lock them in any order.
const TRIES: u32 = 5;
/// Delay between two tries to drop one.
const PAUSE: Duration = Duration::from_millis(100);
/// Drops a week of runs and what belongs to them.
const DROP_RUNS: &str = "-- partition_drop\nselect backstitch.drop_week($1::date, $2)";
/// Drops a week of events and of documents that came in.
const DROP_EVENTS: &str =
    "-- event_partition_drop\nselect backstitch.drop_event_week($1::date, $2)";
/// So few weeks with partitions are worth a warning.
const WEEKS_LEFT: usize = 2;
/// Weeks made ahead.
const AHEAD: i64 = 4;
const WEEK: i64 = 7 * 86_400_000;
/// The first Monday of 1970, so that weeks begin on Mondays.
const MONDAY: i64 = 4 * 86_400_000;

/// Returns the smallest id of runs that start at `at`.
pub(crate) fn first_id(at: Time) -> Uuid {
    let millis = u128::try_from(at.0.clamp(0, (1 << 48) - 1)).unwrap_or_default();
    Uuid::from_u128(millis << 80)
}

/// Returns the smallest id of runs of the week in which `at` lies.
pub(crate) fn first_id_of_week(at: Time) -> Uuid {
    first_id(begin(week_of(at)))
}

/// Returns whether a run began in an earlier week than that in which `at` lies.
pub(crate) fn began_before_the_week_of(run: Uuid, at: Time) -> bool {
    run < first_id_of_week(at)
}

fn week_of(at: Time) -> i64 {
    (at.0 - MONDAY).div_euclid(WEEK)
}

fn begin(week: i64) -> Time {
    Time(MONDAY + week * WEEK)
}

/// Returns the Monday that a week begins with: `20260105`.
fn day(week: i64) -> String {
    begin(week).to_string().chars().filter(char::is_ascii_digit).take(8).collect()
}

/// Returns what the names of a week's partitions end with: `p20260105`.
fn suffix(week: i64) -> String {
    format!("p{}", day(week))
}

/// The weeks that have a partition of each table, as far as a node knows. Rows of runs of these weeks are written
/// directly to the partitions: a statement on the whole table costs more with every partition that it has.
#[derive(Clone, Debug, Default)]
pub(crate) struct Weeks(Arc<RwLock<BTreeSet<i64>>>);

/// A week with partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Week(i64);

impl Weeks {
    pub(crate) fn learn(&self, weeks: BTreeSet<i64>) {
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = weeks;
    }

    /// Returns the number of weeks with partitions, that of `now` and those after it, up to the
    /// first gap.
    pub(crate) fn from(&self, now: Time) -> usize {
        let known = self.0.read().unwrap_or_else(PoisonError::into_inner);
        (week_of(now)..).take_while(|week| known.contains(week)).count()
    }

    /// Warns when hardly a week to come has partitions.
    pub(crate) fn warn_if_few(&self, now: Time) {
        let weeks = self.from(now);
        if weeks <= WEEKS_LEFT {
            tracing::warn!(
                weeks,
                "only so many weeks have partitions, this one included; runs of a week without go to the default partition, \
                 from which retention deletes them one by one"
            );
        }
    }

    /// Returns the week that all of `runs` belong to, if it has partitions.
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
    /// Returns the name of its partition of `table`.
    pub(crate) fn partition(self, table: &str) -> String {
        format!("{table}_{}", suffix(self.0))
    }
}

/// Makes the partitions of this week and the weeks to come. Returns which weeks have all of them.
pub(crate) async fn prepare(
    connection: &mut PgConnection,
    now: Time,
) -> Result<BTreeSet<i64>, StoreError> {
    let now = week_of(now);
    let mut weeks: BTreeSet<i64> = (now..=now + AHEAD).collect();
    for week in now..=now + AHEAD {
        for table in TABLES {
            match make_again(connection, table, week).await {
                Ok(()) => {}
                Err(StoreError::Rejected(error)) => {
                    weeks.remove(&week);
                    tracing::warn!(
                        partition = format!("{table}_{}", suffix(week)),
                        error,
                        "runs of this week are in the default partition already and stay there; retention deletes them one by one"
                    );
                }
                Err(trouble) => return Err(trouble),
            }
        }
    }
    Ok(weeks)
}

/// Makes one partition, and tries again while others are in the way.
async fn make_again(
    connection: &mut PgConnection,
    table: &str,
    week: i64,
) -> Result<(), StoreError> {
    let mut tries = 1;
    loop {
        match make(connection, table, week).await.map_err(StoreError::from) {
            Err(StoreError::Retryable(_)) if tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

/// Creates one partition, unless it exists, by a function of the owner.
async fn make(connection: &mut PgConnection, table: &str, week: i64) -> Result<(), sqlx::Error> {
    sqlx::query(
        "-- partition_make\n\
         select backstitch.make_partition($1, $2::date) where not exists (select 1 from pg_inherits i \
           join pg_class c on c.oid = i.inhrelid where i.inhparent = to_regclass($1) and c.relname = $3)",
    )
    .bind(table)
    .bind(day(week))
    .bind(format!("{table}_{}", suffix(week)))
    .execute(connection)
    .await?;
    Ok(())
}

/// Drops the weeks of events before that of `before`, the oldest first. Returns their number; one that is in use waits
/// for the next pass, and so do those after it.
pub(crate) async fn drop_events(
    connection: &mut PgConnection,
    before: Time,
) -> Result<usize, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "-- partitions_of_events\n\
         select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent = 'event'::regclass and c.relname ~ '^event_p[0-9]{8}$' order by 1",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut dropped = 0;
    for week in week_of(Time(0))..week_of(before) {
        let suffix = suffix(week);
        if !names.iter().any(|name| name.strip_prefix("event_") == Some(suffix.as_str())) {
            continue;
        }
        match drop_again(connection, DROP_EVENTS, week, before).await {
            Ok(true) => dropped += 1,
            Ok(false) => break,
            Err(StoreError::Retryable(error)) => {
                tracing::debug!(
                    week = suffix,
                    error,
                    "a week of events is in use and is dropped later"
                );
                break;
            }
            Err(trouble) => return Err(trouble),
        }
    }
    Ok(dropped)
}

/// Result for the weeks that are over and past retention.
#[derive(Debug, Default)]
pub(crate) struct Dropped {
    /// Number of weeks that were dropped.
    pub(crate) weeks: usize,
    /// Number of weeks that could be dropped, but are being read.
    pub(crate) put_off: usize,
    /// The day on which each of the others begins, with the runs that are kept there.
    pub(crate) held: Vec<(Time, Holding)>,
}

/// Drops the weeks before that of `before` in which every run is past retention, and finds the runs that keep the
/// others.
pub(crate) async fn drop_ended(
    connection: &mut PgConnection,
    before: Time,
    cutoff: Cutoff,
) -> Result<Dropped, StoreError> {
    let names: Vec<String> = sqlx::query_scalar(
        "-- partitions\n\
         select c.relname::text from pg_inherits i join pg_class c on c.oid = i.inhrelid \
         where i.inhparent = 'runs'::regclass and c.relname ~ '^runs_p[0-9]{8}$' order by 1",
    )
    .fetch_all(&mut *connection)
    .await?;
    let mut dropped = Dropped::default();
    for week in week_of(Time(0))..week_of(before) {
        let suffix = suffix(week);
        if !names.iter().any(|name| name.strip_prefix("runs_") == Some(suffix.as_str())) {
            continue;
        }
        // Writers are not made to wait for a look at a week that is kept.
        let range = (first_id(begin(week)), first_id(begin(week + 1)));
        let held = holding_again(connection, range, cutoff).await?;
        match held.is_empty() {
            // A reader of one week locks them all.
            true if dropped.put_off > 0 => dropped.put_off += 1,
            true => match drop_again(connection, DROP_RUNS, week, before).await {
                Ok(gone) => dropped.weeks += usize::from(gone),
                Err(StoreError::Retryable(error)) => {
                    tracing::debug!(week = suffix, error, "a week is in use and is dropped later");
                    dropped.put_off += 1;
                }
                Err(trouble) => return Err(trouble),
            },
            false => {}
        }
        dropped.held.extend(held.into_iter().map(|one| (begin(week), one)));
    }
    if dropped.weeks > 0 {
        forget::events(connection, before).await?;
    }
    Ok(dropped)
}

/// Finds the runs that keep a week, and tries again while another node drops one.
async fn holding_again(
    connection: &mut PgConnection,
    range: (Uuid, Uuid),
    cutoff: Cutoff,
) -> Result<Vec<Holding>, StoreError> {
    let mut tries = 1;
    loop {
        match holding(connection, range, cutoff).await.map_err(StoreError::from) {
            Err(StoreError::Retryable(_)) if tries < TRIES => tries += 1,
            done => return done,
        }
    }
}

/// Drops a week if it can be, and tries again while others are in the way.
async fn drop_again(
    connection: &mut PgConnection,
    statement: &'static str,
    week: i64,
    before: Time,
) -> Result<bool, StoreError> {
    let mut tries = 1;
    loop {
        match drop_week(connection, statement, week, before).await.map_err(StoreError::from) {
            Err(StoreError::Retryable(_)) if tries < TRIES => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

/// Drops a week, if all that it is about is over and was before `before`. The owner of the schema does it.
async fn drop_week(
    connection: &mut PgConnection,
    statement: &'static str,
    week: i64,
    before: Time,
) -> Result<bool, sqlx::Error> {
    sqlx::query_scalar(statement)
        .bind(day(week))
        .bind(super::moment::Moment(before))
        .fetch_one(connection)
        .await
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
    fn a_run_is_of_an_earlier_week_from_the_monday_after_it_on() {
        let at = |text: &str| text.parse::<backstitch_saga::Timestamp>().unwrap().0;
        let run = first_id(at("2026-01-05T00:00:00Z"));
        assert!(!began_before_the_week_of(run, at("2026-01-11T23:59:59.999Z")));
        assert!(began_before_the_week_of(run, at("2026-01-12T00:00:00Z")));
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

    #[test]
    fn weeks_with_partitions_are_counted_up_to_the_first_gap() {
        let weeks = Weeks::default();
        let now = Time(1_767_700_000_123);
        let week = week_of(now);
        assert_eq!(weeks.from(now), 0);
        weeks.learn([week, week + 1, week + 2, week + 4].into());
        assert_eq!(weeks.from(now), 3);
        assert_eq!(weeks.from(begin(week + 2)), 1);
        assert_eq!(weeks.from(begin(week + 3)), 0);
    }
}
