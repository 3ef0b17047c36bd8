//! The supply of sessions with PostgreSQL: whether there may be as many as a server needs, and whether one is had when
//! it is asked for. Limits of PostgreSQL are read at the start; those of a pooler show only when a session does not
//! come.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use sqlx::Row;
use sqlx::postgres::PgConnection;

use crate::Error;

/// Time that a new session may take before that is reported.
const NOTICED_AFTER: Duration = Duration::from_secs(3);
/// Time that a session that did not open counts if none was requested since.
const REMEMBERED_FOR: Duration = Duration::from_secs(15);

/// New sessions that are waited for, and the last that did not come.
#[derive(Clone, Debug, Default)]
pub(crate) struct Supply(Arc<Mutex<Inner>>);

#[derive(Debug, Default)]
struct Inner {
    next: u64,
    waiting: BTreeMap<u64, Instant>,
    missed: Option<Missed>,
}

/// A session that did not come.
#[derive(Debug)]
struct Missed {
    since: Instant,
    at: Instant,
    why: String,
}

/// Sessions cannot be had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shortage {
    /// The time since when.
    pub(crate) since: Duration,
    /// Message of PostgreSQL, or of a proxy before it.
    pub(crate) why: String,
}

/// A wait for a new session, until it is dropped.
pub(super) struct Wait<'a> {
    supply: &'a Supply,
    number: u64,
}

impl Supply {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Begins to wait for a new session.
    pub(super) fn wait(&self) -> Wait<'_> {
        let mut inner = self.lock();
        let number = inner.next;
        inner.next += 1;
        inner.waiting.insert(number, Instant::now());
        Wait { supply: self, number }
    }

    /// Notes that a new session was opened.
    pub(super) fn opened(&self) {
        if let Some(missed) = self.lock().missed.take() {
            let since = missed.since.elapsed();
            tracing::info!(?since, "sessions with PostgreSQL are to be had again");
        }
    }

    /// Returns the number of new sessions that are being opened.
    pub(super) fn waiting(&self) -> usize {
        self.lock().waiting.len()
    }

    /// Returns the time for which sessions have been unavailable.
    pub(crate) fn shortage(&self) -> Option<Shortage> {
        let inner = self.lock();
        let missed = inner
            .missed
            .as_ref()
            .filter(|missed| !inner.waiting.is_empty() || missed.at.elapsed() < REMEMBERED_FOR);
        if let Some(Missed { since, why, .. }) = missed {
            return Some(Shortage { since: since.elapsed(), why: why.clone() });
        }
        let since = inner.waiting.values().next()?.elapsed();
        (since >= NOTICED_AFTER).then(|| Shortage { since, why: "no answer yet".to_owned() })
    }
}

impl Wait<'_> {
    /// Ends it without a session.
    pub(super) fn failed(self, why: &str) {
        self.end(Some(why));
    }

    fn end(&self, why: Option<&str>) {
        let mut inner = self.supply.lock();
        let Some(since) = inner.waiting.remove(&self.number) else { return };
        if why.is_none() {
            return;
        }
        let why = why.unwrap_or_default().to_owned();
        let first = inner.missed.is_none();
        let since = inner.missed.as_ref().map_or(since, |missed| missed.since.min(since));
        if first {
            let waited = since.elapsed();
            tracing::warn!(why, ?waited, "a session with PostgreSQL could not be had");
        }
        inner.missed = Some(Missed { since, at: Instant::now(), why });
    }
}

impl Drop for Wait<'_> {
    fn drop(&mut self) {
        let since = self.supply.lock().waiting.get(&self.number).copied();
        let long = since.is_some_and(|since| since.elapsed() >= NOTICED_AFTER);
        self.end(long.then_some("it was waited for in vain"));
    }
}

/// Returns the message for a session that did not come because no server answers there, and not because there are
/// too many.
pub(super) fn unreachable(why: &str, seconds: u64) -> Option<String> {
    let signs = ["error communicating with database", "the database system is"];
    signs.iter().any(|sign| why.contains(sign)).then(|| {
        format!(
            "PostgreSQL cannot be reached: there has been no session for {seconds} s ({why}); look whether it runs, and whether \
             its address and the network are right"
        )
    })
}

/// Limits that PostgreSQL grants.
#[derive(Clone, Copy, Debug)]
struct Granted {
    /// `max_connections` without those that are kept for superusers.
    server: i64,
    /// The limit of the role, where it has one and is bound by it.
    role: Option<i64>,
    /// The limit of the database, where it has one and the role is bound by it.
    database: Option<i64>,
}

impl Granted {
    /// Returns the smallest limit, and its name.
    fn least(&self) -> (i64, &'static str) {
        let server = (self.server, "max_connections of the server");
        let role = self.role.map(|limit| (limit, "connection limit of the role"));
        let database = self.database.map(|limit| (limit, "connection limit of the database"));
        let limits = [Some(server), role, database].into_iter().flatten();
        limits.min_by_key(|(limit, _)| *limit).unwrap_or(server)
    }
}

/// Refuses to start where PostgreSQL grants fewer sessions than a server needs.
///
/// # Errors
/// When it does, or cannot be asked.
pub(super) async fn refuse_too_few(
    connection: &mut PgConnection,
    needed: u32,
) -> Result<(), Error> {
    let row = sqlx::query(
        "-- session_limits\n\
         select current_setting('max_connections')::int8, current_setting('superuser_reserved_connections')::int8, \
         r.rolsuper, r.rolconnlimit::int8, d.datconnlimit::int8 from pg_roles r, pg_database d \
         where r.rolname = session_user and d.datname = current_database()",
    )
    .fetch_one(connection)
    .await?;
    let (most, reserved, superuser): (i64, i64, bool) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let limit = |limit: i64| Some(limit).filter(|limit| *limit >= 0 && !superuser);
    let granted = Granted {
        server: if superuser { most } else { most - reserved },
        role: limit(row.try_get(3)?),
        database: limit(row.try_get(4)?),
    };
    let (least, what) = granted.least();
    if least >= i64::from(needed) {
        return Ok(());
    }
    Err(Error::Store(format!(
        "a server needs {needed} sessions with PostgreSQL, and the {what} allows {least}; raise it"
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_session_that_does_not_come_is_a_shortage_until_one_comes() {
        let supply = Supply::default();
        let wait = supply.wait();
        assert_eq!(supply.shortage(), None, "it may come yet");
        wait.failed("too many connections");
        assert_eq!(supply.shortage().map(|one| one.why).as_deref(), Some("too many connections"));
        assert_eq!(supply.waiting(), 0);
        supply.opened();
        assert_eq!(supply.shortage(), None);
    }

    #[test]
    fn a_wait_that_is_given_up_early_is_none() {
        let supply = Supply::default();
        drop(supply.wait());
        assert_eq!((supply.shortage(), supply.waiting()), (None, 0));
    }

    #[test]
    fn a_database_that_does_not_answer_is_told_apart_from_one_that_is_full() {
        for why in [
            "error communicating with database: Connection refused (os error 111)",
            "error returned from database: the database system is starting up",
        ] {
            assert!(
                unreachable(why, 7).is_some_and(|message| message.contains("for 7 s")),
                "{why}"
            );
        }
        assert_eq!(
            unreachable("error returned from database: sorry, too many clients already", 7),
            None
        );
    }

    #[test]
    fn the_smallest_limit_is_the_one_that_is_told() {
        let granted = Granted { server: 97, role: Some(30), database: None };
        assert_eq!(granted.least(), (30, "connection limit of the role"));
        let granted = Granted { server: 20, role: Some(30), database: Some(25) };
        assert_eq!(granted.least(), (20, "max_connections of the server"));
    }
}
