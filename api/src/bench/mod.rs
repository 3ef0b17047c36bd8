//! `backstitch bench`: how fast is it on this machine, and how close to what PostgreSQL itself can write?
//!
//! Everything is as in earnest: PostgreSQL, servers and workers are processes of their own, all parts talk over HTTP,
//! every commit is durable. What each workload is, and how each figure comes about, stands in `docs/performance.md`.

mod cpu;
mod events;
mod figures;
mod flight;
mod flows;
mod intake;
mod measure;
mod noisy;
mod population;
mod stage;
mod starter;

use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};

use crate::cli::DatabaseArgs;
use crate::cli::Form;
use crate::print;
use figures::Figures;
pub(crate) use flows::{WorkerArgs, work};
pub(crate) use intake::{ByHandArgs, by_hand};
use measure::Load;
use population::Population;
use stage::Ground;

/// A workload.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum Workload {
    /// Throughput: sagas of five steps in sequence, many in flight
    W1,
    /// Latency: one run at a time, per hand-off between two steps
    W2,
    /// Fan-out: one step, many items, one step
    W3,
    /// Starts accepted, with no worker
    W4,
    /// Compensation: W1 whose fifth step fails for good
    W5,
    /// W1 beside a large standing population
    W6,
    /// W1 on one, two and three servers with one PostgreSQL
    W7,
    /// Intake: signed documents that are mapped, one a request and in batches, and what a team would write by hand
    W8,
    /// Consumers: four read the log over HTTP
    W10,
    /// Numbering: W1 whose starts and ends are events of the log
    Numbering,
    /// A noisy neighbour: what one namespace notices of the flood of another
    Noisy,
}

/// What to measure, and how long.
#[derive(Args)]
pub(crate) struct BenchOptions {
    /// Which workloads; may be given several times
    #[arg(long = "workload", value_enum, value_name = "WORKLOAD",
        default_values_t = [Workload::W1, Workload::W2, Workload::W3, Workload::W4, Workload::W5])]
    workloads: Vec<Workload>,
    /// How long each is measured, after a fifth of that (at most three seconds) to warm up
    #[arg(long, default_value_t = 10)]
    seconds: u64,
    /// Measure only until so many runs have ended
    #[arg(long)]
    runs: Option<u64>,
    /// How often each is measured, each time on a fresh database; the figures are medians
    #[arg(long, default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..))]
    repeat: u32,
    /// Measure the bare statements of each load, too, and say what share of them was reached
    #[arg(long)]
    floor: bool,
    /// Runs in flight
    #[arg(long, default_value_t = 256)]
    in_flight: usize,
    /// Connections that start runs
    #[arg(long, default_value_t = 32)]
    connections: usize,
    /// The most starts that share a request: those that are due at the same moment do
    #[arg(long, default_value_t = 64, value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(1..=1_000))]
    starts_per_request: usize,
    /// Items of the fan-outs; may be given several times
    #[arg(long, default_values_t = [1_000, 10_000, 100_000])]
    items: Vec<u32>,
    /// Events of the log that consumers read
    #[arg(long, default_value_t = 100_000)]
    events: usize,
    /// Ended runs of the standing population
    #[arg(long, default_value_t = 1_000_000)]
    ended: usize,
    /// Waiting runs of the standing population
    #[arg(long, default_value_t = 100_000)]
    waiting: usize,
    /// How the figures are printed: a table, or one JSON object a line for each workload [default: table]
    #[arg(short, long, value_enum)]
    output: Option<Form>,
    /// A PostgreSQL server to use, by the URL of any of its databases: scratch databases are made beside it and
    /// dropped. Without it, a private server in the directory for temporary files (TMPDIR)
    #[command(flatten)]
    database: DatabaseArgs,
    /// A setting of the private server, as NAME=VALUE
    #[arg(long = "setting", value_name = "SETTING", value_parser = setting)]
    settings: Vec<(String, String)>,
    /// Keep the logs of servers and workers in this directory
    #[arg(long)]
    logs: Option<PathBuf>,
}

fn setting(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("it must be like NAME=VALUE")?;
    Ok((name.to_owned(), value.to_owned()))
}

impl BenchOptions {
    fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.max(1))
    }

    fn warm_up(&self) -> Duration {
        (self.time() / 5).min(Duration::from_secs(3))
    }

    /// Returns the time for the floor, which is steady and needs less than the load.
    fn floor_time(&self) -> Duration {
        self.time().clamp(Duration::from_secs(2), Duration::from_secs(10))
    }
}

/// Measures what was asked for and prints it.
pub(crate) async fn run(mut options: BenchOptions, form: Option<Form>) -> anyhow::Result<()> {
    options.output = options.output.or(form);
    let mut ground = Ground::prepare(
        options.database.given()?.as_deref(),
        &options.settings,
        options.logs.clone(),
    )
    .await?;
    print::note(format_args!("{}; {}", cpu::machine(), ground.server));
    let measured = all(&mut ground, &options).await;
    ground.clear().await;
    let measured = measured?;
    if options.output.unwrap_or_default() == Form::Table {
        print::line(figures::tables(&measured));
    }
    Ok(())
}

/// Measures everything in each repetition, so that an hour in which the machine is slow is slow for all.
async fn all(ground: &mut Ground, options: &BenchOptions) -> anyhow::Result<Vec<Figures>> {
    let kinds: Vec<(Workload, u32)> = options
        .workloads
        .iter()
        .flat_map(|workload| workload.variants(options).into_iter().map(|kind| (*workload, kind)))
        .collect();
    let mut repetitions: Vec<Vec<Figures>> = vec![Vec::new(); kinds.len()];
    for repetition in 1..=options.repeat {
        for ((workload, variant), repetitions) in kinds.iter().zip(&mut repetitions) {
            let figures = workload.measure(ground, options, *variant).await?;
            let name = figures.variant.as_deref().unwrap_or_default();
            let workload = &figures.workload;
            let found = match figures.get("steps_per_s") {
                Some(rate) => format!("{rate:.0} steps/s"),
                None => {
                    format!("a start within {:.1} ms", figures.get("p99_ms").unwrap_or_default())
                }
            };
            print::note(format_args!("{workload} {name} {repetition}/{}: {found}", options.repeat));
            repetitions.push(figures);
        }
    }
    let measured: Vec<Figures> =
        repetitions.iter().filter_map(|one| figures::median(one)).collect();
    if options.output.unwrap_or_default() == Form::Json {
        for figures in &measured {
            print::line(serde_json::to_string(figures)?);
        }
    }
    Ok(measured)
}

impl Workload {
    /// Returns the sizes in which it is measured: items of W3, servers of W7, kinds of noise.
    fn variants(self, options: &BenchOptions) -> Vec<u32> {
        match self {
            Workload::W3 => options.items.clone(),
            Workload::W7 => vec![1, 2, 3],
            Workload::Noisy => noisy::variants(),
            Workload::W8 => vec![1, 2, 3],
            _ => vec![1],
        }
    }

    /// Measures it once, on a fresh database.
    async fn measure(
        self,
        ground: &mut Ground,
        options: &BenchOptions,
        variant: u32,
    ) -> anyhow::Result<Figures> {
        let name = format!("{self:?}").to_lowercase();
        let mut figures = Figures { workload: name, repeats: 1, ..Figures::default() };
        let steady = Load {
            in_flight: options.in_flight,
            nodes: 1,
            fails: false,
            hand_offs: false,
            told: false,
        };
        let out = &mut figures;
        match self {
            Workload::W1 => measure::sagas(ground, options, steady, None, out).await?,
            Workload::W2 => {
                let alone = Load { in_flight: 1, hand_offs: true, ..steady };
                measure::sagas(ground, options, alone, None, out).await?;
            }
            Workload::W3 => {
                out.variant = Some(format!("{variant} items"));
                measure::fan_out(ground, options, variant, out).await?;
            }
            Workload::W4 => measure::starts(ground, options, out).await?,
            Workload::W5 => {
                let failing = Load { fails: true, ..steady };
                measure::sagas(ground, options, failing, None, out).await?;
            }
            Workload::W6 => {
                let population = Population { ended: options.ended, waiting: options.waiting };
                out.variant = Some(format!("{} ended, {} waiting", options.ended, options.waiting));
                measure::sagas(ground, options, steady, Some(&population), out).await?;
            }
            Workload::W7 => {
                out.variant = Some(format!("{variant} servers"));
                let nodes = usize::try_from(variant)?;
                measure::sagas(ground, options, Load { nodes, ..steady }, None, out).await?;
            }
            Workload::W8 => {
                let kind = intake::Kind::of(variant);
                out.variant = Some(kind.name().to_owned());
                intake::measure(ground, options, kind, out).await?;
            }
            Workload::W10 => {
                out.variant = Some(format!("{} events", options.events));
                events::consume(ground, options, out).await?;
            }
            Workload::Numbering => {
                measure::sagas(ground, options, Load { told: true, ..steady }, None, out).await?;
            }
            Workload::Noisy => noisy::measure(ground, options, variant, out).await?,
        }
        Ok(figures)
    }
}
