//! Connections: accepts them, serves HTTP/1.1 on them, and drains them when the server is to stop.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::Router;
use backstitch_engine::Engine;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpListener, TcpStream};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::Instant;
use tokio_rustls::server::TlsStream;

use crate::app::{Access, App, Limits, ServerConfig};
use crate::logins::Peer;
use crate::shares::Shares;
use crate::stream::Stream;
use crate::tls::Tls;
use crate::turns::Turns;
use crate::{health, openapi, routes, tls, turns};

/// Number of unread bytes of a connection that the system keeps: a sender of more waits, and takes no memory of others.
pub(crate) const UNREAD: u32 = 512 * 1024;
/// Number of connections that wait to be accepted.
pub(crate) const BACKLOG: u32 = 1_024;
/// Number of bytes of a connection that are read in one call, and size of its headers: more would keep others waiting.
const READ_AT_ONCE: usize = 128 * 1024;

/// Serves `engine` on `listener` until `shutdown` ends, then drains: it stops accepting, answers waiting requests
/// immediately, lets the rest finish within the limit, and stops the engine.
///
/// # Errors
/// When the server would be open on an address that is not loopback.
pub async fn serve(
    engine: Engine,
    config: ServerConfig,
    listener: TcpListener,
    shutdown: impl Future<Output = ()> + Send,
) -> anyhow::Result<()> {
    let address = listener.local_addr().context("the listener has no address")?;
    may_listen(config.access, address)?;
    let open = config.access == Access::Open;
    let (close, closing) = watch::channel(false);
    let document = openapi::document();
    let table = openapi::route_table(&document);
    let text = document.to_json().context("the OpenAPI document cannot be printed")?;
    let tls = config.tls.clone().map(Tls::load).transpose()?.map(Arc::new);
    let _reloads = tls.clone().map(|tls| Aborting(tokio::spawn(reload(tls))));
    let shared = (tls.clone(), closing.clone());
    let app = App::new(engine.clone(), &config, table, text.into(), shared);
    let app = Arc::new(app);
    let health = config.health.as_ref().map(|listener| listener.try_clone()).transpose()?;
    let _health = health::start(Arc::clone(&app), health)?;
    let _beats = Aborting(tokio::spawn(Arc::clone(&app.pulse).beat()));
    let _upkeep = Aborting(tokio::spawn(Arc::clone(&app).upkeep()));
    let router = routes::router(app);
    tracing::info!(%address, open, tls = tls.is_some(), "listening");
    if open {
        tracing::warn!("this server is open: everybody on this machine may do everything");
    }
    let mut connections = Connections::new(&config, closing, tls);
    tokio::select! {
        () = accept(&listener, &router, &mut connections) => {}
        () = shutdown => {}
    }
    drop(listener);
    let drain = config.limits.drain;
    tracing::info!(limit = ?drain, connections = connections.tasks.len(), "draining");
    // Without a receiver, nobody waits for this any more.
    let _ = close.send(true);
    connections.drain(drain).await;
    if tokio::time::timeout(drain, engine.stop()).await.is_err() {
        tracing::warn!("the engine did not stop in time; what it left is taken over by others");
    }
    tracing::info!("stopped");
    Ok(())
}

/// Reads certificates again when their files change, and at SIGHUP.
async fn reload(tls: Arc<Tls>) {
    let mut hangup = match signal(SignalKind::hangup()) {
        Ok(hangup) => Some(hangup),
        Err(error) => {
            tracing::warn!(%error, "SIGHUP cannot be heard; certificates are looked at now and then");
            None
        }
    };
    loop {
        let asked = async {
            match &mut hangup {
                Some(hangup) => hangup.recv().await,
                None => std::future::pending().await,
            }
        };
        // Requested or not, the files are checked.
        let _ = tokio::time::timeout(tls::LOOK_EVERY, asked).await;
        let again = Arc::clone(&tls);
        if let Err(error) = tokio::task::spawn_blocking(move || again.reload()).await {
            tracing::error!(%error, "reading certificates anew failed");
        }
    }
}

/// A task that ends when this is dropped.
struct Aborting(JoinHandle<()>);

impl Drop for Aborting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Checks that a server with this access may listen there.
///
/// # Errors
/// When it would be open to other machines.
pub(crate) fn may_listen(access: Access, address: SocketAddr) -> anyhow::Result<()> {
    ensure!(
        access != Access::Open || address.ip().is_loopback(),
        "an open server may listen on a loopback address only, not on {address}; \
         start it with credentials (without --open), or listen on 127.0.0.1"
    );
    Ok(())
}

/// Accepts for ever.
async fn accept(listener: &TcpListener, router: &Router, connections: &mut Connections) {
    loop {
        match listener.accept().await {
            Ok((stream, peer)) => connections.serve(stream, Peer(peer.ip()), router.clone()),
            Err(error) => {
                // Mostly: no file handles left. Connections that end make room.
                tracing::warn!(%error, "a connection was not accepted");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
}

struct Connections {
    tasks: JoinSet<()>,
    places: Arc<Shares<IpAddr>>,
    turns: Arc<Turns<IpAddr>>,
    closing: watch::Receiver<bool>,
    builder: http1::Builder,
    limits: Limits,
    tls: Option<Arc<Tls>>,
}

impl Connections {
    fn new(
        config: &ServerConfig,
        closing: watch::Receiver<bool>,
        tls: Option<Arc<Tls>>,
    ) -> Connections {
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).header_read_timeout(config.limits.idle_timeout);
        builder.max_buf_size(READ_AT_ONCE);
        Connections {
            tasks: JoinSet::new(),
            places: Shares::new(config.limits.connections),
            turns: Turns::new(turns::CONNECTIONS),
            closing,
            builder,
            limits: config.limits.clone(),
            tls,
        }
    }

    /// Serves a connection once its peer has a turn, unless it has its share of them already: then it is closed.
    fn serve(&mut self, stream: TcpStream, peer: Peer, router: Router) {
        while self.tasks.try_join_next().is_some() {}
        let counted = peer.counted();
        let Some(place) = self.places.take(&counted, 1) else {
            tracing::debug!(peer = %peer.0, "a connection was closed: its peer has too many");
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection ended before it began");
            return;
        }
        let connection = Connection {
            router,
            peer,
            builder: self.builder.clone(),
            closing: self.closing.clone(),
            first_request: Instant::now() + self.limits.first_request_timeout,
        };
        let stream = Stream::new(stream, self.limits.answer_timeout);
        let (tls, turns) = (self.tls.clone(), Arc::clone(&self.turns));
        self.tasks.spawn(async move {
            // The places of a peer bound how many of it wait.
            let _ = turns.turn(&counted, 1).await;
            match tls {
                None => connection.serve(stream).await,
                Some(tls) => {
                    if let Some(stream) = connection.shake_hands(&tls, stream).await {
                        connection.serve(stream).await;
                    }
                }
            }
            drop(place);
        });
    }

    /// Waits for the connections to end, at most for `limit`; then cuts them.
    async fn drain(mut self, limit: Duration) {
        let all = async { while self.tasks.join_next().await.is_some() {} };
        if tokio::time::timeout(limit, all).await.is_err() {
            tracing::warn!(left = self.tasks.len(), "connections were cut");
            self.tasks.shutdown().await;
        }
    }
}

/// One connection.
struct Connection {
    router: Router,
    peer: Peer,
    builder: http1::Builder,
    closing: watch::Receiver<bool>,
    /// Time by which the first complete request headers must have arrived, the handshake included.
    first_request: Instant,
}

impl Connection {
    /// Returns the stream behind TLS; `None` when the client did not come so far in time, or the server is closing.
    async fn shake_hands<S>(&self, tls: &Tls, stream: S) -> Option<TlsStream<S>>
    where
        S: AsyncRead + AsyncWrite + Unpin,
    {
        let mut closing = self.closing.clone();
        let closed = async {
            // An error means that the sender has ended: the server is closed.
            drop(closing.wait_for(|closing| *closing).await);
        };
        let accepted = tokio::time::timeout_at(self.first_request, tls.acceptor().accept(stream));
        let why = tokio::select! {
            accepted = accepted => match accepted {
                Ok(Ok(stream)) => return Some(stream),
                Ok(Err(error)) => error.to_string(),
                Err(_) => "it took too long".to_owned(),
            },
            () = closed => return None,
        };
        tls.handshake_failed();
        tracing::debug!(peer = %self.peer.0, why, "a TLS handshake failed");
        None
    }

    /// Serves requests until the client or the server closes.
    async fn serve<S>(self, stream: S)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let Connection { router, peer, builder, mut closing, first_request } = self;
        let begun = Arc::new(AtomicBool::new(false));
        let (router, noted) = (TowerToHyperService::new(router), Arc::clone(&begun));
        let service = service_fn(move |mut request: Request<Incoming>| {
            noted.store(true, Ordering::Relaxed);
            request.extensions_mut().insert(peer);
            router.call(request)
        });
        let mut connection =
            std::pin::pin!(builder.serve_connection(TokioIo::new(stream), service));
        let silent = async {
            tokio::time::sleep_until(first_request).await;
            if begun.load(Ordering::Relaxed) {
                std::future::pending::<()>().await;
            }
        };
        let closed = async {
            // An error means that the sender has ended: the server is closed.
            drop(closing.wait_for(|closing| *closing).await);
        };
        let served = tokio::select! {
            served = connection.as_mut() => served,
            () = silent => Ok(()),
            () = closed => {
                connection.as_mut().graceful_shutdown();
                connection.await
            }
        };
        if let Err(error) = served {
            tracing::debug!(%error, "a connection broke");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_server_listens_on_loopback_only() {
        let may = |access, address: &str| may_listen(access, address.parse().unwrap()).is_ok();
        for address in ["0.0.0.0:7420", "[::]:7420", "10.1.2.3:7420"] {
            assert!(!may(Access::Open, address), "{address}");
            assert!(may(Access::Keys, address), "{address}");
        }
        assert!(may(Access::Open, "127.0.0.1:7420") && may(Access::Open, "[::1]:0"));
    }
}
