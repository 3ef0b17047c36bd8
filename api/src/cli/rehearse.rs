//! `backstitch rehearse`: everything that can go wrong with a definition, gone through without a server.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use backstitch_saga::rehearse::{Bounds, rehearse};
use clap::{Args, ValueEnum};

use super::workflow::checked;

/// What to rehearse, and how far.
#[derive(Args)]
pub(crate) struct RehearseArgs {
    /// The definition as JSON; - reads standard input
    file: PathBuf,
    /// How many things go wrong in one trace at most
    #[arg(long, default_value_t = Bounds::default().faults)]
    faults: u32,
    /// How many traces are run at most; those with fewer faults go first
    #[arg(long, default_value_t = Bounds::default().traces)]
    traces: u64,
    /// How it is printed
    #[arg(long, short, env = "BACKSTITCH_OUTPUT", default_value = "table")]
    output: Output,
}

#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Output {
    Table,
    Json,
}

/// `false` when the definition is not valid, or does not close.
pub(crate) fn run(args: &RehearseArgs) -> anyhow::Result<bool> {
    let Some(graph) = checked(&args.file)? else { return Ok(false) };
    let began = Instant::now();
    let found = rehearse(&graph, Bounds { faults: args.faults, traces: args.traces });
    let took = began.elapsed().as_secs_f64();
    if args.output == Output::Json {
        println!("{}", serde_json::to_string_pretty(&found).context("the report has no JSON")?);
    } else {
        print!("{found}");
    }
    if std::io::stderr().is_terminal() || args.output == Output::Table {
        let rate = found.traces() as f64 / took.max(1e-9);
        eprintln!("{} traces in {took:.2} s, {rate:.0} a second", found.traces());
    }
    Ok(found.closes())
}
