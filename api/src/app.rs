//! State that all requests share: the engine, the limits, the metrics, and the signal that the server is
//! closing.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use axum::body::Bytes;
use axum::response::Response;
use backstitch_engine::{Engine, Metrics, Worker};
use backstitch_saga::RunId;
use backstitch_saga::protocol::RunView;
use tokio::sync::{Mutex, watch};

use crate::access::{Caller, unknown_credential};
use crate::answers;
use crate::feed;
use crate::front::{RequestIds, RouteTable};
use crate::logins::Logins;
use crate::problem::Rejection;
use crate::pulse::Pulse;
use crate::rates::{Lane, Rate, Rates};
use crate::routes::quotas::too_many_waiting;
use crate::shares::{NoShare, Share, Shares};
use crate::tls::{Tls, TlsFiles};
use crate::turns::{self, Line, Turns};

/// The callers that are admitted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Access {
    /// Those with a credential, as far as its role goes.
    #[default]
    Keys,
    /// Everyone, for everything. Only for development: the server must listen on loopback.
    Open,
}

/// Limits of a server's load.
#[derive(Clone, Debug)]
pub struct Limits {
    /// The largest body of most requests, in bytes.
    pub body: usize,
    /// The largest body of reports and heartbeats, in bytes.
    pub report_body: usize,
    /// Time that a body may take to arrive.
    pub body_timeout: Duration,
    /// Time that a client may take to accept the next part of its response.
    pub answer_timeout: Duration,
    /// Time that a new connection may take to its first complete request headers.
    pub first_request_timeout: Duration,
    /// Time that a connection may be idle, or busy sending its headers. Longer than clients keep idle
    /// connections, so that clients close first.
    pub idle_timeout: Duration,
    /// Number of connections that may be open. A peer (an IP address) has at most as many as remain free; further
    /// ones are closed.
    pub connections: usize,
    /// Number of claims that may wait for tasks, and of requests that may wait for the end of a run. A namespace has
    /// at most as many places of a kind as remain free; further requests are answered 503.
    pub waiting: usize,
    /// Size of all large bodies that may be on their way, in bytes. A namespace has at most as many as remain
    /// free; further requests are answered 503.
    pub bodies: usize,
    /// Size of all large responses that may be on their way, in bytes. A namespace has at most as many as remain
    /// free; further requests are answered 503.
    pub answers: usize,
    /// `true` if reports without the token of their lease are accepted, from workers that do not know of
    /// tokens.
    pub reports_without_lease: bool,
    /// Time that requests in progress may take once the server is closing, and then the engine to
    /// stop.
    pub drain: Duration,
    /// Time that the runtime that serves requests may stall before `/livez` reports that the process should be
    /// restarted.
    pub stall: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            body: 1024 * 1024,
            report_body: 16 * 1024 * 1024,
            body_timeout: Duration::from_secs(30),
            answer_timeout: Duration::from_secs(30),
            first_request_timeout: Duration::from_secs(10),
            idle_timeout: Duration::from_secs(120),
            connections: 10_000,
            waiting: 5_000,
            bodies: 512 * 1024 * 1024,
            answers: 256 * 1024 * 1024,
            reports_without_lease: false,
            drain: Duration::from_secs(10),
            stall: Duration::from_secs(20),
        }
    }
}

/// Configuration of a server.
#[derive(Clone, Debug, Default)]
pub struct ServerConfig {
    /// The callers that are admitted.
    pub access: Access,
    /// Limits of its load.
    pub limits: Limits,
    /// Listener for health and metrics, beside the listener of requests.
    pub health: Option<Arc<std::net::TcpListener>>,
    /// Serves requests over TLS; in plain text without it.
    pub tls: Option<TlsFiles>,
}

/// The object of a waiting request. Claims have places of their own, so that clients that watch runs do not keep
/// workers out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum WaitFor {
    /// Tasks, in a claim.
    Tasks,
    /// The end of a run.
    RunEnd,
}

/// State that all requests share.
pub(crate) struct App {
    pub(crate) engine: Engine,
    pub(crate) access: Access,
    pub(crate) limits: Limits,
    pub(crate) routes: RouteTable,
    pub(crate) openapi: Bytes,
    pub(crate) request_ids: RequestIds,
    pub(crate) pulse: Arc<Pulse>,
    pub(crate) logins: Logins,
    /// Peers that ask for sources that there are not.
    pub(crate) strangers: Logins,
    pub(crate) tls: Option<Arc<Tls>>,
    turns: Arc<Turns<Line>>,
    rates: Rates,
    throttled: AtomicU64,
    claiming: Arc<Shares<Arc<str>>>,
    watching: Arc<Shares<Arc<str>>>,
    bodies: Arc<Shares<Arc<str>>>,
    answers: Arc<Shares<Arc<str>>>,
    /// Streams of events, by namespace and credential.
    feeds: Arc<Shares<(Arc<str>, Arc<str>)>>,
    closing: watch::Receiver<bool>,
    probed: Mutex<Option<(Instant, bool)>>,
}

impl App {
    pub(crate) fn new(
        engine: Engine,
        config: &ServerConfig,
        routes: RouteTable,
        openapi: Bytes,
        (tls, closing): (Option<Arc<Tls>>, watch::Receiver<bool>),
    ) -> App {
        App {
            engine,
            access: config.access,
            limits: config.limits.clone(),
            routes,
            openapi,
            request_ids: RequestIds::new(),
            pulse: Arc::default(),
            logins: Logins::default(),
            strangers: Logins::default(),
            tls,
            turns: Turns::new(turns::REQUESTS),
            rates: Rates::default(),
            throttled: AtomicU64::default(),
            claiming: Shares::new(config.limits.waiting),
            watching: Shares::new(config.limits.waiting),
            bodies: Shares::new(config.limits.bodies),
            answers: Shares::new(config.limits.answers),
            feeds: Shares::new(config.limits.waiting),
            closing,
            probed: Mutex::new(None),
        }
    }

    /// Returns a place among the requests that wait.
    ///
    /// # Errors
    /// 429 when as many requests of the namespace wait as its quota says; 503 when it has its share of places, or all
    /// are taken.
    pub(crate) fn place(&self, caller: &Caller, to: WaitFor) -> Result<Share<Arc<str>>, Rejection> {
        let places = match to {
            WaitFor::Tasks => &self.claiming,
            WaitFor::RunEnd => &self.watching,
        };
        let most = self.engine.quotas(&caller.namespace).waiting;
        let most = most.map_or(usize::MAX, |most| most as usize);
        places.take_within(&caller.namespace, 1, most).map_err(|why| match why {
            NoShare::Most => too_many_waiting(),
            NoShare::Taken => Rejection::busy(),
        })
    }

    /// Returns a place among the streams of events of a credential.
    ///
    /// # Errors
    /// 429 when it has as many as it may; 503 when all are taken.
    pub(crate) fn feed(&self, caller: &Caller) -> Result<feed::Place, Rejection> {
        let holder = (Arc::clone(&caller.namespace), Arc::clone(&caller.name));
        self.feeds.take_within(&holder, 1, feed::MOST).map_err(|why| match why {
            NoShare::Most => {
                let detail = "The credential reads as many streams as it may; end one, or read pages with `wait`.";
                Rejection::too_many("too_many_streams", detail, Duration::from_secs(1))
            }
            NoShare::Taken => Rejection::busy(),
        })
    }

    /// Returns the number of waiting requests of the caller's namespace, of the more frequent kind.
    pub(crate) fn waiting_of(&self, caller: &Caller) -> usize {
        let namespace = &caller.namespace;
        self.claiming.held_by(namespace).max(self.watching.held_by(namespace))
    }

    /// Returns numbers of this server, beside those of the engine.
    pub(crate) fn numbers(&self) -> Metrics {
        // Places are far fewer than what a float counts exactly.
        let waiting = (self.claiming.taken() + self.watching.taken()) as f64;
        let (failed, refused) = self.logins.counts();
        let [reloads, reload_failures, handshakes] =
            self.tls.as_ref().map_or([0; 3], |tls| tls.counts());
        vec![
            (
                "backstitch_http_waiting",
                "Requests that wait for something to happen",
                false,
                waiting,
            ),
            (
                "backstitch_runtime_still_seconds",
                "For how long the runtime that serves requests has not moved",
                false,
                self.pulse.still_for().as_secs_f64(),
            ),
            (
                "backstitch_runtime_stalls_total",
                "Times the runtime that serves requests did not move for a second",
                true,
                self.pulse.stalls() as f64,
            ),
            (
                "backstitch_throttled_total",
                "Requests and starts refused because too many came in a second",
                true,
                self.throttled.load(Ordering::Relaxed) as f64,
            ),
            (
                "backstitch_logins_failed_total",
                "Requests with a credential that is unknown or revoked",
                true,
                failed as f64,
            ),
            (
                "backstitch_logins_refused_total",
                "Credentials not looked up because their peer had sent too many unknown ones",
                true,
                refused as f64,
            ),
            (
                "backstitch_tls_reloads_total",
                "Times certificates were read anew",
                true,
                reloads as f64,
            ),
            (
                "backstitch_tls_reload_failures_total",
                "Times certificates could not be read anew, so that those of before stayed in use",
                true,
                reload_failures as f64,
            ),
            (
                "backstitch_tls_handshakes_failed_total",
                "Connections whose TLS handshake failed or took too long",
                true,
                handshakes as f64,
            ),
        ]
    }

    /// Counts a request of `caller`.
    ///
    /// # Errors
    /// 429 when the credential, or the namespace, has asked too often.
    pub(crate) fn may_ask(
        &self,
        caller: &Caller,
        lane: Lane,
        now: Instant,
    ) -> Result<(), Rejection> {
        let quotas = self.engine.quotas(&caller.namespace);
        let rate = Rate {
            namespace: quotas.requests_per_second.unwrap_or(u32::MAX),
            credential: quotas.credential_requests_per_second.unwrap_or(u32::MAX),
        };
        self.rates.request(caller, lane, rate, now).map_err(|wait| {
            self.throttled.fetch_add(1, Ordering::Relaxed);
            let detail =
                "More requests came than may come in a second. Nothing was done; ask again later.";
            Rejection::too_many("too_many_requests", detail, wait)
        })
    }

    /// Waits until a request that costs so much may begin: not at all while few do.
    ///
    /// # Errors
    /// 503 when too many of the same line wait.
    pub(crate) async fn turn(&self, line: &Line, cost: u32) -> Result<(), Rejection> {
        self.turns.turn(line, cost).await.map_err(|turns::LineFull| Rejection::busy())
    }

    /// Counts starts of `caller`: a batch costs as many as it holds.
    ///
    /// # Errors
    /// 429 when the namespace has started too many.
    pub(crate) fn may_start(&self, caller: &Caller, count: usize) -> Result<(), Rejection> {
        let rate = self.engine.quotas(&caller.namespace).starts_per_second.unwrap_or(u32::MAX);
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        let counted = self.rates.starts(&caller.namespace, count, rate, Instant::now());
        counted.map_err(|wait| {
            self.throttled.fetch_add(1, Ordering::Relaxed);
            let detail =
                "More starts came than may come in a second. Nothing was started; ask again later.";
            Rejection::too_many("too_many_starts", detail, wait)
        })
    }

    /// Counts `count` documents of a source whose sender was verified: by its own rate, and as one request of its
    /// namespace.
    ///
    /// # Errors
    /// 429 when it has sent too many.
    pub(crate) fn may_send(
        &self,
        source: &Caller,
        rate: Option<u32>,
        count: usize,
    ) -> Result<(), Rejection> {
        let now = Instant::now();
        self.may_ask(source, Lane::Intake, now)?;
        let Some(rate) = rate else { return Ok(()) };
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        self.rates.documents(source, count, rate, now).map_err(|wait| {
            self.throttled.fetch_add(1, Ordering::Relaxed);
            let detail = "The source sent more than it may in a second. Nothing was taken in; send it again later.";
            Rejection::too_many("too_many_documents", detail, wait)
        })
    }

    /// Does every few seconds what need not be done with each request.
    pub(crate) async fn upkeep(self: Arc<App>) {
        const EVERY: Duration = Duration::from_secs(5);
        loop {
            tokio::time::sleep(EVERY).await;
            let now = Instant::now();
            self.logins.tell(now);
            self.strangers.tell(now);
            self.rates.forget_full(now);
        }
    }

    /// Returns room for a body of `size` bytes that is on its way.
    ///
    /// # Errors
    /// 503 when the namespace has its share of the room, or all is taken.
    pub(crate) fn room(
        &self,
        namespace: &Arc<str>,
        size: usize,
    ) -> Result<Share<Arc<str>>, Rejection> {
        self.bodies.take(namespace, size).ok_or_else(Rejection::busy)
    }

    /// Returns an answer to `namespace`, which has room until it is written if it is large.
    ///
    /// # Errors
    /// 503 when the namespace has its share of the room, or all is taken.
    pub(crate) fn with_room(
        &self,
        namespace: &Arc<str>,
        response: Response,
    ) -> Result<Response, Rejection> {
        let Some(size) = answers::needs_room(&response) else { return Ok(response) };
        let room = self.answers.take(namespace, size).ok_or_else(Rejection::busy)?;
        Ok(answers::hold(response, room))
    }

    /// Returns a piece of a stream for `namespace`, which has room until it is written if it is large.
    ///
    /// # Errors
    /// The piece, when there is no room now.
    pub(crate) fn with_room_for(
        &self,
        namespace: &Arc<str>,
        piece: String,
    ) -> Result<Bytes, String> {
        if piece.len() as u64 <= answers::SMALL {
            return Ok(piece.into());
        }
        match self.answers.take(namespace, piece.len()) {
            Some(room) => Ok(answers::held(piece.into(), room)),
            None => Err(piece),
        }
    }

    /// Returns the caller as a worker. Where there are credentials, a report needs the token of its lease, unless the
    /// server still takes those of older workers.
    pub(crate) fn worker<'a>(&self, caller: &'a Caller) -> Worker<'a> {
        let keyed = caller.digest.is_some();
        Worker {
            namespace: &caller.namespace,
            credential: keyed.then_some(&*caller.name),
            must_prove: keyed && (caller.scope.is_some() || !self.limits.reports_without_lease),
        }
    }

    /// Ends when the server is closing.
    pub(crate) async fn closed(&self) {
        // An error means that the sender has ended: the server is closed.
        drop(self.closing.clone().wait_for(|closing| *closing).await);
    }

    /// Ends when the caller's credential is withdrawn, so that nothing waits on for it.
    pub(crate) async fn withdrawn(&self, caller: &Caller) {
        match caller.digest {
            Some(digest) => self.engine.credential_withdrawn(digest).await,
            None => std::future::pending().await,
        }
    }

    pub(crate) fn is_closing(&self) -> bool {
        *self.closing.borrow()
    }

    /// Returns one run, once it has ended, `wait` is over or the server is closing.
    ///
    /// # Errors
    /// As [`Engine::wait`]; 401 when the caller's credential is withdrawn meanwhile.
    pub(crate) async fn wait_for(
        &self,
        caller: &Caller,
        id: RunId,
        wait: Duration,
    ) -> Result<RunView, Rejection> {
        tokio::select! {
            biased;
            view = self.engine.wait(&caller.namespace, id, wait) => Ok(view?),
            () = self.withdrawn(caller) => Err(unknown_credential()),
            () = self.closed() => Ok(self.engine.run(&caller.namespace, id, None).await?),
        }
    }

    /// Returns whether the database accepts writes; it is asked at most once a second however often
    /// this is called.
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
