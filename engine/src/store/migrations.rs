//! The schema, forward only, embedded in the program.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, SqlSafeStr};

use super::{Database, grants, leases, nodes, partitions, schema};
use crate::Error;

/// All migrations in order.
const ALL: &[(i64, &str, &str)] = &[
    (1, "journal and indexes", include_str!("../../../migrations/0001_journal_and_indexes.sql")),
    (2, "lighter writes", include_str!("../../../migrations/0002_lighter_writes.sql")),
    (3, "schedules", include_str!("../../../migrations/0003_schedules.sql")),
    (4, "exactly once", include_str!("../../../migrations/0004_exactly_once.sql")),
    (5, "incidents", include_str!("../../../migrations/0005_incidents.sql")),
    (6, "flow control", include_str!("../../../migrations/0006_flow_control.sql")),
    (7, "sequence", include_str!("../../../migrations/0007_sequence.sql")),
    (8, "early signals", include_str!("../../../migrations/0008_early_signals.sql")),
    (9, "workers", include_str!("../../../migrations/0009_workers.sql")),
    (10, "sequence again", include_str!("../../../migrations/0010_sequence_again.sql")),
    (11, "acts on facts", include_str!("../../../migrations/0011_acts_on_facts.sql")),
    (
        12,
        "journal not vacuumed for inserts",
        include_str!("../../../migrations/0012_journal_not_vacuumed_for_inserts.sql"),
    ),
    (
        17,
        "tries of start requests",
        include_str!("../../../migrations/0017_tries_of_start_requests.sql"),
    ),
    (
        19,
        "fences that are remembered",
        include_str!("../../../migrations/0019_fences_that_are_remembered.sql"),
    ),
    (
        21,
        "starts at a later instant",
        include_str!("../../../migrations/0021_starts_at_a_later_instant.sql"),
    ),
    (23, "alone", include_str!("../../../migrations/0023_alone.sql")),
    (25, "requirements", include_str!("../../../migrations/0025_requirements.sql")),
    (30, "runs by outcome", include_str!("../../../migrations/0030_runs_by_outcome.sql")),
    (34, "quotas", include_str!("../../../migrations/0034_quotas.sql")),
    (38, "credentials", include_str!("../../../migrations/0038_credentials.sql")),
    (39, "leases and grants", include_str!("../../../migrations/0039_leases_and_grants.sql")),
    (43, "upkeep by the owner", include_str!("../../../migrations/0043_upkeep_by_the_owner.sql")),
    (44, "locks of serial keys", include_str!("../../../migrations/0044_locks_of_serial_keys.sql")),
    (
        45,
        "events apart from weeks",
        include_str!("../../../migrations/0045_events_apart_from_weeks.sql"),
    ),
    (
        52,
        "ended runs one by one",
        include_str!("../../../migrations/0052_ended_runs_one_by_one.sql"),
    ),
    (
        53,
        "retention of workflows",
        include_str!("../../../migrations/0053_retention_of_workflows.sql"),
    ),
    (54, "erasures", include_str!("../../../migrations/0054_erasures.sql")),
    (
        57,
        "turns between namespaces",
        include_str!("../../../migrations/0057_turns_between_namespaces.sql"),
    ),
    (
        58,
        "tries of jobs and migrations",
        include_str!("../../../migrations/0058_tries_of_jobs_and_migrations.sql"),
    ),
    (60, "console sessions", include_str!("../../../migrations/0060_console_sessions.sql")),
    (61, "open effects", include_str!("../../../migrations/0061_open_effects.sql")),
    (62, "compensation plans", include_str!("../../../migrations/0062_compensation_plans.sql")),
    (65, "contracts", include_str!("../../../migrations/0065_contracts.sql")),
    (66, "transforms", include_str!("../../../migrations/0066_transforms.sql")),
    (67, "keys of erased runs", include_str!("../../../migrations/0067_keys_of_erased_runs.sql")),
    (68, "erased answers", include_str!("../../../migrations/0068_erased_answers.sql")),
    (
        70,
        "weeks go when nobody reads",
        include_str!("../../../migrations/0070_weeks_go_when_nobody_reads.sql"),
    ),
    (75, "event log", include_str!("../../../migrations/0075_event_log.sql")),
    (76, "subscriptions", include_str!("../../../migrations/0076_subscriptions.sql")),
    (
        77,
        "append in transactions",
        include_str!("../../../migrations/0077_append_in_transactions.sql"),
    ),
    (78, "event weeks go", include_str!("../../../migrations/0078_event_weeks_go.sql")),
    (79, "log cursors", include_str!("../../../migrations/0079_log_cursors.sql")),
    (
        80,
        "holders of serial keys",
        include_str!("../../../migrations/0080_holders_of_serial_keys.sql"),
    ),
    (
        81,
        "numbers of completions",
        include_str!("../../../migrations/0081_numbers_of_completions.sql"),
    ),
    (85, "tries of timers", include_str!("../../../migrations/0085_tries_of_timers.sql")),
    (
        86,
        "nodes tell what they believe",
        include_str!("../../../migrations/0086_nodes_tell_what_they_believe.sql"),
    ),
    (90, "sources", include_str!("../../../migrations/0090_sources.sql")),
    (91, "intake", include_str!("../../../migrations/0091_intake.sql")),
    (92, "intake is mapped", include_str!("../../../migrations/0092_intake_is_mapped.sql")),
    (93, "imports", include_str!("../../../migrations/0093_imports.sql")),
    (94, "hints", include_str!("../../../migrations/0094_hints.sql")),
    (95, "reprocessing", include_str!("../../../migrations/0095_reprocessing.sql")),
    (96, "data erasures", include_str!("../../../migrations/0096_data_erasures.sql")),
    (97, "emitted events", include_str!("../../../migrations/0097_emitted_events.sql")),
    (98, "runs that are left", include_str!("../../../migrations/0098_runs_that_are_left.sql")),
    (
        99,
        "documents are counted once",
        include_str!("../../../migrations/0099_documents_are_counted_once.sql"),
    ),
    (
        100,
        "documents beyond jsonb",
        include_str!("../../../migrations/0100_documents_beyond_jsonb.sql"),
    ),
    (
        101,
        "emitted by one index",
        include_str!("../../../migrations/0101_emitted_by_one_index.sql"),
    ),
    (
        102,
        "milestones share a row",
        include_str!("../../../migrations/0102_milestones_share_a_row.sql"),
    ),
    (105, "pending events", include_str!("../../../migrations/0105_pending_events.sql")),
    (110, "runs by time", include_str!("../../../migrations/0110_runs_by_time.sql")),
];

/// Runs the migrations that are missing, under an advisory lock. Roles with the rights of a server get those to what is
/// new.
pub(crate) async fn run(url: &str) -> Result<(), Error> {
    let database = Database::open(url, 1).await?;
    database.refuse_pooler().await?;
    let mut connection = super::connect(url).await?;
    schema::refuse_other_than_owner(&mut connection, database.schema()).await?;
    schema::make(&mut connection, database.schema()).await?;
    let migrations = ALL.iter().map(|&(version, description, text)| {
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            text.into_sql_str(),
            false,
        )
    });
    patience(&mut connection, PATIENCE).await?;
    Migrator::with_migrations(migrations.collect())
        .run(&mut connection)
        .await
        .map_err(|error| Error::Store(format!("the schema could not be migrated: {error}")))?;
    let now = nodes::clock(&mut connection).await?;
    partitions::prepare(&mut connection, now).await?;
    if leases::restore(&mut connection, rand::random()).await? {
        tracing::warn!(
            "the table lease_keys had no row; it has a new key: restart all servers, tasks in workers' hands are handed out again"
        );
    }
    for role in grants::servers(&mut connection).await? {
        grants::grant(&mut connection, &role).await?;
    }
    connection.close().await?;
    Ok(())
}

/// Time that a migration waits for a lock that another session holds.
const PATIENCE: &str = "60s";

async fn patience(connection: &mut PgConnection, span: &str) -> Result<(), sqlx::Error> {
    sqlx::query("-- schema_patience\nselect set_config('lock_timeout', $1, false)")
        .bind(span)
        .execute(connection)
        .await?;
    Ok(())
}

/// Returns the names of the tables that the migrations make.
pub(crate) fn tables() -> Vec<&'static str> {
    made("create table ", "drop table ")
}

/// Returns the names of the sequences that the migrations make beside those of tables.
pub(crate) fn sequences() -> Vec<&'static str> {
    made("create sequence ", "drop sequence ")
}

/// Returns the names in lines that begin with `make`, without those in lines that begin with
/// `drop`.
fn made(make: &'static str, drop: &'static str) -> Vec<&'static str> {
    let lines = || ALL.iter().flat_map(|(_, _, text)| text.lines());
    let name = |rest: &'static str| rest.split([' ', ';', '(']).next().unwrap_or_default();
    let named = |start| lines().filter_map(move |line| line.strip_prefix(start)).map(name);
    let gone: Vec<&str> = named(drop).collect();
    named(make).filter(|name| !gone.contains(name)).collect()
}

/// Returns whether the schema is newer than this program: there may be records that only newer programs
/// can read.
pub(crate) async fn is_newer(connection: &mut PgConnection) -> Result<bool, Error> {
    Ok(newest(connection).await? > needed())
}

/// Returns the version that the schema is at.
pub(crate) async fn newest(connection: &mut PgConnection) -> Result<i64, Error> {
    let newest: Option<i64> = sqlx::query_scalar(
        "-- schema_version\nselect max(version) from _sqlx_migrations where success",
    )
    .fetch_one(connection)
    .await?;
    Ok(newest.unwrap_or_default())
}

/// Returns the version that this program needs.
pub(crate) fn needed() -> i64 {
    ALL.iter().map(|(version, _, _)| *version).max().unwrap_or_default()
}
