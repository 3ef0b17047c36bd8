//! `backstitch dev`: a private PostgreSQL that keeps its data, and an open server on this machine.

use std::net::SocketAddr;
use std::path::PathBuf;

use backstitch_engine::Engine;
use backstitch_engine::local_postgres::{LocalPostgres, StartOptions, default_data_dir};
use clap::Args;
use serde_json::json;

use super::serve::{DEFAULT_PORT, NodeArgs, asked_to_stop, listen};
use super::{browser, log};
use crate::{Access, ServerConfig, serve};

/// The database of a development server.
const DATABASE: &str = "backstitch";

/// How to serve for development.
#[derive(Args)]
pub(crate) struct DevArgs {
    /// Where to listen; a loopback address
    #[arg(long, env = "BACKSTITCH_LISTEN", default_value = "127.0.0.1:7420")]
    listen: SocketAddr,
    /// Where PostgreSQL keeps its data; the user's data directory without it
    #[arg(long, env = "BACKSTITCH_DATA_DIR")]
    data_dir: Option<PathBuf>,
    /// Keep nothing: the data goes with the server
    #[arg(long, conflicts_with = "data_dir")]
    ephemeral: bool,
    /// Open the console in the browser
    #[arg(long)]
    open_browser: bool,
    #[command(flatten)]
    node: NodeArgs,
}

pub(crate) async fn run(args: DevArgs, log: log::Format) -> anyhow::Result<()> {
    let listener = listen(Access::Open, args.listen).await?;
    let data_dir = match args.ephemeral {
        true => None,
        false => Some(args.data_dir.clone().unwrap_or_else(default_data_dir)),
    };
    let options = StartOptions { data_dir, ..StartOptions::default() };
    let postgres = LocalPostgres::start(options).await?;
    let served = run_on(&postgres, &args, log, listener).await;
    postgres.stop().await;
    served
}

async fn run_on(
    postgres: &LocalPostgres,
    args: &DevArgs,
    log: log::Format,
    listener: tokio::net::TcpListener,
) -> anyhow::Result<()> {
    postgres.ensure_database(DATABASE).await?;
    let url = postgres.url(DATABASE);
    backstitch_engine::migrate(&url).await?;
    let engine = Engine::start(args.node.options(url.clone())?).await?;
    let address = listener.local_addr()?;
    let flag =
        if address.port() == DEFAULT_PORT { "" } else { &format!(" --url http://{address}") };
    log.announce(
        &[
            format!("The console             http://{address}/console"),
            format!("Backstitch listens on   http://{address}"),
            format!("API and its document    http://{address}/docs  http://{address}/openapi.json"),
            format!("Metrics                 http://{address}/metrics"),
            format!("PostgreSQL              psql '{url}'"),
            format!("Its data                {}", postgres.dir().display()),
            "No credential is asked for. Ctrl-C stops everything.".to_owned(),
            String::new(),
            "Next, in another terminal:".to_owned(),
            format!("  backstitch{flag} status               # how it is"),
            format!("  backstitch{flag} workflow register order.json"),
            "A workflow to begin with, and its first run: docs/api.md. A worker in Rust: docs/sdk.md; in another".to_owned(),
            "language: docs/worker-protocol.md.".to_owned(),
        ],
        json!({
            "message": "Backstitch listens",
            "url": format!("http://{address}"),
            "database_url": url,
            "data_dir": postgres.dir(),
        }),
    );
    if args.open_browser {
        browser::open(&format!("http://{address}/console"));
    }
    let config = ServerConfig { access: Access::Open, ..ServerConfig::default() };
    serve(engine, config, listener, asked_to_stop()).await
}
