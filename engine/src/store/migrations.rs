//! The schema, forward only, embedded in the program.

use sqlx::migrate::{Migration, MigrationType, Migrator};
use sqlx::postgres::PgConnection;
use sqlx::{Connection, SqlSafeStr};

use crate::Error;

/// All migrations in order.
const ALL: [(i64, &str, &str); 18] = [
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
    (34, "quotas", include_str!("../../../migrations/0034_quotas.sql")),
];

/// Runs the migrations that are missing, under an advisory lock.
pub(crate) async fn run(url: &str) -> Result<(), Error> {
    super::Database::new(url, 1)?.refuse_pooler().await?;
    let mut connection = super::connect(url).await?;
    let migrations = ALL.map(|(version, description, text)| {
        Migration::new(
            version,
            description.into(),
            MigrationType::Simple,
            text.into_sql_str(),
            false,
        )
    });
    Migrator::with_migrations(migrations.to_vec())
        .run(&mut connection)
        .await
        .map_err(|error| Error::Store(format!("the schema could not be migrated: {error}")))?;
    super::partitions::prepare(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

/// Whether the schema is newer than this program: there may be records that only newer programs can read.
pub(crate) async fn is_newer(connection: &mut PgConnection) -> Result<bool, Error> {
    let newest: Option<i64> = sqlx::query_scalar(
        "-- schema_newest\nselect max(version) from _sqlx_migrations where success",
    )
    .fetch_one(connection)
    .await?;
    Ok(newest.unwrap_or_default() > needed())
}

fn needed() -> i64 {
    ALL.iter().map(|(version, _, _)| *version).max().unwrap_or_default()
}

/// Checks that the schema is the one that this program was written for, or a newer one.
pub(crate) async fn check(connection: &mut PgConnection) -> Result<(), Error> {
    let table: Option<String> =
        sqlx::query_scalar("-- schema_table\nselect to_regclass('_sqlx_migrations')::text")
            .fetch_one(&mut *connection)
            .await?;
    let newest: Option<i64> = match table {
        None => None,
        Some(_) => {
            sqlx::query_scalar(
                "-- schema_version\nselect max(version) from _sqlx_migrations where success",
            )
            .fetch_one(connection)
            .await?
        }
    };
    let needed = needed();
    match newest {
        Some(version) if version >= needed => Ok(()),
        found => Err(Error::Store(format!(
            "the schema is at version {}, this program needs {needed}; run `backstitch migrate`",
            found.unwrap_or(0)
        ))),
    }
}
