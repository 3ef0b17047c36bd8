//! `backstitch rehearse`: everything that can go wrong with a definition, gone through without a server.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::time::Instant;

use anyhow::Context;
use backstitch_saga::rehearse::{Bounds, rehearse};
use clap::Args;

use super::Form;
use super::workflow::checked;
use crate::print;

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
    /// Also what is only warned of when the definition is registered makes the exit code 1
    #[arg(long)]
    strict: bool,
    /// How it is printed: table or json [default: table] [env: BACKSTITCH_OUTPUT]
    #[arg(long, short, value_enum)]
    output: Option<Form>,
}

/// `false` when the definition is not valid, or would be refused by a server; with `--strict` also when it is warned of. `before` is the `--output` that stands before the verb.
pub(crate) fn run(args: &RehearseArgs, before: Option<Form>) -> anyhow::Result<bool> {
    let form = Form::chosen(args.output.or(before))?;
    let Some(graph) = checked(&args.file)? else { return Ok(false) };
    let began = Instant::now();
    let found = rehearse(&graph, Bounds { faults: args.faults, traces: args.traces });
    let took = began.elapsed().as_secs_f64();
    if form == Form::Json {
        print::line(serde_json::to_string_pretty(&found).context("the report has no JSON")?);
    } else {
        print::text(&found);
    }
    if std::io::stderr().is_terminal() || form == Form::Table {
        let rate = found.traces() as f64 / took.max(1e-9);
        let traces = print::counted(found.traces(), "trace");
        print::note(format_args!("{traces} in {took:.2} s, {rate:.0} a second"));
    }
    Ok(found.is_accepted() && (!args.strict || found.findings.is_empty()))
}
