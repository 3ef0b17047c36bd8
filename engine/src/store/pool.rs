//! A pool of connections that knows who waits for one.

use std::ops::Deref;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use sqlx::Postgres;
use sqlx::pool::PoolConnection;
use sqlx::postgres::PgPool;

use super::supply::Supply;

/// A pool of connections.
#[derive(Clone, Debug)]
pub(crate) struct Pool {
    pool: PgPool,
    waiting: Arc<AtomicU64>,
    supply: Supply,
}

/// State of a pool.
#[derive(Clone, Copy, Debug)]
pub(crate) struct PoolNumbers {
    /// Connections in use.
    pub(crate) in_use: u64,
    /// Idle connections.
    pub(crate) idle: u64,
    /// The most connections.
    pub(crate) limit: u64,
    /// Those who wait for one.
    pub(crate) waiting: u64,
}

/// One who waits, until it is dropped.
struct Waiting<'a>(&'a AtomicU64);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Pool {
    pub(crate) fn new(pool: PgPool, supply: &Supply) -> Pool {
        Pool { pool, waiting: Arc::default(), supply: supply.clone() }
    }

    /// Waits for a connection.
    ///
    /// # Errors
    /// When there is none in time, or the database cannot be reached.
    pub(crate) async fn acquire(&self) -> Result<PoolConnection<Postgres>, sqlx::Error> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        let _waiting = Waiting(&self.waiting);
        if self.pool.num_idle() > 0 || self.pool.size() >= self.limit() {
            // Others of this server are waited for, if any.
            return self.pool.acquire().await;
        }
        let wait = self.supply.wait();
        let acquired = self.pool.acquire().await;
        if let Err(error) = &acquired {
            wait.failed(&error.to_string());
        }
        acquired
    }

    /// Returns the most connections.
    pub(super) fn limit(&self) -> u32 {
        self.pool.options().get_max_connections()
    }

    pub(crate) fn numbers(&self) -> PoolNumbers {
        let idle = self.pool.num_idle() as u64;
        PoolNumbers {
            in_use: u64::from(self.pool.size()).saturating_sub(idle),
            idle,
            limit: u64::from(self.limit()),
            waiting: self.waiting.load(Ordering::Relaxed),
        }
    }
}

impl Deref for Pool {
    type Target = PgPool;

    fn deref(&self) -> &PgPool {
        &self.pool
    }
}
