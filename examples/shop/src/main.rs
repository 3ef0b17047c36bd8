//! One process of the shop: a service or the worker.

use clap::Parser;

/// A shop of three small services and a worker, to try Backstitch on
#[derive(Parser)]
#[command(name = "backstitch-shop", version)]
struct Cli {
    #[command(subcommand)]
    command: backstitch_shop::cli::Command,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    backstitch_shop::cli::run(Cli::parse().command).await
}
