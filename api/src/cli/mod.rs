//! The command line: `backstitch VERB`. Flags go before `BACKSTITCH_*` variables, those before defaults.
//!
//! Exit codes: 0 it is done; 1 it failed, or found something wrong; 2 it was asked wrongly, or PostgreSQL's programs
//! are missing; 141 nobody reads its output any more; those of verbs that ask a server stand in `remote`.

mod browser;
mod database;
mod dev;
mod doctor;
mod grant;
mod key;
mod log;
mod rehearse;
mod remote;
mod secret;
mod serve;
mod workflow;

use std::process::ExitCode;

use backstitch_engine::local_postgres::LocalPostgresError;
use clap::{Command, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::bench::{self, BenchOptions, ByHandArgs, WorkerArgs};
use crate::demo::{self, DemoOptions};
use crate::print;

pub(crate) use browser::open as open_browser;
pub(crate) use database::DatabaseArgs;
pub(crate) use remote::Form;
pub(crate) use serve::asked_to_stop;

/// Backstitch: a durable saga engine on PostgreSQL.
#[derive(Parser)]
#[command(name = "backstitch", version, max_term_width = 100)]
struct Cli {
    /// How the log is written: text or json. What is logged: RUST_LOG, such as `info,backstitch_api=debug`
    #[arg(long, global = true, env = "BACKSTITCH_LOG_FORMAT", default_value = "text")]
    log: log::Format,
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Subcommand)]
enum Verb {
    /// Serve the API against your PostgreSQL
    Serve(serve::ServeArgs),
    /// Bring the schema of your PostgreSQL up to date
    Migrate(DatabaseArgs),
    /// Start a private PostgreSQL that keeps its data, and an open server on this machine
    Dev(dev::DevArgs),
    /// Compare the indexes with the journals, and repair them
    Doctor(doctor::DoctorArgs),
    /// Give the role that servers connect as its rights
    #[command(subcommand)]
    Database(grant::DatabaseVerb),
    /// Create and revoke credentials in the database, such as the first admin
    #[command(subcommand)]
    Key(key::KeyVerb),
    /// Register, inspect, pause and migrate workflows
    #[command(subcommand)]
    Workflow(workflow::WorkflowVerb),
    /// Run a definition through every fault at every step, and each pair of faults, without a server
    Rehearse(rehearse::RehearseArgs),
    /// Run a demonstration: a shop with three services, orders that succeed, fail, and are undone
    Demo(DemoOptions),
    /// Measure how fast it is on this machine, and how close to what PostgreSQL can write
    ///
    /// Without a database URL it starts a private PostgreSQL server in the directory for temporary files (TMPDIR); with
    /// one, it makes scratch databases on that server and drops them.
    Bench(BenchOptions),
    /// Print the completions of a shell: `source <(backstitch completions bash)`
    Completions {
        /// Which shell
        shell: clap_complete::Shell,
    },
    /// Be the worker of a benchmark
    #[command(hide = true)]
    BenchWorker(WorkerArgs),
    /// Be what takes in documents by hand in a benchmark
    #[command(hide = true)]
    BenchByHand(ByHandArgs),
    /// Be one process of the demo's shop
    #[command(subcommand, hide = true)]
    Shop(backstitch_shop::cli::Command),
}

/// The whole command line: what is done here, and what a server is asked.
fn program() -> Command {
    remote::add(Cli::command())
}

/// The verbs that ask a server: for each an example of what is typed, and what it is for.
#[must_use]
pub fn verbs() -> Vec<(String, String)> {
    remote::listed()
}

pub use remote::WITHOUT_VERB as OPERATIONS_WITHOUT_VERB;
#[cfg(feature = "fuzz")]
pub(crate) use remote::parse_profile;

/// After how many pieces of work a thread looks which connections have something to read. A piece may take milliseconds where
/// one caller asks for much, and others must not wait for many of them.
const EVENT_INTERVAL: u32 = 16;

/// Runs the program: reads the command line, does what it says, and says how it went.
pub fn main() -> ExitCode {
    let matches = program().try_get_matches().unwrap_or_else(|error| refuse(&error));
    // The handlers of the bench wait for nothing: more threads would only hand its worker's tasks to each other.
    let mut runtime = match matches.subcommand_name() {
        Some("bench-worker") => tokio::runtime::Builder::new_current_thread(),
        _ => tokio::runtime::Builder::new_multi_thread(),
    };
    let runtime = match runtime.enable_all().event_interval(EVENT_INTERVAL).build() {
        Ok(runtime) => runtime,
        Err(error) => {
            print::note(format_args!("backstitch: the runtime does not start: {error}"));
            return ExitCode::FAILURE;
        }
    };
    if let Some((verb, levels)) = remote::find(&matches) {
        return runtime.block_on(remote::run(&verb, &levels));
    }
    if let Err(error) = remote::not_for_local(&matches) {
        program().error(clap::error::ErrorKind::ArgumentConflict, error).exit();
    }
    let form = matches.get_one::<Form>("at:output").copied();
    let cli = Cli::from_arg_matches(&matches).unwrap_or_else(|error| error.exit());
    log::start(cli.log, matches!(cli.verb, Verb::Serve(_) | Verb::Dev(_)));
    match runtime.block_on(run(cli.verb, cli.log, form)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            cli.log.fail(&error);
            let missing = matches!(error.downcast_ref(), Some(LocalPostgresError::NotFound(_)));
            match missing || error.is::<workflow::Unreadable>() {
                true => ExitCode::from(2),
                false => ExitCode::FAILURE,
            }
        }
    }
}

/// Ends the program that was asked wrongly, or for help.
fn refuse(error: &clap::Error) -> ! {
    use clap::error::{ContextKind, ErrorKind};
    // Where help or an error cannot be printed, the exit code still tells.
    let _ = error.print();
    let of_output =
        error.get(ContextKind::InvalidArg).is_some_and(|arg| arg.to_string().contains("--output"));
    if error.kind() == ErrorKind::InvalidValue && of_output {
        print::note(
            "--output is the form of the answer; the output of a step is given with --set-output.",
        );
    }
    std::process::exit(error.exit_code())
}

/// Does what the verb says; `false` when it found something wrong. `form` is the `--output` that stands before the verb.
async fn run(verb: Verb, log: log::Format, form: Option<Form>) -> anyhow::Result<bool> {
    match verb {
        Verb::Serve(args) => serve::run(args, log).await.map(|()| true),
        Verb::Migrate(args) => {
            backstitch_engine::migrate(&args.url()?).await?;
            print::line("The schema is up to date.");
            Ok(true)
        }
        Verb::Dev(args) => dev::run(args, log).await.map(|()| true),
        Verb::Doctor(args) => doctor::run(&args).await,
        Verb::Database(verb) => grant::run(verb).await.map(|()| true),
        Verb::Key(verb) => key::run(verb).await.map(|()| true),
        Verb::Workflow(verb) => workflow::run(&verb),
        Verb::Rehearse(args) => rehearse::run(&args, form),
        Verb::Demo(options) => demo::run(options).await,
        Verb::Bench(options) => bench::run(options, form).await.map(|()| true),
        Verb::Completions { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut program(), "backstitch", &mut script);
            print::text(String::from_utf8_lossy(&script));
            Ok(true)
        }
        Verb::BenchWorker(args) => bench::work(args).await.map(|()| true),
        Verb::BenchByHand(args) => bench::by_hand(args).await.map(|()| true),
        Verb::Shop(command) => backstitch_shop::cli::run(command).await.map(|()| true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_well_formed() {
        program().debug_assert();
    }

    /// Notes each argument below `command` that help shows without saying what it is for.
    fn undescribed(command: &Command, path: &str, found: &mut Vec<String>) {
        let path = format!("{path} {}", command.get_name());
        let says = |text: Option<&clap::builder::StyledStr>| {
            text.is_some_and(|text| !text.to_string().trim().is_empty())
        };
        if command.get_name() != "backstitch" && !says(command.get_about()) {
            found.push(path.clone());
        }
        for arg in command.get_arguments().filter(|arg| !arg.is_hide_set()) {
            if !says(arg.get_help()) && !says(arg.get_long_help()) {
                found.push(format!("{path}: {}", arg.get_id()));
            }
        }
        for inner in command.get_subcommands().filter(|inner| !inner.is_hide_set()) {
            undescribed(inner, &path, found);
        }
    }

    #[test]
    fn every_verb_and_every_flag_says_what_it_is_for() {
        let mut found = Vec::new();
        undescribed(&program(), "", &mut found);
        assert!(found.is_empty(), "without a description: {found:#?}");
        let odd = Command::new("odd").arg(clap::Arg::new("flag").long("flag"));
        undescribed(&odd, "", &mut found);
        assert_eq!(found, [" odd", " odd: flag"]);
    }
}
