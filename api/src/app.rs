//! What every request shares: the engine, the limits, the numbers, and the signal that the server is closing.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::body::Bytes;
use backstitch_engine::Engine;
use backstitch_saga::RunId;
use backstitch_saga::protocol::RunView;
use tokio::sync::{Mutex, Semaphore, SemaphorePermit, watch};

use crate::front::{RequestIds, RouteTable};
use crate::problem::Rejection;

/// Who may ask.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Those with a credential, as far as its role goes.
    #[default]
    Keys,
    /// Everybody, for everything. Only for development: the server must listen on loopback.
    Open,
}

/// How much a caller may ask for.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest body of most requests, in bytes.
    pub body: usize,
    /// The largest body of reports and heartbeats, in bytes.
    pub report_body: usize,
    /// How long a body may take to arrive.
    pub body_timeout: Duration,
    /// How long a client may take nothing of its answer.
    pub answer_timeout: Duration,
    /// How long a connection may be idle, or busy sending its headers. Longer than clients keep idle connections,
    /// so that it is they who close first.
    pub idle_timeout: Duration,
    /// How many connections may be open; further ones wait to be accepted.
    pub connections: usize,
    /// How many requests may wait for something to happen; further ones are answered 503.
    pub waiting: usize,
    /// How long requests under way may take once the server is closing, and then the engine to stop.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 1024 * 1024,
            report_body: 16 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(30),
            idle_timeout: Duration::from_secs(120),
            connections: 10_000,
            waiting: 5_000,
            drain: Duration::from_secs(10),
        }
    }
}

/// How a server is set up.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    /// Who may ask.
    pub access: Access,
    /// How much.
    pub limits: Limits,
}

/// What every request shares.
pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) routes: RouteTable,
    pub(crate) openapi: Bytes,
    pub(crate) request_ids: RequestIds,
    waiting: Semaphore,
    closing: watch::Receiver<bool>,
    probed: Mutex<Option<(Instant, bool)>>,
}

impl App {
    pub(crate) fn new(
        engine: Engine,
        config: &ServerConfig,
        routes: RouteTable,
        openapi: Bytes,
        closing: watch::Receiver<bool>,
    ) -> App {
        App {
            engine,
            access: config.access,
            limits: config.limits.clone(),
            routes,
            openapi,
            request_ids: RequestIds::new(),
            waiting: Semaphore::new(config.limits.waiting),
            closing,
            probed: Mutex::new(None),
        }
    }

    /// A place among the requests that wait.
    ///
    /// # Errors
    /// 503 when all places are taken.
    pub(crate) fn place(&self) -> Result<SemaphorePermit<'_>, Rejection> {
        self.waiting.try_acquire().map_err(|_| Rejection::busy())
    }

    /// How many requests wait.
    pub(crate) fn waiting(&self) -> usize {
        self.limits.waiting - self.waiting.available_permits()
    }

    /// Ends when the server is closing.
    pub(crate) async fn closed(&self) {
        // An error says that the sender is gone: the server is closed.
        drop(self.closing.clone().wait_for(|closing| *closing).await);
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// One run, once it has ended, `wait` is over or the server is closing.
    ///
    /// # Errors
    /// As [`Engine::wait`].
    pub(crate) async fn wait_for(
        &self,
        namespace: &str,
        id: RunId,
        wait: Duration,
    ) -> Result<RunView, Rejection> {
        tokio::select! {
            biased;
            view = self.engine.wait(namespace, id, wait) => Ok(view?),
            () = self.closed() => Ok(self.engine.run(namespace, id, None).await?),
        }
    }

    /// Whether the database takes writes, asked at most once a second however often this is called.
    pub(crate) async fn is_ready(&self) -> bool {
        const FRESH: Duration = Duration::from_secs(1);
        const LIMIT: Duration = Duration::from_secs(5);
        let mut probed = self.probed.lock().await;
        match *probed {
            Some((at, ready)) if at.elapsed() < FRESH => ready,
            _ => {
                let answer = tokio::time::timeout(LIMIT, self.engine.probe()).await;
                let ready = matches!(answer, Ok(Ok(())));
                if let Ok(Err(error)) = answer {
                    tracing::warn!(%error, "not ready");
                }
                *probed = Some((Instant::now(), ready));
                ready
            }
        }
    }
}

/// [`App`] as handlers get it.
pub(crate) type Shared = axum::extract::State<Arc<App>>;
