//! Health and numbers on a thread, a runtime and, if one is given, a listener of their own: they are answered however
//! busy, full or stuck the runtime is that serves requests.

use std::convert::Infallible;
use std::net::{IpAddr, TcpListener as StdListener};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use axum::body::Body;
use axum::extract::Request;
use axum::http::{Method, StatusCode, header};
use axum::response::{IntoResponse, Response};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::app::App;
use crate::front::guard;
use crate::problem::{self, Answer, Rejection};
use crate::pulse::{LOOK_EVERY, Watch};
use crate::routes::ops;
use crate::shares::Shares;

/// Number of connections that may be open; a peer has at most as many as remain free.
const CONNECTIONS: usize = 256;
/// Time that a connection may be silent, and then busy sending its headers.
const IDLE: Duration = Duration::from_secs(5);
/// Time that a connection may take for one response.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);
/// A runtime that has not moved for so long takes no work.
const NOT_READY: Duration = Duration::from_secs(3);
/// Time that the runtime that serves requests may take for its part of a response.
const MAIN_LIMIT: Duration = Duration::from_secs(6);

/// The thread of health. It ends when this is dropped.
#[derive(Debug)]
pub(crate) struct HealthThread {
    _stop: oneshot::Sender<()>,
}

/// State that responses about health need.
#[derive(Clone)]
struct Health {
    app: Arc<App>,
    /// The runtime that serves requests. The connections to the database belong to it.
    main: Handle,
}

/// Begins to watch the runtime that calls it, and to answer on `listener`.
///
/// # Errors
/// When there is no thread to be had.
pub(crate) fn start(app: Arc<App>, listener: Option<StdListener>) -> anyhow::Result<HealthThread> {
    let health = Health { main: Handle::current(), app };
    let (stop, stopped) = oneshot::channel::<()>();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .max_blocking_threads(2)
        .build()
        .context("the runtime of health does not start")?;
    let watch = Watch::new(Arc::clone(&health.app.pulse));
    let work = move || {
        runtime.block_on(async move {
            tokio::select! {
                () = look(watch) => {}
                () = serve(health, listener) => {}
                // Stopped, or the server has ended.
                _ = stopped => {}
            }
        });
        // Metrics that are still being printed are of no use any more.
        runtime.shutdown_background();
    };
    std::thread::Builder::new()
        .name("health".to_owned())
        .spawn(work)
        .context("the thread of health does not start")?;
    Ok(HealthThread { _stop: stop })
}

async fn look(mut watch: Watch) {
    let mut ticks = tokio::time::interval(LOOK_EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        watch.look();
    }
}

/// Accepts for ever.
async fn serve(health: Health, listener: Option<StdListener>) {
    let listener = listener.map(|listener| {
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener)
    });
    let listener = match listener.transpose() {
        Ok(Some(listener)) => listener,
        Ok(None) => return std::future::pending().await,
        Err(error) => {
            tracing::error!(%error, "health is not answered on its own listener");
            return std::future::pending().await;
        }
    };
    let places: Arc<Shares<IpAddr>> = Shares::new(CONNECTIONS);
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => {
                if let Some(place) = places.take(&peer.ip(), 1) {
                    let health = health.clone();
                    tokio::spawn(async move {
                        connection(stream, health).await;
                        drop(place);
                    });
                }
            }
            Err(error) => {
                // Mostly: no file handles left. Connections that end make room.
                tracing::warn!(%error, "a connection to the listener of health was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

/// Serves one connection, which is for one request.
async fn connection(stream: TcpStream, health: Health) {
    if tokio::time::timeout(IDLE, stream.readable()).await.is_err() {
        return;
    }
    let service = service_fn(move |request: hyper::Request<Incoming>| {
        let health = health.clone();
        async move { Ok::<_, Infallible>(health.answer(request.map(Body::new)).await) }
    });
    let mut builder = http1::Builder::new();
    builder.timer(TokioTimer::new()).header_read_timeout(IDLE).keep_alive(false);
    let served = builder.serve_connection(TokioIo::new(stream), service);
    // However it ended: who asked for health asks again.
    let _ = tokio::time::timeout(ANSWER_LIMIT, served).await;
}

impl Health {
    async fn answer(&self, request: Request) -> Response {
        let path = request.uri().path();
        let read = matches!(*request.method(), Method::GET | Method::HEAD);
        let answer = match path {
            "/livez" | "/readyz" | "/metrics" if !read => {
                let mut refused =
                    problem::method_not_allowed(request.method().clone()).await.into_response();
                let allow = header::HeaderValue::from_static("GET, HEAD");
                refused.headers_mut().insert(header::ALLOW, allow);
                Ok(refused)
            }
            "/livez" => ops::liveness(&self.app).map(IntoResponse::into_response),
            "/readyz" => self.readiness().await,
            "/metrics" => self.metrics().await,
            _ => Err(unknown(path)),
        };
        let mut response = answer.unwrap_or_else(IntoResponse::into_response);
        guard(response.headers_mut());
        response
    }

    /// Asks the runtime that serves requests, unless it does not move.
    async fn readiness(&self) -> Answer {
        if self.app.pulse.still_for() >= NOT_READY {
            return Err(ops::not_ready("The server does not move; the log tells since when."));
        }
        let app = Arc::clone(&self.app);
        let asked = self.main.spawn(async move { ops::readiness(&app).await });
        match tokio::time::timeout(MAIN_LIMIT, asked).await {
            Ok(Ok(answer)) => answer.map(IntoResponse::into_response),
            _ => Err(ops::not_ready("The server did not answer in time.")),
        }
    }

    /// Prints all numbers; those of the database only when the runtime that serves requests moves.
    async fn metrics(&self) -> Answer {
        let mut families = Vec::new();
        if self.app.pulse.still_for() < NOT_READY {
            let engine = self.app.engine.clone();
            let asked = self.main.spawn(async move { engine.numbers().await });
            if let Ok(Ok(numbers)) = tokio::time::timeout(MAIN_LIMIT, asked).await {
                families = numbers;
            }
        }
        let app = Arc::clone(&self.app);
        // Metrics are behind locks: should one be held for long, health is answered all the same.
        let printed = tokio::task::spawn_blocking(move || ops::print_metrics(&app, &families));
        match tokio::time::timeout(MAIN_LIMIT, printed).await {
            Ok(Ok(text)) => Ok(ops::metrics_page(text).into_response()),
            _ => Err(ops::not_ready("The numbers could not be read in time.")),
        }
    }
}

fn unknown(path: &str) -> Rejection {
    let detail =
        format!("There is nothing at {path}; this listener has /livez, /readyz and /metrics.");
    Rejection::new(StatusCode::NOT_FOUND, "unknown_route", detail)
}
