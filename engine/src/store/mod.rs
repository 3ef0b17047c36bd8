//! The only home of SQL. Each statement carries its name as a comment in its first line.
//!
//! Nothing here decides anything: it writes what it is given and returns what is there.

pub(crate) mod acts;
pub(crate) mod batch;
pub(crate) mod bench;
pub(crate) mod codec;
pub(crate) mod credentials;
pub(crate) mod databases;
pub(crate) mod definitions;
pub(crate) mod facts;
pub(crate) mod fences;
pub(crate) mod flow;
pub(crate) mod flow_upkeep;
pub(crate) mod idempotency;
pub(crate) mod incidents;
pub(crate) mod index;
pub(crate) mod jobs;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod migrations;
pub(crate) mod moment;
pub(crate) mod nodes;
pub(crate) mod partitions;
pub(crate) mod pauses;
#[cfg(feature = "planted-bugs")]
pub(crate) mod planted;
pub(crate) mod queues;
pub(crate) mod ready;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod sequence;
pub(crate) mod signals;
pub(crate) mod starts;
mod statement;
pub(crate) mod status;
pub(crate) mod sweep;
pub(crate) mod versions;
pub(crate) mod workers;

use std::time::Duration;

use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};
use sqlx::{ConnectOptions, Connection};

use crate::Error;

/// How PostgreSQL is reached.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    writer: PgConnectOptions,
    /// For what callers want to know.
    pub(crate) readers: PgPool,
    /// For the node's own chores, which must not wait for callers.
    pub(crate) keepers: PgPool,
    /// For what is heard by NOTIFY.
    ears: PgPool,
    /// Where committers may write without asking.
    pub(crate) weeks: partitions::Weeks,
}

/// What went wrong, as far as it matters for what to do next.
#[derive(Debug)]
pub(crate) enum Trouble {
    /// PostgreSQL refuses what it was given; nothing was written.
    Data(String),
    /// Nothing was written; the same may well work now.
    Again(String),
    /// Nothing was written.
    Failed(String),
    /// The answer was lost; it may have been written.
    Unknown(String),
}

impl Trouble {
    pub(crate) fn message(&self) -> &str {
        match self {
            Trouble::Data(message)
            | Trouble::Again(message)
            | Trouble::Failed(message)
            | Trouble::Unknown(message) => message,
        }
    }
}

impl From<sqlx::Error> for Trouble {
    fn from(error: sqlx::Error) -> Trouble {
        let text = error.to_string();
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code();
                let code = code.as_deref().unwrap_or_default();
                let text = format!("{text} [{code}]");
                match (code, code.get(..2).unwrap_or_default()) {
                    ("40001" | "40P01" | "55P03", _) => Trouble::Again(text),
                    (_, "22" | "23" | "54") => Trouble::Data(text),
                    // The server goes down or breaks off: whether before or after the commit is not said.
                    (_, "08" | "57" | "58" | "XX" | "40") => Trouble::Unknown(text),
                    _ => Trouble::Failed(text),
                }
            }
            sqlx::Error::Encode(_) | sqlx::Error::Configuration(_) => Trouble::Data(text),
            _ => Trouble::Unknown(text),
        }
    }
}

impl From<Trouble> for Error {
    fn from(trouble: Trouble) -> Error {
        Error::Store(trouble.message().to_owned())
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Error {
        Trouble::from(error).into()
    }
}

impl Database {
    /// Says how to connect. Connects to nothing yet.
    pub(crate) fn new(url: &str, readers: u32) -> Result<Database, Error> {
        let options = connect_options(url)?;
        // Plans of committers and chores must stay good while tables grow from nothing: always the index of the row that is
        // written, never a scan or a hash of the table, and one plan per statement.
        let writer = options.clone().statement_cache_capacity(256).options([
            ("plan_cache_mode", "force_generic_plan"),
            ("enable_seqscan", "off"),
            ("enable_hashjoin", "off"),
            ("enable_mergejoin", "off"),
            ("statement_timeout", "20s"),
        ]);
        let pool = |connections: u32| {
            PgPoolOptions::new()
                .max_connections(connections)
                .acquire_timeout(Duration::from_secs(10))
        };
        let ears = pool(1).connect_lazy_with(options.clone());
        let readers =
            pool(readers).connect_lazy_with(options.options([("statement_timeout", "60s")]));
        let keepers = pool(3).connect_lazy_with(writer.clone());
        Ok(Database { writer, readers, keepers, ears, weeks: partitions::Weeks::default() })
    }

    /// Hears what is rung for on `channel`, over a connection of its own.
    pub(crate) async fn listen(&self, channel: &str) -> Result<PgListener, sqlx::Error> {
        let mut listener = PgListener::connect_with(&self.ears).await?;
        listener.listen(channel).await?;
        Ok(listener)
    }

    /// A connection for a committer.
    pub(crate) async fn writer(&self) -> Result<PgConnection, Trouble> {
        let connected =
            tokio::time::timeout(Duration::from_secs(10), PgConnection::connect_with(&self.writer));
        match connected.await {
            Ok(Ok(connection)) => Ok(connection),
            Ok(Err(error)) => Err(Trouble::Failed(format!("cannot connect: {error}"))),
            Err(_) => Err(Trouble::Failed("cannot connect within 10 s".to_owned())),
        }
    }

    /// The connection that a committer keeps, or a new one for it to keep.
    pub(crate) async fn kept<'a>(
        &self,
        connection: &'a mut Option<PgConnection>,
    ) -> Result<&'a mut PgConnection, Trouble> {
        match connection {
            Some(connection) => Ok(connection),
            none @ None => Ok(none.insert(self.writer().await?)),
        }
    }
}

pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, Error> {
    let options: PgConnectOptions = url
        .parse()
        .map_err(|error| Error::Store(format!("the database URL makes no sense: {error}")))?;
    // PostgreSQL looks into a schema named like the user first, and `backstitch` is what applications see of us, not
    // where our tables are.
    let placed = options.get_options().is_some_and(|options| options.contains("search_path"));
    let options = if placed { options } else { options.options([("search_path", "public")]) };
    Ok(options
        .application_name("backstitch")
        .options([("jit", "off"), ("timezone", "UTC"), ("client_min_messages", "warning")])
        .disable_statement_logging())
}
