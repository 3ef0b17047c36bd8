//! The only home of SQL. Each statement carries its name as a comment in its first line.
//!
//! Nothing here decides anything: it writes what it is given and returns what is there.

pub(crate) mod acts;
mod address;
pub(crate) mod alone;
pub(crate) mod batch;
pub(crate) mod bench;
pub(crate) mod blockers;
pub(crate) mod codec;
pub(crate) mod console_sessions;
pub(crate) mod contracts;
pub(crate) mod credentials;
pub(crate) mod damage;
pub(crate) mod data_erasures;
pub(crate) mod databases;
pub(crate) mod definitions;
pub(crate) mod erasures;
pub(crate) mod facts;
pub(crate) mod fences;
pub(crate) mod flow;
pub(crate) mod flow_upkeep;
pub(crate) mod forget;
pub(crate) mod grants;
pub(crate) mod hints;
pub(crate) mod holders;
pub(crate) mod idempotency;
pub(crate) mod imports;
pub(crate) mod incidents;
pub(crate) mod index;
pub(crate) mod intake;
pub(crate) mod jobs;
pub(crate) mod journal;
pub(crate) mod keys;
pub(crate) mod leases;
pub(crate) mod links;
pub(crate) mod log;
pub(crate) mod long_work;
pub(crate) mod migrations;
pub(crate) mod moment;
pub(crate) mod namespace_grants;
pub(crate) mod nodes;
pub(crate) mod open_effects;
pub(crate) mod partitions;
pub(crate) mod pauses;
pub(crate) mod pending_events;
pub(crate) mod plans;
#[cfg(feature = "planted-bugs")]
pub(crate) mod planted;
pub(crate) mod pool;
pub(crate) mod queues;
pub(crate) mod quotas;
pub(crate) mod ready;
pub(crate) mod reprocesses;
pub(crate) mod required;
pub(crate) mod retention;
pub(crate) mod rewrite;
pub(crate) mod rows;
pub(crate) mod run_lists;
pub(crate) mod runs;
pub(crate) mod schedules;
pub(crate) mod schema;
pub(crate) mod seats;
pub(crate) mod sequence;
pub(crate) mod session;
pub(crate) mod signals;
pub(crate) mod skips;
pub(crate) mod sources;
pub(crate) mod spaces;
pub(crate) mod starts;
mod statement;
pub(crate) mod statistics;
pub(crate) mod status;
pub(crate) mod subscriptions;
pub(crate) mod supply;
pub(crate) mod sweep;
pub(crate) mod transforms;
pub(crate) mod undo_times;
pub(crate) mod versions;
pub(crate) mod walks;
pub(crate) mod workers;
pub(crate) mod workflow_retention;

use std::sync::Arc;
use std::time::Duration;

use backstitch_saga::Violation;
use sqlx::ConnectOptions;
use sqlx::postgres::{PgConnectOptions, PgConnection, PgListener, PgPool, PgPoolOptions};

use pool::Pool;
use seats::{Bounds, Reader, Seat, Seats};
use session::{Fate, Kept, Settings};
use supply::{Shortage, Supply};

use crate::Error;

/// The most connections of a namespace among those that readers share.
const READERS_EACH: usize = 3;
/// Number of connections for lists, and largest number of them for a namespace.
const LISTERS: u32 = 3;
const LISTERS_EACH: usize = 2;
/// Number of connections for kept responses of requests, and largest number of them for a
/// namespace.
const ACTORS: u32 = 3;
const ACTORS_EACH: usize = 2;
/// Number of connections over which runs are loaded into memory, and largest number of them for a
/// namespace.
const LOADERS: u32 = 3;
const LOADERS_EACH: usize = 2;
/// Number of large pages that are put together at the same time, and the largest number of them for
/// a namespace.
const PAGES: u32 = 3;
const PAGES_EACH: usize = 1;
/// The connections for the node's own chores.
const KEEPERS: u32 = 3;
/// Number of connections for the identification of callers.
const GATES: u32 = 2;
/// The connections on which notifications are heard.
const EARS: u32 = 1;
/// Time that a statement of a list may take.
const LIST_LIMIT: &str = "5s";
/// Error code of PostgreSQL for a statement that took too long.
const QUERY_CANCELED: &str = "57014";
/// Time that a connection is waited for while the namespace has all that it may have.
const SEAT_WAIT: Duration = Duration::from_secs(5);
/// Largest number of queries of a namespace that wait for a connection.
const MOST_WAITING: usize = 1_000;

/// Access to PostgreSQL.
#[derive(Clone, Debug)]
pub(crate) struct Database {
    writer: PgConnectOptions,
    /// Of committers and chores.
    settings: Settings,
    /// For what callers want to know, see [`Database::reader`].
    pub(crate) readers: Pool,
    reading: Arc<Seats>,
    /// For large pages, see [`Database::page_turn`].
    paging: Arc<Seats>,
    /// For lists, see [`Database::lister`].
    pub(crate) listers: Pool,
    listing: Arc<Seats>,
    /// For what is kept of requests, see [`Database::actor`].
    pub(crate) actors: Pool,
    acting: Arc<Seats>,
    /// For runs that are not in memory, see [`Database::loader`].
    pub(crate) loaders: Pool,
    loading: Arc<Seats>,
    /// For the node's own chores, which must not wait for callers.
    pub(crate) keepers: Pool,
    /// For the identification of callers, which waits for no other queries.
    pub(crate) gate: Pool,
    /// For what is heard by NOTIFY.
    ears: PgPool,
    /// The weeks to which committers may write without asking.
    pub(crate) weeks: partitions::Weeks,
    /// State of the supply of new sessions.
    supply: Supply,
}

/// An error of the store, classified by what to do next.
#[derive(Debug)]
pub(crate) enum StoreError {
    /// PostgreSQL refuses what it was given; nothing was written.
    Rejected(String),
    /// Nothing was written; the same may well work now.
    Retryable(String),
    /// Nothing was written.
    NotCommitted(String),
    /// The answer was lost; it may have been written.
    Indeterminate(String),
}

impl StoreError {
    pub(crate) fn message(&self) -> &str {
        match self {
            StoreError::Rejected(message)
            | StoreError::Retryable(message)
            | StoreError::NotCommitted(message)
            | StoreError::Indeterminate(message) => message,
        }
    }
}

impl StoreError {
    /// Returns whether a lock was waited for in vain.
    pub(crate) fn is_lock(&self) -> bool {
        matches!(self, StoreError::Retryable(message) if message.ends_with("[55P03]"))
    }
}

impl From<sqlx::Error> for StoreError {
    fn from(error: sqlx::Error) -> StoreError {
        let text = error.to_string();
        match &error {
            sqlx::Error::Database(database) => {
                let code = database.code();
                let code = code.as_deref().unwrap_or_default();
                let text = format!("{text} [{code}]");
                let meaning = session::meaning(code);
                if meaning.suspect {
                    session::suspect();
                }
                match meaning.fate {
                    Fate::Rejected => StoreError::Rejected(text),
                    Fate::Retryable => StoreError::Retryable(text),
                    Fate::NotWritten => StoreError::NotCommitted(text),
                    Fate::Unknown => StoreError::Indeterminate(text),
                }
            }
            sqlx::Error::Encode(_) | sqlx::Error::Configuration(_) => StoreError::Rejected(text),
            _ => StoreError::Indeterminate(text),
        }
    }
}

impl From<StoreError> for Error {
    fn from(trouble: StoreError) -> Error {
        Error::Store(trouble.message().to_owned())
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Error {
        StoreError::from(error).into()
    }
}

impl Database {
    /// Looks where the tables are, and says how to connect; sessions are opened when they are needed.
    pub(crate) async fn open(url: &str, readers: u32) -> Result<Database, Error> {
        let options = connect_options(url)?;
        let path = session::search_path(&options).await?;
        // Plans of committers and chores must stay good while tables grow from nothing: always the index of the row
        // that is written, never a scan or a hash of the table, and one plan per statement.
        let settings = Settings::new(
            &options,
            &path,
            &[
                ("plan_cache_mode", "force_generic_plan"),
                ("enable_seqscan", "off"),
                ("enable_hashjoin", "off"),
                ("enable_mergejoin", "off"),
                ("statement_timeout", "20s"),
                ("lock_timeout", "15s"),
            ],
        );
        let reading = [("statement_timeout", "60s"), ("lock_timeout", "10s")];
        let reading = Settings::new(&options, &path, &reading);
        let writer = options.clone().statement_cache_capacity(256);
        // Callers are identified however busy all other connections are.
        let looking = [("statement_timeout", "5s"), ("lock_timeout", "3s")];
        let looking = Settings::new(&options, &path, &looking);
        let lists = Settings::new(&options, &path, &[("statement_timeout", LIST_LIMIT)]);
        let supply = Supply::default();
        let lazy = |connections, settings: &Settings, to: &PgConnectOptions| {
            pool(connections, settings.clone(), &supply).connect_lazy_with(to.clone())
        };
        let pool = |connections, settings: &Settings, to: &PgConnectOptions| {
            Pool::new(lazy(connections, settings, to), &supply)
        };
        let ears = lazy(EARS, &reading, &options);
        let gate = pool(GATES, &looking, &options);
        let listers = pool(LISTERS, &lists, &options);
        let actors = pool(ACTORS, &reading, &options);
        let readers_total = readers.max(2);
        let readers = pool(readers_total, &reading, &options);
        let keepers = pool(KEEPERS, &settings, &writer);
        let loaders = pool(LOADERS, &settings, &writer);
        let weeks = partitions::Weeks::default();
        // One is left for what belongs to no namespace.
        let reading = seats(readers_total - 1, READERS_EACH);
        let paging = seats(PAGES, PAGES_EACH);
        let loading = seats(LOADERS, LOADERS_EACH);
        let (listing, acting) = (seats(LISTERS, LISTERS_EACH), seats(ACTORS, ACTORS_EACH));
        Ok(Database {
            writer,
            settings,
            readers,
            reading,
            paging,
            listers,
            listing,
            actors,
            acting,
            loaders,
            loading,
            keepers,
            gate,
            ears,
            weeks,
            supply,
        })
    }

    /// Returns a connection for a question about something of a namespace.
    ///
    /// # Errors
    /// [`Error::Busy`] when the namespace has all that it may have, for too long; when the database cannot be reached.
    pub(crate) async fn reader(&self, namespace: &str) -> Result<Reader, Error> {
        Reader::of(&self.readers, &self.reading, namespace).await
    }

    /// Returns a connection for a list. Its statements may take [`LIST_LIMIT`], see [`listed`].
    ///
    /// # Errors
    /// As [`Database::reader`].
    pub(crate) async fn lister(&self, namespace: &str) -> Result<Reader, Error> {
        Reader::of(&self.listers, &self.listing, namespace).await
    }

    /// Returns a connection for what is kept of a request, so that an act waits for no question.
    ///
    /// # Errors
    /// As [`Database::reader`].
    pub(crate) async fn actor(&self, namespace: &str) -> Result<Reader, Error> {
        Reader::of(&self.actors, &self.acting, namespace).await
    }

    /// Returns a connection over which runs of a namespace are loaded into memory.
    ///
    /// # Errors
    /// As [`Database::reader`].
    pub(crate) async fn loader(&self, namespace: &str) -> Result<Reader, Error> {
        Reader::of(&self.loaders, &self.loading, namespace).await
    }

    /// Returns a turn to build a large page, of which a namespace has one at a time.
    ///
    /// # Errors
    /// [`Error::Busy`] when too many of the namespace wait already, or for too long.
    pub(crate) async fn page_turn(&self, namespace: &str) -> Result<Seat, Error> {
        self.paging.take(namespace).await
    }

    /// Returns the seats at the pools, by the pools' names.
    pub(crate) fn seats(&self) -> [(&'static str, &Seats); 4] {
        [
            ("readers", &self.reading),
            ("listers", &self.listing),
            ("actors", &self.acting),
            ("loaders", &self.loading),
        ]
    }

    /// Returns the schema with the tables.
    pub(crate) fn schema(&self) -> &str {
        self.settings.schema()
    }

    /// Refuses a pooler that gives each transaction another session.
    pub(crate) async fn refuse_pooler(&self) -> Result<(), Error> {
        session::refuse_pooler(&self.writer, &self.settings).await
    }

    /// Refuses a PostgreSQL that grants fewer sessions than a server needs whose committers have `committing`.
    pub(crate) async fn refuse_too_few_sessions(
        &self,
        connection: &mut PgConnection,
        committing: u32,
    ) -> Result<(), Error> {
        supply::refuse_too_few(connection, self.needed(committing)).await
    }

    /// Returns the largest number of sessions that a server needs, those of its committers
    /// included.
    fn needed(&self, committing: u32) -> u32 {
        let pools = self.pools().map(Pool::limit).iter().sum::<u32>();
        committing.saturating_add(pools + EARS)
    }

    fn pools(&self) -> [&Pool; 6] {
        [&self.readers, &self.listers, &self.actors, &self.loaders, &self.keepers, &self.gate]
    }

    /// Reports that new sessions are unavailable, for how long, and what to do about it, for a server whose committers
    /// have `committing`.
    pub(crate) fn shortage(&self, committing: u32) -> Option<(Duration, String)> {
        let Shortage { since, why } = self.supply.shortage()?;
        let needed = self.needed(committing);
        let open = self.pools().map(|pool| pool.size()).iter().sum::<u32>();
        let waiting = u32::try_from(self.supply.waiting()).unwrap_or(u32::MAX);
        let (has, seconds) = (open.saturating_sub(waiting), since.as_secs());
        if let Some(message) = supply::unreachable(&why, seconds) {
            return Some((since, message));
        }
        let message = format!(
            "this server needs up to {needed} sessions with PostgreSQL, has {has} beside those of its committers, and has \
             got no other for {seconds} s ({why}); raise max_connections, the connection limit of the role or the \
             database, or the size of the pooler's pool"
        );
        Some((since, message))
    }

    /// Hears what is rung for on `channels`, over a connection of its own.
    pub(crate) async fn listen(&self, channels: &[&str]) -> Result<PgListener, sqlx::Error> {
        let wait = self.supply.wait();
        let connected = PgListener::connect_with(&self.ears).await;
        if let Err(error) = &connected {
            wait.failed(&error.to_string());
        } else {
            drop(wait);
        }
        let mut listener = connected?;
        listener.listen_all(channels.iter().copied()).await?;
        Ok(listener)
    }

    /// Returns a connection for a committer.
    pub(crate) async fn writer(&self) -> Result<PgConnection, StoreError> {
        let wait = self.supply.wait();
        let opened = session::open(&self.writer, &self.settings).await;
        match &opened {
            Ok(_) => self.supply.opened(),
            Err(trouble) => wait.failed(trouble.message()),
        }
        opened
    }

    /// Returns the connection that a committer keeps while it may be used, or a new one for it to keep.
    pub(crate) async fn kept<'a>(
        &self,
        kept: &'a mut Option<Kept>,
    ) -> Result<&'a mut PgConnection, StoreError> {
        if let Some(session) = kept
            && !session.is_usable(&self.settings).await
        {
            *kept = None;
        }
        match kept {
            Some(session) => Ok(session.connection()),
            none @ None => Ok(none.insert(Kept::new(self.writer().await?)).connection()),
        }
    }
}

/// Returns seats at `total` connections.
fn seats(total: u32, each: usize) -> Arc<Seats> {
    let total = usize::try_from(total).unwrap_or(usize::MAX);
    Seats::new(Bounds { total, each, waiting: MOST_WAITING, wait: SEAT_WAIT })
}

/// Returns what a list found. A statement that took too long says what to do about it.
pub(crate) fn listed<T>(found: Result<T, sqlx::Error>) -> Result<T, Error> {
    match found {
        Err(sqlx::Error::Database(error)) if error.code().as_deref() == Some(QUERY_CANCELED) => {
            let message = format!(
                "the list took longer than {LIST_LIMIT}; narrow it by a workflow, a state, a time or a shorter page"
            );
            Err(Error::invalid("list_too_slow", Violation::new("", "list_too_slow", message)))
        }
        found => Ok(found?),
    }
}

/// Returns a pool of sessions with these settings, each of which is checked before it is used
/// again.
fn pool(connections: u32, settings: Settings, supply: &Supply) -> PgPoolOptions {
    let (check, supply) = (settings.clone(), supply.clone());
    PgPoolOptions::new()
        .max_connections(connections)
        .acquire_timeout(Duration::from_secs(10))
        .test_before_acquire(false)
        .after_connect(move |connection, _| {
            let (settings, supply) = (settings.clone(), supply.clone());
            Box::pin(async move {
                settings.apply(connection).await?;
                supply.opened();
                Ok(())
            })
        })
        .before_acquire(move |connection, about| {
            let settings = check.clone();
            Box::pin(async move { settings.check_in_time(connection, about.age).await })
        })
}

/// Waits until PostgreSQL takes connections, at most for `within`.
pub(crate) async fn wait_for_server(url: &str, within: Duration) -> Result<(), Error> {
    session::wait_for_server(&connect_options(url)?, within).await
}

/// Opens one session for work beside a node.
pub(crate) async fn connect(url: &str) -> Result<PgConnection, Error> {
    let options = connect_options(url)?;
    let path = session::search_path(&options).await?;
    Ok(session::open(&options, &Settings::new(&options, &path, &[])).await?)
}

pub(crate) fn connect_options(url: &str) -> Result<PgConnectOptions, Error> {
    address::check(url)?;
    let options: PgConnectOptions = url
        .parse()
        .map_err(|error| Error::Store(format!("the database URL makes no sense: {error}")))?;
    // Poolers know nothing of it, and the default of PostgreSQL is as exact.
    let options = options.extra_float_digits(None::<i8>);
    Ok(options.application_name("backstitch").disable_statement_logging())
}
