//! `backstitch demo`: the shop example, with everything it needs around it.

use std::path::PathBuf;

use clap::Args;

/// What the demo shows.
#[derive(Args, Clone, Debug)]
pub(crate) struct DemoOptions {
    /// Orders to run, one JSON object a line, instead of the demo's own
    #[arg(long)]
    pub(crate) orders: Option<PathBuf>,
    /// How many of them; all without it
    #[arg(long)]
    pub(crate) count: Option<usize>,
    /// Leave everything running at the end, with the URLs to try
    #[arg(long)]
    pub(crate) keep: bool,
}

/// Runs the demo; `false` when a run did not end as it should, or the ledgers disagree.
///
/// # Errors
/// When something that the demo needs cannot be started.
pub(crate) async fn run(options: DemoOptions) -> anyhow::Result<bool> {
    anyhow::bail!("the shop is not there yet ({options:?})")
}
