//! The command line of the harness. The same program plays every role: harness, ledger, worker, and the `backstitch`
//! that is tried.

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use backstitch_chaos::plan::{self, Plan};
use backstitch_chaos::points::{self, Choice};
use backstitch_chaos::report::Report;
use backstitch_chaos::stage::{Ground, ROLE};
use backstitch_chaos::{attacks, drills, ledger, tiers, worker};
use clap::{Args, Parser, Subcommand};

/// Injects faults into real processes and checks that nothing was lost.
#[derive(Parser)]
#[command(name = "backstitch-chaos", version)]
struct Cli {
    #[command(subcommand)]
    tier: Tier,
    #[command(flatten)]
    common: Common,
}

#[derive(Args)]
struct Common {
    /// The `backstitch` to be tried; the one in this program without it
    #[arg(long, global = true)]
    program: Option<PathBuf>,
    /// Another build of it: engines go from one to the other and back
    #[arg(long, global = true)]
    other: Option<PathBuf>,
    /// From which all that is left to chance follows
    #[arg(long, global = true)]
    seed: Option<u64>,
    /// Leave logs and data behind
    #[arg(long, global = true)]
    keep: bool,
}

#[derive(Subcommand)]
enum Tier {
    /// A few minutes of everything, for CI
    Short,
    /// Everything, for long
    Long {
        /// For how many minutes, about
        #[arg(long, default_value_t = 40)]
        minutes: u64,
    },
    /// The engine dies at each of its crash points
    Points {
        /// Only this shape of workflow
        #[arg(long)]
        shape: Option<String>,
        /// Only this point
        #[arg(long)]
        point: Option<String>,
        /// At most so many cases
        #[arg(long)]
        most: Option<usize>,
    },
    /// Small scenes with a known script
    Drills {
        /// Only this one
        #[arg(long)]
        only: Option<String>,
    },
    /// Tests the tester: every planted bug must be found
    Tester {
        /// Only this bug
        #[arg(long)]
        only: Option<String>,
    },
    /// One namespace attacks, another must not notice
    Attacks {
        /// Only this one; `at-once` for all together
        #[arg(long)]
        only: Option<String>,
        /// A few of them, held to bounds that do not depend on the machine: answers, memory, and that all is served
        #[arg(long, conflicts_with = "only")]
        short: bool,
        /// For how many seconds each
        #[arg(long, default_value_t = 5)]
        seconds: u64,
        /// A p99 in milliseconds counts as so much at least
        #[arg(long, default_value_t = 30)]
        floor: u64,
        /// The most memory of the server, in MiB
        #[arg(long, default_value_t = 2_048)]
        memory: u64,
    },
    /// A random plan: three engines, random programs, every fault
    Plan {
        /// For how many seconds faults are inflicted
        #[arg(long, default_value_t = 60)]
        seconds: u64,
        /// Only faults whose name contains this
        #[arg(long)]
        only: Option<String>,
    },
}

fn main() -> ExitCode {
    let role = std::env::var(ROLE).unwrap_or_default();
    if role == "program" {
        return backstitch_api::cli::main();
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("backstitch-chaos: the runtime does not start: {error}");
            return ExitCode::FAILURE;
        }
    };
    let done = runtime.block_on(async {
        match role.as_str() {
            "ledger" => be_ledger().await.map(|()| true),
            "worker" => be_worker().await.map(|()| true),
            "attacker" => attacks::attack().await.map(|()| true),
            _ => harness(Cli::parse()).await,
        }
    });
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("backstitch-chaos: {error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn be_ledger() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [file] = args.as_slice() else { anyhow::bail!("a ledger needs a file") };
    ledger::serve(Path::new(file), true).await
}

async fn be_worker() -> anyhow::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [server, ledger, name, rest @ ..] = args.as_slice() else {
        anyhow::bail!("a worker needs a server, a ledger and a name")
    };
    let death = rest.first().map(|death| death.parse()).transpose().map_err(anyhow::Error::msg)?;
    worker::run(server, ledger, name, 16, death).await
}

async fn harness(cli: Cli) -> anyhow::Result<bool> {
    let Cli { tier, common } = cli;
    let seed = common.seed.unwrap_or_else(|| backstitch_chaos::timeline::now_ms().unsigned_abs());
    let mut args: Vec<String> = std::env::args().skip(1).collect();
    if common.seed.is_none() {
        args.push(format!("--seed {seed}"));
    }
    let mut report = Report::new(&format!("backstitch-chaos {}", args.join(" ")));
    println!("seed {seed}");
    let (program, other) = (common.program.as_deref(), common.other.as_deref());
    let ground = Ground::start(program, other, plan::SETTINGS, common.keep).await?;
    match tier {
        Tier::Points { shape, point, most } => {
            points::run(&ground, &Choice { shape, point, most, seed }, &mut report).await?;
        }
        Tier::Drills { only } => drills::run(&ground, only.as_deref(), &mut report).await?,
        Tier::Tester { only } => {
            drills::test_the_tester(&ground, only.as_deref(), &mut report).await?;
        }
        Tier::Attacks { only, short, seconds, floor, memory } => {
            let choice = attacks::Choice { only, short, seconds, seed, floor_ms: floor, memory };
            attacks::run(&ground, program, &choice, &mut report).await?;
        }
        Tier::Plan { seconds, only } => {
            let span = Duration::from_secs(seconds);
            plan::run(ground, &Plan { seed, span, only, bug: None }, &mut report).await?;
        }
        Tier::Short => tiers::short(ground, seed, &mut report).await?,
        Tier::Long { minutes } => {
            let span = Duration::from_secs(60 * minutes);
            tiers::long(ground, seed, span, &mut report).await?;
        }
    }
    Ok(report.conclude())
}
