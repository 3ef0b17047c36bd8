//! `backstitch serve`: the API against a PostgreSQL that is already there.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use backstitch_engine::{Engine, Options};
use backstitch_saga::Span;
use backstitch_shop::child;
use clap::Args;
use serde_json::json;
use tokio::net::{TcpListener, TcpSocket};

use super::{DatabaseArgs, log, secret};
use crate::server::{BACKLOG, UNREAD, may_listen};
use crate::tls::Tls;
use crate::{Access, Limits, ServerConfig, TlsFiles, serve};

/// The port of a server that was told of none.
pub(crate) const DEFAULT_PORT: u16 = 7420;

/// How to serve.
#[derive(Args)]
pub(crate) struct ServeArgs {
    #[command(flatten)]
    database: DatabaseArgs,
    /// Where to listen
    #[arg(long, env = "BACKSTITCH_LISTEN", default_value = "127.0.0.1:7420")]
    listen: SocketAddr,
    /// Where to answer /livez, /readyz and /metrics by a thread of its own, however busy the server is; besides --listen
    #[arg(long, env = "BACKSTITCH_HEALTH_LISTEN")]
    health_listen: Option<SocketAddr>,
    /// The certificate of the server and those that lead to its issuer, in PEM: requests come over TLS. Read again when it changes
    #[arg(long, env = "BACKSTITCH_TLS_CERT", requires = "tls_key")]
    tls_cert: Option<PathBuf>,
    /// The private key of the certificate, in PEM
    #[arg(long, env = "BACKSTITCH_TLS_KEY", requires = "tls_cert")]
    tls_key: Option<PathBuf>,
    /// The issuers of clients' certificates, in PEM: clients must have one, beside their credential
    #[arg(long, env = "BACKSTITCH_TLS_CLIENT_CA", requires = "tls_cert")]
    tls_client_ca: Option<PathBuf>,
    /// Let clients without a certificate in, too
    #[arg(long, env = "BACKSTITCH_TLS_CLIENT_OPTIONAL", requires = "tls_client_ca")]
    tls_client_optional: bool,
    #[command(flatten)]
    node: NodeArgs,
    /// Ask nobody for a credential; only on a loopback address
    #[arg(long, env = "BACKSTITCH_OPEN")]
    open: bool,
    /// Take reports without the token of their lease, while workers are upgraded that do not send it
    #[arg(long, env = "BACKSTITCH_REPORTS_WITHOUT_LEASE")]
    reports_without_lease: bool,
    /// End when standard input ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

impl ServeArgs {
    /// Returns the files of the certificates, if requests come over TLS.
    ///
    /// # Errors
    /// When the server could not use them.
    fn tls(&self) -> anyhow::Result<Option<TlsFiles>> {
        let (Some(certificate), Some(key)) = (self.tls_cert.clone(), self.tls_key.clone()) else {
            return Ok(None);
        };
        secret::warn_if_open(&key);
        let (client_ca, client_optional) = (self.tls_client_ca.clone(), self.tls_client_optional);
        let files = TlsFiles { certificate, key, client_ca, client_optional };
        // Before anything else is begun; the server reads them again.
        Tls::load(files.clone())?;
        Ok(Some(files))
    }
}

/// How the node is set up.
#[derive(Args)]
pub(crate) struct NodeArgs {
    /// The node's name, for people; made from the process id without it
    #[arg(long, env = "BACKSTITCH_NODE_NAME")]
    node_name: Option<String>,
    /// How long the start waits for a PostgreSQL that is starting, full or not there yet
    #[arg(long, env = "BACKSTITCH_DATABASE_WAIT", default_value = "30s")]
    database_wait: Span,
    /// How long ended runs are kept, such as 90d; for ever without it
    #[arg(long, env = "BACKSTITCH_RETENTION")]
    retention: Option<Span>,
    /// How long answers to requests with an Idempotency-Key are kept
    #[arg(long, env = "BACKSTITCH_IDEMPOTENCY_RETENTION", default_value = "7d")]
    idempotency_retention: Span,
    /// How many runs may descend from one: its children, theirs, and so on
    #[arg(long, env = "BACKSTITCH_DESCENDANT_LIMIT", default_value_t = backstitch_saga::MOST_DESCENDANTS)]
    descendant_limit: u32,
    /// How much a namespace may have or ask for, QUOTA=NUMBER or NAMESPACE:QUOTA=NUMBER, `none` for no limit; docs/operations.md lists them
    #[arg(long = "quota", env = "BACKSTITCH_QUOTAS", value_name = "QUOTA", value_delimiter = ',')]
    quotas: Vec<String>,
    /// Let clients encrypt values of documents, which are then held to no JSON Schema
    #[arg(long, env = "BACKSTITCH_ENCRYPTED_PAYLOADS")]
    encrypted_payloads: bool,
    /// Inner workings, NAME=VALUE, for trials
    #[arg(long, env = "BACKSTITCH_TUNING", value_delimiter = ',', hide = true)]
    tuning: Vec<String>,
}

impl NodeArgs {
    pub(crate) fn options(&self, database_url: String) -> anyhow::Result<Options> {
        let mut options = Options::new(database_url);
        if let Some(name) = &self.node_name {
            options.node_name.clone_from(name);
        }
        options.database_wait = self.database_wait.duration();
        options.retention = self.retention.map(Span::duration);
        options.idempotency_retention = self.idempotency_retention.duration();
        options.descendant_limit = self.descendant_limit;
        options.encrypted_payloads = self.encrypted_payloads;
        for assignment in &self.quotas {
            options.ceilings.set(assignment).map_err(anyhow::Error::msg)?;
        }
        for assignment in &self.tuning {
            options.tuning.set(assignment).map_err(anyhow::Error::msg)?;
        }
        Ok(options)
    }
}

pub(crate) async fn run(args: ServeArgs, log: log::Format) -> anyhow::Result<()> {
    let options = args.node.options(args.database.url()?)?;
    let access = if args.open { Access::Open } else { Access::Keys };
    // The address first: it is the cheaper one to be wrong.
    let listener = listen(access, args.listen).await?;
    let health = args.health_listen.map(listen_for_health).transpose()?;
    let tls = args.tls()?;
    let engine = Engine::start(options).await?;
    let scheme = if tls.is_some() { "https" } else { "http" };
    let url = format!("{scheme}://{}", listener.local_addr()?);
    log.announce(
        &[format!("Backstitch listens on {url}")],
        json!({ "message": "Backstitch listens", "url": url }),
    );
    let limits = Limits { reports_without_lease: args.reports_without_lease, ..Limits::default() };
    let config = ServerConfig { access, limits, health, tls };
    let stop = async {
        match args.with_parent {
            true => child::told_to_stop(true).await,
            false => asked_to_stop().await,
        }
    };
    serve(engine, config, listener, stop).await
}

/// A listener on `address`.
///
/// # Errors
/// When the address is taken or not ours, or the server would be open to other machines.
pub(crate) async fn listen(access: Access, address: SocketAddr) -> anyhow::Result<TcpListener> {
    may_listen(access, address)?;
    bind(address).with_context(|| {
        format!("cannot listen on {address}; is it taken? choose another with --listen")
    })
}

/// A listener whose connections have little room for what is not read yet.
fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    let socket = if address.is_ipv4() { TcpSocket::new_v4()? } else { TcpSocket::new_v6()? };
    socket.set_reuseaddr(true)?;
    socket.set_recv_buffer_size(UNREAD)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A listener for health on `address`.
///
/// # Errors
/// When the address is taken or not ours.
fn listen_for_health(address: SocketAddr) -> anyhow::Result<Arc<std::net::TcpListener>> {
    let listener = std::net::TcpListener::bind(address).with_context(|| {
        format!("cannot listen on {address}; is it taken? choose another with --health-listen")
    })?;
    tracing::info!(address = %listener.local_addr()?, "answering health");
    Ok(Arc::new(listener))
}

/// Ends at SIGTERM or SIGINT. A second one ends the process at once.
pub(crate) async fn asked_to_stop() {
    if let Err(error) = signal().await {
        tracing::warn!(%error, "signals cannot be heard; only a kill will stop this process");
        std::future::pending::<()>().await;
    }
    tokio::spawn(async {
        // The first second is for the shell that sends the signal to everyone twice.
        tokio::time::sleep(Duration::from_secs(1)).await;
        if signal().await.is_ok() {
            std::process::exit(130);
        }
    });
}

async fn signal() -> std::io::Result<()> {
    use tokio::signal::unix::{SignalKind, signal};
    let (mut terminate, mut interrupt) =
        (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}
