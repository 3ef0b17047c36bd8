//! Sessions with PostgreSQL: how one is set up, what an SQLSTATE means, and when a session must not be used again.
//!
//! Settings are made by SQL after connecting and not by startup options, because poolers drop those. A session is
//! checked when it is taken from a pool, and once a second while a committer keeps it. An error that says that a
//! session cannot be relied on makes all sessions suspect that were opened before it: each is closed instead of being
//! used again.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use sqlx::postgres::{PgConnectOptions, PgConnection};
use sqlx::{AssertSqlSafe, Connection, Row};

use super::{StoreError, schema};
use crate::Error;

/// Time that connecting may take.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);
/// Time that the check of a session may take before it is abandoned: less than a caller waits for one
/// from a pool.
const CHECK_LIMIT: Duration = Duration::from_secs(5);
/// Pause between two attempts to reach a PostgreSQL that is not there yet.
const CONNECT_AGAIN: Duration = Duration::from_millis(250);
/// Interval of checks of a session that is kept.
const CHECK_EVERY: Duration = Duration::from_secs(1);
/// Longest life of a read-only session. While the whole database is read-only a younger one serves reads.
const READ_ONLY_FOR: Duration = Duration::from_secs(1);
/// The log names unusable sessions at most this often.
const TOLD_EVERY: Duration = Duration::from_secs(5);
/// Number of comparisons of the two sessions of the pooler check.
const ROUNDS: usize = 3;

/// Settings of every session.
const BASE: [(&str, &str); 5] = [
    ("jit", "off"),
    ("timezone", "UTC"),
    ("client_min_messages", "warning"),
    ("idle_in_transaction_session_timeout", "60s"),
    // Set only here: a session without it is not the one that was set up.
    (MARK, "ours"),
];
const MARK: &str = "backstitch.session";
const SEARCH_PATH: &str = "search_path";

/// Meaning of an SQLSTATE.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Meaning {
    /// Result of the statement.
    pub(super) fate: Fate,
    /// The session must not be used again, nor those that were opened before.
    pub(super) suspect: bool,
}

/// Result of a statement that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// PostgreSQL refuses what it was given.
    Rejected,
    /// Nothing was written; the same may work now.
    Retryable,
    /// Nothing was written.
    NotWritten,
    /// It is unknown whether it was written.
    Unknown,
}

/// Classifies an SQLSTATE.
pub(super) fn meaning(code: &str) -> Meaning {
    let fate = match (code, code.get(..2).unwrap_or_default()) {
        ("40001" | "40P01" | "55P03", _) => Fate::Retryable,
        (_, "22" | "23" | "54") => Fate::Rejected,
        // The server goes down or breaks off: whether before or after the commit is not said.
        (_, "08" | "57" | "58" | "XX" | "40") => Fate::Unknown,
        _ => Fate::NotWritten,
    };
    let suspect = matches!(
        code,
        // Read-only, as after a failover; inside a transaction that failed or was left open.
        "25006" | "25P02" | "25P03" | "25001"
        // A plan from before a change of a table; a prepared statement that does not exist any more,
        // or is somebody else's.
        | "0A000" | "26000" | "42P05"
        // The schema that the search path names does not exist.
        | "3F000"
        | "57P01" | "57P02" | "57P03" | "57P05"
    ) || code.starts_with("08");
    Meaning { fate, suspect }
}

static BEGAN: LazyLock<Instant> = LazyLock::new(Instant::now);
/// Time at which sessions became suspect, in milliseconds since `BEGAN`; 0 is never.
static SUSPECT_AT: AtomicU64 = AtomicU64::new(0);
static TOLD_AT: AtomicU64 = AtomicU64::new(0);

fn now() -> u64 {
    u64::try_from(BEGAN.elapsed().as_millis()).unwrap_or(u64::MAX).saturating_add(1)
}

/// Makes all sessions suspect that are open now, at most once a second.
pub(super) fn suspect() {
    let (last, now) = (suspicion(), now());
    let every = u64::try_from(CHECK_EVERY.as_millis()).unwrap_or(u64::MAX);
    if last == 0 || now.saturating_sub(last) >= every {
        SUSPECT_AT.fetch_max(now, Ordering::Relaxed);
    }
}

/// Notes that a session did not answer in time: its server may have vanished, for all sessions that are open now.
pub(crate) fn unanswered() {
    tell("PostgreSQL did not answer in time");
    suspect();
}

/// Returns a mark that changes when sessions become suspect.
pub(crate) fn suspicion() -> u64 {
    SUSPECT_AT.load(Ordering::Relaxed)
}

/// Ends when sessions became suspect after `mark`.
pub(crate) async fn suspected_since(mark: u64) {
    while suspicion() == mark {
        tokio::time::sleep(CHECK_EVERY).await;
    }
}

/// Returns whether a session that was opened so long ago is suspect.
fn is_suspect(age: Duration) -> bool {
    let age = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
    let suspect_at = suspicion();
    suspect_at > 0 && now().saturating_sub(age) <= suspect_at
}

/// Logs that a session is left, now and then.
fn tell(why: &str) {
    let (last, now) = (TOLD_AT.load(Ordering::Relaxed), now());
    let every = u64::try_from(TOLD_EVERY.as_millis()).unwrap_or(u64::MAX);
    if last == 0 || now.saturating_sub(last) >= every {
        TOLD_AT.store(now, Ordering::Relaxed);
        tracing::warn!(why, "a session with PostgreSQL is closed and opened anew");
    }
}

/// Settings of the sessions of one pool or of the committers.
#[derive(Clone, Debug)]
pub(crate) struct Settings(Arc<Vec<(Cow<'static, str>, Cow<'static, str>)>>);

impl Settings {
    /// Returns the settings of every session and `more`, for a connection with `options`. Tables are searched in `path`
    /// alone: in no other schema, and not in one that is named like the user.
    pub(super) fn new(
        options: &PgConnectOptions,
        path: &str,
        more: &[(&'static str, &'static str)],
    ) -> Settings {
        let mut all = asked_for(options.get_options().unwrap_or_default());
        all.retain(|(name, _)| name != SEARCH_PATH);
        all.push((SEARCH_PATH.into(), path.to_owned().into()));
        let ours = BASE.iter().chain(more).map(|(name, value)| ((*name).into(), (*value).into()));
        all.extend(ours);
        Settings(Arc::new(all))
    }

    /// Sets a session up. By the simple protocol, which poolers of every mode let through.
    pub(super) async fn apply(&self, connection: &mut PgConnection) -> Result<(), sqlx::Error> {
        let quoted = |text: &str| format!("'{}'", text.replace('\'', "''"));
        let sets = self
            .0
            .iter()
            .map(|(name, value)| format!("set_config({}, {}, false)", quoted(name), quoted(value)));
        let sets = sets.collect::<Vec<_>>().join(", ");
        let text = format!("-- session_settings\nselect {sets}");
        sqlx::raw_sql(AssertSqlSafe(text)).execute(connection).await?;
        Ok(())
    }

    /// Returns the schema with the tables.
    pub(super) fn schema(&self) -> &str {
        let path = self.of(SEARCH_PATH).unwrap_or_default();
        path.split(',').next().unwrap_or_default().trim().trim_matches('"')
    }

    fn of(&self, wanted: &str) -> Option<&str> {
        self.0.iter().rev().find(|(name, _)| name == wanted).map(|(_, value)| &**value)
    }

    /// Does the same within a time. Where none answers, others are not asked.
    pub(super) async fn check_in_time(
        &self,
        connection: &mut PgConnection,
        age: Duration,
    ) -> Result<bool, sqlx::Error> {
        match tokio::time::timeout(CHECK_LIMIT, self.check(connection, age)).await {
            Ok(checked) => checked,
            Err(late) => {
                unanswered();
                Err(sqlx::Error::Io(late.into()))
            }
        }
    }

    /// Returns whether a session of that age may be used. An error means that it may not.
    async fn check(
        &self,
        connection: &mut PgConnection,
        age: Duration,
    ) -> Result<bool, sqlx::Error> {
        if is_suspect(age) {
            return Ok(false);
        }
        let row = sqlx::query(
            "-- session_check\n\
             select current_setting('transaction_read_only'), coalesce(current_setting($1, true), ''), \
             current_setting('search_path')",
        )
        .bind(MARK)
        .fetch_one(connection)
        .await?;
        let (read_only, mark, path): (String, String, String) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        if Some(mark.as_str()) != self.of(MARK) || Some(path.as_str()) != self.of(SEARCH_PATH) {
            tell("its settings are not those that it was given");
            suspect();
            return Ok(false);
        }
        if read_only == "on" && age >= READ_ONLY_FOR {
            tell("it is read-only");
            suspect();
            return Ok(false);
        }
        Ok(true)
    }
}

/// Returns the settings in the `options` of a connection: `-c name=value` and `--name=value`.
fn asked_for(options: &str) -> Vec<(Cow<'static, str>, Cow<'static, str>)> {
    let mut words = Vec::new();
    let (mut word, mut escaped) = (String::new(), false);
    for letter in options.chars() {
        match letter {
            _ if escaped => {
                word.push(letter);
                escaped = false;
            }
            '\\' => escaped = true,
            letter if letter.is_whitespace() => words.push(std::mem::take(&mut word)),
            letter => word.push(letter),
        }
    }
    words.push(word);
    let mut found = Vec::new();
    let mut words = words.into_iter().filter(|word| !word.is_empty());
    while let Some(word) = words.next() {
        let setting = match (word.strip_prefix("--"), word.strip_prefix("-c")) {
            (Some(setting), _) => Some(setting.to_owned()),
            (None, Some("")) => words.next(),
            (None, setting) => setting.map(str::to_owned),
        };
        let pair = setting.as_deref().and_then(|setting| setting.split_once('='));
        if let Some((name, value)) = pair {
            found.push((name.replace('-', "_").into(), value.to_owned().into()));
        }
    }
    found
}

/// Returns the search path of sessions: the one that the URL names, or the schema in which the tables are.
pub(super) async fn search_path(options: &PgConnectOptions) -> Result<String, Error> {
    let asked = asked_for(options.get_options().unwrap_or_default());
    if let Some((_, path)) = asked.into_iter().rev().find(|(name, _)| name == SEARCH_PATH) {
        return Ok(path.into_owned());
    }
    let settings = Settings::new(options, "pg_catalog", &[]);
    let mut connection = open(options, &settings).await?;
    let found = schema::find(&mut connection).await?;
    Kept::new(connection).close().await;
    Ok(found.to_owned())
}

/// Opens a session outside of the pools.
pub(super) async fn open(
    options: &PgConnectOptions,
    settings: &Settings,
) -> Result<PgConnection, StoreError> {
    let opened = async {
        let mut connection = PgConnection::connect_with(options).await?;
        settings.apply(&mut connection).await?;
        Ok(connection)
    };
    match tokio::time::timeout(CONNECT_LIMIT, opened).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(error)) => {
            let error: sqlx::Error = error;
            Err(StoreError::NotCommitted(format!("cannot connect: {error}")))
        }
        Err(_) => {
            let limit = CONNECT_LIMIT.as_secs();
            Err(StoreError::NotCommitted(format!("cannot connect within {limit} s")))
        }
    }
}

/// Waits until PostgreSQL accepts connections, at most for `within`: it may be starting, full or not there yet. Any
/// other failure, such as a wrong password, is returned immediately.
pub(super) async fn wait_for_server(
    options: &PgConnectOptions,
    within: Duration,
) -> Result<(), Error> {
    let until = Instant::now() + within;
    let mut told = false;
    loop {
        let connected = PgConnection::connect_with(options);
        let error = match tokio::time::timeout(CONNECT_LIMIT, connected).await {
            Ok(Ok(connection)) => {
                // It has answered; an error in closing it does not matter.
                let _ = connection.close().await;
                return Ok(());
            }
            Ok(Err(error)) if is_temporary(&error) => error.to_string(),
            Ok(Err(error)) => return Err(Error::Store(format!("cannot connect: {error}"))),
            Err(_) => format!("no answer within {} s", CONNECT_LIMIT.as_secs()),
        };
        if Instant::now() + CONNECT_AGAIN > until {
            let seconds = within.as_secs_f32();
            return Err(Error::Store(format!("cannot connect within {seconds} s: {error}")));
        }
        if !std::mem::replace(&mut told, true) {
            tracing::warn!(%error, limit = ?within, "waiting for PostgreSQL");
        }
        tokio::time::sleep(CONNECT_AGAIN).await;
    }
}

/// Tells failures to connect that pass by themselves.
fn is_temporary(error: &sqlx::Error) -> bool {
    match error {
        sqlx::Error::Io(_) => true,
        // Starting or stopping, or no connection is free.
        sqlx::Error::Database(error) => {
            let code = error.code();
            let code = code.as_deref().unwrap_or_default();
            code.starts_with("08") || code.starts_with("57P0") || code == "53300"
        }
        _ => false,
    }
}

/// A session that a committer keeps.
#[derive(Debug)]
pub(crate) struct Kept {
    connection: PgConnection,
    opened_at: Instant,
    checked_at: Instant,
}

impl Kept {
    pub(super) fn new(connection: PgConnection) -> Kept {
        let now = Instant::now();
        Kept { connection, opened_at: now, checked_at: now }
    }

    pub(super) fn connection(&mut self) -> &mut PgConnection {
        &mut self.connection
    }

    /// Returns whether it may still be used; PostgreSQL is asked once a second.
    pub(super) async fn is_usable(&mut self, settings: &Settings) -> bool {
        let age = self.opened_at.elapsed();
        if is_suspect(age) {
            return false;
        }
        if self.checked_at.elapsed() < CHECK_EVERY {
            return true;
        }
        self.checked_at = Instant::now();
        matches!(settings.check_in_time(&mut self.connection, age).await, Ok(true))
    }

    /// Closes the session in order.
    pub(crate) async fn close(self) {
        // It is of no use any more whatever the answer.
        let _ = self.connection.close().await;
    }
}

/// Refuses a pooler that gives each transaction another session. Two sessions each set a mark of their own and must
/// find it again; behind such a pooler they meet.
pub(super) async fn refuse_pooler(
    options: &PgConnectOptions,
    settings: &Settings,
) -> Result<(), Error> {
    let mut sessions = [open(options, settings).await?, open(options, settings).await?];
    for _ in 0..ROUNDS {
        let mut found = Vec::with_capacity(sessions.len() * 2);
        for (place, session) in sessions.iter_mut().enumerate() {
            found.push(mark(session, Some(&place.to_string())).await?);
        }
        for session in &mut sessions {
            found.push(mark(session, None).await?);
        }
        let [Some(first), Some(second), Some(first_again), Some(second_again)] = &found[..] else {
            return Err(pooled());
        };
        let own = (first_again.1 == "0") && (second_again.1 == "1");
        if !own || first.0 == second.0 || first != first_again || second != second_again {
            return Err(pooled());
        }
    }
    for session in sessions {
        Kept::new(session).close().await;
    }
    Ok(())
}

fn pooled() -> Error {
    Error::Store(
        "the database URL leads to a connection pooler that gives each transaction another session; \
         connect to PostgreSQL itself or use session mode"
            .to_owned(),
    )
}

/// Sets the mark of a session, if one is given. Returns the session's process and its mark; `None` if a statement met
/// one that was prepared by another session.
async fn mark(
    session: &mut PgConnection,
    mark: Option<&str>,
) -> Result<Option<(i32, String)>, Error> {
    let text = match mark {
        Some(_) => "-- session_mark\nselect pg_backend_pid(), set_config($1, $2, false)",
        None => {
            "-- session_marked\nselect pg_backend_pid(), coalesce(current_setting($1, true), $2)"
        }
    };
    let found = sqlx::query(text).bind(MARK).bind(mark.unwrap_or_default());
    match found.fetch_one(session).await {
        Ok(row) => Ok(Some((row.try_get(0)?, row.try_get(1)?))),
        Err(sqlx::Error::Database(error))
            if matches!(error.code().as_deref(), Some("26000" | "42P05" | "08P01")) =>
        {
            Ok(None)
        }
        Err(error) => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_say_what_became_of_a_statement_and_of_its_session() {
        let of = |code| {
            let Meaning { fate, suspect } = meaning(code);
            (fate, suspect)
        };
        assert_eq!(of("40001"), (Fate::Retryable, false));
        assert_eq!(of("23505"), (Fate::Rejected, false));
        assert_eq!(of("25006"), (Fate::NotWritten, true));
        assert_eq!(of("25P02"), (Fate::NotWritten, true));
        assert_eq!(of("0A000"), (Fate::NotWritten, true));
        assert_eq!(of("26000"), (Fate::NotWritten, true));
        assert_eq!(of("57P01"), (Fate::Unknown, true));
        assert_eq!(of("57014"), (Fate::Unknown, false), "a statement was cancelled");
        assert_eq!(of("08006"), (Fate::Unknown, true));
        assert_eq!(of("42501"), (Fate::NotWritten, false));
        assert_eq!(of(""), (Fate::NotWritten, false));
    }

    #[test]
    fn settings_in_the_options_of_a_url_are_read() {
        let read = |text| -> Vec<(String, String)> {
            let pairs = asked_for(text).into_iter();
            pairs.map(|(name, value)| (name.into_owned(), value.into_owned())).collect()
        };
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        assert_eq!(read(""), []);
        assert_eq!(
            read(r"-c search_path=shop,\ public --work-mem=8MB  -cgeqo=off -X"),
            [pair("search_path", "shop, public"), pair("work_mem", "8MB"), pair("geqo", "off")]
        );
    }
}
