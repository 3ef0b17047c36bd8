//! Statements of the benchmark: counters, scratch databases, the floor, a standing population.

pub(crate) mod floor;
pub(crate) mod intake;
pub(crate) mod population;

use sqlx::postgres::PgConnection;
use sqlx::{AssertSqlSafe, Connection, Row};

use crate::Error;
use crate::bench::Numbers;

/// A connection that observes a database while others work on it.
#[derive(Debug)]
pub struct Gauge {
    connection: PgConnection,
}

impl Gauge {
    /// Connects.
    ///
    /// # Errors
    /// [`Error::Store`] when PostgreSQL cannot be reached.
    pub async fn connect(url: &str) -> Result<Gauge, Error> {
        Ok(Gauge { connection: connect(url).await? })
    }

    /// Returns the counters now.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn numbers(&mut self) -> Result<Numbers, Error> {
        let row = sqlx::query(
            "-- bench_numbers\n\
             select (xact_commit + xact_rollback)::bigint, pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint \
             from pg_stat_database where datname = current_database()",
        )
        .fetch_one(&mut self.connection)
        .await?;
        Ok(Numbers { transactions: row.try_get(0)?, wal_bytes: row.try_get(1)? })
    }

    /// Returns the number of runs of a workflow by outcome; for those that have not ended, by
    /// state.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn outcomes(&mut self, workflow: &str) -> Result<Vec<(String, i64)>, Error> {
        let rows = sqlx::query(
            "-- bench_outcomes\n\
             select coalesce(outcome, state), count(*) from runs where workflow = $1 group by 1 order by 1",
        )
        .bind(workflow)
        .fetch_all(&mut self.connection)
        .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
    }

    /// Returns the number of documents that were taken in, by the hand-written intake or by the
    /// engine.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn documents(&mut self, by_hand: bool) -> Result<i64, Error> {
        let table = if by_hand { "by_hand_customer" } else { "intake where mapping = 'mapped'" };
        let text = format!("-- bench_documents\nselect count(*) from {table}");
        Ok(sqlx::query_scalar(AssertSqlSafe(text)).fetch_one(&mut self.connection).await?)
    }

    /// Returns the process that serves this connection, and what the server is: version and the settings that matter.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn server(&mut self) -> Result<(i32, String), Error> {
        let row = sqlx::query(
            "-- bench_server\n\
             select pg_backend_pid(), format('PostgreSQL %s, fsync %s, synchronous_commit %s, shared_buffers %s, max_wal_size %s', \
               split_part(current_setting('server_version'), ' ', 1), current_setting('fsync'), \
               current_setting('synchronous_commit'), current_setting('shared_buffers'), current_setting('max_wal_size'))",
        )
        .fetch_one(&mut self.connection)
        .await?;
        Ok((row.try_get(0)?, row.try_get(1)?))
    }

    /// Brings the server to rest between two loads.
    ///
    /// # Errors
    /// [`Error::Store`].
    pub async fn checkpoint(&mut self) -> Result<(), Error> {
        sqlx::query("-- bench_checkpoint\ncheckpoint").execute(&mut self.connection).await?;
        Ok(())
    }
}

async fn connect(url: &str) -> Result<PgConnection, Error> {
    super::connect(url).await
}

pub(crate) async fn make_database(url: &str, name: &str) -> Result<(), Error> {
    let text = format!("-- bench_database\ncreate database {}", quoted(name));
    execute(url, text).await
}

pub(crate) async fn drop_database(url: &str, name: &str) -> Result<(), Error> {
    let text =
        format!("-- bench_database_drop\ndrop database if exists {} with (force)", quoted(name));
    execute(url, text).await
}

async fn execute(url: &str, text: String) -> Result<(), Error> {
    let mut connection = connect(url).await?;
    sqlx::query(AssertSqlSafe(text)).execute(&mut connection).await?;
    connection.close().await?;
    Ok(())
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}
