//! The verbs that ask a server: each asks one operation of the API, and is made from what the OpenAPI document says of
//! it, so that there is no verb without an operation and no operation without a verb.

mod args;
mod client;
mod draw;
mod operation;
mod profile;
mod table;
mod verbs;
mod watch;

use std::fmt;
use std::process::ExitCode;

use backstitch_saga::protocol::{Outcome, Problem, RunTree, RunView};
use clap::{ArgMatches, Command};
use serde_json::value::RawValue;

use args::Asked;
use client::{Answer, Client};
use profile::{Output, Profile};
pub use verbs::WITHOUT_VERB;
use verbs::{Does, Verb};

/// Why a verb did not do what it was to do.
#[derive(Debug)]
pub(crate) enum Failure {
    /// It was asked wrongly.
    Usage(String),
    /// The server refused it.
    Refused(Box<Problem>),
    /// The server was not reached, or its answer was lost.
    Unreachable(String),
}

/// The exit codes, as `docs/cli.md` tells them.
mod exit {
    pub(super) const FAILED: u8 = 1;
    pub(super) const USAGE: u8 = 2;
    pub(super) const NOT_FOUND: u8 = 3;
    pub(super) const NOT_ALLOWED: u8 = 4;
    pub(super) const UNREACHABLE: u8 = 5;
    pub(super) const STILL_MOVES: u8 = 6;
    pub(super) const NOT_ALL: u8 = 7;
}

impl Failure {
    fn exit_code(&self) -> u8 {
        match self {
            Failure::Usage(_) => exit::USAGE,
            Failure::Unreachable(_) => exit::UNREACHABLE,
            Failure::Refused(problem) => match problem.status {
                400 | 422 => exit::USAGE,
                401 | 403 | 421 => exit::NOT_ALLOWED,
                404 => exit::NOT_FOUND,
                503 => exit::UNREACHABLE,
                _ => exit::FAILED,
            },
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Usage(message) | Failure::Unreachable(message) => f.write_str(message),
            Failure::Refused(problem) => {
                let detail = problem.detail.as_deref().unwrap_or(&problem.title);
                write!(f, "{detail} ({})", problem.code)?;
                for violation in problem.errors.iter().skip(1) {
                    write!(f, "\n  {violation}")?;
                }
                Ok(())
            }
        }
    }
}

#[cfg(feature = "fuzz")]
pub(crate) use profile::parse as parse_profile;

/// Adds the verbs to the program.
pub(super) fn add(mut program: Command) -> Command {
    for verb in verbs::all() {
        let command = args::command(&verb);
        if verb.group.is_empty() {
            program = program.subcommand(command);
            continue;
        }
        if program.find_subcommand(&verb.group).is_none() {
            let group = Command::new(verb.group.clone()).about(verbs::about(&verb.group));
            program =
                program.subcommand(group.subcommand_required(true).arg_required_else_help(true));
        }
        program = program.mut_subcommand(verb.group, |group| group.subcommand(command));
    }
    program
}

/// Each verb with an example, and what it is for.
pub(super) fn listed() -> Vec<(String, String)> {
    let line = |verb: &Verb| (args::example(verb), args::about(verb));
    verbs::all().iter().map(line).collect()
}

/// The verb that was typed, if it is one of ours.
pub(super) fn find(matches: &ArgMatches) -> Option<(Verb, ArgMatches)> {
    let (first, inner) = matches.subcommand()?;
    let (group, name, inner) = match inner.subcommand() {
        Some((name, innermost)) => (first, name, innermost),
        None => ("", first, inner),
    };
    let ours = |verb: &Verb| verb.group == group && verb.name == name;
    Some((verbs::all().into_iter().find(ours)?, inner.clone()))
}

/// Does what the verb says, and says how it went.
pub(super) async fn run(verb: &Verb, matches: &ArgMatches) -> ExitCode {
    match ask(verb, matches).await {
        Ok(code) => ExitCode::from(code),
        Err(failure) => {
            eprintln!("backstitch: {failure}");
            ExitCode::from(failure.exit_code())
        }
    }
}

async fn ask(verb: &Verb, matches: &ArgMatches) -> Result<u8, Failure> {
    let profile = Profile::of(matches).map_err(|error| Failure::Usage(format!("{error:#}")))?;
    let output = profile.output.unwrap_or_default();
    let client = Client::new(&profile)?;
    let asked = args::asked(verb, matches)?;
    if verb.does == Does::Watch {
        return match verb.operation.answer.as_deref() {
            Some("JobView") => watch::job(&client, &asked, output).await,
            _ => watch::run(&client, &asked, output).await,
        };
    }
    let answer = match matches.try_get_one::<bool>("all") {
        Ok(Some(true)) => all_pages(&client, asked.clone()).await?,
        _ => client.ask(&asked).await?,
    };
    print(&client, verb, &asked, &answer, output).await?;
    Ok(exit_code(&asked, &answer))
}

/// 207 and 202 are no errors, but not a full success either.
fn exit_code(asked: &Asked, answer: &Answer) -> u8 {
    let waited = asked.query.iter().any(|(name, _)| name == "wait");
    match answer.status {
        207 => exit::NOT_ALL,
        202 if waited => exit::STILL_MOVES,
        _ => 0,
    }
}

/// How the end of a run is told to who started this program.
fn exit_of(outcome: Option<Outcome>) -> u8 {
    match outcome {
        Some(Outcome::Succeeded) => 0,
        Some(_) => exit::NOT_ALL,
        None => exit::STILL_MOVES,
    }
}

/// A page of a list, its elements as they were sent.
#[derive(serde::Deserialize, serde::Serialize)]
struct Page {
    items: Vec<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next: Option<String>,
}

/// All pages as one.
async fn all_pages(client: &Client, mut asked: Asked) -> Result<Answer, Failure> {
    let mut items = Vec::new();
    loop {
        let mut answer = client.ask(&asked).await?;
        let Ok(page) = serde_json::from_str::<Page>(&answer.text) else { return Ok(answer) };
        items.extend(page.items);
        let Some(next) = page.next else {
            let whole = Page { items, next: None };
            answer.text = serde_json::to_string(&whole).unwrap_or(answer.text);
            return Ok(answer);
        };
        asked.query.retain(|(name, _)| name != "after");
        asked.query.push(("after".to_owned(), next));
    }
}

/// Prints an answer as it was asked for.
async fn print(
    client: &Client,
    verb: &Verb,
    asked: &Asked,
    answer: &Answer,
    output: Output,
) -> Result<(), Failure> {
    if answer.text.is_empty() {
        eprintln!("Done.");
        return Ok(());
    }
    if output == Output::Json {
        println!("{}", answer.text);
        return Ok(());
    }
    if let Ok(view) = serde_json::from_str::<RunView>(&answer.text) {
        let graph = client.graph(&view).await;
        print!("{}", draw::run(&view, graph.as_deref()));
        return Ok(());
    }
    if let Ok(tree) = serde_json::from_str::<RunTree>(&answer.text) {
        print!("{}", draw::tree(&tree));
        return Ok(());
    }
    let kind = verb.operation.answer.as_deref().unwrap_or_default();
    print!("{}", table::answer(kind, &answer.text));
    if let Ok(Page { next: Some(next), .. }) = serde_json::from_str(&answer.text) {
        eprintln!("There is more: --after {next}, or --all.");
    }
    if let Some(id) = started_id(asked, &answer.text) {
        eprintln!("See how it goes: backstitch run watch {id}");
    }
    Ok(())
}

/// The id of a run that was just started.
fn started_id(asked: &Asked, text: &str) -> Option<String> {
    let started: backstitch_saga::protocol::RunStarted = serde_json::from_str(text).ok()?;
    (asked.path == "/v1/runs").then(|| started.id.to_string())
}
