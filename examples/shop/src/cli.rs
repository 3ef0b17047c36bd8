//! The shop's commands, for its own program and for any that carries it along.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use tokio::net::TcpListener;

use crate::child;
use crate::effect::Kind;
use crate::http::{self, Setup};
use crate::service::Shelf;

/// Which process of the shop to be.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Reserve goods on shelves and release them
    Stock(StockArgs),
    /// Charge cards, refund them, find charges
    Payment(ServiceArgs),
    /// Ship parcels, recall them, mail receipts
    Shipping(ServiceArgs),
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

/// Is one process of the shop until it is told to stop.
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
    }
}

async fn serve(kind: Kind, args: ServiceArgs, shelves: Vec<Shelf>) -> anyhow::Result<()> {
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("{} cannot be listened on", args.listen))?;
    child::announce(listener.local_addr()?);
    let setup = Setup { ledger: args.ledger, shelves };
    http::serve(kind, setup, listener, child::told_to_stop(args.with_parent)).await
}

fn read_shelves(path: &Path) -> anyhow::Result<Vec<Shelf>> {
    let text = std::fs::read_to_string(path)
        .with_context(|| format!("{} cannot be read", path.display()))?;
    let mut shelves = Vec::new();
    for (index, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match serde_json::from_str(line) {
            Ok(shelf) => shelves.push(shelf),
            Err(error) => bail!("{}, line {}: {error}", path.display(), index + 1),
        }
    }
    Ok(shelves)
}
