//! The shop's commands, for its own program and for any that carries it along.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, anyhow};
use backstitch_sdk::{Client, Span, Worker};
use clap::{Args, Subcommand};
use tokio::net::TcpListener;

use crate::child;
use crate::desk::{Desk, Setup};
use crate::effect::Kind;
use crate::orders;
use crate::service::Shelf;
use crate::worker::{self, Services};

/// Which process of the shop to be.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reserve goods on shelves and release them
    Stock(StockArgs),
    /// Charge cards, refund them, find charges
    Payment(ServiceArgs),
    /// Ship parcels, recall them, mail receipts
    Shipping(ServiceArgs),
    /// Do the tasks of the place-order saga by calling the three services
    Worker(WorkerArgs),
}

/// What every service can be told.
#[derive(Debug, Args)]
pub struct ServiceArgs {
    /// Where to listen; port 0 takes a free one
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: SocketAddr,
    /// Keep the ledger in this file (one JSON entry a line), and start from what it says
    #[arg(long, value_name = "FILE")]
    ledger: Option<PathBuf>,
    /// End when standard input ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// What the stock service can be told.
#[derive(Debug, Args)]
pub struct StockArgs {
    #[command(flatten)]
    service: ServiceArgs,
    /// What is on the shelves: {"sku": …, "in_stock": …} a line. Goods not listed never run out
    #[arg(long, value_name = "FILE")]
    stock: Option<PathBuf>,
}

/// What the worker can be told.
#[derive(Debug, Args)]
pub struct WorkerArgs {
    /// The Backstitch server
    #[arg(long, value_name = "URL", env = "BACKSTITCH_URL")]
    server: String,
    /// Its API key, if it asks for one
    #[arg(long, value_name = "KEY", env = "BACKSTITCH_API_KEY", hide_env_values = true)]
    api_key: Option<String>,
    /// The stock service
    #[arg(long, value_name = "URL")]
    stock: String,
    /// The payment service
    #[arg(long, value_name = "URL")]
    payment: String,
    /// The shipping service
    #[arg(long, value_name = "URL")]
    shipping: String,
    /// How long a service may take to answer; after that it may have happened
    #[arg(long, default_value = "2s")]
    timeout: Span,
    /// How many tasks to do at once
    #[arg(long, default_value_t = 64)]
    concurrency: usize,
    /// Die after so many effects, before the last one is reported
    #[arg(long, value_name = "EFFECTS", hide = true)]
    die_after: Option<u64>,
    /// End when standard input ends
    #[arg(long, hide = true)]
    with_parent: bool,
}

/// Runs one process of the shop until it is told to stop.
///
/// # Errors
/// When it cannot start or go on; the message says why.
pub async fn run(command: Command) -> anyhow::Result<()> {
    match command {
        Command::Stock(args) => {
            let shelves = args.stock.as_deref().map_or(Ok(Vec::new()), read_shelves)?;
            serve(Kind::Stock, args.service, shelves).await
        }
        Command::Payment(args) => serve(Kind::Payment, args, Vec::new()).await,
        Command::Shipping(args) => serve(Kind::Shipping, args, Vec::new()).await,
        Command::Worker(args) => work(args).await,
    }
}

async fn serve(kind: Kind, args: ServiceArgs, shelves: Vec<Shelf>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", args.listen))?;
    let desk = Desk::open(kind, &Setup { ledger: args.ledger, shelves })?;
    child::announce("listening on", &format!("http://{}", listener.local_addr()?));
    desk.serve(listener, child::told_to_stop(args.with_parent)).await
}

async fn work(args: WorkerArgs) -> anyhow::Result<()> {
    let mut client = Client::new(&args.server)?;
    if let Some(key) = &args.api_key {
        client = client.api_key(key)?;
    }
    let handlers = worker::handlers(Services {
        stock: args.stock,
        payment: args.payment,
        shipping: args.shipping,
        timeout: args.timeout.duration(),
        die_after: args.die_after,
    })?;
    let worker = Worker::new(client).handlers(handlers).concurrency(args.concurrency);
    child::announce("working for", &args.server);
    worker.run(child::told_to_stop(args.with_parent)).await?;
    Ok(())
}

fn read_shelves(path: &Path) -> anyhow::Result<Vec<Shelf>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    orders::read_shelves(&text).map_err(|problem| anyhow!("{}, {problem}", path.display()))
}
